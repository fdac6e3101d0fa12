//! What the stages of an export have in common: chunks, buffers, threads and the way to stop.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};
use std::thread;

use super::ExportError;
use super::checkpoint::SavedMd5;
use crate::buffer::Buffer;
use crate::cancel::Cancel;
use crate::progress::Progress;
use crate::units::{ByteCount, ByteOffset};

/// A run of the disk on its way through the stages, in ascending order without gaps.
pub(super) struct Chunk {
    /// Where on the disk it begins; a multiple of [`CHUNK`].
    pub(super) offset: ByteOffset,
    pub(super) body: ChunkBody,
}

pub(super) enum ChunkBody {
    /// The first `length` bytes of `buffer`.
    Data { buffer: Buffer, length: usize },
    /// Nothing of the disk: what came before is to be saved, with the state that the hash has
    /// here, if there is one.
    Mark { md5: Option<SavedMd5> },
    /// Nothing but zeros.
    Zero { length: ByteCount },
}

/// What all stages share: the wish to stop, the first error, and how far they are.
pub(super) struct Control<'a> {
    pub(super) cancel: &'a Cancel,
    pub(super) progress: &'a Progress,
    first_error: Mutex<Option<ExportError>>,
}

/// A stage has ended early. Why is known to [`Control`], or to a neighbour that has told it.
#[derive(Debug)]
pub(super) struct Stopped;

impl<'a> Control<'a> {
    pub(super) fn new(cancel: &'a Cancel, progress: &'a Progress) -> Self {
        Self {
            cancel,
            progress,
            first_error: Mutex::new(None),
        }
    }

    /// Notes why a stage stops, unless another was first.
    pub(super) fn fail(&self, error: impl Into<ExportError>) -> Stopped {
        let mut first = self
            .first_error
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        first.get_or_insert(error.into());
        Stopped
    }

    /// Polled once a chunk by every stage.
    pub(super) fn check(&self) -> Result<(), Stopped> {
        if self.cancel.is_requested() {
            Err(self.fail(ExportError::Cancelled))
        } else {
            Ok(())
        }
    }

    pub(super) fn outcome<T>(&self, result: Result<T, Stopped>) -> Result<T, ExportError> {
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

pub(super) fn buffer_pool() -> (Receiver<Buffer>, Sender<Buffer>) {
    let (give_back, buffers) = channel();
    for _ in 0..BUFFERS {
        // The receiver is alive: it is returned below.
        drop(give_back.send(Buffer::new(CHUNK)));
    }
    (buffers, give_back)
}

pub(super) fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    name: &str,
    run: impl FnOnce() -> T + Send + 'scope,
) -> Result<thread::ScopedJoinHandle<'scope, T>, ExportError> {
    let builder = thread::Builder::new().name(name.to_owned());
    builder
        .spawn_scoped(scope, run)
        .map_err(ExportError::Thread)
}

pub(super) fn join<T>(stage: thread::ScopedJoinHandle<'_, T>) -> T {
    stage
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

pub(super) fn send<T>(queue: &SyncSender<T>, item: T) -> Result<(), Stopped> {
    queue.send(item).map_err(|_| Stopped)
}

/// The bytes of one read, and of one write where they are contiguous in the image.
///
/// A multiple of [`ce_vhdx::PIECE_LENGTH`] and of every alignment. Measured: larger ones gain nothing.
pub(super) const CHUNK: usize = 2 << 20;

/// How many chunks may be under way. Enough for each of three stages to have one in hand, one
/// waiting, and some slack for a destination that hesitates.
pub(super) const BUFFERS: usize = 10;
