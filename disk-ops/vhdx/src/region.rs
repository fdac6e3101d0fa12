//! The region table, which tells where metadata and BAT lie (MS-VHDX 2.2.3).

use zerocopy::IntoBytes;

use crate::format::{
    BAT_REGION, Guid, METADATA_REGION, REGION_REQUIRED, REGION_TABLE_LENGTH,
    REGION_TABLE_SIGNATURE, RegionTableEntry, RegionTableHeader, seal,
};
use crate::geometry::{BAT_OFFSET, Geometry, METADATA_OFFSET};
use crate::units::{FileOffset, MIB};

/// The bytes of the region table of a file that the writer lays out.
pub(crate) fn region_table(geometry: &Geometry) -> Vec<u8> {
    let entries = [
        entry(METADATA_REGION, METADATA_OFFSET, MIB),
        entry(BAT_REGION, BAT_OFFSET, geometry.bat_region_length()),
    ];
    let header = RegionTableHeader {
        signature: REGION_TABLE_SIGNATURE,
        checksum: 0.into(),
        entry_count: 2.into(),
        reserved: 0.into(),
    };
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(entries.as_bytes());
    bytes.resize(REGION_TABLE_LENGTH, 0);
    seal(&mut bytes);
    bytes
}

fn entry(guid: Guid, offset: FileOffset, length: u64) -> RegionTableEntry {
    RegionTableEntry {
        guid,
        file_offset: offset.0.into(),
        // The longest region is a BAT of 513 MiB; the field could not hold more than 4 GiB.
        length: u32::try_from(length).unwrap_or(u32::MAX).into(),
        flags: REGION_REQUIRED.into(),
    }
}
