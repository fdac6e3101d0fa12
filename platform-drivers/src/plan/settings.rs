//! Keys and values as the catalogue has them, and programs that start at log-on.

use ce_regf::{Name, RegValue, ValueType};

use super::draft::{Store, number, texts};
use super::files::NOT_INSTALLED;
use super::{PlanError, Planner};
use crate::catalog::schema::{HiveName, RegistryData, RegistryEdit, RegistryRule};
use crate::catalog::value::RegistryKey;

impl Planner<'_, '_> {
    pub(super) fn registry(&mut self, rule: &RegistryRule) -> Result<(), PlanError> {
        let store = store(rule.hive);
        for key in self.keys(&rule.key) {
            match &rule.edit {
                RegistryEdit::DeleteKey { only_if_empty } => {
                    if !only_if_empty || self.is_empty(store, &key)? {
                        self.delete_key(store, &key)?;
                    }
                }
                RegistryEdit::DeleteValue { name, only_if } => {
                    let value = self.draft.value(store, &key, name)?;
                    if value.is_some_and(|value| only_if.is_met_by(&words(&value))) {
                        self.delete_value(store, &key, name)?;
                    }
                }
                RegistryEdit::DeleteValuesStarting { start } => {
                    let start = Name::from(start.as_str()).folded();
                    for name in self.draft.value_names(store, &key)? {
                        let folded = Name::from(name.as_str()).folded();
                        if folded.units().starts_with(start.units()) {
                            self.delete_value(store, &key, &name)?;
                        }
                    }
                }
                RegistryEdit::RemoveEntry { name, entry } => {
                    self.shorten(store, &key, name, |found| {
                        let name = found.split(',').next().unwrap_or_default();
                        name.trim().eq_ignore_ascii_case(entry) || found.eq_ignore_ascii_case(entry)
                    })?;
                }
                RegistryEdit::SetValue {
                    name,
                    data,
                    only_if,
                    only_if_key,
                } => {
                    let has_key = self.draft.has_key(store, &key)?;
                    let old = self.draft.value(store, &key, name)?;
                    let is_met = only_if.texts().is_empty()
                        || old.is_some_and(|old| only_if.is_met_by(&words(&old)));
                    let value = match data {
                        RegistryData::FromJob(field) if !has_key && *only_if_key => {
                            self.skip(field.name().to_owned(), NOT_INSTALLED.into());
                            continue;
                        }
                        RegistryData::FromJob(field) => self.machine.options.value(*field),
                        data => data.value(),
                    };
                    if let Some(value) = value.filter(|_| is_met && (has_key || !only_if_key)) {
                        self.set(store, &key, name, value)?;
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn run_entry(&mut self, name: &str) -> Result<(), PlanError> {
        for key in [
            r"Microsoft\Windows\CurrentVersion\Run",
            r"WOW6432Node\Microsoft\Windows\CurrentVersion\Run",
        ] {
            self.delete_value(Store::Software, key, name)?;
        }
        Ok(())
    }

    /// The keys that are meant: one in every control set, if it is in one.
    pub(super) fn keys(&self, key: &RegistryKey) -> Vec<String> {
        if !key.is_in_control_set() {
            return vec![key.as_str().to_owned()];
        }
        let rest: Vec<&str> = key.names().skip(1).collect();
        let rest = rest.join("\\");
        let sets = self.sets.iter();
        sets.map(|set| format!(r"{set}\{rest}")).collect()
    }

    fn is_empty(&self, store: Store, key: &str) -> Result<bool, PlanError> {
        let values = self.draft.value_names(store, key)?;
        Ok(values.is_empty() && self.draft.subkeys(store, key)?.is_empty())
    }
}

pub(super) fn store(hive: HiveName) -> Store {
    match hive {
        HiveName::Software => Store::Software,
        HiveName::System => Store::System,
    }
}

/// The text of a value for a condition: a number in decimal, the entries of a list with blanks
/// between.
fn words(value: &RegValue) -> String {
    match value.value_type {
        ValueType::DWORD | ValueType::QWORD => number(value)
            .map(|number| number.to_string())
            .unwrap_or_default(),
        _ => texts(value).join(" "),
    }
}
