//! The files of a Windows volume, read without mounting it.

pub mod ntfs;
pub mod path;

pub use path::{PathError, WinPath};
