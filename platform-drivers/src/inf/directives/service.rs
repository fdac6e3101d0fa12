//! `AddService`: the services that a driver brings.

use super::super::dirid::SYSTEM_DRIVE;
use super::super::error::{InfError, InfErrorKind, LineNumber};
use super::super::section::{Line, Section};
use super::registry::{RegistryChange, RegistryRoot};
use super::{LocalisedText, Reader};

/// A service that is registered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Service {
    /// Its key's name below Services.
    pub name: String,
    /// `SPSVCINST_*`.
    pub flags: ServiceFlags,
    /// `DisplayName`.
    pub display_name: Option<LocalisedText>,
    /// `Description`.
    pub description: Option<LocalisedText>,
    /// `ServiceType`: 1 for a kernel driver, 2 for a file system, 0x10 and more for programs.
    pub service_type: u32,
    /// `StartType`: 0 boot, 1 system, 2 automatic, 3 on demand, 4 disabled.
    pub start_type: u32,
    /// `ErrorControl`.
    pub error_control: u32,
    /// The value `ImagePath`, in the form in which Windows writes it. `%13%` stands for the
    /// package's folder in the driver store.
    pub image_path: String,
    /// `LoadOrderGroup`.
    pub load_order_group: Option<String>,
    /// `Dependencies`; a group has `+` before it.
    pub dependencies: Vec<String>,
    /// `StartName`.
    pub start_name: Option<String>,
    /// `Security`, in SDDL.
    pub security: Option<String>,
    /// `BootFlags`: for drivers that a boot over the network needs.
    pub boot_flags: Option<u32>,
    /// `ServiceSidType`.
    pub sid_type: Option<u32>,
    /// `DelayedAutoStart`.
    pub delayed_auto_start: Option<u32>,
    /// `RequiredPrivileges`.
    pub required_privileges: Vec<String>,
    /// What its section changes, most of it below its key.
    pub registry: Vec<RegistryChange>,
    /// The event log source that comes with it.
    pub event_log: Option<EventLogSource>,
    /// Directives of its section that only a running Windows can follow, such as `AddTrigger`.
    pub left_to_windows: Vec<(LineNumber, String)>,
    /// The `AddService` line.
    pub line: LineNumber,
}

/// A source of events.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EventLogSource {
    /// The log: `System` unless the INF says otherwise.
    pub log: String,
    /// The source's name: the service's unless the INF says otherwise.
    pub name: String,
    /// What is set, below its key.
    pub registry: Vec<RegistryChange>,
}

/// The flags of an `AddService` line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ServiceFlags(pub u32);

impl ServiceFlags {
    /// Whether the device that is installed is the service's (`SPSVCINST_ASSOCSERVICE`).
    pub fn is_function_driver(self) -> bool {
        self.0 & 0x2 != 0
    }

    /// Whether the tag goes to the front of its group's order (`SPSVCINST_TAGTOFRONT`).
    pub fn tag_to_front(self) -> bool {
        self.0 & 0x1 != 0
    }

    /// Whether a start type that is there stays (`SPSVCINST_NOCLOBBER_STARTTYPE`).
    pub fn keeps_start_type(self) -> bool {
        self.0 & 0x10 != 0
    }

    /// Whether a display name that is there stays (`SPSVCINST_NOCLOBBER_DISPLAYNAME`).
    pub fn keeps_display_name(self) -> bool {
        self.0 & 0x8 != 0
    }
}

impl Service {
    /// Whether Windows loads it before it can read anything but what the boot loader has read.
    pub fn is_boot_start(&self) -> bool {
        self.start_type == 0
    }

    /// Whether it runs in the kernel.
    pub fn is_driver(&self) -> bool {
        is_driver(self.service_type)
    }
}

impl Reader<'_> {
    /// The services that the `AddService` lines of a section add. `AddService = ,2` adds none: the
    /// device has no driver.
    pub(in super::super) fn services(&self, section: &Section) -> Result<Vec<Service>, InfError> {
        let mut services = Vec::new();
        for line in section.with_key("AddService") {
            self.budget.spend_line(line.number)?;
            if let Some(name) = self.value(line, 0)? {
                services.push(self.service(line, name)?);
            }
        }
        Ok(services)
    }

    /// Whether the function driver of the device is said to be none: a service without a name.
    pub(in super::super) fn needs_no_driver(&self, section: &Section) -> Result<bool, InfError> {
        for line in section.with_key("AddService") {
            self.budget.spend_line(line.number)?;
            let flags = self.number(line, 1, "the service flags")?.unwrap_or(0);
            if self.value(line, 0)?.is_none() && ServiceFlags(flags).is_function_driver() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn service(&self, line: &Line, name: String) -> Result<Service, InfError> {
        if name.contains(['\\', '/']) || name.len() > LONGEST_NAME {
            return Err(InfErrorKind::Malformed {
                what: "the service's name",
                expected: "at most 256 characters and no slash",
                found: name.chars().take(super::SHOWN).collect(),
            }
            .at(line.number));
        }
        let missing = |what| {
            let directive = format!("AddService = {name}");
            InfErrorKind::Missing { directive, what }.at(line.number)
        };
        let flags = self.number(line, 1, "the service flags")?.unwrap_or(0);
        let section_name = self
            .value(line, 2)?
            .ok_or_else(|| missing("service's section"))?;
        let section = self.section(&section_name, "AddService", line.number)?;
        let entries = Entries {
            reader: self,
            section,
        };
        let number = |key, what| entries.number(key)?.ok_or_else(|| missing(what));
        let service_type = number("ServiceType", "ServiceType")?;
        let start_type = number("StartType", "StartType")?;
        let error_control = number("ErrorControl", "ErrorControl")?;
        let binary = entries
            .text("ServiceBinary")?
            .ok_or_else(|| missing("ServiceBinary"))?;
        let left_to_windows = section.lines.iter().filter_map(|line| {
            let key = line.key.as_deref()?;
            LEFT.iter()
                .find(|left| left.eq_ignore_ascii_case(key))
                .map(|left| (line.number, (*left).to_owned()))
        });
        Ok(Service {
            flags: ServiceFlags(flags),
            display_name: entries.localised("DisplayName")?,
            description: entries.localised("Description")?,
            service_type,
            start_type,
            error_control,
            image_path: image_path(&binary, service_type, start_type),
            load_order_group: entries.text("LoadOrderGroup")?,
            dependencies: entries.list("Dependencies")?,
            start_name: entries.text("StartName")?,
            security: entries.text("Security")?,
            boot_flags: entries.number("BootFlags")?,
            sid_type: entries.number("ServiceSidType")?,
            delayed_auto_start: entries.number("DelayedAutoStart")?,
            required_privileges: entries.list("RequiredPrivileges")?,
            registry: self.registry(section, RegistryRoot::Service)?,
            event_log: self.event_log(line, &name)?,
            left_to_windows: left_to_windows.collect(),
            line: line.number,
            name,
        })
    }

    fn event_log(&self, line: &Line, service: &str) -> Result<Option<EventLogSource>, InfError> {
        let Some(section) = self.value(line, 3)? else {
            return Ok(None);
        };
        let section = self.section(&section, "AddService", line.number)?;
        Ok(Some(EventLogSource {
            log: self.value(line, 4)?.unwrap_or_else(|| "System".to_owned()),
            name: self.value(line, 5)?.unwrap_or_else(|| service.to_owned()),
            registry: self.registry(section, RegistryRoot::EventLog)?,
        }))
    }
}

/// The lines of a service's section.
struct Entries<'r, 'i> {
    reader: &'r Reader<'i>,
    section: &'i Section,
}

impl Entries<'_, '_> {
    fn line(&self, key: &'static str) -> Option<&Line> {
        self.section
            .lines
            .iter()
            .find(|line| super::is_key(line, key))
    }

    fn text(&self, key: &'static str) -> Result<Option<String>, InfError> {
        match self.line(key) {
            None => Ok(None),
            Some(line) => self.reader.value(line, 0),
        }
    }

    fn number(&self, key: &'static str) -> Result<Option<u32>, InfError> {
        match self.line(key) {
            None => Ok(None),
            Some(line) => self.reader.number(line, 0, key),
        }
    }

    fn localised(&self, key: &'static str) -> Result<Option<LocalisedText>, InfError> {
        match self.line(key) {
            None => Ok(None),
            Some(line) => self.reader.localised(line, 0),
        }
    }

    fn list(&self, key: &'static str) -> Result<Vec<String>, InfError> {
        let Some(line) = self.line(key) else {
            return Ok(Vec::new());
        };
        let mut list = Vec::new();
        for index in 0..line.values.len() {
            list.extend(self.reader.value(line, index)?);
        }
        Ok(list)
    }
}

/// What Windows writes as `ImagePath`. The boot loader wants a path from the Windows folder; other
/// drivers get one that the kernel resolves, programs one with a variable in it.
fn image_path(binary: &str, service_type: u32, start_type: u32) -> String {
    let windows = format!("{SYSTEM_DRIVE}\\Windows\\");
    let below = binary
        .get(..windows.len())
        .filter(|start| start.eq_ignore_ascii_case(&windows))
        .and_then(|start| binary.get(start.len()..));
    match below {
        None => binary.to_owned(),
        Some(path) if !is_driver(service_type) => format!("%SystemRoot%\\{path}"),
        Some(path) if start_type == 0 => path.to_owned(),
        Some(path) => format!("\\SystemRoot\\{path}"),
    }
}

/// Kernel driver, file system driver, file system recogniser.
fn is_driver(service_type: u32) -> bool {
    service_type & 0xB != 0
}

const LONGEST_NAME: usize = 256;

/// What only a running Windows can do with a service.
const LEFT: [&str; 2] = ["AddTrigger", "FailureActions"];
