//! Where an image is written to, under a partial name until it is whole.

use std::io;

use crate::units::{ByteCount, ByteOffset};

mod file;
mod name;
pub mod smb;

pub use file::FileSink;
pub use name::{NameProblem, check_name};

/// What becomes of files that are there already, and of an unfinished one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SinkOptions {
    /// An image of the final name is replaced by the finished one. Otherwise it is an error.
    pub overwrite: bool,
    /// An image that is not finished is left under its partial name, for a resume. Otherwise it is
    /// removed.
    pub keep_partial: bool,
}

/// An output file that is written mostly in ascending order and becomes visible when it is whole.
///
/// ```text
///  "name.vhdx.partial" --> write_at*, extend_with_zeros* --> flush --> write_at (head) --> finish
///          |                       |                                                         |
///   dropped: removed    save_state: "name.vhdx.partial.state"                    renamed "name.vhdx"
///   (or kept)
/// ```
pub trait ByteSink: Send {
    /// What to call the output in a message: its final name.
    fn name(&self) -> &str;

    /// Writes `bytes` at `offset`. Requests that are aligned to 4 KiB are the fast ones.
    ///
    /// # Errors
    ///
    /// [`SinkError`], after which the sink is good for nothing but to be dropped.
    fn write_at(&mut self, offset: ByteOffset, bytes: &[u8]) -> Result<(), SinkError>;

    /// Lets `length` bytes from `offset`, the present end of the file, read as zeros.
    ///
    /// A sink that can leave a hole does so.
    ///
    /// # Errors
    ///
    /// As for [`write_at`](Self::write_at).
    fn extend_with_zeros(&mut self, offset: ByteOffset, length: ByteCount)
    -> Result<(), SinkError>;

    /// Makes everything written so far durable, as far as the destination can.
    ///
    /// # Errors
    ///
    /// As for [`write_at`](Self::write_at).
    fn flush(&mut self) -> Result<(), SinkError>;

    /// Reads back as much of `buffer` as the file has from `offset` on, and says how much.
    ///
    /// # Errors
    ///
    /// As for [`write_at`](Self::write_at), also of an earlier write.
    fn read_at(&mut self, offset: ByteOffset, buffer: &mut [u8]) -> Result<usize, SinkError>;

    /// Keeps `state` beside the unfinished file, in place of what was kept there before, once all
    /// that was written so far is as durable as [`flush`](Self::flush) makes it.
    ///
    /// # Errors
    ///
    /// As for [`write_at`](Self::write_at).
    fn save_state(&mut self, state: &[u8]) -> Result<(), SinkError>;

    /// The state that was kept last; `None` if none was.
    ///
    /// # Errors
    ///
    /// As for [`write_at`](Self::write_at).
    fn load_state(&mut self) -> Result<Option<Vec<u8>>, SinkError>;

    /// Forgets what lies behind `end`, where writing goes on. A sink that can't shorten its file
    /// relies on all of that being written again, and finds out when it finishes.
    ///
    /// # Errors
    ///
    /// As for [`write_at`](Self::write_at).
    fn cut_to(&mut self, end: ByteOffset) -> Result<(), SinkError>;

    /// Removes the unfinished file and its state, even where they would be kept for a resume.
    fn discard(self: Box<Self>);

    /// Flushes, and gives the whole file its final name.
    ///
    /// # Errors
    ///
    /// As for [`write_at`](Self::write_at), and [`SinkError::Exists`] when the final name has been
    /// taken meanwhile. The partial file is then removed.
    fn finish(self: Box<Self>) -> Result<(), SinkError>;
}

/// Why an output could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// Another process is writing this very output.
    #[error("{output} is being written by another process, which holds {partial}")]
    Busy {
        /// The output's name.
        output: String,
        /// The partial file that is locked.
        partial: String,
    },
    /// The output could not be created.
    #[error("cannot create {output}")]
    Create {
        /// The name that could not be created.
        output: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// There is a file of this name, and nobody allowed to replace it.
    #[error("{output} exists already")]
    Exists {
        /// The output's name.
        output: String,
    },
    /// The file is written but could not be made durable or given its name.
    #[error("cannot complete {output}")]
    Finish {
        /// The output's name.
        output: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The destination is full.
    #[error("{output}: no room for {length} more at {offset}; {available} are free there")]
    NoSpace {
        /// The output's name.
        output: String,
        /// Where the write began.
        offset: ByteOffset,
        /// How much was to be written.
        length: ByteCount,
        /// What the file system says is free.
        available: ByteCount,
    },
    /// What was written could not be read back.
    #[error("{output}: reading back at {offset} failed")]
    ReadBack {
        /// The name of the file.
        output: String,
        /// Where the read began.
        offset: ByteOffset,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A share failed; its error says in what way, and whether trying again can help.
    #[error(transparent)]
    Smb(#[from] smb::SmbError),
    /// The destination failed.
    #[error("{output}: writing {length} at {offset} failed")]
    Write {
        /// The output's name.
        output: String,
        /// Where the write began.
        offset: ByteOffset,
        /// How much was to be written.
        length: ByteCount,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}
