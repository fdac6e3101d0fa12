//! Free space that is left out, and the states in which it is not.

use super::super::logfile::tests::restart_page;
use super::*;

/// A volume on which much was written and half of it deleted again.
fn used_volume(cluster: u32) -> Image {
    let image = Image::new(48 << 20, cluster, 512);
    image.populate(
        "for n in range(120): open(f'f{n}', 'wb').write(random.Random(n).randbytes(90_000 + n))\n\
         for n in range(0, 120, 2): os.remove(f'f{n}')\n",
    );
    image
}

#[test]
fn a_masked_copy_has_every_file_and_nothing_that_was_deleted() {
    for cluster in [512, 4096, 65_536] {
        let image = used_volume(cluster);
        let disk = image.disk();
        let original = bytes_of(&disk);
        let mask = FreeSpaceMask::new(&disk, &[partition(&disk, 1)]).unwrap();
        let copy = bytes_of(&mask);

        let volume = image.open();
        let map = FreeMap::read(&volume).unwrap();
        let mut expected = original.clone();
        let mut dropped = 0;
        for range in map.ranges() {
            let range = range.unwrap();
            let free = &mut expected[range.start.0 as usize..][..range.length.0 as usize];
            dropped += free.iter().filter(|byte| **byte != 0).count();
            free.fill(0);
        }
        assert!(
            dropped > 3_000_000,
            "{dropped} deleted bytes at clusters of {cluster}"
        );
        assert!(copy == expected);
        // The spare boot sector is the last one of the partition.
        assert_eq!(copy[copy.len() - 512..], original[copy.len() - 512..]);
        assert_eq!(&copy[copy.len() - 509..copy.len() - 501], b"NTFS    ");

        reads_of_any_size_agree(&mask, &expected);
        extents_agree(&mask, &expected);
        let path = image.folder.path().join("copy");
        fs::write(&path, &copy).unwrap();
        run(tool("ntfsfix", "ntfs-3g").arg("-n").arg(&path));
        let list = |volume: &Path| {
            text(&run(tool("fls", "sleuthkit")
                .args(["-r", "-p", "-u", "-f", "ntfs"])
                .arg(volume)))
        };
        assert_eq!(list(&path), list(&image.path));
        let masked = NtfsVolume::open(&mask).unwrap();
        for n in (1..120).step_by(2) {
            let name = super::path(&format!("f{n}"));
            let content = masked.read(&name, LIMIT).unwrap();
            let record = masked.metadata(&name).unwrap().id.record;
            assert!(content == icat(&image.path, record) && content == icat(&path, record));
        }
    }
}

fn reads_of_any_size_agree(mask: &impl BlockRead, expected: &[u8]) {
    let mut seed = 1_u64;
    for _ in 0..400 {
        seed = seed
            .wrapping_mul(0x5851_F42D_4C95_7F2D)
            .wrapping_add(0x1405_7B7E_F767_814F);
        let offset = (seed >> 33) as usize % expected.len();
        let length = ((seed >> 20) as usize % 300_000).min(expected.len() - offset);
        let mut part = vec![0xEE; length];
        mask.read_at(ByteOffset(offset as u64), &mut part).unwrap();
        assert!(
            part == expected[offset..offset + length],
            "{length} at {offset}"
        );
    }
}

fn extents_agree(mask: &impl BlockRead, expected: &[u8]) {
    let mut position = ByteOffset::ZERO;
    let mut zeros = 0;
    while position < mask.size().end() {
        let extent = mask.extent_at(position).unwrap();
        assert!(extent.end > position && extent.end <= mask.size().end());
        if extent.kind == ExtentKind::Zero {
            let run = &expected[position.0 as usize..extent.end.0 as usize];
            assert!(run.iter().all(|byte| *byte == 0));
            zeros += run.len();
        }
        position = extent.end;
    }
    assert!(zeros > expected.len() / 2);
}

#[test]
fn a_volume_of_64_gib_is_mapped_in_no_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large");
    let size = 64_u64 << 30;
    fs::File::create(&path).unwrap().set_len(size).unwrap();
    run(tool("mkntfs", "ntfs-3g")
        .args(["-q", "-F", "-Q"])
        .arg(&path));
    let disk = crate::block::open(&path, &crate::block::OpenOptions::default()).unwrap();
    let volume = NtfsVolume::open(&disk).unwrap();
    let mut best = u128::MAX;
    for _ in 0..5 {
        let started = Instant::now();
        let free = FreeMap::read(&volume).unwrap().free().unwrap();
        best = best.min(started.elapsed().as_millis());
        assert!(free.0 > size / 100 * 99 && free.0 < size);
    }
    assert!(best <= 50, "{best} ms");
}

/// Every blocker that a volume of its own can have, put on one volume.
#[test]
fn all_blockers_are_told_at_once_with_a_way_out() {
    let image = Image::new(16 << 20, 4096, 512);
    image.put("hiberfil.sys", &[&b"HIBR"[..], &noise(9000, 3)].concat());
    let volume = image.open();
    let flags_at = {
        let bytes = bytes_of(&image.disk());
        let record = volume.record_position(VOLUME_RECORD).0 as usize;
        let information = bytes[record..record + 1024]
            .windows(4)
            .position(|kind| kind == VOLUME_INFORMATION.to_le_bytes());
        record + information.unwrap() + 24 + 10
    };
    let log = volume.record(LOGFILE_RECORD).unwrap();
    let Place::Clusters { runs, .. } = &log.attribute(DATA, "").unwrap().stream.place else {
        panic!("a resident log");
    };
    let log_at = runs[0].cluster.unwrap() * 4096;
    let mut disk = image.disk();
    disk.write(ByteOffset(flags_at as u64), &[1]);
    let page = restart_page(9, (2, 0), 0xFFFF, 0);
    disk.write(ByteOffset(log_at), &[page.clone(), page].concat());

    let state = VolumeState::read(&NtfsVolume::open(&disk).unwrap()).unwrap();
    assert_eq!(
        (state.flags, state.hibernation.as_deref()),
        (1, Some("HIBR"))
    );
    let error = FreeSpaceMask::new(&disk, &[partition(&disk, 3)]).unwrap_err();
    let MaskError::Blocked { blockers } = error else {
        panic!("{error}");
    };
    let codes: Vec<&str> = blockers.iter().map(Blocker::code).collect();
    assert_eq!(codes, ["Hibernated", "NtfsDirty", "NtfsDirty"]);
    for blocker in &blockers {
        assert!(
            blocker.to_string().starts_with("partition 3 at 0x"),
            "{blocker}"
        );
        assert!(!blocker.way_out().is_empty());
    }
    let table = PartitionTable::read(&disk).unwrap();
    assert_eq!(survey(&disk, &table).unwrap().blockers.len(), 3);
    let clean = VolumeState::read(&volume).unwrap();
    assert_eq!((clean.flags, &clean.log), (0, &logfile::LogState::Clean));
}

#[test]
fn foreign_partitions_and_types_stand_in_the_way() {
    let image = Image::new(16 << 20, 4096, 512);
    let disk = image.disk();
    let mut spaces = partition(&disk, 2);
    spaces.kind = PartitionType::STORAGE_SPACES;
    let mut dynamic = partition(&disk, 4);
    dynamic.kind = PartitionType::MBR_DYNAMIC;
    let error = FreeSpaceMask::new(&disk, &[spaces, dynamic]).unwrap_err();
    let MaskError::Blocked { blockers } = error else {
        panic!("{error}");
    };
    assert!(matches!(
        blockers[..],
        [Blocker::DynamicDisk { .. }, Blocker::StorageSpaces { .. }]
    ));
    let mut fat = partition(&disk, 5);
    fat.content = Some(ContentKind::Swap);
    let error = FreeSpaceMask::new(&disk, &[fat]).unwrap_err();
    assert!(matches!(error, MaskError::NotNtfs { number: 5, .. }));
}

#[test]
fn a_bitmap_that_contradicts_the_volume_is_not_believed() {
    let image = Image::new(16 << 20, 4096, 512);
    let volume = image.open();
    let record = volume.record(BITMAP_RECORD).unwrap();
    let Place::Clusters { runs, .. } = &record.attribute(DATA, "").unwrap().stream.place else {
        panic!("a resident bitmap");
    };
    let mut disk = image.disk();
    disk.write(ByteOffset(runs[0].cluster.unwrap() * 4096), &[0xF0]);
    let error = FreeMap::read(&NtfsVolume::open(&disk).unwrap()).unwrap_err();
    assert!(error.to_string().contains("boot sector"), "{error}");

    // The size of the bitmap is the only field of its record with this value besides the
    // initialized length, which stands behind it.
    let mut disk = image.disk();
    let at = volume.record_position(BITMAP_RECORD).0;
    let mut bytes = vec![0; 1024];
    disk.read_at(ByteOffset(at), &mut bytes).unwrap();
    let size = record
        .attribute(DATA, "")
        .unwrap()
        .stream
        .size
        .to_le_bytes();
    let place = bytes
        .windows(16)
        .position(|w| w[..8] == size && w[8..] == size)
        .unwrap();
    bytes[place..place + 8].copy_from_slice(&500_u64.to_le_bytes());
    bytes[place + 8..place + 16].copy_from_slice(&500_u64.to_le_bytes());
    disk.write(ByteOffset(at), &bytes);
    let error = FreeMap::read(&NtfsVolume::open(&disk).unwrap()).unwrap_err();
    assert!(error.to_string().contains("has 500 bytes"), "{error}");
}
