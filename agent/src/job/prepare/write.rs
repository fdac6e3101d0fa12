//! What a plan has come to in memory, written to the volumes of the overlay.

use std::sync::Arc;

use ce_disk::block::{BlockRead, Overlay};
use ce_disk::cancel::Cancel;
use ce_disk::units::ByteCount;
use ce_disk::volume::ntfs::write::{
    ConfinedWriter, FileWrite, NtfsWrite, Security, ShortNames, VolumeEdit,
};
use ce_disk::volume::{
    FatEdit, FatVolume, NtfsVolume, VolumeError, WinPath, WindowsVolume, write_fat,
};
use ce_platform::apply::{Content, FileChange, PreparedFiles};
use ce_regf::neutralise_log;

use super::super::JobError;
use super::super::failure::{
    fat_write_failed, no_room_in_scratch, ntfs_write_failed, volume_failed,
};
use super::guest::Place;

/// Makes sure that the contents of `files` fit into the overlay. What file systems need beside them is
/// little, and found out when it is written.
///
/// # Errors
///
/// `ScratchNoSpace`, with what is needed and what there is.
pub(super) fn expect_room<D>(overlay: &Overlay<D>, files: &PreparedFiles) -> Result<(), JobError>
where
    D: BlockRead,
{
    let needed = ByteCount(files.written_in_blocks(OVERLAY_BLOCK));
    let room = ByteCount(overlay.limit().0.saturating_sub(overlay.changed().0));
    match needed <= room {
        true => Ok(()),
        false => Err(no_room_in_scratch(needed, room)),
    }
}

/// Writes `files`.
pub(super) fn write<D: BlockRead>(
    overlay: &Overlay<D>,
    place: &Place,
    files: PreparedFiles,
    short_names: ShortNames,
    cancel: Cancel,
) -> Result<(), JobError> {
    let disk = place.windows.of_disk(overlay)?;
    let edits = {
        let read: &dyn BlockRead = &disk;
        let volume = NtfsVolume::open(read).map_err(|error| volume_failed(&error))?;
        let mut edits = Vec::new();
        for change in files.windows {
            edits.extend(folder_for(&volume, &change)?);
            edits.push(volume_edit(&volume, change)?);
        }
        edits
    };
    if !edits.is_empty() {
        ConfinedWriter::new(disk, short_names)
            .with_cancel(cancel)
            .apply(&edits)
            .map_err(|error| ntfs_write_failed(&error))?;
    }
    if let Some(boot) = &place.boot
        && !files.boot.is_empty()
    {
        let disk = boot.of_disk(overlay)?;
        let edits = {
            let volume = FatVolume::open(&disk).map_err(|error| volume_failed(&error))?;
            let edits = files.boot.into_iter();
            edits
                .map(|change| fat_edit(&volume, change))
                .collect::<Result<Vec<_>, _>>()?
        };
        write_fat(&disk, &edits).map_err(|error| fat_write_failed(&error))?;
    }
    Ok(())
}

/// The folder of a file that is made, if it has to be made as well.
fn folder_for(
    volume: &dyn WindowsVolume,
    change: &FileChange,
) -> Result<Option<VolumeEdit>, JobError> {
    let (Content::Written(_), Some(folder)) = (&change.content, change.path.parent()) else {
        return Ok(None);
    };
    let is_there = volume
        .exists(&folder)
        .map_err(|error| volume_failed(&error))?;
    Ok((!is_there).then_some(VolumeEdit::CreateFolder {
        path: folder,
        security: Security::Inherit,
    }))
}

fn volume_edit(volume: &dyn WindowsVolume, change: FileChange) -> Result<VolumeEdit, JobError> {
    let path = change.path;
    let content = match change.content {
        Content::Deleted => return Ok(VolumeEdit::Delete { path }),
        Content::NeutralisedLog => {
            neutralised(volume, &path).map_err(|error| volume_failed(&error))?
        }
        Content::Written(content) => content,
    };
    Ok(VolumeEdit::WriteFile(FileWrite {
        path,
        content: Arc::new(content),
        attributes: None,
        times: None,
        security: Security::Inherit,
    }))
}

fn fat_edit(volume: &dyn WindowsVolume, change: FileChange) -> Result<FatEdit, JobError> {
    let path = change.path;
    Ok(match change.content {
        Content::Deleted => FatEdit::Delete { path },
        Content::NeutralisedLog => FatEdit::Write {
            content: neutralised(volume, &path).map_err(|error| volume_failed(&error))?,
            path,
        },
        Content::Written(content) => FatEdit::Write { path, content },
    })
}

/// A log of a hive as nothing applies it.
pub(super) fn neutralised(
    volume: &dyn WindowsVolume,
    path: &WinPath,
) -> Result<Vec<u8>, VolumeError> {
    let mut log = volume.read(path, LARGEST_LOG)?;
    neutralise_log(&mut log);
    Ok(log)
}

/// Logs are smaller than their hives.
const LARGEST_LOG: ByteCount = ByteCount::mib(512);

/// What an overlay keeps is kept in blocks of this many bytes.
const OVERLAY_BLOCK: u64 = 4096;
