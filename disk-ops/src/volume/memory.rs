//! A Windows volume in memory, for tests of what looks at files.

use std::collections::BTreeMap;

use super::{
    DirectoryEntry, FileAttributes, FileId, FileMeta, VolumeError, WinPath, WindowsTime,
    WindowsVolume,
};
use crate::units::ByteCount;

/// Files and folders in memory, found without regard to case.
#[derive(Clone, Debug, Default)]
pub struct MemoryVolume {
    /// By the path in lower case; a folder has no content.
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    path: WinPath,
    content: Option<Vec<u8>>,
}

impl MemoryVolume {
    /// Makes or replaces the file at `path`, and makes the folders that it needs.
    pub fn put(&mut self, path: &WinPath, content: impl Into<Vec<u8>>) {
        if let Some(parent) = path.parent() {
            self.create_folder(&parent);
        }
        self.insert(path, Some(content.into()));
    }

    /// Makes the folder at `path`, and those above it.
    pub fn create_folder(&mut self, path: &WinPath) {
        let mut folder = Some(path.clone());
        while let Some(path) = folder.filter(|path| !path.is_root()) {
            if !self.entries.contains_key(&folded(&path)) {
                self.insert(&path, None);
            }
            folder = path.parent();
        }
    }

    fn insert(&mut self, path: &WinPath, content: Option<Vec<u8>>) {
        let path = path.clone();
        self.entries.insert(folded(&path), Entry { path, content });
    }

    fn find(&self, path: &WinPath) -> Result<(u64, &Entry), VolumeError> {
        let key = folded(path);
        let found = (1..)
            .zip(&self.entries)
            .find(|(_, (other, _))| **other == key);
        found
            .map(|(number, (_, entry))| (number, entry))
            .ok_or_else(|| VolumeError::NotFound {
                file: path.to_string(),
                volume: NAME.to_owned(),
            })
    }
}

impl WindowsVolume for MemoryVolume {
    fn exists(&self, path: &WinPath) -> Result<bool, VolumeError> {
        Ok(path.is_root() || self.entries.contains_key(&folded(path)))
    }

    fn metadata(&self, path: &WinPath) -> Result<FileMeta, VolumeError> {
        let (number, content) = match path.is_root() {
            true => (0, &None),
            false => self
                .find(path)
                .map(|(number, entry)| (number, &entry.content))?,
        };
        let length = content.as_ref().map_or(0, |content| content.len() as u64);
        Ok(FileMeta::plain(
            id(number),
            content.is_none(),
            ByteCount(length),
        ))
    }

    fn list(&self, path: &WinPath) -> Result<Vec<DirectoryEntry>, VolumeError> {
        if !self.metadata(path)?.is_folder() {
            let file = path.to_string();
            return Err(VolumeError::NotAFolder { file });
        }
        let inside = (1..)
            .zip(self.entries.values())
            .filter(|(_, entry)| entry.path.parent().as_ref() == Some(path));
        let listed = inside.map(|(number, entry)| DirectoryEntry {
            name: entry.path.file_name().unwrap_or_default().to_owned(),
            id: id(number),
            attributes: FileAttributes::plain(entry.content.is_none()),
            size: ByteCount(
                entry
                    .content
                    .as_ref()
                    .map_or(0, |content| content.len() as u64),
            ),
            modified: WindowsTime::default(),
        });
        Ok(listed.collect())
    }

    fn read(&self, path: &WinPath, limit: ByteCount) -> Result<Vec<u8>, VolumeError> {
        let file = || path.to_string();
        let content = match path.is_root() {
            true => &None,
            false => &self.find(path)?.1.content,
        };
        let content = content
            .as_ref()
            .ok_or_else(|| VolumeError::IsFolder { file: file() })?;
        let found = ByteCount(content.len() as u64);
        if found > limit {
            return Err(VolumeError::TooLarge {
                file: file(),
                found,
                limit,
            });
        }
        Ok(content.clone())
    }
}

fn folded(path: &WinPath) -> String {
    path.to_string().to_lowercase()
}

fn id(record: u64) -> FileId {
    FileId {
        record,
        sequence: 1,
    }
}

const NAME: &str = "memory";

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> WinPath {
        text.parse().unwrap()
    }

    #[test]
    fn files_are_found_in_any_case_and_folders_list_what_is_in_them() {
        let mut volume = MemoryVolume::default();
        volume.put(&path(r"Windows\System32\config\SYSTEM"), *b"regf");
        assert!(
            volume
                .exists(&path(r"WINDOWS\system32\Config\system"))
                .unwrap()
        );
        assert!(
            !volume
                .exists(&path(r"Windows\System32\config\SAM"))
                .unwrap()
        );
        let hive = path(r"windows\system32\config\system");
        assert_eq!(volume.read(&hive, ByteCount(4)).unwrap(), b"regf");
        let too_large = volume.read(&hive, ByteCount(3));
        assert!(matches!(too_large, Err(VolumeError::TooLarge { .. })));
        let names = |folder: &WinPath| {
            let listed = volume.list(folder).unwrap();
            listed
                .into_iter()
                .map(|entry| entry.name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&WinPath::ROOT), ["Windows"]);
        assert_eq!(names(&path(r"Windows\System32\config")), ["SYSTEM"]);
        assert!(volume.metadata(&path("Windows")).unwrap().is_folder());
        let folder = volume.read(&path("Windows"), ByteCount(9));
        assert!(matches!(folder, Err(VolumeError::IsFolder { .. })));
        assert!(matches!(
            volume.list(&hive),
            Err(VolumeError::NotAFolder { .. })
        ));
        let missing = volume.metadata(&path("Users"));
        assert!(matches!(missing, Err(VolumeError::NotFound { .. })));
    }
}
