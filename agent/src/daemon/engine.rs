//! The loop of the daemon: everything that happens is an event here, and every state machine's
//! actions are carried out here, in order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ce_disk::sink::smb::SmbCredentials;
use ce_proto::v1::agent_message::Body;
use ce_proto::v1::connector_message::Body as Said;
use ce_proto::{PROTOCOL_REVISION, is_valid_id, v1};
use tokio::sync::mpsc;
use tokio_rustls::rustls::RootCertStore;
use tracing::{debug, error, info, warn};

use super::offer;
use crate::config::Config;
use crate::host;
use crate::job::journal::{Journal, JournalError};
use crate::job::machine::{
    JobAction, JobEvent, JobTable, Letter, Offer, RecordState, Refusal, RefusalReason,
};
use crate::job::{ErrorCode, Job, JobError, JobSpec, Watch, driver, wire};
use crate::service::{self, StopSignals};
use crate::session::identity::{Credential, Identity};
use crate::session::machine::{Exit, Failure, Parting, Session, SessionAction, SessionEvent};
use crate::session::outbox::{Outbox, Outgoing};
use crate::session::transport::{Dial, Link, LinkError, LinkEvent};
use crate::telemetry::{LogBuffer, unix_ms};

/// Why the daemon can't go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum EngineError {
    /// Nothing can be kept, so nothing may be promised.
    #[error("the state folder can't be used: {}", told(.0))]
    Journal(#[from] JournalError),
    /// There are no signals.
    #[error("signals can't be listened for")]
    Signals(#[source] std::io::Error),
}

fn told(error: &JournalError) -> String {
    JobError::from_chain(ErrorCode::Internal, error).message
}

/// Runs the daemon until it is to end, and says how.
pub(super) async fn run(mut config: Config, logs: Arc<LogBuffer>) -> Result<Exit, EngineError> {
    let journal = Arc::new(Journal::open(&config.state)?);
    let (jobs, left) = JobTable::restore(journal.records()?);
    let mut stop = StopSignals::new().map_err(EngineError::Signals)?;
    let (ended, mut endings) = mpsc::unbounded_channel();
    let identity = Identity::new(
        config.client_certificate.clone(),
        config.token.take(),
        &config.state,
    );
    let authority = Arc::new(std::mem::replace(
        &mut config.authority,
        RootCertStore::empty(),
    ));
    let mut engine = Engine {
        session: Session::new(
            config.connectors.len(),
            fastrand::Rng::new(),
            Instant::now(),
        ),
        config,
        journal,
        identity,
        authority,
        logs,
        jobs,
        outbox: Outbox::default(),
        link: None,
        enrolling: false,
        address: 0,
        greeted: None,
        checked: None,
        worker: None,
        ended,
        exit: None,
        last_failure: None,
    };
    info!(
        version = env!("CARGO_PKG_VERSION"),
        state = %engine.config.state.display(),
        connectors = engine.config.connectors.len(),
        "the daemon starts"
    );
    engine.act_on_jobs(left, None).await?;
    service::ready();
    let mut last_alive = Instant::now();
    let watchdog = service::watchdog_interval();
    let mut stop_asked = false;
    loop {
        if let Some(exit) = engine.exit {
            info!("the daemon ends");
            return Ok(exit);
        }
        if watchdog.is_some_and(|interval| last_alive.elapsed() >= interval.min(PULSE)) {
            service::alive();
            last_alive = Instant::now();
        }
        let now = Instant::now();
        let due = [engine.session.wake_at(), engine.jobs.wake_at()];
        let next = due.into_iter().flatten().min();
        let next = next.map_or(now + PULSE, |next| next.min(now + PULSE));
        let is_waiting = engine.outbox.has_waiting() && engine.may_send();
        let sender = engine.link.as_ref().map(|link| link.outbound.clone());
        tokio::select! {
            event = next_event(&mut engine.link) => engine.on_link(event).await?,
            Some(job) = endings.recv() => engine.on_ended(job).await?,
            () = stop.next(), if !stop_asked => {
                stop_asked = true;
                info!("asked to stop");
                service::stopping();
                engine.on_session(SessionEvent::Stop).await?;
            }
            () = has_room(sender), if is_waiting => {}
            () = tokio::time::sleep_until(next.into()) => engine.on_time().await?,
        }
        engine.send();
    }
}

/// The next event of the link; never, without one.
async fn next_event(link: &mut Option<Link>) -> LinkEvent {
    match link {
        Some(link) => link.events.recv().await.unwrap_or_else(|| {
            LinkEvent::Closed(LinkError {
                is_refused: false,
                message: "the link's task ended".into(),
            })
        }),
        None => std::future::pending().await,
    }
}

/// Ready when a message can be queued; never, without a link.
async fn has_room(sender: Option<mpsc::Sender<v1::AgentMessage>>) {
    if let Some(sender) = sender
        && sender.reserve().await.is_ok()
    {
        return;
    }
    // A link that is closed shows that by its events.
    std::future::pending().await
}

struct Engine {
    config: Config,
    journal: Arc<Journal>,
    identity: Identity,
    authority: Arc<RootCertStore>,
    logs: Arc<LogBuffer>,
    session: Session,
    jobs: JobTable,
    outbox: Outbox,
    link: Option<Link>,
    /// Whether the link is there to exchange a token for a certificate and for nothing else.
    enrolling: bool,
    /// The Connector of the link.
    address: usize,
    /// The name that the Connector knows the agent by.
    greeted: Option<String>,
    /// The job that has just been checked and is about to begin.
    checked: Option<JobSpec>,
    worker: Option<Worker>,
    ended: mpsc::UnboundedSender<Job>,
    exit: Option<Exit>,
    /// The last failure that was logged, and when.
    last_failure: Option<(String, Instant)>,
}

/// The job that runs, as the loop sees it.
struct Worker {
    spec: Arc<JobSpec>,
    watch: Arc<Watch>,
    /// Whether it had been begun by an earlier life of the daemon.
    is_resumed: bool,
    told_at: Instant,
    percent: u8,
}

impl Engine {
    async fn on_time(&mut self) -> Result<(), EngineError> {
        let now = Instant::now();
        let actions = self.jobs.on(JobEvent::Tick, now);
        self.act_on_jobs(actions, None).await?;
        self.note_progress().await?;
        self.on_session(SessionEvent::Tick).await
    }

    async fn note_progress(&mut self) -> Result<(), EngineError> {
        let Some(worker) = &mut self.worker else {
            return Ok(());
        };
        if worker.told_at.elapsed() < PROGRESS_INTERVAL {
            return Ok(());
        }
        worker.told_at = Instant::now();
        let percent = worker.watch.overall_percent(&worker.spec.work).min(99);
        worker.percent = worker.percent.max(percent);
        let event = JobEvent::Progressed(worker.percent);
        self.outbox.note_progress();
        let actions = self.jobs.on(event, Instant::now());
        self.act_on_jobs(actions, None).await
    }

    async fn on_ended(&mut self, mut job: Job) -> Result<(), EngineError> {
        let worker = self.worker.take();
        if worker.is_some_and(|worker| worker.is_resumed)
            && let Some(error) = &mut job.error
            && error.code == ErrorCode::OutputExists
        {
            let message = format!(
                "the agent was restarted while the job ran, perhaps when it was about to be \
                 complete: {}",
                error.message
            );
            *error = JobError::new(ErrorCode::Interrupted, message)
                .with_hint("check the image, or send the job again under another name");
        }
        let event = JobEvent::Ended(Box::new(job), unix_ms());
        let actions = self.jobs.on(event, Instant::now());
        self.act_on_jobs(actions, None).await?;
        self.logs.set_job("");
        self.tell_if_idle().await
    }

    /// While the agent is stopping, the end of its job is the signal to leave.
    async fn tell_if_idle(&mut self) -> Result<(), EngineError> {
        if !self.session.is_draining() || self.jobs.running().is_some() {
            return Ok(());
        }
        let delivered = SessionEvent::Delivered(self.outbox.is_delivered());
        Box::pin(self.on_session(delivered)).await?;
        Box::pin(self.on_session(SessionEvent::JobStopped)).await
    }

    async fn on_session(&mut self, event: SessionEvent) -> Result<(), EngineError> {
        let actions = self.session.on(event, Instant::now());
        for action in actions {
            match action {
                SessionAction::Connect(address) => self.connect(address).await?,
                SessionAction::Greet => self.greet(),
                SessionAction::Begin => self.begin(),
                SessionAction::Heartbeat => self.outbox.note_heartbeat(),
                SessionAction::Acknowledge(sequence) => self.outbox.acknowledge(sequence),
                SessionAction::Close(why) => {
                    info!("closing the link: {why}");
                    self.link = None;
                    self.greeted = None;
                }
                SessionAction::StopJobs => {
                    let actions = self.jobs.on(JobEvent::Drain, Instant::now());
                    self.act_on_jobs(actions, None).await?;
                    self.tell_if_idle().await?;
                }
                SessionAction::Exit(exit) => self.exit = Some(exit),
            }
        }
        Ok(())
    }

    async fn connect(&mut self, address: usize) -> Result<(), EngineError> {
        self.address = address;
        let Some(target) = self.config.connectors.get(address).cloned() else {
            return Ok(());
        };
        debug!(connector = %target, "connecting");
        let credential = match self.identity.credential() {
            Ok(credential) => credential,
            Err(error) => {
                let message = JobError::from_chain(ErrorCode::ConnectorRejected, &error).message;
                let error = LinkError {
                    is_refused: true,
                    message,
                };
                return Box::pin(self.on_link(LinkEvent::Closed(error))).await;
            }
        };
        self.enrolling = matches!(credential, Credential::Token(_));
        self.link = Some(Link::open(Dial {
            address: target,
            proxy: self.config.proxy.clone(),
            authority: Arc::clone(&self.authority),
            credential,
        }));
        Ok(())
    }

    /// Says Hello. The link is new, so there is room.
    fn greet(&mut self) {
        let certificate_request = self.identity.certificate_request().unwrap_or_else(|error| {
            error!("no certificate can be asked for: {error}");
            None
        });
        let held = self.jobs.held();
        let held_jobs = held.into_iter().rev().take(MOST_HELD).map(|(id, ended)| {
            let state = match ended {
                true => v1::held_job::State::Finished,
                false => v1::held_job::State::Running,
            };
            v1::HeldJob {
                job_id: id.to_owned(),
                state: state.into(),
            }
        });
        let hello = v1::Hello {
            protocol_revision: PROTOCOL_REVISION,
            minimum_revision: PROTOCOL_REVISION,
            agent_id: self.config.agent_id.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            state_id: self.journal.state_id().to_owned(),
            platform: host::platform().into(),
            disks: host::disks(),
            host: Some(host::facts()),
            held_jobs: held_jobs.collect(),
            certificate_request: certificate_request.unwrap_or_default(),
        };
        self.transmit(0, Body::Hello(hello));
    }

    fn begin(&mut self) {
        self.last_failure = None;
        self.outbox.begin_session();
        let connector = self.connector();
        let name = self.greeted.clone().unwrap_or_default();
        info!(connector, agent = name, "the session stands");
        service::status(&format!("in session with {connector} as {name}"));
    }

    fn connector(&self) -> String {
        let address = self.config.connectors.get(self.address);
        address.map(ToString::to_string).unwrap_or_default()
    }

    async fn on_link(&mut self, event: LinkEvent) -> Result<(), EngineError> {
        match event {
            LinkEvent::Opened => self.on_session(SessionEvent::Opened).await,
            LinkEvent::Closed(error) => {
                self.link = None;
                self.greeted = None;
                self.log_failure(&error);
                let failure = match error.is_refused {
                    true => Failure::Refused,
                    false => Failure::Unreachable,
                };
                self.on_session(SessionEvent::Failed(failure)).await
            }
            LinkEvent::Message(message) => match self.on_message(*message).await? {
                Ok(()) => Ok(()),
                Err(violation) => {
                    let message = format!("the Connector broke the protocol: {violation}");
                    let error = LinkError {
                        is_refused: true,
                        message,
                    };
                    Box::pin(self.on_link(LinkEvent::Closed(error))).await
                }
            },
        }
    }

    /// A failure that repeats is logged once a minute.
    fn log_failure(&mut self, error: &LinkError) {
        let text = error.to_string();
        if let Some((last, at)) = &self.last_failure
            && *last == text
            && at.elapsed() < SAME_FAILURE_INTERVAL
        {
            return;
        }
        let connector = self.connector();
        match error.is_refused {
            true => error!(connector, code = "ConnectorRejected", "{text}"),
            false => warn!(connector, "no session: {text}"),
        }
        service::status(&format!("no session with {connector}: {text}"));
        self.last_failure = Some((text, Instant::now()));
    }

    /// Deals with a message. The inner error is a violation of the protocol.
    async fn on_message(
        &mut self,
        message: v1::ConnectorMessage,
    ) -> Result<Result<(), String>, EngineError> {
        let v1::ConnectorMessage { sequence, body } = message;
        let Some(body) = body else {
            let what = "a message of a kind that this agent does not know";
            return Ok(Err(what.into()));
        };
        let is_counted = matches!(body, Said::StartJob(_) | Said::CancelJob(_));
        if is_counted == (sequence == 0) {
            return Ok(Err(format!("a message with the wrong number {sequence}")));
        }
        if self.enrolling && is_counted {
            return Ok(Err("a job in a session with a token".into()));
        }
        let body = match body {
            Said::Welcome(welcome) => return self.on_welcome(welcome).await,
            body => body,
        };
        let now = Instant::now();
        let actions = self.session.on(SessionEvent::Received { sequence }, now);
        let mut acknowledge = None;
        for action in actions {
            match action {
                SessionAction::Acknowledge(sequence) => acknowledge = Some(sequence),
                SessionAction::Close(why) => {
                    // The machine knows already that the link is of no use.
                    let error = LinkError {
                        is_refused: true,
                        message: format!("the Connector broke the protocol: {why}"),
                    };
                    self.link = None;
                    self.greeted = None;
                    self.log_failure(&error);
                    return Ok(Ok(()));
                }
                other => debug!("unexpected: {other:?}"),
            }
        }
        match body {
            Said::Welcome(_) => {}
            Said::StartJob(start) => {
                if !is_valid_id(&start.job_id) {
                    return Ok(Err("a job with a name that is none".into()));
                }
                self.on_start(start).await?;
            }
            Said::CancelJob(cancel) => {
                if !is_valid_id(&cancel.job_id) {
                    return Ok(Err("a cancel for a name that is none".into()));
                }
                let reason = wire::clip(&cancel.reason, 255).escape_debug().to_string();
                info!(
                    job = wire::clip(&cancel.job_id, 64),
                    reason, "cancel is asked for"
                );
                let event = JobEvent::CancelAsked(cancel.job_id, reason);
                let actions = self.jobs.on(event, now);
                self.act_on_jobs(actions, None).await?;
            }
            Said::Ack(ack) => match self.outbox.delivered(ack.sequence) {
                Ok(letters) => self.on_delivered(letters).await?,
                Err(never) => return Ok(Err(never.to_string())),
            },
            Said::Goodbye(goodbye) => return self.on_goodbye(goodbye).await,
        }
        if let Some(sequence) = acknowledge {
            self.outbox.acknowledge(sequence);
        }
        Ok(Ok(()))
    }

    async fn on_welcome(
        &mut self,
        welcome: v1::Welcome,
    ) -> Result<Result<(), String>, EngineError> {
        if welcome.protocol_revision < PROTOCOL_REVISION {
            return Ok(Err(format!(
                "it speaks revision {}, and this agent needs {PROTOCOL_REVISION}",
                welcome.protocol_revision
            )));
        }
        let heartbeat = welcome.heartbeat_interval_seconds;
        if !(1..=300).contains(&heartbeat) {
            return Ok(Err(format!("a heartbeat every {heartbeat} s")));
        }
        if !is_valid_id(&welcome.agent_id) {
            return Ok(Err("an agent's name that is none".into()));
        }
        let skew = welcome.server_time_unix_ms.saturating_sub(unix_ms());
        if skew.unsigned_abs() > CLOCK_SKEW_TOLD_MS {
            let seconds = skew / 1000;
            warn!("clock skew: the Connector's clock is {seconds} s ahead of this machine's");
        }
        if !welcome.certificate_chain.is_empty() {
            match self.identity.keep(&welcome.certificate_chain) {
                Ok(()) => info!(agent = welcome.agent_id, "got a client certificate"),
                Err(error) => return Ok(Err(error.to_string())),
            }
        } else if self.enrolling {
            return Ok(Err("no certificate for the token".into()));
        }
        self.greeted = Some(welcome.agent_id);
        let heartbeat = Duration::from_secs(heartbeat.into());
        self.on_session(SessionEvent::Welcomed { heartbeat })
            .await?;
        Ok(Ok(()))
    }

    async fn on_goodbye(
        &mut self,
        goodbye: v1::Goodbye,
    ) -> Result<Result<(), String>, EngineError> {
        use v1::goodbye::Reason;
        let said = wire::clip(&goodbye.message, 1024)
            .escape_debug()
            .to_string();
        info!(reason = goodbye.reason().as_str_name(), "goodbye: {said}");
        let parting = match goodbye.reason() {
            Reason::Unspecified => return Ok(Err("a goodbye without a known reason".into())),
            Reason::Stopping => {
                Parting::Stopping(Duration::from_secs(goodbye.reconnect_after_seconds.into()))
            }
            Reason::Enrolled => Parting::Enrolled,
            Reason::Replaced => Parting::Replaced,
            Reason::Dismissed => Parting::Dismissed {
                power_off: goodbye.power_off,
            },
        };
        self.on_session(SessionEvent::Goodbye(parting)).await?;
        Ok(Ok(()))
    }

    async fn on_start(&mut self, mut start: v1::StartJob) -> Result<(), EngineError> {
        match offer::read(&mut start) {
            Ok(received) => {
                let event = JobEvent::Offered(received.offer);
                let actions = self.jobs.on(event, Instant::now());
                self.act_on_jobs(actions, received.credentials).await
            }
            Err(refusal) => {
                info!(job = start.job_id, "refused: {}", refusal.error);
                self.outbox.post(Letter::Rejected {
                    id: start.job_id.clone(),
                    attempt: start.attempt,
                    refusal,
                });
                Ok(())
            }
        }
    }

    async fn on_delivered(&mut self, letters: Vec<Letter>) -> Result<(), EngineError> {
        for letter in letters {
            if let Letter::Finished(id) = letter {
                let actions = self.jobs.on(JobEvent::Acknowledged(id), Instant::now());
                self.act_on_jobs(actions, None).await?;
            }
        }
        let delivered = SessionEvent::Delivered(self.outbox.is_delivered());
        Box::pin(self.on_session(delivered)).await
    }

    /// Carries out what the table of jobs asks for, and what that leads to.
    async fn act_on_jobs(
        &mut self,
        actions: Vec<JobAction>,
        mut credentials: Option<SmbCredentials>,
    ) -> Result<(), EngineError> {
        let mut open = VecDeque::from(actions);
        while let Some(action) = open.pop_front() {
            let now = Instant::now();
            match action {
                JobAction::Save(id) => self.save(&id).await?,
                JobAction::Forget(id) => self.journal.forget(&id)?,
                JobAction::Check(offer) => {
                    let event = self.check(offer, credentials.take());
                    open.extend(self.jobs.on(event, now));
                }
                JobAction::Reconsider(id) => {
                    let result = self.reconsider(&id);
                    let event = JobEvent::Reconsidered(id, result, unix_ms());
                    open.extend(self.jobs.on(event, now));
                }
                JobAction::Begin(id) => self.start(&id),
                JobAction::Stop => {
                    if let Some(worker) = &self.worker {
                        worker.watch.cancel.request();
                    }
                }
                JobAction::Send(letter) => {
                    if let Letter::Rejected { id, refusal, .. } = &letter {
                        info!(job = id, "refused: {}", refusal.error);
                    }
                    self.outbox.post(letter);
                }
            }
        }
        Ok(())
    }

    async fn save(&self, id: &str) -> Result<(), EngineError> {
        let Some(record) = self.jobs.record(id).cloned() else {
            return Ok(());
        };
        let journal = Arc::clone(&self.journal);
        let saved = tokio::task::spawn_blocking(move || journal.save(&record)).await;
        match saved {
            Ok(saved) => Ok(saved?),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    fn check(&mut self, given: Offer, credentials: Option<SmbCredentials>) -> JobEvent {
        match offer::check(&given.id, &given.request, credentials, &self.config) {
            Ok(spec) => {
                let limit = spec.timeout.unwrap_or(DEFAULT_TIMEOUT);
                self.checked = Some(spec);
                JobEvent::Checked(given, Ok(limit))
            }
            Err(refusal) => JobEvent::Checked(given, Err(refusal)),
        }
    }

    /// Whether a job that ran when an earlier life of the daemon ended can be gone on with.
    fn reconsider(&mut self, id: &str) -> Result<Duration, Box<Job>> {
        let Some(record) = self.jobs.record(id) else {
            return Ok(DEFAULT_TIMEOUT);
        };
        let operation = record.request.get("operation");
        let operation = operation.and_then(|operation| operation.as_str());
        let operation = RESUMABLE.into_iter().find(|name| Some(*name) == operation);
        let checked = match operation {
            Some(_) => offer::check(id, &record.request, None, &self.config),
            None => Err(Refusal::new(
                RefusalReason::Invalid,
                ErrorCode::Interrupted,
                "what it had done is not known",
            )),
        };
        match checked {
            Ok(mut spec) => {
                info!(job = id, "the job was interrupted and is gone on with");
                let warning = "the agent was restarted while the job ran, and went on with it";
                spec.warnings.push(warning.into());
                let limit = spec.timeout.unwrap_or(DEFAULT_TIMEOUT);
                self.checked = Some(spec);
                Ok(limit)
            }
            Err(refusal) => {
                warn!(job = id, "the job was interrupted: {}", refusal.error);
                let message = format!(
                    "the agent was restarted while the job ran, and can't go on with it: {}",
                    refusal.error
                );
                let error = JobError::new(ErrorCode::Interrupted, message).with_hint(
                    "send it again under a new name: an export goes on from what is left of it",
                );
                let operation = operation.unwrap_or("unknown");
                Err(Box::new(Job::not_run(id.to_owned(), operation, error)))
            }
        }
    }

    fn start(&mut self, id: &str) {
        let Some(spec) = self.checked.take().filter(|spec| spec.id == id) else {
            let error = JobError::new(ErrorCode::Internal, "the job was not checked");
            // The receiver lives as long as the loop.
            let _ = self
                .ended
                .send(Job::not_run(id.to_owned(), "unknown", error));
            return;
        };
        let record = self.jobs.record(id);
        let percent = record.map_or(0, |record| record.percent);
        let operation = spec.work.operation();
        let is_resumed = self.greeted.is_none();
        let spec = Arc::new(spec);
        let watch = Arc::new(Watch::default());
        self.logs.set_job(id);
        let ended = self.ended.clone();
        let started = driver::start(Arc::clone(&spec), Arc::clone(&watch), move |job| {
            // Without a receiver the process is about to end.
            let _ = ended.send(job);
        });
        match started {
            Ok(()) => {
                self.worker = Some(Worker {
                    spec,
                    watch,
                    is_resumed,
                    told_at: Instant::now(),
                    percent,
                });
            }
            Err(error) => {
                let message = format!("the job has no thread: {error}");
                let error = JobError::new(ErrorCode::Internal, message);
                let _ = self
                    .ended
                    .send(Job::not_run(id.to_owned(), operation, error));
            }
        }
    }

    fn may_send(&self) -> bool {
        self.session.is_established() && !self.enrolling
    }

    /// Sends what waits, as far as the link takes it.
    fn send(&mut self) {
        if !self.may_send() {
            return;
        }
        while self.has_room_now() {
            let Some(outgoing) = self.outbox.next() else {
                break;
            };
            let (sequence, body) = match outgoing {
                Outgoing::Ack(sequence) => (0, Some(Body::Ack(v1::Ack { sequence }))),
                Outgoing::Heartbeat => (0, Some(self.heartbeat())),
                Outgoing::Progress => (0, self.progress()),
                Outgoing::Letter(number, letter) => (number, body_of(&self.jobs, letter)),
            };
            if let Some(body) = body {
                self.transmit(sequence, body);
            }
        }
        // What is only of interest waits for what matters.
        while !self.outbox.has_waiting() && self.has_room_now() {
            let Some(batch) = self.logs.take_batch() else {
                break;
            };
            self.transmit(0, Body::LogBatch(batch));
        }
    }

    fn has_room_now(&self) -> bool {
        let link = self.link.as_ref();
        link.is_some_and(|link| link.outbound.capacity() > 0 && !link.outbound.is_closed())
    }

    fn transmit(&self, sequence: u64, body: Body) {
        let message = v1::AgentMessage {
            sequence,
            body: Some(body),
        };
        if let Some(link) = &self.link
            && let Err(error) = link.outbound.try_send(message)
        {
            // The link is gone, and its last event is on the way; letters are sent again.
            debug!("a message was not sent: {error}");
        }
    }

    fn heartbeat(&self) -> Body {
        Body::Heartbeat(v1::Heartbeat {
            time_unix_ms: unix_ms(),
            memory_available_bytes: host::available_memory(),
            job_id: self.jobs.running().unwrap_or_default().to_owned(),
        })
    }

    fn progress(&self) -> Option<Body> {
        let worker = self.worker.as_ref()?;
        let (step, done) = worker.watch.step(worker.spec.work.operation());
        let total = worker.watch.total().unwrap_or_default();
        Some(Body::JobProgress(v1::JobProgress {
            job_id: worker.spec.id.clone(),
            step: step.to_owned(),
            bytes_done: done.0.min(total.0),
            bytes_total: total.0,
            overall_progress_percent: worker.percent.into(),
        }))
    }
}

fn body_of(jobs: &JobTable, letter: &Letter) -> Option<Body> {
    Some(match letter {
        Letter::Accepted(id) => Body::JobAccepted(v1::JobAccepted {
            job_id: id.clone(),
            attempt: jobs.record(id).map_or(0, |record| record.attempt),
        }),
        Letter::Rejected {
            id,
            attempt,
            refusal,
        } => Body::JobRejected(wire::rejected(id, *attempt, refusal)),
        Letter::Finished(id) => {
            let record = jobs.record(id)?;
            let RecordState::Finished { job, at, .. } = &record.state else {
                return None;
            };
            Body::JobFinished(wire::finished(id, record.attempt, job, *at))
        }
    })
}

/// How often the loop turns if nothing happens.
const PULSE: Duration = Duration::from_secs(1);

/// No more often than this is progress told.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(950);

const SAME_FAILURE_INTERVAL: Duration = Duration::from_secs(60);

/// Below a minute nobody needs to hear of it.
const CLOCK_SKEW_TOLD_MS: u64 = 60_000;

/// For a request that names none; requests always do.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(7200);

/// A limit of the protocol.
const MOST_HELD: usize = 64;

/// Operations that can be begun again where nothing or any part of them is done.
const RESUMABLE: [&str; 4] = ["diagnostics", "export", "inspect", "publish"];
