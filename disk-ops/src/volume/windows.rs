//! What the rest of the program sees of a Windows volume: paths and files, and no file system.

use super::{DirectoryEntry, FileMeta, NtfsVolume, VolumeError, WinPath};
use crate::block::BlockRead;
use crate::units::ByteCount;

/// The files of a Windows volume, to be read. Names are found without regard to case.
pub trait WindowsVolume {
    /// Whether there is something at `path`, whatever it is.
    ///
    /// # Errors
    ///
    /// [`VolumeError`] when that cannot be told.
    fn exists(&self, path: &WinPath) -> Result<bool, VolumeError>;

    /// What is known about the file or folder at `path`. A reparse point is described, not
    /// followed.
    ///
    /// # Errors
    ///
    /// [`VolumeError::NotFound`], and others when the volume cannot be read.
    fn metadata(&self, path: &WinPath) -> Result<FileMeta, VolumeError>;

    /// The long names in the folder at `path`, by upper-case letters.
    ///
    /// # Errors
    ///
    /// As for [`metadata`](Self::metadata), and [`VolumeError::NotAFolder`].
    fn list(&self, path: &WinPath) -> Result<Vec<DirectoryEntry>, VolumeError>;

    /// The whole content of the file at `path`, unpacked, if it is no longer than `limit`.
    ///
    /// # Errors
    ///
    /// As for [`metadata`](Self::metadata); [`VolumeError::IsFolder`]; [`VolumeError::TooLarge`];
    /// others when its content is kept in a way that is not read.
    fn read(&self, path: &WinPath, limit: ByteCount) -> Result<Vec<u8>, VolumeError>;
}

impl<D: BlockRead> WindowsVolume for NtfsVolume<D> {
    fn exists(&self, path: &WinPath) -> Result<bool, VolumeError> {
        Self::exists(self, path)
    }

    fn metadata(&self, path: &WinPath) -> Result<FileMeta, VolumeError> {
        Self::metadata(self, path)
    }

    fn list(&self, path: &WinPath) -> Result<Vec<DirectoryEntry>, VolumeError> {
        Self::list(self, path)
    }

    fn read(&self, path: &WinPath, limit: ByteCount) -> Result<Vec<u8>, VolumeError> {
        Self::read(self, path, limit)
    }
}
