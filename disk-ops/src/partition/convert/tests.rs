//! MBR disks that are converted, and those that are refused, with the numbers.

use std::os::unix::fs::FileExt;
use std::process::Command;

use proptest::prelude::*;
use tempfile::NamedTempFile;

use super::super::tests::build::{mbr_entry, seal};
use super::super::tests::second_opinion::run;
use super::*;
use crate::block::{BlockRead, BlockWrite, MemoryDisk};
use crate::partition::gpt::move_backup_to_end;
use crate::partition::{Attributes, DiskId};
use crate::units::{SectorSize, SectorSizes};

/// An entry of an MBR: flags, type, first sector, number of sectors.
type MbrEntry = (u8, u8, u32, u32);

fn mbr(sectors: u64, entries: &[MbrEntry]) -> MemoryDisk {
    mbr_of(sectors * 512, SectorSize::B512, entries)
}

fn mbr_of(size: u64, sector: SectorSize, entries: &[MbrEntry]) -> MemoryDisk {
    let sectors = SectorSizes {
        logical: sector,
        physical: sector,
    };
    let disk = MemoryDisk::new(ByteCount(size), sectors);
    put_record(&disk, 0, entries);
    disk
}

/// Writes a boot record with these entries to a sector of 512 bytes.
fn put_record(disk: &MemoryDisk, sector: u64, entries: &[MbrEntry]) {
    let mut record = [0; 512];
    for (index, (flags, kind, start, length)) in entries.iter().enumerate() {
        mbr_entry(&mut record, index, *flags, *kind, *start, *length);
    }
    disk.write_at(ByteOffset(sector * 512), &record).unwrap();
}

/// 100 MiB that a BIOS starts from, Windows, and a recovery partition; 1 MiB is left at the end.
const USUAL: [MbrEntry; 3] = [
    (0x80, 0x07, 2048, 100 * 2048),
    (0, 0x07, 101 * 2048, 140 * 2048),
    (0, 0x27, 241 * 2048, 14 * 2048),
];

fn usual() -> MemoryDisk {
    mbr(256 * 2048, &USUAL)
}

/// The usual one with another third partition.
fn usual_but(third: MbrEntry) -> MemoryDisk {
    mbr(256 * 2048, &[USUAL[0], USUAL[1], third])
}

fn facts() -> VolumeFacts {
    VolumeFacts {
        windows: 2,
        system: Some(SystemPartition {
            number: 1,
            keeps: None,
        }),
        efi_system: ByteCount::mib(60),
    }
}

/// GUIDs that count.
fn guids() -> impl FnMut() -> Uuid {
    let mut count = 0;
    move || {
        count += 1;
        Uuid::from_u128(0x1234_5678_9ABC_4DEF_8000_0000_0000_0000 + count)
    }
}

fn planned(disk: &MemoryDisk, facts: &VolumeFacts) -> Result<ConversionPlan, ConversionRefused> {
    let table = PartitionTable::read(disk).unwrap();
    plan(disk.size(), &table, facts, &mut guids())
}

fn refused(disk: &MemoryDisk, facts: &VolumeFacts) -> ConversionRefused {
    planned(disk, facts).unwrap_err()
}

/// The first and the last MiB, where tables are, and nothing between.
fn file_of(disk: &MemoryDisk) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(disk.size().0).unwrap();
    let mut bytes = vec![0; 1 << 20];
    for start in [0, disk.size().0 - bytes.len() as u64] {
        disk.read_at(ByteOffset(start), &mut bytes).unwrap();
        file.as_file().write_all_at(&bytes, start).unwrap();
    }
    file
}

/// `sgdisk --verify` says nothing wrong, with the exit code that it has for it.
fn verify(disk: &MemoryDisk) {
    let file = file_of(disk);
    let mut sgdisk = Command::new("sgdisk");
    run("gdisk", sgdisk.arg("--verify").arg(file.path()));
}

#[test]
fn the_partition_that_the_bios_starts_from_becomes_the_efi_system_partition() {
    let disk = usual();
    let plan = planned(&disk, &facts()).unwrap();
    plan.gpt.write(&disk).unwrap();
    verify(&disk);
    let table = PartitionTable::read(&disk).unwrap();
    assert_eq!(table.findings, []);
    assert_eq!(table.id, Some(DiskId::Guid(plan.gpt.disk_guid)));
    let found: Vec<_> = table
        .partitions
        .iter()
        .map(|p| (p.kind, p.start.0 >> 20, p.length.0 >> 20, p.name.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            (PartitionType::EFI_SYSTEM, 1, 100, "EFI system partition"),
            (
                PartitionType::MICROSOFT_BASIC_DATA,
                101,
                140,
                "Basic data partition"
            ),
            (
                PartitionType::WINDOWS_RECOVERY,
                241,
                14,
                "Basic data partition"
            ),
        ]
    );
    let recovery = Attributes {
        required: true,
        no_drive_letter: true,
        ..Attributes::default()
    };
    assert_eq!(table.partitions[2].attributes, recovery);
    assert_eq!(table.partitions[1].attributes, Attributes::default());
    let efi_system = plan.efi_system().unwrap();
    assert_eq!(efi_system.old_number, Some(1));
    let windows = plan.of_old(2).unwrap();
    assert_eq!(
        (windows.fate, Some(windows.id)),
        (Fate::Kept, table.partitions[1].id)
    );
}

#[test]
fn a_gap_is_taken_where_the_system_partition_cannot_be() {
    let disk_with = |windows_mib: u32| {
        let small = (0x80, 0x07, 2048, 40 * 2048);
        mbr(
            400 * 2048,
            &[small, (0, 0x07, 41 * 2048, windows_mib * 2048)],
        )
    };
    let gap = 241 << 20;
    let mut keeps = facts();
    keeps.system.as_mut().unwrap().keeps = Some("the recovery environment".into());
    let mut alone = facts();
    alone.system = None;
    for facts in [facts(), keeps, alone] {
        let disk = disk_with(200);
        let plan = planned(&disk, &facts).unwrap();
        plan.gpt.write(&disk).unwrap();
        verify(&disk);
        let efi_system = plan.efi_system().unwrap();
        assert_eq!(
            (efi_system.start.0, efi_system.length, efi_system.old_number),
            (gap, ByteCount::mib(100), None)
        );
        let reserved = plan.partitions.last().unwrap();
        assert_eq!(reserved.fate, Fate::Reserved);
        assert_eq!(reserved.start.0, gap + (100 << 20));
        // The old one stays, and gets no letter that it had not.
        let old = plan.of_old(1).unwrap();
        assert_eq!(old.fate, Fate::Kept);
        let has_letter = plan.gpt.partitions[0].attributes & kinds::NO_DRIVE_LETTER == 0;
        assert_eq!(has_letter, facts.system.is_none());
    }
    // A gap that is smaller than usual, but large enough.
    let plan = planned(&disk_with(288), &facts()).unwrap();
    assert_eq!(plan.efi_system().unwrap().length, ByteCount::mib(70));
    assert!(plan.partitions.iter().all(|p| p.fate != Fate::Reserved));
}

#[test]
fn a_disk_without_room_is_refused_with_the_numbers() {
    let mut large = facts();
    large.efi_system = ByteCount::mib(101);
    let error = refused(&usual(), &large);
    assert!(matches!(error, ConversionRefused::NoRoom { .. }), "{error}");
    for words in ["101.0 MiB", "partition 1", "100.0 MiB", "0 bytes"] {
        assert!(error.to_string().contains(words), "{error}");
    }
    // Up to the last sector, and from the second on.
    let disk = mbr(4096, &[(0x80, 0x07, 64, 4096 - 64)]);
    let mut alone = facts();
    (alone.windows, alone.system) = (1, None);
    let error = refused(&disk, &alone);
    assert!(
        error.to_string().contains("16896 bytes (16.5 KiB) too far"),
        "{error}"
    );
    let disk = mbr(4096, &[(0x80, 0x07, 33, 1000)]);
    let error = refused(&disk, &alone);
    assert!(
        matches!(error, ConversionRefused::NoRoomAtStart { number: 1, .. }),
        "{error}"
    );
    // One sector less at either end is enough.
    let disk = mbr(4096, &[(0x80, 0x07, 34, 4096 - 34 - 33)]);
    let error = refused(&disk, &alone);
    assert!(matches!(error, ConversionRefused::NoRoom { .. }), "{error}");
}

#[test]
fn what_is_not_known_for_sure_is_refused() {
    let gpt = usual();
    planned(&gpt, &facts()).unwrap().gpt.write(&gpt).unwrap();
    let error = planned(&gpt, &facts()).unwrap_err();
    assert_eq!(error, ConversionRefused::NotMbr { found: Scheme::Gpt });

    let error = refused(&usual_but((0, 0x27, 240 * 2048, 14 * 2048)), &facts());
    assert!(error.to_string().contains("overlap"), "{error}");

    let error = refused(&usual_but((0, 0x42, 241 * 2048, 14 * 2048)), &facts());
    assert!(error.to_string().contains("dynamic disk"), "{error}");

    let error = refused(&usual_but((0, 0xDE, 241 * 2048, 14 * 2048)), &facts());
    assert!(
        matches!(error, ConversionRefused::UnknownType { number: 3, .. }),
        "{error}"
    );

    let mut elsewhere = facts();
    elsewhere.windows = 4;
    let error = refused(&usual(), &elsewhere);
    assert_eq!(error, ConversionRefused::NoPartitionOfWindows);
}

#[test]
fn logical_partitions_become_partitions_like_the_others() {
    let disk = mbr(
        256 * 2048,
        &[
            (0x80, 0x07, 2048, 100 * 2048),
            (0, 0x07, 101 * 2048, 100 * 2048),
            (0, 0x0F, 201 * 2048, 50 * 2048),
        ],
    );
    let first = [(0, 0x07, 2048, 20 * 2048), (0, 0x05, 22 * 2048, 20 * 2048)];
    put_record(&disk, 201 * 2048, &first);
    put_record(&disk, 223 * 2048, &[(0, 0x83, 2048, 19 * 2048)]);
    let plan = planned(&disk, &facts()).unwrap();
    plan.gpt.write(&disk).unwrap();
    verify(&disk);
    let starts = plan.partitions.iter();
    let starts: Vec<_> = starts.map(|p| (p.old_number, p.start.0 >> 20)).collect();
    assert_eq!(
        starts,
        [(Some(1), 1), (Some(2), 101), (Some(5), 202), (Some(6), 224)]
    );
}

#[test]
fn more_partitions_than_a_gpt_holds_are_refused() {
    // In front of each logical partition, the sector that says so.
    let disk_with = |logical: u32| {
        let rest = (0, 0x0F, 201 * 2048, 54 * 2048);
        let disk = mbr(
            256 * 2048,
            &[USUAL[0], (0, 0x07, 101 * 2048, 100 * 2048), rest],
        );
        for number in 0..logical {
            let mut entries = vec![(0, 0x83, 1, 9)];
            if number + 1 < logical {
                entries.push((0, 0x05, (number + 1) * 10, 10));
            }
            put_record(&disk, u64::from(201 * 2048 + number * 10), &entries);
        }
        disk
    };
    planned(&disk_with(126), &facts()).unwrap();
    let error = refused(&disk_with(127), &facts());
    assert_eq!(error, ConversionRefused::TooManyPartitions { found: 129 });
}

#[test]
fn a_disk_with_sectors_of_4096_bytes_is_converted() {
    let entries = [
        (0x80, 0x07, 256, 300 * 256),
        (0, 0x07, 301 * 256, 200 * 256),
    ];
    let disk = mbr_of(512 << 20, SectorSize::B4096, &entries);
    let plan = planned(&disk, &facts()).unwrap();
    plan.gpt.write(&disk).unwrap();
    let table = PartitionTable::read(&disk).unwrap();
    assert_eq!(table.findings, []);
    assert_eq!(table.partitions[0].length, ByteCount::mib(300));
}

#[test]
fn the_backup_moves_to_the_end_of_a_disk_that_has_grown() {
    for sector in [SectorSize::B512, SectorSize::B4096] {
        let sectors = SectorSizes {
            logical: sector,
            physical: sector,
        };
        let small = MemoryDisk::new(ByteCount::mib(64), sectors);
        let gpt = NewGpt {
            disk_guid: Uuid::from_u128(7),
            partitions: vec![NewPartition {
                kind: kinds::EFI_SYSTEM.guid,
                id: Uuid::from_u128(8),
                start: ByteOffset(1 << 20),
                length: ByteCount::mib(62),
                attributes: 0,
                name: "Grüße".into(),
            }],
        };
        gpt.write(&small).unwrap();
        assert_eq!(move_backup_to_end(&small).unwrap(), None);
        let grown = grown_by(&small, 36 << 20);
        let before = PartitionTable::read(&grown).unwrap();
        let moved = move_backup_to_end(&grown).unwrap().unwrap();
        assert_eq!(moved.from.0, (64 << 20) - sector.bytes());
        assert_eq!(moved.to.0, (100 << 20) - sector.bytes());
        let after = PartitionTable::read(&grown).unwrap();
        assert_eq!(after.findings, []);
        assert_eq!(after.partitions, before.partitions);
        assert_eq!(after.gaps.last().unwrap().length.0 >> 20, 36);
        let mut old = [1; 512];
        grown.read_at(moved.from, &mut old).unwrap();
        assert_eq!(old, [0; 512]);
        assert_eq!(move_backup_to_end(&grown).unwrap(), None);
        if sector == SectorSize::B512 {
            verify(&grown);
        }
    }
}

#[test]
fn a_backup_is_not_moved_over_a_partition_or_for_a_broken_table() {
    let disk = usual();
    planned(&disk, &facts()).unwrap().gpt.write(&disk).unwrap();
    // Grown by less than a copy takes: the new one would lie over the old one.
    assert_eq!(move_backup_to_end(&grown_by(&disk, 512)).unwrap(), None);
    // Primary copy broken.
    let grown = grown_by(&disk, 40 << 20);
    grown.write_at(ByteOffset(512 + 60), &[0xEE]).unwrap();
    let before = PartitionTable::read(&grown).unwrap();
    assert_eq!(move_backup_to_end(&grown).unwrap(), None);
    assert_eq!(PartitionTable::read(&grown).unwrap(), before);
    // A partition that reaches to the new end, beyond what the table calls usable.
    let gpt = mbr(
        512 * 2048,
        &[
            (0x80, 0x07, 2048, 100 * 2048),
            (0, 0x07, 101 * 2048, 410 * 2048),
        ],
    );
    planned(&gpt, &facts()).unwrap().gpt.write(&gpt).unwrap();
    let mut header = [0; 512];
    gpt.read_at(ByteOffset(512), &mut header).unwrap();
    header[32..40].copy_from_slice(&200_000_u64.to_le_bytes());
    seal(&mut header);
    gpt.write_at(ByteOffset(512), &header).unwrap();
    let inside = PartitionTable::read(&gpt).unwrap();
    let is_inside = |finding: &Finding| matches!(finding, Finding::BackupNotAtEnd { .. });
    assert!(
        inside.findings.iter().any(is_inside),
        "{:?}",
        inside.findings
    );
    let moved = move_backup_to_end(&gpt).unwrap().unwrap();
    assert_eq!(moved.to.0, (512 << 20) - 512);
    assert_eq!(
        PartitionTable::read(&gpt).unwrap().partitions,
        inside.partitions
    );
}

/// The same disk with more room behind it.
fn grown_by(disk: &MemoryDisk, more: u64) -> MemoryDisk {
    let grown = MemoryDisk::new(ByteCount(disk.size().0 + more), disk.sectors());
    let mut bytes = vec![0; 1 << 20];
    for start in [0, disk.size().0 - bytes.len() as u64] {
        disk.read_at(ByteOffset(start), &mut bytes).unwrap();
        grown.write_at(ByteOffset(start), &bytes).unwrap();
    }
    grown
}

#[test]
fn a_table_that_cannot_be_is_not_written() {
    let disk = MemoryDisk::new(ByteCount::mib(8), SectorSizes::B512);
    let partition = |start: u64, length: u64| NewPartition {
        kind: kinds::EFI_SYSTEM.guid,
        id: Uuid::from_u128(u128::from(start)),
        start: ByteOffset(start),
        length: ByteCount(length),
        attributes: 0,
        name: String::new(),
    };
    let gpt = |partitions: Vec<NewPartition>| NewGpt {
        disk_guid: Uuid::from_u128(1),
        partitions,
    };
    let wrong = [
        vec![partition(33 * 512, 512)],
        vec![partition(34 * 512, 100)],
        vec![partition(34 * 512 + 1, 512)],
        vec![partition(34 * 512, 0)],
        vec![partition(34 * 512, 8 << 20)],
        vec![partition(u64::MAX - 511, 512)],
        vec![partition(40 * 512, 512), partition(34 * 512, 7 * 512)],
    ];
    for partitions in wrong {
        let error = gpt(partitions).write(&disk).unwrap_err();
        assert!(
            matches!(error, super::super::gpt::GptWriteError::Place { .. }),
            "{error}"
        );
    }
    let many = (0..129).map(|n| partition((34 + n) * 512, 512)).collect();
    assert!(gpt(many).write(&disk).is_err());
    let mut long = partition(34 * 512, 512);
    long.name = "x".repeat(37);
    assert!(gpt(vec![long]).write(&disk).is_err());
    let mut first = [1; 1024];
    disk.read_at(ByteOffset::ZERO, &mut first).unwrap();
    assert_eq!(first, [0; 1024]);
}

proptest! {
    /// Whatever partitions there are: what is planned can be written and is read back without a
    /// finding, nothing is moved, and nothing that has content is overlapped.
    #[test]
    fn a_plan_moves_nothing_and_covers_nothing(
        cuts in prop::collection::btree_set(1_u32..500, 2..8),
        offset in 0_u32..64,
        system in 0_usize..4,
        wanted in 1_u64..200,
    ) {
        let cuts: Vec<u32> = cuts.into_iter().collect();
        let kinds = [0x07, 0x27, 0x83, 0x17].into_iter();
        let entries = kinds.zip(cuts.chunks_exact(2)).map(|(kind, pair)| {
            (0, kind, pair[0] * 2048 + offset, (pair[1] - pair[0]) * 2048)
        });
        let disk = mbr(512 * 2048, &entries.collect::<Vec<_>>());
        let table = PartitionTable::read(&disk).unwrap();
        let facts = VolumeFacts {
            windows: 1,
            system: (system > 0).then_some(SystemPartition { number: system as u32, keeps: None }),
            efi_system: ByteCount::mib(wanted),
        };
        match plan(disk.size(), &table, &facts, &mut guids()) {
            Ok(plan) => {
                plan.gpt.write(&disk).unwrap();
                prop_assert_eq!(PartitionTable::read(&disk).unwrap().findings, vec![]);
                let efi_system = plan.efi_system().unwrap();
                prop_assert!(efi_system.length >= facts.efi_system);
                prop_assert!(efi_system.old_number != Some(1));
                for old in &table.partitions {
                    let new = plan.of_old(old.number).unwrap();
                    prop_assert_eq!((new.start, new.length), (old.start, old.length));
                }
            }
            Err(error) => {
                prop_assert!(matches!(error, ConversionRefused::NoRoom { .. }), "{error}");
                let ConversionRefused::NoRoom { needed, largest_gap, .. } = error else { unreachable!() };
                prop_assert!(largest_gap < needed);
            }
        }
    }
}
