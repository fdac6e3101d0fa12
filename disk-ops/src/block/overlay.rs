//! Changes of a disk, kept beside it: the disk itself stays as it is.
//!
//! ```text
//!   write_at --> whole blocks of 4 KiB --> slot 0, 1, 2 ... of a scratch file
//!                (edges completed from          ^
//!                 what is read there)           |  block number --> slot, in order of the disk
//!                                               |
//!   read_at  --> changed blocks ----------------+
//!            +-> all others --------------------> the disk below
//! ```
//!
//! In memory there is one entry for each changed block, some 20 bytes of it, and nothing else that
//! grows. A block that is written back to what the disk holds stays an entry until
//! [`Overlay::visit_changes`] leaves it out.
//!
//! Blocks are 4 KiB and not sectors: that is the physical sector of today's disks, and if one is torn
//! in a power cut, all of it is in the journal to be written again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{BlockError, BlockRead, BlockWrite, Extent, ExtentKind, check_range};
use crate::buffer::Buffer;
use crate::scratch::{MemoryFile, ScratchFile};
use crate::units::{ByteCount, ByteOffset, SectorSizes};

/// A disk with changes over it.
///
/// After an error of [`write_at`](BlockWrite::write_at) the overlay is broken: it can be read, but
/// it takes no more writes and its changes are not to be committed, as some of them are missing.
#[derive(Debug)]
pub struct Overlay<D> {
    disk: D,
    kept_in: String,
    limit: ByteCount,
    changes: RwLock<Changes>,
    is_broken: AtomicBool,
}

#[derive(Debug)]
struct Changes {
    file: Box<dyn ScratchFile>,
    slots: BTreeMap<u64, u32>,
}

/// A run of changed blocks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Change<'a> {
    /// Where on the disk it begins.
    pub offset: ByteOffset,
    /// What the disk holds there.
    pub old: &'a [u8],
    /// What the overlay holds there; as long as `old`, and different in every block.
    pub new: &'a [u8],
}

impl<D: BlockRead> Overlay<D> {
    /// An overlay over `disk` that keeps at most `limit` of changes in `file`, which has to be
    /// empty. `kept_in` is what to call that place in a message.
    pub fn new(disk: D, file: Box<dyn ScratchFile>, kept_in: String, limit: ByteCount) -> Self {
        Self {
            disk,
            kept_in,
            limit,
            changes: RwLock::new(Changes {
                file,
                slots: BTreeMap::new(),
            }),
            is_broken: AtomicBool::new(false),
        }
    }

    /// An overlay that keeps at most `limit` of changes in memory.
    pub fn in_memory(disk: D, limit: ByteCount) -> Self {
        Self::new(
            disk,
            Box::new(MemoryFile::default()),
            "memory".into(),
            limit,
        )
    }

    /// The disk below, as it is without the changes.
    pub fn base(&self) -> &D {
        &self.disk
    }

    /// How much was written so far, in whole blocks; what was written to be the same counts too.
    pub fn changed(&self) -> ByteCount {
        ByteCount(self.read_changes().slots.len() as u64 * BLOCK)
    }

    /// How much can be changed.
    pub fn limit(&self) -> ByteCount {
        self.limit
    }

    /// Whether a write has failed, so that changes are missing.
    pub fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed)
    }

    /// Forgets all changes; the room they took is used again.
    pub fn discard_changes(&self) {
        self.write_changes().slots.clear();
        self.is_broken.store(false, Ordering::Relaxed);
    }

    /// Shows every block that differs from the disk below, in order of the disk, in runs of at most
    /// [`LONGEST_CHANGE`] bytes. Blocks that were written and are the same are left out.
    ///
    /// Nothing can be written meanwhile.
    ///
    /// # Errors
    ///
    /// Those of reading, and the first one of `visit`, which ends the visit.
    pub fn visit_changes<E: From<BlockError>>(
        &self,
        mut visit: impl FnMut(Change<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let changes = self.read_changes();
        let (mut old, mut new) = (Buffer::new(LONGEST_CHANGE), Buffer::new(LONGEST_CHANGE));
        let mut next = 0;
        while let Some((&first, _)) = changes.slots.range(next..).next() {
            let run = (first..).zip(changes.slots.range(first..));
            let run = run.take_while(|(expected, (found, _))| expected == *found);
            let count = run.take(LONGEST_CHANGE / BLOCK as usize).count() as u64;
            next = first + count;
            let offset = ByteOffset(first * BLOCK);
            let end = (next * BLOCK).min(self.size().0);
            let length = (end - offset.0) as usize;
            let (old, new) = (old.bytes_mut(length), new.bytes_mut(length));
            self.disk.read_at(offset, old)?;
            self.read_range(&changes, offset, new)?;
            for (start, end) in differing_runs(old, new) {
                visit(Change {
                    offset: ByteOffset(offset.0 + start as u64),
                    old: &old[start..end],
                    new: &new[start..end],
                })?;
            }
        }
        Ok(())
    }

    /// Reads through `changes`, piece by piece: from the scratch file what is in it, and from the
    /// disk what is not.
    fn read_range(
        &self,
        changes: &Changes,
        offset: ByteOffset,
        buffer: &mut [u8],
    ) -> Result<(), BlockError> {
        let mut at = 0;
        while at < buffer.len() {
            let position = offset.0 + at as u64;
            let (slot, length) = changes.piece_at(position, buffer.len() - at);
            let piece = &mut buffer[at..at + length];
            match slot {
                None => self.disk.read_at(ByteOffset(position), piece)?,
                Some(place) => changes
                    .file
                    .read_at(place, piece)
                    .map_err(|error| self.scratch_failed("reading", error))?,
            }
            at += length;
        }
        Ok(())
    }

    fn write_range(
        &self,
        changes: &mut Changes,
        offset: ByteOffset,
        bytes: &[u8],
    ) -> Result<(), BlockError> {
        let mut at = 0;
        while at < bytes.len() {
            let position = offset.0 + at as u64;
            let within = position % BLOCK;
            let left = bytes.len() - at;
            // Up to a border of blocks: the edges one by one, all between them at once.
            let length = if within > 0 || (left as u64) < BLOCK {
                left.min((BLOCK - within) as usize)
            } else {
                left - left % BLOCK as usize
            };
            let piece = &bytes[at..at + length];
            let block_start = position - within;
            let block_end = (block_start + BLOCK).min(self.size().0);
            // The last block of a disk may be a short one, and is whole then.
            let is_whole = within == 0
                && ((length as u64).is_multiple_of(BLOCK) || position + length as u64 == block_end);
            if is_whole {
                self.write_blocks(changes, position, piece)?;
            } else {
                let mut block = [0; BLOCK as usize];
                let block = &mut block[..(block_end - block_start) as usize];
                self.read_range(changes, ByteOffset(block_start), block)?;
                block[within as usize..][..length].copy_from_slice(piece);
                self.write_blocks(changes, block_start, block)?;
            }
            at += length;
        }
        Ok(())
    }

    /// Writes whole blocks, the last of which may be the disk's own short one.
    fn write_blocks(
        &self,
        changes: &mut Changes,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), BlockError> {
        let mut at = 0;
        while at < bytes.len() {
            let first = (offset + at as u64) / BLOCK;
            let slot = changes.slot_for(first);
            // As many more as follow each other in the file as well.
            let mut count = 1;
            while at + count * (BLOCK as usize) < bytes.len() {
                let number = first + count as u64;
                let expected = u64::from(slot) + count as u64;
                if u64::from(changes.slot_for(number)) != expected {
                    break;
                }
                count += 1;
            }
            let end = (at + count * BLOCK as usize).min(bytes.len());
            changes
                .file
                .write_at(u64::from(slot) * BLOCK, &bytes[at..end])
                .map_err(|error| self.scratch_failed("writing", error))?;
            at = end;
        }
        Ok(())
    }

    /// Makes sure that what is about to be written fits, before any of it is.
    fn expect_room(
        &self,
        changes: &Changes,
        offset: ByteOffset,
        length: usize,
    ) -> Result<(), BlockError> {
        // No overflow: the range is inside the disk.
        let blocks = offset.0 / BLOCK..(offset.0 + length as u64).div_ceil(BLOCK);
        let have = changes.slots.range(blocks.clone()).count() as u64;
        let needed = changes.slots.len() as u64 + (blocks.end - blocks.start) - have;
        // Slots are numbered in 32 bits, which is 16 TiB of changes.
        if needed * BLOCK <= self.limit.0 && u32::try_from(needed).is_ok() {
            return Ok(());
        }
        Err(BlockError::OverlayFull {
            disk: self.name().to_owned(),
            offset,
            limit: self.limit,
        })
    }

    fn scratch_failed(&self, action: &'static str, source: std::io::Error) -> BlockError {
        BlockError::Scratch {
            disk: self.name().to_owned(),
            scratch: self.kept_in.clone(),
            action,
            source,
        }
    }

    fn read_changes(&self) -> RwLockReadGuard<'_, Changes> {
        self.changes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_changes(&self) -> RwLockWriteGuard<'_, Changes> {
        self.changes.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Changes {
    /// The slot of a block, which it is given if it has none.
    fn slot_for(&mut self, number: u64) -> u32 {
        // There is one for every block: `expect_room` has seen to it.
        let next = self.slots.len() as u32;
        *self.slots.entry(number).or_insert(next)
    }

    /// Where in the file `position` of the disk is kept, if it is, and how many of `length` bytes
    /// from there on are to be had in the same way.
    fn piece_at(&self, position: u64, length: usize) -> (Option<u64>, usize) {
        let number = position / BLOCK;
        let within = position % BLOCK;
        let place = self
            .slots
            .get(&number)
            .map(|slot| u64::from(*slot) * BLOCK + within);
        let end = match self.slots.get(&number) {
            None => {
                let next = self.slots.range(number..).next();
                next.map_or(u64::MAX, |(next, _)| next * BLOCK)
            }
            Some(slot) => {
                let run = self.slots.range(number..).enumerate();
                let run = run.take_while(|(at, (found, kept))| {
                    **found == number + *at as u64
                        && u64::from(**kept) == u64::from(*slot) + *at as u64
                });
                // No further than is asked for.
                let most = length as u64 / BLOCK + 2;
                (number + run.take(most as usize).count() as u64) * BLOCK
            }
        };
        let left = end - position;
        (
            place,
            usize::try_from(left).map_or(length, |left| left.min(length)),
        )
    }
}

impl<D: BlockRead> BlockRead for Overlay<D> {
    fn size(&self) -> ByteCount {
        self.disk.size()
    }

    fn sectors(&self) -> SectorSizes {
        self.disk.sectors()
    }

    fn name(&self) -> &str {
        self.disk.name()
    }

    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<(), BlockError> {
        check_range(self, offset, ByteCount(buffer.len() as u64))?;
        self.read_range(&self.read_changes(), offset, buffer)
    }

    /// What is changed counts as data; the rest is as the disk below says.
    fn extent_at(&self, offset: ByteOffset) -> Result<Extent, BlockError> {
        check_range(self, offset, ByteCount(1))?;
        let changes = self.read_changes();
        let number = offset.0 / BLOCK;
        if changes.slots.contains_key(&number) {
            let run = (number..).zip(changes.slots.range(number..));
            let run = run.take_while(|(expected, (found, _))| expected == *found);
            return Ok(Extent {
                kind: ExtentKind::Data,
                end: ByteOffset((number + run.count() as u64) * BLOCK).min(self.size().end()),
            });
        }
        let below = self.disk.extent_at(offset)?;
        let next = changes.slots.range(number..).next();
        Ok(Extent {
            kind: below.kind,
            end: next.map_or(below.end, |(next, _)| {
                below.end.min(ByteOffset(next * BLOCK))
            }),
        })
    }
}

impl<D: BlockRead> BlockWrite for Overlay<D> {
    fn write_at(&self, offset: ByteOffset, bytes: &[u8]) -> Result<(), BlockError> {
        check_range(self, offset, ByteCount(bytes.len() as u64))?;
        let mut changes = self.write_changes();
        if self.is_broken() {
            return Err(self.scratch_failed(
                "writing",
                std::io::Error::other("an earlier write has failed"),
            ));
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let written = self
            .expect_room(&changes, offset, bytes.len())
            .and_then(|()| self.write_range(&mut changes, offset, bytes));
        if written.is_err() {
            self.is_broken.store(true, Ordering::Relaxed);
        }
        written
    }

    /// Nothing: what is in an overlay is made durable by a commit, and by nothing else.
    fn flush(&self) -> Result<(), BlockError> {
        Ok(())
    }
}

/// Where the blocks of `old` and `new` differ: start and end of each run.
fn differing_runs<'a>(
    old: &'a [u8],
    new: &'a [u8],
) -> impl Iterator<Item = (usize, usize)> + use<'a> {
    let block = BLOCK as usize;
    let differs = move |at: usize| {
        let end = (at + block).min(old.len());
        old[at..end] != new[at..end]
    };
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < old.len() && !differs(at) {
            at += block;
        }
        let start = at;
        while at < old.len() && differs(at) {
            at += block;
        }
        (start < old.len()).then(|| (start, at.min(old.len())))
    })
}

/// The unit of changes, in bytes.
pub const BLOCK: u64 = 4096;

/// The longest run that is shown at once, in bytes.
pub const LONGEST_CHANGE: usize = 1 << 20;

#[cfg(test)]
mod tests;
