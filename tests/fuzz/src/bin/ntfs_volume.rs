//! Reads everything that can be reached on a small volume with some bytes changed.
//!
//! Oracle: nothing panics but the parser, whose panics have to come out as errors; what is read is
//! bounded; a file is never longer than it says; free ranges are in order, apart from each other,
//! and inside the volume.
//!
//! Input: changes of six bytes each: position (32 bits, little-endian, modulo the length; with its
//! highest bit set, counted in the master file table), what is written there, and how often. They
//! are made on a volume of 2 MiB with 60 files, which mkntfs and ntfscp make when the run starts.

#![no_main]

use std::process::Command;
use std::sync::{Once, OnceLock};
use std::{fs, io, panic};

use ce_disk::block::{BlockRead, MemoryDisk};
use ce_disk::units::{ByteCount, ByteOffset, SectorSizes};
use ce_disk::volume::{FileId, FreeMap, NtfsVolume, VolumeState, WinPath};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let_parser_panic();
    let disk = disk_of(input);
    let Ok(volume) = NtfsVolume::open(&disk) else {
        return;
    };
    walk(&volume, &WinPath::ROOT, 0);
    for record in 0..32 {
        for sequence in [1, record as u16] {
            let _ = volume.metadata_of(FileId { record, sequence });
            let _ = volume.paths_of(FileId { record, sequence });
        }
    }
    let _ = VolumeState::read(&volume);
    check_free_space(&volume);
    assert!(
        disk.read_counts().bytes < 4 << 30,
        "{:?}",
        disk.read_counts()
    );
});

/// What the parser gets wrong is caught and told as damage; libFuzzer would end the run before.
fn let_parser_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let abort = panic::take_hook();
        panic::set_hook(Box::new(move |information| {
            let file = information
                .location()
                .map_or("", |location| location.file());
            let is_parsers = ["/ntfs-0.", "/byteorder-", "/binrw-", "/library/core/"]
                .iter()
                .any(|part| file.contains(part));
            if !is_parsers {
                abort(information);
            }
        }));
    });
}

fn walk<D: BlockRead>(volume: &NtfsVolume<D>, folder: &WinPath, depth: usize) {
    for entry in volume.list(folder).unwrap_or_default().iter().take(64) {
        let Ok(path) = folder.join(&entry.name) else {
            continue;
        };
        let _ = volume.metadata(&path);
        if let Ok(file) = volume.open_file(&path) {
            let mut content = vec![0; 70_000];
            if let Ok(length) = file.read_at(ByteOffset::ZERO, &mut content) {
                assert!(length as u64 <= file.size().0);
            }
            let _ = file.read_at(ByteOffset(file.size().0.saturating_sub(10)), &mut content);
        }
        if depth < 3 && entry.attributes.is_folder() && entry.name != "." {
            walk(volume, &path, depth + 1);
        }
    }
}

fn check_free_space<D: BlockRead>(volume: &NtfsVolume<D>) {
    let Ok(map) = FreeMap::read(volume) else {
        return;
    };
    let mut position = None;
    for range in map.ranges() {
        let range = range.expect("the medium is sound");
        assert!(range.length.0 > 0 && position.is_none_or(|position| range.start > position));
        let end = range
            .start
            .checked_add(range.length)
            .expect("on the volume");
        assert!(end <= volume.geometry().size().end());
        position = Some(end);
    }
}

fn disk_of(input: &[u8]) -> MemoryDisk {
    static BASE: OnceLock<Vec<u8>> = OnceLock::new();
    let mut bytes = BASE
        .get_or_init(|| make_volume().expect("mkntfs and ntfscp (package ntfs-3g)"))
        .clone();
    let table = usize::from(u16::from_le_bytes([bytes[48], bytes[49]])) * CLUSTER;
    for change in input.chunks_exact(6).take(64) {
        let at = u32::from_le_bytes([change[0], change[1], change[2], change[3]]);
        let at = match at >> 31 {
            0 => at as usize % bytes.len(),
            _ => table + (at & 0x7FFF_FFFF) as usize % (80 << 10),
        };
        let end = (at + usize::from(change[5] % 16) + 1).min(bytes.len());
        bytes[at.min(end)..end].fill(change[4]);
    }
    let mut disk = MemoryDisk::new(ByteCount(bytes.len() as u64), SectorSizes::B512);
    for (page, bytes) in (0..).zip(bytes.chunks(4096)) {
        if bytes.iter().any(|byte| *byte != 0) {
            disk.write(ByteOffset(page * 4096), bytes);
        }
    }
    disk
}

fn make_volume() -> io::Result<Vec<u8>> {
    let folder = std::env::temp_dir().join(format!("ntfs_volume-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let (volume, source) = (folder.join("volume"), folder.join("source"));
    fs::File::create(&volume)?.set_len(2 << 20)?;
    let run = |command: &mut Command| match command.status()? {
        status if status.success() => Ok(()),
        status => Err(io::Error::other(format!("{command:?}: {status}"))),
    };
    let cluster = CLUSTER.to_string();
    run(Command::new("/usr/sbin/mkntfs")
        .args(["-q", "-F", "-Q", "-c", &cluster])
        .arg(&volume))?;
    for number in 0..60 {
        fs::write(&source, vec![number; 40 * usize::from(number)])?;
        let name = format!("file with a long name {number}");
        run(Command::new("/usr/sbin/ntfscp")
            .arg("-q")
            .arg(&volume)
            .arg(&source)
            .arg(name))?;
    }
    let bytes = fs::read(&volume)?;
    fs::remove_dir_all(&folder)?;
    Ok(bytes)
}

const CLUSTER: usize = 512;
