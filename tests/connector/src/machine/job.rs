//! One job and where it stands.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::{AgentId, JobId, StateId, UnixMillis};

/// A job as it is kept. What was asked for and what came of it are kept beside it, by its name.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// Its place in the order of arrival.
    pub number: u64,
    /// What it does, as the request words it.
    pub operation: String,
    /// The only agent that may have it, if one was named.
    pub target: Option<AgentId>,
    /// When it was submitted.
    pub created: UnixMillis,
    /// How often it was given out.
    pub attempt: u32,
    /// Where it stands.
    pub phase: Phase,
    /// Whether someone asked for it to be stopped.
    pub cancel_requested: bool,
    /// How far it is.
    pub progress: Progress,
}

/// Where a job stands.
///
/// ```text
///            dispatch          accepted             finished
///   Queued ----------> Sent ------------> Running ------------> Ended
///     ^                 |                    |                    ^
///     |  busy, draining |                    |  agent came back   |
///     +-----------------+--------------------+  without its state |
///              rejected, cancelled, lost     +--------------------+
/// ```
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub enum Phase {
    /// No agent has it.
    Queued,
    /// It was, or will be, sent to an agent that has not answered yet.
    Sent(Holder),
    /// An agent has accepted it.
    Running(Holder),
    /// It is over.
    Ended(Ending),
}

/// Who has a job.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// The agent.
    pub agent: AgentId,
    /// The state in which the agent knows of the job.
    pub state: StateId,
    /// Since when the agent is away, if it is.
    pub away_since: Option<UnixMillis>,
}

/// How a job ended.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Ending {
    /// How.
    pub status: EndStatus,
    /// When.
    pub at: UnixMillis,
    /// The agent that had the job last.
    pub agent: Option<AgentId>,
    /// Whether the Connector gave the agent up. A result that comes after all takes the place of
    /// the presumption.
    pub presumed: bool,
}

/// The ways to end.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum EndStatus {
    /// Stopped on request.
    Cancelled,
    /// Done.
    Complete,
    /// Ended early.
    Failed,
}

/// How far a job is.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Progress {
    /// The step that runs; empty before the first.
    pub step: String,
    /// How much of it is done, in bytes.
    pub bytes_done: u64,
    /// How much it has to do, in bytes; 0 if unknown.
    pub bytes_total: u64,
    /// Of the whole job, 0 to 100. Never goes back.
    pub percent: u8,
}

/// What came of a job, with the names of the contract.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JobResult {
    /// What it produced or found out.
    pub artifacts: Map<String, Value>,
    /// Why it failed or was cancelled.
    pub error: Option<JobError>,
    /// What its owner should know all the same.
    pub warnings: Vec<String>,
}

impl JobResult {
    /// A result that is nothing but an error.
    pub fn failure(code: &str, message: impl Into<String>, hint: &str) -> Self {
        Self {
            error: Some(JobError::new(code, message, hint)),
            ..Self::default()
        }
    }
}

/// Why something was not done, as the contract words it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct JobError {
    /// A stable code.
    pub code: String,
    /// What was found, and where.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl JobError {
    /// An error; `hint` may be empty.
    pub fn new(code: &str, message: impl Into<String>, hint: &str) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            hint: (!hint.is_empty()).then(|| hint.to_owned()),
        }
    }
}

impl Job {
    /// `pending`, `inProgress`, `complete`, `failed` or `cancelled`.
    pub fn status(&self) -> &'static str {
        match &self.phase {
            Phase::Queued | Phase::Sent(_) => "pending",
            Phase::Running(_) => "inProgress",
            Phase::Ended(ending) => match ending.status {
                EndStatus::Cancelled => "cancelled",
                EndStatus::Complete => "complete",
                EndStatus::Failed => "failed",
            },
        }
    }

    /// The agent that has it, or had it last.
    pub fn agent(&self) -> Option<&AgentId> {
        match &self.phase {
            Phase::Queued => None,
            Phase::Sent(holder) | Phase::Running(holder) => Some(&holder.agent),
            Phase::Ended(ending) => ending.agent.as_ref(),
        }
    }

    /// Who has it, if somebody does.
    pub fn holder(&self) -> Option<&Holder> {
        match &self.phase {
            Phase::Sent(holder) | Phase::Running(holder) => Some(holder),
            Phase::Queued | Phase::Ended(_) => None,
        }
    }

    /// Whether it is over.
    pub fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }
}
