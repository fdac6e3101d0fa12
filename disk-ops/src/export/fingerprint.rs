//! Telling whether a disk is still the one that an export was begun with.
//!
//! Reading all of it again would cost what the export costs. So this looks at what changes when a
//! disk is used: its size, both ends (partition tables), and samples all over it; and for a file,
//! which file it is and when it was last written to. A disk that was changed between the samples
//! and has no time stamp passes: the caller compares what was written last as well.

use super::FreeSpace;
use crate::block::{BlockError, BlockRead, FileStamp};
use crate::units::{ByteCount, ByteOffset};

/// What a disk looked like at some time. Says nothing of the path it was found under, as devices
/// have other names after a reboot.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct SourceFingerprint {
    pub(super) size: u64,
    pub(super) logical_sector: u64,
    pub(super) physical_sector: u64,
    pub(super) file: Option<FileStamp>,
    /// BLAKE3 over both ends and the samples.
    pub(super) samples: [u8; 32],
    /// What is left out of it, down to the last cluster.
    pub(super) free_space: FreeSpace,
}

impl SourceFingerprint {
    /// Reads at most 6 MiB of `source`.
    pub(super) fn take(source: &dyn BlockRead, free_space: FreeSpace) -> Result<Self, BlockError> {
        let size = source.size().0;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; END as usize];
        let mut add = |offset: u64, length: u64| {
            let bytes = &mut buffer[..length as usize];
            source.read_at(ByteOffset(offset), bytes)?;
            hasher.update(bytes);
            Ok::<_, BlockError>(())
        };
        let end = END.min(size);
        add(0, end)?;
        add(size - end, end)?;
        let sample = SAMPLE.min(size);
        for number in 0..SAMPLES {
            // No overflow: disks have at most 2^46 bytes. Whole sectors, where there are some.
            let offset = (size - sample) / SAMPLES * number;
            add(offset - offset % SECTOR, sample)?;
        }
        let sectors = source.sectors();
        Ok(Self {
            size,
            logical_sector: sectors.logical.bytes(),
            physical_sector: sectors.physical.bytes(),
            file: source.file_stamp(),
            samples: *hasher.finalize().as_bytes(),
            free_space,
        })
    }

    /// How `now` differs from this, if it does; the plainest difference of several.
    pub(super) fn difference(&self, now: &Self) -> Option<String> {
        let sectors = |disk: &Self| (disk.logical_sector, disk.physical_sector);
        if self.size != now.size {
            let (was, now) = (ByteCount(self.size), ByteCount(now.size));
            return Some(format!("it had {was}, now it has {now}"));
        }
        if sectors(self) != sectors(now) {
            let ((logical, physical), (now_logical, now_physical)) = (sectors(self), sectors(now));
            return Some(format!(
                "its sectors had {logical} bytes ({physical} on the medium), now {now_logical} \
                 ({now_physical})"
            ));
        }
        if self.free_space != now.free_space {
            return Some("other clusters of it are free".into());
        }
        if self.samples != now.samples {
            return Some("its content is not what it was".into());
        }
        match (self.file, now.file) {
            (was, is) if was == is => None,
            (Some(was), Some(is)) if was.inode == is.inode => {
                Some("its file has been written to since".into())
            }
            (Some(_), Some(_)) => Some("it is another file with the same content".into()),
            (Some(_), None) => Some("it was a file, now it is a device".into()),
            (None, _) => Some("it was a device, now it is a file".into()),
        }
    }
}

const END: u64 = 1 << 20;
const SAMPLE: u64 = 64 << 10;
const SAMPLES: u64 = 64;
/// The largest sector: direct reads want whole ones.
const SECTOR: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::MemoryDisk;
    use crate::units::{SectorSize, SectorSizes};
    use crate::volume::MaskIdentity;

    fn disk(size: u64, at: u64) -> MemoryDisk {
        let mut disk = MemoryDisk::new(ByteCount(size), SectorSizes::B512);
        disk.write(ByteOffset(at), &[7]);
        disk
    }

    fn taken(disk: &MemoryDisk) -> SourceFingerprint {
        SourceFingerprint::take(disk, FreeSpace::Copy).unwrap()
    }

    #[test]
    fn a_disk_of_any_size_can_be_taken_and_is_like_itself() {
        for size in [
            512,
            4096,
            65_536,
            65_536 + 512,
            1 << 20,
            (3 << 20) + 512,
            1 << 46,
        ] {
            let before = taken(&disk(size, 0));
            assert_eq!(before.difference(&taken(&disk(size, 0))), None, "{size}");
        }
    }

    #[test]
    fn little_is_read_of_a_large_disk() {
        let large = disk(1 << 46, 0);
        taken(&large);
        assert!(large.read_counts().bytes <= 6 << 20);
    }

    #[test]
    fn a_mask_that_hides_something_else_is_told_apart() {
        let masked = |identity| SourceFingerprint {
            free_space: FreeSpace::Skip(MaskIdentity([identity; 32])),
            ..taken(&disk(1 << 20, 0))
        };
        assert_eq!(masked(1).difference(&masked(1)), None);
        let told = masked(1).difference(&masked(2)).unwrap();
        assert!(told.contains("clusters"), "{told}");
    }

    #[test]
    fn what_has_changed_is_told() {
        let size = 1 << 30;
        let before = taken(&disk(size, 0));
        let told = |now: &SourceFingerprint| before.difference(now).unwrap();
        let grown = told(&taken(&disk(size + 512, 0)));
        assert!(grown.contains("1073742336 bytes"), "{grown}");
        for at in [1, size - 1, size / 64 * 3] {
            let content = told(&taken(&disk(size, at)));
            assert!(content.contains("content"), "{at}: {content}");
        }
        let sectors = SectorSizes {
            logical: SectorSize::B4096,
            physical: SectorSize::B4096,
        };
        let sectors = told(&taken(&MemoryDisk::new(ByteCount(size), sectors)));
        assert!(sectors.contains("4096"), "{sectors}");

        let stamp = FileStamp {
            inode: 1,
            modified_seconds: 2,
            modified_nanoseconds: 3,
        };
        let with = |file| SourceFingerprint {
            file,
            ..before.clone()
        };
        let file = with(Some(stamp));
        let touched = with(Some(FileStamp {
            modified_nanoseconds: 4,
            ..stamp
        }));
        let other = with(Some(FileStamp { inode: 5, ..stamp }));
        assert_eq!(file.difference(&file), None);
        assert!(file.difference(&touched).unwrap().contains("written to"));
        assert!(file.difference(&other).unwrap().contains("another file"));
        assert!(
            file.difference(&before)
                .unwrap()
                .contains("now it is a device")
        );
        assert!(told(&file).contains("now it is a file"));
    }
}
