//! FAT32, made: an EFI system partition.
//!
//! The `fatfs` crate lays it out, behind the same guard as for writing. What was there before is
//! hidden from whoever looks for it: the first MiB is zeroed before, and the last sectors, where NTFS
//! has its spare boot sector.

use fatfs::{FatType, FormatVolumeOptions};

use super::write::{FatWriteError, ask_raw};
use crate::block::{BlockRead, BlockWrite};
use crate::units::{ByteCount, ByteOffset, SectorSize};

/// What a volume is to be called, and by what it is told from others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FatLabel {
    /// The label: 11 characters of code page 437, with spaces behind.
    pub name: [u8; 11],
    /// The serial number.
    pub serial: u32,
}

/// The least that a volume of FAT32 has: with fewer clusters it would be FAT16 (Microsoft FAT
/// specification 1.03, 3.5), whatever it says.
pub fn fat_floor(sector: SectorSize) -> ByteCount {
    let table = ((FEWEST_CLUSTERS + 2) * 4).next_multiple_of(sector.bytes());
    ByteCount((FEWEST_CLUSTERS + RESERVED_SECTORS) * sector.bytes() + TABLES * table)
}

/// How large an EFI system partition has to be at least to hold `files`, with room for what Windows and
/// a prepare add to it.
pub fn efi_system_floor(files: ByteCount, sector: SectorSize) -> ByteCount {
    ByteCount(files.0.saturating_add(SPARE.0)).max(fat_floor(sector))
}

/// Makes an empty FAT32 of all of `disk`, and opens it to see that it is one.
///
/// # Errors
///
/// [`FatWriteError::Format`] when the disk is smaller than [`fat_floor`] or larger than the format
/// counts; the other ones when the disk fails.
pub fn format_fat<D: BlockRead + BlockWrite>(
    disk: &D,
    label: FatLabel,
) -> Result<(), FatWriteError> {
    let failed = |problem: String| FatWriteError::Format {
        volume: disk.name().to_owned(),
        problem,
    };
    let sector = disk.sectors().logical;
    let floor = fat_floor(sector);
    if disk.size() < floor {
        let size = disk.size();
        return Err(failed(format!("it has {size}, expected at least {floor}")));
    }
    wipe(disk)?;
    // Both are 512 or 4096.
    let sector_length = u16::try_from(sector.bytes()).unwrap_or(512);
    let options = FormatVolumeOptions::new()
        .fat_type(FatType::Fat32)
        .bytes_per_sector(sector_length)
        .bytes_per_cluster(cluster_length(disk.size(), sector))
        .volume_id(label.serial)
        .volume_label(label.name);
    ask_raw(disk, ByteCount(disk.size().0 / 16), |medium| {
        fatfs::format_volume(medium, options)
    })?
    .map_err(failed)?;
    super::write::count_free(disk)?.map_err(failed)
}

/// The largest cluster of which there are still as many as FAT32 has: the fewer, the faster.
fn cluster_length(size: ByteCount, sector: SectorSize) -> u32 {
    let mut length = sector.bytes();
    while length < LARGEST_CLUSTER && size.0 / (length * 2) >= FEWEST_CLUSTERS * 11 / 10 {
        length *= 2;
    }
    // At most 4096.
    u32::try_from(length).unwrap_or(512)
}

fn wipe<D: BlockWrite>(disk: &D) -> Result<(), FatWriteError> {
    let head = disk.size().0.min(1 << 20);
    disk.write_at(ByteOffset::ZERO, &vec![0; head as usize])?;
    let tail = disk.size().0.min(64 << 10);
    let start = ByteOffset(disk.size().0 - tail);
    disk.write_at(start, &vec![0; tail as usize])?;
    Ok(())
}

const FEWEST_CLUSTERS: u64 = 65_525;
const RESERVED_SECTORS: u64 = 8;
const TABLES: u64 = 2;
const LARGEST_CLUSTER: u64 = 4096;

/// The boot files of an update stand beside the old ones until they are whole, the largest of which has
/// some 3 MiB. Windows 10 makes partitions of 50 MiB to start from, and its boot files fill 35.
const SPARE: ByteCount = ByteCount::mib(8);

#[cfg(test)]
mod tests;
