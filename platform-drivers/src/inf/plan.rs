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

use std::collections::{BTreeMap, HashSet};

use ce_regf::RegValue;

use super::Inf;
use super::decorate::{WindowsTarget, install_suffixes};
use super::directives::files::{FileCopy, FileDelete, FileRename};
use super::directives::registry::{RegistryAction, RegistryChange, RegistryRoot};
use super::directives::service::Service;
use super::directives::{Budget, Reader, is_key};
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
        let budget = Budget::new();
        let mut walk = Walk {
            target,
            library,
            budget: &budget,
            seen: HashSet::new(),
            plan: InstallPlan {
                section: section.name.clone(),
                model,
                parts: Parts::default(),
                feature_score: NO_FEATURE_SCORE,
                copies: Vec::new(),
                deletes: Vec::new(),
                renames: Vec::new(),
                registry: Vec::new(),
                services: Vec::new(),
                deleted_services: Vec::new(),
                filters: Vec::new(),
                frameworks: Vec::new(),
                interfaces: Vec::new(),
                included: Vec::new(),
                unresolved: Vec::new(),
                left_to_windows: Vec::new(),
                reboot: false,
            },
        };
        let base = section.name.clone();
        walk.visit(Place::of(self), section, Part::Install)?;
        for (suffix, part) in PARTS {
            if let Some(section) = self.sections.find(&format!("{base}.{suffix}")) {
                match part {
                    Part::Hardware => walk.plan.parts.hardware = true,
                    Part::Services => walk.plan.parts.services = true,
                    Part::Interfaces => walk.plan.parts.interfaces = true,
                    _ => {}
                }
                walk.visit(Place::of(self), section, part)?;
            }
        }
        walk.plan.collect_filter_values();
        Ok(walk.plan)
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

/// Which kind of section it is, whatever it is called.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Part {
    Install,
    Services,
    Hardware,
    CoInstallers,
    Wdf,
    Filters,
    Events,
    Interfaces,
    Left,
}

/// A file whose sections are followed.
#[derive(Clone, Copy)]
struct Place<'i> {
    inf: &'i Inf,
    /// The name under which it was included; `None` of the driver's own INF.
    included_as: Option<&'i str>,
}

impl<'i> Place<'i> {
    fn of(inf: &'i Inf) -> Self {
        Self {
            inf,
            included_as: None,
        }
    }
}

struct Walk<'i> {
    target: &'i WindowsTarget,
    library: &'i InfLibrary,
    budget: &'i Budget,
    /// What has been followed: Windows follows a section once, and two may need each other.
    seen: HashSet<(Option<String>, String, Part)>,
    plan: InstallPlan,
}

impl<'i> Walk<'i> {
    /// Follows a section and those that it needs, those first. Not by recursion, for nothing limits
    /// how deep an INF may nest them.
    fn visit(
        &mut self,
        place: Place<'i>,
        section: &'i Section,
        part: Part,
    ) -> Result<(), InfError> {
        let mut waiting = vec![(place, section, false)];
        while let Some((place, section, needs_are_done)) = waiting.pop() {
            if needs_are_done {
                self.follow(place, section, part)?;
                continue;
            }
            let id = (place.included_as.map(fold), fold(&section.name), part);
            if !self.seen.insert(id) {
                continue;
            }
            waiting.push((place, section, true));
            let needed = self.needed(place, section)?;
            // The first that is needed is to be followed first.
            waiting.extend(
                needed
                    .into_iter()
                    .rev()
                    .map(|(place, section)| (place, section, false)),
            );
        }
        Ok(())
    }

    fn needed(
        &mut self,
        place: Place<'i>,
        section: &'i Section,
    ) -> Result<Vec<(Place<'i>, &'i Section)>, InfError> {
        let reader = self.reader(place);
        let mut included = Vec::new();
        for line in section.with_key("Include") {
            for index in 0..line.values.len() {
                self.budget.spend_line(line.number)?;
                included.extend(reader.value(line, index)?);
            }
        }
        for name in &included {
            if !self
                .plan
                .included
                .iter()
                .any(|known| known.eq_ignore_ascii_case(name))
            {
                self.plan.included.push(name.clone());
            }
            if self.plan.included.len() > MOST_INCLUDED {
                let what = "included INFs";
                let limit = MOST_INCLUDED;
                return Err(InfErrorKind::TooMuch { what, limit }.at(section.number));
            }
        }
        let mut places: Vec<Place<'i>> = Vec::new();
        for name in &included {
            let library: &'i InfLibrary = self.library;
            if let Some((name, inf)) = library.0.get_key_value(&fold(name)) {
                places.push(Place {
                    inf,
                    included_as: Some(name),
                });
            }
        }
        // A section of the INF itself can be needed too.
        places.push(place);
        let mut needed = Vec::new();
        for line in section.with_key("Needs") {
            for index in 0..line.values.len() {
                self.budget.spend_line(line.number)?;
                let Some(name) = reader.value(line, index)? else {
                    continue;
                };
                let found = places
                    .iter()
                    .find_map(|&place| Some((place, place.inf.sections.find(&name)?)));
                match found {
                    Some(found) => needed.push(found),
                    None => self.plan.unresolved.push(Unresolved {
                        section: name,
                        included: included.clone(),
                        line: line.number,
                    }),
                }
            }
        }
        Ok(needed)
    }

    fn reader(&self, place: Place<'i>) -> Reader<'i> {
        place.inf.reader(self.budget)
    }

    fn follow(&mut self, place: Place<'i>, section: &Section, part: Part) -> Result<(), InfError> {
        let reader = self.reader(place);
        let plan = &mut self.plan;
        match part {
            Part::Install | Part::CoInstallers | Part::Hardware => {
                let root = if part == Part::Hardware {
                    RegistryRoot::Device
                } else {
                    RegistryRoot::Driver
                };
                plan.renames.extend(reader.renames(section)?);
                plan.deletes.extend(reader.deletes(section)?);
                let architecture = self.target.architecture;
                let copies = reader.copies(section, architecture, place.included_as)?;
                plan.copies.extend(copies);
                plan.registry.extend(reader.registry(section, root)?);
                self.follow_others(reader, section)
            }
            Part::Services => {
                plan.services.extend(reader.services(section)?);
                for line in section.with_key("DelService") {
                    self.budget.spend_line(line.number)?;
                    plan.deleted_services.extend(reader.value(line, 0)?);
                }
                Ok(())
            }
            Part::Wdf => {
                for line in &section.lines {
                    self.budget.spend_line(line.number)?;
                    if !is_key(line, "KmdfService") && !is_key(line, "UmdfService") {
                        continue;
                    }
                    let service = reader.value(line, 0)?;
                    let settings = reader.value(line, 1)?;
                    if let (Some(service), Some(settings)) = (service, settings) {
                        // What the framework reads is in that section; it has to be there.
                        reader.section(&settings, "the framework's service", line.number)?;
                        plan.frameworks.push((service, settings));
                    }
                }
                Ok(())
            }
            Part::Filters => self.follow_filters(reader, section),
            Part::Interfaces => {
                for line in section.with_key("AddInterface") {
                    self.budget.spend_line(line.number)?;
                    let class = reader.value(line, 0)?;
                    let reference = reader.value(line, 1)?.unwrap_or_default();
                    if let Some(name) = reader.value(line, 2)? {
                        reader.section(&name, "AddInterface", line.number)?;
                    }
                    plan.interfaces
                        .extend(class.map(|class| (class, reference)));
                }
                Ok(())
            }
            Part::Events | Part::Left => {
                for line in &section.lines {
                    self.budget.spend_line(line.number)?;
                    let directive = line.key.as_deref().unwrap_or_default();
                    if !FOLLOWED
                        .iter()
                        .any(|known| known.eq_ignore_ascii_case(directive))
                    {
                        plan.left_to_windows.push(LeftToWindows {
                            section: section.name.clone(),
                            directive: directive.to_owned(),
                            line: line.number,
                        });
                    }
                }
                Ok(())
            }
        }
    }

    /// The directives of an install section other than those of files and registry.
    fn follow_others(&mut self, reader: Reader<'i>, section: &Section) -> Result<(), InfError> {
        for line in &section.lines {
            self.budget.spend_line(line.number)?;
            let Some(key) = line.key.as_deref() else {
                // `Reboot` and `Restart` stand alone.
                let alone = line.value(0).unwrap_or_default();
                self.plan.reboot |=
                    alone.eq_ignore_ascii_case("Reboot") || alone.eq_ignore_ascii_case("Restart");
                continue;
            };
            if is_key(line, "FeatureScore") {
                let text = reader.value(line, 0)?.unwrap_or_default();
                // Hexadecimal with or without 0x: Microsoft's own INFs write F9.
                let digits = text.trim_start_matches("0x").trim_start_matches("0X");
                self.plan.feature_score = u8::from_str_radix(digits, 16).map_err(|_| {
                    InfErrorKind::Malformed {
                        what: "FeatureScore",
                        expected: "0x00 to 0xFF",
                        found: text.chars().take(80).collect(),
                    }
                    .at(line.number)
                })?;
            } else if ONLY_WINDOWS
                .iter()
                .any(|known| known.eq_ignore_ascii_case(key))
            {
                self.plan.left_to_windows.push(LeftToWindows {
                    section: section.name.clone(),
                    directive: key.to_owned(),
                    line: line.number,
                });
            }
        }
        Ok(())
    }

    /// `AddFilter = service, flags, section`, whose section says `FilterPosition` or `FilterLevel`.
    fn follow_filters(&mut self, reader: Reader<'i>, section: &Section) -> Result<(), InfError> {
        for line in section.with_key("AddFilter") {
            self.budget.spend_line(line.number)?;
            let missing = |what| {
                let directive = "AddFilter".to_owned();
                InfErrorKind::Missing { directive, what }.at(line.number)
            };
            let service = reader.value(line, 0)?.ok_or_else(|| missing("service"))?;
            let settings = reader.value(line, 2)?.ok_or_else(|| missing("section"))?;
            let settings = reader.section(&settings, "AddFilter", line.number)?;
            let mut position = None;
            for line in &settings.lines {
                self.budget.spend_line(line.number)?;
                if is_key(line, "FilterPosition") {
                    let text = reader.value(line, 0)?.unwrap_or_default();
                    position = Some(match text.to_ascii_lowercase().as_str() {
                        "upper" => FilterPosition::Upper,
                        "lower" => FilterPosition::Lower,
                        _ => {
                            return Err(InfErrorKind::Malformed {
                                what: "FilterPosition",
                                expected: "Upper or Lower",
                                found: text.chars().take(80).collect(),
                            }
                            .at(line.number));
                        }
                    });
                } else if is_key(line, "FilterLevel") {
                    // A level is a place among the levels that Windows has for the class.
                    self.plan.left_to_windows.push(LeftToWindows {
                        section: settings.name.clone(),
                        directive: "FilterLevel".to_owned(),
                        line: line.number,
                    });
                }
            }
            if let Some(position) = position {
                self.plan.filters.push(Filter {
                    service,
                    position,
                    line: line.number,
                });
            }
        }
        Ok(())
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

/// What may stand behind the name of an install section and a dot.
const PARTS: [(&str, Part); 13] = [
    ("Services", Part::Services),
    ("HW", Part::Hardware),
    ("CoInstallers", Part::CoInstallers),
    ("Wdf", Part::Wdf),
    ("Filters", Part::Filters),
    ("Events", Part::Events),
    ("Interfaces", Part::Interfaces),
    ("Components", Part::Left),
    ("Software", Part::Left),
    ("FactDef", Part::Left),
    ("LogConfigOverride", Part::Left),
    ("WMI", Part::Left),
    ("GeneratedFiles", Part::Left),
];

/// Directives of an install section that a running Windows has to follow.
const ONLY_WINDOWS: [&str; 13] = [
    "AddPowerSetting",
    "AddProperty",
    "CopyINF",
    "DelProperty",
    "DelPowerSetting",
    "Ini2Reg",
    "LogConfig",
    "ProfileItems",
    "RegisterDlls",
    "UnregisterDlls",
    "UpdateAutoBat",
    "UpdateInis",
    "UpdateIniFields",
];

/// What is followed in every section.
const FOLLOWED: [&str; 2] = ["Include", "Needs"];

const NO_FEATURE_SCORE: u8 = 0xFF;

/// Windows 11 has not half as many INFs that are made to be included.
const MOST_INCLUDED: usize = 256;
