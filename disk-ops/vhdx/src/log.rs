//! The log of a file that was not closed cleanly, replayed beside it (MS-VHDX 2.3).
//!
//! ```text
//!  log (a ring):  ...| entry 41 | entry 42 | entry 43 |  stale entries, torn entries ...
//!                      ^ Tail of 43           ^ head: newest entry of a valid sequence
//!  entry:         header, descriptors | data sector | data sector ...
//! ```
//!
//! Memory is bounded by [`MAX_LOG_LENGTH`]: the log itself twice, so that no entry wraps, and
//! one page for each of its data sectors or one range for each 32-byte zero descriptor. Time is
//! bounded by a budget of bytes to be checksummed, as entries may overlap at will.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::error::OpenError;
use crate::format::{CHECKSUM_OFFSET, Guid, checksum};
use crate::header::LogLocation;
use crate::overlay::{Overlay, PAGE_LENGTH};
use crate::source::{Image, ReadAt};
use crate::units::{FileOffset, buffer_index, length_of};

/// What the log says the file should be.
#[derive(Debug)]
pub(crate) struct Replay {
    pub(crate) overlay: Overlay,
    /// The length the file must have at least.
    pub(crate) file_length: u64,
    /// How many entries were applied.
    pub(crate) entries: u64,
}

/// Finds the newest valid sequence of entries and collects its changes.
pub(crate) fn replay<R: ReadAt>(
    image: &Image<R>,
    location: &LogLocation,
) -> Result<Replay, OpenError> {
    let unusable = |reason: String| OpenError::LogUnusable {
        offset: FileOffset(location.offset),
        reason,
    };
    if location.length > MAX_LOG_LENGTH {
        return Err(unusable(format!(
            "it is {} bytes long, over the {MAX_LOG_LENGTH} that are replayed",
            location.length
        )));
    }
    let mut bytes = image.structure("the log", location.offset, buffer_index(location.length))?;
    bytes.reserve_exact(bytes.len());
    bytes.extend_from_within(..);
    let mut log = Ring {
        bytes,
        length: location.length,
        guid: location.guid,
        budget: location.length.saturating_mul(CHECKSUM_BUDGET),
    };
    let sequence = log
        .newest_sequence()
        .map_err(|Exhausted| unusable("its entries overlap without end".to_owned()))?
        .ok_or_else(|| unusable("it has no complete sequence of entries".to_owned()))?;

    let flushed = sequence.head.flushed_file_offset.get();
    if image.length() < flushed {
        return Err(OpenError::Truncated {
            what: "what its log knows to be written",
            end: flushed,
            file_length: image.length(),
        });
    }
    let mut overlay = Overlay::default();
    for position in &sequence.entries {
        log.collect(*position, &mut overlay)
            .ok_or_else(|| unusable("a change leaves the address space".to_owned()))?;
    }
    Ok(Replay {
        overlay,
        file_length: sequence.head.last_file_offset.get(),
        entries: length_of(&sequence.entries),
    })
}

/// A log whose bytes are there twice, so that what wraps around its end is in one piece.
struct Ring {
    bytes: Vec<u8>,
    length: u64,
    guid: Guid,
    /// How many more bytes may be checksummed.
    budget: u64,
}

/// Entries in ascending order that belong together, from the head's tail to the head.
struct Sequence {
    /// Where they begin in the log.
    entries: Vec<u64>,
    head: EntryHeader,
}

/// More was to be checksummed than an honest log can ask for.
struct Exhausted;

impl Ring {
    /// The algorithm of MS-VHDX 2.3.3.
    fn newest_sequence(&mut self) -> Result<Option<Sequence>, Exhausted> {
        let mut newest: Option<Sequence> = None;
        let mut start = 0;
        while start < self.length {
            let (sequence, end) = self.sequence_from(start)?;
            if let Some(sequence) = sequence
                && newest.as_ref().is_none_or(|newest| {
                    newest.head.sequence_number.get() < sequence.head.sequence_number.get()
                })
            {
                newest = Some(sequence);
            }
            start = end.max(start.saturating_add(SECTOR_LENGTH));
        }
        Ok(newest)
    }

    /// The longest run of entries from `start` on, if it reaches back to its head's tail, and
    /// where it ends.
    fn sequence_from(&mut self, start: u64) -> Result<(Option<Sequence>, u64), Exhausted> {
        let mut entries = Vec::new();
        let mut head: Option<EntryHeader> = None;
        let mut end = start;
        loop {
            let position = end % self.length;
            let Some(entry) = self.entry_at(position)? else {
                break;
            };
            let expected = head
                .as_ref()
                .and_then(|head| head.sequence_number.get().checked_add(1));
            let after = end.saturating_add(u64::from(entry.entry_length.get()));
            if (head.is_some() && expected != Some(entry.sequence_number.get()))
                || after.saturating_sub(start) > self.length
            {
                break;
            }
            entries.push(position);
            head = Some(entry);
            end = after;
        }
        let sequence = head.and_then(|head| {
            let tail = u64::from(head.tail.get());
            let first = entries.iter().position(|position| *position == tail)?;
            Some(Sequence {
                entries: entries.split_off(first),
                head,
            })
        });
        Ok((sequence, end))
    }

    /// The header of the entry at `position`, if it and all that belongs to it is valid.
    fn entry_at(&mut self, position: u64) -> Result<Option<EntryHeader>, Exhausted> {
        let Some(header) = self.header_at(position) else {
            return Ok(None);
        };
        let length = u64::from(header.entry_length.get());
        if header.signature != ENTRY_SIGNATURE
            || header.log_guid != self.guid
            || length == 0
            || !length.is_multiple_of(SECTOR_LENGTH)
            || length > self.length
            || header.sequence_number.get() == 0
        {
            return Ok(None);
        }
        self.budget = self.budget.checked_sub(length).ok_or(Exhausted)?;
        let bytes = self.slice(position, length);
        let sealed = checksum(bytes, CHECKSUM_OFFSET) == header.checksum.get();
        let whole = sealed && descriptors(&header, bytes).is_some_and(|found| found.all_valid());
        Ok(whole.then_some(header))
    }

    /// Adds the changes of the valid entry at `position`; none if one leaves the address space.
    fn collect(&self, position: u64, overlay: &mut Overlay) -> Option<()> {
        let header = self.header_at(position)?;
        let bytes = self.slice(position, u64::from(header.entry_length.get()));
        let found = descriptors(&header, bytes)?;
        let mut sectors = found.sectors.iter();
        for descriptor in found.descriptors {
            let offset = descriptor.file_offset.get();
            if descriptor.signature == ZERO_SIGNATURE {
                overlay.put_zeros(offset, descriptor.leading_or_length.get())?;
                continue;
            }
            let mut page = Vec::with_capacity(PAGE_LENGTH);
            page.extend_from_slice(&descriptor.leading_or_length.get().to_le_bytes());
            page.extend_from_slice(&sectors.next()?.data);
            page.extend_from_slice(&descriptor.trailing_bytes);
            overlay.put_page(offset, page.into_boxed_slice().try_into().ok()?)?;
        }
        Some(())
    }

    fn header_at(&self, position: u64) -> Option<EntryHeader> {
        let bytes = self.bytes.get(buffer_index(position)..)?;
        let (header, _) = EntryHeader::read_from_prefix(bytes).ok()?;
        Some(header)
    }

    fn slice(&self, position: u64, length: u64) -> &[u8] {
        let start = buffer_index(position);
        self.bytes
            .get(start..start.saturating_add(buffer_index(length)))
            .unwrap_or(&[])
    }
}

/// The descriptors of an entry and its data sectors, in the same order.
struct Descriptors<'a> {
    sequence_number: u64,
    descriptors: &'a [Descriptor],
    sectors: &'a [DataSector],
}

/// Splits an entry into its parts; none if it has not room for what it claims.
fn descriptors<'a>(header: &EntryHeader, bytes: &'a [u8]) -> Option<Descriptors<'a>> {
    let count = u64::from(header.descriptor_count.get());
    let head_length =
        (ENTRY_HEADER_LENGTH + count * DESCRIPTOR_LENGTH).next_multiple_of(SECTOR_LENGTH);
    let (head, data) = bytes.split_at_checked(buffer_index(head_length))?;
    let head = head.get(buffer_index(ENTRY_HEADER_LENGTH)..)?;
    let (descriptors, _) =
        <[Descriptor]>::ref_from_prefix_with_elems(head, buffer_index(count)).ok()?;
    let sectors = <[DataSector]>::ref_from_bytes(data).ok()?;
    Some(Descriptors {
        sequence_number: header.sequence_number.get(),
        descriptors,
        sectors,
    })
}

impl Descriptors<'_> {
    fn all_valid(&self) -> bool {
        let with_data = self
            .descriptors
            .iter()
            .filter(|d| d.signature == DATA_SIGNATURE);
        self.descriptors.iter().all(|d| self.is_valid(d))
            && with_data.count() == self.sectors.len()
            && self.sectors.iter().all(|sector| {
                let high = u64::from(sector.sequence_high.get());
                let low = u64::from(sector.sequence_low.get());
                sector.signature == SECTOR_SIGNATURE && (high << 32 | low) == self.sequence_number
            })
    }

    fn is_valid(&self, descriptor: &Descriptor) -> bool {
        let aligned = |value: u64| value.is_multiple_of(SECTOR_LENGTH);
        let known = match descriptor.signature {
            DATA_SIGNATURE => true,
            ZERO_SIGNATURE => aligned(descriptor.leading_or_length.get()),
            _ => false,
        };
        known
            && aligned(descriptor.file_offset.get())
            && descriptor.sequence_number.get() == self.sequence_number
    }
}

/// 2.3.1.1
#[derive(Clone, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct EntryHeader {
    signature: [u8; 4],
    checksum: U32,
    entry_length: U32,
    tail: U32,
    sequence_number: U64,
    descriptor_count: U32,
    reserved: U32,
    log_guid: Guid,
    flushed_file_offset: U64,
    last_file_offset: U64,
}
const _: () = assert!(size_of::<EntryHeader>() == 64);

/// 2.3.1.2 and 2.3.1.3: a page of data or a range of zeros, by the signature.
#[derive(Clone, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Descriptor {
    signature: [u8; 4],
    trailing_bytes: [u8; 4],
    leading_or_length: U64,
    file_offset: U64,
    sequence_number: U64,
}
const _: () = assert!(size_of::<Descriptor>() == 32);

/// 2.3.1.4: a page without its first eight and last four bytes, which are in the descriptor.
#[derive(Clone, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct DataSector {
    signature: [u8; 4],
    sequence_high: U32,
    data: [u8; 4084],
    sequence_low: U32,
}
const _: () = assert!(size_of::<DataSector>() == PAGE_LENGTH);

/// Every writer known makes logs of 1 MiB.
const MAX_LOG_LENGTH: u64 = 16 << 20;
/// An honest log asks for about two bytes per byte: stale entries, and wrapped ones seen twice.
const CHECKSUM_BUDGET: u64 = 16;

const SECTOR_LENGTH: u64 = 4096;
const ENTRY_HEADER_LENGTH: u64 = 64;
const DESCRIPTOR_LENGTH: u64 = 32;
const ENTRY_SIGNATURE: [u8; 4] = *b"loge";
const DATA_SIGNATURE: [u8; 4] = *b"desc";
const ZERO_SIGNATURE: [u8; 4] = *b"zero";
const SECTOR_SIGNATURE: [u8; 4] = *b"data";

#[cfg(test)]
mod tests;
