//! A disk in memory, for tests: it counts what is read, and fails or dawdles where it is told to.
//!
//! Written through [`BlockWrite`], it has a cache that is not durable: a power cut loses any of
//! what was not flushed ([`MemoryDisk::cut_power`]).
//!
//! It is public because the tests of other crates need it; nothing that ships uses it.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{
    BlockError, BlockRead, BlockWrite, DiskIdentity, Extent, ExtentKind, WholeDisk, check_range,
};
use crate::fault::{CachedPages, Faults, PAGE, pages_of};
use crate::units::{ByteCount, ByteOffset, SectorSizes};

/// A sparse disk in memory. Pages that were never written are holes.
#[derive(Debug)]
pub struct MemoryDisk {
    size: ByteCount,
    sectors: SectorSizes,
    content: Mutex<CachedPages>,
    identity: DiskIdentity,
    faults: Vec<Fault>,
    torn: Mutex<Vec<ByteOffset>>,
    write_faults: Faults,
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
            content: Mutex::default(),
            identity: DiskIdentity::default(),
            faults: Vec::new(),
            torn: Mutex::default(),
            write_faults: Faults::default(),
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
        self.content().write_durably(offset.0, bytes);
    }

    /// The same disk, whose writes and flushes fail as `faults` say.
    #[must_use]
    pub fn with_faults(mut self, faults: Faults) -> Self {
        self.write_faults = faults;
        self
    }

    /// The same disk, known as `identity`.
    #[must_use]
    pub fn with_identity(mut self, identity: DiskIdentity) -> Self {
        self.identity = identity;
        self
    }

    /// What a power cut leaves: all that was flushed, and of the rest each sector for which
    /// `survives` says so, asked in the order of the writes.
    pub fn cut_power(&self, mut survives: impl FnMut() -> bool) {
        let sector = self.sectors.logical.bytes();
        self.content().cut_power(sector, &mut survives);
    }

    /// Makes every read that touches the byte at `offset` fail.
    pub fn fail_at(&mut self, offset: ByteOffset, kind: io::ErrorKind) {
        let trigger = Trigger::Touching(offset);
        self.faults.push(Fault { trigger, kind });
    }

    /// Makes every read that touches the byte at `offset` fail until it is written, as a sector does
    /// that was being written when the power went.
    pub fn fail_until_written(&mut self, offset: ByteOffset) {
        self.torn().push(offset);
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

    fn torn(&self) -> MutexGuard<'_, Vec<ByteOffset>> {
        self.torn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn content(&self) -> MutexGuard<'_, CachedPages> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
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
        let torn = self.torn().iter().any(|byte| range.contains(byte));
        let failed = match fault {
            Some(fault) => Err(fault.kind.into()),
            None if torn => Err(io::Error::other("a torn sector")),
            None => self.write_faults.expect_power(),
        };
        failed.map_err(|source| BlockError::Read {
            disk: self.name().to_owned(),
            offset,
            length,
            source,
        })?;
        let content = self.content();
        content.read(offset.0, buffer);
        let holes = pages_of(offset.0, buffer.len())
            .filter(|(position, _, _)| content.page(position / PAGE as u64).is_none())
            .map(|(_, _, length)| length as u64);
        let mut counts = self.counts();
        counts.bytes += length.0;
        counts.hole_bytes += holes.sum::<u64>();
        Ok(())
    }

    fn extent_at(&self, offset: ByteOffset) -> Result<Extent, BlockError> {
        check_range(self, offset, ByteCount(1))?;
        let page = offset.0 / PAGE as u64;
        let content = self.content();
        let (kind, end_page) = if content.page(page).is_some() {
            let run = (page..).zip(content.pages_from(page));
            let run = run.take_while(|(expected, found)| expected == found);
            (ExtentKind::Data, page + run.count() as u64)
        } else {
            let next = content.pages_from(page).next();
            (ExtentKind::Zero, next.unwrap_or(u64::MAX / PAGE as u64))
        };
        Ok(Extent {
            kind,
            end: ByteOffset(end_page * PAGE as u64).min(self.size.end()),
        })
    }
}

impl BlockWrite for MemoryDisk {
    fn write_at(&self, offset: ByteOffset, bytes: &[u8]) -> Result<(), BlockError> {
        let length = ByteCount(bytes.len() as u64);
        check_range(self, offset, length)?;
        let (through, result) = match self.write_faults.next() {
            Ok(()) => (bytes.len(), Ok(())),
            Err((sectors, source)) => {
                let error = BlockError::Write {
                    disk: self.name().to_owned(),
                    offset,
                    length,
                    source,
                };
                let through = sectors.saturating_mul(self.sectors.logical.bytes());
                (through.min(length.0) as usize, Err(error))
            }
        };
        self.content().write(offset.0, &bytes[..through]);
        let written = offset..ByteOffset(offset.0 + through as u64);
        self.torn().retain(|byte| !written.contains(byte));
        result
    }

    fn flush(&self) -> Result<(), BlockError> {
        match self.write_faults.next() {
            Ok(()) => {
                self.content().flush();
                Ok(())
            }
            Err((_, source)) => {
                if !self.write_faults.is_dead() {
                    self.content().drop_unflushed();
                }
                Err(BlockError::Flush {
                    disk: self.name().to_owned(),
                    source,
                })
            }
        }
    }
}

impl WholeDisk for MemoryDisk {
    fn identity(&self) -> DiskIdentity {
        self.identity.clone()
    }

    fn reserve(&self, offset: ByteOffset, length: ByteCount) -> Result<(), BlockError> {
        check_range(self, offset, length)
    }

    fn expect_untouched(&self) -> Result<(), BlockError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Failure;

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

    #[test]
    fn a_power_cut_takes_what_was_not_flushed_and_nothing_else() {
        let disk = disk();
        disk.write_at(ByteOffset(512), &[5; 1024]).unwrap();
        disk.flush().unwrap();
        disk.write_at(ByteOffset(1024), &[6; 1024]).unwrap();
        let mut answers = [true, false].into_iter();
        disk.cut_power(|| answers.next().unwrap());
        let mut bytes = [9; 2560];
        disk.read_at(ByteOffset::ZERO, &mut bytes).unwrap();
        let sectors: Vec<u8> = bytes.chunks(512).map(|sector| sector[0]).collect();
        assert_eq!(sectors, [0, 5, 6, 0, 0]);
    }

    #[test]
    fn what_a_failed_flush_dropped_is_seen_until_the_power_goes() {
        let faults = Faults::default();
        let disk = disk().with_faults(faults.clone());
        faults.fail_operation(
            1,
            Failure::Error {
                kind: io::ErrorKind::Other,
                after_sectors: 0,
            },
        );
        let first = || {
            let mut bytes = [9; 2];
            disk.read_at(ByteOffset(511), &mut bytes).unwrap();
            bytes
        };
        disk.write_at(ByteOffset(0), &[5; 1024]).unwrap();
        assert!(disk.flush().is_err());
        disk.write_at(ByteOffset(512), &[6; 512]).unwrap();
        disk.flush().unwrap();
        assert_eq!(first(), [5, 6]);
        disk.cut_power(|| true);
        assert_eq!(first(), [0, 6]);
    }

    #[test]
    fn a_write_is_torn_where_it_is_told_to() {
        let faults = Faults::default();
        let disk = disk().with_faults(faults.clone());
        let after_sectors = 1;
        faults.fail_operation(0, Failure::PowerCut { after_sectors });
        assert!(disk.write_at(ByteOffset(0), &[5; 1024]).is_err());
        assert!(disk.read_at(ByteOffset(0), &mut [0; 1]).is_err());
        faults.clear();
        let mut bytes = [9; 1024];
        disk.read_at(ByteOffset(0), &mut bytes).unwrap();
        assert_eq!((bytes[511], bytes[512]), (5, 0));
    }
}
