//! Why a disk could not be opened, read or written.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::{DiskKind, MAX_DISK_SIZE};
use crate::units::{ByteCount, ByteOffset};

/// Why an open disk could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The range asked for does not lie on the disk.
    #[error("{disk}: the {length} at {offset} leave the disk, which ends at {end}")]
    OutOfRange {
        /// The disk's name.
        disk: String,
        /// Where the range began.
        offset: ByteOffset,
        /// How much was to be read or written.
        length: ByteCount,
        /// The end of the disk.
        end: ByteOffset,
    },
    /// The image around the disk failed: its file, or its tables changed since it was opened.
    #[error("{disk}: reading {length} at {offset} of the disk in the image failed")]
    Image {
        /// The disk's name.
        disk: String,
        /// Where the read began, on the disk.
        offset: ByteOffset,
        /// How much was asked for.
        length: ByteCount,
        /// What the reader of the image said.
        #[source]
        source: Box<ce_vhdx::ReadError>,
    },
    /// What was written could not be made durable.
    #[error("{disk}: making what was written durable failed")]
    Flush {
        /// The disk's name.
        disk: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// There is no room for more changes.
    #[error(
        "{disk}: the changes up to {offset} do not fit into the {limit} that the scratch folder \
         has for them"
    )]
    OverlayFull {
        /// The disk's name.
        disk: String,
        /// The first position that did not fit.
        offset: ByteOffset,
        /// How much fits.
        limit: ByteCount,
    },
    /// The file that changes are kept in failed.
    #[error("{disk}: {action} the changes kept in {scratch} failed")]
    Scratch {
        /// The disk's name.
        disk: String,
        /// Where the changes are kept.
        scratch: String,
        /// `reading` or `writing`.
        action: &'static str,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Somebody else has written to the disk.
    #[error("{disk}: was written to by somebody else since it was opened")]
    Touched {
        /// The disk's name.
        disk: String,
    },
    /// The medium failed to take data.
    #[error("{disk}: writing {length} at {offset} failed")]
    Write {
        /// The disk's name.
        disk: String,
        /// Where the write began.
        offset: ByteOffset,
        /// How much was to be written.
        length: ByteCount,
        /// What the operating system said.
        #[source]
        source: io::Error,
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
        source: io::Error,
    },
    /// The file or device is shorter than it was when it was opened.
    #[error("{disk}: ended at {offset} while being read, but was {size} long when it was opened")]
    Shrunk {
        /// The disk's name.
        disk: String,
        /// The first position that could not be read any more.
        offset: ByteOffset,
        /// The size at the time of opening.
        size: ByteCount,
    },
}

/// Why a path could not be opened as a disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is nothing at the path.
    #[error("{}: no such file or device", path.display())]
    NotFound {
        /// What was to be opened.
        path: PathBuf,
    },
    /// The user may not read it.
    #[error("{}: not readable by this user", path.display())]
    PermissionDenied {
        /// What was to be opened.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Something else uses the device or one of its partitions.
    #[error("{}: is in use{}", path.display(), clauses(held_by))]
    Busy {
        /// What was to be opened.
        path: PathBuf,
        /// What holds it, as clauses: `/dev/sda2 is mounted at /srv`. Empty if that is not known.
        held_by: Vec<String>,
    },
    /// The file is an image of a format that is not read here.
    #[error("{}: is a {found} image, expected a raw disk, VHDX or VHD: convert it first", path.display())]
    ForeignImage {
        /// What was to be opened.
        path: PathBuf,
        /// The name of the format.
        found: &'static str,
    },
    /// The file should be a VHDX or VHD, by its content or its name, but cannot be used as one.
    #[error("{}: cannot be opened as {kind}", path.display())]
    Image {
        /// What was to be opened.
        path: PathBuf,
        /// `VHDX` or `VHD`.
        kind: &'static str,
        /// What the reader of the image said.
        #[source]
        source: Box<ce_vhdx::OpenError>,
    },
    /// The path names a directory.
    #[error("{}: is a directory, expected a disk image or a block device", path.display())]
    IsDirectory {
        /// What was to be opened.
        path: PathBuf,
    },
    /// The path names something that has no disk content.
    #[error("{}: is a {found}, expected {expected}", path.display())]
    NotADisk {
        /// What was to be opened.
        path: PathBuf,
        /// What it is.
        found: FileKind,
        /// What it should have been.
        expected: &'static str,
    },
    /// The size is none that a disk can have.
    #[error("{}: {problem}", path.display())]
    BadSize {
        /// What was to be opened.
        path: PathBuf,
        /// What is wrong with the size.
        problem: SizeProblem,
    },
    /// The device counts in sectors that no image can have.
    #[error(
        "{}: has logical sectors of {logical} bytes and physical ones of {physical}, expected 512 \
         or 4096",
        path.display()
    )]
    SectorSize {
        /// What was to be opened.
        path: PathBuf,
        /// The logical sector size in bytes.
        logical: u32,
        /// The physical sector size in bytes.
        physical: u32,
    },
    /// The disk cannot be written in the form that it has.
    #[error("{}: is a {kind}, which is never written: convert it to a raw disk first", path.display())]
    NeverWritten {
        /// What was to be opened.
        path: PathBuf,
        /// What it is.
        kind: DiskKind,
    },
    /// It can be read but not be written.
    #[error("{}: not writable", path.display())]
    NotWritable {
        /// What was to be opened.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The operating system refused for another reason.
    #[error("{}: {action} failed", path.display())]
    Io {
        /// What was to be opened.
        path: PathBuf,
        /// What was being done, as a noun phrase: `opening`.
        action: &'static str,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

impl OpenError {
    /// As [`from_io`](Self::from_io), for an error of opening something that can be read for
    /// writing.
    pub(super) fn from_write_open(path: &std::path::Path, source: io::Error) -> Self {
        let path = path.to_owned();
        let denied = [
            io::ErrorKind::PermissionDenied,
            io::ErrorKind::ReadOnlyFilesystem,
        ];
        if denied.contains(&source.kind()) {
            return Self::NotWritable { path, source };
        }
        Self::from_io(&path, "opening it for writing", source)
    }

    /// Sorts an error of `action` on `path` into the family.
    pub(super) fn from_io(path: &std::path::Path, action: &'static str, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { path },
            io::ErrorKind::PermissionDenied => Self::PermissionDenied { path, source },
            _ => Self::Io {
                path,
                action,
                source,
            },
        }
    }
}

/// `held_by` as the end of a sentence.
fn clauses(held_by: &[String]) -> String {
    match held_by {
        [] => String::new(),
        clauses => format!(": {}", clauses.join(", ")),
    }
}

/// What a path names, as far as it matters here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum FileKind {
    /// A block device.
    BlockDevice,
    /// A character device, such as a terminal or `/dev/zero`.
    CharacterDevice,
    /// A named pipe.
    Fifo,
    /// A regular file.
    Regular,
    /// A socket.
    Socket,
    /// Something newer than this list.
    Unknown,
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BlockDevice => "block device",
            Self::CharacterDevice => "character device",
            Self::Fifo => "named pipe",
            Self::Regular => "regular file",
            Self::Socket => "socket",
            Self::Unknown => "file of an unknown kind",
        })
    }
}

/// What is wrong with the size of a disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SizeProblem {
    /// There is no content.
    #[error("is empty, expected at least one sector")]
    Empty,
    /// The last sector is cut short.
    #[error("is {size} long, which is not a multiple of the sector size of {sector} bytes")]
    PartialSector {
        /// The size found.
        size: ByteCount,
        /// The sector size that it should be a multiple of.
        sector: u64,
    },
    /// No image can hold it.
    #[error("is {size} long, more than the {MAX_DISK_SIZE} that an image can hold")]
    TooLarge {
        /// The size found.
        size: ByteCount,
    },
}

impl SizeProblem {
    /// What is wrong with a disk of `size` bytes in sectors of `sector` bytes, if anything.
    pub fn of(size: ByteCount, sector: u64) -> Option<Self> {
        if size.0 == 0 {
            Some(Self::Empty)
        } else if size > MAX_DISK_SIZE {
            Some(Self::TooLarge { size })
        } else if !size.0.is_multiple_of(sector) {
            Some(Self::PartialSector { size, sector })
        } else {
            None
        }
    }
}
