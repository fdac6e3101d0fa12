//! A disk as the parser wants it: a stream with a position.
//!
//! The parser follows whatever a volume says. What keeps a hostile one in bounds is the allowance:
//! every question has so many bytes to read, and when they are used up, the next read fails. An
//! attribute list without end, which the parser does not notice, ends there.

use std::io::{self, Read, Seek, SeekFrom};

use crate::block::{BlockError, BlockRead};
use crate::units::{ByteCount, ByteOffset};

/// A disk with a position, for one question to the parser.
pub(in crate::volume) struct Medium<'d, D: ?Sized> {
    disk: &'d D,
    position: u64,
    allowance: u64,
    /// One block that was read, so that the parser may read byte by byte.
    block: Option<(u64, Vec<u8>)>,
    failure: Option<BlockError>,
}

impl<'d, D: BlockRead + ?Sized> Medium<'d, D> {
    /// Lets `allowance` bytes of `disk` be read.
    pub fn new(disk: &'d D, allowance: ByteCount) -> Self {
        Self {
            disk,
            position: 0,
            allowance: allowance.0,
            block: None,
            failure: None,
        }
    }

    /// The position that the next read would begin at.
    pub fn position(&self) -> ByteOffset {
        ByteOffset(self.position)
    }

    /// Whether the last read failed for want of allowance.
    pub fn is_exhausted(&self) -> bool {
        self.allowance == 0
    }

    /// The error of the disk that the last read failed with; the parser only sees that it failed.
    pub fn take_failure(&mut self) -> Option<BlockError> {
        self.failure.take()
    }

    /// Reads anew what was read before, because the disk has been written to.
    pub fn forget_block(&mut self) {
        self.block = None;
    }

    fn fill_block(&mut self, start: u64, room: u64) -> Result<&[u8], BlockError> {
        if !matches!(&self.block, Some((at, _)) if *at == start) {
            let length = BLOCK.min(room);
            // At most `BLOCK`.
            let mut bytes = vec![0; length as usize];
            self.disk.read_at(ByteOffset(start), &mut bytes)?;
            self.block = Some((start, bytes));
        }
        Ok(self.block.as_ref().map_or(&[], |(_, bytes)| bytes))
    }

    fn read_some(&mut self, target: &mut [u8]) -> Result<usize, BlockError> {
        let Some(room) = self.disk.size().0.checked_sub(self.position) else {
            return Ok(0);
        };
        let start = self.position - self.position % BLOCK;
        let within = (self.position - start) as usize;
        let length = if target.len() as u64 >= BLOCK {
            let length = target
                .len()
                .min(usize::try_from(room).unwrap_or(usize::MAX));
            self.disk
                .read_at(ByteOffset(self.position), &mut target[..length])?;
            length
        } else {
            let block = self.fill_block(start, room + within as u64)?;
            let available = block.get(within..).unwrap_or_default();
            let length = available.len().min(target.len());
            target[..length].copy_from_slice(&available[..length]);
            length
        };
        Ok(length)
    }
}

impl<D: BlockRead + ?Sized> Read for Medium<'_, D> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        if target.len() as u64 > self.allowance {
            self.allowance = 0;
            return Err(io::Error::other("the structure is endless"));
        }
        self.allowance -= target.len() as u64;
        let length = self.read_some(target).map_err(|failure| {
            let message = failure.to_string();
            self.failure = Some(failure);
            io::Error::other(message)
        })?;
        self.position += length as u64;
        Ok(length)
    }
}

impl<D: BlockRead + ?Sized> Seek for Medium<'_, D> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.disk.size().0.checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

const BLOCK: u64 = 4096;
