//! Drivers of a bundle: what the target needs and Windows does not have is put in as DISM does it.
//!
//! ```text
//!  device without a driver --> package of the bundle for its id and this Windows, the newest
//!       |                          |
//!       |                          +--> FileRepository\label\..., INF\oemN.inf, CatRoot\oemN.cat
//!       |                          +--> DriverDatabase: SYSTEM if it boots with it, else DRIVERS
//!       |
//!       +-- to boot with it -----> and its files in their places (PnpLockdownFiles says whose they
//!                                  are), its services in every control set
//! ```
//!
//! A driver that is not needed to boot is staged: plug and play installs it when the device appears.
//! A package is taken only if its catalogue lists every file and the catalogue's signature fits.
//!
//! A Windows without a driver database gets the package beside its own INFs, and what boots becomes a
//! critical device (see [`super::critical`]).

use ce_disk::units::ByteCount;
use ce_disk::volume::WinPath;

use super::boot::{Unusable, code_of, is_booted_with, is_or_narrows};
use super::draft::Store;
use super::edit::RegistryEdit;
use super::{Change, PlanError, Planner, State};
use crate::bundle::Found;
use crate::catalog::schema::{Architecture as Processor, Device, Product};
use crate::driver_store::StagedPackage;
use crate::driver_store::critical::critical_device_edits;
use crate::driver_store::database::{Form, database_edits};
use crate::driver_store::lockdown::{lockdown_edits, lockdown_key};
use crate::driver_store::names::{OemNames, package_label};
use crate::driver_store::services::service_edits;
use crate::hives::HiveName;
use crate::inf::{
    Architecture, Destination, Inf, InfLibrary, InstallPlan, ProductType, WindowsTarget,
    WindowsVersion,
};
use crate::package::{DriverPackage, HostFolder, PackageFiles, pe};

/// A package of the bundle that has a driver for a device, and what installing it does.
pub(super) struct Chosen<'b> {
    folder: HostFolder,
    package: &'b DriverPackage,
    plans: Vec<InstallPlan>,
}

impl<'p> Planner<'p, '_> {
    /// Puts in a driver of the bundle for `device`. Says under which name; `None` if the bundle has
    /// none.
    pub(super) fn install(
        &mut self,
        device: &Device,
    ) -> Result<Option<Result<String, Unusable>>, PlanError> {
        match self.choose(device)? {
            None => Ok(None),
            Some(Err(unusable)) => Ok(Some(Err(unusable))),
            Some(Ok(chosen)) => self.stage(device, &chosen).map(Some),
        }
    }

    /// The newest package for the device that can be used; if none can, why the first cannot.
    pub(super) fn choose(
        &self,
        device: &Device,
    ) -> Result<Option<Result<Chosen<'p>, Unusable>>, PlanError> {
        let target = self.target();
        let mut best: Option<Chosen<'p>> = None;
        let mut refused = None;
        for Found { folder, package } in self.machine.bundle {
            let Ok(package) = package else { continue };
            let plans = match self.plans(package, &target) {
                Ok(plans) => plans,
                Err(problem) => {
                    refused.get_or_insert(problem);
                    continue;
                }
            };
            if !plans.iter().any(|plan| is_for(plan, device)) {
                continue;
            }
            if let Some(problem) = package.problems.first() {
                let problem = format!("{} of the bundle: {problem}", package.inf_name);
                refused.get_or_insert(problem);
                continue;
            }
            let chosen = Chosen {
                folder: HostFolder::new(folder),
                package,
                plans,
            };
            if best.as_ref().is_none_or(|best| chosen.age() > best.age()) {
                best = Some(chosen);
            }
        }
        let unusable = |found| {
            Err(Unusable {
                found,
                is_invalid: true,
            })
        };
        Ok(best.map(Ok).or_else(|| refused.map(unusable)))
    }

    /// What installing each of the package's devices on this Windows does.
    fn plans(
        &self,
        package: &DriverPackage,
        target: &WindowsTarget,
    ) -> Result<Vec<InstallPlan>, String> {
        let failed = |error| format!("{} of the bundle: {error}", package.inf_name);
        let mut plans = Vec::new();
        let models = package.inf.models(target).map_err(failed)?;
        for model in models.into_iter().take(MOST_MODELS) {
            let alone = package
                .inf
                .plan_model(model.clone(), target, &InfLibrary::default());
            let mut plan = alone.map_err(failed)?;
            if !plan.unresolved.is_empty() {
                let library = self.library(&plan.included);
                let whole = package.inf.plan_model(model, target, &library);
                plan = whole.map_err(failed)?;
            }
            plans.push(plan);
        }
        Ok(plans)
    }

    /// The INFs of this Windows that a package includes. One that is not there or not followed stays
    /// unresolved, which the plan of the package tells.
    fn library(&self, names: &[String]) -> InfLibrary {
        let mut library = InfLibrary::default();
        for name in names {
            let path = self.in_windows(&format!(r"INF\{name}"));
            let bytes = path.and_then(|path| self.machine.volume.read(&path, LARGEST_INF).ok());
            if let Some(inf) = bytes.and_then(|bytes| Inf::parse(&bytes).ok()) {
                library.insert(name, inf);
            }
        }
        library
    }

    fn target(&self) -> WindowsTarget {
        // Windows 8.1 and Server 2012 R2 are the only ones before Windows 10.
        let (major, minor) = match self.windows.build >= WINDOWS_10 {
            true => (10, 0),
            false => (6, 3),
        };
        WindowsTarget {
            architecture: match self.windows.architecture {
                Processor::Amd64 => Architecture::Amd64,
                Processor::Arm64 => Architecture::Arm64,
                Processor::X86 => Architecture::X86,
            },
            version: WindowsVersion {
                major,
                minor,
                build: self.windows.build,
            },
            product_type: match self.windows.product {
                Product::Workstation => ProductType::Workstation,
                Product::Server => ProductType::Server,
            },
            suites: 0,
        }
    }

    /// Plans everything that makes the package one of this Windows.
    fn stage(
        &mut self,
        device: &Device,
        chosen: &Chosen<'_>,
    ) -> Result<Result<String, Unusable>, PlanError> {
        let package = chosen.package;
        let files = match chosen.files() {
            Ok(files) => files,
            Err(found) => {
                let is_invalid = true;
                return Ok(Err(Unusable { found, is_invalid }));
            }
        };
        let content = |name: &str| {
            let mut files = files.iter();
            let found = files.find(|(path, _)| path.eq_ignore_ascii_case(name));
            found.map(|(_, content)| content.as_slice())
        };
        let catalog = package.catalog.as_ref();
        let label = package_label(
            &package.inf_name,
            self.target().architecture,
            content(&package.inf_name).unwrap_or_default(),
            catalog.and_then(|(name, _)| content(name)),
        );
        let has_database = self.has_database()?;
        let own = self.in_windows(&format!(r"INF\{}", package.inf_name));
        if let Some(path) = own.filter(|_| !has_database)
            && self.machine.volume.exists(&path)?
        {
            let found = format!("{path} is there, and of another driver");
            let is_invalid = true;
            return Ok(Err(Unusable { found, is_invalid }));
        }
        let mut names = self.oem_names()?;
        let stem = match has_database {
            true => format!("oem{}", self.unused_number(&mut names)?),
            false => stem_of(&package.inf_name).to_owned(),
        };
        let published_name = format!("{stem}.inf");
        let boots = is_booted_with(device);

        let version = package.inf.version();
        let staged = StagedPackage {
            label: &label,
            published_name: &published_name,
            inf_name: &package.inf_name,
            architecture: self.target().architecture,
            class: version.class_guid,
            driver: version.driver,
            provider: version.provider.as_deref(),
            signer: catalog.map(|(_, catalog)| catalog.signer.name.as_str()),
            is_hardware_programme: catalog
                .is_some_and(|(_, catalog)| catalog.signer.is_hardware_programme()),
            catalog: catalog.map(|(name, _)| name.as_str()),
            oem_path: OEM_PATH,
            plans: &chosen.plans,
            is_windows_10: self.windows.build >= WINDOWS_10,
            now: self.machine.now.ticks(),
        };
        let has_drivers = self.draft.has(Store::Drivers);
        let (hive, form) = match boots || !has_drivers {
            true => (HiveName::System, Form::Full),
            false => (HiveName::Drivers, Form::Short),
        };
        let repository = match has_database {
            true => {
                self.enter(database_edits(&staged, hive, form, &names.map()))?;
                format!(r"System32\DriverStore\FileRepository\{label}")
            }
            // Plug and play looks for the files of an INF beside it.
            false => "INF".to_owned(),
        };
        for (name, content) in &files {
            self.put(&format!(r"{repository}\{name}"), content)?;
        }
        if let Some(inf) = content(&package.inf_name) {
            self.put(&format!(r"INF\{published_name}"), inf)?;
        }
        if let Some(catalog) = catalog.and_then(|(name, _)| content(name)) {
            self.put(&format!(r"{CATALOGS}\{stem}.cat"), catalog)?;
        }
        if boots && !has_database {
            for set in self.sets.clone() {
                self.enter(critical_device_edits(&staged, &set))?;
            }
        }
        if boots {
            for plan in chosen.plans.iter().filter(|plan| is_for(plan, device)) {
                for copy in &plan.copies {
                    if let Destination::Volume(path) = &copy.destination
                        && let Some(content) = content(&copy.source)
                    {
                        self.put_at(path, content)?;
                        if has_database {
                            self.lock(&staged, path, &copy.source, version.lockdown)?;
                        }
                    }
                }
                for service in &plan.services {
                    for set in self.sets.clone() {
                        let key = format!(r"{set}\Services\{}", service.name);
                        let is_new = !self.draft.has_key(Store::System, &key)?;
                        self.enter(service_edits(service, &staged, &set, is_new))?;
                    }
                }
            }
        }
        Ok(Ok(published_name))
    }

    fn oem_names(&self) -> Result<OemNames, PlanError> {
        let system = self.draft.hive(Store::System);
        let Some(system) = system else {
            return Err(PlanError::NoHive { hive: "SYSTEM" });
        };
        OemNames::read(system, self.draft.hive(Store::Drivers)).map_err(|source| PlanError::Hive {
            hive: "SYSTEM",
            key: "DriverDatabase".into(),
            source: source.into(),
        })
    }

    /// The lowest number that no database and no file has.
    fn unused_number(&self, names: &mut OemNames) -> Result<u32, PlanError> {
        loop {
            let number = names.allocate();
            let path = self.in_windows(&format!(r"INF\oem{number}.inf"));
            match path {
                Some(path) if self.machine.volume.exists(&path)? => {}
                _ => return Ok(number),
            }
        }
    }

    /// Says whose a file is that was put in place.
    fn lock(
        &mut self,
        package: &StagedPackage<'_>,
        path: &str,
        source: &str,
        is_locked: bool,
    ) -> Result<(), PlanError> {
        let Some(key) = lockdown_key(path) else {
            return Ok(());
        };
        let owners = self.draft.list(Store::Software, &key, "Owners")?;
        let owners = owners.unwrap_or_default();
        self.enter(lockdown_edits(package, &key, source, is_locked, &owners))
    }

    fn enter(&mut self, edits: Vec<RegistryEdit>) -> Result<(), PlanError> {
        for edit in edits {
            let store = match edit.hive {
                HiveName::Drivers => Store::Drivers,
                HiveName::Software => Store::Software,
                _ => Store::System,
            };
            self.change(store, &edit.key, edit.change)?;
        }
        Ok(())
    }

    /// Plans a file below the folder of Windows.
    fn put(&mut self, path: &str, content: &[u8]) -> Result<(), PlanError> {
        match self.in_windows(path) {
            Some(path) => self.put_file(path, content),
            None => Ok(()),
        }
    }

    /// Plans a file by a path whose folder of Windows is called `Windows`.
    fn put_at(&mut self, path: &str, content: &[u8]) -> Result<(), PlanError> {
        let path = path.parse::<WinPath>().ok();
        match path.and_then(|path| self.place(&path)) {
            Some(path) => self.put_file(path, content),
            None => Ok(()),
        }
    }

    fn put_file(&mut self, path: WinPath, content: &[u8]) -> Result<(), PlanError> {
        if self.added.iter().any(|(other, _)| *other == path) {
            return Ok(());
        }
        self.added.push((path.clone(), pe::machine_of(content)));
        let reason = self.reason.clone();
        let content = content.to_vec();
        let change = Change::Write {
            path,
            content,
            reason,
        };
        self.push(change, State::ToDo);
        Ok(())
    }

    /// Whether the plan puts a file there that is a driver for this machine.
    pub(super) fn adds_driver(&self, path: &WinPath) -> bool {
        let wanted = Some(code_of(self.windows.architecture));
        let mut added = self.added.iter();
        added.any(|(other, machine)| other == path && *machine == wanted)
    }
}

impl Chosen<'_> {
    /// What is newer is more.
    fn age(&self) -> Option<(crate::inf::DriverDate, u64)> {
        let driver = self.package.inf.version().driver?;
        Some((driver.date, driver.packed()))
    }

    /// The INF, the catalogue, and all that the INF brings, by path in the package.
    fn files(&self) -> Result<Vec<(String, Vec<u8>)>, String> {
        let files = self.package.files.iter().map(|file| file.path.as_str());
        let catalog = self.package.catalog.iter().map(|(name, _)| name.as_str());
        let mut read = Vec::new();
        for name in files.chain(catalog) {
            let content = match self.folder.read(name) {
                Ok(Some(content)) => content,
                Ok(None) => return Err(format!("{name} of the bundle is gone")),
                Err(error) => return Err(format!("{name} of the bundle: {error}")),
            };
            read.push((name.to_owned(), content));
        }
        Ok(read)
    }
}

/// Whether it installs the driver of the device, for one of its ids.
fn is_for(plan: &InstallPlan, device: &Device) -> bool {
    let is_driver =
        |service: &crate::inf::Service| service.name.eq_ignore_ascii_case(device.driver.as_str());
    let names = |model: &crate::inf::Model| {
        model.ids().any(|found| {
            let mut ids = device.ids.iter();
            ids.any(|id| is_or_narrows(found, id.as_str()))
        })
    };
    plan.function_driver().is_some_and(is_driver) && plan.model.as_ref().is_some_and(names)
}

/// A file name without `.inf`.
fn stem_of(inf_name: &str) -> &str {
    let stem = inf_name.get(..inf_name.len().saturating_sub(4));
    stem.unwrap_or(inf_name)
}

/// Where a package came from that no Windows has imported.
const OEM_PATH: &str = r"C:\Windows\ce-agent";

/// The catalogues of drivers.
const CATALOGS: &str = r"System32\CatRoot\{F750E6C3-38EE-11D1-85E5-00C04FC295EE}";

const WINDOWS_10: u32 = 10240;
const LARGEST_INF: ByteCount = ByteCount::mib(4);

/// Several times what the largest INFs have.
const MOST_MODELS: usize = 4096;
