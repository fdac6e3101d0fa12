//! Changes of a disk that are made all together or not at all, whatever happens in between.
//!
//! ```text
//!  begin                                commit                                     recover
//!
//!  disk ---> Overlay <--- writes        changes of the overlay, in order           journals in the
//!  (claimed)    |                          |                                       scratch folder
//!               | 4 KiB blocks             v                                          |
//!               v                       journal: extents, CRC of the old content      |
//!            file without a name        flush, read back, compare                     |
//!            in the scratch folder         |                                          |
//!                                          |  until here: drop it, and nothing        |
//!                                          |  has happened                            v
//!                                       seal, flush, seal, flush  <------------ not sealed: remove
//!                                          |                                    sealed: whose is it?
//!                                          |  from here: it will be               is each sector the
//!                                          v  the new disk                        old or new one?
//!                                       write all extents, flush, read back  <-------+
//!                                       mark done, flush, remove
//! ```
//!
//! What holds at every moment, power cuts included:
//!
//! - Before the first seal is written, no byte of the disk has changed.
//! - Once both seals are durable the journal holds all that is needed, and the disk is written only
//!   then. Whatever was written of it, in whatever order, writing all of it again gives the new disk.
//! - The journal goes only when the disk has been flushed and read back.
//!
//! A disk is written only by the run that holds the lock of the scratch folder and the claim on the
//! disk. A disk with an unfinished journal in the scratch folder begins no new transaction.
//!
//! What a recovery refuses, so that nothing is overwritten that is not ours: another size or sector
//! size, another device or file (unless its user says that it is the one), a disk whose witness
//! ranges have changed, and a disk on which any sector that is to be written holds neither the old
//! nor the new content. Sectors that can't be read are taken for torn ones and are written.
//!
//! What it can't do: keep the scratch folder from being in memory. A journal there survives a crash
//! of the program, and no power cut ([`ScratchFolder::is_volatile`](crate::scratch::ScratchFolder)).

use std::io;
use std::sync::Arc;

use crate::block::{Overlay, WholeDisk};
use crate::cancel::Cancel;
use crate::progress::Progress;
use crate::scratch::{Scratch, ScratchLock};
use crate::units::{ByteCount, ByteOffset};

mod apply;
mod error;
mod journal;
mod recovery;
mod witness;

pub use apply::Comparison;
pub use error::{ApplyError, BeginError, CommitError, Outcome, RecoverError, ScratchError};
pub use journal::{JournalDamage, JournalHeader};
pub use recovery::{FoundJournal, FoundState, Recovered, Recovery, Trust};
pub use witness::ByteRange;

use journal::{Journal, JournalState, JournalWriter};

/// Changes of a disk that are not yet made. Dropped without a commit, they never are.
#[derive(Debug)]
pub struct Transaction<D> {
    overlay: Overlay<D>,
    scratch: Arc<dyn Scratch>,
    witness: Vec<ByteRange>,
    _lock: ScratchLock,
}

/// What a commit did.
#[derive(Debug)]
#[non_exhaustive]
pub struct Committed {
    /// How much of the disk is different now, in whole blocks.
    pub changed: ByteCount,
    /// Whether someone asked to stop when it could no longer be stopped.
    pub cancel_came_too_late: bool,
    /// Why the journal is still there, if it is. The disk is the new one; recovering makes it the
    /// new one again.
    pub leftover: Option<ScratchError>,
}

impl<D: WholeDisk> Transaction<D> {
    /// Begins to change `disk`, with changes and journal in `scratch`.
    ///
    /// At most `limit` of changes are taken, by default half of what `scratch` has room for, as
    /// the journal needs as much again. Journals that were cut short are removed: their disks have
    /// not been touched.
    ///
    /// # Errors
    ///
    /// [`BeginError`].
    pub fn begin(
        disk: D,
        scratch: Arc<dyn Scratch>,
        limit: Option<ByteCount>,
    ) -> Result<Self, BeginError> {
        let lock = take_lock(&*scratch)?.ok_or_else(|| BeginError::Busy {
            scratch: scratch.path_of("lock"),
        })?;
        refuse_unfinished(&*scratch, &disk)?;
        let half = scratch
            .available()
            .map(|available| ByteCount(available.0 / 2));
        let limit = limit.or(half).unwrap_or(ByteCount(u64::MAX));
        let file = scratch
            .create_unnamed()
            .map_err(|error| scratch_failed(&*scratch, "changes", "making the file", error))?;
        let witness = witness::ends_of(disk.size());
        Ok(Self {
            overlay: Overlay::new(disk, file, scratch.path_of("changes"), limit),
            scratch,
            witness,
            _lock: lock,
        })
    }

    /// The disk as it will be. What is written here is what a commit writes.
    pub fn disk(&self) -> &Overlay<D> {
        &self.overlay
    }

    /// Adds a part of the disk to those by which a recovery sees whether somebody else has used
    /// the disk meanwhile: something that whoever mounts it writes, and that this transaction does
    /// not, such as the start of a file system's log. What the transaction does change in it is
    /// left out. More than 1 MiB, or than the disk has, is cut off; beyond 62 parts nothing is added.
    pub fn watch(&mut self, offset: ByteOffset, length: ByteCount) {
        let left = self.overlay.base().size().end().since(offset);
        let length = length
            .min(left.unwrap_or_default())
            .min(witness::LONGEST_RANGE);
        if length.0 > 0 && self.witness.len() < witness::MOST_RANGES {
            self.witness.push(ByteRange { offset, length });
        }
    }

    /// How much work a commit is, in the units of its progress.
    pub fn commit_work(&self) -> ByteCount {
        ByteCount(self.overlay.changed().0 * 2)
    }

    /// Makes the changes.
    ///
    /// `cancel` is heard until the journal is sealed; after that it comes too late, and the result
    /// says so.
    ///
    /// # Errors
    ///
    /// [`CommitError`], whose [`outcome`](CommitError::outcome) says what became of the disk.
    pub fn commit(self, cancel: &Cancel, progress: &Progress) -> Result<Committed, CommitError> {
        if self.overlay.is_broken() {
            return Err(CommitError::Incomplete);
        }
        let work = self.commit_work();
        let disk = self.overlay.base();
        disk.expect_untouched()?;
        let header = JournalHeader::of(disk, self.witness.clone());
        let name = JournalWriter::name_of(&header);
        let journal = match self.prepare(header, &name, cancel, progress) {
            Ok(Some(journal)) => journal,
            Ok(None) => {
                // Nothing has changed.
                self.remove_quietly(&name);
                progress.reach(work);
                return Ok(Committed {
                    changed: ByteCount(0),
                    cancel_came_too_late: false,
                    leftover: None,
                });
            }
            Err(error) => {
                // Without a seal it does not count, so it may as well stay.
                self.remove_quietly(&name);
                return Err(error);
            }
        };
        let journal = journal.seal().map_err(|error| {
            let source = self.scratch_failed(&name, "sealing the journal", error);
            match self.remove(&name) {
                Ok(()) => CommitError::Scratch(source),
                Err(_) => CommitError::Undecided {
                    journal: self.scratch.path_of(&name),
                    source,
                },
            }
        })?;
        let applied = |done: ByteCount| progress.reach(ByteCount(work.0 / 2 + done.0));
        apply::apply(&journal, disk, applied).map_err(|source| CommitError::Apply {
            journal: self.scratch.path_of(&name),
            source,
        })?;
        progress.reach(work);
        Ok(Committed {
            changed: journal.content(),
            cancel_came_too_late: cancel.is_requested(),
            leftover: retire(&*self.scratch, &name, &journal).err(),
        })
    }

    /// Writes the journal, up to the moment at which it would begin to count. `None` when there is
    /// nothing to write.
    fn prepare(
        &self,
        header: JournalHeader,
        name: &str,
        cancel: &Cancel,
        progress: &Progress,
    ) -> Result<Option<journal::UnsealedJournal>, CommitError> {
        let disk = self.overlay.base();
        let mut writer = JournalWriter::create(&*self.scratch, header)
            .map_err(|error| self.scratch_failed(name, "making the journal", error))?;
        self.overlay.visit_changes(|change| {
            if cancel.is_requested() {
                return Err(CommitError::Cancelled);
            }
            let length = ByteCount(change.new.len() as u64);
            disk.reserve(change.offset, length)?;
            writer
                .append(change)
                .map_err(|error| self.scratch_failed(name, "writing the journal", error))?;
            progress.reach(writer.content());
            Ok(())
        })?;
        if writer.content() == ByteCount(0) {
            return Ok(None);
        }
        let (ranges, covered) = writer.witness();
        let witness = witness::digest(disk, ranges, covered)?;
        let journal = writer
            .finish(witness)
            .map_err(|error| self.scratch_failed(name, "making the journal durable", error))?;
        // Before the seal: a journal that counts can be found.
        self.scratch
            .sync()
            .map_err(|error| self.scratch_failed(name, "making its name durable", error))?;
        match cancel.is_requested() {
            true => Err(CommitError::Cancelled),
            false => Ok(Some(journal)),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.scratch.remove(name)?;
        self.scratch.sync()
    }

    /// Removes what has no meaning. If that fails, the next transaction does it.
    fn remove_quietly(&self, name: &str) {
        drop(self.remove(name));
    }

    fn scratch_failed(&self, name: &str, action: &'static str, source: io::Error) -> ScratchError {
        scratch_failed(&*self.scratch, name, action, source)
    }
}

/// Ends the life of a journal whose disk is the new one.
fn retire(scratch: &dyn Scratch, name: &str, journal: &Journal) -> Result<(), ScratchError> {
    // Should its name come back after a power cut, the journal itself says that it is done.
    let marked = journal.mark_done();
    marked.map_err(|error| scratch_failed(scratch, name, "marking the journal done", error))?;
    remove(scratch, name)
}

fn remove(scratch: &dyn Scratch, name: &str) -> Result<(), ScratchError> {
    scratch
        .remove(name)
        .and_then(|()| scratch.sync())
        .map_err(|error| scratch_failed(scratch, name, "removing the journal", error))
}

fn take_lock(scratch: &dyn Scratch) -> Result<Option<ScratchLock>, ScratchError> {
    scratch
        .lock()
        .map_err(|error| scratch_failed(scratch, "lock", "locking", error))
}

/// The journals in `scratch`.
fn journals_in(scratch: &dyn Scratch) -> Result<Vec<(String, JournalState)>, ScratchError> {
    // A removal that could not be made durable before: what is not seen must not come back.
    scratch
        .sync()
        .map_err(|error| scratch_failed(scratch, "", "making its names durable", error))?;
    let names = scratch
        .names()
        .map_err(|error| scratch_failed(scratch, "", "listing the folder", error))?;
    let mut journals = Vec::new();
    for name in names {
        if name.ends_with(journal::SUFFIX) {
            let state = scratch.open(&name).and_then(Journal::open);
            let state = state
                .map_err(|error| scratch_failed(scratch, &name, "reading the journal", error))?;
            journals.push((name, state));
        }
    }
    Ok(journals)
}

/// Refuses a disk whose last commit was cut short, and clears away what is of no use.
fn refuse_unfinished(scratch: &dyn Scratch, disk: &impl WholeDisk) -> Result<(), BeginError> {
    let identity = disk.identity();
    let unfinished = |name: &str| BeginError::Unfinished {
        disk: disk.name().to_owned(),
        journal: scratch.path_of(name),
    };
    for (name, state) in journals_in(scratch)? {
        match state {
            JournalState::Done | JournalState::Unsealed => remove(scratch, &name)?,
            JournalState::Sealed(journal) if journal.header().may_be_for(&identity) => {
                return Err(unfinished(&name));
            }
            JournalState::Damaged(Some(header), _) if header.may_be_for(&identity) => {
                return Err(unfinished(&name));
            }
            JournalState::Damaged(None, source) => {
                return Err(BeginError::Damaged {
                    journal: scratch.path_of(&name),
                    source,
                });
            }
            JournalState::Sealed(_) | JournalState::Damaged(Some(_), _) => {}
        }
    }
    Ok(())
}

fn scratch_failed(
    scratch: &dyn Scratch,
    name: &str,
    action: &'static str,
    source: io::Error,
) -> ScratchError {
    let path = scratch.path_of(name);
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
    if full.contains(&source.kind()) {
        let available = scratch.available();
        return ScratchError::Full {
            path,
            action,
            available,
        };
    }
    ScratchError::Io {
        path,
        action,
        source,
    }
}

#[cfg(test)]
mod tests;
