//! The metadata region: what the virtual disk is like (MS-VHDX 2.6).

use zerocopy::IntoBytes;

use crate::format::{
    FILE_PARAMETERS, Guid, LOGICAL_SECTOR_SIZE, METADATA_IS_REQUIRED, METADATA_IS_VIRTUAL_DISK,
    METADATA_SIGNATURE, METADATA_TABLE_LENGTH, MetadataTableEntry, MetadataTableHeader,
    PAGE_83_DATA, PHYSICAL_SECTOR_SIZE, VIRTUAL_DISK_SIZE,
};
use crate::geometry::Geometry;
use crate::identity::Identity;
use crate::units::SectorSize;

/// The bytes of the metadata region up to the end of its last item: table, then items.
pub(crate) fn metadata_region(geometry: &Geometry, identity: &Identity) -> Vec<u8> {
    let file_parameters = [geometry.block_size().raw(), 0].map(u32::to_le_bytes);
    let disk_size = geometry.disk_size().to_le_bytes();
    let page_83 = Guid::new(identity.page_83);
    let logical = sector_size_field(geometry.logical_sector());
    let physical = sector_size_field(geometry.physical_sector());
    let of_disk = METADATA_IS_REQUIRED | METADATA_IS_VIRTUAL_DISK;
    let items: [(Guid, u32, &[u8]); 5] = [
        (
            FILE_PARAMETERS,
            METADATA_IS_REQUIRED,
            file_parameters.as_flattened(),
        ),
        (VIRTUAL_DISK_SIZE, of_disk, &disk_size),
        (PAGE_83_DATA, of_disk, page_83.as_bytes()),
        (LOGICAL_SECTOR_SIZE, of_disk, &logical),
        (PHYSICAL_SECTOR_SIZE, of_disk, &physical),
    ];

    let mut table = MetadataTableHeader {
        signature: METADATA_SIGNATURE,
        reserved: 0.into(),
        entry_count: 5.into(),
        reserved2: [0; 20],
    }
    .as_bytes()
    .to_vec();
    let mut values = Vec::new();
    let mut offset = FIRST_ITEM_OFFSET;
    for (item_id, flags, value) in items {
        // Items are at most 16 bytes long.
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        let entry = MetadataTableEntry {
            item_id,
            offset: offset.into(),
            length: length.into(),
            flags: flags.into(),
            reserved: 0.into(),
        };
        table.extend_from_slice(entry.as_bytes());
        values.extend_from_slice(value);
        offset = offset.saturating_add(length);
    }
    table.resize(METADATA_TABLE_LENGTH, 0);
    table.append(&mut values);
    table
}

fn sector_size_field(size: SectorSize) -> [u8; 4] {
    match size {
        SectorSize::B512 => 512_u32,
        SectorSize::B4096 => 4096,
    }
    .to_le_bytes()
}

/// Items may not lie inside the table (2.6.1.2).
const FIRST_ITEM_OFFSET: u32 = 64 << 10;
