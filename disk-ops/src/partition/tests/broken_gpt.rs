//! GPTs with one thing wrong each.

use super::build::{mbr_entry, seal};
use super::*;

const SECTORS: u64 = 4096;

fn image() -> GptImage {
    GptImage::new(SectorSize::B512, SECTORS)
        .with(entry(PartitionType::EFI_SYSTEM, 64, 127, "one"))
        .with(entry(PartitionType::MICROSOFT_BASIC_DATA, 128, 2047, "two"))
}

/// Changes the primary header and gives it a right checksum again.
fn edit_header(bytes: &mut [u8], at: usize, value: &[u8]) {
    let header = &mut bytes[512..1024];
    header[at..at + value.len()].copy_from_slice(value);
    seal(header);
}

/// The problem of the primary copy; everything else has to come from the backup.
fn primary_problem(bytes: &[u8]) -> CopyProblem {
    let table = read(bytes);
    assert_eq!(ranges(&table), [(1, 64, 64), (2, 128, 1920)]);
    match table.findings.as_slice() {
        [
            Finding::GptCopy {
                copy: "primary",
                at,
                problem,
            },
            Finding::ReadFromBackup,
        ] => {
            assert_eq!(*at, ByteOffset(512));
            problem.clone()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_damaged_primary_copy_is_replaced_by_the_backup() {
    let mut bytes = image().bytes();
    bytes[512 + 60] ^= 1;
    assert!(matches!(
        primary_problem(&bytes),
        CopyProblem::HeaderChecksum { .. }
    ));

    let mut bytes = image().bytes();
    bytes[1024 + 56] ^= 1;
    assert!(matches!(
        primary_problem(&bytes),
        CopyProblem::EntriesChecksum { .. }
    ));

    let mut bytes = image().bytes();
    bytes[512..1024].fill(0);
    assert_eq!(primary_problem(&bytes), CopyProblem::Signature);
}

#[test]
fn every_field_of_a_header_is_checked_before_it_is_used() {
    let problem = |at: usize, value: &[u8]| {
        let mut bytes = image().bytes();
        edit_header(&mut bytes, at, value);
        primary_problem(&bytes)
    };
    assert_eq!(
        problem(8, &0x0002_0000_u32.to_le_bytes()),
        CopyProblem::Revision { found: 0x0002_0000 }
    );
    assert_eq!(
        problem(24, &7_u64.to_le_bytes()),
        CopyProblem::OwnPosition {
            found: 7,
            expected: 1
        }
    );
    for size in [0, 91, 513, u32::MAX] {
        let expected = CopyProblem::HeaderSize { size, sector: 512 };
        assert_eq!(problem(12, &size.to_le_bytes()), expected);
    }
    for (count, size) in [
        (0, 128),
        (u32::MAX, 128),
        (u32::MAX, 0x8000_0000),
        (8193, 128),
        (128, 0),
        (128, 64),
        (128, 192),
    ] {
        let shape: [[u8; 4]; 2] = [u32::to_le_bytes(count), u32::to_le_bytes(size)];
        let expected = CopyProblem::EntriesShape { count, size };
        assert_eq!(problem(80, shape.as_flattened()), expected);
    }
    for lba in [SECTORS - 31, SECTORS, u64::MAX, u64::MAX / 512] {
        let expected = CopyProblem::EntriesOutsideDisk {
            lba,
            length: 16_384,
        };
        assert_eq!(problem(72, &lba.to_le_bytes()), expected);
    }
}

#[test]
fn a_damaged_backup_is_told_and_the_primary_copy_followed() {
    let mut bytes = image().bytes();
    let backup = bytes.len() - 512;
    bytes[backup + 70] ^= 1;
    let table = read(&bytes);
    assert_eq!(ranges(&table), [(1, 64, 64), (2, 128, 1920)]);
    assert!(
        matches!(
            table.findings.as_slice(),
            [Finding::GptCopy {
                copy: "backup",
                at,
                problem: CopyProblem::HeaderChecksum { .. },
            }] if *at == ByteOffset(backup as u64)
        ),
        "{:?}",
        table.findings
    );
}

#[test]
fn two_damaged_copies_leave_no_partitions() {
    let mut bytes = image().bytes();
    let backup = bytes.len() - 512;
    bytes[512] ^= 1;
    bytes[backup] ^= 1;
    let table = read(&bytes);
    assert_eq!((table.scheme, table.partitions.len()), (Scheme::Gpt, 0));
    assert_eq!(table.findings.len(), 3);
    assert_eq!(table.findings[2], Finding::NoUsableGpt);
}

#[test]
fn sound_copies_that_differ_are_told_and_the_primary_one_followed() {
    let mut bytes = image().bytes();
    edit_header(&mut bytes, 56, &[9; 16]);
    let table = read(&bytes);
    let field = "disk GUID";
    assert_eq!(table.findings, [Finding::CopiesDisagree { field }]);
    assert_eq!(table.id, Some(DiskId::Guid(Uuid::from_bytes([9; 16]))));
}

#[test]
fn a_disk_that_has_grown_has_its_backup_inside() {
    let mut bytes = image().bytes();
    bytes.resize(bytes.len() + (1 << 20), 0);
    let table = read(&bytes);
    assert_eq!(ranges(&table), [(1, 64, 64), (2, 128, 1920)]);
    let end = ByteOffset(bytes.len() as u64 - 512);
    assert!(table.findings.contains(&Finding::BackupNotAtEnd {
        at: ByteOffset((SECTORS - 1) * 512),
        end,
    }));
    assert!(
        table
            .findings
            .iter()
            .all(|finding| finding.severity() == Severity::Note),
        "{:?}",
        table.findings
    );
}

#[test]
fn a_disk_that_was_cut_off_has_partitions_outside() {
    let bytes = image().bytes();
    let table = read(&bytes[..1024 * 512]);
    assert_eq!(ranges(&table), [(1, 64, 64), (2, 128, 1920)]);
    let disk_end = ByteOffset(1024 * 512);
    for expected in [
        Finding::BackupOutsideDisk {
            lba: SECTORS - 1,
            end: disk_end,
        },
        Finding::OutsideDisk {
            number: 2,
            end: ByteOffset(2048 * 512),
            disk_end,
        },
    ] {
        assert!(table.findings.contains(&expected), "{:?}", table.findings);
    }
    assert!(
        table
            .gaps
            .iter()
            .all(|gap| gap.start.0 + gap.length.0 <= disk_end.0)
    );
}

#[test]
fn a_primary_copy_that_names_itself_as_backup_is_not_believed() {
    let mut bytes = image().bytes();
    edit_header(&mut bytes, 32, &1_u64.to_le_bytes());
    bytes.truncate(bytes.len() - 512);
    let table = read(&bytes);
    let is_backup_missing = table
        .findings
        .iter()
        .any(|finding| matches!(finding, Finding::GptCopy { copy: "backup", .. }));
    assert!(is_backup_missing, "{:?}", table.findings);
}

#[test]
fn entries_that_overlap_or_make_no_sense_are_told() {
    let table = read(
        &GptImage::new(SectorSize::B512, SECTORS)
            .with(entry(PartitionType::EFI_SYSTEM, 100, 1999, ""))
            .with(entry(PartitionType::EFI_SYSTEM, 200, 299, ""))
            .with(entry(PartitionType::EFI_SYSTEM, 1000, 2999, ""))
            .with(entry(PartitionType::EFI_SYSTEM, 3100, 3099, ""))
            .with(entry(PartitionType::EFI_SYSTEM, 1, u64::MAX, ""))
            .with(entry(
                PartitionType::EFI_SYSTEM,
                u64::MAX / 2,
                u64::MAX - 1,
                "",
            ))
            .with(entry(PartitionType::EFI_SYSTEM, 33, 33, ""))
            .bytes(),
    );
    assert_eq!(
        ranges(&table),
        [(1, 100, 1900), (2, 200, 100), (3, 1000, 2000), (7, 33, 1)]
    );
    let senseless = |number, first, last| Finding::SenselessEntry {
        number,
        first,
        last,
    };
    let overlap = |first, second, at: u64| Finding::Overlap {
        first,
        second,
        at: ByteOffset(at * 512),
    };
    assert_eq!(
        table.findings,
        [
            senseless(4, 3100, 3099),
            senseless(5, 1, u64::MAX),
            senseless(6, u64::MAX / 2, u64::MAX - 1),
            Finding::OutsideUsable {
                number: 7,
                start: ByteOffset(33 * 512),
                end: ByteOffset(34 * 512),
                usable_start: ByteOffset(34 * 512),
                usable_end: ByteOffset((SECTORS - 33) * 512),
            },
            overlap(1, 2, 200),
            overlap(1, 3, 1000),
        ]
    );
}

#[test]
fn a_usable_range_that_is_none_is_told() {
    for (first, last) in [
        (50, 40),
        (34, u64::MAX),
        (u64::MAX, u64::MAX),
        (34, SECTORS),
    ] {
        let mut image = image();
        (image.first_usable, image.last_usable) = (first, last);
        let findings = read(&image.bytes()).findings;
        let disk_end = ByteOffset(SECTORS * 512);
        let expected = Finding::UsableRange {
            first,
            last,
            disk_end,
        };
        assert!(findings.contains(&expected), "{findings:?}");
    }
}

#[test]
fn a_usable_range_that_holds_the_table_is_told_and_no_gap_does() {
    let mut image = image();
    (image.first_usable, image.last_usable) = (0, SECTORS - 1);
    let table = read(&image.bytes());
    // The headers and arrays of both copies.
    let at = [1, 2, SECTORS - 33, SECTORS - 1].map(|lba| ByteOffset(lba * 512));
    let expected = at.map(|at| Finding::UsableHoldsTable { at });
    assert_eq!(table.findings, expected);
    let gaps = table.gaps.iter();
    let gaps: Vec<_> = gaps
        .map(|gap| (gap.start.0 / 512, gap.length.0 / 512))
        .collect();
    assert_eq!(gaps, [(0, 1), (34, 30), (2048, SECTORS - 33 - 2048)]);
}

#[test]
fn the_protective_mbr_is_compared_with_the_disk() {
    let mut bytes = image().bytes();
    mbr_entry(&mut bytes, 0, 0, 0xEE, 1, u32::MAX);
    assert_eq!(read(&bytes).findings, [], "what many tools write");

    mbr_entry(&mut bytes, 0, 0, 0xEE, 2, 100);
    let finding = Finding::ProtectiveRange {
        start: 2,
        sectors: 100,
        expected: 4095,
    };
    assert_eq!(read(&bytes).findings, [finding]);

    mbr_entry(&mut bytes, 1, 0x80, 0x07, 128, 1920);
    let table = read(&bytes);
    assert_eq!(table.findings, [Finding::HybridMbr { partitions: 1 }]);
    assert_eq!(table.scheme, Scheme::Gpt);
}

#[test]
fn a_gpt_without_protective_mbr_is_read_unless_there_is_another_table() {
    let mut bytes = image().bytes();
    bytes[..512].fill(0);
    let table = read(&bytes);
    assert_eq!(table.findings, [Finding::NoProtectiveMbr]);
    assert_eq!(table.partitions.len(), 2);

    mbr_entry(&mut bytes, 0, 0x80, 0x07, 2048, 1024);
    let table = read(&bytes);
    assert_eq!(
        (table.scheme, ranges(&table)),
        (Scheme::Mbr, vec![(1, 2048, 1024)])
    );
    assert_eq!(
        table.findings,
        [Finding::StaleGpt {
            at: ByteOffset(512)
        }]
    );
}

#[test]
fn a_gpt_for_the_other_sector_size_is_told() {
    let bytes = GptImage::new(SectorSize::B4096, 1024)
        .with(entry(PartitionType::EFI_SYSTEM, 64, 127, ""))
        .bytes();
    let findings = read(&bytes).findings;
    let expected = Finding::OtherSectorSize {
        found: 4096,
        expected: 512,
    };
    assert!(findings.contains(&expected), "{findings:?}");
}

#[test]
fn partitions_with_the_same_guid_are_told() {
    let mut bytes = image().bytes();
    let one: [u8; 16] = bytes[1024 + 16..1024 + 32].try_into().unwrap();
    for array in [1024, bytes.len() - 33 * 512] {
        bytes[array + 128 + 16..array + 128 + 32].copy_from_slice(&one);
    }
    for (header, array) in [(512, 1024), (bytes.len() - 512, bytes.len() - 33 * 512)] {
        let checksum = crc32fast::hash(&bytes[array..array + 16_384]);
        bytes[header + 88..header + 92].copy_from_slice(&checksum.to_le_bytes());
        seal(&mut bytes[header..header + 512]);
    }
    let finding = Finding::DuplicateId {
        first: 1,
        second: 2,
    };
    assert_eq!(read(&bytes).findings, [finding]);
}

#[test]
fn larger_entries_than_usual_are_read() {
    let mut image = GptImage::new(SectorSize::B512, SECTORS)
        .with(entry(PartitionType::EFI_SYSTEM, 64, 127, "one"))
        .with(entry(PartitionType::EFI_SYSTEM, 128, 2047, "two"));
    (image.entry_count, image.entry_size) = (64, 256);
    let table = read(&image.bytes());
    assert_eq!(table.findings, []);
    assert_eq!(ranges(&table), [(1, 64, 64), (2, 128, 1920)]);
}
