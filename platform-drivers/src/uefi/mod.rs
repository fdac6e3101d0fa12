//! What a Windows that a BIOS starts needs to be started by UEFI: boot files, a boot configuration,
//! and the names of its volumes.
//!
//! ```text
//!  Windows\Boot\EFI, Fonts, Resources --boot_files--> \EFI\Microsoft\Boot, \EFI\Boot\bootx64.efi
//!  Boot\BCD of the BIOS, if readable --bcd----------> \EFI\Microsoft\Boot\BCD
//!  SYSTEM\MountedDevices -------------volumes-------> signature and offset become a GUID
//!  System32\Recovery\ReAgent.xml -----recovery------> likewise
//! ```
//!
//! Everything comes from the image itself, and all of it is made in memory. Where the partitions are is
//! said by the caller, who knows the disk.

use ce_disk::units::ByteCount;
use ce_disk::volume::{PathError, VolumeError, WinPath, WindowsVolume};
use ce_regf::{EditError, FileTime};
use uuid::Uuid;

use crate::apply::{ApplyError, Content, FileChange, PreparedFiles};
use crate::bcd::{BootConfiguration, Device, GptPlace, OldStore};
use crate::hives::{HiveName, HiveSet, LoadedHive};
use crate::inspect::Inspection;
use crate::plan::{BCD, ChangeLine};

mod boot_files;
mod recovery;
mod volumes;

pub use boot_files::BootFiles;

/// A Windows that starts by BIOS, and where its partitions are going to be.
#[derive(Clone, Copy)]
pub struct BiosWindows<'a> {
    /// Its volume.
    pub volume: &'a dyn WindowsVolume,
    /// Its folder on it.
    pub folder: &'a WinPath,
    /// Its hives, of which SYSTEM has to be there.
    pub hives: &'a HiveSet,
    /// What it is.
    pub inspection: &'a Inspection,
    /// What the BIOS starts it from; often the same volume.
    pub system: Option<&'a dyn WindowsVolume>,
}

/// The partitions of the disk as it will be.
#[derive(Clone, Debug)]
pub struct NewPlaces {
    /// The signature of the disk as it was.
    pub signature: u32,
    /// The GUID of the disk.
    pub disk: Uuid,
    /// The EFI system partition.
    pub efi_system: Uuid,
    /// The partition of Windows.
    pub windows: Uuid,
    /// The GUID of the loader's entry, if the old store names none.
    pub loader: Uuid,
    /// The GUID of the entry that resumes Windows, likewise.
    pub resume: Uuid,
    /// Every partition that was there: its first byte, and its GUID if its content stays.
    pub kept: Vec<(u64, Option<Uuid>)>,
}

impl NewPlaces {
    fn place(&self, partition: Uuid) -> GptPlace {
        GptPlace {
            disk: self.disk,
            partition,
        }
    }

    /// Where a partition of the old disk is on the new one, if its content stays.
    fn of(&self, device: Device) -> Option<GptPlace> {
        match device {
            Device::Mbr { signature, start } if signature == self.signature => {
                let mut kept = self.kept.iter();
                let (_, id) = kept.find(|(other, _)| *other == start)?;
                id.map(|id| self.place(id))
            }
            _ => None,
        }
    }
}

/// What has to be written, and what is said about it.
#[derive(Debug)]
pub struct UefiFiles {
    /// On the EFI system partition, and on the volume of Windows.
    pub files: PreparedFiles,
    /// In words.
    pub changes: Vec<ChangeLine>,
}

/// Why a Windows cannot be started by UEFI, or what stood in the way of finding out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UefiError {
    /// A hive cannot be changed.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The image lacks the programs of UEFI.
    #[error("{file} is missing, which UEFI starts Windows by")]
    Missing {
        /// Which one.
        file: WinPath,
    },
    /// Windows is not one of 64 bits.
    #[error("Windows is {found}, and UEFI starts that of 64 bits only")]
    NotX64 {
        /// What it is.
        found: String,
    },
    /// A path that no volume can have.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The store cannot be made.
    #[error("the boot configuration cannot be made")]
    Store(#[from] EditError),
    /// There are more boot files than can be meant.
    #[error("{folder} holds more than {limit} of boot files")]
    TooLarge {
        /// The folder.
        folder: WinPath,
        /// What is the most.
        limit: ByteCount,
    },
    /// A volume cannot be read.
    #[error("a volume cannot be read")]
    Volume(#[from] VolumeError),
}

impl BiosWindows<'_> {
    /// The boot files of the image, with their sizes; nothing is read yet.
    ///
    /// # Errors
    ///
    /// [`UefiError`]: among others when there are none for UEFI.
    pub fn boot_files(&self) -> Result<BootFiles, UefiError> {
        match self.inspection.version.architecture.as_deref() {
            Some("x64") | None => BootFiles::find(self.volume, self.folder),
            Some(other) => Err(UefiError::NotX64 {
                found: other.to_owned(),
            }),
        }
    }

    /// Everything that has to be written, once it is known where the partitions are.
    ///
    /// # Errors
    ///
    /// [`UefiError`].
    pub fn files(
        &self,
        boot_files: &BootFiles,
        places: &NewPlaces,
        now: FileTime,
    ) -> Result<UefiFiles, UefiError> {
        let mut files = PreparedFiles {
            boot: boot_files.read(self.volume)?,
            ..PreparedFiles::default()
        };
        let mut changes = vec![ChangeLine::done(
            ITEM,
            format!(
                "EFI system partition: {} boot files from {}\\Boot",
                files.boot.len(),
                self.folder
            ),
            "UEFI starts them in place of the boot code of the MBR",
        )];
        let (old, found) = self.old_store(places);
        let store = self.configuration(places, old);
        files.boot.push(FileChange {
            path: BCD.parse()?,
            content: Content::Written(store.store(now)?),
        });
        let reason =
            "the boot manager of UEFI has a store of its own, and names partitions by GUID";
        let title = format!("EFI system partition: {BCD} made anew, {found}");
        changes.push(ChangeLine::done(ITEM, title, reason));
        if !store.old.has_recovery() {
            changes.push(ChangeLine {
                outcome: "skipped",
                why: Some("no recovery loader on this disk in the old store".into()),
                ..ChangeLine::done(
                    ITEM,
                    "entry of the recovery environment".into(),
                    "after the first boot, reagentc /enable makes it",
                )
            });
        }
        if let Some(system) = self.hives.hive(HiveName::System) {
            let (changed, lines) = volumes::rename(system, self.volume, places, now)?;
            files.windows.extend(changed);
            changes.extend(lines);
        }
        if let Some((file, line)) = recovery::rename(self.volume, self.folder, places)? {
            files.windows.push(file);
            changes.push(line);
        }
        Ok(UefiFiles { files, changes })
    }

    fn old_store(&self, places: &NewPlaces) -> (OldStore, &'static str) {
        let stores = [self.system, Some(self.volume)];
        for volume in stores.into_iter().flatten() {
            let loaded = OLD_BCD.parse().map(|path| LoadedHive::load(volume, &path));
            if let Ok(Ok(loaded)) = loaded {
                let old = OldStore::read(&loaded.hive, |device| places.of(device));
                return (old, "with what was chosen in that of the BIOS");
            }
        }
        (OldStore::default(), "with the usual settings")
    }

    fn configuration(&self, places: &NewPlaces, old: OldStore) -> BootConfiguration {
        let version = &self.inspection.version;
        let is_server = version
            .installation_type
            .as_deref()
            .is_some_and(|kind| kind.starts_with("Server"));
        BootConfiguration {
            efi_system: places.place(places.efi_system),
            windows: places.place(places.windows),
            folder: format!(r"\{}", self.folder.to_string().trim_start_matches('\\')),
            description: match (is_server, version.build) {
                (true, _) => "Windows Server".into(),
                (false, Some(build)) if build >= WINDOWS_11 => "Windows 11".into(),
                (false, Some(build)) if build < WINDOWS_10 => "Windows 8.1".into(),
                (false, _) => "Windows 10".into(),
            },
            locale: version
                .languages
                .first()
                .map_or("en-US".into(), Clone::clone),
            is_server,
            old,
            loader: places.loader,
            resume: places.resume,
        }
    }
}

/// What the changes are listed under.
pub const ITEM: &str = "convert-to-uefi";

/// The store of a BIOS.
const OLD_BCD: &str = r"Boot\BCD";

/// The first build of Windows 10.
const WINDOWS_10: u32 = 10_240;

/// The first build of Windows 11.
const WINDOWS_11: u32 = 22_000;

#[cfg(test)]
mod tests;
