//! The driver database of real installations, written again.
//!
//! ```text
//!  package of a real hive --> an INF that says the same --> plans --> database_edits
//!            |                                                              |
//!            +------------------------- the same, value by value -----------+
//! ```
//!
//! No INF that Windows took into these hives is in the corpus, so each is made of what Windows wrote:
//! what is compared is whether the INF engine and the database have a place and a form for all that
//! some 400 INFs of Microsoft and others say. What they have none for is counted, by kind.
//!
//! Needs the corpus: `CE_CORPUS_DIR=<folder> cargo test -p ce-platform --features corpus`.
#![cfg(feature = "corpus")]

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use ce_platform::driver_store::StagedPackage;
use ce_platform::driver_store::database::{Form, database_edits};
use ce_platform::hives::HiveName;
use ce_platform::inf::{
    Architecture, Inf, InfLibrary, InstallPlan, ProductType, WindowsTarget, WindowsVersion,
};
use ce_platform::plan::edit::RegistryEditKind;
use ce_regf::{Hive, Key, RegValue, ValueType};

/// Values by key and name, both in lower case; a key alone has none of them.
type Values = BTreeMap<(String, String), Option<RegValue>>;

/// A device of a package: its id, and the value that tells how well the INF fits it.
struct Device {
    id: String,
    fit: Vec<u8>,
    configuration: String,
    manufacturer: String,
    description: String,
}

/// What a real hive has of a package.
struct RealPackage {
    label: String,
    published: String,
    values: Values,
    devices: Vec<Device>,
    configurations: Vec<String>,
}

fn load(name: &str) -> Hive {
    let folder = env::var_os("CE_CORPUS_DIR").expect("CE_CORPUS_DIR names no folder");
    let path = PathBuf::from(folder)
        .join("hives")
        .join(name)
        .join("SYSTEM");
    Hive::load(fs::read(path).unwrap()).unwrap()
}

fn subkeys<'h>(key: &Key<'h>) -> Vec<Key<'h>> {
    key.subkeys().unwrap().map(Result::unwrap).collect()
}

fn text(key: &Key<'_>, name: &str) -> Option<String> {
    let value = key.value(name).unwrap()?;
    value.string().ok()
}

/// All values of a key and those below it; keys that have nothing at all, too.
fn values_below(key: &Key<'_>, path: &str, found: &mut Values) {
    let (mut is_empty, path) = (true, path.to_lowercase());
    for value in key.values().unwrap() {
        let value = value.unwrap();
        let name = value.name().to_string().to_lowercase();
        found.insert((path.clone(), name), Some(value.to_reg_value().unwrap()));
        is_empty = false;
    }
    for child in subkeys(key) {
        values_below(&child, &format!("{path}\\{}", child.name()), found);
        is_empty = false;
    }
    if is_empty {
        found.insert((path, String::new()), None);
    }
}

fn real_packages(hive: &Hive) -> Vec<RealPackage> {
    let root = hive.root().unwrap();
    let database = root.subkey("DriverDatabase").unwrap().unwrap();
    let packages = database.subkey("DriverPackages").unwrap().unwrap();
    let found = subkeys(&packages).into_iter().map(|package| {
        let label = package.name().to_string();
        let published = text(&package, "").expect("a published name");
        let mut values = Values::new();
        values_below(&package, "package", &mut values);
        let file = database
            .subkey(format!("DriverInfFiles\\{published}"))
            .unwrap();
        values_below(file.as_ref().expect("the INF"), "file", &mut values);
        let descriptors = package.subkey("Descriptors").unwrap();
        let mut devices = Vec::new();
        let mut waiting: Vec<_> = descriptors
            .iter()
            .flat_map(subkeys)
            .map(|key| (key.name().to_string(), key))
            .collect();
        while let Some((id, key)) = waiting.pop() {
            waiting.extend(
                subkeys(&key)
                    .into_iter()
                    .map(|child| (format!("{id}\\{}", child.name()), child)),
            );
            let Some(configuration) = text(&key, "Configuration") else {
                continue;
            };
            let fit = database.subkey(format!("DeviceIds\\{id}")).unwrap();
            let fit = fit.expect("the device").value(published.as_str()).unwrap();
            let fit = fit.expect("how well it fits").to_reg_value().unwrap();
            values.insert(
                (format!("ids\\{id}").to_lowercase(), String::new()),
                Some(fit.clone()),
            );
            devices.push(Device {
                id,
                fit: fit.data,
                configuration,
                manufacturer: text(&key, "Manufacturer").unwrap_or_default(),
                description: text(&key, "Description").unwrap_or_default(),
            });
        }
        let listed = file.expect("the INF").value("Configurations").unwrap();
        let listed = listed.map_or_else(Vec::new, |value| value.multi_string().unwrap());
        let order = |name: &str| {
            listed
                .iter()
                .position(|other| other.eq_ignore_ascii_case(name))
        };
        devices.sort_by_key(|device| order(&device.configuration));
        let configurations = package.subkey("Configurations").unwrap();
        let configurations = configurations.iter().flat_map(subkeys);
        let mut configurations: Vec<String> =
            configurations.map(|key| key.name().to_string()).collect();
        configurations.sort_by_key(|name| order(name));
        RealPackage {
            configurations,
            label,
            published,
            values,
            devices,
        }
    });
    found.collect()
}

/// A field that means what it says: quoted, no percent sign of which begins a name.
fn field(text: &str) -> String {
    format!("\"{}\"", text.replace('%', "%%").replace('"', "\"\""))
}

/// The AddReg and DelReg lines that have these values below `path`.
fn registry_lines(values: &Values, path: &str) -> (String, String) {
    let (mut add, mut delete) = (String::new(), String::new());
    for ((key, name), value) in values {
        let below = match key.strip_prefix(path) {
            Some("") => "",
            Some(rest) if rest.starts_with('\\') => &rest[1..],
            _ => continue,
        };
        let key = field(below);
        let Some(value) = value else {
            let _ = writeln!(add, "HKR,{key}");
            continue;
        };
        let raw = value.value_type.raw();
        let (rule, kind) = (raw >> 16, raw & 0xFFFF);
        if rule & 0x20 != 0 {
            let _ = writeln!(add, "HKR,{key},{},0x4", field(name));
            continue;
        }
        if rule & 0x10 != 0 {
            let deleted = format!("{below}\\{name}");
            let _ = writeln!(delete, "HKR,{}", field(deleted.trim_matches('\\')));
            continue;
        }
        let units: Vec<u16> = value
            .data
            .as_chunks()
            .0
            .iter()
            .map(|pair| u16::from_le_bytes(*pair))
            .collect();
        let string = String::from_utf16(&units).unwrap_or_default();
        let string = string.trim_end_matches('\0');
        let bytes: Vec<String> = value
            .data
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let (flags, data) = match ValueType::from_raw(kind) {
            ValueType::SZ => (0, field(string)),
            ValueType::EXPAND_SZ => (0x2_0000, field(string)),
            ValueType::MULTI_SZ => {
                let texts: Vec<String> = string.split('\0').map(field).collect();
                (0x1_0000, texts.join(","))
            }
            ValueType::DWORD => {
                let number = value.data.first_chunk().expect("four bytes");
                (0x1_0001, u32::from_le_bytes(*number).to_string())
            }
            ValueType::BINARY => (0x1, bytes.join(",")),
            ValueType::NONE => (0x2_0001, bytes.join(",")),
            _ => (kind << 16 | 1, bytes.join(",")),
        };
        let flags =
            flags | if rule & 0x2 != 0 { 0x2 } else { 0 } | if rule & 0x4 != 0 { 0x8 } else { 0 };
        let _ = writeln!(add, "HKR,{key},{},{flags:#x},{data}", field(name));
    }
    (add, delete)
}

/// An INF that says what the hive has of a package.
fn inf_of(package: &RealPackage) -> String {
    let mut text = String::from("[Version]\nSignature=\"$Windows NT$\"\n");
    let at = |name: &str| {
        package
            .values
            .get(&("package".to_owned(), name.to_owned()))?
            .as_ref()
    };
    let string = |value: &RegValue| {
        let units = value
            .data
            .as_chunks()
            .0
            .iter()
            .map(|pair| u16::from_le_bytes(*pair));
        String::from_utf16(&units.collect::<Vec<_>>())
            .unwrap()
            .trim_end_matches('\0')
            .to_owned()
    };
    for (name, directive) in [("provider", "Provider"), ("catalog", "CatalogFile")] {
        if let Some(value) = at(name) {
            let _ = writeln!(text, "{directive}={}", field(&string(value)));
        }
    }
    if let Some(version) = at("version") {
        let class = uuid::Uuid::from_bytes_le(*version.data[8..].first_chunk().unwrap());
        let _ = writeln!(text, "ClassGuid={{{class}}}");
    }

    // A manufacturer for each configuration, so that they come in the order of Windows. One that no device
    // names belongs to ids that another line has, too: here it has ids that are nobody's.
    text.push_str("[Manufacturer]\n");
    let mut models = String::new();
    for (index, section) in package.configurations.iter().enumerate() {
        let of_section = package.devices.iter();
        let of_section =
            of_section.filter(|device| device.configuration.eq_ignore_ascii_case(section));
        let mut manufacturers: Vec<(&str, String)> = Vec::new();
        for device in of_section {
            // The place among compatible ids is made by ids that are nobody's, too.
            let before = match device.fit.first() {
                Some(2) => format!(",{}", ",NONE\\0".repeat(usize::from(device.fit[2]))),
                _ => String::new(),
            };
            let (name, id) = (reference(&device.description), field(&device.id));
            let line = format!("{name}={section}{before},{id}\n");
            let known = manufacturers
                .iter_mut()
                .find(|(name, _)| *name == device.manufacturer);
            match known {
                Some((_, lines)) => lines.push_str(&line),
                None => manufacturers.push((&device.manufacturer, line)),
            }
        }
        if manufacturers.is_empty() {
            manufacturers.push(("nobody", format!("nothing={section},NONE\\{index}\n")));
        }
        for (place, (name, lines)) in manufacturers.into_iter().enumerate() {
            let _ = writeln!(text, "{}=M{index}x{place},NTamd64", reference(name));
            let _ = write!(models, "[M{index}x{place}.NTamd64]\n{lines}");
        }
    }
    text.push_str(&models);

    for section in &package.configurations {
        let key = format!("package\\configurations\\{section}").to_lowercase();
        let value = |name: &str| {
            package
                .values
                .get(&(key.clone(), name.to_owned()))?
                .as_ref()
        };
        let has = |part: &str| {
            let part = format!("{key}\\{part}");
            package
                .values
                .keys()
                .any(|(other, _)| other.starts_with(&part))
        };
        let scope = value("configscope").map_or(0, |scope| scope.data[0]);
        let _ = writeln!(text, "[{section}]\nAddReg={section}.a\nDelReg={section}.d");
        if let Some(included) = value("includedinfs") {
            let names = string(included).replace('\0', ",");
            let _ = writeln!(text, "Include={names}");
        }
        if value("reboot").is_some() {
            text.push_str("Reboot\n");
        }
        let score = package
            .devices
            .iter()
            .find(|device| device.configuration == *section);
        if let Some(device) = score.filter(|device| device.fit[1] != 0xFF) {
            let _ = writeln!(text, "FeatureScore={:#x}", device.fit[1]);
        }
        let (add, delete) = registry_lines(&package.values, &format!("{key}\\driver"));
        let _ = write!(text, "[{section}.a]\n{add}[{section}.d]\n{delete}");

        let filters: Vec<_> = ["UpperFilters", "LowerFilters"]
            .into_iter()
            .filter_map(|name| Some((name, string(value(&name.to_lowercase())?))))
            .collect();
        if scope & 2 != 0 || has("device") || !filters.is_empty() {
            let (mut add, delete) = registry_lines(&package.values, &format!("{key}\\device"));
            for (name, services) in filters {
                let services: Vec<String> = services.split('\0').map(field).collect();
                let _ = writeln!(add, "HKR,,{name},0x10000,{}", services.join(","));
            }
            let _ = write!(
                text,
                "[{section}.HW]\nAddReg={section}.ha\nDelReg={section}.hd\n\
                 [{section}.ha]\n{add}[{section}.hd]\n{delete}"
            );
        }
        let service = value("service").map(string);
        let is_null = service.as_ref().is_some_and(String::is_empty);
        if scope & 4 != 0 || service.is_some() || has("services") {
            let _ = writeln!(text, "[{section}.Services]");
            if is_null {
                text.push_str("AddService=,2\n");
            }
            let prefix = format!("{key}\\services\\");
            let mut services: BTreeMap<String, String> = BTreeMap::new();
            for (other, _) in package.values.keys() {
                if let Some(rest) = other.strip_prefix(&prefix) {
                    let name = rest.split('\\').next().unwrap_or_default();
                    services.insert(name.to_owned(), name.to_owned());
                }
            }
            if let Some(service) = service.as_ref().filter(|_| !is_null) {
                services.insert(service.to_lowercase(), service.clone());
            }
            for (folded, name) in &services {
                let is_function = service
                    .as_ref()
                    .is_some_and(|service| service.to_lowercase() == *folded);
                let flags = if is_function { 2 } else { 0 };
                let _ = writeln!(
                    text,
                    "AddService={},{flags},{section}.s.{folded}",
                    field(name)
                );
            }
            for folded in services.keys() {
                let (add, delete) = registry_lines(&package.values, &format!("{prefix}{folded}"));
                let _ = write!(
                    text,
                    "[{section}.s.{folded}]\nServiceType=1\nStartType=3\nErrorControl=1\n\
                     ServiceBinary=%12%\\driver.sys\nAddReg={section}.s.{folded}.a\nDelReg={section}.s.{folded}.d\n\
                     [{section}.s.{folded}.a]\n{add}[{section}.s.{folded}.d]\n{delete}"
                );
            }
        }
        if scope & 8 != 0 {
            let _ = writeln!(text, "[{section}.Interfaces]");
        }
    }
    text.push_str("[Strings]\n");
    for ((key, name), value) in &package.values {
        if key == "package\\strings" && !name.is_empty() {
            let value = value.as_ref().map(string).unwrap_or_default();
            let _ = writeln!(text, "\"{name}\"=\"{}\"", value.replace('"', "\"\""));
        }
    }
    text
}

/// `%name%` as it stands, other text so that it means itself.
fn reference(text: &str) -> String {
    match text.len() > 2 && text.starts_with('%') && text.ends_with('%') {
        true => text.to_owned(),
        false => field(text),
    }
}

/// What is written for the INF, with the names that `real_packages` gives keys.
fn written(package: &RealPackage, text: &str, is_windows_10: bool) -> Values {
    let inf = Inf::parse(text.as_bytes())
        .unwrap_or_else(|error| panic!("{}: {error}\n{text}", package.label));
    let target = WindowsTarget {
        architecture: Architecture::Amd64,
        version: WindowsVersion {
            major: 10,
            minor: 0,
            build: 16299,
        },
        product_type: ProductType::Workstation,
        suites: 0,
    };
    let models = match package.configurations.is_empty() {
        true => Vec::new(),
        false => inf
            .models(&target)
            .unwrap_or_else(|error| panic!("{}: {error}\n{text}", package.label)),
    };
    let plans: Vec<InstallPlan> = models
        .into_iter()
        .map(|model| {
            let plan = inf.plan_model(model, &target, &InfLibrary::default());
            plan.unwrap_or_else(|error| panic!("{}: {error}\n{text}", package.label))
        })
        .collect();
    let version = inf.version();
    let staged = StagedPackage {
        label: &package.label,
        published_name: &package.published,
        inf_name: "",
        architecture: Architecture::Amd64,
        class: version.class_guid,
        driver: None,
        provider: version.provider.as_deref(),
        signer: None,
        is_hardware_programme: true,
        catalog: version.catalog.as_deref(),
        oem_path: "",
        plans: &plans,
        is_windows_10,
        now: 0,
    };
    let names = [
        (
            format!(
                "driverdatabase\\driverpackages\\{}",
                package.label.to_lowercase()
            ),
            "package",
        ),
        (
            format!(
                "driverdatabase\\driverinffiles\\{}",
                package.published.to_lowercase()
            ),
            "file",
        ),
        ("driverdatabase\\deviceids".to_owned(), "ids"),
    ];
    let mut found = Values::new();
    for edit in database_edits(&staged, HiveName::System, Form::Full, &[]) {
        let key = edit.key.to_lowercase();
        let Some((long, short)) = names
            .iter()
            .find(|(long, _)| key.starts_with(long.as_str()))
        else {
            continue;
        };
        let key = key.replacen(long.as_str(), short, 1);
        // Class entries are one for each INF; ids that are nobody's are of this test.
        let is_class = key.starts_with("ids\\{") && key.matches('\\').count() == 1;
        if is_class || key.contains("\\none\\") {
            continue;
        }
        match edit.change {
            RegistryEditKind::SetValue { name, value } => {
                let name = if *short == "ids" {
                    String::new()
                } else {
                    name.to_lowercase()
                };
                found.insert((key, name), Some(value));
            }
            RegistryEditKind::CreateKey => {
                found.insert((key, String::new()), None);
            }
            other => panic!("{}: {other:?}", package.label),
        }
    }
    found
}

/// Values of a package that are not the INF's: what the test for a whole package compares, and how the
/// package came to be there.
const NOT_OF_THE_INF: [&str; 15] = [
    "bootcritical",
    "catalogattributes",
    "extensionid",
    "filesize",
    "importdate",
    "infname",
    "locklevel",
    "needsreconfig",
    "oempath",
    "product",
    "signername",
    "signerscore",
    "statusflags",
    "version",
    "catalog",
];

#[test]
fn packages_of_real_hives_are_written_again_value_by_value() {
    let mut differences: BTreeMap<String, (usize, String)> = BTreeMap::new();
    let (mut packages, mut compared) = (0, 0);
    for (name, is_windows_10) in [
        ("sys-win10-vmware-hyperv-nolog", true),
        ("sys-win81-vbox-nolog", false),
    ] {
        let hive = load(name);
        for package in real_packages(&hive) {
            let ours = written(&package, &inf_of(&package), is_windows_10);
            packages += 1;
            let all: BTreeSet<_> = ours.keys().chain(package.values.keys()).collect();
            for place in all {
                let (key, value) = place;
                if key == "package" && NOT_OF_THE_INF.contains(&value.as_str())
                    || key.split('\\').any(|part| part == "properties")
                {
                    continue;
                }
                let (ours, real) = (ours.get(place), package.values.get(place));
                if ours == real {
                    compared += 1;
                    continue;
                }
                let kind = match key.split('\\').collect::<Vec<_>>()[..] {
                    ["package", "configurations", _] => format!("configuration {value}"),
                    ["package", "configurations", _, part, ..] => format!("configuration {part}"),
                    ["package", second, ..] => format!("package {second}"),
                    [first, ..] => format!("{first} {value}"),
                    [] => String::new(),
                };
                let count = differences.entry(kind).or_insert_with(|| {
                    (
                        0,
                        format!(
                            "{}: {key} {value:?}: {ours:?} instead of {real:?}",
                            package.label
                        ),
                    )
                });
                count.0 += 1;
            }
        }
    }
    let told: Vec<(&str, usize)> = differences
        .iter()
        .map(|(kind, (count, _))| (kind.as_str(), *count))
        .collect();
    assert_eq!(told, DIFFERENCES, "{differences:#?}");
    assert_eq!((packages, compared), (397, 53_828));
}

/// What Windows wrote otherwise: flags and bits of the scope that are not understood, ids that are
/// excluded, keys of interfaces and of packages without devices that have nothing in them, and a package
/// of which only the list of its sections is there.
const DIFFERENCES: [(&str, usize); 7] = [
    ("configuration configflags", 29),
    ("configuration configscope", 15),
    ("configuration excludeids", 10),
    ("configuration interfaces", 3),
    ("file configurations", 1),
    ("package descriptors", 7),
    ("package strings", 16),
];
