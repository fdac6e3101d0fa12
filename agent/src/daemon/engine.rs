//! The loop of the daemon: everything that happens is an event here, and every state machine's
//! actions are carried out here, in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ce_proto::v1;
use tokio::sync::mpsc;
use tokio_rustls::rustls::RootCertStore;
use tracing::{debug, error, info, warn};

use super::with_sources;
use crate::bootstrap::UsedToken;
use crate::config::Config;
use crate::job::journal::{Journal, JournalError};
use crate::job::machine::{JobEvent, JobTable};
use crate::job::{ErrorCode, Job, JobError, JobSpec, Watch};
use crate::recover::Unfinished;
use crate::resident;
use crate::service::{self, StopSignals};
use crate::session::identity::{Credential, Identity};
use crate::session::machine::{Exit, Failure, Session, SessionAction, SessionEvent};
use crate::session::outbox::Outbox;
use crate::session::transport::{Dial, Link, LinkError, LinkEvent};
use crate::telemetry::LogBuffer;

mod jobs;
mod messages;
mod speech;

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

/// Runs the daemon until it is to end, and says how. `used_token` is wiped as soon as there is a session
/// without it; `unfinished` are commits of an earlier life that could not be finished.
pub(super) async fn run(
    mut config: Config,
    used_token: Option<UsedToken>,
    logs: Arc<LogBuffer>,
    unfinished: Vec<Unfinished>,
) -> Result<Exit, EngineError> {
    let journal = Arc::new(Journal::open(&config.state)?);
    let records = journal.records()?;
    journal.tidy(&records)?;
    let (jobs, left) = JobTable::restore(records);
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
        used_token,
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
        unfinished,
        ended,
        exit: None,
        renewal_due: Instant::now(),
        memory_due: Some(Instant::now() + QUIET),
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
    /// The token in the channel of the platform, until it is wiped there.
    used_token: Option<UsedToken>,
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
    /// Commits that are begun, and will not be finished before someone looks after them.
    unfinished: Vec<Unfinished>,
    ended: mpsc::UnboundedSender<Job>,
    exit: Option<Exit>,
    /// When it is to be looked whether the certificate needs to be renewed.
    renewal_due: Instant,
    /// When memory that is not needed any more is to be given back, if there may be any.
    memory_due: Option<Instant>,
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

impl Worker {
    /// `export 3f0c0d5e: 42 %`
    fn told(&self) -> String {
        let (operation, id) = (self.spec.work.operation(), &self.spec.id);
        match self.watch.awaited_disk(&self.spec) {
            Some(disk) => format!("{operation} {id}: waiting for the disk {disk}"),
            None => format!("{operation} {id}: {} %", self.percent),
        }
    }
}

impl Engine {
    async fn on_time(&mut self) -> Result<(), EngineError> {
        let now = Instant::now();
        let actions = self.jobs.on(JobEvent::Tick, now);
        self.act_on_jobs(actions, None).await?;
        self.note_progress().await?;
        self.renew_certificate(now).await?;
        self.give_memory_back(now);
        self.on_session(SessionEvent::Tick).await
    }

    /// Once after each start and each job, when it has been quiet for a while.
    fn give_memory_back(&mut self, now: Instant) {
        if self.worker.is_none() && self.memory_due.is_some_and(|due| due <= now) {
            self.memory_due = None;
            if let Err(error) = resident::give_back() {
                debug!("no memory is given back: {error}");
            }
        }
    }

    /// A session may last longer than the certificate that it was opened with: it is left in time
    /// for a greeting with a request for the next one.
    async fn renew_certificate(&mut self, now: Instant) -> Result<(), EngineError> {
        if !self.session.is_established() || now < self.renewal_due {
            return Ok(());
        }
        self.renewal_due = now + RENEWAL_INTERVAL;
        match self.identity.certificate_request() {
            Ok(None) => Ok(()),
            Ok(Some(_)) => self.on_session(SessionEvent::Renew).await,
            Err(error) => {
                warn!("whether the certificate is to be renewed is not known: {error}");
                Ok(())
            }
        }
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

    fn begin(&mut self) {
        self.last_failure = None;
        self.renewal_due = Instant::now() + RENEWAL_INTERVAL;
        self.outbox.begin_session();
        let connector = self.connector();
        let name = self.greeted.clone().unwrap_or_default();
        if self.enrolling {
            // It gives the certificate and hangs up: the session for jobs is the next one.
            info!(connector, agent = name, "the token is taken");
            return;
        }
        info!(connector, agent = name, "the session stands");
        service::status(&format!("in session with {connector} as {name}"));
        self.wipe_token();
    }

    /// A certificate has been shown in its place and was good: nobody needs the token any more.
    fn wipe_token(&mut self) {
        if let Some(token) = self.used_token.take() {
            // The channel may take its time. Its end is not waited for: a token that stays is of no use.
            tokio::task::spawn_blocking(move || match token.wipe() {
                Ok(()) => info!("the token was used, and is wiped from where it was found"),
                Err(error) => warn!(
                    "the token was used, and can't be wiped from where it was found: {}",
                    with_sources(&error)
                ),
            });
        }
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
}

/// How often the loop turns if nothing happens.
const PULSE: Duration = Duration::from_secs(1);

/// Whoever is about to be busy again is so by then.
const QUIET: Duration = Duration::from_secs(3);

/// Certificates are good for days.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(3600);

const SAME_FAILURE_INTERVAL: Duration = Duration::from_secs(60);
