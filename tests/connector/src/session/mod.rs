//! Sessions with agents: one task for each.
//!
//! ```text
//!            Hello           Welcome          Goodbye, or an error status
//!   (open) --------> greeted --------> open ------------------------------> (closed)
//!                       |                ^ |
//!                       | token          | | Outgoing from the hub --> numbered --> agent
//!                       v                | v
//!                   enrolled         messages --> checked, counted --> hub
//! ```
//!
//! Here it is checked that a message may come, now and of that size, and that nobody speaks for
//! another. What it means for a job is for the [`machine`](crate::machine).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ce_proto::v1::connector_server::Connector;
use ce_proto::v1::{self, agent_message, connector_message};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::{debug, info, warn};

use crate::authority::Authority;
use crate::hub::{Hub, Input, Opening, Outgoing};
use crate::ids::{AgentId, JobId, SessionId, StateId, UnixMillis};
use crate::listener::Peer;
use crate::registry::{Registry, RegistryError};
use crate::turned_away::TurnedAway;

pub mod hello;
pub mod message;
mod pace;

pub use pace::Pace;

/// Answers agents.
#[derive(Debug)]
pub struct Sessions {
    hub: Hub,
    registry: Arc<Registry>,
    authority: Arc<Authority>,
    heartbeat: Duration,
    turned_away: Arc<TurnedAway>,
    next: AtomicU64,
}

impl Sessions {
    /// Sessions whose messages go to `hub`. Agents are to be heard of every `heartbeat`.
    pub fn new(
        hub: Hub,
        registry: Arc<Registry>,
        authority: Arc<Authority>,
        heartbeat: Duration,
        turned_away: Arc<TurnedAway>,
    ) -> Self {
        Self {
            hub,
            registry,
            authority,
            heartbeat,
            turned_away,
            next: AtomicU64::new(1),
        }
    }

    /// What stands in the metadata in place of a certificate.
    fn bearer(request: &Request<Streaming<v1::AgentMessage>>) -> Option<&str> {
        let value = request.metadata().get(ce_proto::TOKEN_METADATA_KEY)?;
        value.to_str().ok()?.strip_prefix("Bearer ")
    }

    /// Exchanges a token for a certificate; that is all a session with a token does.
    async fn enrol(
        &self,
        token: &str,
        inbound: &mut Streaming<v1::AgentMessage>,
    ) -> Result<Response<Outbound>, Status> {
        let now = UnixMillis::now();
        let owner = self.blocking({
            let token = zeroize::Zeroizing::new(token.to_owned());
            move |registry, _| registry.token_owner(&token, now)
        });
        let owner = owner.await?;
        let hello = first_message(inbound).await?;
        hello::check_name(&hello, &owner)?;
        hello::check_revision(&hello)?;
        let Some(request) = hello::certificate_request(&hello)? else {
            return Err(Status::invalid_argument(
                "hello.certificate_request: missing; a token is good for nothing else",
            ));
        };
        let exchanged = self.blocking({
            let token = zeroize::Zeroizing::new(token.to_owned());
            move |registry, authority| registry.exchange(&token, &request, authority, now)
        });
        let (agent, issued) = exchanged.await?;
        info!(%agent, "exchanged a token for a certificate");
        let chain = vec![issued.certificate.to_vec()];
        let welcome = self.welcome(&agent, chain);
        let goodbye = goodbye(v1::goodbye::Reason::Enrolled);
        let (sender, receiver) = mpsc::channel(2);
        for body in [welcome, goodbye] {
            // There is room for both, and the receiver is here.
            let _ = sender.try_send(Ok(unnumbered(body)));
        }
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    /// Lets a peer in, or says why not.
    async fn open(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
        peer: Peer,
    ) -> Result<Response<Outbound>, Status> {
        let Some(certificate) = peer.certificate else {
            let Some(token) = Self::bearer(&request) else {
                return Err(Status::unauthenticated(
                    "neither a client certificate nor a token was shown",
                ));
            };
            let token = zeroize::Zeroizing::new(token.to_owned());
            return self.enrol(&token, &mut request.into_inner()).await;
        };
        let now = UnixMillis::now();
        let owner = {
            let certificate = certificate.clone();
            self.blocking(move |registry, _| registry.agent(&certificate, now))
        };
        let Some(agent) = owner.await? else {
            return Err(Status::permission_denied(
                "this certificate is not, or no longer, registered here",
            ));
        };
        let mut inbound = request.into_inner();
        let hello = first_message(&mut inbound).await?;
        hello::check_name(&hello, &agent)?;
        hello::check_revision(&hello)?;
        let mut chain = Vec::new();
        if let Some(request) = hello::certificate_request(&hello)? {
            let agent = agent.clone();
            let renewed = self.blocking(move |registry, authority| {
                let issued = authority.agent_for(&agent, &request, now)?;
                registry.add(&agent, &issued)?;
                Ok(issued)
            });
            chain.push(renewed.await?.certificate.to_vec());
        }
        let (state, held, facts) = hello::opening(hello, peer.address)?;
        let id = SessionId(self.next.fetch_add(1, Ordering::Relaxed));
        let (to_agent, outbound) = mpsc::channel(QUEUE_TO_AGENT);
        let session = Session {
            id,
            agent,
            certificate,
            hub: self.hub.clone(),
            registry: self.registry.clone(),
            to_agent,
            received: 0,
            sent: 0,
            acked: 0,
            silence: self.heartbeat * 3,
            pace: Pace::new(MESSAGES_PER_SECOND, MESSAGES_AT_ONCE, Instant::now()),
        };
        let welcome = self.welcome(&session.agent, chain);
        tokio::spawn(session.run(welcome, inbound, state, held, facts));
        Ok(Response::new(ReceiverStream::new(outbound)))
    }

    /// Looks something up in the registry's files, or signs.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Registry, &Authority) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, Status> {
        let (registry, authority) = (self.registry.clone(), self.authority.clone());
        let done = tokio::task::spawn_blocking(move || work(&registry, &authority)).await;
        let done = done.map_err(|_| Status::internal("the registry failed"))?;
        done.map_err(|error| match error {
            RegistryError::TokenUnknown
            | RegistryError::TokenExpired
            | RegistryError::TokenUsed => Status::unauthenticated(error.to_string()),
            RegistryError::Authority(error) => {
                Status::invalid_argument(format!("hello.certificate_request: {error}"))
            }
            error => {
                warn!(%error, "the registry can't be used");
                Status::unavailable("who may connect can't be looked up now")
            }
        })
    }

    fn welcome(&self, agent: &AgentId, certificate_chain: Vec<Vec<u8>>) -> connector_message::Body {
        let now = i64::try_from(UnixMillis::now().0).unwrap_or(i64::MAX);
        connector_message::Body::Welcome(v1::Welcome {
            protocol_revision: ce_proto::PROTOCOL_REVISION,
            connector_version: env!("CARGO_PKG_VERSION").to_owned(),
            agent_id: agent.to_string(),
            heartbeat_interval_seconds: u32::try_from(self.heartbeat.as_secs()).unwrap_or(300),
            server_time_unix_ms: now,
            certificate_chain,
        })
    }
}

type Outbound = ReceiverStream<Result<v1::ConnectorMessage, Status>>;

#[tonic::async_trait]
impl Connector for Sessions {
    type SessionStream = Outbound;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Outbound>, Status> {
        let Some(peer) = request.extensions().get::<Peer>().cloned() else {
            return Err(Status::internal("the connection has no peer"));
        };
        let address = peer.address;
        let opened = self.open(request, peer).await;
        if let Err(status) = &opened {
            self.turned_away.note(address, status.message());
        }
        opened
    }
}

/// An open session.
struct Session {
    id: SessionId,
    agent: AgentId,
    certificate: tokio_rustls::rustls::pki_types::CertificateDer<'static>,
    hub: Hub,
    registry: Arc<Registry>,
    to_agent: mpsc::Sender<Result<v1::ConnectorMessage, Status>>,
    /// The number of the last message that had one.
    received: u64,
    /// The number of the last message that was given one.
    sent: u64,
    /// The number up to which the agent was told that all is durable.
    acked: u64,
    /// How long the agent may say nothing.
    silence: Duration,
    pace: Pace,
}

impl Session {
    async fn run(
        mut self,
        welcome: connector_message::Body,
        inbound: Streaming<v1::AgentMessage>,
        state: StateId,
        held: BTreeSet<JobId>,
        facts: crate::view::AgentFacts,
    ) {
        info!(agent = %self.agent, address = facts.address, "connected");
        let (to_session, outgoing) = mpsc::channel(QUEUE_FROM_HUB);
        let opening = Opening {
            session: self.id,
            agent: self.agent.clone(),
            state,
            held,
            facts,
            outgoing: to_session,
        };
        let outcome = async {
            self.send(unnumbered(welcome)).await?;
            self.hub
                .tell(Input::Open(Box::new(opening)))
                .await
                .map_err(stopping)?;
            self.talk(inbound, outgoing).await
        };
        let outcome = outcome.await;
        if let Err(status) = outcome {
            info!(agent = %self.agent, code = ?status.code(), "session ended: {}", status.message());
            // The agent may be gone already; then the status is for the log only.
            let _ = timeout(PATIENCE, self.to_agent.send(Err(status))).await;
        } else {
            debug!(agent = %self.agent, "session ended");
        }
        // If the hub is gone, the whole server ends.
        let _ = self.hub.tell(Input::Close(self.agent, self.id)).await;
    }

    /// Until one side has had enough. `Ok` if all was said that was to be said.
    async fn talk(
        &mut self,
        mut inbound: Streaming<v1::AgentMessage>,
        mut outgoing: mpsc::Receiver<Outgoing>,
    ) -> Result<(), Status> {
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                what = outgoing.recv() => match what {
                    Some(what) => if self.forward(what).await? { return Ok(()) },
                    None => return Err(Status::resource_exhausted(
                        "this session does not read what it is sent",
                    )),
                },
                message = inbound.message() => match message {
                    Ok(Some(message)) => {
                        heard = Instant::now();
                        self.receive(message).await?;
                    }
                    Ok(None) => return Ok(()),
                    Err(status) => return Err(refined(status)),
                },
                () = sleep_until(heard + self.silence) => {
                    let seconds = self.silence.as_secs();
                    return Err(Status::deadline_exceeded(format!(
                        "nothing was heard for {seconds} seconds"
                    )));
                }
            }
        }
    }

    /// Sends what the hub says. Whether that was the last of it.
    async fn forward(&mut self, what: Outgoing) -> Result<bool, Status> {
        let (sequence, body, last) = match what {
            Outgoing::Ack(sequence) => {
                self.acked = self.acked.max(sequence);
                let ack = v1::Ack {
                    sequence: self.acked,
                };
                (0, connector_message::Body::Ack(ack), false)
            }
            Outgoing::Start(start) => (
                self.next_number(),
                connector_message::Body::StartJob(*start),
                false,
            ),
            Outgoing::Cancel(cancel) => (
                self.next_number(),
                connector_message::Body::CancelJob(cancel),
                false,
            ),
            Outgoing::Goodbye(reason) => (0, goodbye(reason), true),
        };
        let body = Some(body);
        self.send(v1::ConnectorMessage { sequence, body }).await?;
        Ok(last)
    }

    fn next_number(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    async fn send(&self, message: v1::ConnectorMessage) -> Result<(), Status> {
        match timeout(PATIENCE, self.to_agent.send(Ok(message))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Status::cancelled("the agent has gone")),
            Err(_) => Err(Status::resource_exhausted(
                "this session does not read what it is sent",
            )),
        }
    }

    async fn receive(&mut self, message: v1::AgentMessage) -> Result<(), Status> {
        if let Some(wait) = self.pace.take(Instant::now()) {
            // Not reading on makes the agent's own queue fill up; HTTP/2 sees to that.
            tokio::time::sleep(wait).await;
        }
        let Some(body) = message.body else {
            return Err(Status::invalid_argument(
                "a message without a body, or with one that came after this revision",
            ));
        };
        let counted = matches!(
            body,
            agent_message::Body::JobAccepted(_)
                | agent_message::Body::JobRejected(_)
                | agent_message::Body::JobFinished(_)
        );
        let expected = if counted { self.received + 1 } else { 0 };
        if message.sequence != expected {
            return Err(Status::out_of_range(format!(
                "sequence {} where {expected} was expected",
                message.sequence
            )));
        }
        if counted {
            self.received = expected;
        }
        if let agent_message::Body::Heartbeat(_) = body {
            self.check_still_registered().await?;
        }
        if let agent_message::Body::Ack(ack) = &body {
            if ack.sequence > self.sent {
                return Err(Status::out_of_range(format!(
                    "acknowledges {}, but {} was the last that was sent",
                    ack.sequence, self.sent
                )));
            }
            return Ok(());
        }
        let input = message::input(body, &self.agent, self.id, message.sequence)?;
        self.hub.tell(input).await.map_err(stopping)
    }

    async fn check_still_registered(&self) -> Result<(), Status> {
        let (registry, certificate) = (self.registry.clone(), self.certificate.clone());
        let owner =
            tokio::task::spawn_blocking(move || registry.agent(&certificate, UnixMillis::now()));
        match owner.await {
            Ok(Ok(Some(_))) => Ok(()),
            Ok(Ok(None)) => Err(Status::permission_denied(
                "this certificate is no longer registered here",
            )),
            // A failure to look it up says nothing against the agent, which was let in.
            Ok(Err(_)) | Err(_) => Ok(()),
        }
    }
}

async fn first_message(inbound: &mut Streaming<v1::AgentMessage>) -> Result<v1::Hello, Status> {
    let Ok(first) = timeout(HELLO_WAIT, inbound.message()).await else {
        return Err(Status::deadline_exceeded("no Hello came"));
    };
    match first.map_err(refined)? {
        Some(v1::AgentMessage {
            sequence: 0,
            body: Some(agent_message::Body::Hello(hello)),
        }) => Ok(hello),
        Some(_) => Err(Status::invalid_argument(
            "the first message is no Hello, or has a sequence number",
        )),
        None => Err(Status::invalid_argument("the stream ended before a Hello")),
    }
}

/// tonic calls a message that is too large out of range; that word is for sequence numbers here.
fn refined(status: Status) -> Status {
    match status.code() {
        Code::OutOfRange => Status::resource_exhausted(status.message()),
        Code::Internal => Status::invalid_argument(status.message()),
        _ => status,
    }
}

fn stopping(stopped: crate::hub::Stopped) -> Status {
    Status::unavailable(stopped.to_string())
}

fn unnumbered(body: connector_message::Body) -> v1::ConnectorMessage {
    v1::ConnectorMessage {
        sequence: 0,
        body: Some(body),
    }
}

fn goodbye(reason: v1::goodbye::Reason) -> connector_message::Body {
    use v1::goodbye::Reason;
    let message = match reason {
        Reason::Stopping => "the Connector stops or restarts",
        Reason::Enrolled => "connect again with the certificate",
        Reason::Replaced => "a newer session of this agent took the place of this one",
        Reason::Dismissed => "there is no more work for this agent",
        Reason::Unspecified => "",
    };
    connector_message::Body::Goodbye(v1::Goodbye {
        reason: reason.into(),
        power_off: reason == Reason::Dismissed,
        message: message.to_owned(),
        reconnect_after_seconds: u32::from(reason == Reason::Stopping),
    })
}

const HELLO_WAIT: Duration = Duration::from_secs(10);
/// How long a message may take to get into the way to the agent.
const PATIENCE: Duration = Duration::from_secs(30);
const QUEUE_TO_AGENT: usize = 8;
const QUEUE_FROM_HUB: usize = 64;
/// A job a minute, progress and logs every second and heartbeats are far below it.
const MESSAGES_PER_SECOND: u32 = 50;
const MESSAGES_AT_ONCE: u32 = 200;
