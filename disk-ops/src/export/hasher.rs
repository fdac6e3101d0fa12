//! The middle stage: MD5 over everything that passes, zeros included, in order.

use std::sync::mpsc::{Receiver, Sender, SyncSender};

use digest::Digest;

use super::{Chunk, ChunkBody, Control, Md5Digest, Stopped, send};
use crate::buffer::Buffer;
use crate::md5::Md5;
use crate::units::{ByteCount, ByteOffset};

/// Hashes what comes and passes it on.
pub(super) fn run_through(
    chunks: Receiver<Chunk>,
    next: SyncSender<Chunk>,
    control: &Control<'_>,
) -> Result<Md5Digest, Stopped> {
    let mut hash = DiskHash::default();
    for chunk in chunks {
        control.check()?;
        hash.update(&chunk);
        send(&next, chunk)?;
    }
    Ok(hash.finish())
}

/// Hashes what comes and gives the buffers back.
pub(super) fn run_last(
    chunks: Receiver<Chunk>,
    give_back: Sender<Buffer>,
    control: &Control<'_>,
) -> Result<Md5Digest, Stopped> {
    let mut hash = DiskHash::default();
    for chunk in chunks {
        control.check()?;
        hash.update(&chunk);
        control.progress.reach(ByteCount(hash.position.0));
        if let ChunkBody::Data { buffer, .. } = chunk.body {
            // Refused only by a reader that has read all it has to.
            drop(give_back.send(buffer));
        }
    }
    Ok(hash.finish())
}

#[derive(Default)]
struct DiskHash {
    md5: Md5,
    position: ByteOffset,
}

impl DiskHash {
    fn update(&mut self, chunk: &Chunk) {
        assert_eq!(
            chunk.offset, self.position,
            "chunks arrive in order and without gaps"
        );
        let length = match &chunk.body {
            ChunkBody::Data { buffer, length } => {
                self.md5.update(buffer.bytes(*length));
                *length as u64
            }
            ChunkBody::Zero { length } => {
                let mut left = length.0;
                while left > 0 {
                    let now = left.min(ZEROS.len() as u64);
                    self.md5.update(&ZEROS[..now as usize]);
                    left -= now;
                }
                length.0
            }
        };
        self.position = ByteOffset(self.position.0 + length);
    }

    fn finish(self) -> Md5Digest {
        Md5Digest(self.md5.finalize().into())
    }
}

/// Small enough to stay in the first-level cache while terabytes of it are hashed.
static ZEROS: [u8; 16 << 10] = [0; 16 << 10];
