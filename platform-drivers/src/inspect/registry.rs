//! Reading values of which any may be missing, of another type, or damaged.

use std::cell::{Cell, RefCell};

use ce_regf::{Hive, HiveError, Key, Name, Value};

/// Keys and values of a hive. What cannot be read counts as not there and becomes a finding.
#[derive(Clone, Copy)]
pub(crate) struct Registry<'h> {
    name: &'static str,
    hive: &'h Hive,
    notes: &'h Notes,
}

/// What a look into hives has found and cost.
///
/// A hostile hive can let a thousand keys share one list of a million values: what bounds the time
/// is that everything that is looked at is paid for.
#[derive(Debug)]
pub(crate) struct Notes {
    findings: RefCell<Vec<String>>,
    budget: Cell<usize>,
}

impl Default for Notes {
    fn default() -> Self {
        Self {
            findings: RefCell::default(),
            budget: Cell::new(BUDGET),
        }
    }
}

impl Notes {
    /// Notes that go on from `findings`.
    pub(crate) fn of(findings: Vec<String>) -> Self {
        Self {
            findings: RefCell::new(findings),
            ..Self::default()
        }
    }

    pub(crate) fn into_findings(self) -> Vec<String> {
        self.findings.into_inner()
    }

    fn add(&self, finding: String) {
        let mut findings = self.findings.borrow_mut();
        if findings.len() < MOST_FINDINGS && !findings.contains(&finding) {
            findings.push(finding);
        }
    }
}

impl<'h> Registry<'h> {
    pub(crate) fn new(name: &'static str, hive: &'h Hive, notes: &'h Notes) -> Self {
        Self { name, hive, notes }
    }

    /// The key at `path`; the root for the empty path.
    pub(crate) fn key(self, path: &str) -> Option<Key<'h>> {
        let root = self.readable(path, self.hive.root())?;
        self.readable(path, root.subkey(path))?
    }

    /// The subkeys of the key at `path`, with their names; at most [`MOST_SUBKEYS`].
    pub(crate) fn subkeys(self, path: &str) -> Vec<(String, Key<'h>)> {
        let Some(key) = self.key(path) else {
            return Vec::new();
        };
        let Some(subkeys) = self.readable(path, key.subkeys()) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for subkey in subkeys.take(MOST_SUBKEYS) {
            // A list that is broken goes on being broken.
            if self.pay(ITEM).is_none() {
                break;
            }
            let Some(subkey) = self.readable(path, subkey) else {
                break;
            };
            found.push((subkey.name().to_string(), subkey));
        }
        found
    }

    /// A text of the key at `path`, without blanks around it; empty ones count as not there.
    pub(crate) fn text(self, path: &str, name: &str) -> Option<String> {
        self.text_of(self.key(path)?, name)
    }

    /// As [`text`](Self::text), of a key at hand.
    pub(crate) fn text_of(self, key: Key<'h>, name: &str) -> Option<String> {
        let text = self.read(key, name, Value::string)?;
        let text: String = text.trim().chars().take(LONGEST_TEXT).collect();
        Some(text).filter(|text| !text.is_empty())
    }

    pub(crate) fn number(self, path: &str, name: &str) -> Option<u32> {
        self.number_of(self.key(path)?, name)
    }

    /// As [`number`](Self::number), of a key at hand.
    pub(crate) fn number_of(self, key: Key<'h>, name: &str) -> Option<u32> {
        self.read(key, name, Value::dword)
    }

    /// The data of a value, whatever its type.
    pub(crate) fn data(self, path: &str, name: &str) -> Option<Vec<u8>> {
        self.read(self.key(path)?, name, |value| {
            Ok(value.data()?.into_owned())
        })
    }

    /// The strings of a REG_MULTI_SZ of a key at hand.
    pub(crate) fn strings_of(self, key: Key<'h>, name: &str) -> Option<Vec<String>> {
        self.read(key, name, Value::multi_string)
    }

    /// The subkey of this name of a key at hand.
    pub(crate) fn subkey_of(self, key: Key<'h>, name: &str) -> Option<Key<'h>> {
        let wanted = Name::from(name);
        for subkey in self.readable(name, key.subkeys())? {
            self.pay(ITEM)?;
            let subkey = self.readable(name, subkey)?;
            if subkey.name().matches(&wanted) {
                return Some(subkey);
            }
        }
        None
    }

    fn read<T>(
        self,
        key: Key<'h>,
        name: &str,
        read: impl FnOnce(&Value<'h>) -> Result<T, HiveError>,
    ) -> Option<T> {
        let wanted = Name::from(name);
        for value in self.readable(name, key.values())? {
            self.pay(ITEM)?;
            let value = self.readable(name, value)?;
            if value.name().matches(&wanted) {
                self.pay(self.readable(name, value.data())?.len())?;
                return self.readable(name, read(&value));
            }
        }
        None
    }

    /// Takes `cost` from the budget; `None` when it is used up.
    fn pay(self, cost: usize) -> Option<()> {
        let left = self.notes.budget.get().checked_sub(cost);
        self.notes.budget.set(left.unwrap_or(0));
        if left.is_none() {
            let finding = format!("{} hive: has more in it than is looked through", self.name);
            self.notes.add(finding);
        }
        left.map(drop)
    }

    fn readable<T>(self, what: &str, result: Result<T, HiveError>) -> Option<T> {
        let note = |error| {
            let finding = format!("{} hive, {what}: {error}", self.name);
            self.notes.add(finding);
        };
        result.map_err(note).ok()
    }
}

/// What everything that is looked at may cost: each byte of data, and [`ITEM`] for each key and
/// value passed by. The hives of a machine with everything installed take a tenth.
const BUDGET: usize = 256 << 20;

const ITEM: usize = 64;

/// More than any key of a real hive that is looked through has.
const MOST_SUBKEYS: usize = 20_000;

/// In characters; names of products are shorter.
const LONGEST_TEXT: usize = 1024;

/// A hive that is damaged everywhere need not say so everywhere.
const MOST_FINDINGS: usize = 50;
