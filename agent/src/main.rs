//! `ce-agent`: see the library for what it does.

use std::process::ExitCode;

use ce_agent::cli::{Cli, Command};
use ce_disk::volume::ntfs::write as ntfs;
use ce_disk::volume::wim::tool as wim;
use clap::Parser;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    // Before anything else: processes that confine themselves have to be alone in their threads, and see
    // nothing of the command line or the log.
    if let Some(first) = std::env::args_os().nth(1) {
        if first == ntfs::WORKER_ARGUMENT {
            return ntfs::worker_main();
        }
        if first == wim::WORKER_ARGUMENT {
            return wim::worker_main();
        }
    }
    let cli = Cli::parse();
    // The daemon starts its own, as it is configured.
    if !matches!(cli.command, Command::Daemon(_)) {
        start_logging(cli.output.verbose);
    }
    ExitCode::from(ce_agent::run(&cli))
}

fn start_logging(verbose: u8) {
    let default = match verbose {
        0 => "off",
        1 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_env("CE_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}
