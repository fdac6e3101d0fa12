//! The Compositing Engine guest agent.
//!
//! ```text
//!  main --> cli --> job::JobSpec --> job::execute (thread) --> job::Job
//!                                        |                        |
//!                                     progress --> console <------+
//! ```
//!
//! The crate holds what is policy: which words a request may use, how errors are named, what is
//! printed. What is done to disks lives in `ce-disk`.

pub mod cli;
pub mod console;
pub mod job;
mod local;

pub use local::run;
