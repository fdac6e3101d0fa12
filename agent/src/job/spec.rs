//! A job that has been checked and can be run.

use std::path::PathBuf;
use std::time::Duration;

use ce_disk::export::{CheckpointInterval, ExportOptions, FreeSpace, ImageFormat};
use ce_disk::units::{ByteCount, SectorSize};
use uuid::Uuid;

use super::destination::Destination;

/// A job, ready to run.
#[derive(Clone, Debug)]
pub struct JobSpec {
    /// Names the job in logs and results.
    pub id: String,
    /// The disk it works on.
    pub disk: DiskSpec,
    /// What is to be done.
    pub work: Work,
    /// How long it may take; for ever if not said.
    pub timeout: Option<Duration>,
    /// What was noticed about the request that does not stand against running it.
    pub warnings: Vec<String>,
}

impl JobSpec {
    /// A job that someone asks for by hand.
    pub fn local(disk: DiskSpec, work: Work) -> Self {
        let id = Uuid::new_v4().to_string();
        Self {
            id,
            disk,
            work,
            timeout: None,
            warnings: Vec::new(),
        }
    }
}

/// Which disk a job works on.
#[derive(Clone, Debug)]
pub struct DiskSpec {
    /// Where it is; empty if the work is on no disk.
    pub path: PathBuf,
    /// The sector size of a raw file, if it is not to be found out.
    pub sector_size: Option<SectorSize>,
    /// Whether a file is to be taken for a raw disk, whatever it looks like.
    pub as_raw: bool,
    /// The size that it must have, if the request names one.
    pub expected_size: Option<ByteCount>,
}

impl DiskSpec {
    /// For work on no disk.
    pub fn none() -> Self {
        Self {
            path: PathBuf::new(),
            sector_size: None,
            as_raw: false,
            expected_size: None,
        }
    }
}

/// The operations.
#[derive(Clone, Debug)]
pub enum Work {
    /// Collect what support needs; into this file, or else into the result.
    Diagnostics(Option<Destination>),
    /// Write the disk as an image.
    Export(ExportSpec),
    /// Compute the MD5 of the disk's content.
    Hash,
    /// Say what is on the disk.
    Inspect,
}

impl Work {
    /// The operation's name in requests and results.
    pub fn operation(&self) -> &'static str {
        match self {
            Self::Diagnostics(_) => "diagnostics",
            Self::Export(_) => "export",
            Self::Hash => "hash",
            Self::Inspect => "inspect",
        }
    }
}

/// What an export writes.
#[derive(Clone, Debug)]
pub struct ExportSpec {
    /// The image file.
    pub destination: Destination,
    /// Its format.
    pub format: ImageFormat,
    /// Whether to compute the MD5.
    pub hash: bool,
    /// Whether the free space of NTFS volumes is left out: zeros in the image.
    pub skip_free_space: bool,
    /// Whether an existing image may be replaced.
    pub overwrite: bool,
    /// Whether to go on with what an earlier run left.
    pub resume: bool,
    /// Whether a run that ends early leaves what a later one can go on with.
    pub keep_partial: bool,
    /// Whether to read the image back and compare it before it gets its name.
    pub verify: bool,
    /// How much of the disk is read between two checkpoints, if not as much as usual.
    pub checkpoint_every: Option<ByteCount>,
}

impl ExportSpec {
    /// How it is to be written, from a disk that does this with its free space.
    pub(super) fn options(&self, free_space: FreeSpace, checkpoints: bool) -> ExportOptions {
        let usual = CheckpointInterval::default();
        let interval = CheckpointInterval {
            data: self.checkpoint_every.unwrap_or(usual.data),
            ..usual
        };
        ExportOptions {
            format: self.format,
            hash: self.hash,
            free_space,
            checkpoints: checkpoints.then_some(interval),
        }
    }
}
