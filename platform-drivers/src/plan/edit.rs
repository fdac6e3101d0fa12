//! Edits of an offline Windows, as data: what is changed, and why. Whoever plans makes them, whoever
//! applies them carries them out; neither knows the other.

use std::fmt;

use ce_regf::RegValue;

use crate::hives::HiveName;

/// Why an edit is made, in words for whoever reads the plan.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reason(pub String);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A change of a hive. Keys are paths from the hive's root.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RegistryEdit {
    /// Which hive.
    pub hive: HiveName,
    /// The key.
    pub key: String,
    /// What happens to it.
    pub change: RegistryEditKind,
    /// Why.
    pub reason: Reason,
}

/// What happens to a key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RegistryEditKind {
    /// It is made, with those above it, if it is not there.
    CreateKey,
    /// A value is set; the key is made if it is not there.
    SetValue {
        /// Empty for the default value.
        name: String,
        /// Its type and data.
        value: RegValue,
    },
    /// A value is deleted, if it is there.
    DeleteValue {
        /// Empty for the default value.
        name: String,
    },
    /// It is deleted with all below it, if it is there.
    DeleteKey,
}
