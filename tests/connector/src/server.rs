//! The server: everything together, and its end.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ce_proto::v1::connector_server::ConnectorServer;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server as GrpcServer;
use tracing::{info, warn};

use crate::home::{Home, HomeError};
use crate::http::{self, Site};
use crate::hub::{Hub, Input};
use crate::ids::UnixMillis;
use crate::listener::{self, TlsError};
use crate::machine::Limits;
use crate::session::Sessions;
use crate::store::{Store, StoreError};
use crate::turned_away::TurnedAway;

/// How a server runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where agents connect.
    pub listen: SocketAddr,
    /// Where commands and people connect, without TLS; an address of the loopback.
    pub admin: SocketAddr,
    /// Where the orchestrator connects, with TLS.
    pub api: Option<SocketAddr>,
    /// How often agents are to be heard of.
    pub heartbeat: Duration,
    /// How long is waited for what.
    pub limits: Limits,
}

/// Why a server does not start, or ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The folder can't be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Jobs can't be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// TLS can't be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address can't be listened at.
    #[error("can't listen at {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Without TLS, a token would be there for all to read.
    #[error("{0} is not of the loopback; commands are served there only")]
    AdminNotLoopback(IpAddr),
    /// The system gives no thread.
    #[error("the system gives no thread for the jobs")]
    Thread(#[source] std::io::Error),
    /// The thread with the jobs has ended by itself.
    #[error("the thread with the jobs has ended")]
    HubGone,
}

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    /// Where agents connect.
    pub agents: SocketAddr,
    /// Where commands connect.
    pub admin: SocketAddr,
    /// Where the orchestrator connects.
    pub api: Option<SocketAddr>,
    home: Home,
    hub: Hub,
    hub_end: oneshot::Receiver<Result<(), StoreError>>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts serving.
    ///
    /// # Errors
    ///
    /// The folder, the jobs or an address can't be used.
    pub async fn start(home: Home, options: &Options) -> Result<Self, ServerError> {
        if !options.admin.ip().is_loopback() {
            return Err(ServerError::AdminNotLoopback(options.admin.ip()));
        }
        let now = UnixMillis::now();
        let authority = Arc::new(home.authority()?);
        let registry = Arc::new(home.registry()?);
        let token = home.api_token()?;
        let names = home.names()?;
        let (store, jobs) = Store::open(&home.database())?;
        info!(jobs = jobs.len(), "opened the jobs");
        let (hub, hub_end) =
            Hub::start(store, jobs, home.wallet(), options.limits).map_err(ServerError::Thread)?;
        let (stop, stopping) = watch::channel(false);
        let mut tasks = Vec::new();

        let (listener, agents) = listen(options.listen).await?;
        let (certificate, key) = authority.server(&names, now).map_err(HomeError::from)?;
        let acceptor = listener::tls(certificate, key, Some(authority.pem()), b"h2")?;
        let turned_away = Arc::new(TurnedAway::new());
        let connections = listener::accept(listener, acceptor, AGENT_PLACES, turned_away.clone());
        let sessions = Sessions::new(
            hub.clone(),
            registry.clone(),
            authority.clone(),
            options.heartbeat,
            turned_away.clone(),
        );
        let mut stopped = stopping.clone();
        let serving = GrpcServer::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .max_concurrent_streams(STREAMS)
            .http2_max_header_list_size(16 << 10)
            .initial_connection_window_size(1 << 20)
            .initial_stream_window_size(256 << 10)
            .add_service(
                ConnectorServer::new(sessions)
                    .max_decoding_message_size(ce_proto::MAX_MESSAGE_BYTES)
                    .max_encoding_message_size(ce_proto::MAX_MESSAGE_BYTES),
            )
            .serve_with_incoming_shutdown(ReceiverStream::new(connections), async move {
                // Whether it is said or the sender is gone: the end.
                let _ = stopped.wait_for(|stop| *stop).await;
            });
        tasks.push(tokio::spawn(async move {
            if let Err(error) = serving.await {
                warn!(%error, "agents are served no more");
            }
        }));

        let router = http::router(Site::new(hub.clone(), registry, home.wallet(), &token));
        let (listener, admin) = listen(options.admin).await?;
        let plain = http::serve_plain(listener, router.clone(), stopping.clone());
        tasks.push(tokio::spawn(plain));
        let mut api = None;
        if let Some(address) = options.api {
            let (listener, address) = listen(address).await?;
            let (certificate, key) = authority.server(&names, now).map_err(HomeError::from)?;
            let acceptor = listener::tls(certificate, key, None, b"http/1.1")?;
            let connections = listener::accept(listener, acceptor, http::PLACES, turned_away);
            tasks.push(tokio::spawn(http::serve_tls(connections, router, stopping)));
            api = Some(address);
        }
        home.tell_admin_address(admin)?;
        info!(%agents, %admin, "serving");
        Ok(Self {
            agents,
            admin,
            api,
            home,
            hub,
            hub_end,
            stop,
            tasks,
        })
    }

    /// Serves until `end` comes, or the jobs can't be kept any more. Then agents are told, and
    /// what they have said before is made durable.
    ///
    /// # Errors
    ///
    /// The jobs could not be kept.
    pub async fn run_until(mut self, end: impl Future<Output = ()>) -> Result<(), ServerError> {
        let outcome = tokio::select! {
            // It never ends before it is told to, unless it fails.
            ended = &mut self.hub_end => match ended {
                Ok(Err(error)) => Err(error.into()),
                Ok(Ok(())) | Err(_) => Err(ServerError::HubGone),
            },
            () = end => {
                info!("stopping");
                // If it has just ended, its outcome is there all the same.
                let _ = self.hub.tell(Input::Stop).await;
                match (&mut self.hub_end).await {
                    Ok(outcome) => outcome.map_err(ServerError::from),
                    Err(_) => Err(ServerError::HubGone),
                }
            }
        };
        // Goodbyes are in the sessions' queues; they get the time to leave.
        tokio::time::sleep(GOODBYE_TIME).await;
        self.stop.send_replace(true);
        for task in &mut self.tasks {
            if tokio::time::timeout(STOP_TIME, &mut *task).await.is_err() {
                task.abort();
            }
        }
        self.home.forget_admin_address();
        outcome
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServerError> {
    let failed = |source| ServerError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// Agents, with room for those that connect anew before their old connection is known to be dead.
const AGENT_PLACES: usize = 4096;
/// One session, and one that is about to take its place.
const STREAMS: u32 = 4;
const KEEPALIVE: Duration = Duration::from_secs(20);
const GOODBYE_TIME: Duration = Duration::from_millis(200);
const STOP_TIME: Duration = Duration::from_secs(3);
