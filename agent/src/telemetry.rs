//! Where log records go: to the journal or standard error, and to the Connector.
//!
//! ```text
//!  tracing --> filter --+--> journal (if systemd gave us one) or standard error
//!                       +--> LogBuffer --> batches for the Connector, with the job's name
//!                                    +---> the last records, for diagnostics
//! ```
//!
//! The buffer is bounded: what a Connector that is away can't take is dropped, oldest first, and
//! counted. Only records of this program go to the Connector; those of the libraries that carry
//! them would beget others.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use ce_proto::v1;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

use crate::job::wire::clip;

/// Records that wait for the Connector, and the last ones in any case.
#[derive(Debug, Default)]
pub(crate) struct LogBuffer(Mutex<Records>);

#[derive(Debug, Default)]
struct Records {
    waiting: VecDeque<Record>,
    dropped: u64,
    last: VecDeque<Record>,
    /// The job that runs now, to which its threads' records belong.
    job: String,
}

/// A record and the job that it belongs to.
#[derive(Clone, Debug)]
struct Record {
    job: String,
    record: v1::LogRecord,
}

/// Starts logging for this process and gives the buffer that records go through.
pub(crate) fn start(filter: EnvFilter) -> Arc<LogBuffer> {
    let buffer = Arc::new(LogBuffer::default());
    let journal = has_journal()
        .then(|| tracing_journald::layer().ok())
        .flatten();
    let stderr = journal
        .is_none()
        .then(|| tracing_subscriber::fmt::layer().with_writer(std::io::stderr))
        .map(|layer| layer.with_ansi(std::io::stderr().is_terminal()));
    Registry::default()
        .with(filter)
        .with(journal)
        .with(stderr)
        .with(Collector(Arc::clone(&buffer)))
        .init();
    // Set once: a process starts its logging once.
    BUFFER.get_or_init(|| Arc::clone(&buffer));
    buffer
}

/// The last records of this process, one a line, oldest first; none if it is no daemon.
pub(crate) fn last_records() -> String {
    BUFFER.get().map(|buffer| buffer.last()).unwrap_or_default()
}

/// The buffer of this process.
static BUFFER: OnceLock<Arc<LogBuffer>> = OnceLock::new();

/// Whether standard error is connected to the journal (systemd.exec(5), `$JOURNAL_STREAM`).
fn has_journal() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let Ok(facts) = rustix::fs::fstat(std::io::stderr()) else {
        return false;
    };
    stream == format!("{}:{}", facts.st_dev, facts.st_ino)
}

impl LogBuffer {
    /// From now on the records of a job's threads belong to this job.
    pub(crate) fn set_job(&self, job: &str) {
        job.clone_into(&mut self.records().job);
    }

    /// The oldest records of one job, as many as fit into a message.
    pub(crate) fn take_batch(&self) -> Option<v1::LogBatch> {
        let mut records = self.records();
        let job = match records.waiting.front() {
            Some(first) => first.job.clone(),
            None if records.dropped > 0 => String::new(),
            None => return None,
        };
        let mut batch = v1::LogBatch {
            job_id: job,
            records: Vec::new(),
            dropped: std::mem::take(&mut records.dropped),
        };
        let mut bytes = 0;
        while let Some(next) = records.waiting.front() {
            bytes += next.record.message.len() + next.record.target.len() + RECORD_OVERHEAD;
            let is_full = batch.records.len() >= MOST_IN_BATCH || bytes > LARGEST_BATCH;
            if is_full || next.job != batch.job_id {
                break;
            }
            batch
                .records
                .extend(records.waiting.pop_front().map(|next| next.record));
        }
        Some(batch)
    }

    /// The last records, one a line, oldest first.
    fn last(&self) -> String {
        let mut text = String::new();
        for Record { job, record } in &self.records().last {
            let level = record.level().as_str_name().trim_start_matches("LEVEL_");
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "{} {level} {} {}{}",
                record.time_unix_ms,
                record.target,
                record.message,
                if job.is_empty() {
                    String::new()
                } else {
                    format!(" (job {job})")
                }
            );
        }
        text
    }

    fn push(&self, job: Option<String>, record: v1::LogRecord) {
        let mut records = self.records();
        let is_jobs = std::thread::current()
            .name()
            .is_some_and(|name| name.starts_with(JOB_THREADS));
        let job = job.unwrap_or_else(|| match is_jobs {
            true => records.job.clone(),
            false => String::new(),
        });
        let record = Record { job, record };
        if records.last.len() >= MOST_LAST {
            records.last.pop_front();
        }
        records.last.push_back(record.clone());
        if records.waiting.len() >= MOST_WAITING {
            records.waiting.pop_front();
            records.dropped += 1;
        }
        records.waiting.push_back(record);
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        // Whoever panicked with it left whole records.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The layer that fills the buffer.
struct Collector(Arc<LogBuffer>);

impl<S: Subscriber> Layer<S> for Collector {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let target = event.metadata().target();
        if !target.starts_with(OURS) {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        fields.message.push_str(&fields.others);
        let level = match *event.metadata().level() {
            Level::ERROR => v1::log_record::Level::Error,
            Level::WARN => v1::log_record::Level::Warn,
            Level::INFO => v1::log_record::Level::Info,
            _ => v1::log_record::Level::Debug,
        };
        let record = v1::LogRecord {
            time_unix_ms: unix_ms(),
            level: level.into(),
            target: clip(target, 128).to_owned(),
            message: clip(&fields.message, 4096).to_owned(),
        };
        // What is no name would make the Connector refuse the whole batch.
        let job = fields.job.filter(|job| ce_proto::is_valid_id(job));
        self.0.push(job, record);
    }
}

/// The message, and the other fields as `name=value` behind it.
#[derive(Default)]
struct Fields {
    message: String,
    others: String,
    job: Option<String>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            "job" => {
                self.job = Some(format!("{value:?}"));
                Ok(())
            }
            name => write!(self.others, " {name}={value:?}"),
        };
    }
}

/// Milliseconds since 1970 (UTC), by this machine's clock.
pub(crate) fn unix_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

/// The crates of this program.
const OURS: &str = "ce_";

/// The threads that work for a job: `ce-job`, `ce-read` and so on.
const JOB_THREADS: &str = "ce-";

const MOST_WAITING: usize = 4096;
const MOST_LAST: usize = 1000;

/// Limits of the protocol.
const MOST_IN_BATCH: usize = 1024;
const LARGEST_BATCH: usize = 256 << 10;

/// Time, level and what stands around them.
const RECORD_OVERHEAD: usize = 32;

#[cfg(test)]
mod tests {
    use tracing::{info, warn};

    use super::*;

    fn collected(work: impl FnOnce()) -> Arc<LogBuffer> {
        let buffer = Arc::new(LogBuffer::default());
        let subscriber = Registry::default().with(Collector(Arc::clone(&buffer)));
        tracing::subscriber::with_default(subscriber, work);
        buffer
    }

    #[test]
    fn records_come_in_batches_of_one_job_each() {
        let buffer = collected(|| {
            info!(job = %"a", bytes = 5, "begun");
            info!(job = %"a", "done");
            warn!("else");
            info!(target: "h2", "not ours");
            info!(job = "../x", "a name that is none");
        });
        let first = buffer.take_batch().unwrap();
        assert_eq!((&*first.job_id, first.records.len()), ("a", 2));
        assert_eq!(first.records[0].message, "begun bytes=5");
        let second = buffer.take_batch().unwrap();
        assert_eq!((&*second.job_id, second.records.len()), ("", 2));
        assert_eq!(second.records[0].message, "else");
        assert!(buffer.take_batch().is_none());
        assert_eq!(buffer.last().lines().count(), 4);
        assert!(buffer.last().contains("done (job a)"));
    }

    #[test]
    fn what_is_too_much_is_dropped_and_counted_and_batches_fit_into_messages() {
        let long = "x".repeat(5000);
        let buffer = collected(|| {
            for _ in 0..MOST_WAITING + 7 {
                info!("{long}");
            }
        });
        let first = buffer.take_batch().unwrap();
        assert_eq!(first.dropped, 7);
        let bytes = prost::Message::encoded_len(&first);
        assert!(
            bytes <= LARGEST_BATCH && bytes > LARGEST_BATCH / 2,
            "{bytes}"
        );
        assert_eq!(first.records[0].message.len(), 4096);
        assert_eq!(buffer.take_batch().unwrap().dropped, 0);
    }
}
