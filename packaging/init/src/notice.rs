//! What the agent tells of itself: the protocol of sd_notify(3), on a socket of this program.

use std::fs;
use std::io;
use std::path::Path;

use tokio::net::UnixDatagram;

/// One thing that the agent says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Notice {
    /// `WATCHDOG=1`: its loop turns.
    Alive,
    /// `X_CE_JOB=...`: what job runs and how far it is; `None` if there is none.
    Job(Option<String>),
    /// `READY=1`: it has begun its work.
    Ready,
    /// `STATUS=...`: how it is, in a line.
    Status(String),
}

/// Where the agent's words come in.
#[derive(Debug)]
pub struct Notices(UnixDatagram);

impl Notices {
    /// Opens the socket.
    ///
    /// # Errors
    ///
    /// It can't be made.
    pub fn listen() -> io::Result<Self> {
        let path = Path::new(SOCKET);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(Self(UnixDatagram::bind(path)?))
    }

    /// What is said next; what this program has no use for is left out.
    ///
    /// # Errors
    ///
    /// The socket is broken.
    pub async fn next(&self) -> io::Result<Vec<Notice>> {
        let mut buffer = [0; LONGEST_MESSAGE];
        let length = self.0.recv(&mut buffer).await?;
        let said = buffer.get(..length).unwrap_or_default();
        Ok(parse(&String::from_utf8_lossy(said)))
    }
}

/// Where the socket is, for `$NOTIFY_SOCKET`.
pub const SOCKET: &str = "/run/ce-init/notify";

fn parse(message: &str) -> Vec<Notice> {
    let notices = message.lines().filter_map(|line| {
        Some(match line.split_once('=')? {
            ("READY", "1") => Notice::Ready,
            ("STATUS", text) => Notice::Status(text.to_owned()),
            ("WATCHDOG", "1") => Notice::Alive,
            ("X_CE_JOB", "") => Notice::Job(None),
            ("X_CE_JOB", text) => Notice::Job(Some(text.to_owned())),
            _ => return None,
        })
    });
    notices.collect()
}

/// What is longer is cut off.
const LONGEST_MESSAGE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_sd_notify_are_understood() {
        assert_eq!(
            parse("READY=1\nSTATUS=in session with a=b\nMAINPID=3\nWATCHDOG=1"),
            [
                Notice::Ready,
                Notice::Status("in session with a=b".into()),
                Notice::Alive
            ]
        );
        assert_eq!(
            parse("X_CE_JOB=export: 3 %\nX_CE_JOB=\n"),
            [Notice::Job(Some("export: 3 %".into())), Notice::Job(None)]
        );
        assert_eq!(parse("WATCHDOG=trigger\nREADY\n\n=\n"), []);
    }
}
