//! A job: what is asked for, how it is done, and what is said of it afterwards.
//!
//! ```text
//!  command line --+
//!                 +--> JobSpec --> execute --> Job (status, artifacts, error) --> text or JSON
//!  request.json --+
//! ```
//!
//! A job is worded, checked, run and reported in one way, whoever asks for it.

mod backoff;
mod destination;
mod error;
mod execute;
mod export;
mod failure;
mod file_name;
mod inspect;
mod inspection;
mod request;
mod result;
mod share;
mod spec;

pub use destination::{Destination, Share, ShareAccess, guard_secrets, read_credentials};
pub use error::{ErrorCode, FoundBlocker, JobError};
pub(crate) use execute::percent;
pub use execute::{Watch, execute};
pub use inspection::{
    InspectedFinding, InspectedGap, InspectedPartition, InspectedWindows, Inspection,
};
pub use request::{LocalOverrides, Request};
pub use result::{Artifacts, Job, Status, WindowsSummary};
pub use spec::{DiskSpec, ExportSpec, JobSpec, Work};
