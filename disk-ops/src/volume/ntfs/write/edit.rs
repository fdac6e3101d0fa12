//! What is to be changed on a volume, as data.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::super::meta::{FileAttributes, WindowsTime};
use crate::units::ByteCount;
use crate::volume::WinPath;

/// One change of a volume. Edits are applied in the order they are given in.
#[derive(Debug)]
#[non_exhaustive]
pub enum VolumeEdit {
    /// Makes a folder and those above it, as far as they are not there.
    CreateFolder {
        /// The folder.
        path: WinPath,
        /// Where the right to use a new folder comes from.
        security: Security,
    },
    /// Deletes a file, an empty folder, or a link of any kind (not what it leads to). Nothing is
    /// done when it is not there.
    Delete {
        /// What to delete.
        path: WinPath,
    },
    /// Deletes a folder with all that is in it, without following links. Nothing is done when it
    /// is not there.
    DeleteTree {
        /// The folder.
        path: WinPath,
    },
    /// Sets attributes or times of what is there.
    SetMeta {
        /// The file or folder.
        path: WinPath,
        /// The new attributes; `None` leaves them as they are.
        attributes: Option<FileAttributes>,
        /// The new times; `None` leaves them as they are.
        times: Option<FileTimes>,
    },
    /// Makes a file, or gives one a new content.
    WriteFile(FileWrite),
}

/// A file as it is to be.
///
/// A file that is there is overwritten in place: it keeps its record, its security descriptor, its
/// other streams and, as far as nothing else is said, its attributes. It is replaced by a new one
/// of the same attributes, creation time, security descriptor and short name when it has other
/// names (the content of those stays as it is), when it is compressed (by NTFS or CompactOS), or
/// sparse.
#[derive(Debug)]
pub struct FileWrite {
    /// The file. The folder that it is in has to be there.
    pub path: WinPath,
    /// What is in it.
    pub content: Arc<dyn ContentSource>,
    /// Its attributes. `None`: those it has, and `ARCHIVE`.
    pub attributes: Option<FileAttributes>,
    /// Its times. `None`: now; a file that is there keeps those of its creation and last access.
    pub times: Option<FileTimes>,
    /// Where the right to use a new file comes from.
    pub security: Security,
}

/// The times that can be set. When the record changed last is always the time of the edit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FileTimes {
    /// When it was made.
    pub created: WindowsTime,
    /// When its content changed last.
    pub modified: WindowsTime,
    /// When it was read last.
    pub accessed: WindowsTime,
}

/// Where the security descriptor of something new comes from.
///
/// Whatever the source says: if its descriptor would let everyone write, the new file gets one
/// by which the system and administrators may do all, and users read.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Security {
    /// From the folder that it is in, by the rules of inheritance.
    #[default]
    Inherit,
    /// The same as that of another file or folder of the volume.
    SameAs(WinPath),
}

/// Whether new files get a short (8.3) name beside a long one.
///
/// Windows keeps that in `NtfsDisable8dot3NameCreation` of the SYSTEM hive. A name that is itself
/// a short one serves as both, whatever the setting.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ShortNames {
    /// They do.
    Create,
    /// They do not.
    Omit,
}

impl ShortNames {
    /// What the value of `NtfsDisable8dot3NameCreation` asks for on the volume that Windows is on:
    /// 0 creates them on all volumes, 1 on none, 2 leaves it to each volume (those made by
    /// Windows have them), 3 creates them on the system volume only. Without a value, it is 2.
    pub fn by_setting(value: Option<u32>) -> Self {
        match value {
            Some(1) => Self::Omit,
            _ => Self::Create,
        }
    }
}

/// Bytes that become the content of a file. They are asked for in pieces and twice: when they are
/// written, and when the result is checked.
pub trait ContentSource: Send + Sync + fmt::Debug {
    /// How many they are.
    fn size(&self) -> ByteCount;

    /// Fills `buffer` with the bytes from `offset` on; they lie before [`size`](Self::size).
    ///
    /// # Errors
    ///
    /// What keeps them from being read.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl ContentSource for Vec<u8> {
    fn size(&self) -> ByteCount {
        ByteCount(self.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).ok();
        let bytes = from.and_then(|from| self.get(from..from.checked_add(buffer.len())?));
        let bytes = bytes.ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

/// A file of the host, whose length was taken once.
#[derive(Debug)]
pub struct HostFile {
    file: File,
    size: ByteCount,
}

impl HostFile {
    /// The content of `file`.
    ///
    /// # Errors
    ///
    /// When its length cannot be told.
    pub fn new(file: File) -> io::Result<Self> {
        let size = ByteCount(file.metadata()?.len());
        Ok(Self { file, size })
    }
}

impl ContentSource for HostFile {
    fn size(&self) -> ByteCount {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

/// What an edit did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum EditOutcome {
    /// Attributes or times were set.
    Changed,
    /// Something new is there.
    Created,
    /// That many files and folders are gone.
    Deleted(u64),
    /// A file has a new content, and is the same otherwise.
    Overwritten,
    /// A new file has taken the place of an old one.
    Replaced,
    /// It was so already.
    Unchanged,
}

impl VolumeEdit {
    /// What it changes.
    pub fn path(&self) -> &WinPath {
        match self {
            Self::CreateFolder { path, .. }
            | Self::Delete { path }
            | Self::DeleteTree { path }
            | Self::SetMeta { path, .. } => path,
            Self::WriteFile(file) => &file.path,
        }
    }
}

/// What it does and to what, for messages.
impl fmt::Display for VolumeEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self {
            Self::CreateFolder { .. } => "making the folder",
            Self::Delete { .. } => "deleting",
            Self::DeleteTree { .. } => "deleting all of",
            Self::SetMeta { .. } => "setting attributes of",
            Self::WriteFile(file) => {
                return write!(f, "writing {} to {}", file.content.size(), file.path);
            }
        };
        write!(f, "{verb} {}", self.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_of_windows_tells_whether_there_are_short_names() {
        for (value, expected) in [
            (None, ShortNames::Create),
            (Some(0), ShortNames::Create),
            (Some(1), ShortNames::Omit),
            (Some(2), ShortNames::Create),
            (Some(3), ShortNames::Create),
        ] {
            assert_eq!(ShortNames::by_setting(value), expected, "{value:?}");
        }
    }

    #[test]
    fn content_is_never_read_behind_its_end() {
        let content = vec![1, 2, 3];
        let mut two = [0; 2];
        content.read_at(1, &mut two).unwrap();
        assert_eq!(two, [2, 3]);
        assert!(content.read_at(2, &mut two).is_err());
        assert!(content.read_at(u64::MAX, &mut two).is_err());
    }
}
