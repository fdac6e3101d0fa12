//! The middle stage: MD5 over everything that passes, zeros included, in order.

use std::sync::mpsc::{Receiver, Sender, SyncSender};

use digest::Digest;

use super::Md5Digest;
use super::checkpoint::SavedMd5;
use super::stage::{Chunk, ChunkBody, Control, Stopped, send};
use crate::buffer::Buffer;
use crate::md5::Md5;
use crate::units::{ByteCount, ByteOffset};

/// Hashes what comes behind what `hash` has seen, and passes it on.
pub(super) fn run_through(
    mut hash: DiskHash,
    chunks: Receiver<Chunk>,
    next: SyncSender<Chunk>,
    control: &Control<'_>,
) -> Result<Md5Digest, Stopped> {
    for mut chunk in chunks {
        control.check()?;
        hash.update(&chunk);
        if let ChunkBody::Mark { md5 } = &mut chunk.body {
            *md5 = Some(SavedMd5::of(&hash.md5));
        }
        send(&next, chunk)?;
    }
    Ok(hash.finish())
}

/// Hashes what comes and gives the buffers back.
pub(super) fn run_last(
    chunks: Receiver<Chunk>,
    give_back: Sender<Buffer>,
    control: &Control<'_>,
) -> Result<DiskHash, Stopped> {
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
    Ok(hash)
}

/// The MD5 of the disk up to a position.
#[derive(Clone, Default)]
pub(super) struct DiskHash {
    pub(super) md5: Md5,
    pub(super) position: ByteOffset,
}

impl DiskHash {
    pub(super) fn update(&mut self, chunk: &Chunk) {
        assert_eq!(
            chunk.offset, self.position,
            "chunks arrive in order and without gaps"
        );
        let length = match &chunk.body {
            ChunkBody::Data { buffer, length } => {
                self.md5.update(buffer.bytes(*length));
                *length as u64
            }
            ChunkBody::Mark { .. } => 0,
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

    pub(super) fn finish(self) -> Md5Digest {
        Md5Digest(self.md5.finalize().into())
    }
}

/// Small enough to stay in the first-level cache while terabytes of it are hashed.
static ZEROS: [u8; 16 << 10] = [0; 16 << 10];
