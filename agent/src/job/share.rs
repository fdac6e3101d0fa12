//! Exporting to a share, however often the connection breaks.
//!
//! ```text
//!            +--> connect --> image finished meanwhile? --yes--------------------------> done
//!            |                  | no                                                      ^
//!            |                  v                                                         |
//!            |            partial image of ours? --yes--> resume --refused--+             |
//!            |                  | no                        |               v             |
//!            |                  +---------------------------|----------> begin            |
//!            |                                              v               v             |
//!   wait (backoff) <--- worth another try? ---- error ---- run, verify, rename -----------+
//!            |no                 |no
//!            v                   v
//!         cancelled            failed
//! ```
//!
//! Whatever broke - the network, the server, this agent in an earlier run - the way back is one:
//! connect, load the checkpoint, compare, go on. Until the first connection stands nothing is tried
//! twice: that is more likely a wrong name than an outage.

use std::time::{Duration, Instant};

use ce_disk::export::{Export, ExportError, ExportReport, ResumeError, smallest_file_size};
use ce_disk::sink::smb::{SmbError, SmbErrorKind, SmbShare, SmbSink};
use ce_disk::sink::{SinkError, SinkOptions};
use ce_disk::units::ByteOffset;
use tracing::warn;

use super::JobError;
use super::backoff::{Backoff, wait};
use super::destination::Share;
use super::export::{Control, Notes, Source};
use super::failure::{cancelled, export_failed, smb_failed};
use super::spec::ExportSpec;

/// Exports `source` to `share`.
pub(super) fn export(
    source: Source<'_>,
    spec: &ExportSpec,
    share: &Share,
    control: &mut Control<'_>,
    notes: &mut Notes<'_>,
) -> Result<ExportReport, JobError> {
    let mut attempts = Attempts {
        source,
        spec,
        share,
        control,
        notes,
        phase: Phase::New,
        written: None,
        backoff: Backoff::default(),
        furthest: ByteOffset::ZERO,
        away_since: None,
        reconnects: 0,
    };
    loop {
        match attempts.attempt() {
            Ok(report) => return Ok(report),
            Err(Setback::Failed(error)) => return Err(error),
            Err(Setback::Interrupted(error)) => attempts.wait(&error)?,
        }
    }
}

/// An export and its attempts.
struct Attempts<'j, 'n, 'w> {
    source: Source<'j>,
    spec: &'j ExportSpec,
    share: &'j Share,
    control: &'j mut Control<'w>,
    notes: &'j mut Notes<'n>,
    phase: Phase,
    /// Set when all that is left is the renaming.
    written: Option<ExportReport>,
    backoff: Backoff,
    /// The furthest position at which an attempt has begun.
    furthest: ByteOffset,
    /// When the present outage began.
    away_since: Option<Instant>,
    reconnects: usize,
}

/// How far the job has ever come.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Phase {
    /// Nothing has worked yet.
    New,
    /// The share has let us in. An outage from here on is waited for.
    Connected,
    /// The partial image has been opened.
    Opened,
    /// The partial image is this job's, and may be begun anew.
    Running,
}

enum Setback {
    /// The same may work a little later.
    Interrupted(SmbError),
    Failed(JobError),
}

impl<'j> Attempts<'j, '_, '_> {
    fn attempt(&mut self) -> Result<ExportReport, Setback> {
        let Share {
            location,
            credentials,
            security,
            timeouts,
        } = self.share;
        let share = SmbShare::connect(location, credentials, *security, *timeouts)
            .map_err(|error| self.smb(error))?;
        self.phase = self.phase.max(Phase::Connected);
        if let Some(report) = &self.written {
            let finished = SmbSink::is_finished(&share, report.file_size);
            if finished.map_err(|error| self.smb(error))? {
                return Ok(report.clone());
            }
        }
        let export = self.open(share)?;
        self.phase = Phase::Running;
        if export.position() > self.furthest {
            self.furthest = export.position();
            self.backoff.reset();
        }
        self.away_since = None;

        let (cancel, watch) = (&self.control.cancel, self.control.watch);
        let run = export.run(cancel, &watch.progress);
        let mut written = run.map_err(|error| self.setback(error))?;
        if self.spec.verify {
            let verified = written.verify(cancel, watch.begin_verify());
            written = verified.map_err(|error| self.setback(error))?;
        }
        self.written = Some(written.report().clone());
        (self.control.condition)().map_err(Setback::Failed)?;
        written.finish(cancel).map_err(|error| self.setback(error))
    }

    /// The partial image as it is to be gone on with, or a new one.
    fn open(&mut self, share: SmbShare) -> Result<Export<'j>, Setback> {
        let disk = self.source.disk;
        let options = self.spec.options(self.source.free_space, true);
        let sink_options = SinkOptions {
            overwrite: self.spec.overwrite,
            keep_partial: self.spec.keep_partial,
        };
        if self.spec.resume || self.phase >= Phase::Opened {
            match SmbSink::resume(share.clone(), sink_options) {
                Ok(sink) => {
                    self.phase = self.phase.max(Phase::Opened);
                    match Export::resume(disk, Box::new(sink), options) {
                        Ok(export) => {
                            self.notes.resumed_from(export.position());
                            return Ok(export);
                        }
                        Err(ExportError::Resume { source, .. }) if self.may_begin_anew(&source) => {
                            let begun = format!("the export was begun anew: {source}");
                            self.notes.warn(begun);
                        }
                        Err(error) => return Err(self.setback(error)),
                    }
                }
                // Cut before there was anything, or never begun.
                Err(error) if *error.kind() == SmbErrorKind::NoSuchPath => {}
                Err(error) => return Err(self.smb(error)),
            }
        }
        let needed =
            smallest_file_size(disk, options.format).map_err(|error| self.setback(error))?;
        let sink = SmbSink::create(share, sink_options, needed).map_err(|error| self.smb(error))?;
        self.phase = self.phase.max(Phase::Opened);
        Export::begin(disk, Box::new(sink), options).map_err(|error| self.setback(error))
    }

    /// Whether a partial image that can't be gone on with is to be replaced without a question.
    fn may_begin_anew(&self, refusal: &ResumeError) -> bool {
        match refusal {
            // Nothing is lost by it.
            ResumeError::NoCheckpoint => true,
            // A server that crashed has lost what it had accepted from this job.
            ResumeError::TailDiffers { .. } | ResumeError::Checkpoint(_) => {
                self.phase == Phase::Running
            }
            _ => false,
        }
    }

    fn setback(&self, error: ExportError) -> Setback {
        match error {
            ExportError::Write(SinkError::Smb(error)) => self.smb(error),
            error => Setback::Failed(export_failed(&error)),
        }
    }

    fn smb(&self, error: SmbError) -> Setback {
        if self.phase > Phase::New && error.is_retryable() {
            Setback::Interrupted(error)
        } else {
            Setback::Failed(smb_failed(&error))
        }
    }

    /// Waits a little, unless it has been waited for long enough.
    fn wait(&mut self, error: &SmbError) -> Result<(), JobError> {
        let away_since = *self.away_since.get_or_insert_with(Instant::now);
        self.reconnects += 1;
        let at = self.control.watch.progress.done();
        warn!(%error, "the export is interrupted at {at} of the disk");
        if self.reconnects <= RECONNECTS_TOLD {
            let told = format!("interrupted at {at:#} of the disk, then gone on with: {error}");
            self.notes.warn(told);
        } else if self.reconnects == RECONNECTS_TOLD + 1 {
            self.notes
                .warn("interrupted more often than is listed here".into());
        }
        if away_since.elapsed() >= LONGEST_OUTAGE {
            self.tell_what_is_left();
            return Err(smb_failed(error));
        }
        if wait(self.backoff.next(), &self.control.cancel) {
            self.tell_what_is_left();
            return Err(cancelled());
        }
        Ok(())
    }

    /// Without a connection the partial image can't be removed.
    fn tell_what_is_left(&mut self) {
        let location = &self.share.location;
        let (server, share) = (location.server(), location.share());
        let partial = format!("smb://{server}/{share}/{}", location.partial());
        self.notes.warn(format!(
            "{partial} is left on the share; the same export with --resume goes on with it"
        ));
    }
}

/// A job without a time limit of its own gives up when the server has been away for as long as a
/// job may take by default.
const LONGEST_OUTAGE: Duration = Duration::from_secs(7200);

/// Interruptions that are listed one by one.
const RECONNECTS_TOLD: usize = 10;
