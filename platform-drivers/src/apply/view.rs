//! A volume as it will be once the prepared files are written.

use ce_disk::units::ByteCount;
use ce_disk::volume::{DirectoryEntry, FileMeta, VolumeError, WinPath, WindowsVolume};
use ce_regf::neutralise_log;

use super::{Content, FileChange};

/// A volume with changes of files in front of it. What it lists and describes of files that change
/// is what is on the volume; what exists and what is read is as it will be.
pub struct View<'v> {
    volume: &'v dyn WindowsVolume,
    changes: &'v [FileChange],
}

impl<'v> View<'v> {
    /// `volume` with `changes`.
    pub fn new(volume: &'v dyn WindowsVolume, changes: &'v [FileChange]) -> Self {
        Self { volume, changes }
    }

    fn change(&self, path: &WinPath) -> Option<&Content> {
        let mut changes = self.changes.iter().rev();
        let found = changes.find(|change| change.path == *path);
        found.map(|change| &change.content)
    }

    fn missing(path: &WinPath) -> VolumeError {
        VolumeError::NotFound {
            file: path.to_string(),
            volume: "the prepared volume".to_owned(),
        }
    }
}

impl WindowsVolume for View<'_> {
    fn exists(&self, path: &WinPath) -> Result<bool, VolumeError> {
        match self.change(path) {
            Some(Content::Deleted) => Ok(false),
            Some(Content::Written(_)) => Ok(true),
            Some(Content::NeutralisedLog) | None => self.volume.exists(path),
        }
    }

    fn metadata(&self, path: &WinPath) -> Result<FileMeta, VolumeError> {
        match self.change(path) {
            Some(Content::Deleted) => Err(Self::missing(path)),
            _ => self.volume.metadata(path),
        }
    }

    fn list(&self, path: &WinPath) -> Result<Vec<DirectoryEntry>, VolumeError> {
        let mut entries = self.volume.list(path)?;
        entries.retain(|entry| {
            let path = path.join(&entry.name).ok();
            let change = path.and_then(|path| self.change(&path));
            change != Some(&Content::Deleted)
        });
        Ok(entries)
    }

    fn read(&self, path: &WinPath, limit: ByteCount) -> Result<Vec<u8>, VolumeError> {
        match self.change(path) {
            Some(Content::Deleted) => Err(Self::missing(path)),
            Some(Content::Written(bytes)) => {
                let found = ByteCount(bytes.len() as u64);
                match found > limit {
                    true => Err(VolumeError::TooLarge {
                        file: path.to_string(),
                        found,
                        limit,
                    }),
                    false => Ok(bytes.clone()),
                }
            }
            Some(Content::NeutralisedLog) => {
                let mut log = self.volume.read(path, limit)?;
                neutralise_log(&mut log);
                Ok(log)
            }
            None => self.volume.read(path, limit),
        }
    }
}
