//! Commands talk to the server that runs: HTTP on the loopback, with the token of the folder.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, header};
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::home::{Home, HomeError};
use crate::machine::JobError;

/// The way to the server.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    token: SecretString,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The folder can't be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// No server has said where it listens.
    #[error("the Connector does not run; start it with `ce-connector serve`")]
    NotRunning,
    /// Nobody is where the server said it would be.
    #[error("nothing answers at {address}; does the Connector run?")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The answer did not come, or not whole.
    #[error("the Connector at {0} did not answer")]
    NoAnswer(SocketAddr),
    /// The answer is none that a Connector would give.
    #[error("what answers at {0} is no Connector")]
    NotJson(SocketAddr),
    /// The Connector says no.
    #[error("{}: {}{}", .0.code, .0.message, hint(.0))]
    Refused(JobError),
}

fn hint(error: &JobError) -> String {
    let hint = error.hint.as_ref();
    hint.map_or_else(String::new, |hint| format!(" ({hint})"))
}

impl Client {
    /// The way to the server of that folder.
    ///
    /// # Errors
    ///
    /// It does not run, or the folder can't be used.
    pub fn new(home: &Home) -> Result<Self, ClientError> {
        let address = home.admin_address()?.ok_or(ClientError::NotRunning)?;
        let token = home.api_token()?;
        Ok(Self { address, token })
    }

    /// Asks for something.
    ///
    /// # Errors
    ///
    /// There is no answer, or it is an error.
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    /// Asks for something to be done.
    ///
    /// # Errors
    ///
    /// There is no answer, or it is an error.
    pub async fn post(&self, path: &str, body: Vec<u8>) -> Result<Value, ClientError> {
        self.call(Method::POST, path, body.into()).await
    }

    async fn call(&self, method: Method, path: &str, body: Bytes) -> Result<Value, ClientError> {
        let address = self.address;
        let no_answer = || ClientError::NoAnswer(address);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, address.to_string())
            .header(header::CONTENT_TYPE, "application/json")
            .header(
                header::AUTHORIZATION,
                format!("Bearer {}", self.token.expose_secret()),
            )
            .body(Full::new(body))
            .map_err(|_| no_answer())?;
        let exchange = async {
            let stream = TcpStream::connect(address)
                .await
                .map_err(|source| ClientError::Connect { address, source })?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|_| no_answer())?;
            // It ends with the sender.
            tokio::spawn(connection);
            let response = sender
                .send_request(request)
                .await
                .map_err(|_| no_answer())?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MOST_ANSWER)
                .collect()
                .await;
            let body = body.map_err(|_| no_answer())?.to_bytes();
            let value: Value =
                serde_json::from_slice(&body).map_err(|_| ClientError::NotJson(address))?;
            if status.is_success() {
                return Ok(value);
            }
            let error = value.get("error").cloned().unwrap_or_default();
            match serde_json::from_value(error) {
                Ok(error) => Err(ClientError::Refused(error)),
                Err(_) => Err(ClientError::NotJson(address)),
            }
        };
        timeout(ANSWER_WAIT, exchange)
            .await
            .map_err(|_| no_answer())?
    }
}

const ANSWER_WAIT: Duration = Duration::from_secs(30);
const MOST_ANSWER: usize = 16 << 20;
