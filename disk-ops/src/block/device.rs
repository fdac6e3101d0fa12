//! A Linux block device.
//!
//! The device is claimed (`O_EXCL`) for as long as it is open, so that a disk that is mounted, or
//! one of whose partitions is, cannot be exported half changed, nor be mounted meanwhile. Reads
//! are direct where they are aligned.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{OFlags, SeekFrom};
use rustix::io::Errno;

use super::busy::find_holders;
use super::file::{Access, file_kind};
use super::medium::Medium;
use super::node::identity_of_device;
use super::{
    BlockError, BlockRead, Extent, ExtentKind, OpenError, SizeProblem, Writable, check_range,
};
use crate::units::{ByteCount, ByteOffset, SectorSize, SectorSizes};

/// An open, claimed block device.
#[derive(Debug)]
pub struct Device {
    medium: Medium,
    sectors: SectorSizes,
}

impl Device {
    /// Opens and claims the block device at `path`.
    ///
    /// A physical sector size above 4096 bytes, which some arrays report as a hint, counts as
    /// 4096: images know no larger one.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: nothing there, not readable, no block device, [`OpenError::Busy`] when
    /// something else holds it, [`OpenError::SectorSize`] for a logical sector size other than 512
    /// or 4096 bytes, or no medium in it.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::open_for(path, Access::Read).map(|(device, _)| device)
    }

    /// As [`open`](Self::open), to be written as well.
    ///
    /// # Errors
    ///
    /// Also [`OpenError::NotWritable`].
    pub fn open_writable(path: &Path) -> Result<Writable<Self>, OpenError> {
        let (device, number) = Self::open_for(path, Access::Write)?;
        Ok(Writable::new(device, identity_of_device(path, number)))
    }

    pub(super) fn medium(&self) -> &Medium {
        &self.medium
    }

    /// The open device and its number.
    fn open_for(path: &Path, access: Access) -> Result<(Self, u64), OpenError> {
        let lookup = |error| OpenError::from_io(path, "looking it up", error);
        let metadata = std::fs::metadata(path).map_err(lookup)?;
        if metadata.is_dir() {
            return Err(OpenError::IsDirectory {
                path: path.to_owned(),
            });
        }
        if !metadata.file_type().is_block_device() {
            return Err(OpenError::NotADisk {
                path: path.to_owned(),
                found: file_kind(&metadata),
                expected: "a block device",
            });
        }
        let failed = |error| match access {
            Access::Read => OpenError::from_io(path, "opening", error),
            Access::Write => OpenError::from_write_open(path, error),
        };
        let direct = open_with(path, access, OFlags::DIRECT | OFlags::EXCL).map_err(|error| {
            if Errno::from_io_error(&error) == Some(Errno::BUSY) {
                OpenError::Busy {
                    path: path.to_owned(),
                    held_by: find_holders(metadata.rdev()),
                }
            } else {
                failed(error)
            }
        })?;
        // Claimed by the first descriptor, the second must not claim it again.
        let buffered = open_with(path, access, OFlags::empty()).map_err(failed)?;
        for file in [&direct, &buffered] {
            if file.metadata().map_err(lookup)?.rdev() != metadata.rdev() {
                return Err(OpenError::NotFound {
                    path: path.to_owned(),
                });
            }
        }

        let ask = |action| move |error: Errno| OpenError::from_io(path, action, error.into());
        let size = rustix::fs::seek(&direct, SeekFrom::End(0)).map_err(ask("asking its size"))?;
        let size = ByteCount(size);
        let logical =
            rustix::fs::ioctl_blksszget(&direct).map_err(ask("asking its sector size"))?;
        let physical = rustix::fs::ioctl_blkpbszget(&direct)
            .map_err(ask("asking its physical sector size"))?;
        let sectors = sector_sizes(logical, physical).ok_or_else(|| OpenError::SectorSize {
            path: path.to_owned(),
            logical,
            physical,
        })?;
        if let Some(problem) = SizeProblem::of(size, sectors.logical.bytes()) {
            return Err(OpenError::BadSize {
                path: path.to_owned(),
                problem,
            });
        }
        let device = Self {
            medium: Medium::new(path.display().to_string(), size, buffered, Some(direct)),
            sectors,
        };
        Ok((device, metadata.rdev()))
    }
}

impl BlockRead for Device {
    fn size(&self) -> ByteCount {
        self.medium.size()
    }

    fn sectors(&self) -> SectorSizes {
        self.sectors
    }

    fn name(&self) -> &str {
        self.medium.name()
    }

    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<(), BlockError> {
        check_range(self, offset, ByteCount(buffer.len() as u64))?;
        self.medium.read_at(offset, buffer)
    }

    /// All data: a block device does not tell what it has never stored.
    fn extent_at(&self, offset: ByteOffset) -> Result<Extent, BlockError> {
        check_range(self, offset, ByteCount(1))?;
        Ok(Extent {
            kind: ExtentKind::Data,
            end: self.size().end(),
        })
    }
}

fn open_with(path: &Path, access: Access, flags: OFlags) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(access == Access::Write)
        // A drive without a medium, or a pipe put in its place, must not make us wait.
        .custom_flags((flags | OFlags::NONBLOCK).bits() as i32)
        .open(path)
}

/// The sizes that a device reports, if an image can express them.
fn sector_sizes(logical: u32, physical: u32) -> Option<SectorSizes> {
    let logical = SectorSize::from_bytes(logical.into())?;
    let physical = if physical.is_power_of_two() && physical > 4096 {
        SectorSize::B4096
    } else {
        SectorSize::from_bytes(physical.into())?
    };
    (physical >= logical).then_some(SectorSizes { logical, physical })
}

#[cfg(test)]
mod tests {
    use super::super::FileKind;
    use super::*;

    #[test]
    fn sector_sizes_that_an_image_cannot_express_are_refused() {
        let pair = |logical, physical| {
            sector_sizes(logical, physical).map(|s| (s.logical.bytes(), s.physical.bytes()))
        };
        assert_eq!(pair(512, 512), Some((512, 512)));
        assert_eq!(pair(512, 4096), Some((512, 4096)));
        assert_eq!(pair(4096, 4096), Some((4096, 4096)));
        assert_eq!(pair(512, 16_384), Some((512, 4096)));
        for (logical, physical) in [
            (520, 520),
            (2048, 4096),
            (8192, 8192),
            (4096, 512),
            (512, 0),
        ] {
            assert_eq!(pair(logical, physical), None, "{logical}/{physical}");
        }
    }

    #[test]
    fn what_is_no_block_device_is_refused_by_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (path, kind) in [
            (file.path(), FileKind::Regular),
            (Path::new("/dev/null"), FileKind::CharacterDevice),
        ] {
            match Device::open(path).unwrap_err() {
                OpenError::NotADisk { found, .. } => assert_eq!(found, kind),
                other => panic!("{other}"),
            }
        }
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(
            Device::open(directory.path()).unwrap_err(),
            OpenError::IsDirectory { .. }
        ));
        assert!(matches!(
            Device::open(&directory.path().join("sdz")).unwrap_err(),
            OpenError::NotFound { .. }
        ));
    }
}
