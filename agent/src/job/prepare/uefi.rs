//! A BIOS disk brought to start by UEFI, in an overlay.
//!
//! ```text
//!  MBR, volumes --> plan --> GPT --> FAT32 --> boot files, store --> names of volumes --> overlay
//!                     |
//!                     +--> refused, with the numbers
//! ```
//!
//! The partition that the BIOS starts from is given up only if nothing is on it but what Windows' setup
//! and its shadow copies put there.

use ce_disk::block::{BlockRead, Overlay, Window};
use ce_disk::cancel::Cancel;
use ce_disk::partition::convert::{
    ConversionPlan, ConversionRefused, Fate, SystemPartition, VolumeFacts, plan,
};
use ce_disk::partition::{ContentKind, DiskId, Partition, PartitionTable};
use ce_disk::volume::{
    FatLabel, FatVolume, NtfsVolume, WinPath, WindowsVolume, efi_system_floor, format_fat,
};
use ce_platform::plan::ChangeLine;
use ce_platform::uefi::{BiosWindows, ITEM, NewPlaces, UefiError};
use ce_regf::FileTime;
use uuid::Uuid;

use super::super::failure::{
    apply_failed, fat_write_failed, gpt_write_failed, read_failed, volume_failed,
};
use super::super::{ErrorCode, FoundBlocker, JobError};
use super::guest::{Extent, Guest, Place};
use super::write;

/// Converts the disk that `overlay` shows, on which there is one Windows, and says what was done.
pub(super) fn convert<D: BlockRead>(
    overlay: &Overlay<D>,
    now: FileTime,
    cancel: Cancel,
) -> Result<Vec<ChangeLine>, JobError> {
    let table = PartitionTable::read(overlay).map_err(|error| read_failed(&error))?;
    let place = Place::find(overlay, &table)?;
    let guest = Guest::open(overlay, &place)?;
    let windows = place.number(&table);
    let system = SystemVolume::find(overlay, &table, windows.unwrap_or_default())?;
    let bios = BiosWindows {
        volume: &guest.volume,
        folder: place.folder(),
        hives: &guest.hives,
        inspection: &guest.inspection,
        system: system.as_ref().and_then(|system| system.volume.as_deref()),
    };
    let boot_files = bios.boot_files().map_err(|error| uefi_failed(&error))?;
    let facts = VolumeFacts {
        windows: windows.unwrap_or_default(),
        system: system.as_ref().map(|system| system.facts.clone()),
        efi_system: efi_system_floor(boot_files.size(), table.sector_size),
    };
    let converted =
        plan(overlay.size(), &table, &facts, &mut Uuid::new_v4).map_err(|error| refused(&error))?;
    let places = new_places(&table, &converted, facts.windows)?;
    let made = bios
        .files(&boot_files, &places, now)
        .map_err(|error| uefi_failed(&error))?;
    let short_names = guest.short_names();
    drop(system);
    drop(guest);

    converted
        .gpt
        .write(overlay)
        .map_err(|error| gpt_write_failed(&error))?;
    let efi_system = converted.efi_system().ok_or_else(no_efi_system)?;
    let name = "EFI system partition".to_owned();
    let extent = Extent::new(efi_system.start, efi_system.length, name);
    let (serial, ..) = efi_system.id.as_fields();
    let label = FatLabel {
        name: *b"SYSTEM     ",
        serial,
    };
    format_fat(&extent.of_disk(overlay)?, label).map_err(|error| fat_write_failed(&error))?;
    write::write(
        overlay,
        &place.with_boot(extent),
        made.files,
        short_names,
        cancel,
    )?;
    let mut changes = table_changes(&converted);
    changes.extend(made.changes);
    Ok(changes)
}

/// The partition that a BIOS starts from, if it is not that of Windows.
struct SystemVolume<'d> {
    facts: SystemPartition,
    volume: Option<Box<dyn WindowsVolume + 'd>>,
}

impl<'d> SystemVolume<'d> {
    fn find(
        disk: &'d dyn BlockRead,
        table: &PartitionTable,
        windows: u32,
    ) -> Result<Option<Self>, JobError> {
        let mut partitions = table.partitions.iter();
        let active = partitions.find(|partition| partition.attributes.active);
        let Some(partition) = active.filter(|partition| partition.number != windows) else {
            return Ok(None);
        };
        let volume = Self::open(disk, partition)?;
        let keeps = match &volume {
            Some(volume) => what_stays(volume.as_ref())?,
            None => Some("what is on it is not known".to_owned()),
        };
        Ok(Some(Self {
            facts: SystemPartition {
                number: partition.number,
                keeps,
            },
            volume,
        }))
    }

    /// The volume of a partition, if it is one that is read here and not damaged.
    fn open(
        disk: &'d dyn BlockRead,
        partition: &Partition,
    ) -> Result<Option<Box<dyn WindowsVolume + 'd>>, JobError> {
        let (start, length) = (partition.start, partition.length);
        let name = format!("partition {}", partition.number);
        let window = Window::new(disk, start, length, name).map_err(|e| read_failed(&e))?;
        let opened: Result<Box<dyn WindowsVolume + 'd>, _> = match partition.content {
            Some(ContentKind::Ntfs { .. }) => NtfsVolume::open(window).map(|v| Box::new(v) as _),
            Some(ContentKind::Fat { .. }) => FatVolume::open(window).map(|v| Box::new(v) as _),
            _ => return Ok(None),
        };
        match opened {
            Err(ce_disk::volume::VolumeError::Block(error)) => Err(read_failed(&error)),
            opened => Ok(opened.ok()),
        }
    }
}

/// What is in the root of `volume` beside boot files.
fn what_stays(volume: &dyn WindowsVolume) -> Result<Option<String>, JobError> {
    let failed = |error| volume_failed(&error);
    let image: WinPath = r"Recovery\WindowsRE\Winre.wim"
        .parse()
        .map_err(|error| JobError::from_chain(ErrorCode::Internal, &error))?;
    if volume.exists(&image).map_err(failed)? {
        return Ok(Some("the recovery environment is on it".to_owned()));
    }
    let listed = volume.list(&WinPath::ROOT).map_err(failed)?;
    let other = listed.into_iter().find(|entry| {
        let is_known = OF_SETUP
            .iter()
            .any(|known| entry.name.eq_ignore_ascii_case(known));
        !entry.name.starts_with('$') && entry.name != "." && !is_known
    });
    Ok(other.map(|entry| format!("\\{} is on it", entry.name)))
}

fn new_places(
    table: &PartitionTable,
    converted: &ConversionPlan,
    windows: u32,
) -> Result<NewPlaces, JobError> {
    let Some(DiskId::Signature(signature)) = table.id else {
        // A plan is made of an MBR only, which has one.
        return Err(JobError::new(
            ErrorCode::Internal,
            "an MBR without signature",
        ));
    };
    let windows = converted.of_old(windows).ok_or_else(no_efi_system)?;
    let efi_system = converted.efi_system().ok_or_else(no_efi_system)?;
    let old = converted.partitions.iter();
    let old = old.filter(|partition| partition.old_number.is_some());
    let kept = old.map(|partition| {
        let is_kept = partition.fate == Fate::Kept;
        (partition.start.0, is_kept.then_some(partition.id))
    });
    Ok(NewPlaces {
        signature,
        disk: converted.gpt.disk_guid,
        efi_system: efi_system.id,
        windows: windows.id,
        loader: Uuid::new_v4(),
        resume: Uuid::new_v4(),
        kept: kept.collect(),
    })
}

fn no_efi_system() -> JobError {
    JobError::new(ErrorCode::Internal, "a plan without what it was made for")
}

/// What becomes of the table, in words.
fn table_changes(converted: &ConversionPlan) -> Vec<ChangeLine> {
    let reason = "UEFI starts what is on the EFI system partition of a GPT disk";
    let mut lines = vec![ChangeLine::done(
        ITEM,
        "partition table: GPT in place of MBR".into(),
        reason,
    )];
    for (number, partition) in (1..).zip(&converted.partitions) {
        let (start, length) = (partition.start, partition.length);
        let from = partition.old_number;
        let title = match (partition.fate, from) {
            (Fate::EfiSystem, Some(old)) => format!(
                "partition {number} at {start}, {length:#}: EFI system partition, formatted anew; the \
                 BIOS started from it (partition {old})"
            ),
            (Fate::EfiSystem, None) => {
                format!("partition {number} at {start}, {length:#}: EFI system partition, new")
            }
            (Fate::Reserved, _) => {
                format!("partition {number} at {start}, {length:#}: reserved for Windows, new")
            }
            (Fate::Kept, _) => {
                format!("partition {number} at {start}, {length:#}: kept as it is")
            }
        };
        lines.push(ChangeLine::done(ITEM, title, reason));
    }
    lines
}

/// Why a disk cannot be converted, and what to do about it.
fn refused(error: &ConversionRefused) -> JobError {
    let way_out = match error {
        ConversionRefused::NoRoom { .. } => {
            "Grow the virtual disk by 300 MiB, or shrink the volume of Windows in Windows by as much \
             (Disk Management)."
        }
        ConversionRefused::NoRoomAtEnd { .. } | ConversionRefused::DiskTooSmall { .. } => {
            "Grow the virtual disk by 1 MiB."
        }
        ConversionRefused::NotMbr { .. } => {
            "Make an EFI system partition in Windows Setup (Shift+F10, diskpart), and its boot files: \
             bcdboot C:\\Windows /s S: /f UEFI"
        }
        ConversionRefused::TooManyPartitions { .. } | ConversionRefused::UnknownType { .. } => {
            "Delete partitions that Windows does not need (Disk Management)."
        }
        _ => "Convert it in Windows: mbr2gpt /convert /allowFullOS",
    };
    blocked(
        format!("the disk cannot be converted to UEFI: {error}"),
        way_out,
    )
}

fn uefi_failed(error: &UefiError) -> JobError {
    match error {
        UefiError::Volume(error) => volume_failed(error),
        UefiError::Apply(error) => apply_failed(error),
        UefiError::Missing { .. } | UefiError::TooLarge { .. } => blocked(
            format!("the disk cannot be converted to UEFI: {error}"),
            "Repair Windows (sfc /scannow), and shut it down.",
        ),
        UefiError::NotX64 { .. } => blocked(
            format!("the disk cannot be converted to UEFI: {error}"),
            "Install a Windows of 64 bits.",
        ),
        error => JobError::from_chain(ErrorCode::Internal, error),
    }
}

fn blocked(message: String, way_out: &str) -> JobError {
    let blocker = FoundBlocker {
        code: ErrorCode::NotUefi,
        message,
        way_out: way_out.to_owned(),
    };
    let without = || JobError::new(ErrorCode::Internal, "refused without a reason");
    JobError::refused(vec![blocker]).unwrap_or_else(without)
}

/// What Windows' setup puts into the root of the volume that a BIOS starts from, and what Windows puts
/// on every volume.
const OF_SETUP: [&str; 8] = [
    "Boot",
    "BOOTNXT",
    "BOOTSECT.BAK",
    "bootmgr",
    "bootTel.dat",
    "BOOTSTAT.DAT",
    "Recovery",
    "System Volume Information",
];
