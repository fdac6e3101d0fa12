//! The fixed VHD: the disk as it is, and a footer behind it.
//!
//! A byte of the disk lies at the same position in the file, so there is nothing to place: the
//! caller writes the disk from offset 0 on, fills up to the footer with zeros, flushes, and
//! writes the footer last. Until then no reader takes the file for a VHD.

use zerocopy::IntoBytes;
use zerocopy::big_endian::U16;

use super::format::{
    DISK_TYPE_FIXED, DiskGeometry, FILE_FORMAT_VERSION, FOOTER_CHECKSUM_OFFSET, FOOTER_COOKIE,
    FOOTER_LENGTH, Footer, SECTOR_LENGTH, checksum,
};
use crate::content::ContentId;
use crate::geometry::{Geometry, MAX_DISK_SIZE};
use crate::identity::vhd_unique_id;
use crate::units::{FileOffset, MIB, SectorSize};

/// Lays out a fixed VHD for one disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FixedVhdWriter {
    virtual_size: u64,
}

impl FixedVhdWriter {
    /// The layout for the disk of `geometry`, whose block size is of no matter here.
    ///
    /// # Errors
    ///
    /// [`VhdError::SectorSize`] unless the disk's logical sectors have 512 bytes.
    pub fn new(geometry: &Geometry) -> Result<Self, VhdError> {
        if geometry.logical_sector() != SectorSize::B512 {
            return Err(VhdError::SectorSize {
                found: geometry.logical_sector().bytes(),
            });
        }
        // A geometry is at most MAX_DISK_SIZE, which is itself a whole number of MiB.
        const _: () = assert!(MAX_DISK_SIZE.is_multiple_of(MIB));
        let virtual_size = geometry.disk_size().next_multiple_of(MIB);
        Ok(Self { virtual_size })
    }

    /// The size of the disk in the file: that of the source rounded up to a whole MiB with
    /// zeros, as Azure takes no other.
    pub const fn virtual_size(&self) -> u64 {
        self.virtual_size
    }

    /// Where the footer goes: right behind the disk.
    pub const fn footer_offset(&self) -> FileOffset {
        FileOffset(self.virtual_size)
    }

    /// The length of the whole file.
    pub const fn file_length(&self) -> FileOffset {
        FileOffset(self.virtual_size + FOOTER_LENGTH)
    }

    /// The footer for a disk with this content.
    pub fn footer(&self, content: &ContentId) -> [u8; 512] {
        let mut footer = Footer {
            cookie: FOOTER_COOKIE,
            features: RESERVED_FEATURE.into(),
            file_format_version: FILE_FORMAT_VERSION.into(),
            data_offset: u64::MAX.into(),
            time_stamp: 0.into(),
            creator_application: CREATOR,
            creator_version: CREATOR_VERSION.into(),
            creator_host_os: *b"Wi2k",
            original_size: self.virtual_size.into(),
            current_size: self.virtual_size.into(),
            disk_geometry: disk_geometry(self.virtual_size),
            disk_type: DISK_TYPE_FIXED.into(),
            checksum: 0.into(),
            unique_id: *vhd_unique_id(content).as_bytes(),
            saved_state: 0,
            reserved: [0; 427],
        };
        footer.checksum = checksum(footer.as_bytes(), FOOTER_CHECKSUM_OFFSET).into();
        zerocopy::transmute!(footer)
    }
}

/// Why a disk can't be written as a VHD.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum VhdError {
    /// VHD can only express sectors of 512 bytes.
    #[error(
        "a VHD can only hold a disk with 512-byte logical sectors, and this one's have {found} \
         bytes: use VHDX"
    )]
    SectorSize {
        /// The logical sector size of the disk in bytes.
        found: u64,
    },
}

/// The algorithm of the specification's appendix "CHS Calculation".
fn disk_geometry(disk_size: u64) -> DiskGeometry {
    let sectors = (disk_size / SECTOR_LENGTH).min(65_535 * 16 * 255);
    let (sectors_per_track, heads, cylinder_heads);
    if sectors >= 65_535 * 16 * 63 {
        (sectors_per_track, heads) = (255_u8, 16_u8);
        cylinder_heads = sectors / 255;
    } else {
        let tracks = sectors / 17;
        let of_17 = u8::try_from(tracks.div_ceil(1024).max(4)).unwrap_or(u8::MAX);
        if tracks < u64::from(of_17) * 1024 && of_17 <= 16 {
            (sectors_per_track, heads, cylinder_heads) = (17, of_17, tracks);
        } else if sectors / 31 < 16 * 1024 {
            (sectors_per_track, heads, cylinder_heads) = (31, 16, sectors / 31);
        } else {
            (sectors_per_track, heads, cylinder_heads) = (63, 16, sectors / 63);
        }
    }
    // At most 65535 by the bound on the number of sectors.
    let cylinders = u16::try_from(cylinder_heads / u64::from(heads)).unwrap_or(u16::MAX);
    DiskGeometry {
        cylinders: U16::new(cylinders),
        heads,
        sectors_per_track,
    }
}

/// Bit 1 "must always be set to 1".
const RESERVED_FEATURE: u32 = 2;

/// By the name of Windows' own writer readers know that the size counts, not the CHS geometry.
const CREATOR: [u8; 4] = *b"win ";
const CREATOR_VERSION: u32 = 0x000A_0000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::ContentDigest;
    use crate::units::BlockSize;

    fn geometry(disk_size: u64, logical: SectorSize) -> Geometry {
        Geometry::new(disk_size, logical, SectorSize::B4096, BlockSize::DEFAULT).expect("valid")
    }

    #[test]
    fn the_disk_is_rounded_up_to_a_whole_mib() {
        for (disk_size, virtual_size) in [(512, MIB), (MIB, MIB), (MIB + 512, 2 * MIB)] {
            let writer = FixedVhdWriter::new(&geometry(disk_size, SectorSize::B512)).expect("512");
            assert_eq!(writer.virtual_size(), virtual_size);
            assert_eq!(writer.file_length(), FileOffset(virtual_size + 512));
        }
    }

    #[test]
    fn a_disk_with_4096_byte_sectors_is_refused() {
        let refusal = FixedVhdWriter::new(&geometry(MIB, SectorSize::B4096));
        assert_eq!(refusal, Err(VhdError::SectorSize { found: 4096 }));
    }

    #[test]
    fn the_chs_geometry_is_what_other_writers_put_for_the_same_size() {
        // (sectors of the disk, cylinders, heads, sectors per track) as qemu-img 7.2 writes them.
        for (total, cylinders, heads, sectors) in [
            (2108, 31, 4, 17),
            (63512, 934, 4, 17),
            (278752, 562, 16, 31),
            (523152, 519, 16, 63),
            (1024128, 1016, 16, 63),
            (1032192, 1024, 16, 63),
            (1065456, 1057, 16, 63),
            (2097648, 2081, 16, 63),
            (16778160, 16645, 16, 63),
            (66058272, 65534, 16, 63),
            (134219760, 32897, 16, 255),
            (264192240, 64753, 16, 255),
            (u64::MAX / SECTOR_LENGTH, 65535, 16, 255),
        ] {
            let found = disk_geometry(total * SECTOR_LENGTH);
            let expected = DiskGeometry {
                cylinders: U16::new(cylinders),
                heads,
                sectors_per_track: sectors,
            };
            assert_eq!(found, expected, "{total} sectors");
        }
    }

    #[test]
    fn the_footer_sums_up_and_tells_disks_apart() {
        let g = geometry(MIB, SectorSize::B512);
        let writer = FixedVhdWriter::new(&g).expect("512");
        let footer_of = |byte| {
            let mut digest = ContentDigest::new();
            digest.update(0, &[byte]).expect("in order");
            writer.footer(&digest.finish(&g))
        };
        let (empty, full) = (footer_of(0), footer_of(1));
        assert_ne!(empty, full);
        // The definition read the other way round: everything but the checksum field, summed.
        let sum: u32 = [&full[..64], &full[68..]]
            .concat()
            .iter()
            .map(|b| u32::from(*b))
            .sum();
        assert_eq!(full[64..68], (!sum).to_be_bytes());
    }
}
