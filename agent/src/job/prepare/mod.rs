//! The prepare step of a job: makes the Windows on a disk fit for its target, all or nothing.
//!
//! ```text
//!  disk --+--> hash (its own threads) --------------------------------+
//!         |                                                           v
//!         +--> inspect --> plan --> apply --> write --> proof --> hash right? --> commit --> disk
//!              blockers?   drivers  hives in   NTFS, FAT  read back
//!              refuse all  missing? memory     into the   from the
//!              at once     refuse              overlay    overlay
//!                 |          ^
//!                 +--> groundwork: a BIOS disk is converted, the backup of a GPT
//!                      goes to the end of a disk that has grown
//! ```
//!
//! A conversion alone is the same without a plan, and with the proof of how it starts.
//!
//! Everything before the commit works on an overlay in the scratch folder: a prepare that fails, is
//! cancelled or killed leaves the disk as it was. What is committed has been proved before, by
//! readers that did not write it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Instant, SystemTime};

use ce_disk::block::{self, BlockRead, Overlay, WholeDisk};
use ce_disk::partition::PartitionTable;
use ce_disk::partition::gpt::move_backup_to_end;
use ce_disk::progress::Progress;
use ce_disk::scratch::ScratchFolder;
use ce_disk::transaction::Transaction;
use ce_disk::units::ByteCount;
use ce_platform::bundle::{Found, Installer, installers_in, packages_in};
use ce_platform::catalog::{Catalog, Preparation};
use ce_platform::plan::{ChangeLine, EditPlan};
use ce_platform::preflight;
use ce_platform::proof::Proof;
use ce_regf::FileTime;
use tracing::info;

use super::commit_note::Ending;
use super::execute::{Phase, Watch};
use super::export::Control;
use super::failure::{
    begin_failed, cancelled, commit_failed, driver_blocker, gpt_write_failed, read_failed,
    scratch_failed, windows_blocker, writable_failed,
};
use super::inspect::inspect_disk;
use super::inspection::Inspection;
use super::publish::publish_disk;
use super::spec::{
    ConvertSpec, DiskSpec, KnownHash, PrepareAndPublishSpec, PrepareSpec, PublishSpec,
};
use super::{Artifacts, ErrorCode, JobError, execute};

pub(super) mod guest;
mod known_hash;
mod recovery;
mod uefi;
mod write;

use guest::{Guest, Place};
use known_hash::HashCheck;
use recovery::Recovery;

/// Prepares the disk, or with [`PrepareSpec::plan_only`] says what that would be.
pub(super) fn prepare_disk(
    disk: &DiskSpec,
    spec: &PrepareSpec,
    watch: &Watch,
    artifacts: &mut Artifacts,
    warnings: &mut Vec<String>,
) -> Result<(), JobError> {
    if spec.plan_only {
        let overlay = in_memory(disk, watch)?;
        let planned = Desk::new(disk, watch, artifacts).plan(spec, &overlay)?;
        warnings.extend(planned.recovery.warnings);
        return Ok(());
    }
    let transaction = begin(disk, &spec.scratch, watch, warnings)?;
    let mut desk = Desk::new(disk, watch, artifacts);
    let overlay = transaction.disk();
    let is_changed = desk.beside_hash(
        spec.known_hash,
        overlay.base(),
        &watch.progress,
        |desk, _| desk.change(spec, overlay),
    )?;
    desk.commit_if(is_changed, transaction, warnings)
}

/// Prepares the disk, and writes what it becomes as an image before it is changed.
///
/// The image gets its name when the disk has been proved and its hash compared; then the disk is changed.
/// If there is no image, the disk is as it was, unless [`PrepareAndPublishSpec::keep_prepared`] says
/// otherwise.
pub(super) fn prepare_and_publish_disk(
    disk: &DiskSpec,
    spec: &PrepareAndPublishSpec,
    watch: &Watch,
    artifacts: &mut Artifacts,
    warnings: &mut Vec<String>,
) -> Result<(), JobError> {
    let prepare = &spec.prepare;
    if prepare.plan_only {
        return prepare_disk(disk, prepare, watch, artifacts, warnings);
    }
    let transaction = begin(disk, &prepare.scratch, watch, warnings)?;
    let mut desk = Desk::new(disk, watch, artifacts);
    let overlay = transaction.disk();
    // The progress of the job is that of its image.
    let hashed = Progress::default();
    let mut published = Ok(());
    let is_changed = desk.beside_hash(
        prepare.known_hash,
        overlay.base(),
        &hashed,
        |desk, check| {
            let is_changed = desk
                .change(prepare, overlay)
                .map_err(|error| error.of("nothing was published"))?;
            published = desk.publish(&spec.publish, overlay, check, warnings);
            match &published {
                Err(error) if error.code == ErrorCode::Cancelled => Err(error.clone()),
                Err(error) if !spec.keep_prepared => {
                    Err(error.clone().of("not published, and the disk is as it was"))
                }
                _ => Ok(is_changed),
            }
        },
    )?;
    let is_published = published.is_ok();
    desk.shortfall = published
        .err()
        .map(|error| error.of("the disk is prepared, but not published"));
    desk.commit_if(is_changed, transaction, warnings)
        .map_err(|error| match is_published {
            true => error.of("the image is published, but the disk is not prepared"),
            false => error,
        })?;
    desk.shortfall.map_or(Ok(()), Err)
}

/// Brings a BIOS disk to start by UEFI, or with [`ConvertSpec::plan_only`] says what that would be.
pub(super) fn convert_disk(
    disk: &DiskSpec,
    spec: &ConvertSpec,
    watch: &Watch,
    artifacts: &mut Artifacts,
    warnings: &mut Vec<String>,
) -> Result<(), JobError> {
    if spec.plan_only {
        let overlay = in_memory(disk, watch)?;
        return Desk::new(disk, watch, artifacts).convert(&overlay);
    }
    let transaction = begin(disk, &spec.scratch, watch, warnings)?;
    let mut desk = Desk::new(disk, watch, artifacts);
    desk.convert(transaction.disk())?;
    desk.prove_start(transaction.disk())?;
    if desk.groundwork.is_empty() {
        info!("the disk starts by UEFI already");
        return Ok(());
    }
    desk.commit(transaction, warnings)
}

/// The disk, with changes that are never made.
fn in_memory(disk: &DiskSpec, watch: &Watch) -> Result<Overlay<Box<dyn BlockRead>>, JobError> {
    let opened = execute::open(disk)?;
    watch.begin(opened.size());
    Ok(Overlay::in_memory(opened, MOST_IN_MEMORY))
}

/// Begins to change the disk.
fn begin(
    disk: &DiskSpec,
    scratch: &Path,
    watch: &Watch,
    warnings: &mut Vec<String>,
) -> Result<Transaction<Box<dyn WholeDisk>>, JobError> {
    let opened = block::open_writable(&disk.path, &disk.open_options());
    let opened = opened.map_err(|error| writable_failed(&error))?;
    disk.expect_size(&opened)?;
    watch.begin(opened.size());
    let folder = ScratchFolder::open(scratch).map_err(|error| scratch_failed(&error))?;
    if folder.is_volatile() {
        warnings.push(format!(
            "{} is in memory: a commit that a power cut interrupts could not be finished from there",
            scratch.display()
        ));
    }
    let transaction = Transaction::begin(opened, Arc::new(folder), None);
    transaction.map_err(|error| begin_failed(&error))
}

/// A prepare or conversion under way.
struct Desk<'j> {
    disk: &'j DiskSpec,
    watch: &'j Watch,
    artifacts: &'j mut Artifacts,
    /// The time that changed keys get.
    now: FileTime,
    /// What was changed before anything was planned.
    groundwork: Vec<ChangeLine>,
    /// Why the job fails although its disk is to be changed.
    shortfall: Option<JobError>,
    /// What is to be known although the job does not fail.
    warnings: Vec<String>,
}

/// What is to be done, and to what.
struct Planned {
    place: Place,
    preparation: Preparation<'static>,
    plan: EditPlan,
    bundle: Bundle,
    recovery: Recovery,
}

impl<'j> Desk<'j> {
    fn new(disk: &'j DiskSpec, watch: &'j Watch, artifacts: &'j mut Artifacts) -> Self {
        Self {
            disk,
            watch,
            artifacts,
            now: FileTime::from(SystemTime::now()),
            groundwork: Vec::new(),
            shortfall: None,
            warnings: Vec::new(),
        }
    }

    /// Does `step`, with its time among the durations.
    fn timed<T>(
        &mut self,
        phase: Phase,
        step: impl FnOnce(&mut Self) -> Result<T, JobError>,
    ) -> Result<T, JobError> {
        if self.watch.cancel.is_requested() {
            return Err(cancelled());
        }
        self.watch.enter(phase);
        let started = Instant::now();
        let result = step(self);
        self.artifacts.took(phase.name(), started.elapsed());
        result
    }

    /// Does `work`, while `disk`, which it does not change, is compared with its hash if that is known.
    fn beside_hash<T>(
        &mut self,
        known: Option<KnownHash>,
        disk: &dyn BlockRead,
        progress: &Progress,
        work: impl FnOnce(&mut Self, &mut HashCheck<'_>) -> Result<T, JobError>,
    ) -> Result<T, JobError> {
        let job = &self.watch.cancel;
        thread::scope(|scope| {
            let started = Instant::now();
            let mut check = HashCheck::begin(scope, disk, known, progress, job)?;
            let done = work(self, &mut check);
            if done.is_err() {
                check.stop();
            }
            if known.is_some() {
                self.watch.enter(Phase::VerifyHash);
            }
            let verdict = check.wait();
            if known.is_some() {
                self.artifacts
                    .took(Phase::VerifyHash.name(), started.elapsed());
            }
            match (verdict, done) {
                // A wrong disk explains whatever else was found wrong with it.
                (Err(error), _) if error.code != ErrorCode::Cancelled => Err(error),
                (_, Err(error)) | (Err(error), _) => Err(error),
                (Ok(covered), Ok(done)) => {
                    if let (Some(known), Some(covered)) = (known, covered)
                        && self.artifacts.md5_hash.is_none()
                    {
                        self.artifacts.md5_hash = Some(known.md5.to_string());
                        self.artifacts.hashed_bytes = Some(covered.0);
                    }
                    Ok(done)
                }
            }
        })
    }

    /// Writes the image of what the disk becomes; it gets its name when the hash has been compared.
    fn publish(
        &mut self,
        spec: &PublishSpec,
        overlay: &dyn BlockRead,
        check: &mut HashCheck<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<(), JobError> {
        self.timed(Phase::Publish, |desk| {
            let mut control = Control {
                watch: desk.watch,
                cancel: check.dependent(),
                condition: Box::new(|| check.wait().map(drop)),
            };
            let path = &desk.disk.path;
            publish_disk(&mut control, path, overlay, spec, desk.artifacts, warnings)
        })
    }

    /// Everything from the inspection to the proof.
    fn change(
        &mut self,
        spec: &PrepareSpec,
        overlay: &Overlay<Box<dyn WholeDisk>>,
    ) -> Result<bool, JobError> {
        let Planned {
            place,
            preparation,
            plan,
            bundle,
            mut recovery,
        } = self.plan(spec, overlay)?;
        let (files, short_names) = self.timed(Phase::Apply, |desk| {
            let guest = Guest::open(overlay, &place)?;
            let short_names = guest.short_names();
            Ok((guest.carry_out(&plan, desk.now)?, short_names))
        })?;
        let is_changed = !files.is_empty() || !self.groundwork.is_empty() || recovery.is_changed();
        if !files.is_empty() || recovery.is_changed() {
            let cancel = self.watch.cancel.clone();
            self.timed(Phase::Write, |desk| {
                write::expect_room(overlay, &files)?;
                write::write(overlay, &place, files, short_names, cancel.clone())?;
                recovery.write(overlay, &cancel)?;
                desk.tell(&plan, &recovery);
                Ok(())
            })?;
        }
        self.warnings.append(&mut recovery.warnings);
        self.timed(Phase::Proof, |desk| {
            let guest = Guest::open(overlay, &place)?.without_hives();
            let mut proof = guest.proof(&preparation);
            let means = desk.means(spec, &preparation, &bundle);
            proof.extend(recovery.proof(overlay, &means)?);
            desk.judge(proof)?;
            Ok(is_changed)
        })
    }

    /// What it takes to change recovery environments.
    fn means<'o>(
        &self,
        spec: &'o PrepareSpec,
        preparation: &'o Preparation<'o>,
        bundle: &'o Bundle,
    ) -> recovery::Means<'o>
    where
        'j: 'o,
    {
        recovery::Means {
            scratch: &spec.scratch,
            preparation,
            packages: &bundle.packages,
            now: self.now,
            cancel: &self.watch.cancel,
        }
    }

    /// Keeps every change for the result.
    fn tell(&mut self, plan: &EditPlan, recovery: &Recovery) {
        let groundwork = self.groundwork.iter().cloned();
        let changes = groundwork.chain(plan.changes()).chain(recovery.lines());
        self.artifacts.changes = Some(changes.collect());
    }

    /// Everything of a conversion that comes before the proof.
    fn convert<D: BlockRead>(&mut self, overlay: &Overlay<D>) -> Result<(), JobError> {
        let found = self.inspect(overlay)?;
        if !found.blockers.is_empty() || found.windows.len() != 1 {
            return Err(refused(found.blockers));
        }
        self.lay_groundwork(overlay, &found, true)?;
        self.artifacts.changes = Some(self.groundwork.clone());
        Ok(())
    }

    /// Proves that Windows starts by UEFI, on whatever machine.
    fn prove_start(&mut self, disk: &dyn BlockRead) -> Result<(), JobError> {
        self.timed(Phase::Proof, |desk| {
            let table = PartitionTable::read(disk).map_err(|error| read_failed(&error))?;
            let place = Place::find(disk, &table)?;
            desk.judge(Guest::open(disk, &place)?.boot_proof())
        })
    }

    /// Keeps the proof, and fails if it does not hold.
    fn judge(&mut self, proof: Proof) -> Result<(), JobError> {
        let failures = proof.failures.join("; ");
        self.artifacts.proof = Some(proof);
        if failures.is_empty() {
            return Ok(());
        }
        let message = format!("the disk as prepared would not start: {failures}");
        let hint = "the disk is as it was; give the report to support";
        Err(JobError::new(ErrorCode::ProofFailed, message).with_hint(hint))
    }

    fn inspect(&mut self, disk: &dyn BlockRead) -> Result<Inspection, JobError> {
        let found = self.timed(Phase::Inspect, |desk| inspect_disk(disk, &desk.disk.path))?;
        self.artifacts.found(&found);
        Ok(found)
    }

    /// Changes of the disk as a whole, before anything is planned for its Windows.
    fn lay_groundwork<D: BlockRead>(
        &mut self,
        overlay: &Overlay<D>,
        found: &Inspection,
        converts: bool,
    ) -> Result<(), JobError> {
        if converts && not_uefi(found).is_some() {
            let cancel = self.watch.cancel.clone();
            self.groundwork = self.timed(Phase::Convert, |desk| {
                uefi::convert(overlay, desk.now, cancel)
            })?;
            return Ok(());
        }
        let moved = move_backup_to_end(overlay).map_err(|error| gpt_write_failed(&error))?;
        self.groundwork.extend(moved.map(|moved| {
            let title = format!("backup GPT: from {} to {}", moved.from, moved.to);
            let reason = "the disk has grown; Windows sees the new room only before the backup";
            ChangeLine::done("backup-gpt", title, reason)
        }));
        Ok(())
    }

    /// What there is, and what is to be done about it; every reason against it at once.
    fn plan<D: BlockRead>(
        &mut self,
        spec: &PrepareSpec,
        disk: &Overlay<D>,
    ) -> Result<Planned, JobError> {
        let found = self.inspect(disk)?;
        let mut blockers = found.blockers.clone();
        if let Some(evidence) = not_uefi(&found)
            && !spec.convert_to_uefi
        {
            let not_uefi = preflight::Blocker::NotUefi { evidence };
            blockers.push(windows_blocker(&not_uefi));
        }
        let [windows] = found.windows.as_slice() else {
            return Err(refused(blockers));
        };
        let platform = windows.inspection.platform_for(spec.to);
        if platform != Some(spec.to)
            && let Some(found) = preflight::pvs_target(&windows.inspection)
        {
            blockers.push(windows_blocker(&found));
        }
        if !blockers.is_empty() {
            return Err(refused(blockers));
        }
        self.lay_groundwork(disk, &found, spec.convert_to_uefi)?;
        self.timed(Phase::Plan, |desk| {
            let table = PartitionTable::read(disk).map_err(|error| read_failed(&error))?;
            let place = Place::find(disk, &table)?;
            let guest = Guest::open(disk, &place)?;
            let catalog = Catalog::builtin().map_err(|error| {
                JobError::new(ErrorCode::Internal, format!("the catalogues: {error}"))
            })?;
            let from = guest.inspection.platform_for(spec.to);
            let preparation = catalog.preparation(from, spec.to);
            let bundle = bundle(&spec.drivers)?;
            let options = &spec.options;
            let plan = guest.plan(&preparation, options, &bundle, desk.now)?;
            desk.tell(&plan, &Recovery::default());
            let blockers = plan.blockers.iter().map(driver_blocker).collect();
            if let Some(refused) = JobError::refused(blockers) {
                return Err(refused);
            }
            let means = desk.means(spec, &preparation, &bundle);
            let recovery = recovery::plan(disk, &plan.boot_drivers, &means)?;
            desk.tell(&plan, &recovery);
            Ok(Planned {
                place,
                preparation,
                plan,
                bundle,
                recovery,
            })
        })
    }

    /// Makes the changes, if there are any.
    fn commit_if(
        &mut self,
        is_changed: bool,
        transaction: Transaction<Box<dyn WholeDisk>>,
        warnings: &mut Vec<String>,
    ) -> Result<(), JobError> {
        warnings.append(&mut self.warnings);
        if is_changed {
            return self.commit(transaction, warnings);
        }
        info!("the disk is prepared already");
        Ok(())
    }

    fn commit(
        &mut self,
        transaction: Transaction<Box<dyn WholeDisk>>,
        warnings: &mut Vec<String>,
    ) -> Result<(), JobError> {
        self.timed(Phase::Commit, |desk| {
            if let Some(notes) = desk.watch.notes() {
                let ending = Ending {
                    artifacts: desk.artifacts.clone(),
                    error: desk.shortfall.clone(),
                    warnings: warnings.clone(),
                };
                notes.keep(&desk.disk.path, transaction.disk(), ending)?;
            }
            let committed = transaction
                .commit(&desk.watch.cancel, &Progress::default())
                .map_err(|error| commit_failed(&error))?;
            desk.artifacts.changed_bytes = Some(committed.changed.0);
            if committed.cancel_came_too_late {
                warnings.push("the wish to stop came too late: the disk is prepared".into());
            }
            if let Some(error) = committed.leftover {
                let told = JobError::from_chain(ErrorCode::ScratchFailed, &error);
                warnings.push(format!(
                    "the disk is complete, but its journal is still there: {told}"
                ));
            }
            Ok(())
        })
    }
}

/// What may be put in.
#[derive(Debug, Default)]
struct Bundle {
    packages: Vec<Found>,
    installers: Vec<Installer>,
}

/// The packages and installers of all folders.
fn bundle(folders: &[PathBuf]) -> Result<Bundle, JobError> {
    let mut bundle = Bundle::default();
    let failed = |error| {
        JobError::from_chain(ErrorCode::DriverInvalid, &error)
            .with_hint("name a folder with driver packages in it; ce-agent drivers list shows them")
    };
    for folder in folders {
        bundle.packages.extend(packages_in(folder).map_err(failed)?);
        let installers = installers_in(folder).map_err(failed)?;
        bundle.installers.extend(installers);
    }
    Ok(bundle)
}

fn refused(blockers: Vec<super::FoundBlocker>) -> JobError {
    JobError::refused(blockers)
        .unwrap_or_else(|| JobError::new(ErrorCode::NoWindows, "there is no Windows on the disk"))
}

/// What shows that the disk does not start by UEFI, unless it does.
pub(super) fn not_uefi(found: &Inspection) -> Option<String> {
    match found.firmware {
        Some("UEFI") => None,
        Some(other) => Some(format!(
            "{} partition table, {other}",
            found.partition_table
        )),
        None => Some(format!(
            "{} partition table, and no boot files",
            found.partition_table
        )),
    }
}

/// What a plan changes in memory: boot files and hives.
const MOST_IN_MEMORY: ByteCount = ByteCount::mib(1024);
