//! Drivers of the devices that the target shows, and the services that it boots with.

use std::collections::BTreeMap;
use std::fmt;

use ce_disk::units::ByteCount;
use ce_disk::volume::WinPath;
use ce_regf::RegValue;

use super::draft::Store;
use super::services::{BOOT_START, file_name};
use super::{Change, PlanError, Planner, State};
use crate::Platform;
use crate::catalog::schema::{Action, Architecture, BootService, Device, DeviceRole, Need};
use crate::catalog::value::{FileName, HardwareId};
use crate::catalog::{Item, Preparation};
use crate::package::pe;

/// A driver without which the target does not boot, or has no network.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DriverBlocker {
    /// The item of the catalogue that needs it.
    pub item: String,
    /// The device, or the devices of which one has to have a driver.
    pub device: String,
    /// Their hardware ids.
    pub ids: Vec<String>,
    /// The service of the driver.
    pub driver: String,
    /// What was found in its place.
    pub found: String,
    /// Whether there is a driver that is unusable, rather than none.
    pub is_invalid: bool,
    /// For what target.
    pub to: Platform,
}

impl DriverBlocker {
    /// The stable code of its kind.
    pub fn code(&self) -> &'static str {
        match self.is_invalid {
            true => "DriverInvalid",
            false => "DriverMissing",
        }
    }

    /// Where the vendor ships the driver.
    pub fn way_out(&self) -> &'static str {
        match self.to {
            Platform::Aws => {
                "Give a folder with the driver: AWS ships ENA in AwsEnaNetworkDriver.zip, and its NVMe driver in AWSNVMe.zip."
            }
            Platform::Azure => {
                "Hyper-V drivers are part of Windows: repair it (sfc /scannow). MANA is at aka.ms/manawindowsdrivers."
            }
            Platform::Gcp => {
                "Give a folder with the driver: Google ships gVNIC and virtio as google-compute-engine-driver packages, and virtio-win has the same."
            }
            Platform::Nutanix => {
                "Give a folder with the driver: it is on the Nutanix VirtIO disc of the Nutanix support portal."
            }
            Platform::Vsphere => {
                "Give a folder with the driver: it is on the disc of VMware Tools, or choose a controller that Windows has a driver for."
            }
            Platform::Xenserver => {
                "Drivers of the emulated devices are part of Windows: repair it (sfc /scannow)."
            }
        }
    }
}

impl fmt::Display for DriverBlocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} has no usable driver for {} ({}): expected {}, found {}",
            self.to.title(),
            self.device,
            self.ids.join(", "),
            self.driver,
            self.found
        )
    }
}

/// A driver that a machine boots with and that is not part of Windows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BootDriver {
    /// What the catalogue calls the device.
    pub device: String,
    /// The service of the driver.
    pub service: String,
    /// Whether the bundle has a package of it that can be used.
    pub is_in_bundle: bool,
}

/// The file of a driver, or what is wrong.
type DriverFile = Result<WinPath, Unusable>;

/// Why a driver is of no use.
#[derive(Clone, Debug)]
pub(super) struct Unusable {
    pub(super) found: String,
    pub(super) is_invalid: bool,
}

impl Planner<'_, '_> {
    /// Looks which of the target's devices have a driver; what is missing becomes a blocker.
    pub(super) fn devices(&mut self, preparation: &Preparation<'_>) -> Result<(), PlanError> {
        let mut without: BTreeMap<bool, Vec<(String, &Device, Unusable)>> = BTreeMap::new();
        let mut with = [false; 2];
        for &item in &preparation.target {
            if !self.is_meant(item) {
                continue;
            }
            self.begin(item);
            for step in &item.steps {
                let Action::Device(device) = &step.action else {
                    continue;
                };
                let roles = [DeviceRole::Storage, DeviceRole::Network];
                match self.driver_of(preparation, device)? {
                    Ok(source) => {
                        for (role, with) in roles.iter().zip(&mut with) {
                            *with |= *role == device.role;
                        }
                        self.has_driver(device, &source)?;
                    }
                    Err(unusable) if device.need == Need::Required => {
                        let blocker = self.blocker(&[device], &unusable);
                        self.blockers.push(blocker);
                    }
                    Err(unusable) => {
                        self.has_no_driver(device, &unusable);
                        if roles.contains(&device.role) {
                            let is_network = device.role == DeviceRole::Network;
                            let missing = (self.item.clone(), device, unusable);
                            without.entry(is_network).or_default().push(missing);
                        }
                    }
                }
            }
        }
        // What was wanted only: of each kind one has to have a driver.
        for (is_network, missing) in without {
            let is_there = with.get(usize::from(is_network)).copied().unwrap_or(false);
            let devices: Vec<&Device> = missing.iter().map(|(_, device, _)| *device).collect();
            let known = self.blockers.iter().any(|blocker| {
                let required = preparation.target.iter().flat_map(|item| &item.steps);
                let mut required = required.filter_map(|step| match &step.action {
                    Action::Device(device) => Some(device),
                    _ => None,
                });
                required.any(|device| {
                    blocker.ids == ids(&device.ids)
                        && (device.role == DeviceRole::Network) == is_network
                })
            });
            if let Some((item, _, unusable)) = missing.first().filter(|_| !is_there && !known) {
                self.item.clone_from(item);
                let blocker = self.blocker(&devices, unusable);
                self.blockers.push(blocker);
            }
        }
        Ok(())
    }

    /// Tells that a device has its driver, and sees to it that Windows starts the device at boot.
    pub(super) fn has_driver(&mut self, device: &Device, source: &str) -> Result<(), PlanError> {
        let what = format!("{}: {}, {source}", in_words(device), device.driver);
        let reason = self.reason.clone();
        self.push(Change::Subject { what, reason }, State::AlreadySo);
        if is_booted_with(device) && !device.inbox.has(self.windows.build) {
            self.boot_drivers.push(BootDriver {
                device: device.title.to_string(),
                service: device.driver.to_string(),
                is_in_bundle: matches!(self.choose(device)?, Some(Ok(_))),
            });
        }
        self.critical_device(device)
    }

    /// Tells that a device is without a driver, and why.
    pub(super) fn has_no_driver(&mut self, device: &Device, unusable: &Unusable) {
        let why = format!("no driver {}: {}", device.driver, unusable.found);
        self.skip(in_words(device), why);
    }

    fn blocker(&self, devices: &[&Device], unusable: &Unusable) -> DriverBlocker {
        let titles: Vec<&str> = devices.iter().map(|device| device.title.as_str()).collect();
        let drivers: Vec<&str> = devices
            .iter()
            .map(|device| device.driver.as_str())
            .collect();
        DriverBlocker {
            item: self.item.clone(),
            device: titles.join(" or "),
            ids: devices.iter().flat_map(|device| ids(&device.ids)).collect(),
            driver: drivers.join(" or "),
            found: unusable.found.clone(),
            is_invalid: unusable.is_invalid,
            to: self.machine.preparation.to,
        }
    }

    /// Where the driver of a device comes from, or why there is none to use.
    pub(super) fn driver_of(
        &mut self,
        preparation: &Preparation<'_>,
        device: &Device,
    ) -> Result<Result<String, Unusable>, PlanError> {
        let is_inbox = device.inbox.has(self.windows.build);
        let installed = self.installed(device)?;
        let source = match (is_inbox, installed) {
            (true, _) => "part of Windows".to_owned(),
            (false, Some(inf)) => format!("installed already as {inf}"),
            (false, None) => match self.install(device)? {
                Some(Ok(inf)) => format!("put in from the bundle as {inf}"),
                Some(Err(unusable)) => return Ok(Err(unusable)),
                None => {
                    return Ok(Err(Unusable {
                        found: "it is not part of this Windows, and not installed in it".into(),
                        is_invalid: false,
                    }));
                }
            },
        };
        let steps = preparation.target.iter().flat_map(|item| &item.steps);
        for step in steps {
            if let Action::BootService(service) = &step.action
                && service.name == device.driver
                && let Err(unusable) = self.driver_file(service)?
            {
                return Ok(Err(unusable));
            }
        }
        Ok(Ok(source))
    }

    /// The published name of a package in the driver store that fits the device. To boot with it, the
    /// package has to be configured in SYSTEM; for all else plug and play finds it in either hive.
    fn installed(&self, device: &Device) -> Result<Option<String>, PlanError> {
        let boots = is_booted_with(device);
        if !self.has_database()? {
            return match boots {
                true => Ok(self
                    .is_critical(device)?
                    .then(|| "a critical device".to_owned())),
                false => self.inf_beside_others(device),
            };
        }
        let stores: &[Store] = match boots {
            true => &[Store::System],
            false => &[Store::System, Store::Drivers],
        };
        for &store in stores {
            for inf in self.infs_for(store, &device.ids)? {
                let key = format!(r"DriverDatabase\DriverInfFiles\{inf}");
                let active = self.draft.text(store, &key, "Active")?;
                let packages = self.draft.list(store, &key, "")?;
                let label = active.or(packages.and_then(|names| names.into_iter().next()));
                let Some(label) = label else { continue };
                let package = format!(r"DriverDatabase\DriverPackages\{label}");
                if !self.draft.has_key(store, &package)? {
                    continue;
                }
                if !boots || self.configures(&package, device.driver.as_str())? {
                    return Ok(Some(inf));
                }
            }
        }
        Ok(None)
    }

    /// The INF of a device, in the folder of INFs under its own name.
    fn inf_beside_others(&self, device: &Device) -> Result<Option<String>, PlanError> {
        for inf in &device.infs {
            if let Some(path) = self.in_windows(&format!(r"INF\{inf}"))
                && self.machine.volume.exists(&path)?
            {
                return Ok(Some(inf.to_string()));
            }
        }
        Ok(None)
    }

    /// Whether a package that is configured installs this service.
    fn configures(&self, package: &str, driver: &str) -> Result<bool, PlanError> {
        let sections = format!(r"{package}\Configurations");
        for section in self.draft.subkeys(Store::System, &sections)? {
            let key = format!(r"{sections}\{section}");
            let service = self.draft.text(Store::System, &key, "Service")?;
            if service.is_some_and(|service| service.eq_ignore_ascii_case(driver)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// INFs that name one of the ids, or a narrower one of the same device.
    fn infs_for(&self, store: Store, wanted: &[HardwareId]) -> Result<Vec<String>, PlanError> {
        let mut infs = Vec::new();
        for id in wanted {
            let Some((bus, id)) = id.as_str().split_once('\\') else {
                continue;
            };
            let bus = format!(r"DriverDatabase\DeviceIds\{bus}");
            for found in self.draft.subkeys(store, &bus)? {
                if is_or_narrows(&found, id) {
                    infs.extend(self.draft.value_names(store, &format!(r"{bus}\{found}"))?);
                }
            }
        }
        Ok(infs)
    }

    pub(super) fn boot_service(
        &mut self,
        item: &Item,
        service: &BootService,
    ) -> Result<(), PlanError> {
        let file = match self.driver_file(service)? {
            Ok(file) => file,
            Err(unusable) => {
                self.no_boot_service(item, service, &unusable);
                return Ok(());
            }
        };
        let is_inbox = service.inbox.has(self.windows.build);
        let usable = is_inbox || self.is_installed_for(service)?;
        for set in self.sets.clone() {
            let key = format!(r"{set}\Services\{}", service.name);
            let has = |name| self.draft.number(Store::System, &key, name);
            let is_complete = has("Type")?.is_some() && has("Start")?.is_some();
            if !is_complete && !usable {
                let why = "a stub without Type or Start, of a driver that is not installed";
                self.skip(format!("SYSTEM {key}"), why.into());
                continue;
            }
            self.complete(&key, service, &file)?;
        }
        Ok(())
    }

    /// A boot service that has no usable file. Its devices have been told of; one without a device
    /// is what every machine has.
    fn no_boot_service(&mut self, item: &Item, service: &BootService, unusable: &Unusable) {
        let mut devices = item.steps.iter().filter_map(|step| match &step.action {
            Action::Device(device) => Some(device),
            _ => None,
        });
        let has_device = devices.next().is_some();
        if has_device {
            self.skip(format!("driver {}", service.name), unusable.found.clone());
        } else {
            self.blockers.push(DriverBlocker {
                item: self.item.clone(),
                device: item.about.title.to_string(),
                ids: Vec::new(),
                driver: service.name.to_string(),
                found: unusable.found.clone(),
                is_invalid: true,
                to: self.machine.preparation.to,
            });
        }
    }

    fn is_installed_for(&self, service: &BootService) -> Result<bool, PlanError> {
        let steps = self.machine.preparation.target.iter();
        for step in steps.flat_map(|item| &item.steps) {
            if let Action::Device(device) = &step.action
                && device.driver == service.name
                && self.installed(device)?.is_some()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Makes the service one that the boot loader loads.
    fn complete(
        &mut self,
        key: &str,
        service: &BootService,
        file: &WinPath,
    ) -> Result<(), PlanError> {
        for (name, number) in [("Type", KERNEL_DRIVER), ("ErrorControl", ERROR_NORMAL)] {
            if self.draft.number(Store::System, key, name)?.is_none() {
                self.set(Store::System, key, name, RegValue::dword(number))?;
            }
        }
        self.set(Store::System, key, "Start", RegValue::dword(BOOT_START))?;
        let group = self.draft.text(Store::System, key, "Group")?;
        let is_right = |group: String| group.eq_ignore_ascii_case(service.group.as_str());
        if !group.is_some_and(is_right) {
            let group = RegValue::sz(service.group.as_str());
            self.set(Store::System, key, "Group", group)?;
        }
        let name = file.file_name().unwrap_or_default();
        let image = self.image(key, service.name.as_str(), false)?;
        let has_path = self.draft.text(Store::System, key, "ImagePath")?.is_some();
        if !has_path || !image.eq_ignore_ascii_case(name) {
            let path = RegValue::expand_sz(&format!(r"System32\drivers\{name}"));
            self.set(Store::System, key, "ImagePath", path)?;
        }
        self.delete_key(Store::System, &format!(r"{key}\StartOverride"))
    }

    /// The file of a boot driver, if there is one for this processor.
    fn driver_file(&self, service: &BootService) -> Result<DriverFile, PlanError> {
        let mut wrong = None;
        for image in self.images(service)? {
            let Some(path) = self.in_windows(&format!(r"System32\drivers\{image}")) else {
                continue;
            };
            if self.adds_driver(&path) {
                return Ok(Ok(path));
            }
            let volume = self.machine.volume;
            if !volume.exists(&path)? {
                continue;
            }
            let machine = pe::machine_of(&volume.read(&path, LARGEST_DRIVER)?);
            if machine == Some(code_of(self.windows.architecture)) {
                return Ok(Ok(path));
            }
            let found = match machine {
                Some(machine) => format!(
                    "{path} is for machine {machine:#06x}, expected {:#06x}",
                    code_of(self.windows.architecture)
                ),
                None => format!("{path} is no program (PE) file"),
            };
            wrong = Some(Unusable {
                found,
                is_invalid: true,
            });
        }
        let missing = || {
            let images: Vec<&str> = service.images.iter().map(FileName::as_str).collect();
            Unusable {
                found: format!(r"no {} in System32\drivers", images.join(" or ")),
                is_invalid: false,
            }
        };
        Ok(Err(wrong.unwrap_or_else(missing)))
    }

    /// The names that the file can have; first the one that the service names already.
    fn images(&self, service: &BootService) -> Result<Vec<String>, PlanError> {
        let mut images: Vec<String> = service.images.iter().map(ToString::to_string).collect();
        for set in &self.sets {
            let key = format!(r"{set}\Services\{}", service.name);
            let path = self.draft.text(Store::System, &key, "ImagePath")?;
            let named = path.as_deref().map(file_name);
            images
                .sort_by_key(|image| !named.is_some_and(|named| named.eq_ignore_ascii_case(image)));
        }
        Ok(images)
    }
}

/// Whether Windows cannot start without it: the disk hangs on it.
pub(crate) fn is_booted_with(device: &Device) -> bool {
    matches!(device.role, DeviceRole::Bus | DeviceRole::Storage)
}

fn in_words(device: &Device) -> String {
    format!("{} ({})", device.title, ids(&device.ids).join(", "))
}

/// IMAGE_FILE_MACHINE_...
pub(super) fn code_of(architecture: Architecture) -> u16 {
    match architecture {
        Architecture::Amd64 => pe::MACHINE_AMD64,
        Architecture::Arm64 => pe::MACHINE_ARM64,
        Architecture::X86 => pe::MACHINE_X86,
    }
}

/// Whether `found` is the id, or the id with a subsystem or revision after it.
pub(super) fn is_or_narrows(found: &str, id: &str) -> bool {
    let start = found.get(..id.len());
    let rest = found.get(id.len()..).unwrap_or_default();
    start.is_some_and(|start| start.eq_ignore_ascii_case(id))
        && (rest.is_empty() || rest.starts_with('&'))
}

fn ids(ids: &[HardwareId]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

const LARGEST_DRIVER: ByteCount = ByteCount::mib(64);

/// SERVICE_KERNEL_DRIVER
const KERNEL_DRIVER: u32 = 1;

/// SERVICE_ERROR_NORMAL
const ERROR_NORMAL: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_with_a_subsystem_is_a_narrower_one_and_a_longer_number_is_another() {
        assert!(is_or_narrows("VEN_1AF4&DEV_1004", "ven_1af4&dev_1004"));
        assert!(is_or_narrows(
            "VEN_1AF4&DEV_1004&SUBSYS_00081AF4",
            "VEN_1AF4&DEV_1004"
        ));
        assert!(!is_or_narrows("VEN_1AF4&DEV_10041", "VEN_1AF4&DEV_1004"));
        assert!(!is_or_narrows("VEN_1AF4", "VEN_1AF4&DEV_1004"));
    }
}
