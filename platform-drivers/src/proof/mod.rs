//! The proof that a prepared Windows boots on its target, read back by readers that did not write it.
//!
//! ```text
//!  device of the target
//!    hardware id -> INF -> package -> service -> start type, no override -> file -> machine
//!                              |
//!                              +-> class -> its filters: each a service that starts, with its file
//!  boot configuration -> loader object -> partition of Windows, winload.efi
//!  EFI system partition -> bootmgfw.efi, bootx64.efi
//! ```
//!
//! Hives are read by nt-hive, which shares no code with `ce-regf`; it panics where a hive is damaged
//! in ways that it does not expect, and a panic is a link that does not hold. Every control set has to
//! prove itself. The result is data: every link with what was found; one that does not hold where it
//! has to is a failure.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ce_disk::units::ByteCount;
use ce_disk::volume::{VolumeError, WinPath, WindowsVolume};
use nt_hive::NtHiveError;
use serde::Serialize;
use uuid::Uuid;

use crate::catalog::Preparation;
use crate::catalog::schema::{Action, DeviceRole};
use crate::inspect::Inspection;
use crate::plan::{BCD, BootDriver};

mod boot;
mod device;
mod reader;

use device::Chains;
use reader::SecondReader;

/// What was read back.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// Every device that the target shows.
    pub devices: Vec<Chain>,
    /// Every service that the target boots with.
    pub services: Vec<Chain>,
    /// The filters of the classes of those devices, and of all classes that disks hang on.
    pub filters: Vec<Chain>,
    /// From the firmware to the loader.
    pub boot: Vec<Chain>,
    /// What recovery environments need to see the disk, of those that were changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub recovery: Vec<Chain>,
    /// What is wrong; empty when it boots.
    pub failures: Vec<String>,
}

/// One thing that has to be there, with all that it leads to.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Chain {
    /// What it is.
    pub subject: String,
    /// Whether the target does without it.
    pub is_optional: bool,
    /// Its links, in order; after one that does not hold, there may be none.
    pub links: Vec<Link>,
}

impl Chain {
    fn new(subject: impl Into<String>, is_optional: bool) -> Self {
        Self {
            subject: subject.into(),
            is_optional,
            links: Vec::new(),
        }
    }

    /// Whether all of its links hold.
    pub fn holds(&self) -> bool {
        self.links.iter().all(|link| link.holds)
    }

    /// Adds a link. Says whether it holds.
    fn link(&mut self, name: &'static str, holds: bool, found: impl Into<String>) -> bool {
        self.links.push(Link {
            name,
            holds,
            found: found.into(),
        });
        holds
    }

    fn broken(&self) -> Option<String> {
        let link = self.links.iter().find(|link| !link.holds)?;
        Some(format!("{}: {}: {}", self.subject, link.name, link.found))
    }
}

/// A step of a chain.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Link {
    /// What it is about.
    pub name: &'static str,
    /// Whether it is as it has to be.
    pub holds: bool,
    /// What was found.
    pub found: String,
}

/// What is to be proved.
#[derive(Clone, Copy)]
pub struct Subject<'s> {
    /// What the target needs.
    pub preparation: &'s Preparation<'s>,
    /// What this Windows is.
    pub inspection: &'s Inspection,
    /// Its volume, with what was changed.
    pub volume: &'s dyn WindowsVolume,
    /// The folder of Windows on it.
    pub folder: &'s WinPath,
    /// What it starts from: the EFI system partition, with what was changed.
    pub boot: Option<BootSubject<'s>>,
}

/// The EFI system partition, and the partition that it has to point to.
#[derive(Clone, Copy)]
pub struct BootSubject<'s> {
    /// Its files.
    pub volume: &'s dyn WindowsVolume,
    /// The GUID of the disk.
    pub disk: Uuid,
    /// The GUID of the partition of Windows.
    pub windows: Uuid,
}

/// Why something could not be read back.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("the second reader: {0}")]
    Hive(#[from] NtHiveError),
    #[error("{0}")]
    Volume(#[from] VolumeError),
}

impl Proof {
    /// Reads everything back. What cannot be read is a failure, too.
    pub fn of(subject: &Subject<'_>) -> Self {
        Self::guarded(|| Self::read(subject))
    }

    /// Follows only how it starts, whatever machine it is for: from the firmware to the loader of the
    /// Windows on `windows`. Without `boot` it does not.
    pub fn of_boot(
        inspection: &Inspection,
        windows: &dyn WindowsVolume,
        boot: Option<&BootSubject<'_>>,
    ) -> Self {
        Self::guarded(|| {
            let Some(boot) = boot else {
                return Ok(Self {
                    failures: vec![
                        "there is no EFI system partition with a boot configuration".into(),
                    ],
                    ..Self::default()
                });
            };
            let boot = boot_chains(inspection, windows, boot)?;
            Ok(Self {
                failures: boot.iter().filter_map(Chain::broken).collect(),
                boot,
                ..Self::default()
            })
        })
    }

    /// Follows the drivers that the recovery environment called `name` is to have, and no more of it.
    pub fn of_recovery(name: &str, subject: &Subject<'_>, drivers: &[BootDriver]) -> Self {
        Self::guarded(|| {
            let Some(system) = hive(subject, "SYSTEM")? else {
                return Ok(Self {
                    failures: vec![format!("{name}: the SYSTEM hive is not there")],
                    ..Self::default()
                });
            };
            let chains = Chains {
                subject,
                system: SecondReader::new(&system)?,
                drivers: None,
            };
            let mut recovery = chains.boot_devices(drivers)?;
            for chain in &mut recovery {
                chain.subject = format!("{name}: {}", chain.subject);
            }
            if let Some(drivers) = hive(subject, "DRIVERS")? {
                SecondReader::new(&drivers)?;
            }
            Ok(Self {
                failures: recovery.iter().filter_map(Chain::broken).collect(),
                recovery,
                ..Self::default()
            })
        })
    }

    /// Adds what was proved of something else.
    pub fn extend(&mut self, other: Self) {
        self.devices.extend(other.devices);
        self.services.extend(other.services);
        self.filters.extend(other.filters);
        self.boot.extend(other.boot);
        self.recovery.extend(other.recovery);
        self.failures.extend(other.failures);
    }

    fn guarded(read: impl FnOnce() -> Result<Self, Unreadable>) -> Self {
        let read = catch_unwind(AssertUnwindSafe(read));
        let failed = |failure: String| Self {
            failures: vec![failure],
            ..Self::default()
        };
        match read {
            Ok(Ok(proof)) => proof,
            Ok(Err(error)) => failed(format!("cannot be read back: {error}")),
            Err(_) => failed("cannot be read back: the second reader panicked".to_owned()),
        }
    }

    /// Whether it boots, as far as can be told.
    pub fn holds(&self) -> bool {
        self.failures.is_empty()
    }

    /// Whether one of the devices of this role that the target shows has a driver.
    pub fn has_driver(&self, preparation: &Preparation<'_>, role: DeviceRole) -> bool {
        let items = preparation.target.iter();
        let mut steps = items.flat_map(|item| &item.steps);
        steps.any(|step| match &step.action {
            Action::Device(device) if device.role == role => {
                let mut chains = self.devices.iter();
                chains.any(|chain| chain.subject == device.title.as_str() && chain.holds())
            }
            _ => false,
        })
    }

    /// What is wrong between the firmware and the loader.
    pub fn boot_failures(&self) -> impl Iterator<Item = String> {
        let required = self.boot.iter().filter(|chain| !chain.is_optional);
        required.filter_map(Chain::broken)
    }

    fn read(subject: &Subject<'_>) -> Result<Self, Unreadable> {
        let hive = |name| hive(subject, name);
        // Windows reads it long after the disk, but it has to be a hive. The largest one goes before others
        // come into memory.
        if let Some(software) = hive("SOFTWARE")? {
            SecondReader::new(&software)?;
        }
        let Some(system) = hive("SYSTEM")? else {
            return Ok(Self {
                failures: vec!["the SYSTEM hive is not there".into()],
                ..Self::default()
            });
        };
        let drivers = hive("DRIVERS")?;
        let chains = Chains {
            subject,
            system: SecondReader::new(&system)?,
            drivers: drivers.as_deref().map(SecondReader::new).transpose()?,
        };
        let mut proof = Self {
            devices: chains.devices()?,
            services: chains.services()?,
            filters: chains.filters()?,
            ..Self::default()
        };
        if let Some(boot) = &subject.boot {
            proof.boot = boot_chains(subject.inspection, subject.volume, boot)?;
        }
        let chains = [&proof.devices, &proof.services, &proof.filters, &proof.boot];
        let chains = chains.into_iter().flatten();
        let required = chains.filter(|chain| !chain.is_optional);
        proof.failures = required.filter_map(Chain::broken).collect();
        proof.failures.extend(without_any(subject, &proof));
        Ok(proof)
    }
}

fn boot_chains(
    inspection: &Inspection,
    windows: &dyn WindowsVolume,
    boot: &BootSubject<'_>,
) -> Result<Vec<Chain>, Unreadable> {
    let store = match BCD.parse() {
        Ok(path) => read_if_there(boot.volume, &path)?,
        Err(_) => None,
    };
    boot::chains(inspection, windows, boot, store.as_deref())
}

/// Of the storage controllers, and of the network adapters, one has to have a driver.
fn without_any(subject: &Subject<'_>, proof: &Proof) -> Vec<String> {
    let roles = [
        (DeviceRole::Storage, "storage controller"),
        (DeviceRole::Network, "network adapter"),
    ];
    let without = roles
        .into_iter()
        .filter(|(role, _)| !proof.has_driver(subject.preparation, *role));
    without
        .map(|(_, kind)| format!("no {kind} of the target has a driver"))
        .collect()
}

fn hive(subject: &Subject<'_>, name: &str) -> Result<Option<Vec<u8>>, Unreadable> {
    match subject.folder.join(&format!(r"System32\config\{name}")) {
        Ok(path) => read_if_there(subject.volume, &path),
        Err(_) => Ok(None),
    }
}

fn read_if_there(
    volume: &dyn WindowsVolume,
    path: &WinPath,
) -> Result<Option<Vec<u8>>, Unreadable> {
    match volume.exists(path)? {
        true => Ok(Some(volume.read(path, LARGEST_FILE)?)),
        false => Ok(None),
    }
}

/// Hives and drivers are smaller.
const LARGEST_FILE: ByteCount = ByteCount::mib(512);
