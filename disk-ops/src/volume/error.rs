//! Why a file or a volume could not be read.

use super::ntfs::lznt1::Lznt1Error;
use super::ntfs::reparse::Reparse;
use super::ntfs::xpress::XpressError;
use super::wim::WimToolError;
use crate::block::BlockError;
use crate::units::{ByteCount, ByteOffset};

/// Why a volume, a folder or a file could not be read. Positions are on the volume.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// `$Bitmap` says that something is free that is known to be in use, or it is too short.
    #[error("{volume}: $Bitmap {problem}")]
    Bitmap {
        /// The volume's name.
        volume: String,
        /// What is wrong with it, and what was expected.
        problem: String,
    },
    /// The disk could not be read.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// A compressed unit of a file cannot be unpacked.
    #[error("{file}: the LZNT1 unit at {at} of the file is damaged")]
    CompressedUnit {
        /// The file.
        file: String,
        /// Where the unit begins, in the file.
        at: ByteOffset,
        /// What is wrong with it.
        #[source]
        source: Lznt1Error,
    },
    /// A chunk of a file that was compressed by CompactOS cannot be unpacked.
    #[error("{file}: the XPRESS chunk at {at} of the file is damaged")]
    CompressedChunk {
        /// The file.
        file: String,
        /// Where the chunk begins, in the file.
        at: ByteOffset,
        /// What is wrong with it.
        #[source]
        source: XpressError,
    },
    /// A structure contradicts itself or the volume.
    #[error("{volume}: {structure} at {at}: {problem}")]
    Damaged {
        /// The volume's name.
        volume: String,
        /// What is damaged.
        structure: &'static str,
        /// Where it is, as far as is known.
        at: ByteOffset,
        /// What was found and what was expected.
        problem: String,
    },
    /// A file is encrypted by EFS, and only its owner has the key.
    #[error("{file}: is encrypted (EFS) and cannot be read offline")]
    Encrypted {
        /// The file.
        file: String,
    },
    /// A folder was named where a file is wanted.
    #[error("{file}: is a folder, expected a file")]
    IsFolder {
        /// The path.
        file: String,
    },
    /// A file was named where a folder is wanted.
    #[error("{file}: is a file, expected a folder")]
    NotAFolder {
        /// The path.
        file: String,
    },
    /// The volume is none of FAT, or of a geometry that FAT cannot have.
    #[error("{volume}: the boot sector is not one of FAT: {problem}")]
    NotFat {
        /// The volume's name.
        volume: String,
        /// What was found.
        problem: String,
    },
    /// There is no such file or folder.
    #[error("{file}: no such file or folder on {volume}")]
    NotFound {
        /// The path.
        file: String,
        /// The volume's name.
        volume: String,
    },
    /// The volume is none of NTFS, or of a geometry that NTFS cannot have.
    #[error("{volume}: the boot sector is not one of NTFS: {problem}")]
    NotNtfs {
        /// The volume's name.
        volume: String,
        /// What was found and what was expected.
        problem: String,
    },
    /// The parser of NTFS structures refused what it found.
    #[error("{volume}: an NTFS structure read near {near} is damaged")]
    Structure {
        /// The volume's name.
        volume: String,
        /// The position that was read last.
        near: ByteOffset,
        /// What the parser said, with the position of the structure.
        #[source]
        source: Box<ntfs::NtfsError>,
    },
    /// The path leads through a reparse point, which is not followed.
    #[error("{file}: is {reparse}, which is not followed")]
    Reparse {
        /// The path up to the reparse point.
        file: String,
        /// What it is, and where it leads.
        reparse: Reparse,
    },
    /// Something is larger than what is read of its kind.
    #[error("{file}: {found}, more than the {limit} that are read at once")]
    TooLarge {
        /// The file or folder.
        file: String,
        /// Its size.
        found: ByteCount,
        /// The bound.
        limit: ByteCount,
    },
    /// Something that NTFS knows, but that is not read here.
    #[error("{file}: {what} is not supported")]
    Unsupported {
        /// The file or folder.
        file: String,
        /// What it is.
        what: String,
    },
    /// A file in a WIM image could not be read.
    #[error("{file}: cannot be read")]
    Wim {
        /// The file.
        file: String,
        /// Why.
        #[source]
        source: Box<WimToolError>,
    },
}
