//! Devices, their drivers, and the filters of their classes.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{Chain, SecondReader, Subject, Unreadable, read_if_there};
use crate::catalog::schema::{Action, BootService, Device, DeviceRole, Need};
use crate::package::pe;
use crate::plan::BootDriver;

pub(super) struct Chains<'s> {
    pub(super) subject: &'s Subject<'s>,
    pub(super) system: SecondReader<'s>,
    pub(super) drivers: Option<SecondReader<'s>>,
}

/// An INF in the driver database that fits a device.
struct Package {
    inf: String,
    /// `None` if the database has no such package.
    label: Option<String>,
    class: Option<Uuid>,
}

impl Chains<'_> {
    fn actions(&self) -> impl Iterator<Item = &Action> {
        let build = self.subject.inspection.version.build;
        let items = self.subject.preparation.target.iter();
        let meant = items.filter(move |item| {
            let builds = item.about.when.build;
            builds.is_none_or(|builds| build.is_some_and(|build| builds.contains(build)))
        });
        meant.flat_map(|item| &item.steps).map(|step| &step.action)
    }

    fn listed_devices(&self) -> impl Iterator<Item = &Device> {
        self.actions().filter_map(|action| match action {
            Action::Device(device) => Some(device),
            _ => None,
        })
    }

    fn listed_services(&self) -> impl Iterator<Item = &BootService> {
        self.actions().filter_map(|action| match action {
            Action::BootService(service) => Some(service),
            _ => None,
        })
    }

    fn sets(&self) -> Vec<String> {
        let sets = &self.subject.inspection.control_sets.present;
        sets.iter()
            .map(|set| format!("ControlSet{set:03}"))
            .collect()
    }

    pub(super) fn devices(&self) -> Result<Vec<Chain>, Unreadable> {
        self.listed_devices()
            .map(|device| self.device(device))
            .collect()
    }

    /// Those devices alone that Windows boots with by these drivers; none of them is optional.
    pub(super) fn boot_devices(&self, drivers: &[BootDriver]) -> Result<Vec<Chain>, Unreadable> {
        let mut chains = Vec::new();
        for driver in drivers {
            let mut listed = self.listed_devices();
            let found = listed.find(|device| driver.device == device.title.as_str());
            let mut chain = match found {
                Some(device) => self.device(device)?,
                None => {
                    let mut chain = Chain::new(driver.device.as_str(), false);
                    chain.link("device", false, "the target does not show it");
                    chain
                }
            };
            chain.is_optional = false;
            chains.push(chain);
        }
        Ok(chains)
    }

    fn device(&self, device: &Device) -> Result<Chain, Unreadable> {
        let mut chain = Chain::new(device.title.as_str(), device.need == Need::Wanted);
        let boots = matches!(device.role, DeviceRole::Bus | DeviceRole::Storage);
        let Some(label) = self.package(device, boots, &mut chain)? else {
            return Ok(chain);
        };
        let mut services = self.listed_services();
        if let Some(service) = services.find(|service| service.name == device.driver) {
            self.boot_service(service, &mut chain)?;
            return Ok(chain);
        }
        let mut file = None;
        for set in self.sets() {
            let key = format!(r"{set}\Services\{}", device.driver);
            let start = self.system.number(&key, "Start")?;
            let found = match start {
                Some(start) => format!("{set}: Start {start}"),
                None => format!("{set}: plug and play makes it from {label}"),
            };
            chain.link("service", start != Some(DISABLED), found);
            if start.is_some() {
                file = self.image(&key, device.driver.as_str())?;
            }
        }
        match file {
            Some(file) => self.file(&file, &mut chain)?,
            None => self.store(device, &label, &mut chain)?,
        }
        Ok(chain)
    }

    /// Where plug and play takes a driver from that is not set up yet.
    fn store(&self, device: &Device, label: &str, chain: &mut Chain) -> Result<(), Unreadable> {
        let folder = format!(r"System32\DriverStore\FileRepository\{label}");
        let infs = device.infs.iter().map(|inf| format!(r"INF\{inf}"));
        for place in infs.chain([folder]) {
            if self.exists(&place)? {
                chain.link("files of the package", true, place);
                return Ok(());
            }
        }
        let found = format!("{label} is neither in INF nor in the driver store");
        chain.link("files of the package", false, found);
        Ok(())
    }

    /// Follows a device to its package: the label of it, or the INF of Windows' own.
    fn package(
        &self,
        device: &Device,
        boots: bool,
        chain: &mut Chain,
    ) -> Result<Option<String>, Unreadable> {
        if boots && !self.system.has_key("DriverDatabase")? {
            return self.critical_device(device, chain);
        }
        let mut candidates = self.packages(device, &self.system)?;
        if !boots && let Some(drivers) = &self.drivers {
            candidates.extend(self.packages(device, drivers)?);
        }
        let ids: Vec<&str> = device.ids.iter().map(|id| id.as_str()).collect();
        let ids = ids.join(", ");
        if candidates.is_empty() && !boots {
            for inf in &device.infs {
                if self.exists(&format!(r"INF\{inf}"))? {
                    chain.link("hardware id", true, format!("{ids} by {inf}"));
                    return Ok(Some(inf.to_string()));
                }
            }
        }
        if candidates.is_empty() {
            let found = format!("{ids} is in no driver database");
            chain.link("hardware id", false, found);
            return Ok(None);
        }
        chain.link("hardware id", true, ids);
        for package in &candidates {
            if let Some(label) = &package.label
                && (!boots || self.configures(label, device)?)
            {
                chain.link("INF", true, package.inf.as_str());
                chain.link("package", true, label.as_str());
                return Ok(Some(label.clone()));
            }
        }
        let infs: Vec<&str> = candidates.iter().map(|package| &*package.inf).collect();
        let (infs, driver) = (infs.join(", "), &device.driver);
        let found = format!("{infs}: none has a package that is set up with {driver}");
        chain.link("package", false, found);
        Ok(None)
    }

    /// The same for what a Windows without a driver database boots with.
    fn critical_device(
        &self,
        device: &Device,
        chain: &mut Chain,
    ) -> Result<Option<String>, Unreadable> {
        let mut place = None;
        for set in self.sets() {
            let mut known = None;
            for id in &device.ids {
                let name = id.as_str().replace('\\', "#");
                let key = format!(r"{set}\Control\CriticalDeviceDatabase\{name}");
                let service = self.system.text(&key, "Service")?;
                let driver = device.driver.as_str();
                if service.is_some_and(|service| service.eq_ignore_ascii_case(driver)) {
                    known = Some(key);
                    break;
                }
            }
            let driver = &device.driver;
            let Some(key) = known else {
                let found =
                    format!("{set}: no driver database, and no critical device of {driver}");
                chain.link("hardware id", false, found);
                return Ok(None);
            };
            chain.link("hardware id", true, key.as_str());
            place = Some(key);
        }
        Ok(place)
    }

    fn packages(
        &self,
        device: &Device,
        hive: &SecondReader<'_>,
    ) -> Result<Vec<Package>, Unreadable> {
        let mut packages = Vec::new();
        for id in &device.ids {
            let Some((bus, id)) = id.as_str().split_once('\\') else {
                continue;
            };
            let bus = format!(r"DriverDatabase\DeviceIds\{bus}");
            let wanted = id.to_ascii_uppercase();
            for known in hive.subkeys(&bus)? {
                let upper = known.to_ascii_uppercase();
                let rest = upper.strip_prefix(&wanted);
                if !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('&')) {
                    continue;
                }
                for inf in hive.value_names(&format!(r"{bus}\{known}"))? {
                    packages.push(Self::of_inf(hive, inf)?);
                }
            }
        }
        Ok(packages)
    }

    fn of_inf(hive: &SecondReader<'_>, inf: String) -> Result<Package, Unreadable> {
        let key = format!(r"DriverDatabase\DriverInfFiles\{inf}");
        let active = hive.text(&key, "Active")?;
        let Some(label) = active.or(hive.text(&key, "")?) else {
            return Ok(Package {
                inf,
                label: None,
                class: None,
            });
        };
        let key = format!(r"DriverDatabase\DriverPackages\{label}");
        let version = hive.data(&key, "Version")?.unwrap_or_default();
        let class = version.get(8..).and_then(<[u8]>::first_chunk);
        Ok(Package {
            inf,
            class: class.map(|class| Uuid::from_bytes_le(*class)),
            label: hive.has_key(&key)?.then_some(label),
        })
    }

    fn configures(&self, label: &str, device: &Device) -> Result<bool, Unreadable> {
        let sections = format!(r"DriverDatabase\DriverPackages\{label}\Configurations");
        for section in self.system.subkeys(&sections)? {
            let key = format!(r"{sections}\{section}");
            let service = self.system.text(&key, "Service")?;
            if service.is_some_and(|name| name.eq_ignore_ascii_case(device.driver.as_str())) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The services that the target boots with. Those of its devices count with the device; those
    /// that have none are there for one kind of controller, but for the bus of all machines.
    pub(super) fn services(&self) -> Result<Vec<Chain>, Unreadable> {
        let mut chains = Vec::new();
        for service in self.listed_services() {
            let is_of_all = service.name.as_str().eq_ignore_ascii_case("pci");
            let mut chain = Chain::new(service.name.as_str(), !is_of_all);
            self.boot_service(service, &mut chain)?;
            chains.push(chain);
        }
        Ok(chains)
    }

    /// The service loads at boot, in every control set.
    fn boot_service(&self, service: &BootService, chain: &mut Chain) -> Result<(), Unreadable> {
        let name = service.name.as_str();
        for set in self.sets() {
            let key = format!(r"{set}\Services\{name}");
            let kind = self.system.number(&key, "Type")?;
            let is_driver = kind.is_some_and(|kind| kind & KERNEL_DRIVER != 0);
            let found = match kind {
                Some(kind) => format!("{set}: {name}, Type {kind:#x}"),
                None => format!("{set}: {name} is not there or has no Type"),
            };
            if !chain.link("service", is_driver, found) {
                continue;
            }
            let start = self.system.number(&key, "Start")?;
            let found = match start {
                Some(start) => format!("{set}: Start {start}"),
                None => format!("{set}: no Start"),
            };
            chain.link("start type", start == Some(0), found);
            let is_overridden = self.system.has_key(&format!(r"{key}\StartOverride"))?;
            let found = match is_overridden {
                true => format!("{set}: StartOverride is there"),
                false => format!("{set}: none"),
            };
            chain.link("no override", !is_overridden, found);
            let group = self.system.text(&key, "Group")?.unwrap_or_default();
            let is_right = group.eq_ignore_ascii_case(service.group.as_str());
            chain.link("group", is_right, format!("{set}: {group:?}"));
            if let Some(file) = self.image(&key, name)? {
                self.file(&file, chain)?;
            }
        }
        Ok(())
    }

    /// The file of a driver, below the folder of Windows.
    fn image(&self, key: &str, name: &str) -> Result<Option<String>, Unreadable> {
        let path = self.system.text(key, "ImagePath")?;
        let path = path.unwrap_or_else(|| format!(r"System32\drivers\{name}.sys"));
        let lower = path.to_ascii_lowercase();
        let roots = [r"\systemroot\", r"%systemroot%\", r"\??\c:\windows\"];
        let root = roots.iter().find(|root| lower.starts_with(**root));
        Ok(path
            .get(root.map_or(0, |root| root.len())..)
            .map(str::to_owned))
    }

    fn file(&self, file: &str, chain: &mut Chain) -> Result<(), Unreadable> {
        let Ok(path) = self.subject.folder.join(file) else {
            chain.link("file", false, format!("{file:?} is no path"));
            return Ok(());
        };
        let Some(content) = read_if_there(self.subject.volume, &path)? else {
            chain.link("file", false, format!("{path} is not there"));
            return Ok(());
        };
        chain.link("file", true, path.to_string());
        let expected = pe::machine_for(self.subject.inspection.version.architecture.as_deref());
        let machine = pe::machine_of(&content);
        let found = match machine {
            Some(machine) => format!("{machine:#06x}"),
            None => "no program (PE) file".to_owned(),
        };
        chain.link("machine", machine == Some(expected), found);
        Ok(())
    }

    fn exists(&self, below_windows: &str) -> Result<bool, Unreadable> {
        match self.subject.folder.join(below_windows) {
            Ok(path) => Ok(self.subject.volume.exists(&path)?),
            Err(_) => Ok(false),
        }
    }

    /// Every filter of the classes of the target's devices, and of those that disks hang on, is a
    /// service that starts.
    pub(super) fn filters(&self) -> Result<Vec<Chain>, Unreadable> {
        let mut classes: BTreeMap<Uuid, &str> = CLASSES.into_iter().collect();
        for device in self.listed_devices() {
            for package in self.packages(device, &self.system)? {
                if let Some(class) = package.class {
                    classes.entry(class).or_insert(device.title.as_str());
                }
            }
        }
        let mut chains = Vec::new();
        for (class, title) in classes {
            let mut chain = Chain::new(format!("class {{{class}}} ({title})"), false);
            for set in self.sets() {
                let key = format!(r"{set}\Control\Class\{{{class}}}");
                for list in ["LowerFilters", "UpperFilters"] {
                    for filter in self.system.texts(&key, list)? {
                        self.filter(&set, list, &filter, &mut chain)?;
                    }
                }
            }
            chains.push(chain);
        }
        Ok(chains)
    }

    fn filter(
        &self,
        set: &str,
        list: &str,
        filter: &str,
        chain: &mut Chain,
    ) -> Result<(), Unreadable> {
        let key = format!(r"{set}\Services\{filter}");
        let start = self.system.number(&key, "Start")?;
        let found = match start {
            Some(start) => format!("{set}: {list}: {filter}, Start {start}"),
            None => format!("{set}: {list}: {filter} is no service"),
        };
        let holds = start.is_some_and(|start| start != DISABLED);
        if chain.link("filter", holds, found)
            && let Some(file) = self.image(&key, filter)?
        {
            self.file(&file, chain)?;
        }
        Ok(())
    }
}

/// SERVICE_DISABLED
const DISABLED: u32 = 4;

/// SERVICE_KERNEL_DRIVER
const KERNEL_DRIVER: u32 = 1;

/// The classes that a disk hangs on, from the bus to the volume, and network adapters.
const CLASSES: [(Uuid, &str); 6] = [
    (class(0x4d36e967_e325_11ce_bfc1_08002be10318), "disks"),
    (
        class(0x4d36e96a_e325_11ce_bfc1_08002be10318),
        "IDE controllers",
    ),
    (
        class(0x4d36e972_e325_11ce_bfc1_08002be10318),
        "network adapters",
    ),
    (
        class(0x4d36e97b_e325_11ce_bfc1_08002be10318),
        "storage controllers",
    ),
    (
        class(0x4d36e97d_e325_11ce_bfc1_08002be10318),
        "system devices",
    ),
    (class(0x71a27cdd_812a_11d0_bec7_08002be2092f), "volumes"),
];

const fn class(guid: u128) -> Uuid {
    Uuid::from_u128(guid)
}
