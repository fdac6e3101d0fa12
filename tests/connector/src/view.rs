//! Jobs and agents as the HTTP interface shows them.

use serde::{Deserialize, Serialize};

use crate::ids::{AgentId, JobId, SessionId, UnixMillis};
use crate::machine::{Job, Phase};

/// A job, without what came of it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobView {
    /// Its name.
    pub id: JobId,
    /// What it does.
    pub operation: String,
    /// `pending`, `inProgress`, `complete`, `failed` or `cancelled`.
    pub status: String,
    /// 0 to 100.
    pub overall_progress_percent: u8,
    /// The step that runs.
    pub step: String,
    /// How much of the step is done, in bytes.
    pub bytes_done: u64,
    /// How much the step has to do, in bytes; 0 if unknown.
    pub bytes_total: u64,
    /// Who has it, or had it last.
    pub agent: Option<AgentId>,
    /// Whether it is to be stopped.
    pub cancel_requested: bool,
    /// When it was submitted, in milliseconds since 1970.
    pub created: UnixMillis,
    /// When it ended, in milliseconds since 1970.
    pub ended: Option<UnixMillis>,
    /// Its place in the order of arrival.
    pub number: u64,
}

impl JobView {
    /// How `job` is shown.
    pub fn of(job: &Job) -> Self {
        Self {
            id: job.id.clone(),
            operation: job.operation.clone(),
            status: job.status().to_owned(),
            overall_progress_percent: job.progress.percent,
            step: job.progress.step.clone(),
            bytes_done: job.progress.bytes_done,
            bytes_total: job.progress.bytes_total,
            agent: job.agent().or(job.target.as_ref()).cloned(),
            cancel_requested: job.cancel_requested,
            created: job.created,
            ended: match &job.phase {
                Phase::Ended(ending) => Some(ending.at),
                Phase::Queued | Phase::Sent(_) | Phase::Running(_) => None,
            },
            number: job.number,
        }
    }
}

/// What an agent says of itself when it connects.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentFacts {
    /// From where it calls.
    pub address: String,
    /// Its version.
    pub agent_version: String,
    /// The platform that it runs on, if it knows.
    pub platform: Option<String>,
    /// Its machine's name.
    pub hostname: String,
    /// Its machine's kernel.
    pub kernel: String,
    /// What the firmware says of the machine.
    pub machine: String,
    /// Its machine's memory, in bytes.
    pub memory_bytes: u64,
    /// Its machine's processors.
    pub cpu_count: u32,
    /// The disks that it sees.
    pub disks: Vec<DiskFacts>,
}

/// A disk that an agent sees.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskFacts {
    /// The kernel's name for it.
    pub device_name: String,
    /// Its size, in bytes.
    pub size_bytes: u64,
    /// Its serial number.
    pub serial: String,
    /// Its LUN.
    pub lun: Option<u64>,
    /// Vendor and model.
    pub model: String,
    /// Whether the agent runs from it.
    pub is_own: bool,
}

/// An agent that has been here since the Connector was started.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentView {
    /// Its name.
    pub id: AgentId,
    /// Its last session.
    #[serde(skip, default = "no_session")]
    pub session: SessionId,
    /// Whether that lasts.
    pub connected: bool,
    /// When it began, in milliseconds since 1970.
    pub since: UnixMillis,
    /// When the agent was last heard of, in milliseconds since 1970.
    pub last_seen: UnixMillis,
    /// Its machine's free memory, in bytes.
    pub memory_available_bytes: u64,
    /// The jobs that it has.
    pub jobs: Vec<JobId>,
    /// What it says of itself.
    pub facts: AgentFacts,
    /// When this was last changed, in the hub's count.
    #[serde(skip)]
    pub version: u64,
}

impl AgentView {
    /// An agent that has just connected.
    pub fn new(
        id: AgentId,
        session: SessionId,
        facts: AgentFacts,
        now: UnixMillis,
        version: u64,
    ) -> Self {
        Self {
            id,
            session,
            connected: true,
            since: now,
            last_seen: now,
            memory_available_bytes: 0,
            jobs: Vec::new(),
            facts,
            version,
        }
    }
}

/// What has changed since a version.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Changes {
    /// The version now.
    pub version: u64,
    /// Jobs that have changed.
    pub jobs: Vec<JobView>,
    /// Agents that have changed.
    pub agents: Vec<AgentView>,
}

fn no_session() -> SessionId {
    SessionId(0)
}
