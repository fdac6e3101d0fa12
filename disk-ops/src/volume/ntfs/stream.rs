//! The value of an attribute as bytes: resident, in clusters, sparse, or compressed by LZNT1.
//!
//! The parser's own readers are not used for this: they do not unpack, and take what lies behind
//! the initialized part of a value for its content.

use super::geometry::Geometry;
use super::lznt1;
use super::runs::Run;
use crate::block::{BlockError, BlockRead};
use crate::units::{ByteCount, ByteOffset};
use crate::volume::VolumeError;

/// Where the bytes of a value are.
#[derive(Clone, Debug)]
pub(in crate::volume) struct Stream {
    /// The length of the value.
    pub size: u64,
    /// The room that it takes.
    pub allocated: u64,
    /// What the attribute says of its bytes.
    pub encoding: Encoding,
    /// Where they are.
    pub place: Place,
}

/// What is done to the bytes of a value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::volume) enum Encoding {
    /// Encrypted by EFS.
    Encrypted,
    /// LZNT1 in units of so many clusters.
    Lznt1 { unit: u64 },
    /// Nothing.
    Plain { is_sparse: bool },
}

/// Where the bytes of a value are.
#[derive(Clone, Debug)]
pub(in crate::volume) enum Place {
    /// In clusters; what is behind the first `initialized` bytes reads as zeros.
    Clusters { runs: Vec<Run>, initialized: u64 },
    /// In the record.
    Resident(Vec<u8>),
}

impl Stream {
    /// Fills `target` from byte `offset` of the value on, and returns how much there was.
    pub fn read_at<D: BlockRead + ?Sized>(
        &self,
        volume: &D,
        geometry: &Geometry,
        file: &str,
        offset: u64,
        target: &mut [u8],
    ) -> Result<usize, VolumeError> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = target.len().min(left);
        let target = &mut target[..length];
        if target.is_empty() {
            return Ok(0);
        }
        match (&self.place, self.encoding) {
            (_, Encoding::Encrypted) => {
                return Err(VolumeError::Encrypted {
                    file: file.to_owned(),
                });
            }
            (Place::Resident(value), _) => {
                // `size` is the value's length, so that the position lies in it.
                let start = offset as usize;
                target.copy_from_slice(&value[start..start + length]);
            }
            (Place::Clusters { runs, initialized }, Encoding::Plain { .. }) => {
                let there = usize::try_from(initialized.saturating_sub(offset));
                let (there, zeros) = target.split_at_mut(length.min(there.unwrap_or(usize::MAX)));
                zeros.fill(0);
                read_runs(volume, geometry, runs, offset, there)?;
            }
            (Place::Clusters { runs, initialized }, Encoding::Lznt1 { unit }) => {
                let units = Units {
                    volume,
                    geometry,
                    file,
                    runs,
                    initialized: *initialized,
                    clusters: unit,
                };
                units.read(offset, target)?;
            }
        }
        Ok(length)
    }

    /// Reads the whole value, if it is no longer than `limit`.
    pub fn read_all<D: BlockRead + ?Sized>(
        &self,
        volume: &D,
        geometry: &Geometry,
        file: &str,
        limit: ByteCount,
    ) -> Result<Vec<u8>, VolumeError> {
        check_limit(file, ByteCount(self.size), limit)?;
        let mut value = vec![0; self.size as usize];
        self.read_at(volume, geometry, file, 0, &mut value)?;
        Ok(value)
    }
}

/// Refuses what is larger than `limit`, or than can be held in memory.
pub(in crate::volume) fn check_limit(
    file: &str,
    found: ByteCount,
    limit: ByteCount,
) -> Result<(), VolumeError> {
    let limit = limit.min(ByteCount(isize::MAX as u64));
    if found > limit {
        return Err(VolumeError::TooLarge {
            file: file.to_owned(),
            found,
            limit,
        });
    }
    Ok(())
}

/// Fills `target` from byte `offset` of the value that `runs` hold. What they do not cover is
/// zero; `runs` are in order.
pub(in crate::volume) fn read_runs<D: BlockRead + ?Sized>(
    volume: &D,
    geometry: &Geometry,
    runs: &[Run],
    offset: u64,
    target: &mut [u8],
) -> Result<(), BlockError> {
    let cluster = u64::from(geometry.cluster_size);
    let mut done = 0;
    let mut index = runs.partition_point(|run| run.end() <= offset / cluster);
    while done < target.len() {
        let position = offset + done as u64;
        let left = target.len() - done;
        let Some(run) = runs.get(index) else {
            target[done..].fill(0);
            break;
        };
        // Values are at most 2^63 bytes long, and `position` lies in front of the run's end.
        let within = position - run.first * cluster;
        let in_run = run.length * cluster - within;
        let piece = left.min(usize::try_from(in_run).unwrap_or(usize::MAX));
        let part = &mut target[done..done + piece];
        match run.cluster {
            Some(start) => volume.read_at(ByteOffset(start * cluster + within), part)?,
            None => part.fill(0),
        }
        done += piece;
        index += 1;
    }
    Ok(())
}

/// A value in compression units: each lies in as many clusters as it needs, and the rest of its
/// clusters are not there.
struct Units<'a, D: ?Sized> {
    volume: &'a D,
    geometry: &'a Geometry,
    file: &'a str,
    runs: &'a [Run],
    initialized: u64,
    clusters: u64,
}

impl<D: BlockRead + ?Sized> Units<'_, D> {
    fn read(&self, offset: u64, target: &mut [u8]) -> Result<(), VolumeError> {
        let size = self.clusters * u64::from(self.geometry.cluster_size);
        // At most 64 clusters of 64 KiB, as the attribute was checked.
        let mut unit = vec![0; size as usize];
        let mut done = 0;
        while done < target.len() {
            let position = offset + done as u64;
            let within = (position % size) as usize;
            self.unpack(position / size, &mut unit)?;
            let piece = (unit.len() - within).min(target.len() - done);
            target[done..done + piece].copy_from_slice(&unit[within..within + piece]);
            done += piece;
        }
        Ok(())
    }

    /// Fills `unit` with the bytes of the unit `number`.
    fn unpack(&self, number: u64, unit: &mut [u8]) -> Result<(), VolumeError> {
        let start = number * unit.len() as u64;
        let first = number * self.clusters;
        let there = self.clusters_there(first);
        let initialized = self
            .initialized
            .saturating_sub(start)
            .min(unit.len() as u64) as usize;
        if there == 0 || initialized == 0 {
            unit.fill(0);
            return Ok(());
        }
        if there == self.clusters {
            read_runs(self.volume, self.geometry, self.runs, start, unit)?;
        } else {
            let mut packed = vec![0; (there * u64::from(self.geometry.cluster_size)) as usize];
            read_runs(self.volume, self.geometry, self.runs, start, &mut packed)?;
            lznt1::decompress(&packed, unit).map_err(|source| VolumeError::CompressedUnit {
                file: self.file.to_owned(),
                at: ByteOffset(start),
                source,
            })?;
        }
        unit[initialized..].fill(0);
        Ok(())
    }

    /// How many of the unit's clusters, from `first` on, are there; the first that is not ends
    /// the packed bytes.
    fn clusters_there(&self, first: u64) -> u64 {
        let end = first + self.clusters;
        let index = self.runs.partition_point(|run| run.end() <= first);
        let runs = self.runs.get(index..).unwrap_or_default();
        let present = runs
            .iter()
            .take_while(|run| run.first < end && run.cluster.is_some());
        present
            .map(|run| run.end().min(end) - run.first.max(first))
            .sum()
    }
}
