//! The region table, which tells where metadata and BAT lie (MS-VHDX 2.2.3).

use zerocopy::{FromBytes, IntoBytes};

use crate::error::OpenError;
use crate::format::{
    BAT_REGION, CHECKSUM_OFFSET, Guid, METADATA_REGION, REGION_REQUIRED, REGION_TABLE_LENGTH,
    REGION_TABLE_OFFSETS, REGION_TABLE_SIGNATURE, RegionTableEntry, RegionTableHeader, checksum,
    seal,
};
use crate::geometry::{BAT_OFFSET, Geometry, METADATA_OFFSET};
use crate::occupancy::Occupancy;
use crate::source::{Image, ReadAt};
use crate::units::{FileOffset, MIB, buffer_index};

/// Where a region lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// The two regions that every file has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Regions {
    pub(crate) bat: Region,
    pub(crate) metadata: Region,
}

/// Reads the region table, the second copy if the first is damaged, and takes the space of every
/// region, also of those that are unknown.
pub(crate) fn read_regions<R: ReadAt>(
    image: &Image<R>,
    occupied: &mut Occupancy,
) -> Result<Regions, OpenError> {
    let [first, second] = REGION_TABLE_OFFSETS;
    let (table_offset, bytes) = match valid_table(image, first)? {
        Some(bytes) => (first, bytes),
        None => match valid_table(image, second)? {
            Some(bytes) => (second, bytes),
            None => {
                return Err(OpenError::invalid(
                    "region table 1 and its copy",
                    first,
                    "one with the signature \"regi\" and a valid checksum",
                    "none",
                ));
            }
        },
    };
    let (mut bat, mut metadata, mut seen) = (None, None, Vec::new());
    for (entry, offset) in table_entries(&bytes, table_offset)? {
        if seen.contains(&entry.guid) {
            let id = entry.guid.uuid();
            return Err(OpenError::invalid(
                "a region",
                offset,
                "one of each kind",
                id,
            ));
        }
        seen.push(entry.guid);
        let region = checked_region(&entry, offset, image.length())?;
        if !occupied.claim(region.offset, region.length) {
            return Err(OpenError::invalid(
                "a region",
                offset,
                "space of its own",
                format!("{} bytes at {:#x}, in use", region.length, region.offset),
            ));
        }
        match entry.guid {
            BAT_REGION => bat = Some(region),
            METADATA_REGION => metadata = Some(region),
            unknown if entry.flags.get() & REGION_REQUIRED != 0 => {
                return Err(OpenError::UnknownRequired {
                    what: "region",
                    id: unknown.uuid(),
                });
            }
            _ => {}
        }
    }
    Ok(Regions {
        bat: bat.ok_or(OpenError::Missing { what: "BAT region" })?,
        metadata: metadata.ok_or(OpenError::Missing {
            what: "metadata region",
        })?,
    })
}

fn valid_table<R: ReadAt>(image: &Image<R>, offset: u64) -> Result<Option<Vec<u8>>, OpenError> {
    let bytes = image.structure("the region table", offset, REGION_TABLE_LENGTH)?;
    let valid = RegionTableHeader::read_from_prefix(&bytes).is_ok_and(|(header, _)| {
        header.signature == REGION_TABLE_SIGNATURE
            && header.checksum.get() == checksum(&bytes, CHECKSUM_OFFSET)
    });
    Ok(valid.then_some(bytes))
}

/// The entries of a table, each with its place in the file.
fn table_entries(
    bytes: &[u8],
    table_offset: u64,
) -> Result<impl Iterator<Item = (RegionTableEntry, u64)>, OpenError> {
    let count = RegionTableHeader::read_from_prefix(bytes)
        .map_or(0, |(header, _)| header.entry_count.get());
    if count > MAX_ENTRIES {
        return Err(OpenError::invalid(
            "the number of regions",
            table_offset,
            format!("at most {MAX_ENTRIES}"),
            count,
        ));
    }
    let entries = bytes.get(size_of::<RegionTableHeader>()..).unwrap_or(&[]);
    let entries = entries
        .chunks_exact(size_of::<RegionTableEntry>())
        .filter_map(|bytes| RegionTableEntry::read_from_bytes(bytes).ok());
    let places = (table_offset.saturating_add(16)..).step_by(size_of::<RegionTableEntry>());
    Ok(entries
        .zip(places)
        .take(buffer_index(u64::from(count)))
        .collect::<Vec<_>>()
        .into_iter())
}

fn checked_region(
    entry: &RegionTableEntry,
    entry_offset: u64,
    file_length: u64,
) -> Result<Region, OpenError> {
    let region = Region {
        offset: entry.file_offset.get(),
        length: u64::from(entry.length.get()),
    };
    let aligned = region.offset.is_multiple_of(MIB) && region.length.is_multiple_of(MIB);
    if !aligned || region.offset < MIB || region.length == 0 {
        return Err(OpenError::invalid(
            "the place of a region",
            entry_offset,
            "multiples of 1 MiB, neither of them zero",
            format!("{} bytes at {:#x}", region.length, region.offset),
        ));
    }
    let end = region.offset.saturating_add(region.length);
    if end > file_length {
        return Err(OpenError::Truncated {
            what: "a region",
            end,
            file_length,
        });
    }
    Ok(region)
}

/// As many as fit into a table (2.2.3.1).
const MAX_ENTRIES: u32 = 2047;

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
