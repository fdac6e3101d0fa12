//! Does the work of a job, on the thread it is called on.

use std::borrow::Cow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use ce_disk::block::{self, BlockRead};
use ce_disk::cancel::Cancel;
use ce_disk::discover::DiskSelector;
use ce_disk::export;
use ce_disk::progress::Progress;
use ce_disk::units::ByteCount;
use tracing::{info, warn};

use super::attach::await_disk;
use super::commit_note::CommitNotes;
use super::export::{Control, export_disk};
use super::failure::{export_failed, open_failed};
use super::inspect::inspect_disk;
use super::prepare::{convert_disk, prepare_and_publish_disk, prepare_disk};
use super::publish::publish_disk;
use super::spec::{DiskSpec, JobSpec, Work};
use super::{Artifacts, ErrorCode, Job, JobError, Status, diagnostics};

/// What others see of a job while it runs, and how they stop it.
#[derive(Debug, Default)]
pub struct Watch {
    /// Stops the job.
    pub cancel: Cancel,
    /// How much of the disk is dealt with.
    pub progress: Progress,
    total: OnceLock<ByteCount>,
    /// How much of the image has been read back, once that has begun.
    verified: OnceLock<Progress>,
    /// How many phases of a prepare have begun.
    phases: AtomicUsize,
    /// Whether a disk that was waited for is there.
    has_disk: AtomicBool,
    /// Where it is noted that a change is about to be committed.
    notes: Option<CommitNotes>,
}

/// The phases of a prepare, in their order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    Inspect,
    Convert,
    Plan,
    Apply,
    Write,
    Proof,
    Publish,
    VerifyHash,
    Commit,
}

impl Phase {
    const ALL: [Self; 9] = [
        Self::Inspect,
        Self::Convert,
        Self::Plan,
        Self::Apply,
        Self::Write,
        Self::Proof,
        Self::Publish,
        Self::VerifyHash,
        Self::Commit,
    ];

    /// What it is called in progress and durations.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Inspect => "inspect",
            Self::Convert => "convert",
            Self::Plan => "plan",
            Self::Apply => "apply",
            Self::Write => "write",
            Self::Proof => "proof",
            Self::Publish => "publish",
            Self::VerifyHash => "verifyHash",
            Self::Commit => "commit",
        }
    }
}

impl Watch {
    /// A watch of a job whose commit is noted, so that a crash can be told from its disk.
    pub(crate) fn with_notes(notes: CommitNotes) -> Self {
        Self {
            notes: Some(notes),
            ..Self::default()
        }
    }

    /// Where to note a commit, if anywhere.
    pub(super) fn notes(&self) -> Option<&CommitNotes> {
        self.notes.as_ref()
    }

    /// The disk that a job waits for, as its request names it.
    pub(crate) fn awaited_disk<'s>(&self, spec: &'s JobSpec) -> Option<&'s DiskSelector> {
        let awaited = spec.disk.awaited.as_ref();
        let awaited = awaited.filter(|_| !self.has_disk.load(Ordering::Relaxed));
        awaited.map(|awaited| &awaited.wanted.selector)
    }

    /// The step of a job that is under way, and how far it is.
    pub(crate) fn step(&self, spec: &JobSpec) -> (&'static str, ByteCount) {
        if self.awaited_disk(spec).is_some() {
            return (WAITING, ByteCount(0));
        }
        match (self.verified.get(), self.phase()) {
            (Some(verified), _) => ("verify", verified.done()),
            (None, Some(phase)) => (phase.name(), self.progress.done()),
            (None, None) => (spec.work.operation(), self.progress.done()),
        }
    }

    /// Notes the size of the disk. A watch belongs to one job, and so to one disk.
    pub(super) fn begin(&self, total: ByteCount) {
        self.total.get_or_init(|| total);
    }

    /// Notes that a phase of a prepare begins.
    pub(super) fn enter(&self, phase: Phase) {
        self.phases.fetch_max(phase as usize + 1, Ordering::Relaxed);
    }

    fn phase(&self) -> Option<Phase> {
        let begun = self.phases.load(Ordering::Relaxed);
        Phase::ALL.get(begun.checked_sub(1)?).copied()
    }

    fn phases_percent(&self) -> u8 {
        let begun = self.phases.load(Ordering::Relaxed).saturating_sub(1) as u64;
        percent(ByteCount(begun), ByteCount(Phase::ALL.len() as u64))
    }

    pub(super) fn begin_verify(&self) -> &Progress {
        self.verified.get_or_init(Progress::default)
    }

    /// How much of the whole job is done, in percent.
    pub(crate) fn overall_percent(&self, work: &Work) -> u8 {
        let total = self.total().unwrap_or_default();
        let done = self.progress.done().0.min(total.0);
        match work {
            work if work.image().is_some_and(|image| image.verify) => {
                let verified = self.verified.get().map_or(0, |verified| verified.done().0);
                let both = ByteCount(done + verified.min(total.0));
                percent(both, ByteCount(total.0 * 2))
            }
            Work::ConvertToUefi(_) => self.phases_percent(),
            Work::Prepare(prepare) => {
                let phases = self.phases_percent();
                match prepare.known_hash {
                    // Reading the disk takes nearly all of the time.
                    Some(_) => percent(ByteCount(done), total) / 10 * 9 + phases / 10,
                    None => phases,
                }
            }
            _ => percent(ByteCount(done), total),
        }
    }

    /// The size of the disk, once it is known.
    pub fn total(&self) -> Option<ByteCount> {
        self.total.get().copied()
    }
}

/// Runs a job to its end and says what came of it.
pub fn execute(spec: &JobSpec, watch: &Watch) -> Job {
    let mut artifacts = Artifacts::default();
    let mut warnings = spec.warnings.clone();
    info!(job = %spec.id, operation = spec.work.operation(), disk = spec.disk.told(), "job starts");
    let result = attached(&spec.disk, watch)
        .and_then(|disk| work(spec, &disk, watch, &mut artifacts, &mut warnings));
    let (status, error) = match result {
        Ok(()) => (Status::Complete, None),
        Err(error) if error.code == ErrorCode::Cancelled => (Status::Cancelled, Some(error)),
        Err(error) => (Status::Failed, Some(error)),
    };
    match &error {
        None => info!(job = %spec.id, "job is complete"),
        Some(error) => warn!(job = %spec.id, code = ?error.code, "job ended early: {error}"),
    }
    Job {
        id: spec.id.clone(),
        operation: spec.work.operation(),
        status,
        overall_progress_percent: match status {
            Status::Complete => 100,
            _ => watch.overall_percent(&spec.work).min(99),
        },
        artifacts,
        error,
        warnings,
    }
}

/// How much of `total` is `done`, rounded down; 0 while `total` is not known.
pub(crate) fn percent(done: ByteCount, total: ByteCount) -> u8 {
    let percent = u128::from(done.0) * 100 / u128::from(total.0.max(1));
    u8::try_from(percent.min(100)).unwrap_or(100)
}

/// The disk, once it is attached.
fn attached<'d>(disk: &'d DiskSpec, watch: &Watch) -> Result<Cow<'d, DiskSpec>, JobError> {
    let Some(awaited) = &disk.awaited else {
        return Ok(Cow::Borrowed(disk));
    };
    let path = await_disk(awaited, watch)?;
    watch.has_disk.store(true, Ordering::Relaxed);
    Ok(Cow::Owned(DiskSpec {
        path,
        awaited: None,
        ..disk.clone()
    }))
}

fn work(
    spec: &JobSpec,
    place: &DiskSpec,
    watch: &Watch,
    artifacts: &mut Artifacts,
    warnings: &mut Vec<String>,
) -> Result<(), JobError> {
    if let Work::Diagnostics(destination) = &spec.work {
        artifacts.diagnostics = Some(diagnostics::collect(destination.as_ref())?);
        return Ok(());
    }
    let started = Instant::now();
    let changed = match &spec.work {
        Work::Prepare(prepare) => Some(prepare_disk(place, prepare, watch, artifacts, warnings)),
        Work::PrepareAndPublish(both) => Some(prepare_and_publish_disk(
            place, both, watch, artifacts, warnings,
        )),
        Work::ConvertToUefi(convert) => {
            Some(convert_disk(place, convert, watch, artifacts, warnings))
        }
        _ => None,
    };
    if let Some(result) = changed {
        result?;
        artifacts.took(spec.work.operation(), started.elapsed());
        return Ok(());
    }
    let disk = open(place)?;
    watch.begin(disk.size());
    let started = Instant::now();
    let (path, mut at_once) = (&place.path, Control::at_once(watch));
    match &spec.work {
        Work::Export(export) => {
            export_disk(
                &mut at_once,
                path,
                disk.as_ref(),
                export,
                artifacts,
                warnings,
            )?;
        }
        Work::Publish(publish) => {
            publish_disk(
                &mut at_once,
                path,
                disk.as_ref(),
                publish,
                artifacts,
                warnings,
            )?;
        }
        // Done above: one needs no disk, the others open it in their own way.
        Work::ConvertToUefi(_)
        | Work::Diagnostics(_)
        | Work::Prepare(_)
        | Work::PrepareAndPublish(_) => {}
        Work::Hash => {
            let md5 = export::hash(disk.as_ref(), &watch.cancel, &watch.progress)
                .map_err(|error| export_failed(&error))?;
            artifacts.md5_hash = Some(md5.to_string());
            artifacts.hashed_bytes = Some(disk.size().0);
            artifacts.virtual_size_bytes = Some(disk.size().0);
        }
        Work::Inspect => {
            let inspection = inspect_disk(disk.as_ref(), path)?;
            artifacts.found(&inspection);
            artifacts.disk = Some(inspection);
        }
    }
    artifacts.took(spec.work.operation(), started.elapsed());
    Ok(())
}

pub(super) fn open(spec: &DiskSpec) -> Result<Box<dyn BlockRead>, JobError> {
    let disk =
        block::open(&spec.path, &spec.open_options()).map_err(|error| open_failed(&error))?;
    spec.expect_size(&disk)?;
    Ok(disk)
}

/// The step of a job that waits for its disk.
const WAITING: &str = "waitForDisk";
