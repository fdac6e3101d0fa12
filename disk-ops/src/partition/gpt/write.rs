//! A GPT, written: both copies, and the protective MBR in front.
//!
//! What is written is what [`PartitionTable::read`] reads without a finding, and that is checked by
//! reading it. Meant for an [`Overlay`](crate::block::Overlay): after an error the table is of no use,
//! and has to be dropped with it.

use std::ops::Range;

use uuid::Uuid;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

use super::super::{Partition, PartitionTable, PartitionType, Scheme};
use super::{Entry, Header, PRIMARY_LBA, SIGNATURE, header_checksum};
use crate::block::{BlockError, BlockWrite};
use crate::partition::Finding;
use crate::units::{ByteCount, ByteOffset, SectorSize};

/// A GPT as it is to be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NewGpt {
    /// The GUID of the disk.
    pub disk_guid: Uuid,
    /// The partitions in the order of the table; at most 128.
    pub partitions: Vec<NewPartition>,
}

/// A partition of a GPT as it is to be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NewPartition {
    /// What it is for: a type GUID.
    pub kind: Uuid,
    /// Its own GUID.
    pub id: Uuid,
    /// Its first byte: a whole number of sectors.
    pub start: ByteOffset,
    /// Its length: a whole number of sectors, not zero.
    pub length: ByteCount,
    /// The attributes: the bits of a GPT entry (UEFI 2.10, table 5.8).
    pub attributes: u64,
    /// Its name, of at most 36 units of UTF-16.
    pub name: String,
}

impl NewPartition {
    /// The first byte behind it.
    pub fn end(&self) -> ByteOffset {
        ByteOffset(self.start.0.saturating_add(self.length.0))
    }
}

/// Why a GPT was not written. The overlay that it went to has to be dropped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GptWriteError {
    /// The disk, or the overlay on it, could not be read or written.
    #[error("the disk failed")]
    Block(#[from] BlockError),
    /// The disk is too small for any partition.
    #[error("a disk of {size} has no room for both copies of a GPT and a partition")]
    DiskTooSmall {
        /// Its size.
        size: ByteCount,
    },
    /// The name of a partition does not fit into its entry.
    #[error("partition {number} has a name of {units} units of UTF-16, expected at most 36")]
    LongName {
        /// The partition, from 1.
        number: u32,
        /// How long its name is.
        units: usize,
    },
    /// Read back, the table is not what was written.
    #[error(
        "read back after writing, the GPT is not what was written{}",
        first(findings)
    )]
    NotAsWritten {
        /// What the reader found wrong with it.
        findings: Vec<Finding>,
    },
    /// A partition has a place that it cannot have.
    #[error(
        "partition {number} is to run from {start} to {end}, expected whole sectors of {sector} \
         bytes from {usable_start} to {usable_end}, which no other partition has"
    )]
    Place {
        /// The partition, from 1.
        number: u32,
        /// Its start.
        start: ByteOffset,
        /// Its end.
        end: ByteOffset,
        /// The length of a sector in bytes.
        sector: u64,
        /// Where partitions may begin.
        usable_start: ByteOffset,
        /// Where they have to have ended.
        usable_end: ByteOffset,
    },
    /// There are more partitions than entries.
    #[error("{found} partitions, expected at most 128")]
    TooManyPartitions {
        /// How many there are.
        found: usize,
    },
}

/// The bytes of a disk of this size that partitions can have when its GPT has 128 entries; `None` if
/// there are none.
pub fn usable_range(size: ByteCount, sector: SectorSize) -> Option<Range<ByteOffset>> {
    let array = ENTRIES_LENGTH.next_multiple_of(sector.bytes());
    let whole = size.0 / sector.bytes() * sector.bytes();
    let start = 2 * sector.bytes() + array;
    let end = whole.checked_sub(sector.bytes() + array)?;
    (start < end).then_some(ByteOffset(start)..ByteOffset(end))
}

impl NewGpt {
    /// Writes both copies and the protective MBR to `disk`, and reads them back.
    ///
    /// What else is in the first sector goes: the boot code of a BIOS, and the disk's signature.
    ///
    /// # Errors
    ///
    /// [`GptWriteError`]; nothing has been written if it is none of `Block` and `NotAsWritten`.
    pub fn write<D: BlockWrite + ?Sized>(&self, disk: &D) -> Result<(), GptWriteError> {
        for (offset, bytes) in self.structures(disk.size(), disk.sectors().logical)? {
            disk.write_at(offset, &bytes)?;
        }
        let table = PartitionTable::read(disk)?;
        let is_so = table.scheme == Scheme::Gpt
            && table.findings.iter().all(is_about_content)
            && table.partitions.len() == self.partitions.len()
            && table
                .partitions
                .iter()
                .zip(&self.partitions)
                .all(|(found, written)| written.is(found));
        match is_so {
            true => Ok(()),
            false => Err(GptWriteError::NotAsWritten {
                findings: table.findings,
            }),
        }
    }

    /// Everything that has to be written, and where.
    fn structures(
        &self,
        size: ByteCount,
        sector: SectorSize,
    ) -> Result<Vec<(ByteOffset, Vec<u8>)>, GptWriteError> {
        let usable = usable_range(size, sector).ok_or(GptWriteError::DiskTooSmall { size })?;
        self.check(&usable, sector)?;
        let bytes = sector.bytes();
        let last_lba = size.0 / bytes - 1;
        let (first_usable, end_usable) = (usable.start.0 / bytes, usable.end.0 / bytes);
        let mut entries = Vec::new();
        for partition in &self.partitions {
            entries.extend(partition.entry(bytes).as_bytes());
        }
        entries.resize(ENTRIES_LENGTH as usize, 0);
        let header = |own_lba: u64, alternate_lba: u64, entries_lba: u64| {
            let mut header = Header {
                signature: *SIGNATURE,
                revision: REVISION,
                header_size: HEADER_LENGTH,
                header_checksum: U32::ZERO,
                reserved: U32::ZERO,
                own_lba: own_lba.into(),
                alternate_lba: alternate_lba.into(),
                first_usable: first_usable.into(),
                last_usable: (end_usable - 1).into(),
                disk_guid: self.disk_guid.to_bytes_le(),
                entries_lba: entries_lba.into(),
                entry_count: ENTRY_COUNT,
                entry_size: ENTRY_LENGTH,
                entries_checksum: crc32fast::hash(&entries).into(),
            };
            header.header_checksum = header_checksum(header.as_bytes()).into();
            in_sectors(header.as_bytes(), bytes)
        };
        let entries_lba = PRIMARY_LBA + 1;
        Ok(vec![
            (ByteOffset::ZERO, protective_mbr(last_lba, bytes)),
            (
                ByteOffset(PRIMARY_LBA * bytes),
                header(PRIMARY_LBA, last_lba, entries_lba),
            ),
            (ByteOffset(entries_lba * bytes), in_sectors(&entries, bytes)),
            (usable.end, in_sectors(&entries, bytes)),
            (
                ByteOffset(last_lba * bytes),
                header(last_lba, PRIMARY_LBA, end_usable),
            ),
        ])
    }

    fn check(&self, usable: &Range<ByteOffset>, sector: SectorSize) -> Result<(), GptWriteError> {
        let found = self.partitions.len();
        if found > MOST_PARTITIONS {
            return Err(GptWriteError::TooManyPartitions { found });
        }
        let mut sorted: Vec<_> = (1..).zip(&self.partitions).collect();
        sorted.sort_by_key(|(_, partition)| partition.start);
        let mut free_from = usable.start;
        for (number, partition) in sorted {
            let units = partition.name.encode_utf16().count();
            if units > NAME_UNITS {
                return Err(GptWriteError::LongName { number, units });
            }
            let is_whole = |position: u64| position.is_multiple_of(sector.bytes());
            let end = partition.end();
            let fits = partition.length.0 > 0
                && is_whole(partition.start.0)
                && is_whole(partition.length.0)
                && free_from <= partition.start
                && end <= usable.end;
            if !fits {
                return Err(GptWriteError::Place {
                    number,
                    start: partition.start,
                    end,
                    sector: sector.bytes(),
                    usable_start: usable.start,
                    usable_end: usable.end,
                });
            }
            free_from = end;
        }
        Ok(())
    }
}

impl NewPartition {
    /// The entry; the partition is one of whole sectors.
    fn entry(&self, sector: u64) -> Entry {
        let mut name = [U16::ZERO; NAME_UNITS];
        for (place, unit) in name.iter_mut().zip(self.name.encode_utf16()) {
            *place = unit.into();
        }
        Entry {
            type_guid: self.kind.to_bytes_le(),
            id: self.id.to_bytes_le(),
            first_lba: U64::new(self.start.0 / sector),
            last_lba: U64::new(self.end().0 / sector - 1),
            attributes: self.attributes.into(),
            name,
        }
    }

    /// Whether `found` is this partition.
    fn is(&self, found: &Partition) -> bool {
        found.kind == PartitionType::Gpt(self.kind)
            && found.id == Some(self.id)
            && (found.start, found.length) == (self.start, self.length)
            && found.attributes == super::Attributes::from_gpt(self.attributes)
            && found.name == self.name
    }
}

/// The first sector: one entry that covers the disk (UEFI 2.10, 5.2.3).
pub(super) fn protective_mbr(last_lba: u64, sector: u64) -> Vec<u8> {
    let mut block = vec![0; 512];
    // From cylinder 0, head 0, sector 2 to where these cannot count any further.
    block[446..454].copy_from_slice(&[0, 0x00, 0x02, 0x00, 0xEE, 0xFF, 0xFF, 0xFF]);
    block[454..458].copy_from_slice(&1_u32.to_le_bytes());
    let covered = u32::try_from(last_lba).unwrap_or(u32::MAX);
    block[458..462].copy_from_slice(&covered.to_le_bytes());
    block[510..].copy_from_slice(&[0x55, 0xAA]);
    in_sectors(&block, sector)
}

fn in_sectors(bytes: &[u8], sector: u64) -> Vec<u8> {
    let mut whole = bytes.to_vec();
    // Sectors have at most 4 KiB.
    whole.resize(bytes.len().next_multiple_of(sector as usize), 0);
    whole
}

/// A volume that does not fit into its partition was so before.
fn is_about_content(finding: &Finding) -> bool {
    matches!(finding, Finding::VolumeTooLarge { .. })
}

fn first(findings: &[Finding]) -> String {
    let first = findings.first();
    first.map_or(String::new(), |finding| format!(": {finding}"))
}

/// How many partitions a GPT has that is made here: as many as with Windows and every other tool.
pub const MOST_PARTITIONS: usize = 128;
const ENTRY_COUNT: U32 = U32::new(MOST_PARTITIONS as u32);
const ENTRY_LENGTH: U32 = U32::new(128);
const ENTRIES_LENGTH: u64 = 128 * 128;
const NAME_UNITS: usize = 36;
const REVISION: U32 = U32::new(0x0001_0000);
const HEADER_LENGTH: U32 = U32::new(92);
