//! The VHDX and VHD image formats.
#![forbid(unsafe_code)]

mod units;

pub use units::SectorSize;
