//! The structures of a VHD file as they lie on disk, named as the specification names them.

use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The footer, which ends every file and also begins one that is not fixed.
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Footer {
    pub(crate) cookie: [u8; 8],
    pub(crate) features: U32,
    pub(crate) file_format_version: U32,
    pub(crate) data_offset: U64,
    pub(crate) time_stamp: U32,
    pub(crate) creator_application: [u8; 4],
    pub(crate) creator_version: U32,
    pub(crate) creator_host_os: [u8; 4],
    pub(crate) original_size: U64,
    pub(crate) current_size: U64,
    pub(crate) disk_geometry: DiskGeometry,
    pub(crate) disk_type: U32,
    pub(crate) checksum: U32,
    pub(crate) unique_id: [u8; 16],
    pub(crate) saved_state: u8,
    pub(crate) reserved: [u8; 427],
}
const _: () = assert!(size_of::<Footer>() == 512);

/// What follows the copy of the footer in a file that is not fixed.
#[derive(Clone, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct DynamicHeader {
    pub(crate) cookie: [u8; 8],
    pub(crate) data_offset: U64,
    pub(crate) table_offset: U64,
    pub(crate) header_version: U32,
    pub(crate) max_table_entries: U32,
    pub(crate) block_size: U32,
    pub(crate) checksum: U32,
    pub(crate) parent_unique_id: [u8; 16],
    pub(crate) parent_time_stamp: U32,
    pub(crate) reserved: U32,
    pub(crate) parent_unicode_name: [U16; 256],
    pub(crate) parent_locators: [[u8; 24]; 8],
    pub(crate) reserved2: [u8; 256],
}
const _: () = assert!(size_of::<DynamicHeader>() == 1024);

/// Cylinders, heads and sectors per track, for BIOSes that address disks by them.
#[derive(
    Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq, Unaligned,
)]
#[repr(C)]
pub(crate) struct DiskGeometry {
    pub(crate) cylinders: U16,
    pub(crate) heads: u8,
    pub(crate) sectors_per_track: u8,
}

/// The one's complement of the sum of `bytes`, of which the four of the checksum count as zeros.
pub(crate) fn checksum(bytes: &[u8], checksum_offset: usize) -> u32 {
    let field = checksum_offset..checksum_offset.saturating_add(4);
    let counted = bytes.iter().enumerate().filter(|(i, _)| !field.contains(i));
    !counted.fold(0_u32, |sum, (_, byte)| sum.wrapping_add(u32::from(*byte)))
}

pub(crate) const FOOTER_COOKIE: [u8; 8] = *b"conectix";
pub(crate) const FOOTER_LENGTH: u64 = 512;
pub(crate) const FOOTER_CHECKSUM_OFFSET: usize = 64;
pub(crate) const FILE_FORMAT_VERSION: u32 = 0x0001_0000;
pub(crate) const DISK_TYPE_FIXED: u32 = 2;
pub(crate) const DISK_TYPE_DYNAMIC: u32 = 3;
pub(crate) const DISK_TYPE_DIFFERENCING: u32 = 4;

pub(crate) const DYNAMIC_COOKIE: [u8; 8] = *b"cxsparse";
pub(crate) const DYNAMIC_HEADER_LENGTH: u64 = 1024;
pub(crate) const DYNAMIC_CHECKSUM_OFFSET: usize = 36;
/// The entry of a block that is not in the file.
pub(crate) const UNUSED_ENTRY: u32 = u32::MAX;

/// VHD has no field for a sector size: everything counts in these.
pub(crate) const SECTOR_LENGTH: u64 = 512;
