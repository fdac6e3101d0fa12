//! Finishing or discarding commits that were cut short.

use std::sync::Arc;

use super::apply::{Comparison, apply, compare};
use super::error::{ApplyError, RecoverError, ScratchError};
use super::journal::{JournalDamage, JournalHeader, JournalState};
use super::{journals_in, remove, retire, take_lock, witness};
use crate::block::WholeDisk;
use crate::cancel::Cancel;
use crate::progress::Progress;
use crate::scratch::{Scratch, ScratchLock};
use crate::units::ByteCount;

/// The journals of a scratch folder, kept from everyone else.
#[derive(Debug)]
pub struct Recovery {
    scratch: Arc<dyn Scratch>,
    _lock: ScratchLock,
}

/// A journal that was found.
#[derive(Debug)]
pub struct FoundJournal {
    name: String,
    path: String,
    state: JournalState,
}

/// What there is to do about a journal.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum FoundState<'j> {
    /// Nothing can be done: it counts, but it can't be read.
    Damaged(&'j JournalDamage),
    /// It can be removed: the disk is the new one.
    Done,
    /// It has to be written to its disk.
    Sealed {
        /// Which disk it is for.
        header: &'j JournalHeader,
        /// How much it writes.
        content: ByteCount,
    },
    /// It can be removed: it was cut short, and the disk has not been touched.
    Unsealed,
}

/// How sure it is that a disk is the one of a journal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trust {
    /// It was found where the journal says; it must be called what it was called.
    Found,
    /// Its user named it. What it is called does not count; all else does.
    Named,
}

/// What finishing a commit came to.
#[derive(Debug)]
#[non_exhaustive]
pub struct Recovered {
    /// How much was written.
    pub written: ByteCount,
    /// What the disk held before.
    pub found: Comparison,
    /// Why the journal is still there, if it is. The disk is the new one.
    pub leftover: Option<ScratchError>,
}

impl FoundJournal {
    /// The file.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What there is to do about it.
    pub fn state(&self) -> FoundState<'_> {
        match &self.state {
            JournalState::Damaged(_, damage) => FoundState::Damaged(damage),
            JournalState::Done => FoundState::Done,
            JournalState::Sealed(journal) => FoundState::Sealed {
                header: journal.header(),
                content: journal.content(),
            },
            JournalState::Unsealed => FoundState::Unsealed,
        }
    }
}

impl Recovery {
    /// Takes the journals in `scratch` into care.
    ///
    /// # Errors
    ///
    /// [`RecoverError::Busy`] and [`RecoverError::Scratch`].
    pub fn open(scratch: Arc<dyn Scratch>) -> Result<Self, RecoverError> {
        let lock = take_lock(&*scratch)?.ok_or_else(|| RecoverError::Busy {
            scratch: scratch.path_of("lock"),
        })?;
        Ok(Self {
            scratch,
            _lock: lock,
        })
    }

    /// The journals that are there, in order of their names.
    ///
    /// # Errors
    ///
    /// [`RecoverError::Scratch`].
    pub fn journals(&self) -> Result<Vec<FoundJournal>, RecoverError> {
        let journals = journals_in(&*self.scratch)?.into_iter();
        Ok(journals
            .map(|(name, state)| FoundJournal {
                path: self.scratch.path_of(&name),
                name,
                state,
            })
            .collect())
    }

    /// Removes a journal that has no meaning any more; any other one stays, and the answer is
    /// `false`.
    ///
    /// # Errors
    ///
    /// [`RecoverError::Scratch`].
    pub fn discard(&self, journal: &FoundJournal) -> Result<bool, RecoverError> {
        match journal.state {
            JournalState::Done | JournalState::Unsealed => {
                remove(&*self.scratch, &journal.name)?;
                Ok(true)
            }
            JournalState::Damaged(..) | JournalState::Sealed(_) => Ok(false),
        }
    }

    /// Writes a sealed journal to `disk`, if that is the disk it is for, and removes it.
    ///
    /// `cancel` is heard until the first write.
    ///
    /// # Errors
    ///
    /// [`RecoverError`]; the journal is still there after any of them.
    pub fn finish(
        &self,
        found: &FoundJournal,
        disk: &impl WholeDisk,
        trust: Trust,
        cancel: &Cancel,
        progress: &Progress,
    ) -> Result<Recovered, RecoverError> {
        let damaged = |source| RecoverError::Damaged {
            journal: found.path.clone(),
            source,
        };
        let journal = match &found.state {
            JournalState::Sealed(journal) => journal,
            JournalState::Damaged(_, damage) => return Err(damaged(damage.clone())),
            JournalState::Done | JournalState::Unsealed => {
                return Err(damaged(JournalDamage::Seals));
            }
        };
        let covered = journal.verify().map_err(damaged)?;
        let disk_name = || disk.name().to_owned();
        if let Some(difference) = difference(journal.header(), disk, trust) {
            return Err(RecoverError::OtherDisk {
                disk: disk_name(),
                journal: found.path.clone(),
                difference,
            });
        }
        let digest = witness::digest(disk, &journal.header().witness, &covered);
        if digest.map_err(RecoverError::Disk)? != *journal.witness_digest() {
            return Err(RecoverError::Touched {
                disk: disk_name(),
                journal: found.path.clone(),
            });
        }
        let compared = compare(journal, disk, || !cancel.is_requested());
        let comparison = match compared {
            Ok(comparison) => comparison.ok_or(RecoverError::Cancelled)?,
            Err(ApplyError::Damaged(source)) => return Err(damaged(source)),
            Err(ApplyError::Disk(source)) => return Err(RecoverError::Disk(source)),
            Err(source) => {
                return Err(RecoverError::Apply {
                    journal: found.path.clone(),
                    source,
                });
            }
        };
        if let Some(first) = comparison.first_foreign {
            return Err(RecoverError::Foreign {
                disk: disk_name(),
                journal: found.path.clone(),
                foreign: comparison.foreign,
                first,
                old: comparison.old,
                new: comparison.new,
            });
        }
        apply(journal, disk, |done| progress.reach(done)).map_err(|source| {
            RecoverError::Apply {
                journal: found.path.clone(),
                source,
            }
        })?;
        Ok(Recovered {
            written: journal.content(),
            found: comparison,
            leftover: retire(&*self.scratch, &found.name, journal).err(),
        })
    }
}

/// How `disk` is not the one of the journal, as far as that shows without reading it.
fn difference(header: &JournalHeader, disk: &impl WholeDisk, trust: Trust) -> Option<String> {
    let (size, sector) = (disk.size(), disk.sectors().logical);
    if size != header.disk_size {
        return Some(format!("it has {size}, expected {}", header.disk_size));
    }
    if sector != header.sector {
        let (found, expected) = (sector.bytes(), header.sector.bytes());
        return Some(format!(
            "its sectors have {found} bytes, expected {expected}"
        ));
    }
    match trust {
        Trust::Found => header.difference(&disk.identity()),
        Trust::Named => None,
    }
}
