//! Reading and writing a file or device through two descriptors: one direct, one buffered.
//!
//! ```text
//!              offset and memory aligned to 4 KiB?
//!  read_at --+-- yes --> O_DIRECT descriptor (the aligned part) --+--> tail: buffered
//!            |               EINVAL: given up for good            |
//!            +-- no ---> buffered descriptor <--------------------+
//! ```
//!
//! A file system that refuses direct I/O says so at open or, through stacked file systems, only at
//! the first read. Both descriptors see the same bytes: the kernel writes dirty pages back before
//! a direct read, and drops the pages that a direct write replaces.
//!
//! Writes go the same two ways. What is no whole block of 4 KiB at either edge is left to the page
//! cache, which reads the rest of the block, changes it and writes it whole, whatever the sector
//! size of the device is; so there is one place that completes sectors, and it is the kernel's.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Advice, FallocateFlags};
use rustix::io::Errno;

use super::{BlockError, FileStamp};
use crate::buffer::Buffer;
use crate::units::{ByteCount, ByteOffset};

/// A fixed stretch of readable bytes behind one or two descriptors.
#[derive(Debug)]
pub(super) struct Medium {
    name: String,
    size: ByteCount,
    buffered: File,
    direct: Option<File>,
    direct_refused: AtomicBool,
    written: AtomicBool,
}

impl Medium {
    /// Reads `size` bytes through `direct` where possible and through `buffered` elsewhere.
    pub(super) fn new(name: String, size: ByteCount, buffered: File, direct: Option<File>) -> Self {
        let medium = Self {
            name,
            size,
            buffered,
            direct,
            direct_refused: AtomicBool::new(false),
            written: AtomicBool::new(false),
        };
        if !medium.is_direct() {
            medium.expect_sequential_reads();
        }
        medium
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn size(&self) -> ByteCount {
        self.size
    }

    pub(super) fn buffered(&self) -> &File {
        &self.buffered
    }

    /// Whether aligned requests bypass the page cache.
    pub(super) fn is_direct(&self) -> bool {
        self.direct.is_some() && !self.direct_refused.load(Ordering::Relaxed)
    }

    /// Fills `buffer` from `offset` on; the caller has checked that this lies inside the size.
    pub(super) fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<(), BlockError> {
        let done = match &self.direct {
            Some(direct) if self.is_direct() => self.read_direct(direct, offset, buffer)?,
            _ => 0,
        };
        let rest = buffer.get_mut(done..).unwrap_or_default();
        self.read_buffered(ByteOffset(offset.0 + done as u64), rest)
    }

    /// Reads what can be read directly and returns how much that was.
    fn read_direct(
        &self,
        direct: &File,
        offset: ByteOffset,
        buffer: &mut [u8],
    ) -> Result<usize, BlockError> {
        let aligned = buffer.len() & !(DIRECT_ALIGNMENT - 1);
        let is_aligned = offset.0.is_multiple_of(DIRECT_ALIGNMENT as u64)
            && buffer.as_ptr().addr().is_multiple_of(DIRECT_ALIGNMENT);
        if !is_aligned {
            return Ok(0);
        }
        let mut done = 0;
        // A read that came back short in the middle of a block cannot be continued directly.
        while done < aligned && done.is_multiple_of(DIRECT_ALIGNMENT) {
            let position = ByteOffset(offset.0 + done as u64);
            match direct.read_at(&mut buffer[done..aligned], position.0) {
                Ok(0) => return Err(self.shrunk(position)),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
                    self.direct_refused.store(true, Ordering::Relaxed);
                    self.expect_sequential_reads();
                    break;
                }
                Err(error) => return Err(self.failed(position, aligned - done, error)),
            }
        }
        Ok(done)
    }

    fn read_buffered(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<(), BlockError> {
        let mut done = 0;
        while done < buffer.len() {
            let position = ByteOffset(offset.0 + done as u64);
            match self.buffered.read_at(&mut buffer[done..], position.0) {
                Ok(0) => return Err(self.shrunk(position)),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(position, buffer.len() - done, error)),
            }
        }
        if !self.is_direct() && buffer.len() >= DROP_BEHIND_FROM {
            // Advice only: where it is not understood, the page cache fills up and nothing breaks.
            let _ = rustix::fs::fadvise(
                &self.buffered,
                offset.0,
                std::num::NonZeroU64::new(buffer.len() as u64),
                Advice::DontNeed,
            );
        }
        Ok(())
    }

    /// Writes `bytes` at `offset`; the caller has checked that this lies inside the size, and that
    /// the descriptors are open for writing.
    pub(super) fn write_at(&self, offset: ByteOffset, bytes: &[u8]) -> Result<(), BlockError> {
        self.written.store(true, Ordering::Relaxed);
        let before = offset.0.next_multiple_of(DIRECT_ALIGNMENT as u64) - offset.0;
        let before = usize::try_from(before).map_or(bytes.len(), |count| count.min(bytes.len()));
        let (head, rest) = bytes.split_at(before);
        let (blocks, tail) = rest.split_at(rest.len() & !(DIRECT_ALIGNMENT - 1));
        let start = ByteOffset(offset.0 + head.len() as u64);
        self.write_buffered(offset, head)?;
        let direct = match &self.direct {
            Some(direct) if self.is_direct() => self.write_direct(direct, start, blocks)?,
            _ => 0,
        };
        let (_, refused) = blocks.split_at(direct);
        self.write_buffered(ByteOffset(start.0 + direct as u64), refused)?;
        self.write_buffered(ByteOffset(start.0 + blocks.len() as u64), tail)
    }

    /// Writes whole blocks and returns how much of them was taken.
    fn write_direct(
        &self,
        direct: &File,
        offset: ByteOffset,
        blocks: &[u8],
    ) -> Result<usize, BlockError> {
        if blocks.as_ptr().addr().is_multiple_of(DIRECT_ALIGNMENT) {
            return self.write_aligned(direct, offset, blocks);
        }
        let mut buffer = Buffer::new(blocks.len().min(BOUNCE));
        let mut done = 0;
        for piece in blocks.chunks(BOUNCE) {
            let aligned = buffer.bytes_mut(piece.len());
            aligned.copy_from_slice(piece);
            let count = self.write_aligned(direct, ByteOffset(offset.0 + done as u64), aligned)?;
            done += count;
            if count < piece.len() {
                break;
            }
        }
        Ok(done)
    }

    fn write_aligned(
        &self,
        direct: &File,
        offset: ByteOffset,
        blocks: &[u8],
    ) -> Result<usize, BlockError> {
        let mut done = 0;
        // As with reads: a write that came back short inside of a block goes on buffered.
        while done < blocks.len() && done.is_multiple_of(DIRECT_ALIGNMENT) {
            let position = ByteOffset(offset.0 + done as u64);
            match direct.write_at(&blocks[done..], position.0) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => {
                    self.direct_refused.store(true, Ordering::Relaxed);
                    break;
                }
                Err(error) => return Err(self.not_written(position, blocks.len() - done, error)),
            }
        }
        Ok(done)
    }

    fn write_buffered(&self, offset: ByteOffset, bytes: &[u8]) -> Result<(), BlockError> {
        self.buffered
            .write_all_at(bytes, offset.0)
            .map_err(|error| self.not_written(offset, bytes.len(), error))
    }

    /// Makes all earlier writes through either descriptor durable.
    pub(super) fn flush(&self) -> Result<(), BlockError> {
        self.buffered
            .sync_all()
            .map_err(|source| BlockError::Flush {
                disk: self.name.clone(),
                source,
            })
    }

    /// Gives the holes of a file in the range room on its file system.
    pub(super) fn reserve(&self, offset: ByteOffset, length: ByteCount) -> Result<(), BlockError> {
        self.written.store(true, Ordering::Relaxed);
        let kept = FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.buffered, kept, offset.0, length.0) {
            // What cannot be reserved is found out by writing.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
            Err(error) => Err(BlockError::Write {
                disk: self.name.clone(),
                offset,
                length,
                source: error.into(),
            }),
        }
    }

    /// Whether it has been written to here, or else the file is as `stamp` says.
    pub(super) fn is_written_or_still(&self, stamp: FileStamp) -> Result<bool, BlockError> {
        if self.written.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let now = self.buffered.metadata();
        let now = now.map_err(|error| self.failed(ByteOffset::ZERO, 0, error))?;
        Ok(FileStamp::from(&now) == stamp && now.len() == self.size.0)
    }

    fn not_written(&self, offset: ByteOffset, length: usize, source: io::Error) -> BlockError {
        BlockError::Write {
            disk: self.name.clone(),
            offset,
            length: ByteCount(length as u64),
            source,
        }
    }

    fn expect_sequential_reads(&self) {
        // Advice only, as above.
        let _ = rustix::fs::fadvise(&self.buffered, 0, None, Advice::Sequential);
    }

    /// The error for a medium that ends at `position`.
    pub(super) fn shrunk(&self, position: ByteOffset) -> BlockError {
        BlockError::Shrunk {
            disk: self.name.clone(),
            offset: position,
            size: self.size,
        }
    }

    /// The error for a read of `length` bytes at `position` that the system refused.
    pub(super) fn failed(
        &self,
        position: ByteOffset,
        length: usize,
        source: io::Error,
    ) -> BlockError {
        BlockError::Read {
            disk: self.name.clone(),
            offset: position,
            length: ByteCount(length as u64),
            source,
        }
    }
}

/// What direct I/O is asked for in: no medium in use has larger sectors, and memory pages are as
/// large.
pub(super) const DIRECT_ALIGNMENT: usize = 4096;

/// How much of misaligned memory is copied at a time.
const BOUNCE: usize = 1 << 20;

/// From this length on, a buffered read counts as part of a stream over the disk, whose pages
/// nobody wants again; what is shorter is a structure that is likely to be read twice.
const DROP_BEHIND_FROM: usize = 256 << 10;
