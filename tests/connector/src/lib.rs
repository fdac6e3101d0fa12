//! The reference Connector: gives jobs to agents, and keeps what comes of them.
//!
//! ```text
//!   agents                                                      orchestrator, commands, people
//!     |  gRPC, TLS 1.3                                             |  HTTP, bearer token
//!     v                                                            v
//!  listener --> session (a task each) --> hub <-- http <-----------+
//!     |            |                     (a thread)
//!     |            +--> registry         |       |
//!     +--> authority   (who may come)    v       v
//!                                     machine   store
//!                                     (pure)    (redb: jobs, results, logs)
//! ```
//!
//! It is a tool for small sites and for debugging, and what tests and demonstrations of the agent
//! talk to; it creates no machines and attaches no disks. Whatever comes over a connection is
//! hostile: bounded, checked, and refused with a reason.
#![forbid(unsafe_code)]

pub mod authority;
pub mod cli;
pub mod client;
pub mod commands;
pub mod home;
pub mod http;
pub mod hub;
pub mod ids;
pub mod listener;
pub mod machine;
pub mod private_file;
pub mod registry;
pub mod request;
pub mod result;
pub mod server;
pub mod session;
pub mod store;
pub mod turned_away;
pub mod view;
pub mod wallet;
