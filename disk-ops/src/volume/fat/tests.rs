//! Volumes that mkfs.fat and mtools have made, and damaged ones.

use std::fs;
use std::process::Command;

use proptest::prelude::*;

use super::*;
use crate::block::{MemoryDisk, Overlay};
use crate::units::{ByteOffset, SectorSizes};

/// A volume of this many MiB with some files.
fn volume(mib: u64, kind: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("volume");
    fs::File::create(&path).unwrap().set_len(mib << 20).unwrap();
    run(Command::new("mkfs.fat")
        .args(["--invariant", "-F", kind])
        .arg(&path));
    let content = folder.path().join("content");
    fs::write(&content, long_content()).unwrap();
    for name in ["EFI", "EFI/Microsoft", "EFI/Microsoft/Boot"] {
        run(Command::new("mmd")
            .arg("-i")
            .arg(&path)
            .arg(format!("::{name}")));
    }
    for name in [
        "EFI/Microsoft/Boot/bootmgfw.efi",
        "EFI/A long name of a file.txt",
    ] {
        let to = format!("::{name}");
        run(Command::new("mcopy")
            .arg("-i")
            .arg(&path)
            .arg(&content)
            .arg(to));
    }
    fs::read(path).unwrap()
}

fn run(command: &mut Command) {
    let output = command
        .env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin")
        .output();
    let output = output.unwrap_or_else(|error| {
        panic!("{command:?}: {error}: install dosfstools and mtools (or run `make setup`)")
    });
    assert!(output.status.success(), "{command:?}: {output:?}");
}

fn long_content() -> Vec<u8> {
    (0..100_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn disk(bytes: &[u8]) -> MemoryDisk {
    let mut disk = MemoryDisk::new(ByteCount(bytes.len() as u64), SectorSizes::B512);
    for (page, bytes) in (0..).zip(bytes.chunks(4096)) {
        if bytes.iter().any(|byte| *byte != 0) {
            disk.write(ByteOffset(page * 4096), bytes);
        }
    }
    disk
}

fn path(text: &str) -> WinPath {
    text.parse().unwrap()
}

#[test]
fn files_of_every_kind_of_fat_are_read() {
    for (mib, kind) in [(2, "12"), (20, "16"), (64, "32")] {
        let volume = FatVolume::open(disk(&volume(mib, kind))).unwrap();
        let loader = path(r"efi\MICROSOFT\boot\BootMgfw.EFI");
        assert!(volume.read(&loader, ByteCount::mib(1)).unwrap() == long_content());
        assert_eq!(volume.metadata(&loader).unwrap().size, ByteCount(400_000));
        let short = volume.read(&loader, ByteCount(399_999));
        assert!(matches!(short, Err(VolumeError::TooLarge { .. })));
        assert!(
            volume
                .exists(&path(r"EFI\a LONG name of a file.txt"))
                .unwrap()
        );
        for missing in ["EFI\\Boot", r"EFI\A long name of a file.txt\x", "x"] {
            assert!(!volume.exists(&path(missing)).unwrap(), "{missing}");
        }
        let listed = volume.list(&path("EFI")).unwrap();
        let names: Vec<&str> = listed.iter().map(|entry| &*entry.name).collect();
        assert_eq!(names, ["Microsoft", "A long name of a file.txt"]);
        assert!(matches!(
            volume.list(&loader),
            Err(VolumeError::NotAFolder { .. })
        ));
        let folder = volume.read(&path("EFI"), ByteCount::mib(1));
        assert!(matches!(folder, Err(VolumeError::IsFolder { .. })));
        let free = volume.free().unwrap();
        let size = ByteCount::mib(mib).0;
        assert!((size / 2..size).contains(&free.0), "FAT{kind}: {free}");
    }
}

#[test]
fn what_is_no_fat_is_refused() {
    for bytes in [vec![0; 1 << 20], vec![0xFF; 1 << 20]] {
        let error = FatVolume::open(disk(&bytes)).unwrap_err();
        assert!(matches!(error, VolumeError::NotFat { .. }), "{error}");
    }
}

#[test]
fn a_folder_whose_clusters_are_a_loop_has_an_end() {
    let mut bytes = volume(64, "32");
    // Every chain of both tables leads back to the cluster of the root.
    let reserved = usize::from(u16::from_le_bytes([bytes[14], bytes[15]])) * 512;
    for entry in bytes[reserved + 8..reserved + 4096].as_chunks_mut::<4>().0 {
        *entry = 2_u32.to_le_bytes();
    }
    // Full of entries that are neither free nor the end.
    let volume = FatVolume::open(disk(&bytes)).unwrap();
    let found = volume.exists(&path("missing"));
    let is_told = match &found {
        Ok(found) => !found,
        Err(error) => error.to_string().contains("loop"),
    };
    assert!(is_told, "{found:?}");
    let content = volume.read(&path(r"EFI\A long name of a file.txt"), ByteCount::mib(1));
    assert!(content.is_err() || content.unwrap() != long_content());
}

#[test]
fn files_are_written_replaced_and_deleted_as_other_programs_see_it() {
    for (mib, kind) in [(2, "12"), (20, "16"), (64, "32")] {
        let overlay = Overlay::in_memory(disk(&volume(mib, kind)), ByteCount::mib(64));
        let long: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
        let write = |name: &str, content: &[u8]| FatEdit::Write {
            path: path(name),
            content: content.to_vec(),
        };
        let edits = [
            write(r"EFI\Microsoft\Boot\BCD", b"a store"),
            write(r"efi\microsoft\boot\BOOTMGFW.efi", b"shorter"),
            write(r"EFI\Boot\bootx64.efi", &long),
            write(r"EFI\A long name of a file.txt", &long),
            write(r"EFI\to be deleted", b"x"),
            FatEdit::Delete {
                path: path(r"EFI\to be deleted"),
            },
            FatEdit::Delete {
                path: path(r"EFI\never there"),
            },
        ];
        write_fat(&overlay, &edits).unwrap();
        let mut bytes = vec![0; overlay.size().0 as usize];
        overlay.read_at(ByteOffset::ZERO, &mut bytes).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("volume");
        fs::write(&image, &bytes).unwrap();
        run(Command::new("fsck.fat").arg("-n").arg(&image));
        for (name, content) in [
            ("EFI/Microsoft/Boot/BCD", &b"a store"[..]),
            ("EFI/Microsoft/Boot/bootmgfw.efi", b"shorter"),
            ("EFI/Boot/bootx64.efi", &long),
            ("EFI/A long name of a file.txt", &long),
        ] {
            let to = folder.path().join("content");
            run(Command::new("mcopy")
                .args(["-n", "-o", "-i"])
                .arg(&image)
                .arg(format!("::{name}"))
                .arg(&to));
            assert!(fs::read(&to).unwrap() == content, "FAT{kind}: {name}");
        }
        let names: Vec<String> = FatVolume::open(&overlay)
            .and_then(|volume| volume.list(&path("EFI")))
            .unwrap()
            .into_iter()
            .map(|entry| entry.name)
            .collect();
        assert_eq!(names, ["Microsoft", "A long name of a file.txt", "Boot"]);
        // What is so already is not written again.
        let before = overlay.changed();
        write_fat(&overlay, &edits[..4]).unwrap();
        assert_eq!(overlay.changed(), before);
    }
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let overlay = Overlay::in_memory(disk(&volume(2, "12")), ByteCount::mib(64));
    let edit = FatEdit::Write {
        path: path(r"EFI\large"),
        content: vec![1; 3 << 20],
    };
    let error = write_fat(&overlay, &[edit]).unwrap_err();
    assert!(matches!(error, FatWriteError::NoSpace { .. }), "{error}");
    assert_eq!(overlay.changed(), ByteCount(0));
    for (name, problem) in [
        ("EFI", "folder"),
        (r"EFI\Microsoft\Boot\bootmgfw.efi\x", "no folder"),
    ] {
        let edit = FatEdit::Write {
            path: path(name),
            content: b"x".to_vec(),
        };
        let error = write_fat(&overlay, &[edit]).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn damage_anywhere_is_an_answer_or_an_error(
        changes in prop::collection::vec((0..40_000_usize, any::<u8>()), 1..40),
        boot in prop::collection::vec((11..90_usize, any::<u8>()), 0..4),
    ) {
        use std::sync::OnceLock;
        static VOLUME: OnceLock<Vec<u8>> = OnceLock::new();
        let mut bytes = VOLUME.get_or_init(|| volume(2, "12")).clone();
        for (at, value) in changes.into_iter().chain(boot) {
            bytes[at] = value;
        }
        let overlay = Overlay::in_memory(disk(&bytes), ByteCount::mib(8));
        let edits = [
            FatEdit::Write { path: path(r"EFI\Microsoft\Boot\BCD"), content: vec![7; 70_000] },
            FatEdit::Delete { path: path(r"EFI\Microsoft\Boot\bootmgfw.efi") },
        ];
        // Whatever it says to it: what counts as written can be read.
        if write_fat(&overlay, &edits).is_ok() {
            let volume = FatVolume::open(&overlay).unwrap();
            let read = volume.read(&path(r"EFI\Microsoft\Boot\BCD"), ByteCount::mib(1)).unwrap();
            prop_assert_eq!(read, vec![7; 70_000]);
        }
        if let Ok(volume) = FatVolume::open(disk(&bytes)) {
            for name in [r"EFI\Microsoft\Boot\bootmgfw.efi", r"EFI\x", "x"] {
                drop(volume.exists(&path(name)));
                if let Ok(content) = volume.read(&path(name), ByteCount::mib(1)) {
                    prop_assert!(content.len() <= 1 << 20);
                }
            }
            drop(volume.list(&path("EFI")));
            drop(volume.free());
        }
    }
}
