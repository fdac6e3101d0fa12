//! Reading a VHD, whoever wrote it.
//!
//! The size of the disk is the footer's current size, as for Hyper-V; the CHS geometry, which
//! some old programs went by, is not looked at. Differencing disks are refused by the name of
//! their parent.

use zerocopy::{FromBytes, IntoBytes};

use super::dynamic::{DynamicTable, parent_name};
use super::format::{
    DISK_TYPE_DIFFERENCING, DISK_TYPE_DYNAMIC, DISK_TYPE_FIXED, FILE_FORMAT_VERSION,
    FOOTER_CHECKSUM_OFFSET, FOOTER_COOKIE, FOOTER_LENGTH, Footer, SECTOR_LENGTH, checksum,
};
use crate::error::{OpenError, ReadError};
use crate::geometry::{Geometry, GeometryError};
use crate::reader::Extent;
use crate::source::{Image, ReadAt};
use crate::units::{BlockSize, FileOffset, SectorSize, VirtualOffset, buffer_index, length_of};

/// The disk in a fixed or dynamic VHD. Its sectors have 512 bytes.
#[derive(Debug)]
pub struct VhdReader<R> {
    image: Image<R>,
    disk_size: u64,
    layout: Layout,
}

#[derive(Debug)]
enum Layout {
    Dynamic(DynamicTable),
    Fixed,
}

impl<R: ReadAt> VhdReader<R> {
    /// Opens the VHD in `source`, and checks all of it but the content of its blocks.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: `NotVhd` when the file is something else, `Differencing` when it needs a
    /// parent; the other variants say what is damaged.
    pub fn open(source: R) -> Result<Self, OpenError> {
        let image = Image::new(source);
        let (footer, at) = read_footer(&image)?;
        let version = footer.file_format_version.get();
        if version != FILE_FORMAT_VERSION {
            let found = format!("{version:#x}");
            return Err(OpenError::invalid(
                "the format version",
                at,
                "0x10000",
                found,
            ));
        }
        let disk_size = footer.current_size.get();
        check_size(disk_size)?;
        let layout = match footer.disk_type.get() {
            DISK_TYPE_FIXED => {
                if disk_size > at {
                    return Err(OpenError::Truncated {
                        what: "the disk",
                        end: disk_size,
                        file_length: at,
                    });
                }
                Layout::Fixed
            }
            DISK_TYPE_DYNAMIC => {
                // The copy at the start says nothing of where a last footer would be.
                let data_end = if at == 0 { image.length() } else { at };
                Layout::Dynamic(DynamicTable::read(&image, &footer, data_end)?)
            }
            DISK_TYPE_DIFFERENCING => {
                return Err(OpenError::Differencing {
                    parent: parent_name(&image, &footer),
                });
            }
            other => {
                let expected = "2 (fixed), 3 (dynamic) or 4 (differencing)";
                return Err(OpenError::invalid("the disk type", at, expected, other));
            }
        };
        Ok(Self {
            image,
            disk_size,
            layout,
        })
    }

    /// The size of the disk in bytes, a multiple of 512.
    pub const fn disk_size(&self) -> u64 {
        self.disk_size
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
        match &self.layout {
            Layout::Dynamic(table) => Ok(table.run_at(&self.image, offset)?),
            Layout::Fixed => Ok(Extent::Data {
                file_offset: FileOffset(offset.0),
                length: self.disk_size.saturating_sub(offset.0),
            }),
        }
    }

    /// Fills `buffer` with the bytes of the disk from `offset` on.
    ///
    /// # Errors
    ///
    /// [`ReadError`] when the range leaves the disk or the file can't be read.
    pub fn read_at(&self, offset: VirtualOffset, buffer: &mut [u8]) -> Result<(), ReadError> {
        self.check_range(offset, length_of(buffer))?;
        let mut offset = offset;
        let mut rest = buffer;
        while !rest.is_empty() {
            let run = self.extent_at(offset)?;
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

    fn check_range(&self, offset: VirtualOffset, length: u64) -> Result<(), ReadError> {
        match offset.0.checked_add(length) {
            Some(end) if end <= self.disk_size => Ok(()),
            _ => Err(ReadError::OutsideDisk {
                offset,
                length,
                disk_size: self.disk_size,
            }),
        }
    }
}

/// Finds a valid footer, and where the data before it end: the last 512 bytes of the file, the
/// last 511 as programs before 2003 wrote them, or the copy at the start of a dynamic disk.
fn read_footer<R: ReadAt>(image: &Image<R>) -> Result<(Footer, u64), OpenError> {
    let length = image.length();
    let mut damaged = None;
    for (at, stored) in [
        (length.checked_sub(FOOTER_LENGTH), FOOTER_LENGTH),
        (length.checked_sub(FOOTER_LENGTH - 1), FOOTER_LENGTH - 1),
        (Some(0), FOOTER_LENGTH),
    ] {
        let Some(at) = at.filter(|at| length - at >= stored) else {
            continue;
        };
        let mut bytes = image.structure("the footer", at, buffer_index(stored))?;
        bytes.resize(buffer_index(FOOTER_LENGTH), 0);
        let Ok(footer) = Footer::read_from_bytes(&bytes) else {
            continue;
        };
        if footer.cookie != FOOTER_COOKIE {
            continue;
        }
        let sum = checksum(footer.as_bytes(), FOOTER_CHECKSUM_OFFSET);
        let copied = at == 0 && footer.disk_type.get() == DISK_TYPE_FIXED && length > FOOTER_LENGTH;
        if footer.checksum.get() == sum && !copied {
            return Ok((footer, at));
        }
        damaged.get_or_insert((at, sum, footer.checksum.get()));
    }
    Err(match damaged {
        Some((at, sum, found)) => {
            let found = format!("{found:#x}");
            OpenError::invalid("the checksum of the footer", at, format!("{sum:#x}"), found)
        }
        None => OpenError::NotVhd,
    })
}

fn check_size(disk_size: u64) -> Result<(), GeometryError> {
    const _: () = assert!(SECTOR_LENGTH == SectorSize::B512.bytes());
    let any = BlockSize::DEFAULT;
    Geometry::new(disk_size, SectorSize::B512, SectorSize::B512, any).map(|_| ())
}

#[cfg(test)]
mod tests;
