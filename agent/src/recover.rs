//! `ce-agent recover`: what becomes of commits that were cut short.
//!
//! ```text
//!  scratch folder --> journals --+-- cut short before it counted --> removed; the disk is as it was
//!                                +-- complete ---------------------> removed
//!                                +-- counts --> its disk ----------> written, read back, removed
//!                                +-- damaged ----------------------> kept, and said so
//! ```
//!
//! The disk is found where the journal says, or where `--disk` does. One that is not the journal's,
//! or was written to since, is refused and left alone.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ce_disk::block::{self, OpenError, OpenOptions};
use ce_disk::cancel::Cancel;
use ce_disk::progress::Progress;
use ce_disk::scratch::{ScratchFolder, ScratchFolderError};
use ce_disk::transaction::{
    ApplyError, FoundJournal, FoundState, JournalHeader, RecoverError, Recovery, ScratchError,
    Trust,
};
use ce_disk::units::ByteCount;
use serde::Serialize;
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use tracing::{error, info};

use crate::cli::{OutputOptions, RecoverArgs};
use crate::config::state_folder;
use crate::job::{ErrorCode, JobError, Status};

/// Does what is asked for and returns the exit code.
pub(crate) fn run(args: &RecoverArgs, output: OutputOptions) -> u8 {
    let started = Instant::now();
    let mut reports = Vec::new();
    let result = recover(args, &mut reports);
    let error = result.as_ref().err();
    let status = match error.map(|error| error.code) {
        None => Status::Complete,
        Some(ErrorCode::Cancelled) => Status::Cancelled,
        Some(_) => Status::Failed,
    };
    if output.json {
        let seconds = started.elapsed().as_millis() as f64 / 1000.0;
        let warnings: Vec<_> = reports.iter().filter_map(|r| r.warning.as_ref()).collect();
        let mut job = json!({
            "id": uuid::Uuid::new_v4().to_string(),
            "operation": "recover",
            "status": status,
            "overallProgressPercent": if error.is_none() { 100 } else { 0 },
            "artifacts": {"journals": reports, "durations": {"recover": seconds}},
            "warnings": warnings,
        });
        if let Some(error) = error {
            job["error"] = json!(error);
        }
        let event = json!({"event": "finished", "job": job});
        drop(writeln!(io::stdout(), "{event}"));
    } else {
        for report in &reports {
            drop(writeln!(io::stdout(), "{report}"));
            if let Some(warning) = &report.warning {
                drop(writeln!(io::stderr(), "warning: {warning}"));
            }
        }
        if let Some(error) = error {
            drop(writeln!(io::stderr(), "error: {error}"));
            if let Some(hint) = &error.hint {
                drop(writeln!(io::stderr(), "hint: {hint}"));
            }
        } else if reports.is_empty() {
            drop(writeln!(io::stdout(), "nothing to recover"));
        }
    }
    error.map_or(0, |error| error.code.exit_code())
}

/// A journal that was found, and what was done about it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    journal: String,
    /// The disk it is for, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    disk: Option<String>,
    found: Found,
    done: Done,
    /// How much was written to the disk.
    bytes_written: u64,
    #[serde(skip)]
    warning: Option<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Found {
    Complete,
    CutShort,
    Damaged,
    Unfinished,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Done {
    Finished,
    Kept,
    Removed,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let journal = &self.journal;
        let disk = self.disk.as_deref().unwrap_or("its disk");
        match (self.found, self.done) {
            (Found::CutShort, Done::Removed) => write!(
                f,
                "{journal}: was cut short before it counted; its disk is as it was. Removed."
            ),
            (Found::Complete, Done::Removed) => {
                write!(f, "{journal}: its disk has all of it. Removed.")
            }
            (_, Done::Finished) => write!(
                f,
                "{journal}: finished the commit to {disk}: {} written.",
                ByteCount(self.bytes_written)
            ),
            (Found::Damaged, _) => write!(f, "{journal}: is damaged. Kept."),
            _ => write!(f, "{journal}: has an unfinished commit to {disk}. Kept."),
        }
    }
}

/// A commit that was begun and is not finished.
#[derive(Clone, Debug)]
pub(crate) struct Unfinished {
    /// The disk, where that is known.
    disk: Option<String>,
    /// What stands against finishing it.
    pub(crate) problem: String,
}

impl Unfinished {
    /// Whether it may be a commit to this disk.
    pub(crate) fn may_be_of(&self, disk: &Path) -> bool {
        let known = self.disk.as_ref();
        known.is_none_or(|known| Path::new(known) == disk)
    }
}

/// Finishes the commits that an earlier life of the daemon had begun, and says in the log what
/// became of each. One that can't be finished keeps its journal, its disk is refused to jobs, and it
/// is told.
pub(crate) fn finish_begun(scratch: &Path) -> Vec<Unfinished> {
    let mut reports = Vec::new();
    let result = match ScratchFolder::open_existing(scratch) {
        Ok(folder) => recover_in(folder, None, &Cancel::default(), &mut reports),
        Err(error) if is_not_there(&error) => Ok(()),
        Err(error) => Err(folder_failed(&error)),
    };
    for report in &reports {
        info!("{report}");
    }
    let Err(error) = result else {
        return Vec::new();
    };
    error!(code = ?error.code, "a commit that was cut short is not finished: {error}");
    let kept = reports.iter().filter(|report| report.done == Done::Kept);
    let mut unfinished: Vec<_> = kept
        .map(|report| Unfinished {
            disk: report.disk.clone(),
            problem: error.to_string(),
        })
        .collect();
    if unfinished.is_empty() {
        // What is in the folder could not be looked at, so it may be anything.
        unfinished.push(Unfinished {
            disk: None,
            problem: error.to_string(),
        });
    }
    unfinished
}

fn is_not_there(error: &ScratchFolderError) -> bool {
    matches!(error, ScratchFolderError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

fn recover(args: &RecoverArgs, reports: &mut Vec<Report>) -> Result<(), JobError> {
    let folder = match &args.scratch {
        Some(path) => path.clone(),
        None => state_folder()?,
    };
    let scratch = match ScratchFolder::open_existing(&folder) {
        Ok(scratch) => scratch,
        // Where nothing was ever begun there is nothing to finish.
        Err(error) if is_not_there(&error) && args.scratch.is_none() => return Ok(()),
        Err(error) => return Err(folder_failed(&error)),
    };
    let cancel = Cancel::default();
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, cancel.flag())
            .and_then(|_| signal_hook::flag::register(signal, cancel.flag()))
            .map_err(|error| {
                let message = format!("cannot watch for signals: {error}");
                JobError::new(ErrorCode::Internal, message)
            })?;
    }
    recover_in(scratch, args.disk.as_deref(), &cancel, reports)
}

/// Deals with every journal in `scratch`; `disk` is where the disk of the one that is unfinished is.
fn recover_in(
    scratch: ScratchFolder,
    disk: Option<&Path>,
    cancel: &Cancel,
    reports: &mut Vec<Report>,
) -> Result<(), JobError> {
    let recovery = Recovery::open(Arc::new(scratch)).map_err(|error| failed(&error))?;
    let journals = recovery.journals().map_err(|error| failed(&error))?;
    let is_sealed = |journal: &&FoundJournal| matches!(journal.state(), FoundState::Sealed { .. });
    let unfinished = journals.iter().filter(is_sealed).count();
    if disk.is_some() && unfinished > 1 {
        let problem =
            format!("there are {unfinished} unfinished commits, each for a disk of its own");
        return Err(JobError::invalid("--disk", problem));
    }
    // One that can't be finished does not stop the others.
    let mut first = Ok(());
    for journal in &journals {
        let (report, result) = deal_with(&recovery, journal, disk, cancel);
        info!(journal = %report.journal, found = ?report.found, done = ?report.done, "journal");
        reports.push(report);
        first = first.and(result);
    }
    first
}

fn deal_with(
    recovery: &Recovery,
    journal: &FoundJournal,
    named: Option<&Path>,
    cancel: &Cancel,
) -> (Report, Result<(), JobError>) {
    let mut report = Report {
        journal: journal.path().to_owned(),
        disk: None,
        found: Found::Complete,
        done: Done::Kept,
        bytes_written: 0,
        warning: None,
    };
    let result = match journal.state() {
        FoundState::Damaged(_) => {
            report.found = Found::Damaged;
            let source = match journal.state() {
                FoundState::Damaged(damage) => damage.clone(),
                _ => return (report, Ok(())),
            };
            let journal = journal.path().to_owned();
            Err(failed(&RecoverError::Damaged { journal, source }))
        }
        FoundState::Sealed { header, .. } => {
            report.found = Found::Unfinished;
            report.disk = Some(match named {
                Some(path) => path.display().to_string(),
                None => header.disk_name(),
            });
            finish(recovery, journal, header, named, cancel, &mut report)
        }
        state => {
            if matches!(state, FoundState::Unsealed) {
                report.found = Found::CutShort;
            }
            recovery
                .discard(journal)
                .map(|_| report.done = Done::Removed)
                .map_err(|error| failed(&error))
        }
    };
    (report, result)
}

fn finish(
    recovery: &Recovery,
    journal: &FoundJournal,
    header: &JournalHeader,
    named: Option<&Path>,
    cancel: &Cancel,
    report: &mut Report,
) -> Result<(), JobError> {
    let (path, trust) = match (named, &header.identity.path) {
        (Some(path), _) => (path, Trust::Named),
        (None, Some(path)) => (path.as_path(), Trust::Found),
        (None, None) => {
            let message = format!("{} does not say where its disk is", journal.path());
            let error = JobError::new(ErrorCode::DiskNotFound, message);
            return Err(error.with_hint(SAY_WHERE));
        }
    };
    let options = OpenOptions {
        sector_size: Some(header.sector),
        // It was taken for a raw disk when the commit began.
        as_raw: trust == Trust::Found,
    };
    let disk = block::open_writable(path, &options).map_err(|error| open_failed(&error))?;
    let recovered = recovery
        .finish(journal, &disk, trust, cancel, &Progress::default())
        .map_err(|error| failed(&error))?;
    report.done = Done::Finished;
    report.bytes_written = recovered.written.0;
    report.warning = recovered.leftover.map(|error| {
        let error = JobError::from_chain(ErrorCode::ScratchFailed, &error);
        format!("the disk is complete, but its journal is still there: {error}")
    });
    Ok(())
}

fn folder_failed(error: &ScratchFolderError) -> JobError {
    let failed = JobError::from_chain(ErrorCode::ScratchFailed, error);
    match error {
        ScratchFolderError::NotOwn { .. } => {
            failed.with_hint("take another folder, or take the others' rights away: chmod go-w")
        }
        _ => failed,
    }
}

fn open_failed(error: &OpenError) -> JobError {
    let (code, hint) = match error {
        OpenError::NotFound { .. } => (ErrorCode::DiskNotFound, SAY_WHERE),
        OpenError::Busy { .. } => (
            ErrorCode::DiskBusy,
            "unmount it and stop what uses it; the journal is kept meanwhile",
        ),
        OpenError::NotWritable { .. } | OpenError::PermissionDenied { .. } => (
            ErrorCode::DiskWriteFailed,
            "run it as root, or as a user who may write to the disk",
        ),
        _ => (ErrorCode::DiskInvalid, SAY_WHERE),
    };
    JobError::from_chain(code, error).with_hint(hint)
}

fn failed(error: &RecoverError) -> JobError {
    let (code, hint) = match error {
        RecoverError::Busy { .. } => (
            ErrorCode::ScratchBusy,
            "wait for the other run, or take another folder: --scratch",
        ),
        RecoverError::Cancelled => {
            let message = "cancelled; nothing was written, and the journal is still there";
            return JobError::new(ErrorCode::Cancelled, message);
        }
        RecoverError::Damaged { .. } => (
            ErrorCode::JournalDamaged,
            "restore the disk from a backup, then remove the journal; check the medium of the \
             scratch folder",
        ),
        RecoverError::Disk(_) => (
            ErrorCode::DiskReadFailed,
            "nothing was written; look at the kernel log of this machine, then run it again",
        ),
        RecoverError::OtherDisk { .. } => (ErrorCode::JournalMismatch, SAY_WHERE),
        RecoverError::Foreign { .. } | RecoverError::Touched { .. } => (
            ErrorCode::JournalMismatch,
            "name the right disk with --disk; if this one was used or restored since the commit \
             was cut short, remove the journal and begin again from a backup",
        ),
        RecoverError::Scratch(ScratchError::Full { .. }) => {
            (ErrorCode::ScratchNoSpace, "make room in the scratch folder")
        }
        RecoverError::Scratch(_) => (
            ErrorCode::ScratchFailed,
            "check the scratch folder, its file system and whose it is",
        ),
        RecoverError::Apply {
            source: ApplyError::Damaged(_),
            ..
        } => (
            ErrorCode::JournalDamaged,
            "check the medium of the scratch folder; the disk is written in part",
        ),
        RecoverError::Apply { .. } => (
            ErrorCode::DiskWriteFailed,
            "mend what is wrong with the disk and run it again; do not use the disk before that",
        ),
        _ => return JobError::from_chain(ErrorCode::Internal, error),
    };
    JobError::from_chain(code, error).with_hint(hint)
}

const SAY_WHERE: &str = "say where the disk of the journal is now: --disk";
