//! The files of a Windows volume, read without mounting it, and what is free on it.
//!
//! ```text
//!  partition (a Window of the disk)
//!      |
//!      +--> ntfs::NtfsVolume    folders, metadata, content (also compressed)
//!      |        |
//!      |        +--> find       is there a Windows on it, and in which folder
//!      |        +--> state      dirty, hibernated, BitLocker ...: the blockers, all at once
//!      |        +--> FreeMap    free clusters, streamed from $Bitmap
//!      |        |        |
//!      |        +--> wim |      the recovery environment, a file with an image in it
//!      |                 |
//!      +--> fat::FatVolume      the EFI system partition
//!      |                 |
//!      +-----------------+--> FreeSpaceMask   the disk with its free clusters as zeros
//! ```
//!
//! Nothing here writes to a volume but [`ntfs::write`]. Every byte of a volume may be hostile: tables are bounded before anything
//! is allocated for them, loops end, and what is wrong is an error with its position.

pub mod error;
pub mod fat;
pub mod find;
pub mod memory;
pub mod ntfs;
pub mod path;
pub mod wim;
pub mod windows;

pub use error::VolumeError;
pub use fat::{
    FatEdit, FatLabel, FatVolume, FatWriteError, efi_system_floor, fat_floor, format_fat, write_fat,
};
pub use find::{WindowsInstallation, WindowsSearch, find_windows};
pub use memory::MemoryVolume;
pub use ntfs::blocker::{BitLockerState, Blocker, VolumeState, survey};
pub use ntfs::free::FreeMap;
pub use ntfs::mask::{FreeSpaceMask, MaskError, MaskIdentity, MaskedSpace};
pub use ntfs::meta::{
    DirectoryEntry, FileAttributes, FileId, FileMeta, HardLink, Storage, WindowsTime,
};
pub use ntfs::reparse::{Reparse, WofAlgorithm};
pub use ntfs::{FileReader, NtfsVolume};
pub use path::{PathError, WinPath};
pub use wim::{
    RecoveryImage, WimCopy, WimCopyError, WimFile, WimHeader, WimImage, WimProblem, WimTool,
    WimToolError, find_recovery,
};
pub use windows::WindowsVolume;
