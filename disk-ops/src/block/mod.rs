//! A disk that can be read at any position, whatever it is kept in, and written where that was
//! asked for.
//!
//! ```text
//!  path --+--> file    raw image: direct I/O where it works, holes by SEEK_DATA
//!  (open) +--> image   VHDX or VHD file: never written
//!         +--> device  Linux block device, claimed so that nothing else may mount it
//!                        |
//!                        v
//!                    BlockRead <-- window (a partition of another disk)
//!                        ^    <-- overlay (changes kept beside a disk, which stays as it is)
//!                        |
//!                     memory (for tests: fails, counts, delays, loses power on demand)
//! ```
//!
//! | what | reads | can be written | is changed by a commit |
//! |---|---|---|---|
//! | [`RawFile`], [`Device`] | yes | as [`Writable`], from [`open_writable`] only | yes |
//! | [`ImageFile`] | yes | no | no |
//! | [`Overlay`] | yes | yes; the disk below stays as it is | no |
//! | [`Window`] | yes | if what it is a window on can be | no |
//! | [`MemoryDisk`] | yes | yes | yes |
//!
//! Nothing here knows what the bytes mean.

use std::path::PathBuf;

use crate::units::{ByteCount, ByteOffset, SectorSizes};

mod busy;
pub mod device;
pub mod error;
pub mod file;
pub mod image;
mod medium;
pub mod memory;
mod node;
pub mod open;
pub mod overlay;
pub mod sector;
pub mod window;
pub mod writable;

pub(crate) use busy::Mount;
pub use device::Device;
pub use error::{BlockError, FileKind, OpenError, SizeProblem};
pub use file::RawFile;
pub(crate) use image::ImageDisk;
pub use image::ImageFile;
pub use memory::{MemoryDisk, ReadCounts};
pub use open::{DiskKind, OpenOptions, open, open_writable, probe, same_file};
pub use overlay::Overlay;
pub use sector::detect_sector_size;
pub use window::Window;
pub use writable::Writable;

/// Positional reads of a disk of fixed size, from any thread.
///
/// Implementations hold no position, so that readers do not disturb each other. What they read
/// through (direct I/O, an image format) is their own affair: a caller may ask for any range
/// inside the disk. Requests that are aligned to 4 KiB in offset, length and memory are the fast
/// ones.
pub trait BlockRead: Send + Sync {
    /// The size of the disk; a multiple of the logical sector size, never zero.
    fn size(&self) -> ByteCount;

    /// The sector sizes of the disk.
    fn sectors(&self) -> SectorSizes;

    /// What to call the disk in a message, such as its path.
    fn name(&self) -> &str;

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// [`BlockError::OutOfRange`] when the range leaves the disk, [`BlockError::Read`] when the
    /// medium fails, [`BlockError::Shrunk`] when it has become shorter meanwhile. The content of `buffer` is then unspecified.
    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<(), BlockError>;

    /// What is known about the bytes from `offset` on without reading them.
    ///
    /// The extent is at least one byte long and ends inside the disk. `Data` promises nothing;
    /// `Zero` promises that every byte up to the end of the extent reads as zero.
    ///
    /// # Errors
    ///
    /// As for [`read_at`](Self::read_at).
    fn extent_at(&self, offset: ByteOffset) -> Result<Extent, BlockError>;

    /// What tells whether the file that the disk is kept in is the one of an earlier time; `None`
    /// for what is no file.
    fn file_stamp(&self) -> Option<FileStamp> {
        None
    }
}

/// Positional writes, beside the reads, from any thread.
///
/// A write is visible to every later read, and on the medium only after the next
/// [`flush`](Self::flush): until then a power cut may keep any of it, in any order, sector by
/// sector. Any range inside the disk may be written; what does not begin and end on whole sectors
/// is completed from what is there, below this interface.
pub trait BlockWrite: BlockRead {
    /// Writes `bytes` from `offset` on.
    ///
    /// # Errors
    ///
    /// [`BlockError::OutOfRange`] when the range leaves the disk, nothing being written then;
    /// [`BlockError::Write`] when the medium fails, [`BlockError::OverlayFull`] and
    /// [`BlockError::Scratch`] when an overlay does. Any part of the range may hold the new bytes
    /// after that.
    fn write_at(&self, offset: ByteOffset, bytes: &[u8]) -> Result<(), BlockError>;

    /// Makes all earlier writes survive a power cut.
    ///
    /// # Errors
    ///
    /// [`BlockError::Flush`]. Nothing is known then of any write since the last flush that
    /// succeeded, even if a later flush succeeds: a system may drop what it could not write. Such
    /// writes have to be made again.
    fn flush(&self) -> Result<(), BlockError>;
}

/// A disk as a whole, to which changes can be committed: no window and no overlay.
pub trait WholeDisk: BlockWrite {
    /// What tells this disk from another one, also after a reboot.
    fn identity(&self) -> DiskIdentity;

    /// Makes sure that the medium has room for `length` bytes at `offset`; changes no content.
    ///
    /// Only a sparse file can have none. Where the file system knows no reservations this does
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`BlockError::OutOfRange`] and [`BlockError::Write`].
    fn reserve(&self, offset: ByteOffset, length: ByteCount) -> Result<(), BlockError>;

    /// Makes sure that nobody has written to the disk since it was opened, as far as that can be
    /// seen. A claimed device cannot have been; a file shows it by its time stamp.
    ///
    /// Meant for before the first own write: after it, nothing is checked.
    ///
    /// # Errors
    ///
    /// [`BlockError::Touched`] when somebody has.
    fn expect_untouched(&self) -> Result<(), BlockError>;
}

/// What tells a disk from another one.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DiskIdentity {
    /// Where it was opened: absolute, links not followed. `None` for what has no path.
    pub path: Option<PathBuf>,
    /// What it is called whatever its path: `inode:` and a number for a file, `wwid:`, `uuid:` or
    /// `serial:` and the name that the device itself reports. `None` if it has no such name.
    pub node: Option<String>,
}

/// Which file it is, and when it was last written to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FileStamp {
    /// The number of its inode.
    pub inode: u64,
    /// Whole seconds since 1970 at the last change of its content.
    pub modified_seconds: i64,
    /// And the nanoseconds of that time, below 10^9.
    pub modified_nanoseconds: u32,
}

impl From<&std::fs::Metadata> for FileStamp {
    fn from(metadata: &std::fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self {
            inode: metadata.ino(),
            modified_seconds: metadata.mtime(),
            // Always below 10^9.
            modified_nanoseconds: u32::try_from(metadata.mtime_nsec()).unwrap_or_default(),
        }
    }
}

/// A run of bytes of one kind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Extent {
    /// What the run holds.
    pub kind: ExtentKind,
    /// The first byte behind the run.
    pub end: ByteOffset,
}

/// What a run of bytes holds, as far as is known without reading it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ExtentKind {
    /// Anything; it has to be read.
    Data,
    /// Nothing but zeros; it need not be read.
    Zero,
}

/// Checks that `length` bytes from `offset` on lie on `disk`; for implementations of [`BlockRead`].
///
/// # Errors
///
/// [`BlockError::OutOfRange`] when they do not.
pub fn check_range<D: BlockRead + ?Sized>(
    disk: &D,
    offset: ByteOffset,
    length: ByteCount,
) -> Result<(), BlockError> {
    let end = disk.size().end();
    if offset.checked_add(length).is_some_and(|last| last <= end) {
        return Ok(());
    }
    Err(BlockError::OutOfRange {
        disk: disk.name().to_owned(),
        offset,
        length,
        end,
    })
}

/// Whatever points at a disk is a disk.
macro_rules! forward_to_disk {
    ($($pointer:ty),+) => {$(
        impl<D: BlockRead + ?Sized> BlockRead for $pointer {
            fn size(&self) -> ByteCount {
                (**self).size()
            }

            fn sectors(&self) -> SectorSizes {
                (**self).sectors()
            }

            fn name(&self) -> &str {
                (**self).name()
            }

            fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<(), BlockError> {
                (**self).read_at(offset, buffer)
            }

            fn extent_at(&self, offset: ByteOffset) -> Result<Extent, BlockError> {
                (**self).extent_at(offset)
            }

            fn file_stamp(&self) -> Option<FileStamp> {
                (**self).file_stamp()
            }
        }

        impl<D: BlockWrite + ?Sized> BlockWrite for $pointer {
            fn write_at(&self, offset: ByteOffset, bytes: &[u8]) -> Result<(), BlockError> {
                (**self).write_at(offset, bytes)
            }

            fn flush(&self) -> Result<(), BlockError> {
                (**self).flush()
            }
        }

        impl<D: WholeDisk + ?Sized> WholeDisk for $pointer {
            fn identity(&self) -> DiskIdentity {
                (**self).identity()
            }

            fn reserve(&self, offset: ByteOffset, length: ByteCount) -> Result<(), BlockError> {
                (**self).reserve(offset, length)
            }

            fn expect_untouched(&self) -> Result<(), BlockError> {
                (**self).expect_untouched()
            }
        }
    )+};
}

forward_to_disk!(&D, Box<D>, std::sync::Arc<D>);

/// The largest disk that is taken: 64 TiB, the most that a VHDX can hold (MS-VHDX 2.6.2.4).
pub const MAX_DISK_SIZE: ByteCount = ByteCount(64 << 40);
