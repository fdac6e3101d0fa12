//! The inspect step of a job: everything that is on a disk, and what stands against changing it.
//!
//! ```text
//!  table --> partitions --> volumes: free space, boot files
//!    |                         |
//!    |                         +--> Windows --> hives --> version, drivers, components
//!    |                         |       +------> recovery environments
//!    |                         |                   |
//!    +--> survey <-------------+                   +--> preflight
//!            |                                            |
//!            +---------------> blockers <-----------------+
//! ```
//!
//! Only a disk that cannot be read is a failure. Whatever else is wrong is a finding, and the rest
//! is told all the same.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use ce_disk::block::{BlockRead, DiskKind, Window, probe};
use ce_disk::partition::{ContentKind, Partition, PartitionTable, PartitionType, Scheme};
use ce_disk::units::{ByteCount, ByteOffset};
use ce_disk::volume::{
    FatVolume, FreeMap, NtfsVolume, VolumeError, WindowsInstallation, WindowsVolume, find_recovery,
    find_windows, survey,
};
use ce_platform::Platform;
use ce_platform::hives::HiveSet;
use ce_platform::inspect::{self, BootStore};
use ce_platform::preflight;
use ce_platform::reagent::ReAgent;

use super::failure::{blocker, read_failed, windows_blocker};
use super::inspection::{InspectedFinding, InspectedRecovery, InspectedWindows, Inspection};
use super::{ErrorCode, JobError};

/// Looks at everything on `disk`, which is at `path`.
pub(super) fn inspect_disk(disk: &dyn BlockRead, path: &Path) -> Result<Inspection, JobError> {
    let table = PartitionTable::read(disk).map_err(|error| read_failed(&error))?;
    let mut desk = Desk {
        disk,
        table: &table,
        found: Inspection::new(disk, &table),
        reagents: Vec::new(),
    };
    desk.look_at_volumes()?;
    desk.look_at_windows()?;
    desk.found.firmware = desk.firmware();
    if let Some(reason) = not_writable(path) {
        let note =
            format!("the disk cannot be written to, so that it can be exported only: {reason}");
        desk.found.findings.push(InspectedFinding::note(note));
    }
    Ok(desk.found)
}

/// A disk and what has been found on it so far.
struct Desk<'d> {
    disk: &'d dyn BlockRead,
    table: &'d PartitionTable,
    found: Inspection,
    /// Where each Windows believes its recovery environment to be.
    reagents: Vec<ReAgent>,
}

impl<'d> Desk<'d> {
    fn warn(&mut self, message: String) {
        let warning = InspectedFinding::warning(message);
        if !self.found.findings.contains(&warning) {
            self.found.findings.push(warning);
        }
    }

    /// Keeps what is wrong with a volume as a finding; a disk that cannot be read is a failure.
    fn tolerate(&mut self, partition: Option<u32>, error: &VolumeError) -> Result<(), JobError> {
        if let VolumeError::Block(error) = error {
            return Err(read_failed(error));
        }
        let told = JobError::from_chain(ErrorCode::NtfsDirty, error).message;
        self.warn(format!("{}: {told}", place(partition)));
        Ok(())
    }

    fn window(
        &self,
        start: ByteOffset,
        length: ByteCount,
        number: u32,
    ) -> Result<Window<&'d dyn BlockRead>, VolumeError> {
        Ok(Window::new(
            self.disk,
            start,
            length,
            format!("partition {number}"),
        )?)
    }

    /// Free space and boot files of every volume that is known.
    fn look_at_volumes(&mut self) -> Result<(), JobError> {
        for (index, partition) in self.table.partitions.iter().enumerate() {
            if partition.end() > self.disk.size().end() {
                continue;
            }
            let number = partition.number;
            let window = || self.window(partition.start, partition.length, number);
            let looked_at = match &partition.content {
                Some(ContentKind::Ntfs { .. }) => {
                    window().and_then(NtfsVolume::open).map(|volume| {
                        (
                            FreeMap::read(&volume).and_then(|map| Ok(map.free()?)),
                            boot_store(partition, &volume),
                        )
                    })
                }
                Some(ContentKind::Fat { .. }) => window()
                    .and_then(FatVolume::open)
                    .map(|volume| (volume.free(), boot_store(partition, &volume))),
                _ => continue,
            };
            match looked_at {
                Ok((free, boot)) => {
                    match free {
                        Ok(free) => self.found.partitions[index].free_bytes = Some(free.0),
                        Err(error) => self.tolerate(Some(number), &error)?,
                    }
                    for finding in boot.iter().flat_map(|boot| &boot.findings) {
                        self.warn(format!("partition {number}: {finding}"));
                    }
                    self.found.partitions[index].boot = boot;
                }
                Err(error) => self.tolerate(Some(number), &error)?,
            }
        }
        Ok(())
    }

    /// Every Windows, and everything that stands against changing one.
    fn look_at_windows(&mut self) -> Result<(), JobError> {
        let failed = |error: VolumeError| JobError::from_chain(ErrorCode::DiskReadFailed, &error);
        let survey = survey(&self.disk, self.table).map_err(failed)?;
        self.found
            .blockers
            .extend(survey.blockers.iter().map(blocker));
        for (number, error) in &survey.unreadable {
            let partitions = self.table.partitions.iter();
            let partition = partitions
                .clone()
                .find(|partition| Some(partition.number) == *number);
            match partition {
                Some(partition) => {
                    let damaged = ce_disk::volume::Blocker::unreadable(partition, error);
                    self.found.blockers.push(blocker(&damaged));
                }
                None => self.tolerate(*number, error)?,
            }
        }
        let search = find_windows(&self.disk, self.table).map_err(failed)?;
        for (number, error) in &search.unreadable {
            self.tolerate(*number, error)?;
        }
        let places: Vec<String> = search
            .installations
            .iter()
            .map(|found| format!("{} on {}", found.folder, place(found.partition)))
            .collect();
        if let Some(found) = preflight::one_windows(&places) {
            self.found.blockers.push(windows_blocker(&found));
        }
        for installation in &search.installations {
            if let Err(error) = self.look_at(installation) {
                self.tolerate(installation.partition, &error)?;
            }
        }
        self.look_for_recovery(&search.installations)
    }

    fn look_for_recovery(&mut self, windows: &[WindowsInstallation]) -> Result<(), JobError> {
        let images = find_recovery(&self.disk, self.table, windows)
            .map_err(|error| JobError::from_chain(ErrorCode::DiskReadFailed, &error))?;
        self.found.recovery = images
            .into_iter()
            .map(|image| {
                let reagents = self.reagents.iter();
                // Of several Windows, one that starts it is enough.
                let is_enabled = reagents
                    .filter_map(|reagent| reagent.starts(image.start, &image.path))
                    .max();
                InspectedRecovery {
                    partition: image.partition,
                    path: image.path.to_string(),
                    size_bytes: image.size.0,
                    is_enabled,
                    problem: image.header.err().map(|problem| problem.to_string()),
                }
            })
            .collect();
        Ok(())
    }

    fn look_at(&mut self, installation: &WindowsInstallation) -> Result<(), VolumeError> {
        let number = installation.partition;
        let window = self.window(installation.start, installation.length, number.unwrap_or(0))?;
        let volume = NtfsVolume::open(window)?;
        let folder = &installation.folder;
        self.reagents.extend(ReAgent::read(&volume, folder)?);
        let hives = HiveSet::load(&volume, folder, &inspect::HIVES);
        let inspection = inspect::Inspection::of(&hives);
        let mut blockers = preflight::blockers(&volume, folder, &hives, &inspection);
        let mut partitions = self.found.partitions.iter();
        let free = partitions
            .find(|partition| Some(partition.number) == number)
            .and_then(|partition| partition.free_bytes);
        blockers.extend(free.and_then(|free| preflight::room(&place(number), ByteCount(free))));
        self.found
            .blockers
            .extend(blockers.iter().map(windows_blocker));
        for finding in &inspection.findings {
            self.warn(format!("{folder} on {}: {finding}", place(number)));
        }
        self.found.windows.push(InspectedWindows {
            partition: number,
            folder: folder.to_string(),
            source_platform: inspection.platform().map(Platform::name),
            inspection,
        });
        Ok(())
    }

    /// By what the disk starts, as far as its partitions and boot files tell.
    fn firmware(&self) -> Option<&'static str> {
        let mut boot = self
            .found
            .partitions
            .iter()
            .filter_map(|partition| partition.boot.as_ref());
        if boot.clone().any(BootStore::is_uefi) {
            return Some("UEFI");
        }
        let mut partitions = self.table.partitions.iter();
        match self.table.scheme {
            Scheme::Gpt => partitions
                .any(|partition| partition.kind == PartitionType::EFI_SYSTEM)
                .then_some("UEFI"),
            Scheme::Mbr => (boot.next().is_some()
                || partitions.any(|partition| partition.attributes.active))
            .then_some("BIOS"),
            Scheme::None => None,
        }
    }
}

/// What a machine would start from `volume`, if it can be one that machines start from.
fn boot_store(partition: &Partition, volume: &dyn WindowsVolume) -> Option<BootStore> {
    let may_start = partition.kind == PartitionType::EFI_SYSTEM
        || partition.attributes.active
        || matches!(partition.kind, PartitionType::Mbr(_));
    may_start.then(|| BootStore::find(volume)).flatten()
}

fn place(partition: Option<u32>) -> String {
    partition.map_or("the disk".to_owned(), |number| {
        format!("partition {number}")
    })
}

/// Why `disk` cannot be written to, if it cannot.
fn not_writable(disk: &Path) -> Option<String> {
    if let Ok(DiskKind::Image(_)) = probe(disk) {
        return Some("it is an image file".into());
    }
    let metadata = fs::metadata(disk).ok()?;
    if metadata.file_type().is_block_device() {
        let name = fs::canonicalize(disk).ok()?;
        let name = name.file_name()?.to_str()?;
        let is_read_only = fs::read_to_string(format!("/sys/class/block/{name}/ro")).ok()?;
        return (is_read_only.trim() == "1").then(|| "the device is read-only".into());
    }
    // To open a file for writing changes nothing in it.
    let opened = fs::OpenOptions::new().write(true).open(disk);
    opened.err().map(|error| error.to_string())
}
