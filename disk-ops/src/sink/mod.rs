//! Where an image is written to, under a partial name until it is whole.

use crate::units::{ByteCount, ByteOffset};

/// An output file that is written mostly in ascending order and becomes visible when it is whole.
///
/// ```text
///  create "name.vhdx.partial" --> write_at*, skip* --> flush --> write_at (head) --> finish
///                                      |                                              |
///                                   dropped: removed, or kept for a resume    renamed "name.vhdx"
/// ```
pub trait ByteSink: Send {
    /// Writes `bytes` at `offset`.
    ///
    /// # Errors
    ///
    /// [`SinkError`], after which the sink is of no further use but to be abandoned.
    fn write_at(&mut self, offset: ByteOffset, bytes: &[u8]) -> Result<(), SinkError>;

    /// Makes `length` bytes from `offset`, the present end of the file, read as zeros.
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

    /// Gives the whole file its final name.
    ///
    /// # Errors
    ///
    /// As for [`write_at`](Self::write_at), and when the final name has been taken meanwhile.
    fn finish(self: Box<Self>) -> Result<(), SinkError>;

    /// Removes what was written. Dropping the sink without a word does the same.
    fn abandon(self: Box<Self>);
}

/// Why an output could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
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
        source: std::io::Error,
    },
}
