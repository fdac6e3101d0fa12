//! The block allocation table: which payload block lies where (MS-VHDX 2.5).

use crate::error::{BlockError, FileReadError};
use crate::format::{
    BAT_OFFSET_MASK, BAT_STATE_MASK, PAYLOAD_BLOCK_FULLY_PRESENT, PAYLOAD_BLOCK_ZERO,
};
use crate::geometry::Geometry;
use crate::source::{Image, ReadAt};
use crate::units::{FileOffset, MIB, PayloadBlock, buffer_index};

/// Which payload blocks are in the file, one bit each: at most 8 MiB, 128 KiB for the 2 MiB
/// blocks of a 2 TiB disk.
///
/// The k-th block that is marked lies at `data_offset + k * block_size`. So the whole BAT follows
/// from the marks, and is never held in memory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct AllocationMap {
    bits: Vec<u8>,
    allocated: u64,
}

impl AllocationMap {
    pub(crate) fn new(geometry: &Geometry) -> Self {
        Self {
            bits: vec![0; map_length(geometry)],
            allocated: 0,
        }
    }

    /// The map whose bits are `bits`, or `None` if that many bits don't fit the geometry, or one
    /// behind the last block is set.
    pub(crate) fn from_bits(geometry: &Geometry, bits: &[u8]) -> Option<Self> {
        if bits.len() != map_length(geometry) {
            return None;
        }
        let map = Self {
            bits: bits.to_vec(),
            allocated: bits.iter().map(|byte| u64::from(byte.count_ones())).sum(),
        };
        let last = map.last();
        (last.is_none_or(|block| block.0 < geometry.block_count())).then_some(map)
    }

    pub(crate) fn bits(&self) -> &[u8] {
        &self.bits
    }

    /// How many blocks are marked.
    pub(crate) fn allocated(&self) -> u64 {
        self.allocated
    }

    pub(crate) fn is_allocated(&self, block: PayloadBlock) -> bool {
        let (byte, mask) = position(block);
        self.bits.get(byte).is_some_and(|bits| bits & mask != 0)
    }

    /// How many blocks before `block` are marked, if it is marked itself.
    pub(crate) fn rank(&self, block: PayloadBlock) -> Option<u64> {
        if !self.is_allocated(block) {
            return None;
        }
        let (byte, mask) = position(block);
        let (whole, rest) = self.bits.split_at_checked(byte)?;
        let before = whole
            .iter()
            .map(|bits| u64::from(bits.count_ones()))
            .sum::<u64>();
        let below = mask - 1;
        Some(
            before
                + rest
                    .first()
                    .map_or(0, |bits| u64::from((bits & below).count_ones())),
        )
    }

    /// Marks `block`, which must lie on the disk.
    pub(crate) fn allocate(&mut self, block: PayloadBlock) {
        let (byte, mask) = position(block);
        if let Some(bits) = self.bits.get_mut(byte)
            && *bits & mask == 0
        {
            *bits |= mask;
            self.allocated += 1;
        }
    }

    /// The last block that is marked.
    pub(crate) fn last(&self) -> Option<PayloadBlock> {
        let byte = self.bits.iter().rposition(|bits| *bits != 0)?;
        let bit = self.bits.get(byte)?.checked_ilog2()?;
        Some(PayloadBlock(u64::try_from(byte).ok()? * 8 + u64::from(bit)))
    }
}

/// Produces a BAT region from its first byte to its last, a piece at a time.
#[derive(Clone, Debug)]
pub(crate) struct BatPieces {
    geometry: Geometry,
    map: AllocationMap,
    next_index: u64,
    next_offset: FileOffset,
}

impl BatPieces {
    pub(crate) fn new(geometry: Geometry, map: AllocationMap) -> Self {
        Self {
            geometry,
            map,
            next_index: 0,
            next_offset: geometry.data_offset(),
        }
    }

    /// The entry at `index`, which comes after the one before it.
    fn entry(&mut self, index: u64) -> u64 {
        match self.geometry.block_of_bat_index(index) {
            // The slot of a sector bitmap, which only a disk with a parent has (2.5.1.2).
            None => 0,
            Some(block) if self.map.is_allocated(block) => {
                let offset = self.next_offset.0;
                self.next_offset.0 += self.geometry.block_size().bytes();
                offset | PAYLOAD_BLOCK_FULLY_PRESENT
            }
            // Not NOT_PRESENT, under which the content is undefined (2.5.1.1); and without an
            // offset, as Hyper-V refuses a block of zeros that has one.
            Some(_) => PAYLOAD_BLOCK_ZERO,
        }
    }
}

/// Each piece has 1 MiB, of which a region is a whole number.
impl Iterator for BatPieces {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.next_index * ENTRY_LENGTH >= self.geometry.bat_region_length() {
            return None;
        }
        let end = self.next_index + MIB / ENTRY_LENGTH;
        let mut piece = Vec::with_capacity(buffer_index(MIB));
        for index in self.next_index..end.min(self.geometry.bat_entry_count()) {
            piece.extend_from_slice(&self.entry(index).to_le_bytes());
        }
        // Behind the last entry the region is zero.
        piece.resize(buffer_index(MIB), 0);
        self.next_index = end;
        Some(piece)
    }
}

/// Where the content of a payload block is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    At(FileOffset),
    /// Nowhere: it reads as zeros.
    Zero,
}

/// What the BAT `entry` of `block` says, in a file of `file_length` bytes without a parent.
pub(crate) fn decode(
    geometry: &Geometry,
    block: PayloadBlock,
    entry: u64,
    file_length: u64,
) -> Result<Place, BlockError> {
    let invalid = |reason| {
        Err(BlockError::Entry {
            block,
            entry,
            reason,
        })
    };
    if entry & !(BAT_OFFSET_MASK | BAT_STATE_MASK) != 0 {
        return invalid("bits 3 to 19 must be zero");
    }
    match entry & BAT_STATE_MASK {
        // NOT_PRESENT, UNDEFINED, ZERO, UNMAPPED. In the first two the content is undefined,
        // and zeros are what everybody reads there.
        0..=3 => return Ok(Place::Zero),
        PAYLOAD_BLOCK_FULLY_PRESENT => {}
        7 => return invalid("only a differencing disk has blocks that are partially present"),
        _ => return invalid("there is no such state"),
    }
    let offset = FileOffset(entry & BAT_OFFSET_MASK);
    if offset.0 == 0 {
        return invalid("a block can't lie over the head of the file");
    }
    let end = offset.0.saturating_add(geometry.block_size().bytes());
    if end > file_length {
        return Err(BlockError::Truncated {
            block,
            offset,
            end,
            file_length,
        });
    }
    Ok(Place::At(offset))
}

/// Reads the entries of up to `limit` payload blocks from `first` on, at most one page of them,
/// and passes over the slots of sector bitmaps, which some writers leave filled by mistake.
pub(crate) fn read_entries<R: ReadAt>(
    image: &Image<R>,
    geometry: &Geometry,
    bat_offset: u64,
    first: PayloadBlock,
    limit: u64,
) -> Result<Vec<(PayloadBlock, u64)>, FileReadError> {
    let index = geometry.bat_index(first);
    let left = geometry.bat_entry_count().saturating_sub(index);
    // One more than blocks are asked for, as one of the entries may be a bitmap's.
    let count = limit.saturating_add(1).min(left).min(ENTRIES_PER_READ);
    let mut bytes = vec![0; buffer_index(count * ENTRY_LENGTH)];
    image.read(FileOffset(bat_offset + index * ENTRY_LENGTH), &mut bytes)?;
    let entries = bytes
        .as_chunks()
        .0
        .iter()
        .map(|entry| u64::from_le_bytes(*entry));
    Ok((index..)
        .zip(entries)
        .filter_map(|(index, entry)| Some((geometry.block_of_bat_index(index)?, entry)))
        .collect())
}

fn map_length(geometry: &Geometry) -> usize {
    buffer_index(geometry.block_count().div_ceil(8))
}

fn position(block: PayloadBlock) -> (usize, u8) {
    (buffer_index(block.0 / 8), 1 << (block.0 % 8))
}

/// The length of a BAT entry in bytes.
pub(crate) const ENTRY_LENGTH: u64 = 8;
/// 64 KiB of them.
const ENTRIES_PER_READ: u64 = 8192;
