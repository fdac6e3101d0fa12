//! Where the recovery environment of Windows is on a disk.
//!
//! `reagentc` keeps it on a partition of its own, or on that of Windows, and while it is off in the folder
//! of Windows. Old ones stay behind on partitions that an upgrade has left: all are found.

use super::header::{WimHeader, WimProblem};
use crate::block::{BlockRead, Window};
use crate::partition::{ContentKind, PartitionTable};
use crate::units::{ByteCount, ByteOffset};
use crate::volume::{NtfsVolume, VolumeError, WinPath, WindowsInstallation};

/// A recovery environment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RecoveryImage {
    /// The number of its partition; `None` if the volume fills the disk.
    pub partition: Option<u32>,
    /// Where the volume begins on the disk.
    pub start: ByteOffset,
    /// How long its partition is.
    pub length: ByteCount,
    /// The file.
    pub path: WinPath,
    /// How long the file is.
    pub size: ByteCount,
    /// What its header says, or why it cannot be changed.
    pub header: Result<WimHeader, WimProblem>,
}

/// Looks for recovery environments on all NTFS volumes of `disk`, which has these Windows on it.
///
/// Volumes that cannot be read are passed over, as are files that cannot: whoever looks at the volumes
/// tells of them.
///
/// # Errors
///
/// [`VolumeError::Block`] when the disk cannot be read.
pub fn find_recovery<D: BlockRead>(
    disk: &D,
    table: &PartitionTable,
    windows: &[WindowsInstallation],
) -> Result<Vec<RecoveryImage>, VolumeError> {
    let whole = (None, ByteOffset::ZERO, disk.size(), table.content.as_ref());
    let partitions = table.partitions.iter().map(|partition| {
        let content = partition.content.as_ref();
        let number = Some(partition.number);
        (number, partition.start, partition.length, content)
    });
    let mut found = Vec::new();
    for (partition, start, length, content) in partitions.chain([whole]) {
        if !matches!(content, Some(ContentKind::Ntfs { .. })) {
            continue;
        }
        let name = partition.map_or(disk.name().to_owned(), |number| {
            format!("partition {number}")
        });
        let window = Window::new(disk, start, length, name)?;
        let volume = match NtfsVolume::open(window) {
            Ok(volume) => volume,
            Err(error @ VolumeError::Block(_)) => return Err(error),
            Err(_) => continue,
        };
        let here = windows.iter().filter(|windows| windows.start == start);
        let off = here.filter_map(|windows| windows.folder.join(PLACE_WHEN_OFF).ok());
        for path in PLACE.parse().into_iter().chain(off) {
            match look(&volume, &path) {
                Ok((size, header)) => found.push(RecoveryImage {
                    partition,
                    start,
                    length,
                    path,
                    size,
                    header,
                }),
                Err(error @ VolumeError::Block(_)) => return Err(error),
                Err(_) => {}
            }
        }
    }
    Ok(found)
}

fn look<D: BlockRead>(
    volume: &NtfsVolume<D>,
    path: &WinPath,
) -> Result<(ByteCount, Result<WimHeader, WimProblem>), VolumeError> {
    let file = volume.open_file(path)?;
    let mut start = [0; WimHeader::LENGTH];
    let read = file.read_at(ByteOffset::ZERO, &mut start)?;
    let start = start.get(..read).unwrap_or_default();
    Ok((file.size(), WimHeader::parse(start, file.size())))
}

/// Where it is while it is on, on whatever volume.
const PLACE: &str = r"Recovery\WindowsRE\Winre.wim";

/// Where it is while it is off, in the folder of Windows.
const PLACE_WHEN_OFF: &str = r"System32\Recovery\Winre.wim";
