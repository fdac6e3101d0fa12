//! FAT, written: boot files of the EFI system partition.
//!
//! ```text
//!  FatEdit --> fatfs --> BoundedMedium --> overlay        (nothing reaches the disk here)
//!                                             |
//!  compared <-- FatVolume, opened anew <------+
//! ```
//!
//! Whole files are written and deleted, folders on the way are made. The `fatfs` crate does it,
//! behind the same guard as for reading: bounded reads and writes, and a panic is an error. Every
//! file is read back afterwards. Meant for an [`Overlay`](crate::block::Overlay): after an error the
//! volume is of no use and has to be dropped with it.

use std::cell::Cell;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use fatfs::{FileSystem, FsOptions};

use super::{FOLDERS, FatVolume, Room, entry_of, find};
use crate::block::{BlockError, BlockRead, BlockWrite};
use crate::units::{ByteCount, ByteOffset};
use crate::volume::ntfs::medium::Medium;
use crate::volume::{VolumeError, WinPath, WindowsVolume};

/// One change of a FAT volume.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FatEdit {
    /// The file goes. Nothing is done when it is not there.
    Delete {
        /// The file.
        path: WinPath,
    },
    /// The file has this content; it is made, with the folders on the way, if it is not there.
    Write {
        /// The file.
        path: WinPath,
        /// All of its bytes.
        content: Vec<u8>,
    },
}

impl FatEdit {
    fn path(&self) -> &WinPath {
        match self {
            Self::Delete { path } | Self::Write { path, .. } => path,
        }
    }
}

/// Why edits were not applied. The overlay that they went to has to be dropped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FatWriteError {
    /// The disk, or the overlay on it, could not be read or written.
    #[error("the disk failed")]
    Block(#[from] BlockError),
    /// The file could not be written or deleted.
    #[error("{file} cannot be written to {volume}: {problem}")]
    Edit {
        /// Which one.
        file: String,
        /// On which volume.
        volume: String,
        /// Why not.
        problem: String,
    },
    /// The volume could not be made.
    #[error("{volume} cannot be formatted: {problem}")]
    Format {
        /// The volume.
        volume: String,
        /// Why not.
        problem: String,
    },
    /// There is too little room. Nothing was written.
    #[error("{volume} has {free:#} free, expected at least {needed:#}")]
    NoSpace {
        /// The volume.
        volume: String,
        /// What is free on it.
        free: ByteCount,
        /// What the new files need.
        needed: ByteCount,
    },
    /// Read back, a file is not what was written.
    #[error("{file} on {volume}: read back after writing, it is not what was written")]
    NotAsWritten {
        /// Which one.
        file: String,
        /// On which volume.
        volume: String,
    },
    /// The volume could not be read.
    #[error("reading the volume failed")]
    Volume(#[from] VolumeError),
}

/// Applies `edits` to the FAT volume that fills `disk`, in their order, and reads the result back.
///
/// # Errors
///
/// [`FatWriteError`]
pub fn write_fat<D: BlockRead + BlockWrite>(
    disk: &D,
    edits: &[FatEdit],
) -> Result<(), FatWriteError> {
    expect_room(disk, edits)?;
    for edit in edits {
        apply(disk, edit)?;
    }
    let volume = FatVolume::open(disk)?;
    for edit in edits {
        let path = edit.path();
        let is_last = |other: &&FatEdit| other.path() == path;
        let is_so = match edits.iter().rev().find(is_last) {
            Some(FatEdit::Write { content, .. }) => {
                let limit = ByteCount(content.len() as u64);
                volume.exists(path)? && volume.read(path, limit)? == *content
            }
            Some(FatEdit::Delete { .. }) | None => !volume.exists(path)?,
        };
        if !is_so {
            return Err(FatWriteError::NotAsWritten {
                file: path.to_string(),
                volume: disk.name().to_owned(),
            });
        }
    }
    Ok(())
}

/// What is written anew has to fit beside what is there: a little more is asked for than is needed,
/// of each file a cluster, by which its folder may grow.
fn expect_room<D: BlockRead>(disk: &D, edits: &[FatEdit]) -> Result<(), FatWriteError> {
    let volume = FatVolume::open(disk)?;
    let Room { free, cluster } = volume.room()?;
    let mut needed = 0;
    for edit in edits {
        if let FatEdit::Write { path, content } = edit {
            let old = match volume.exists(path)? {
                true => volume.metadata(path)?.size.0,
                false => 0,
            };
            needed += (content.len() as u64 + 2 * cluster.0).saturating_sub(old);
        }
    }
    let needed = ByteCount(needed);
    match free < needed {
        true => Err(FatWriteError::NoSpace {
            volume: disk.name().to_owned(),
            free,
            needed,
        }),
        false => Ok(()),
    }
}

fn apply<D: BlockRead + BlockWrite>(disk: &D, edit: &FatEdit) -> Result<(), FatWriteError> {
    let failed = |problem| FatWriteError::Edit {
        file: edit.path().to_string(),
        volume: disk.name().to_owned(),
        problem,
    };
    let length = match edit {
        FatEdit::Delete { .. } => 0,
        FatEdit::Write { path, content } => {
            let names: Vec<&str> = path.components().collect();
            for depth in 1..names.len() {
                create_folder(disk, &names[..depth])?.map_err(failed)?;
            }
            content.len() as u64
        }
    };
    ask(disk, length, |volume, _| carry_out(volume, edit))?.map_err(failed)
}

/// Makes the last of `names`, if it is not there.
///
/// The `fatfs` crate (0.3.6) gives the entries `.` and `..` of a new folder long names, and below the
/// root of FAT32 it has `..` lead to the root's cluster and not to 0. Both are against the format
/// (Microsoft FAT specification 1.03, 6.5), so the two entries are set right behind its back.
fn create_folder<D: BlockRead + BlockWrite>(
    disk: &D,
    names: &[&str],
) -> Result<Result<(), String>, FatWriteError> {
    let created = ask(disk, 0, |volume, last_write| {
        let mut folder = volume.root_dir();
        let mut end = None;
        for name in names {
            folder = match entry_of(&folder, name) {
                Ok(entry) if entry.is_dir() => entry.to_dir(),
                Ok(_) => return Err(io::Error::other(format!("{name} is no folder"))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let made = folder.create_dir(name)?;
                    // What it wrote last was the entry `..`.
                    end = Some(last_write.get());
                    made
                }
                Err(error) => return Err(error),
            };
        }
        Ok(end)
    })?;
    let end = match created {
        Ok(Some(end)) => end,
        Ok(None) => return Ok(Ok(())),
        Err(problem) => return Ok(Err(problem)),
    };
    let Some(start) = end.checked_sub(FIRST_ENTRIES as u64).map(ByteOffset) else {
        return Ok(Err("the new folder is not where it was written".to_owned()));
    };
    let mut entries = [0; FIRST_ENTRIES];
    disk.read_at(start, &mut entries)?;
    let (entries_of_two, _) = entries.as_chunks::<ENTRY>();
    let [long, dot, long_too, dot_dot] = entries_of_two else {
        return Ok(Err("the new folder has no entries".to_owned()));
    };
    let is_as_known = [long, long_too].iter().all(|entry| entry[11] == LONG_NAME)
        && dot.starts_with(b".          \x10")
        && dot_dot.starts_with(b"..         \x10");
    if !is_as_known {
        return Ok(Err("the new folder does not begin as it should".to_owned()));
    }
    let (dot, mut dot_dot) = (*dot, *dot_dot);
    if names.len() == 1 {
        dot_dot[20..22].fill(0);
        dot_dot[26..28].fill(0);
    }
    let mut right = [0; FIRST_ENTRIES];
    right[..ENTRY].copy_from_slice(&dot);
    right[ENTRY..2 * ENTRY].copy_from_slice(&dot_dot);
    disk.write_at(start, &right)?;
    Ok(Ok(()))
}

/// Has the parser do something that writes `length` bytes of content, and closes the volume. The
/// question is also given where the last write ended. A problem of the volume comes back in words.
fn ask<D: BlockRead + BlockWrite, T>(
    disk: &D,
    length: u64,
    question: impl FnOnce(&FileSystem<&mut BoundedMedium<'_, D>>, &Cell<u64>) -> io::Result<T>,
) -> Result<Result<T, String>, FatWriteError> {
    ask_raw(disk, ByteCount(length.saturating_mul(4)), |medium| {
        let last_write = medium.last_write.clone();
        let volume = FileSystem::new(medium, FsOptions::new())?;
        let answer = question(&volume, &last_write);
        // Also after an error: what it would do when dropped is the same, and unheard.
        let closed = volume.unmount();
        answer.and_then(|answer| closed.map(|()| answer))
    })
}

/// Has the parser do something with the medium of a volume that takes `more` than what folders do.
pub(super) fn ask_raw<D: BlockRead + BlockWrite, T>(
    disk: &D,
    more: ByteCount,
    question: impl FnOnce(&mut BoundedMedium<'_, D>) -> io::Result<T>,
) -> Result<Result<T, String>, FatWriteError> {
    let allowance = ByteCount(FOLDERS.0.saturating_add(more.0));
    let mut medium = BoundedMedium {
        disk,
        read: Medium::new(disk, allowance),
        writable: allowance.0,
        last_write: Rc::default(),
        failure: None,
    };
    let answer = catch_unwind(AssertUnwindSafe(|| question(&mut medium)));
    if let Some(failure) = medium.failure.take().or(medium.read.take_failure()) {
        return Err(failure.into());
    }
    Ok(match answer {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("its sizes contradict each other".to_owned()),
    })
}

/// Has the volume know how much of it is free, which is unknown after formatting.
pub(super) fn count_free<D: BlockRead + BlockWrite>(
    disk: &D,
) -> Result<Result<(), String>, FatWriteError> {
    // A table has four bytes for each cluster of at least 512.
    let table = disk.size().0 / 128;
    ask(disk, table, |volume, _| volume.stats().map(|_| ()))
}

fn carry_out<T: fatfs::ReadWriteSeek>(volume: &FileSystem<T>, edit: &FatEdit) -> io::Result<()> {
    match edit {
        FatEdit::Delete { path } => {
            let entry = match find(volume.root_dir(), path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                found => found?,
            };
            if entry.is_dir() {
                return Err(io::Error::other("it is a folder"));
            }
            let (folder, name) = folder_of(volume, path)?;
            folder.remove(name)
        }
        FatEdit::Write { path, content } => {
            let (folder, name) = folder_of(volume, path)?;
            let mut file = match entry_of(&folder, name) {
                Ok(entry) if entry.is_dir() => return Err(io::Error::other("it is a folder")),
                Ok(entry) => entry.to_file(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    folder.create_file(name)?
                }
                Err(error) => return Err(error),
            };
            // Clusters are kept: first written over, then cut.
            file.write_all(content)?;
            file.truncate()?;
            file.flush()
        }
    }
}

/// The folder that `path` is in, and the name in it.
fn folder_of<'v, 'p, T: fatfs::ReadWriteSeek>(
    volume: &'v FileSystem<T>,
    path: &'p WinPath,
) -> io::Result<(fatfs::Dir<'v, T>, &'p str)> {
    let name = path.file_name().unwrap_or_default();
    let folder = match path.parent() {
        Some(parent) if !parent.is_root() => find(volume.root_dir(), &parent)?.to_dir(),
        _ => volume.root_dir(),
    };
    Ok((folder, name))
}

/// What the parser reads and writes, each so much and no more.
pub(super) struct BoundedMedium<'d, D: ?Sized> {
    disk: &'d D,
    read: Medium<'d, D>,
    writable: u64,
    /// Where the last write ended.
    last_write: Rc<Cell<u64>>,
    failure: Option<BlockError>,
}

impl<D: BlockRead + ?Sized> Read for BoundedMedium<'_, D> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        self.read.read(target)
    }
}

impl<D: BlockRead + ?Sized> Seek for BoundedMedium<'_, D> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.read.seek(to)
    }
}

impl<D: BlockWrite + ?Sized> Write for BoundedMedium<'_, D> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len() as u64;
        if length > self.writable {
            return Err(io::Error::other("the structure is endless"));
        }
        self.writable -= length;
        let ByteOffset(position) = self.read.position();
        self.disk
            .write_at(ByteOffset(position), bytes)
            .map_err(|failure| {
                let message = failure.to_string();
                self.failure = Some(failure);
                io::Error::other(message)
            })?;
        self.last_write.set(position + length);
        self.read.forget_block();
        self.read.seek(SeekFrom::Start(position + length))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The length of an entry of a folder.
const ENTRY: usize = 32;

/// What a new folder begins with: two entries, each after a long name.
const FIRST_ENTRIES: usize = 4 * ENTRY;

/// The attributes of an entry that is a part of a long name.
const LONG_NAME: u8 = 0x0F;
