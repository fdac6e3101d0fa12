//! A Windows in memory that a BIOS starts, and what it gets.

use ce_disk::volume::MemoryVolume;
use ce_regf::{Hive, KeyPath, RegScript, SecurityDescriptor, Version};

use super::*;
use crate::inspect::HIVES;

const NOW: FileTime = FileTime::from_ticks(133_752_744_000_000_000);

fn path(text: &str) -> WinPath {
    text.parse().unwrap()
}

fn hive(keys: &str) -> Vec<u8> {
    let text = format!("Windows Registry Editor Version 5.00\n\n{keys}");
    let script = RegScript::parse(text.as_bytes(), &KeyPath::from("")).unwrap();
    let security = SecurityDescriptor::for_administrators();
    let mut hive = Hive::new_empty(Version::V1_5, &security, NOW).unwrap();
    hive.edit(NOW).unwrap().import(&script).unwrap();
    hive.save(NOW).unwrap().bytes.to_vec()
}

const SYSTEM: &str = r#"
[Select]
"Current"=dword:00000001

[ControlSet001\Control\Session Manager\Environment]
"PROCESSOR_ARCHITECTURE"="AMD64"

[MountedDevices]
"\\DosDevices\\C:"=hex:0d,f0,ad,8b,00,00,50,06,00,00,00,00
"\\DosDevices\\D:"=hex:0d,f0,ad,8c,00,00,50,06,00,00,00,00
"\\DosDevices\\E:"=hex:5c,00,3f,00,3f,00,5c,00
"\\DosDevices\\S:"=hex:0d,f0,ad,8b,00,00,10,00,00,00,00,00
"\\DosDevices\\T:"=hex:0d,f0,ad,8b,00,00,20,00,00,00,00,00
"#;

fn windows() -> MemoryVolume {
    let mut volume = MemoryVolume::default();
    for (file, content) in [
        (r"Windows\Boot\EFI\bootmgfw.efi", "manager"),
        (r"Windows\Boot\EFI\de-DE\bootmgfw.efi.mui", "words"),
        (r"Windows\Boot\Fonts\wgl4_boot.ttf", "font"),
        (r"Windows\Boot\PCAT\bootmgr", "of a BIOS"),
        (r"Windows\System32\winload.efi", "loader"),
    ] {
        volume.put(&path(file), content);
    }
    volume.put(&path(r"Windows\System32\config\SYSTEM"), hive(SYSTEM));
    volume.put(&path(r"Windows\System32\config\SYSTEM.LOG1"), [1; 1024]);
    volume
}

fn places() -> NewPlaces {
    NewPlaces {
        signature: 0x8BAD_F00D,
        disk: Uuid::from_u128(1),
        efi_system: Uuid::from_u128(2),
        windows: Uuid::from_u128(3),
        loader: Uuid::from_u128(4),
        resume: Uuid::from_u128(5),
        kept: vec![(1 << 20, None), (101 << 20, Some(Uuid::from_u128(3)))],
    }
}

fn with<T>(volume: &MemoryVolume, ask: impl FnOnce(&BiosWindows<'_>) -> T) -> T {
    let folder = path("Windows");
    let hives = HiveSet::load(volume, &folder, &HIVES);
    let inspection = Inspection::of(&hives);
    ask(&BiosWindows {
        volume,
        folder: &folder,
        hives: &hives,
        inspection: &inspection,
        system: None,
    })
}

fn made() -> UefiFiles {
    with(&windows(), |windows| {
        let files = windows.boot_files().unwrap();
        windows.files(&files, &places(), NOW).unwrap()
    })
}

#[test]
fn the_boot_files_of_the_image_go_where_firmware_and_boot_manager_look() {
    let made = made();
    let files: Vec<(String, usize)> = made
        .files
        .boot
        .iter()
        .map(|file| {
            let Content::Written(content) = &file.content else {
                panic!("{}", file.path)
            };
            (file.path.to_string(), content.len())
        })
        .collect();
    let expected = [
        (r"\EFI\Microsoft\Boot\bootmgfw.efi", 7),
        (r"\EFI\Microsoft\Boot\de-DE\bootmgfw.efi.mui", 5),
        (r"\EFI\Microsoft\Boot\Fonts\wgl4_boot.ttf", 4),
        (r"\EFI\Boot\bootx64.efi", 7),
    ];
    for (path, length) in expected {
        let is_it = |(name, size): &(String, usize)| {
            name.trim_start_matches('\\') == path.trim_start_matches('\\') && *size == length
        };
        assert!(files.iter().any(is_it), "{path}: {files:?}");
    }
    assert_eq!(files.len(), expected.len() + 1, "{files:?}");
    let Content::Written(store) = &made.files.boot.last().unwrap().content else {
        panic!("the store comes last")
    };
    assert!(Hive::load(store.clone()).unwrap().check().is_sound());
}

#[test]
fn letters_stay_with_their_volumes_and_other_disks_are_left_alone() {
    let made = made();
    let Content::Written(system) = &made.files.windows[0].content else {
        panic!("the hive comes first")
    };
    let system = Hive::load(system.clone()).unwrap();
    let key = system
        .root()
        .unwrap()
        .subkey("MountedDevices")
        .unwrap()
        .unwrap();
    let name = |letter: char| {
        let value = key.value(&*format!(r"\DosDevices\{letter}:")).unwrap()?;
        Some(value.data().unwrap().into_owned())
    };
    let windows = [&b"DMIO:ID:"[..], &Uuid::from_u128(3).to_bytes_le()].concat();
    assert_eq!(name('C'), Some(windows));
    assert_eq!(name('S'), None);
    let old = Hive::load(hive(SYSTEM)).unwrap();
    let old = old
        .root()
        .unwrap()
        .subkey("MountedDevices")
        .unwrap()
        .unwrap();
    for letter in ['D', 'E', 'T'] {
        let before = old
            .value(&*format!(r"\DosDevices\{letter}:"))
            .unwrap()
            .unwrap();
        assert_eq!(name(letter), Some(before.data().unwrap().into_owned()));
    }
    let log = &made.files.windows[1];
    assert!(log.content == Content::NeutralisedLog, "{}", log.path);
    assert!(made.changes.iter().all(|line| !line.reason.is_empty()));
}

#[test]
fn an_image_without_the_programs_of_uefi_is_refused() {
    let mut volume = MemoryVolume::default();
    volume.put(&path(r"Windows\System32\config\SYSTEM"), hive(SYSTEM));
    volume.put(&path(r"Windows\Boot\EFI\bootmgfw.efi"), "manager");
    let error = with(&volume, |windows| windows.boot_files().unwrap_err());
    assert!(error.to_string().contains("winload.efi"), "{error}");

    let mut volume = windows();
    let x86 = SYSTEM.replace("AMD64", "x86");
    volume.put(&path(r"Windows\System32\config\SYSTEM"), hive(&x86));
    let error = with(&volume, |windows| windows.boot_files().unwrap_err());
    assert!(matches!(error, UefiError::NotX64 { .. }), "{error}");
}
