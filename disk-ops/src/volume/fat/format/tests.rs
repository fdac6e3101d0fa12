//! Volumes made here, looked at by fsck.fat and mtools.

use std::fs;
use std::process::{Command, Output};

use super::*;
use crate::block::MemoryDisk;
use crate::units::SectorSizes;
use crate::volume::{FatEdit, FatVolume, WinPath, WindowsVolume, write_fat};

const LABEL: FatLabel = FatLabel {
    name: *b"SYSTEM     ",
    serial: 0x1234_ABCD,
};

fn run(command: &mut Command) -> Output {
    let output = command
        .env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin")
        .env("LC_ALL", "C")
        .output();
    let output = output.unwrap_or_else(|error| {
        panic!("{command:?}: {error}: install dosfstools and mtools (or run `make setup`)")
    });
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

fn path(text: &str) -> WinPath {
    text.parse().unwrap()
}

/// A disk that had something else at both of its ends.
fn used(size: ByteCount, sector: SectorSize) -> MemoryDisk {
    let sectors = SectorSizes {
        logical: sector,
        physical: sector,
    };
    let disk = MemoryDisk::new(size, sectors);
    let other = vec![0xA5; 2 << 20];
    for start in [0, size.0 - other.len() as u64] {
        disk.write_at(ByteOffset(start), &other).unwrap();
    }
    disk
}

#[test]
fn a_volume_made_here_is_sound_to_other_programs_at_every_size() {
    let sizes = [
        (fat_floor(SectorSize::B512), SectorSize::B512),
        (ByteCount::mib(50), SectorSize::B512),
        (ByteCount::mib(100), SectorSize::B512),
        (ByteCount::mib(260), SectorSize::B4096),
    ];
    for (size, sector) in sizes {
        let disk = used(size, sector);
        format_fat(&disk, LABEL).unwrap();
        let content: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        let edits = [
            "bootmgfw.efi",
            r"Fonts\wgl4_boot.ttf",
            r"de-DE\bootmgr.efi.mui",
        ];
        let edits = edits.map(|name| FatEdit::Write {
            path: path(&format!(r"EFI\Microsoft\Boot\{name}")),
            content: content.clone(),
        });
        write_fat(&disk, &edits).unwrap();

        let mut bytes = vec![0; size.0 as usize];
        disk.read_at(ByteOffset::ZERO, &mut bytes).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        let fsck = run(Command::new("fsck.fat").arg("-nv").arg(file.path()));
        let said = String::from_utf8_lossy(&fsck.stdout);
        assert!(said.contains("32 bit entries"), "{size}: {said}");
        assert!(!said.contains("uninitialized"), "{size}: {said}");
        if sector == SectorSize::B512 {
            let listed = run(Command::new("mdir").arg("-/").arg("-i").arg(file.path()));
            let listed = String::from_utf8_lossy(&listed.stdout);
            assert!(listed.contains("Volume in drive : is SYSTEM"), "{listed}");
            assert!(listed.contains("1234-ABCD"), "{listed}");
            let name = "::EFI/Microsoft/Boot/Fonts/wgl4_boot.ttf";
            let mut copy = Command::new("mcopy");
            let copied = run(copy.arg("-i").arg(file.path()).args([name, "-"]));
            assert!(copied.stdout == content);
        }
    }
}

#[test]
fn the_boot_files_of_all_languages_fit_where_windows_10_starts_from() {
    let disk = used(ByteCount::mib(50), SectorSize::B512);
    format_fat(&disk, LABEL).unwrap();
    let edits: Vec<FatEdit> = (0..350)
        .map(|number| FatEdit::Write {
            path: path(&format!(r"EFI\Microsoft\Boot\{}\{number}.mui", number % 40)),
            content: vec![1; 100_000],
        })
        .collect();
    let files: u64 = edits.len() as u64 * 100_000;
    assert!(efi_system_floor(ByteCount(files), SectorSize::B512) <= ByteCount::mib(50));
    write_fat(&disk, &edits).unwrap();
}

#[test]
fn nothing_of_the_volume_that_was_there_is_found_again() {
    let disk = used(ByteCount::mib(64), SectorSize::B512);
    format_fat(&disk, LABEL).unwrap();
    let mut last = [1; 512];
    let end = ByteCount::mib(64).0 - 512;
    disk.read_at(ByteOffset(end), &mut last).unwrap();
    assert_eq!(last, [0; 512]);
    let volume = FatVolume::open(&disk).unwrap();
    assert!(volume.list(&WinPath::ROOT).unwrap().is_empty());
    assert!(volume.free().unwrap() > ByteCount::mib(62));
}

#[test]
fn a_volume_that_would_not_be_fat32_is_not_made() {
    for sector in [SectorSize::B512, SectorSize::B4096] {
        let floor = fat_floor(sector);
        let disk = used(ByteCount(floor.0 - sector.bytes()), sector);
        let error = format_fat(&disk, LABEL).unwrap_err();
        assert!(matches!(error, FatWriteError::Format { .. }), "{error}");
    }
    assert_eq!(fat_floor(SectorSize::B512), ByteCount(34_077_184));
}
