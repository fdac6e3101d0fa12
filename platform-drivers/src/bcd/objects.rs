//! The objects of a store, with their elements.

use ce_regf::RegValue;
use uuid::Uuid;

use super::{BootConfiguration, Object, ObjectId, element, kind, well_known};

impl BootConfiguration {
    /// All objects.
    pub(super) fn objects(&self) -> Vec<Object> {
        let mut objects = vec![
            self.boot_manager(),
            self.firmware(),
            self.loader(),
            self.resume(),
            self.memory_tester(),
        ];
        objects.extend(settings());
        objects.extend(self.old.recovery().iter().cloned());
        objects
    }

    fn loader_id(&self) -> Uuid {
        self.old.loader.unwrap_or(self.loader)
    }

    fn resume_id(&self) -> Uuid {
        self.old.resume.unwrap_or(self.resume)
    }

    fn locale(&self) -> RegValue {
        let old = self.old.locale.as_ref();
        RegValue::sz(old.unwrap_or(&self.locale))
    }

    fn boot_manager(&self) -> Object {
        Object::new(well_known::BOOT_MANAGER, kind::BOOT_MANAGER)
            .with(element::DEVICE, device(self.efi_system.element()))
            .with(
                element::PATH,
                RegValue::sz(r"\EFI\Microsoft\Boot\bootmgfw.efi"),
            )
            .with(element::DESCRIPTION, RegValue::sz("Windows Boot Manager"))
            .with(element::LOCALE, self.locale())
            .with(element::INHERITS, list(&[well_known::GLOBAL]))
            .with(element::DEFAULT_OR_RESUME, object(self.loader_id()))
            .with(element::RESUME_OBJECT, object(self.resume_id()))
            .with(element::DISPLAY_ORDER, list(&[self.loader_id()]))
            .with(element::TOOLS, list(&[well_known::MEMORY_TESTER]))
            .with(element::TIMEOUT, integer(self.old.timeout.unwrap_or(30)))
    }

    fn firmware(&self) -> Object {
        Object::new(well_known::FIRMWARE, kind::FIRMWARE)
            .with(element::DISPLAY_ORDER, list(&[well_known::BOOT_MANAGER]))
            .with(element::TIMEOUT, integer(0))
    }

    fn loader(&self) -> Object {
        let description = self.old.description.as_ref().unwrap_or(&self.description);
        let nx = match self.is_server {
            true => NX_OPT_OUT,
            false => NX_OPT_IN,
        };
        let mut loader = Object::new(self.loader_id(), kind::LOADER)
            .with(element::DEVICE, device(self.windows.element()))
            .with(element::PATH, self.program("winload.efi"))
            .with(element::DESCRIPTION, RegValue::sz(description))
            .with(element::LOCALE, self.locale())
            .with(element::INHERITS, list(&[well_known::LOADER_SETTINGS]))
            .with(element::DISPLAY_MESSAGE_OVERRIDE, integer(3))
            .with(element::ISOLATED_CONTEXT, boolean(true))
            .with(element::ALLOWED_IN_MEMORY, integer(ALLOWED_IN_MEMORY))
            .with(element::OS_DEVICE, device(self.windows.element()))
            .with(element::SYSTEM_ROOT, RegValue::sz(&self.folder))
            .with(element::DEFAULT_OR_RESUME, object(self.resume_id()))
            .with(element::NX, integer(nx))
            .with(element::BOOT_MENU_POLICY, integer(STANDARD_MENU));
        self.add_recovery(&mut loader);
        for (number, value) in &self.old.options {
            loader.elements.retain(|(other, _)| other != number);
            loader.elements.push((*number, value.clone()));
        }
        loader
    }

    fn resume(&self) -> Object {
        let mut resume = Object::new(self.resume_id(), kind::RESUME)
            .with(element::DEVICE, device(self.windows.element()))
            .with(element::PATH, self.program("winresume.efi"))
            .with(
                element::DESCRIPTION,
                RegValue::sz("Windows Resume Application"),
            )
            .with(element::LOCALE, self.locale())
            .with(element::INHERITS, list(&[well_known::RESUME_SETTINGS]))
            .with(element::ISOLATED_CONTEXT, boolean(true))
            .with(element::ALLOWED_IN_MEMORY, integer(ALLOWED_IN_MEMORY))
            .with(element::OS_DEVICE, device(self.windows.element()))
            .with(element::SYSTEM_ROOT, RegValue::sz(r"\hiberfil.sys"))
            .with(element::RESUME_BOOT_MENU, integer(1))
            .with(element::DEBUG_OPTION, boolean(false));
        self.add_recovery(&mut resume);
        resume
    }

    /// Names the recovery environment, if there is one.
    fn add_recovery(&self, object: &mut Object) {
        if let Some(recovery) = self.old.recovery_loader() {
            let sequence = (element::RECOVERY_SEQUENCE, list(&[recovery]));
            object.elements.push(sequence);
            object
                .elements
                .push((element::RECOVERY_ENABLED, boolean(true)));
        }
    }

    fn memory_tester(&self) -> Object {
        Object::new(well_known::MEMORY_TESTER, kind::MEMORY_TESTER)
            .with(element::DEVICE, device(self.efi_system.element()))
            .with(
                element::PATH,
                RegValue::sz(r"\EFI\Microsoft\Boot\memtest.efi"),
            )
            .with(
                element::DESCRIPTION,
                RegValue::sz("Windows Memory Diagnostic"),
            )
            .with(element::LOCALE, self.locale())
            .with(element::INHERITS, list(&[well_known::GLOBAL]))
            .with(element::BAD_MEMORY_ACCESS, boolean(true))
    }

    /// The path of a program of this Windows.
    fn program(&self, name: &str) -> RegValue {
        RegValue::sz(&format!(r"{}\system32\{name}", self.folder))
    }
}

/// What other objects inherit.
fn settings() -> Vec<Object> {
    use well_known::{
        BAD_MEMORY, DEBUGGER, EMS, GLOBAL, HYPERVISOR, LOADER_SETTINGS, RESUME_SETTINGS,
    };
    vec![
        Object::new(DEBUGGER, kind::SETTINGS).with(element::DEBUGGER_TYPE, integer(DEBUG_LOCAL)),
        Object::new(EMS, kind::SETTINGS).with(element::EMS_ENABLED, boolean(false)),
        Object::new(BAD_MEMORY, kind::SETTINGS),
        Object::new(GLOBAL, kind::SETTINGS)
            .with(element::INHERITS, list(&[DEBUGGER, EMS, BAD_MEMORY])),
        Object::new(LOADER_SETTINGS, kind::LOADER_SETTINGS)
            .with(element::INHERITS, list(&[GLOBAL, HYPERVISOR])),
        Object::new(HYPERVISOR, kind::LOADER_SETTINGS)
            .with(element::HYPERVISOR_DEBUGGER, integer(0))
            .with(element::HYPERVISOR_PORT, integer(1))
            .with(element::HYPERVISOR_BAUD, integer(115_200)),
        Object::new(RESUME_SETTINGS, kind::RESUME_SETTINGS)
            .with(element::INHERITS, list(&[GLOBAL])),
    ]
}

fn device(element: Vec<u8>) -> RegValue {
    RegValue::binary(element)
}

fn object(id: Uuid) -> RegValue {
    RegValue::sz(&ObjectId(id).to_string())
}

fn list(ids: &[Uuid]) -> RegValue {
    RegValue::multi_sz(ids.iter().map(|id| ObjectId(*id).to_string()))
}

fn integer(number: u64) -> RegValue {
    RegValue::binary(number.to_le_bytes())
}

fn boolean(is_so: bool) -> RegValue {
    RegValue::binary([u8::from(is_so)])
}

const NX_OPT_IN: u64 = 0;
const NX_OPT_OUT: u64 = 1;
const STANDARD_MENU: u64 = 1;
const DEBUG_LOCAL: u64 = 4;

/// The list of one setting that may be changed in memory: 0x15000075.
const ALLOWED_IN_MEMORY: u64 = 0x1500_0075;
