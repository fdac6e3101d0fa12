//! The VHDX and VHD image formats: canonical writers and hostile-input readers.
//!
//! ```text
//!  disk --> ContentDigest --> ContentId --+
//!    |                                    v
//!    +----> VhdxWriter::place --> finish(content) --> ClosingStep...      dynamic VHDX
//!    +----> FixedVhdWriter --> footer(content)                            fixed VHD
//!
//!  file --> ImageKind::probe --> VhdxReader | VhdReader --> extent_at, read_at
//! ```
//!
//! The crate does no I/O: writers say what belongs where, readers are given a [`ReadAt`].
//! Differencing disks are neither written nor read.
//!
//! Bytes are hostile: no input panics, loops, or takes memory that the bounds named in the
//! readers' modules do not cover.
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
mod error;
mod format;
mod geometry;
mod header;
mod identity;
mod log;
mod metadata;
mod occupancy;
mod overlay;
mod parent;
mod probe;
mod reader;
mod region;
mod source;
mod units;
mod vhd;
mod writer;
mod zero;

pub use content::{ContentDigest, ContentError, ContentId, PIECE_LENGTH, PieceHash, SAVED_LENGTH};
pub use error::{BlockError, FileReadError, OpenError, ReadError};
pub use geometry::{Geometry, GeometryError, MAX_DISK_SIZE};
pub use probe::ImageKind;
pub use reader::{Extent, VhdxReader};
pub use source::ReadAt;
pub use units::{BlockSize, FileOffset, PayloadBlock, SectorSize, VirtualOffset};
pub use vhd::{FixedVhdWriter, VhdError, VhdReader};
pub use writer::{Closing, ClosingStep, PlaceError, RestoreError, VhdxWriter};
pub use zero::is_zero;
