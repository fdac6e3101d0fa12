//! The master boot record, with the chain of logical partitions.
//!
//! ```text
//!  sector 0       extended partition (type 05, 0F or 85)
//!  +-----+-------+--------------------------------------------+
//!  | MBR | p1 .. | EBR | logical 5 |   | EBR | logical 6 |     |
//!  +-----+-------+--^--+-----------+---+--^--+-----------+-----+
//!     |             |  |                  |
//!     +-------------+  +------------------+ relative to the extended partition;
//!                        the logical partition is relative to its own EBR
//! ```
//!
//! Bounds: at most [`MAX_LOGICAL`] logical partitions are read, no boot record twice, and none
//! outside of the extended partition. A second extended partition is not followed.

use std::collections::HashSet;

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::content::ContentKind;
use super::{
    Attributes, DiskId, Finding, Gap, Partition, PartitionTable, PartitionType, Role, Scheme,
    position,
};
use crate::block::{BlockError, BlockRead};
use crate::units::{ByteCount, ByteOffset, SectorSize};

/// The largest number of logical partitions that is read; Windows and Linux stop far earlier.
pub const MAX_LOGICAL: usize = 256;

/// The first 512 bytes of a disk, or of a logical partition, if they end in 55 AA.
#[derive(Clone, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct BootSector {
    boot_code: [u8; 440],
    signature: U32,
    reserved: [u8; 2],
    entries: [Entry; 4],
    end_mark: [u8; 2],
}

const _: () = assert!(size_of::<BootSector>() == 512);

/// One of the four entries.
#[derive(Clone, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Entry {
    flags: u8,
    first_chs: [u8; 3],
    kind: u8,
    last_chs: [u8; 3],
    pub(super) start: U32,
    pub(super) sectors: U32,
}

impl BootSector {
    /// The boot record in the first sector of `disk`, if there is one.
    pub(super) fn read<D: BlockRead + ?Sized>(disk: &D) -> Result<Option<Self>, BlockError> {
        Self::read_at(disk, ByteOffset::ZERO)
    }

    fn read_at<D: BlockRead + ?Sized>(
        disk: &D,
        at: ByteOffset,
    ) -> Result<Option<Self>, BlockError> {
        let mut bytes = [0; size_of::<Self>()];
        disk.read_at(at, &mut bytes)?;
        let record: Self = zerocopy::transmute!(bytes);
        Ok((record.end_mark == [0x55, 0xAA]).then_some(record))
    }

    /// The entries that describe something, with their numbers from 1.
    pub(super) fn used_entries(&self) -> impl Iterator<Item = (u32, &Entry)> {
        (1..)
            .zip(&self.entries)
            .filter(|(_, entry)| entry.kind != 0 && entry.sectors.get() != 0)
    }

    /// The entry that keeps old tools away from a GPT.
    pub(super) fn protective_entry(&self) -> Option<&Entry> {
        self.used_entries()
            .map(|(_, entry)| entry)
            .find(|entry| entry.kind == 0xEE)
    }

    pub(super) fn is_protective(&self) -> bool {
        self.protective_entry().is_some()
    }

    /// Whether all four entries are free.
    pub(super) fn is_blank(&self) -> bool {
        self.entries
            .iter()
            .all(|entry| entry.kind == 0 && entry.flags == 0 && entry.sectors.get() == 0)
    }

    /// Whether the entries are partitions, and not boot code that happens to stand there.
    ///
    /// The boot sector of a volume ends in 55 AA as well. As Linux does, an entry is believed when
    /// its flag is one of the two that exist; and no volume of Windows but FAT is believed to have
    /// left its own signature in front of a table.
    pub(super) fn is_partitioned<D: BlockRead + ?Sized>(
        &self,
        disk: &D,
        volume: Option<&ContentKind>,
    ) -> bool {
        let last = disk.size().0 / disk.sectors().logical.bytes();
        let starts_on_disk = |entry: &Entry| (1..last).contains(&entry.start.get().into());
        let is_volume = matches!(
            volume,
            Some(
                ContentKind::BitLocker
                    | ContentKind::ExFat { .. }
                    | ContentKind::Ntfs { .. }
                    | ContentKind::ReFs
            )
        );
        !is_volume
            && self
                .entries
                .iter()
                .all(|entry| matches!(entry.flags, 0 | 0x80))
            && self.used_entries().any(|(_, entry)| starts_on_disk(entry))
    }
}

impl Entry {
    /// The partition that this entry describes when positions count from `base`.
    fn partition(
        &self,
        number: u32,
        role: Role,
        base: u64,
        sector: SectorSize,
    ) -> Option<Partition> {
        let start = position(base.checked_add(self.start.get().into())?, sector)?;
        let length = ByteCount(u64::from(self.sectors.get()) * sector.bytes());
        start.checked_add(length)?;
        Some(Partition {
            number,
            start,
            length,
            kind: PartitionType::Mbr(self.kind),
            role,
            id: None,
            name: String::new(),
            attributes: Attributes {
                active: self.flags == 0x80,
                ..Attributes::default()
            },
            content: None,
        })
    }
}

/// Describes the MBR disk whose first sector is `record`.
pub(super) fn read<D: BlockRead + ?Sized>(
    disk: &D,
    record: &BootSector,
) -> Result<PartitionTable, BlockError> {
    let sector = disk.sectors().logical;
    let mut table = PartitionTable::empty(Scheme::Mbr, disk);
    table.id = Some(DiskId::Signature(record.signature.get()));
    let usable_start = ByteOffset(sector.bytes());
    let usable_end = disk.size().end();
    let usable = usable_end.since(usable_start).filter(|length| length.0 > 0);
    table.gaps.extend(usable.map(|length| Gap {
        start: usable_start,
        length,
    }));

    let mut extended = None;
    for (number, entry) in record.used_entries() {
        let is_extended = PartitionType::Mbr(entry.kind).is_extended();
        let role = match is_extended {
            true => Role::Extended,
            false => Role::Primary,
        };
        // Two numbers of 32 bits in sectors of at most 4 KiB: always a range.
        let Some(partition) = entry.partition(number, role, 0, sector) else {
            continue;
        };
        if partition.start < usable_start {
            table.findings.push(Finding::OutsideUsable {
                number,
                start: partition.start,
                end: partition.end(),
                usable_start,
                usable_end,
            });
        }
        match (is_extended, &extended) {
            (true, None) => extended = Some(partition.clone()),
            (true, Some(_)) => table.findings.push(Finding::SecondExtended { number }),
            (false, _) => {}
        }
        table.partitions.push(partition);
    }
    if let Some(extended) = extended {
        read_chain(disk, &extended, &mut table)?;
    }
    Ok(table)
}

/// Adds the logical partitions of `extended` to `table`.
fn read_chain<D: BlockRead + ?Sized>(
    disk: &D,
    extended: &Partition,
    table: &mut PartitionTable,
) -> Result<(), BlockError> {
    let sector = disk.sectors().logical;
    let container = extended.start.0 / sector.bytes();
    let end = extended.end().min(disk.size().end()).0 / sector.bytes();
    let mut visited = HashSet::new();
    let mut next = Some(container);
    while let Some(lba) = next {
        if !(container..end).contains(&lba) {
            table.findings.push(Finding::ExtendedOutside { lba });
            break;
        }
        // Inside the disk: the product is a position on it.
        let at = ByteOffset(lba * sector.bytes());
        if !visited.insert(lba) {
            table.findings.push(Finding::ExtendedLoop { at });
            break;
        }
        if visited.len() > MAX_LOGICAL {
            let limit = MAX_LOGICAL;
            table.findings.push(Finding::ExtendedTooLong { limit });
            break;
        }
        let Some(record) = BootSector::read_at(disk, at)? else {
            table.findings.push(Finding::ExtendedSignature { at });
            break;
        };
        next = None;
        for (_, entry) in record.used_entries() {
            if PartitionType::Mbr(entry.kind).is_extended() {
                // The first link counts; the sum of a position on the disk and 32 bits is small.
                next = next.or(Some(container + u64::from(entry.start.get())));
                continue;
            }
            let taken = table.partitions.iter().map(|partition| partition.number);
            let number = taken.max().unwrap_or(0).max(4) + 1;
            let Some(logical) = entry.partition(number, Role::Logical, lba, sector) else {
                continue; // not reached, as for the primary ones
            };
            if logical.start <= at || logical.end() > extended.end() {
                table
                    .findings
                    .push(Finding::LogicalOutsideExtended { number });
            }
            table.partitions.push(logical);
        }
    }
    Ok(())
}

/// Notes what shows that the disk belongs to the Logical Disk Manager.
pub(super) fn check_dynamic<D: BlockRead + ?Sized>(
    disk: &D,
    table: &mut PartitionTable,
) -> Result<(), BlockError> {
    let typed = table
        .partitions
        .iter()
        .find(|partition| partition.kind.is_dynamic())
        .map(|partition| {
            format!(
                "partition {} has the type \"{}\"",
                partition.number, partition.kind
            )
        });
    let evidence = match typed {
        None if table.scheme == Scheme::Mbr => private_header(disk)?,
        other => other,
    };
    table
        .findings
        .extend(evidence.map(|evidence| Finding::DynamicDisk { evidence }));
    Ok(())
}

/// The head of the LDM database, which an MBR disk has in its seventh sector.
fn private_header<D: BlockRead + ?Sized>(disk: &D) -> Result<Option<String>, BlockError> {
    let at = ByteOffset(6 * disk.sectors().logical.bytes());
    if at >= disk.size().end() {
        return Ok(None);
    }
    let mut mark = [0; 8];
    disk.read_at(at, &mut mark)?;
    Ok((mark == *b"PRIVHEAD").then(|| format!("there is a private header at {at}")))
}
