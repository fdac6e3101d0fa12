//! The structures of a VHDX file as they lie on disk, named as MS-VHDX names them.
//!
//! All integers are little-endian; GUIDs are in Microsoft's mixed-endian byte order; checksums
//! are CRC-32C over the whole structure with the checksum field zeroed.

use uuid::{Uuid, uuid};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A GUID as it lies on disk.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Eq,
    FromBytes,
    Hash,
    Immutable,
    IntoBytes,
    KnownLayout,
    PartialEq,
    Unaligned,
)]
#[repr(C)]
pub(crate) struct Guid([u8; 16]);

impl Guid {
    pub(crate) const NIL: Self = Self([0; 16]);

    pub(crate) const fn new(uuid: Uuid) -> Self {
        Self(uuid.to_bytes_le())
    }

    pub(crate) const fn uuid(self) -> Uuid {
        Uuid::from_bytes_le(self.0)
    }
}

/// A header (2.2.2); the rest of its 4 KiB is reserved.
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct Header {
    pub(crate) signature: [u8; 4],
    pub(crate) checksum: U32,
    pub(crate) sequence_number: U64,
    pub(crate) file_write_guid: Guid,
    pub(crate) data_write_guid: Guid,
    pub(crate) log_guid: Guid,
    pub(crate) log_version: U16,
    pub(crate) version: U16,
    pub(crate) log_length: U32,
    pub(crate) log_offset: U64,
}
const _: () = assert!(size_of::<Header>() == 80);

/// The start of a region table (2.2.3.1).
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RegionTableHeader {
    pub(crate) signature: [u8; 4],
    pub(crate) checksum: U32,
    pub(crate) entry_count: U32,
    pub(crate) reserved: U32,
}
const _: () = assert!(size_of::<RegionTableHeader>() == 16);

/// An entry of a region table (2.2.3.2).
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RegionTableEntry {
    pub(crate) guid: Guid,
    pub(crate) file_offset: U64,
    pub(crate) length: U32,
    pub(crate) flags: U32,
}
const _: () = assert!(size_of::<RegionTableEntry>() == 32);

/// The start of the metadata table (2.6.1.1).
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct MetadataTableHeader {
    pub(crate) signature: [u8; 8],
    pub(crate) reserved: U16,
    pub(crate) entry_count: U16,
    pub(crate) reserved2: [u8; 20],
}
const _: () = assert!(size_of::<MetadataTableHeader>() == 32);

/// An entry of the metadata table (2.6.1.2).
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct MetadataTableEntry {
    pub(crate) item_id: Guid,
    pub(crate) offset: U32,
    pub(crate) length: U32,
    pub(crate) flags: U32,
    pub(crate) reserved: U32,
}
const _: () = assert!(size_of::<MetadataTableEntry>() == 32);

/// The CRC-32C of `bytes` with the four checksum bytes at `checksum_offset` taken as zeros.
pub(crate) fn checksum(bytes: &[u8], checksum_offset: usize) -> u32 {
    let (before, rest) = bytes.split_at(checksum_offset.min(bytes.len()));
    let after = rest.get(size_of::<u32>()..).unwrap_or(&[]);
    let crc = crc32c::crc32c_append(crc32c::crc32c(before), &[0; size_of::<u32>()]);
    crc32c::crc32c_append(crc, after)
}

/// Puts the checksum of all of `bytes` where headers and region tables have it.
pub(crate) fn seal(bytes: &mut [u8]) {
    let sum = checksum(bytes, CHECKSUM_OFFSET);
    if let Some((_, field)) = bytes.split_at_mut_checked(CHECKSUM_OFFSET)
        && let Some(field) = field.first_chunk_mut()
    {
        *field = sum.to_le_bytes();
    }
}

/// Where the checksum lies in a header, a region table and a log entry.
pub(crate) const CHECKSUM_OFFSET: usize = 4;

pub(crate) const FILE_IDENTIFIER_SIGNATURE: [u8; 8] = *b"vhdxfile";
/// The creator in the file identifier is UTF-16 and at most this long in bytes (2.2.1).
pub(crate) const CREATOR_LENGTH: usize = 512;

pub(crate) const HEADER_OFFSETS: [u64; 2] = [64 << 10, 128 << 10];
pub(crate) const HEADER_LENGTH: usize = 4 << 10;
pub(crate) const HEADER_SIGNATURE: [u8; 4] = *b"head";
pub(crate) const VERSION: u16 = 1;

pub(crate) const REGION_TABLE_OFFSETS: [u64; 2] = [192 << 10, 256 << 10];
pub(crate) const REGION_TABLE_LENGTH: usize = 64 << 10;
pub(crate) const REGION_TABLE_SIGNATURE: [u8; 4] = *b"regi";
pub(crate) const REGION_REQUIRED: u32 = 1;
pub(crate) const BAT_REGION: Guid = Guid::new(uuid!("2dc27766-f623-4200-9d64-115e9bfd4a08"));
pub(crate) const METADATA_REGION: Guid = Guid::new(uuid!("8b7ca206-4790-4b9a-b8fe-575f050f886e"));

pub(crate) const METADATA_TABLE_LENGTH: usize = 64 << 10;
pub(crate) const METADATA_SIGNATURE: [u8; 8] = *b"metadata";
pub(crate) const METADATA_IS_VIRTUAL_DISK: u32 = 2;
pub(crate) const METADATA_IS_REQUIRED: u32 = 4;
pub(crate) const FILE_PARAMETERS: Guid = Guid::new(uuid!("caa16737-fa36-4d43-b3b6-33f0aa44e76b"));
pub(crate) const VIRTUAL_DISK_SIZE: Guid = Guid::new(uuid!("2fa54224-cd1b-4876-b211-5dbed83bf4b8"));
pub(crate) const PAGE_83_DATA: Guid = Guid::new(uuid!("beca12ab-b2e6-4523-93ef-c309e000c746"));
pub(crate) const LOGICAL_SECTOR_SIZE: Guid =
    Guid::new(uuid!("8141bf1d-a96f-4709-ba47-f233a8faab5f"));
pub(crate) const PHYSICAL_SECTOR_SIZE: Guid =
    Guid::new(uuid!("cda348c7-445d-4471-9cc9-e9885251c556"));
pub(crate) const PARENT_LOCATOR: Guid = Guid::new(uuid!("a8d35f2d-b30b-454d-abf7-d3d84834ab0c"));
/// Not in MS-VHDX: the mark that Microsoft's own writers put into a file until it is whole.
pub(crate) const INCOMPLETE_FILE: Guid = Guid::new(uuid!("71cc85f0-1b69-4e28-9558-c3bf83ae75d3"));

/// The bits of a BAT entry that hold the state of a block (2.5.1).
pub(crate) const BAT_STATE_MASK: u64 = 0b111;
/// The bits of a BAT entry that hold where a block lies, as they stand (2.5.1).
pub(crate) const BAT_OFFSET_MASK: u64 = !0xF_FFFF;
/// The block reads as zeros (2.5.1.1).
pub(crate) const PAYLOAD_BLOCK_ZERO: u64 = 2;
/// The block lies in the file (2.5.1.1).
pub(crate) const PAYLOAD_BLOCK_FULLY_PRESENT: u64 = 6;
