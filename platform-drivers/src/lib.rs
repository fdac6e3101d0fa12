//! What Windows needs on each platform, and what the platform that it comes from left in it.
//!
//! The crate sees Windows as files (a `WindowsVolume` of `ce-disk`) and registry hives
//! (`ce-regf`). It knows no block device and no structure of NTFS.
#![forbid(unsafe_code)]

pub mod catalog;
pub mod platform;

pub use catalog::{Catalog, CatalogError};
pub use platform::{Platform, UnknownPlatform};
