//! What Windows needs on each platform, and what the platform that it comes from left in it.
//!
//! The crate sees Windows as files (a `WindowsVolume` of `ce-disk`) and registry hives
//! (`ce-regf`). It knows no block device and no structure of NTFS.
//!
//! ```text
//!  WindowsVolume --> hives    SYSTEM, SOFTWARE ... with their logs applied, in memory
//!                      |
//!                      +----> inspect     what this Windows is and what is installed in it
//!                      |         |
//!                      +---------+------> preflight   what stands against changing it
//!                      |         |
//!       catalog -------+---------+------> plan        every change, with its reason
//!                                           |
//!                                         apply       hives and files to write, in memory
//!                                           |
//!                                         proof       read back by others: does it boot there
//!                                           |
//!                                         streaming   can Citrix Provisioning stream it
//!
//!  reagent: whether the recovery environment is on, and where
//!  uefi: what a Windows of a BIOS disk needs to be started by UEFI, with a new store (bcd)
//! ```
#![forbid(unsafe_code)]

pub mod apply;
pub mod bcd;
pub mod bundle;
pub mod catalog;
pub mod driver_store;
pub mod hives;
pub mod inf;
pub mod inspect;
pub mod package;
pub mod plan;
pub mod platform;
pub mod preflight;
pub mod proof;
pub mod reagent;
pub mod streaming;
pub mod uefi;

pub use catalog::{Catalog, CatalogError};
pub use platform::{Platform, UnknownPlatform};
