//! Why an export ends early, and why one that was cut can't be taken up again.

use std::io;

use super::checkpoint::CheckpointError;
use crate::block::BlockError;
use crate::sink::SinkError;
use crate::units::{ByteCount, ByteOffset};

/// Why an export or a hash ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// Someone asked for it.
    #[error("cancelled")]
    Cancelled,
    /// No image can hold this disk.
    #[error("{disk} fits no image")]
    Geometry {
        /// The disk's name.
        disk: String,
        /// What stands against it.
        #[source]
        source: ce_vhdx::GeometryError,
    },
    /// The disk could not be read.
    #[error(transparent)]
    Read(#[from] BlockError),
    /// What an earlier export left can't be gone on with.
    #[error("{output} cannot be resumed")]
    Resume {
        /// The output's name.
        output: String,
        /// What stands against it.
        #[source]
        source: ResumeError,
    },
    /// The operating system gave us no thread.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// The image, read back, is not what was written.
    #[error("{output} is not what was written to it: {difference}")]
    Verify {
        /// The output's name.
        output: String,
        /// What was found, and what was expected.
        difference: String,
    },
    /// A VHD cannot hold this disk.
    #[error("{disk} fits no VHD")]
    Vhd {
        /// The disk's name.
        disk: String,
        /// What stands against it.
        #[source]
        source: ce_vhdx::VhdError,
    },
    /// The image could not be written.
    #[error(transparent)]
    Write(#[from] SinkError),
}

/// Why an export can't go on where an earlier one was cut.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// The checkpoint can't be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The export was cut before its first checkpoint.
    #[error("there is no checkpoint beside the partial image")]
    NoCheckpoint,
    /// The checkpoint belongs to an export of another kind.
    #[error("the partial image was written with other options: {option} {was}, now {now}")]
    OptionsDiffer {
        /// The option.
        option: &'static str,
        /// What it was.
        was: String,
        /// What it is now.
        now: String,
    },
    /// The disk is not the one, or not in the state, of which the partial image was made.
    #[error("the disk has changed since the export was cut: {difference}")]
    SourceChanged {
        /// What has changed: what it was, and what it is now.
        difference: String,
    },
    /// The partial image lacks, or has otherwise, what was written just before the checkpoint.
    #[error(
        "the partial image differs from the disk at {offset} of it, {before} before the checkpoint: \
         the disk has changed, or the server has lost what it had accepted"
    )]
    TailDiffers {
        /// The 1 MiB piece of the disk that differs.
        offset: ByteOffset,
        /// How far it begins before the checkpoint.
        before: ByteCount,
    },
}
