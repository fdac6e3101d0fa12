//! Whether the volume has room for the edits, before any of them.

use std::collections::HashSet;

use super::super::free::FreeMap;
use super::super::meta::FileMeta;
use super::super::{FileRecord, NtfsVolume};
use super::edit::VolumeEdit;
use super::error::NtfsWriteError;
use crate::block::BlockRead;
use crate::units::ByteCount;
use crate::volume::{VolumeError, WinPath};

/// Checks that the edits fit, counting what they give back only from where they give it back.
///
/// Content is counted in whole clusters. For what is new, a record of the master file table and
/// its names are counted, which a volume may have room for already: the estimate errs on the side
/// of too much, by a few KiB an edit. Trees that are deleted are not counted.
pub(super) fn check<D: BlockRead>(
    volume: &NtfsVolume<D>,
    edits: &[VolumeEdit],
) -> Result<(), NtfsWriteError> {
    let needed = needed(volume, edits)?;
    let map = FreeMap::read(volume)?;
    let free = map.free().map_err(VolumeError::from)?;
    if needed > free {
        return Err(NtfsWriteError::NoSpace { needed, free });
    }
    Ok(())
}

fn needed<D: BlockRead>(
    volume: &NtfsVolume<D>,
    edits: &[VolumeEdit],
) -> Result<ByteCount, VolumeError> {
    let geometry = volume.geometry();
    let cluster = i128::from(geometry.cluster_size);
    let in_clusters = |bytes: u64| (i128::from(bytes) + cluster - 1) / cluster * cluster;
    let name_and_record = i128::from(geometry.record_size) + NAMES;
    let mut made = HashSet::new();
    // What is taken at a point, and the most that is.
    let (mut taken, mut most, mut records) = (0, 0, 0);
    for edit in edits {
        let path = edit.path();
        match edit {
            VolumeEdit::WriteFile(file) => {
                let old = match made.insert(path) {
                    true => find(volume, path)?,
                    false => None,
                };
                match &old {
                    Some(old) => taken -= given_back(old),
                    None => records += name_and_record,
                }
                taken += in_clusters(file.content.size().0);
            }
            VolumeEdit::CreateFolder { .. } => records += name_and_record,
            VolumeEdit::Delete { .. } => {
                if let Some(old) = find(volume, path)?.filter(|_| !made.contains(path)) {
                    taken -= given_back(&old);
                }
            }
            VolumeEdit::DeleteTree { .. } | VolumeEdit::SetMeta { .. } => {}
        }
        most = most.max(taken + records);
    }
    Ok(ByteCount(u64::try_from(most).unwrap_or_default()))
}

/// What is there, if it can be said.
fn find<D: BlockRead>(
    volume: &NtfsVolume<D>,
    path: &WinPath,
) -> Result<Option<FileMeta>, VolumeError> {
    match volume.lookup(path) {
        Ok(record) => describe(volume, &record).map(Some),
        // Folders that are not there yet may be made by an edit in front of this one. What cannot
        // be followed is refused by name when it is edited.
        Err(
            VolumeError::NotFound { .. }
            | VolumeError::NotAFolder { .. }
            | VolumeError::Reparse { .. },
        ) => Ok(None),
        Err(error) => Err(error),
    }
}

fn describe<D: BlockRead>(
    volume: &NtfsVolume<D>,
    record: &FileRecord,
) -> Result<FileMeta, VolumeError> {
    volume.describe(record)
}

/// What the volume has more when this file is gone, or has a new content.
fn given_back(file: &FileMeta) -> i128 {
    match file.link_count {
        1 => i128::from(file.allocated.0),
        _ => 0,
    }
}

/// The entries of a file's names in its folder, with the slack of the index blocks.
const NAMES: i128 = 2048;
