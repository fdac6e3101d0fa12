//! A store of boot configuration data (BCD) for UEFI, made from nothing.
//!
//! ```text
//!  {bootmgr}  \EFI\Microsoft\Boot\bootmgfw.efi on the EFI system partition
//!     | default, display order                      | tools
//!     v                                             v
//!  loader  winload.efi on the partition of Windows  {memdiag} memtest.efi
//!     |         | recovery sequence
//!     | resume  v
//!     v       recovery loader --> ramdisk: Winre.wim, boot.sdi     (taken from the old store)
//!  resume  winresume.efi
//!
//!  settings: {globalsettings} <- debugger, EMS, bad memory; {bootloadersettings} <- hypervisor;
//!            {resumeloadersettings}
//! ```
//!
//! A store is a registry hive: `Objects\{GUID}\Description` has the type of an object, and
//! `Objects\{GUID}\Elements\NUMBER` the value `Element`. The objects and elements are those that a
//! Windows on a GPT disk is seen to have (`bcdboot` makes them); names are those of Microsoft's
//! documentation of BCD. What a store has beside them (`GuidCache`, `FirmwareVariable`, entries for what
//! else the firmware starts) Windows fills in from the firmware of the machine that it runs on.

use std::fmt;

use ce_regf::{EditError, FileTime, Hive, RegValue, SecurityDescriptor, Version};
use uuid::{Uuid, uuid};

mod device;
mod objects;
mod old;

pub use device::{Device, GptPlace};
pub use old::OldStore;

/// What a machine is to start.
#[derive(Clone, Debug)]
pub struct BootConfiguration {
    /// The EFI system partition.
    pub efi_system: GptPlace,
    /// The partition of Windows.
    pub windows: GptPlace,
    /// The folder of Windows, such as `\Windows`.
    pub folder: String,
    /// What the menu calls it.
    pub description: String,
    /// The language of the menu, such as `en-US`.
    pub locale: String,
    /// Whether it is a server, whose programs are all kept from running data.
    pub is_server: bool,
    /// What the BIOS started it by.
    pub old: OldStore,
    /// The GUID of the loader if the old store names none.
    pub loader: Uuid,
    /// The GUID of what resumes it, likewise.
    pub resume: Uuid,
}

impl BootConfiguration {
    /// The file of the store.
    ///
    /// # Errors
    ///
    /// [`EditError`] when the hive cannot be made.
    pub fn store(&self, now: FileTime) -> Result<Vec<u8>, EditError> {
        let security = SecurityDescriptor::for_administrators();
        let mut hive = Hive::new_empty(Version::V1_3, &security, now)?;
        let mut editor = hive.edit(now)?;
        editor.create_key("Description")?;
        let name = RegValue::sz("BCD00000000");
        editor.set_value("Description", "KeyName", &name)?;
        for flag in ["System", "TreatAsSystem"] {
            editor.set_value("Description", flag, &RegValue::dword(1))?;
        }
        for object in self.objects() {
            let key = format!(r"Objects\{}", object.id);
            let description = format!(r"{key}\Description");
            editor.create_key(&*description)?;
            editor.create_key(&*format!(r"{key}\Elements"))?;
            let kind = RegValue::dword(object.kind);
            editor.set_value(&*description, "Type", &kind)?;
            for (number, value) in &object.elements {
                let element = format!(r"{key}\Elements\{number:08x}");
                editor.create_key(&*element)?;
                editor.set_value(&*element, "Element", value)?;
            }
        }
        Ok(hive.save(now)?.bytes.to_vec())
    }
}

/// An object of a store.
#[derive(Clone, Debug, PartialEq)]
struct Object {
    id: ObjectId,
    kind: u32,
    elements: Vec<(u32, RegValue)>,
}

impl Object {
    fn new(id: Uuid, kind: u32) -> Self {
        Self {
            id: ObjectId(id),
            kind,
            elements: Vec::new(),
        }
    }

    fn with(mut self, element: u32, value: RegValue) -> Self {
        self.elements.push((element, value));
        self
    }
}

/// The name of an object: its GUID in braces, in small letters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct ObjectId(Uuid);

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}", self.0)
    }
}

impl ObjectId {
    fn parse(text: &str) -> Option<Self> {
        let inner = text.strip_prefix('{')?.strip_suffix('}')?;
        Uuid::try_parse(inner).ok().map(Self)
    }
}

/// Objects that every store has, by their names in `bcdedit`.
mod well_known {
    use super::{Uuid, uuid};

    pub const BOOT_MANAGER: Uuid = uuid!("9dea862c-5cdd-4e70-acc1-f32b344d4795");
    pub const FIRMWARE: Uuid = uuid!("a5a30fa2-3d06-4e9f-b5f4-a01df9d1fcba");
    pub const MEMORY_TESTER: Uuid = uuid!("b2721d73-1db4-4c62-bf78-c548a880142d");
    pub const DEBUGGER: Uuid = uuid!("4636856e-540f-4170-a130-a84776f4c654");
    pub const EMS: Uuid = uuid!("0ce4991b-e6b3-4b16-b23c-5e0d9250e5d9");
    pub const BAD_MEMORY: Uuid = uuid!("5189b25c-5558-4bf2-bca4-289b11bd29e2");
    pub const GLOBAL: Uuid = uuid!("7ea2e1ac-2e61-4728-aaa3-896d9d0a9f0e");
    pub const LOADER_SETTINGS: Uuid = uuid!("6efb52bf-1766-41db-a6b3-0ee5eff72bd7");
    pub const HYPERVISOR: Uuid = uuid!("7ff607e0-4395-11db-b0de-0800200c9a66");
    pub const RESUME_SETTINGS: Uuid = uuid!("1afa9c49-16ab-4a5c-901b-212802da9460");

    /// Whether it is one of them.
    pub fn contains(id: Uuid) -> bool {
        [
            BOOT_MANAGER,
            FIRMWARE,
            MEMORY_TESTER,
            DEBUGGER,
            EMS,
            BAD_MEMORY,
            GLOBAL,
            LOADER_SETTINGS,
            HYPERVISOR,
            RESUME_SETTINGS,
        ]
        .contains(&id)
    }
}

/// Types of objects.
mod kind {
    pub const FIRMWARE: u32 = 0x1010_0001;
    pub const BOOT_MANAGER: u32 = 0x1010_0002;
    pub const LOADER: u32 = 0x1020_0003;
    pub const RESUME: u32 = 0x1020_0004;
    pub const MEMORY_TESTER: u32 = 0x1020_0005;
    pub const SETTINGS: u32 = 0x2010_0000;
    pub const LOADER_SETTINGS: u32 = 0x2020_0003;
    pub const RESUME_SETTINGS: u32 = 0x2020_0004;
    pub const DEVICE: u32 = 0x3000_0000;
}

/// Numbers of elements.
mod element {
    pub const DEVICE: u32 = 0x1100_0001;
    pub const PATH: u32 = 0x1200_0002;
    pub const DESCRIPTION: u32 = 0x1200_0004;
    pub const LOCALE: u32 = 0x1200_0005;
    pub const INHERITS: u32 = 0x1400_0006;
    pub const RECOVERY_SEQUENCE: u32 = 0x1400_0008;
    pub const DEBUGGER_TYPE: u32 = 0x1500_0011;
    pub const DISPLAY_MESSAGE_OVERRIDE: u32 = 0x1500_0066;
    pub const RECOVERY_ENABLED: u32 = 0x1600_0009;
    pub const BAD_MEMORY_ACCESS: u32 = 0x1600_000B;
    pub const EMS_ENABLED: u32 = 0x1600_0020;
    pub const ISOLATED_CONTEXT: u32 = 0x1600_0060;
    pub const ALLOWED_IN_MEMORY: u32 = 0x1700_0077;
    pub const OS_DEVICE: u32 = 0x2100_0001;
    pub const SYSTEM_ROOT: u32 = 0x2200_0002;
    /// Of the boot manager: the default object. Of a loader: what resumes it.
    pub const DEFAULT_OR_RESUME: u32 = 0x2300_0003;
    pub const RESUME_OBJECT: u32 = 0x2300_0006;
    pub const DISPLAY_ORDER: u32 = 0x2400_0001;
    pub const TOOLS: u32 = 0x2400_0010;
    pub const TIMEOUT: u32 = 0x2500_0004;
    pub const RESUME_BOOT_MENU: u32 = 0x2500_0008;
    pub const NX: u32 = 0x2500_0020;
    pub const BOOT_MENU_POLICY: u32 = 0x2500_00C2;
    pub const HYPERVISOR_DEBUGGER: u32 = 0x2500_00F3;
    pub const HYPERVISOR_PORT: u32 = 0x2500_00F4;
    pub const HYPERVISOR_BAUD: u32 = 0x2500_00F5;
    pub const DEBUG_OPTION: u32 = 0x2600_0006;
}

#[cfg(test)]
mod tests;
