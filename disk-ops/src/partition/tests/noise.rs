//! Whatever stands on the disk: no panic, and no partition off the disk without a word about it.

use proptest::prelude::*;

use super::build::{mbr_entry, seal};
use super::*;

/// What has to be true of every table.
fn check_promises(table: &PartitionTable, disk: &MemoryDisk) {
    let disk_end = disk.size().end();
    for partition in &table.partitions {
        assert!(partition.length.0 > 0);
        let number = partition.number;
        let end = partition.end();
        let finding = Finding::OutsideDisk {
            number,
            end,
            disk_end,
        };
        assert_eq!(
            end > disk_end,
            table.findings.contains(&finding),
            "{table:?}"
        );
    }
    let mut position = ByteOffset::ZERO;
    for gap in &table.gaps {
        assert!(gap.start >= position && gap.length.0 > 0, "{table:?}");
        position = gap.start.checked_add(gap.length).unwrap();
        let overlapping = table.partitions.iter().any(|partition| {
            partition.role != Role::Extended
                && partition.start < position
                && partition.end() > gap.start
        });
        assert!(!overlapping, "{table:?}");
    }
    assert!(position <= disk_end);
    for finding in &table.findings {
        assert!(!finding.to_string().is_empty());
    }
}

fn gpt_disk() -> Vec<u8> {
    GptImage::new(SectorSize::B512, 512)
        .with(entry(PartitionType::EFI_SYSTEM, 64, 127, "one"))
        .with(entry(PartitionType::MICROSOFT_BASIC_DATA, 128, 300, "two"))
        .bytes()
}

fn mbr_disk() -> Vec<u8> {
    let mut bytes = vec![0; 512 * 512];
    mbr_entry(&mut bytes, 0, 0x80, 0x07, 8, 56);
    mbr_entry(&mut bytes, 1, 0, 0x0F, 64, 400);
    mbr_entry(&mut bytes[64 * 512..], 0, 0, 0x83, 8, 50);
    mbr_entry(&mut bytes[64 * 512..], 1, 0, 0x05, 100, 60);
    mbr_entry(&mut bytes[164 * 512..], 0, 0, 0x83, 8, 50);
    bytes
}

/// Gives both headers right checksums, so that what was changed in them is believed.
fn reseal(bytes: &mut [u8]) {
    let backup = bytes.len() - 512;
    for (header, array) in [(512, 1024), (backup, backup - 32 * 512)] {
        let checksum = crc32fast::hash(&bytes[array..array + 16_384]);
        bytes[header + 88..header + 92].copy_from_slice(&checksum.to_le_bytes());
        seal(&mut bytes[header..header + 512]);
    }
}

/// Positions that mean something, far more often than chance would hit them.
fn position_in(length: usize) -> impl Strategy<Value = usize> {
    prop_oneof![
        440..512_usize,
        512..604_usize,
        1024..1280_usize,
        length - 512..length - 420,
        64 * 512 + 440..65 * 512_usize,
        0..length,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn changed_tables_keep_their_promises(
        is_gpt: bool,
        is_resealed: bool,
        changes in prop::collection::vec(
            (position_in(512 * 512), prop_oneof![Just(0), Just(0xFF), Just(0x05), any::<u8>()]),
            0..12,
        ),
    ) {
        let mut bytes = if is_gpt { gpt_disk() } else { mbr_disk() };
        for (position, value) in changes {
            bytes[position] = value;
        }
        if is_gpt && is_resealed {
            reseal(&mut bytes);
        }
        let disk = disk_of(&bytes, SectorSize::B512);
        check_promises(&PartitionTable::read(&disk).unwrap(), &disk);
    }

    #[test]
    fn noise_keeps_its_promises(
        mut bytes in prop::collection::vec(any::<u8>(), 4096..16_384),
        is_boot_record: bool,
        is_large: bool,
    ) {
        let sector = if is_large { SectorSize::B4096 } else { SectorSize::B512 };
        bytes.truncate(bytes.len() / 4096 * 4096);
        if is_boot_record {
            bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
            for index in 0..4 {
                bytes[446 + 16 * index] &= 0x80;
            }
        }
        let disk = disk_of(&bytes, sector);
        check_promises(&PartitionTable::read(&disk).unwrap(), &disk);
    }
}
