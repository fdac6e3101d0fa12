//! The connection to a Connector: TCP, perhaps through a proxy, TLS 1.3, HTTP/2, one call.
//!
//! ```text
//!  open --> task: dial --> [CONNECT] --> TLS --> HTTP/2 --> Session()
//!                  |                                          |   ^
//!                  +--- LinkEvent::Closed(why) ---+-----------+   |
//!  Link.events <--- LinkEvent::{Opened, Message} -+               |
//!  Link.outbound --------------------------------------------------+
//! ```
//!
//! The connection is made here and handed to HTTP/2 ready: so every failure on the way has a name,
//! and nothing connects again behind the session's back. What comes is bounded in size by the codec
//! and in rate here; a Connector that does not keep to it is left.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ce_proto::v1::connector_client::ConnectorClient;
use ce_proto::v1::{AgentMessage, ConnectorMessage};
use ce_proto::{MAX_MESSAGE_BYTES, TOKEN_METADATA_KEY};
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig, Error as TlsError, RootCertStore, crypto,
    version,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http::{Uri, uri::PathAndQuery};
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};
use zeroize::Zeroizing;

use super::address::{Address, HostPort, Proxy};
use super::identity::Credential;
use super::observed::{Objection, Observed};

/// What it takes to connect.
#[derive(Debug)]
pub(crate) struct Dial {
    /// Where to.
    pub address: Address,
    /// The proxy on the way.
    pub proxy: Option<Proxy>,
    /// The only authority that may vouch for the Connector.
    pub authority: Arc<RootCertStore>,
    /// Who the agent is.
    pub credential: Credential,
}

/// A connection, or an attempt at one. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Link {
    /// What is to be sent.
    pub outbound: mpsc::Sender<AgentMessage>,
    /// What happens; the last event is `Closed`.
    pub events: mpsc::Receiver<LinkEvent>,
    task: JoinHandle<()>,
}

/// What happens to a connection.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// It stands.
    Opened,
    /// The Connector says something.
    Message(Box<ConnectorMessage>),
    /// It is over.
    Closed(LinkError),
}

/// Why a connection is over.
#[derive(Debug)]
pub(crate) struct LinkError {
    /// Whether it was refused, as opposed to not coming about.
    pub is_refused: bool,
    /// What happened, in words.
    pub message: String,
}

impl LinkError {
    fn unreachable(message: impl Into<String>) -> Self {
        Self {
            is_refused: false,
            message: message.into(),
        }
    }

    fn refused(message: impl Into<String>) -> Self {
        Self {
            is_refused: true,
            message: message.into(),
        }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Link {
    /// Begins to connect. The first message that is sent must be the Hello.
    pub(crate) fn open(dial: Dial) -> Self {
        let (outbound, to_send) = mpsc::channel(QUEUE);
        let (report, events) = mpsc::channel(QUEUE);
        let task = tokio::spawn(async move {
            let error = run(dial, to_send, &report).await;
            // Nobody listens any more if the link was dropped.
            let _ = report.send(LinkEvent::Closed(error)).await;
        });
        Self {
            outbound,
            events,
            task,
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Lives as long as the connection, and says why it ended.
async fn run(
    dial: Dial,
    to_send: mpsc::Receiver<AgentMessage>,
    report: &mpsc::Sender<LinkEvent>,
) -> LinkError {
    let (stream, token) = match connect(&dial).await {
        Ok(connected) => connected,
        Err(error) => return error,
    };
    let (origin, endpoint) = match endpoint(&dial.address) {
        Ok(endpoint) => endpoint,
        Err(error) => return error,
    };
    let objection = Objection::default();
    let stream = Observed::new(stream, objection.clone());
    let error = serve(endpoint, origin, stream, token, to_send, report).await;
    match objection.take() {
        Some(objection) => tls_refusal(&objection),
        None => error,
    }
}

/// The call, over a connection that stands.
async fn serve(
    endpoint: Endpoint,
    origin: Uri,
    stream: Observed,
    token: Option<AsciiMetadataValue>,
    to_send: mpsc::Receiver<AgentMessage>,
    report: &mpsc::Sender<LinkEvent>,
) -> LinkError {
    let channel = match endpoint.connect_with_connector(Ready(Some(stream))).await {
        Ok(channel) => channel,
        Err(error) => return LinkError::unreachable(chain(&error)),
    };
    let mut client = ConnectorClient::with_origin(channel, origin)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let mut request = Request::new(ReceiverStream::new(to_send));
    if let Some(token) = token {
        request.metadata_mut().insert(TOKEN_METADATA_KEY, token);
    }
    if report.send(LinkEvent::Opened).await.is_err() {
        return LinkError::unreachable("the agent gave it up");
    }
    let mut inbound = match client.session(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => return status_error(&status),
    };
    let mut allowance = Allowance::new(Instant::now());
    loop {
        match inbound.message().await {
            Ok(Some(message)) => {
                if !allowance.take(Instant::now()) {
                    return LinkError::refused(format!(
                        "the Connector sends more than {MESSAGES_PER_SECOND} messages a second"
                    ));
                }
                let event = LinkEvent::Message(Box::new(message));
                if report.send(event).await.is_err() {
                    return LinkError::unreachable("the agent gave it up");
                }
            }
            Ok(None) => return LinkError::unreachable("the Connector ended the session"),
            Err(status) => return status_error(&status),
        }
    }
}

fn endpoint(address: &Address) -> Result<(Uri, Endpoint), LinkError> {
    let invalid = || LinkError::refused(format!("{address} is no address"));
    let origin = Uri::builder()
        .scheme("https")
        .authority(address.target.to_string())
        .path_and_query(PathAndQuery::from_static("/"))
        .build()
        .map_err(|_| invalid())?;
    // TLS is in place already, of which this must not be told: it would begin it again.
    let endpoint = Endpoint::from_shared(format!("http://{}", address.target))
        .map_err(|_| invalid())?
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        // One stream with messages of at most 1 MiB; defaults would keep more for each.
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW);
    Ok((origin, endpoint))
}

/// The connection with TLS on it, and the token if that is what the agent shows.
async fn connect(
    dial: &Dial,
) -> Result<(TlsStream<TcpStream>, Option<AsciiMetadataValue>), LinkError> {
    let (config, token) = tls_config(dial)?;
    let name = ServerName::try_from(dial.address.server_name.clone()).map_err(|_| {
        LinkError::refused(format!(
            "{} is no name that a certificate can have",
            dial.address.server_name
        ))
    })?;
    let tcp = within(CONNECT_TIME, "connecting", dial_tcp(dial)).await?;
    let handshake = async {
        TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
            .map_err(|error| tls_error(&error))
    };
    let stream = within(CONNECT_TIME, "the TLS handshake", handshake).await?;
    Ok((stream, token))
}

async fn within<T>(
    limit: Duration,
    what: &str,
    work: impl Future<Output = Result<T, LinkError>>,
) -> Result<T, LinkError> {
    timeout(limit, work).await.unwrap_or_else(|_| {
        let seconds = limit.as_secs();
        Err(LinkError::unreachable(format!(
            "{what} took more than {seconds} s"
        )))
    })
}

async fn dial_tcp(dial: &Dial) -> Result<TcpStream, LinkError> {
    let (first, through) = match &dial.proxy {
        Some(proxy) => (&proxy.address, format!("the proxy {}", proxy.address)),
        None => (&dial.address.target, "it".to_owned()),
    };
    let tcp = TcpStream::connect((first.host.as_str(), first.port))
        .await
        .map_err(|error| LinkError::unreachable(format!("cannot reach {through}: {error}")))?;
    // Small messages that should not wait for each other; without it they are only slower.
    let _ = tcp.set_nodelay(true);
    match &dial.proxy {
        Some(proxy) => tunnel(tcp, proxy, &dial.address.target).await,
        None => Ok(tcp),
    }
}

/// Asks an HTTP proxy for a tunnel (RFC 9110, 9.3.6).
async fn tunnel(
    mut tcp: TcpStream,
    proxy: &Proxy,
    target: &HostPort,
) -> Result<TcpStream, LinkError> {
    let no_way = |why: &dyn fmt::Display| {
        let proxy = &proxy.address;
        format!("the proxy {proxy} gives no way to {target}: {why}")
    };
    let line = ask_for_tunnel(&mut tcp, proxy, target)
        .await
        .map_err(|error| LinkError::unreachable(no_way(&error)))?;
    let mut words = line.split(' ');
    let is_http = words.next().is_some_and(|word| word.starts_with("HTTP/1."));
    let said = || format!("it says `{}`", line.escape_debug());
    match words.next() {
        // Any 2xx, as the RFC has it.
        Some(status) if is_http && status.len() == 3 && status.starts_with('2') => Ok(tcp),
        // To ask again and again with a wrong password would lock the user out.
        Some("407") if is_http => Err(LinkError::refused(no_way(&match &proxy.credentials {
            Some(_) => format!("{}; check user and password", said()),
            None => format!("{}; give it a proxy_credentials_file", said()),
        }))),
        _ => Err(LinkError::unreachable(no_way(&said()))),
    }
}

/// The first line of the proxy's answer.
async fn ask_for_tunnel(
    tcp: &mut TcpStream,
    proxy: &Proxy,
    target: &HostPort,
) -> io::Result<String> {
    let mut request = Zeroizing::new(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"));
    if let Some(credentials) = &proxy.credentials {
        let credentials = credentials.expose_secret();
        let credentials = Zeroizing::new(STANDARD.encode(credentials));
        request.push_str("Proxy-Authorization: Basic ");
        request.push_str(&credentials);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    tcp.write_all(request.as_bytes()).await?;
    // Byte by byte, so that nothing behind the head is taken away from TLS. It is short, and
    // happens once.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= LONGEST_HEAD {
            return Err(io::Error::other("its answer is too long"));
        }
        match tcp.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(io::Error::other("it hung up"));
            }
            Err(error) => return Err(error),
        }
    }
    let head = String::from_utf8_lossy(&head);
    Ok(head.lines().next().unwrap_or_default().to_owned())
}

fn tls_config(dial: &Dial) -> Result<(ClientConfig, Option<AsciiMetadataValue>), LinkError> {
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .map_err(|error| LinkError::refused(error.to_string()))?
        .with_root_certificates(Arc::clone(&dial.authority));
    let (mut config, token) = match &dial.credential {
        Credential::Certificate { chain, key } => {
            let chain: Vec<CertificateDer<'static>> = chain.clone();
            let config = config
                .with_client_auth_cert(chain, key.clone_key())
                .map_err(|error| {
                    LinkError::refused(format!("the client certificate can't be used: {error}"))
                })?;
            (config, None)
        }
        Credential::Token(token) => (config.with_no_client_auth(), Some(bearer(token)?)),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would be one whose certificates were not looked at again.
    config.resumption = tokio_rustls::rustls::client::Resumption::disabled();
    Ok((config, token))
}

fn bearer(token: &SecretString) -> Result<AsciiMetadataValue, LinkError> {
    let value = AsciiMetadataValue::try_from(format!("Bearer {}", token.expose_secret()));
    let mut value = value
        .map_err(|_| LinkError::refused("the token has characters that can't be in a token"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn tls_error(error: &io::Error) -> LinkError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(error) => tls_refusal(error),
        None => LinkError::unreachable(format!("the TLS handshake broke off: {error}")),
    }
}

/// What TLS has against the other side, or the other side against us.
fn tls_refusal(error: &TlsError) -> LinkError {
    use CertificateError::{
        BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext,
        NotValidYet, NotValidYetContext, UnknownIssuer,
    };
    const CLOCK: &str = "check the clock of this machine and of the Connector's";
    LinkError::refused(match error {
        TlsError::InvalidCertificate(NotValidYetContext { time, not_before }) => {
            let ahead = not_before.as_secs().saturating_sub(time.as_secs());
            format!(
                "the Connector's certificate is not valid yet: it will be in {ahead} s by this \
                 machine's clock, which may be slow (clock skew); {CLOCK}"
            )
        }
        TlsError::InvalidCertificate(NotValidYet) => format!(
            "the Connector's certificate is not valid yet: this machine's clock may be slow (clock \
             skew); {CLOCK}"
        ),
        TlsError::InvalidCertificate(ExpiredContext { time, not_after }) => {
            let ago = time.as_secs().saturating_sub(not_after.as_secs());
            format!(
                "the Connector's certificate has expired, {ago} s ago by this machine's clock; \
                 {CLOCK}"
            )
        }
        TlsError::InvalidCertificate(Expired) => {
            format!("the Connector's certificate has expired; {CLOCK}")
        }
        // A CA of the same name and with another key is another CA.
        TlsError::InvalidCertificate(UnknownIssuer | BadSignature) => {
            "the Connector's certificate is not from the pinned CA (`ca`, `ca_file`)".into()
        }
        TlsError::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            format!("the Connector's certificate is for another name: {error}")
        }
        TlsError::AlertReceived(alert) => match alert {
            AlertDescription::CertificateExpired => format!(
                "the Connector finds this agent's certificate expired or not yet valid; {CLOCK}"
            ),
            AlertDescription::UnknownCA
            | AlertDescription::DecryptError
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown => {
                "the Connector does not accept this agent's certificate: it is not from its CA"
                    .into()
            }
            AlertDescription::CertificateRequired => {
                "the Connector asks for a client certificate".into()
            }
            AlertDescription::ProtocolVersion => "the Connector does not speak TLS 1.3".into(),
            other => format!("the Connector broke the TLS handshake off: {other:?}"),
        },
        TlsError::PeerIncompatible(reason) => {
            format!("the Connector does not speak TLS as it must, version 1.3: {reason:?}")
        }
        other => format!("TLS: {other}"),
    })
}

/// What the Connector, or the transport, gives as the reason for the end of a call.
fn status_error(status: &Status) -> LinkError {
    let said = status.message().escape_debug().to_string();
    match status.code() {
        Code::Unauthenticated => {
            LinkError::refused(format!("the Connector does not know this agent: {said}"))
        }
        Code::PermissionDenied => {
            LinkError::refused(format!("the Connector does not admit this agent: {said}"))
        }
        Code::FailedPrecondition => LinkError::refused(format!(
            "the Connector has no common protocol revision with this agent: {said}"
        )),
        Code::InvalidArgument | Code::OutOfRange | Code::ResourceExhausted => LinkError::refused(
            format!("the Connector or the agent broke the protocol: {said}"),
        ),
        Code::Unimplemented => LinkError::refused(format!("this is no Connector: {said}")),
        _ => LinkError::unreachable(format!("the link broke: {}", chain(status))),
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text.escape_debug().to_string()
}

/// A connection that is there already, once.
struct Ready(Option<Observed>);

impl tonic::codegen::Service<Uri> for Ready {
    type Response = TokioIo<Observed>;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Self::Response>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let stream = self.0.take().map(TokioIo::new);
        std::future::ready(stream.ok_or_else(|| io::Error::other("the connection is lost")))
    }
}

/// How many messages may still come: fills with time, up to a second's worth and more.
#[derive(Debug)]
struct Allowance {
    left: f64,
    at: Instant,
}

impl Allowance {
    fn new(at: Instant) -> Self {
        Self { left: BURST, at }
    }

    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * MESSAGES_PER_SECOND).min(BURST) - 1.0;
        self.at = now;
        self.left >= 0.0
    }
}

/// A dead link shows after at most both together, 20 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Reaching the other side and the handshake, each.
const CONNECT_TIME: Duration = Duration::from_secs(8);

/// Messages that wait in each direction.
const QUEUE: usize = 16;

/// Room for one message of the largest size on its way.
const WINDOW: u32 = 1 << 20;

/// The head of a proxy's answer, in bytes.
const LONGEST_HEAD: usize = 8192;

/// Jobs, their cancels and an acknowledgement for each letter and heartbeat are far fewer.
const MESSAGES_PER_SECOND: f64 = 100.0;
const BURST: f64 = 1000.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_noticed_and_a_burst_is_not() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        assert!((0..1000).all(|_| allowance.take(start)));
        assert!(!allowance.take(start));
        let mut steady = Allowance::new(start);
        let each = Duration::from_secs_f64(1.0 / 90.0);
        assert!((0..5000).all(|n| steady.take(start + each * n)));
    }

    #[test]
    fn the_clock_is_named_when_a_certificate_seems_not_yet_valid() {
        use tokio_rustls::rustls::pki_types::UnixTime;
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let error = tls_refusal(&TlsError::InvalidCertificate(
            CertificateError::NotValidYetContext {
                time: at(1000),
                not_before: at(4600),
            },
        ));
        assert!(error.is_refused);
        for part in ["3600 s", "clock skew", "check the clock"] {
            assert!(error.message.contains(part), "{error}");
        }
    }

    #[test]
    fn a_token_does_not_show() {
        let value = bearer(&"s3cret".into()).unwrap();
        assert!(!format!("{value:?}").contains("s3cret"));
        let error = bearer(&"s3c\nret".into()).unwrap_err();
        assert!(!error.to_string().contains("s3c"));
    }
}
