//! Driver packages that leave the driver store.

use ce_disk::volume::WinPath;
use ce_regf::RegValue;

use super::draft::Store;
use super::{Change, PlanError, Planner};
use crate::catalog::value::FileName;
use crate::driver_store::lockdown::LOCKDOWN;

impl Planner<'_, '_> {
    /// Takes out every package that was published as `oemN.inf` and that is `inf` by its own name.
    /// Services that it owns with others stay theirs, and those that it owns alone are left to the
    /// catalogue's services.
    pub(super) fn package(&mut self, inf: &FileName) -> Result<(), PlanError> {
        for store in [Store::System, Store::Drivers] {
            let packages = r"DriverDatabase\DriverPackages";
            for label in self.draft.subkeys(store, packages)? {
                let key = format!(r"{packages}\{label}");
                let published = self.draft.text(store, &key, "")?.unwrap_or_default();
                let own_name = match self.draft.text(store, &key, "InfName")? {
                    Some(name) => name,
                    // A label is the name, the architecture and a hash.
                    None => label.split(".inf_").next().unwrap_or_default().to_owned() + ".inf",
                };
                if own_name.eq_ignore_ascii_case(inf.as_str()) && is_oem(&published) {
                    self.remove_package(store, &label, &published, inf)?;
                }
            }
        }
        Ok(())
    }

    fn remove_package(
        &mut self,
        store: Store,
        label: &str,
        published: &str,
        inf: &FileName,
    ) -> Result<(), PlanError> {
        self.disown(published, inf)?;
        self.remove_ids(store, published)?;
        self.unlock(published)?;
        let database = "DriverDatabase";
        self.delete_key(store, &format!(r"{database}\DriverInfFiles\{published}"))?;
        self.delete_key(store, &format!(r"{database}\DriverPackages\{label}"))?;
        self.free_number(published)?;
        let stem = published.get(..published.len().saturating_sub(4));
        let stem = stem.unwrap_or_default();
        for path in [
            format!(r"INF\{published}"),
            format!(r"INF\{stem}.PNF"),
            format!(r"System32\CatRoot\{DRIVER_CATALOGUES}\{stem}.cat"),
        ] {
            if let Some(path) = self.in_windows(&path) {
                self.delete_file(&path)?;
            }
        }
        let folder = format!(r"System32\DriverStore\FileRepository\{label}");
        // A label is one name: with a backslash in it, it would be another folder.
        match self.in_windows(&folder).filter(|_| !label.contains('\\')) {
            Some(folder) => self.delete_folder(&folder),
            None => Ok(()),
        }
    }

    /// Takes the package out of the owners of services that have others too. An owner is a published
    /// name, or `!` and a label; earlier versions of the package are there by their labels.
    fn disown(&mut self, published: &str, inf: &FileName) -> Result<(), PlanError> {
        let start = format!("!{}_", inf.folded());
        let is_of_package = |owner: &str| {
            let owner = owner.to_ascii_lowercase();
            owner.eq_ignore_ascii_case(published) || owner.starts_with(&start)
        };
        for set in self.sets.clone() {
            let services = format!(r"{set}\Services");
            for name in self.draft.subkeys(Store::System, &services)? {
                let key = format!(r"{services}\{name}");
                let owners = self.draft.list(Store::System, &key, "Owners")?;
                let owners = owners.unwrap_or_default();
                if owners.iter().any(|owner| !is_of_package(owner)) {
                    self.shorten(Store::System, &key, "Owners", is_of_package)?;
                }
            }
        }
        Ok(())
    }

    /// Takes the package out of the owners of files; an entry without any goes.
    fn unlock(&mut self, published: &str) -> Result<(), PlanError> {
        let is_of_package = |owner: &str| owner.eq_ignore_ascii_case(published);
        for name in self.draft.subkeys(Store::Software, LOCKDOWN)? {
            let key = format!(r"{LOCKDOWN}\{name}");
            let owners = self.draft.list(Store::Software, &key, "Owners")?;
            let owners = owners.unwrap_or_default();
            if !owners.iter().any(|owner| is_of_package(owner)) {
                continue;
            }
            if owners.iter().all(|owner| is_of_package(owner)) {
                self.delete_key(Store::Software, &key)?;
            } else {
                self.shorten(Store::Software, &key, "Owners", is_of_package)?;
            }
        }
        Ok(())
    }

    fn remove_ids(&mut self, store: Store, published: &str) -> Result<(), PlanError> {
        let ids = r"DriverDatabase\DeviceIds";
        for bus in self.draft.subkeys(store, ids)? {
            let bus = format!(r"{ids}\{bus}");
            self.delete_value(store, &bus, published)?;
            for id in self.draft.subkeys(store, &bus)? {
                self.delete_value(store, &format!(r"{bus}\{id}"), published)?;
            }
        }
        Ok(())
    }

    /// The number of `oemN.inf` is free again: bit N of the map, most significant bit first.
    fn free_number(&mut self, published: &str) -> Result<(), PlanError> {
        let number = published.get(3..published.len().saturating_sub(4));
        let Some(number) = number.and_then(|number| number.parse::<usize>().ok()) else {
            return Ok(());
        };
        let map = self
            .draft
            .value(Store::System, "DriverDatabase", "OemInfMap")?;
        let Some(mut map) = map.map(|map| map.data) else {
            return Ok(());
        };
        let bit = 0x80_u8 >> (number % 8);
        match map.get_mut(number / 8) {
            Some(byte) if *byte & bit != 0 => *byte &= !bit,
            _ => return Ok(()),
        }
        self.set(
            Store::System,
            "DriverDatabase",
            "OemInfMap",
            RegValue::binary(map),
        )
    }

    pub(super) fn delete_file(&mut self, path: &WinPath) -> Result<(), PlanError> {
        let deleted = |edit: &super::Edit| match &edit.change {
            Change::Delete { path: other, .. } => other == path,
            _ => false,
        };
        if self.machine.volume.exists(path)? && !self.edits.iter().any(deleted) {
            self.push_deletion(path);
        }
        Ok(())
    }
}

/// Whether a published name is `oemN.inf`.
fn is_oem(published: &str) -> bool {
    let lower = published.to_ascii_lowercase();
    let number = lower
        .strip_prefix("oem")
        .and_then(|rest| rest.strip_suffix(".inf"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// The folder of the catalogues of drivers (DRIVER_ACTION_VERIFY).
const DRIVER_CATALOGUES: &str = "{F750E6C3-38EE-11D1-85E5-00C04FC295EE}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packages_of_others_than_windows_have_a_published_name_with_a_number() {
        for name in ["oem0.inf", "OEM42.INF"] {
            assert!(is_oem(name), "{name}");
        }
        for name in ["", "oem.inf", "oem1.pnf", "oemx.inf", "vmci.inf", "oem1"] {
            assert!(!is_oem(name), "{name}");
        }
    }
}
