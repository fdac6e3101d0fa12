//! What is recognised in partitions, made by the programs that make such volumes.

use std::path::Path;
use std::process::Command;

use super::second_opinion::run;
use super::*;
use crate::block::{RawFile, Window};

/// What is recognised in a file of `mib` MiB after `command` has been run on it.
fn content_after(mib: u64, package: &str, command: &[&str]) -> Option<ContentKind> {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(mib << 20).unwrap();
    run(
        package,
        Command::new(command[0])
            .args(&command[1..])
            .arg(file.path()),
    );
    whole(file.path())
}

fn whole(path: &Path) -> Option<ContentKind> {
    let table = PartitionTable::read(&RawFile::open(path, None).unwrap()).unwrap();
    assert_eq!(table.scheme, Scheme::None, "{table:?}");
    assert_eq!(table.findings, []);
    assert_eq!(table.gaps, []);
    table.content
}

#[test]
fn ntfs_is_told_with_its_cluster_size_and_length() {
    for cluster in ["512", "4096", "65536"] {
        let command = ["mkfs.ntfs", "-q", "-F", "-Q", "-c", cluster];
        let Some(ContentKind::Ntfs {
            cluster_size,
            serial,
            volume_size,
        }) = content_after(32, "ntfs-3g", &command)
        else {
            panic!("no NTFS with clusters of {cluster}");
        };
        assert_eq!(cluster_size.0.to_string(), cluster);
        assert_ne!(serial, 0);
        assert!(
            ((31 << 20)..(32 << 20)).contains(&volume_size.0),
            "{volume_size}"
        );
    }
}

#[test]
fn the_three_kinds_of_fat_are_told_apart() {
    for (bits, mib, kind) in [
        ("12", 4, FatKind::Fat12),
        ("16", 64, FatKind::Fat16),
        ("32", 64, FatKind::Fat32),
    ] {
        let command = ["mkfs.vfat", "-F", bits, "-n", "SYSTEM VOL"];
        let label = Some("SYSTEM VOL".to_owned());
        let content = content_after(mib, "dosfstools", &command);
        assert_eq!(content, Some(ContentKind::Fat { kind, label }));
    }
    let content = content_after(64, "dosfstools", &["mkfs.vfat", "-F", "32"]);
    let kind = FatKind::Fat32;
    assert_eq!(content, Some(ContentKind::Fat { kind, label: None }));
}

#[test]
fn the_ext_family_is_told_apart() {
    for (name, version) in [
        ("ext2", ExtVersion::Ext2),
        ("ext3", ExtVersion::Ext3),
        ("ext4", ExtVersion::Ext4),
    ] {
        let command = ["mke2fs", "-q", "-F", "-t", name, "-L", "data"];
        let label = Some("data".to_owned());
        let content = content_after(8, "e2fsprogs", &command);
        assert_eq!(content, Some(ContentKind::Ext { version, label }));
    }
}

#[test]
fn swap_is_recognised() {
    let content = content_after(1, "util-linux", &["mkswap"]);
    assert_eq!(content, Some(ContentKind::Swap));
}

#[test]
fn marks_are_recognised_at_their_places() {
    let marks: [(usize, &[u8], ContentKind); 5] = [
        (3, b"-FVE-FS-", ContentKind::BitLocker),
        (3, b"ReFS\0\0\0\0", ContentKind::ReFs),
        (0, b"LUKS\xBA\xBE", ContentKind::Luks),
        (0, b"XFSB", ContentKind::Xfs),
        (4086, b"SWAP-SPACE", ContentKind::Swap),
    ];
    for (at, mark, expected) in marks {
        let mut bytes = vec![0; 65_536];
        bytes[at..at + mark.len()].copy_from_slice(mark);
        assert_eq!(read(&bytes).content, Some(expected));
        bytes[at] ^= 1;
        assert_eq!(read(&bytes).content, None);
    }
    for sector in 0..5 {
        let mut bytes = vec![0; 65_536];
        bytes[sector * 512..][..8].copy_from_slice(b"LABELONE");
        bytes[sector * 512 + 24..][..8].copy_from_slice(b"LVM2 001");
        let expected = (sector < 4).then_some(ContentKind::Lvm2);
        assert_eq!(read(&bytes).content, expected, "sector {sector}");
    }
}

#[test]
fn bitlocker_to_go_is_recognised_behind_its_fat_mask() {
    let mut bytes = vec![0; 65_536];
    bytes[3..11].copy_from_slice(b"MSWIN4.1");
    let guid = uuid::uuid!("4967d63b-2e29-4ad8-8399-f6a339e3d001");
    bytes[424..440].copy_from_slice(&guid.to_bytes_le());
    assert_eq!(read(&bytes).content, Some(ContentKind::BitLocker));
}

#[test]
fn exfat_is_told_with_its_length() {
    let mut bytes = vec![0; 65_536];
    bytes[3..11].copy_from_slice(b"EXFAT   ");
    bytes[72..80].copy_from_slice(&128_u64.to_le_bytes());
    bytes[108] = 9;
    let volume_size = ByteCount(65_536);
    assert_eq!(
        read(&bytes).content,
        Some(ContentKind::ExFat { volume_size })
    );
    bytes[108] = 63;
    assert_eq!(read(&bytes).content, None);
}

#[test]
fn a_volume_that_is_larger_than_its_partition_is_told() {
    let mut bytes = GptImage::new(SectorSize::B512, 4096)
        .with(entry(PartitionType::MICROSOFT_BASIC_DATA, 128, 255, ""))
        .bytes();
    let boot = &mut bytes[128 * 512..];
    boot[3..11].copy_from_slice(b"NTFS    ");
    boot[11..13].copy_from_slice(&512_u16.to_le_bytes());
    boot[13] = 0xF7; // 2^9 sectors
    boot[40..48].copy_from_slice(&129_u64.to_le_bytes());
    let table = read(&bytes);
    let expected = ContentKind::Ntfs {
        cluster_size: ByteCount(512 * 512),
        serial: 0,
        volume_size: ByteCount(129 * 512),
    };
    assert_eq!(table.partitions[0].content, Some(expected));
    assert!(matches!(
        table.findings.as_slice(),
        [Finding::VolumeTooLarge { number: 1, .. }]
    ));
}

#[test]
fn only_known_holes_are_left_unread() {
    let bytes = GptImage::new(SectorSize::B512, 40_960)
        .with(entry(PartitionType::MICROSOFT_BASIC_DATA, 2048, 40_000, ""))
        .bytes();
    let disk = disk_of(&bytes, SectorSize::B512);
    PartitionTable::read(&disk).unwrap();
    let before = disk.read_counts();
    let partition = Window::new(&disk, ByteOffset(1 << 20), ByteCount(1 << 20), "p".into());
    assert_eq!(
        content::probe(&partition.unwrap(), ByteOffset(0), ByteCount(1 << 20)).unwrap(),
        None
    );
    assert_eq!(disk.read_counts(), before);
}
