//! A scripted agent.

use std::net::SocketAddr;
use std::time::Duration;

use ce_proto::v1::connector_client::ConnectorClient;
use ce_proto::v1::{self, agent_message, connector_message};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status, Streaming};

use crate::stage::Stage;

/// How long the Connector may be silent before a test fails: a thousand handshakes take a while where
/// other tests run beside them.
const PATIENCE: Duration = Duration::from_secs(180);

/// How an agent calls.
pub struct Call {
    pub address: SocketAddr,
    pub ca: String,
    pub identity: Option<Identity>,
    pub token: Option<String>,
    pub first: v1::AgentMessage,
}

impl Call {
    /// As agents usually do.
    pub fn new(stage: &Stage, identity: Option<Identity>) -> Self {
        Self {
            address: stage.agents,
            ca: stage.ca(),
            identity,
            token: None,
            first: message(0, agent_message::Body::Hello(hello("state-0123456789"))),
        }
    }

    pub fn saying(mut self, hello: v1::Hello) -> Self {
        self.first = message(0, agent_message::Body::Hello(hello));
        self
    }

    /// Opens a session; what the Connector says if it does not.
    pub async fn open(self) -> Result<Agent, Status> {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.ca))
            .domain_name("localhost");
        if let Some(identity) = self.identity {
            tls = tls.identity(identity);
        }
        let channel = Endpoint::from_shared(format!("https://{}", self.address))
            .unwrap()
            .tls_config(tls)
            .unwrap()
            .connect()
            .await
            .map_err(|error| Status::unavailable(format!("no connection: {error:?}")))?;
        let mut client = ConnectorClient::new(channel)
            .max_encoding_message_size(usize::MAX)
            .max_decoding_message_size(ce_proto::MAX_MESSAGE_BYTES);
        let (outgoing, waiting) = mpsc::channel(64);
        outgoing.send(self.first).await.unwrap();
        let mut request = Request::new(ReceiverStream::new(waiting));
        if let Some(token) = self.token {
            let value = format!("Bearer {token}").parse().unwrap();
            request
                .metadata_mut()
                .insert(ce_proto::TOKEN_METADATA_KEY, value);
        }
        let inbound = client.session(request).await?.into_inner();
        let mut agent = Agent {
            outgoing,
            inbound,
            sequence: 0,
            welcome: v1::Welcome::default(),
        };
        match agent.next().await? {
            connector_message::Body::Welcome(welcome) => agent.welcome = welcome,
            other => panic!("no Welcome but {other:?}"),
        }
        Ok(agent)
    }

    /// Opens a session that is refused, now or with the first thing that is read.
    pub async fn refused(self) -> Status {
        match self.open().await {
            Err(status) => status,
            Ok(_) => panic!("the session was opened"),
        }
    }
}

/// An agent in a session.
pub struct Agent {
    outgoing: mpsc::Sender<v1::AgentMessage>,
    inbound: Streaming<v1::ConnectorMessage>,
    sequence: u64,
    pub welcome: v1::Welcome,
}

impl Agent {
    /// One with a certificate of its own.
    pub async fn of(stage: &Stage, name: &str) -> Self {
        let identity = stage.identity(name);
        Call::new(stage, Some(identity)).open().await.unwrap()
    }

    /// Says something with the number that it should have.
    pub async fn say(&mut self, body: agent_message::Body) {
        let counted = matches!(
            body,
            agent_message::Body::JobAccepted(_)
                | agent_message::Body::JobRejected(_)
                | agent_message::Body::JobFinished(_)
        );
        self.sequence += u64::from(counted);
        let sequence = if counted { self.sequence } else { 0 };
        self.say_as_is(message(sequence, body)).await;
    }

    pub async fn say_as_is(&mut self, message: v1::AgentMessage) {
        // If the session is over, that shows when something is read.
        let _ = self.outgoing.send(message).await;
    }

    pub async fn accept(&mut self, start: &v1::StartJob) {
        self.say(agent_message::Body::JobAccepted(v1::JobAccepted {
            job_id: start.job_id.clone(),
            attempt: start.attempt,
        }))
        .await;
    }

    pub async fn finish(&mut self, start: &v1::StartJob) {
        self.say(agent_message::Body::JobFinished(finished(start)))
            .await;
    }

    /// What the Connector says next.
    pub async fn next(&mut self) -> Result<connector_message::Body, Status> {
        let next = timeout(PATIENCE, self.inbound.message()).await;
        match next.expect("the Connector says nothing")? {
            Some(message) => Ok(message.body.expect("a body")),
            None => Err(Status::ok("the session ended in peace")),
        }
    }

    /// The next job; acknowledgements before it are skipped.
    pub async fn job(&mut self) -> v1::StartJob {
        loop {
            match self.next().await.unwrap() {
                connector_message::Body::StartJob(start) => return start,
                connector_message::Body::Ack(_) => {}
                other => panic!("no job but {other:?}"),
            }
        }
    }

    /// Waits until everything up to now is acknowledged.
    pub async fn acknowledged(&mut self) {
        loop {
            match self.next().await.unwrap() {
                connector_message::Body::Ack(ack) if ack.sequence >= self.sequence => return,
                connector_message::Body::Ack(_) => {}
                other => panic!("no Ack but {other:?}"),
            }
        }
    }

    /// How the Connector ends the session.
    pub async fn ended(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }

    /// Says something that is not to be said, and how that ends.
    pub async fn wrong(mut self, message: v1::AgentMessage) -> Status {
        self.say_as_is(message).await;
        self.ended().await
    }
}

pub fn message(sequence: u64, body: agent_message::Body) -> v1::AgentMessage {
    v1::AgentMessage {
        sequence,
        body: Some(body),
    }
}

pub fn hello(state: &str) -> v1::Hello {
    v1::Hello {
        protocol_revision: ce_proto::PROTOCOL_REVISION,
        minimum_revision: 1,
        agent_version: "scripted".into(),
        state_id: state.into(),
        ..Default::default()
    }
}

pub fn finished(start: &v1::StartJob) -> v1::JobFinished {
    v1::JobFinished {
        job_id: start.job_id.clone(),
        attempt: start.attempt,
        status: v1::job_finished::Status::Complete.into(),
        artifacts: Some(v1::Artifacts {
            output_image: Some(format!("image-of-{}", start.job_id)),
            ..Default::default()
        }),
        ..Default::default()
    }
}
