use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::*;
use crate::block::{ExtentKind, SizeProblem};
use crate::units::ByteOffset;

/// A raw disk of 8 MiB with something at 1 MiB and at 5 MiB, in a directory of its own.
fn raw_disk() -> (TempDir, PathBuf, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.raw");
    let mut bytes = vec![0; 8 << 20];
    bytes[1 << 20..][..70_000].fill(0xA5);
    bytes[5 << 20..][..512].fill(0x5A);
    std::fs::write(&path, &bytes).unwrap();
    (directory, path, bytes)
}

fn convert(from: &Path, to: &Path, format: &[&str]) {
    let output = Command::new("qemu-img")
        .args(["convert", "-f", "raw"])
        .args(format)
        .args([from, to])
        .output()
        .unwrap_or_else(|error| {
            panic!("qemu-img cannot be run ({error}): install the package qemu-utils")
        });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

fn open_found(path: &Path) -> Result<Box<dyn BlockRead>, OpenError> {
    open(path, &OpenOptions::default())
}

fn content(disk: &dyn BlockRead) -> Vec<u8> {
    let mut bytes = vec![0xEE; disk.size().0 as usize];
    disk.read_at(ByteOffset::ZERO, &mut bytes).unwrap();
    let mut position = ByteOffset::ZERO;
    while position < disk.size().end() {
        let extent = disk.extent_at(position).unwrap();
        assert!(extent.end > position && extent.end <= disk.size().end());
        if extent.kind == ExtentKind::Zero {
            let run = &bytes[position.0 as usize..extent.end.0 as usize];
            assert!(run.iter().all(|byte| *byte == 0), "{position}");
        }
        position = extent.end;
    }
    bytes
}

#[test]
fn every_kind_of_image_shows_the_disk_that_it_was_made_from() {
    let (directory, raw, bytes) = raw_disk();
    let cases: [(&str, &[&str], _); 4] = [
        ("dynamic.vhdx", &["-O", "vhdx"], ImageKind::Vhdx),
        (
            "fixed.vhdx",
            &["-O", "vhdx", "-o", "subformat=fixed"],
            ImageKind::Vhdx,
        ),
        (
            "dynamic.vhd",
            &["-O", "vpc", "-o", "force_size=on"],
            ImageKind::Vhd,
        ),
        (
            "fixed",
            &["-O", "vpc", "-o", "subformat=fixed,force_size=on"],
            ImageKind::Vhd,
        ),
    ];
    for (name, format, kind) in cases {
        let path = directory.path().join(name);
        convert(&raw, &path, format);
        assert_eq!(probe(&path).unwrap(), DiskKind::Image(kind), "{name}");
        let disk = open_found(&path).unwrap();
        assert!(content(&disk) == bytes, "{name}: other bytes");
        assert!(disk.read_at(disk.size().end(), &mut [0; 1]).is_err());
    }
    assert_eq!(probe(&raw).unwrap(), DiskKind::RawFile);
    assert!(content(&open_found(&raw).unwrap()) == bytes);
}

#[test]
fn the_empty_blocks_of_a_dynamic_image_are_known_to_be_zero() {
    let (directory, raw, _) = raw_disk();
    let path = directory.path().join("disk.vhdx");
    convert(&raw, &path, &["-O", "vhdx", "-o", "block_size=1M"]);
    let disk = open_found(&path).unwrap();
    let first = disk.extent_at(ByteOffset(2 << 20)).unwrap();
    assert_eq!(
        (first.kind, first.end),
        (ExtentKind::Zero, ByteOffset(5 << 20))
    );
}

#[test]
fn a_file_that_is_named_as_an_image_but_is_none_is_refused() {
    let (directory, raw, bytes) = raw_disk();
    let whole = directory.path().join("whole.vhd");
    convert(
        &raw,
        &whole,
        &["-O", "vpc", "-o", "subformat=fixed,force_size=on"],
    );
    let fixed = std::fs::read(&whole).unwrap();
    let cases = [
        ("raw.vhdx", bytes.as_slice(), "not a VHDX"),
        ("RAW.VHD", bytes.as_slice(), "not a VHD"),
        ("cut.vhd", &fixed[..fixed.len() - 512], "not a VHD"),
        ("empty.vhdx", &[], "not a VHDX"),
    ];
    for (name, content, text) in cases {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        let Err(error) = open_found(&path) else {
            panic!("{name} was opened");
        };
        assert!(matches!(error, OpenError::Image { .. }), "{error}");
        let source = error.source().unwrap().to_string();
        assert!(source.contains(text), "{name}: {source}");
    }
    let as_raw = OpenOptions {
        as_raw: true,
        ..OpenOptions::default()
    };
    assert!(open(&directory.path().join("raw.vhdx"), &as_raw).is_ok());
}

#[test]
fn a_vhdx_that_was_cut_short_is_refused() {
    let (directory, raw, _) = raw_disk();
    let path = directory.path().join("disk.vhdx");
    convert(&raw, &path, &["-O", "vhdx"]);
    let length = std::fs::metadata(&path).unwrap().len();
    let file = File::options().write(true).open(&path).unwrap();
    for keep in [length - (1 << 20), 3 << 20, 65_536, 8] {
        file.set_len(keep).unwrap();
        assert!(
            matches!(
                open_found(&path),
                Err(OpenError::Image { kind: "VHDX", .. })
            ),
            "with {keep} bytes left"
        );
    }
}

#[test]
fn images_of_other_formats_are_refused_by_name() {
    let (directory, raw, _) = raw_disk();
    for (format, expected) in [("qcow2", "QCOW"), ("vmdk", "VMDK"), ("vdi", "VDI")] {
        let path = directory.path().join(format!("disk.{format}"));
        convert(&raw, &path, &["-O", format]);
        match open_found(&path) {
            Err(OpenError::ForeignImage { found, .. }) => assert_eq!(found, expected),
            Err(error) => panic!("{format}: {error}"),
            Ok(_) => panic!("{format} was opened"),
        }
    }
}

#[test]
fn what_is_no_disk_at_all_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty.raw");
    File::create(&empty).unwrap();
    assert!(matches!(
        open_found(&empty),
        Err(OpenError::BadSize {
            problem: SizeProblem::Empty,
            ..
        })
    ));
    assert!(matches!(
        open_found(directory.path()),
        Err(OpenError::IsDirectory { .. })
    ));
    assert!(matches!(
        open_found(&directory.path().join("missing")),
        Err(OpenError::NotFound { .. })
    ));
    assert!(matches!(
        open_found(Path::new("/dev/null")),
        Err(OpenError::NotADisk { .. })
    ));
}

#[test]
fn two_names_of_one_file_are_the_same_file() {
    let directory = tempfile::tempdir().unwrap();
    let [one, link, copy] = ["one", "link", "copy"].map(|name| directory.path().join(name));
    std::fs::write(&one, b"x").unwrap();
    std::fs::write(&copy, b"x").unwrap();
    std::os::unix::fs::symlink(&one, &link).unwrap();
    assert!(same_file(&one, &link).unwrap());
    assert!(!same_file(&one, &copy).unwrap());
    assert!(!same_file(&one, &directory.path().join("missing")).unwrap());
    assert!(same_file(&one.join("below"), &one).is_err());
}
