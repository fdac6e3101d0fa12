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
    let pairs: Vec<(&str, String)> = entries
        .filter_map(|entry| {
            // Keys may overlap at will, and so be far longer in all than the locator: they are
            // compared and not decoded.
            let key = units(locator, entry.key_offset, entry.key_length)?;
            let name = NAMES
                .iter()
                .find(|name| key.clone().eq(name.encode_utf16()))?;
            let value = units(locator, entry.value_offset, entry.value_length)?;
            Some((*name, shortened_text(value)))
        })
        .take(NAMES.len())
        .collect();
    NAMES.iter().find_map(|name| {
        let (_, value) = pairs.iter().find(|(key, _)| key == name)?;
        Some(value.clone())
    })
}

fn units(
    locator: &[u8],
    offset: U32,
    length: U16,
) -> Option<impl Iterator<Item = u16> + Clone + '_> {
    let start = buffer_index(u64::from(offset.get()));
    let bytes = locator.get(start..start.saturating_add(usize::from(length.get())))?;
    let units = bytes.as_chunks().0.iter();
    Some(units.map(|unit| u16::from_le_bytes(*unit)))
}

/// The text in UTF-16, up to a length that a message can have.
fn shortened_text(units: impl Iterator<Item = u16>) -> String {
    let mut text: String = char::decode_utf16(units)
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .take(MAX_NAME_LENGTH + 1)
        .collect();
    if let Some((end, _)) = text.char_indices().nth(MAX_NAME_LENGTH) {
        text.truncate(end);
        text.push('\u{2026}');
    }
    text
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

/// In characters: what a path without the prefix `\\\\?\\` can have.
const MAX_NAME_LENGTH: usize = 260;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// A locator with `entries` (offset and length of key and value) and `strings` behind them.
    fn locator(entries: &[[usize; 4]], strings: &[&str]) -> Vec<u8> {
        let count = u16::try_from(entries.len()).expect("a count of 16 bits");
        let mut bytes = vec![0; 18];
        bytes.extend(count.to_le_bytes());
        for [key, key_length, value, value_length] in entries {
            for offset in [key, value] {
                bytes.extend(u32::try_from(*offset).expect("32 bits").to_le_bytes());
            }
            for length in [key_length, value_length] {
                bytes.extend(u16::try_from(*length).expect("16 bits").to_le_bytes());
            }
        }
        for string in strings {
            bytes.extend(string.encode_utf16().flat_map(u16::to_le_bytes));
        }
        bytes
    }

    #[test]
    fn the_relative_path_is_preferred_wherever_it_stands() {
        let entries = [[44, 38, 82, 12], [94, 26, 120, 10]];
        let strings = ["absolute_win32_path", r"C:\p\q", "relative_path", r".\p.v"];
        let found = parent_name(&locator(&entries, &strings));
        assert_eq!(found.as_deref(), Some(r".\p.v"));
        assert_eq!(parent_name(&locator(&entries, &[])), None);
    }

    #[test]
    fn a_name_of_absurd_length_is_shortened() {
        let name = "n".repeat(30_000);
        let bytes = locator(&[[32, 26, 58, 60_000]], &["relative_path", &name]);
        let found = parent_name(&bytes).expect("a name");
        assert_eq!(found, format!("{}\u{2026}", &name[..MAX_NAME_LENGTH]));
    }

    #[test]
    fn keys_that_overlap_without_end_do_not_take_forever() {
        // 65535 keys of 32767 characters each, in a locator of 1 MiB.
        let bytes = locator(&[[0, 65_534, 0, 0]; 65_535], &[&"k".repeat(100_000)]);
        let started = Instant::now();
        assert_eq!(parent_name(&bytes), None);
        assert!(started.elapsed() < Duration::from_secs(1));
    }
}
