//! The one thread that owns the jobs.
//!
//! ```text
//!   sessions --+                                    +--> replies, acknowledgements
//!   HTTP ------+--> Input --> Machine --> Batch --> commit --> jobs and cancels to sessions
//!   clock -----+      (all that waits, together)
//! ```
//!
//! What waits is taken together, so that a thousand agents cost one commit and not a thousand. No
//! reply, acknowledgement or job leaves before that commit is durable; if it fails, nothing leaves,
//! and the server ends. The database blocks, hence a thread and not a task.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ce_proto::v1;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use crate::ids::{AgentId, JobId, SessionId, StateId, UnixMillis};
use crate::machine::{
    Action, Event, Job, JobResult, Limits, Machine, Phase, Progress, Refusal, Word,
};
use crate::request::Request;
use crate::store::{Batch, LogLine, Store, StoreError, Topic};
use crate::view::{AgentFacts, AgentView, Changes, JobView};
use crate::wallet::Wallet;

/// The way to the thread. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hub {
    inputs: mpsc::Sender<Input>,
    store: Arc<Store>,
}

/// What the thread is told.
#[derive(Debug)]
pub enum Input {
    /// An agent has said hello.
    Open(Box<Opening>),
    /// A session is over.
    Close(AgentId, SessionId),
    /// An agent says something of a job that has to be acknowledged.
    Said {
        /// In which session.
        session: SessionId,
        /// With which number.
        sequence: u64,
        /// Who.
        agent: AgentId,
        /// Of which job.
        job: JobId,
        /// Of which attempt.
        attempt: u32,
        /// What.
        word: Word,
    },
    /// How far a job is.
    Progress(AgentId, JobId, Progress),
    /// What an agent tells; of a job, or of itself.
    Logs(AgentId, Option<JobId>, Vec<LogLine>),
    /// An agent is alive.
    Heartbeat(AgentId, SessionId, u64),
    /// A job is to be done.
    Submit(
        Box<Request>,
        Option<AgentId>,
        oneshot::Sender<Result<JobId, Refusal>>,
    ),
    /// A job is to be stopped.
    Cancel(JobId, oneshot::Sender<Result<JobView, Refusal>>),
    /// An agent's session is to end, and its machine to be switched off; whether it has one.
    Dismiss(AgentId, oneshot::Sender<bool>),
    /// How a job stands.
    Show(JobId, oneshot::Sender<Option<JobView>>),
    /// What has changed since that version.
    Changes(u64, oneshot::Sender<Changes>),
    /// End all sessions, and then the thread.
    Stop,
}

/// A session that begins.
#[derive(Debug)]
pub struct Opening {
    /// Which.
    pub session: SessionId,
    /// Whose.
    pub agent: AgentId,
    /// The agent's state.
    pub state: StateId,
    /// The jobs that it says it has.
    pub held: BTreeSet<JobId>,
    /// What it says of itself.
    pub facts: AgentFacts,
    /// The way to the session.
    pub outgoing: mpsc::Sender<Outgoing>,
}

/// What a session is told to send.
#[derive(Debug)]
pub enum Outgoing {
    /// Everything up to this number is durable.
    Ack(u64),
    /// A job.
    Start(Box<v1::StartJob>),
    /// A job to stop.
    Cancel(v1::CancelJob),
    /// The end.
    Goodbye(v1::goodbye::Reason),
}

/// The thread is gone: the server ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the Connector is stopping")]
pub struct Stopped;

impl Hub {
    /// Starts the thread over what `store` holds.
    ///
    /// # Errors
    ///
    /// The system has no thread to give.
    pub fn start(
        store: Store,
        jobs: Vec<Job>,
        wallet: Wallet,
        limits: Limits,
    ) -> std::io::Result<(Self, oneshot::Receiver<Result<(), StoreError>>)> {
        let (inputs, waiting) = mpsc::channel(WAITING);
        let store = Arc::new(store);
        let keeper = Keeper {
            machine: Machine::restore(limits, jobs, UnixMillis::now()),
            store: store.clone(),
            wallet,
            sessions: HashMap::new(),
            agents: BTreeMap::new(),
            requests: HashMap::new(),
            version: 1,
            changed: BTreeMap::new(),
            progressed: BTreeSet::new(),
            turn: Turn::default(),
        };
        let (ended, end) = oneshot::channel();
        std::thread::Builder::new()
            .name("ce-hub".into())
            .spawn(move || {
                let outcome = keeper.run(waiting);
                if let Err(error) = &outcome {
                    error!(%error, "the jobs can't be kept; stopping");
                }
                // Nobody waits any more if the whole server is gone.
                let _ = ended.send(outcome);
            })?;
        Ok((Self { inputs, store }, end))
    }

    /// Tells the thread something. Waits while too much waits already.
    ///
    /// # Errors
    ///
    /// The thread is gone.
    pub async fn tell(&self, input: Input) -> Result<(), Stopped> {
        self.inputs.send(input).await.map_err(|_| Stopped)
    }

    /// Asks the thread something.
    ///
    /// # Errors
    ///
    /// The thread is gone.
    pub async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Input,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.tell(question(reply)).await?;
        answer.await.map_err(|_| Stopped)
    }

    /// What is durable; to be read on a thread that may block.
    pub fn store(&self) -> Arc<Store> {
        self.store.clone()
    }
}

/// All that the thread owns.
struct Keeper {
    machine: Machine,
    store: Arc<Store>,
    wallet: Wallet,
    sessions: HashMap<SessionId, mpsc::Sender<Outgoing>>,
    agents: BTreeMap<AgentId, AgentView>,
    /// The requests of jobs that were submitted in this turn and are not in the store yet.
    requests: HashMap<JobId, Map<String, Value>>,
    version: u64,
    /// In which version a job was last changed.
    changed: BTreeMap<JobId, u64>,
    /// Jobs whose progress is not in the store.
    progressed: BTreeSet<JobId>,
    turn: Turn,
}

/// What one turn is to make durable, and then to do.
#[derive(Default)]
struct Turn {
    batch: Batch,
    acks: BTreeMap<SessionId, u64>,
    sends: Vec<(SessionId, Send)>,
    replies: Vec<Reply>,
}

enum Send {
    Start(JobId, u32),
    Cancel(JobId),
}

/// Answers wait for the commit as well: who hears that a job has ended finds its result.
enum Reply {
    Submitted(
        oneshot::Sender<Result<JobId, Refusal>>,
        Result<JobId, Refusal>,
    ),
    Cancelled(
        oneshot::Sender<Result<JobView, Refusal>>,
        Result<JobView, Refusal>,
    ),
    Shown(oneshot::Sender<Option<JobView>>, Option<JobView>),
    Changed(oneshot::Sender<Changes>, Changes),
}

impl Keeper {
    fn run(mut self, mut waiting: mpsc::Receiver<Input>) -> Result<(), StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let Ok(runtime) = runtime else {
            warn!("the system gives no timer to the thread of the jobs");
            return Ok(());
        };
        let mut next_tick = Instant::now();
        let mut inputs = Vec::with_capacity(TOGETHER);
        loop {
            let until = next_tick.saturating_duration_since(Instant::now());
            let taken = runtime.block_on(async {
                tokio::time::timeout(until, waiting.recv_many(&mut inputs, TOGETHER)).await
            });
            if taken == Ok(0) {
                // Nobody is left who could tell anything.
                return Ok(());
            }
            let now = UnixMillis::now();
            self.version += 1;
            let mut stop = false;
            for input in inputs.drain(..) {
                stop |= matches!(input, Input::Stop);
                self.take(input, now);
            }
            if next_tick <= Instant::now() {
                next_tick = Instant::now() + TICK;
                self.happen(Event::Tick, now);
                for id in std::mem::take(&mut self.progressed) {
                    if let Some(job) = self.machine.job(&id) {
                        self.turn.batch.jobs.insert(id, job.clone());
                    }
                }
            }
            self.finish_turn(now)?;
            if stop {
                for session in std::mem::take(&mut self.sessions).into_values() {
                    // A session that does not listen ends by its own means.
                    let _ = session.try_send(Outgoing::Goodbye(v1::goodbye::Reason::Stopping));
                }
                return Ok(());
            }
        }
    }

    fn take(&mut self, input: Input, now: UnixMillis) {
        match input {
            Input::Open(opening) => self.open(*opening, now),
            Input::Close(agent, session) => {
                if self.sessions.remove(&session).is_some() {
                    self.happen(Event::Disconnected(agent.clone(), session), now);
                    let version = self.version;
                    if let Some(view) = self.agents.get_mut(&agent)
                        && view.session == session
                    {
                        view.connected = false;
                        view.version = version;
                    }
                }
            }
            Input::Said {
                session,
                sequence,
                agent,
                job,
                attempt,
                word,
            } => {
                if !self.sessions.contains_key(&session) {
                    // The agent has another session by now, and says it again there. What was sent
                    // to it since must not be taken for answered by this.
                    return;
                }
                let event = Event::Said {
                    agent,
                    job,
                    attempt,
                    word,
                };
                self.happen(event, now);
                self.turn.acks.insert(session, sequence);
            }
            Input::Progress(agent, job, progress) => {
                if self.machine.progress(&agent, &job, progress) {
                    self.changed.insert(job.clone(), self.version);
                    self.progressed.insert(job);
                }
            }
            Input::Logs(agent, job, lines) => {
                let topic = match job {
                    // Of a job that is not the agent's, it can tell nothing.
                    Some(job)
                        if self.machine.job(&job).and_then(|job| job.agent()) == Some(&agent) =>
                    {
                        Topic::Job(job)
                    }
                    _ => Topic::Agent(agent),
                };
                self.turn.batch.logs.entry(topic).or_default().extend(lines);
            }
            Input::Heartbeat(agent, session, memory_available_bytes) => {
                if let Some(view) = self.agents.get_mut(&agent)
                    && view.session == session
                {
                    view.last_seen = now;
                    view.memory_available_bytes = memory_available_bytes;
                    view.version = self.version;
                }
                self.turn.acks.entry(session).or_insert(0);
            }
            Input::Submit(request, target, reply) => {
                let result = self.submit(*request, target, now);
                self.turn.replies.push(Reply::Submitted(reply, result));
            }
            Input::Cancel(job, reply) => {
                let result = self.try_happen(Event::Cancel(job.clone()), now);
                let result = result.and_then(|()| self.view(&job).ok_or(Refusal::Unknown(job)));
                self.turn.replies.push(Reply::Cancelled(reply, result));
            }
            Input::Dismiss(agent, reply) => {
                let session = self.agents.get(&agent).map(|view| view.session);
                let session = session.and_then(|session| self.sessions.get(&session));
                let goodbye = Outgoing::Goodbye(v1::goodbye::Reason::Dismissed);
                let is_told = session.is_some_and(|session| session.try_send(goodbye).is_ok());
                // Who has asked and went away does not want to know.
                let _ = reply.send(is_told);
            }
            Input::Show(job, reply) => {
                let view = self.view(&job);
                self.turn.replies.push(Reply::Shown(reply, view));
            }
            Input::Changes(since, reply) => {
                let changes = self.changes(since);
                self.turn.replies.push(Reply::Changed(reply, changes));
            }
            Input::Stop => {}
        }
    }

    fn open(&mut self, opening: Opening, now: UnixMillis) {
        let Opening {
            session,
            agent,
            state,
            held,
            facts,
            outgoing,
        } = opening;
        if let Some(older) = self.agents.get(&agent)
            && let Some(replaced) = self.sessions.remove(&older.session)
        {
            // One that does not listen ends all the same, because nothing can be sent to it now.
            let _ = replaced.try_send(Outgoing::Goodbye(v1::goodbye::Reason::Replaced));
        }
        self.sessions.insert(session, outgoing);
        let view = AgentView::new(agent.clone(), session, facts, now, self.version);
        self.agents.insert(agent.clone(), view);
        let known = |job: &JobId| self.machine.job(job).is_some();
        for job in held.iter().filter(|job| !known(job)) {
            warn!(%agent, %job, "the agent has a job that is not known here");
        }
        let event = Event::Connected {
            agent,
            session,
            state,
            held,
        };
        self.happen(event, now);
    }

    fn submit(
        &mut self,
        request: Request,
        target: Option<AgentId>,
        now: UnixMillis,
    ) -> Result<JobId, Refusal> {
        let Ok(id) = uuid::Uuid::new_v4().to_string().parse::<JobId>() else {
            unreachable!("a UUID is 36 letters, digits and hyphens");
        };
        self.requests.insert(id.clone(), request.parameters);
        let event = Event::Submit {
            job: id.clone(),
            operation: request.operation,
            target,
        };
        match self.try_happen(event, now) {
            Ok(()) => Ok(id),
            Err(refusal) => {
                self.requests.remove(&id);
                Err(refusal)
            }
        }
    }

    /// For events that can't be refused.
    fn happen(&mut self, event: Event, now: UnixMillis) {
        if let Err(refusal) = self.try_happen(event, now) {
            error!(%refusal, "an event was refused that never is");
        }
    }

    fn try_happen(&mut self, event: Event, now: UnixMillis) -> Result<(), Refusal> {
        for action in self.machine.on(event, now)? {
            let turn = &mut self.turn;
            match action {
                Action::Save(id) => self.save(id),
                Action::SaveResult(id, result) => {
                    info!(job = %id, code = result.error.as_ref().map(|error| &*error.code), "ended");
                    turn.batch.results.push((id.clone(), result));
                    self.save(id);
                }
                Action::Remove(id) => {
                    turn.batch.jobs.remove(&id);
                    self.changed.remove(&id);
                    self.progressed.remove(&id);
                    turn.batch.removed.push(id);
                }
                Action::Start(session, id, attempt) => {
                    turn.sends.push((session, Send::Start(id, attempt)));
                }
                Action::Cancel(session, id) => turn.sends.push((session, Send::Cancel(id))),
                // `open` has ended it, before this session's first word.
                Action::Replaced(session) => debug_assert!(!self.sessions.contains_key(&session)),
                Action::Note(what) => warn!("{what}"),
            }
        }
        Ok(())
    }

    fn save(&mut self, id: JobId) {
        if let Some(job) = self.machine.job(&id) {
            self.progressed.remove(&id);
            self.changed.insert(id.clone(), self.version);
            self.turn.batch.jobs.insert(id, job.clone());
        }
    }

    /// Makes durable what this turn has changed, and only then lets others know.
    ///
    /// A job that can't be sent changes something again; so this goes round until nothing is left.
    fn finish_turn(&mut self, now: UnixMillis) -> Result<(), StoreError> {
        loop {
            for (id, request) in self.requests.drain() {
                self.turn.batch.requests.push((id, request));
            }
            let turn = std::mem::take(&mut self.turn);
            self.store.commit(&turn.batch)?;
            for reply in turn.replies {
                // Who asks and goes away need not be answered.
                match reply {
                    Reply::Submitted(reply, result) => drop(reply.send(result)),
                    Reply::Cancelled(reply, result) => drop(reply.send(result)),
                    Reply::Shown(reply, view) => drop(reply.send(view)),
                    Reply::Changed(reply, changes) => drop(reply.send(changes)),
                }
            }
            for (session, what) in turn.sends {
                match what {
                    Send::Start(id, attempt) => match self.start_job(&id, attempt)? {
                        Ok(Some(start)) => self.send(session, Outgoing::Start(Box::new(start))),
                        Ok(None) => {}
                        Err(result) => self.happen(Event::Unsendable(id, result), now),
                    },
                    Send::Cancel(id) => {
                        let cancel = v1::CancelJob {
                            job_id: id.into(),
                            reason: "asked for by its owner".into(),
                        };
                        self.send(session, Outgoing::Cancel(cancel));
                    }
                }
            }
            // Behind the jobs: an agent that has declined one hears of the acknowledgement after all
            // that was sent before.
            for (session, sequence) in turn.acks {
                self.send(session, Outgoing::Ack(sequence));
            }
            if self.turn.batch.is_empty() {
                return Ok(());
            }
        }
    }

    /// The message that gives a job to an agent; the result that it fails with if there is none.
    ///
    /// Nothing if the agent has declined in the same turn in which it was sent the job anew.
    fn start_job(
        &self,
        id: &JobId,
        attempt: u32,
    ) -> Result<Result<Option<v1::StartJob>, JobResult>, StoreError> {
        let is_current = |job: &&Job| job.attempt == attempt && matches!(job.phase, Phase::Sent(_));
        let Some(job) = self.machine.job(id).filter(is_current) else {
            return Ok(Ok(None));
        };
        let Some(fields) = self.store.request(id)? else {
            return Ok(Err(JobResult::failure(
                "Internal",
                "the request is lost",
                "",
            )));
        };
        let request = match Request::from_fields(fields, None) {
            Ok(request) => request,
            Err(error) => {
                return Ok(Err(JobResult {
                    error: Some(error),
                    ..JobResult::default()
                }));
            }
        };
        let credentials = match &request.credential_id {
            None => None,
            Some(name) => match self.wallet.credentials(name) {
                Ok(credentials) => Some(credentials),
                Err(error) => {
                    let mut message = format!("outputStorageLocation.credentialId: {error}");
                    if let Some(source) = std::error::Error::source(&error) {
                        message.push_str(&format!(": {source}"));
                    }
                    let hint = "put the credentials into the Connector's wallet";
                    return Ok(Err(JobResult::failure("InvalidRequest", message, hint)));
                }
            },
        };
        Ok(Ok(Some(v1::StartJob {
            job_id: id.to_string(),
            required_revision: request.message.required_revision(),
            request: Some(request.message),
            attempt: job.attempt,
            credentials,
        })))
    }

    /// A session that is so slow that its queue is full is ended; its agent comes back for the rest.
    fn send(&mut self, session: SessionId, what: Outgoing) {
        let Some(outgoing) = self.sessions.get(&session) else {
            return;
        };
        if outgoing.try_send(what).is_err() {
            self.sessions.remove(&session);
            if let Some(view) = self
                .agents
                .values_mut()
                .find(|view| view.session == session)
            {
                view.connected = false;
                view.version = self.version;
                let agent = view.id.clone();
                // Nothing follows from it but that the agent is away.
                self.happen(Event::Disconnected(agent, session), UnixMillis::now());
            }
        }
    }

    fn view(&self, id: &JobId) -> Option<JobView> {
        self.machine.job(id).map(JobView::of)
    }

    fn changes(&self, since: u64) -> Changes {
        let is_new = |id: &JobId| self.changed.get(id).is_some_and(|version| *version > since);
        let jobs = self.machine.jobs();
        let mut agents: Vec<AgentView> = self.agents.values().cloned().collect();
        agents.retain(|agent| agent.version > since);
        for agent in &mut agents {
            agent.jobs = self.machine.held_by(&agent.id).cloned().collect();
        }
        Changes {
            version: self.version,
            jobs: jobs
                .filter(|job| since == 0 || is_new(&job.id))
                .map(JobView::of)
                .collect(),
            agents,
        }
    }
}

/// How much may wait before those who tell have to wait.
const WAITING: usize = 4096;
/// How much is taken together at most.
const TOGETHER: usize = 1024;
const TICK: Duration = Duration::from_secs(2);
