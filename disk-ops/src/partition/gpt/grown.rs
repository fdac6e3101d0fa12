//! The backup of a GPT, moved to where it belongs when the disk has grown.
//!
//! ```text
//!  | MBR | primary | entries |  partitions  | entries | backup |      new room      |
//!                                               erased              | entries | backup |
//! ```
//!
//! Clouds round sizes up and leave the backup where it was. Windows then does not see the new room,
//! and some firmware says that the table is damaged.

use zerocopy::{FromBytes, IntoBytes};

use super::super::mbr::BootSector;
use super::{GptCopy, GptWriteError, Header, PRIMARY_LBA, header_checksum, read_copy};
use crate::block::BlockWrite;
use crate::partition::{Finding, PartitionTable};
use crate::units::ByteOffset;

/// What was moved.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MovedBackup {
    /// Where the header of the backup was.
    pub from: ByteOffset,
    /// Where it is.
    pub to: ByteOffset,
}

/// Moves the backup of the GPT of `disk` to its end, and lets the table count the room before it as
/// usable. `None`, and nothing is written, when there is nothing to move: no GPT whose primary copy is
/// sound and whose backup is said to be inside of the disk, or a partition where the backup would go.
///
/// # Errors
///
/// [`GptWriteError::Block`], and [`GptWriteError::NotAsWritten`] when the table read back is not the
/// one that was there.
pub fn move_backup_to_end<D: BlockWrite + ?Sized>(
    disk: &D,
) -> Result<Option<MovedBackup>, GptWriteError> {
    let table = PartitionTable::read(disk)?;
    let is_meant = |finding: &Finding| matches!(finding, Finding::BackupNotAtEnd { .. });
    if !table.findings.iter().any(is_meant) {
        return Ok(None);
    }
    let Ok(primary) = read_copy(disk, PRIMARY_LBA)? else {
        return Ok(None);
    };
    let sector = disk.sectors().logical.bytes();
    let last_lba = disk.size().0 / sector - 1;
    let array_sectors = (primary.entries.len() as u64).div_ceil(sector);
    // A table that is read has at most 1 MiB of entries; the disk may still be smaller than two of them.
    let Some(array_lba) = last_lba.checked_sub(array_sectors) else {
        return Ok(None);
    };
    let new_start = ByteOffset(array_lba * sector);
    let old_lba = primary.header.alternate_lba.get();
    let is_in_use = |start: ByteOffset, end: ByteOffset| {
        let mut partitions = table.partitions.iter();
        partitions.any(|partition| partition.start < end && start < partition.end())
    };
    let own_entries = primary.header.entries_lba.get() + array_sectors;
    if is_in_use(new_start, disk.size().end()) || array_lba <= old_lba.max(own_entries) {
        return Ok(None);
    }
    if let Ok(old) = read_copy(disk, old_lba)? {
        erase(disk, &old, &is_in_use)?;
    }
    let mut entries = primary.entries.clone();
    entries.resize((array_sectors * sector) as usize, 0);
    disk.write_at(new_start, &entries)?;
    write_header(disk, &primary, last_lba, PRIMARY_LBA, array_lba)?;
    let entries_lba = primary.header.entries_lba.get();
    write_header(disk, &primary, PRIMARY_LBA, last_lba, entries_lba)?;
    cover_disk(disk, last_lba)?;

    let after = PartitionTable::read(disk)?;
    let is_so = after.partitions == table.partitions
        && after.id == table.id
        && after
            .findings
            .iter()
            .all(|finding| table.findings.contains(finding) && !is_meant(finding));
    match is_so {
        true => Ok(Some(MovedBackup {
            from: ByteOffset(old_lba * sector),
            to: ByteOffset(last_lba * sector),
        })),
        false => Err(GptWriteError::NotAsWritten {
            findings: after.findings,
        }),
    }
}

/// Zeros a backup, so that nobody finds it, unless a partition has its place.
fn erase<D: BlockWrite + ?Sized>(
    disk: &D,
    old: &GptCopy,
    is_in_use: &dyn Fn(ByteOffset, ByteOffset) -> bool,
) -> Result<(), GptWriteError> {
    for range in old.structures(disk.sectors().logical) {
        // The header is one sector, and what holds entries was read: both lie on the disk.
        let length = range.end.since(range.start).unwrap_or_default();
        if !is_in_use(range.start, range.end) && range.end <= disk.size().end() {
            // At most 1 MiB.
            disk.write_at(range.start, &vec![0; length.0 as usize])?;
        }
    }
    Ok(())
}

/// Writes the header of a copy at `own_lba`, with what the primary one says of the disk.
fn write_header<D: BlockWrite + ?Sized>(
    disk: &D,
    primary: &GptCopy,
    own_lba: u64,
    alternate_lba: u64,
    entries_lba: u64,
) -> Result<(), GptWriteError> {
    let sector = disk.sectors().logical.bytes();
    let mut block = vec![0; sector as usize];
    // What the header has beyond the fields of this version stays.
    disk.read_at(ByteOffset(PRIMARY_LBA * sector), &mut block)?;
    let covered = primary.header.header_size.get() as usize;
    let array_sectors = (primary.entries.len() as u64).div_ceil(sector);
    let last_lba = own_lba.max(alternate_lba);
    let new = Header {
        own_lba: own_lba.into(),
        alternate_lba: alternate_lba.into(),
        entries_lba: entries_lba.into(),
        // Positive: the array lies in front of the last sector.
        last_usable: (last_lba - array_sectors - 1).into(),
        ..primary.header.clone()
    };
    block[..size_of::<Header>()].copy_from_slice(new.as_bytes());
    // `read_copy` has seen that the length is one that a header can have.
    let checksum = header_checksum(&block[..covered]);
    block[16..20].copy_from_slice(&checksum.to_le_bytes());
    disk.write_at(ByteOffset(own_lba * sector), &block)?;
    Ok(())
}

/// Lets the protective entry cover the disk, if it is the only one and counts sectors.
fn cover_disk<D: BlockWrite + ?Sized>(disk: &D, last_lba: u64) -> Result<(), GptWriteError> {
    let mut block = [0; 512];
    disk.read_at(ByteOffset::ZERO, &mut block)?;
    let Ok(record) = BootSector::read_from_bytes(&block) else {
        return Ok(()); // not reached: the record has 512 bytes
    };
    let (Some(entry), 1) = (record.protective_entry(), record.used_entries().count()) else {
        return Ok(());
    };
    let covered = u32::try_from(last_lba).unwrap_or(u32::MAX);
    if entry.sectors.get() == u32::MAX || entry.start.get() != 1 {
        return Ok(());
    }
    let number = record.used_entries().map(|(number, _)| number).next();
    let at = 446 + 16 * (number.unwrap_or(1) as usize - 1) + 12;
    block[at..at + 4].copy_from_slice(&covered.to_le_bytes());
    // The record is followed by nothing that is known; a sector of 4 KiB keeps it.
    disk.write_at(ByteOffset::ZERO, &block)?;
    Ok(())
}
