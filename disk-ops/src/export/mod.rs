//! Exports a disk as an image file, with its MD5, in one pass.
//!
//! ```text
//!   thread ce-read            thread ce-hash              thread ce-sink
//!  +---------------+        +----------------+        +-------------------+
//!  | read, or skip |  chunk | MD5 over data  |  chunk | place the pieces, |
//!  | what is known |------->| and zeros, in  |------->| write them, then  |---> ByteSink
//!  | to be zero    |        | order          |        | tables, then head |
//!  +---------------+        +----------------+        +-------------------+
//!          ^                (only if asked for)                 |
//!          +-------------------- empty buffers -----------------+
//! ```
//!
//! Bytes flow one way. The queue between two stages and the number of buffers are bounded, so the
//! memory in use does not depend on the size of the disk. MD5 is serial and slower than the disk, so
//! the hash sets the pace, and everything else happens while it runs.
//!
//! A stage that fails notes its error, if it is the first, and leaves; its queues close and the
//! others follow. The same holds for a cancel. The output is under its partial name until the very
//! end, and its first MiB, without which no reader takes it for a VHDX, is written last.

use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use ce_vhdx::BlockSize;

use crate::block::{BlockError, BlockRead};
use crate::buffer::Buffer;
use crate::cancel::Cancel;
use crate::progress::Progress;
use crate::sink::{ByteSink, SinkError};
use crate::units::{ByteCount, ByteOffset};

mod hasher;
mod image;
mod reader;
#[cfg(test)]
mod tests;

use image::Image;

/// What kind of file an export writes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ImageFormat {
    /// A dynamic VHDX with payload blocks of this size.
    Vhdx(BlockSize),
    /// A fixed VHD. Its size is rounded up to a whole MiB, as Azure demands.
    FixedVhd,
}

/// How a disk is exported.
#[derive(Clone, Copy, Debug)]
pub struct ExportOptions {
    /// The kind of file to write.
    pub format: ImageFormat,
    /// Whether to compute the MD5 of the disk's content.
    pub hash: bool,
}

/// What an export did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExportReport {
    /// The MD5 of all bytes that a reader of the image sees, if it was asked for.
    pub md5: Option<Md5Digest>,
    /// The size of the disk in the image; what `md5` covers.
    pub virtual_size: ByteCount,
    /// The size of the image file.
    pub file_size: ByteCount,
}

/// An MD5 digest, shown as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Md5Digest(pub [u8; 16]);

impl std::fmt::Display for Md5Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why an export or a hash ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// Someone asked for it.
    #[error("cancelled")]
    Cancelled,
    /// No image can hold this disk.
    #[error("{disk} fits no image")]
    Geometry {
        /// The disk's name.
        disk: String,
        /// What stands against it.
        #[source]
        source: ce_vhdx::GeometryError,
    },
    /// The disk could not be read.
    #[error(transparent)]
    Read(#[from] BlockError),
    /// The operating system gave us no thread.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// A VHD cannot hold this disk.
    #[error("{disk} fits no VHD")]
    Vhd {
        /// The disk's name.
        disk: String,
        /// What stands against it.
        #[source]
        source: ce_vhdx::VhdError,
    },
    /// The image could not be written.
    #[error(transparent)]
    Write(#[from] SinkError),
}

/// Writes `source` to `sink` and completes the sink.
///
/// # Errors
///
/// [`ExportError`]; the sink has then been dropped unfinished.
pub fn export(
    source: &dyn BlockRead,
    mut sink: Box<dyn ByteSink>,
    options: &ExportOptions,
    cancel: &Cancel,
    progress: &Progress,
) -> Result<ExportReport, ExportError> {
    let image = Image::new(source, options.format)?;
    let virtual_size = image.virtual_size();
    let control = Control::new(cancel, progress);

    let (md5, file_size) = thread::scope(|scope| {
        let (buffers, give_back) = buffer_pool();
        let (to_next, from_reader) = sync_channel(BUFFERS);
        let read = || reader::run(source, virtual_size, buffers, to_next, &control);
        let reader = spawn(scope, "ce-read", read)?;
        let (hasher, from_last) = if options.hash {
            let (to_sink, from_hasher) = sync_channel(BUFFERS);
            let hash = || hasher::run_through(from_reader, to_sink, &control);
            (Some(spawn(scope, "ce-hash", hash)?), from_hasher)
        } else {
            (None, from_reader)
        };
        let write = || image::run(image, sink.as_mut(), from_last, give_back, &control);
        let writer = spawn(scope, "ce-sink", write)?;
        let read = join(reader);
        let hashed = hasher.map(join).transpose();
        let written = join(writer);
        control.outcome(read.and(hashed).and_then(|md5| Ok((md5, written?))))
    })?;

    // The last moment at which a cancel still leaves nothing behind.
    if cancel.is_requested() {
        return Err(ExportError::Cancelled);
    }
    sink.finish()?;
    Ok(ExportReport {
        md5,
        virtual_size,
        file_size,
    })
}

/// Computes the MD5 of the content of `source`.
///
/// # Errors
///
/// [`ExportError::Read`] or [`ExportError::Cancelled`].
pub fn hash(
    source: &dyn BlockRead,
    cancel: &Cancel,
    progress: &Progress,
) -> Result<Md5Digest, ExportError> {
    let size = source.size();
    let control = Control::new(cancel, progress);
    thread::scope(|scope| {
        let (buffers, give_back) = buffer_pool();
        let (to_hasher, from_reader) = sync_channel(BUFFERS);
        let read = || reader::run(source, size, buffers, to_hasher, &control);
        let reader = spawn(scope, "ce-read", read)?;
        let hasher = spawn(scope, "ce-hash", || {
            hasher::run_last(from_reader, give_back, &control)
        })?;
        let read = join(reader);
        let hashed = join(hasher);
        control.outcome(read.and(hashed))
    })
}

/// A run of the disk on its way through the stages, in ascending order without gaps.
struct Chunk {
    /// Where on the disk it begins; a multiple of [`CHUNK`].
    offset: ByteOffset,
    body: ChunkBody,
}

enum ChunkBody {
    /// The first `length` bytes of `buffer`.
    Data { buffer: Buffer, length: usize },
    /// Nothing but zeros.
    Zero { length: ByteCount },
}

/// What all stages share: the wish to stop, the first error, and how far they are.
struct Control<'a> {
    cancel: &'a Cancel,
    progress: &'a Progress,
    first_error: std::sync::Mutex<Option<ExportError>>,
}

/// A stage has ended early. Why is known to [`Control`], or to a neighbour that has told it.
struct Stopped;

impl<'a> Control<'a> {
    fn new(cancel: &'a Cancel, progress: &'a Progress) -> Self {
        Self {
            cancel,
            progress,
            first_error: std::sync::Mutex::new(None),
        }
    }

    /// Notes why a stage stops, unless another was first.
    fn fail(&self, error: impl Into<ExportError>) -> Stopped {
        let mut first = self
            .first_error
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        first.get_or_insert(error.into());
        Stopped
    }

    /// Polled once a chunk by every stage.
    fn check(&self) -> Result<(), Stopped> {
        if self.cancel.is_requested() {
            Err(self.fail(ExportError::Cancelled))
        } else {
            Ok(())
        }
    }

    fn outcome<T>(&self, result: Result<T, Stopped>) -> Result<T, ExportError> {
        result.map_err(|Stopped| {
            let mut first = self
                .first_error
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            first
                .take()
                .expect("a stage stops for an error it has noted, or after one that has")
        })
    }
}

fn buffer_pool() -> (Receiver<Buffer>, Sender<Buffer>) {
    let (give_back, buffers) = channel();
    for _ in 0..BUFFERS {
        // The receiver is alive: it is returned below.
        drop(give_back.send(Buffer::new(CHUNK)));
    }
    (buffers, give_back)
}

fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    name: &str,
    run: impl FnOnce() -> T + Send + 'scope,
) -> Result<thread::ScopedJoinHandle<'scope, T>, ExportError> {
    let builder = thread::Builder::new().name(name.to_owned());
    builder
        .spawn_scoped(scope, run)
        .map_err(ExportError::Thread)
}

fn join<T>(stage: thread::ScopedJoinHandle<'_, T>) -> T {
    stage
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn send<T>(queue: &SyncSender<T>, item: T) -> Result<(), Stopped> {
    queue.send(item).map_err(|_| Stopped)
}

/// The bytes of one read, and of one write where they are contiguous in the image.
///
/// A multiple of [`ce_vhdx::PIECE_LENGTH`] and of every alignment. Measured: larger ones gain nothing.
const CHUNK: usize = 2 << 20;

/// How many chunks may be under way. Enough for each of three stages to have one in hand, one
/// waiting, and some slack for a destination that hesitates.
const BUFFERS: usize = 10;
