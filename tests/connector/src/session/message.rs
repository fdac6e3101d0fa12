//! What an agent says after its Hello, checked and in the hub's words.

use ce_proto::v1;
use ce_proto::v1::agent_message::Body;
use tonic::Status;

use super::hello::malformed;
use crate::hub::Input;
use crate::ids::{AgentId, JobId, SessionId, UnixMillis};
use crate::machine::{Progress, Word};
use crate::result::{self, Malformed, at_most};
use crate::store::LogLine;

/// The hub's word for a message of `agent` in `session`, with this number.
///
/// # Errors
///
/// A Hello or an Ack, which are for the session; and every message that is not as the protocol has it: the
/// status with which the session ends, and which names the field.
pub fn input(
    body: Body,
    agent: &AgentId,
    session: SessionId,
    sequence: u64,
) -> Result<Input, Status> {
    let said = |job: &str, attempt, word| {
        Ok(Input::Said {
            session,
            sequence,
            agent: agent.clone(),
            job: job_id(job)?,
            attempt,
            word,
        })
    };
    match body {
        Body::Hello(_) => Err(Status::invalid_argument("a second Hello")),
        Body::Ack(_) => Err(Status::internal("an Ack is nothing for the hub")),
        Body::Heartbeat(heartbeat) => Ok(Input::Heartbeat(
            agent.clone(),
            session,
            heartbeat.memory_available_bytes,
        )),
        Body::JobAccepted(accepted) => said(&accepted.job_id, accepted.attempt, Word::Accepted),
        Body::JobRejected(rejected) => {
            use v1::job_rejected::Reason;
            let (job, attempt) = (rejected.job_id.clone(), rejected.attempt);
            let word = match Reason::try_from(rejected.reason) {
                Ok(Reason::Busy) => Word::Declined { draining: false },
                Ok(Reason::Draining) => Word::Declined { draining: true },
                Ok(Reason::DuplicateId | Reason::Unsupported | Reason::Invalid) => {
                    Word::Rejected(result::rejected(rejected).map_err(malformed)?)
                }
                Ok(Reason::Unspecified) | Err(_) => {
                    let problem = format!("{} is no reason", rejected.reason);
                    return Err(malformed(Malformed::new("job_rejected.reason", problem)));
                }
            };
            said(&job, attempt, word)
        }
        Body::JobFinished(finished) => {
            let (job, attempt) = (finished.job_id.clone(), finished.attempt);
            let (status, result) = result::finished(finished).map_err(malformed)?;
            said(&job, attempt, Word::Finished(status, result))
        }
        Body::JobProgress(progress) => {
            at_most("job_progress.step", progress.step.len(), 64).map_err(malformed)?;
            let percent = u8::try_from(progress.overall_progress_percent)
                .ok()
                .filter(|percent| *percent <= 100);
            let Some(percent) = percent else {
                let problem = format!("{} is over 100", progress.overall_progress_percent);
                let field = "job_progress.overall_progress_percent";
                return Err(malformed(Malformed::new(field, problem)));
            };
            let how_far = Progress {
                step: progress.step,
                bytes_done: progress.bytes_done,
                bytes_total: progress.bytes_total,
                percent,
            };
            Ok(Input::Progress(
                agent.clone(),
                job_id(&progress.job_id)?,
                how_far,
            ))
        }
        Body::LogBatch(batch) => logs(batch, agent),
    }
}

fn logs(batch: v1::LogBatch, agent: &AgentId) -> Result<Input, Status> {
    use v1::log_record::Level;
    at_most("log_batch.records", batch.records.len(), 1024).map_err(malformed)?;
    let job = match batch.job_id.as_str() {
        "" => None,
        id => Some(job_id(id)?),
    };
    let mut lines = Vec::with_capacity(batch.records.len() + 1);
    for record in batch.records {
        at_most("log_batch.records.target", record.target.len(), 128).map_err(malformed)?;
        at_most("log_batch.records.message", record.message.len(), 4096).map_err(malformed)?;
        let level = match Level::try_from(record.level) {
            Ok(Level::Debug) => "debug",
            Ok(Level::Info) => "info",
            Ok(Level::Warn) => "warn",
            Ok(Level::Error) => "error",
            Ok(Level::Unspecified) | Err(_) => {
                let problem = format!("{} is no level", record.level);
                return Err(malformed(Malformed::new(
                    "log_batch.records.level",
                    problem,
                )));
            }
        };
        lines.push(LogLine {
            time: UnixMillis(u64::try_from(record.time_unix_ms).unwrap_or_default()),
            level: level.to_owned(),
            target: record.target,
            message: record.message,
        });
    }
    if batch.dropped > 0 {
        let time = lines.first().map_or_else(UnixMillis::now, |line| line.time);
        let told = LogLine {
            time,
            level: "warn".to_owned(),
            target: "session".to_owned(),
            message: format!("{} log records were dropped before these", batch.dropped),
        };
        lines.insert(0, told);
    }
    Ok(Input::Logs(agent.clone(), job, lines))
}

fn job_id(id: &str) -> Result<JobId, Status> {
    id.parse()
        .map_err(|error| malformed(Malformed::new("job_id", format!("{error}"))))
}
