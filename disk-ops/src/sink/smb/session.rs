//! What happens on the thread `ce-smb`: one connection, its open files, one thing at a time.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};

use pavao::{SmbClient, SmbFile, SmbMode, SmbOpenOptions};

use super::error::{During, SmbError, SmbErrorKind, answer, explain};
use super::location::{NEW, SmbLocation, SmbPath};
use super::native::{Native, NativeFailure};
use super::reach::CONNECT;
use super::share::{ShareOpen, SmbMetadata};
use crate::units::ByteCount;

/// Something to do on the connection.
pub(super) enum Command {
    /// Bytes for an open file. How it went is told by the file's failure, if it has one.
    Write {
        file: FileId,
        offset: u64,
        bytes: Vec<u8>,
    },
    /// Anything else; it brings its own way to answer.
    Call(Box<dyn for<'c> FnOnce(&mut Session<'c>) + Send>),
}

/// An open file of a [`Session`].
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct FileId(u64);

/// A connection in use.
pub(super) struct Session<'c> {
    native: &'c Native,
    location: SmbLocation,
    files: BTreeMap<FileId, OpenFile<'c>>,
    last_id: u64,
    /// Set when the connection can't be used any more. libsmbclient would quietly make another
    /// one, on which none of the open files is open.
    lost: Option<SmbError>,
}

struct OpenFile<'c> {
    file: SmbFile<'c>,
    /// Where libsmbclient will read or write next.
    position: u64,
    place: String,
    /// The first write that failed; what came after it was not written.
    failure: Arc<OnceLock<SmbError>>,
    /// Where written buffers go back to.
    recycle: Sender<Vec<u8>>,
}

impl<'c> Session<'c> {
    /// Enters the share.
    pub(super) fn enter(native: &'c Native, location: SmbLocation) -> Result<Self, SmbError> {
        let place = format!("smb://{}/{}", location.server(), location.share());
        let mut session = Self {
            native,
            location,
            files: BTreeMap::new(),
            last_id: 0,
            lost: None,
        };
        session.attempt(During::Connect, CONNECT, &place, |client| client.stat("/"))?;
        Ok(session)
    }

    /// Serves until nobody is left to command.
    pub(super) fn serve(mut self, commands: &Receiver<Command>) {
        while let Ok(command) = commands.recv() {
            match command {
                Command::Write {
                    file,
                    offset,
                    bytes,
                } => {
                    self.write(file, offset, &bytes);
                    if let Some(open) = self.files.get(&file) {
                        // The writer may have gone meanwhile.
                        let _ = open.recycle.send(bytes);
                    }
                }
                Command::Call(call) => call(&mut self),
            }
        }
        for (_, open) in std::mem::take(&mut self.files) {
            Native::close(open.file);
        }
    }

    /// The bytes that this user may still write in the folder of `path`, if the server says.
    pub(super) fn free_space(&mut self, path: &SmbPath) -> Result<Option<ByteCount>, SmbError> {
        let folder = path.encoded_folder();
        let place = self.place(path);
        let found = self.attempt(During::Path, "asking for free space", &place, |client| {
            client.statvfs(&folder)
        })?;
        // libsmbclient puts bytes per sector into `f_bsize` and sectors per unit into `f_frsize`.
        let unit = found.bsize.saturating_mul(found.frsize);
        Ok((unit != 0).then(|| ByteCount(unit.saturating_mul(found.bavail))))
    }

    pub(super) fn metadata(&mut self, path: &SmbPath) -> Result<Option<SmbMetadata>, SmbError> {
        let encoded = path.encoded();
        let place = self.place(path);
        let found = self.attempt(During::Path, "looking", &place, |client| {
            client.stat(&encoded)
        });
        match found {
            Ok(stat) => Ok(Some(SmbMetadata {
                length: ByteCount(stat.size),
                is_folder: stat.mode.is_dir(),
            })),
            Err(error) if *error.kind() == SmbErrorKind::NoSuchPath => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates the folders on the way to `path` that are missing.
    pub(super) fn create_folders(&mut self, path: &SmbPath) -> Result<(), SmbError> {
        for folder in path.folders() {
            match self.metadata(&folder)? {
                Some(found) if found.is_folder => continue,
                Some(_) => {
                    let place = self.place(&folder);
                    return Err(SmbError::new(SmbErrorKind::PathRefused, MAKE_FOLDER, place)
                        .with_answer("a file has that name"));
                }
                None => {}
            }
            let encoded = folder.encoded();
            let place = self.place(&folder);
            let made = self.attempt(During::PathChange, MAKE_FOLDER, &place, |client| {
                client.mkdir(&encoded, SmbMode::from(0o755u32))
            });
            match made {
                // Another export may have been quicker.
                Err(error) if *error.kind() == SmbErrorKind::OutputExists => {}
                made => made?,
            }
        }
        Ok(())
    }

    pub(super) fn open(
        &mut self,
        path: &SmbPath,
        how: ShareOpen,
        failure: Arc<OnceLock<SmbError>>,
        recycle: Sender<Vec<u8>>,
    ) -> Result<FileId, SmbError> {
        let options = SmbOpenOptions::default().read(true);
        let (options, during, action) = match how {
            ShareOpen::Read => (options, During::Path, "opening"),
            ShareOpen::ReadWrite => (
                options.write(true),
                During::PathChange,
                "opening for writing",
            ),
            ShareOpen::CreateNew => (
                options.write(true).create(true).exclusive(true),
                During::PathChange,
                "creating",
            ),
        };
        let encoded = path.encoded();
        let place = self.place(path);
        let file = self.attempt(during, action, &place, |client| {
            client.open_with(&encoded, options)
        })?;
        self.last_id += 1;
        let id = FileId(self.last_id);
        self.files.insert(
            id,
            OpenFile {
                file,
                position: 0,
                place,
                failure,
                recycle,
            },
        );
        Ok(id)
    }

    pub(super) fn close(&mut self, id: FileId) {
        // On a frozen server this takes twice the time for an answer. It is left for the end, when
        // nobody waits any more.
        if self.lost.is_some() {
            return;
        }
        if let Some(open) = self.files.remove(&id) {
            Native::close(open.file);
        }
    }

    pub(super) fn length(&mut self, id: FileId) -> Result<ByteCount, SmbError> {
        self.with_file(id, "asking for the length", |file, position| {
            *position = file.seek(SeekFrom::End(0))?;
            Ok(ByteCount(*position))
        })
    }

    /// Fills as much of `buffer` as the file has from `offset` on, and says how much that is.
    pub(super) fn read(
        &mut self,
        id: FileId,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, SmbError> {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset.saturating_add(done as u64);
            let count = self.with_file(id, "reading", |file, position| {
                move_to(file, position, at)?;
                let end = buffer.len().min(done.saturating_add(MOST_READ));
                let rest = buffer.get_mut(done..end).unwrap_or_default();
                let count = file.read(rest)?;
                *position += count as u64;
                Ok(count)
            })?;
            if count == 0 {
                break;
            }
            done += count;
        }
        Ok(done)
    }

    fn write(&mut self, id: FileId, offset: u64, bytes: &[u8]) {
        let mut rest = bytes;
        let mut at = offset;
        while !rest.is_empty() {
            let Some(open) = self.files.get(&id) else {
                return;
            };
            if open.failure.get().is_some() {
                return;
            }
            let failure = Arc::clone(&open.failure);
            let written = self.with_file(id, "writing", |file, position| {
                move_to(file, position, at)?;
                let count = file.write(rest)?;
                if count == 0 {
                    return Err(std::io::ErrorKind::WriteZero.into());
                }
                *position += count as u64;
                Ok(count)
            });
            match written {
                Ok(count) => {
                    rest = rest.get(count..).unwrap_or_default();
                    at += count as u64;
                }
                Err(error) => {
                    // Only this thread sets it, and it was empty a moment ago.
                    let _ = failure.set(error);
                }
            }
        }
    }

    /// Renames; with `replace`, what has the new name is removed first.
    ///
    /// libsmbclient removes it by itself, but whatever goes wrong on the way - the file is open
    /// elsewhere, the connection dies, even the answer to a renaming that was done is lost - it says
    /// that the name is taken. What is the case comes to light when the rest is done step by step.
    pub(super) fn rename(
        &mut self,
        from: &SmbPath,
        to: &SmbPath,
        replace: bool,
    ) -> Result<(), SmbError> {
        let place = self.place(to);
        if !replace && self.metadata(to)?.is_some() {
            return Err(SmbError::new(SmbErrorKind::OutputExists, RENAME, place));
        }
        match self.rename_once(from, to, &place) {
            Err(error) if replace && *error.kind() == SmbErrorKind::OutputExists => {
                if self.metadata(from)?.is_none() {
                    return Ok(());
                }
                self.remove(to)?;
                self.rename_once(from, to, &place)
            }
            result => result,
        }
    }

    fn rename_once(&mut self, from: &SmbPath, to: &SmbPath, place: &str) -> Result<(), SmbError> {
        let (from, to) = (from.encoded(), to.encoded());
        self.attempt(During::PathChange, RENAME, place, |client| {
            client.rename(&from, &to)
        })
    }

    /// Removes a file; says whether there was one.
    pub(super) fn remove(&mut self, path: &SmbPath) -> Result<bool, SmbError> {
        let encoded = path.encoded();
        let place = self.place(path);
        let removed = self.attempt(During::PathChange, "removing", &place, |client| {
            client.unlink(&encoded)
        });
        match removed {
            Ok(()) => Ok(true),
            Err(error) if *error.kind() == SmbErrorKind::NoSuchPath => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The whole of a small file, or `None` when there is none.
    pub(super) fn read_small(
        &mut self,
        path: &SmbPath,
        limit: usize,
    ) -> Result<Option<Vec<u8>>, SmbError> {
        let id = match self.open(path, ShareOpen::Read, Arc::default(), channel().0) {
            Ok(id) => id,
            Err(error) if *error.kind() == SmbErrorKind::NoSuchPath => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = vec![0; limit.saturating_add(1)];
        let count = self.read(id, 0, &mut bytes);
        self.close(id);
        let count = count?;
        if count > limit {
            let place = self.place(path);
            return Err(SmbError::new(SmbErrorKind::Other, "reading", place)
                .with_answer(format_args!("longer than {limit} bytes")));
        }
        bytes.truncate(count);
        Ok(Some(bytes))
    }

    /// Puts a small file in the place of what was there, so that one or the other can be found.
    pub(super) fn replace_small(&mut self, path: &SmbPath, bytes: &[u8]) -> Result<(), SmbError> {
        let new = path.with_suffix(NEW);
        self.remove(&new)?;
        let failure = Arc::default();
        let id = self.open(
            &new,
            ShareOpen::CreateNew,
            Arc::clone(&failure),
            channel().0,
        )?;
        self.write(id, 0, bytes);
        self.close(id);
        if let Some(failure) = failure.get() {
            return Err(failure.clone());
        }
        self.rename(&new, path, true)
    }

    fn place(&self, path: &SmbPath) -> String {
        format!(
            "smb://{}/{}/{path}",
            self.location.server(),
            self.location.share()
        )
    }

    fn with_file<T>(
        &mut self,
        id: FileId,
        action: &'static str,
        operation: impl FnOnce(&mut SmbFile<'c>, &mut u64) -> std::io::Result<T>,
    ) -> Result<T, SmbError> {
        // Out of the map for a moment, so that `attempt` can have the rest of us.
        let Some(mut open) = self.files.remove(&id) else {
            return Err(SmbError::new(SmbErrorKind::Other, action, &self.location)
                .with_answer("the file is not open"));
        };
        let place = std::mem::take(&mut open.place);
        let result = self.attempt(During::File, action, &place, |_| {
            operation(&mut open.file, &mut open.position)
        });
        open.place = place;
        self.files.insert(id, open);
        result
    }

    fn attempt<T, E: Into<NativeFailure>>(
        &mut self,
        during: During,
        action: &'static str,
        place: &str,
        operation: impl FnOnce(&'c SmbClient) -> Result<T, E>,
    ) -> Result<T, SmbError> {
        if let Some(lost) = &self.lost {
            return Err(lost.clone());
        }
        self.native.run(operation).map_err(|failure| {
            let kind = explain(&failure, during);
            let mut error = SmbError::new(kind, action, place);
            if let Some(answer) = answer(&failure) {
                error = error.with_answer(answer);
            }
            if error.is_connection_lost() || failure.unprotected {
                self.lost = Some(error.clone());
            }
            error
        })
    }
}

fn move_to(file: &mut SmbFile<'_>, position: &mut u64, offset: u64) -> std::io::Result<()> {
    if *position != offset {
        *position = file.seek(SeekFrom::Start(offset))?;
    }
    Ok(())
}

const MAKE_FOLDER: &str = "making the folder";
const RENAME: &str = "renaming the finished file";

/// Asked for more than this at a time, libsmbclient sends several requests at once; past the end of
/// a short file it then breaks the connection.
const MOST_READ: usize = 8 << 20;
