//! HTTP for the orchestrator, for the command line and for people.
//!
//! ```text
//!   POST images/$export ...  --> 202, Location: /jobs/ID      bearer token
//!   GET  jobs, jobs/ID, jobs/ID/logs, agents                  bearer token, or a login
//!   POST jobs, jobs/ID/$cancel, agents/ID/$dismiss            bearer token
//!   GET  /, /events                                           a login
//! ```
//!
//! Bodies, headers, connections and waiting are bounded. A login (a cookie) can look and change
//! nothing, so nothing can be done with it from another page.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tracing::debug;

use crate::authority::digest;
use crate::hub::{Hub, Stopped};
use crate::listener::Connection;
use crate::machine::{JobError, Refusal};
use crate::registry::Registry;
use crate::wallet::Wallet;

mod api;
mod events;
mod logins;
mod page;

use logins::Logins;

/// What all requests share.
#[derive(Debug)]
pub struct Site {
    hub: Hub,
    registry: Arc<Registry>,
    wallet: Wallet,
    /// The digest of the bearer token.
    token: String,
    logins: Logins,
    viewers: Arc<Semaphore>,
}

impl Site {
    /// A site for those who know `token`.
    pub fn new(
        hub: Hub,
        registry: Arc<Registry>,
        wallet: Wallet,
        token: &SecretString,
    ) -> Arc<Self> {
        Arc::new(Self {
            hub,
            registry,
            wallet,
            token: digest(token.expose_secret().as_bytes()),
            logins: Logins::default(),
            viewers: Arc::new(Semaphore::new(VIEWERS)),
        })
    }

    fn is_token(&self, text: &str) -> bool {
        // How long a comparison of digests takes tells nothing of what was digested.
        digest(text.as_bytes()) == self.token
    }

    /// Whether the request shows the token.
    fn check_token(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let shown = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        match shown {
            Some(token) if self.is_token(token) => Ok(()),
            _ => Err(Failure::unauthorized()),
        }
    }

    /// Whether the request shows the token or a login.
    fn check_reader(&self, headers: &HeaderMap) -> Result<(), Failure> {
        if self.logins.is_known(headers) {
            return Ok(());
        }
        self.check_token(headers)
    }
}

/// All that is answered.
pub fn router(site: Arc<Site>) -> Router {
    Router::new()
        .route("/images/{call}", post(api::submit_image))
        .route("/jobs", get(api::list).post(api::submit))
        .route("/jobs/{id}", get(api::show))
        .route("/jobs/{id}/logs", get(api::job_logs))
        .route("/jobs/{id}/{call}", post(api::call))
        .route("/agents", get(api::agents))
        .route("/agents/{id}/logs", get(api::agent_logs))
        .route("/agents/{id}/{call}", post(api::call_agent))
        .route("/events", get(events::events))
        .route("/login", post(page::login))
        .route("/", get(page::page))
        .route("/page.js", get(page::script))
        .route("/page.css", get(page::style))
        // Browsers ask for one, and complain if there is none.
        .route("/favicon.ico", get(|| async { StatusCode::NO_CONTENT }))
        .fallback(|| async {
            Failure::new(StatusCode::NOT_FOUND, "NotFound", "there is no such page")
        })
        .with_state(site)
}

/// Serves plain HTTP, which is for the loopback only, until `stop`.
pub async fn serve_plain(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(PLACES));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stop) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let (router, stop) = (router.clone(), stop.clone());
                tokio::spawn(async move {
                    answer(stream, router, stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                debug!(%error, "a connection can't be accepted");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// Serves HTTP over connections with TLS, until `stop`.
pub async fn serve_tls(
    mut connections: mpsc::Receiver<std::io::Result<Connection>>,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let connection = tokio::select! {
            connection = connections.recv() => connection,
            () = stopped(&mut stop) => return,
        };
        match connection {
            Some(Ok(connection)) => {
                tokio::spawn(answer(connection, router.clone(), stop.clone()));
            }
            Some(Err(error)) => debug!(%error, "a connection can't be accepted"),
            None => return,
        }
    }
}

/// How many connections may be open.
pub const PLACES: usize = 256;

async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS_WAIT)
            .max_headers(64)
            .max_buf_size(32 << 10)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    );
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            let rest = tokio::time::timeout(Duration::from_secs(2), connection);
            rest.await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = outcome {
        debug!(%error, "an HTTP connection failed");
    }
}

/// Until the server is to stop, or is gone.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The value is borrowed; it may not be kept while something else waits.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// An answer that is an error.
#[derive(Clone, Debug)]
struct Failure {
    status: StatusCode,
    error: JobError,
}

impl Failure {
    fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            error: JobError::new(code, message, ""),
        }
    }

    fn unauthorized() -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            error: JobError::new(
                "Unauthorized",
                "the request does not show the token of this Connector",
                "send `Authorization: Bearer TOKEN`; the token is in the file `api-token`",
            ),
        }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidRequest", message)
    }

    fn unavailable() -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self::new(status, "Unavailable", Stopped.to_string())
    }
}

impl From<Stopped> for Failure {
    fn from(_: Stopped) -> Self {
        Self::unavailable()
    }
}

impl From<JobError> for Failure {
    fn from(error: JobError) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            error,
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let (status, code) = match &refusal {
            Refusal::Unknown(_) => (StatusCode::NOT_FOUND, "NotFound"),
            Refusal::Exists(_) => (StatusCode::CONFLICT, "InvalidRequest"),
            Refusal::Full(_) => (StatusCode::TOO_MANY_REQUESTS, "TooManyJobs"),
        };
        Self::new(status, code, refusal.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = answer_json(self.status, &json!({"error": self.error}));
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

fn answer_json(status: StatusCode, value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

const HEADERS_WAIT: Duration = Duration::from_secs(10);
const VIEWERS: usize = 16;
