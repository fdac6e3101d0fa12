//! Starts the worker, and sees to its end.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::error::WorkerError;
use crate::cancel::Cancel;

/// How the worker is started: a program that calls [`worker_main`](super::worker_main).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WorkerProgram {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl WorkerProgram {
    /// This program itself, with the hidden argument that makes it the worker.
    pub fn this() -> Self {
        // The link leads to the file that runs, also when another one has its name by now.
        Self::new("/proc/self/exe", [super::WORKER_ARGUMENT])
    }

    /// Another program.
    pub fn new<A: Into<OsString>>(
        program: impl Into<PathBuf>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        Self {
            program: program.into(),
            arguments: arguments.into_iter().map(Into::into).collect(),
        }
    }

    /// A command for it, without anything of this process's environment.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear();
        command
    }
}

/// A worker that runs. It is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
}

impl Running {
    /// Starts a worker, and gives the connection to it.
    pub fn start(program: &WorkerProgram) -> Result<(Self, UnixStream), WorkerError> {
        let failed = |source| WorkerError::Start {
            program: program.program.display().to_string(),
            source,
        };
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let child = program
            .command()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        Ok((Self { child }, ours))
    }

    /// Waits a moment for it to end by itself, then kills it.
    pub fn end(&mut self) -> Option<ExitStatus> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.kill()
    }

    fn kill(&mut self) -> Option<ExitStatus> {
        // Fails only when it is dead already.
        let _ = self.child.kill();
        self.child.wait().ok()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The connection to a worker, which is given up on request and after a while.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    cancel: Cancel,
    deadline: Instant,
}

impl Connection {
    pub fn new(stream: UnixStream, cancel: Cancel, deadline: Instant) -> io::Result<Self> {
        stream.set_read_timeout(Some(GLANCE))?;
        stream.set_write_timeout(Some(GLANCE))?;
        Ok(Self {
            stream,
            cancel,
            deadline,
        })
    }

    /// Tries again until there is something, or no reason to wait any longer.
    fn patiently(
        &self,
        mut attempt: impl FnMut(&UnixStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            // Also while the worker is busy asking.
            if self.cancel.is_requested() || Instant::now() >= self.deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match attempt(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.patiently(|mut stream| stream.read(buffer))
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.patiently(|mut stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How often a request to cancel is looked for while there is nothing to do.
const GLANCE: Duration = Duration::from_millis(100);

/// How long a worker may take to end after the last word.
const PATIENCE: Duration = Duration::from_secs(1);
