//! NTFS, written.
//!
//! ```text
//!  edits --> ConfinedWriter                                 worker: a child process, confined
//!              |                                          +---------------------------------+
//!              | 1  state of the volume, room for all     |                                 |
//!              | 2  start, Hello ------------------------>|  no files, no network, no calls |
//!              | 3  Mount, Apply ..., Unmount ----------->|  but to read and write the one  |
//!              |                                          |  connection; then libntfs-3g    |
//!  overlay <---+------- Read, Write, Content <------------|                                 |
//!              | 4  everything read back                  +---------------------------------+
//!              v
//!           Applied, or an error: then the overlay is of no use
//! ```
//!
//! Edits are data ([`VolumeEdit`]); they are applied by libntfs-3g, which knows how to keep the
//! trees of NTFS in order, and which a hostile volume may well take over. So it runs where that
//! gains nothing: the worker has no disk. It asks its parent for every sector, and the parent gives
//! and takes only what belongs to the volume, only in an overlay, and no more than the edits can
//! need. What comes of it is read back by the reader of this crate before it counts.
//!
//! Not written: the change journal (`$UsnJrnl`) and the log (`$LogFile`), which Windows takes as
//! they are on a volume that was closed; alternate data streams; links; encrypted files.

use std::time::{Duration, Instant};

use super::NtfsVolume;
use super::blocker::VolumeState;
use crate::block::{BlockRead, BlockWrite};
use crate::cancel::Cancel;
use crate::units::ByteCount;

mod check;
mod command;
pub mod descriptor;
pub mod edit;
pub mod error;
mod launch;
pub mod protocol;
mod security;
pub mod session;
mod short_name;
mod space;
mod worker;

pub use edit::{
    ContentSource, EditOutcome, FileTimes, FileWrite, HostFile, Security, ShortNames, VolumeEdit,
};
pub use error::{LibraryFailure, NtfsWriteError, WorkerError};
pub use launch::WorkerProgram;
pub use worker::{Confinement, confine, worker_main};

use self::command::PlainEdit;
use self::launch::{Connection, Running};
use self::session::{Budget, Session, SessionError};

/// What can change an NTFS volume.
pub trait NtfsWrite {
    /// Applies `edits` in their order, all or nothing: after an error, what was written so far is
    /// to be dropped with the overlay that it went to.
    ///
    /// # Errors
    ///
    /// [`NtfsWriteError`], which names the edit. [`NtfsWriteError::Blocked`],
    /// [`NtfsWriteError::InvalidEdit`] and [`NtfsWriteError::NoSpace`] come before the first
    /// write.
    fn apply(&self, edits: &[VolumeEdit]) -> Result<Applied, NtfsWriteError>;
}

/// What applying edits did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Applied {
    /// What each of them did.
    pub outcomes: Vec<EditOutcome>,
    /// How much was written to the volume, what was written twice counted twice.
    pub written: ByteCount,
}

/// Writes a volume by libntfs-3g in a confined child process.
///
/// The disk is the volume alone (a [`Window`](crate::block::Window) of an
/// [`Overlay`](crate::block::Overlay)).
#[derive(Clone, Debug)]
pub struct ConfinedWriter<D> {
    disk: D,
    program: WorkerProgram,
    short_names: ShortNames,
    time_limit: Duration,
    cancel: Cancel,
}

impl<D: BlockRead + BlockWrite> ConfinedWriter<D> {
    /// A writer of the volume that fills `disk`.
    pub fn new(disk: D, short_names: ShortNames) -> Self {
        Self {
            disk,
            program: WorkerProgram::this(),
            short_names,
            time_limit: DEFAULT_TIME_LIMIT,
            cancel: Cancel::default(),
        }
    }

    /// Has another program be the worker than this one.
    #[must_use]
    pub fn with_worker(mut self, program: WorkerProgram) -> Self {
        self.program = program;
        self
    }

    /// Gives up when that much time has passed (15 minutes, if nothing is said).
    #[must_use]
    pub fn with_time_limit(mut self, time_limit: Duration) -> Self {
        self.time_limit = time_limit;
        self
    }

    /// Gives up when `cancel` asks for it.
    #[must_use]
    pub fn with_cancel(mut self, cancel: Cancel) -> Self {
        self.cancel = cancel;
        self
    }

    /// Whether `edits` can be applied, as far as the state of the volume and its room tell. Nothing is
    /// written.
    ///
    /// # Errors
    ///
    /// [`NtfsWriteError::Blocked`], [`NtfsWriteError::InvalidEdit`] and [`NtfsWriteError::NoSpace`]; others
    /// when the volume cannot be read.
    pub fn check(&self, edits: &[VolumeEdit]) -> Result<(), NtfsWriteError> {
        self.budget(edits).map(drop)
    }

    /// Checks `edits`, and says what they may write.
    fn budget(&self, edits: &[VolumeEdit]) -> Result<Budget, NtfsWriteError> {
        validate(edits)?;
        let volume = NtfsVolume::open(&self.disk)?;
        let blockers = VolumeState::read(&volume)?.blockers(None);
        if !blockers.is_empty() {
            return Err(NtfsWriteError::Blocked { blockers });
        }
        space::check(&volume, edits)?;
        Ok(Budget::of(edits, volume.geometry().cluster_size))
    }

    fn poll(&self, deadline: Instant, during: &str) -> Result<(), NtfsWriteError> {
        let during = || during.to_owned();
        if self.cancel.is_requested() {
            return Err(NtfsWriteError::Cancelled { during: during() });
        }
        if Instant::now() >= deadline {
            return Err(NtfsWriteError::TimedOut {
                limit: self.time_limit,
                during: during(),
            });
        }
        Ok(())
    }

    /// Has a worker apply `edits`.
    fn have_applied(
        &self,
        edits: &[VolumeEdit],
        budget: Budget,
        deadline: Instant,
    ) -> Result<Applied, NtfsWriteError> {
        let starting = |source| NtfsWriteError::Worker {
            during: "starting".to_owned(),
            source,
        };
        let (mut running, stream) = Running::start(&self.program).map_err(starting)?;
        let connection = Connection::new(stream, self.cancel.clone(), deadline)
            .map_err(|source| starting(WorkerError::Connection(source)))?;
        let mut fail = |during: During<'_>, error| {
            let poll = self.poll(deadline, &during.words());
            during.error(error, poll, &mut running)
        };
        let mut session = Session::begin(&self.disk, connection, budget)
            .map_err(|error| fail(During::Volume("starting"), error))?;
        session
            .mount(self.short_names)
            .map_err(|error| fail(During::Volume("opening the volume for writing"), error))?;
        let mut outcomes = Vec::with_capacity(edits.len());
        for (number, edit) in (1..).zip(edits) {
            let applied = session.apply(edit);
            outcomes.push(applied.map_err(|error| fail(During::Edit(number, edit), error))?);
        }
        let written = session
            .finish()
            .map_err(|error| fail(During::Volume("closing the volume"), error))?;
        match running.end() {
            Some(status) if status.success() => Ok(Applied { outcomes, written }),
            status => Err(NtfsWriteError::Worker {
                during: "ending".to_owned(),
                source: WorkerError::Ended { status },
            }),
        }
    }
}

impl<D: BlockRead + BlockWrite> NtfsWrite for ConfinedWriter<D> {
    fn apply(&self, edits: &[VolumeEdit]) -> Result<Applied, NtfsWriteError> {
        let deadline = Instant::now() + self.time_limit;
        let budget = self.budget(edits)?;
        if edits.is_empty() {
            return Ok(Applied {
                outcomes: Vec::new(),
                written: ByteCount(0),
            });
        }
        let applied = self.have_applied(edits, budget, deadline)?;
        let volume = NtfsVolume::open(&self.disk)?;
        check::check(&volume, edits, &applied.outcomes, &|| {
            self.poll(deadline, "reading back what was written")
        })?;
        Ok(applied)
    }
}

/// Finds what no volume could make of the edits.
fn validate(edits: &[VolumeEdit]) -> Result<(), NtfsWriteError> {
    for (number, edit) in (1..).zip(edits) {
        let invalid = |problem| NtfsWriteError::InvalidEdit {
            number,
            edit: edit.to_string(),
            problem,
        };
        let is_folder = matches!(edit, VolumeEdit::CreateFolder { .. });
        if edit.path().is_root() && !is_folder {
            return Err(invalid("the root folder is not changed"));
        }
        if let VolumeEdit::SetMeta {
            attributes: None,
            times: None,
            ..
        } = edit
        {
            return Err(invalid("it sets nothing"));
        }
    }
    Ok(())
}

/// What is being done, for errors.
#[derive(Clone, Copy)]
enum During<'e> {
    Edit(usize, &'e VolumeEdit),
    Volume(&'static str),
}

impl During<'_> {
    fn words(self) -> String {
        match self {
            Self::Edit(number, edit) => format!("edit {number}: {edit}"),
            Self::Volume(words) => words.to_owned(),
        }
    }

    /// What an error of the session means. `poll` tells whether waiting was given up.
    fn error(
        self,
        error: SessionError,
        poll: Result<(), NtfsWriteError>,
        running: &mut Running,
    ) -> NtfsWriteError {
        let during = self.words();
        match (error, self) {
            (SessionError::Block(source), _) => NtfsWriteError::Block { during, source },
            (SessionError::Content(source), _) => {
                let path = match self {
                    Self::Edit(_, edit) => edit.path().to_string(),
                    Self::Volume(words) => words.to_owned(),
                };
                NtfsWriteError::Content { path, source }
            }
            (SessionError::Library { step, failure }, Self::Edit(number, edit)) => {
                let edit = edit.to_string();
                NtfsWriteError::Edit {
                    number,
                    edit,
                    step,
                    failure,
                }
            }
            (SessionError::Library { step, failure }, Self::Volume(_)) => {
                NtfsWriteError::Library { step, failure }
            }
            (SessionError::Stopped(source), _) => poll.err().unwrap_or(NtfsWriteError::Worker {
                during,
                source: WorkerError::Connection(source),
            }),
            (SessionError::Worker(WorkerError::Ended { .. }), _) => NtfsWriteError::Worker {
                during,
                source: WorkerError::Ended {
                    status: running.end(),
                },
            },
            (SessionError::Worker(source), _) => NtfsWriteError::Worker { during, source },
        }
    }
}

/// The hidden argument by which a program that calls [`worker_main`] is told to be the worker.
pub const WORKER_ARGUMENT: &str = "__ntfs-worker";

const DEFAULT_TIME_LIMIT: Duration = Duration::from_secs(15 * 60);
