//! Carrying out a plan: the hives are edited in memory and saved, and what has to be written to the
//! volumes is the result. Nothing is written here.
//!
//! ```text
//!  EditPlan --+
//!  HiveSet ---+--> apply --> PreparedFiles    hives, their logs, deletions, loaders
//!  volumes ---+       |           |
//!                     |           +--> View   the volumes as they will be, to be proved
//!                     +--> PlanIsStale        an edit that should change something did not
//! ```
//!
//! A hive that changed is written as a whole, and each of its logs is made one that nothing applies
//! (see [`ce_regf::LogFate`]). All of [`PreparedFiles`] has to reach the volume in one step or not at
//! all; that is the writer's part.

use std::fmt;

use ce_disk::units::ByteCount;
use ce_disk::volume::{PathError, VolumeError, WinPath, WindowsVolume};
use ce_regf::{CheckReport, EditError, FileTime, Hive, HiveEditor, LogFate};

use crate::hives::{HiveName, HiveSet, LoadedHive};
use crate::plan::draft::carry_out;
use crate::plan::edit::RegistryEditKind;
use crate::plan::{BCD, BootVolume, Change, EditPlan};

mod view;

pub use view::View;

/// What has to be written.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PreparedFiles {
    /// On the volume of Windows, in this order.
    pub windows: Vec<FileChange>,
    /// On the EFI system partition, in this order.
    pub boot: Vec<FileChange>,
}

impl PreparedFiles {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty() && self.boot.is_empty()
    }

    /// How many bytes all files have that get a new content, each in whole blocks of `block` bytes.
    pub fn written_in_blocks(&self, block: u64) -> u64 {
        let changes = self.windows.iter().chain(&self.boot);
        let lengths = changes.map(|change| match &change.content {
            Content::Deleted | Content::NeutralisedLog => 0,
            Content::Written(bytes) => bytes.len() as u64,
        });
        lengths.map(|length| length.next_multiple_of(block)).sum()
    }
}

/// What becomes of one file.
#[derive(Clone, Eq, PartialEq)]
pub struct FileChange {
    /// The file, or an empty folder to delete.
    pub path: WinPath,
    /// What becomes of it.
    pub content: Content,
}

/// What becomes of a file.
#[derive(Clone, Eq, PartialEq)]
pub enum Content {
    /// It is deleted; a folder is empty by then.
    Deleted,
    /// It is a log of a hive that changed: its first 512 bytes become zeros, its length stays.
    NeutralisedLog,
    /// It has these bytes, and is made if it is not there.
    Written(Vec<u8>),
}

impl fmt::Debug for FileChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.content {
            Content::Deleted => write!(f, "{} deleted", self.path),
            Content::NeutralisedLog => write!(f, "{} neutralised", self.path),
            Content::Written(bytes) => write!(f, "{} = {} bytes", self.path, bytes.len()),
        }
    }
}

/// Why a plan cannot be carried out. Nothing was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// Drivers are missing.
    #[error("the plan has {count} blockers and is not to be carried out")]
    Blocked {
        /// How many.
        count: usize,
    },
    /// A hive is damaged after the edits; it was sound before, or nobody looked.
    #[error("the {hive} hive is not sound after the edits: {finding}")]
    Damaged {
        /// Which one.
        hive: String,
        /// The first thing that is wrong with it.
        finding: String,
    },
    /// A hive cannot be edited.
    #[error("the {hive} hive cannot be changed: {change}")]
    Hive {
        /// Which one.
        hive: String,
        /// By what.
        change: String,
        /// Why.
        #[source]
        source: EditError,
    },
    /// A path that no volume can have.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The plan is not of these hives: what it found undone is done.
    #[error("the plan does not fit: {change} changes nothing")]
    PlanIsStale {
        /// The change.
        change: String,
    },
    /// A volume cannot be read.
    #[error("a volume cannot be read")]
    Volume(#[from] VolumeError),
}

/// Carries out `plan` in memory. `now` becomes the time of the keys and hives that change.
///
/// The hives have to be those that were planned with, with their logs applied; a hive that is dirty
/// still is refused. They are used up, as the largest are too large to be in memory twice.
///
/// # Errors
///
/// [`ApplyError`]. Nothing outside of memory has changed in any case.
pub fn apply(
    plan: &EditPlan,
    mut hives: HiveSet,
    volume: &dyn WindowsVolume,
    boot: Option<BootVolume<'_>>,
    now: FileTime,
) -> Result<PreparedFiles, ApplyError> {
    if !plan.blockers.is_empty() {
        let count = plan.blockers.len();
        return Err(ApplyError::Blocked { count });
    }
    let mut files = PreparedFiles::default();
    for name in [HiveName::System, HiveName::Software, HiveName::Drivers] {
        let edits = plan.to_do().filter_map(|edit| match &edit.change {
            Change::Registry(change) if change.hive == name => {
                Some((change.key.as_str(), &change.change, &edit.change))
            }
            _ => None,
        });
        if let Some(loaded) = hives.take(name) {
            let changed = changed(name.file(), loaded.hive, edits, now)?;
            write_hive(&mut files.windows, volume, &loaded.path, changed)?;
        }
    }
    if let Some(boot) = boot {
        let edits = plan.to_do().filter_map(|edit| match &edit.change {
            Change::BootStore { key, change, .. } => Some((key.as_str(), change, &edit.change)),
            _ => None,
        });
        let changed = changed("BCD", boot.store.clone(), edits, now)?;
        write_hive(&mut files.boot, boot.volume, &BCD.parse()?, changed)?;
    }
    for edit in plan.to_do() {
        match &edit.change {
            Change::Delete { path, .. } => files.windows.push(FileChange {
                path: path.clone(),
                content: Content::Deleted,
            }),
            Change::Task { path, content, .. } | Change::Write { path, content, .. } => {
                files.windows.push(FileChange {
                    path: path.clone(),
                    content: Content::Written(content.clone()),
                })
            }
            Change::CopyLoader { from, to, .. } => {
                if let Some(boot) = boot {
                    files.boot.push(FileChange {
                        path: to.clone(),
                        content: Content::Written(boot.volume.read(from, LARGEST_LOADER)?),
                    });
                }
            }
            Change::BootStore { .. }
            | Change::FirstBoot { .. }
            | Change::Registry(_)
            | Change::Subject { .. } => {}
        }
    }
    Ok(files)
}

/// The files of a hive with these changes of it, and of its logs.
pub(crate) fn hive_with(
    loaded: &LoadedHive,
    volume: &dyn WindowsVolume,
    changes: &[Change],
    now: FileTime,
) -> Result<Vec<FileChange>, ApplyError> {
    let edits = changes.iter().filter_map(|change| match change {
        Change::Registry(edit) => Some((edit.key.as_str(), &edit.change, change)),
        _ => None,
    });
    let name = loaded.path.file_name().unwrap_or_default();
    let mut files = Vec::new();
    let changed = changed(name, loaded.hive.clone(), edits, now)?;
    write_hive(&mut files, volume, &loaded.path, changed)?;
    Ok(files)
}

/// The hive with the edits, saved and checked; `None` when there are none.
fn changed<'p>(
    name: &str,
    mut hive: Hive,
    edits: impl Iterator<Item = (&'p str, &'p RegistryEditKind, &'p Change)>,
    now: FileTime,
) -> Result<Option<(Vec<u8>, LogFate)>, ApplyError> {
    let mut edits = edits.peekable();
    if edits.peek().is_none() {
        return Ok(None);
    }
    let failed = |change: &dyn fmt::Display, source| ApplyError::Hive {
        hive: name.to_owned(),
        change: change.to_string(),
        source,
    };
    let before = damage(&hive.check());
    let mut editor: HiveEditor<'_> = hive.edit(now).map_err(|error| failed(&"editing", error))?;
    for (key, kind, change) in edits {
        let is_changed =
            carry_out(&mut editor, key, kind).map_err(|error| failed(change, error))?;
        if !is_changed {
            let change = change.to_string();
            return Err(ApplyError::PlanIsStale { change });
        }
    }
    let logs = hive
        .save(now)
        .map_err(|error| failed(&"saving", error))?
        .logs;
    // What was broken before may stay so; nothing may be broken anew.
    let after = damage(&hive.check());
    if let Some(finding) = after.into_iter().find(|finding| !before.contains(finding)) {
        let hive = name.to_owned();
        return Err(ApplyError::Damaged { hive, finding });
    }
    Ok(Some((hive.into_bytes(), logs)))
}

fn damage(report: &CheckReport) -> Vec<String> {
    match report.is_sound() {
        true => Vec::new(),
        false => report.findings.iter().map(ToString::to_string).collect(),
    }
}

fn write_hive(
    files: &mut Vec<FileChange>,
    volume: &dyn WindowsVolume,
    path: &WinPath,
    changed: Option<(Vec<u8>, LogFate)>,
) -> Result<(), ApplyError> {
    let Some((bytes, logs)) = changed else {
        return Ok(());
    };
    files.push(FileChange {
        path: path.clone(),
        content: Content::Written(bytes),
    });
    if logs == LogFate::Keep {
        return Ok(());
    }
    for extension in ["LOG", "LOG1", "LOG2"] {
        let log: WinPath = format!("{path}.{extension}").parse()?;
        if volume.exists(&log)? {
            files.push(FileChange {
                path: log,
                content: Content::NeutralisedLog,
            });
        }
    }
    Ok(())
}

const LARGEST_LOADER: ByteCount = ByteCount::mib(64);
