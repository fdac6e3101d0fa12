//! Why a volume was not changed.

use std::fmt;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use super::descriptor::DescriptorError;
use super::protocol::{ProtocolError, Step};
use crate::block::BlockError;
use crate::units::{ByteCount, ByteOffset};
use crate::volume::{Blocker, VolumeError};

/// Why edits were not applied. What has been written by then is of no use: the overlay that it went
/// to has to be dropped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NtfsWriteError {
    /// The disk, or the overlay on it, could not be read or written.
    #[error("{during}: the disk failed")]
    Block {
        /// What was being done.
        during: String,
        /// What failed, with its position.
        #[source]
        source: BlockError,
    },
    /// Windows left the volume in a state in which it must not be changed. Nothing was written.
    #[error("the volume must not be changed: {}", list(blockers))]
    Blocked {
        /// Everything that was found.
        blockers: Vec<Blocker>,
    },
    /// Somebody asked for it.
    #[error("cancelled while {during}")]
    Cancelled {
        /// What was being done.
        during: String,
    },
    /// The content of a file could not be read.
    #[error("{path}: reading what is to be written to it failed")]
    Content {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// An edit asks for something that cannot be.
    #[error("edit {number}: {edit}: {problem}")]
    InvalidEdit {
        /// Which one of the edits, from 1 on.
        number: usize,
        /// The edit.
        edit: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// libntfs-3g refused or failed to open or close the volume.
    #[error("{} failed: {failure}", step.words())]
    Library {
        /// What was being done.
        step: Step,
        /// What it said.
        failure: LibraryFailure,
    },
    /// libntfs-3g refused or failed to carry out an edit.
    #[error("edit {number}: {edit}: {} failed: {failure}", step.words())]
    Edit {
        /// Which one of the edits, from 1 on.
        number: usize,
        /// The edit.
        edit: String,
        /// The part of it.
        step: Step,
        /// What libntfs-3g said.
        failure: LibraryFailure,
    },
    /// The volume has too little room. Nothing was written.
    #[error("the edits need {needed}, but {free} are free on the volume")]
    NoSpace {
        /// What new content and its records take.
        needed: ByteCount,
        /// What is free.
        free: ByteCount,
    },
    /// Read back, the volume is not what it was to become.
    #[error("{path}: read back after writing, {problem}")]
    NotAsWritten {
        /// The file or folder.
        path: String,
        /// What was found and what was expected.
        problem: String,
    },
    /// The security descriptor of something new is none.
    #[error("{path}: read back after writing")]
    Descriptor {
        /// The file or folder.
        path: String,
        /// What is wrong with it.
        #[source]
        source: DescriptorError,
    },
    /// It took too long.
    #[error("not done after {} s, while {during}", limit.as_secs())]
    TimedOut {
        /// How long it might take.
        limit: Duration,
        /// What was being done.
        during: String,
    },
    /// The volume could not be read.
    #[error("reading the volume failed")]
    Volume(#[from] VolumeError),
    /// The worker could not be started, ended, or did what it must not do.
    #[error("the process that writes NTFS failed while {during}")]
    Worker {
        /// What was being done.
        during: String,
        /// How.
        #[source]
        source: WorkerError,
    },
}

/// What libntfs-3g said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LibraryFailure {
    /// The value of `errno`.
    pub errno: i32,
    /// Its own message; may be empty. It may name structures of the disk: text from outside.
    pub message: String,
}

impl fmt::Display for LibraryFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", io::Error::from_raw_os_error(self.errno))?;
        if !self.message.is_empty() {
            write!(f, ": {:?}", self.message)?;
        }
        Ok(())
    }
}

/// What went wrong with the worker.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// It could not be started.
    #[error("{program} could not be started")]
    Start {
        /// The program.
        program: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It ended before it was told to.
    #[error("it ended: {}", ending(*status))]
    Ended {
        /// How, as far as that could be found out.
        status: Option<ExitStatus>,
    },
    /// The connection to it failed.
    #[error("the connection to it failed")]
    Connection(#[source] io::Error),
    /// It is not the worker of this program, or not confined.
    #[error(
        "it reports libntfs-3g {library:?} and confinement {confinement:#x}, expected {expected:#x}"
    )]
    NotConfined {
        /// The version of its library.
        library: String,
        /// How it is confined.
        confinement: u32,
        /// How it has to be.
        expected: u32,
    },
    /// What it sent is no message.
    #[error("it sent what is no message")]
    Protocol(#[from] ProtocolError),
    /// It sent a message at a point where none is due.
    #[error("it answered {found} when {expected} was due")]
    OutOfTurn {
        /// What it sent.
        found: String,
        /// What was expected.
        expected: &'static str,
    },
    /// It asked for something outside of the volume or the content.
    #[error("it asked for {length} bytes of {what} at {offset}, which ends at {end}")]
    OutOfBounds {
        /// The volume or the content.
        what: &'static str,
        /// Where.
        offset: ByteOffset,
        /// How much.
        length: u64,
        /// The end of what it may ask for.
        end: ByteOffset,
    },
    /// It asks for more than the edits can need.
    #[error("it {what} more than {limit}, which is more than these edits can need")]
    Excess {
        /// `wrote` or `made requests,`.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
}

fn list(blockers: &[Blocker]) -> String {
    let blockers: Vec<String> = blockers.iter().map(ToString::to_string).collect();
    blockers.join("; ")
}

fn ending(status: Option<ExitStatus>) -> String {
    use super::worker::{CONNECTION_LOST, NOT_CONFINED, PANICKED};
    let Some(status) = status else {
        return "nobody knows how".to_owned();
    };
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    match code {
        Some(NOT_CONFINED) => "it could not be confined (seccomp, close_range)".to_owned(),
        Some(CONNECTION_LOST) => "it lost the connection to this process".to_owned(),
        Some(PANICKED) => "a defect of this program".to_owned(),
        _ => status.to_string(),
    }
}
