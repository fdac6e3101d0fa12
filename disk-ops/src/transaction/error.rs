//! Why a transaction could not begin, not be committed, or not be recovered.

use std::io;

use super::journal::JournalDamage;
use crate::block::BlockError;
use crate::units::{ByteCount, ByteOffset};

/// Why a transaction could not begin. The disk has not been touched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BeginError {
    /// Another transaction, or a recovery, uses the scratch folder.
    #[error("another run works with {scratch}")]
    Busy {
        /// The scratch folder's lock.
        scratch: String,
    },
    /// A journal counts, can't be read, and does not say for which disk it is.
    #[error("{journal}: an unfinished commit, whose journal is damaged, may be that of this disk")]
    Damaged {
        /// The file.
        journal: String,
        /// What is wrong with it.
        #[source]
        source: JournalDamage,
    },
    /// The scratch folder failed.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// A commit to the disk was cut short after it had begun to write.
    #[error("{disk}: an earlier commit was cut short, its journal is {journal}")]
    Unfinished {
        /// The disk.
        disk: String,
        /// The file.
        journal: String,
    },
}

/// Why a commit failed, and what became of the disk: see [`outcome`](Self::outcome).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The disk took only a part.
    #[error("the changes are on the disk in part only; {journal} has all of them")]
    Apply {
        /// The journal that finishes it.
        journal: String,
        /// What went wrong.
        #[source]
        source: ApplyError,
    },
    /// Someone asked for it in time.
    #[error("cancelled")]
    Cancelled,
    /// The disk, or the changes over it, could not be read.
    #[error(transparent)]
    Disk(#[from] BlockError),
    /// A write into the overlay has failed, so the changes are not all there.
    #[error("an earlier write has failed, and what is there without it is not committed")]
    Incomplete,
    /// The scratch folder failed.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// The scratch folder failed at the very moment at which the journal began to count, and could
    /// not be made to forget it.
    #[error("it is not known whether {journal} counts; the disk has not been touched yet")]
    Undecided {
        /// The journal.
        journal: String,
        /// What went wrong.
        #[source]
        source: ScratchError,
    },
}

impl CommitError {
    /// What became of the disk.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Apply { .. } => Outcome::Unfinished,
            Self::Undecided { .. } => Outcome::Undecided,
            _ => Outcome::Unchanged,
        }
    }
}

/// What became of a disk whose commit failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It is the old one, to the last byte.
    Unchanged,
    /// It is the old one, and a recovery may make it the new one.
    Undecided,
    /// It is between the old one and the new one, and a recovery will make it the new one.
    Unfinished,
}

/// Why a sealed journal could not be written to its disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The journal can't be read any more.
    #[error("the journal is damaged")]
    Damaged(#[from] JournalDamage),
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] BlockError),
    /// The disk took what was written, and shows something else.
    #[error("{disk}: {count} sectors from {first} on do not hold what was written there")]
    ReadBack {
        /// The disk.
        disk: String,
        /// The first wrong sector.
        first: ByteOffset,
        /// How many are wrong.
        count: u64,
    },
}

/// Why a commit that was cut short could not be finished. The journal is still there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoverError {
    /// Writing to the disk failed; it can be tried again.
    #[error("finishing the commit of {journal} failed")]
    Apply {
        /// The journal.
        journal: String,
        /// What went wrong.
        #[source]
        source: ApplyError,
    },
    /// Another run uses the scratch folder.
    #[error("another run works with {scratch}")]
    Busy {
        /// The scratch folder's lock.
        scratch: String,
    },
    /// Someone asked for it before anything was written.
    #[error("cancelled")]
    Cancelled,
    /// The journal can't be read.
    #[error("{journal}: the journal is damaged; the disk has not been touched")]
    Damaged {
        /// The journal.
        journal: String,
        /// What is wrong with it.
        #[source]
        source: JournalDamage,
    },
    /// The disk could not be read, before anything was written.
    #[error(transparent)]
    Disk(BlockError),
    /// Some of what the journal writes is neither what it was before nor what it is to become.
    #[error(
        "{disk}: {foreign} sectors, the first at {first}, hold neither what {journal} expects nor \
         what it writes ({old} hold the old, {new} the new content): somebody has written to the \
         disk since, or it is another one; it has not been touched"
    )]
    Foreign {
        /// The disk.
        disk: String,
        /// The journal.
        journal: String,
        /// How many sectors.
        foreign: u64,
        /// The first of them.
        first: ByteOffset,
        /// How many sectors still hold the old content.
        old: u64,
        /// How many hold the new content already.
        new: u64,
    },
    /// It is not the disk that the journal is for.
    #[error("{disk}: is not the disk that {journal} is for: {difference}; it has not been touched")]
    OtherDisk {
        /// The disk.
        disk: String,
        /// The journal.
        journal: String,
        /// How it differs.
        difference: String,
    },
    /// The scratch folder failed.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    /// Parts of the disk that the journal leaves alone have changed.
    #[error(
        "{disk}: has been written to since {journal} was sealed, outside of what it changes; it \
         has not been touched"
    )]
    Touched {
        /// The disk.
        disk: String,
        /// The journal.
        journal: String,
    },
}

/// What a scratch folder could not do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScratchError {
    /// It is full.
    #[error("{path}: {action} failed: no space left, {} available", available_or_unknown(*available))]
    Full {
        /// The file.
        path: String,
        /// What was being done.
        action: &'static str,
        /// How much can still be written there, if that is known.
        available: Option<ByteCount>,
    },
    /// The operating system refused.
    #[error("{path}: {action} failed")]
    Io {
        /// The file.
        path: String,
        /// What was being done.
        action: &'static str,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

fn available_or_unknown(available: Option<ByteCount>) -> String {
    available.map_or_else(|| "an unknown amount".into(), |count| count.to_string())
}
