//! Disks and images: where the bytes of a job come from and go to.
//!
//! ```text
//!  transaction  changes of a disk: all or nothing, in a scratch folder until they are made
//!    |
//!  block      a disk that can be read at any position (file, device, VHDX, VHD), or written
//!    |
//!  partition  what lies on it (GPT with both copies, MBR)
//!    |
//!  volume     the files of a Windows volume, and which of its clusters are free
//!    |
//!  export     reader -> digest -> image writer, each on its own thread
//!    |
//!  sink       the file that is written, under a partial name until it is whole
//! ```
//!
//! `discover` lists the disks of this machine and finds the one that a job means.
//!
//! The crate is synchronous and knows nothing of jobs and sessions; of Windows it knows the file
//! system, and what an installation looks like from outside.

pub mod block;
pub mod buffer;
pub mod cancel;
mod confine;
pub mod discover;
pub mod export;
pub mod fault;
pub mod md5;
pub mod partition;
pub mod progress;
pub mod scratch;
pub mod sink;
pub mod transaction;
pub mod units;
pub mod volume;
