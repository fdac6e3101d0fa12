//! The canonical VHDX writer: decides where everything lies; the caller writes it there.
//!
//! ```text
//!  place(range) ----> FileOffset       for data that is not all zeros, in ascending order
//!     ...                              the caller writes it there and fills gaps with zeros
//!  file_length() ---> FileOffset       the caller extends the file to here, with zeros
//!  finish(content) -> ClosingStep...   log, metadata, BAT | Flush | head | Flush
//! ```
//!
//! The k-th block that is touched lies at `data_offset + k * block_size`, so file offsets ascend
//! as disk offsets do, and every field of the file follows from the disk's content, its size and
//! sector sizes, and the block size. Nothing depends on time, chance, threads or chunk sizes. The
//! caller's part is to place no range that is all zeros ([`is_zero`](crate::is_zero)): it would
//! touch a block that another run of the same disk leaves out.
//!
//! Until the head is written, which happens last, the file begins with 1 MiB of zeros and no
//! reader takes it for a VHDX.
//!
//! Not done here: I/O, zero detection, blocks that share bytes, logs, parents.

use crate::bat::{AllocationMap, BatPieces};
use crate::content::ContentId;
use crate::format::{HEADER_OFFSETS, REGION_TABLE_OFFSETS};
use crate::geometry::{BAT_OFFSET, Geometry, LOG_OFFSET, METADATA_OFFSET};
use crate::header::{file_identifier, header};
use crate::identity::Identity;
use crate::metadata::metadata_region;
use crate::region::region_table;
use crate::units::{FileOffset, MIB, VirtualOffset, buffer_index, length_of};

/// Places the data of one disk in one VHDX file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VhdxWriter {
    geometry: Geometry,
    map: AllocationMap,
    /// The first byte of the disk that has not been placed or passed over.
    next: VirtualOffset,
}

impl VhdxWriter {
    /// A writer of a disk of which nothing has been placed yet.
    ///
    /// Keeps one bit per payload block: 128 KiB for 2 TiB in blocks of 2 MiB.
    pub fn new(geometry: Geometry) -> Self {
        Self {
            geometry,
            map: AllocationMap::new(&geometry),
            next: VirtualOffset(0),
        }
    }

    /// The shape of the disk and the file.
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Where the `length` bytes from `offset` of the disk belong in the file.
    ///
    /// What lies between two ranges in the file, and what is left of a block, must be zero.
    ///
    /// # Errors
    ///
    /// [`PlaceError`] when the range is empty, leaves the disk, crosses the border of a payload
    /// block, or begins before the end of one that was placed earlier. The writer is then as it
    /// was before.
    pub fn place(&mut self, offset: VirtualOffset, length: u64) -> Result<FileOffset, PlaceError> {
        let block_size = self.geometry.block_size().bytes();
        let disk_size = self.geometry.disk_size();
        let end = offset.0.checked_add(length).filter(|end| *end <= disk_size);
        let Some(end) = end else {
            return Err(PlaceError::OutsideDisk {
                offset,
                length,
                disk_size,
            });
        };
        if length == 0 {
            return Err(PlaceError::Empty { offset });
        }
        if offset < self.next {
            return Err(PlaceError::OutOfOrder {
                offset,
                next: self.next,
            });
        }
        let inside = offset.0 % block_size;
        if inside + length > block_size {
            return Err(PlaceError::CrossesBlocks {
                offset,
                length,
                block_size,
            });
        }
        self.map.allocate(self.geometry.block_at(offset));
        self.next = VirtualOffset(end);
        // Ranges ascend, so that this block is the last one allocated.
        let block_start = self.file_length().0 - block_size;
        Ok(FileOffset(block_start + inside))
    }

    /// Where in the file the payload block that holds `offset` begins, if it has been touched.
    ///
    /// Counts the blocks before it: not to be asked for every sector.
    pub fn locate(&self, offset: VirtualOffset) -> Option<FileOffset> {
        let rank = self.map.rank(self.geometry.block_at(offset))?;
        let payload = rank * self.geometry.block_size().bytes();
        Some(FileOffset(self.geometry.data_offset().0 + payload))
    }

    /// The first byte of the disk that may still be placed.
    pub const fn next(&self) -> VirtualOffset {
        self.next
    }

    /// The end of the last block that has been placed: the length the file must have.
    pub fn file_length(&self) -> FileOffset {
        let payload = self.map.allocated() * self.geometry.block_size().bytes();
        FileOffset(self.geometry.data_offset().0 + payload)
    }

    /// What is left to be written, in this order, once the file has its length.
    pub fn finish(self, content: ContentId) -> Closing {
        let identity = Identity::new(&content, self.geometry.block_size());
        Closing {
            geometry: self.geometry,
            identity,
            bat: BatPieces::new(self.geometry, self.map),
            bat_offset: BAT_OFFSET,
            stage: Stage::Log,
        }
    }

    /// The state as bytes, for [`restore`](Self::restore) in another process.
    pub fn save(&self) -> Vec<u8> {
        let mut bytes = saved_header(&self.geometry);
        bytes.extend_from_slice(&self.next.0.to_le_bytes());
        bytes.extend_from_slice(self.map.bits());
        let sum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The writer that [`save`](Self::save) saved.
    ///
    /// # Errors
    ///
    /// [`RestoreError`] when `bytes` were damaged, were saved from another geometry, or hold a
    /// state that no writer can be in.
    pub fn restore(geometry: Geometry, bytes: &[u8]) -> Result<Self, RestoreError> {
        let (body, sum) = bytes.split_last_chunk().ok_or(RestoreError::Damaged)?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*sum) {
            return Err(RestoreError::Damaged);
        }
        let rest = body
            .strip_prefix(saved_header(&geometry).as_slice())
            .ok_or(RestoreError::OtherGeometry)?;
        let (next, bits) = rest.split_first_chunk().ok_or(RestoreError::Damaged)?;
        let next = VirtualOffset(u64::from_le_bytes(*next));
        let map = AllocationMap::from_bits(&geometry, bits).ok_or(RestoreError::Impossible)?;
        // The last byte that was placed lies in the last block that was allocated.
        let last_placed = next.0.checked_sub(1).map(VirtualOffset);
        if next.0 > geometry.disk_size()
            || map.last() != last_placed.map(|offset| geometry.block_at(offset))
        {
            return Err(RestoreError::Impossible);
        }
        Ok(Self {
            geometry,
            map,
            next,
        })
    }
}

/// The steps that complete a file; see [`VhdxWriter::finish`].
#[derive(Clone, Debug)]
pub struct Closing {
    geometry: Geometry,
    identity: Identity,
    bat: BatPieces,
    bat_offset: FileOffset,
    stage: Stage,
}

/// One thing to be done to complete a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ClosingStep {
    /// Write `bytes`, at most 1 MiB, at `offset`.
    Write {
        /// Where in the file.
        offset: FileOffset,
        /// What.
        bytes: Vec<u8>,
    },
    /// Make all that was written so far durable, before anything else is written.
    Flush,
}

impl Iterator for Closing {
    type Item = ClosingStep;

    fn next(&mut self) -> Option<ClosingStep> {
        let (step, next) = match self.stage {
            Stage::Log => {
                let log = vec![0; buffer_index(MIB)];
                (write(LOG_OFFSET, log), Stage::Metadata)
            }
            Stage::Metadata => {
                let metadata = padded(metadata_region(&self.geometry, &self.identity));
                (write(METADATA_OFFSET, metadata), Stage::Bat)
            }
            Stage::Bat => match self.bat.next() {
                Some(piece) => {
                    let offset = self.bat_offset;
                    self.bat_offset.0 += length_of(&piece);
                    (write(offset, piece), Stage::Bat)
                }
                None => (ClosingStep::Flush, Stage::Head),
            },
            Stage::Head => {
                let head = head(&self.geometry, &self.identity);
                (write(FileOffset(0), head), Stage::LastFlush)
            }
            Stage::LastFlush => (ClosingStep::Flush, Stage::Done),
            Stage::Done => return None,
        };
        self.stage = next;
        Some(step)
    }
}

/// Why a range can't be placed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// The range lies in more than one payload block.
    #[error(
        "{length} bytes at {offset} of the disk cross a border of its {block_size}-byte blocks"
    )]
    CrossesBlocks {
        /// Where the range begins.
        offset: VirtualOffset,
        /// Its length in bytes.
        length: u64,
        /// The size of a payload block in bytes.
        block_size: u64,
    },
    /// The range has no bytes.
    #[error("an empty range at {offset} of the disk has no place")]
    Empty {
        /// Where the range begins.
        offset: VirtualOffset,
    },
    /// The range lies before the end of an earlier one.
    #[error("data at {offset} of the disk came after everything up to {next} had been placed")]
    OutOfOrder {
        /// Where the range begins.
        offset: VirtualOffset,
        /// Where it may begin at the earliest.
        next: VirtualOffset,
    },
    /// The range leaves the disk.
    #[error("{length} bytes at {offset} leave the disk, which has {disk_size} bytes")]
    OutsideDisk {
        /// Where the range begins.
        offset: VirtualOffset,
        /// Its length in bytes.
        length: u64,
        /// The size of the disk in bytes.
        disk_size: u64,
    },
}

/// Why a saved state can't be taken up again.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The checksum or the length is wrong.
    #[error("the saved state of the image writer is damaged")]
    Damaged,
    /// The state contradicts itself.
    #[error("the saved state of the image writer is none that a writer can be in")]
    Impossible,
    /// It belongs to another disk or another layout.
    #[error("the saved state of the image writer belongs to a disk or layout that differs")]
    OtherGeometry,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Log,
    Metadata,
    Bat,
    Head,
    LastFlush,
    Done,
}

fn write(offset: FileOffset, bytes: Vec<u8>) -> ClosingStep {
    ClosingStep::Write { offset, bytes }
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(buffer_index(MIB), 0);
    bytes
}

/// The first MiB: file identifier, both headers, both region tables (MS-VHDX 2.2).
fn head(geometry: &Geometry, identity: &Identity) -> Vec<u8> {
    let [header_1, header_2] = HEADER_OFFSETS;
    let [table_1, table_2] = REGION_TABLE_OFFSETS;
    let table = region_table(geometry);
    let mut bytes = Vec::new();
    for (offset, structure) in [
        (0, file_identifier()),
        (header_1, header(identity, 1)),
        (header_2, header(identity, 2)),
        (table_1, table.clone()),
        (table_2, table),
    ] {
        bytes.resize(buffer_index(offset), 0);
        bytes.extend(structure);
    }
    padded(bytes)
}

/// What every state saved from `geometry` begins with.
fn saved_header(geometry: &Geometry) -> Vec<u8> {
    let fields = [
        geometry.disk_size(),
        geometry.block_size().bytes(),
        geometry.logical_sector().bytes(),
        geometry.physical_sector().bytes(),
    ];
    let mut bytes = SAVED_SIGNATURE.to_vec();
    bytes.extend(fields.map(u64::to_le_bytes).as_flattened());
    bytes
}

/// Ends in the version of the layout.
const SAVED_SIGNATURE: [u8; 8] = *b"cevhdxw1";

#[cfg(test)]
mod tests;
