//! How large the parts of a VHDX file are for a disk of a given size. Pure arithmetic.
//!
//! ```text
//!  0        1 MiB      2 MiB        3 MiB                 data_offset
//!  | head   | log      | metadata   | BAT (n MiB)         | payload block 0 | 1 | ...
//! ```
//!
//! Within 64 TiB no product or sum below comes near 2^64, so that plain operators are right once
//! [`Geometry::new`] has accepted the size.

use crate::units::{BlockSize, FileOffset, MIB, PayloadBlock, SectorSize, VirtualOffset};

/// The shape of a disk and of the VHDX file that holds it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Geometry {
    disk_size: u64,
    logical: SectorSize,
    physical: SectorSize,
    block_size: BlockSize,
}

impl Geometry {
    /// The shape of a disk of `disk_size` bytes.
    ///
    /// # Errors
    ///
    /// [`GeometryError`] unless the size is a whole number of logical sectors, from one sector
    /// to [`MAX_DISK_SIZE`] bytes (MS-VHDX 2.6.2.2).
    pub const fn new(
        disk_size: u64,
        logical: SectorSize,
        physical: SectorSize,
        block_size: BlockSize,
    ) -> Result<Self, GeometryError> {
        if disk_size == 0 {
            return Err(GeometryError::Empty);
        }
        if disk_size > MAX_DISK_SIZE {
            return Err(GeometryError::TooLarge { disk_size });
        }
        if !disk_size.is_multiple_of(logical.bytes()) {
            return Err(GeometryError::PartialSector {
                disk_size,
                sector_size: logical.bytes(),
            });
        }
        Ok(Self {
            disk_size,
            logical,
            physical,
            block_size,
        })
    }

    /// The size of the disk in bytes.
    pub const fn disk_size(&self) -> u64 {
        self.disk_size
    }

    /// The unit in which the disk is addressed.
    pub const fn logical_sector(&self) -> SectorSize {
        self.logical
    }

    /// The unit in which the disk's medium stores data.
    pub const fn physical_sector(&self) -> SectorSize {
        self.physical
    }

    /// The size of a payload block.
    pub const fn block_size(&self) -> BlockSize {
        self.block_size
    }

    /// How many payload blocks one sector bitmap block describes (MS-VHDX 2.4.1): 16 to 32768.
    pub fn chunk_ratio(&self) -> u64 {
        (self.logical.bytes() << 23) / self.block_size.bytes()
    }

    /// The number of payload blocks, the last of which may reach past the end of the disk.
    pub fn block_count(&self) -> u64 {
        self.disk_size.div_ceil(self.block_size.bytes())
    }

    /// The number of entries in the block allocation table of a disk without a parent
    /// (MS-VHDX 2.5): a slot for a sector bitmap follows every `chunk_ratio` payload entries,
    /// but none follows the last.
    pub fn bat_entry_count(&self) -> u64 {
        let blocks = self.block_count();
        blocks + (blocks - 1) / self.chunk_ratio()
    }

    /// The length of the BAT region in bytes: its entries, rounded up to a whole MiB.
    pub fn bat_region_length(&self) -> u64 {
        (self.bat_entry_count() * 8).next_multiple_of(MIB)
    }

    /// Where payload begins in a file that the writer of this crate lays out.
    pub fn data_offset(&self) -> FileOffset {
        FileOffset(BAT_OFFSET.0 + self.bat_region_length())
    }

    /// The payload block that holds the byte at `offset`.
    pub fn block_at(&self, offset: VirtualOffset) -> PayloadBlock {
        PayloadBlock(offset.0 / self.block_size.bytes())
    }

    /// The index of the BAT entry of `block`.
    pub(crate) fn bat_index(&self, block: PayloadBlock) -> u64 {
        block.0 + block.0 / self.chunk_ratio()
    }

    /// The payload block that BAT entry `index` speaks of, or `None` if it is the slot of a
    /// sector bitmap or lies behind the last block.
    pub(crate) fn block_of_bat_index(&self, index: u64) -> Option<PayloadBlock> {
        let group = self.chunk_ratio() + 1;
        if index % group == self.chunk_ratio() {
            return None;
        }
        let block = index - index / group;
        (block < self.block_count()).then_some(PayloadBlock(block))
    }
}

/// Why a disk can't be held in an image.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GeometryError {
    /// The disk has no bytes.
    #[error("the disk is empty")]
    Empty,
    /// The size is no whole number of sectors.
    #[error("the disk size of {disk_size} bytes is no multiple of its {sector_size}-byte sectors")]
    PartialSector {
        /// The size in bytes.
        disk_size: u64,
        /// The logical sector size in bytes.
        sector_size: u64,
    },
    /// The disk is larger than an image can be.
    #[error("the disk size of {disk_size} bytes is over the 64 TiB an image can hold")]
    TooLarge {
        /// The size in bytes.
        disk_size: u64,
    },
}

/// The largest disk, 64 TiB (MS-VHDX 2.6.2.2).
pub const MAX_DISK_SIZE: u64 = 64 << 40;

/// Where the writer puts the log region.
pub(crate) const LOG_OFFSET: FileOffset = FileOffset(MIB);
/// Where the writer puts the metadata region.
pub(crate) const METADATA_OFFSET: FileOffset = FileOffset(2 * MIB);
/// Where the writer puts the BAT region.
pub(crate) const BAT_OFFSET: FileOffset = FileOffset(3 * MIB);

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry(disk_size: u64, block_mib: u32) -> Geometry {
        let block_size = BlockSize::from_bytes(block_mib << 20).expect("a block size");
        Geometry::new(disk_size, SectorSize::B512, SectorSize::B4096, block_size).expect("valid")
    }

    #[test]
    fn the_figures_of_the_specification_hold() {
        // 512-byte sectors describe 4 GiB per chunk, whatever the block size.
        for (block_mib, ratio) in [(1, 4096), (2, 2048), (32, 128), (256, 16)] {
            assert_eq!(geometry(512, block_mib).chunk_ratio(), ratio);
        }
        let g = geometry(127 << 30, 2);
        assert_eq!(g.block_count(), 65_024);
        assert_eq!(g.bat_entry_count(), 65_024 + 31);
        assert_eq!(g.bat_region_length(), MIB);
        assert_eq!(geometry(2 << 40, 2).bat_region_length(), 9 * MIB);
        assert_eq!(geometry(MAX_DISK_SIZE, 1).bat_region_length(), 513 * MIB);
    }

    #[test]
    fn a_sector_bitmap_slot_follows_only_a_full_chunk_that_is_not_the_last() {
        for (blocks, entries) in [
            (1, 1),
            (2048, 2048),
            (2049, 2050),
            (4096, 4097),
            (4097, 4099),
        ] {
            assert_eq!(
                geometry(blocks << 21, 2).bat_entry_count(),
                entries,
                "{blocks} blocks"
            );
        }
    }

    #[test]
    fn bat_indices_and_blocks_are_each_others_inverse() {
        let g = geometry(40 << 30, 2);
        for block in (0..g.block_count()).map(PayloadBlock) {
            assert_eq!(g.block_of_bat_index(g.bat_index(block)), Some(block));
        }
        assert_eq!(g.block_of_bat_index(2048), None);
        assert_eq!(g.block_of_bat_index(g.bat_entry_count()), None);
    }

    #[test]
    fn sizes_that_no_image_can_hold_are_refused() {
        let new = |size| {
            Geometry::new(
                size,
                SectorSize::B4096,
                SectorSize::B4096,
                BlockSize::DEFAULT,
            )
        };
        assert_eq!(new(0), Err(GeometryError::Empty));
        assert!(matches!(new(512), Err(GeometryError::PartialSector { .. })));
        assert!(matches!(
            new(MAX_DISK_SIZE + 4096),
            Err(GeometryError::TooLarge { .. })
        ));
        assert!(matches!(new(u64::MAX), Err(GeometryError::TooLarge { .. })));
        assert!(new(MAX_DISK_SIZE).is_ok());
    }
}
