//! Windows images (WIM files), as far as a recovery environment is kept in one.
//!
//! ```text
//!  volume --> find_recovery --> Winre.wim --> header   can it be changed, and if not, why
//!                                  |
//!                                  +--> copy --> tool   its files, read and changed by wimlib's program
//! ```
//!
//! The header is read here. What is inside is packed by LZX and belongs to a tree of its own.

pub mod copy;
pub mod header;
pub mod recovery;
pub mod tool;

pub use copy::{WimCopy, WimCopyError, WimFile, WimImage};
pub use header::{WimHeader, WimProblem};
pub use recovery::{RecoveryImage, find_recovery};
pub use tool::{WimTool, WimToolError};
