//! `ce-agent daemon`: jobs from a Connector, over a session that the agent opens.
//!
//! ```text
//!  bootstrap --> config --> engine: one loop that owns all state
//!                             |  session::machine   connect, greet, wait
//!                             |  session::outbox    what the Connector has to be told
//!                             |  job::machine       which jobs are taken on
//!                             |  job::journal       what must survive
//!                             +--> thread ce-job    the job that runs
//! ```
//!
//! It listens on nothing. One thread turns the loop; jobs have threads of their own, and writing to
//! the journal is done on another one too.

use std::env;
use std::process::{Command, Stdio};

use tracing::{error, info, warn};
use tracing_subscriber::EnvFilter;

use crate::bootstrap::{self, Discovery, UsedToken};
use crate::cli::DaemonArgs;
use crate::config::{Config, Options};
use crate::job::{ErrorCode, JobError, guard_secrets};
use crate::session::machine::Exit;
use crate::{recover, service, telemetry};

mod confine;
mod engine;
mod offer;
mod scratch_disk;

/// Runs until it is told to stop; returns the exit code.
pub(crate) fn run(args: &DaemonArgs) -> u8 {
    let (mut config, used_token, notes) = match configured(args) {
        Ok(configured) => configured,
        Err(problem) => {
            // There is no log yet.
            eprintln!("error: {problem}");
            return WRONG_USAGE;
        }
    };
    // The words were checked with the rest of the configuration.
    let filter = config
        .log
        .parse()
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let scratch = config.scratch_disk.as_ref().map(scratch_disk::attach);
    // With the configuration in hand, which a platform may keep behind a call that is given up; before
    // there is a second thread.
    let confined = confine::confine();
    let logs = telemetry::start(filter);
    for note in notes {
        info!("{note}");
    }
    if let Err(problem) = confined {
        // A second wall, which not every container lets a process build.
        warn!("the daemon could not give up all the rights that it does not need: {problem}");
    }
    if let Err(problem) = guard_secrets() {
        error!("{problem}");
        return FAILED;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(BLOCKING_THREAD_LIFE)
        .max_blocking_threads(2)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(problem) => {
            error!("no runtime: {problem}");
            return FAILED;
        }
    };
    match scratch {
        None => {}
        Some(Ok(folder)) => {
            info!("scratch is on a disk of its own, in {}", folder.display());
            config.scratch = Ok(folder);
        }
        Some(Err(problem)) => {
            let problem = JobError::from_chain(ErrorCode::ScratchFailed, &problem);
            error!("jobs that change disks are refused; scratch_disk: {problem}");
            config.scratch = Err(problem);
        }
    }
    let unfinished = match &config.scratch {
        Ok(folder) => recover::finish_begun(folder),
        Err(_) => Vec::new(),
    };
    let power_off = config.power_off_command.clone();
    let ended = runtime.block_on(engine::run(config, used_token, logs, unfinished));
    service::stopping();
    match ended {
        Ok(Exit::Stopped) => 0,
        Ok(Exit::Dismissed { power_off: false }) => 0,
        Ok(Exit::Dismissed { power_off: true }) => switch_off(&power_off),
        Ok(Exit::Replaced) => {
            error!(
                code = "ConnectorRejected",
                "another agent has this one's name and took its place"
            );
            FAILED
        }
        Err(problem) => {
            error!("{problem}");
            FAILED
        }
    }
}

/// The configuration, its token if it is to be wiped after use, and what the log is to have about the
/// search.
fn configured(args: &DaemonArgs) -> Result<(Config, Option<UsedToken>, Vec<String>), String> {
    let Discovery { found, mut notes } =
        bootstrap::find(args.config.as_deref()).map_err(|error| with_sources(&error))?;
    let options = Options {
        connectors: args.connector.clone(),
        ca_file: args.ca_file.clone(),
        state: args.state_dir.clone(),
        log: args.log.clone(),
    };
    let environment = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    match Config::build(found.as_ref(), environment, options) {
        Ok(config) => {
            let used_token = found.and_then(|found| {
                notes.push(format!("configured by {}", found.origin));
                found.used_token
            });
            Ok((config, used_token, notes))
        }
        Err(error) => {
            // What is missing may stand where nobody could look.
            notes.insert(0, error.to_string());
            Err(notes.join("\n"))
        }
    }
}

/// An error and what led to it, in one sentence.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

fn switch_off(command: &[String]) -> u8 {
    let Some((program, arguments)) = command.split_first() else {
        warn!(
            "the Connector asks to switch this machine off, and no power_off_command is configured"
        );
        return 0;
    };
    info!(program, "switching this machine off");
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => 0,
        Ok(status) => {
            error!("{program}: {status}");
            FAILED
        }
        Err(problem) => {
            error!("{program}: {problem}");
            FAILED
        }
    }
}

const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;

/// Threads that write to the journal are not kept for the next time.
const BLOCKING_THREAD_LIFE: std::time::Duration = std::time::Duration::from_secs(2);
