use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::super::{ExtentKind, OpenError, OpenOptions, open_writable};
use super::*;
use crate::units::SectorSize;

fn raw(content: &[u8]) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("disk.raw");
    fs::write(&path, content).unwrap();
    (folder, path)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 251) as u8).collect()
}

#[test]
fn every_alignment_of_offset_length_and_memory_writes_the_same_bytes() {
    let size = 64 * 1024;
    let (_folder, path) = raw(&vec![0xEE; size]);
    for sector in [SectorSize::B512, SectorSize::B4096] {
        let disk = RawFile::open_writable(&path, Some(sector)).unwrap();
        let source = pattern(50_000);
        for offset in [0_usize, 1, 512, 4095, 4096, 12_345] {
            for length in [0_usize, 1, 511, 4096, 4097, 8192, 40_000] {
                for skew in [0, 1, 512] {
                    fs::write(&path, vec![0xEE; size]).unwrap();
                    let bytes = &source[skew..skew + length];
                    disk.write_at(ByteOffset(offset as u64), bytes).unwrap();
                    let mut expected = vec![0xEE; size];
                    expected[offset..offset + length].copy_from_slice(bytes);
                    let mut found = vec![0; size];
                    disk.read_at(ByteOffset::ZERO, &mut found).unwrap();
                    assert!(found == expected, "{offset}+{length}, memory at {skew}");
                    assert!(fs::read(&path).unwrap() == expected, "{offset}+{length}");
                }
            }
        }
        disk.flush().unwrap();
    }
}

#[test]
fn a_hole_that_is_written_is_known_as_a_hole_no_more() {
    let (_folder, path) = raw(&[]);
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    let disk = RawFile::open_writable(&path, None).unwrap();
    assert_eq!(
        disk.extent_at(ByteOffset(0)).unwrap().kind,
        ExtentKind::Zero
    );
    disk.write_at(ByteOffset(8192), &[1; 4096]).unwrap();
    let extent = disk.extent_at(ByteOffset(8192)).unwrap();
    assert_eq!(extent.kind, ExtentKind::Data);
}

#[test]
fn to_reserve_changes_neither_content_nor_size() {
    let (_folder, path) = raw(&pattern(8192));
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    let before = fs::read(&path).unwrap();
    let disk = RawFile::open_writable(&path, None).unwrap();
    disk.reserve(ByteOffset(4096), ByteCount(512 << 10))
        .unwrap();
    assert_eq!(fs::read(&path).unwrap(), before);
    assert!(disk.reserve(ByteOffset(1 << 20), ByteCount(1)).is_err());
}

#[test]
fn images_are_never_opened_for_writing() {
    let folder = TempDir::new().unwrap();
    for (name, content) in [
        ("disk.vhdx", b"vhdxfile".repeat(64)),
        ("empty.vhd", vec![0; 4096]),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        let error = open_writable(&path, &OpenOptions::default()).err().unwrap();
        assert!(matches!(error, OpenError::NeverWritten { .. }), "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn a_file_is_written_by_one_at_a_time_and_known_by_its_inode() {
    let (_folder, path) = raw(&pattern(4096));
    let disk = open_writable(&path, &OpenOptions::default()).unwrap();
    let identity = disk.identity();
    assert_eq!(identity.path.as_deref(), Some(path.as_path()));
    assert!(identity.node.unwrap().starts_with("inode:"));
    let error = open_writable(&path, &OpenOptions::default()).err().unwrap();
    assert!(matches!(error, OpenError::Busy { .. }), "{error}");
    // To read it is nobody's loss.
    RawFile::open(&path, None).unwrap();
    drop(disk);
    open_writable(&path, &OpenOptions::default()).unwrap();
}

#[test]
fn a_write_that_leaves_the_disk_is_refused() {
    let (_folder, path) = raw(&pattern(4096));
    let disk = RawFile::open_writable(&path, None).unwrap();
    for (offset, length) in [(4096, 1), (4095, 2), (u64::MAX, 1)] {
        let error = disk
            .write_at(ByteOffset(offset), &vec![0; length])
            .unwrap_err();
        assert!(matches!(error, BlockError::OutOfRange { .. }), "{error}");
    }
    assert_eq!(fs::read(&path).unwrap(), pattern(4096));
}
