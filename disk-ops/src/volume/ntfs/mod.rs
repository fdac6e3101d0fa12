//! NTFS: the compressions of its files.

pub mod lznt1;
pub mod xpress;
