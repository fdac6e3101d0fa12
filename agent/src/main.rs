//! `ce-agent`: see the library for what it does.

use std::process::ExitCode;

use ce_agent::cli::{Cli, Command};
use ce_disk::volume::ntfs::write::{WORKER_ARGUMENT, worker_main};
use clap::Parser;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    // Before anything else: the process that writes NTFS has to be alone in its thread, and sees
    // nothing of the command line or the log.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|first| first == WORKER_ARGUMENT)
    {
        return worker_main();
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
