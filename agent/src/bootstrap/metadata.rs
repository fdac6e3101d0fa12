//! Questions to the metadata service of a cloud: plain HTTP to one address that is not routed.
//!
//! A proxy is never asked and a redirection never followed: whoever answers in the place of the
//! service would choose whom the agent obeys. Answers are bounded in size and time. A service that
//! does not answer, or puts us off, is asked again for a bounded while, as the network may still be
//! coming up.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use zeroize::Zeroizing;

/// The address of the metadata service on Azure, AWS and Google Cloud.
pub(super) const SERVICE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80);

/// How long the service is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For one answer.
    pub answer: Duration,
    /// From the first question on, while there is no answer or only a 404 that may be too early.
    pub silence: Duration,
    /// From the first question on, while the service asks for patience itself.
    pub busy: Duration,
    /// Before the second question; then twice as long each time, up to 4 s.
    pub first_wait: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(5),
            silence: Duration::from_secs(20),
            // Azure promises to be back after 70 s (its documentation of 410).
            busy: Duration::from_secs(75),
            first_wait: Duration::from_millis(250),
        }
    }
}

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Question<'a> {
    /// How.
    pub method: Method,
    /// Path and query.
    pub path: &'static str,
    /// Headers beside `Host`.
    pub headers: Vec<(&'static str, &'a str)>,
    /// Whether a 404 may only mean that it is too early.
    pub may_be_early: bool,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Answered {
    /// Status 200, with its headers.
    Content(HeaderMap, Zeroizing<Vec<u8>>),
    /// There is no such thing.
    Nothing,
    /// The service turns us away: 401 or 403.
    Refused(StatusCode),
    /// It did not answer, or only to come later. Why, in words.
    Silent(String),
}

/// Why the service can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum MetadataError {
    /// Nothing can be asked.
    #[error("a connection can't be prepared")]
    Runtime(#[source] io::Error),
    /// What is asked can't be put into a request.
    #[error("the answer of the metadata service can't be sent back to it")]
    Unspeakable(#[source] hyper::http::Error),
    /// It is not what the documentation has.
    #[error("{path} is answered with {status}")]
    Status {
        /// What was asked for.
        path: &'static str,
        /// The answer.
        status: StatusCode,
    },
    /// Too much.
    #[error("{path} has more than {LONGEST_ANSWER} bytes")]
    TooLong {
        /// What was asked for.
        path: &'static str,
    },
}

/// The metadata service.
#[derive(Debug)]
pub(super) struct Service {
    address: SocketAddr,
    patience: Patience,
    runtime: Runtime,
}

impl Service {
    /// The one at `address`. Nothing is asked yet.
    pub(super) fn at(address: SocketAddr, patience: Patience) -> Result<Self, MetadataError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(MetadataError::Runtime)?;
        Ok(Self {
            address,
            patience,
            runtime,
        })
    }

    /// Asks until there is an answer, or patience is over.
    pub(super) fn ask(&self, question: &Question<'_>) -> Result<Answered, MetadataError> {
        self.runtime.block_on(self.ask_again(question))
    }

    async fn ask_again(&self, question: &Question<'_>) -> Result<Answered, MetadataError> {
        let began = Instant::now();
        let mut wait = self.patience.first_wait;
        loop {
            let (why, patience) = match self.ask_once(question).await? {
                Once::Silent(why) => (why, self.patience.silence),
                Once::Told(status, headers, content) => match status {
                    StatusCode::OK => return Ok(Answered::Content(headers, content)),
                    StatusCode::NOT_FOUND if question.may_be_early => {
                        if began.elapsed() + wait > self.patience.silence {
                            return Ok(Answered::Nothing);
                        }
                        (String::new(), self.patience.silence)
                    }
                    StatusCode::NOT_FOUND => return Ok(Answered::Nothing),
                    StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                        return Ok(Answered::Refused(status));
                    }
                    StatusCode::GONE | StatusCode::TOO_MANY_REQUESTS => {
                        (format!("it answers {status}"), self.patience.busy)
                    }
                    _ if status.is_server_error() => {
                        (format!("it answers {status}"), self.patience.busy)
                    }
                    _ => {
                        return Err(MetadataError::Status {
                            path: question.path,
                            status,
                        });
                    }
                },
            };
            if began.elapsed() + wait > patience {
                return Ok(Answered::Silent(why));
            }
            // Many machines that start together do not ask together.
            tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn ask_once(&self, question: &Question<'_>) -> Result<Once, MetadataError> {
        let request = self.request(question).map_err(MetadataError::Unspeakable)?;
        match timeout(self.patience.answer, exchange(self.address, request)).await {
            Err(_) => Ok(Once::Silent(format!(
                "no answer within {} s",
                self.patience.answer.as_secs_f32()
            ))),
            Ok(Ok(Some((status, headers, content)))) => Ok(Once::Told(status, headers, content)),
            Ok(Ok(None)) => Err(MetadataError::TooLong {
                path: question.path,
            }),
            Ok(Err(error)) => Ok(Once::Silent(error.to_string())),
        }
    }

    fn request(
        &self,
        question: &Question<'_>,
    ) -> Result<Request<Empty<Bytes>>, hyper::http::Error> {
        let mut request = Request::builder()
            .method(question.method.clone())
            .uri(question.path)
            .header(HOST, self.address.ip().to_string());
        for (name, value) in &question.headers {
            let mut value = HeaderValue::try_from(*value)?;
            value.set_sensitive(true);
            request = request.header(HeaderName::from_static(name), value);
        }
        // GET and PUT carry no content here, but a PUT has to say so.
        if question.method == Method::PUT {
            request = request.header("content-length", "0");
        }
        request.body(Empty::new())
    }
}

enum Once {
    Told(StatusCode, HeaderMap, Zeroizing<Vec<u8>>),
    Silent(String),
}

type Told = (StatusCode, HeaderMap, Zeroizing<Vec<u8>>);

/// One request on a connection of its own. `None` if the answer is longer than is taken.
async fn exchange(
    address: SocketAddr,
    request: Request<Empty<Bytes>>,
) -> Result<Option<Told>, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(LONGEST_HEAD)
        .handshake(TokioIo::new(stream))
        .await?;
    let turning = AbortOnDrop(tokio::spawn(connection));
    let answer = sender.send_request(request).await?;
    let (head, body) = answer.into_parts();
    let content = match Limited::new(body, LONGEST_ANSWER).collect().await {
        Ok(content) => Zeroizing::new(content.to_bytes().to_vec()),
        Err(error) if error.is::<LengthLimitError>() => return Ok(None),
        Err(error) => return Err(error),
    };
    drop(turning);
    Ok(Some((head.status, head.headers, content)))
}

/// A task that ends with its owner.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

const LONGEST_WAIT: Duration = Duration::from_secs(4);

/// Azure gives at most 64 KiB in Base64, AWS 16 KiB, Google Cloud 256 KiB.
const LONGEST_ANSWER: usize = 512 << 10;

const LONGEST_HEAD: usize = 64 << 10;
