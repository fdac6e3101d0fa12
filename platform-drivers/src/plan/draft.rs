//! The hives in memory, which change as a plan grows, so that each step sees what the ones before it did.

use std::cell::Cell;

use ce_regf::{EditError, FileTime, Hive, HiveEditor, HiveError, Key, RegValue, ValueType};

use super::PlanError;
use super::edit::RegistryEditKind;
use crate::hives::{HiveName, HiveSet};

/// The store that a key is in.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Store {
    System,
    Software,
    Drivers,
    Boot,
}

impl Store {
    pub(super) fn name(self) -> &'static str {
        self.hive().map_or("BCD", HiveName::file)
    }

    /// The hive of Windows that it is.
    pub(super) fn hive(self) -> Option<HiveName> {
        match self {
            Self::System => Some(HiveName::System),
            Self::Software => Some(HiveName::Software),
            Self::Drivers => Some(HiveName::Drivers),
            Self::Boot => None,
        }
    }
}

/// Those that are there.
pub(super) struct Stores(Vec<(Store, Hive)>);

impl Stores {
    pub(super) fn of(mut hives: HiveSet, boot: Option<&Hive>) -> Self {
        let stores = [Store::System, Store::Software, Store::Drivers];
        let windows = stores.into_iter().filter_map(|store| {
            let loaded = hives.take(store.hive()?)?;
            Some((store, loaded.hive))
        });
        let boot = boot.map(|hive| (Store::Boot, hive.clone()));
        Self(windows.chain(boot).collect())
    }

    pub(super) fn draft(&mut self) -> Result<Draft<'_>, PlanError> {
        let mut editors = Vec::new();
        for (store, hive) in &mut self.0 {
            // The time is that of no file: they are never saved.
            let editor = hive.edit(FileTime::from_ticks(0));
            editors.push((*store, editor.map_err(|error| failed(*store, "", error))?));
        }
        Ok(Draft {
            editors,
            budget: Cell::new(MOST_LOOKS),
        })
    }
}

/// The hives as they are after the edits so far.
pub(super) struct Draft<'c> {
    editors: Vec<(Store, HiveEditor<'c>)>,
    budget: Cell<usize>,
}

impl Draft<'_> {
    pub(super) fn has(&self, store: Store) -> bool {
        self.hive(store).is_some()
    }

    /// A hive as it is after the edits so far.
    pub(super) fn hive(&self, store: Store) -> Option<&Hive> {
        let mut editors = self.editors.iter();
        let found = editors.find(|(other, _)| *other == store);
        found.map(|(_, editor)| editor.hive())
    }

    fn look<T>(
        &self,
        store: Store,
        path: &str,
        look: impl FnOnce(Key<'_>) -> Result<T, HiveError>,
    ) -> Result<Option<T>, PlanError> {
        let Some(hive) = self.hive(store) else {
            return Ok(None);
        };
        self.pay(store, 1)?;
        let found = hive.root().and_then(|root| root.subkey(path));
        let found = found.and_then(|key| key.map(look).transpose());
        found.map_err(|error| failed(store, path, error.into()))
    }

    pub(super) fn has_key(&self, store: Store, path: &str) -> Result<bool, PlanError> {
        Ok(self.look(store, path, |_| Ok(()))?.is_some())
    }

    pub(super) fn value(
        &self,
        store: Store,
        path: &str,
        name: &str,
    ) -> Result<Option<RegValue>, PlanError> {
        let value = self.look(store, path, |key| {
            let value = key.value(name)?;
            value.map(|value| value.to_reg_value()).transpose()
        });
        Ok(value?.flatten())
    }

    pub(super) fn number(
        &self,
        store: Store,
        path: &str,
        name: &str,
    ) -> Result<Option<u32>, PlanError> {
        let value = self.value(store, path, name)?;
        Ok(value.as_ref().and_then(number))
    }

    pub(super) fn text(
        &self,
        store: Store,
        path: &str,
        name: &str,
    ) -> Result<Option<String>, PlanError> {
        let value = self.value(store, path, name)?;
        Ok(value.and_then(|value| texts(&value).into_iter().next()))
    }

    /// The texts of a list, or the one text of a value that is none.
    pub(super) fn list(
        &self,
        store: Store,
        path: &str,
        name: &str,
    ) -> Result<Option<Vec<String>>, PlanError> {
        Ok(self.value(store, path, name)?.as_ref().map(texts))
    }

    pub(super) fn subkeys(&self, store: Store, path: &str) -> Result<Vec<String>, PlanError> {
        let names = self.look(store, path, |key| {
            let subkeys = key.subkeys()?.take(MOST_IN_A_KEY);
            subkeys
                .map(|subkey| Ok(subkey?.name().to_string()))
                .collect::<Result<Vec<_>, HiveError>>()
        });
        let names = names?.unwrap_or_default();
        self.pay(store, names.len())?;
        Ok(names)
    }

    pub(super) fn value_names(&self, store: Store, path: &str) -> Result<Vec<String>, PlanError> {
        let names = self.look(store, path, |key| {
            let values = key.values()?.take(MOST_IN_A_KEY);
            values
                .map(|value| Ok(value?.name().to_string()))
                .collect::<Result<Vec<_>, HiveError>>()
        });
        let names = names?.unwrap_or_default();
        self.pay(store, names.len())?;
        Ok(names)
    }

    /// Changes it in memory. Says whether that changed anything; `None` when there is no such hive.
    pub(super) fn change(
        &mut self,
        store: Store,
        key: &str,
        change: &RegistryEditKind,
    ) -> Result<Option<bool>, PlanError> {
        let mut editors = self.editors.iter_mut();
        let Some((_, editor)) = editors.find(|(other, _)| *other == store) else {
            return Ok(None);
        };
        let changed = carry_out(editor, key, change);
        changed.map(Some).map_err(|error| failed(store, key, error))
    }

    /// A hostile hive can share a list of a million keys among a thousand: looking has an end.
    fn pay(&self, store: Store, looks: usize) -> Result<(), PlanError> {
        let left = self.budget.get().checked_sub(looks);
        self.budget.set(left.unwrap_or(0));
        left.map(drop).ok_or(PlanError::TooLarge {
            hive: store.name(),
            limit: MOST_LOOKS,
        })
    }
}

/// Does one change. Says whether that changed anything.
pub(crate) fn carry_out(
    editor: &mut HiveEditor<'_>,
    key: &str,
    change: &RegistryEditKind,
) -> Result<bool, EditError> {
    match change {
        RegistryEditKind::CreateKey => editor.create_key(key),
        RegistryEditKind::SetValue { name, value } => {
            let created = editor.create_key(key)?;
            Ok(editor.set_value(key, name, value)? || created)
        }
        RegistryEditKind::DeleteValue { name } => editor.delete_value(key, name),
        RegistryEditKind::DeleteKey => editor.delete_key(key),
    }
}

fn failed(store: Store, key: &str, source: EditError) -> PlanError {
    PlanError::Hive {
        hive: store.name(),
        key: key.to_owned(),
        source,
    }
}

/// The number of a REG_DWORD or REG_QWORD.
pub(super) fn number(value: &RegValue) -> Option<u32> {
    match value.value_type {
        ValueType::DWORD => Some(u32::from_le_bytes(*value.data.first_chunk()?)),
        ValueType::QWORD => u64::from_le_bytes(*value.data.first_chunk()?)
            .try_into()
            .ok(),
        _ => None,
    }
}

/// The texts of a value: of a list all up to the empty one that ends it, of another text one.
pub(super) fn texts(value: &RegValue) -> Vec<String> {
    let (units, _) = value.data.as_chunks::<2>();
    let units: Vec<u16> = units.iter().copied().map(u16::from_le_bytes).collect();
    let mut texts = units.split(|unit| *unit == 0).map(String::from_utf16_lossy);
    match value.value_type {
        ValueType::MULTI_SZ => texts.take_while(|text| !text.is_empty()).collect(),
        ValueType::SZ | ValueType::EXPAND_SZ => texts.next().into_iter().collect(),
        _ => Vec::new(),
    }
}

/// Several times what a plan looks at in the largest hives.
const MOST_LOOKS: usize = 8_000_000;

const MOST_IN_A_KEY: usize = 200_000;
