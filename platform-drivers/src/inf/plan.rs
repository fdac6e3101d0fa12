//! What installing a device does: all that the sections of its driver say, in one piece.
//!
//! ```text
//!  Models line --> [Install.NTamd64] --Include/Needs--> sections of INFs of Windows
//!                        |  CopyFiles DelFiles RenFiles AddReg DelReg FeatureScore ...
//!                        +- .Services      AddService, DelService
//!                        +- .HW            AddReg of the device: filters, interrupts
//!                        +- .CoInstallers  .Wdf  .Filters  .Events  .Interfaces
//!                        +- .Components  .Software  ...: left to Windows
//! ```

mod walk;

use std::collections::BTreeMap;

use ce_regf::RegValue;

use super::Inf;
use super::decorate::{WindowsTarget, install_suffixes};
use super::directives::Budget;
use super::directives::files::{FileCopy, FileDelete, FileRename};
use super::directives::registry::{RegistryAction, RegistryChange, RegistryRoot};
use super::directives::service::Service;
use super::error::{InfError, InfErrorKind, LineNumber};
use super::models::Model;
use super::section::{Section, fold};

/// What installing a device does.
#[derive(Clone, Debug, PartialEq)]
pub struct InstallPlan {
    /// The device, as the models section has it; `None` of a driver that has none, such as a file
    /// system filter, which `[DefaultInstall]` installs.
    pub model: Option<Model>,
    /// The install section that was chosen, with its suffix.
    pub section: String,
    /// Which of the sections beside it there are.
    pub parts: Parts,
    /// `FeatureScore`: how well the driver suits the device, 0 the best; 0xFF if it is not said.
    pub feature_score: u8,
    /// Files that are copied.
    pub copies: Vec<FileCopy>,
    /// Files that are deleted.
    pub deletes: Vec<FileDelete>,
    /// Files that are renamed.
    pub renames: Vec<FileRename>,
    /// Changes of the registry other than those of services.
    pub registry: Vec<RegistryChange>,
    /// Services that are added.
    pub services: Vec<Service>,
    /// Whether the INF says that the device needs no driver: `AddService = ,2`.
    pub needs_no_driver: bool,
    /// Services that are deleted, by name.
    pub deleted_services: Vec<String>,
    /// Filter drivers of the device, by `AddFilter` or by the values UpperFilters and LowerFilters.
    pub filters: Vec<Filter>,
    /// Services of the driver frameworks: `KmdfService`, `UmdfService`, with their sections' names.
    pub frameworks: Vec<(String, String)>,
    /// Device interfaces: the class's GUID as it is written, and the reference string.
    pub interfaces: Vec<(String, String)>,
    /// INFs that are included, whether they were found or not.
    pub included: Vec<String>,
    /// Sections of INFs that were not at hand.
    pub unresolved: Vec<Unresolved>,
    /// What only a running Windows can do.
    pub left_to_windows: Vec<LeftToWindows>,
    /// Whether Windows asks for a restart.
    pub reboot: bool,
}

/// Which sections beside the install section there are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Parts {
    /// `.HW`
    pub hardware: bool,
    /// `.Services`
    pub services: bool,
    /// `.Interfaces`
    pub interfaces: bool,
}

/// A filter driver of the device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Filter {
    /// Its service.
    pub service: String,
    /// Above or below the function driver.
    pub position: FilterPosition,
    /// Where it is said.
    pub line: LineNumber,
}

/// Where a filter driver sits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FilterPosition {
    /// Above the function driver.
    Upper,
    /// Below the function driver.
    Lower,
}

/// A section that `Needs` names and that was not found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unresolved {
    /// The section.
    pub section: String,
    /// The INFs that were searched, or would have been.
    pub included: Vec<String>,
    /// The `Needs` line, of the INF that has it.
    pub line: LineNumber,
}

/// A directive that a running Windows has to follow.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LeftToWindows {
    /// The section.
    pub section: String,
    /// The directive, as it is written.
    pub directive: String,
    /// The line.
    pub line: LineNumber,
}

/// INFs that others include: those of the Windows that is installed into.
#[derive(Debug, Default)]
pub struct InfLibrary(BTreeMap<String, Inf>);

impl InfLibrary {
    /// Adds an INF under its file name.
    pub fn insert(&mut self, name: &str, inf: Inf) {
        self.0.insert(fold(name), inf);
    }

    /// The INF of this name, in whatever case.
    pub fn find(&self, name: &str) -> Option<&Inf> {
        self.0.get(&fold(name))
    }
}

impl Inf {
    /// What installing a device does.
    ///
    /// The models line whose hardware id it is goes before one that has it as a compatible id.
    /// Sections that `Needs` names are looked for in `library`; those that are missing there are
    /// listed in the plan.
    ///
    /// # Errors
    ///
    /// The INF is not for this Windows or device; a line that cannot be followed.
    pub fn plan(
        &self,
        hardware_id: &str,
        target: &WindowsTarget,
        library: &InfLibrary,
    ) -> Result<InstallPlan, InfError> {
        let rank = |model: &Model| {
            model
                .ids()
                .position(|id| id.eq_ignore_ascii_case(hardware_id))
                .map(|index| index + usize::from(model.hardware_id.is_none()))
        };
        let model = self
            .models(target)?
            .into_iter()
            .filter_map(|model| rank(&model).map(|rank| (rank, model)))
            .min_by_key(|&(rank, _)| rank);
        match model {
            Some((_, model)) => self.plan_model(model, target, library),
            None => Err(InfErrorKind::NoSuchDevice {
                hardware_id: hardware_id.chars().take(200).collect(),
                target: target.to_string(),
            }
            .of_file()),
        }
    }

    /// What installing a device does that [`Self::models`] gave for the same target.
    ///
    /// # Errors
    ///
    /// As [`Self::plan`].
    pub fn plan_model(
        &self,
        model: Model,
        target: &WindowsTarget,
        library: &InfLibrary,
    ) -> Result<InstallPlan, InfError> {
        let section = self
            .install_section(&model.install_section, target)
            .ok_or_else(|| {
                InfErrorKind::NoSuchSection {
                    directive: format!("[{}]", model.models_section),
                    section: model.install_section.clone(),
                }
                .at(model.line)
            })?;
        self.plan_section(section, Some(model), target, library)
    }

    /// What `[DefaultInstall]` does: the driver of no device. `None` if there is no such section for
    /// this machine.
    ///
    /// # Errors
    ///
    /// A line that cannot be followed.
    pub fn plan_default(
        &self,
        target: &WindowsTarget,
        library: &InfLibrary,
    ) -> Result<Option<InstallPlan>, InfError> {
        self.install_section("DefaultInstall", target)
            .map(|section| self.plan_section(section, None, target, library))
            .transpose()
    }

    fn install_section(&self, name: &str, target: &WindowsTarget) -> Option<&Section> {
        install_suffixes(target.architecture)
            .iter()
            .find_map(|suffix| self.sections.find(&format!("{name}{suffix}")))
    }

    fn plan_section(
        &self,
        section: &Section,
        model: Option<Model>,
        target: &WindowsTarget,
        library: &InfLibrary,
    ) -> Result<InstallPlan, InfError> {
        let nothing = InstallPlan {
            section: section.name.clone(),
            model,
            parts: Parts::default(),
            feature_score: NO_FEATURE_SCORE,
            copies: Vec::new(),
            deletes: Vec::new(),
            renames: Vec::new(),
            registry: Vec::new(),
            services: Vec::new(),
            needs_no_driver: false,
            deleted_services: Vec::new(),
            filters: Vec::new(),
            frameworks: Vec::new(),
            interfaces: Vec::new(),
            included: Vec::new(),
            unresolved: Vec::new(),
            left_to_windows: Vec::new(),
            reboot: false,
        };
        let mut plan = walk::followed(self, section, nothing, target, library)?;
        plan.collect_filter_values();
        Ok(plan)
    }

    /// What `[ClassInstall32]` registers: the device class itself, below its key in Control\Class.
    /// Empty if the INF brings no class of its own.
    ///
    /// # Errors
    ///
    /// A line that cannot be followed.
    pub fn class_installation(
        &self,
        target: &WindowsTarget,
    ) -> Result<Vec<RegistryChange>, InfError> {
        let budget = Budget::new();
        match self.install_section("ClassInstall32", target) {
            None => Ok(Vec::new()),
            Some(section) => self.reader(&budget).registry(section, RegistryRoot::Class),
        }
    }
}

impl InstallPlan {
    /// The service that drives the device; `None` if Windows or the INF's includes name it.
    pub fn function_driver(&self) -> Option<&Service> {
        self.services
            .iter()
            .find(|service| service.flags.is_function_driver())
    }

    /// Finds the filters that are set as values of the device's key.
    fn collect_filter_values(&mut self) {
        let mut found = Vec::new();
        for change in &self.registry {
            if change.root != RegistryRoot::Device || !change.key.is_empty() {
                continue;
            }
            let (name, services) = match &change.action {
                RegistryAction::Set { name, value, .. } => (name, strings_of(value)),
                RegistryAction::Append { name, strings } => (name, strings.clone()),
                _ => continue,
            };
            let position = if name.eq_ignore_ascii_case("UpperFilters") {
                FilterPosition::Upper
            } else if name.eq_ignore_ascii_case("LowerFilters") {
                FilterPosition::Lower
            } else {
                continue;
            };
            found.extend(services.into_iter().map(|service| Filter {
                service,
                position,
                line: change.line,
            }));
        }
        self.filters.extend(found);
    }
}

/// The strings of a value that this crate made, be it REG_SZ or REG_MULTI_SZ.
fn strings_of(value: &RegValue) -> Vec<String> {
    let units = value
        .data
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let units: Vec<u16> = units.collect();
    units
        .split(|&unit| unit == 0)
        .filter(|text| !text.is_empty())
        .map(String::from_utf16_lossy)
        .collect()
}

const NO_FEATURE_SCORE: u8 = 0xFF;
