//! The names that Windows knows volumes by (`SYSTEM\MountedDevices`): drive letters, and the GUIDs that
//! mount points have.
//!
//! ```text
//!  on MBR   u32 signature of the disk, u64 first byte of the partition
//!  on GPT   "DMIO:ID:", GUID of the partition
//! ```
//!
//! What names a partition whose content stays is made to name it by its GUID, so that it keeps its
//! letter; what names the one that becomes the EFI system partition goes. Other disks are left alone.

use ce_disk::volume::WindowsVolume;
use ce_regf::{FileTime, Hive, RegValue, ValueType};
use uuid::Uuid;

use super::{ITEM, NewPlaces};
use crate::apply::{ApplyError, FileChange, hive_with};
use crate::hives::{HiveName, LoadedHive};
use crate::plan::edit::{Reason, RegistryEdit, RegistryEditKind};
use crate::plan::{Change, ChangeLine};

/// The files of the SYSTEM hive with the new names, and what is changed.
pub(super) fn rename(
    system: &LoadedHive,
    volume: &dyn WindowsVolume,
    places: &NewPlaces,
    now: FileTime,
) -> Result<(Vec<FileChange>, Vec<ChangeLine>), ApplyError> {
    let edits: Vec<Change> = edits(&system.hive, places)
        .into_iter()
        .map(|(change, reason)| {
            Change::Registry(RegistryEdit {
                hive: HiveName::System,
                key: KEY.into(),
                change,
                reason: Reason(reason.into()),
            })
        })
        .collect();
    let lines = edits
        .iter()
        .map(|change| ChangeLine::done(ITEM, title(change), change.reason().to_string()));
    let files = hive_with(system, volume, &edits, now)?;
    Ok((files, lines.collect()))
}

/// In words. The GUIDs are new in every run, and say nothing.
fn title(change: &Change) -> String {
    match change {
        Change::Registry(RegistryEdit {
            change: RegistryEditKind::SetValue { name, .. },
            ..
        }) => format!("SYSTEM {KEY}: {name} by the GUID of its partition"),
        other => other.to_string(),
    }
}

fn edits(system: &Hive, places: &NewPlaces) -> Vec<(RegistryEditKind, &'static str)> {
    let key = system.root().ok().and_then(|root| root.subkey(KEY).ok()?);
    let Some(Ok(values)) = key.map(|key| key.values()) else {
        return Vec::new();
    };
    let mut edits = Vec::new();
    // A value that cannot be read names nothing, to Windows either.
    for value in values.flatten() {
        let Ok(data) = value.data() else { continue };
        let Some(new) = new_name(&data, value.value_type(), places) else {
            continue;
        };
        let name = value.name().to_string();
        edits.push(match new {
            Some(id) => {
                let value = RegValue::binary([&MARK[..], &id.to_bytes_le()].concat());
                (RegistryEditKind::SetValue { name, value }, KEPT)
            }
            None => (RegistryEditKind::DeleteValue { name }, GONE),
        });
    }
    edits
}

/// What a name of a partition of this disk becomes: a GUID, or nothing. `None` for all other names.
fn new_name(data: &[u8], kind: ValueType, places: &NewPlaces) -> Option<Option<Uuid>> {
    if kind != ValueType::BINARY || data.len() != MBR_NAME {
        return None;
    }
    let (signature, start) = data.split_first_chunk::<4>()?;
    let start = u64::from_le_bytes(*start.first_chunk()?);
    if u32::from_le_bytes(*signature) != places.signature {
        return None;
    }
    let mut kept = places.kept.iter();
    kept.find(|(other, _)| *other == start).map(|(_, id)| *id)
}

const KEY: &str = "MountedDevices";
const MARK: [u8; 8] = *b"DMIO:ID:";
const MBR_NAME: usize = 12;
const KEPT: &str =
    "volumes of a GPT disk are known by the GUID of their partition; so they keep their letters";
const GONE: &str = "the volume is no more: its partition becomes the EFI system partition";
