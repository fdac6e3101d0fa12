//! The publish step of a job: writes a prepared disk as an image that Citrix Provisioning streams.
//!
//! ```text
//!  disk --> inspect --> fit to be streamed? --> export: VHDX, blocks of 32 MiB --> the PVS store
//!           blockers    refuse all at once
//! ```
//!
//! The image is a VHDX as every other, without a parent and with a clean log. It is not registered with
//! PVS, which makes its own files beside it then; the artifact `registration` says how that is done.

use std::path::Path;
use std::time::Instant;

use ce_disk::block::BlockRead;
use ce_disk::partition::PartitionTable;
use ce_disk::units::ByteCount;
use ce_platform::catalog::Catalog;
use ce_platform::streaming::{self, Requirements, StreamPlatform, Unfit};
use ce_platform::{Platform, preflight};

use super::export::{Control, export_disk};
use super::failure::{read_failed, volume_failed, windows_blocker};
use super::inspect::inspect_disk;
use super::prepare::{guest, not_uefi};
use super::spec::PublishSpec;
use super::{Artifacts, ErrorCode, FoundBlocker, JobError};

/// Writes what `disk` reads, the content of the disk at `path`, as an image to be streamed, which gets its
/// name when the condition of `control` holds. Nothing is written if it cannot be streamed.
pub(super) fn publish_disk(
    control: &mut Control<'_>,
    path: &Path,
    disk: &dyn BlockRead,
    spec: &PublishSpec,
    artifacts: &mut Artifacts,
    warnings: &mut Vec<String>,
) -> Result<(), JobError> {
    let started = Instant::now();
    expect_streamable(path, disk, spec.platform, artifacts, warnings)?;
    artifacts.took("fitness", started.elapsed());
    let started = Instant::now();
    export_disk(control, path, disk, &spec.image, artifacts, warnings)?;
    artifacts.took("export", started.elapsed());
    let image = spec.image.destination.image_name().unwrap_or_default();
    artifacts.registration = Some(format!(
        "The image is not registered with Provisioning yet. In PowerShell on a Provisioning server: \
         New-PvsDiskLocator -DiskLocatorName {image} -StoreName STORE -SiteName SITE -VHDX",
    ));
    Ok(())
}

/// Looks at everything that stands against streaming the disk, and refuses it for what does.
fn expect_streamable(
    path: &Path,
    disk: &dyn BlockRead,
    platform: Option<Platform>,
    artifacts: &mut Artifacts,
    warnings: &mut Vec<String>,
) -> Result<(), JobError> {
    let requirements = Requirements::builtin()
        .map_err(|error| JobError::new(ErrorCode::Internal, format!("streaming.toml: {error}")))?;
    let mut refused = Vec::new();
    refused.extend(disk_blocker(disk));
    if disk.size() > LARGEST_IN_STORE {
        warnings.push(format!(
            "the disk has {}: a store of Provisioning on NTFS takes disks of up to {LARGEST_IN_STORE}",
            disk.size()
        ));
    }
    let found = inspect_disk(disk, path)?;
    artifacts.found(&found);
    for blocker in &found.blockers {
        match blocker.code {
            // They stand against changing the disk. It is not changed here.
            ErrorCode::NoSpaceOnVolume => {}
            ErrorCode::PendingReboot => {
                warnings.push(format!("{} {}", blocker.message, blocker.way_out));
            }
            _ => refused.push(blocker.clone()),
        }
    }
    if let Some(evidence) = not_uefi(&found) {
        refused.push(windows_blocker(&preflight::Blocker::NotUefi { evidence }));
    }
    if let [windows] = found.windows.as_slice() {
        let platform = platform.or(windows.inspection.platform());
        let fitness = fitness(disk, requirements, platform)?;
        refused.extend(fitness.refused.into_iter().map(not_streamable));
        let warned = fitness.warnings.into_iter();
        warnings.extend(warned.map(|unfit| format!("{}. {}", unfit.found, unfit.way_out)));
    }
    JobError::refused(refused).map_or(Ok(()), Err)
}

fn fitness(
    disk: &dyn BlockRead,
    requirements: &Requirements,
    platform: Option<Platform>,
) -> Result<streaming::Fitness, JobError> {
    let table = PartitionTable::read(disk).map_err(|error| read_failed(&error))?;
    let place = guest::Place::find(disk, &table)?;
    let guest = guest::Guest::open(disk, &place)?;
    let catalog = Catalog::builtin()
        .map_err(|error| JobError::new(ErrorCode::Internal, format!("the catalogues: {error}")))?;
    let streamed_on = platform.map(|platform| {
        let preparation = catalog.preparation(None, platform);
        let proof = guest.proof(&preparation);
        (platform, preparation, proof)
    });
    let streamed_on = streamed_on
        .as_ref()
        .map(|(platform, preparation, proof)| StreamPlatform {
            platform: *platform,
            preparation,
            proof,
        });
    guest
        .fitness(requirements, streamed_on)
        .map_err(|error| volume_failed(&error))
}

/// Provisioning shows its disks with sectors of 512 bytes, and partition tables count in sectors.
fn disk_blocker(disk: &dyn BlockRead) -> Option<FoundBlocker> {
    let logical = disk.sectors().logical.bytes();
    (logical != 512).then(|| FoundBlocker {
        code: ErrorCode::NotStreamable,
        message: format!("the disk has logical sectors of {logical} bytes, expected 512"),
        way_out: "Take a disk with sectors of 512 bytes.".to_owned(),
    })
}

fn not_streamable(unfit: Unfit) -> FoundBlocker {
    FoundBlocker {
        code: ErrorCode::NotStreamable,
        message: unfit.found,
        way_out: unfit.way_out.to_owned(),
    }
}

const LARGEST_IN_STORE: ByteCount = ByteCount::mib(2 << 20);
