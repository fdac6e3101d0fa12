//! An image file on a local file system.
//!
//! The file grows as `<name>.partial` beside its final name, locked against a second writer, and is
//! renamed when it is whole and durable. Large aligned writes bypass the page cache where the file
//! system allows it: an image is written once and not read again soon, so caching it would only
//! push out what the machine needs. Zeros are left as holes.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, RenameFlags};
use rustix::io::Errno;

use super::{ByteSink, SinkError};
use crate::buffer::DIRECT_IO_ALIGNMENT;
use crate::units::{ByteCount, ByteOffset};

/// A [`ByteSink`] that writes a local file.
#[derive(Debug)]
pub struct FileSink {
    name: String,
    final_path: PathBuf,
    partial: PartialFile,
    overwrite: bool,
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
    pub fn create(path: &Path, overwrite: bool) -> Result<Self, SinkError> {
        let name = path.display().to_string();
        let create_failed = |source| SinkError::Create {
            output: name.clone(),
            source,
        };
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => {
                return Err(create_failed(io::Error::from(io::ErrorKind::IsADirectory)));
            }
            Ok(_) if !overwrite => return Err(SinkError::Exists { output: name }),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(create_failed(error)),
        }

        let partial_path = Self::partial_path(path);
        let Some(buffered) = lock_partial(&partial_path).map_err(create_failed)? else {
            let partial = partial_path.display().to_string();
            return Err(SinkError::Busy {
                output: name,
                partial,
            });
        };
        // Only the holder of the lock may empty or, later, remove the file.
        let partial = PartialFile {
            path: partial_path,
            keep: false,
        };
        buffered.set_len(0).map_err(create_failed)?;
        let direct = OpenOptions::new()
            .write(true)
            .custom_flags(OFlags::DIRECT.bits() as i32)
            .open(&partial.path)
            .ok();
        Ok(Self {
            name,
            final_path: path.to_owned(),
            partial,
            overwrite,
            buffered,
            direct,
        })
    }

    /// The name under which `path` is written until it is whole.
    pub fn partial_path(path: &Path) -> PathBuf {
        let mut partial = path.file_name().map(OsString::from).unwrap_or_default();
        partial.push(".partial");
        path.with_file_name(partial)
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
        let flags = if self.overwrite {
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
            Err(Errno::INVAL) if !self.overwrite => {
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

    fn finish(mut self: Box<Self>) -> Result<(), SinkError> {
        self.flush()?;
        self.rename()?;
        self.partial.keep = true;
        sync_folder(&self.final_path).map_err(|error| self.finish_failed(error))
    }
}

/// The partial file on disk, removed when it is dropped before it was renamed.
#[derive(Debug)]
struct PartialFile {
    path: PathBuf,
    keep: bool,
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if !self.keep {
            // Nobody is left to tell; and under its partial name the file is taken for no image.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Opens or creates the partial file and takes its lock; `None` if a living process has it.
fn lock_partial(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
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

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_sink_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.vhdx");
        let mut sink = FileSink::create(&path, false).unwrap();
        sink.write_at(ByteOffset::ZERO, b"half").unwrap();
        drop(sink);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_final_name_appears_only_when_the_file_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.vhdx");
        let mut sink = Box::new(FileSink::create(&path, false).unwrap());
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
            FileSink::create(&path, false),
            Err(SinkError::Exists { .. })
        ));

        let mut sink = Box::new(FileSink::create(&path, true).unwrap());
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
        let sink = Box::new(FileSink::create(&path, false).unwrap());
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
        let mut first = FileSink::create(&path, false).unwrap();
        first.write_at(ByteOffset::ZERO, b"first").unwrap();
        assert!(matches!(
            FileSink::create(&path, false),
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
        let mut sink = Box::new(FileSink::create(&path, false).unwrap());
        sink.write_at(ByteOffset::ZERO, b"new").unwrap();
        sink.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn aligned_and_odd_writes_end_in_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.vhdx");
        let mut sink = Box::new(FileSink::create(&path, false).unwrap());
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
