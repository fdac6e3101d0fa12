//! What can be wrong with an image, always with the place and with what was expected there.

use std::io;

use uuid::Uuid;

use crate::geometry::GeometryError;
use crate::units::{FileOffset, PayloadBlock, VirtualOffset};

/// Why an image can't be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A block of the disk is not where its table says, or not wholly there.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The image holds only what differs from another image.
    #[error(
        "the image is a differencing disk, which needs its parent {}: merge them first",
        parent.as_deref().map_or("(of unknown name)".to_owned(), |name| format!("{name:?}"))
    )]
    Differencing {
        /// The name of the parent, as the image gives it.
        parent: Option<String>,
    },
    /// The disk has a size that no disk can have.
    #[error("the image describes an impossible disk")]
    Geometry(#[from] GeometryError),
    /// The image was being written when something cut it short.
    #[error("the image is marked as unfinished by the program that wrote it")]
    Incomplete,
    /// A structure or field has a value that it may not have.
    #[error("{what} at {offset} of the image: expected {expected}, found {found}")]
    Invalid {
        /// The structure or field.
        what: &'static str,
        /// Where it lies.
        offset: FileOffset,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The log has changes that must be applied, but they are not all there.
    #[error(
        "the image was not closed cleanly and its log at {offset} can't be replayed: {reason}; \
         attach and detach it once where it was last used"
    )]
    LogUnusable {
        /// Where the log lies.
        offset: FileOffset,
        /// What is wrong with it.
        reason: String,
    },
    /// A metadata item or region that every image has is missing.
    #[error("the image has no {what}")]
    Missing {
        /// What is missing.
        what: &'static str,
    },
    /// The file is no VHD.
    #[error("the file is not a VHD: neither its end nor its start has a footer")]
    NotVhd,
    /// The file is no VHDX.
    #[error("the file is not a VHDX: it does not begin with \"vhdxfile\"")]
    NotVhdx,
    /// The file could not be read.
    #[error(transparent)]
    Read(#[from] FileReadError),
    /// Something lies, or is said to lie, past the end of the file.
    #[error(
        "the image is cut short: {what} ends at {end:#x}, but the file ends at {file_length:#x}"
    )]
    Truncated {
        /// What is not all there.
        what: &'static str,
        /// Where it should end.
        end: u64,
        /// Where the file ends.
        file_length: u64,
    },
    /// The image uses something that must be understood, and is not.
    #[error("the image needs the {what} {id}, which is unknown here")]
    UnknownRequired {
        /// Whether it is a region or a metadata item.
        what: &'static str,
        /// Its GUID.
        id: Uuid,
    },
}

/// Why bytes of the disk can't be read from an open image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// A block is not where its table says; the file changed since it was opened.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The range does not lie on the disk.
    #[error("{length} bytes at {offset} leave the disk, which has {disk_size} bytes")]
    OutsideDisk {
        /// Where the range begins.
        offset: VirtualOffset,
        /// Its length in bytes.
        length: u64,
        /// The size of the disk in bytes.
        disk_size: u64,
    },
    /// The file could not be read.
    #[error(transparent)]
    Read(#[from] FileReadError),
}

/// What is wrong with a block of the disk.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The table entry is none that the format has.
    #[error("the table entry of block {block} is {entry:#x}: {reason}")]
    Entry {
        /// The block.
        block: PayloadBlock,
        /// Its entry.
        entry: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The block lies over another block or over a structure of the image.
    #[error("block {block} at {offset} of the image overlaps another block or a structure")]
    Overlap {
        /// The block.
        block: PayloadBlock,
        /// Where it begins.
        offset: FileOffset,
    },
    /// The block ends past the end of the file.
    #[error(
        "block {block} at {offset} of the image is cut short: it ends at {end:#x}, but the file \
         ends at {file_length:#x}"
    )]
    Truncated {
        /// The block.
        block: PayloadBlock,
        /// Where it begins.
        offset: FileOffset,
        /// Where it should end.
        end: u64,
        /// Where the file ends.
        file_length: u64,
    },
}

/// The source of the image failed.
#[derive(Debug, thiserror::Error)]
#[error("reading {length} bytes at {offset} of the image failed")]
pub struct FileReadError {
    /// Where the read began.
    pub offset: FileOffset,
    /// Its length in bytes.
    pub length: u64,
    /// What the source said.
    pub source: io::Error,
}

impl OpenError {
    pub(crate) fn invalid(
        what: &'static str,
        offset: u64,
        expected: impl Into<String>,
        found: impl ToString,
    ) -> Self {
        Self::Invalid {
            what,
            offset: FileOffset(offset),
            expected: expected.into(),
            found: found.to_string(),
        }
    }
}
