//! Services and drivers to disable, delete or start otherwise.

use ce_regf::RegValue;

use super::draft::Store;
use super::{PlanError, Planner};
use crate::catalog::schema::{Action, ServiceAction, ServiceKind, ServiceRule};

impl Planner<'_, '_> {
    pub(super) fn service(&mut self, rule: &ServiceRule) -> Result<(), PlanError> {
        for set in self.sets.clone() {
            let key = format!(r"{set}\Services\{}", rule.name);
            if !self.draft.has_key(Store::System, &key)? {
                continue;
            }
            match self.why_not(&set, &key, rule)? {
                Some(why) => self.skip(format!("SYSTEM {key}"), why),
                None if rule.action == ServiceAction::Delete => {
                    self.delete_key(Store::System, &key)?;
                }
                None => {
                    let start = match rule.action {
                        ServiceAction::Automatic => 2,
                        ServiceAction::Manual => 3,
                        ServiceAction::Delete | ServiceAction::Disable => 4,
                    };
                    self.set(Store::System, &key, "Start", RegValue::dword(start))?;
                    // It has the last word, and might start a disabled driver after all.
                    self.delete_key(Store::System, &format!(r"{key}\StartOverride"))?;
                }
            }
        }
        Ok(())
    }

    /// Why the service at `key` is not the one that is meant, or has to stay.
    fn why_not(
        &mut self,
        set: &str,
        key: &str,
        rule: &ServiceRule,
    ) -> Result<Option<String>, PlanError> {
        let number = |name| self.draft.number(Store::System, key, name);
        let (Some(kind), Some(start)) = (number("Type")?, number("Start")?) else {
            return Ok(Some(
                "it is a stub without Type or Start, and never starts".into(),
            ));
        };
        let is_program = kind >= FIRST_PROGRAM;
        if is_program != (rule.kind == ServiceKind::Program) {
            let found = if is_program { "program" } else { "driver" };
            return Ok(Some(format!(
                "another service of this name: a {found} (Type {kind:#x})"
            )));
        }
        let image = self.image(key, rule.name.as_str(), is_program)?;
        if !rule.image.is_empty() && !rule.image.iter().any(|meant| meant.matches(&image)) {
            return Ok(Some(format!(
                "another service of this name: it runs {image:?}"
            )));
        }
        if is_program || !rule.action.takes_out() {
            return Ok(None);
        }
        if self.is_needed_to_boot(rule.name.as_str()) {
            return Ok(Some("the target boots with it".into()));
        }
        if start == BOOT_START && !self.blockers.is_empty() {
            return Ok(Some(
                "it stays until everything that boots the target is there".into(),
            ));
        }
        if !self.filter_names.contains_key(set) {
            let names = self.filters_in(set)?;
            self.filter_names.insert(set.to_owned(), names);
        }
        let filters = self.filter_names.get(set);
        Ok(filters
            .is_some_and(|names| names.contains(&rule.name.folded()))
            .then(|| "it stands in a filter list, whose devices would not start without it".into()))
    }

    fn is_needed_to_boot(&self, name: &str) -> bool {
        let targets = self.machine.preparation.target.iter();
        let mut actions = targets
            .flat_map(|item| &item.steps)
            .map(|step| &step.action);
        actions.any(|action| match action {
            Action::BootService(service) => service.name.as_str().eq_ignore_ascii_case(name),
            Action::Device(device) => device.driver.as_str().eq_ignore_ascii_case(name),
            _ => false,
        })
    }

    /// The name of the file that a service runs.
    pub(super) fn image(
        &self,
        key: &str,
        name: &str,
        is_program: bool,
    ) -> Result<String, PlanError> {
        let path = self.draft.text(Store::System, key, "ImagePath")?;
        Ok(match path.filter(|path| !path.trim().is_empty()) {
            Some(path) => file_name(&path).to_owned(),
            None if is_program => String::new(),
            None => format!("{name}.sys"),
        })
    }
}

/// The name of the file in an `ImagePath`, which may have quotes and arguments.
pub(super) fn file_name(image_path: &str) -> &str {
    let path = image_path.trim();
    let program = match path.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next().unwrap_or_default(),
        None => {
            let lower = path.to_ascii_lowercase();
            let ends = [".exe", ".sys"].map(|end| lower.find(end).map(|at| at + end.len()));
            let end = ends.into_iter().flatten().min().unwrap_or(path.len());
            path.get(..end).unwrap_or(path)
        }
    };
    program.rsplit(['\\', '/']).next().unwrap_or(program)
}

/// SERVICE_WIN32_OWN_PROCESS; all below are drivers.
const FIRST_PROGRAM: u32 = 0x10;

pub(super) const BOOT_START: u32 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_a_service_is_found_in_its_image_path() {
        for (path, file) in [
            (r"\SystemRoot\System32\drivers\xenvbd.sys", "xenvbd.sys"),
            (r"system32\DRIVERS\vmci.sys", "vmci.sys"),
            (
                r#""C:\Program Files\VMware\VMware Tools\vmtoolsd.exe" -n vmsvc"#,
                "vmtoolsd.exe",
            ),
            (
                r"C:\Program Files\Amazon\XenTools\LiteAgent.exe /run",
                "LiteAgent.exe",
            ),
            (
                r"C:\Windows\system32\dllhost.exe /Processid:{1}",
                "dllhost.exe",
            ),
            ("", ""),
            ("\"", ""),
        ] {
            assert_eq!(file_name(path), file);
        }
    }
}
