//! Follows the sections of an installation, one after the other, and fills the plan with what they say.

use std::collections::HashSet;

use super::{Filter, FilterPosition, InfLibrary, InstallPlan, LeftToWindows, Unresolved};
use crate::inf::Inf;
use crate::inf::decorate::WindowsTarget;
use crate::inf::directives::registry::RegistryRoot;
use crate::inf::directives::{Budget, Reader, is_key};
use crate::inf::error::{InfError, InfErrorKind};
use crate::inf::section::{Section, fold};

/// Adds to `plan` what an install section and those beside it say.
pub(super) fn followed(
    inf: &Inf,
    section: &Section,
    plan: InstallPlan,
    target: &WindowsTarget,
    library: &InfLibrary,
) -> Result<InstallPlan, InfError> {
    let budget = Budget::new();
    let mut walk = Walk {
        target,
        library,
        budget: &budget,
        seen: HashSet::new(),
        plan,
    };
    walk.visit(Place::of(inf), section, Part::Install)?;
    for (suffix, part) in PARTS {
        if let Some(section) = inf.sections.find(&format!("{}.{suffix}", section.name)) {
            match part {
                Part::Hardware => walk.plan.parts.hardware = true,
                Part::Services => walk.plan.parts.services = true,
                Part::Interfaces => walk.plan.parts.interfaces = true,
                _ => {}
            }
            walk.visit(Place::of(inf), section, part)?;
        }
    }
    Ok(walk.plan)
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
                plan.needs_no_driver |= reader.needs_no_driver(section)?;
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

/// Windows 11 has not half as many INFs that are made to be included.
const MOST_INCLUDED: usize = 256;
