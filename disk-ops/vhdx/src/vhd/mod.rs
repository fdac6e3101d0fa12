//! The older VHD format ("Virtual Hard Disk Image Format Specification", version 1.0).
//!
//! ```text
//!  fixed     | data ................................................. | footer |
//!  dynamic   | footer copy | dynamic header | BAT | bitmap, block | ... | footer |
//! ```
//!
//! All integers are big-endian. Fixed files are read and written, dynamic ones read.

mod format;
mod writer;

pub use writer::{FixedVhdWriter, VhdError};
