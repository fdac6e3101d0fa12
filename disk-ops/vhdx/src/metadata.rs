//! The metadata region: what the virtual disk is like (MS-VHDX 2.6).

use std::collections::HashMap;

use zerocopy::{FromBytes, IntoBytes};

use crate::error::OpenError;
use crate::format::{
    FILE_PARAMETERS, Guid, INCOMPLETE_FILE, LOGICAL_SECTOR_SIZE, METADATA_IS_REQUIRED,
    METADATA_IS_VIRTUAL_DISK, METADATA_SIGNATURE, METADATA_TABLE_LENGTH, MetadataTableEntry,
    MetadataTableHeader, PAGE_83_DATA, PARENT_LOCATOR, PHYSICAL_SECTOR_SIZE, VIRTUAL_DISK_SIZE,
};
use crate::geometry::Geometry;
use crate::identity::Identity;
use crate::parent::parent_name;
use crate::region::Region;
use crate::source::{Image, ReadAt};
use crate::units::{BlockSize, SectorSize, buffer_index, length_of};

/// What the metadata say of the disk.
#[derive(Clone, Debug)]
pub(crate) struct Metadata {
    pub(crate) geometry: Geometry,
    pub(crate) page_83: Guid,
}

/// Reads the metadata of a disk without a parent.
pub(crate) fn read_metadata<R: ReadAt>(
    image: &Image<R>,
    region: Region,
) -> Result<Metadata, OpenError> {
    let items = Items::read(image, region)?;
    let (parameters, at) = items.value::<_, 8>(image, FILE_PARAMETERS, "file parameters")?;
    let [block_size, flags]: [[u8; 4]; 2] = zerocopy::transmute!(parameters);
    let (block_size, flags) = (u32::from_le_bytes(block_size), u32::from_le_bytes(flags));
    if flags & HAS_PARENT != 0 {
        return Err(OpenError::Differencing {
            parent: items.parent(image),
        });
    }
    let block_size = BlockSize::from_bytes(block_size).ok_or_else(|| {
        let expected = "a power of two from 1 MiB to 256 MiB";
        OpenError::invalid("the block size", at, expected, block_size)
    })?;
    let (disk_size, _) = items.value(image, VIRTUAL_DISK_SIZE, "virtual disk size")?;
    let logical = items.sector_size(image, LOGICAL_SECTOR_SIZE, "logical sector size")?;
    let physical = items.sector_size(image, PHYSICAL_SECTOR_SIZE, "physical sector size")?;
    let (page_83, _) = items.value::<_, 16>(image, PAGE_83_DATA, "page 83 data")?;
    Ok(Metadata {
        geometry: Geometry::new(u64::from_le_bytes(disk_size), logical, physical, block_size)?,
        page_83: zerocopy::transmute!(page_83),
    })
}

/// The known items of a metadata table, with their places checked.
struct Items(HashMap<Guid, Item>);

#[derive(Clone, Copy)]
struct Item {
    /// Where in the file.
    offset: u64,
    length: u64,
}

impl Items {
    fn read<R: ReadAt>(image: &Image<R>, region: Region) -> Result<Self, OpenError> {
        let table = image.structure("the metadata table", region.offset, METADATA_TABLE_LENGTH)?;
        let (header, entries) = MetadataTableHeader::read_from_prefix(&table)
            .ok()
            .filter(|(header, _)| header.signature == METADATA_SIGNATURE)
            .ok_or_else(|| {
                let what = "the metadata table";
                OpenError::invalid(what, region.offset, "\"metadata\"", "something else")
            })?;
        let count = header.entry_count.get();
        if count > MAX_ENTRIES {
            return Err(OpenError::invalid(
                "the number of metadata items",
                region.offset,
                format!("at most {MAX_ENTRIES}"),
                count,
            ));
        }
        let mut items = HashMap::new();
        let places = (region.offset.saturating_add(32)..).step_by(size_of::<MetadataTableEntry>());
        let entries = entries
            .chunks_exact(size_of::<MetadataTableEntry>())
            .filter_map(|bytes| MetadataTableEntry::read_from_bytes(bytes).ok());
        for (entry, at) in entries.zip(places).take(usize::from(count)) {
            let is_user = entry.flags.get() & METADATA_IS_USER != 0;
            if !KNOWN.contains(&entry.item_id) || is_user {
                if entry.item_id == INCOMPLETE_FILE {
                    return Err(OpenError::Incomplete);
                }
                if entry.flags.get() & METADATA_IS_REQUIRED != 0 {
                    return Err(OpenError::UnknownRequired {
                        what: "metadata item",
                        id: entry.item_id.uuid(),
                    });
                }
                continue;
            }
            let item = checked_item(&entry, at, region)?;
            if items.insert(entry.item_id, item).is_some() {
                let id = entry.item_id.uuid();
                return Err(OpenError::invalid(
                    "a metadata item",
                    at,
                    "one of each kind",
                    id,
                ));
            }
        }
        Ok(Self(items))
    }

    /// The value of an item of `N` bytes, and where it lies.
    fn value<R: ReadAt, const N: usize>(
        &self,
        image: &Image<R>,
        id: Guid,
        what: &'static str,
    ) -> Result<([u8; N], u64), OpenError> {
        let item = self.0.get(&id).ok_or(OpenError::Missing { what })?;
        let mut value = [0; N];
        if item.length != length_of(&value) {
            let expected = format!("{N} bytes");
            return Err(OpenError::invalid(what, item.offset, expected, item.length));
        }
        let bytes = image.structure(what, item.offset, N)?;
        value.copy_from_slice(&bytes);
        Ok((value, item.offset))
    }

    fn sector_size<R: ReadAt>(
        &self,
        image: &Image<R>,
        id: Guid,
        what: &'static str,
    ) -> Result<SectorSize, OpenError> {
        let (value, at) = self.value(image, id, what)?;
        let bytes = u32::from_le_bytes(value);
        SectorSize::from_bytes(u64::from(bytes))
            .ok_or_else(|| OpenError::invalid(what, at, "512 or 4096", bytes))
    }

    /// The name of the parent, as far as it can be read: it only serves a message.
    fn parent<R: ReadAt>(&self, image: &Image<R>) -> Option<String> {
        let item = self.0.get(&PARENT_LOCATOR)?;
        let bytes = image
            .structure("the parent locator", item.offset, buffer_index(item.length))
            .ok()?;
        parent_name(&bytes)
    }
}

fn checked_item(entry: &MetadataTableEntry, at: u64, region: Region) -> Result<Item, OpenError> {
    let offset = u64::from(entry.offset.get());
    let length = u64::from(entry.length.get());
    if offset < u64::from(FIRST_ITEM_OFFSET)
        || length > MAX_ITEM_LENGTH
        || offset.saturating_add(length) > region.length
    {
        return Err(OpenError::invalid(
            "the place of a metadata item",
            at,
            format!("at most 1 MiB between 0x10000 and {:#x}", region.length),
            format!("{length} bytes at {offset:#x}"),
        ));
    }
    Ok(Item {
        offset: region.offset.saturating_add(offset),
        length,
    })
}

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

const KNOWN: [Guid; 6] = [
    FILE_PARAMETERS,
    VIRTUAL_DISK_SIZE,
    PAGE_83_DATA,
    LOGICAL_SECTOR_SIZE,
    PHYSICAL_SECTOR_SIZE,
    PARENT_LOCATOR,
];

/// 1023 of the system and 1024 of the user (2.6.1.1).
const MAX_ENTRIES: u16 = 2047;
/// 2.6.1.2
const MAX_ITEM_LENGTH: u64 = 1 << 20;
const METADATA_IS_USER: u32 = 1;
/// In the flags of the file parameters (2.6.2.1).
const HAS_PARENT: u32 = 2;
/// Items may not lie inside the table (2.6.1.2).
const FIRST_ITEM_OFFSET: u32 = 64 << 10;
