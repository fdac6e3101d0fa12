//! The agent's process: how it is started, and the lines that it says.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::process::{Pid, WaitOptions, wait};
use tokio::net::unix::pipe;

use crate::notice;
use crate::supervisor::{Exit, LONGEST_SILENCE};

/// Starts it. What it says comes out of the pipe.
///
/// # Errors
///
/// It can't be started.
pub fn start() -> io::Result<(Pid, pipe::Receiver)> {
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(PROGRAM);
    command
        .arg("daemon")
        .env_clear()
        .env("CE_POWER_OFF_COMMAND", "/sbin/poweroff")
        .env("HOME", "/")
        .env("LC_ALL", "C.UTF-8")
        .env("NOTIFY_SOCKET", notice::SOCKET)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("WATCHDOG_USEC", LONGEST_SILENCE.as_micros().to_string())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    // It is waited for with all others, see `ended`.
    let child = command.spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("its number is none"))?;
    Ok((pid, pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?))
}

/// A process that has ended, of whatever parent; `None` if there is none at the moment.
pub fn ended() -> Option<(Pid, Exit)> {
    // An error says that there are no children.
    let (pid, status) = wait(WaitOptions::NOHANG).ok().flatten()?;
    let exit = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => return None,
    };
    Some((pid, exit))
}

/// Makes lines of what comes in pieces.
#[derive(Debug, Default)]
pub struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// The lines that are whole with this piece. A line that is too long is cut into several.
    pub fn add(&mut self, piece: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in piece {
            if *byte != b'\n' {
                self.begun.push(*byte);
            }
            if *byte == b'\n' || self.begun.len() >= LONGEST_LINE {
                lines.extend(self.rest());
            }
        }
        lines
    }

    /// What was begun and never ended.
    pub fn rest(&mut self) -> Option<String> {
        let line = String::from_utf8_lossy(&self.begun).trim_end().to_owned();
        self.begun.clear();
        (!line.is_empty()).then_some(line)
    }
}

/// Whether a line of the agent tells of something that went wrong: of its log, or what it says before
/// there is one. What libraries call an error may be none to the agent.
pub fn is_error(line: &str) -> bool {
    let mut words = line.split_whitespace().skip(1);
    let is_logged = words.next() == Some("ERROR")
        && words.next().is_some_and(|target| target.starts_with("ce_"));
    is_logged || line.starts_with("error: ") || message(line).starts_with("refused: ")
}

/// A line of the agent's log without its time, level and module.
pub fn message(line: &str) -> &str {
    let is_log = matches!(
        line.split_whitespace().nth(1),
        Some("ERROR" | "WARN" | "INFO" | "DEBUG")
    );
    match line.split_once(": ") {
        Some((head, message)) if is_log && head.contains("ce_") => message,
        _ => line,
    }
}

const PROGRAM: &str = "/usr/bin/ce-agent";

const LONGEST_LINE: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_made_of_pieces() {
        let mut lines = Lines::default();
        assert_eq!(lines.add(b"one\ntw"), ["one"]);
        assert_eq!(lines.add(b"o\n\nthree"), ["two"]);
        assert_eq!(lines.rest().as_deref(), Some("three"));
        assert_eq!(lines.rest(), None);
        assert_eq!(lines.add(&[b'x'; 5000]).len(), 2);
    }

    #[test]
    fn errors_of_the_agent_are_told_from_its_other_words() {
        let line =
            "2026-11-24T00:30:12.123456Z ERROR ce_agent::daemon::engine: no session code=\"x\"";
        assert!(is_error(line));
        assert_eq!(message(line), "no session code=\"x\"");
        assert!(is_error("error: connectors: missing"));
        assert_eq!(
            message("error: connectors: missing"),
            "error: connectors: missing"
        );
        assert!(is_error(
            "2026-11-24T00:30:12Z  INFO ce_agent::daemon::engine::jobs: refused: no disk has lun 3"
        ));
        assert!(!is_error(
            "2026-11-24T00:30:12Z ERROR pavao::smb: failed to stat file"
        ));
        assert!(!is_error(
            "2026-11-24T00:30:12Z  INFO ce_agent::daemon: no ERROR here"
        ));
    }
}
