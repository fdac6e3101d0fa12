//! A connection to a share, usable from any thread; and a file on it.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;

use super::credentials::SmbCredentials;
use super::error::{During, SmbError, SmbErrorKind, answer, explain};
use super::location::{SmbLocation, SmbPath};
use super::native::Native;
use super::reach::{CONNECT, reach};
use super::security::{SmbSecurity, SmbTimeouts};
use super::session::{Command, FileId, Session};
use crate::units::{ByteCount, ByteOffset};

/// A connection to a share: one login, one thread (`ce-smb`) that does everything in the order in
/// which it is asked.
///
/// Clones use the same connection. When the last one and every [`ShareFile`] are gone, the
/// connection is closed, by its thread and without anybody's waiting for it. A connection that was
/// lost stays lost ([`SmbError::is_connection_lost`]): make a new one and open the files again.
#[derive(Clone)]
pub struct SmbShare {
    location: SmbLocation,
    commands: SyncSender<Command>,
}

impl SmbShare {
    /// Connects to the server, logs in once and enters the share of `location`.
    ///
    /// # Errors
    ///
    /// [`SmbError`]; of its kinds those that speak of server, login, share and protection.
    pub fn connect(
        location: &SmbLocation,
        credentials: &SmbCredentials,
        security: SmbSecurity,
        timeouts: SmbTimeouts,
    ) -> Result<Self, SmbError> {
        reach(location, timeouts.connect)?;
        let (commands, receiver) = sync_channel(COMMANDS_AHEAD);
        let (ready, entered) = sync_channel(1);
        let (target, credentials) = (location.clone(), credentials.clone());
        thread::Builder::new()
            .name("ce-smb".into())
            .spawn(move || {
                // Whoever waits for `ready` does so until this thread ends.
                let native = match Native::new(&target, credentials, security, timeouts.answer) {
                    Ok(native) => native,
                    Err(failure) => {
                        let kind = explain(&failure, During::Connect);
                        let answer = answer(&failure).unwrap_or_default();
                        let error = SmbError::new(kind, CONNECT, &target).with_answer(answer);
                        let _ = ready.send(Err(error));
                        return;
                    }
                };
                match Session::enter(&native, target) {
                    Ok(session) => {
                        let _ = ready.send(Ok(()));
                        session.serve(&receiver);
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                    }
                }
            })
            .map_err(|error| {
                SmbError::new(SmbErrorKind::Other, CONNECT, location).with_answer(error)
            })?;
        entered
            .recv()
            .unwrap_or_else(|_| Err(thread_ended(location)))?;
        Ok(Self {
            location: location.clone(),
            commands,
        })
    }

    /// The location that this was connected for.
    pub fn location(&self) -> &SmbLocation {
        &self.location
    }

    /// The bytes that the user may still write in the folder of `path`, which must exist; `None`
    /// if the server does not say.
    ///
    /// # Errors
    ///
    /// [`SmbError`].
    pub fn free_space(&self, path: &SmbPath) -> Result<Option<ByteCount>, SmbError> {
        let path = path.clone();
        self.call(move |session| session.free_space(&path))
    }

    /// What is at `path`, or `None` if nothing is.
    ///
    /// # Errors
    ///
    /// [`SmbError`].
    pub fn metadata(&self, path: &SmbPath) -> Result<Option<SmbMetadata>, SmbError> {
        let path = path.clone();
        self.call(move |session| session.metadata(&path))
    }

    /// Creates the folders on the way to `path` that are missing.
    ///
    /// # Errors
    ///
    /// [`SmbError`]; [`SmbErrorKind::PathRefused`] if a file is in the way.
    pub fn create_folders(&self, path: &SmbPath) -> Result<(), SmbError> {
        let path = path.clone();
        self.call(move |session| session.create_folders(&path))
    }

    /// Opens a file.
    ///
    /// # Errors
    ///
    /// [`SmbError`]; [`SmbErrorKind::OutputExists`] if a new file exists already,
    /// [`SmbErrorKind::NoSuchPath`] if an old one does not.
    pub fn open(&self, path: &SmbPath, how: ShareOpen) -> Result<ShareFile, SmbError> {
        let failure = Arc::default();
        let (recycle, recycled) = channel();
        let (opened, told) = (path.clone(), Arc::clone(&failure));
        let id = self.call(move |session| session.open(&opened, how, told, recycle))?;
        Ok(ShareFile {
            share: self.clone(),
            id,
            failure,
            start: 0,
            buffer: Vec::new(),
            buffers_made: 0,
            recycled,
        })
    }

    /// Renames a file. Without `replace` a file that has the new name is left alone.
    ///
    /// The look for such a file and the renaming are two requests: a file that someone else puts
    /// there between the two is replaced all the same. With `replace` the old file is removed
    /// before the new one has its name; SMB as libsmbclient speaks it has nothing better.
    ///
    /// # Errors
    ///
    /// [`SmbError`]; [`SmbErrorKind::OutputExists`].
    pub fn rename(&self, from: &SmbPath, to: &SmbPath, replace: bool) -> Result<(), SmbError> {
        let (from, to) = (from.clone(), to.clone());
        self.call(move |session| session.rename(&from, &to, replace))
    }

    /// Removes a file; says whether there was one.
    ///
    /// # Errors
    ///
    /// [`SmbError`]; [`SmbErrorKind::InUse`] while somebody has it open.
    pub fn remove(&self, path: &SmbPath) -> Result<bool, SmbError> {
        let path = path.clone();
        self.call(move |session| session.remove(&path))
    }

    /// Reads the whole of a file of at most `limit` bytes; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`SmbError`], also for a file that is longer.
    pub fn read_small(&self, path: &SmbPath, limit: usize) -> Result<Option<Vec<u8>>, SmbError> {
        let path = path.clone();
        self.call(move |session| session.read_small(&path, limit))
    }

    /// Puts a small file in the place of what was there: it is written as `<path>.new` first and
    /// then renamed.
    ///
    /// # Errors
    ///
    /// [`SmbError`].
    pub fn replace_small(&self, path: &SmbPath, bytes: Vec<u8>) -> Result<(), SmbError> {
        let path = path.clone();
        self.call(move |session| session.replace_small(&path, &bytes))
    }

    /// Has something done on the connection's thread and waits for it.
    fn call<T: Send + 'static>(
        &self,
        operation: impl for<'c> FnOnce(&mut Session<'c>) -> Result<T, SmbError> + Send + 'static,
    ) -> Result<T, SmbError> {
        let (reply, answer) = sync_channel(1);
        self.send(Command::Call(Box::new(move |session| {
            // The caller waits below for as long as the thread lives.
            let _ = reply.send(operation(session));
        })))?;
        answer
            .recv()
            .unwrap_or_else(|_| Err(thread_ended(&self.location)))
    }

    fn send(&self, command: Command) -> Result<(), SmbError> {
        self.commands
            .send(command)
            .map_err(|_| thread_ended(&self.location))
    }
}

impl fmt::Debug for SmbShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmbShare")
            .field("location", &self.location.to_string())
            .finish_non_exhaustive()
    }
}

/// What is known about a file or folder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SmbMetadata {
    /// The length of a file.
    pub length: ByteCount,
    /// Whether it is a folder.
    pub is_folder: bool,
}

/// How a file is opened. Others may read and write it meanwhile, but not remove or rename it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ShareOpen {
    /// It must exist, and is only read.
    Read,
    /// It must exist.
    ReadWrite,
    /// It must not exist.
    CreateNew,
}

/// An open file on a share.
///
/// Writes that continue each other are collected to blocks of [`SmbShare`]'s favourite size
/// (8 MiB) and written while the caller prepares the next: at most three blocks, 24 MiB, are held.
/// A write that fails is therefore reported by a later call, at the latest by
/// [`flush`](Self::flush). A file that is dropped is closed, and what was not flushed is lost.
pub struct ShareFile {
    share: SmbShare,
    id: FileId,
    /// Set by the connection's thread when a write has failed.
    failure: Arc<OnceLock<SmbError>>,
    /// Where `buffer` goes.
    start: u64,
    buffer: Vec<u8>,
    buffers_made: usize,
    /// Buffers come back here when they are written.
    recycled: Receiver<Vec<u8>>,
}

impl ShareFile {
    /// Writes `bytes` at `offset`, sooner or later.
    ///
    /// # Errors
    ///
    /// The [`SmbError`] of this or an earlier write. Nothing is written after the first that
    /// failed.
    pub fn write_at(&mut self, offset: ByteOffset, bytes: &[u8]) -> Result<(), SmbError> {
        let (mut at, mut rest) = (offset.0, bytes);
        while !rest.is_empty() {
            let room = self.room_at(at)?;
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.buffer.extend_from_slice(now);
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    /// Writes `length` zeros at `offset`, as bytes on the wire: a hole would be quicker, but not
    /// every server keeps its promise to read it as zeros within a quota.
    ///
    /// # Errors
    ///
    /// As for [`write_at`](Self::write_at).
    pub fn write_zeros_at(
        &mut self,
        offset: ByteOffset,
        length: ByteCount,
    ) -> Result<(), SmbError> {
        let (mut at, mut rest) = (offset.0, length.0);
        while rest > 0 {
            let room = self.room_at(at)?;
            let now = usize::try_from(rest).map_or(room, |rest| room.min(rest));
            self.buffer.resize(self.buffer.len() + now, 0);
            at += now as u64;
            rest -= now as u64;
        }
        Ok(())
    }

    /// Waits until everything written so far has been accepted by the server.
    ///
    /// Whether it is on the server's disk is another matter: libsmbclient can't ask for that.
    ///
    /// # Errors
    ///
    /// The [`SmbError`] of the first write that failed.
    pub fn flush(&mut self) -> Result<(), SmbError> {
        self.push()?;
        // Everything is done in order: when this has its turn, all writes had theirs.
        self.share.call(|_| Ok(()))?;
        self.check()
    }

    /// Puts a small file in the place of what was there ([`SmbShare::replace_small`]) when all that
    /// was written so far has been accepted, and not if any of it fails. Does not wait for that: a
    /// failure is reported by a later call, as that of a write is.
    ///
    /// # Errors
    ///
    /// The [`SmbError`] of an earlier write.
    pub fn replace_small_after_writes(
        &mut self,
        path: &SmbPath,
        bytes: Vec<u8>,
    ) -> Result<(), SmbError> {
        self.check()?;
        self.push()?;
        let (path, failure) = (path.clone(), Arc::clone(&self.failure));
        self.share.send(Command::Call(Box::new(move |session| {
            if failure.get().is_none()
                && let Err(error) = session.replace_small(&path, &bytes)
            {
                // Only this thread sets it, and it was empty a moment ago.
                let _ = failure.set(error);
            }
        })))
    }

    /// The length of the file on the server, with everything written so far.
    ///
    /// # Errors
    ///
    /// As for [`flush`](Self::flush), and [`SmbError`].
    pub fn length(&mut self) -> Result<ByteCount, SmbError> {
        self.flush()?;
        let id = self.id;
        self.share.call(move |session| session.length(id))
    }

    /// Reads as much of `buffer` as the file has from `offset` on, and says how much that is.
    ///
    /// # Errors
    ///
    /// As for [`flush`](Self::flush), and [`SmbError`].
    pub fn read_at(&mut self, offset: ByteOffset, buffer: &mut [u8]) -> Result<usize, SmbError> {
        self.flush()?;
        let id = self.id;
        let mut done = 0;
        for part in buffer.chunks_mut(BLOCK) {
            let (at, length) = (offset.0.saturating_add(done as u64), part.len());
            let bytes = self.share.call(move |session| {
                let mut bytes = vec![0; length];
                let count = session.read(id, at, &mut bytes)?;
                bytes.truncate(count);
                Ok(bytes)
            })?;
            part[..bytes.len()].copy_from_slice(&bytes);
            done += bytes.len();
            if bytes.len() < length {
                break;
            }
        }
        Ok(done)
    }

    /// Reads the file from `offset` to its end, a block ahead of `visit`, which gets position and
    /// bytes and may end it.
    ///
    /// # Errors
    ///
    /// As for [`flush`](Self::flush), and [`SmbError`].
    pub fn read_through(
        &mut self,
        offset: ByteOffset,
        mut visit: impl FnMut(ByteOffset, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), SmbError> {
        self.flush()?;
        let (reply, answers) = sync_channel(BLOCKS);
        let mut asked = offset.0;
        let mut ask = |mut bytes: Vec<u8>| {
            let (id, at, reply) = (self.id, asked, reply.clone());
            asked = asked.saturating_add(BLOCK as u64);
            self.share.send(Command::Call(Box::new(move |session| {
                let count = session.read(id, at, &mut bytes);
                // Whoever asked may have had enough.
                let _ = reply.send(count.map(|count| (at, count, bytes)));
            })))
        };
        for _ in 1..BLOCKS {
            ask(vec![0; BLOCK])?;
        }
        loop {
            let (at, count, bytes) = answers
                .recv()
                .unwrap_or_else(|_| Err(thread_ended(&self.share.location)))?;
            let found = bytes.get(..count).unwrap_or_default();
            if !found.is_empty() && visit(ByteOffset(at), found).is_break() {
                return Ok(());
            }
            if count < bytes.len() {
                return Ok(());
            }
            ask(bytes)?;
        }
    }

    /// Makes `buffer` one that goes on at `offset`, and says how much fits into it: never nothing.
    fn room_at(&mut self, offset: u64) -> Result<usize, SmbError> {
        self.check()?;
        let end = self.start.saturating_add(self.buffer.len() as u64);
        if end != offset || self.buffer.len() >= BLOCK {
            self.push()?;
        }
        if self.buffer.capacity() == 0 {
            self.buffer = self.empty_buffer()?;
        }
        if self.buffer.is_empty() {
            self.start = offset;
        }
        Ok(BLOCK - self.buffer.len())
    }

    /// Sends what has been collected.
    fn push(&mut self) -> Result<(), SmbError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.share.send(Command::Write {
            file: self.id,
            offset: self.start,
            bytes: std::mem::take(&mut self.buffer),
        })
    }

    fn empty_buffer(&mut self) -> Result<Vec<u8>, SmbError> {
        let mut buffer = match self.recycled.try_recv() {
            Ok(buffer) => buffer,
            Err(_) if self.buffers_made < BLOCKS => {
                self.buffers_made += 1;
                Vec::with_capacity(BLOCK)
            }
            // The connection's thread has the only sender: this ends when that does.
            Err(_) => self
                .recycled
                .recv()
                .map_err(|_| thread_ended(&self.share.location))?,
        };
        buffer.clear();
        Ok(buffer)
    }

    fn check(&self) -> Result<(), SmbError> {
        match self.failure.get() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for ShareFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShareFile")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Drop for ShareFile {
    fn drop(&mut self) {
        let id = self.id;
        // If the thread has ended, the file is closed.
        let _ = self
            .share
            .send(Command::Call(Box::new(move |session| session.close(id))));
    }
}

fn thread_ended(location: &SmbLocation) -> SmbError {
    SmbError::new(SmbErrorKind::Other, "working", location)
        .with_answer("the thread of the connection has ended")
}

/// The size in which the library writes and reads fastest: the largest that servers grant
/// (`MaxWriteSize` of Windows Server and of Samba).
const BLOCK: usize = 8 << 20;
/// Blocks of a file in memory: one that is collected, one that waits, one that is written.
const BLOCKS: usize = 3;
/// Commands that may wait for the thread; what they hold in memory is bounded by `BLOCKS`.
const COMMANDS_AHEAD: usize = 8;
