//! The first stage: reads the disk in order, and skips what is known to be zero.

use std::sync::mpsc::{Receiver, SyncSender};

use ce_vhdx::is_zero;

use super::CheckpointInterval;
use super::stage::{CHUNK, Chunk, ChunkBody, Control, Stopped, send};
use crate::block::{BlockRead, ExtentKind};
use crate::buffer::Buffer;
use crate::units::{ByteCount, ByteOffset};

/// Sends `source` from `start` on, a whole number of chunks, and zeros behind its end up to
/// `virtual_size`; and a mark after every `interval`.
///
/// The chunks do not depend on where the holes of the source lie, except in being called zero.
pub(super) fn run(
    source: &dyn BlockRead,
    virtual_size: ByteCount,
    start: ByteOffset,
    interval: Option<CheckpointInterval>,
    buffers: Receiver<Buffer>,
    next: SyncSender<Chunk>,
    control: &Control<'_>,
) -> Result<(), Stopped> {
    let disk_end = source.size().0;
    let mut offset = start.0;
    let mut spare = None;
    let mut unmarked = Unmarked::default();
    while offset < disk_end {
        control.check()?;
        if interval.is_some_and(|interval| unmarked.is_more_than(&interval)) {
            unmarked = Unmarked::default();
            let body = ChunkBody::Mark { md5: None };
            let offset = ByteOffset(offset);
            send(&next, Chunk { offset, body })?;
        }
        let known_zero = zeros_from(source, offset, control)?;
        if known_zero > 0 {
            send(&next, zero_chunk(offset, known_zero))?;
            offset += known_zero;
            unmarked.zeros += known_zero;
            continue;
        }
        let length = (CHUNK as u64).min(disk_end - offset) as usize;
        let mut buffer = match spare.take() {
            Some(buffer) => buffer,
            None => buffers.recv().map_err(|_| Stopped)?,
        };
        let bytes = buffer.bytes_mut(length);
        source
            .read_at(ByteOffset(offset), bytes)
            .map_err(|error| control.fail(error))?;
        let chunk = if is_zero(bytes) {
            spare = Some(buffer);
            zero_chunk(offset, length as u64)
        } else {
            Chunk {
                offset: ByteOffset(offset),
                body: ChunkBody::Data { buffer, length },
            }
        };
        send(&next, chunk)?;
        offset += length as u64;
        unmarked.data += length as u64;
    }
    let padding = virtual_size.0.saturating_sub(disk_end);
    if padding > 0 {
        send(&next, zero_chunk(disk_end, padding))?;
    }
    Ok(())
}

/// What has been sent since the last mark.
#[derive(Default)]
struct Unmarked {
    /// In bytes that had to be read.
    data: u64,
    /// In bytes that were known to be zero.
    zeros: u64,
}

impl Unmarked {
    fn is_more_than(&self, interval: &CheckpointInterval) -> bool {
        self.data >= interval.data.0 || self.zeros >= interval.zeros.0
    }
}

/// How many bytes from `offset` are known to be zero without reading them, in whole chunks.
///
/// At the most [`ZERO_RUN`]. A shorter run of zeros is read along with its chunk.
fn zeros_from(source: &dyn BlockRead, offset: u64, control: &Control<'_>) -> Result<u64, Stopped> {
    let limit = offset.saturating_add(ZERO_RUN).min(source.size().0);
    let mut end = offset;
    // What is zero for two reasons (a hole, then a free range) comes in two extents.
    while end < limit {
        let extent = source
            .extent_at(ByteOffset(end))
            .map_err(|error| control.fail(error))?;
        if extent.kind == ExtentKind::Data {
            break;
        }
        end = extent.end.0;
    }
    if end >= limit {
        return Ok(limit - offset);
    }
    let length = end - offset;
    Ok(length - length % CHUNK as u64)
}

fn zero_chunk(offset: u64, length: u64) -> Chunk {
    Chunk {
        offset: ByteOffset(offset),
        body: ChunkBody::Zero {
            length: ByteCount(length),
        },
    }
}

/// The longest run of zeros sent as one chunk: what the hash takes about 0.1 s for, so that progress
/// and cancel do not wait on a hole of terabytes. A multiple of [`CHUNK`].
const ZERO_RUN: u64 = 64 << 20;
