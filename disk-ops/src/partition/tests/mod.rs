//! Tables built here byte by byte, tables made by other programs, and tables of noise.

use super::*;
use crate::block::MemoryDisk;
use crate::units::SectorSizes;

mod broken_gpt;
pub(super) mod build;
mod contents;
mod noise;
mod old_mbr;
pub(super) mod second_opinion;

use build::{GptImage, disk_of, entry};

fn read(bytes: &[u8]) -> PartitionTable {
    PartitionTable::read(&disk_of(bytes, SectorSize::B512)).unwrap()
}

/// Number, first sector and number of sectors of each partition.
fn ranges(table: &PartitionTable) -> Vec<(u32, u64, u64)> {
    let sector = table.sector_size.bytes();
    let partitions = table.partitions.iter();
    partitions
        .map(|p| (p.number, p.start.0 / sector, p.length.0 / sector))
        .collect()
}

#[test]
fn a_sound_gpt_is_read_without_findings_at_both_sector_sizes() {
    for sector in [SectorSize::B512, SectorSize::B4096] {
        let image = GptImage::new(sector, 4096)
            .with(entry(
                PartitionType::EFI_SYSTEM,
                64,
                127,
                "EFI system partition",
            ))
            .with(entry(
                PartitionType::MICROSOFT_BASIC_DATA,
                128,
                2047,
                "Grüße 💾",
            ));
        let table = PartitionTable::read(&disk_of(&image.bytes(), sector)).unwrap();
        assert_eq!(table.findings, []);
        assert_eq!(table.scheme, Scheme::Gpt);
        assert_eq!(table.sector_size, sector);
        assert_eq!(ranges(&table), [(1, 64, 64), (2, 128, 1920)]);
        assert_eq!(table.partitions[1].name, "Grüße 💾");
        assert_eq!(table.partitions[0].kind.to_string(), "EFI system");
        assert_eq!(table.id, Some(DiskId::Guid(build::DISK_GUID)));
    }
}

#[test]
fn the_gaps_are_what_no_partition_covers_of_the_usable_range() {
    let image = GptImage::new(SectorSize::B512, 4096)
        .with(entry(PartitionType::EFI_SYSTEM, 64, 127, ""))
        .with(entry(PartitionType::EFI_SYSTEM, 1000, 1999, ""));
    let gaps: Vec<_> = read(&image.bytes())
        .gaps
        .iter()
        .map(|gap| (gap.start.0 / 512, gap.length.0 / 512))
        .collect();
    let usable_end = 4096 - 33;
    assert_eq!(gaps, [(34, 30), (128, 872), (2000, usable_end - 2000)]);
}

#[test]
fn the_attributes_that_windows_uses_are_told_apart() {
    for (bit, expected) in [
        (
            0,
            Attributes {
                required: true,
                ..Attributes::default()
            },
        ),
        (
            1,
            Attributes {
                no_block_io: true,
                ..Attributes::default()
            },
        ),
        (
            2,
            Attributes {
                active: true,
                ..Attributes::default()
            },
        ),
        (
            60,
            Attributes {
                read_only: true,
                ..Attributes::default()
            },
        ),
        (
            61,
            Attributes {
                shadow_copy: true,
                ..Attributes::default()
            },
        ),
        (
            62,
            Attributes {
                hidden: true,
                ..Attributes::default()
            },
        ),
        (
            63,
            Attributes {
                no_drive_letter: true,
                ..Attributes::default()
            },
        ),
    ] {
        let mut entry = entry(PartitionType::WINDOWS_RECOVERY, 64, 127, "");
        entry.attributes = 1 << bit;
        let table = read(&GptImage::new(SectorSize::B512, 4096).with(entry).bytes());
        assert_eq!(table.partitions[0].attributes, expected, "bit {bit}");
    }
}

#[test]
fn names_with_lone_surrogates_are_read_with_a_replacement() {
    let mut entry = entry(PartitionType::EFI_SYSTEM, 64, 127, "");
    entry.name = vec![0xD800, u16::from(b'x')];
    let table = read(&GptImage::new(SectorSize::B512, 4096).with(entry).bytes());
    assert_eq!(table.partitions[0].name, "\u{FFFD}x");
}

#[test]
fn a_blank_disk_is_one_gap() {
    let disk = MemoryDisk::new(ByteCount(1 << 20), SectorSizes::B512);
    let table = PartitionTable::read(&disk).unwrap();
    assert_eq!((table.scheme, table.content), (Scheme::None, None));
    let whole = Gap {
        start: ByteOffset::ZERO,
        length: ByteCount(1 << 20),
    };
    assert_eq!(table.gaps, [whole]);
    assert_eq!(table.findings, []);
}

#[test]
fn a_disk_of_a_single_sector_is_read() {
    for sector in [SectorSize::B512, SectorSize::B4096] {
        let mut bytes = vec![0; sector.bytes() as usize];
        bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
        let table = PartitionTable::read(&disk_of(&bytes, sector)).unwrap();
        assert_eq!((table.scheme, table.gaps), (Scheme::Mbr, vec![]));
        bytes[450] = 0xEE;
        bytes[454] = 1;
        bytes[458] = 1;
        let table = PartitionTable::read(&disk_of(&bytes, sector)).unwrap();
        assert!(table.findings.contains(&Finding::NoUsableGpt));
    }
}

#[test]
fn a_medium_that_fails_is_an_error_and_no_finding() {
    let image = GptImage::new(SectorSize::B512, 4096);
    for position in [0, 512, 1024, 4095 * 512] {
        let mut disk = disk_of(&image.bytes(), SectorSize::B512);
        disk.fail_at(ByteOffset(position), std::io::ErrorKind::Other);
        let error = PartitionTable::read(&disk).unwrap_err();
        assert!(matches!(error, BlockError::Read { .. }), "{error}");
    }
}
