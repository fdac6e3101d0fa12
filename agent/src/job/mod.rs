//! A job: what is asked for, how it is done, and what is said of it afterwards.
//!
//! ```text
//!  command line --+                                                                 +--> text or JSON
//!                 +--> JobSpec --> execute --> Job (status, artifacts, error) --+
//!  request.json --+                   ^                                            +--> wire --> Connector
//!                 ^                   |
//!  Connector --> wire             driver (thread) <--> machine, journal (which jobs a daemon has)
//! ```
//!
//! A job is worded, checked, run and reported in one way, whoever asks for it.

mod attach;
mod backoff;
pub(crate) mod commit_note;
mod destination;
mod diagnostics;
pub(crate) mod driver;
mod error;
mod execute;
mod export;
mod failure;
mod file_name;
mod inspect;
mod inspection;
pub(crate) mod journal;
pub(crate) mod machine;
mod prepare;
mod publish;
mod request;
mod result;
mod selection;
mod share;
mod spec;
pub mod wire;

pub use attach::AwaitedDisk;
pub use destination::{Destination, Share, ShareAccess, guard_secrets, read_credentials};
pub use diagnostics::DiagnosticsBundle;
pub use error::{ErrorCode, FoundBlocker, JobError};
pub(crate) use execute::percent;
pub use execute::{Watch, execute};
pub use inspection::{
    InspectedFinding, InspectedGap, InspectedPartition, InspectedRecovery, InspectedWindows,
    Inspection,
};
pub(crate) use request::{CHANGING, read_options};
pub use request::{LocalOverrides, Refused, Request};
pub use result::{Artifacts, Job, Status, WindowsSummary};
pub use selection::{Reach, RemoteReach};
pub use spec::{
    ConvertSpec, DiskSpec, ExportSpec, JobSpec, KnownHash, PrepareAndPublishSpec, PrepareSpec,
    PublishSpec, Work,
};
