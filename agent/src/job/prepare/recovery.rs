//! The recovery environments of the Windows that is prepared: each gets the drivers that Windows boots with,
//! so that it sees the disk on the target.
//!
//! ```text
//!  find_recovery --> Winre.wim --> copy in scratch --> plan --> apply --> wimlib --> room for it?
//!                       |                                                              |
//!                       |      overlay <-- confined NTFS writer <----------------------+
//!                       |         |
//!                       |         +--> taken out again --> wimlib verifies, nt-hive reads: proof
//!                       |
//!                       +--> skipped, with the reason, if that cannot be done
//! ```
//!
//! Windows starts without it, so that nothing about a file that cannot be changed keeps a prepare from
//! going on. What was changed is proved like all else.
//!
//! The file is changed while it is planned: how long it gets is not known before.

use std::path::Path;
use std::sync::Arc;

use ce_disk::block::{BlockRead, Overlay};
use ce_disk::cancel::Cancel;
use ce_disk::partition::PartitionTable;
use ce_disk::scratch::{ScratchFolder, ScratchFolderError};
use ce_disk::volume::ntfs::write::{
    ConfinedWriter, FileWrite, NtfsWrite, NtfsWriteError, Security, ShortNames, VolumeEdit,
};
use ce_disk::volume::{
    NtfsVolume, PathError, RecoveryImage, VolumeError, WimCopy, WimCopyError, WimFile, WimImage,
    WimTool, WimToolError, WinPath, find_recovery, find_windows,
};
use ce_platform::apply::{ApplyError, Content, FileChange, apply};
use ce_platform::bundle::Found;
use ce_platform::catalog::Preparation;
use ce_platform::hives::{HiveName, HiveSet};
use ce_platform::inspect::Inspection;
use ce_platform::plan::{BootDriver, ChangeLine, JobOptions, Machine, PlanError, plan_recovery};
use ce_platform::proof::{Proof, Subject};
use ce_regf::FileTime;

use super::super::failure::{cancelled, ntfs_write_failed, read_failed, volume_failed};
use super::super::{ErrorCode, JobError};
use super::guest::Extent;
use super::write::neutralised;

/// What it takes to change recovery environments.
pub(super) struct Means<'o> {
    pub(super) scratch: &'o Path,
    pub(super) preparation: &'o Preparation<'o>,
    pub(super) packages: &'o [Found],
    pub(super) now: FileTime,
    pub(super) cancel: &'o Cancel,
}

/// The recovery environments of a disk, and what becomes of them.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    images: Vec<Environment>,
    /// Why some are not changed.
    pub(super) warnings: Vec<String>,
}

#[derive(Debug)]
struct Environment {
    name: String,
    lines: Vec<ChangeLine>,
    /// `None` if it stays as it is.
    change: Option<Changed>,
}

/// One that is changed.
#[derive(Debug)]
struct Changed {
    extent: Extent,
    path: WinPath,
    /// The file as it is to be.
    copy: WimCopy,
    /// What it has then.
    drivers: Vec<BootDriver>,
}

/// Why a recovery environment is left as it is.
#[derive(Debug, thiserror::Error)]
enum NotChanged {
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("{0}")]
    Blocked(String),
    #[error(transparent)]
    Copy(#[from] WimCopyError),
    #[error("the bundle has no package of {0}; what is in the image was not looked at")]
    NoPackage(String),
    #[error(transparent)]
    Path(#[from] PathError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Scratch(#[from] ScratchFolderError),
    #[error(transparent)]
    Tool(#[from] WimToolError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(transparent)]
    Write(#[from] NtfsWriteError),
}

impl NotChanged {
    fn in_words(&self) -> String {
        JobError::from_chain(ErrorCode::Internal, self).message
    }

    /// What fails the job all the same.
    fn fatal(&self, cancel: &Cancel) -> Option<JobError> {
        if cancel.is_requested() {
            return Some(cancelled());
        }
        match self {
            Self::Volume(VolumeError::Block(error))
            | Self::Copy(WimCopyError::Volume(VolumeError::Block(error))) => {
                Some(read_failed(error))
            }
            _ => None,
        }
    }
}

/// Looks at all recovery environments of `disk`, whose Windows boots with `drivers`.
pub(super) fn plan<D: BlockRead>(
    disk: &Overlay<D>,
    drivers: &[BootDriver],
    means: &Means<'_>,
) -> Result<Recovery, JobError> {
    let mut recovery = Recovery::default();
    if drivers.is_empty() {
        return Ok(recovery);
    }
    let table = PartitionTable::read(disk).map_err(|error| read_failed(&error))?;
    let windows = find_windows(disk, &table).map_err(|error| volume_failed(&error))?;
    let found = find_recovery(disk, &table, &windows.installations);
    for image in found.map_err(|error| volume_failed(&error))? {
        let place = image
            .partition
            .map(|number| format!("on partition {number}"));
        let place = place.unwrap_or_else(|| "on the disk".to_owned());
        let mut environment = Environment {
            name: format!("recovery environment {place} ({})", image.path),
            lines: Vec::new(),
            change: None,
        };
        if let Err(error) = environment.plan(disk, &image, drivers, means) {
            if let Some(fatal) = error.fatal(means.cancel) {
                return Err(fatal);
            }
            let is_expected = matches!(error, NotChanged::NoPackage(_));
            recovery.skip(&mut environment, error.in_words(), is_expected);
        }
        recovery.images.push(environment);
    }
    Ok(recovery)
}

impl Recovery {
    /// Every change, and what is not changed.
    pub(super) fn lines(&self) -> impl Iterator<Item = ChangeLine> {
        let lines = self.images.iter().flat_map(|image| &image.lines);
        lines.cloned()
    }

    /// Whether there is something to write.
    pub(super) fn is_changed(&self) -> bool {
        self.images.iter().any(|image| image.change.is_some())
    }

    fn skip(&mut self, environment: &mut Environment, why: String, is_expected: bool) {
        if !is_expected {
            let name = &environment.name;
            self.warnings.push(format!(
                "{name}: it does not get the drivers that Windows boots with: {why}"
            ));
        }
        environment.change = None;
        environment.lines = vec![ChangeLine::skipped(
            ITEM,
            environment.name.clone(),
            REASON,
            why,
        )];
    }

    /// Writes what was planned.
    pub(super) fn write<D: BlockRead>(
        &mut self,
        disk: &Overlay<D>,
        cancel: &Cancel,
    ) -> Result<(), JobError> {
        for mut environment in std::mem::take(&mut self.images) {
            if let Some(changed) = &environment.change {
                let edits = changed
                    .edits()
                    .map_err(|error| JobError::from_chain(ErrorCode::ScratchFailed, &error))?;
                let written = ConfinedWriter::new(changed.extent.of_disk(disk)?, ShortNames::Omit)
                    .with_cancel(cancel.clone())
                    .apply(&edits);
                match written {
                    Ok(_) => {}
                    // That comes before the first write: the files of Windows have taken the room.
                    Err(error @ NtfsWriteError::NoSpace { .. }) => {
                        self.skip(&mut environment, NotChanged::from(error).in_words(), false);
                    }
                    Err(error) => return Err(ntfs_write_failed(&error)),
                }
            }
            self.images.push(environment);
        }
        Ok(())
    }

    /// Takes what was written out of `disk` again, and proves it.
    pub(super) fn proof(
        &mut self,
        disk: &dyn BlockRead,
        means: &Means<'_>,
    ) -> Result<Proof, JobError> {
        let mut proof = Proof::default();
        for environment in &mut self.images {
            // Its copy gives way to the next one.
            let Some(Changed {
                extent,
                path,
                drivers,
                ..
            }) = environment.change.take()
            else {
                continue;
            };
            let read = || -> Result<Proof, NotChanged> {
                let copy = means.take(disk, &extent, &path, 1)?;
                copy.verify()?;
                let (image, folder) = (copy.image()?, folder()?);
                let inspection = Inspection::of(&HiveSet::load(&image, &folder, &HIVES));
                let subject = Subject {
                    preparation: means.preparation,
                    inspection: &inspection,
                    volume: &image,
                    folder: &folder,
                    boot: None,
                };
                Ok(Proof::of_recovery(&environment.name, &subject, &drivers))
            };
            match read() {
                Ok(found) => proof.extend(found),
                Err(error) => {
                    if let Some(fatal) = error.fatal(means.cancel) {
                        return Err(fatal);
                    }
                    let why = error.in_words();
                    let failure = format!("{}: cannot be read back: {why}", environment.name);
                    proof.failures.push(failure);
                }
            }
        }
        Ok(proof)
    }
}

impl Means<'_> {
    /// The file at `path` of a volume, in the scratch folder, which has to have room for `times` of it.
    fn take(
        &self,
        disk: &dyn BlockRead,
        extent: &Extent,
        path: &WinPath,
        times: u64,
    ) -> Result<WimCopy, NotChanged> {
        let tool = WimTool::find()?.with_cancel(self.cancel.clone());
        let scratch = ScratchFolder::open(self.scratch)?;
        let volume = NtfsVolume::open(extent.window(disk).map_err(VolumeError::Block)?)?;
        Ok(WimCopy::take(&volume, path, &scratch, tool, times)?)
    }
}

impl Environment {
    fn plan<D: BlockRead>(
        &mut self,
        disk: &Overlay<D>,
        image: &RecoveryImage,
        drivers: &[BootDriver],
        means: &Means<'_>,
    ) -> Result<(), NotChanged> {
        image.header.clone().map_err(WimCopyError::Problem)?;
        if let Some(missing) = drivers.iter().find(|driver| !driver.is_in_bundle)
            && !drivers.iter().any(|driver| driver.is_in_bundle)
        {
            return Err(NotChanged::NoPackage(missing.service.clone()));
        }
        let name = match image.partition {
            Some(number) => format!("partition {number}"),
            None => "the disk".to_owned(),
        };
        let extent = Extent::new(image.start, image.length, name);
        // The copy, the change of the disk, and the journal of that.
        let copy = means.take(disk, &extent, &image.path, 3)?;
        let (wim, folder) = (copy.image()?, folder()?);
        let mut hives = HiveSet::load(&wim, &folder, &HIVES);
        let inspection = Inspection::of(&hives);
        // A recovery environment need not have the third.
        let needed = |name| matches!(name, HiveName::System | HiveName::Software);
        let mut found = hives.all();
        let broken = found.find(|(name, found)| needed(*name) && found.is_err());
        if let Some((_, Err(problem))) = broken {
            let message = JobError::from_chain(ErrorCode::HiveCorrupt, problem).message;
            return Err(NotChanged::Blocked(message));
        }
        drop(found);
        // It has told which Windows it is.
        hives.take(HiveName::Software);
        let machine = Machine {
            preparation: means.preparation,
            inspection: &inspection,
            volume: &wim,
            folder: &folder,
            boot: None,
            options: &JobOptions::default(),
            bundle: means.packages,
            installers: &[],
            now: means.now,
        };
        let plan = plan_recovery(&machine, drivers, hives)?;
        if let Some(blocker) = plan.blockers.first() {
            return Err(NotChanged::Blocked(blocker.to_string()));
        }
        let lines = plan.changes().into_iter();
        let lines = lines.map(|line| ChangeLine {
            title: format!("{}: {}", self.name, line.title),
            ..line
        });
        if plan.to_do().next().is_some() {
            let hives = HiveSet::load(&wim, &folder, &[HiveName::System, HiveName::Drivers]);
            let files = apply(&plan, hives, &wim, None, means.now)?
                .windows
                .into_iter();
            let files = files.map(|change| file_of(&wim, change));
            copy.put(&files.collect::<Result<Vec<_>, _>>()?)?;
            let changed = Changed {
                extent,
                path: image.path.clone(),
                copy,
                drivers: plan.boot_drivers.clone(),
            };
            let window = changed.extent.window(disk).map_err(VolumeError::Block)?;
            ConfinedWriter::new(window, ShortNames::Omit).check(&changed.edits()?)?;
            self.change = Some(changed);
        }
        self.lines = lines.collect();
        Ok(())
    }
}

impl Changed {
    fn edits(&self) -> Result<[VolumeEdit; 1], WimCopyError> {
        Ok([VolumeEdit::WriteFile(FileWrite {
            path: self.path.clone(),
            content: Arc::new(self.copy.content()?),
            attributes: None,
            times: None,
            security: Security::Inherit,
        })])
    }
}

/// A change of a plan as wimlib is told of it.
fn file_of(image: &WimImage<'_>, change: FileChange) -> Result<WimFile, NotChanged> {
    let path = change.path;
    let content = match change.content {
        Content::Written(content) => content,
        Content::NeutralisedLog => neutralised(image, &path)?,
        Content::Deleted => {
            let why = format!("{path} would have to be deleted");
            return Err(NotChanged::Blocked(why));
        }
    };
    Ok(WimFile { path, content })
}

/// What the folder of a recovery environment is always called.
fn folder() -> Result<WinPath, PathError> {
    "Windows".parse()
}

/// What is changed, and what it takes to know which Windows it is.
const HIVES: [HiveName; 3] = [HiveName::System, HiveName::Software, HiveName::Drivers];

const ITEM: &str = "recovery-environment";
const REASON: &str =
    "without the drivers that Windows boots with it does not see the disk on the target";
