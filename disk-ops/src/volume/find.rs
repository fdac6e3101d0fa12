//! Which volumes have a Windows on them, told by what is there and not by where it is.

use super::ntfs::NtfsVolume;
use super::{DirectoryEntry, VolumeError, WinPath};
use crate::block::{BlockRead, Window};
use crate::partition::{ContentKind, PartitionTable};
use crate::units::{ByteCount, ByteOffset};

/// An installation of Windows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WindowsInstallation {
    /// The number of the partition; `None` when the volume fills the disk without a table.
    pub partition: Option<u32>,
    /// Where the volume begins on the disk.
    pub start: ByteOffset,
    /// How long its partition is.
    pub length: ByteCount,
    /// The folder of the installation, nearly always `Windows`.
    pub folder: WinPath,
}

/// What was found on a disk.
#[derive(Debug, Default)]
pub struct WindowsSearch {
    /// Every installation, in the order of the partitions. More than one is for the caller to
    /// refuse or to choose from.
    pub installations: Vec<WindowsInstallation>,
    /// The NTFS volumes that could not be searched, by partition, and why.
    pub unreadable: Vec<(Option<u32>, VolumeError)>,
}

/// Looks for Windows on all NTFS volumes of `disk`.
///
/// An installation is a folder of the root with `System32\config\SYSTEM` in it, and with
/// `System32\ntoskrnl.exe`, `System32\winload.exe` or `System32\winload.efi`. What an upgrade has
/// left in `Windows.old` lies deeper and is none.
///
/// # Errors
///
/// [`VolumeError::Block`] when the disk cannot be read. A damaged volume is no error: it stands
/// in [`WindowsSearch::unreadable`].
pub fn find_windows<D: BlockRead>(
    disk: &D,
    table: &PartitionTable,
) -> Result<WindowsSearch, VolumeError> {
    let mut search = WindowsSearch::default();
    let whole = (None, ByteOffset::ZERO, disk.size(), table.content.as_ref());
    let partitions = table.partitions.iter().map(|partition| {
        let content = partition.content.as_ref();
        (
            Some(partition.number),
            partition.start,
            partition.length,
            content,
        )
    });
    for (number, start, length, content) in partitions.chain([whole]) {
        if !matches!(content, Some(ContentKind::Ntfs { .. })) {
            continue;
        }
        let name = number.map_or(disk.name().to_owned(), |number| {
            format!("partition {number}")
        });
        let window = Window::new(disk, start, length, name)?;
        match NtfsVolume::open(window).and_then(|volume| installations(&volume)) {
            Ok(folders) => {
                let found = folders.into_iter().map(|folder| WindowsInstallation {
                    partition: number,
                    start,
                    length,
                    folder,
                });
                search.installations.extend(found);
            }
            Err(error @ VolumeError::Block(_)) => return Err(error),
            Err(error) => search.unreadable.push((number, error)),
        }
    }
    Ok(search)
}

/// The folders of the root that hold an installation.
fn installations<D: BlockRead>(volume: &NtfsVolume<D>) -> Result<Vec<WinPath>, VolumeError> {
    let mut found = Vec::new();
    let folders = volume.list(&WinPath::ROOT)?;
    for folder in folders.iter().filter(|entry| could_be_windows(entry)) {
        // A name that no path can have is none of an installation.
        let Ok(path) = WinPath::ROOT.join(&folder.name) else {
            continue;
        };
        if is_installation(volume, &path)? {
            found.push(path);
        }
    }
    Ok(found)
}

fn could_be_windows(entry: &DirectoryEntry) -> bool {
    use super::FileAttributes;
    entry.attributes.is_folder() && !entry.attributes.contains(FileAttributes::REPARSE_POINT)
}

fn is_installation<D: BlockRead>(
    volume: &NtfsVolume<D>,
    folder: &WinPath,
) -> Result<bool, VolumeError> {
    let holds = |name: &str| match folder.join(name) {
        Ok(path) => match volume.exists(&path) {
            // Windows has no links on this way.
            Err(VolumeError::Reparse { .. }) => Ok(false),
            answer => answer,
        },
        Err(_) => Ok(false),
    };
    if !holds(r"System32\config\SYSTEM")? {
        return Ok(false);
    }
    for kernel in KERNELS {
        if holds(kernel)? {
            return Ok(true);
        }
    }
    Ok(false)
}

const KERNELS: [&str; 3] = [
    r"System32\ntoskrnl.exe",
    r"System32\winload.exe",
    r"System32\winload.efi",
];
