//! The parent's side of the conversation: serves the worker, and believes nothing that it says.
//!
//! | what a hostile worker may try | what bounds it |
//! |---|---|
//! | to read or write outside of the volume | every range is checked against the volume's size |
//! | to fill the scratch folder | what it may write follows from the edits ([`Budget`]) |
//! | to keep the parent busy for ever | requests are counted, and there is a deadline |
//! | to send frames of any size | a frame is bounded before it is read |
//! | to claim a success | what it wrote is read back by another implementation |
//!
//! When the disk fails, the conversation is over: libntfs-3g is not told. It may try again for ever
//! (2022.10.3 does when the block of a folder's index cannot be written), and what it could still do
//! is of no use.

use std::io::{self, Read, Write};

use super::command::{Command, reply};
use super::edit::{ContentSource, EditOutcome, VolumeEdit};
use super::error::WorkerError;
use super::protocol::{Answer, Link, LinkError, Request, Step};
use super::worker::Confinement;
use super::{LibraryFailure, PlainEdit, ShortNames};
use crate::block::{BlockError, BlockRead, BlockWrite};
use crate::units::{ByteCount, ByteOffset};

/// A conversation with a worker about one volume.
#[derive(Debug)]
pub struct Session<'d, D, T> {
    disk: &'d D,
    link: Link<T>,
    budget: Budget,
    written: ByteCount,
}

/// What a worker may still do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Budget {
    /// How many bytes it may write.
    pub bytes: u64,
    /// How many requests it may make.
    pub requests: u64,
}

impl Budget {
    /// What applying `edits` can need at most, with ample room.
    pub fn of(edits: &[VolumeEdit], cluster_size: u32) -> Self {
        let cluster = u64::from(cluster_size);
        let mut budget = Self {
            bytes: 64 << 20,
            requests: 100_000,
        };
        for edit in edits {
            let (bytes, requests) = match edit {
                VolumeEdit::WriteFile(file) => {
                    // Sparse attribute lists and fragments make many small writes of large files.
                    let size = file.content.size().0;
                    (size.saturating_mul(2), size / 512)
                }
                // One for every file that a volume can have would be no bound.
                VolumeEdit::DeleteTree { .. } => (8 << 30, 50_000_000),
                _ => (0, 0),
            };
            // Index blocks, records and bitmaps that an edit touches, level by level.
            let metadata = (4 << 20) + 64 * cluster;
            budget.bytes = budget.bytes.saturating_add(bytes).saturating_add(metadata);
            budget.requests = budget.requests.saturating_add(requests + 20_000);
        }
        budget
    }
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The disk failed below the worker.
    #[error("the disk failed")]
    Block(#[source] BlockError),
    /// The content of a file could not be read.
    #[error("the content of the file could not be read")]
    Content(#[source] io::Error),
    /// libntfs-3g says that it does not work.
    #[error("{} failed: {failure}", step.words())]
    Library {
        /// What does not.
        step: Step,
        /// What it said.
        failure: LibraryFailure,
    },
    /// Waiting was given up: the error of the transport.
    #[error("given up")]
    Stopped(#[source] io::Error),
    /// The worker failed, or broke the rules.
    #[error("the worker failed")]
    Worker(#[from] WorkerError),
}

impl<'d, D: BlockRead + BlockWrite, T: Read + Write> Session<'d, D, T> {
    /// Begins a conversation over `transport` about the volume that fills `disk`.
    ///
    /// An error of the transport of the kind `TimedOut` is taken for the end of the caller's
    /// patience, not for a defect of the worker.
    ///
    /// # Errors
    ///
    /// [`SessionError::Worker`] when the worker does not answer as one, or is not confined.
    pub fn begin(disk: &'d D, transport: T, budget: Budget) -> Result<Self, SessionError> {
        let mut link = Link::new(transport);
        let frame = link.receive().map_err(broken)?;
        match Request::decode(&frame).map_err(WorkerError::from)? {
            Request::Hello { confinement, .. }
                if Confinement(confinement).contains(Confinement::REQUIRED) => {}
            Request::Hello {
                library,
                confinement,
            } => {
                let expected = Confinement::REQUIRED.0;
                return Err(SessionError::Worker(WorkerError::NotConfined {
                    library,
                    confinement,
                    expected,
                }));
            }
            other => return Err(out_of_turn(&other, "its name")),
        }
        Ok(Self {
            disk,
            link,
            budget,
            written: ByteCount(0),
        })
    }

    /// Has the worker mount the volume.
    ///
    /// # Errors
    ///
    /// [`SessionError`]. The conversation cannot be continued after it, as after every error.
    pub fn mount(&mut self, short_names: ShortNames) -> Result<(), SessionError> {
        let command = Command::Mount {
            size: self.disk.size().0,
            sector_size: u32::try_from(self.disk.sectors().logical.bytes()).unwrap_or(u32::MAX),
            short_names,
        };
        match self.carry_out(&command, None)? {
            Answer::Mounted => Ok(()),
            other => Err(out_of_turn(&Request::Done(other), "that it has mounted")),
        }
    }

    /// Has the worker apply `edit`.
    ///
    /// # Errors
    ///
    /// [`SessionError`].
    pub fn apply(&mut self, edit: &VolumeEdit) -> Result<EditOutcome, SessionError> {
        let command = Command::Apply(PlainEdit::of(edit));
        let content = match edit {
            VolumeEdit::WriteFile(file) => Some(&*file.content),
            _ => None,
        };
        match self.carry_out(&command, content)? {
            Answer::Applied(outcome) => Ok(outcome),
            other => Err(out_of_turn(
                &Request::Done(other),
                "that it has applied an edit",
            )),
        }
    }

    /// Has the worker write back everything and end. Gives how much it has written in all.
    ///
    /// # Errors
    ///
    /// [`SessionError`].
    pub fn finish(&mut self) -> Result<ByteCount, SessionError> {
        match self.carry_out(&Command::Unmount, None)? {
            Answer::Unmounted => Ok(self.written),
            other => Err(out_of_turn(&Request::Done(other), "that it has unmounted")),
        }
    }

    /// How much it has written so far.
    pub fn written(&self) -> ByteCount {
        self.written
    }

    fn carry_out(
        &mut self,
        command: &Command,
        content: Option<&dyn ContentSource>,
    ) -> Result<Answer, SessionError> {
        let sent = self.link.send(command.kind(), |out| {
            command.encode(out);
            Ok::<(), io::Error>(())
        });
        sent.map_err(broken_io)?;
        loop {
            if let Some(answer) = self.serve_one(content)? {
                return match answer {
                    Answer::Failed {
                        step,
                        errno,
                        message,
                    } => Err(SessionError::Library {
                        step,
                        failure: LibraryFailure { errno, message },
                    }),
                    answer => Ok(answer),
                };
            }
        }
    }

    /// Takes one request and answers it; gives the end of the command, if that is what it is.
    fn serve_one(
        &mut self,
        content: Option<&dyn ContentSource>,
    ) -> Result<Option<Answer>, SessionError> {
        let limit = self.budget.requests;
        self.budget.requests = limit.checked_sub(1).ok_or(WorkerError::Excess {
            what: "made requests,",
            limit,
        })?;
        let disk = self.disk;
        let end = disk.size().end();
        let frame = self.link.receive().map_err(broken)?;
        match Request::decode(&frame).map_err(WorkerError::from)? {
            Request::Done(answer) => return Ok(Some(answer)),
            other @ Request::Hello { .. } => return Err(out_of_turn(&other, "a request")),
            Request::Read { offset, length } => {
                check("the volume", offset, length.into(), end)?;
                let read = answer_with_data(&mut self.link, length, |buffer| {
                    disk.read_at(ByteOffset(offset), buffer)
                })?;
                read.map_err(SessionError::Block)?;
            }
            Request::Write { offset, bytes } => {
                let length = bytes.len() as u64;
                check("the volume", offset, length, end)?;
                let left = self.budget.bytes.checked_sub(length);
                self.budget.bytes = left.ok_or(WorkerError::Excess {
                    what: "wrote",
                    limit: self.written.0 + self.budget.bytes,
                })?;
                let done = disk.write_at(ByteOffset(offset), bytes);
                done.map_err(SessionError::Block)?;
                self.written.0 += length;
                self.fine()?;
            }
            // The journal decides when something has to be durable; an overlay is not.
            Request::Sync => self.fine()?,
            Request::Content { offset, length } => {
                let content = content.ok_or_else(|| WorkerError::OutOfTurn {
                    found: "a wish for content".to_owned(),
                    expected: "something that has to do with the command",
                })?;
                check("the content", offset, length.into(), content.size().end())?;
                let read = answer_with_data(&mut self.link, length, |buffer| {
                    content.read_at(offset, buffer)
                })?;
                read.map_err(SessionError::Content)?;
            }
        }
        Ok(None)
    }

    fn fine(&mut self) -> Result<(), SessionError> {
        let sent = self.link.send(reply::FINE, |_| Ok::<(), io::Error>(()));
        sent.map_err(broken_io)
    }
}

/// Sends `length` bytes that `fill` puts in place, or nothing when it fails.
fn answer_with_data<T: Read + Write, E>(
    link: &mut Link<T>,
    length: u32,
    fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
) -> Result<Result<(), E>, SessionError> {
    enum Unsent<E> {
        Fill(E),
        Send(io::Error),
    }
    impl<E> From<io::Error> for Unsent<E> {
        fn from(error: io::Error) -> Self {
            Self::Send(error)
        }
    }
    let sent = link.send(reply::DATA, |out| {
        let start = out.len();
        out.resize(start + length as usize, 0);
        fill(&mut out[start..]).map_err(Unsent::Fill)
    });
    match sent {
        Ok(()) => Ok(Ok(())),
        Err(Unsent::Fill(error)) => Ok(Err(error)),
        Err(Unsent::Send(error)) => Err(broken_io(error)),
    }
}

fn check(what: &'static str, offset: u64, length: u64, end: ByteOffset) -> Result<(), WorkerError> {
    if offset.checked_add(length).is_some_and(|last| last <= end.0) {
        return Ok(());
    }
    Err(WorkerError::OutOfBounds {
        what,
        offset: ByteOffset(offset),
        length,
        end,
    })
}

fn broken(error: LinkError) -> SessionError {
    match error {
        LinkError::Io(error) => broken_io(error),
        LinkError::Protocol(error) => SessionError::Worker(error.into()),
    }
}

fn broken_io(error: io::Error) -> SessionError {
    match error.kind() {
        io::ErrorKind::TimedOut => SessionError::Stopped(error),
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset => {
            SessionError::Worker(WorkerError::Ended { status: None })
        }
        _ => SessionError::Worker(WorkerError::Connection(error)),
    }
}

fn out_of_turn(found: &Request<'_>, expected: &'static str) -> SessionError {
    let found = match found {
        Request::Content { .. } => "a wish for content".to_owned(),
        Request::Hello { .. } => "its name".to_owned(),
        Request::Read { .. } => "a wish to read".to_owned(),
        Request::Sync => "a wish to flush".to_owned(),
        Request::Write { .. } => "a wish to write".to_owned(),
        Request::Done(answer) => format!("{answer:?}"),
    };
    SessionError::Worker(WorkerError::OutOfTurn { found, expected })
}
