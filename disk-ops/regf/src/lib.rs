//! Windows registry hives (regf): read, brought up to date from their logs, edited, checked, saved.
//!
//! This crate turns the bytes of a hive file into keys and values and back. It does no I/O, knows
//! no registry path and takes no clock: the caller passes files as bytes and time as
//! [`FileTime`]. Registry transactions (KTM/CLFS) and the volatile part of a hive, which exist
//! only in a running Windows, are out of its reach.
//!
//! ```text
//!   primary file      LOG, LOG1, LOG2
//!        |                  |
//!        |  Hive::load      |  Hive::recover            layout: hbins and cells are sound
//!        +--------+---------+                           (checked before anything is read)
//!                 v
//!               Hive --- root() --> Key --> Value        reading: every reference is checked
//!                 |  \-- check() --> Findings            the whole structure, once
//!                 |
//!               edit(now) --> HiveEditor                 create, delete, set; free cells reused
//!                 |
//!                 |     \-- import(.reg text)          Hive::export writes such text
//!               save(now) --> bytes + what to do with the log files
//! ```
//!
//! Bytes are hostile: no input panics, loops, or makes this crate allocate more than a small
//! multiple of that input's length. A hive that was loaded and not changed saves byte for byte as
//! it was.
//!
//! The format follows Maxim Suhanov's "Windows registry file format specification"; comments that
//! name a section mean that document.
//!
//! ```
//! use ce_regf::{FileTime, Hive, RegValue, SecurityDescriptor, Version};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let now = FileTime::from_ticks(133_000_000_000_000_000);
//! let mut hive = Hive::new_empty(Version::V1_5, &SecurityDescriptor::for_administrators(), now)?;
//! let mut editor = hive.edit(now)?;
//! editor.create_key(r"ControlSet001\Services\stornvme")?;
//! editor.set_value(r"ControlSet001\Services\stornvme", "Start", &RegValue::dword(0))?;
//! let saved = hive.save(now)?.bytes.to_vec();
//!
//! let again = Hive::load(saved)?;
//! let service = again.root()?.subkey(r"controlset001\services\STORNVME")?.ok_or("no key")?;
//! let start = service.value("start")?.ok_or("no value")?;
//! assert_eq!(start.dword()?, 0);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(
        clippy::as_conversions,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::unwrap_used
    )
)]

mod alloc;
mod big_data;
mod bitmap;
mod check;
mod create;
mod edit;
mod error;
mod format;
mod hive;
mod key;
mod layout;
mod log;
mod name;
mod save;
mod security;
mod subkeys;
mod text;
mod units;
mod upcase;
mod value;
mod walk;

pub use check::{CheckReport, Finding, Severity, check_file};
pub use edit::{EditError, HiveEditor};
pub use error::{Defect, DefectKind, HiveError};
pub use hive::{Hive, HiveState};
pub use key::Key;
pub use log::{LogEnd, LogReport, LogSlot, LogVerdict, Logs, Replay, ReplayReport};
pub use name::{KeyPath, Name, NameRef};
pub use save::{LogFate, Saved, neutralise_log};
pub use security::{InvalidDescriptor, SecurityDescriptor};
pub use subkeys::Subkeys;
pub use text::{
    Encoding, ExportError, ExportOptions, ImportError, ImportReport, RegEdit, RegScript, TextError,
};
pub use units::{CellOffset, FileOffset, FileTime, Version};
pub use value::{RegValue, Value, ValueType, Values};
pub use walk::{Walk, WalkedKey};
