//! A raw file or device that was opened to be written.
//!
//! ```text
//!               whole blocks of 4 KiB             edges that are none
//!  write_at --+--> O_DIRECT descriptor          --> buffered descriptor, where the page cache
//!             |    (through an aligned buffer       completes the block from what is there
//!             |     if the memory is not)
//!             +--> without direct I/O: all of it buffered
//!
//!  flush -----> fsync, which ends in a flush of the device's own cache
//! ```
//!
//! It is a type of its own, made by [`RawFile::open_writable`] and [`Device::open_writable`] alone:
//! what was opened to be read cannot be written by mistake. A device is claimed (`O_EXCL`), so no
//! file system on it is mounted; a file is locked (`flock`) against other writers of this kind and
//! refused when a loop device uses it.

use super::medium::Medium;
use super::{
    BlockError, BlockRead, BlockWrite, Device, DiskIdentity, Extent, FileStamp, RawFile, WholeDisk,
    check_range,
};
use crate::units::{ByteCount, ByteOffset, SectorSizes};

/// A [`RawFile`] or [`Device`] that can be written.
#[derive(Debug)]
pub struct Writable<D> {
    disk: D,
    identity: DiskIdentity,
}

impl<D> Writable<D> {
    /// `disk`, whose descriptors must be open for writing.
    pub(super) fn new(disk: D, identity: DiskIdentity) -> Self {
        Self { disk, identity }
    }
}

/// What is kept behind the descriptors of a [`Medium`].
pub(super) trait OnMedium: BlockRead {
    fn medium(&self) -> &Medium;

    /// Called before every write: what was known of holes is known no more.
    fn forget_extents(&self) {}

    /// How the file was last seen before it was written to here.
    fn stamp(&self) -> Option<FileStamp> {
        None
    }
}

impl OnMedium for Device {
    fn medium(&self) -> &Medium {
        Self::medium(self)
    }
}

impl OnMedium for RawFile {
    fn medium(&self) -> &Medium {
        Self::medium(self)
    }

    fn forget_extents(&self) {
        Self::forget_extents(self);
    }

    fn stamp(&self) -> Option<FileStamp> {
        self.file_stamp()
    }
}

impl<D: BlockRead> BlockRead for Writable<D> {
    fn size(&self) -> ByteCount {
        self.disk.size()
    }

    fn sectors(&self) -> SectorSizes {
        self.disk.sectors()
    }

    fn name(&self) -> &str {
        self.disk.name()
    }

    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<(), BlockError> {
        self.disk.read_at(offset, buffer)
    }

    fn extent_at(&self, offset: ByteOffset) -> Result<Extent, BlockError> {
        self.disk.extent_at(offset)
    }

    fn file_stamp(&self) -> Option<FileStamp> {
        self.disk.file_stamp()
    }
}

impl<D: OnMedium> BlockWrite for Writable<D> {
    fn write_at(&self, offset: ByteOffset, bytes: &[u8]) -> Result<(), BlockError> {
        check_range(self, offset, ByteCount(bytes.len() as u64))?;
        let written = self.disk.medium().write_at(offset, bytes);
        // After the write: an answer of a moment before it must not stay. A failed one may have
        // changed something as well.
        self.disk.forget_extents();
        written
    }

    fn flush(&self) -> Result<(), BlockError> {
        self.disk.medium().flush()
    }
}

impl<D: OnMedium> WholeDisk for Writable<D> {
    fn identity(&self) -> DiskIdentity {
        self.identity.clone()
    }

    fn reserve(&self, offset: ByteOffset, length: ByteCount) -> Result<(), BlockError> {
        check_range(self, offset, length)?;
        match self.disk.stamp() {
            Some(_) => self.disk.medium().reserve(offset, length),
            // Devices have the room that they say they have.
            None => Ok(()),
        }
    }

    fn expect_untouched(&self) -> Result<(), BlockError> {
        let Some(stamp) = self.disk.stamp() else {
            return Ok(());
        };
        match self.disk.medium().is_written_or_still(stamp)? {
            true => Ok(()),
            false => Err(BlockError::Touched {
                disk: self.name().to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
