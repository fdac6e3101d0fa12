//! The content of a file, however it is kept.

use super::geometry::Geometry;
use super::record::FileRecord;
use super::reparse::{Reparse, WofAlgorithm};
use super::stream::{Encoding, Place, Stream, check_limit};
use super::{DATA, NtfsVolume};
use crate::block::BlockRead;
use crate::units::{ByteCount, ByteOffset};
use crate::volume::{VolumeError, ntfs::xpress};

/// The content of an open file.
#[derive(Debug)]
pub struct FileReader<'v, D> {
    disk: &'v D,
    geometry: &'v Geometry,
    name: String,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// A stream of the file.
    Stream(Stream),
    /// Chunks of XPRESS in a stream beside the one that they stand for.
    Wof {
        packed: Stream,
        algorithm: WofAlgorithm,
        size: u64,
    },
}

impl<'v, D: BlockRead> FileReader<'v, D> {
    pub(super) fn open(
        volume: &'v NtfsVolume<D>,
        record: &FileRecord,
        name: String,
    ) -> Result<Self, VolumeError> {
        if record.is_folder {
            return Err(VolumeError::IsFolder { file: name });
        }
        let content = match volume.reparse_of(record)? {
            Some(Reparse::Wof(algorithm)) => wof(record, algorithm, &name)?,
            Some(Reparse::WofWim) => {
                return Err(VolumeError::Unsupported {
                    file: name,
                    what: Reparse::WofWim.to_string(),
                });
            }
            Some(reparse @ (Reparse::Junction { .. } | Reparse::Symlink { .. })) => {
                return Err(VolumeError::Reparse {
                    file: name,
                    reparse,
                });
            }
            // What a filter driver would make of it is not known: the content could be a stub.
            Some(reparse @ Reparse::Other { .. }) => {
                return Err(VolumeError::Unsupported {
                    file: name,
                    what: reparse.to_string(),
                });
            }
            None => Content::Stream(stream(record, "", &name, volume)?),
        };
        Self::new(volume, content, name)
    }

    pub(super) fn open_stream(
        volume: &'v NtfsVolume<D>,
        record: &FileRecord,
        stream_name: &str,
        name: String,
    ) -> Result<Self, VolumeError> {
        let content = Content::Stream(stream(record, stream_name, &name, volume)?);
        Self::new(volume, content, name)
    }

    fn new(volume: &'v NtfsVolume<D>, content: Content, name: String) -> Result<Self, VolumeError> {
        if matches!(&content, Content::Stream(stream) if stream.encoding == Encoding::Encrypted) {
            return Err(VolumeError::Encrypted { file: name });
        }
        Ok(Self {
            disk: &volume.disk,
            geometry: &volume.geometry,
            name,
            content,
        })
    }

    /// The length of the content.
    pub fn size(&self) -> ByteCount {
        ByteCount(match &self.content {
            Content::Stream(stream) => stream.size,
            Content::Wof { size, .. } => *size,
        })
    }

    /// Fills `target` with the content from `offset` on, and returns how much there was: less
    /// than asked for only at the end.
    ///
    /// # Errors
    ///
    /// [`VolumeError::CompressedUnit`] or [`VolumeError::CompressedChunk`] when packed content is
    /// damaged; [`VolumeError::Block`].
    pub fn read_at(&self, offset: ByteOffset, target: &mut [u8]) -> Result<usize, VolumeError> {
        match &self.content {
            Content::Stream(stream) => {
                stream.read_at(self.disk, self.geometry, &self.name, offset.0, target)
            }
            Content::Wof {
                packed,
                algorithm,
                size,
            } => {
                let left = usize::try_from(size.saturating_sub(offset.0)).unwrap_or(usize::MAX);
                let length = target.len().min(left);
                self.read_chunks(packed, *algorithm, *size, offset.0, &mut target[..length])?;
                Ok(length)
            }
        }
    }

    /// Reads the whole content, if it is no longer than `limit`.
    ///
    /// # Errors
    ///
    /// [`VolumeError::TooLarge`], and those of [`read_at`](Self::read_at).
    pub fn read_all(&self, limit: ByteCount) -> Result<Vec<u8>, VolumeError> {
        check_limit(&self.name, self.size(), limit)?;
        // `check_limit` has compared it with what a vector can hold.
        let mut content = vec![0; self.size().0 as usize];
        self.read_at(ByteOffset::ZERO, &mut content)?;
        Ok(content)
    }

    /// Fills `target` from chunks that stand behind a table of their ends.
    ///
    /// The table has an entry less than there are chunks, of 4 bytes, or of 8 when the content is
    /// longer than 4 GiB; the entries count from the end of the table.
    fn read_chunks(
        &self,
        packed: &Stream,
        algorithm: WofAlgorithm,
        size: u64,
        offset: u64,
        target: &mut [u8],
    ) -> Result<(), VolumeError> {
        let chunk_size = algorithm.chunk_size() as u64;
        let mut chunk = Vec::new();
        let mut done = 0;
        while done < target.len() {
            let position = offset + done as u64;
            let number = position / chunk_size;
            let start = number * chunk_size;
            // At most 32 KiB.
            chunk.resize((size - start).min(chunk_size) as usize, 0);
            let bytes = self.packed_chunk(packed, number, size.div_ceil(chunk_size), size)?;
            if bytes.len() == chunk.len() {
                chunk.copy_from_slice(&bytes);
            } else {
                xpress::decompress(&bytes, &mut chunk).map_err(|source| {
                    VolumeError::CompressedChunk {
                        file: self.name.clone(),
                        at: ByteOffset(start),
                        source,
                    }
                })?;
            }
            let within = (position - start) as usize;
            let piece = (chunk.len() - within).min(target.len() - done);
            target[done..done + piece].copy_from_slice(&chunk[within..within + piece]);
            done += piece;
        }
        Ok(())
    }

    /// The packed bytes of chunk `number` of `count`.
    fn packed_chunk(
        &self,
        packed: &Stream,
        number: u64,
        count: u64,
        size: u64,
    ) -> Result<Vec<u8>, VolumeError> {
        let entry_size: u64 = if size > u64::from(u32::MAX) { 8 } else { 4 };
        let table = (count - 1) * entry_size;
        let read = |at: u64, target: &mut [u8]| {
            packed.read_at(self.disk, self.geometry, &self.name, at, target)
        };
        let end_of = |number: u64| -> Result<u64, VolumeError> {
            if number + 1 == count {
                return Ok(packed.size.saturating_sub(table));
            }
            let mut entry = [0; 8];
            // 4 or 8.
            read(number * entry_size, &mut entry[..entry_size as usize])?;
            Ok(u64::from_le_bytes(entry))
        };
        let start = if number == 0 { 0 } else { end_of(number - 1)? };
        let end = end_of(number)?;
        let length = end
            .checked_sub(start)
            .filter(|length| *length <= MAX_PACKED_CHUNK);
        let fits = end.checked_add(table).is_some_and(|end| end <= packed.size);
        let (Some(length), true) = (length, fits) else {
            return Err(VolumeError::Damaged {
                volume: self.disk.name().to_owned(),
                structure: "the chunk table of a file compressed by CompactOS, entry",
                at: ByteOffset(number * entry_size),
                problem: format!(
                    "{}: chunk {number} lies from {start} to {end} of {} bytes",
                    self.name, packed.size
                ),
            });
        };
        // At most `MAX_PACKED_CHUNK`.
        let mut bytes = vec![0; length as usize];
        read(table + start, &mut bytes)?;
        Ok(bytes)
    }
}

/// The room that the content of `record` takes, packed or not.
pub(super) fn allocated(record: &FileRecord, reparse: Option<&Reparse>) -> ByteCount {
    let name = match reparse {
        Some(Reparse::Wof(_)) => WOF_STREAM,
        _ => "",
    };
    let stream = record.attribute(DATA, name).map(|data| &data.stream);
    ByteCount(
        match stream.map(|stream| (&stream.place, stream.allocated)) {
            Some((Place::Clusters { .. }, allocated)) => allocated,
            _ => 0,
        },
    )
}

fn stream<D: BlockRead>(
    record: &FileRecord,
    stream_name: &str,
    name: &str,
    volume: &NtfsVolume<D>,
) -> Result<Stream, VolumeError> {
    let data = record.attribute(DATA, stream_name);
    data.map(|data| data.stream.clone())
        .ok_or_else(|| VolumeError::NotFound {
            file: name.to_owned(),
            volume: volume.disk.name().to_owned(),
        })
}

/// The content of a file that CompactOS compressed: the unnamed stream has its length only.
fn wof(record: &FileRecord, algorithm: WofAlgorithm, name: &str) -> Result<Content, VolumeError> {
    let unsupported = |what: String| VolumeError::Unsupported {
        file: name.to_owned(),
        what,
    };
    if algorithm == WofAlgorithm::Lzx {
        return Err(unsupported(Reparse::Wof(algorithm).to_string()));
    }
    let size = record
        .attribute(DATA, "")
        .map_or(0, |data| data.stream.size);
    let packed = record
        .attribute(DATA, WOF_STREAM)
        .map(|data| data.stream.clone());
    let packed = packed.ok_or_else(|| {
        unsupported(format!(
            "{} without a stream {WOF_STREAM}",
            Reparse::Wof(algorithm)
        ))
    })?;
    Ok(Content::Wof {
        packed,
        algorithm,
        size,
    })
}

/// Where CompactOS keeps what it compressed.
const WOF_STREAM: &str = "WofCompressedData";

/// No packed chunk is longer than the largest chunk: it would be kept as it is.
const MAX_PACKED_CHUNK: u64 = 32 << 10;
