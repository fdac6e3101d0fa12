//! A stretch of a disk, such as a partition, as a disk of its own.

use super::{BlockError, BlockRead, BlockWrite, Extent, check_range};
use crate::units::{ByteCount, ByteOffset, SectorSizes};

/// A bounded view of another disk: byte 0 of the window is byte `start` of the disk.
///
/// Errors of the medium carry the position on the disk; [`BlockError::OutOfRange`] one in the
/// window.
#[derive(Clone, Debug)]
pub struct Window<D> {
    disk: D,
    start: ByteOffset,
    size: ByteCount,
    name: String,
}

impl<D: BlockRead> Window<D> {
    /// The `size` bytes of `disk` from `start` on, called `name` in messages.
    ///
    /// # Errors
    ///
    /// [`BlockError::OutOfRange`] when they leave the disk.
    pub fn new(
        disk: D,
        start: ByteOffset,
        size: ByteCount,
        name: String,
    ) -> Result<Self, BlockError> {
        check_range(&disk, start, size)?;
        Ok(Self {
            disk,
            start,
            size,
            name,
        })
    }

    /// The position on the disk of the window's first byte.
    pub fn start(&self) -> ByteOffset {
        self.start
    }
}

impl<D: BlockRead> BlockRead for Window<D> {
    fn size(&self) -> ByteCount {
        self.size
    }

    fn sectors(&self) -> SectorSizes {
        self.disk.sectors()
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<(), BlockError> {
        check_range(self, offset, ByteCount(buffer.len() as u64))?;
        // Inside the window, which is inside the disk: the sum cannot overflow.
        self.disk
            .read_at(ByteOffset(self.start.0 + offset.0), buffer)
    }

    fn extent_at(&self, offset: ByteOffset) -> Result<Extent, BlockError> {
        check_range(self, offset, ByteCount(1))?;
        let extent = self.disk.extent_at(ByteOffset(self.start.0 + offset.0))?;
        Ok(Extent {
            kind: extent.kind,
            // The extent ends behind `offset`, hence behind the window's start.
            end: ByteOffset(extent.end.0 - self.start.0).min(self.size.end()),
        })
    }
}

/// A window on what can be written can be written.
impl<D: BlockWrite> BlockWrite for Window<D> {
    fn write_at(&self, offset: ByteOffset, bytes: &[u8]) -> Result<(), BlockError> {
        check_range(self, offset, ByteCount(bytes.len() as u64))?;
        self.disk
            .write_at(ByteOffset(self.start.0 + offset.0), bytes)
    }

    fn flush(&self) -> Result<(), BlockError> {
        self.disk.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::{ExtentKind, MemoryDisk};
    use super::*;

    fn disk() -> MemoryDisk {
        let mut disk = MemoryDisk::new(ByteCount(64 << 10), SectorSizes::B512);
        disk.write(ByteOffset(8192), &[7; 4096]);
        disk
    }

    #[test]
    fn a_window_shows_its_part_of_the_disk_and_no_more() {
        let disk = disk();
        let window = Window::new(&disk, ByteOffset(4096), ByteCount(6144), "p1".into()).unwrap();
        let mut bytes = vec![9; 6144];
        window.read_at(ByteOffset::ZERO, &mut bytes).unwrap();
        assert!(bytes[..4096].iter().all(|b| *b == 0) && bytes[4096..].iter().all(|b| *b == 7));
        let error = window.read_at(ByteOffset(6143), &mut [0; 2]).unwrap_err();
        assert!(error.to_string().contains("p1"), "{error}");
        let error = window
            .read_at(ByteOffset(u64::MAX), &mut [0; 1])
            .unwrap_err();
        assert!(matches!(error, BlockError::OutOfRange { .. }));
    }

    #[test]
    fn extents_are_told_in_positions_of_the_window() {
        let disk = disk();
        let window = Window::new(&disk, ByteOffset(4096), ByteCount(6144), "p1".into()).unwrap();
        let extent = |offset| {
            window
                .extent_at(ByteOffset(offset))
                .map(|e| (e.kind, e.end.0))
        };
        assert_eq!(extent(0).unwrap(), (ExtentKind::Zero, 4096));
        assert_eq!(extent(4100).unwrap(), (ExtentKind::Data, 6144));
        assert!(extent(6144).is_err());
    }

    #[test]
    fn a_window_that_leaves_the_disk_is_refused() {
        let disk = disk();
        for (start, size) in [(0, 65_537), (65_536, 1), (u64::MAX, 1), (1, u64::MAX)] {
            let window = Window::new(&disk, ByteOffset(start), ByteCount(size), "p".into());
            assert!(window.is_err(), "{start}+{size}");
        }
    }

    #[test]
    fn a_read_error_carries_the_position_on_the_disk() {
        let mut disk = disk();
        disk.fail_at(ByteOffset(5000), io::ErrorKind::Other);
        let window = Window::new(&disk, ByteOffset(4096), ByteCount(6144), "p1".into()).unwrap();
        match window.read_at(ByteOffset(512), &mut [0; 1024]).unwrap_err() {
            BlockError::Read { offset, .. } => assert_eq!(offset, ByteOffset(4608)),
            other => panic!("{other}"),
        }
    }
}
