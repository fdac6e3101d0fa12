//! Reads back what was written, with the reader of this crate: another implementation than the one
//! that wrote it.
//!
//! What a later edit changed again is not looked for: a file that was written and then deleted has
//! to be gone, and that is all.

use std::collections::HashMap;

use super::super::blocker::VolumeState;
use super::super::meta::{FileAttributes, Storage};
use super::super::{FileRecord, NtfsVolume};
use super::edit::{EditOutcome, FileTimes, FileWrite, VolumeEdit};
use super::error::NtfsWriteError;
use super::security::Descriptors;
use crate::block::BlockRead;
use crate::units::ByteOffset;
use crate::volume::WinPath;

/// Checks that `volume` is as `edits`, which had these `outcomes`, were to make it. `poll` is called
/// between pieces of work.
pub(super) fn check<D: BlockRead>(
    volume: &NtfsVolume<D>,
    edits: &[VolumeEdit],
    outcomes: &[EditOutcome],
    poll: &dyn Fn() -> Result<(), NtfsWriteError>,
) -> Result<(), NtfsWriteError> {
    let later = Later::of(edits);
    let mut new = Vec::new();
    for (index, (edit, outcome)) in edits.iter().zip(outcomes).enumerate() {
        poll()?;
        let path = edit.path();
        if let VolumeEdit::Delete { .. } | VolumeEdit::DeleteTree { .. } = edit {
            if !later.is_made_again(path, index) && volume.exists(path)? {
                return Err(not_as_written(path, "it is still there"));
            }
            continue;
        }
        if later.is_deleted(path, index) {
            continue;
        }
        let record = volume.lookup(path)?;
        match edit {
            VolumeEdit::WriteFile(file) if !later.is_written_again(path, index) => {
                check_content(volume, file, poll)?;
                if !later.has_other_meta(path, index) {
                    check_meta(volume, &record, path, file.attributes, file.times)?;
                }
            }
            VolumeEdit::SetMeta {
                attributes, times, ..
            } if !later.has_other_meta(path, index) && !later.is_written_again(path, index) => {
                // Whatever is done in a folder later changes its times.
                let times = times.filter(|_| !record.is_folder);
                check_meta(volume, &record, path, *attributes, times)?;
            }
            VolumeEdit::CreateFolder { .. } if !record.is_folder => {
                return Err(not_as_written(path, "it is a file, expected a folder"));
            }
            _ => {}
        }
        if matches!(outcome, EditOutcome::Created | EditOutcome::Replaced) {
            new.push((path, record));
        }
    }
    poll()?;
    check_security(volume, new)?;
    let state = VolumeState::read(volume)?;
    let blockers = state.blockers(None);
    match blockers.is_empty() {
        true => Ok(()),
        false => Err(NtfsWriteError::Blocked { blockers }),
    }
}

fn check_content<D: BlockRead>(
    volume: &NtfsVolume<D>,
    file: &FileWrite,
    poll: &dyn Fn() -> Result<(), NtfsWriteError>,
) -> Result<(), NtfsWriteError> {
    let path = &file.path;
    let (written, source) = (volume.open_file(path)?, &file.content);
    let (found, expected) = (written.size(), source.size());
    if found != expected {
        let problem = format!("its size is {found}, expected {expected}");
        return Err(not_as_written(path, problem));
    }
    let (mut found, mut expected) = (vec![0; PIECE], vec![0; PIECE]);
    for offset in (0..source.size().0).step_by(PIECE) {
        poll()?;
        let left = source.size().0 - offset;
        let length = usize::try_from(left).map_or(PIECE, |left| left.min(PIECE));
        let (found, expected) = (&mut found[..length], &mut expected[..length]);
        let read = source.read_at(offset, expected);
        read.map_err(|source| NtfsWriteError::Content {
            path: path.to_string(),
            source,
        })?;
        if written.read_at(ByteOffset(offset), found)? != length || found != expected {
            let end = offset + length as u64;
            let problem = format!("its content differs between {offset} and {end}");
            return Err(not_as_written(path, problem));
        }
    }
    Ok(())
}

fn check_meta<D: BlockRead>(
    volume: &NtfsVolume<D>,
    record: &FileRecord,
    path: &WinPath,
    attributes: Option<FileAttributes>,
    times: Option<FileTimes>,
) -> Result<(), NtfsWriteError> {
    let meta = volume.describe(record)?;
    if !record.is_folder && meta.storage != Storage::Plain {
        let problem = format!("it is kept as {:?}, expected plain", meta.storage);
        return Err(not_as_written(path, problem));
    }
    if let Some(expected) = attributes {
        let (found, expected) = (meta.attributes.0 & SETTABLE, expected.0 & SETTABLE);
        if found != expected {
            let problem = format!("its attributes are {found:#x}, expected {expected:#x}");
            return Err(not_as_written(path, problem));
        }
    }
    if let Some(expected) = times {
        let found = FileTimes {
            created: meta.created,
            modified: meta.modified,
            accessed: meta.accessed,
        };
        if found != expected {
            let problem = format!("its times are {found:?}, expected {expected:?}");
            return Err(not_as_written(path, problem));
        }
    }
    Ok(())
}

fn check_security<D: BlockRead>(
    volume: &NtfsVolume<D>,
    new: Vec<(&WinPath, FileRecord)>,
) -> Result<(), NtfsWriteError> {
    let descriptors = Descriptors::of(volume, new.iter().map(|(_, record)| record))?;
    for (path, record) in new {
        match descriptors.lets_anyone_write(&record) {
            Some(Ok(false)) => {}
            Some(Ok(true)) => return Err(not_as_written(path, "everyone may write to it")),
            Some(Err(source)) => {
                let path = path.to_string();
                return Err(NtfsWriteError::Descriptor { path, source });
            }
            None => return Err(not_as_written(path, "it has no security descriptor")),
        }
    }
    Ok(())
}

/// The last edit of each kind that touches a path, by its index.
#[derive(Default)]
struct Later<'e> {
    deleted: HashMap<&'e WinPath, usize>,
    made: HashMap<WinPath, usize>,
    meta: HashMap<&'e WinPath, usize>,
    written: HashMap<&'e WinPath, usize>,
}

impl<'e> Later<'e> {
    fn of(edits: &'e [VolumeEdit]) -> Self {
        let mut later = Self::default();
        for (index, edit) in edits.iter().enumerate() {
            let path = edit.path();
            match edit {
                VolumeEdit::Delete { .. } | VolumeEdit::DeleteTree { .. } => {
                    later.deleted.insert(path, index);
                }
                VolumeEdit::SetMeta { .. } => {
                    later.meta.insert(path, index);
                }
                VolumeEdit::WriteFile(_) => {
                    later.written.insert(path, index);
                    later.made.insert(path.clone(), index);
                }
                VolumeEdit::CreateFolder { .. } => {
                    for folder in above(path) {
                        later.made.insert(folder, index);
                    }
                }
            }
        }
        later
    }

    /// Whether it, or a folder that it is in, is deleted by a later edit.
    fn is_deleted(&self, path: &WinPath, index: usize) -> bool {
        above(path).any(|above| is_later(self.deleted.get(&above), index))
    }

    fn is_made_again(&self, path: &WinPath, index: usize) -> bool {
        is_later(self.made.get(path), index)
    }

    fn is_written_again(&self, path: &WinPath, index: usize) -> bool {
        is_later(self.written.get(path), index)
    }

    fn has_other_meta(&self, path: &WinPath, index: usize) -> bool {
        is_later(self.meta.get(path), index)
    }
}

fn is_later(found: Option<&usize>, index: usize) -> bool {
    found.is_some_and(|found| *found > index)
}

/// The path itself and the folders above it.
fn above(path: &WinPath) -> impl Iterator<Item = WinPath> {
    std::iter::successors(Some(path.clone()), WinPath::parent)
}

fn not_as_written(path: &WinPath, problem: impl Into<String>) -> NtfsWriteError {
    NtfsWriteError::NotAsWritten {
        path: path.to_string(),
        problem: problem.into(),
    }
}

/// The attributes that an edit can set: read-only, hidden, system, archive, temporary, offline, and
/// not content indexed. As in `native/ce_ntfs.c`.
const SETTABLE: u32 = 0x3127;

const PIECE: usize = 256 << 10;
