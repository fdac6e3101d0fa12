//! The disk fails below the worker, is full, or must not be touched.

use std::sync::atomic::{AtomicU64, Ordering};
use std::{fs, io};

use anyhow::{Context, Result};
use ce_disk::block::{BlockError, BlockRead, BlockWrite, Extent};
use ce_disk::units::{ByteCount, ByteOffset, SectorSizes};
use ce_disk::volume::ntfs::write::{NtfsWrite, NtfsWriteError, VolumeEdit};
use ce_disk::volume::{Blocker, NtfsVolume, VolumeError};
use ce_tests::tool::NTFSCP;

use super::volume::{
    USUAL, Volume, bytes_of, create_folder, delete, noise, path, write_file, writer,
};

/// A disk of which one read or write fails.
struct Failing<D> {
    disk: D,
    reads: AtomicU64,
    writes: AtomicU64,
    failing_read: u64,
    failing_write: u64,
}

impl<D: BlockRead> Failing<D> {
    fn new(disk: D, failing_read: u64, failing_write: u64) -> Self {
        Self {
            disk,
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            failing_read,
            failing_write,
        }
    }
}

impl<D: BlockRead> BlockRead for Failing<D> {
    fn size(&self) -> ByteCount {
        self.disk.size()
    }

    fn sectors(&self) -> SectorSizes {
        self.disk.sectors()
    }

    fn name(&self) -> &str {
        "failing disk"
    }

    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<(), BlockError> {
        if self.reads.fetch_add(1, Ordering::Relaxed) == self.failing_read {
            return Err(BlockError::Read {
                disk: self.name().to_owned(),
                offset,
                length: ByteCount(buffer.len() as u64),
                source: io::Error::other("bad sector"),
            });
        }
        self.disk.read_at(offset, buffer)
    }

    fn extent_at(&self, offset: ByteOffset) -> Result<Extent, BlockError> {
        self.disk.extent_at(offset)
    }
}

impl<D: BlockWrite> BlockWrite for Failing<D> {
    fn write_at(&self, offset: ByteOffset, bytes: &[u8]) -> Result<(), BlockError> {
        if self.writes.fetch_add(1, Ordering::Relaxed) == self.failing_write {
            return Err(BlockError::Write {
                disk: self.name().to_owned(),
                offset,
                length: ByteCount(bytes.len() as u64),
                source: io::Error::other("bad sector"),
            });
        }
        self.disk.write_at(offset, bytes)
    }

    fn flush(&self) -> Result<(), BlockError> {
        self.disk.flush()
    }
}

/// A bit of everything, in few writes.
fn edits() -> Vec<VolumeEdit> {
    vec![
        create_folder(r"a\b"),
        write_file(r"a\b\a long name.bin", &noise(300_000, 1)),
        write_file(r"a\b\c.sys", b"resident"),
        write_file(r"a\b\c.sys", &noise(5000, 2)),
        write_file(r"a\gone", b"gone"),
        delete(r"a\gone"),
    ]
}

#[test]
fn an_error_of_the_disk_comes_back_whichever_read_or_write_it_hits() -> Result<()> {
    let volume = Volume::new(8, USUAL)?;
    let before = bytes_of(&volume.base)?;
    let never = u64::MAX;
    let disk = Failing::new(volume.overlay(), never, never);
    writer(&disk).apply(&edits())?;
    let (reads, writes) = (disk.reads.into_inner(), disk.writes.into_inner());
    assert!(reads > 50 && writes > 30, "{reads} reads, {writes} writes");
    let faults = (0..writes).map(|write| (never, write));
    for (read, write) in faults.chain((0..reads).map(|read| (read, never))) {
        let disk = Failing::new(volume.overlay(), read, write);
        let error = writer(&disk).apply(&edits());
        let error = error
            .err()
            .with_context(|| format!("read {read}, write {write} succeeded"))?;
        let text = format!("{:#}", anyhow::Error::new(error));
        assert!(
            text.contains("bad sector"),
            "read {read}, write {write}: {text}"
        );
    }
    assert!(bytes_of(&volume.base)? == before);
    Ok(())
}

#[test]
fn a_volume_without_room_is_refused_before_the_first_write() -> Result<()> {
    let volume = Volume::new(16, USUAL)?;
    let disk = volume.overlay();
    let error = writer(&disk)
        .apply(&[write_file("large", &vec![1; 15 << 20])])
        .unwrap_err();
    let NtfsWriteError::NoSpace { needed, free } = error else {
        panic!("{error}");
    };
    assert!(
        needed > free && needed.0 < 16 << 20 && free.0 > 10 << 20,
        "{needed} {free}"
    );
    assert_eq!(disk.changed(), ByteCount(0));
    // What is overwritten counts as what it adds, and what is deleted is there again.
    writer(&disk).apply(&[write_file("large", &vec![1; 9 << 20])])?;
    writer(&disk).apply(&[write_file("large", &vec![2; 10 << 20])])?;
    writer(&disk).apply(&[delete("large"), write_file("other", &vec![3; 10 << 20])])?;
    let order = [write_file("third", &vec![3; 9 << 20]), delete("other")];
    let error = writer(&disk).apply(&order).unwrap_err();
    assert!(matches!(error, NtfsWriteError::NoSpace { .. }), "{error}");
    volume.save(&disk)?.is_sound()
}

#[test]
fn a_volume_is_filled_to_the_last_clusters() -> Result<()> {
    let volume = Volume::new(8, USUAL)?;
    let disk = volume.overlay();
    let mut size = 8 << 20;
    let mut count = 0;
    while size > 4096 {
        let edit = [write_file(&format!("file{count}"), &noise(size, count))];
        match writer(&disk).apply(&edit) {
            Ok(_) => count += 1,
            Err(NtfsWriteError::NoSpace { .. }) => size /= 2,
            Err(error) => return Err(error.into()),
        }
    }
    assert!(count >= 3, "{count}");
    volume.save(&disk)?.is_sound()
}

#[test]
fn what_windows_left_undone_is_refused() -> Result<()> {
    // VOLUME_IS_DIRTY in the record of $Volume, in both copies.
    let dirty = Volume::prepared(8, USUAL, |file| {
        let mut bytes = fs::read(file)?;
        let cluster = usize::from(u16::from_le_bytes([bytes[48], bytes[49]]));
        let record = cluster * 4096 + 3 * 1024;
        let length = bytes.len();
        // Found by the version in front of it: 3.1.
        let at = (record..record + 1024)
            .find(|at| bytes[*at..*at + 4] == [3, 1, 0, 0] && bytes[*at - 8..*at] == [0; 8])
            .context("$VOLUME_INFORMATION")?;
        bytes[at + 2] |= 1;
        assert_eq!(length, bytes.len());
        Ok(fs::write(file, bytes)?)
    })?;
    let disk = dirty.overlay();
    let error = writer(&disk).apply(&[write_file("x", b"x")]).unwrap_err();
    let NtfsWriteError::Blocked { blockers } = &error else {
        panic!("{error}");
    };
    assert!(
        matches!(blockers[..], [Blocker::NtfsDirty { .. }]),
        "{error}"
    );

    let hibernated = Volume::prepared(8, USUAL, |file| {
        let source = file.with_extension("hiberfil");
        fs::write(&source, b"HIBR".repeat(2000))?;
        NTFSCP.run([file, source.as_path(), "hiberfil.sys".as_ref()])?;
        Ok(())
    })?;
    let disk = hibernated.overlay();
    let error = writer(&disk).apply(&[write_file("x", b"x")]).unwrap_err();
    assert!(error.to_string().contains("hibernated"), "{error}");
    assert_eq!(disk.changed(), ByteCount(0));

    let none = ce_disk::block::MemoryDisk::new(ByteCount::mib(8), SectorSizes::B512);
    let error = writer(&none).apply(&[write_file("x", b"x")]).unwrap_err();
    assert!(
        matches!(error, NtfsWriteError::Volume(VolumeError::NotNtfs { .. })),
        "{error}"
    );
    Ok(())
}

#[test]
fn content_that_cannot_be_read_is_told_with_the_file() -> Result<()> {
    use ce_disk::volume::ntfs::write::{FileWrite, HostFile, Security};
    let volume = Volume::new(8, USUAL)?;
    let disk = volume.overlay();
    let source = volume.folder.path().join("source");
    fs::write(&source, noise(100_000, 1))?;
    let content = HostFile::new(fs::File::open(&source)?)?;
    // Cut after its length was taken.
    fs::OpenOptions::new()
        .write(true)
        .open(&source)?
        .set_len(50_000)?;
    let edit = VolumeEdit::WriteFile(FileWrite {
        path: path("file"),
        content: std::sync::Arc::new(content),
        attributes: None,
        times: None,
        security: Security::Inherit,
    });
    let error = writer(&disk).apply(&[edit]).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("file: reading what is to be written"),
        "{error}"
    );
    Ok(())
}

#[test]
fn a_fragmented_file_grows_into_what_is_free() -> Result<()> {
    let volume = Volume::new(16, USUAL)?;
    let disk = volume.overlay();
    // Small files fill the volume; every other one goes: what is free are holes of 16 KiB.
    let small: Vec<_> = (0..600)
        .map(|n| write_file(&format!("s{n}"), &noise(16_384, n)))
        .collect();
    writer(&disk).apply(&small)?;
    let free = |disk: &_| -> Result<u64> {
        let volume = NtfsVolume::open(disk)?;
        let map = ce_disk::volume::FreeMap::read(&volume)?;
        Ok(map.free()?.0)
    };
    writer(&disk).apply(&[write_file(
        "rest",
        &vec![9; free(&&disk)? as usize - (200 << 10)],
    )])?;
    let gone: Vec<_> = (0..600)
        .step_by(2)
        .map(|n| delete(&format!("s{n}")))
        .collect();
    writer(&disk).apply(&gone)?;
    for size in [1_000_000, 2_500_000, 700_000] {
        writer(&disk).apply(&[write_file("scattered", &noise(size, 7))])?;
        let ours = NtfsVolume::open(&disk)?;
        assert!(
            ours.read(&path("scattered"), ByteCount::mib(64))? == noise(size, 7),
            "{size}"
        );
    }
    for n in (1..600).step_by(2) {
        let ours = NtfsVolume::open(&disk)?;
        assert!(ours.read(&path(&format!("s{n}")), ByteCount::mib(1))? == noise(16_384, n));
    }
    volume.save(&disk)?.is_sound()
}
