//! Reads a FAT volume on which any bytes may be wrong.
//!
//! Oracle: nothing panics but the parser, whose panics have to come out as errors; every question has
//! an answer or an error, soon; no content is longer than was asked for.

#![no_main]

use std::panic;
use std::sync::Once;

use ce_disk::block::MemoryDisk;
use ce_disk::units::{ByteCount, ByteOffset, SectorSizes};
use ce_disk::volume::{FatVolume, WinPath, WindowsVolume};
use libfuzzer_sys::fuzz_target;

// Three bytes of input say where on the volume another byte stands.
fuzz_target!(|input: &[u8]| {
    let_parser_panic();
    let mut bytes = volume();
    for change in input.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]]));
        let length = bytes.len();
        bytes[at % length] = change[2];
    }
    let mut disk = MemoryDisk::new(ByteCount(bytes.len() as u64), SectorSizes::B512);
    disk.write(ByteOffset::ZERO, &bytes);
    let Ok(volume) = FatVolume::open(disk) else {
        return;
    };
    for path in [r"EFI\BOOT.EFI", "EFI", r"EFI\x", "x"] {
        let path: WinPath = path.parse().expect("a path");
        drop(volume.exists(&path));
        drop(volume.list(&path));
        if let Ok(content) = volume.read(&path, LIMIT) {
            assert!(content.len() as u64 <= LIMIT.0);
        }
    }
    drop(volume.list(&WinPath::ROOT));
    drop(volume.free());
});

/// libFuzzer ends the run at any panic. Those of the parser are caught, and are to be.
fn let_parser_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let abort = panic::take_hook();
        panic::set_hook(Box::new(move |information| {
            let file = information.location().map_or("", |place| place.file());
            let is_parsers = ["/fatfs-0.", "/byteorder-", "/library/core/"]
                .iter()
                .any(|part| file.contains(part));
            if !is_parsers {
                abort(information);
            }
        }));
    });
}

/// A FAT12 volume of 64 sectors: `EFI` in the root, and in it `BOOT.EFI` of two clusters.
fn volume() -> Vec<u8> {
    let mut bytes = vec![0; 64 * SECTOR];
    bytes[..11].copy_from_slice(b"\xEB\x3C\x90MSDOS5.0");
    // Bytes in a sector, sectors in a cluster, reserved sectors, tables, entries of the root,
    // sectors, medium, sectors in a table.
    bytes[11..24].copy_from_slice(&[0, 2, 1, 1, 0, 2, 16, 0, 64, 0, 0xF8, 1, 0]);
    bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
    for table in [1, 2] {
        // Clusters 2 (the folder) and 4 end their chains; 3 goes on with 4.
        bytes[table * SECTOR..][..9]
            .copy_from_slice(&[0xF8, 0xFF, 0xFF, 0xFF, 0x4F, 0x00, 0xFF, 0x0F, 0x00]);
    }
    let root = 3 * SECTOR;
    entry(&mut bytes[root..], b"EFI        ", 0x10, 2, 0);
    let folder = 4 * SECTOR;
    entry(&mut bytes[folder..], b"BOOT    EFI", 0x20, 3, 700);
    bytes
}

fn entry(bytes: &mut [u8], name: &[u8; 11], attributes: u8, cluster: u8, length: u16) {
    bytes[..11].copy_from_slice(name);
    bytes[11] = attributes;
    bytes[26] = cluster;
    bytes[28..30].copy_from_slice(&length.to_le_bytes());
}

const SECTOR: usize = 512;

const LIMIT: ByteCount = ByteCount(1 << 20);
