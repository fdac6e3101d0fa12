//! Exports a disk as an image file, with its MD5, in one pass.
//!
//! ```text
//!   thread ce-read            thread ce-hash              thread ce-sink
//!  +---------------+        +----------------+        +-------------------+
//!  | read, or skip |  chunk | MD5 over data  |  chunk | place the pieces, |
//!  | what is known |------->| and zeros, in  |------->| write them, then  |---> ByteSink
//!  | to be zero    |        | order          |        | tables, then head |
//!  +---------------+        +----------------+        +-------------------+
//!          ^                (only if asked for)                 |
//!          +-------------------- empty buffers -----------------+
//! ```
//!
//! Bytes flow one way. The queue between two stages and the number of buffers are bounded, so the
//! memory in use does not depend on the size of the disk. MD5 is serial and slower than the disk, so
//! the hash sets the pace, and everything else happens while it runs.
//!
//! A stage that fails notes its error, if it is the first, and leaves; its queues close and the
//! others follow. The same holds for a cancel. The output is under its partial name until the very
//! end, and its first MiB, without which no reader takes it for a VHDX, is written last.
//!
//! An export can be cut at any moment and gone on with later, by another process as well
//! ([`Export::resume`]). For that the reader sends a mark every so often, among the chunks; the hash
//! puts its state into it as it passes, and the last stage saves both states as a [`Checkpoint`] in
//! the sink. No stage waits for another.

use std::sync::mpsc::sync_channel;
use std::thread;

use ce_vhdx::BlockSize;

use crate::block::BlockRead;
use crate::cancel::Cancel;
use crate::md5::Md5;
use crate::progress::Progress;
use crate::sink::ByteSink;
use crate::units::{ByteCount, ByteOffset};
use crate::volume::MaskIdentity;

mod checkpoint;
mod error;
mod fingerprint;
mod hash;
mod hasher;
mod image;
mod reader;
mod resume;
mod stage;
#[cfg(test)]
mod tests;
mod verify;

pub use checkpoint::{Checkpoint, CheckpointError, LONGEST_CHECKPOINT};
pub use error::{ExportError, ResumeError};
pub use hash::{HashMatch, compare_hash, hash};

use fingerprint::SourceFingerprint;
use hasher::DiskHash;
use image::{Content, Image};
use stage::{BUFFERS, Control, buffer_pool, join, spawn};
use verify::verify;

/// What kind of file an export writes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ImageFormat {
    /// A dynamic VHDX with payload blocks of this size.
    Vhdx(BlockSize),
    /// A fixed VHD. Its size is rounded up to a whole MiB, as Azure demands.
    FixedVhd,
}

/// What becomes of the free space of file systems. To leave it out is the work of the disk that is
/// exported, a [`FreeSpaceMask`](crate::volume::FreeSpaceMask): here it is what a resume has to
/// have in common with the export that was cut.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum FreeSpace {
    /// It is copied like everything else.
    #[default]
    Copy,
    /// It is zeros in the image, as this mask has it.
    Skip(MaskIdentity),
}

/// How a disk is exported.
#[derive(Clone, Copy, Debug)]
pub struct ExportOptions {
    /// The kind of file to write.
    pub format: ImageFormat,
    /// Whether to compute the MD5 of the disk's content.
    pub hash: bool,
    /// What the disk that is exported does with its free space.
    pub free_space: FreeSpace,
    /// How often the state is saved in the sink, for a resume; never if not said.
    pub checkpoints: Option<CheckpointInterval>,
}

impl ExportOptions {
    fn interval(&self) -> Option<CheckpointInterval> {
        let interval = self.checkpoints?;
        // A VHD has zeros in the file, where they may take as long to write as anything else.
        let zeros = match self.format {
            ImageFormat::Vhdx(_) => interval.zeros,
            ImageFormat::FixedVhd => interval.data,
        };
        Some(CheckpointInterval { zeros, ..interval })
    }
}

/// How much of a disk lies between two checkpoints, whichever is reached first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CheckpointInterval {
    /// Bytes that had to be read.
    pub data: ByteCount,
    /// Bytes that were known to be zero without reading them.
    pub zeros: ByteCount,
}

impl Default for CheckpointInterval {
    /// 256 MiB of data, some seconds on any line; 64 GiB of zeros, which the hash takes a minute or
    /// two for: an empty disk of 64 TiB has a thousand checkpoints.
    fn default() -> Self {
        Self {
            data: ByteCount::mib(256),
            zeros: ByteCount(64 << 30),
        }
    }
}

/// What an export did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExportReport {
    /// The MD5 of all bytes that a reader of the image sees, if it was asked for.
    pub md5: Option<Md5Digest>,
    /// The size of the disk in the image; what `md5` covers.
    pub virtual_size: ByteCount,
    /// The size of the image file.
    pub file_size: ByteCount,
}

/// An MD5 digest, shown as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Md5Digest(pub [u8; 16]);

impl Md5Digest {
    /// Reads 32 hexadecimal digits, in either case.
    pub fn from_hex(text: &str) -> Option<Self> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != 16 || !rest.is_empty() {
            return None;
        }
        let mut digest = [0; 16];
        for (byte, pair) in digest.iter_mut().zip(pairs) {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            // Two digits of four bits.
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Some(Self(digest))
    }
}

impl std::fmt::Display for Md5Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Writes `source` to `sink` and completes the sink.
///
/// # Errors
///
/// [`ExportError`]; the sink has then been dropped unfinished.
pub fn export(
    source: &dyn BlockRead,
    sink: Box<dyn ByteSink>,
    options: &ExportOptions,
    cancel: &Cancel,
    progress: &Progress,
) -> Result<ExportReport, ExportError> {
    let export = Export::begin(source, sink, *options)?;
    export.run(cancel, progress)?.finish(cancel)
}

/// An export that is ready to run, from the start of the disk or from where an earlier one was cut.
pub struct Export<'s> {
    source: &'s dyn BlockRead,
    sink: Box<dyn ByteSink>,
    options: ExportOptions,
    /// What checkpoints are bound to, if there are to be any.
    fingerprint: Option<SourceFingerprint>,
    image: Image,
    start: DiskHash,
}

impl<'s> Export<'s> {
    /// An export of all of `source` to `sink`, in which nothing has been written yet.
    ///
    /// # Errors
    ///
    /// [`ExportError::Geometry`], [`ExportError::Vhd`] and, if there are to be checkpoints,
    /// [`ExportError::Read`]. The sink has then been dropped.
    pub fn begin(
        source: &'s dyn BlockRead,
        sink: Box<dyn ByteSink>,
        options: ExportOptions,
    ) -> Result<Self, ExportError> {
        let image = Image::new(source, options.format)?;
        let fingerprint = match options.checkpoints {
            Some(_) => Some(SourceFingerprint::take(source, options.free_space)?),
            None => None,
        };
        Ok(Self {
            source,
            sink,
            options,
            fingerprint,
            image,
            start: DiskHash::default(),
        })
    }

    /// Goes on with what an earlier export left in `sink`, if it was one of the same disk with the
    /// same options, and the end of what it wrote is still there.
    ///
    /// # Errors
    ///
    /// [`ExportError::Resume`] says what stands against it; [`ExportError::Read`] and
    /// [`ExportError::Write`]. The sink has then been dropped.
    pub fn resume(
        source: &'s dyn BlockRead,
        mut sink: Box<dyn ByteSink>,
        options: ExportOptions,
    ) -> Result<Self, ExportError> {
        let fingerprint = SourceFingerprint::take(source, options.free_space)?;
        let (checkpoint, image) = resume::load(source, &fingerprint, sink.as_mut(), &options)?;
        let position = checkpoint.position;
        let md5 = match checkpoint.md5.map(|saved| saved.restore()) {
            None => Md5::default(),
            Some(Some(md5)) => md5,
            Some(None) => {
                return Err(ExportError::Resume {
                    output: sink.name().to_owned(),
                    source: CheckpointError::Field { name: "MD5 state" }.into(),
                });
            }
        };
        resume::verify_tail(source, sink.as_mut(), &image, position)?;
        sink.cut_to(ByteOffset(image.end()))?;
        Ok(Self {
            source,
            sink,
            options,
            fingerprint: options.checkpoints.map(|_| fingerprint),
            image,
            start: DiskHash { md5, position },
        })
    }

    /// Where on the disk it begins.
    pub fn position(&self) -> ByteOffset {
        self.start.position
    }

    /// Writes all that is left.
    ///
    /// # Errors
    ///
    /// [`ExportError`]; the sink has then been dropped unfinished.
    pub fn run(self, cancel: &Cancel, progress: &Progress) -> Result<Written, ExportError> {
        let Self {
            source,
            mut sink,
            options,
            fingerprint,
            image,
            start,
        } = self;
        let virtual_size = image.virtual_size();
        let position = start.position;
        let interval = options.interval();
        progress.reach(ByteCount(position.0));
        let control = Control::new(cancel, progress);
        let (md5, content) = thread::scope(|scope| {
            let (buffers, give_back) = buffer_pool();
            let (to_next, from_reader) = sync_channel(BUFFERS);
            let control = &control;
            let read = move || {
                reader::run(
                    source,
                    virtual_size,
                    position,
                    interval,
                    buffers,
                    to_next,
                    control,
                )
            };
            let reader = spawn(scope, "ce-read", read)?;
            let (hasher, from_last) = if options.hash {
                let (to_sink, from_hasher) = sync_channel(BUFFERS);
                let hash = move || hasher::run_through(start, from_reader, to_sink, control);
                (Some(spawn(scope, "ce-hash", hash)?), from_hasher)
            } else {
                (None, from_reader)
            };
            let sink = sink.as_mut();
            let fingerprint = fingerprint.as_ref();
            let write = move || {
                image::run(
                    image,
                    sink,
                    position,
                    fingerprint,
                    from_last,
                    give_back,
                    control,
                )
            };
            let writer = spawn(scope, "ce-sink", write)?;
            let read = join(reader);
            let hashed = hasher.map(join).transpose();
            let written = join(writer);
            control.outcome(read.and(hashed).and_then(|md5| Ok((md5, written?))))
        })?;
        Ok(Written {
            report: ExportReport {
                md5,
                virtual_size,
                file_size: content.file_size,
            },
            format: options.format,
            content,
            sink,
        })
    }
}

/// An image that is whole, but for its name.
pub struct Written {
    report: ExportReport,
    format: ImageFormat,
    content: Content,
    sink: Box<dyn ByteSink>,
}

impl Written {
    /// What has been written.
    pub fn report(&self) -> &ExportReport {
        &self.report
    }

    /// Reads the image back and compares its content with what was read from the disk: by its MD5,
    /// or, if the disk was not hashed, by the identity that is computed in any case.
    ///
    /// # Errors
    ///
    /// [`ExportError::Verify`] if it differs: what was written is then removed, also where it would
    /// be kept for a resume. [`ExportError::Write`] if it can't be read, and
    /// [`ExportError::Cancelled`].
    pub fn verify(mut self, cancel: &Cancel, progress: &Progress) -> Result<Self, ExportError> {
        let sink = self.sink.as_mut();
        match verify(
            sink,
            self.format,
            &self.report,
            &self.content,
            cancel,
            progress,
        ) {
            Ok(()) => Ok(self),
            Err(error @ ExportError::Verify { .. }) => {
                self.sink.discard();
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Gives the image its name.
    ///
    /// # Errors
    ///
    /// [`ExportError::Write`], and [`ExportError::Cancelled`].
    pub fn finish(self, cancel: &Cancel) -> Result<ExportReport, ExportError> {
        // The last moment at which a cancel still leaves nothing behind.
        if cancel.is_requested() {
            return Err(ExportError::Cancelled);
        }
        self.sink.finish()?;
        Ok(self.report)
    }
}

/// The length of the smallest image of `source`: an image of it needs at least that much space.
///
/// A VHD always has the one length. A VHDX has at least its tables; how many blocks follow is known
/// only when they have been read.
///
/// # Errors
///
/// [`ExportError::Geometry`] and [`ExportError::Vhd`] for a disk that no image can hold.
pub fn smallest_file_size(
    source: &dyn BlockRead,
    format: ImageFormat,
) -> Result<ByteCount, ExportError> {
    Ok(Image::new(source, format)?.smallest_file_size())
}
