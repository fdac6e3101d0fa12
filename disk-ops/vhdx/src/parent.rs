//! The parent locator of a differencing disk, as far as a message needs it (MS-VHDX 2.6.2.6).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::format::Guid;
use crate::units::buffer_index;

/// The name of the parent in a parent locator: relative if there is one, else absolute.
pub(crate) fn parent_name(locator: &[u8]) -> Option<String> {
    let (header, entries) = LocatorHeader::read_from_prefix(locator).ok()?;
    let entries = entries
        .chunks_exact(size_of::<LocatorEntry>())
        .filter_map(|bytes| LocatorEntry::read_from_bytes(bytes).ok())
        .take(usize::from(header.key_value_count.get()));
    let pairs: Vec<(String, String)> = entries
        .filter_map(|entry| {
            let key = text(locator, entry.key_offset, entry.key_length)?;
            NAMES.contains(&key.as_str()).then_some(())?;
            Some((key, text(locator, entry.value_offset, entry.value_length)?))
        })
        .take(NAMES.len())
        .collect();
    NAMES.iter().find_map(|name| {
        let (_, value) = pairs.iter().find(|(key, _)| key == name)?;
        Some(value.clone())
    })
}

fn text(locator: &[u8], offset: U32, length: U16) -> Option<String> {
    let start = buffer_index(u64::from(offset.get()));
    let bytes = locator.get(start..start.saturating_add(usize::from(length.get())))?;
    let units = bytes
        .as_chunks()
        .0
        .iter()
        .map(|unit| u16::from_le_bytes(*unit));
    Some(
        char::decode_utf16(units)
            .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect(),
    )
}

#[derive(Clone, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct LocatorHeader {
    locator_type: Guid,
    reserved: U16,
    key_value_count: U16,
}

#[derive(Clone, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct LocatorEntry {
    key_offset: U32,
    value_offset: U32,
    key_length: U16,
    value_length: U16,
}
const _: () = assert!(size_of::<LocatorEntry>() == 12);

/// In the order in which a reader tries them.
const NAMES: [&str; 3] = ["relative_path", "volume_path", "absolute_win32_path"];
