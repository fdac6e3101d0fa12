//! Volumes that are damaged, by chance or on purpose.

use std::io::ErrorKind;
use std::time::Duration;

use super::*;

/// Reads everything that can be reached, and counts what was read without an error.
fn walk<D: BlockRead>(volume: &NtfsVolume<D>) -> usize {
    let mut good = 0;
    for number in 0..80 {
        let Ok(record) = volume.record(number) else {
            continue;
        };
        good += 1;
        let _ = volume.metadata_of(record.id);
        let _ = volume.paths_of(record.id);
        let _ = volume.list_folder(&record, "folder");
        if let Ok(file) = FileReader::open(volume, &record, "file".into()) {
            let _ = file.read_all(ByteCount::mib(4));
        }
    }
    let _ = volume.lookup(&path(r"folder\file 7"));
    let _ = VolumeState::read(volume);
    let _ = FreeMap::read(volume).map(|map| map.free());
    good
}

fn small_volume() -> Image {
    let image = Image::new(4 << 20, 512, 512);
    image.populate(
        "os.mkdir('folder')\n\
         for n in range(300): open(f'folder/file {n}', 'wb').write(b'%d' % n)\n\
         os.mkdir('packed'); os.setxattr('packed', 'system.ntfs_attrib_be', struct.pack('>I', 0x810))\n\
         open('packed/f', 'wb').write(b'again and ' * 20_000)\n",
    );
    image
}

#[test]
fn damaged_volumes_are_read_to_an_end_without_a_panic() {
    let image = small_volume();
    let sound = fs::read(&image.path).unwrap();
    let table = image.open().record_position(0).0 as usize;
    assert!(walk(&image.open()) > 20);
    let mut seed = 99_u64;
    let mut random = move |below: usize| {
        seed = seed
            .wrapping_mul(0x5851_F42D_4C95_7F2D)
            .wrapping_add(0x1405_7B7E_F767_814F);
        (seed >> 33) as usize % below
    };
    for round in 0..150 {
        let mut bytes = sound.clone();
        for _ in 0..1 + round % 12 {
            let at = match random(4) {
                0 => random(512),
                1 => random(bytes.len()),
                // Headers and attributes at the beginning of records.
                _ => table + 1024 * random(60) + random(300),
            };
            bytes[at] = [0, 0xFF, 0x80, random(256) as u8][random(4)];
        }
        let started = Instant::now();
        if let Ok(volume) = NtfsVolume::open(memory(&bytes)) {
            walk(&volume);
        }
        assert!(started.elapsed() < Duration::from_secs(20), "round {round}");
    }
}

#[test]
fn an_index_that_loops_ends_in_an_error() {
    let image = small_volume();
    let volume = image.open();
    let folder = volume.lookup(&path("folder")).unwrap();
    let Some(allocation) = folder.attribute(INDEX_ALLOCATION, INDEX_NAME) else {
        panic!("the folder is small");
    };
    let mut index = allocation
        .stream
        .read_all(volume.disk(), volume.geometry(), "index", LIMIT)
        .unwrap();
    // The first entry of the first record gets a child: its own record.
    let header = Fields(&index);
    let entry = 24 + header.u32(24).unwrap() as usize;
    let length = usize::from(header.u16(entry + 8).unwrap());
    index[entry + 12] |= 1;
    index[entry + length - 8..entry + length].fill(0);
    let own = header_vcn(&index);
    index[entry + length - 8..entry + length].copy_from_slice(&own.to_le_bytes());
    let Place::Clusters { runs, .. } = &allocation.stream.place else {
        panic!("a resident index");
    };
    let mut disk = image.disk();
    disk.write(ByteOffset(runs[0].cluster.unwrap() * 512), &index[..512]);
    let damaged = NtfsVolume::open(disk).unwrap();
    let started = Instant::now();
    let error = damaged.list(&path("folder")).unwrap_err();
    assert!(
        matches!(
            error,
            VolumeError::Damaged { .. } | VolumeError::Structure { .. }
        ),
        "{error}"
    );
    assert!(started.elapsed() < Duration::from_secs(5));
}

fn header_vcn(index: &[u8]) -> u64 {
    Fields(index).u64(16).unwrap()
}

#[test]
fn an_error_of_the_disk_comes_through_as_one() {
    let image = small_volume();
    let at = image.open().record_position(5);
    let mut disk = image.disk();
    disk.fail_at(at, ErrorKind::TimedOut);
    let error = NtfsVolume::open(disk)
        .unwrap()
        .list(&WinPath::ROOT)
        .unwrap_err();
    let VolumeError::Block(crate::block::BlockError::Read { source, .. }) = error else {
        panic!("{error}");
    };
    assert_eq!(source.kind(), ErrorKind::TimedOut);
    let mut disk = image.disk();
    disk.fail_at(ByteOffset::ZERO, ErrorKind::InvalidData);
    assert!(matches!(NtfsVolume::open(disk), Err(VolumeError::Block(_))));
}

#[test]
fn a_boot_sector_of_something_else_is_refused_by_name() {
    let sound = bytes_of(&small_volume().disk());
    for (at, bytes, wanted) in [
        (3, &b"EXFAT   "[..], "EXFAT"),
        (11, &[0x00, 0x03], "sectors of 768"),
        (13, &[3], "3 sectors"),
        (48, &[0xFF; 8], "master file table"),
        (64, &[0x7F], "record size"),
        (44, &[0xFF], "the partition has"),
        (510, &[0, 0], "0xaa55"),
    ] {
        let mut disk = memory(&sound);
        disk.write(ByteOffset(at), bytes);
        let error = NtfsVolume::open(disk).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
    let mut disk = memory(&vec![0; 512]);
    disk.write(ByteOffset(0), &sound[..512]);
    assert!(matches!(
        NtfsVolume::open(disk),
        Err(VolumeError::NotNtfs { .. })
    ));
}
