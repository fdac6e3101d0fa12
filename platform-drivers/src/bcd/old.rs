//! What a new store takes from the one that the BIOS started Windows by.
//!
//! The loader keeps its GUID, its name in the menu and those of its options that mean the same with
//! UEFI. The recovery environment is taken over as it is, with the devices named anew; where one of
//! them is not on this disk, it is left out, and Windows has to be told of it again (`reagentc`).

use ce_regf::{Hive, Key, RegValue};
use uuid::Uuid;

use super::device::{self, Device, GptPlace};
use super::{Object, ObjectId, element, kind, well_known};

/// What is taken from an old store; nothing from one that is not there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OldStore {
    pub(super) loader: Option<Uuid>,
    pub(super) resume: Option<Uuid>,
    pub(super) description: Option<String>,
    pub(super) locale: Option<String>,
    pub(super) timeout: Option<u64>,
    pub(super) options: Vec<(u32, RegValue)>,
    /// The loader of the recovery environment, then the options of its device.
    recovery: Vec<Object>,
}

impl OldStore {
    /// Reads the default entry of `hive`. `new_place` says where on the new disk a partition is that
    /// the store names. What is not there or cannot be read is not taken.
    pub fn read(hive: &Hive, new_place: impl Fn(Device) -> Option<GptPlace>) -> Self {
        let store = Store(hive);
        let default = store.object_id(well_known::BOOT_MANAGER, element::DEFAULT_OR_RESUME);
        let Some(loader) = default.filter(|id| store.has(*id, kind::LOADER)) else {
            return Self::default();
        };
        let resume = store.object_id(loader, element::DEFAULT_OR_RESUME);
        let option = |number| Some((number, store.value(loader, number)?));
        Self {
            loader: Some(loader),
            resume: resume.filter(|id| store.has(*id, kind::RESUME)),
            description: store.text(loader, element::DESCRIPTION),
            locale: store.text(loader, element::LOCALE),
            timeout: store
                .value(well_known::BOOT_MANAGER, element::TIMEOUT)
                .and_then(|value| value.data.first_chunk().copied())
                .map(u64::from_le_bytes),
            options: KEPT_OPTIONS.into_iter().filter_map(option).collect(),
            recovery: store.recovery(loader, &new_place).unwrap_or_default(),
        }
    }

    /// Whether the recovery environment was taken over.
    pub fn has_recovery(&self) -> bool {
        !self.recovery.is_empty()
    }

    pub(super) fn recovery(&self) -> &[Object] {
        &self.recovery
    }

    pub(super) fn recovery_loader(&self) -> Option<Uuid> {
        self.recovery.first().map(|object| object.id.0)
    }
}

/// A store that is read. Nothing in it is believed to be there.
struct Store<'h>(&'h Hive);

impl<'h> Store<'h> {
    fn key(&self, id: Uuid, below: &str) -> Option<Key<'h>> {
        let path = format!(r"Objects\{}\{below}", ObjectId(id));
        self.0.root().ok()?.subkey(path.as_str()).ok()?
    }

    fn kind(&self, id: Uuid) -> Option<u32> {
        let key = self.key(id, "Description")?;
        key.value("Type").ok()??.dword().ok()
    }

    /// Whether there is an object of this kind, and none of those that every store has.
    fn has(&self, id: Uuid, kind: u32) -> bool {
        self.kind(id) == Some(kind) && !well_known::contains(id)
    }

    fn value(&self, id: Uuid, number: u32) -> Option<RegValue> {
        let key = self.key(id, &format!(r"Elements\{number:08x}"))?;
        key.value("Element").ok()??.to_reg_value().ok()
    }

    fn text(&self, id: Uuid, number: u32) -> Option<String> {
        let key = self.key(id, &format!(r"Elements\{number:08x}"))?;
        let text = key.value("Element").ok()??.string().ok()?;
        (!text.is_empty() && text.len() <= LONGEST_TEXT).then_some(text)
    }

    fn object_id(&self, id: Uuid, number: u32) -> Option<Uuid> {
        Some(ObjectId::parse(&self.text(id, number)?)?.0)
    }

    /// The recovery environment of `loader`, on the new disk.
    fn recovery(
        &self,
        loader: Uuid,
        new_place: &impl Fn(Device) -> Option<GptPlace>,
    ) -> Option<Vec<Object>> {
        let key = self.key(
            loader,
            &format!(r"Elements\{:08x}", element::RECOVERY_SEQUENCE),
        )?;
        let sequence = key.value("Element").ok()??.multi_string().ok()?;
        let recovery = ObjectId::parse(sequence.first()?)?.0;
        if !self.has(recovery, kind::LOADER) || recovery == loader {
            return None;
        }
        let options = device::options(&self.value(recovery, element::DEVICE)?.data)?;
        if !self.has(options, kind::DEVICE) {
            return None;
        }
        [recovery, options]
            .into_iter()
            .map(|id| self.moved(id, new_place))
            .collect()
    }

    /// An object with its devices on the new disk, and the programs of UEFI.
    fn moved(&self, id: Uuid, new_place: &impl Fn(Device) -> Option<GptPlace>) -> Option<Object> {
        let mut moved = Object::new(id, self.kind(id)?);
        let elements = self.key(id, "Elements")?;
        for key in elements.subkeys().ok()?.take(MOST_ELEMENTS) {
            let key = key.ok()?;
            let number = u32::from_str_radix(&key.name().to_string(), 16).ok()?;
            let value = key.value("Element").ok()??;
            let value = match number >> 24 & 0xF {
                DEVICE_FORMAT => RegValue::binary(device::moved(&value.data().ok()?, new_place)?),
                _ if number == element::PATH => RegValue::sz(&for_uefi(&value.string().ok()?)),
                _ => value.to_reg_value().ok()?,
            };
            moved.elements.push((number, value));
        }
        Some(moved)
    }
}

/// The program of UEFI for one of the BIOS.
fn for_uefi(path: &str) -> String {
    match path
        .len()
        .checked_sub(4)
        .and_then(|at| path.split_at_checked(at))
    {
        Some((name, end)) if end.eq_ignore_ascii_case(".exe") => format!("{name}.efi"),
        _ => path.to_owned(),
    }
}

/// Options of a loader that someone may have chosen, and that mean the same with UEFI: recovery
/// enabled, test signing, no execution of data, policies of menu and boot status, the hypervisor.
const KEPT_OPTIONS: [u32; 6] = [
    element::RECOVERY_ENABLED,
    0x1600_0049,
    element::NX,
    element::BOOT_MENU_POLICY,
    0x2500_00E0,
    0x2500_00F0,
];

/// The format of an element, in its number, that is a device.
const DEVICE_FORMAT: u32 = 1;

/// More than any object has.
const MOST_ELEMENTS: usize = 256;
const LONGEST_TEXT: usize = 512;
