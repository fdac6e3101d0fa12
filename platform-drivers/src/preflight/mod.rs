//! What stands against changing a Windows, by its hives and files; the state of its volume is told
//! by `ce_disk::volume::survey`.
//!
//! Everything is found at once. Nothing is repaired, and nothing is written.

use ce_disk::units::ByteCount;
use ce_disk::volume::{WinPath, WindowsVolume};

use crate::hives::{HiveName, HiveSet, Recovery};
use crate::inspect::{Inspection, chain};

mod pending;

pub use pending::PendingWork;

/// Something that has to be settled before a Windows can be changed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Blocker {
    /// A hive that everything else depends on cannot be read.
    #[error("the {hive} hive cannot be read: {problem}")]
    HiveCorrupt {
        /// Which one.
        hive: HiveName,
        /// What is wrong with it, and where.
        problem: String,
    },
    /// Windows did not close a hive, and no log fits.
    #[error(
        "the {hive} hive was not closed by Windows, and no log beside it can bring it up to date"
    )]
    HiveUnrecoverable {
        /// Which one.
        hive: HiveName,
    },
    /// There are several installations, and which one is meant is not known.
    #[error("there are {} installations of Windows on the disk: {}", found.len(), found.join(", "))]
    MultipleWindows {
        /// Where they are.
        found: Vec<String>,
    },
    /// There is too little room on the volume.
    #[error("{volume} has {free:#} free, expected at least {needed:#}")]
    NoSpaceOnVolume {
        /// The volume.
        volume: String,
        /// What is free on it.
        free: ByteCount,
        /// What has to be.
        needed: ByteCount,
    },
    /// There is no installation.
    #[error(
        "there is no Windows on the disk: no NTFS volume with System32\\config\\SYSTEM and a kernel"
    )]
    NoWindows,
    /// The target starts by UEFI, and the disk does not.
    #[error("the disk starts by BIOS ({evidence}), and the target starts by UEFI only")]
    NotUefi {
        /// What shows it.
        evidence: String,
    },
    /// Windows has something left to do at its next start.
    #[error("Windows has work left for its next start: {}", words(evidence))]
    PendingReboot {
        /// What shows it.
        evidence: Vec<PendingWork>,
    },
    /// The target software of Provisioning Services is bound to the network adapter of the source.
    #[error("the Citrix Provisioning target device software is installed: {evidence}")]
    PvsTargetPresent {
        /// What shows it.
        evidence: String,
    },
    /// It is too old.
    #[error("{found} is not supported, expected Windows 8.1, Windows Server 2012 R2 or later")]
    UnsupportedWindows {
        /// Which one it is.
        found: String,
    },
}

impl Blocker {
    /// The stable code of its kind.
    pub fn code(&self) -> &'static str {
        match self {
            Self::HiveCorrupt { .. } => "HiveCorrupt",
            Self::HiveUnrecoverable { .. } => "HiveUnrecoverable",
            Self::MultipleWindows { .. } => "MultipleWindows",
            Self::NoSpaceOnVolume { .. } => "NoSpaceOnVolume",
            Self::NoWindows => "NoWindows",
            Self::NotUefi { .. } => "NotUefi",
            Self::PendingReboot { .. } => "PendingReboot",
            Self::PvsTargetPresent { .. } => "PvsTargetPresent",
            Self::UnsupportedWindows { .. } => "UnsupportedWindows",
        }
    }

    /// The one thing to do about it.
    pub fn way_out(&self) -> &'static str {
        match self {
            Self::HiveCorrupt { .. } => {
                "Take the disk again from a machine that starts, or restore the hive from a backup."
            }
            Self::HiveUnrecoverable { .. } => {
                "Start Windows and shut it down completely with: shutdown /s /t 0"
            }
            Self::MultipleWindows { .. } => {
                "Use a disk with one installation; remove the others or move them to another disk."
            }
            Self::NoSpaceOnVolume { .. } => {
                "Start Windows, make room on the volume (cleanmgr), and shut it down."
            }
            Self::NoWindows => "Select the disk that Windows starts from.",
            Self::NotUefi { .. } => {
                "Convert the disk first (ce-agent convert-to-uefi), or along with it: \
                 --convert-to-uefi, convertToUefi."
            }
            Self::PendingReboot { .. } => {
                "Start Windows, let it finish, restart it until nothing is pending, and shut it down \
                 with: shutdown /s /t 0"
            }
            Self::PvsTargetPresent { .. } => {
                "Uninstall the target device software in Windows; install it again on the target."
            }
            Self::UnsupportedWindows { .. } => "Upgrade Windows first.",
        }
    }
}

/// Looks for everything in the Windows in `folder` of `volume` that stands against changing it.
pub fn blockers(
    volume: &dyn WindowsVolume,
    folder: &WinPath,
    hives: &HiveSet,
    inspection: &Inspection,
) -> Vec<Blocker> {
    let mut blockers = Vec::new();
    for (hive, loaded) in hives.all() {
        match loaded {
            Ok(loaded) if loaded.recovery == Recovery::NothingApplies => {
                blockers.push(Blocker::HiveUnrecoverable { hive });
            }
            Ok(_) => {}
            // Not everything has one, and nothing is changed in it.
            Err(_) if hive == HiveName::Security => {}
            Err(problem) => blockers.push(Blocker::HiveCorrupt {
                hive,
                problem: chain(problem),
            }),
        }
    }
    let version = &inspection.version;
    if version.build.is_some_and(|build| build < OLDEST_BUILD) {
        let found = version.title();
        blockers.push(Blocker::UnsupportedWindows { found });
    }
    let evidence = pending::find(volume, folder, hives, inspection);
    if !evidence.is_empty() {
        blockers.push(Blocker::PendingReboot { evidence });
    }
    blockers
}

/// Whether there is room enough for what has to be written: hives that grow, drivers, boot files.
pub fn room(volume: &str, free: ByteCount) -> Option<Blocker> {
    (free < NEEDED_ROOM).then(|| Blocker::NoSpaceOnVolume {
        volume: volume.to_owned(),
        free,
        needed: NEEDED_ROOM,
    })
}

/// Whether there is exactly one Windows; `found` says where each is.
pub fn one_windows(found: &[String]) -> Option<Blocker> {
    match found {
        [] => Some(Blocker::NoWindows),
        [_] => None,
        _ => Some(Blocker::MultipleWindows {
            found: found.to_vec(),
        }),
    }
}

/// For a target whose machines have other network adapters: whether the target device software of
/// Provisioning Services is there, which stops such a machine while it starts.
pub fn pvs_target(inspection: &Inspection) -> Option<Blocker> {
    let mut components = inspection.components.iter();
    let target = components.find(|component| component.id == "citrix-pvs-target")?;
    let services: Vec<&str> = target.services.iter().map(|found| &*found.name).collect();
    let evidence = match (&target.program, services.as_slice()) {
        (Some(program), _) => program.clone(),
        (None, services) => format!("services {}", services.join(", ")),
    };
    Some(Blocker::PvsTargetPresent { evidence })
}

fn words(evidence: &[PendingWork]) -> String {
    let words: Vec<String> = evidence.iter().map(ToString::to_string).collect();
    words.join("; ")
}

/// Windows 8.1 and Windows Server 2012 R2.
const OLDEST_BUILD: u32 = 9600;

/// Drivers and boot files have a few MiB, hives grow by less.
const NEEDED_ROOM: ByteCount = ByteCount::mib(64);

#[cfg(test)]
mod tests;
