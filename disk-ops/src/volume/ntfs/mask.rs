//! A disk whose free clusters read as zeros.
//!
//! ```text
//!  disk:  | table |  NTFS: used free used free | gap |  other |
//!  mask:  | data  |        data zero data zero | data|  data  |
//! ```
//!
//! Whoever copies the masked disk copies what is in use, and nothing of what was deleted.

use std::ops::Range;

use super::NtfsVolume;
use super::blocker::{Blocker, VolumeState, survey_partitions, survey_table, whole_disk};
use super::free::Bitmap;
use crate::block::{BlockError, BlockRead, Extent, ExtentKind, FileStamp, Window, check_range};
use crate::partition::{ContentKind, Partition, PartitionTable};
use crate::units::{ByteCount, ByteOffset, SectorSizes};
use crate::volume::VolumeError;

/// A disk on which the free clusters of some NTFS volumes are zeros, to readers and as extents.
///
/// The bitmaps are read while the disk is read, and are expected not to change meanwhile.
#[derive(Debug)]
pub struct FreeSpaceMask<D> {
    disk: D,
    /// In the order of the disk, apart from each other.
    volumes: Vec<MaskedVolume>,
}

#[derive(Debug)]
struct MaskedVolume {
    number: u32,
    start: u64,
    end: u64,
    bitmap: Bitmap,
    has_shadow_copies: bool,
}

/// How much a mask hides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MaskedSpace {
    /// The size of all free clusters.
    pub bytes: ByteCount,
    /// What tells this mask from another: BLAKE3 over where the volumes lie and what is free.
    pub identity: MaskIdentity,
}

/// Tells whether two masks hide the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MaskIdentity(pub [u8; 32]);

/// Why the free space of a disk cannot be left out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MaskError {
    /// Volumes are in a state in which their bitmaps are not to be believed.
    #[error("free space cannot be skipped: {}", sentences(blockers))]
    Blocked {
        /// All that was found.
        blockers: Vec<Blocker>,
    },
    /// A partition has no NTFS in it.
    #[error("partition {number} holds {found}, expected NTFS")]
    NotNtfs {
        /// The partition's number.
        number: u32,
        /// What is in it.
        found: String,
    },
    /// Two partitions share sectors.
    #[error("partitions overlap at {at}")]
    Overlap {
        /// The first byte that belongs to both.
        at: ByteOffset,
    },
    /// A volume cannot be read.
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

impl<D: BlockRead> FreeSpaceMask<D> {
    /// Masks the free clusters of every NTFS volume of `disk`, whose table is `table`. What has no
    /// NTFS in it is left as it is, and so is a partition that leaves the disk.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new); a dynamic disk, a storage pool and an encrypted volume stand
    /// against it wherever they are.
    pub fn of_disk(disk: D, table: &PartitionTable) -> Result<Self, MaskError> {
        let whole = whole_disk(&disk, table);
        let partitions = table.partitions.iter().chain(&whole).filter(|partition| {
            let content = partition.content.as_ref();
            let is_windows = matches!(
                content,
                Some(ContentKind::Ntfs { .. } | ContentKind::BitLocker)
            );
            is_windows && partition.end() <= disk.size().end()
        });
        let partitions: Vec<Partition> = partitions.cloned().collect();
        Self::of_partitions(disk, &partitions, survey_table(table))
    }

    /// Masks the free clusters of the NTFS volumes in `partitions` of `disk`.
    ///
    /// # Errors
    ///
    /// [`MaskError::Blocked`] with everything that stands against it, on any of them; the others
    /// when a volume is none or cannot be read.
    pub fn new(disk: D, partitions: &[Partition]) -> Result<Self, MaskError> {
        for partition in partitions {
            if !matches!(
                &partition.content,
                Some(ContentKind::Ntfs { .. } | ContentKind::BitLocker)
            ) {
                let content = partition.content.as_ref();
                return Err(MaskError::NotNtfs {
                    number: partition.number,
                    found: content.map_or("nothing known".to_owned(), ContentKind::to_string),
                });
            }
        }
        Self::of_partitions(disk, partitions, survey_partitions(partitions))
    }

    /// As [`new`](Self::new), with `blockers` that were found before.
    fn of_partitions(
        disk: D,
        partitions: &[Partition],
        mut blockers: Vec<Blocker>,
    ) -> Result<Self, MaskError> {
        let mut volumes = Vec::new();
        for partition in partitions {
            if partition.content == Some(ContentKind::BitLocker) {
                blockers.extend(
                    super::bitlocker::blocker(&disk, partition).map_err(VolumeError::from)?,
                );
                continue;
            }
            match masked_volume(&disk, partition) {
                Ok(Ok(volume)) => volumes.push(volume),
                Ok(Err(found)) => blockers.extend(found),
                Err(error @ VolumeError::Block(_)) => return Err(error.into()),
                Err(error) => blockers.push(Blocker::unreadable(partition, &error)),
            }
        }
        if !blockers.is_empty() {
            return Err(MaskError::Blocked { blockers });
        }
        volumes.sort_by_key(|volume| volume.start);
        let overlap = volumes.windows(2).find(|pair| pair[0].end > pair[1].start);
        if let Some(pair) = overlap {
            return Err(MaskError::Overlap {
                at: ByteOffset(pair[1].start),
            });
        }
        Ok(Self { disk, volumes })
    }

    /// How much is hidden. Reads every bitmap once.
    ///
    /// # Errors
    ///
    /// [`BlockError`] when a bitmap cannot be read.
    pub fn masked(&self) -> Result<MaskedSpace, BlockError> {
        let mut hasher = blake3::Hasher::new();
        let mut bytes = 0_u64;
        for volume in &self.volumes {
            let cluster_size = u64::from(volume.bitmap.geometry.cluster_size);
            for number in [volume.start, volume.end, cluster_size] {
                hasher.update(&number.to_le_bytes());
            }
            let window = self.window(volume)?;
            let free = volume.bitmap.count_free(&window, |piece| {
                hasher.update(piece);
            })?;
            // The clusters of a volume fit into its partition.
            bytes += free * cluster_size;
        }
        Ok(MaskedSpace {
            bytes: ByteCount(bytes),
            identity: MaskIdentity(*hasher.finalize().as_bytes()),
        })
    }

    /// How many volumes are masked.
    pub fn volumes(&self) -> usize {
        self.volumes.len()
    }

    /// The numbers of the partitions with shadow copies, whose older versions of files live in
    /// clusters that count as free; 0 for a volume without a table.
    pub fn shadow_copies(&self) -> impl Iterator<Item = u32> {
        let volumes = self.volumes.iter();
        let with = volumes.filter(|volume| volume.has_shadow_copies);
        with.map(|volume| volume.number)
    }

    /// The disk below the mask.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// Whether the byte at `offset` is masked, and the first byte behind it that may be otherwise.
    fn run_at(&self, offset: u64) -> Result<(bool, u64), BlockError> {
        let index = self.volumes.partition_point(|volume| volume.end <= offset);
        let Some(volume) = self.volumes.get(index) else {
            return Ok((false, self.disk.size().0));
        };
        let Some(within) = offset.checked_sub(volume.start) else {
            return Ok((false, volume.start));
        };
        let window = self.window(volume)?;
        let cluster_size = u64::from(volume.bitmap.geometry.cluster_size);
        let (is_free, end) = volume.bitmap.run_at(&window, within / cluster_size)?;
        let end = end
            .saturating_mul(cluster_size)
            .saturating_add(volume.start);
        Ok((is_free, end.min(volume.end)))
    }

    fn window(&self, volume: &MaskedVolume) -> Result<Window<&D>, BlockError> {
        let size = ByteCount(volume.end - volume.start);
        Window::new(&self.disk, ByteOffset(volume.start), size, String::new())
    }

    /// What is not masked between `start` and `end`, in order; neighbours never touch.
    fn data_runs(&self, start: u64, end: u64) -> Result<Vec<Range<u64>>, BlockError> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        let mut position = start;
        while position < end {
            let (is_masked, run_end) = self.run_at(position)?;
            let run_end = run_end.min(end);
            match runs.last_mut() {
                _ if is_masked => {}
                Some(run) if run.end == position => run.end = run_end,
                _ => runs.push(position..run_end),
            }
            position = run_end;
        }
        Ok(runs)
    }
}

/// The volume in `partition`, or what stands against believing what is free on it.
fn masked_volume<D: BlockRead>(
    disk: &D,
    partition: &Partition,
) -> Result<Result<MaskedVolume, Vec<Blocker>>, VolumeError> {
    let name = match partition.number {
        0 => disk.name().to_owned(),
        number => format!("partition {number}"),
    };
    let window = Window::new(disk, partition.start, partition.length, name)?;
    let volume = NtfsVolume::open(window)?;
    let state = VolumeState::read(&volume)?;
    let found = state.blockers(Some(partition).filter(|partition| partition.number > 0));
    if !found.is_empty() {
        return Ok(Err(found));
    }
    Ok(Ok(MaskedVolume {
        number: partition.number,
        start: partition.start.0,
        end: partition.end().0,
        bitmap: Bitmap::find(&volume)?,
        has_shadow_copies: state.has_shadow_copies,
    }))
}

impl<D: BlockRead> BlockRead for FreeSpaceMask<D> {
    fn size(&self) -> ByteCount {
        self.disk.size()
    }

    fn sectors(&self) -> SectorSizes {
        self.disk.sectors()
    }

    fn name(&self) -> &str {
        self.disk.name()
    }

    fn read_at(&self, offset: ByteOffset, buffer: &mut [u8]) -> Result<(), BlockError> {
        check_range(self, offset, ByteCount(buffer.len() as u64))?;
        let end = offset.0 + buffer.len() as u64;
        let runs = self.data_runs(offset.0, end)?;
        // All runs lie in the buffer.
        let within = |position: u64| (position - offset.0) as usize;
        let mut left = runs.as_slice();
        while let [first, ..] = left {
            let pairs = left.windows(2);
            let near = pairs.take_while(|pair| pair[1].start - pair[0].end <= SHORT_GAP);
            let (group, others) = left.split_at(1 + near.count());
            let last = group.last().unwrap_or(first);
            let part = &mut buffer[within(first.start)..within(last.end)];
            self.disk.read_at(ByteOffset(first.start), part)?;
            left = others;
        }
        let mut masked_from = 0;
        for run in &runs {
            buffer[masked_from..within(run.start)].fill(0);
            masked_from = within(run.end);
        }
        buffer[masked_from..].fill(0);
        Ok(())
    }

    fn extent_at(&self, offset: ByteOffset) -> Result<Extent, BlockError> {
        check_range(self, offset, ByteCount(1))?;
        let (is_masked, end) = self.run_at(offset.0)?;
        let end = ByteOffset(end);
        if is_masked {
            return Ok(Extent {
                kind: ExtentKind::Zero,
                end,
            });
        }
        let extent = self.disk.extent_at(offset)?;
        Ok(Extent {
            kind: extent.kind,
            end: extent.end.min(end),
        })
    }

    fn file_stamp(&self) -> Option<FileStamp> {
        self.disk.file_stamp()
    }
}

fn sentences(blockers: &[Blocker]) -> String {
    let sentences: Vec<String> = blockers.iter().map(Blocker::to_string).collect();
    sentences.join("; ")
}

/// A gap between clusters in use that is read along with them: to begin another read costs more.
const SHORT_GAP: u64 = 128 << 10;
