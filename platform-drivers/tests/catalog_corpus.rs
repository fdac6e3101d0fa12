//! The catalogues against registries of real installations: what they name is what they say, and
//! nothing of Microsoft's is ever named by a removal.
//!
//! Needs the corpus: `CE_CORPUS_DIR=<folder> cargo test -p ce-platform --features corpus`.
#![cfg(feature = "corpus")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use ce_platform::catalog::schema::{Action, Leave, PackageRule, ServiceKind, ServiceRule};
use ce_platform::{Catalog, Platform};
use ce_regf::{Hive, Key};

/// Folder of the hive below `hives`, whether it has a DriverDatabase, and services of VMware that it
/// is known to have.
const HIVES: [(&str, bool, &[&str]); 4] = [
    (
        "sys-win10-vmware-hyperv-nolog",
        true,
        &[
            "VMTools",
            "VGAuthService",
            "vmci",
            "vm3dmp",
            "vmmouse",
            "vmusbmouse",
            "vmhgfs",
            "VMMemCtl",
            "vmvss",
        ],
    ),
    ("sys-win81-vbox-nolog", true, &[]),
    (
        "sys-win7x86-vmware-shorter",
        false,
        &[
            "VMTools",
            "vm3dmp",
            "vmci",
            "vmmouse",
            "VMUpgradeHelper",
            "vmdebug",
        ],
    ),
    (
        "pair-win7x86-vmware",
        false,
        &[
            "VMTools",
            "vm3dmp",
            "vmci",
            "vmmouse",
            "VMUpgradeHelper",
            "vmdebug",
        ],
    ),
];

#[test]
fn every_service_that_a_removal_names_is_what_it_says() {
    for (folder, _, known) in HIVES {
        let services = services(&load(folder));
        let mut found = BTreeSet::new();
        for rule in removals() {
            let Some(service) = services.get(&rule.name.folded()) else {
                continue;
            };
            found.insert(rule.name.folded());
            // A stub that an uninstaller left has neither type nor program.
            let Some(kind) = service.kind else {
                continue;
            };
            let is_program = kind >= 0x10;
            assert_eq!(
                is_program,
                rule.kind == ServiceKind::Program,
                "{folder}: {}",
                rule.name
            );
            let image = service.image();
            assert!(
                rule.image.is_empty() || rule.image.iter().any(|known| known.matches(&image)),
                "{folder}: {} runs {image}",
                rule.name
            );
        }
        for service in known {
            assert!(
                found.contains(&service.to_lowercase()),
                "{folder}: no removal names {service}"
            );
        }
        assert!(known.is_empty() == found.is_empty(), "{folder}: {found:?}");
    }
}

#[test]
fn no_removal_names_a_service_of_microsofts() {
    for (folder, _, _) in HIVES {
        let services = services(&load(folder));
        let mut of_microsoft = 0;
        for (name, service) in &services {
            if service.is_of_windows() {
                of_microsoft += 1;
                let rule = removals().find(|rule| rule.name.folded() == *name);
                assert!(
                    rule.is_none(),
                    "{folder}: {name} is Microsoft's: {service:?}"
                );
            }
        }
        // Otherwise the guard guards nothing.
        assert!(of_microsoft > 300, "{folder}: {of_microsoft}");
        for own in ["vmbus", "storvsc", "vmbushid"] {
            assert!(services[own].is_of_windows(), "{folder}: {own}");
        }
    }
}

#[test]
fn what_windows_brings_is_protected() {
    let catalog = builtin();
    let protected: BTreeSet<String> = catalog
        .protected()
        .flat_map(|group| &group.services)
        .map(|service| service.folded())
        .collect();
    for (folder, has_database, _) in HIVES {
        // Services of Windows 7 that are gone since are no concern of prepare, which refuses it.
        if !has_database {
            continue;
        }
        for (name, service) in services(&load(folder)) {
            let inbox = service
                .owners
                .iter()
                .any(|owner| !owner.starts_with('!') && !owner.starts_with("oem"));
            assert!(
                !inbox || protected.contains(&name),
                "{folder}: {name} {service:?}"
            );
        }
    }
}

#[test]
fn packages_that_removals_name_are_the_vendors_and_those_of_windows_are_protected() {
    let catalog = builtin();
    let protected: BTreeSet<String> = catalog
        .protected()
        .flat_map(|group| &group.infs)
        .map(|inf| inf.folded())
        .collect();
    let named: BTreeSet<String> = actions()
        .filter_map(|action| match action {
            Action::Package(PackageRule { inf }) => Some(inf.folded()),
            _ => None,
        })
        .collect();
    let mut vendors = BTreeSet::new();
    for (folder, has_database, _) in HIVES {
        let hive = load(folder);
        let Some(packages) = subkey(&hive.root().unwrap(), r"DriverDatabase\DriverPackages") else {
            assert!(!has_database, "{folder}");
            continue;
        };
        for package in packages.subkeys().unwrap() {
            let package = package.unwrap();
            let published = string(&package, "").unwrap_or_default().to_lowercase();
            if published.starts_with("oem") {
                let original = string(&package, "InfName")
                    .unwrap_or_default()
                    .to_lowercase();
                if named.contains(&original) {
                    assert_ne!(string(&package, "Provider").as_deref(), Some("Microsoft"));
                    vendors.insert(original);
                }
            } else {
                assert!(protected.contains(&published), "{folder}: {published}");
                assert!(!named.contains(&published), "{folder}: {published}");
            }
        }
    }
    let vendors: Vec<&str> = vendors.iter().map(String::as_str).collect();
    assert_eq!(
        vendors,
        ["efifw.inf", "vmci.inf", "vmmouse.inf", "vmusbmouse.inf"]
    );
}

#[test]
fn class_filters_of_windows_are_protected_and_those_that_are_stripped_are_the_vendors() {
    let catalog = builtin();
    let protected: BTreeSet<String> = catalog
        .protected()
        .flat_map(|group| group.filters.iter().chain(&group.services))
        .map(|name| name.folded())
        .collect();
    for (folder, has_database, _) in HIVES {
        let hive = load(folder);
        let services = services(&hive);
        let classes = subkey(&hive.root().unwrap(), r"ControlSet001\Control\Class").unwrap();
        for class in classes.subkeys().unwrap() {
            let class = class.unwrap();
            for value in ["UpperFilters", "LowerFilters"] {
                for filter in strings(&class, value) {
                    let filter = filter.to_lowercase();
                    let is_of_windows = services.get(&filter).is_some_and(Service::is_of_windows);
                    assert!(
                        !is_of_windows || protected.contains(&filter) || !has_database,
                        "{folder}: {filter} of {}",
                        class.name()
                    );
                }
            }
        }
    }
}

#[test]
fn boot_services_of_targets_are_as_windows_has_them() {
    let hive = load("sys-win10-vmware-hyperv-nolog");
    let services = services(&hive);
    let mut seen = 0;
    for item in Platform::ALL
        .into_iter()
        .flat_map(|to| builtin().target(to))
    {
        for step in &item.steps {
            let Action::BootService(rule) = &step.action else {
                continue;
            };
            let Some(service) = services.get(&rule.name.folded()) else {
                assert!(!rule.inbox.has(16299), "{} is not there", rule.name);
                continue;
            };
            if service.kind.is_none() {
                continue;
            }
            seen += 1;
            assert_eq!(service.kind, Some(1), "{}", rule.name);
            assert!(
                rule.group.as_str().eq_ignore_ascii_case(&service.group),
                "{}: {}",
                rule.name,
                service.group
            );
            let image = service.image();
            assert!(
                rule.images
                    .iter()
                    .any(|known| known.as_str().eq_ignore_ascii_case(&image)),
                "{}: {image}",
                rule.name
            );
        }
    }
    assert!(seen > 10, "{seen}");
}

#[test]
fn devices_of_targets_are_driven_by_the_infs_that_windows_names() {
    let hive = load("sys-win10-vmware-hyperv-nolog");
    let ids = subkey(&hive.root().unwrap(), r"DriverDatabase\DeviceIds").unwrap();
    let mut seen = BTreeMap::new();
    for item in Platform::ALL
        .into_iter()
        .flat_map(|to| builtin().target(to))
    {
        for step in &item.steps {
            let Action::Device(device) = &step.action else {
                continue;
            };
            for id in &device.ids {
                let Some(key) = subkey(&ids, id.as_str()) else {
                    continue;
                };
                for value in key.values().unwrap() {
                    let inf = value.unwrap().name().to_string().to_lowercase();
                    if !inf.starts_with("oem") {
                        let known = device
                            .infs
                            .iter()
                            .any(|known| known.as_str().eq_ignore_ascii_case(&inf));
                        assert!(known, "{id}: {inf}");
                        seen.insert(id.folded(), inf);
                    }
                }
            }
        }
    }
    assert!(seen.len() >= 6, "{seen:?}");
}

#[test]
fn what_is_left_is_not_taken_for_something_of_windows() {
    let services = services(&load("sys-win10-vmware-hyperv-nolog"));
    for action in actions() {
        // mlx4_bus is both: left, and a driver of Windows.
        if let Action::Leave(Leave::Service(name)) = action
            && name.as_str() != "mlx4_bus"
            && let Some(service) = services.get(&name.folded())
        {
            assert!(!service.is_of_windows(), "{name}: {service:?}");
        }
    }
}

#[derive(Debug)]
struct Service {
    kind: Option<u32>,
    path: String,
    group: String,
    owners: Vec<String>,
}

impl Service {
    /// The file name of its program, in lower case.
    fn image(&self) -> String {
        let path = self.path.to_lowercase();
        let path = match path.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next().unwrap_or_default().to_owned(),
            None => match path.find(".exe") {
                Some(at) => path[..at + 4].to_owned(),
                None => path,
            },
        };
        path.rsplit('\\').next().unwrap_or_default().to_owned()
    }

    /// Whether Windows brought it: an INF of Windows owns it; or no INF does, it runs from System32,
    /// and it is no driver of somebody who installs without INF.
    fn is_of_windows(&self) -> bool {
        if !self.owners.is_empty() {
            return self
                .owners
                .iter()
                .any(|owner| !owner.starts_with('!') && !owner.starts_with("oem"));
        }
        let path = self.path.to_lowercase();
        let image = self.image();
        (path.contains("system32\\") || path.starts_with("system32"))
            && !path.contains("program files")
            // COM server processes host what anybody registered.
            && image != "dllhost.exe"
            && !VENDORS.contains(&image.as_str())
    }
}

/// Drivers in System32 that their vendors' installers put there without an INF.
const VENDORS: [&str; 16] = [
    "vmci.sys",
    "vm3dmp.sys",
    "vmmouse.sys",
    "vmdebug.sys",
    "vmhgfs.sys",
    "vmmemctl.sys",
    "vmrawdsk.sys",
    "vsock.sys",
    "vboxmouse.sys",
    "vboxsf.sys",
    "vboxservice.exe",
    "vboxvideow8.sys",
    "ampa.sys",
    "ddmdrv.sys",
    "vmusbmouse.sys",
    "vboxguest.sys",
];

fn services(hive: &Hive) -> BTreeMap<String, Service> {
    let key = subkey(&hive.root().unwrap(), r"ControlSet001\Services").unwrap();
    let services = key.subkeys().unwrap().map(|service| {
        let service = service.unwrap();
        let kind = service
            .value("Type")
            .unwrap()
            .map(|value| value.dword().unwrap());
        let owners = strings(&service, "Owners");
        let found = Service {
            kind,
            path: string(&service, "ImagePath").unwrap_or_default(),
            group: string(&service, "Group").unwrap_or_default(),
            owners: owners.iter().map(|owner| owner.to_lowercase()).collect(),
        };
        (service.name().to_string().to_lowercase(), found)
    });
    services.collect()
}

fn actions() -> impl Iterator<Item = &'static Action> {
    let items = Platform::ALL
        .into_iter()
        .flat_map(|from| builtin().removal(from));
    items.flat_map(|item| item.steps.iter().map(|step| &step.action))
}

fn removals() -> impl Iterator<Item = &'static ServiceRule> {
    actions().filter_map(|action| match action {
        Action::Service(rule) => Some(rule),
        _ => None,
    })
}

fn builtin() -> &'static Catalog {
    Catalog::builtin().unwrap()
}

fn load(folder: &str) -> Hive {
    let corpus = std::env::var_os("CE_CORPUS_DIR").expect("CE_CORPUS_DIR names the corpus");
    let path = PathBuf::from(corpus)
        .join("hives")
        .join(folder)
        .join("SYSTEM");
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Hive::load(bytes).unwrap()
}

fn subkey<'h>(key: &Key<'h>, path: &str) -> Option<Key<'h>> {
    key.subkey(path).unwrap()
}

fn string(key: &Key<'_>, name: &str) -> Option<String> {
    key.value(name)
        .unwrap()
        .and_then(|value| value.string().ok())
}

fn strings(key: &Key<'_>, name: &str) -> Vec<String> {
    let value = key.value(name).unwrap();
    value
        .and_then(|value| value.multi_string().ok())
        .unwrap_or_default()
}
