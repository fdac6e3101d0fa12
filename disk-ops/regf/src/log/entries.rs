//! Logs of Windows 8.1 and later: entries, each with the pages one flush changed (HvLE).

use zerocopy::{FromBytes, IntoBytes};

use super::marvin::marvin32;
use super::{LogEnd, Patch};
use crate::format::{BIN_ALIGNMENT, LogEntryHeader, MAX_BINS_LEN, PageReference, SECTOR};
use crate::units::index;

/// What the sound entries at the front of a log hold.
#[derive(Debug)]
pub(super) struct Entries<'a> {
    pub(super) pages: Vec<Patch<'a>>,
    pub(super) count: u32,
    pub(super) last: Option<LastEntry>,
    /// Why there are no more.
    pub(super) end: LogEnd,
}

/// What the last entry says of the hive as a whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct LastEntry {
    pub(super) sequence: u32,
    pub(super) bins_len: u32,
    pub(super) flags: u32,
}

impl<'a> Entries<'a> {
    /// The entries that follow each other from number `first` on.
    pub(super) fn read(log: &'a [u8], first: u32) -> Self {
        let mut entries = Self {
            pages: Vec::new(),
            count: 0,
            last: None,
            end: LogEnd::NoMoreEntries,
        };
        let mut rest = log.get(SECTOR..).unwrap_or_default();
        let mut expected = first;
        loop {
            match read_entry(rest, expected, &mut entries.pages) {
                Ok((last, behind)) => {
                    entries.last = Some(last);
                    entries.count += 1;
                    expected = expected.wrapping_add(1);
                    rest = behind;
                }
                Err(end) => {
                    entries.end = end;
                    return entries;
                }
            }
        }
    }
}

/// Takes one entry, adds its pages, and returns what follows it.
fn read_entry<'a>(
    rest: &'a [u8],
    expected: u32,
    pages: &mut Vec<Patch<'a>>,
) -> Result<(LastEntry, &'a [u8]), LogEnd> {
    let Ok((header, _)) = LogEntryHeader::ref_from_prefix(rest) else {
        return Err(LogEnd::NoMoreEntries);
    };
    if header.signature != *b"HvLE" {
        return Err(LogEnd::NoMoreEntries);
    }
    let sequence = header.sequence.get();
    if sequence != expected {
        return Err(LogEnd::Sequence {
            expected,
            found: sequence,
        });
    }
    let size = index(header.size.get());
    let entry = rest.get(..size).filter(|_| size.is_multiple_of(SECTOR));
    let Some((entry, body)) = entry.and_then(|entry| Some((entry, entry.get(HEADER_LEN..)?)))
    else {
        return Err(LogEnd::Torn {
            sequence,
            what: "its size",
        });
    };
    let hashed_header = entry.get(..HASHED_HEADER_LEN).unwrap_or_default();
    if marvin32(hashed_header) != header.hash_2.get() {
        return Err(LogEnd::Torn {
            sequence,
            what: "the hash of its header",
        });
    }
    if marvin32(body) != header.hash_1.get() {
        return Err(LogEnd::Torn {
            sequence,
            what: "the hash of its pages",
        });
    }
    let bins_len = header.bins_len.get();
    if bins_len == 0 || !bins_len.is_multiple_of(BIN_ALIGNMENT) || bins_len > MAX_BINS_LEN {
        return Err(LogEnd::Torn {
            sequence,
            what: "its length of the hive bins",
        });
    }
    let added = read_pages(body, header.page_count.get(), bins_len).ok_or(LogEnd::Torn {
        sequence,
        what: "its page references",
    })?;
    pages.extend(added);
    let last = LastEntry {
        sequence,
        bins_len,
        flags: header.flags.get(),
    };
    Ok((last, rest.get(size..).unwrap_or_default()))
}

fn read_pages(body: &[u8], count: u32, bins_len: u32) -> Option<Vec<Patch<'_>>> {
    let count = index(count);
    let references = body.get(..count.checked_mul(size_of::<PageReference>())?)?;
    let mut data = body.get(references.as_bytes().len()..)?;
    let mut pages = Vec::with_capacity(count);
    for reference in <[PageReference]>::ref_from_bytes(references).ok()? {
        let (at, size) = (reference.offset.get(), reference.size.get());
        if at.checked_add(size)? > bins_len {
            return None;
        }
        let (page, behind) = data.split_at_checked(index(size))?;
        pages.push(Patch { at, bytes: page });
        data = behind;
    }
    Some(pages)
}

const HEADER_LEN: usize = size_of::<LogEntryHeader>();
/// The second hash is over what stands before it.
const HASHED_HEADER_LEN: usize = 32;
