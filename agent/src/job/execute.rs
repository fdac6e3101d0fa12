//! Does the work of a job, on the thread it is called on.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Instant;

use ce_disk::block::{self, BlockError, BlockRead, OpenError, OpenOptions};
use ce_disk::cancel::Cancel;
use ce_disk::export::{self, ExportError, ExportOptions};
use ce_disk::partition::PartitionTable;
use ce_disk::progress::Progress;
use ce_disk::sink::{FileSink, SinkError};
use ce_disk::units::ByteCount;
use tracing::{info, warn};

use super::spec::{DiskSpec, ExportSpec, JobSpec, Work};
use super::{Artifacts, ErrorCode, Inspection, Job, JobError, Status};

/// What others see of a job while it runs, and how they stop it.
#[derive(Debug, Default)]
pub struct Watch {
    /// Stops the job.
    pub cancel: Cancel,
    /// How much of the disk is dealt with.
    pub progress: Progress,
    total: OnceLock<ByteCount>,
}

impl Watch {
    /// The size of the disk, once it is known.
    pub fn total(&self) -> Option<ByteCount> {
        self.total.get().copied()
    }
}

/// Runs a job to its end and says what came of it.
pub fn execute(spec: &JobSpec, watch: &Watch) -> Job {
    let mut artifacts = Artifacts::default();
    let mut warnings = spec.warnings.clone();
    info!(job = %spec.id, operation = spec.work.operation(), disk = %spec.disk.path.display(), "job starts");
    let result = work(spec, watch, &mut artifacts, &mut warnings);
    let (status, error) = match result {
        Ok(()) => (Status::Complete, None),
        Err(error) if error.code == ErrorCode::Cancelled => (Status::Cancelled, Some(error)),
        Err(error) => (Status::Failed, Some(error)),
    };
    match &error {
        None => info!(job = %spec.id, "job is complete"),
        Some(error) => warn!(job = %spec.id, code = ?error.code, "job ended early: {error}"),
    }
    let total = watch.total().unwrap_or_default();
    Job {
        id: spec.id.clone(),
        operation: spec.work.operation(),
        status,
        overall_progress_percent: match status {
            Status::Complete => 100,
            _ => percent(watch.progress.done(), total).min(99),
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

fn work(
    spec: &JobSpec,
    watch: &Watch,
    artifacts: &mut Artifacts,
    warnings: &mut Vec<String>,
) -> Result<(), JobError> {
    let disk = open(&spec.disk)?;
    // Set once: a watch belongs to one job.
    watch.total.get_or_init(|| disk.size());
    let started = Instant::now();
    match &spec.work {
        Work::Export(export) => {
            export_disk(spec, disk.as_ref(), export, watch, artifacts, warnings)?;
        }
        Work::Hash => {
            let md5 = export::hash(disk.as_ref(), &watch.cancel, &watch.progress)
                .map_err(|error| export_failed(&error))?;
            artifacts.md5_hash = Some(md5.to_string());
            artifacts.hashed_bytes = Some(disk.size().0);
            artifacts.virtual_size_bytes = Some(disk.size().0);
        }
        Work::Inspect => {
            let table = PartitionTable::read(disk.as_ref()).map_err(|error| read_failed(&error))?;
            artifacts.disk = Some(Inspection::new(disk.as_ref(), &table));
            artifacts.virtual_size_bytes = Some(disk.size().0);
        }
    }
    artifacts.took(spec.work.operation(), started.elapsed());
    Ok(())
}

fn open(spec: &DiskSpec) -> Result<Box<dyn BlockRead>, JobError> {
    let options = OpenOptions {
        sector_size: spec.sector_size,
        as_raw: spec.as_raw,
    };
    let disk = block::open(&spec.path, &options).map_err(|error| open_failed(&error))?;
    match spec.expected_size {
        Some(expected) if expected != disk.size() => Err(JobError::new(
            ErrorCode::DiskNotFound,
            format!(
                "{} is {} long; disk.sizeBytes says {expected}",
                disk.name(),
                disk.size()
            ),
        )
        .with_hint("check that the right disk is selected")),
        _ => Ok(disk),
    }
}

fn export_disk(
    spec: &JobSpec,
    disk: &dyn BlockRead,
    export: &ExportSpec,
    watch: &Watch,
    artifacts: &mut Artifacts,
    warnings: &mut Vec<String>,
) -> Result<(), JobError> {
    refuse_output_on_input(&spec.disk.path, &export.output)?;
    let sink =
        FileSink::create(&export.output, export.overwrite).map_err(|error| sink_failed(&error))?;
    let options = ExportOptions {
        format: export.format,
        hash: export.hash,
    };
    let report = export::export(
        disk,
        Box::new(sink),
        &options,
        &watch.cancel,
        &watch.progress,
    )
    .map_err(|error| export_failed(&error))?;
    if report.virtual_size != disk.size() {
        warnings.push(format!(
            "the disk's {} are no whole number of MiB: the VHD has {} bytes of zeros more, and the \
             hash covers them",
            disk.size(),
            report.virtual_size.0 - disk.size().0
        ));
    }
    artifacts.md5_hash = report.md5.map(|md5| md5.to_string());
    artifacts.hashed_bytes = report.md5.map(|_| report.virtual_size.0);
    artifacts.output_image = Some(export.output.display().to_string());
    artifacts.virtual_size_bytes = Some(report.virtual_size.0);
    artifacts.file_size_bytes = Some(report.file_size.0);
    artifacts.free_space = Some("copy");
    Ok(())
}

/// Refuses to write over the disk that is read, by whatever name.
fn refuse_output_on_input(disk: &Path, output: &Path) -> Result<(), JobError> {
    for written in [output.to_owned(), FileSink::partial_path(output)] {
        if fs::exists(&written).unwrap_or(false)
            && block::same_file(disk, &written).unwrap_or(false)
        {
            let message = format!("{} is the disk that is to be read", written.display());
            return Err(JobError::invalid("output", message));
        }
    }
    Ok(())
}

fn open_failed(error: &OpenError) -> JobError {
    let (code, hint) = match error {
        OpenError::NotFound { .. } => (ErrorCode::DiskNotFound, None),
        OpenError::PermissionDenied { .. } => (
            ErrorCode::DiskReadFailed,
            Some("run it as root, or as a user who may read the disk"),
        ),
        OpenError::Busy { .. } => (
            ErrorCode::DiskBusy,
            Some("unmount it and stop what uses it, or choose another disk"),
        ),
        OpenError::Io { .. } => (ErrorCode::DiskReadFailed, None),
        _ => (ErrorCode::DiskInvalid, None),
    };
    let failed = JobError::from_chain(code, error);
    hint.map_or(failed.clone(), |hint| failed.with_hint(hint))
}

fn export_failed(error: &ExportError) -> JobError {
    match error {
        ExportError::Cancelled => {
            JobError::new(ErrorCode::Cancelled, "cancelled; the disk is as it was")
        }
        ExportError::Geometry { .. } => JobError::from_chain(ErrorCode::DiskInvalid, error),
        ExportError::Vhd { .. } => {
            JobError::from_chain(ErrorCode::InvalidRequest, error).with_hint("export it as VHDX")
        }
        ExportError::Read(source) => read_failed(source),
        ExportError::Write(source) => sink_failed(source),
        _ => JobError::from_chain(ErrorCode::Internal, error),
    }
}

fn read_failed(error: &BlockError) -> JobError {
    JobError::from_chain(ErrorCode::DiskReadFailed, error)
        .with_hint("the medium may be failing: look at the kernel log of this machine")
}

fn sink_failed(error: &SinkError) -> JobError {
    let (code, hint) = match error {
        SinkError::Exists { .. } => (
            ErrorCode::OutputExists,
            "choose another name, or allow it to be replaced: --overwrite",
        ),
        SinkError::NoSpace { .. } => (
            ErrorCode::OutputNoSpace,
            "make room, or write the image elsewhere",
        ),
        SinkError::Busy { .. } => (
            ErrorCode::OutputFailed,
            "wait for the other export, or choose another name",
        ),
        _ => (
            ErrorCode::OutputFailed,
            "check the folder, its file system and who may write there",
        ),
    };
    JobError::from_chain(code, error).with_hint(hint)
}
