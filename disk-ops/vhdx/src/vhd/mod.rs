//! The older VHD format ("Virtual Hard Disk Image Format Specification", version 1.0).
//!
//! ```text
//!  fixed     | data ................................................. | footer |
//!  dynamic   | footer copy | dynamic header | BAT | bitmap, block | ... | footer |
//! ```
//!
//! All integers are big-endian. Fixed files are read and written, dynamic ones read.

mod dynamic;
mod format;
mod reader;
mod writer;

pub(crate) use format::{FOOTER_COOKIE, FOOTER_LENGTH};
pub use reader::VhdReader;
pub use writer::{FixedVhdWriter, VhdError};
