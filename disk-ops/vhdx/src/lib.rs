//! The VHDX and VHD image formats.
#![forbid(unsafe_code)]
#![warn(clippy::as_conversions, clippy::indexing_slicing, clippy::unwrap_used)]
#![cfg_attr(
    test,
    expect(
        clippy::indexing_slicing,
        reason = "a test that panics is a test that fails"
    )
)]

mod bat;
mod content;
mod format;
mod geometry;
mod header;
mod identity;
mod metadata;
mod region;
mod units;
mod vhd;
mod writer;
mod zero;

pub use content::{ContentDigest, ContentError, ContentId, PIECE_LENGTH, PieceHash, SAVED_LENGTH};
pub use geometry::{Geometry, GeometryError, MAX_DISK_SIZE};
pub use units::{BlockSize, FileOffset, PayloadBlock, SectorSize, VirtualOffset};
pub use vhd::{FixedVhdWriter, VhdError};
pub use writer::{Closing, ClosingStep, PlaceError, RestoreError, VhdxWriter};
pub use zero::is_zero;
