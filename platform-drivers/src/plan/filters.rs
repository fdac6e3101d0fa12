//! Filters and network providers: entries of lists that name a driver. They go before the driver.

use std::collections::BTreeSet;

use ce_regf::{RegValue, ValueType};

use super::draft::Store;
use super::{PlanError, Planner};
use crate::catalog::schema::{FilterPosition, FilterRule, FilterScope};
use crate::catalog::value::ServiceName;

impl Planner<'_, '_> {
    pub(super) fn filter(&mut self, rule: &FilterRule) -> Result<(), PlanError> {
        let lists: &[&str] = match rule.position {
            FilterPosition::Both => &["LowerFilters", "UpperFilters"],
            FilterPosition::Lower => &["LowerFilters"],
            FilterPosition::Upper => &["UpperFilters"],
        };
        for set in self.sets.clone() {
            let keys = match rule.scope {
                FilterScope::Class(class) => vec![format!(r"{set}\Control\Class\{class}")],
                FilterScope::EveryClass => self.classes(&set)?,
                FilterScope::EveryDevice => self.devices_of(&set)?,
            };
            for key in keys {
                for list in lists {
                    self.shorten(Store::System, &key, list, |entry| {
                        entry.eq_ignore_ascii_case(rule.driver.as_str())
                    })?;
                }
            }
        }
        Ok(())
    }

    fn classes(&self, set: &str) -> Result<Vec<String>, PlanError> {
        let above = format!(r"{set}\Control\Class");
        let names = self.draft.subkeys(Store::System, &above)?;
        Ok(names
            .iter()
            .map(|name| format!(r"{above}\{name}"))
            .collect())
    }

    /// The devices below `Enum`: bus, device, instance.
    pub(super) fn devices_of(&self, set: &str) -> Result<Vec<String>, PlanError> {
        let mut level = vec![format!(r"{set}\Enum")];
        for _ in 0..3 {
            let mut below = Vec::new();
            for above in &level {
                let names = self.draft.subkeys(Store::System, above)?;
                below.extend(names.iter().map(|name| format!(r"{above}\{name}")));
            }
            level = below;
        }
        Ok(level)
    }

    pub(super) fn network_provider(&mut self, name: &ServiceName) -> Result<(), PlanError> {
        for set in self.sets.clone() {
            for order in ["Order", "HwOrder"] {
                let key = format!(r"{set}\Control\NetworkProvider\{order}");
                let Some(value) = self.draft.value(Store::System, &key, "ProviderOrder")? else {
                    continue;
                };
                let text = super::draft::texts(&value).concat();
                let is_other = |entry: &&str| !entry.trim().eq_ignore_ascii_case(name.as_str());
                let left: Vec<&str> = text.split(',').filter(is_other).collect();
                let left = left.join(",");
                if left != text && value.value_type == ValueType::SZ {
                    self.set(Store::System, &key, "ProviderOrder", RegValue::sz(&left))?;
                }
            }
        }
        Ok(())
    }

    /// What stands in a filter list of `set`, in lower case.
    pub(super) fn filters_in(&self, set: &str) -> Result<BTreeSet<String>, PlanError> {
        let mut names = BTreeSet::new();
        for key in self.classes(set)?.into_iter().chain(self.devices_of(set)?) {
            for list in ["LowerFilters", "UpperFilters"] {
                let entries = self.draft.list(Store::System, &key, list)?;
                let folded = entries.into_iter().flatten();
                names.extend(folded.map(|name| name.to_ascii_lowercase()));
            }
        }
        Ok(names)
    }
}
