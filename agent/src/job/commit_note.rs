//! What a daemon keeps of a change that is about to be committed to a disk, so that after a crash
//! it can be said what became of the job.
//!
//! ```text
//!  overlay --> where it differs from the disk, a hash of what is there now, one of what will be
//!              + the job as it will be told          --> STATE/commits/NAME.json --> commit
//!                                                                |
//!  restart --> commits that were begun are finished --> the disk has the new, the old, or neither
//! ```
//!
//! A journal tells the same only while it is there: it goes when the commit is whole, which is
//! before the job's result is kept.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ce_disk::block::{BlockError, Overlay, WholeDisk};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::journal::{Journal, JournalError};
use super::{Artifacts, ErrorCode, Job, JobError, Status};

/// Keeps the note of one job.
#[derive(Clone, Debug)]
pub(crate) struct CommitNotes {
    journal: Arc<Journal>,
    id: String,
    operation: &'static str,
}

/// How a job ends if its commit goes well.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    /// What is known of the disk and of its image, if there is one.
    pub artifacts: Artifacts,
    /// Why it fails all the same: the disk is only a part of what was asked for.
    pub error: Option<JobError>,
    /// What has been noticed.
    pub warnings: Vec<String>,
}

/// The note.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct CommitNote {
    /// The form of this note.
    schema: u32,
    /// The disk.
    disk: PathBuf,
    /// What is changed; nothing if that is more than is noted.
    changed: Option<Changed>,
    /// The job as it is told when all of this is on the disk.
    job: Value,
}

/// What a commit changes.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Changed {
    /// Offset and length of each run, in bytes, ascending.
    runs: Vec<(u64, u64)>,
    /// BLAKE3 of what these runs held, one after the other.
    old: String,
    /// BLAKE3 of what they are to hold.
    new: String,
}

/// What a disk holds of a commit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fate {
    /// All of it; this is the job.
    Committed(Value),
    /// Nothing; the disk is as it was.
    Untouched,
    /// Neither, or the disk can't be read. In words, for whoever asked for the job.
    Unknown(String),
}

impl CommitNotes {
    /// Notes of the job `id`, which does `operation`, in `journal`.
    pub(crate) fn new(journal: Arc<Journal>, id: String, operation: &'static str) -> Self {
        Self {
            journal,
            id,
            operation,
        }
    }

    /// Keeps what is about to be committed from `overlay` to the disk at `disk`, and how the job ends
    /// then; durable when this returns.
    ///
    /// # Errors
    ///
    /// The disk can't be read, or the note can't be written.
    pub(crate) fn keep<D: WholeDisk>(
        &self,
        disk: &Path,
        overlay: &Overlay<D>,
        ending: Ending,
    ) -> Result<(), JobError> {
        let (status, percent) = match ending.error {
            None => (Status::Complete, 100),
            Some(_) => (Status::Failed, 99),
        };
        let job = Job {
            id: self.id.clone(),
            operation: self.operation,
            status,
            overall_progress_percent: percent,
            artifacts: ending.artifacts,
            error: ending.error,
            warnings: ending.warnings,
        };
        let failed = |error: &(dyn std::error::Error + 'static)| {
            JobError::from_chain(ErrorCode::ScratchFailed, error)
                .with_hint("check the state folder, and that it has room")
        };
        let note = CommitNote::of(disk, overlay, &job).map_err(|error| failed(&error))?;
        self.journal
            .note_commit(&self.id, &note)
            .map_err(|error: JournalError| failed(&error))
    }
}

impl CommitNote {
    fn of<D: WholeDisk>(disk: &Path, overlay: &Overlay<D>, job: &Job) -> Result<Self, BlockError> {
        let (mut old, mut new) = (blake3::Hasher::new(), blake3::Hasher::new());
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let mut is_full = false;
        overlay.visit_changes(|change| {
            old.update(change.old);
            new.update(change.new);
            let length = change.new.len() as u64;
            let has_room = runs.len() < MOST_RUNS;
            match runs.last_mut() {
                Some((start, known)) if *start + *known == change.offset.0 => *known += length,
                _ if has_room => runs.push((change.offset.0, length)),
                _ => is_full = true,
            }
            Ok::<_, BlockError>(())
        })?;
        let changed = (!is_full).then(|| Changed {
            runs,
            old: old.finalize().to_string(),
            new: new.finalize().to_string(),
        });
        Ok(Self {
            schema: SCHEMA,
            disk: disk.to_owned(),
            changed,
            // Plain data with text for keys always has a JSON form.
            job: serde_json::to_value(job).unwrap_or_default(),
        })
    }

    /// The disk.
    pub(crate) fn disk(&self) -> &Path {
        &self.disk
    }

    /// What has become of it. The disk is looked at; commits that were begun must have been finished
    /// before.
    pub(crate) fn fate(self) -> Fate {
        let disk = self.disk.display();
        let Some(changed) = self.changed.as_ref().filter(|_| self.schema == SCHEMA) else {
            return Fate::Unknown(format!("more was to be changed on {disk} than is noted"));
        };
        match changed.found_on(&self.disk) {
            Ok(found) if found == changed.new => Fate::Committed(self.job),
            Ok(found) if found == changed.old => Fate::Untouched,
            Ok(_) => Fate::Unknown(format!(
                "{disk} holds neither what was there nor what was to be written"
            )),
            Err(error) => Fate::Unknown(format!("{disk} can't be read: {error}")),
        }
    }
}

impl Changed {
    /// BLAKE3 of what the runs hold now.
    fn found_on(&self, disk: &Path) -> io::Result<String> {
        let disk = File::open(disk)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; PIECE];
        for &(start, length) in &self.runs {
            let (mut at, mut left) = (start, length);
            while left > 0 {
                // At most PIECE, which is a usize.
                let piece = &mut buffer[..left.min(PIECE as u64) as usize];
                disk.read_exact_at(piece, at)?;
                hasher.update(piece);
                at += piece.len() as u64;
                left -= piece.len() as u64;
            }
        }
        Ok(hasher.finalize().to_string())
    }
}

const SCHEMA: u32 = 1;

/// A prepare changes some thousands.
const MOST_RUNS: usize = 1 << 18;

const PIECE: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use std::fs;

    use ce_disk::block::{BlockWrite, OpenOptions, open_writable};
    use ce_disk::units::{ByteCount, ByteOffset};

    use super::*;

    fn ending(error: Option<JobError>) -> Ending {
        Ending {
            artifacts: Artifacts::default(),
            error,
            warnings: Vec::new(),
        }
    }

    #[test]
    fn what_became_of_a_commit_is_seen_on_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.raw");
        let old = vec![7; 3 << 20];
        fs::write(&path, &old).unwrap();
        let disk = open_writable(&path, &OpenOptions::default()).unwrap();
        let overlay = Overlay::in_memory(disk, ByteCount::mib(8));
        let mut new = old.clone();
        for (at, length) in [(0, 4096), (8192, 8192), (1 << 20, 1 << 20)] {
            overlay
                .write_at(ByteOffset(at as u64), &vec![9; length])
                .unwrap();
            new[at..at + length].fill(9);
        }
        let journal = Arc::new(Journal::open(&folder.path().join("state")).unwrap());
        let notes = CommitNotes::new(Arc::clone(&journal), "a".into(), "prepare");
        notes.keep(&path, &overlay, ending(None)).unwrap();
        let of_both = CommitNotes::new(Arc::clone(&journal), "b".into(), "prepareAndPublish");
        let error = JobError::new(ErrorCode::OutputExists, "the image is there");
        of_both.keep(&path, &overlay, ending(Some(error))).unwrap();
        drop(overlay);
        let note = || journal.commit_note("a").unwrap().unwrap();
        assert_eq!(note().disk(), path);

        assert_eq!(note().fate(), Fate::Untouched);
        fs::write(&path, &new).unwrap();
        let Fate::Committed(job) = note().fate() else {
            panic!("{:?}", note().fate())
        };
        assert_eq!(job["id"], "a");
        assert_eq!(job["operation"], "prepare");
        assert_eq!(job["status"], "complete");
        let both = journal.commit_note("b").unwrap().unwrap().fate();
        let Fate::Committed(job) = both else {
            panic!("{both:?}")
        };
        assert_eq!(job["operation"], "prepareAndPublish");
        assert_eq!(job["status"], "failed");
        assert_eq!(job["error"]["code"], "OutputExists");
        assert_eq!(job["overallProgressPercent"], 99);
        for changed in [0, 8192 + 4096, (2 << 20) - 1] {
            let mut neither = new.clone();
            neither[changed] = 8;
            fs::write(&path, neither).unwrap();
            assert!(matches!(note().fate(), Fate::Unknown(_)));
        }
        fs::write(&path, &old[..1 << 20]).unwrap();
        assert!(matches!(note().fate(), Fate::Unknown(_)));
        fs::write(&path, &new).unwrap();
        let too_much = CommitNote {
            changed: None,
            ..note()
        };
        assert!(matches!(too_much.fate(), Fate::Unknown(_)));
    }
}
