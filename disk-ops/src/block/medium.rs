//! Reading a file or device through two descriptors: one direct, one buffered.
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
//! a direct read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::Advice;
use rustix::io::Errno;

use super::BlockError;
use crate::units::{ByteCount, ByteOffset};

/// A fixed stretch of readable bytes behind one or two descriptors.
#[derive(Debug)]
pub(super) struct Medium {
    name: String,
    size: ByteCount,
    buffered: File,
    direct: Option<File>,
    direct_refused: AtomicBool,
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

/// From this length on, a buffered read counts as part of a stream over the disk, whose pages
/// nobody wants again; what is shorter is a structure that is likely to be read twice.
const DROP_BEHIND_FROM: usize = 256 << 10;
