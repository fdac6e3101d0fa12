//! Writing a sealed journal to its disk, and finding out how much of that was done before.

use super::error::ApplyError;
use super::journal::{Journal, Record};
use crate::block::overlay::LONGEST_CHANGE;
use crate::block::{BlockError, BlockRead, BlockWrite};
use crate::buffer::Buffer;
use crate::units::{ByteCount, ByteOffset};

/// What a disk holds where a journal writes, in sectors.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Comparison {
    /// Sectors with the old content.
    pub old: u64,
    /// Sectors with the new content, those that stay the same among them.
    pub new: u64,
    /// Sectors with neither.
    pub foreign: u64,
    /// The first of these.
    pub first_foreign: Option<ByteOffset>,
    /// The first sector that does not have the new content.
    pub first_wrong: Option<ByteOffset>,
    /// Sectors that the medium does not give back: torn in a power cut, most likely. They will be
    /// written again.
    pub unreadable: u64,
}

/// Compares `disk` with the old and new content of every sector that `journal` writes.
///
/// `go_on` is asked before each extent; `None` is the answer when it says no.
pub(super) fn compare(
    journal: &Journal,
    disk: &impl BlockRead,
    go_on: impl Fn() -> bool,
) -> Result<Option<Comparison>, ApplyError> {
    let mut buffer = Buffer::new(LONGEST_CHANGE);
    let mut comparison = Comparison::default();
    let mut stopped = false;
    journal.visit::<ApplyError>(|record| {
        stopped = stopped || !go_on();
        if stopped {
            return Ok(());
        }
        let found = buffer.bytes_mut(record.new.len());
        match disk.read_at(record.offset, found) {
            Ok(()) => {
                let sector = disk.sectors().logical.bytes() as usize;
                for ((at, old, new), found) in record.sectors().zip(found.chunks(sector)) {
                    comparison.count(at, found, old, new);
                }
                Ok(())
            }
            Err(BlockError::Read { .. }) => comparison.count_one_by_one(disk, &record),
            Err(error) => Err(error.into()),
        }
    })?;
    Ok((!stopped).then_some(comparison))
}

impl Comparison {
    fn count(&mut self, at: ByteOffset, found: &[u8], old: u32, new: &[u8]) {
        if found == new {
            self.new += 1;
            return;
        }
        self.first_wrong.get_or_insert(at);
        if crc32c::crc32c(found) == old {
            self.old += 1;
        } else {
            self.foreign += 1;
            self.first_foreign.get_or_insert(at);
        }
    }

    /// A sector that was being written when the power went may fail to be read until it is written
    /// again. Its neighbours need not.
    fn count_one_by_one(
        &mut self,
        disk: &impl BlockRead,
        record: &Record<'_>,
    ) -> Result<(), ApplyError> {
        for (at, old, new) in record.sectors() {
            let mut found = vec![0; new.len()];
            match disk.read_at(at, &mut found) {
                Ok(()) => self.count(at, &found, old, new),
                Err(BlockError::Read { .. }) if self.unreadable < MOST_UNREADABLE => {
                    self.unreadable += 1;
                    self.first_wrong.get_or_insert(at);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Writes all of `journal` to `disk`, makes it durable and reads it back.
///
/// All of it, whatever the disk holds already: what a disk shows after a write that failed, and
/// even after a flush that failed, need not be what is on the medium.
pub(super) fn apply(
    journal: &Journal,
    disk: &impl BlockWrite,
    progress: impl Fn(ByteCount),
) -> Result<(), ApplyError> {
    let mut done = ByteCount(0);
    journal.visit(|record| {
        disk.write_at(record.offset, record.new)?;
        done.0 += record.new.len() as u64;
        progress(done);
        Ok::<_, ApplyError>(())
    })?;
    disk.flush()?;
    let comparison = compare(journal, disk, || true)?.unwrap_or_default();
    let wrong = comparison.old + comparison.foreign + comparison.unreadable;
    match comparison.first_wrong {
        Some(first) => Err(ApplyError::ReadBack {
            disk: disk.name().to_owned(),
            first,
            count: wrong,
        }),
        None => Ok(()),
    }
}

/// More than any power cut tears: to wait for a dying disk sector by sector would take days.
const MOST_UNREADABLE: u64 = 1024;
