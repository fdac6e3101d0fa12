//! Reading a VHDX, whoever wrote it.
//!
//! ```text
//!  file identifier -> headers -> log (replayed beside the file) -> region table -> metadata
//!                                                                       |
//!                 read_at, extent_at <- BAT entries, read on demand <- BAT, checked once
//! ```
//!
//! Opening checks the whole block allocation table: every block lies wholly in the file, and over
//! nothing else. That takes time and reads in proportion to the table, 64 KiB at a time, and one
//! bit of memory per MiB of the file's length (at most 16 MiB), to which a log may add. Afterwards
//! nothing is cached: entries are read, at most 4 KiB of them, and checked again whenever they are
//! used, so that a file that changes meanwhile gives an error at worst.
//!
//! Not done here: differencing disks, which are refused by the name of their parent.

use uuid::Uuid;

use crate::bat::{ENTRY_LENGTH, Place, decode, read_entries};
use crate::error::{BlockError, OpenError, ReadError};
use crate::format::{FILE_IDENTIFIER_SIGNATURE, Guid};
use crate::geometry::Geometry;
use crate::header::current_header;
use crate::log::replay;
use crate::metadata::read_metadata;
use crate::occupancy::{MAX_FILE_LENGTH, Occupancy};
use crate::region::{Region, read_regions};
use crate::source::{Image, ReadAt};
use crate::units::{FileOffset, PayloadBlock, VirtualOffset, buffer_index, length_of};

/// The disk in a fixed or dynamic VHDX.
#[derive(Debug)]
pub struct VhdxReader<R> {
    image: Image<R>,
    geometry: Geometry,
    bat_offset: u64,
    data_write_guid: Uuid,
    page_83: Uuid,
    replayed_entries: u64,
}

/// A run of bytes of a disk that lie in one piece, or nowhere.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Extent {
    /// The bytes lie in the file.
    ///
    /// Where a log was replayed they may differ from what the file has there: read them through
    /// the reader.
    Data {
        /// Where the run begins in the file.
        file_offset: FileOffset,
        /// Its length in bytes.
        length: u64,
    },
    /// The bytes are zero, and not in the file.
    Zero {
        /// The length of the run in bytes.
        length: u64,
    },
}

impl Extent {
    /// The length of the run in bytes.
    pub const fn length(&self) -> u64 {
        match self {
            Self::Data { length, .. } | Self::Zero { length } => *length,
        }
    }
}

impl<R: ReadAt> VhdxReader<R> {
    /// Opens the VHDX in `source`, and checks all of it but the content of its blocks.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: `NotVhdx` when the file is something else, `Differencing` when it needs a
    /// parent; the other variants say what is damaged.
    pub fn open(source: R) -> Result<Self, OpenError> {
        let image = Image::new(source);
        let mut signature = [0; 8];
        if image.length() < length_of(&signature) {
            return Err(OpenError::NotVhdx);
        }
        image.read(FileOffset(0), &mut signature)?;
        if signature != FILE_IDENTIFIER_SIGNATURE {
            return Err(OpenError::NotVhdx);
        }

        let header = current_header(&image)?;
        let mut replayed_entries = 0;
        let image = if header.log.guid == Guid::NIL {
            image
        } else {
            let replay = replay(&image, &header.log)?;
            replayed_entries = replay.entries;
            image.with_overlay(replay.overlay, replay.file_length)
        };
        if image.length() > MAX_FILE_LENGTH {
            let expected = format!("at most {MAX_FILE_LENGTH} bytes");
            return Err(OpenError::invalid(
                "the length",
                0,
                expected,
                image.length(),
            ));
        }

        let mut occupied = Occupancy::new(image.length());
        if !occupied.claim(header.log.offset, header.log.length) {
            return Err(OpenError::invalid(
                "the log",
                header.log.offset,
                "space inside the file and behind its first MiB",
                format!("{} bytes", header.log.length),
            ));
        }
        let regions = read_regions(&image, &mut occupied)?;
        let metadata = read_metadata(&image, regions.metadata)?;
        let reader = Self {
            image,
            geometry: metadata.geometry,
            bat_offset: regions.bat.offset,
            data_write_guid: header.data_write_guid.uuid(),
            page_83: metadata.page_83.uuid(),
            replayed_entries,
        };
        reader.check_bat(regions.bat, &mut occupied)?;
        Ok(reader)
    }

    /// The shape of the disk.
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The GUID that changes with the content of the disk.
    pub const fn data_write_guid(&self) -> Uuid {
        self.data_write_guid
    }

    /// The SCSI identity of the disk (vital product data page 83).
    pub const fn page_83(&self) -> Uuid {
        self.page_83
    }

    /// How many entries of the log had to be replayed; zero if the file was closed cleanly.
    pub const fn replayed_log_entries(&self) -> u64 {
        self.replayed_entries
    }

    /// What lies at `offset` of the disk, for as long as it goes on in the same way.
    ///
    /// The run is never empty and ends inside the disk. It may end early: the next one can be
    /// of the same kind.
    ///
    /// # Errors
    ///
    /// [`ReadError::OutsideDisk`] at or behind the end of the disk; otherwise as for
    /// [`read_at`](Self::read_at).
    pub fn extent_at(&self, offset: VirtualOffset) -> Result<Extent, ReadError> {
        self.check_range(offset, 1)?;
        self.run_at(offset, self.geometry.disk_size().saturating_sub(offset.0))
    }

    /// Fills `buffer` with the bytes of the disk from `offset` on.
    ///
    /// # Errors
    ///
    /// [`ReadError`] when the range leaves the disk, the file can't be read, or it changed so
    /// that a block is no longer where it was.
    pub fn read_at(&self, offset: VirtualOffset, buffer: &mut [u8]) -> Result<(), ReadError> {
        self.check_range(offset, length_of(buffer))?;
        let mut offset = offset;
        let mut rest = buffer;
        while !rest.is_empty() {
            let run = self.run_at(offset, length_of(rest))?;
            let length = buffer_index(run.length()).min(rest.len());
            let (part, behind) = rest.split_at_mut(length);
            match run {
                Extent::Zero { .. } => part.fill(0),
                Extent::Data { file_offset, .. } => self.image.read(file_offset, part)?,
            }
            offset = VirtualOffset(offset.0.saturating_add(length_of(part)));
            rest = behind;
        }
        Ok(())
    }

    /// The run at `offset`, of at least one and at most `limit` bytes.
    fn run_at(&self, offset: VirtualOffset, limit: u64) -> Result<Extent, ReadError> {
        let block_size = self.geometry.block_size().bytes();
        let first = self.geometry.block_at(offset);
        let inside = offset.0 % block_size;
        let blocks = inside.saturating_add(limit).div_ceil(block_size);
        // Runs may end early: a disk in many pieces must not cost a long read for each.
        let blocks = blocks.min(BLOCKS_PER_RUN);
        let entries = read_entries(&self.image, &self.geometry, self.bat_offset, first, blocks)?;
        let mut places = entries
            .into_iter()
            .map(|(block, entry)| self.place(block, entry));
        // The entry of the block itself is always the first that was read.
        let start = places.next().transpose()?.unwrap_or(Place::Zero);
        let mut length = block_size - inside;
        for place in places {
            let continued = match (start, place?) {
                (Place::Zero, Place::Zero) => true,
                (Place::At(start), Place::At(next)) => {
                    start.0.checked_add(inside + length) == Some(next.0)
                }
                _ => false,
            };
            if !continued || length >= limit {
                break;
            }
            length += block_size;
        }
        let length = length.min(limit);
        Ok(match start {
            Place::Zero => Extent::Zero { length },
            Place::At(block) => Extent::Data {
                file_offset: FileOffset(block.0.saturating_add(inside)),
                length,
            },
        })
    }

    fn place(&self, block: PayloadBlock, entry: u64) -> Result<Place, BlockError> {
        decode(&self.geometry, block, entry, self.image.length())
    }

    fn check_bat(&self, region: Region, occupied: &mut Occupancy) -> Result<(), OpenError> {
        let needed = self.geometry.bat_entry_count() * ENTRY_LENGTH;
        if needed > region.length {
            return Err(OpenError::invalid(
                "the BAT region",
                region.offset,
                format!("at least the {needed} bytes that the size of the disk takes"),
                format!("{} bytes", region.length),
            ));
        }
        let block_size = self.geometry.block_size().bytes();
        let count = self.geometry.block_count();
        let mut next = PayloadBlock(0);
        while next.0 < count {
            let entries = read_entries(
                &self.image,
                &self.geometry,
                self.bat_offset,
                next,
                count - next.0,
            )?;
            for (block, entry) in entries {
                if let Place::At(offset) = self.place(block, entry)?
                    && !occupied.claim(offset.0, block_size)
                {
                    return Err(BlockError::Overlap { block, offset }.into());
                }
                next = PayloadBlock(block.0 + 1);
            }
        }
        Ok(())
    }

    fn check_range(&self, offset: VirtualOffset, length: u64) -> Result<(), ReadError> {
        let disk_size = self.geometry.disk_size();
        match offset.0.checked_add(length) {
            Some(end) if end <= disk_size => Ok(()),
            _ => Err(ReadError::OutsideDisk {
                offset,
                length,
                disk_size,
            }),
        }
    }
}

/// As many as have their entries in 4 KiB, with one for the slot of a sector bitmap.
const BLOCKS_PER_RUN: u64 = 511;

#[cfg(test)]
mod tests;
