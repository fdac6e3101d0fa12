//! The Compositing Engine guest agent.
//!
//! ```text
//!  main --> cli --> job::JobSpec --> job::execute (thread) --> job::Job
//!                                        |                        |
//!                                     progress --> console <------+
//!
//!  daemon: Connector <==> session --> the same jobs
//! ```
//!
//! The crate holds what is policy: which words a request may use, how errors are named, what is
//! printed. What is done to disks lives in `ce-disk`.

mod bootstrap;
mod catalog;
pub mod cli;
mod config;
pub mod console;
mod daemon;
mod drivers;
mod hive;
mod host;
pub mod job;
mod local;
mod recover;
mod resident;
mod service;
mod session;
mod telemetry;

use cli::{Cli, Command};

/// Does what the command line asks for and returns the exit code.
pub fn run(cli: &Cli) -> u8 {
    match &cli.command {
        Command::Catalog(command) => catalog::run(command, cli.output),
        Command::Drivers(command) => drivers::run(command, cli.output),
        Command::Daemon(args) => daemon::run(args),
        Command::Hive(command) => hive::run(command, cli.output),
        Command::Job(command) => local::run(command, cli.output),
        Command::Recover(args) => recover::run(args, cli.output),
    }
}
