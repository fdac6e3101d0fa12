//! Whether a prepared disk is fit to be streamed by Citrix Provisioning.
//!
//! ```text
//!  streaming.toml --------> Requirements --+
//!  target/PLATFORM.toml --> Proof ---------+--> fitness --> what stops a stream, what may
//!  hives, files of the volume -------------+
//! ```
//!
//! A pure look: nothing is changed. What cannot start is refused, what may not is a warning, and each
//! says what to do. Whether the disk starts by UEFI, whether its volumes were closed, and whether there
//! is one Windows is looked at by `preflight` and the survey of the volumes, for every work that needs
//! it; whether the target device software *runs* can be known only where it does.

use ce_disk::units::ByteCount;
use ce_disk::volume::{VolumeError, WinPath, WindowsVolume};

use crate::Platform;
use crate::catalog::Preparation;
use crate::catalog::schema::{Action, Device, DeviceRole};
use crate::hives::{HiveName, HiveSet};
use crate::inspect::{Inspection, Notes, Registry};
use crate::package::pe;
use crate::proof::Proof;

mod requirements;

pub use requirements::{Leftover, Requirements, StreamDriver};

/// A Windows that is to be streamed.
#[derive(Clone, Copy)]
pub struct Subject<'s> {
    /// What is asked of it.
    pub requirements: &'s Requirements,
    /// What it is.
    pub inspection: &'s Inspection,
    /// Its hives: SYSTEM is looked into.
    pub hives: &'s HiveSet,
    /// Its volume.
    pub volume: &'s dyn WindowsVolume,
    /// The folder of Windows on it.
    pub folder: &'s WinPath,
    /// Where it is streamed, if that is known.
    pub platform: Option<StreamPlatform<'s>>,
}

/// The platform of a stream.
#[derive(Clone, Copy)]
pub struct StreamPlatform<'s> {
    /// Which one it is.
    pub platform: Platform,
    /// What Windows needs there.
    pub preparation: &'s Preparation<'s>,
    /// Whether this Windows has it.
    pub proof: &'s Proof,
}

/// Something that stands against a stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unfit {
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub way_out: &'static str,
}

/// What stands against streaming a Windows.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Fitness {
    /// With these it does not start.
    pub refused: Vec<Unfit>,
    /// With these it may not, or not as is wanted.
    pub warnings: Vec<Unfit>,
}

/// Looks at everything.
///
/// # Errors
///
/// The volume cannot be read. What cannot be read in the hives counts as not there.
pub fn fitness(subject: &Subject<'_>) -> Result<Fitness, VolumeError> {
    let mut desk = Desk {
        subject,
        fitness: Fitness::default(),
    };
    desk.drivers()?;
    desk.adapter();
    desk.addresses();
    desk.leftovers()?;
    Ok(desk.fitness)
}

struct Desk<'s> {
    subject: &'s Subject<'s>,
    fitness: Fitness,
}

impl Desk<'_> {
    fn refuse(&mut self, found: String, way_out: &'static str) {
        self.fitness.refused.push(Unfit { found, way_out });
    }

    fn warn(&mut self, found: String, way_out: &'static str) {
        self.fitness.warnings.push(Unfit { found, way_out });
    }

    /// Does `look` with SYSTEM and the keys of all control sets, if they can be read.
    fn with_system<T>(&self, look: impl FnOnce(Registry<'_>, &[String]) -> T) -> Option<T> {
        let notes = Notes::default();
        let loaded = self.subject.hives.hive(HiveName::System)?;
        let system = Registry::new(HiveName::System.file(), &loaded.hive, &notes);
        let sets = &self.subject.inspection.control_sets.present;
        let sets: Vec<String> = sets
            .iter()
            .map(|set| format!("ControlSet{set:03}"))
            .collect();
        Some(look(system, &sets))
    }

    /// The chain of drivers that the stream comes through.
    fn drivers(&mut self) -> Result<(), VolumeError> {
        let drivers = &self.subject.requirements.drivers;
        let broken: Vec<Vec<String>> = drivers
            .iter()
            .map(|driver| {
                let broken = self.with_system(|system, sets| broken_services(system, sets, driver));
                broken.unwrap_or_else(|| vec!["the SYSTEM hive cannot be read".to_owned()])
            })
            .collect();
        let missing = |broken: &Vec<String>| broken.iter().all(|found| found.ends_with(NOT_THERE));
        if broken
            .iter()
            .all(|found| !found.is_empty() && missing(found))
        {
            let names: Vec<&str> = drivers.iter().map(|driver| &*driver.service).collect();
            let found = format!(
                "the target device software of Citrix Provisioning is not installed: none of {} is \
                 there",
                names.join(", ")
            );
            self.refuse(found, INSTALL);
            return Ok(());
        }
        for (driver, broken) in drivers.iter().zip(broken) {
            let mut found = broken;
            found.extend(self.image(driver)?);
            for found in found {
                let found = format!("{} ({}): {found}", driver.service, driver.title);
                self.refuse(found, REINSTALL);
            }
        }
        Ok(())
    }

    /// What is wrong with the file of `driver`.
    fn image(&self, driver: &StreamDriver) -> Result<Option<String>, VolumeError> {
        let Subject { volume, folder, .. } = self.subject;
        for image in &driver.images {
            let Ok(path) = folder.join(image) else {
                continue;
            };
            if !volume.exists(&path)? {
                continue;
            }
            let architecture = self.subject.inspection.version.architecture.as_deref();
            let expected = pe::machine_for(architecture);
            let found = pe::machine_of(&volume.read(&path, LARGEST_DRIVER)?);
            return Ok((found != Some(expected)).then(|| match found {
                Some(found) => {
                    format!("{path} is for machine {found:#06x}, expected {expected:#06x}")
                }
                None => format!("{path} is no program (PE) file"),
            }));
        }
        Ok(Some(format!(
            "none of {} is there",
            driver.images.join(", ")
        )))
    }

    /// The adapter that the first packet comes through.
    fn adapter(&mut self) {
        let Some(platform) = self.subject.platform else {
            let found = "which platform the disk is to be streamed on is not known, so that the \
                         driver of its network adapter was not looked at";
            self.warn(found.to_owned(), "Name it: --platform");
            return;
        };
        let known: Vec<Platform> = self.subject.requirements.platforms().collect();
        if !known.contains(&platform.platform) {
            let known: Vec<&str> = known.into_iter().map(Platform::name).collect();
            let (platform, known) = (platform.platform, known.join(", "));
            let found = format!("disks are not streamed on {platform}, but on {known}");
            self.refuse(found, OTHER_PLATFORM);
            return;
        }
        if !platform
            .proof
            .has_driver(platform.preparation, DeviceRole::Network)
        {
            let devices: Vec<&str> = adapters(platform.preparation)
                .map(|device| device.title.as_str())
                .collect();
            let found = format!("no network adapter has a driver: {}", devices.join(", "));
            self.refuse(found, PREPARE);
        }
        for failure in platform.proof.boot_failures() {
            self.refuse(failure, PREPARE);
        }
        let late = self.with_system(|system, sets| {
            let mut late = Vec::new();
            for device in adapters(platform.preparation) {
                for set in sets {
                    let name = &device.driver;
                    let key = format!(r"{set}\Services\{name}");
                    let is_late = |start| {
                        let flags = system.number(&key, "BootFlags").unwrap_or(0);
                        start != 0 && flags & NETWORK_BOOT == 0
                    };
                    if system.number(&key, "Start").is_some_and(is_late) {
                        late.push(format!(
                            "{set}: {name} ({}) has no BootFlags for starting from the network",
                            device.title
                        ));
                    }
                }
            }
            late
        });
        for found in late.unwrap_or_default() {
            self.warn(found, REINSTALL);
        }
    }

    /// Addresses that belong to one machine.
    fn addresses(&mut self) {
        let found = self.with_system(|system, sets| {
            let mut found = Vec::new();
            for set in sets {
                let interfaces = format!(r"{set}\Services\Tcpip\Parameters\Interfaces");
                for (name, key) in system.subkeys(&interfaces) {
                    let addresses = system.strings_of(key, "IPAddress").unwrap_or_default();
                    let is_real = |address: &&String| !address.is_empty() && *address != "0.0.0.0";
                    let addresses: Vec<&str> = addresses
                        .iter()
                        .filter(is_real)
                        .map(|text| &**text)
                        .collect();
                    if system.number_of(key, "EnableDHCP") == Some(0) && !addresses.is_empty() {
                        found.push(format!(
                            "{set}: interface {name} has the fixed address {}",
                            addresses.join(", ")
                        ));
                    }
                }
            }
            found
        });
        for found in found.unwrap_or_default() {
            self.warn(
                found,
                "Prepare the disk with network: dhcp, or set DHCP in Windows.",
            );
        }
    }

    /// What an earlier machine left.
    fn leftovers(&mut self) -> Result<(), VolumeError> {
        for leftover in &self.subject.requirements.leftovers {
            let Ok(path) = leftover.file.parse::<WinPath>() else {
                continue;
            };
            if self.subject.volume.exists(&path)? {
                let found = format!(r"\{path} is there: {}", leftover.what);
                self.warn(
                    found,
                    "Delete it in Windows, or prepare the disk, which does.",
                );
            }
        }
        Ok(())
    }
}

/// What is wrong with the service of `driver`, in each control set.
fn broken_services(system: Registry<'_>, sets: &[String], driver: &StreamDriver) -> Vec<String> {
    let mut broken = Vec::new();
    for set in sets {
        let key = format!(r"{set}\Services\{}", driver.service);
        if system.key(&key).is_none() {
            broken.push(format!("{set}: {NOT_THERE}"));
            continue;
        }
        match system.number(&key, "Start") {
            Some(DISABLED) => broken.push(format!("{set}: the service is disabled")),
            Some(_) => {}
            None => broken.push(format!("{set}: the service has no Start")),
        }
        if system.key(&format!(r"{key}\StartOverride")).is_some() {
            broken.push(format!("{set}: StartOverride stands against its start"));
        }
    }
    broken
}

/// The network adapters of a platform.
fn adapters<'p>(preparation: &'p Preparation<'_>) -> impl Iterator<Item = &'p Device> {
    let items = preparation.target.iter();
    let steps = items.flat_map(|item| &item.steps);
    steps.filter_map(|step| match &step.action {
        Action::Device(device) if device.role == DeviceRole::Network => Some(device),
        _ => None,
    })
}

const NOT_THERE: &str = "the service is not there";

const INSTALL: &str = "Start the disk as a machine of its platform, install the target device \
                       software there, and shut it down.";

const REINSTALL: &str = "Start the disk as a machine of its platform, uninstall the target device \
                         software and install it again, and shut it down.";

const OTHER_PLATFORM: &str = "Prepare the disk for a platform that disks are streamed on, or name the one it is for: --platform";

const PREPARE: &str = "Prepare the disk for its platform first: ce-agent prepare";

/// SERVICE_DISABLED
const DISABLED: u32 = 4;

/// The bit of BootFlags by which the loader takes a driver when Windows starts from the network: the
/// network adapters of Windows itself (netvsc, E1G60, e1i65x64), AFD, Tcpip and iScsiPrt have it in
/// the hives of real installations.
const NETWORK_BOOT: u32 = 1;

/// Drivers are smaller.
const LARGEST_DRIVER: ByteCount = ByteCount::mib(64);

#[cfg(test)]
mod tests;
