//! Jobs, requests, results and logs on disk.
//!
//! One redb file: copy-on-write trees, so that a crash at any instant leaves the last commit whole.
//! A [`Batch`] is committed at once or not at all, and is durable when
//! [`commit`](Store::commit) returns; nothing may be acknowledged before that.
//!
//! ```text
//! meta      "schema" -> 1
//! jobs      job id   -> Job (JSON)
//! requests  job id   -> the request's fields (JSON)
//! results   job id   -> JobResult (JSON)
//! logs      (topic, n) -> LogLine (JSON); the newest LOG_LINES of each topic
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use redb::{
    Database, ReadableDatabase, ReadableTable, StorageBackend, Table, TableDefinition,
    WriteTransaction,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::{AgentId, JobId, UnixMillis};
use crate::machine::{Job, JobResult};

/// The file.
#[derive(Debug)]
pub struct Store {
    database: Database,
}

/// What is to become durable together.
#[derive(Debug, Default)]
pub struct Batch {
    /// Jobs as they are now.
    pub jobs: BTreeMap<JobId, Job>,
    /// What was asked for.
    pub requests: Vec<(JobId, Map<String, Value>)>,
    /// What came of it.
    pub results: Vec<(JobId, JobResult)>,
    /// Jobs to forget, with all that belongs to them.
    pub removed: Vec<JobId>,
    /// What was told.
    pub logs: BTreeMap<Topic, Vec<LogLine>>,
}

impl Batch {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
            && self.requests.is_empty()
            && self.results.is_empty()
            && self.removed.is_empty()
            && self.logs.is_empty()
    }
}

/// What log lines belong to.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Topic {
    /// A job.
    Job(JobId),
    /// An agent, beside its jobs.
    Agent(AgentId),
}

impl Topic {
    fn key(&self) -> String {
        match self {
            Self::Job(id) => format!("job/{id}"),
            Self::Agent(id) => format!("agent/{id}"),
        }
    }
}

/// One thing that an agent told.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    /// When, by the agent's clock.
    pub time: UnixMillis,
    /// `debug`, `info`, `warn` or `error`.
    pub level: String,
    /// The part of the program that told it.
    pub target: String,
    /// What.
    pub message: String,
}

/// Why the file can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database says no.
    #[error("the job database {what}")]
    Database {
        /// What was to be done.
        what: &'static str,
        /// Why not.
        #[source]
        source: Box<redb::Error>,
    },
    /// It was written by a version that keeps things differently.
    #[error("the job database is of schema {found}, this version writes {SCHEMA}")]
    Schema {
        /// Its schema.
        found: u64,
    },
    /// An entry is not what it should be.
    #[error("the entry `{key}` of the job database is damaged")]
    Entry {
        /// Which.
        key: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The folder of the database can't be used.
    #[error("{path}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Store {
    /// Opens the file, or makes it; gives the jobs that are in it.
    ///
    /// # Errors
    ///
    /// It can't be opened, is in use, damaged or of another schema.
    pub fn open(path: &Path) -> Result<(Self, Vec<Job>), StoreError> {
        let create = |path: &Path| -> Result<Database, StoreError> {
            create_private(path).map_err(|source| StoreError::Folder {
                path: path.to_owned(),
                source,
            })?;
            let mut builder = Database::builder();
            let database = builder.set_cache_size(CACHE_BYTES).create(path);
            database.map_err(failed("can't be opened"))
        };
        if !path.exists() {
            // A file that a crash left half made can't be opened; it never gets the name.
            let beside = path.with_extension("new");
            let moved = |source| StoreError::Folder {
                path: path.to_owned(),
                source,
            };
            match std::fs::remove_file(&beside) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(moved(error));
                }
                _ => {}
            }
            drop(Self::with(create(&beside)?)?);
            std::fs::rename(&beside, path).map_err(moved)?;
        }
        Self::with(create(path)?)
    }

    /// The same over something else than a file.
    ///
    /// # Errors
    ///
    /// As of [`open`](Self::open).
    pub fn open_in(backend: impl StorageBackend) -> Result<(Self, Vec<Job>), StoreError> {
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(backend)
            .map_err(failed("can't be opened"))?;
        Self::with(database)
    }

    fn with(database: Database) -> Result<(Self, Vec<Job>), StoreError> {
        let transaction = database.begin_write().map_err(failed("can't be written"))?;
        prepare(&transaction).map_err(failed("can't be written"))?;
        let found = {
            let meta = transaction
                .open_table(META)
                .map_err(failed("can't be read"))?;
            let found = meta.get("schema").map_err(failed("can't be read"))?;
            found.map_or(SCHEMA, |found| found.value())
        };
        if found != SCHEMA {
            return Err(StoreError::Schema { found });
        }
        transaction.commit().map_err(failed("can't be written"))?;
        let store = Self { database };
        let jobs = store.jobs()?;
        Ok((store, jobs))
    }

    /// Makes all of `batch` durable.
    ///
    /// # Errors
    ///
    /// Nothing of it is; the disk is full or failing.
    pub fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        let transaction = self
            .database
            .begin_write()
            .map_err(failed("can't be written"))?;
        write(&transaction, batch)?;
        transaction.commit().map_err(failed("can't be written"))
    }

    /// What was asked for.
    ///
    /// # Errors
    ///
    /// It can't be read.
    pub fn request(&self, id: &JobId) -> Result<Option<Map<String, Value>>, StoreError> {
        self.read(REQUESTS, id.as_str())
    }

    /// What came of a job.
    ///
    /// # Errors
    ///
    /// It can't be read.
    pub fn result(&self, id: &JobId) -> Result<Option<JobResult>, StoreError> {
        self.read(RESULTS, id.as_str())
    }

    /// At most `limit` lines with numbers from `from` on, each with its number. Numbers start at 0
    /// and never come again; old lines go.
    ///
    /// # Errors
    ///
    /// They can't be read.
    pub fn logs(
        &self,
        topic: &Topic,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(u64, LogLine)>, StoreError> {
        let key = topic.key();
        let read = || -> Result<Vec<(u64, Vec<u8>)>, redb::Error> {
            let table = self.database.begin_read()?.open_table(LOGS)?;
            let lines = table.range((key.as_str(), from)..=(key.as_str(), u64::MAX))?;
            let mut found = Vec::new();
            for line in lines.take(limit) {
                let (at, value) = line?;
                found.push((at.value().1, value.value().to_vec()));
            }
            Ok(found)
        };
        let lines = read().map_err(failed("can't be read"))?;
        let lines = lines
            .into_iter()
            .map(|(at, value)| Ok((at, decoded(&key, &value)?)));
        lines.collect()
    }

    fn jobs(&self) -> Result<Vec<Job>, StoreError> {
        let read = || -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
            let table = self.database.begin_read()?.open_table(JOBS)?;
            let mut found = Vec::new();
            for entry in table.iter()? {
                let (key, value) = entry?;
                found.push((key.value().to_owned(), value.value().to_vec()));
            }
            Ok(found)
        };
        let entries = read().map_err(failed("can't be read"))?;
        let jobs = entries.iter().map(|(key, value)| decoded(key, value));
        jobs.collect()
    }

    fn read<T: DeserializeOwned>(
        &self,
        table: TableDefinition<'_, &str, &[u8]>,
        key: &str,
    ) -> Result<Option<T>, StoreError> {
        let read = || -> Result<Option<Vec<u8>>, redb::Error> {
            let table = self.database.begin_read()?.open_table(table)?;
            Ok(table.get(key)?.map(|value| value.value().to_vec()))
        };
        let value = read().map_err(failed("can't be read"))?;
        value.map(|value| decoded(key, &value)).transpose()
    }
}

/// Makes all tables and says of which schema they are.
fn prepare(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    let mut meta = transaction.open_table(META)?;
    if meta.get("schema")?.is_none() {
        meta.insert("schema", SCHEMA)?;
    }
    for table in [JOBS, REQUESTS, RESULTS] {
        transaction.open_table(table)?;
    }
    transaction.open_table(LOGS)?;
    Ok(())
}

fn write(transaction: &WriteTransaction, batch: &Batch) -> Result<(), StoreError> {
    let open = |table| {
        let table = transaction.open_table(table);
        table.map_err(failed("can't be written"))
    };
    let (mut jobs, mut requests, mut results) = (open(JOBS)?, open(REQUESTS)?, open(RESULTS)?);
    for (id, request) in &batch.requests {
        put(&mut requests, id, request)?;
    }
    for (id, result) in &batch.results {
        put(&mut results, id, result)?;
    }
    for (id, job) in &batch.jobs {
        put(&mut jobs, id, job)?;
    }
    let mut logs = transaction
        .open_table(LOGS)
        .map_err(failed("can't be written"))?;
    for (topic, lines) in &batch.logs {
        let encoded: Vec<_> = lines
            .iter()
            .map(|line| encoded(&topic.key(), line))
            .collect();
        let encoded = encoded.into_iter().collect::<Result<Vec<_>, _>>()?;
        append(&mut logs, &topic.key(), &encoded).map_err(failed("can't be written"))?;
    }
    let mut remove = |id: &JobId| -> Result<(), redb::Error> {
        for table in [&mut jobs, &mut requests, &mut results] {
            table.remove(id.as_str())?;
        }
        let key = Topic::Job(id.clone()).key();
        logs.retain_in((key.as_str(), 0)..=(key.as_str(), u64::MAX), |_, _| false)?;
        Ok(())
    };
    for id in &batch.removed {
        remove(id).map_err(failed("can't be written"))?;
    }
    Ok(())
}

fn append(
    logs: &mut Table<'_, (&str, u64), &[u8]>,
    key: &str,
    lines: &[Vec<u8>],
) -> Result<(), redb::Error> {
    let last = logs
        .range((key, 0)..=(key, u64::MAX))?
        .next_back()
        .transpose()?;
    let mut next = last.map_or(0, |(at, _)| at.value().1 + 1);
    for line in lines {
        logs.insert((key, next), line.as_slice())?;
        next += 1;
    }
    if let Some(oldest) = next.checked_sub(LOG_LINES) {
        logs.retain_in((key, 0)..(key, oldest), |_, _| false)?;
    }
    Ok(())
}

fn put(
    table: &mut Table<'_, &str, &[u8]>,
    id: &JobId,
    value: &impl Serialize,
) -> Result<(), StoreError> {
    let value = encoded(id.as_str(), value)?;
    table
        .insert(id.as_str(), value.as_slice())
        .map_err(failed("can't be written"))?;
    Ok(())
}

fn encoded(key: &str, value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|source| StoreError::Entry {
        key: key.to_owned(),
        source,
    })
}

fn decoded<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(value).map_err(|source| StoreError::Entry {
        key: key.to_owned(),
        source,
    })
}

fn failed<E: Into<redb::Error>>(what: &'static str) -> impl Fn(E) -> StoreError {
    move |source| StoreError::Database {
        what,
        source: Box::new(source.into()),
    }
}

/// The database makes its file with the mode that the umask leaves; what agents log is not for all.
fn create_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match file {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map(drop),
    }
}

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const JOBS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("jobs");
const REQUESTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("requests");
const RESULTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("results");
const LOGS: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("logs");
const SCHEMA: u64 = 1;
const LOG_LINES: u64 = 20_000;
const CACHE_BYTES: usize = 32 << 20;

#[cfg(test)]
mod tests;
