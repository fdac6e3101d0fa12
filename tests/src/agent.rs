//! Runs `ce-agent` as a user does and keeps everything that can be seen from outside: exit code,
//! JSON lines, messages, time, processor time, peak memory.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use wait4::Wait4;

/// A call of the program, not yet made.
#[derive(Clone, Debug)]
pub struct Invocation {
    wrapper: Vec<OsString>,
    program: PathBuf,
    arguments: Vec<OsString>,
    time_limit: Duration,
}

/// The program while it runs.
#[derive(Debug)]
pub struct Running {
    process: Guarded,
    started: Instant,
    deadline: Instant,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
}

/// A process that does not outlive a test that fails: what it leaves behind fails others.
#[derive(Debug)]
struct Guarded {
    child: Child,
    is_over: bool,
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if !self.is_over {
            // Nobody is left to be told.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A call that came to its end.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// All of standard output.
    pub stdout: String,
    /// All of standard error.
    pub stderr: String,
    /// What it cost.
    pub cost: Cost,
}

/// What a run took from the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Time from start to end.
    pub wall: Duration,
    /// Processor time in the program.
    pub user: Duration,
    /// Processor time in the kernel for it.
    pub system: Duration,
    /// Largest resident set in bytes. Never less than the memory of the process that started it.
    pub peak_memory: u64,
}

/// A call of `ce-agent` with these arguments.
pub fn ce_agent<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Result<Invocation> {
    Ok(Invocation::new(binary()?, arguments))
}

/// A call of `ce-connector`, the Connector of the tests, with these arguments.
pub fn ce_connector<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Result<Invocation> {
    Ok(Invocation::new(connector_binary()?, arguments))
}

/// The path of the program under test: `$CE_AGENT`, or the one of the same build profile, which is
/// brought up to date first.
pub fn binary() -> Result<&'static Path> {
    static BINARY: Found = Found::new();
    found(&BINARY, "ce-agent", "CE_AGENT")
}

/// The path of the Connector of the tests, found in the same way: `$CE_REFERENCE_CONNECTOR`.
pub fn connector_binary() -> Result<&'static Path> {
    static BINARY: Found = Found::new();
    found(&BINARY, "ce-connector", "CE_REFERENCE_CONNECTOR")
}

/// The path of process 1 of the image, found in the same way: `$CE_INIT`.
pub fn init_binary() -> Result<&'static Path> {
    static BINARY: Found = Found::new();
    found(&BINARY, "ce-init", "CE_INIT")
}

type Found = OnceLock<std::result::Result<PathBuf, String>>;

fn found(binary: &'static Found, name: &str, variable: &str) -> Result<&'static Path> {
    let find = || find_binary(name, variable).map_err(|error| format!("{error:#}"));
    match binary.get_or_init(find) {
        Ok(path) => Ok(path),
        Err(error) => bail!("{error}"),
    }
}

impl Invocation {
    /// A call of any program, to be watched in the same way.
    pub fn new<A: AsRef<OsStr>>(
        program: impl Into<PathBuf>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        Self {
            wrapper: Vec::new(),
            program: program.into(),
            arguments: arguments
                .into_iter()
                .map(|a| a.as_ref().to_owned())
                .collect(),
            time_limit: DEFAULT_TIME_LIMIT,
        }
    }

    /// Adds arguments.
    pub fn with<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments
            .extend(arguments.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Runs it below another program (`setpriv ...`) that executes its last arguments.
    pub fn below<A: AsRef<OsStr>>(mut self, wrapper: impl IntoIterator<Item = A>) -> Self {
        self.wrapper = wrapper.into_iter().map(|a| a.as_ref().to_owned()).collect();
        self
    }

    /// Uses another copy of the program.
    pub fn from_copy(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = program.into();
        self
    }

    /// How long it may run before the test kills it and fails.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// Starts it.
    pub fn start(&self) -> Result<Running> {
        let mut command = match self.wrapper.split_first() {
            Some((wrapper, arguments)) => {
                let mut command = Command::new(wrapper);
                command.args(arguments).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.args(&self.arguments).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command
            .spawn()
            .with_context(|| format!("can't start {command:?}"))?;
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        let process = Guarded {
            child,
            is_over: false,
        };
        Ok(Running {
            process,
            started,
            deadline: started + self.time_limit,
            stdout,
            stderr,
        })
    }

    /// Runs it to its end.
    pub fn run(&self) -> Result<Finished> {
        self.start()?.finish().with_context(|| format!("{self:?}"))
    }

    /// Runs it and fails, with what it said, unless it ends with this code.
    pub fn expect_code(&self, code: i32) -> Result<Finished> {
        let finished = self.run()?;
        ensure!(
            finished.status.code() == Some(code),
            "{:?} {:?}: {} instead of {code}\n{}{}",
            self.program,
            self.arguments,
            finished.status,
            finished.stdout,
            finished.stderr
        );
        Ok(finished)
    }
}

impl Running {
    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.process.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.process.child.id())?;
        let id = Pid::from_raw(id).context("a child has no process id")?;
        kill_process(id, signal).context("sending a signal")
    }

    /// Asks it to end, which has to go well, and gives what it said.
    pub fn stop(self) -> Result<String> {
        self.signal(Signal::TERM)?;
        let run = self.finish()?;
        ensure!(
            run.status.code() == Some(0),
            "{}: {}",
            run.status,
            run.stderr
        );
        ensure!(!run.stderr.contains("panicked"), "{}", run.stderr);
        Ok(run.stderr)
    }

    /// Waits for its end; past the time limit it is killed and this fails.
    pub fn finish(mut self) -> Result<Finished> {
        let used = loop {
            if let Some(used) = self.process.child.try_wait4()? {
                self.process.is_over = true;
                break used;
            }
            if Instant::now() > self.deadline {
                self.signal(Signal::KILL)?;
                bail!("still running after {:?}", self.started.elapsed());
            }
            thread::sleep(POLL_INTERVAL);
        };
        let cost = Cost {
            wall: self.started.elapsed(),
            user: used.rusage.utime,
            system: used.rusage.stime,
            peak_memory: used.rusage.maxrss,
        };
        Ok(Finished {
            status: used.status,
            stdout: joined(self.stdout)?,
            stderr: joined(self.stderr)?,
            cost,
        })
    }
}

impl Finished {
    /// Every line of standard output as JSON; fails on a line that is not an object.
    pub fn events(&self) -> Result<Vec<Value>> {
        self.stdout
            .lines()
            .map(|line| {
                let value: Value = serde_json::from_str(line)
                    .with_context(|| format!("a line of --json output: {line}"))?;
                ensure!(value.is_object(), "not a JSON object: {line}");
                Ok(value)
            })
            .collect()
    }

    /// The job of the last event, which must be `finished`.
    pub fn job(&self) -> Result<Value> {
        let mut events = self.events()?;
        let mut last = events
            .pop()
            .with_context(|| format!("no JSON on standard output; it said: {}", self.stderr))?;
        ensure!(last["event"] == "finished", "the last event is {last}");
        Ok(last["job"].take())
    }

    /// `md5Hash` of the job's artifacts.
    pub fn md5_hash(&self) -> Result<String> {
        let job = self.job()?;
        let hash = job["artifacts"]["md5Hash"].as_str();
        Ok(hash
            .with_context(|| format!("no md5Hash in {job}"))?
            .to_owned())
    }

    /// Code and message of the job's error.
    pub fn error(&self) -> Result<(String, String)> {
        let job = self.job()?;
        let part = |name: &str| {
            let text = job["error"][name].as_str();
            Ok::<_, anyhow::Error>(
                text.with_context(|| format!("no error.{name} in {job}"))?
                    .into(),
            )
        };
        Ok((part("code")?, part("message")?))
    }
}

impl Cost {
    /// The cost of one run and then another.
    pub fn then(self, next: Self) -> Self {
        Self {
            wall: self.wall + next.wall,
            user: self.user + next.user,
            system: self.system + next.system,
            peak_memory: self.peak_memory.max(next.peak_memory),
        }
    }

    /// The cost of two runs at the same time.
    pub fn beside(self, other: Self) -> Self {
        Self {
            wall: self.wall.max(other.wall),
            user: self.user + other.user,
            system: self.system + other.system,
            peak_memory: self.peak_memory + other.peak_memory,
        }
    }
}

fn find_binary(name: &str, variable: &str) -> Result<PathBuf> {
    if let Some(path) = env::var_os(variable) {
        let path = PathBuf::from(path);
        ensure!(
            path.is_file(),
            "${variable} names {}, which is no file",
            path.display()
        );
        return Ok(path);
    }
    let executable = env::current_exe()?;
    let folder = executable.parent().context("a program without a folder")?;
    // Test programs live in `deps`, one level below the others.
    let profile = if folder.ends_with("deps") {
        folder.parent()
    } else {
        Some(folder)
    };
    let profile = profile.context("a target folder without a parent")?;
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--locked", "--bin", name]);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let status = cargo
        .status()
        .with_context(|| format!("can't start cargo to build {name}"))?;
    ensure!(status.success(), "{cargo:?}: {status}");
    let binary = profile.join(name);
    ensure!(binary.is_file(), "cargo built no {}", binary.display());
    Ok(binary)
}

fn collect(stream: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // A stream that breaks ends there; the test sees what came before.
            let _ = stream.read_to_end(&mut bytes);
        }
        bytes
    })
}

fn joined(reader: JoinHandle<Vec<u8>>) -> Result<String> {
    let bytes = reader
        .join()
        .map_err(|_| anyhow::anyhow!("a reader of output panicked"))?;
    String::from_utf8(bytes).context("the output is not UTF-8")
}

/// Takes a file out of the page cache, as far as the kernel follows the advice.
pub fn drop_from_page_cache(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    file.sync_all()?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    Ok(())
}

const DEFAULT_TIME_LIMIT: Duration = Duration::from_secs(180);
const POLL_INTERVAL: Duration = Duration::from_millis(2);
