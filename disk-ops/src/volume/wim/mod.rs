//! Windows images (WIM files), as far as a recovery environment is kept in one.
//!
//! ```text
//!  volume --> find_recovery --> Winre.wim --> header   can it be changed, and if not, why
//! ```
//!
//! The header is read here. What is inside is packed by LZX and belongs to a tree of its own.

pub mod header;
pub mod recovery;

pub use header::{WimHeader, WimProblem};
pub use recovery::{RecoveryImage, find_recovery};
