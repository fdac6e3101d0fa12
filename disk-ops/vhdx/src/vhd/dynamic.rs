//! The block table of a dynamic VHD.
//!
//! ```text
//!  BAT: u32 per block, in sectors --> | sector bitmap (whole sectors) | block |
//!                                       bit clear: the sector is zero
//! ```
//!
//! The table is held in memory: at most [`MAX_BLOCKS`] entries, 16 MiB, and a second time while it
//! is checked.

use std::ops::Range;

use zerocopy::FromBytes;

use super::format::{
    DYNAMIC_CHECKSUM_OFFSET, DYNAMIC_COOKIE, DYNAMIC_HEADER_LENGTH, DynamicHeader, FOOTER_LENGTH,
    Footer, SECTOR_LENGTH, UNUSED_ENTRY, checksum,
};
use crate::error::{BlockError, FileReadError, OpenError};
use crate::reader::Extent;
use crate::source::{Image, ReadAt};
use crate::units::{FileOffset, PayloadBlock, VirtualOffset, buffer_index, length_of};

#[derive(Debug)]
pub(super) struct DynamicTable {
    block_size: u64,
    disk_size: u64,
    entries: Vec<u32>,
}

impl DynamicTable {
    /// Reads and checks the table: every block lies before `data_end`, where the last footer is,
    /// and over nothing else.
    pub(super) fn read<R: ReadAt>(
        image: &Image<R>,
        footer: &Footer,
        data_end: u64,
    ) -> Result<Self, OpenError> {
        let (header, at) = read_header(image, footer)?;
        let block_size = u64::from(header.block_size.get());
        if !block_size.is_power_of_two() || !(SECTOR_LENGTH..=MAX_BLOCK_SIZE).contains(&block_size)
        {
            let expected = "a power of two from 512 bytes to 256 MiB";
            return Err(OpenError::invalid(
                "the block size",
                at,
                expected,
                block_size,
            ));
        }
        let disk_size = footer.current_size.get();
        let blocks = disk_size.div_ceil(block_size);
        let claimed = u64::from(header.max_table_entries.get());
        if claimed < blocks || blocks > MAX_BLOCKS {
            return Err(OpenError::invalid(
                "the number of table entries",
                at,
                format!("one for each of {blocks} blocks, of which {MAX_BLOCKS} are read"),
                claimed,
            ));
        }
        let length = buffer_index(blocks.saturating_mul(4));
        let table_offset = header.table_offset.get();
        let bytes = image.structure("the BAT", table_offset, length)?;
        let entries = bytes
            .as_chunks()
            .0
            .iter()
            .map(|entry| u32::from_be_bytes(*entry))
            .collect();
        drop(bytes);
        let table = Self {
            block_size,
            disk_size,
            entries,
        };
        // The sums can't overflow: both structures were read, and so lie in the file.
        let structures = [
            0..FOOTER_LENGTH,
            at..at + DYNAMIC_HEADER_LENGTH,
            table_offset..table_offset + blocks * 4,
        ];
        table.check(data_end, &structures)?;
        Ok(table)
    }

    fn check(&self, data_end: u64, structures: &[Range<u64>]) -> Result<(), BlockError> {
        let used = self.entries.iter().filter(|entry| **entry != UNUSED_ENTRY);
        let mut used: Vec<u32> = used.copied().collect();
        used.sort_unstable();
        let mut free = 0;
        for entry in used {
            let start = u64::from(entry) * SECTOR_LENGTH;
            let end = start + self.bitmap_length() + self.block_size;
            let offset = FileOffset(start);
            if end > data_end {
                return Err(BlockError::Truncated {
                    block: self.block_of(entry),
                    offset,
                    end,
                    file_length: data_end,
                });
            }
            let is_structure = structures
                .iter()
                .any(|structure| start < structure.end && structure.start < end);
            if start < free || is_structure {
                return Err(BlockError::Overlap {
                    block: self.block_of(entry),
                    offset,
                });
            }
            free = end;
        }
        Ok(())
    }

    /// The last block that `entry` is given for.
    fn block_of(&self, entry: u32) -> PayloadBlock {
        let blocks = (0..).map(PayloadBlock).zip(&self.entries);
        blocks
            .filter(|(_, other)| **other == entry)
            .last()
            .map_or(PayloadBlock(0), |(block, _)| block)
    }

    /// The run at `offset`, which lies on the disk. Where the table has no block, it may end
    /// early: who reads an empty disk in small parts must not have the whole table looked through
    /// for each.
    pub(super) fn run_at<R: ReadAt>(
        &self,
        image: &Image<R>,
        offset: VirtualOffset,
    ) -> Result<Extent, FileReadError> {
        let first = offset.0 / self.block_size;
        let inside = offset.0 % self.block_size;
        let mut entries = self.entries.iter().skip(buffer_index(first)).copied();
        let on_disk = self.disk_size.saturating_sub(offset.0);
        match entries.next() {
            Some(entry) if entry != UNUSED_ENTRY => {
                let start = u64::from(entry) * SECTOR_LENGTH;
                self.run_in_block(image, start, inside, on_disk)
            }
            _ => {
                let more = entries.take(UNUSED_PER_RUN - 1);
                let more = more.take_while(|entry| *entry == UNUSED_ENTRY);
                let blocks = more.fold(1_u64, |count, _| count + 1);
                let length = (blocks * self.block_size - inside).min(on_disk);
                Ok(Extent::Zero { length })
            }
        }
    }

    /// The run `inside` a block that begins at `start` with its sector bitmap. It ends at the
    /// latest with the sector of the bitmap, which speaks of 2 MiB.
    fn run_in_block<R: ReadAt>(
        &self,
        image: &Image<R>,
        start: u64,
        inside: u64,
        on_disk: u64,
    ) -> Result<Extent, FileReadError> {
        let sector = inside / SECTOR_LENGTH;
        let mut bitmap = [0; 512];
        let bitmap_at = start + sector / SECTORS_PER_BITMAP_SECTOR * SECTOR_LENGTH;
        image.read(FileOffset(bitmap_at), &mut bitmap)?;
        let bit = |sector: u64| {
            let sector = sector % SECTORS_PER_BITMAP_SECTOR;
            let byte = bitmap.get(buffer_index(sector / 8)).copied().unwrap_or(0);
            byte & (0x80 >> (sector % 8)) != 0
        };
        let is_data = bit(sector);
        let border = (sector + 1).next_multiple_of(SECTORS_PER_BITMAP_SECTOR);
        let limit = border.min(self.block_size / SECTOR_LENGTH);
        let end = (sector + 1..limit)
            .find(|next| bit(*next) != is_data)
            .unwrap_or(limit);
        let length = (end * SECTOR_LENGTH - inside).min(on_disk);
        Ok(if is_data {
            Extent::Data {
                file_offset: FileOffset(start + self.bitmap_length() + inside),
                length,
            }
        } else {
            Extent::Zero { length }
        })
    }

    /// One bit per sector, rounded up to whole sectors.
    fn bitmap_length(&self) -> u64 {
        (self.block_size / SECTOR_LENGTH)
            .div_ceil(8)
            .next_multiple_of(SECTOR_LENGTH)
    }
}

/// The name of the parent that the header of a differencing disk gives.
pub(super) fn parent_name<R: ReadAt>(image: &Image<R>, footer: &Footer) -> Option<String> {
    let (header, _) = read_header(image, footer).ok()?;
    let units = header.parent_unicode_name.iter().map(|unit| unit.get());
    let name: String = char::decode_utf16(units.take_while(|unit| *unit != 0))
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect();
    (!name.is_empty()).then_some(name)
}

/// The dynamic header and where it lies.
fn read_header<R: ReadAt>(
    image: &Image<R>,
    footer: &Footer,
) -> Result<(DynamicHeader, u64), OpenError> {
    let at = footer.data_offset.get();
    let bytes = image.structure(
        "the dynamic header",
        at,
        buffer_index(DYNAMIC_HEADER_LENGTH),
    )?;
    let sum = checksum(&bytes, DYNAMIC_CHECKSUM_OFFSET);
    let header = DynamicHeader::read_from_bytes(&bytes)
        .ok()
        .filter(|header| header.cookie == DYNAMIC_COOKIE && header.checksum.get() == sum)
        .ok_or_else(|| {
            let expected = "the cookie \"cxsparse\" and a valid checksum";
            let found = format!("{} bytes of something else", length_of(&bytes));
            OpenError::invalid("the dynamic header", at, expected, found)
        })?;
    if header.header_version.get() != HEADER_VERSION {
        let found = format!("{:#x}", header.header_version.get());
        return Err(OpenError::invalid(
            "the header version",
            at,
            "0x10000",
            found,
        ));
    }
    Ok((header, at))
}

const HEADER_VERSION: u32 = 0x0001_0000;
const MAX_BLOCK_SIZE: u64 = 256 << 20;
/// 2 TiB, more than entries of 32 bits reach, in blocks of 512 KiB, a quarter of the usual size.
const MAX_BLOCKS: u64 = 1 << 22;
/// How many entries in a row are looked at for one run.
const UNUSED_PER_RUN: usize = 8192;
const SECTORS_PER_BITMAP_SECTOR: u64 = 4096;
