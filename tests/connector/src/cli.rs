//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::ids::{AgentId, JobId};

/// A Connector for small sites and for looking closely: it gives jobs to agents and keeps what
/// comes of them.
#[derive(Debug, Parser)]
#[command(name = "ce-connector", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a Connector: its certificate authority and its folder
    Init {
        /// The folder; made if it is not there
        folder: PathBuf,
        /// A DNS name or an address under which agents reach it; may be given several times
        #[arg(long = "name", value_name = "HOST")]
        names: Vec<String>,
    },
    /// Serve agents and commands until interrupted
    Serve(Serve),
    /// Agents that may connect
    Agent {
        /// The Connector's folder
        #[command(flatten)]
        home: Folder,
        /// What to do with them.
        #[command(subcommand)]
        command: Agent,
    },
    /// Tokens that agents may exchange for a certificate, once
    Token {
        /// The Connector's folder
        #[command(flatten)]
        home: Folder,
        /// What to do with them.
        #[command(subcommand)]
        command: Token,
    },
    /// Give a job to the Connector
    Submit {
        /// The Connector's folder
        #[command(flatten)]
        home: Folder,
        /// The job as the orchestrator words it
        request: PathBuf,
        /// The only agent that may have it
        #[arg(long)]
        agent: Option<AgentId>,
        /// Wait for its end; the exit code is 0 if it is complete, and 1 if not
        #[arg(long)]
        wait: bool,
    },
    /// Show the newest jobs
    List {
        /// The Connector's folder
        #[command(flatten)]
        home: Folder,
        /// One JSON object in place of a table
        #[arg(long)]
        json: bool,
    },
    /// Show all of a job, as JSON
    Show(OneJob),
    /// Ask for a job to be stopped
    Cancel(OneJob),
    /// Tell an agent that there is no more work: it ends, and switches its machine off
    Dismiss {
        /// Where.
        #[command(flatten)]
        home: Folder,
        /// The agent
        agent: AgentId,
    },
    /// Show what an agent told of a job
    Logs {
        /// Which.
        #[command(flatten)]
        job: OneJob,
        /// Go on until the job has ended
        #[arg(long)]
        follow: bool,
    },
}

/// Where the Connector is.
#[derive(Args, Debug)]
pub struct Folder {
    /// The Connector's folder
    #[arg(long = "dir", value_name = "DIR", default_value = ".", global = true)]
    pub folder: PathBuf,
}

/// A job of a Connector.
#[derive(Args, Debug)]
pub struct OneJob {
    /// Where.
    #[command(flatten)]
    pub home: Folder,
    /// The job
    pub job: JobId,
}

/// How to serve.
#[derive(Args, Debug)]
pub struct Serve {
    /// Where.
    #[command(flatten)]
    pub home: Folder,
    /// Where agents connect
    #[arg(long, default_value = "[::]:7443")]
    pub listen: SocketAddr,
    /// Where commands and the page are served, without TLS; only an address of the loopback
    #[arg(long, default_value = "127.0.0.1:7480")]
    pub admin: SocketAddr,
    /// Where the orchestrator's calls and the page are served with TLS
    #[arg(long, value_name = "ADDRESS")]
    pub api: Option<SocketAddr>,
    /// How often agents are to be heard of, in seconds
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=300))]
    pub heartbeat: u16,
    /// After how many hours without its agent a job is given up
    #[arg(long, value_name = "HOURS", default_value_t = 24)]
    pub away_limit: u32,
}

/// Agents that may connect.
#[derive(Debug, Subcommand)]
pub enum Agent {
    /// Let an agent in: writes its certificate, key and the CA for it
    Add {
        /// Its name
        name: AgentId,
        /// The folder for its files; `agent-NAME` if not given
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Let an agent in no more
    Remove {
        /// Its name
        name: AgentId,
    },
    /// Show who may connect
    List,
}

/// Tokens.
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token for an agent and print it
    New {
        /// The agent's name
        agent: AgentId,
        /// For how many minutes it is good
        #[arg(long, value_name = "MINUTES", default_value_t = 60,
              value_parser = clap::value_parser!(u32).range(1..=43200))]
        valid_for: u32,
    },
}
