//! A job that has been checked and can be run.

use std::path::PathBuf;
use std::time::Duration;

use ce_disk::block::{BlockRead, OpenOptions};
use ce_disk::export::{CheckpointInterval, ExportOptions, FreeSpace, ImageFormat, Md5Digest};
use ce_disk::units::{ByteCount, SectorSize};
use ce_platform::Platform;
use ce_platform::plan::JobOptions;
use uuid::Uuid;

use super::attach::AwaitedDisk;
use super::destination::Destination;
use super::{ErrorCode, JobError};

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
    /// Where it is; empty if the work is on no disk, or if it is waited for.
    pub path: PathBuf,
    /// The sector size of a raw file, if it is not to be found out.
    pub sector_size: Option<SectorSize>,
    /// Whether a file is to be taken for a raw disk, whatever it looks like.
    pub as_raw: bool,
    /// The size that it must have, if the request names one.
    pub expected_size: Option<ByteCount>,
    /// What is waited for, if it was not attached when the job was worded.
    pub awaited: Option<AwaitedDisk>,
}

impl DiskSpec {
    /// How it is opened.
    pub(super) fn open_options(&self) -> OpenOptions {
        OpenOptions {
            sector_size: self.sector_size,
            as_raw: self.as_raw,
        }
    }

    /// Refuses a disk of another size than the request names.
    pub(super) fn expect_size(&self, disk: &dyn BlockRead) -> Result<(), JobError> {
        match self.expected_size {
            Some(expected) if expected != disk.size() => Err(JobError::new(
                ErrorCode::DiskNotFound,
                format!(
                    "{} is {} long; disk.sizeBytes says {expected}",
                    disk.name(),
                    disk.size()
                ),
            )
            .with_hint("check that the right disk is selected")),
            _ => Ok(()),
        }
    }

    /// What it is called where people read: by what it is waited for, or where it is.
    pub(super) fn told(&self) -> String {
        match &self.awaited {
            Some(awaited) => awaited.wanted.selector.to_string(),
            None => self.path.display().to_string(),
        }
    }

    /// For work on no disk.
    pub fn none() -> Self {
        Self {
            path: PathBuf::new(),
            sector_size: None,
            as_raw: false,
            expected_size: None,
            awaited: None,
        }
    }
}

/// The operations.
#[derive(Clone, Debug)]
pub enum Work {
    /// Bring the Windows on a BIOS disk to start by UEFI.
    ConvertToUefi(ConvertSpec),
    /// Collect what support needs; into this file, or else into the result.
    Diagnostics(Option<Destination>),
    /// Write the disk as an image.
    Export(ExportSpec),
    /// Compute the MD5 of the disk's content.
    Hash,
    /// Say what is on the disk.
    Inspect,
    /// Make the Windows on the disk fit for a platform.
    Prepare(PrepareSpec),
    /// Make the Windows on the disk fit for a platform, and write what it becomes as an image that Citrix
    /// Provisioning streams.
    PrepareAndPublish(PrepareAndPublishSpec),
    /// Write the disk as an image that Citrix Provisioning streams.
    Publish(PublishSpec),
}

impl Work {
    /// Whether the disk is another one afterwards.
    pub(crate) fn changes_disk(&self) -> bool {
        match self {
            Self::ConvertToUefi(_) | Self::Prepare(_) | Self::PrepareAndPublish(_) => true,
            Self::Diagnostics(_)
            | Self::Export(_)
            | Self::Hash
            | Self::Inspect
            | Self::Publish(_) => false,
        }
    }

    /// The operation's name in requests and results.
    pub fn operation(&self) -> &'static str {
        match self {
            Self::ConvertToUefi(_) => "convertToUefi",
            Self::Diagnostics(_) => "diagnostics",
            Self::Export(_) => "export",
            Self::Hash => "hash",
            Self::Inspect => "inspect",
            Self::Prepare(_) => "prepare",
            Self::PrepareAndPublish(_) => "prepareAndPublish",
            Self::Publish(_) => "publish",
        }
    }

    /// The image of the disk that is written, if one is.
    pub(super) fn image(&self) -> Option<&ExportSpec> {
        match self {
            Self::Export(image) => Some(image),
            Self::PrepareAndPublish(both) => Some(&both.publish.image),
            Self::Publish(publish) => Some(&publish.image),
            Self::ConvertToUefi(_)
            | Self::Diagnostics(_)
            | Self::Hash
            | Self::Inspect
            | Self::Prepare(_) => None,
        }
    }

    /// The same, to be changed.
    pub(super) fn image_mut(&mut self) -> Option<&mut ExportSpec> {
        match self {
            Self::Export(image) => Some(image),
            Self::PrepareAndPublish(both) => Some(&mut both.publish.image),
            Self::Publish(publish) => Some(&mut publish.image),
            Self::ConvertToUefi(_)
            | Self::Diagnostics(_)
            | Self::Hash
            | Self::Inspect
            | Self::Prepare(_) => None,
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

/// What a publish writes.
#[derive(Clone, Debug)]
pub struct PublishSpec {
    /// The image: a VHDX with blocks of [`BlockSize::PROVISIONING`](ce_disk::units::BlockSize).
    pub image: ExportSpec,
    /// Where the disk is streamed, if not on the platform whose tools are in it.
    pub platform: Option<Platform>,
}

/// What a conversion to UEFI does.
#[derive(Clone, Debug)]
pub struct ConvertSpec {
    /// Whether to say what would be done, and write nothing.
    pub plan_only: bool,
    /// Where changes and the journal are kept until they are on the disk.
    pub scratch: PathBuf,
}

/// What a prepare does.
#[derive(Clone, Debug)]
pub struct PrepareSpec {
    /// The target.
    pub to: Platform,
    /// What the disk is known to be.
    pub known_hash: Option<KnownHash>,
    /// What is asked for beyond the platform.
    pub options: JobOptions,
    /// Whether a disk that starts by BIOS is brought to start by UEFI first.
    pub convert_to_uefi: bool,
    /// Folders with driver packages that may be put in.
    pub drivers: Vec<PathBuf>,
    /// Whether to say what would be done, and write nothing.
    pub plan_only: bool,
    /// Where changes and the journal are kept until they are on the disk.
    pub scratch: PathBuf,
}

/// What a prepare and publish in one does.
#[derive(Clone, Debug)]
pub struct PrepareAndPublishSpec {
    /// What becomes of the disk.
    pub prepare: PrepareSpec,
    /// The image that is written of it.
    pub publish: PublishSpec,
    /// Whether the disk is prepared also if the image cannot be written.
    pub keep_prepared: bool,
}

/// The hash that a disk is known by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KnownHash {
    /// The hash.
    pub md5: Md5Digest,
    /// How much of the disk it covers; if not said, all of it, but for zeros that a cloud has
    /// added.
    pub hashed: Option<ByteCount>,
}
