//! `ce-agent hive`: registry hives by hand, without a Windows to load them into.
//!
//! ```text
//!  NAME + NAME.LOG, .LOG1, .LOG2 --> recover --> check    findings
//!                                        |  +--> export   .reg text
//!                                        v
//!                 EDITS.reg ---------> import --> NAME, or --out
//! ```
//!
//! A dirty hive is brought up to date from the logs beside it, and that is said. Nothing else is
//! ever repaired. A hive that is written in place is replaced in one step; its logs, which could
//! undo the change, are emptied after that.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ce_regf::{
    Encoding, ExportError, ExportOptions, FileTime, Hive, HiveError, ImportReport, KeyPath,
    LogFate, LogVerdict, Logs, RegScript, Replay, ReplayReport,
};
use serde::Serialize;
use serde_json::json;

use crate::cli::{HiveCheckArgs, HiveCommand, HiveExportArgs, HiveImportArgs, OutputOptions};
use crate::job::{ErrorCode, JobError};

/// Does what is asked for and returns the exit code.
pub(crate) fn run(command: &HiveCommand, output: OutputOptions) -> u8 {
    let result = match command {
        HiveCommand::Check(args) => check(args, output),
        HiveCommand::Export(args) => export(args).map(|()| 0),
        HiveCommand::Import(args) => import(args, output).map(|()| 0),
    };
    result.unwrap_or_else(|error| {
        report(output, &json!({"error": error}), || {
            let hint = error.hint.as_ref().map(|hint| format!("\nhint: {hint}"));
            (
                String::new(),
                format!("error: {error}{}\n", hint.unwrap_or_default()),
            )
        });
        error.code.exit_code()
    })
}

fn check(args: &HiveCheckArgs, output: OutputOptions) -> Result<u8, JobError> {
    let (files, primary) = HiveFiles::read(&args.file)?;
    // A hive that cannot be loaded is what a check is for: it goes on with the file as it is.
    let (report_of, recovery) = match files.recover(primary.as_slice()) {
        Ok((hive, recovery)) => (hive.check(), Some(recovery)),
        Err(HiveError::Damaged(_)) => {
            let found =
                ce_regf::check_file(&primary).map_err(|error| hive_failed(&args.file, &error))?;
            (found, None)
        }
        Err(error) => return Err(hive_failed(&args.file, &error)),
    };
    let sound = report_of.is_sound();
    let findings: Vec<String> = report_of.findings.iter().map(ToString::to_string).collect();
    let logs = recovery.as_ref().and_then(describe);
    let unlisted = report_of.counts.values().sum::<u64>() - findings.len() as u64;
    let value = json!({
        "file": args.file.display().to_string(),
        "sound": sound,
        "logs": logs,
        "findings": findings,
        "findingsNotListed": unlisted,
    });
    report(output, &value, || {
        let mut text: String = findings
            .iter()
            .map(|finding| format!("{finding}\n"))
            .collect();
        if unlisted > 0 {
            text.push_str(&format!("and {unlisted} more\n"));
        }
        let verdict = if sound { "sound" } else { "NOT sound" };
        text.push_str(&format!("{}: {verdict}\n", args.file.display()));
        (
            text,
            logs.as_ref()
                .map(|logs| format!("{logs}\n"))
                .unwrap_or_default(),
        )
    });
    Ok(u8::from(!sound))
}

fn export(args: &HiveExportArgs) -> Result<(), JobError> {
    let (files, primary) = HiveFiles::read(&args.file)?;
    let (hive, recovery) = files
        .recover(primary)
        .map_err(|error| hive_failed(&args.file, &error))?;
    if let Some(logs) = describe(&recovery) {
        drop(writeln!(io::stderr(), "{logs}"));
    }
    let options = ExportOptions {
        prefix: KeyPath::from(args.prefix.as_str()),
        encoding: if args.utf16 {
            Encoding::Utf16Le
        } else {
            Encoding::Utf8
        },
    };
    let text = hive
        .export(args.key.as_str(), &options)
        .map_err(|error| match error {
            ExportError::NoSuchKey { .. } => JobError::invalid("KEY", &error),
            _ => hive_failed(&args.file, &error),
        })?;
    match io::stdout().lock().write_all(&text) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error| failed("writing to standard output", &error)),
    }
}

fn import(args: &HiveImportArgs, output: OutputOptions) -> Result<(), JobError> {
    let edits = read_bounded(&args.edits, LONGEST_EDITS)?;
    let prefix = KeyPath::from(args.prefix.as_str());
    let script = RegScript::parse(&edits, &prefix).map_err(|error| {
        let message = format!("{}: {error}", args.edits.display());
        JobError::new(ErrorCode::InvalidRequest, message)
    })?;
    let (mut files, primary) = HiveFiles::read(&args.file)?;
    let (mut hive, recovery) = files
        .recover(primary)
        .map_err(|error| hive_failed(&args.file, &error))?;
    if recovery.outcome == Replay::NothingApplies {
        let message = format!(
            "{} was not closed by Windows, and no log beside it can bring it up to date",
            args.file.display()
        );
        return Err(
            JobError::new(ErrorCode::HiveUnrecoverable, message).with_hint(
                "put its .LOG1 and .LOG2 files beside it, or let Windows shut down cleanly",
            ),
        );
    }
    let now = FileTime::from(SystemTime::now());
    let done = hive
        .edit(now)
        .map_err(|error| hive_failed(&args.file, &error))?
        .import(&script)
        .map_err(|error| hive_failed(&args.file, &error))?;
    let saved = hive
        .save(now)
        .map_err(|error| hive_failed(&args.file, &error))?;
    match &args.out {
        Some(out) => write_new(out, saved.bytes)?,
        None if saved.logs == LogFate::Keep => {}
        None => {
            files.replace_primary(saved.bytes)?;
            files.neutralise_logs()?;
        }
    }
    let logs = describe(&recovery);
    report(
        output,
        &json!({"logs": logs, "changes": Changes::from(done)}),
        || {
            let summary = format!(
                "{} keys created, {} deleted; {} values set, {} deleted\n",
                done.keys_created, done.keys_deleted, done.values_set, done.values_deleted
            );
            (
                summary,
                logs.as_ref()
                    .map(|logs| format!("{logs}\n"))
                    .unwrap_or_default(),
            )
        },
    );
    Ok(())
}

/// Where a hive is, and the logs beside it.
struct HiveFiles {
    path: PathBuf,
    /// `.LOG`, `.LOG1`, `.LOG2`
    logs: [Option<(PathBuf, Vec<u8>)>; 3],
}

impl HiveFiles {
    /// Reads the logs, and the hive itself.
    fn read(path: &Path) -> Result<(Self, Vec<u8>), JobError> {
        let primary = read_bounded(path, LARGEST_HIVE)?;
        let mut logs = [None, None, None];
        for (log, extension) in logs.iter_mut().zip(["LOG", "LOG1", "LOG2"]) {
            *log = beside(path, extension)
                .map(|found| read_bounded(&found, LARGEST_HIVE).map(|bytes| (found, bytes)))
                .transpose()?;
        }
        let path = path.to_owned();
        Ok((Self { path, logs }, primary))
    }

    /// The hive as the logs leave it.
    fn recover(&self, primary: impl Into<Vec<u8>>) -> Result<(Hive, ReplayReport), HiveError> {
        let [log, log1, log2] = self
            .logs
            .each_ref()
            .map(|log| log.as_ref().map(|(_, bytes)| bytes.as_slice()));
        Hive::recover(primary, &Logs { log, log1, log2 })
    }

    /// Puts `bytes` in the place of the hive, in one step.
    fn replace_primary(&self, bytes: &[u8]) -> Result<(), JobError> {
        let doing = format!("replacing {}", self.path.display());
        let failed = |error: io::Error| failed(&doing, &error);
        let found = fs::symlink_metadata(&self.path).map_err(failed)?;
        if !found.is_file() {
            let message = format!("{} is a link; name the hive itself", self.path.display());
            return Err(JobError::new(ErrorCode::InvalidRequest, message));
        }
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let partial = self.path.with_file_name(name);
        let write = || {
            let mut file = File::create_new(&partial)?;
            file.set_permissions(found.permissions())?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&partial, &self.path)
        };
        write().map_err(|error| {
            if error.kind() != io::ErrorKind::AlreadyExists {
                // The error that matters is the one that is told.
                drop(fs::remove_file(&partial));
            }
            failed(error)
        })
    }

    /// Leaves no log that anything would apply. To be done once the hive itself is replaced: until
    /// then they belong to the old one, and after it their sequence numbers are too low.
    fn neutralise_logs(&mut self) -> Result<(), JobError> {
        for (path, bytes) in self.logs.iter_mut().flatten() {
            ce_regf::neutralise_log(bytes);
            let write = || {
                let mut file = File::options().write(true).open(&*path)?;
                file.write_all(bytes)?;
                file.sync_all()
            };
            write().map_err(|error| failed(&format!("emptying {}", path.display()), &error))?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Changes {
    keys_created: usize,
    keys_deleted: usize,
    values_set: usize,
    values_deleted: usize,
}

impl From<ImportReport> for Changes {
    fn from(report: ImportReport) -> Self {
        Self {
            keys_created: report.keys_created,
            keys_deleted: report.keys_deleted,
            values_set: report.values_set,
            values_deleted: report.values_deleted,
        }
    }
}

/// What is to be said of the logs; `None` of a clean hive.
fn describe(recovery: &ReplayReport) -> Option<String> {
    match recovery.outcome {
        Replay::NotNeeded => None,
        Replay::NothingApplies => Some(
            "note: the hive was not closed by Windows, and no log beside it fits: what was written \
             last is missing"
                .into(),
        ),
        Replay::Applied => {
            let applied = recovery.logs.iter().filter_map(|log| match log.verdict {
                LogVerdict::Applied { sequence: (first, last), pages, .. } => {
                    Some(format!("{:?} (entries {first} to {last}, {pages} pages)", log.slot))
                }
                _ => None,
            });
            let applied: Vec<_> = applied.collect();
            Some(format!("note: brought up to date from {}", applied.join(" and ")))
        }
    }
}

/// The file beside a hive with this extension, in whatever case it is written.
fn beside(hive: &Path, extension: &str) -> Option<PathBuf> {
    [extension.to_owned(), extension.to_lowercase()]
        .into_iter()
        .find_map(|extension| {
            let mut name = hive.file_name()?.to_owned();
            name.push(".");
            name.push(extension);
            let path = hive.with_file_name(name);
            fs::symlink_metadata(&path)
                .is_ok_and(|found| found.is_file())
                .then_some(path)
        })
}

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, JobError> {
    let read = || {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        if length > limit {
            let message = format!("{length} bytes are more than the {limit} it can have");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        // Within the limit, and room for the end of the file to be noticed.
        let mut bytes = Vec::with_capacity(length as usize + 32);
        io::Read::read_to_end(&mut io::Read::take(file, limit), &mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|error| failed(&format!("reading {}", path.display()), &error))
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), JobError> {
    let write = || {
        let mut file = File::create_new(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => JobError::new(
            ErrorCode::OutputExists,
            format!("{} exists already", path.display()),
        ),
        _ => failed(&format!("writing {}", path.display()), &error),
    })
}

fn hive_failed(path: &Path, error: &(dyn Error + 'static)) -> JobError {
    let told = JobError::from_chain(ErrorCode::HiveCorrupt, error);
    JobError::new(
        ErrorCode::HiveCorrupt,
        format!("{}: {}", path.display(), told.message),
    )
}

fn failed(doing: &str, error: &io::Error) -> JobError {
    JobError::new(ErrorCode::OutputFailed, format!("{doing} failed: {error}"))
}

/// Prints JSON, or what a person reads: standard output, then standard error.
fn report(
    output: OutputOptions,
    value: &serde_json::Value,
    text: impl FnOnce() -> (String, String),
) {
    // A reader that has gone away does not make the work undone.
    if output.json {
        drop(writeln!(io::stdout(), "{value}"));
        return;
    }
    let (out, err) = text();
    drop(write!(io::stdout(), "{out}"));
    drop(write!(io::stderr(), "{err}"));
}

/// Windows cannot load a larger one.
const LARGEST_HIVE: u64 = 2 << 30;

const LONGEST_EDITS: u64 = 256 << 20;
