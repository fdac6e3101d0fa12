//! An image file on a local file system.
//!
//! The file grows as `<name>.partial` beside its final name, locked against a second writer, and is
//! renamed when it is whole and durable. Large aligned writes bypass the page cache where the file
//! system allows it: an image is written once and not read again soon, so caching it would only
//! push out what the machine needs. Zeros are left as holes.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, RenameFlags};
use rustix::io::Errno;

use super::{ByteSink, SinkError, SinkOptions};
use crate::buffer::DIRECT_IO_ALIGNMENT;
use crate::export::LONGEST_CHECKPOINT;
use crate::units::{ByteCount, ByteOffset};

/// A [`ByteSink`] that writes a local file.
#[derive(Debug)]
pub struct FileSink {
    name: String,
    final_path: PathBuf,
    partial: PartialFile,
    options: SinkOptions,
    /// For requests that direct I/O does not take; holds the lock.
    buffered: File,
    /// For aligned requests, where the file system has direct I/O.
    direct: Option<File>,
}

impl FileSink {
    /// Starts to write `path`, under its partial name.
    ///
    /// A partial file that an earlier, dead process left is replaced. With `overwrite`, an existing
    /// `path` stays as it is until the new file is whole.
    ///
    /// # Errors
    ///
    /// [`SinkError::Exists`] when `path` exists and `overwrite` is not set, [`SinkError::Busy`] when
    /// a living process writes the same output, [`SinkError::Create`] for all that the operating
    /// system objects to.
    pub fn create(path: &Path, options: SinkOptions) -> Result<Self, SinkError> {
        refuse_taken_name(path, options)?;
        let failed = |source| create_failed(path, source);
        let Some(buffered) = lock_partial(path, true)? else {
            return Err(failed(io::ErrorKind::NotFound.into()));
        };
        let sink = Self::open(path, options, buffered);
        // Only the holder of the lock may empty or, later, remove the file.
        remove_states(path).map_err(failed)?;
        sink.buffered.set_len(0).map_err(failed)?;
        Ok(sink)
    }

    /// Goes on with the partial file of `path`, if there is one. What it holds is for the caller to
    /// check.
    ///
    /// # Errors
    ///
    /// As for [`create`](Self::create).
    pub fn resume(path: &Path, options: SinkOptions) -> Result<Option<Self>, SinkError> {
        refuse_taken_name(path, options)?;
        let buffered = lock_partial(path, false)?;
        Ok(buffered.map(|buffered| Self::open(path, options, buffered)))
    }

    fn open(path: &Path, options: SinkOptions, buffered: File) -> Self {
        let partial = PartialFile {
            output: path.to_owned(),
            path: Self::partial_path(path),
            keep: options.keep_partial,
        };
        // By the descriptor and not by its path, which could lead elsewhere by now.
        let opened = format!("/proc/self/fd/{}", buffered.as_raw_fd());
        let direct = OpenOptions::new()
            .write(true)
            .custom_flags(OFlags::DIRECT.bits() as i32)
            .open(opened)
            .ok();
        Self {
            name: path.display().to_string(),
            final_path: path.to_owned(),
            partial,
            options,
            buffered,
            direct,
        }
    }

    /// The name under which `path` is written until it is whole.
    pub fn partial_path(path: &Path) -> PathBuf {
        beside(path, ".partial")
    }

    /// Where the state of an unfinished `path` is kept.
    pub fn state_path(path: &Path) -> PathBuf {
        beside(path, ".partial.state")
    }

    fn write_direct(&mut self, offset: ByteOffset, bytes: &[u8]) -> io::Result<bool> {
        let aligned = offset.0.is_multiple_of(DIRECT_IO_ALIGNMENT as u64)
            && bytes.len().is_multiple_of(DIRECT_IO_ALIGNMENT)
            && bytes.as_ptr().addr().is_multiple_of(DIRECT_IO_ALIGNMENT);
        let Some(direct) = self.direct.as_ref().filter(|_| aligned) else {
            return Ok(false);
        };
        match direct.write_all_at(bytes, offset.0) {
            Ok(()) => Ok(true),
            // Some file systems take the flag at open and refuse it here.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.direct = None;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn write_failed(&self, offset: ByteOffset, length: ByteCount, source: io::Error) -> SinkError {
        let output = self.name.clone();
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        if full.contains(&source.kind()) {
            let available = rustix::fs::fstatvfs(&self.buffered)
                .map_or(0, |found| found.f_bavail.saturating_mul(found.f_frsize));
            let available = ByteCount(available);
            return SinkError::NoSpace {
                output,
                offset,
                length,
                available,
            };
        }
        SinkError::Write {
            output,
            offset,
            length,
            source,
        }
    }

    fn rename(&self) -> Result<(), SinkError> {
        let flags = if self.options.overwrite {
            RenameFlags::empty()
        } else {
            RenameFlags::NOREPLACE
        };
        let here = rustix::fs::CWD;
        match rustix::fs::renameat_with(here, &self.partial.path, here, &self.final_path, flags) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => Err(SinkError::Exists {
                output: self.name.clone(),
            }),
            // A file system without NOREPLACE: a link is never made over an existing name either.
            Err(Errno::INVAL) if !self.options.overwrite => {
                match fs::hard_link(&self.partial.path, &self.final_path) {
                    Ok(()) => {
                        fs::remove_file(&self.partial.path).map_err(|e| self.finish_failed(e))
                    }
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        Err(SinkError::Exists {
                            output: self.name.clone(),
                        })
                    }
                    Err(error) => Err(self.finish_failed(error)),
                }
            }
            Err(error) => Err(self.finish_failed(error.into())),
        }
    }

    fn finish_failed(&self, source: io::Error) -> SinkError {
        SinkError::Finish {
            output: self.name.clone(),
            source,
        }
    }
}

impl ByteSink for FileSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn write_at(&mut self, offset: ByteOffset, bytes: &[u8]) -> Result<(), SinkError> {
        let written = match self.write_direct(offset, bytes) {
            Ok(true) => Ok(()),
            Ok(false) => self.buffered.write_all_at(bytes, offset.0),
            Err(error) => Err(error),
        };
        written.map_err(|error| self.write_failed(offset, ByteCount(bytes.len() as u64), error))
    }

    fn extend_with_zeros(
        &mut self,
        offset: ByteOffset,
        length: ByteCount,
    ) -> Result<(), SinkError> {
        self.buffered
            .set_len(offset.0.saturating_add(length.0))
            .map_err(|error| self.write_failed(offset, length, error))
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.buffered
            .sync_all()
            .map_err(|error| match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    self.write_failed(ByteOffset::ZERO, ByteCount(0), error)
                }
                _ => self.finish_failed(error),
            })
    }

    fn read_at(&mut self, offset: ByteOffset, buffer: &mut [u8]) -> Result<usize, SinkError> {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset.0.saturating_add(done as u64);
            match self.buffered.read_at(&mut buffer[done..], at) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(SinkError::ReadBack {
                        output: self.name.clone(),
                        offset: ByteOffset(at),
                        source,
                    });
                }
            }
        }
        Ok(done)
    }

    fn save_state(&mut self, state: &[u8]) -> Result<(), SinkError> {
        self.flush()?;
        let path = Self::state_path(&self.final_path);
        let new = beside(&self.final_path, NEW_STATE);
        let save = || {
            let mut file = File::create(&new)?;
            file.write_all(state)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            sync_folder(&path)
        };
        let length = ByteCount(state.len() as u64);
        save().map_err(|error| self.write_failed(ByteOffset::ZERO, length, error))
    }

    fn load_state(&mut self) -> Result<Option<Vec<u8>>, SinkError> {
        let load = || -> io::Result<Vec<u8>> {
            let mut state = Vec::new();
            let file = File::open(Self::state_path(&self.final_path))?;
            // One byte more than there can be: what is longer is no checkpoint either.
            let limit = LONGEST_CHECKPOINT as u64 + 1;
            file.take(limit).read_to_end(&mut state)?;
            Ok(state)
        };
        match load() {
            Ok(state) => Ok(Some(state)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(SinkError::ReadBack {
                output: Self::state_path(&self.final_path).display().to_string(),
                offset: ByteOffset::ZERO,
                source,
            }),
        }
    }

    fn cut_to(&mut self, end: ByteOffset) -> Result<(), SinkError> {
        self.buffered
            .set_len(end.0)
            .map_err(|error| self.write_failed(end, ByteCount(0), error))
    }

    fn discard(mut self: Box<Self>) {
        self.partial.keep = false;
    }

    fn finish(mut self: Box<Self>) -> Result<(), SinkError> {
        self.flush()?;
        self.rename()?;
        self.partial.keep = true;
        remove_states(&self.final_path).map_err(|error| self.finish_failed(error))?;
        sync_folder(&self.final_path).map_err(|error| self.finish_failed(error))
    }
}

/// The partial file on disk, removed when it is dropped before it was renamed, unless it is kept.
#[derive(Debug)]
struct PartialFile {
    output: PathBuf,
    path: PathBuf,
    keep: bool,
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if !self.keep {
            // Nobody is left to tell; and under its partial name the file is taken for no image.
            drop(remove_states(&self.output));
            drop(fs::remove_file(&self.path));
        }
    }
}

fn refuse_taken_name(path: &Path, options: SinkOptions) -> Result<(), SinkError> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => Err(create_failed(path, io::ErrorKind::IsADirectory.into())),
        Ok(_) if !options.overwrite => Err(SinkError::Exists {
            output: path.display().to_string(),
        }),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(create_failed(path, error)),
    }
}

fn create_failed(path: &Path, source: io::Error) -> SinkError {
    SinkError::Create {
        output: path.display().to_string(),
        source,
    }
}

/// Opens the partial file of `path` and takes its lock. If there is none it is created, or, where
/// that is not wanted, the answer is `None`.
fn lock_partial(path: &Path, create: bool) -> Result<Option<File>, SinkError> {
    let partial = FileSink::partial_path(path);
    match open_locked(&partial, create) {
        Ok(Some(file)) => Ok(Some(file)),
        Ok(None) => Err(SinkError::Busy {
            output: path.display().to_string(),
            partial: partial.display().to_string(),
        }),
        Err(error) if !create && error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(create_failed(path, error)),
    }
}

/// The file at `path` with its lock; `None` if a living process has it.
fn open_locked(path: &Path, create: bool) -> io::Result<Option<File>> {
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(create)
            .truncate(false)
            // The partial name must be a file of its own, never a link to somewhere else.
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        // The former holder may have renamed or removed the file between our open and our lock.
        let ours = file.metadata()?;
        match fs::symlink_metadata(path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => {
                return Ok(Some(file));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
}

/// Removes what is kept beside the partial file.
fn remove_states(path: &Path) -> io::Result<()> {
    for state in [FileSink::state_path(path), beside(path, NEW_STATE)] {
        match fs::remove_file(state) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The name of `path` with `suffix` behind it.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().map(OsString::from).unwrap_or_default();
    name.push(suffix);
    path.with_file_name(name)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.or_else(|error| match error.kind() {
        // A folder that may be written but not read, or a file system that syncs no folders: the
        // file is whole, has its name, and nothing better can be done here.
        io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput => Ok(()),
        _ => Err(error),
    })
}

/// What a state is written as before it takes the place of the last one.
const NEW_STATE: &str = ".partial.state.new";

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: SinkOptions = SinkOptions {
        overwrite: false,
        keep_partial: false,
    };
    const OVERWRITE: SinkOptions = SinkOptions {
        overwrite: true,
        ..PLAIN
    };
    const KEEP: SinkOptions = SinkOptions {
        keep_partial: true,
        ..PLAIN
    };

    #[test]
    fn a_partial_file_can_be_kept_and_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.vhdx");
        assert!(FileSink::resume(&path, KEEP).unwrap().is_none());
        let mut sink = FileSink::create(&path, KEEP).unwrap();
        assert_eq!(sink.load_state().unwrap(), None);
        sink.write_at(ByteOffset::ZERO, b"half a word").unwrap();
        sink.save_state(b"one").unwrap();
        sink.save_state(b"two").unwrap();
        drop(sink);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);

        let mut sink = Box::new(FileSink::resume(&path, KEEP).unwrap().unwrap());
        assert_eq!(sink.load_state().unwrap().unwrap(), b"two");
        let mut back = [0; 20];
        assert_eq!(sink.read_at(ByteOffset(5), &mut back).unwrap(), 6);
        assert_eq!(&back[..6], b"a word");
        sink.cut_to(ByteOffset(4)).unwrap();
        sink.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"half");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_discarded_or_begun_anew_is_gone_with_its_state() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.vhdx");
        let mut sink = FileSink::create(&path, KEEP).unwrap();
        sink.save_state(b"one").unwrap();
        drop(sink);
        let mut sink = Box::new(FileSink::create(&path, KEEP).unwrap());
        assert_eq!(sink.load_state().unwrap(), None);
        sink.save_state(b"two").unwrap();
        sink.discard();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_dropped_sink_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.vhdx");
        let mut sink = FileSink::create(&path, PLAIN).unwrap();
        sink.write_at(ByteOffset::ZERO, b"half").unwrap();
        drop(sink);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_final_name_appears_only_when_the_file_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.vhdx");
        let mut sink = Box::new(FileSink::create(&path, PLAIN).unwrap());
        sink.write_at(ByteOffset::ZERO, b"whole").unwrap();
        assert!(!path.exists());
        sink.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_existing_output_is_kept_unless_it_may_be_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.vhdx");
        fs::write(&path, b"precious").unwrap();
        assert!(matches!(
            FileSink::create(&path, PLAIN),
            Err(SinkError::Exists { .. })
        ));

        let mut sink = Box::new(FileSink::create(&path, OVERWRITE).unwrap());
        sink.write_at(ByteOffset::ZERO, b"newer").unwrap();
        assert_eq!(
            fs::read(&path).unwrap(),
            b"precious",
            "replaced before it was whole"
        );
        sink.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"newer");
    }

    #[test]
    fn a_name_taken_while_writing_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.vhdx");
        let sink = Box::new(FileSink::create(&path, PLAIN).unwrap());
        fs::write(&path, b"faster").unwrap();
        assert!(matches!(sink.finish(), Err(SinkError::Exists { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"faster");
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "the partial file was left"
        );
    }

    #[test]
    fn two_writers_of_one_output_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.vhdx");
        let mut first = FileSink::create(&path, PLAIN).unwrap();
        first.write_at(ByteOffset::ZERO, b"first").unwrap();
        assert!(matches!(
            FileSink::create(&path, PLAIN),
            Err(SinkError::Busy { .. })
        ));
        assert_eq!(
            fs::read(folder.path().join("disk.vhdx.partial")).unwrap(),
            b"first"
        );
    }

    #[test]
    fn what_a_dead_writer_left_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.vhdx");
        fs::write(folder.path().join("disk.vhdx.partial"), b"left by a crash").unwrap();
        let mut sink = Box::new(FileSink::create(&path, PLAIN).unwrap());
        sink.write_at(ByteOffset::ZERO, b"new").unwrap();
        sink.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn aligned_and_odd_writes_end_in_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.vhdx");
        let mut sink = Box::new(FileSink::create(&path, PLAIN).unwrap());
        let mut expected = vec![0; 3 * 4096 + 100];
        let mut buffer = crate::buffer::Buffer::new(8192);
        buffer.bytes_mut(8192).fill(7);
        expected[4096..3 * 4096].fill(7);
        expected[3 * 4096..].fill(9);
        sink.extend_with_zeros(ByteOffset::ZERO, ByteCount(4096))
            .unwrap();
        sink.write_at(ByteOffset(4096), buffer.bytes(8192)).unwrap();
        sink.write_at(ByteOffset(3 * 4096), &[9; 100]).unwrap();
        sink.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), expected);
    }
}
