//! The driver database: how Windows knows, before it can read a file, which driver a device has.
//!
//! ```text
//!  DriverDatabase
//!    OemInfMap, UpdateDate
//!    DeviceIds\PCI\VEN_...         oem4.inf = 01 ff 00 00     which INF, how well it fits
//!    DeviceIds\{class}             oem4.inf = (none)
//!    DriverInfFiles\oem4.inf       Active = label, Configurations = sections
//!    DriverPackages\label          Version, Provider, signer ...
//!      Configurations\section      Service, Device\..., Driver\..., Services\...: AddReg as data
//!      Descriptors\PCI\VEN_...     Configuration, Description, Manufacturer
//!      Strings                     those that the descriptors use
//! ```
//!
//! What is needed to boot stands in the SYSTEM hive, the rest in the DRIVERS hive in a shorter form.
//! Nothing of this is documented; it was read off hives of Windows 8.1 and 10 and is compared with
//! them by the tests.

use std::collections::{BTreeMap, BTreeSet};

use ce_regf::{Hive, HiveError, Key, RegValue, ValueType};
use uuid::Uuid;

use super::StagedPackage;
use crate::hives::HiveName;
use crate::inf::{
    Architecture, DriverVersion, FilterPosition, InstallPlan, LocalisedText, Model, RegistryAction,
    RegistryChange, RegistryRoot, SetRule,
};
use crate::plan::edit::{Reason, RegistryEdit, RegistryEditKind};

/// The database's key in the DRIVERS hive.
pub(super) fn root_of_drivers(drivers: &Hive) -> Result<Option<Key<'_>>, HiveError> {
    drivers.root()?.subkey("DriverDatabase")
}

/// How much of a package goes into a database.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// All of it: what Windows needs to start the device at boot.
    Full,
    /// Only that there is such a package, and for which devices.
    Short,
}

/// What enters a package into the database of a hive.
///
/// `oem_map` is [`OemNames::map`](super::names::OemNames::map) with the package's number; it belongs to
/// the SYSTEM hive whichever hive gets the package.
pub fn database_edits(
    package: &StagedPackage<'_>,
    hive: HiveName,
    form: Form,
    oem_map: &[u8],
) -> Vec<RegistryEdit> {
    let mut edits = Edits {
        hive,
        list: Vec::new(),
        reason: format!(
            "enters {} as {} into the driver database",
            package.inf_name, package.published_name
        ),
    };
    edits.device_ids(package);
    edits.inf_file(package, form);
    edits.package(package);
    if form == Form::Full {
        let mut sections = BTreeSet::new();
        for plan in package.plans {
            if sections.insert(plan.section.to_lowercase()) {
                edits.configuration(package, plan);
            }
        }
        edits.descriptors(package);
    }
    edits.hive = HiveName::System;
    edits.set("DriverDatabase", "OemInfMap", RegValue::binary(oem_map));
    if package.is_windows_10 {
        let now = RegValue::binary(package.now.to_le_bytes());
        edits.set("DriverDatabase", "UpdateDate", now);
    }
    edits.list
}

/// The value `Version` of a package: architecture, class, date and version in 48 bytes.
pub fn version_value(
    architecture: Architecture,
    class: Uuid,
    driver: &DriverVersion,
) -> [u8; VERSION_LENGTH] {
    let mut bytes = [0; VERSION_LENGTH];
    // 0xFF in the first place too would be an INF of Windows' own.
    let head = [0x00, 0xFF, processor(architecture), 0, 0, 0, 0, 0];
    let parts = head
        .into_iter()
        .chain(class.to_bytes_le())
        .chain(driver.date.file_time().to_le_bytes())
        .chain(driver.packed().to_le_bytes());
    for (place, byte) in bytes.iter_mut().zip(parts) {
        *place = byte;
    }
    bytes
}

/// How well an INF fits an id: the hardware id of its line, or which of the compatible ones.
fn match_value(index: usize, is_hardware_id: bool, feature_score: u8) -> RegValue {
    let (kind, place) = if is_hardware_id {
        (1, 0)
    } else {
        (2, u8::try_from(index).unwrap_or(u8::MAX))
    };
    RegValue::binary([kind, feature_score, place, 0])
}

struct Edits {
    hive: HiveName,
    list: Vec<RegistryEdit>,
    reason: String,
}

impl Edits {
    fn push(&mut self, key: &str, change: RegistryEditKind) {
        self.list.push(RegistryEdit {
            hive: self.hive,
            key: key.to_owned(),
            change,
            reason: Reason(self.reason.clone()),
        });
    }

    fn set(&mut self, key: &str, name: &str, value: RegValue) {
        let name = name.to_owned();
        self.push(key, RegistryEditKind::SetValue { name, value });
    }

    fn device_ids(&mut self, package: &StagedPackage<'_>) {
        let inf = package.published_name;
        // One value for each id, whatever lines it stands in: as a hardware id if it is one anywhere.
        let mut fits: BTreeMap<String, (bool, &str, RegValue)> = BTreeMap::new();
        for (plan, model) in models(package) {
            let hardware = model.hardware_id.iter().map(|id| (id, 0, true));
            let compatible = model.compatible_ids.iter().enumerate();
            let compatible = compatible.map(|(index, id)| (id, index, false));
            for (id, index, is_hardware_id) in hardware.chain(compatible) {
                let known = fits.get(&id.to_lowercase());
                if known.is_none_or(|&(known, ..)| is_hardware_id && !known) {
                    let value = match_value(index, is_hardware_id, plan.feature_score);
                    fits.insert(id.to_lowercase(), (is_hardware_id, id, value));
                }
            }
        }
        for (_, id, value) in fits.into_values() {
            self.set(&format!("DriverDatabase\\DeviceIds\\{id}"), inf, value);
        }
        if let Some(class) = package.class {
            let none = RegValue::new(ValueType::NONE, []);
            self.set(
                &format!("DriverDatabase\\DeviceIds\\{{{class}}}"),
                inf,
                none,
            );
        }
    }

    fn inf_file(&mut self, package: &StagedPackage<'_>, form: Form) {
        let key = format!("DriverDatabase\\DriverInfFiles\\{}", package.published_name);
        self.set(&key, "", RegValue::multi_sz([package.label]));
        self.set(&key, "Active", RegValue::sz(package.label));
        let mut sections: Vec<&str> = Vec::new();
        for plan in package.plans {
            if !sections.contains(&plan.section.as_str()) {
                sections.push(&plan.section);
            }
        }
        if form == Form::Full && !sections.is_empty() {
            self.set(&key, "Configurations", RegValue::multi_sz(sections));
        }
    }

    fn package(&mut self, package: &StagedPackage<'_>) {
        let key = package_key(package);
        if let (Some(class), Some(driver)) = (package.class, package.driver) {
            let version = version_value(package.architecture, class, &driver);
            self.set(&key, "Version", RegValue::binary(version));
        }
        self.set(&key, "", RegValue::sz(package.published_name));
        for (name, text) in [
            ("Provider", package.provider),
            ("InfName", Some(package.inf_name)),
            ("OemPath", Some(package.oem_path)),
            ("SignerName", package.signer),
            ("Catalog", package.catalog),
        ] {
            if let Some(text) = text {
                self.set(&key, name, RegValue::sz(text));
            }
        }
        let score = if package.is_hardware_programme {
            SIGNED_BY_HARDWARE_PROGRAMME
        } else {
            SIGNED_BY_VENDOR
        };
        if package.signer.is_some() {
            self.set(&key, "SignerScore", RegValue::dword(score));
        }
        self.set(&key, "StatusFlags", RegValue::dword(CONFIGURED));
        if package.is_windows_10 {
            let now = RegValue::binary(package.now.to_le_bytes());
            self.set(&key, "ImportDate", now);
        }
    }

    fn configuration(&mut self, package: &StagedPackage<'_>, plan: &InstallPlan) {
        let key = format!("{}\\Configurations\\{}", package_key(package), plan.section);
        self.set(&key, "ConfigFlags", RegValue::dword(0));
        let service = plan.function_driver().map(|service| &*service.name);
        if let Some(service) = service.or(plan.needs_no_driver.then_some("")) {
            self.set(&key, "Service", RegValue::sz(service));
        }
        if package.is_windows_10 {
            let scope = 1
                | u32::from(plan.parts.hardware) << 1
                | u32::from(plan.parts.services) << 2
                | u32::from(plan.parts.interfaces) << 3;
            self.set(&key, "ConfigScope", RegValue::dword(scope));
        }
        if !plan.included.is_empty() {
            let included = RegValue::multi_sz(&plan.included);
            self.set(&key, "IncludedInfs", included);
        }
        if plan.reboot {
            self.set(&key, "Reboot", RegValue::dword(1));
        }
        for (name, position) in FILTER_VALUES {
            let services = plan
                .filters
                .iter()
                .filter(|filter| filter.position == position);
            let services: Vec<&str> = services.map(|filter| filter.service.as_str()).collect();
            if !services.is_empty() {
                self.set(&key, name, RegValue::multi_sz(services));
            }
        }
        for change in &plan.registry {
            let below = match change.root {
                RegistryRoot::Device if is_filter_value(change) => continue,
                RegistryRoot::Device => format!("{key}\\Device"),
                RegistryRoot::Driver => format!("{key}\\Driver"),
                _ => continue,
            };
            self.replay(&below, change);
        }
        for service in &plan.services {
            for change in &service.registry {
                if change.root == RegistryRoot::Service {
                    self.replay(&format!("{key}\\Services\\{}", service.name), change);
                }
            }
        }
    }

    /// An AddReg or DelReg line as the database keeps it: the rule stands in the value's type.
    fn replay(&mut self, below: &str, change: &RegistryChange) {
        let key = if change.key.is_empty() {
            below.to_owned()
        } else {
            format!("{below}\\{}", change.key)
        };
        let marked = |flag: u32, value: RegValue| {
            let value_type = ValueType::from_raw(value.value_type.raw() | flag);
            RegValue::new(value_type, value.data)
        };
        match &change.action {
            RegistryAction::CreateKey => self.push(&key, RegistryEditKind::CreateKey),
            RegistryAction::Set { name, value, rule } => {
                let value = match rule {
                    SetRule::Always => value.clone(),
                    SetRule::IfMissing => marked(KEEPS, value.clone()),
                    // Not seen in any hive: Windows applies it when it installs the device.
                    SetRule::IfPresent => return,
                };
                self.set(&key, name, value);
            }
            RegistryAction::Append { name, strings } => {
                self.set(&key, name, marked(APPENDS, RegValue::multi_sz(strings)));
            }
            RegistryAction::DeleteValue { name } => {
                let value = RegValue::new(ValueType::from_raw(DELETES_VALUE), []);
                self.set(&key, name, value);
            }
            RegistryAction::DeleteKey => {
                if let Some((parent, name)) = key.rsplit_once('\\').filter(|_| key != below) {
                    let value = RegValue::new(ValueType::from_raw(DELETES_KEY), []);
                    self.set(parent, name, value);
                }
            }
            RegistryAction::RemoveString { .. } | RegistryAction::Bits { .. } => {}
        }
    }

    fn descriptors(&mut self, package: &StagedPackage<'_>) {
        let key = package_key(package);
        let mut strings = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (plan, model) in models(package) {
            for id in model.ids() {
                if !seen.insert(id.to_lowercase()) {
                    continue;
                }
                let descriptor = format!("{key}\\Descriptors\\{id}");
                self.set(&descriptor, "Configuration", RegValue::sz(&plan.section));
                for (name, text) in [
                    ("Manufacturer", &model.manufacturer),
                    ("Description", &model.description),
                ] {
                    let written = reference(text, &mut strings);
                    self.set(&descriptor, name, RegValue::sz(&written));
                }
            }
        }
        for (name, text) in strings {
            self.set(&format!("{key}\\Strings"), &name, RegValue::sz(&text));
        }
    }
}

/// `%name%` in lower case, with what it stands for noted; other text as it is read.
fn reference(text: &LocalisedText, strings: &mut BTreeMap<String, String>) -> String {
    let name = text
        .written
        .strip_prefix('%')
        .and_then(|rest| rest.strip_suffix('%'))
        .filter(|name| !name.is_empty() && !name.contains('%'));
    match name {
        Some(name) => {
            let name = name.to_lowercase();
            let reference = format!("%{name}%");
            strings.insert(name, text.text.clone());
            reference
        }
        None => text.text.clone(),
    }
}

fn models<'p>(
    package: &StagedPackage<'p>,
) -> impl Iterator<Item = (&'p InstallPlan, &'p Model)> + use<'p> {
    let plans = package.plans.iter();
    plans.filter_map(|plan| Some((plan, plan.model.as_ref()?)))
}

fn package_key(package: &StagedPackage<'_>) -> String {
    format!("DriverDatabase\\DriverPackages\\{}", package.label)
}

fn is_filter_value(change: &RegistryChange) -> bool {
    let (RegistryAction::Set { name, .. } | RegistryAction::Append { name, .. }) = &change.action
    else {
        return false;
    };
    change.key.is_empty()
        && FILTER_VALUES
            .iter()
            .any(|(known, _)| known.eq_ignore_ascii_case(name))
}

/// `PROCESSOR_ARCHITECTURE_*`
fn processor(architecture: Architecture) -> u8 {
    match architecture {
        Architecture::X86 => 0,
        Architecture::Arm => 5,
        Architecture::Ia64 => 6,
        Architecture::Amd64 => 9,
        Architecture::Arm64 => 12,
    }
}

const FILTER_VALUES: [(&str, FilterPosition); 2] = [
    ("UpperFilters", FilterPosition::Upper),
    ("LowerFilters", FilterPosition::Lower),
];

/// Bytes of the value `Version`.
pub const VERSION_LENGTH: usize = 48;

// What the upper half of a value's type means in a configuration.
const KEEPS: u32 = 0x0002_0000;
const APPENDS: u32 = 0x0004_0000;
const DELETES_KEY: u32 = 0x0010_0000;
const DELETES_VALUE: u32 = 0x0020_0000;

const SIGNED_BY_HARDWARE_PROGRAMME: u32 = 0x0D00_0005;
const SIGNED_BY_VENDOR: u32 = 0x0F00_0000;

/// Of most packages that are staged and configured.
const CONFIGURED: u32 = 0x12;
