//! The way to a server, tried before libsmbclient is: only so can a wrong name, a closed port and
//! a dead host be told apart, and only so within a time of our own choosing.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use super::error::{SmbError, SmbErrorKind};
use super::location::SmbLocation;

/// Resolves the server's name and opens (and closes) a TCP connection to it.
pub(super) fn reach(location: &SmbLocation, patience: Duration) -> Result<(), SmbError> {
    let mut failure = SmbError::new(SmbErrorKind::Unresolved, CONNECT, location);
    for address in resolve(location, patience)? {
        match TcpStream::connect_timeout(&address, patience) {
            Ok(_) => return Ok(()),
            Err(error) => {
                let kind = match error.kind() {
                    ErrorKind::ConnectionRefused => SmbErrorKind::Refused,
                    ErrorKind::TimedOut => SmbErrorKind::TimedOut,
                    ErrorKind::HostUnreachable
                    | ErrorKind::NetworkUnreachable
                    | ErrorKind::NetworkDown
                    | ErrorKind::AddrNotAvailable => SmbErrorKind::Unreachable,
                    ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => {
                        SmbErrorKind::ConnectionLost
                    }
                    _ => SmbErrorKind::Other,
                };
                failure = SmbError::new(kind, CONNECT, location)
                    .with_answer(format_args!("{address}: {error}"));
            }
        }
    }
    Err(failure)
}

/// The server's addresses. The system's resolver knows no time limit, hence a thread, which is
/// left to itself when it takes too long.
fn resolve(location: &SmbLocation, patience: Duration) -> Result<Vec<SocketAddr>, SmbError> {
    let unresolved = |answer: &dyn std::fmt::Display| {
        SmbError::new(SmbErrorKind::Unresolved, CONNECT, location).with_answer(answer)
    };
    let server = location.server();
    let target = (server.host().to_owned(), server.port());
    let (sender, receiver) = sync_channel(1);
    thread::Builder::new()
        .name("ce-resolve".into())
        .spawn(move || {
            let found = target.to_socket_addrs().map(Iterator::collect::<Vec<_>>);
            // Nobody listens any more if it took too long.
            let _ = sender.send(found);
        })
        .map_err(|error| {
            SmbError::new(SmbErrorKind::Other, CONNECT, location).with_answer(error)
        })?;
    match receiver.recv_timeout(patience) {
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(error)) => Err(unresolved(&error)),
        Err(RecvTimeoutError::Timeout) => Err(unresolved(&"the resolver did not answer in time")),
        Err(RecvTimeoutError::Disconnected) => Err(unresolved(&"the resolver gave up")),
    }
}

pub(super) const CONNECT: &str = "connecting";
