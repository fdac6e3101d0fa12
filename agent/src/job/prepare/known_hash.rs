//! The hash that a disk is known by, compared while something else is done with the disk.
//!
//! ```text
//!  thread ce-known-hash:  read the disk, MD5 ------------------> same? --no--> stops what depends on it
//!  the job:               inspect, plan, write into the overlay ... wait -----> image's name, commit
//! ```

use std::thread::{self, Scope, ScopedJoinHandle};

use ce_disk::block::BlockRead;
use ce_disk::cancel::Cancel;
use ce_disk::export::{HashMatch, compare_hash};
use ce_disk::progress::Progress;
use ce_disk::units::ByteCount;
use tracing::info;

use super::super::failure::export_failed;
use super::super::spec::KnownHash;
use super::super::{ErrorCode, JobError};

/// A comparison under way.
pub(super) struct HashCheck<'scope> {
    hashing: Option<ScopedJoinHandle<'scope, Verdict>>,
    /// What it came to, once that is known.
    verdict: Verdict,
    /// Stops the comparison.
    cancel: Cancel,
    /// Stopped when the disk is another one.
    dependent: Cancel,
}

/// How much of the disk the hash covers, if there was one to compare with.
pub(super) type Verdict = Result<Option<ByteCount>, JobError>;

impl<'scope> HashCheck<'scope> {
    /// Begins to compare `disk` with what is known of it, as a part of the job of `cancel`.
    pub(super) fn begin<'env>(
        scope: &'scope Scope<'scope, 'env>,
        disk: &'env dyn BlockRead,
        known: Option<KnownHash>,
        progress: &'env Progress,
        job: &Cancel,
    ) -> Result<Self, JobError> {
        let (cancel, dependent) = (job.part(), job.part());
        let hashing = known.map(|known| {
            let (cancel, dependent) = (cancel.clone(), dependent.clone());
            thread::Builder::new()
                .name("ce-known-hash".into())
                .spawn_scoped(scope, move || {
                    let verdict = compare(disk, known, &cancel, progress);
                    if verdict.is_err() {
                        dependent.request();
                    }
                    verdict.map(Some)
                })
        });
        let hashing = hashing
            .transpose()
            .map_err(|error| JobError::new(ErrorCode::Internal, format!("no thread: {error}")))?;
        Ok(Self {
            hashing,
            verdict: Ok(None),
            cancel,
            dependent,
        })
    }

    /// Ends the comparison: its outcome does not matter any more.
    pub(super) fn stop(&self) {
        self.cancel.request();
    }

    /// Stops what is of no use if the disk is another one.
    pub(super) fn dependent(&self) -> Cancel {
        self.dependent.clone()
    }

    /// Waits for the outcome.
    pub(super) fn wait(&mut self) -> Verdict {
        if let Some(hashing) = self.hashing.take() {
            self.verdict = hashing
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        self.verdict.clone()
    }
}

/// Compares the disk with what it is known to be. Says how much of it the hash covers.
fn compare(
    disk: &dyn BlockRead,
    known: KnownHash,
    cancel: &Cancel,
    progress: &Progress,
) -> Result<ByteCount, JobError> {
    if let Some(hashed) = known.hashed
        && hashed > disk.size()
    {
        let message = format!("is {hashed}, and the disk has {}", disk.size());
        return Err(JobError::invalid("hashedBytes", message));
    }
    match compare_hash(disk, &known.md5, known.hashed, cancel, progress) {
        Ok(HashMatch::Covers(covered)) => Ok(covered),
        Ok(HashMatch::Differs(found)) => {
            info!(expected = %known.md5, %found, "the disk is another one");
            let message = format!("Expected hash [{}] does not match provided disk", known.md5);
            Err(
                JobError::new(ErrorCode::HashMismatch, message).with_hint(format!(
                    "the disk has {found}; it is as it was: see that it is the right one, and was \
                     copied whole"
                )),
            )
        }
        Err(error) => Err(export_failed(&error)),
    }
}
