//! wimlib's program (`wimlib-imagex`), which knows how to read and change what is in a WIM file, run where a
//! hostile file gains nothing.
//!
//! ```text
//!  parent                                   child: itself, confined, then wimlib-imagex
//!    start in a folder -------------------> no network, no processes, no files but those of the folder
//!    output, up to a bound <--------------- standard output
//!    last words, up to a bound <----------- standard error
//!    time, wish to stop: kill ------------>
//! ```
//!
//! wimlib is a library, too. It is not linked: it parses what a tenant's disk says, in C, and would do so
//! in the process that writes disks.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

mod worker;

pub use worker::worker_main;

use crate::cancel::Cancel;
use crate::units::ByteCount;
use crate::volume::ntfs::write::WorkerProgram;

/// wimlib's program, and how it is run.
#[derive(Clone, Debug)]
pub struct WimTool {
    program: PathBuf,
    worker: WorkerProgram,
    time_limit: Duration,
    cancel: Cancel,
}

/// Why wimlib's program did not do what was asked of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WimToolError {
    /// It was asked to stop.
    #[error("stopped while {action}")]
    Cancelled {
        /// What was being done.
        action: &'static str,
    },
    /// It said that it cannot.
    #[error("wimlib-imagex: {action} failed ({status}){}{said}", if said.is_empty() { "" } else { ": " })]
    Failed {
        /// What was being done.
        action: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// Its last words, as far as they are text.
        said: String,
    },
    /// A file of the working folder could not be used, or the program not be started.
    #[error("wimlib-imagex: {action} failed")]
    Io {
        /// What was being done.
        action: &'static str,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// There is none.
    #[error("wimlib-imagex is not installed (Debian package wimtools)")]
    Missing,
    /// The system has no means to confine it, and then it is not run.
    #[error("wimlib-imagex is not run, as this system cannot confine it: {said}")]
    NotConfined {
        /// What is missing.
        said: String,
    },
    /// It took too long.
    #[error("wimlib-imagex: {action} took longer than {} s", limit.as_secs())]
    TimedOut {
        /// What was being done.
        action: &'static str,
        /// How long it may take.
        limit: Duration,
    },
    /// There was no end of what it said.
    #[error("wimlib-imagex: {action} gave more than {limit}")]
    TooMuch {
        /// What was being done.
        action: &'static str,
        /// How much is taken.
        limit: ByteCount,
    },
}

/// One run of the program.
#[derive(Debug)]
pub(super) struct Run<'r> {
    /// What is being done, for messages.
    pub action: &'static str,
    /// Where it is run; it can write only below.
    pub folder: &'r Path,
    /// What the program is told.
    pub arguments: Vec<OsString>,
    /// What it reads.
    pub input: Option<File>,
    /// How much of its output is taken.
    pub most_output: ByteCount,
    /// How long a file that it writes may get.
    pub largest_file: ByteCount,
}

impl WimTool {
    /// Looks for the program in the folders of `$PATH`.
    ///
    /// # Errors
    ///
    /// [`WimToolError::Missing`]
    pub fn find() -> Result<Self, WimToolError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut candidates = std::env::split_paths(&path)
            // The working folder is nowhere to look for programs.
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join(NAME));
        let found = candidates.find(|candidate| is_program(candidate));
        found.map(Self::at).ok_or(WimToolError::Missing)
    }

    /// The program at `path`.
    pub fn at(program: PathBuf) -> Self {
        Self {
            program,
            worker: WorkerProgram::new("/proc/self/exe", [WORKER_ARGUMENT]),
            time_limit: DEFAULT_TIME_LIMIT,
            cancel: Cancel::default(),
        }
    }

    /// Has another program confine it than this one.
    #[must_use]
    pub fn with_worker(mut self, worker: WorkerProgram) -> Self {
        self.worker = worker;
        self
    }

    /// Gives each run that much time (10 minutes, if nothing is said).
    #[must_use]
    pub fn with_time_limit(mut self, time_limit: Duration) -> Self {
        self.time_limit = time_limit;
        self
    }

    /// Gives up when `cancel` asks for it.
    #[must_use]
    pub fn with_cancel(mut self, cancel: Cancel) -> Self {
        self.cancel = cancel;
        self
    }

    /// Runs it to its end, and gives what it wrote.
    pub(super) fn run(&self, run: Run<'_>) -> Result<Vec<u8>, WimToolError> {
        let action = run.action;
        let failed = |source| WimToolError::Io { action, source };
        let mut command = self.worker.command();
        command
            .arg(run.largest_file.0.to_string())
            .arg(&self.program)
            .args(run.arguments)
            // Windows finds names whatever their case.
            .env("WIMLIB_IMAGEX_IGNORE_CASE", "1")
            .env("LC_ALL", "C.UTF-8")
            .current_dir(run.folder)
            .stdin(run.input.map_or_else(Stdio::null, Stdio::from))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut running = Running(command.spawn().map_err(failed)?);
        let (output, words) = (running.0.stdout.take(), running.0.stderr.take());
        let most = run.most_output;
        thread::scope(|scope| {
            // They end when the child does, which has no children itself.
            let output = scope.spawn(move || take_up_to(output, most));
            let words = scope.spawn(move || take_up_to(words, MOST_WORDS));
            let ended = self.wait(action, &mut running);
            drop(running);
            let both = (output.join(), words.join());
            let (Ok(output), Ok(words)) = both else {
                return Err(failed(io::Error::other("a reader of its output panicked")));
            };
            let (output, words) = (output.map_err(failed)?, words.map_err(failed)?);
            if output.len() as u64 > most.0 {
                let limit = most;
                return Err(WimToolError::TooMuch { action, limit });
            }
            let status = ended?;
            if status.success() {
                return Ok(output);
            }
            let said = in_words(&words);
            match status.code() {
                Some(code) if code == i32::from(worker::NOT_CONFINED) => {
                    Err(WimToolError::NotConfined { said })
                }
                _ => Err(WimToolError::Failed {
                    action,
                    status,
                    said,
                }),
            }
        })
    }

    fn wait(
        &self,
        action: &'static str,
        running: &mut Running,
    ) -> Result<ExitStatus, WimToolError> {
        let started = Instant::now();
        loop {
            let ended = running.0.try_wait();
            if let Some(status) = ended.map_err(|source| WimToolError::Io { action, source })? {
                return Ok(status);
            }
            if self.cancel.is_requested() {
                return Err(WimToolError::Cancelled { action });
            }
            if started.elapsed() >= self.time_limit {
                let limit = self.time_limit;
                return Err(WimToolError::TimedOut { action, limit });
            }
            thread::sleep(GLANCE);
        }
    }
}

/// A program that runs. It is killed when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only when it is dead already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads to the end, or one byte more than `most`; then the pipe is closed, and whoever writes to it
/// ends.
fn take_up_to(source: Option<impl Read>, most: ByteCount) -> io::Result<Vec<u8>> {
    let mut taken = Vec::new();
    if let Some(source) = source {
        source.take(most.0 + 1).read_to_end(&mut taken)?;
    }
    Ok(taken)
}

/// The last lines of what a program said, without anything that is no text.
fn in_words(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let words: Vec<String> = lines
        .map(|line| line.chars().filter(|letter| !letter.is_control()).collect())
        .collect();
    let mut words = words.join(" ");
    let end = words.floor_char_boundary(LONGEST_WORDS);
    words.truncate(end);
    words
}

fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// The hidden argument by which a program that calls [`worker_main`] is told to be the child.
pub const WORKER_ARGUMENT: &str = "__wim-worker";

const NAME: &str = "wimlib-imagex";

/// Several times what the largest recovery environment takes on a slow machine.
const DEFAULT_TIME_LIMIT: Duration = Duration::from_secs(600);

/// How often its end, and a request to cancel, is looked for.
const GLANCE: Duration = Duration::from_millis(5);

const MOST_WORDS: ByteCount = ByteCount::mib(1);
const LONGEST_WORDS: usize = 500;
