//! FAT, read: the EFI system partition.
//!
//! The `fatfs` crate reads it, one question at a time, behind a guard: every question may read so
//! many bytes and no more, which ends chains of clusters that are loops, and a panic over sizes that
//! contradict each other becomes an error. Nothing is written here: the crate is given no way to
//! ([`write_fat`] has one).

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};

use fatfs::{Dir, DirEntry, FileSystem, FsOptions, ReadWriteSeek};

use super::ntfs::medium::Medium;
use super::{
    DirectoryEntry, FileAttributes, FileId, FileMeta, VolumeError, WinPath, WindowsTime,
    WindowsVolume,
};
use crate::block::BlockRead;
use crate::units::ByteCount;

mod format;
mod write;

pub use format::{FatLabel, efi_system_floor, fat_floor, format_fat};
pub use write::{FatEdit, FatWriteError, write_fat};

/// A FAT volume on a disk or in a partition (a [`Window`](crate::block::Window)).
///
/// FAT has no numbers for its files: [`FileId`]s are zero. Times are local ones of an unknown zone
/// and are left out.
#[derive(Debug)]
pub struct FatVolume<D> {
    disk: D,
}

impl<D: BlockRead> FatVolume<D> {
    /// Opens the volume that begins with the first byte of `disk`.
    ///
    /// # Errors
    ///
    /// [`VolumeError::NotFat`] when the boot sector is none of FAT or cannot be true;
    /// [`VolumeError::Block`] when the disk cannot be read.
    pub fn open(disk: D) -> Result<Self, VolumeError> {
        let volume = Self { disk };
        match volume.ask(ByteCount::mib(1), "\\", |_| Ok(())) {
            Ok(()) => Ok(volume),
            Err(VolumeError::Damaged { problem, .. }) => Err(VolumeError::NotFat {
                volume: volume.disk.name().to_owned(),
                problem,
            }),
            Err(error) => Err(error),
        }
    }

    /// How much of it is free. Reads the whole table if the volume does not say.
    ///
    /// # Errors
    ///
    /// [`VolumeError`] when the table cannot be read or is too large to be.
    pub fn free(&self) -> Result<ByteCount, VolumeError> {
        Ok(self.room()?.free)
    }

    fn room(&self) -> Result<Room, VolumeError> {
        // FAT counts clusters with 28 bits, of at most 256 KiB.
        self.ask(ByteCount::mib(64), "\\", |volume| {
            let stats = volume.stats()?;
            let clusters = stats.free_clusters().min(stats.total_clusters());
            let cluster = u64::from(stats.cluster_size());
            Ok(Room {
                free: ByteCount(u64::from(clusters) * cluster),
                cluster: ByteCount(cluster),
            })
        })
    }

    /// Asks the parser something about `file`, with what it may read bounded.
    fn ask<T>(
        &self,
        allowance: ByteCount,
        file: &str,
        question: impl FnOnce(&FileSystem<&mut ReadOnly<'_, D>>) -> io::Result<T>,
    ) -> Result<T, VolumeError> {
        let mut medium = ReadOnly(Medium::new(&self.disk, allowance));
        let answer = catch_unwind(AssertUnwindSafe(|| {
            // Dropping it would tidy up on the volume. It owns nothing but a reference.
            let volume = ManuallyDrop::new(FileSystem::new(&mut medium, FsOptions::new())?);
            question(&volume)
        }));
        if let Some(failure) = medium.0.take_failure() {
            return Err(failure.into());
        }
        let damaged = |problem: String| VolumeError::Damaged {
            volume: self.disk.name().to_owned(),
            structure: "a FAT structure near",
            at: medium.0.position(),
            problem: format!("{file}: {problem}"),
        };
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) if medium.0.is_exhausted() => {
                Err(damaged("it has no end, or is a loop".to_owned()))
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                Err(VolumeError::NotFound {
                    file: file.to_owned(),
                    volume: self.disk.name().to_owned(),
                })
            }
            Ok(Err(error)) => Err(damaged(error.to_string())),
            Err(_) => Err(damaged("its sizes contradict each other".to_owned())),
        }
    }
}

impl<D: BlockRead> WindowsVolume for FatVolume<D> {
    fn exists(&self, path: &WinPath) -> Result<bool, VolumeError> {
        match self.metadata(path) {
            Ok(_) => Ok(true),
            Err(VolumeError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn metadata(&self, path: &WinPath) -> Result<FileMeta, VolumeError> {
        let (is_folder, size) = match path.is_root() {
            true => (true, 0),
            false => self.ask(FOLDERS, &path.to_string(), |volume| {
                let entry = find(volume.root_dir(), path)?;
                Ok((entry.is_dir(), entry.len()))
            })?,
        };
        Ok(FileMeta::plain(NO_ID, is_folder, ByteCount(size)))
    }

    fn list(&self, path: &WinPath) -> Result<Vec<DirectoryEntry>, VolumeError> {
        if !self.metadata(path)?.is_folder() {
            let file = path.to_string();
            return Err(VolumeError::NotAFolder { file });
        }
        self.ask(FOLDERS, &path.to_string(), |volume| {
            let folder = match path.is_root() {
                true => volume.root_dir(),
                false => find(volume.root_dir(), path)?.to_dir(),
            };
            let mut listed = Vec::new();
            for entry in folder.iter() {
                let entry = entry?;
                let name = entry.file_name();
                if name != "." && name != ".." {
                    listed.push(DirectoryEntry {
                        name,
                        id: NO_ID,
                        attributes: FileAttributes::plain(entry.is_dir()),
                        size: ByteCount(entry.len()),
                        modified: WindowsTime::default(),
                    });
                }
            }
            Ok(listed)
        })
    }

    fn read(&self, path: &WinPath, limit: ByteCount) -> Result<Vec<u8>, VolumeError> {
        let meta = self.metadata(path)?;
        let file = path.to_string();
        if meta.is_folder() {
            return Err(VolumeError::IsFolder { file });
        }
        if meta.size > limit {
            return Err(VolumeError::TooLarge {
                file,
                found: meta.size,
                limit,
            });
        }
        // The content, and its chain: four bytes for each cluster of at least 512.
        let allowance = ByteCount(FOLDERS.0.saturating_add(meta.size.0.saturating_mul(2)));
        let content = self.ask(allowance, &file, |volume| {
            let mut content = Vec::new();
            let opened = find(volume.root_dir(), path)?.to_file();
            opened.take(meta.size.0).read_to_end(&mut content)?;
            Ok(content)
        })?;
        if content.len() as u64 != meta.size.0 {
            return Err(VolumeError::Damaged {
                volume: self.disk.name().to_owned(),
                structure: "the chain of clusters of a file, read to",
                at: crate::units::ByteOffset(content.len() as u64),
                problem: format!("{file} ends there, expected {}", meta.size),
            });
        }
        Ok(content)
    }
}

/// The entry at `path`, which is not the root.
fn find<'v, T: ReadWriteSeek>(root: Dir<'v, T>, path: &WinPath) -> io::Result<DirEntry<'v, T>> {
    let mut folder = root;
    let mut names = path.components().peekable();
    while let Some(name) = names.next() {
        let entry = entry_of(&folder, name)?;
        if names.peek().is_none() {
            return Ok(entry);
        }
        if !entry.is_dir() {
            break;
        }
        folder = entry.to_dir();
    }
    Err(io::ErrorKind::NotFound.into())
}

/// The entry of `folder` that is called `name`, by its long or short name in any case.
fn entry_of<'v, T: ReadWriteSeek>(folder: &Dir<'v, T>, name: &str) -> io::Result<DirEntry<'v, T>> {
    let wanted = name.to_uppercase();
    for entry in folder.iter() {
        let entry = entry?;
        let names = [entry.file_name(), entry.short_file_name()];
        if names.iter().any(|name| name.to_uppercase() == wanted) {
            return Ok(entry);
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// What is free of a volume, and in which pieces it is given away.
struct Room {
    free: ByteCount,
    cluster: ByteCount,
}

/// What the parser wants to read and write; writing fails.
struct ReadOnly<'d, D: ?Sized>(Medium<'d, D>);

impl<D: BlockRead + ?Sized> Read for ReadOnly<'_, D> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        self.0.read(target)
    }
}

impl<D: BlockRead + ?Sized> Seek for ReadOnly<'_, D> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

impl<D: BlockRead + ?Sized> Write for ReadOnly<'_, D> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const NO_ID: FileId = FileId {
    record: 0,
    sequence: 0,
};

/// What may be read to walk through folders: far more than those of a system partition have.
const FOLDERS: ByteCount = ByteCount::mib(8);

#[cfg(test)]
mod tests;
