//! Connections: accepted, limited, and with TLS around them.
//!
//! ```text
//!   accept --> a place is free? --> TLS handshake, 10 s --> stream with the peer's certificate
//! ```
//!
//! TLS is rustls with ring, version 1.3 and nothing else. A peer without a certificate gets a
//! minute: enough to exchange a token, too little to fill the places up.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, rustls::version::TLS13};
use tonic::transport::server::Connected;
use tracing::debug;

use crate::turned_away::TurnedAway;

/// Who is at the other end.
#[derive(Clone, Debug)]
pub struct Peer {
    /// From where it calls.
    pub address: SocketAddr,
    /// Its certificate, which the authority has signed; none if it showed none.
    pub certificate: Option<CertificateDer<'static>>,
}

/// Why TLS can't be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The authority's certificate can't be read.
    #[error("the authority's certificate can't be read")]
    Authority(#[source] rustls::pki_types::pem::Error),
    /// The certificates don't fit together.
    #[error("the certificates can't be used")]
    Certificate(#[from] rustls::Error),
    /// Agents can't be checked by the authority.
    #[error("agents can't be checked by the authority")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// How TLS is spoken.
///
/// With an `authority` (PEM), peers are asked for a certificate that it has signed. One that is
/// wrong ends the handshake; none at all is for the session to judge.
///
/// # Errors
///
/// Something about the certificates is wrong.
pub fn tls(
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    authority: Option<&str>,
    protocol: &[u8],
) -> Result<TlsAcceptor, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[&TLS13])?;
    let builder = match authority {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            let root = CertificateDer::from_pem_slice(pem.as_bytes());
            roots.add(root.map_err(TlsError::Authority)?)?;
            let roots = Arc::new(roots);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            builder.with_client_cert_verifier(verifier.allow_unauthenticated().build()?)
        }
    };
    let mut config = builder.with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Accepts connections until the receiver is dropped. At most `places` are open at a time; the
/// others wait in the system's queue.
pub fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    places: usize,
    turned_away: Arc<TurnedAway>,
) -> mpsc::Receiver<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(places));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely; some will be free again.
                    debug!(%error, "a connection can't be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (acceptor, sender) = (acceptor.clone(), sender.clone());
            let turned_away = turned_away.clone();
            tokio::spawn(async move {
                match handshake(stream, address, acceptor, place).await {
                    // The server may be gone by now.
                    Ok(connection) => drop(sender.send(Ok(connection)).await),
                    Err(error) => turned_away.note(address, &format!("no TLS: {}", why(&error))),
                }
            });
        }
    });
    receiver
}

/// Why a handshake failed. CAs of Connectors have the same name, so one that is another's shows by its
/// signatures, and not as an unknown one.
fn why(error: &io::Error) -> String {
    use rustls::AlertDescription::{BadCertificate, DecryptError, UnknownCA};
    use rustls::CertificateError::{BadSignature, UnknownIssuer};
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(rustls::Error::InvalidCertificate(UnknownIssuer | BadSignature)) => {
            format!("its certificate is not from this Connector's CA ({error})")
        }
        Some(rustls::Error::AlertReceived(UnknownCA | DecryptError | BadCertificate)) => format!(
            "it does not take this Connector's certificate, as if it was given another CA ({error})"
        ),
        _ => error.to_string(),
    }
}

async fn handshake(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    place: OwnedSemaphorePermit,
) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let stream = timeout(HANDSHAKE, acceptor.accept(stream)).await??;
    let (_, state) = stream.get_ref();
    let certificate = state
        .peer_certificates()
        .and_then(|chain| chain.first())
        .map(|certificate| certificate.clone().into_owned());
    let end = certificate
        .is_none()
        .then(|| Box::pin(sleep(STRANGERS_TIME)));
    Ok(Connection {
        stream,
        peer: Peer {
            address,
            certificate,
        },
        end,
        _place: place,
    })
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    /// When it is over, if the peer has not shown who it is.
    end: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(end) = &mut self.end
            && end.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

const HANDSHAKE: Duration = Duration::from_secs(10);
const STRANGERS_TIME: Duration = Duration::from_secs(60);
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
