//! Reads the partition table of a disk whose first and last sectors are the input.
//!
//! Oracle: reading never fails on a sound medium nor panics, and reads no more than the bounds of
//! the module allow; every partition lies on the disk or has a finding that says otherwise; gaps
//! are in order, on the disk, and share no byte with a partition or the primary header of a GPT;
//! every finding has a text.
//!
//! Input: one byte of flags (1: sectors of 4096 bytes, 2: make the GPT checksums right), the size
//! of the disk in sectors and the length of its head in bytes (both 16 bits, little-endian), the
//! head; what is left stands at the end of the disk.

#![no_main]

use ce_disk::block::{BlockRead, MemoryDisk};
use ce_disk::partition::{Finding, Gap, PartitionTable, Role, Scheme};
use ce_disk::units::{ByteCount, ByteOffset, SectorSize, SectorSizes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some(disk) = disk_of(input) else {
        return;
    };
    let table = PartitionTable::read(&disk).expect("the medium is sound");
    check_positions(&table, disk.size());
    for finding in &table.findings {
        assert!(!finding.to_string().is_empty());
        finding.severity();
    }
    let bound = 2 * MIB + PER_PARTITION * (table.partitions.len() as u64 + 1) + MIB;
    assert!(
        disk.read_counts().bytes <= bound,
        "{:?}",
        disk.read_counts()
    );
});

fn check_positions(table: &PartitionTable, size: ByteCount) {
    let disk_end = size.end();
    for partition in &table.partitions {
        let (number, end) = (partition.number, partition.end());
        assert!(partition.length.0 > 0);
        let finding = Finding::OutsideDisk {
            number,
            end,
            disk_end,
        };
        assert_eq!(end > disk_end, table.findings.contains(&finding));
        assert!(end <= disk_end || partition.content.is_none());
    }
    let primary_is_sound = !table.findings.iter().any(|finding| {
        matches!(
            finding,
            Finding::GptCopy {
                copy: "primary",
                ..
            }
        )
    });
    if table.scheme == Scheme::Gpt && primary_is_sound {
        let header = ByteOffset(table.sector_size.bytes());
        let holds_header =
            |gap: &&Gap| gap.start <= header && ByteOffset(gap.start.0 + gap.length.0) > header;
        assert_eq!(table.gaps.iter().find(holds_header), None);
    }
    let mut position = ByteOffset::ZERO;
    for gap in &table.gaps {
        assert!(gap.start >= position && gap.length.0 > 0);
        position = gap.start.checked_add(gap.length).expect("on the disk");
        assert!(table.partitions.iter().all(|partition| {
            partition.role == Role::Extended
                || partition.start >= position
                || partition.end() <= gap.start
        }));
    }
    assert!(position <= disk_end);
}

fn disk_of(input: &[u8]) -> Option<MemoryDisk> {
    let (&flags, input) = input.split_first()?;
    let (sectors, input) = input.split_first_chunk::<2>()?;
    let (head, input) = input.split_first_chunk::<2>()?;
    let sector = match flags & 1 {
        0 => SectorSize::B512,
        _ => SectorSize::B4096,
    };
    let size = u64::from(u16::from_le_bytes(*sectors).max(1)) * sector.bytes();
    let (head, tail) = input.split_at_checked(u16::from_le_bytes(*head).into())?;
    let mut disk = MemoryDisk::new(
        ByteCount(size),
        SectorSizes {
            logical: sector,
            physical: sector,
        },
    );
    let tail_at = size.checked_sub(tail.len() as u64)?;
    if head.len() as u64 > tail_at {
        return None;
    }
    disk.write(ByteOffset::ZERO, head);
    disk.write(ByteOffset(tail_at), tail);
    if flags & 2 != 0 {
        seal(&mut disk, 1);
        seal(&mut disk, size / sector.bytes() - 1);
    }
    Some(disk)
}

/// Corrects the two checksums of the header at `lba`, if its fields are such that it has any.
fn seal(disk: &mut MemoryDisk, lba: u64) -> Option<()> {
    let sector = disk.sectors().logical.bytes();
    let at = ByteOffset(lba * sector);
    let mut header = vec![0; sector as usize];
    disk.read_at(at, &mut header).ok()?;
    let u32_at = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| header[at + i]));
    let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| header[at + i]));
    let length = u64::from(u32_at(80)) * u64::from(u32_at(84));
    let covered = usize::try_from(u32_at(12)).ok()?;
    if !header.starts_with(b"EFI PART") || length > MIB || !(92..=header.len()).contains(&covered) {
        return None;
    }
    let mut entries = vec![0; length as usize];
    let start = u64_at(72).checked_mul(sector)?;
    disk.read_at(ByteOffset(start), &mut entries).ok()?;
    header[88..92].copy_from_slice(&crc32fast::hash(&entries).to_le_bytes());
    header[16..20].fill(0);
    let checksum = crc32fast::hash(&header[..covered]);
    header[16..20].copy_from_slice(&checksum.to_le_bytes());
    disk.write(at, &header);
    Some(())
}

/// Both arrays of entries at their largest, and as much again for all that is small.
const MIB: u64 = 1 << 20;
/// The start and the last sector of a partition.
const PER_PARTITION: u64 = 8192 + 8;
