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

use crate::bootstrap;
use crate::cli::DaemonArgs;
use crate::config::{Config, Options};
use crate::job::guard_secrets;
use crate::session::machine::Exit;
use crate::{recover, service, telemetry};

mod confine;
mod engine;
mod offer;

/// Runs until it is told to stop; returns the exit code.
pub(crate) fn run(args: &DaemonArgs) -> u8 {
    let config = match configured(args) {
        Ok(config) => config,
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
    // With the configuration in hand, for which a disk may have had to be mounted; before there is a
    // second thread.
    let confined = confine::confine();
    let logs = telemetry::start(filter);
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
    let unfinished = recover::finish_begun(&config.scratch);
    let power_off = config.power_off_command.clone();
    let ended = runtime.block_on(engine::run(config, logs, unfinished));
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

fn configured(args: &DaemonArgs) -> Result<Config, String> {
    let found = bootstrap::find(args.config.as_deref()).map_err(|error| {
        let mut text = error.to_string();
        if let Some(source) = std::error::Error::source(&error) {
            text.push_str(&format!(": {source}"));
        }
        text
    })?;
    let options = Options {
        connectors: args.connector.clone(),
        ca_file: args.ca_file.clone(),
        state: args.state_dir.clone(),
        log: args.log.clone(),
    };
    let environment = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Config::build(found.as_ref(), environment, options).map_err(|error| error.to_string())
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
