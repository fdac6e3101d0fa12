//! A disk in memory, for tests: it counts what is read, and fails or dawdles where it is told to.
//!
//! It is public because the tests of other crates need it; nothing that ships uses it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{BlockError, BlockRead, Extent, ExtentKind, check_range};
use crate::units::{ByteCount, ByteOffset, SectorSizes};

/// A sparse disk in memory. Pages that were never written are holes.
#[derive(Debug)]
pub struct MemoryDisk {
    size: ByteCount,
    sectors: SectorSizes,
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
    faults: Vec<Fault>,
    delay: Duration,
    counts: Mutex<ReadCounts>,
}

/// What has been read of a [`MemoryDisk`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ReadCounts {
    /// How many reads there were, failed ones included.
    pub reads: u64,
    /// How many bytes were read.
    pub bytes: u64,
    /// How many of these bytes lay in holes.
    pub hole_bytes: u64,
}

/// When a read fails.
#[derive(Clone, Copy, Debug)]
struct Fault {
    trigger: Trigger,
    kind: io::ErrorKind,
}

#[derive(Clone, Copy, Debug)]
enum Trigger {
    Touching(ByteOffset),
    After(u64),
}

impl MemoryDisk {
    /// A disk of `size` bytes without content.
    ///
    /// # Panics
    ///
    /// When `size` is zero or no multiple of the logical sector size.
    pub fn new(size: ByteCount, sectors: SectorSizes) -> Self {
        assert!(
            size.0 > 0 && size.0.is_multiple_of(sectors.logical.bytes()),
            "{size} is no whole number of sectors"
        );
        Self {
            size,
            sectors,
            pages: BTreeMap::new(),
            faults: Vec::new(),
            delay: Duration::ZERO,
            counts: Mutex::new(ReadCounts::default()),
        }
    }

    /// Puts `bytes` at `offset`; the pages of 4 KiB that they touch are holes no more.
    ///
    /// # Panics
    ///
    /// When they do not fit on the disk.
    pub fn write(&mut self, offset: ByteOffset, bytes: &[u8]) {
        check_range(self, offset, ByteCount(bytes.len() as u64))
            .expect("a test writes inside of its disk");
        for (position, at, length) in pages_of(offset, bytes.len()) {
            let page = self
                .pages
                .entry(position.0 / PAGE as u64)
                .or_insert_with(|| Box::new([0; PAGE]));
            let within = (position.0 % PAGE as u64) as usize;
            page[within..within + length].copy_from_slice(&bytes[at..at + length]);
        }
    }

    /// Makes every read that touches the byte at `offset` fail.
    pub fn fail_at(&mut self, offset: ByteOffset, kind: io::ErrorKind) {
        let trigger = Trigger::Touching(offset);
        self.faults.push(Fault { trigger, kind });
    }

    /// Makes every read behind the next `reads` ones fail.
    pub fn fail_after(&mut self, reads: u64, kind: io::ErrorKind) {
        let trigger = Trigger::After(self.counts().reads + reads);
        self.faults.push(Fault { trigger, kind });
    }

    /// Makes every read take `delay` longer.
    pub fn delay_reads(&mut self, delay: Duration) {
        self.delay = delay;
    }

    /// What has been read so far.
    pub fn read_counts(&self) -> ReadCounts {
        *self.counts()
    }

    fn counts(&self) -> MutexGuard<'_, ReadCounts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlockRead for MemoryDisk {
    fn size(&self) -> ByteCount {
        self.size
    }

    fn sectors(&self) -> SectorSizes {
        self.sectors
    }

    fn name(&self) -> &str {
        "memory disk"
    }

    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<(), BlockError> {
        let length = ByteCount(buffer.len() as u64);
        check_range(self, offset, length)?;
        if !self.delay.is_zero() {
            std::thread::sleep(self.delay);
        }
        let earlier = self.counts().reads;
        self.counts().reads += 1;
        let range = offset..ByteOffset(offset.0 + length.0);
        let fault = self.faults.iter().find(|fault| match fault.trigger {
            Trigger::Touching(byte) => range.contains(&byte),
            Trigger::After(reads) => earlier >= reads,
        });
        if let Some(fault) = fault {
            return Err(BlockError::Read {
                disk: self.name().to_owned(),
                offset,
                length,
                source: fault.kind.into(),
            });
        }
        for (position, at, length) in pages_of(offset, buffer.len()) {
            let within = (position.0 % PAGE as u64) as usize;
            let target = &mut buffer[at..at + length];
            let mut counts = self.counts();
            counts.bytes += length as u64;
            match self.pages.get(&(position.0 / PAGE as u64)) {
                Some(page) => target.copy_from_slice(&page[within..within + length]),
                None => {
                    counts.hole_bytes += length as u64;
                    target.fill(0);
                }
            }
        }
        Ok(())
    }

    fn extent_at(&self, offset: ByteOffset) -> Result<Extent, BlockError> {
        check_range(self, offset, ByteCount(1))?;
        let page = offset.0 / PAGE as u64;
        let (kind, end_page) = if self.pages.contains_key(&page) {
            let gap = (page..)
                .zip(self.pages.range(page..))
                .find(|(n, (have, _))| n != *have);
            let run = self.pages.range(page..).count() as u64;
            (ExtentKind::Data, gap.map_or(page + run, |(n, _)| n))
        } else {
            let next = self.pages.range(page..).next();
            (
                ExtentKind::Zero,
                next.map_or(u64::MAX / PAGE as u64, |(n, _)| *n),
            )
        };
        Ok(Extent {
            kind,
            end: ByteOffset(end_page * PAGE as u64).min(self.size.end()),
        })
    }
}

/// Cuts `length` bytes from `offset` on at page borders: position, index into the bytes, length.
fn pages_of(offset: ByteOffset, length: usize) -> impl Iterator<Item = (ByteOffset, usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let position = ByteOffset(offset.0 + at as u64);
        let room = PAGE - (position.0 % PAGE as u64) as usize;
        let piece = room.min(length - at);
        let start = at;
        at += piece;
        (piece > 0).then_some((position, start, piece))
    })
}

const PAGE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> MemoryDisk {
        let mut disk = MemoryDisk::new(ByteCount(10 * 4096 + 512), SectorSizes::B512);
        disk.write(ByteOffset(4096 * 3 - 2), &[1, 2, 3, 4]);
        disk
    }

    #[test]
    fn what_is_written_is_read_and_the_rest_is_zero() {
        let disk = disk();
        let mut bytes = [9; 8];
        disk.read_at(ByteOffset(4096 * 3 - 4), &mut bytes).unwrap();
        assert_eq!(bytes, [0, 0, 1, 2, 3, 4, 0, 0]);
        let mut tail = [9; 512];
        disk.read_at(ByteOffset(40_960), &mut tail).unwrap();
        assert_eq!(tail, [0; 512]);
        assert!(disk.read_at(ByteOffset(40_961), &mut tail).is_err());
    }

    #[test]
    fn pages_that_were_never_written_are_holes() {
        let disk = disk();
        let mut extents = Vec::new();
        let mut position = ByteOffset::ZERO;
        while position < disk.size().end() {
            let extent = disk.extent_at(position).unwrap();
            extents.push((extent.kind, extent.end.0));
            position = extent.end;
        }
        assert_eq!(
            extents,
            [
                (ExtentKind::Zero, 8192),
                (ExtentKind::Data, 16_384),
                (ExtentKind::Zero, 41_472)
            ]
        );
    }

    #[test]
    fn reads_are_counted_with_the_holes_in_them() {
        let disk = disk();
        disk.read_at(ByteOffset(4096), &mut [0; 8192]).unwrap();
        let expected = ReadCounts {
            reads: 1,
            bytes: 8192,
            hole_bytes: 4096,
        };
        assert_eq!(disk.read_counts(), expected);
    }

    #[test]
    fn reads_fail_where_and_when_they_are_told_to() {
        let mut disk = disk();
        disk.fail_at(ByteOffset(1000), io::ErrorKind::InvalidData);
        disk.fail_after(2, io::ErrorKind::TimedOut);
        let kind = |offset| match disk.read_at(ByteOffset(offset), &mut [0; 100]) {
            Ok(()) => None,
            Err(BlockError::Read { source, .. }) => Some(source.kind()),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(kind(900), None);
        assert_eq!(kind(901), Some(io::ErrorKind::InvalidData));
        assert_eq!(kind(0), Some(io::ErrorKind::TimedOut));
    }
}
