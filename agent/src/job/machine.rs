//! Which jobs a daemon takes on and what it says of them: a pure state machine.
//!
//! ```text
//!  Offered --> known? --yes--> answered as before
//!                | no
//!                v
//!             another one runs, draining? --yes--> Rejected (may be sent again)
//!                | no
//!                v
//!              Check --> Checked(Err) --> Rejected (for good)
//!                |
//!                v Checked(Ok)
//!             Waiting (for its disk)
//!                | DiskCame, or there already
//!                v
//!             Running -------------------> Finished ------------> Acknowledged --> forgotten
//!                ^   CancelAsked, Tick,       ^      Acknowledged                  when old
//!                |   Drain: Stop              |
//!                +-- restart: Reconsider -----+
//! ```
//!
//! It does no I/O and has no clock. The caller carries the actions out in their order; what `Save`
//! names must be durable before the next action. So whatever happens between two actions, a restart
//! from the saved records begins no job a second time that ever ended, and loses no result.
//!
//! One job runs at a time; to wait for a disk counts as running. What waits has not begun, so that every
//! such job can be gone on with after a crash, also one that changes its disk.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{ErrorCode, Job, JobError, Status};

/// A job as it is kept on disk: what was asked for, without secrets, and where it stands.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Record {
    /// The form of this record.
    pub schema: u32,
    /// The job's name.
    pub id: String,
    /// Counts the jobs that were taken on.
    pub number: u64,
    /// The latest attempt at giving it out; answers repeat it.
    pub attempt: u32,
    /// The fields of the request, with the names of the contract.
    pub request: Map<String, Value>,
    /// How far it is known to have come, in percent.
    pub percent: u8,
    /// Where it stands.
    pub state: RecordState,
}

/// Where a job stands.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) enum RecordState {
    /// Taken on; its disk is not attached yet.
    Waiting,
    /// Taken on, and not ended.
    Running,
    /// Ended.
    Finished {
        /// What came of it, as the contract words it.
        job: Value,
        /// When, by this machine's clock: milliseconds since 1970 (UTC).
        at: i64,
        /// Whether the Connector has it durable.
        acknowledged: bool,
    },
}

impl RecordState {
    /// Whether the job has not ended.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Waiting | Self::Running)
    }
}

/// What a job that is taken on, or gone on with, asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Terms {
    /// How long it may take from now.
    pub limit: Duration,
    /// Whether its disk is not attached yet.
    pub waits: bool,
}

/// What happens.
#[derive(Clone, Debug)]
pub(crate) enum JobEvent {
    /// The Connector gives a job out.
    Offered(Offer),
    /// The outcome of a [`JobAction::Check`]: what the job asks for, or why it is refused.
    Checked(Offer, Result<Terms, Refusal>),
    /// The outcome of a [`JobAction::Reconsider`], and when.
    Reconsidered(String, Reconsidered, i64),
    /// Someone asks for a job to be stopped.
    CancelAsked(String, String),
    /// The disk that the job waited for is there.
    DiskCame,
    /// The job that runs has come so far.
    Progressed(u8),
    /// The job that runs has ended: what came of it, and when.
    Ended(Box<Job>, i64),
    /// The Connector has the result of a job.
    Acknowledged(String),
    /// No more jobs; stop the one that runs.
    Drain,
    /// Time has passed.
    Tick,
}

/// What can be said of a job that a crash interrupted.
#[derive(Clone, Debug)]
pub(crate) enum Reconsidered {
    /// It can be gone on with.
    GoOn(Terms),
    /// What it changes is on its disk; this is what will be told, as the contract words it.
    Done(Value),
    /// It can't be gone on with.
    Interrupted(Box<Job>),
}

/// A job that is given out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Offer {
    /// The job's name.
    pub id: String,
    /// Which attempt it is.
    pub attempt: u32,
    /// What is asked for.
    pub request: Map<String, Value>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum JobAction {
    /// Make the record of this job durable.
    Save(String),
    /// Remove the record of this job.
    Forget(String),
    /// Find out whether the job can be done at all, and report [`JobEvent::Checked`].
    Check(Offer),
    /// Find out whether a job that a crash interrupted can be gone on with, and report
    /// [`JobEvent::Reconsidered`].
    Reconsider(String),
    /// Begin the job.
    Begin(String),
    /// Tell the job that runs to stop.
    Stop,
    /// Tell the Connector, until it acknowledges.
    Send(Letter),
}

/// What the Connector has to be told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Letter {
    /// The job is taken on.
    Accepted(String),
    /// The job is not taken on.
    Rejected {
        /// The job's name.
        id: String,
        /// Which attempt.
        attempt: u32,
        /// Why.
        refusal: Refusal,
    },
    /// What came of it is in the record.
    Finished(String),
}

/// Why a job is not taken on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refusal {
    /// What kind of reason it is.
    pub reason: RefusalReason,
    /// What the job's owner is told.
    pub error: JobError,
    /// Every problem with the request: the field, and what is wrong with it.
    pub problems: Vec<(String, String)>,
}

/// The kinds of reasons.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RefusalReason {
    /// Another job runs.
    Busy,
    /// The agent stops.
    Draining,
    /// The name belongs to another request.
    DuplicateId,
    /// The request is wrong.
    Invalid,
    /// This version can't do it.
    Unsupported,
}

impl Refusal {
    /// A refusal without a list of problems.
    pub(crate) fn new(reason: RefusalReason, code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            reason,
            error: JobError::new(code, message),
            problems: Vec::new(),
        }
    }
}

/// All jobs that the daemon knows.
#[derive(Debug, Default)]
pub(crate) struct JobTable {
    records: BTreeMap<String, Record>,
    running: Option<Running>,
    next_number: u64,
    draining: bool,
}

/// The job that runs, beside its record.
#[derive(Debug)]
struct Running {
    id: String,
    /// When its time is over.
    deadline: Option<Instant>,
    limit: Duration,
    stop: Option<StopCause>,
    /// Whether it has been begun in this life of the process.
    begun: bool,
}

/// Why a job was told to stop. The first cause counts.
#[derive(Clone, Debug, PartialEq)]
enum StopCause {
    Cancelled(String),
    Draining,
    TimedOut,
}

impl JobTable {
    /// The table as it was saved, and what is to be done about what was left in it.
    pub(crate) fn restore(records: Vec<Record>) -> (Self, Vec<JobAction>) {
        let mut table = Self {
            next_number: records.iter().map(|r| r.number + 1).max().unwrap_or(0),
            ..Self::default()
        };
        let mut actions = Vec::new();
        let mut ordered = records;
        ordered.sort_by_key(|record| record.number);
        for record in ordered {
            let id = record.id.clone();
            match &record.state {
                RecordState::Waiting | RecordState::Running => {
                    actions.push(JobAction::Send(Letter::Accepted(id.clone())));
                    actions.push(JobAction::Reconsider(id.clone()));
                    table.running = Some(Running {
                        id: id.clone(),
                        deadline: None,
                        limit: Duration::ZERO,
                        stop: None,
                        begun: false,
                    });
                }
                RecordState::Finished { acknowledged, .. } if !acknowledged => {
                    actions.push(JobAction::Send(Letter::Accepted(id.clone())));
                    actions.push(JobAction::Send(Letter::Finished(id.clone())));
                }
                RecordState::Finished { .. } => {}
            }
            table.records.insert(id, record);
        }
        (table, actions)
    }

    /// The record of a job.
    pub(crate) fn record(&self, id: &str) -> Option<&Record> {
        self.records.get(id)
    }

    /// The job that runs.
    pub(crate) fn running(&self) -> Option<&str> {
        self.running.as_ref().map(|running| &*running.id)
    }

    /// Jobs that run or whose result is not acknowledged, oldest first, and whether they have ended.
    pub(crate) fn held(&self) -> Vec<(&str, bool)> {
        let mut held: Vec<_> = self
            .records
            .values()
            .filter_map(|record| match record.state {
                RecordState::Waiting | RecordState::Running => {
                    Some((record.number, &*record.id, false))
                }
                RecordState::Finished {
                    acknowledged: false,
                    ..
                } => Some((record.number, &*record.id, true)),
                RecordState::Finished { .. } => None,
            })
            .collect();
        held.sort_unstable();
        held.into_iter().map(|(_, id, ended)| (id, ended)).collect()
    }

    /// When a [`JobEvent::Tick`] is due.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let running = self.running.as_ref()?;
        running.deadline.filter(|_| running.stop.is_none())
    }

    /// What is to be done about an event.
    pub(crate) fn on(&mut self, event: JobEvent, now: Instant) -> Vec<JobAction> {
        match event {
            JobEvent::Offered(offer) => self.offered(offer),
            JobEvent::Checked(offer, Ok(terms)) => self.accept(offer, terms, now),
            JobEvent::Checked(offer, Err(refusal)) => vec![reject(offer, refusal)],
            JobEvent::Reconsidered(id, result, at) => self.reconsidered(&id, result, at, now),
            JobEvent::CancelAsked(id, reason) => match &self.running {
                Some(running) if running.id == id => self.stop(StopCause::Cancelled(reason)),
                _ => Vec::new(),
            },
            JobEvent::DiskCame => self.disk_came(),
            JobEvent::Progressed(percent) => self.progressed(percent),
            JobEvent::Ended(job, at) => self.ended(*job, at),
            JobEvent::Acknowledged(id) => self.acknowledged(&id),
            JobEvent::Drain => {
                self.draining = true;
                self.stop(StopCause::Draining)
            }
            JobEvent::Tick if self.wake_at().is_some_and(|at| at <= now) => {
                self.stop(StopCause::TimedOut)
            }
            JobEvent::Tick => Vec::new(),
        }
    }

    fn offered(&mut self, offer: Offer) -> Vec<JobAction> {
        if let Some(record) = self.records.get_mut(&offer.id) {
            if record.request != offer.request {
                let message = format!("a job of the name {} asks for something else", offer.id);
                let refusal = Refusal::new(
                    RefusalReason::DuplicateId,
                    ErrorCode::InvalidRequest,
                    message,
                );
                return vec![reject(offer, refusal)];
            }
            record.attempt = record.attempt.max(offer.attempt);
            let mut actions = Vec::new();
            let accepted = JobAction::Send(Letter::Accepted(offer.id.clone()));
            match &mut record.state {
                RecordState::Waiting | RecordState::Running => actions.push(accepted),
                RecordState::Finished { acknowledged, .. } => {
                    if *acknowledged {
                        *acknowledged = false;
                        actions.push(JobAction::Save(offer.id.clone()));
                    }
                    actions.push(accepted);
                    actions.push(JobAction::Send(Letter::Finished(offer.id)));
                }
            }
            return actions;
        }
        match self.refusal() {
            Some(refusal) => vec![reject(offer, refusal)],
            None => vec![JobAction::Check(offer)],
        }
    }

    /// Why no job can be taken on now.
    fn refusal(&self) -> Option<Refusal> {
        if self.draining {
            let message = "the agent is about to stop";
            return Some(Refusal::new(
                RefusalReason::Draining,
                ErrorCode::Internal,
                message,
            ));
        }
        let running = self.running.as_ref()?;
        let message = format!("the job {} runs, and one runs at a time", running.id);
        Some(Refusal::new(
            RefusalReason::Busy,
            ErrorCode::Internal,
            message,
        ))
    }

    fn accept(&mut self, offer: Offer, terms: Terms, now: Instant) -> Vec<JobAction> {
        // Between offer and check nothing may have happened; if it has, it is begun at most once.
        if self.records.contains_key(&offer.id) || self.refusal().is_some() {
            return self.offered(offer);
        }
        let id = offer.id;
        self.records.insert(
            id.clone(),
            Record {
                schema: SCHEMA,
                id: id.clone(),
                number: self.next_number,
                attempt: offer.attempt,
                request: offer.request,
                percent: 0,
                state: match terms.waits {
                    true => RecordState::Waiting,
                    false => RecordState::Running,
                },
            },
        );
        self.next_number += 1;
        self.running = Some(Running {
            id: id.clone(),
            deadline: now.checked_add(terms.limit),
            limit: terms.limit,
            stop: None,
            begun: true,
        });
        vec![
            JobAction::Save(id.clone()),
            JobAction::Send(Letter::Accepted(id.clone())),
            JobAction::Begin(id),
        ]
    }

    fn reconsidered(
        &mut self,
        id: &str,
        result: Reconsidered,
        at: i64,
        now: Instant,
    ) -> Vec<JobAction> {
        let Some(running) = &mut self.running else {
            return Vec::new();
        };
        if running.id != id || running.begun {
            return Vec::new();
        }
        match result {
            Reconsidered::GoOn(terms) => {
                running.begun = true;
                running.limit = terms.limit;
                running.deadline = now.checked_add(terms.limit);
                let mut actions = match terms.waits {
                    true => Vec::new(),
                    false => self.disk_came(),
                };
                actions.push(JobAction::Begin(id.to_owned()));
                actions
            }
            Reconsidered::Done(job) => {
                self.running = None;
                let percent = job.get("overallProgressPercent").and_then(Value::as_u64);
                let percent = percent.and_then(|percent| u8::try_from(percent).ok());
                self.finish(id.to_owned(), job, percent.unwrap_or(100), at)
            }
            Reconsidered::Interrupted(job) => self.ended(*job, at),
        }
    }

    /// The work begins, and from now on may leave something behind.
    fn disk_came(&mut self) -> Vec<JobAction> {
        let id = self.running.as_ref().map(|running| &*running.id);
        let record = id.and_then(|id| self.records.get_mut(id));
        match record.filter(|record| record.state == RecordState::Waiting) {
            None => Vec::new(),
            Some(record) => {
                record.state = RecordState::Running;
                vec![JobAction::Save(record.id.clone())]
            }
        }
    }

    fn stop(&mut self, cause: StopCause) -> Vec<JobAction> {
        match &mut self.running {
            Some(running) if running.stop.is_none() => {
                running.stop = Some(cause);
                vec![JobAction::Stop]
            }
            _ => Vec::new(),
        }
    }

    fn progressed(&mut self, percent: u8) -> Vec<JobAction> {
        let Some(id) = self.running.as_ref().map(|running| running.id.clone()) else {
            return Vec::new();
        };
        let Some(record) = self.records.get_mut(&id) else {
            return Vec::new();
        };
        // Often enough that a restart does not show, seldom enough that disks don't mind.
        if percent < record.percent.saturating_add(PERCENT_WORTH_SAVING) {
            return Vec::new();
        }
        record.percent = percent.min(99);
        vec![JobAction::Save(id)]
    }

    fn ended(&mut self, job: Job, at: i64) -> Vec<JobAction> {
        let Some(running) = self.running.take() else {
            return Vec::new();
        };
        let id = running.id;
        let percent = self.records.get(&id).map_or(0, |record| record.percent);
        let mut job = settle(job, running.stop.as_ref(), running.limit);
        job.id.clone_from(&id);
        job.overall_progress_percent = job.overall_progress_percent.max(percent);
        let percent = job.overall_progress_percent;
        // Plain data with text for keys always has a JSON form.
        let job = serde_json::to_value(&job).unwrap_or_default();
        self.finish(id, job, percent, at)
    }

    fn finish(&mut self, id: String, job: Value, percent: u8, at: i64) -> Vec<JobAction> {
        let Some(record) = self.records.get_mut(&id) else {
            return Vec::new();
        };
        record.percent = percent;
        record.state = RecordState::Finished {
            job,
            at,
            acknowledged: false,
        };
        vec![
            JobAction::Save(id.clone()),
            JobAction::Send(Letter::Finished(id)),
        ]
    }

    fn acknowledged(&mut self, id: &str) -> Vec<JobAction> {
        let Some(record) = self.records.get_mut(id) else {
            return Vec::new();
        };
        match &mut record.state {
            RecordState::Finished { acknowledged, .. } if !*acknowledged => *acknowledged = true,
            _ => return Vec::new(),
        }
        let mut actions = vec![JobAction::Save(id.to_owned())];
        let mut done: Vec<_> = self
            .records
            .values()
            .filter(|record| {
                matches!(
                    record.state,
                    RecordState::Finished {
                        acknowledged: true,
                        ..
                    }
                )
            })
            .map(|record| (record.number, record.id.clone()))
            .collect();
        done.sort_unstable();
        let too_many = done.len().saturating_sub(REMEMBERED);
        for (_, old) in done.into_iter().take(too_many) {
            self.records.remove(&old);
            actions.push(JobAction::Forget(old));
        }
        actions
    }
}

fn reject(offer: Offer, refusal: Refusal) -> JobAction {
    JobAction::Send(Letter::Rejected {
        id: offer.id,
        attempt: offer.attempt,
        refusal,
    })
}

/// What came of a job that may have been told to stop, said honestly: it may have been complete
/// before it noticed.
fn settle(mut job: Job, stop: Option<&StopCause>, limit: Duration) -> Job {
    match (stop, job.status) {
        (Some(StopCause::TimedOut), Status::Cancelled) => job.into_timed_out(limit),
        (Some(StopCause::Draining), Status::Cancelled) => {
            if let Some(error) = &mut job.error {
                error.message = format!("the agent was stopped: {}", error.message);
            }
            job
        }
        (Some(StopCause::Cancelled(reason)), Status::Cancelled) => {
            if let Some(error) = job.error.as_mut().filter(|_| !reason.is_empty()) {
                error.message = format!("{} (asked for: {reason})", error.message);
            }
            job
        }
        (Some(cause), Status::Complete) => {
            let what = match cause {
                StopCause::Cancelled(_) => "the cancel",
                StopCause::Draining => "the agent's stop",
                StopCause::TimedOut => "the end of its time",
            };
            let warning = format!("{what} came too late: the job was complete already");
            job.warnings.push(warning);
            job
        }
        _ => job,
    }
}

/// The form of records that this version writes and reads.
pub(crate) const SCHEMA: u32 = 1;

/// Jobs that are remembered after the Connector has their result, so that one that is sent again
/// by mistake is not done again.
const REMEMBERED: usize = 64;

const PERCENT_WORTH_SAVING: u8 = 5;

#[cfg(test)]
mod tests;
