//! The GUID partition table, in both of its copies (UEFI 2.10, 5.3).
//!
//! ```text
//!  LBA 0      1        2 ..                                          last
//!  +-----+---------+---------+----- usable -----+---------+---------+
//!  | MBR | primary | entries |    partitions    | entries | backup  |
//!  +-----+---------+---------+------------------+---------+---------+
//!             |         ^                            ^         ^  |
//!             +---------+                            +-----------+
//!             +------------------ alternate --------------------+
//! ```
//!
//! Both copies are read and checked on their own; then they are compared. The primary one is
//! followed if it is sound, else the backup.
//!
//! Bounds: an array of entries larger than 1 MiB (8192 entries of 128 bytes; Windows makes 128) is
//! refused before it is read.

use std::collections::HashMap;
use std::ops::Range;

use uuid::Uuid;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::mbr::BootSector;
use super::{
    Attributes, CopyProblem, DiskId, Finding, Gap, Partition, PartitionTable, PartitionType, Role,
    Scheme, position,
};
use crate::block::{BlockError, BlockRead};
use crate::units::{ByteCount, ByteOffset, SectorSize};

mod grown;
mod write;

pub use grown::{MovedBackup, move_backup_to_end};
pub use write::{GptWriteError, MOST_PARTITIONS, NewGpt, NewPartition, usable_range};

/// The largest array of entries that is read, in bytes.
pub const MAX_ENTRIES_LENGTH: u64 = 1 << 20;

/// Where the primary header of `disk` should be.
pub(super) fn primary_position<D: BlockRead + ?Sized>(disk: &D) -> ByteOffset {
    ByteOffset(disk.sectors().logical.bytes())
}

/// Whether a primary header is there, sound or not.
pub(super) fn has_primary_signature<D: BlockRead + ?Sized>(disk: &D) -> Result<bool, BlockError> {
    let at = primary_position(disk);
    if at >= disk.size().end() {
        return Ok(false);
    }
    let mut signature = [0; 8];
    disk.read_at(at, &mut signature)?;
    Ok(&signature == SIGNATURE)
}

/// Reads the GPT of `disk`, whose first sector is `mbr` if it is a boot record at all.
pub(super) fn read<D: BlockRead + ?Sized>(
    disk: &D,
    mbr: Option<&BootSector>,
) -> Result<PartitionTable, BlockError> {
    let sector = disk.sectors().logical;
    let last_lba = disk.size().0 / sector.bytes() - 1;
    let mut table = PartitionTable::empty(Scheme::Gpt, disk);
    check_protective_mbr(mbr, last_lba, &mut table.findings);

    let primary = read_copy(disk, PRIMARY_LBA)?;
    let backup_lba = match &primary {
        Ok(primary) => expected_backup(primary, last_lba, sector, &mut table.findings),
        Err(_) => last_lba,
    };
    let backup = read_copy(disk, backup_lba)?;
    for (copy, lba, result) in [
        ("primary", PRIMARY_LBA, &primary),
        ("backup", backup_lba, &backup),
    ] {
        if let Err(problem) = result {
            table.findings.push(Finding::GptCopy {
                copy,
                // Both blocks were read, so that their positions are on the disk.
                at: ByteOffset(lba.saturating_mul(sector.bytes())),
                problem: problem.clone(),
            });
        }
    }
    let copies = [&primary, &backup].into_iter().flatten();
    let mut structures: Vec<_> = copies.flat_map(|copy| copy.structures(sector)).collect();
    structures.sort_by_key(|structure| structure.start);
    let followed = match (primary, backup) {
        (Ok(primary), Ok(backup)) => {
            compare(&primary, &backup, &mut table.findings);
            primary
        }
        (Ok(primary), Err(_)) => primary,
        (Err(_), Ok(backup)) => {
            table.findings.push(Finding::ReadFromBackup);
            backup
        }
        (Err(_), Err(_)) => {
            table.findings.push(Finding::NoUsableGpt);
            return Ok(table);
        }
    };
    followed.describe(disk.size(), sector, &structures, &mut table);
    Ok(table)
}

/// Where the backup of `primary` has to be looked for.
fn expected_backup(
    primary: &GptCopy,
    last_lba: u64,
    sector: SectorSize,
    findings: &mut Vec<Finding>,
) -> u64 {
    let lba = primary.header.alternate_lba.get();
    // Neither product can overflow: both blocks are on the disk.
    let end = ByteOffset(last_lba * sector.bytes());
    if lba > last_lba {
        findings.push(Finding::BackupOutsideDisk {
            lba,
            end: ByteOffset(end.0 + sector.bytes()),
        });
        last_lba
    } else if lba < last_lba {
        findings.push(Finding::BackupNotAtEnd {
            at: ByteOffset(lba * sector.bytes()),
            end,
        });
        // A primary copy that names itself as its backup has none there.
        if lba > PRIMARY_LBA { lba } else { last_lba }
    } else {
        lba
    }
}

fn check_protective_mbr(mbr: Option<&BootSector>, last_lba: u64, findings: &mut Vec<Finding>) {
    let protective = mbr.and_then(BootSector::protective_entry);
    let (Some(mbr), Some(protective)) = (mbr, protective) else {
        findings.push(Finding::NoProtectiveMbr);
        return;
    };
    let others = mbr.used_entries().count() - 1;
    if others > 0 {
        findings.push(Finding::HybridMbr { partitions: others });
    }
    let start = protective.start.get();
    let sectors = protective.sectors.get();
    let expected = u32::try_from(last_lba).unwrap_or(u32::MAX);
    // UEFI asks for the disk's size, many tools write the largest number instead. The entry of a
    // hybrid MBR is short by design.
    let is_usual = start == 1 && (sectors == expected || sectors == u32::MAX);
    if others == 0 && !is_usual {
        findings.push(Finding::ProtectiveRange {
            start,
            sectors,
            expected,
        });
    }
}

/// A copy whose header and entries match their checksums.
#[derive(Debug)]
struct GptCopy {
    header: Header,
    entries: Vec<u8>,
}

fn read_copy<D: BlockRead + ?Sized>(
    disk: &D,
    lba: u64,
) -> Result<Result<GptCopy, CopyProblem>, BlockError> {
    let sector = disk.sectors().logical;
    let Some(at) = position(lba, sector).filter(|at| *at < disk.size().end()) else {
        return Ok(Err(CopyProblem::Signature));
    };
    let mut block = [0; SectorSize::B4096.bytes() as usize];
    let block = &mut block[..sector.bytes() as usize];
    disk.read_at(at, block)?;
    let header = match parse_header(block, lba, disk.size(), sector) {
        Ok(header) => header,
        Err(problem) => return Ok(Err(problem)),
    };
    // Checked with the header: at most MAX_ENTRIES_LENGTH, and on the disk.
    let length = header.entry_count.get() as usize * header.entry_size.get() as usize;
    let mut entries = vec![0; length];
    let start = ByteOffset(header.entries_lba.get() * sector.bytes());
    disk.read_at(start, &mut entries)?;
    let found = crc32fast::hash(&entries);
    let expected = header.entries_checksum.get();
    if found != expected {
        return Ok(Err(CopyProblem::EntriesChecksum { found, expected }));
    }
    Ok(Ok(GptCopy { header, entries }))
}

/// Checks everything about the header in `block`, which stands at `lba`, that can be checked
/// without reading further.
fn parse_header(
    block: &[u8],
    lba: u64,
    disk_size: ByteCount,
    sector: SectorSize,
) -> Result<Header, CopyProblem> {
    let (header, _) =
        Header::read_from_prefix(block).map_err(|_too_short| CopyProblem::Signature)?;
    if &header.signature != SIGNATURE {
        return Err(CopyProblem::Signature);
    }
    let size = header.header_size.get();
    let covered = usize::try_from(size)
        .ok()
        .filter(|size| *size >= size_of::<Header>())
        .and_then(|size| block.get(..size))
        .ok_or(CopyProblem::HeaderSize {
            size,
            sector: sector.bytes(),
        })?;
    let expected = header.header_checksum.get();
    let found = header_checksum(covered);
    if found != expected {
        return Err(CopyProblem::HeaderChecksum { found, expected });
    }
    let revision = header.revision.get();
    if revision >> 16 != 1 {
        return Err(CopyProblem::Revision { found: revision });
    }
    let own_lba = header.own_lba.get();
    if own_lba != lba {
        return Err(CopyProblem::OwnPosition {
            found: own_lba,
            expected: lba,
        });
    }
    let (count, size) = (header.entry_count.get(), header.entry_size.get());
    let length = u64::from(count) * u64::from(size);
    let is_entry_size = size >= 128 && size.is_power_of_two();
    if !is_entry_size || length == 0 || length > MAX_ENTRIES_LENGTH {
        return Err(CopyProblem::EntriesShape { count, size });
    }
    let end = position(header.entries_lba.get(), sector)
        .and_then(|start| start.checked_add(ByteCount(length)));
    if end.is_none_or(|end| end > disk_size.end()) {
        return Err(CopyProblem::EntriesOutsideDisk {
            lba: header.entries_lba.get(),
            length,
        });
    }
    Ok(header)
}

/// The checksum of a header, in which the field of the checksum itself counts as zero.
fn header_checksum(header: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..16]);
    hasher.update(&[0; 4]);
    hasher.update(&header[20..]);
    hasher.finalize()
}

fn compare(primary: &GptCopy, backup: &GptCopy, findings: &mut Vec<Finding>) {
    let (one, other) = (&primary.header, &backup.header);
    let comparisons = [
        ("disk GUID", one.disk_guid != other.disk_guid),
        (
            "usable range",
            (one.first_usable, one.last_usable) != (other.first_usable, other.last_usable),
        ),
        (
            "position of the other copy",
            other.alternate_lba.get() != PRIMARY_LBA,
        ),
        ("partition entries", primary.entries != backup.entries),
    ];
    findings.extend(
        comparisons
            .into_iter()
            .filter(|(_, differ)| *differ)
            .map(|(field, _)| Finding::CopiesDisagree { field }),
    );
}

impl GptCopy {
    /// Where the header and the entries of this copy lie.
    fn structures(&self, sector: SectorSize) -> [Range<ByteOffset>; 2] {
        // Both were read, so that no position overflows.
        let start = |lba: U64| ByteOffset(lba.get() * sector.bytes());
        let range = |start: ByteOffset, length: u64| {
            let length = length.next_multiple_of(sector.bytes());
            start..ByteOffset(start.0 + length)
        };
        [
            range(start(self.header.own_lba), sector.bytes()),
            range(start(self.header.entries_lba), self.entries.len() as u64),
        ]
    }

    /// Adds what this copy says to `table`; `structures` are those of all sound copies,
    /// sorted by their start.
    fn describe(
        &self,
        disk_size: ByteCount,
        sector: SectorSize,
        structures: &[Range<ByteOffset>],
        table: &mut PartitionTable,
    ) {
        table.id = Some(DiskId::Guid(Uuid::from_bytes_le(self.header.disk_guid)));
        let usable = self.usable_range(disk_size, sector, &mut table.findings);
        let mut seen = HashMap::new();
        let size = self.header.entry_size.get() as usize;
        for (number, entry) in (1..).zip(self.entries.chunks_exact(size)) {
            let Ok((entry, _)) = Entry::ref_from_prefix(entry) else {
                continue; // not reached: an entry is at least 128 bytes long
            };
            if entry.type_guid == [0; 16] {
                continue;
            }
            let Some(partition) = entry.partition(number, sector) else {
                table.findings.push(Finding::SenselessEntry {
                    number,
                    first: entry.first_lba.get(),
                    last: entry.last_lba.get(),
                });
                continue;
            };
            if let Some(first) = seen.insert(entry.id, number) {
                let second = number;
                table.findings.push(Finding::DuplicateId { first, second });
            }
            let (usable_start, usable_end) = usable;
            if partition.start < usable_start || partition.end() > usable_end {
                table.findings.push(Finding::OutsideUsable {
                    number,
                    start: partition.start,
                    end: partition.end(),
                    usable_start,
                    usable_end,
                });
            }
            table.partitions.push(partition);
        }
        table.gaps.extend(without(usable.0..usable.1, structures));
        let held = structures
            .iter()
            .filter(|structure| structure.start < usable.1 && usable.0 < structure.end);
        let held = held.map(|structure| Finding::UsableHoldsTable {
            at: structure.start,
        });
        table.findings.extend(held);
    }

    /// The bytes that partitions may use, cut off at the end of the disk.
    fn usable_range(
        &self,
        disk_size: ByteCount,
        sector: SectorSize,
        findings: &mut Vec<Finding>,
    ) -> (ByteOffset, ByteOffset) {
        let (first, last) = (
            self.header.first_usable.get(),
            self.header.last_usable.get(),
        );
        let disk_end = disk_size.end();
        let start = position(first, sector);
        let end = last.checked_add(1).and_then(|end| position(end, sector));
        match (start, end) {
            (Some(start), Some(end)) if start <= end && end <= disk_end => (start, end),
            _ => {
                findings.push(Finding::UsableRange {
                    first,
                    last,
                    disk_end,
                });
                let start = start.unwrap_or(disk_end).min(disk_end);
                (start, end.unwrap_or(disk_end).min(disk_end).max(start))
            }
        }
    }
}

/// What is left of `range` without `structures`, which are sorted by their start.
fn without(range: Range<ByteOffset>, structures: &[Range<ByteOffset>]) -> Vec<Gap> {
    let behind = range.end..range.end;
    let mut left = Vec::new();
    let mut start = range.start;
    for structure in structures.iter().chain([&behind]) {
        let end = structure.start.min(range.end);
        let length = end.since(start).filter(|length| length.0 > 0);
        left.extend(length.map(|length| Gap { start, length }));
        start = start.max(structure.end);
    }
    left
}

impl Entry {
    /// The partition that this entry describes, if its range is one that a disk can have.
    fn partition(&self, number: u32, sector: SectorSize) -> Option<Partition> {
        let start = position(self.first_lba.get(), sector)?;
        let end = position(self.last_lba.get().checked_add(1)?, sector)?;
        let length = end.since(start).filter(|length| length.0 > 0)?;
        let name: Vec<u16> = self
            .name
            .iter()
            .map(|unit| unit.get())
            .take_while(|unit| *unit != 0)
            .collect();
        Some(Partition {
            number,
            start,
            length,
            kind: PartitionType::Gpt(Uuid::from_bytes_le(self.type_guid)),
            role: Role::Primary,
            id: Some(Uuid::from_bytes_le(self.id)),
            name: String::from_utf16_lossy(&name),
            attributes: Attributes::from_gpt(self.attributes.get()),
            content: None,
        })
    }
}

/// UEFI 2.10, table 5.5.
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    signature: [u8; 8],
    revision: U32,
    header_size: U32,
    header_checksum: U32,
    reserved: U32,
    own_lba: U64,
    alternate_lba: U64,
    first_usable: U64,
    last_usable: U64,
    disk_guid: [u8; 16],
    entries_lba: U64,
    entry_count: U32,
    entry_size: U32,
    entries_checksum: U32,
}

const _: () = assert!(size_of::<Header>() == 92);

/// UEFI 2.10, table 5.6.
#[derive(Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Entry {
    type_guid: [u8; 16],
    id: [u8; 16],
    first_lba: U64,
    last_lba: U64,
    attributes: U64,
    name: [U16; 36],
}

const _: () = assert!(size_of::<Entry>() == 128);

const SIGNATURE: &[u8; 8] = b"EFI PART";
const PRIMARY_LBA: u64 = 1;
