//! `[Manufacturer]` and the models sections: which devices an INF is for.

use std::collections::HashMap;

use super::Inf;
use super::decorate::{self, Decoration, WindowsTarget};
use super::directives::{Budget, LocalisedText, Reader};
use super::error::{InfError, InfErrorKind, LineNumber};
use super::section::fold;

/// A line of `[Manufacturer]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Manufacturer {
    /// Who makes the devices.
    pub name: LocalisedText,
    /// The name of the models sections, without decoration.
    pub models: String,
    /// The decorations that it lists.
    pub decorations: Vec<String>,
    /// The line.
    pub line: LineNumber,
}

/// A line of a models section: a device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Model {
    /// What it is called.
    pub description: LocalisedText,
    /// Who makes it.
    pub manufacturer: LocalisedText,
    /// The models section, with its decoration.
    pub models_section: String,
    /// The install section, as it is written: without its suffix.
    pub install_section: String,
    /// Its hardware id; `None` if the line has compatible ids only.
    pub hardware_id: Option<String>,
    /// Ids of what it can stand in for, the best first.
    pub compatible_ids: Vec<String>,
    /// The line.
    pub line: LineNumber,
}

impl Model {
    /// The hardware id, then the compatible ones.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        let hardware = self.hardware_id.iter();
        hardware.chain(&self.compatible_ids).map(String::as_str)
    }
}

/// For what Windows some devices are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Supported {
    /// As it is written; empty for an undecorated section.
    pub decoration: String,
    /// What it means; `None` if no Windows understands it.
    pub target: Option<Decoration>,
    /// The devices.
    pub models: Vec<Model>,
}

impl Inf {
    /// The lines of `[Manufacturer]`; none if the INF is for no device.
    ///
    /// # Errors
    ///
    /// A line that names no models section.
    pub fn manufacturers(&self) -> Result<Vec<Manufacturer>, InfError> {
        let Some(section) = self.sections.find("Manufacturer") else {
            return Ok(Vec::new());
        };
        let budget = Budget::new();
        let reader = self.reader(&budget);
        let mut found = Vec::new();
        for line in &section.lines {
            budget.spend_line(line.number)?;
            // `name` alone stands for `name = name`.
            let name = line.key.as_deref().or_else(|| line.value(0));
            let Some(name) = name else { continue };
            let models = reader.value(line, 0)?.ok_or_else(|| {
                let directive = "[Manufacturer]".to_owned();
                let what = "models section";
                InfErrorKind::Missing { directive, what }.at(line.number)
            })?;
            let mut decorations = Vec::new();
            for index in 1..line.values.len() {
                budget.spend_line(line.number)?;
                decorations.extend(reader.value(line, index)?);
            }
            found.push(Manufacturer {
                name: reader.localised_text(name, line.number)?,
                models,
                decorations,
                line: line.number,
            });
        }
        Ok(found)
    }

    /// The devices that the INF is for on a Windows. None is an answer too: an INF can have an empty
    /// section to say that it does not support what the section is for.
    ///
    /// # Errors
    ///
    /// [`InfErrorKind::NotForThisWindows`] if no section is meant for it; a line without an install
    /// section.
    pub fn models(&self, target: &WindowsTarget) -> Result<Vec<Model>, InfError> {
        let manufacturers = self.manufacturers()?;
        let budget = Budget::new();
        let mut models = Vec::new();
        let mut is_meant = false;
        for manufacturer in &manufacturers {
            let listed: Vec<&str> = manufacturer
                .decorations
                .iter()
                .map(String::as_str)
                .collect();
            let Some(decoration) = decorate::choose(&listed, target) else {
                continue;
            };
            is_meant = true;
            self.models_of(manufacturer, decoration, &budget, &mut models)?;
        }
        if is_meant {
            return Ok(models);
        }
        let listed = manufacturers.iter().flat_map(|manufacturer| {
            let undecorated = manufacturer.decorations.is_empty().then_some("undecorated");
            let decorated = manufacturer.decorations.iter().map(String::as_str);
            undecorated.into_iter().chain(decorated)
        });
        let mut listed: Vec<&str> = listed.take(16).collect();
        listed.dedup();
        let found = if listed.is_empty() {
            "no [Manufacturer]".to_owned()
        } else {
            listed.join(", ")
        };
        let kind = InfErrorKind::NotForThisWindows {
            target: target.to_string(),
            found,
        };
        Err(match manufacturers.first() {
            Some(manufacturer) => kind.at(manufacturer.line),
            None => kind.of_file(),
        })
    }

    /// All devices, by what Windows they are for.
    ///
    /// # Errors
    ///
    /// As [`Self::models`], but for a Windows that nothing is meant for.
    pub fn supported(&self) -> Result<Vec<Supported>, InfError> {
        let budget = Budget::new();
        let mut all: Vec<Supported> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for manufacturer in self.manufacturers()? {
            let undecorated = [String::new()];
            let decorations = if manufacturer.decorations.is_empty() {
                &undecorated[..]
            } else {
                &manufacturer.decorations[..]
            };
            for decoration in decorations {
                let mut models = Vec::new();
                self.models_of(&manufacturer, decoration, &budget, &mut models)?;
                let next = all.len();
                let place = *places.entry(fold(decoration)).or_insert(next);
                match all.get_mut(place) {
                    Some(known) => known.models.extend(models),
                    None => all.push(Supported {
                        decoration: decoration.clone(),
                        target: if decoration.is_empty() {
                            Some(Decoration::default())
                        } else {
                            Decoration::parse(decoration)
                        },
                        models,
                    }),
                }
            }
        }
        Ok(all)
    }

    fn models_of(
        &self,
        manufacturer: &Manufacturer,
        decoration: &str,
        budget: &Budget,
        models: &mut Vec<Model>,
    ) -> Result<(), InfError> {
        let name = if decoration.is_empty() {
            manufacturer.models.clone()
        } else {
            format!("{}.{decoration}", manufacturer.models)
        };
        // A section that is listed and not there means what an empty one means.
        let Some(section) = self.sections.find(&name) else {
            return Ok(());
        };
        let reader = self.reader(budget);
        for line in &section.lines {
            budget.spend_line(line.number)?;
            let Some(description) = &line.key else {
                let directive = format!("[{}]", section.name);
                let what = "`description = install section, ids`";
                return Err(InfErrorKind::Missing { directive, what }.at(line.number));
            };
            let install_section = reader.value(line, 0)?.ok_or_else(|| {
                let directive = format!("[{}]", section.name);
                let what = "install section";
                InfErrorKind::Missing { directive, what }.at(line.number)
            })?;
            let mut compatible_ids = Vec::new();
            for index in 2..line.values.len() {
                budget.spend_line(line.number)?;
                compatible_ids.extend(reader.value(line, index)?);
            }
            models.push(Model {
                description: reader.localised_text(description, line.number)?,
                manufacturer: manufacturer.name.clone(),
                models_section: section.name.clone(),
                install_section,
                hardware_id: reader.value(line, 1)?,
                compatible_ids,
                line: line.number,
            });
        }
        Ok(())
    }

    pub(super) fn reader<'i>(&'i self, budget: &'i Budget) -> Reader<'i> {
        Reader { inf: self, budget }
    }
}
