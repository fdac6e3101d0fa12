//! A Connector that does what a test tells it, well or badly: real gRPC over real TLS, one session
//! after the other.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ce_proto::v1::agent_message::Body as Told;
use ce_proto::v1::connector_message::Body;
use ce_proto::v1::connector_server::{Connector as Service, ConnectorServer};
use ce_proto::v1::{self, AgentMessage, ConnectorMessage};
use tokio::runtime::Runtime;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use super::authority::{Authority, NOW, Signed};

/// The Connector.
pub struct Connector {
    pub address: SocketAddr,
    sessions: Receiver<Session>,
    /// Dropping it cuts every connection.
    runtime: Option<Runtime>,
}

/// A session as the test sees it. Dropping it ends the session.
pub struct Session {
    pub token: Option<String>,
    pub has_certificate: bool,
    told: Receiver<AgentMessage>,
    say: tokio::sync::mpsc::Sender<Result<ConnectorMessage, Status>>,
    /// The number of the last message of ours that is counted.
    sequence: u64,
    /// What was acknowledged last.
    acknowledged: u64,
}

struct Sessions(Sender<Session>);

#[tonic::async_trait]
impl Service for Sessions {
    type SessionStream = ReceiverStream<Result<ConnectorMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let token = request.metadata().get(ce_proto::TOKEN_METADATA_KEY);
        let token = token.and_then(|value| value.to_str().ok()).map(Into::into);
        let has_certificate = request.peer_certs().is_some();
        let (say, saying) = tokio::sync::mpsc::channel(64);
        let (tell, told) = channel();
        let mut inbound = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(message)) = inbound.message().await {
                if tell.send(message).is_err() {
                    break;
                }
            }
        });
        let session = Session {
            token,
            has_certificate,
            told,
            say,
            sequence: 0,
            acknowledged: 0,
        };
        // The test is over.
        self.0
            .send(session)
            .map_err(|_| Status::unavailable("gone"))?;
        Ok(Response::new(ReceiverStream::new(saying)))
    }
}

impl Connector {
    /// One that `authority` vouches for, on a free port.
    pub fn start(authority: &Authority) -> Result<Self> {
        let own = authority.sign(&["localhost", "127.0.0.1"], NOW)?;
        Self::start_as("127.0.0.1:0".parse()?, &own, authority)
    }

    /// One with this certificate, at this address, which knows agents of `authority`.
    pub fn start_as(address: SocketAddr, own: &Signed, authority: &Authority) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(&own.certificate, &own.key))
            .client_ca_root(Certificate::from_pem(&authority.pem))
            .client_auth_optional(true);
        let (found, sessions) = channel();
        let service = ConnectorServer::new(Sessions(found))
            .max_encoding_message_size(16 << 20)
            .max_decoding_message_size(ce_proto::MAX_MESSAGE_BYTES);
        let incoming = runtime.block_on(async { TcpIncoming::bind(address) });
        let incoming = incoming.map_err(|error| anyhow::anyhow!("binding {address}: {error}"))?;
        let address = incoming.local_addr()?;
        let server = Server::builder().tls_config(tls)?.add_service(service);
        runtime.spawn(server.serve_with_incoming(incoming));
        Ok(Self {
            address,
            sessions,
            runtime: Some(runtime),
        })
    }

    /// The next session that an agent opens.
    pub fn session(&self, limit: Duration) -> Result<Session> {
        let session = self.sessions.recv_timeout(limit);
        session.with_context(|| format!("no session within {limit:?}"))
    }

    /// The next session, greeted.
    pub fn greeted(&self, limit: Duration) -> Result<(Session, v1::Hello)> {
        let mut session = self.session(limit)?;
        let hello = session.hello()?;
        session.welcome()?;
        Ok((session, hello))
    }

    /// Cuts every connection and is gone, as if it were killed.
    pub fn kill(mut self) -> SocketAddr {
        self.stop();
        self.address
    }

    fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Session {
    /// The next message of the agent.
    pub fn next(&mut self) -> Result<AgentMessage> {
        let told = self.told.recv_timeout(PATIENCE);
        let told = told.context("the agent says nothing more")?;
        // An agent leaves a Connector that does not answer its signs of life.
        if matches!(told.body, Some(Told::Heartbeat(_))) {
            self.ack(self.acknowledged)?;
        }
        Ok(told)
    }

    /// The next message, if the session lasts.
    pub fn next_within(&mut self, limit: Duration) -> Option<AgentMessage> {
        self.told.recv_timeout(limit).ok()
    }

    /// Whether the agent ends the session before the time is over.
    pub fn is_ended_within(&mut self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            match self.told.recv_timeout(Duration::from_millis(100)) {
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return true,
                _ => continue,
            }
        }
        false
    }

    pub fn hello(&mut self) -> Result<v1::Hello> {
        match self.next()?.body {
            Some(Told::Hello(hello)) => Ok(hello),
            other => bail!("{other:?} instead of Hello"),
        }
    }

    pub fn welcome(&mut self) -> Result<()> {
        self.say(0, Body::Welcome(welcome()))
    }

    /// Says something under a number.
    pub fn say(&mut self, sequence: u64, body: Body) -> Result<()> {
        let message = ConnectorMessage {
            sequence,
            body: Some(body),
        };
        Ok(self.say.blocking_send(Ok(message))?)
    }

    /// Sends a message without a body: what a newer kind of message looks like from here.
    pub fn say_nothing(&mut self) -> Result<()> {
        Ok(self.say.blocking_send(Ok(ConnectorMessage::default()))?)
    }

    /// Says something under the next number.
    pub fn say_next(&mut self, body: Body) -> Result<()> {
        self.sequence += 1;
        self.say(self.sequence, body)
    }

    /// Ends the session with a status.
    pub fn refuse(self, status: Status) -> Result<()> {
        Ok(self.say.blocking_send(Err(status))?)
    }

    pub fn ack(&mut self, sequence: u64) -> Result<()> {
        self.acknowledged = sequence;
        self.say(0, Body::Ack(v1::Ack { sequence }))
    }

    /// Reads until something of interest comes; what is counted is checked and acknowledged.
    pub fn until<T>(&mut self, mut of: impl FnMut(&Told) -> Option<T>) -> Result<T> {
        loop {
            let message = self.next()?;
            if message.sequence > 0 {
                self.ack(message.sequence)?;
            }
            let body = message.body.context("an empty message")?;
            if let Some(found) = of(&body) {
                return Ok(found);
            }
        }
    }

    /// Reads until the job has ended.
    pub fn finished(&mut self, id: &str) -> Result<v1::JobFinished> {
        let mut percent = 0;
        let finished = self.until(|told| {
            if let Told::JobProgress(progress) = told {
                assert!(progress.overall_progress_percent >= percent, "it goes back");
                percent = progress.overall_progress_percent;
            }
            match told {
                Told::JobFinished(finished) => Some(Ok(finished.clone())),
                Told::JobRejected(rejected) => Some(Err(rejected.clone())),
                _ => None,
            }
        })?;
        let finished = finished.map_err(|rejected| anyhow::anyhow!("{rejected:?}"))?;
        ensure!(finished.job_id == id, "{finished:?}");
        Ok(finished)
    }

    /// Reads until a job is refused.
    pub fn rejected(&mut self) -> Result<v1::JobRejected> {
        self.until(|told| match told {
            Told::JobRejected(rejected) => Some(rejected.clone()),
            _ => None,
        })
    }
}

pub fn welcome() -> v1::Welcome {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    v1::Welcome {
        protocol_revision: ce_proto::PROTOCOL_REVISION,
        connector_version: "of a test".into(),
        agent_id: "agent-1".into(),
        heartbeat_interval_seconds: 5,
        server_time_unix_ms: now.map_or(0, |now| now.as_millis() as i64),
        certificate_chain: Vec::new(),
    }
}

/// Longer than anything takes on a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(60);
