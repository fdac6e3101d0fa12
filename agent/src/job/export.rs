//! The export step of a job.

use std::fs;
use std::path::Path;
use std::time::Instant;

use ce_disk::block::{self, BlockRead};
use ce_disk::cancel::Cancel;
use ce_disk::export::{Export, ExportError, ExportReport, FreeSpace, ResumeError};
use ce_disk::partition::PartitionTable;
use ce_disk::sink::{FileSink, SinkOptions};
use ce_disk::units::{ByteCount, ByteOffset};
use ce_disk::volume::FreeSpaceMask;

use super::destination::Destination;
use super::execute::Watch;
use super::failure::{export_failed, mask_failed, read_failed, sink_failed};
use super::spec::ExportSpec;
use super::{Artifacts, JobError, share};

/// What an export has to tell beside its report.
pub(super) struct Notes<'a> {
    artifacts: &'a mut Artifacts,
    warnings: &'a mut Vec<String>,
}

impl Notes<'_> {
    pub(super) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    /// What a mask hides and keeps, and how long it took to find out.
    fn masked<D: BlockRead>(
        &mut self,
        mask: &FreeSpaceMask<D>,
        skipped: ByteCount,
        since: Instant,
    ) {
        self.artifacts.skipped_bytes = Some(skipped.0);
        self.artifacts.took("freeSpace", since.elapsed());
        if mask.volumes() == 0 {
            self.warn("there is no NTFS volume on the disk: no free space was skipped".into());
        }
        for partition in mask.shadow_copies() {
            let volume = match partition {
                0 => "the volume".to_owned(),
                number => format!("partition {number}"),
            };
            self.warn(format!(
                "{volume} has shadow copies: restore points and previous versions keep content in \
                 clusters that count as free, and are not usable in the image"
            ));
        }
    }

    pub(super) fn resumed_from(&mut self, position: ByteOffset) {
        self.artifacts.resumed_from_bytes = Some(position.0);
    }
}

/// What an export reads: a disk, and what it does with its free space.
#[derive(Clone, Copy)]
pub(super) struct Source<'d> {
    pub(super) disk: &'d dyn BlockRead,
    pub(super) free_space: FreeSpace,
}

/// How an export is seen and stopped, and what it waits for.
pub(super) struct Control<'w> {
    pub(super) watch: &'w Watch,
    /// The job's, or that of the part of it that the export is.
    pub(super) cancel: Cancel,
    /// What has to hold before the image gets its name. It may be asked more than once.
    pub(super) condition: Box<dyn FnMut() -> Result<(), JobError> + 'w>,
}

impl<'w> Control<'w> {
    /// For an image that gets its name as soon as it is whole.
    pub(super) fn at_once(watch: &'w Watch) -> Self {
        Self {
            watch,
            cancel: watch.cancel.clone(),
            condition: Box::new(|| Ok(())),
        }
    }
}

/// Writes what `disk` reads, the content of the disk at `path`, as an image, which gets its name when the
/// condition of `control` holds.
pub(super) fn export_disk(
    control: &mut Control<'_>,
    path: &Path,
    disk: &dyn BlockRead,
    spec: &ExportSpec,
    artifacts: &mut Artifacts,
    warnings: &mut Vec<String>,
) -> Result<(), JobError> {
    let mut notes = Notes {
        artifacts,
        warnings,
    };
    if let Destination::File(output) = &spec.destination {
        refuse_output_on_input(path, output)?;
    }
    let mask;
    let source = if spec.skip_free_space {
        let started = Instant::now();
        let table = PartitionTable::read(disk).map_err(|error| read_failed(&error))?;
        mask = FreeSpaceMask::of_disk(disk, &table).map_err(mask_failed)?;
        let masked = mask.masked().map_err(|error| read_failed(&error))?;
        notes.masked(&mask, masked.bytes, started);
        Source {
            disk: &mask,
            free_space: FreeSpace::Skip(masked.identity),
        }
    } else {
        Source {
            disk,
            free_space: FreeSpace::Copy,
        }
    };
    let report = match &spec.destination {
        Destination::File(output) => export_to_file(source, spec, output, control, &mut notes)?,
        Destination::Share(share) => share::export(source, spec, share, control, &mut notes)?,
    };
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
    artifacts.output_image = Some(spec.destination.to_string());
    artifacts.virtual_size_bytes = Some(report.virtual_size.0);
    artifacts.file_size_bytes = Some(report.file_size.0);
    artifacts.free_space = Some(if spec.skip_free_space { "skip" } else { "copy" });
    artifacts.verified = spec.verify.then_some(true);
    Ok(())
}

fn export_to_file(
    source: Source<'_>,
    spec: &ExportSpec,
    output: &Path,
    control: &mut Control<'_>,
    notes: &mut Notes<'_>,
) -> Result<ExportReport, JobError> {
    let failed = |error: ExportError| export_failed(&error);
    let (cancel, watch) = (&control.cancel, control.watch);
    let export = open_file(source, spec, output, notes)?;
    let mut written = export.run(cancel, &watch.progress).map_err(failed)?;
    if spec.verify {
        written = written
            .verify(cancel, watch.begin_verify())
            .map_err(failed)?;
    }
    (control.condition)()?;
    written.finish(cancel).map_err(failed)
}

/// The partial file of an earlier run, if it is to be gone on with, or a new one.
fn open_file<'d>(
    Source { disk, free_space }: Source<'d>,
    spec: &ExportSpec,
    output: &Path,
    notes: &mut Notes<'_>,
) -> Result<Export<'d>, JobError> {
    // A checkpoint is durable only with a flush of the disk, so they are taken where they are
    // wanted.
    let options = spec.options(free_space, spec.resume);
    let sink_options = SinkOptions {
        overwrite: spec.overwrite,
        keep_partial: spec.keep_partial,
    };
    if spec.resume {
        let sink = FileSink::resume(output, sink_options).map_err(|error| sink_failed(&error))?;
        match sink.map(|sink| Export::resume(disk, Box::new(sink), options)) {
            None => {}
            Some(Ok(export)) => {
                notes.resumed_from(export.position());
                return Ok(export);
            }
            Some(Err(ExportError::Resume {
                source: source @ ResumeError::NoCheckpoint,
                ..
            })) => notes.warn(format!("the export was begun anew: {source}")),
            Some(Err(error)) => return Err(export_failed(&error)),
        }
    }
    let sink = FileSink::create(output, sink_options).map_err(|error| sink_failed(&error))?;
    Export::begin(disk, Box::new(sink), options).map_err(|error| export_failed(&error))
}

/// Refuses to write over the disk that is read, by whatever name.
fn refuse_output_on_input(disk: &Path, output: &Path) -> Result<(), JobError> {
    let written = [
        output.to_owned(),
        FileSink::partial_path(output),
        FileSink::state_path(output),
    ];
    for written in written {
        if fs::exists(&written).unwrap_or(false)
            && block::same_file(disk, &written).unwrap_or(false)
        {
            let message = format!("{} is the disk that is to be read", written.display());
            return Err(JobError::invalid("output", message));
        }
    }
    Ok(())
}
