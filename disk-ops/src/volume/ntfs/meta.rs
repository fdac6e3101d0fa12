//! What is known about a file without reading it.

use std::fmt;

use super::reparse::{Reparse, WofAlgorithm};
use crate::units::ByteCount;

/// What a folder says about one of its files or folders.
///
/// A folder keeps a copy of these values, which Windows brings up to date when the file is closed:
/// [`FileMeta`] has the file's own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DirectoryEntry {
    /// The name, as written on the volume; unpaired surrogates are replaced.
    pub name: String,
    /// Which file it is.
    pub id: FileId,
    /// Its attributes.
    pub attributes: FileAttributes,
    /// The length of its content.
    pub size: ByteCount,
    /// When the content changed last.
    pub modified: WindowsTime,
}

/// What a file says about itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FileMeta {
    /// Which file it is.
    pub id: FileId,
    /// Its attributes.
    pub attributes: FileAttributes,
    /// The length of its content; zero for a folder.
    pub size: ByteCount,
    /// The room that its content takes on the volume; zero when it lies in the record itself.
    pub allocated: ByteCount,
    /// When it was made.
    pub created: WindowsTime,
    /// When its content changed last.
    pub modified: WindowsTime,
    /// When its record changed last.
    pub changed: WindowsTime,
    /// When it was read last, as far as Windows keeps that.
    pub accessed: WindowsTime,
    /// How many names it has, short names not counted apart.
    pub link_count: u32,
    /// All its names.
    pub names: Vec<HardLink>,
    /// The names of its alternate data streams.
    pub streams: Vec<String>,
    /// What it leads to, if it is a reparse point.
    pub reparse: Option<Reparse>,
    /// How its content is kept.
    pub storage: Storage,
}

impl FileMeta {
    /// What is known of a file or folder on a volume that keeps neither times nor links.
    pub(in crate::volume) fn plain(id: FileId, is_folder: bool, size: ByteCount) -> Self {
        Self {
            id,
            attributes: FileAttributes::plain(is_folder),
            size,
            allocated: size,
            created: WindowsTime::default(),
            modified: WindowsTime::default(),
            changed: WindowsTime::default(),
            accessed: WindowsTime::default(),
            link_count: 1,
            names: Vec::new(),
            streams: Vec::new(),
            reparse: None,
            storage: Storage::Plain,
        }
    }

    /// Whether it is a folder.
    pub fn is_folder(&self) -> bool {
        self.attributes.is_folder()
    }
}

/// One name of a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HardLink {
    /// The folder that the name is in.
    pub parent: FileId,
    /// The name.
    pub name: String,
    /// The 8.3 name that goes with it, if it is another one.
    pub short_name: Option<String>,
}

/// A file on a volume: the number of its record, and how often that record has been in use.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FileId {
    /// The number of the record in the master file table.
    pub record: u64,
    /// The sequence number of the record.
    pub sequence: u16,
}

impl FileId {
    /// The file that a reference on the volume means: 48 bits of number, 16 of sequence.
    pub(super) fn from_reference(reference: u64) -> Self {
        Self {
            record: reference & 0xFFFF_FFFF_FFFF,
            sequence: (reference >> 48) as u16,
        }
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.record, self.sequence)
    }
}

/// The attributes of a file (MS-FSCC 2.6).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FileAttributes(pub u32);

impl FileAttributes {
    /// Windows does not let it be changed.
    pub const READ_ONLY: Self = Self(0x1);
    /// It is not shown.
    pub const HIDDEN: Self = Self(0x2);
    /// It belongs to the system.
    pub const SYSTEM: Self = Self(0x4);
    /// It is a folder. NTFS itself has another bit for that, which is translated.
    pub const FOLDER: Self = Self(0x10);
    /// It changed since the last backup.
    pub const ARCHIVE: Self = Self(0x20);
    /// Parts of its content are not there and read as zeros.
    pub const SPARSE: Self = Self(0x200);
    /// It is a reparse point.
    pub const REPARSE_POINT: Self = Self(0x400);
    /// Its content is compressed by NTFS; of a folder, that of new files is.
    pub const COMPRESSED: Self = Self(0x800);
    /// Its content is encrypted by EFS; of a folder, that of new files is.
    pub const ENCRYPTED: Self = Self(0x4000);

    /// Whether all of `attributes` are set.
    pub fn contains(self, attributes: Self) -> bool {
        self.0 & attributes.0 == attributes.0
    }

    /// Whether it is a folder.
    pub fn is_folder(self) -> bool {
        self.contains(Self::FOLDER)
    }

    /// Those of a file or folder of which no others are known.
    pub(in crate::volume) fn plain(is_folder: bool) -> Self {
        match is_folder {
            true => Self::FOLDER,
            false => Self::ARCHIVE,
        }
    }

    /// From the bits on the volume and whether the record is one of a folder.
    pub(super) fn from_volume(bits: u32, is_folder: bool) -> Self {
        const ON_VOLUME: u32 = 0x1000_0000 | 0x2000_0000;
        let folder = if is_folder { Self::FOLDER.0 } else { 0 };
        Self(bits & !ON_VOLUME & !Self::FOLDER.0 | folder)
    }
}

/// A point in time as Windows counts it: units of 100 ns since the year 1601, UTC.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct WindowsTime(pub u64);

impl WindowsTime {
    /// The seconds since 1970, negative before; what is left of a second is dropped.
    pub fn unix_seconds(self) -> i64 {
        // Both quotients are below 2^41.
        (self.0 / 10_000_000) as i64 - SECONDS_TO_1970
    }
}

/// How the content of a file is kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Storage {
    /// Encrypted by EFS.
    Encrypted,
    /// Compressed by NTFS (LZNT1), unit by unit.
    Lznt1,
    /// As it is, in clusters or in the record.
    Plain,
    /// As it is, with parts that are not there.
    Sparse,
    /// Compressed by CompactOS.
    Wof(WofAlgorithm),
}

/// From 1601 to 1970.
const SECONDS_TO_1970: i64 = 11_644_473_600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_from_1601() {
        assert_eq!(WindowsTime(116_444_736_000_000_000).unix_seconds(), 0);
        assert_eq!(WindowsTime(0).unix_seconds(), -11_644_473_600);
        assert_eq!(
            WindowsTime(133_801_632_000_000_000).unix_seconds(),
            1_735_689_600
        );
    }

    #[test]
    fn the_folder_bit_of_ntfs_is_that_of_windows() {
        let folder = FileAttributes::from_volume(0x1000_0006, true);
        assert_eq!(folder, FileAttributes(0x16));
        assert!(!FileAttributes::from_volume(0x1000_0020, false).is_folder());
    }
}
