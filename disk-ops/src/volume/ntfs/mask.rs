//! A disk whose free clusters read as zeros.
//!
//! ```text
//!  disk:  | table |  NTFS: used free used free | gap |  other |
//!  mask:  | data  |        data zero data zero | data|  data  |
//! ```
//!
//! Whoever copies the masked disk copies what is in use, and nothing of what was deleted.

use super::NtfsVolume;
use super::blocker::{Blocker, VolumeState, survey_partitions};
use super::free::Bitmap;
use crate::block::{BlockError, BlockRead, Extent, ExtentKind, Window, check_range};
use crate::partition::{ContentKind, Partition};
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
    start: u64,
    end: u64,
    bitmap: Bitmap,
}

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
        let mut blockers = survey_partitions(partitions);
        let mut volumes = Vec::new();
        for partition in partitions {
            if partition.content == Some(ContentKind::BitLocker) {
                blockers.extend(
                    super::bitlocker::blocker(&disk, partition).map_err(VolumeError::from)?,
                );
                continue;
            }
            let name = format!("partition {}", partition.number);
            let window = Window::new(&disk, partition.start, partition.length, name)
                .map_err(VolumeError::from)?;
            let volume = NtfsVolume::open(window)?;
            let found = VolumeState::read(&volume)?.blockers(Some(partition));
            if found.is_empty() {
                volumes.push(MaskedVolume {
                    start: partition.start.0,
                    end: partition.end().0,
                    bitmap: Bitmap::find(&volume)?,
                });
            }
            blockers.extend(found);
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
        let size = ByteCount(volume.end - volume.start);
        let window = Window::new(&self.disk, ByteOffset(volume.start), size, String::new())?;
        let cluster_size = u64::from(volume.bitmap.geometry.cluster_size);
        let (is_free, end) = volume.bitmap.run_at(&window, within / cluster_size)?;
        let end = end
            .saturating_mul(cluster_size)
            .saturating_add(volume.start);
        Ok((is_free, end.min(volume.end)))
    }
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
        let mut position = offset.0;
        while position < end {
            let (is_masked, mut run_end) = self.run_at(position)?;
            // Runs that were cut where a piece of the bitmap ends are read together.
            while run_end < end {
                match self.run_at(run_end)? {
                    (more, further) if more == is_masked => run_end = further,
                    _ => break,
                }
            }
            let run_end = run_end.min(end);
            // Both lie in the buffer.
            let part = &mut buffer[(position - offset.0) as usize..(run_end - offset.0) as usize];
            if is_masked {
                part.fill(0);
            } else {
                self.disk.read_at(ByteOffset(position), part)?;
            }
            position = run_end;
        }
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
}

fn sentences(blockers: &[Blocker]) -> String {
    let sentences: Vec<String> = blockers.iter().map(Blocker::to_string).collect();
    sentences.join("; ")
}
