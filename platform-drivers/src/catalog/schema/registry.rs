//! `[[item.registry]]`: changes of keys and values.

use ce_regf::RegValue;
use serde::Deserialize;

use super::JobField;
use crate::catalog::value::{RegistryKey, Sentence};

/// A change of the registry. Keys and values that are not there are no error.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "RawRegistry")]
pub struct RegistryRule {
    /// The hive.
    pub hive: HiveName,
    /// The key.
    pub key: RegistryKey,
    /// What becomes of it.
    pub edit: RegistryEdit,
}

/// The hives that catalogues change.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[serde(rename_all = "kebab-case")]
pub enum HiveName {
    /// `Windows\System32\config\SOFTWARE`
    Software,
    /// `Windows\System32\config\SYSTEM`
    System,
}

/// What becomes of a key or value.
#[derive(Clone, Debug, PartialEq)]
pub enum RegistryEdit {
    /// The key and all below it are deleted.
    DeleteKey {
        /// Only if it has neither values nor keys.
        only_if_empty: bool,
    },
    /// The value is deleted.
    DeleteValue {
        /// The name of the value.
        name: String,
        /// Only if it is like this.
        only_if: Condition,
    },
    /// Every value whose name begins so is deleted.
    DeleteValuesStarting {
        /// What names begin with.
        start: String,
    },
    /// An entry of a list of texts is deleted: one that is this text, or that has it before its
    /// first comma. The value goes with its last entry.
    RemoveEntry {
        /// The name of the value.
        name: String,
        /// The entry.
        entry: String,
    },
    /// The value is set.
    SetValue {
        /// The name of the value.
        name: String,
        /// To what.
        data: RegistryData,
        /// Only if it is there and like this.
        only_if: Condition,
        /// The key is not made if it is not there.
        only_if_key: bool,
    },
}

/// What a value has to be before it is changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Condition(Vec<String>);

impl Condition {
    /// Whether a value with this text may be changed; a number's text is in decimal. True for every
    /// value if there are no texts; else for one that is one of them, or has one in it as a word: a
    /// name or address that is not part of a longer one.
    pub fn is_met_by(&self, value: &str) -> bool {
        let value = value.to_lowercase();
        let words =
            || value.split(|letter: char| !letter.is_alphanumeric() && !"._-".contains(letter));
        self.0.is_empty()
            || self
                .0
                .iter()
                .map(|text| text.to_lowercase())
                .any(|text| value == text || words().any(|word| word == text))
    }

    /// The texts.
    pub fn texts(&self) -> &[String] {
        &self.0
    }
}

/// What a value is set to.
#[derive(Clone, Debug, PartialEq)]
pub enum RegistryData {
    /// REG_BINARY
    Binary(Vec<u8>),
    /// REG_DWORD
    Dword(u32),
    /// REG_EXPAND_SZ
    ExpandString(String),
    /// What the job says in this field; a REG_DWORD for a number, else a REG_SZ of its texts with
    /// spaces between.
    FromJob(JobField),
    /// REG_MULTI_SZ
    Strings(Vec<String>),
    /// REG_SZ
    String(String),
}

impl RegistryData {
    /// The value for the registry; `None` when it comes from the job.
    pub fn value(&self) -> Option<RegValue> {
        Some(match self {
            Self::Binary(bytes) => RegValue::binary(bytes.as_slice()),
            Self::Dword(number) => RegValue::dword(*number),
            Self::ExpandString(text) => RegValue::expand_sz(text),
            Self::FromJob(_) => return None,
            Self::Strings(texts) => RegValue::multi_sz(texts),
            Self::String(text) => RegValue::sz(text),
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawRegistry {
    hive: HiveName,
    key: RegistryKey,
    action: RegistryAction,
    value: Option<String>,
    entry: Option<Sentence>,
    dword: Option<u32>,
    string: Option<String>,
    expand_string: Option<String>,
    strings: Option<Vec<String>>,
    binary: Option<Vec<u8>>,
    from_job: Option<JobField>,
    #[serde(default)]
    only_if: Vec<Sentence>,
    #[serde(default)]
    only_if_key: bool,
    #[serde(default)]
    only_if_empty: bool,
}

#[derive(Clone, Copy, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum RegistryAction {
    DeleteKey,
    DeleteValue,
    DeleteValuesStarting,
    RemoveEntry,
    Set,
}

impl TryFrom<RawRegistry> for RegistryRule {
    type Error = &'static str;

    fn try_from(raw: RawRegistry) -> Result<Self, Self::Error> {
        check_hive(raw.hive, &raw.key)?;
        let only_if = raw.only_if.iter().map(|text| text.as_str().to_owned());
        let only_if = Condition(only_if.collect());
        let mut data: Vec<RegistryData> = [
            raw.binary.map(RegistryData::Binary),
            raw.dword.map(RegistryData::Dword),
            raw.expand_string.map(RegistryData::ExpandString),
            raw.from_job.map(RegistryData::FromJob),
            raw.strings.map(RegistryData::Strings),
            raw.string.map(RegistryData::String),
        ]
        .into_iter()
        .flatten()
        .collect();
        let sets = raw.action == RegistryAction::Set;
        if data.len() != usize::from(sets) {
            return Err(if sets {
                "`set` needs exactly one of `dword`, `string`, `expand-string`, `strings`, \
                 `binary` and `from-job`"
            } else {
                "data (`dword`, `string` and so on) goes with `set` only"
            });
        }
        if raw.only_if_empty && raw.action != RegistryAction::DeleteKey {
            return Err("`only-if-empty` goes with `delete-key` only");
        }
        if raw.only_if_key && !sets {
            return Err("`only-if-key` goes with `set` only; nothing else makes a key");
        }
        if !only_if.texts().is_empty() && !sets && raw.action != RegistryAction::DeleteValue {
            return Err("`only-if` goes with `set` and `delete-value` only");
        }
        if raw.entry.is_some() != (raw.action == RegistryAction::RemoveEntry) {
            return Err("`entry` goes with `remove-entry`, and only with it");
        }
        let edit = match (raw.action, raw.value, data.pop(), raw.entry) {
            (RegistryAction::DeleteKey, None, None, None) => RegistryEdit::DeleteKey {
                only_if_empty: raw.only_if_empty,
            },
            (RegistryAction::DeleteKey, Some(_), ..) => {
                return Err("`delete-key` takes no `value`; to delete a value is `delete-value`");
            }
            (RegistryAction::DeleteValue, Some(name), None, None) => {
                RegistryEdit::DeleteValue { name, only_if }
            }
            // A shorter start could match anything.
            (RegistryAction::DeleteValuesStarting, Some(start), None, None) if start.len() >= 8 => {
                RegistryEdit::DeleteValuesStarting { start }
            }
            (RegistryAction::DeleteValuesStarting, Some(_), ..) => {
                return Err("`delete-values-starting` needs a `value` of at least 8 characters");
            }
            (RegistryAction::RemoveEntry, Some(name), None, Some(entry)) => {
                RegistryEdit::RemoveEntry {
                    name,
                    entry: entry.as_str().to_owned(),
                }
            }
            (RegistryAction::Set, Some(name), Some(data), None) => RegistryEdit::SetValue {
                name,
                data,
                only_if,
                only_if_key: raw.only_if_key,
            },
            _ => return Err("`value` is missing: the name of the value, \"\" for the default one"),
        };
        Ok(Self {
            hive: raw.hive,
            key: raw.key,
            edit,
        })
    }
}

/// Whether the key's first name can be one of the hive.
pub(super) fn check_hive(hive: HiveName, key: &RegistryKey) -> Result<(), &'static str> {
    let first = key.names().next().unwrap_or_default();
    let is_of_system = key.is_in_control_set()
        || ["DriverDatabase", "MountedDevices", "Setup"]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(first));
    match (hive, is_of_system) {
        (HiveName::System, true) | (HiveName::Software, false) => Ok(()),
        (HiveName::System, false) => Err(
            "a `key` of `system` begins with ControlSet, DriverDatabase, MountedDevices or Setup",
        ),
        (HiveName::Software, true) => Err("this `key` belongs to `system`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_met_by_its_texts_and_by_lists_that_have_one_of_them() {
        let condition = Condition(vec!["metadata.google.internal".into(), "300000".into()]);
        for value in [
            "metadata.google.internal",
            "METADATA.google.internal,0x1",
            "time.windows.com,0x9 metadata.google.internal,0x1",
            "300000",
        ] {
            assert!(condition.is_met_by(value), "{value}");
        }
        for value in [
            "",
            "time.windows.com",
            "time.metadata.google.internal",
            "metadata.google.internal.example",
            "3000000",
        ] {
            assert!(!condition.is_met_by(value), "{value}");
        }
        assert!(Condition::default().is_met_by("anything"));
    }
}
