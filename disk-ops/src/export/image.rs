//! The last stage: lays the data out in the image's format and hands it to the sink.

use std::sync::mpsc::{Receiver, Sender};

use ce_vhdx::{
    ClosingStep, ContentDigest, ContentId, FixedVhdWriter, Geometry, PIECE_LENGTH, PieceHash,
    VhdxWriter, VirtualOffset,
};

use super::checkpoint::{Checkpoint, CheckpointError, SavedImage};
use super::fingerprint::SourceFingerprint;
use super::stage::{CHUNK, Chunk, ChunkBody, Control, Stopped};
use super::{ExportError, ImageFormat};
use crate::block::BlockRead;
use crate::buffer::{Buffer, DIRECT_IO_ALIGNMENT};
use crate::sink::{ByteSink, SinkError};
use crate::units::{ByteCount, ByteOffset};

/// An image that is being written.
pub(super) struct Image {
    format: ImageFormat,
    layout: Layout,
    /// What the GUIDs are made of. It covers the same bytes as the hash but is always computed: the
    /// file must not depend on whether a hash was asked for.
    content: ContentDigest,
    geometry: Geometry,
    /// The end of what has been written, or counts as zeros, in the file.
    end: u64,
}

/// The formats differ in where the data lies, and in what comes last.
enum Layout {
    Vhdx(VhdxWriter),
    FixedVhd(FixedVhdWriter),
}

impl Image {
    /// An image of `source` with nothing in it yet.
    pub(super) fn new(source: &dyn BlockRead, format: ImageFormat) -> Result<Self, ExportError> {
        let sectors = source.sectors();
        let block_size = match format {
            ImageFormat::Vhdx(block_size) => block_size,
            ImageFormat::FixedVhd => Default::default(),
        };
        let disk = || source.name().to_owned();
        let geometry = Geometry::new(
            source.size().0,
            sectors.logical,
            sectors.physical,
            block_size,
        )
        .map_err(|source| ExportError::Geometry {
            disk: disk(),
            source,
        })?;
        let layout = match format {
            ImageFormat::Vhdx(_) => Layout::Vhdx(VhdxWriter::new(geometry)),
            ImageFormat::FixedVhd => {
                Layout::FixedVhd(FixedVhdWriter::new(&geometry).map_err(|source| {
                    ExportError::Vhd {
                        disk: disk(),
                        source,
                    }
                })?)
            }
        };
        Ok(Self {
            format,
            layout,
            content: ContentDigest::new(),
            geometry,
            end: 0,
        })
    }

    /// The size of the disk in the image.
    pub(super) fn virtual_size(&self) -> ByteCount {
        ByteCount(match &self.layout {
            Layout::Vhdx(_) => self.geometry.disk_size(),
            Layout::FixedVhd(vhd) => vhd.virtual_size(),
        })
    }

    /// The length of the file if nothing but zeros were on the disk.
    pub(super) fn smallest_file_size(&self) -> ByteCount {
        ByteCount(match &self.layout {
            Layout::Vhdx(_) => self.geometry.data_offset().0,
            Layout::FixedVhd(vhd) => vhd.virtual_size() + VHD_FOOTER,
        })
    }

    /// The end of what has been written, or counts as zeros, in the file.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// How many bytes of the disk, from a multiple of as many on, lie in one piece in the file.
    pub(super) fn contiguous(&self) -> u64 {
        match &self.layout {
            Layout::Vhdx(_) => self.geometry.block_size().bytes(),
            Layout::FixedVhd(_) => CHUNK as u64,
        }
    }

    /// Where in the file the run of [`contiguous`](Self::contiguous) bytes lies that begins at
    /// `offset` of the disk; `None` if it has no place there, being zero.
    pub(super) fn locate(&self, offset: ByteOffset) -> Option<u64> {
        match &self.layout {
            Layout::Vhdx(writer) => Some(writer.locate(VirtualOffset(offset.0))?.0),
            Layout::FixedVhd(_) => Some(offset.0),
        }
    }

    /// The state in which `position` of the disk has been reached.
    fn save(&self) -> SavedImage {
        SavedImage {
            end: self.end,
            content: self.content.save(),
            writer: match &self.layout {
                Layout::Vhdx(writer) => writer.save(),
                Layout::FixedVhd(_) => Vec::new(),
            },
        }
    }

    /// Puts an image of which nothing has been written into the state of a checkpoint.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Field`] for a state in which nothing could be written from the
    /// checkpoint's position on.
    pub(super) fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let refused = |name| CheckpointError::Field { name };
        let SavedImage {
            end,
            content,
            writer: saved,
        } = &checkpoint.image;
        let position = checkpoint.position.0;
        self.content = ContentDigest::restore(content);
        if self.content.next_piece() > position / PIECE_LENGTH as u64 {
            return Err(refused("content digest"));
        }
        let longest = match &mut self.layout {
            Layout::Vhdx(writer) => {
                *writer = VhdxWriter::restore(self.geometry, saved)
                    .map_err(|_| refused("state of the image writer"))?;
                if writer.next().0 > position {
                    return Err(refused("state of the image writer"));
                }
                writer.file_length().0
            }
            Layout::FixedVhd(_) => position,
        };
        if *end > longest {
            return Err(refused("end of the file"));
        }
        self.end = *end;
        Ok(())
    }

    /// Writes one chunk: `data` from `offset` of the disk on, of which the first `length` bytes
    /// count; what lies behind them is zero up to the next alignment.
    fn write(
        &mut self,
        offset: ByteOffset,
        data: &[u8],
        length: usize,
        sink: &mut dyn ByteSink,
    ) -> Result<(), SinkError> {
        // Pieces that lie one behind the other on the disk and in the file are written in one go.
        let mut run: Option<Run> = None;
        for start in (0..length).step_by(PIECE_LENGTH) {
            let end = (start + PIECE_LENGTH).min(length);
            let position = offset.0 + start as u64;
            let Some(hash) = PieceHash::of(&data[start..end]) else {
                continue;
            };
            let place = self.place(position, (end - start) as u64, hash);
            match &mut run {
                Some(run)
                    if run.end == start && run.place + (start - run.start) as u64 == place =>
                {
                    run.end = end;
                }
                _ => {
                    let next = Run { place, start, end };
                    if let Some(complete) = run.replace(next) {
                        self.put(&complete, data, sink)?;
                    }
                }
            }
        }
        run.map_or(Ok(()), |run| self.put(&run, data, sink))
    }

    /// Where in the file the piece at `position` of the disk belongs.
    fn place(&mut self, position: u64, length: u64, hash: PieceHash) -> u64 {
        self.content
            .fold(position / PIECE_LENGTH as u64, hash)
            .expect("the reader sends chunks in order, and pieces inside a chunk ascend");
        match &mut self.layout {
            Layout::Vhdx(writer) => {
                writer
                    .place(VirtualOffset(position), length)
                    .expect("a piece ascends, lies on the disk and, at most 1 MiB, in one block")
                    .0
            }
            Layout::FixedVhd(_) => position,
        }
    }

    fn put(&mut self, run: &Run, data: &[u8], sink: &mut dyn ByteSink) -> Result<(), SinkError> {
        self.extend(run.place, sink)?;
        // Up to the next alignment there are zeros in the buffer and, as every payload block and
        // every VHD is a multiple of it, zeros in the image.
        let end = run.end.next_multiple_of(DIRECT_IO_ALIGNMENT);
        let bytes = &data[run.start..end];
        sink.write_at(ByteOffset(run.place), bytes)?;
        self.end = run.place + bytes.len() as u64;
        Ok(())
    }

    /// Lets the file reach up to `end`, with zeros.
    fn extend(&mut self, end: u64, sink: &mut dyn ByteSink) -> Result<(), SinkError> {
        if end > self.end {
            let length = ByteCount(end - self.end);
            sink.extend_with_zeros(ByteOffset(self.end), length)?;
            self.end = end;
        }
        Ok(())
    }

    /// Writes what makes an image of the data.
    fn close(mut self, sink: &mut dyn ByteSink) -> Result<Content, SinkError> {
        let content = self.content.finish(&self.geometry);
        let geometry = self.geometry;
        let written = |length| Content {
            id: content,
            geometry,
            file_size: ByteCount(length),
        };
        let payload_end = match &self.layout {
            Layout::Vhdx(writer) => writer.file_length().0,
            Layout::FixedVhd(vhd) => vhd.virtual_size(),
        };
        self.extend(payload_end, sink)?;
        match self.layout {
            Layout::Vhdx(writer) => {
                for step in writer.finish(content) {
                    match step {
                        ClosingStep::Write { offset, bytes } => {
                            sink.write_at(ByteOffset(offset.0), &bytes)?;
                        }
                        ClosingStep::Flush => sink.flush()?,
                    }
                }
                Ok(written(payload_end))
            }
            Layout::FixedVhd(vhd) => {
                sink.flush()?;
                let footer = vhd.footer(&content);
                sink.write_at(ByteOffset(payload_end), &footer)?;
                Ok(written(payload_end + footer.len() as u64))
            }
        }
    }
}

/// Bytes `start..end` of a chunk, which go to `place` in the file.
struct Run {
    place: u64,
    start: usize,
    end: usize,
}

/// What has been written, once it is an image.
#[derive(Clone, Debug)]
pub(super) struct Content {
    pub(super) id: ContentId,
    /// Of the disk; the identity covers it.
    pub(super) geometry: Geometry,
    pub(super) file_size: ByteCount,
}

/// Writes all chunks from `start` on and what completes the image. At every mark the state is saved
/// in the sink, for a resume with `source`.
pub(super) fn run(
    mut image: Image,
    sink: &mut dyn ByteSink,
    start: ByteOffset,
    source: Option<&SourceFingerprint>,
    chunks: Receiver<Chunk>,
    give_back: Sender<Buffer>,
    control: &Control<'_>,
) -> Result<Content, Stopped> {
    let mut position = start.0;
    for chunk in chunks {
        control.check()?;
        match chunk.body {
            ChunkBody::Data { mut buffer, length } => {
                let padded = length.next_multiple_of(DIRECT_IO_ALIGNMENT);
                let data = buffer.bytes_mut(padded);
                data[length..].fill(0);
                image
                    .write(chunk.offset, data, length, sink)
                    .map_err(|error| control.fail(error))?;
                position = chunk.offset.0 + length as u64;
                // Refused only by a reader that has read all it has to.
                drop(give_back.send(buffer));
            }
            ChunkBody::Zero { length } => position = chunk.offset.0 + length.0,
            ChunkBody::Mark { md5 } => {
                // A VHD has zeros, too, in their place: none are left behind for later.
                if let Layout::FixedVhd(_) = image.layout {
                    image
                        .extend(position, sink)
                        .map_err(|error| control.fail(error))?;
                }
                if let Some(source) = source {
                    let checkpoint = Checkpoint {
                        source: source.clone(),
                        format: image.format,
                        position: chunk.offset,
                        image: image.save(),
                        md5,
                    };
                    sink.save_state(&checkpoint.to_bytes())
                        .map_err(|error| control.fail(error))?;
                }
            }
        }
        control.progress.reach(ByteCount(position));
    }
    // The queue also closes when an earlier stage fails: then the image must not be completed.
    if position != image.virtual_size().0 {
        return Err(Stopped);
    }
    control.check()?;
    image.close(sink).map_err(|error| control.fail(error))
}

/// The length of what follows the disk in a fixed VHD, in bytes.
const VHD_FOOTER: u64 = 512;
