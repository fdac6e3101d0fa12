//! The registry hives of a Windows, read from its volume.
//!
//! ```text
//!  config\SYSTEM --load--> clean? --yes---------------------------> LoadedHive
//!                            | no, or a broken base block               ^
//!                            v                                          |
//!                 SYSTEM.LOG, .LOG1, .LOG2 --replay, in memory----------+
//! ```
//!
//! Nothing is written: a dirty hive is brought up to date in memory, and that is said
//! ([`LoadedHive::recovery`]). A dirty hive that no log fits is still there to be read, as it is
//! ([`Recovery::NothingApplies`]); to change it would lose what Windows wrote last.

use std::fmt;

use ce_disk::units::ByteCount;
use ce_disk::volume::{VolumeError, WinPath, WindowsVolume};
use ce_regf::{Hive, HiveError, HiveState, LogSlot, LogVerdict, Logs, Replay, ReplayReport};

/// A hive of `System32\config`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum HiveName {
    /// Drivers that are in the driver store, from Windows 10 on.
    Drivers,
    /// Whether the machine belongs to a domain, and to which.
    Security,
    /// What is installed, and which Windows it is.
    Software,
    /// Services, drivers and everything that is needed to start.
    System,
}

impl HiveName {
    /// The name of its file.
    pub fn file(self) -> &'static str {
        match self {
            Self::Drivers => "DRIVERS",
            Self::Security => "SECURITY",
            Self::Software => "SOFTWARE",
            Self::System => "SYSTEM",
        }
    }
}

impl fmt::Display for HiveName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.file())
    }
}

/// A hive in memory.
#[derive(Debug)]
pub struct LoadedHive {
    /// Where it lies on the volume.
    pub path: WinPath,
    /// Its keys and values, up to date as far as that goes.
    pub hive: Hive,
    /// What had to be done for that.
    pub recovery: Recovery,
}

/// How a hive came to be up to date.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Recovery {
    /// Windows had closed it.
    NotNeeded,
    /// Its logs were applied, in memory.
    Applied {
        /// The logs, by the ends of their names, and the number of pages from each.
        logs: Vec<(&'static str, usize)>,
    },
    /// It is dirty, and no log fits: what was written last is missing.
    NothingApplies,
}

/// Why a hive cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HiveProblem {
    /// It is no hive, or a damaged one.
    #[error("{path} cannot be read as a registry hive")]
    Corrupt {
        /// Where it lies on the volume.
        path: WinPath,
        /// What is wrong with it, and where.
        #[source]
        source: HiveError,
    },
    /// There is none.
    #[error("{path} is missing")]
    Missing {
        /// Where it should lie.
        path: WinPath,
    },
    /// The file cannot be read.
    #[error("{path} cannot be read")]
    Unreadable {
        /// Where it lies on the volume.
        path: WinPath,
        /// Why.
        #[source]
        source: VolumeError,
    },
}

impl LoadedHive {
    /// Reads the hive at `path` and, if it is dirty, applies the logs beside it in memory.
    ///
    /// # Errors
    ///
    /// [`HiveProblem`]. A dirty hive that no log fits is none: see [`recovery`](Self::recovery).
    pub fn load(volume: &dyn WindowsVolume, path: &WinPath) -> Result<Self, HiveProblem> {
        let read =
            || read(volume, path)?.ok_or_else(|| HiveProblem::Missing { path: path.clone() });
        // Most are clean, and their logs need not be read.
        match Hive::load(read()?) {
            Ok(hive) if hive.state() == HiveState::Clean => Ok(Self {
                path: path.clone(),
                hive,
                recovery: Recovery::NotNeeded,
            }),
            Ok(_) | Err(_) => Self::recover(volume, path, read()?),
        }
    }

    fn recover(
        volume: &dyn WindowsVolume,
        path: &WinPath,
        primary: Vec<u8>,
    ) -> Result<Self, HiveProblem> {
        let log = |extension: &str| match beside(path, extension) {
            Some(path) => read(volume, &path),
            None => Ok(None),
        };
        let (old, first, second) = (log("LOG")?, log("LOG1")?, log("LOG2")?);
        let logs = Logs {
            log: old.as_deref(),
            log1: first.as_deref(),
            log2: second.as_deref(),
        };
        let (hive, report) =
            Hive::recover(primary, &logs).map_err(|source| HiveProblem::Corrupt {
                path: path.clone(),
                source,
            })?;
        Ok(Self {
            path: path.clone(),
            hive,
            recovery: Recovery::from(&report),
        })
    }
}

impl From<&ReplayReport> for Recovery {
    fn from(report: &ReplayReport) -> Self {
        match report.outcome {
            Replay::NotNeeded => Self::NotNeeded,
            Replay::NothingApplies => Self::NothingApplies,
            Replay::Applied => Self::Applied {
                logs: report
                    .logs
                    .iter()
                    .filter_map(|log| match log.verdict {
                        LogVerdict::Applied { pages, .. } => Some((extension(log.slot), pages)),
                        _ => None,
                    })
                    .collect(),
            },
        }
    }
}

/// What is said of a hive that was not simply clean; empty for one that was.
impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotNeeded => Ok(()),
            Self::NothingApplies => {
                f.write_str("Windows did not close it, and no log beside it fits")
            }
            Self::Applied { logs } => {
                f.write_str("Windows did not close it; in memory brought up to date from ")?;
                for (number, (log, pages)) in logs.iter().enumerate() {
                    let and = if number > 0 { " and " } else { "" };
                    write!(f, "{and}.{log} ({pages} pages)")?;
                }
                Ok(())
            }
        }
    }
}

impl HiveProblem {
    /// The stable code of it.
    pub fn code(&self) -> &'static str {
        "HiveCorrupt"
    }
}

/// The hives of an installation, those that could be read and those that could not.
#[derive(Debug, Default)]
pub struct HiveSet {
    hives: Vec<(HiveName, Result<LoadedHive, HiveProblem>)>,
}

impl HiveSet {
    /// Reads `names` of the Windows in `folder` of `volume`.
    pub fn load(volume: &dyn WindowsVolume, folder: &WinPath, names: &[HiveName]) -> Self {
        let load = |name: HiveName| {
            let path = folder.join(&format!(r"System32\config\{name}"));
            // Only a folder whose path is nearly as long as one can be has none.
            let path = path.unwrap_or_else(|_| folder.clone());
            (name, LoadedHive::load(volume, &path))
        };
        Self {
            hives: names.iter().copied().map(load).collect(),
        }
    }

    /// A hive, if it was asked for and could be read.
    pub fn hive(&self, name: HiveName) -> Option<&LoadedHive> {
        self.all().find_map(|(other, hive)| match hive {
            Ok(hive) if other == name => Some(hive),
            _ => None,
        })
    }

    /// Takes a hive out of the set.
    pub fn take(&mut self, name: HiveName) -> Option<LoadedHive> {
        let is_it = |(other, hive): &(HiveName, Result<_, _>)| *other == name && hive.is_ok();
        let index = self.hives.iter().position(is_it)?;
        self.hives.remove(index).1.ok()
    }

    /// All that were asked for.
    pub fn all(&self) -> impl Iterator<Item = (HiveName, Result<&LoadedHive, &HiveProblem>)> {
        self.hives.iter().map(|(name, hive)| (*name, hive.as_ref()))
    }
}

fn read(volume: &dyn WindowsVolume, path: &WinPath) -> Result<Option<Vec<u8>>, HiveProblem> {
    match volume.read(path, LARGEST_HIVE) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(VolumeError::NotFound { .. } | VolumeError::NotAFolder { .. }) => Ok(None),
        Err(source) => Err(HiveProblem::Unreadable {
            path: path.clone(),
            source,
        }),
    }
}

fn beside(hive: &WinPath, extension: &str) -> Option<WinPath> {
    let name = format!("{}.{extension}", hive.file_name()?);
    hive.parent()?.join(&name).ok()
}

fn extension(slot: LogSlot) -> &'static str {
    match slot {
        LogSlot::Log => "LOG",
        LogSlot::Log1 => "LOG1",
        LogSlot::Log2 => "LOG2",
    }
}

/// Several times what SOFTWARE, the largest hive, has on machines with everything installed.
const LARGEST_HIVE: ByteCount = ByteCount::mib(512);
