//! What is free on a volume, by its `$Bitmap`.
//!
//! The bitmap has a bit for every cluster, set when it is in use. It is read in pieces of 256 KiB
//! (8 GiB of clusters of 4 KiB), so that the memory needed does not grow with the volume.
//!
//! ```text
//!  cluster   0 ......... usable         clusters      end of the partition
//!            |  by the bitmap  | in use, whatever the bitmap says  |
//! ```
//!
//! In use without asking the bitmap is what lies behind the last cluster, where the spare boot
//! sector is, and every cluster that the last sector of the partition touches.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::geometry::Geometry;
use super::runs::Run;
use super::stream::{Encoding, Place, Stream, read_runs};
use super::{BITMAP_RECORD, DATA, LOGFILE_RECORD, NtfsVolume};
use crate::block::{BlockError, BlockRead};
use crate::units::{ByteCount, ByteOffset};
use crate::volume::VolumeError;

/// The free clusters of a volume, read from the disk as they are asked for.
#[derive(Debug)]
pub struct FreeMap<'v, D> {
    volume: &'v NtfsVolume<D>,
    bitmap: Bitmap,
}

/// Consecutive free clusters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FreeRange {
    /// Where they begin, on the volume (in the partition).
    pub start: ByteOffset,
    /// How many bytes they have.
    pub length: ByteCount,
}

impl<'v, D: BlockRead> FreeMap<'v, D> {
    /// Finds the bitmap of `volume` and checks that it can be believed: that it covers every
    /// cluster, and has the boot sector, the master file table, the log and itself in use.
    ///
    /// Whether the volume is in a state in which the bitmap is up to date, is another question:
    /// [`VolumeState`](crate::volume::VolumeState).
    ///
    /// # Errors
    ///
    /// [`VolumeError::Bitmap`] when it cannot be believed; those of reading the volume.
    pub fn read(volume: &'v NtfsVolume<D>) -> Result<Self, VolumeError> {
        let bitmap = Bitmap::find(volume)?;
        Ok(Self { volume, bitmap })
    }

    /// The free ranges in ascending order; neighbours never touch.
    pub fn ranges(&self) -> impl Iterator<Item = Result<FreeRange, BlockError>> {
        let cluster_size = u64::from(self.bitmap.geometry.cluster_size);
        let mut next = 0;
        std::iter::from_fn(move || {
            loop {
                let first = next;
                if first >= self.bitmap.usable {
                    return None;
                }
                let is_free = match self.bitmap.whole_run_at(&self.volume.disk, first) {
                    Ok((is_free, end)) => {
                        next = end;
                        is_free
                    }
                    Err(error) => {
                        next = self.bitmap.usable;
                        return Some(Err(error));
                    }
                };
                if is_free {
                    return Some(Ok(FreeRange {
                        start: ByteOffset(first * cluster_size),
                        length: ByteCount((next - first) * cluster_size),
                    }));
                }
            }
        })
    }

    /// How many bytes are free in all.
    ///
    /// # Errors
    ///
    /// [`BlockError`] when the bitmap cannot be read.
    pub fn free(&self) -> Result<ByteCount, BlockError> {
        let free = self.bitmap.count_free(&self.volume.disk, |_| ())?;
        // The clusters of a volume fit into its partition.
        Ok(ByteCount(
            free * u64::from(self.bitmap.geometry.cluster_size),
        ))
    }
}

/// The bitmap of a volume, apart from the disk that it is on.
#[derive(Debug)]
pub(super) struct Bitmap {
    pub geometry: Geometry,
    /// The clusters in front of those that are never free.
    pub usable: u64,
    runs: Vec<Run>,
    /// The pieces that were read last, by number.
    pieces: Mutex<VecDeque<(u64, Arc<[u8]>)>>,
}

impl Bitmap {
    pub fn find<D: BlockRead>(volume: &NtfsVolume<D>) -> Result<Self, VolumeError> {
        let wrong = |problem: String| VolumeError::Bitmap {
            volume: volume.disk.name().to_owned(),
            problem,
        };
        let geometry = volume.geometry;
        let record = volume.record(BITMAP_RECORD)?;
        let data = record.attribute(DATA, "");
        let stream = &data
            .ok_or_else(|| wrong("has no content".to_owned()))?
            .stream;
        let (Place::Clusters { runs, initialized }, Encoding::Plain { .. }) =
            (&stream.place, stream.encoding)
        else {
            return Err(wrong("is not kept plainly in clusters".to_owned()));
        };
        let needed = geometry.clusters.div_ceil(8);
        if stream.size.min(*initialized) < needed {
            return Err(wrong(format!(
                "has {} bytes, {initialized} of them initialized, expected {needed} for {} clusters",
                stream.size, geometry.clusters
            )));
        }
        if runs.iter().any(|run| run.cluster.is_none()) {
            return Err(wrong("has holes".to_owned()));
        }
        let cluster_size = u64::from(geometry.cluster_size);
        let in_front_of_last_sector = volume.disk.size().0 - u64::from(geometry.sector_size);
        let bitmap = Self {
            geometry,
            usable: geometry
                .clusters
                .min(in_front_of_last_sector / cluster_size),
            runs: runs.clone(),
            pieces: Mutex::default(),
        };
        bitmap.check_known(volume)?;
        Ok(bitmap)
    }

    /// Checks what is in use on every volume.
    fn check_known<D: BlockRead>(&self, volume: &NtfsVolume<D>) -> Result<(), VolumeError> {
        let table = volume.record(0)?;
        let log = volume.record(LOGFILE_RECORD)?;
        let boot = Run {
            first: 0,
            length: 1,
            cluster: Some(0),
        };
        let of = |stream: Option<&Stream>| match stream.map(|stream| &stream.place) {
            Some(Place::Clusters { runs, .. }) => runs.clone(),
            _ => Vec::new(),
        };
        let data =
            |record: &super::FileRecord| of(record.attribute(DATA, "").map(|data| &data.stream));
        let known = [
            ("the boot sector", vec![boot]),
            ("the master file table", data(&table)),
            ("$LogFile", data(&log)),
            ("itself", self.runs.clone()),
        ];
        for (owner, runs) in known {
            for run in runs {
                let Some(start) = run.cluster else { continue };
                let mut cluster = start;
                while cluster < (start + run.length).min(self.usable) {
                    let (is_free, end) = self.run_at(&volume.disk, cluster)?;
                    if is_free {
                        return Err(VolumeError::Bitmap {
                            volume: volume.disk.name().to_owned(),
                            problem: format!("has cluster {cluster} free, where {owner} lies"),
                        });
                    }
                    cluster = end;
                }
            }
        }
        Ok(())
    }

    /// Whether `cluster` is free, and the first cluster behind it that may be otherwise. The run
    /// is cut where a piece of the bitmap ends, so that no call reads more than one piece.
    pub fn run_at<D: BlockRead + ?Sized>(
        &self,
        volume: &D,
        cluster: u64,
    ) -> Result<(bool, u64), BlockError> {
        if cluster >= self.usable {
            return Ok((false, u64::MAX));
        }
        let number = cluster / CLUSTERS_IN_PIECE;
        let piece = self.piece(volume, number)?;
        let first = number * CLUSTERS_IN_PIECE;
        // A piece has at most 2^21 bits.
        let limit = (self.usable - first).min(8 * piece.len() as u64) as usize;
        let (is_used, end) = same_bits(&piece, (cluster - first) as usize, limit);
        Ok((!is_used, first + end as u64))
    }

    /// How many clusters are free. Hands every piece of the bitmap to `see`, in order.
    pub fn count_free<D: BlockRead + ?Sized>(
        &self,
        volume: &D,
        mut see: impl FnMut(&[u8]),
    ) -> Result<u64, BlockError> {
        let mut used = 0;
        for number in 0..self.usable.div_ceil(CLUSTERS_IN_PIECE) {
            let piece = self.piece(volume, number)?;
            see(&piece);
            let clusters = (self.usable - number * CLUSTERS_IN_PIECE).min(CLUSTERS_IN_PIECE);
            used += ones(&piece, clusters as usize);
        }
        Ok(self.usable - used)
    }

    /// As [`run_at`](Self::run_at), but to the true end of the run.
    fn whole_run_at<D: BlockRead + ?Sized>(
        &self,
        volume: &D,
        cluster: u64,
    ) -> Result<(bool, u64), BlockError> {
        let (is_free, mut end) = self.run_at(volume, cluster)?;
        while end < self.usable && end.is_multiple_of(CLUSTERS_IN_PIECE) {
            match self.run_at(volume, end)? {
                (more, further) if more == is_free => end = further,
                _ => break,
            }
        }
        Ok((is_free, end))
    }

    fn piece<D: BlockRead + ?Sized>(
        &self,
        volume: &D,
        number: u64,
    ) -> Result<Arc<[u8]>, BlockError> {
        let pieces = || self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, piece)) = pieces().iter().find(|(kept, _)| *kept == number) {
            return Ok(Arc::clone(piece));
        }
        let start = number * PIECE;
        let length = (self.usable.div_ceil(8) - start).min(PIECE);
        // At most `PIECE`.
        let mut piece = vec![0; length as usize];
        read_runs(volume, &self.geometry, &self.runs, start, &mut piece)?;
        let piece: Arc<[u8]> = piece.into();
        let mut kept = pieces();
        kept.truncate(KEPT_PIECES - 1);
        kept.push_front((number, Arc::clone(&piece)));
        Ok(piece)
    }
}

/// How many of the first `limit` bits are set.
fn ones(bits: &[u8], limit: usize) -> u64 {
    let (words, _) = bits.as_chunks::<8>();
    let words = &words[..words.len().min(limit / 64)];
    let whole: u64 = words
        .iter()
        .map(|word| u64::from(u64::from_le_bytes(*word).count_ones()))
        .sum();
    let left = (64 * words.len()..limit).filter(|at| {
        bits.get(at / 8)
            .is_some_and(|byte| byte >> (at % 8) & 1 == 1)
    });
    whole + left.count() as u64
}

/// The value of bit `from`, and the first bit behind it, up to `limit`, that is otherwise.
fn same_bits(bits: &[u8], from: usize, limit: usize) -> (bool, usize) {
    let bit = |at: usize| {
        bits.get(at / 8)
            .is_some_and(|byte| byte >> (at % 8) & 1 == 1)
    };
    let value = bit(from);
    let uniform = if value { 0xFF } else { 0x00 };
    let mut at = from + 1;
    while at < limit {
        if at.is_multiple_of(8) {
            let whole = bits.get(at / 8..limit / 8).unwrap_or_default();
            at += 8 * whole.iter().take_while(|byte| **byte == uniform).count();
            if at >= limit {
                break;
            }
        }
        if bit(at) != value {
            return (value, at);
        }
        at += 1;
    }
    (value, limit)
}

/// How much of a bitmap is read at once.
const PIECE: u64 = 256 << 10;

const CLUSTERS_IN_PIECE: u64 = 8 * PIECE;

/// How many pieces are kept: those around the positions of a few readers.
const KEPT_PIECES: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_of_bits_end_where_the_first_other_bit_is(
            bytes in prop::collection::vec(prop_oneof![Just(0_u8), Just(0xFF), any::<u8>()], 1..40),
            from in 0..300_usize,
            cut in 0..8_usize,
        ) {
            let limit = bytes.len() * 8 - cut;
            let from = from % limit;
            let bit = |at: usize| bytes[at / 8] >> (at % 8) & 1 == 1;
            let end = (from..limit).find(|at| bit(*at) != bit(from)).unwrap_or(limit);
            prop_assert_eq!(same_bits(&bytes, from, limit), (bit(from), end));
        }

        #[test]
        fn set_bits_are_counted_up_to_the_limit(
            bytes in prop::collection::vec(any::<u8>(), 0..40),
            cut in 0..90_usize,
        ) {
            let limit = (bytes.len() * 8).saturating_sub(cut);
            let set = (0..limit).filter(|at| bytes[at / 8] >> (at % 8) & 1 == 1).count();
            prop_assert_eq!(ones(&bytes, limit), set as u64);
        }
    }
}
