//! A hive as a map, on which the edits of a plan are done again: what else changed is a mistake.

use std::collections::BTreeMap;

use ce_platform::plan::{Change, EditPlan, RegistryEditKind};
use ce_regf::{Hive, RegValue};

/// Keys and values by their paths in lower case.
pub struct Tree(BTreeMap<String, BTreeMap<String, RegValue>>);

impl Tree {
    pub fn of(hive: &Hive) -> Self {
        let walked = hive.walk().unwrap().map(|walked| {
            let walked = walked.unwrap();
            let values = walked.key.values().unwrap().map(|value| {
                let value = value.unwrap();
                (
                    value.name().to_string().to_lowercase(),
                    value.to_reg_value().unwrap(),
                )
            });
            (walked.path.to_string().to_lowercase(), values.collect())
        });
        Self(walked.collect())
    }

    pub fn apply(&mut self, hive: &str, plan: &EditPlan) {
        for edit in plan.to_do() {
            let Change::Registry(change) = &edit.change else {
                continue;
            };
            if format!("{:?}", change.hive).to_uppercase() != hive {
                continue;
            }
            let key = change.key.to_lowercase();
            match &change.change {
                RegistryEditKind::CreateKey => self.create(&key),
                RegistryEditKind::SetValue { name, value } => {
                    self.create(&key);
                    let values = self.0.get_mut(&key).unwrap();
                    values.insert(name.to_lowercase(), value.clone());
                }
                RegistryEditKind::DeleteValue { name } => {
                    let values = self.0.get_mut(&key).unwrap();
                    values.remove(&name.to_lowercase()).unwrap();
                }
                RegistryEditKind::DeleteKey => {
                    let below = format!(r"{key}\");
                    self.0
                        .retain(|other, _| *other != key && !other.starts_with(&below));
                }
            }
        }
    }

    fn create(&mut self, key: &str) {
        for (at, _) in key.match_indices('\\') {
            self.0.entry(key[..at].to_owned()).or_default();
        }
        self.0.entry(key.to_owned()).or_default();
    }

    pub fn difference(&self, other: &Self) -> Vec<String> {
        let keys = self.0.keys().chain(other.0.keys());
        let different = keys.filter(|key| self.0.get(*key) != other.0.get(*key));
        let mut different: Vec<String> = different.cloned().collect();
        different.dedup();
        different
    }
}

/// What must never happen: a class or device that names a driver which does not start.
pub fn every_filter_is_a_service_that_starts(system: &Hive) {
    let tree = Tree::of(system);
    for (key, values) in &tree.0 {
        for list in ["lowerfilters", "upperfilters"] {
            let Some(value) = values.get(list) else {
                continue;
            };
            let set = key.split('\\').next().unwrap();
            let units = value
                .data
                .chunks_exact(2)
                .map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
            let text = String::from_utf16(&units.collect::<Vec<_>>()).unwrap();
            for filter in text.split('\0').filter(|filter| !filter.is_empty()) {
                let service = format!(r"{set}\services\{}", filter.to_lowercase());
                let start = tree
                    .0
                    .get(&service)
                    .and_then(|service| service.get("start"));
                let start = start.unwrap_or_else(|| panic!("{key}: {filter} is no service"));
                assert_ne!(start.data[0], 4, "{key}: {filter} is disabled");
            }
        }
    }
}
