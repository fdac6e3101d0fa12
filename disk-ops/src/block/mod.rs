//! A disk that can be read at any position, whatever it is kept in.

use crate::units::{ByteCount, ByteOffset, SectorSizes};

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
    /// medium fails. The content of `buffer` is then unspecified.
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

/// Why a disk could not be opened or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The range asked for does not lie on the disk.
    #[error("{disk}: a read of {length} at {offset} leaves the disk, which ends at {end}")]
    OutOfRange {
        /// The disk's name.
        disk: String,
        /// Where the read began.
        offset: ByteOffset,
        /// How much was asked for.
        length: ByteCount,
        /// The end of the disk.
        end: ByteOffset,
    },
    /// The medium failed.
    #[error("{disk}: reading {length} at {offset} failed")]
    Read {
        /// The disk's name.
        disk: String,
        /// Where the read began.
        offset: ByteOffset,
        /// How much was asked for.
        length: ByteCount,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
}
