//! What a daemon keeps on disk: its name for its state, and a file for each job.
//!
//! ```text
//! STATE/state-id          made once; another one means that what was accepted is gone
//! STATE/daemon.lock       held while a daemon runs
//! STATE/identity.pem      see `session::identity`
//! STATE/jobs/NAME.json    a Record
//! STATE/commits/NAME.json a CommitNote, until the job has ended
//! ```
//!
//! Files are written whole under another name, flushed, renamed, and their folder is flushed: a
//! crash leaves the old content or the new one. None of them holds a password.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use uuid::Uuid;

use super::commit_note::CommitNote;
use super::machine::{Record, RecordState, SCHEMA};

/// The state folder, held by this process.
#[derive(Debug)]
pub(crate) struct Journal {
    folder: PathBuf,
    state_id: String,
    /// Released by the system when the process ends, however it ends.
    _lock: File,
}

/// Why state can't be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum JournalError {
    /// Another daemon has it.
    #[error("{path} is held by another ce-agent daemon")]
    Held {
        /// The lock.
        path: PathBuf,
    },
    /// A file or folder can't be read or written.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A file is not what this version writes.
    #[error("{path}: {problem}; move it away to go on without it")]
    Foreign {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl Journal {
    /// Opens the state folder, makes it if need be, and takes it for this process.
    ///
    /// # Errors
    ///
    /// It can't be written, or another daemon has it.
    pub(crate) fn open(folder: &Path) -> Result<Self, JournalError> {
        for name in ["jobs", "commits"] {
            let folder = folder.join(name);
            let mut builder = DirBuilder::new();
            builder
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .map_err(failed("cannot make", &folder))?;
        }
        let path = folder.join("daemon.lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("cannot open", &path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => JournalError::Held { path: path.clone() },
            error => failed("cannot lock", &path)(error.into()),
        })?;
        let path = folder.join("state-id");
        let state_id = match read_bounded(&path, 128)? {
            Some(text) => text.trim().to_owned(),
            None => {
                let id = Uuid::new_v4().simple().to_string();
                write_durably(&path, id.as_bytes())?;
                id
            }
        };
        if state_id.len() < 16 || !ce_proto::is_valid_id(&state_id) {
            return Err(JournalError::Foreign {
                path,
                problem: "expected 16 to 64 of `a-z A-Z 0-9 . _ -`".into(),
            });
        }
        Ok(Self {
            folder: folder.to_owned(),
            state_id,
            _lock: lock,
        })
    }

    /// Names this state for the Connector.
    pub(crate) fn state_id(&self) -> &str {
        &self.state_id
    }

    /// All jobs that were saved.
    ///
    /// # Errors
    ///
    /// A file can't be read, or is none of this version. That is for a person to decide: to go on
    /// without it could do a job twice.
    pub(crate) fn records(&self) -> Result<Vec<Record>, JournalError> {
        let folder = self.folder.join("jobs");
        let mut records = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed("cannot list", &folder))? {
            let path = entry.map_err(failed("cannot list", &folder))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                // What a crash left of a file that was being written.
                continue;
            }
            let foreign = |problem: String| JournalError::Foreign {
                path: path.clone(),
                problem,
            };
            let text = read_bounded(&path, LONGEST_RECORD)?.unwrap_or_default();
            let record: Record =
                serde_json::from_str(&text).map_err(|error| foreign(error.to_string()))?;
            if record.schema != SCHEMA {
                return Err(foreign(format!(
                    "is of form {}; this version knows {SCHEMA}",
                    record.schema
                )));
            }
            if !ce_proto::is_valid_id(&record.id) || path != self.path(&record.id) {
                return Err(foreign("is not the job that its name says".into()));
            }
            records.push(record);
        }
        Ok(records)
    }

    /// Removes what a crash left and nobody will ask for: files that were being written, and notes of
    /// jobs that are not running in `records`, which are all that there are.
    ///
    /// # Errors
    ///
    /// A folder can't be read, or a file can't be removed.
    pub(crate) fn tidy(&self, records: &[Record]) -> Result<(), JournalError> {
        let running = records.iter().filter(|record| record.state.is_open());
        let noted: Vec<PathBuf> = running.map(|record| self.note_path(&record.id)).collect();
        for (name, is_note) in [("jobs", false), ("commits", true)] {
            let folder = self.folder.join(name);
            for entry in fs::read_dir(&folder).map_err(failed("cannot list", &folder))? {
                let path = entry.map_err(failed("cannot list", &folder))?.path();
                let is_half = path.extension().is_some_and(|extension| extension == NEW);
                if is_half || is_note && !noted.contains(&path) {
                    remove(&path)?;
                }
            }
        }
        Ok(())
    }

    /// Keeps a record; durable when this returns.
    ///
    /// # Errors
    ///
    /// It can't be written.
    pub(crate) fn save(&self, record: &Record) -> Result<(), JournalError> {
        let path = self.path(&record.id);
        let text = serde_json::to_vec(record)
            .map_err(|error| failed("cannot word", &path)(error.into()))?;
        write_durably(&path, &text)?;
        match record.state {
            // It says all that the note could.
            RecordState::Finished { .. } => remove(&self.note_path(&record.id)),
            RecordState::Waiting | RecordState::Running => Ok(()),
        }
    }

    /// Keeps a note of what is about to be committed; durable when this returns.
    ///
    /// # Errors
    ///
    /// It can't be written.
    pub(crate) fn note_commit(&self, id: &str, note: &CommitNote) -> Result<(), JournalError> {
        let path = self.note_path(id);
        let text =
            serde_json::to_vec(note).map_err(|error| failed("cannot word", &path)(error.into()))?;
        write_durably(&path, &text)
    }

    /// The note of a job that has not ended, if it came so far.
    ///
    /// # Errors
    ///
    /// It can't be read, or is none of this version.
    pub(crate) fn commit_note(&self, id: &str) -> Result<Option<CommitNote>, JournalError> {
        let path = self.note_path(id);
        let Some(text) = read_bounded(&path, LONGEST_RECORD)? else {
            return Ok(None);
        };
        let note = serde_json::from_str(&text).map_err(|error| JournalError::Foreign {
            path,
            problem: error.to_string(),
        })?;
        Ok(Some(note))
    }

    /// Removes a record.
    ///
    /// # Errors
    ///
    /// It is there and can't be removed.
    pub(crate) fn forget(&self, id: &str) -> Result<(), JournalError> {
        remove(&self.path(id))
    }

    fn note_path(&self, id: &str) -> PathBuf {
        self.folder.join("commits").join(format!("{id}.json"))
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join("jobs").join(format!("{id}.json"))
    }
}

/// Removes a file, if it is there.
fn remove(path: &Path) -> Result<(), JournalError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("cannot remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Writes a file for this user alone, whole or not at all; durable when this returns.
///
/// # Errors
///
/// It can't be written.
pub(crate) fn write_durably(path: &Path, content: &[u8]) -> Result<(), JournalError> {
    let new = path.with_extension(NEW);
    let write = || {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(failed("cannot write", path))
}

/// A text of at most `limit` bytes; `None` if there is no such file.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<Option<String>, JournalError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed("cannot open", path))?,
    };
    let mut text = String::new();
    let read = file.take(limit + 1).read_to_string(&mut text);
    read.map_err(failed("cannot read", path))?;
    if text.len() as u64 > limit {
        return Err(JournalError::Foreign {
            path: path.to_owned(),
            problem: format!("is longer than {limit} bytes"),
        });
    }
    Ok(Some(text))
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> JournalError {
    move |source| JournalError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// A request of 1 MiB and a result of 1 MiB, each perhaps with every character escaped.
const LONGEST_RECORD: u64 = 16 << 20;

/// What the name of a file ends with while it is being written.
const NEW: &str = "new";

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    fn record(id: &str) -> Record {
        Record {
            schema: SCHEMA,
            id: id.into(),
            number: 3,
            attempt: 1,
            request: Map::from_iter([("operation".to_owned(), json!("export"))]),
            percent: 5,
            state: RecordState::Running,
        }
    }

    #[test]
    fn what_is_saved_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        let state_id = journal.state_id().to_owned();
        journal.save(&record("a")).unwrap();
        let mut finished = record("b");
        finished.state = RecordState::Finished {
            job: json!({"status": "complete"}),
            at: 7,
            acknowledged: false,
        };
        journal.save(&record("b")).unwrap();
        journal.save(&finished).unwrap();
        journal.save(&record("c")).unwrap();
        journal.forget("c").unwrap();
        journal.forget("c").unwrap();
        drop(journal);
        // What a crash leaves of a write.
        fs::write(folder.path().join("jobs/d.new"), "{").unwrap();

        let journal = Journal::open(folder.path()).unwrap();
        assert_eq!(journal.state_id(), state_id);
        let mut records = journal.records().unwrap();
        records.sort_by(|a, b| a.id.cmp(&b.id));
        assert_eq!(records, [record("a"), finished]);
    }

    #[test]
    fn what_a_crash_left_behind_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        journal.save(&record("running")).unwrap();
        let mut finished = record("finished");
        finished.state = RecordState::Finished {
            job: json!({"status": "complete"}),
            at: 7,
            acknowledged: false,
        };
        journal.save(&finished).unwrap();
        let left = [
            "commits/finished.json",
            "commits/gone.json",
            "commits/running.new",
            "jobs/running.new",
        ];
        let kept = [
            "commits/running.json",
            "jobs/finished.json",
            "jobs/running.json",
        ];
        fs::write(folder.path().join(kept[0]), "{}").unwrap();
        for name in left {
            fs::write(folder.path().join(name), "{").unwrap();
        }
        journal.tidy(&journal.records().unwrap()).unwrap();
        for name in left {
            assert!(!folder.path().join(name).exists(), "{name}");
        }
        for name in kept {
            assert!(folder.path().join(name).exists(), "{name}");
        }
    }

    #[test]
    fn two_daemons_do_not_share_a_state() {
        let folder = tempfile::tempdir().unwrap();
        let _held = Journal::open(folder.path()).unwrap();
        let error = Journal::open(folder.path()).unwrap_err();
        assert!(matches!(error, JournalError::Held { .. }), "{error}");
    }

    #[test]
    fn a_record_that_is_not_ours_stops_the_start() {
        let other_name = serde_json::to_string(&record("b")).unwrap();
        let newer = other_name.replace("\"schema\":1", "\"schema\":2");
        for (name, text) in [
            ("a", "{"),
            ("a", "{\"schema\":1}"),
            ("a", &*other_name),
            ("b", &*newer),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let journal = Journal::open(folder.path()).unwrap();
            fs::write(folder.path().join(format!("jobs/{name}.json")), text).unwrap();
            let error = journal.records().unwrap_err();
            assert!(matches!(error, JournalError::Foreign { .. }), "{error}");
        }
    }
}
