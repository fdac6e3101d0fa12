//! The session with a Connector: how it comes about and what is said in it, job by job.
//!
//! ```text
//!  address, identity --> transport (TLS, one call) --> LinkEvent --> daemon's loop
//!                                                                     |        |
//!                                       outbox (what to tell) <-------+     machine (state)
//! ```

pub(crate) mod address;
pub(crate) mod identity;
pub(crate) mod machine;
mod observed;
pub(crate) mod outbox;
pub(crate) mod transport;
