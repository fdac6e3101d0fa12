//! The child process: libntfs-3g, with nothing of the world but the connection to its parent.
//!
//! ```text
//!  worker_main --> confine --> Hello --> Mount --> Apply ... --> Unmount --> end
//!                                          |         |              |
//!                                          v         v              v
//!                                       libntfs-3g, whose disk is the parent
//! ```

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

mod apply;
mod confine;
mod native;

pub use confine::{Confinement, confine};

use self::apply::Applier;
use self::native::{Errno, NativeDisk, NativeVolume};
use super::command::{Command, PlainEdit, reply};
use super::edit::ShortNames;
use super::protocol::{Answer, Link, LinkError, MAX_MESSAGE, MAX_TRANSFER, Request, Step};

/// The program of the worker: to be called by `main` before anything else, when the first argument
/// is [`WORKER_ARGUMENT`](super::WORKER_ARGUMENT). Standard input has to be the connection.
///
/// It says nothing but what it says to its parent. Its exit code is 0 when it was told to end.
pub fn worker_main() -> ExitCode {
    let Ok(confinement) = confine() else {
        return ExitCode::from(NOT_CONFINED);
    };
    #[expect(
        unsafe_code,
        reason = "a socket as standard input is read and written as a file"
    )]
    // SAFETY: descriptor 0 is the connection that the parent made, and is open until the process
    // ends: ManuallyDrop never closes it. Nothing else uses it.
    let connection = ManuallyDrop::new(unsafe { File::from_raw_fd(0) });
    let served = catch_unwind(AssertUnwindSafe(|| serve(&*connection, confinement)));
    match served {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(_)) => ExitCode::from(CONNECTION_LOST),
        Err(_) => ExitCode::from(PANICKED),
    }
}

/// Talks to the parent until it is told to end.
fn serve<T: Read + Write>(connection: T, confinement: Confinement) -> Result<(), LinkError> {
    let parent = Parent(RefCell::new(Link::new(connection)));
    parent.say(&Request::Hello {
        library: LIBRARY_VERSION.to_owned(),
        confinement: confinement.0,
    })?;
    let Command::Mount {
        size,
        sector_size,
        short_names,
    } = parent.next_command()?
    else {
        return Err(io::Error::from(io::ErrorKind::InvalidData).into());
    };
    let volume = match NativeVolume::mount(&parent, size, sector_size) {
        Ok(volume) => volume,
        Err(errno) => {
            let failed = Failure::new(Step::Mount, errno);
            return parent.say(&Request::Done(failed.into_answer()));
        }
    };
    parent.say(&Request::Done(Answer::Mounted))?;
    apply_edits(&parent, volume, short_names)
}

fn apply_edits<T: Read + Write>(
    parent: &Parent<T>,
    volume: NativeVolume<'_, Parent<T>>,
    short_names: ShortNames,
) -> Result<(), LinkError> {
    let mut applier = Applier::new(volume, short_names);
    loop {
        match parent.next_command()? {
            Command::Apply(edit) => {
                let answer = answer_to(parent, &mut applier, &edit);
                parent.say(&Request::Done(answer))?;
            }
            Command::Unmount => {
                let answer = match applier.into_volume().unmount() {
                    Ok(()) => Answer::Unmounted,
                    Err(errno) => Failure::new(Step::Unmount, errno).into_answer(),
                };
                return parent.say(&Request::Done(answer));
            }
            Command::Mount { .. } => {
                return Err(io::Error::from(io::ErrorKind::InvalidData).into());
            }
        }
    }
}

fn answer_to<T: Read + Write>(
    parent: &Parent<T>,
    applier: &mut Applier<'_, Parent<T>>,
    edit: &PlainEdit,
) -> Answer {
    let content = |offset, buffer: &mut [u8]| parent.content(offset, buffer);
    match applier.apply(edit, content) {
        Ok(outcome) => Answer::Applied(outcome),
        Err(failure) => failure.into_answer(),
    }
}

/// What did not work, and how.
#[derive(Debug)]
struct Failure {
    step: Step,
    errno: Errno,
}

impl Failure {
    fn new(step: Step, errno: Errno) -> Self {
        Self { step, errno }
    }

    fn into_answer(self) -> Answer {
        let mut message: String = native::last_message()
            .trim()
            .chars()
            .map(|letter| if letter.is_control() { ' ' } else { letter })
            .collect();
        let end = message.floor_char_boundary(MAX_MESSAGE);
        message.truncate(end);
        Answer::Failed {
            step: self.step,
            errno: self.errno.0,
            message,
        }
    }
}

/// The parent, as a disk and as a source of content.
struct Parent<T>(RefCell<Link<T>>);

impl<T: Read + Write> Parent<T> {
    fn say(&self, request: &Request<'_>) -> Result<(), LinkError> {
        let mut link = self.0.borrow_mut();
        link.send(request.kind(), |out| {
            request.encode(out);
            Ok(())
        })
    }

    fn next_command(&self) -> Result<Command, LinkError> {
        let mut link = self.0.borrow_mut();
        let frame = link.receive()?;
        Ok(Command::decode(&frame)?)
    }

    /// Asks for something and takes the answer, which is as long as `buffer`.
    fn ask(&self, request: &Request<'_>, buffer: &mut [u8]) -> Result<(), Errno> {
        // Without its parent the worker has nothing to live for; the library ends with an error.
        self.say(request).map_err(|_| Errno::EIO)?;
        let mut link = self.0.borrow_mut();
        let frame = link.receive().map_err(|_| Errno::EIO)?;
        match frame.kind {
            reply::DATA if frame.payload.len() == buffer.len() && !buffer.is_empty() => {
                buffer.copy_from_slice(frame.payload);
                Ok(())
            }
            reply::FINE if buffer.is_empty() => Ok(()),
            _ => Err(Errno::EIO),
        }
    }

    fn content(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        for (offset, piece) in pieces(offset, buffer) {
            let length = piece.len() as u32;
            self.ask(&Request::Content { offset, length }, piece)?;
        }
        Ok(())
    }
}

impl<T: Read + Write> NativeDisk for Parent<T> {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Errno> {
        for (offset, piece) in pieces(offset, buffer) {
            // At most MAX_TRANSFER.
            let length = piece.len() as u32;
            self.ask(&Request::Read { offset, length }, piece)?;
        }
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let pieces = bytes.chunks(MAX_TRANSFER as usize);
        for (offset, bytes) in (offset..).step_by(MAX_TRANSFER as usize).zip(pieces) {
            self.ask(&Request::Write { offset, bytes }, &mut [])?;
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), Errno> {
        self.ask(&Request::Sync, &mut [])
    }
}

/// Pieces that fit into a frame, each with its position.
fn pieces(offset: u64, buffer: &mut [u8]) -> impl Iterator<Item = (u64, &mut [u8])> {
    let positions = (offset..).step_by(MAX_TRANSFER as usize);
    positions.zip(buffer.chunks_mut(MAX_TRANSFER as usize))
}

/// The version of libntfs-3g that is linked; the build script has made sure of it.
const LIBRARY_VERSION: &str = env!("CE_NTFS_3G_VERSION");

/// Exit codes, for messages of the parent.
pub(super) const NOT_CONFINED: u8 = 70;
pub(super) const CONNECTION_LOST: u8 = 71;
pub(super) const PANICKED: u8 = 72;
