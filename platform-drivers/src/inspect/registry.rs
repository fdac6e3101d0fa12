//! Reading values of which any may be missing, of another type, or damaged.

use std::cell::RefCell;

use ce_regf::{Hive, HiveError, Key, Value};

/// Keys and values of a hive. What cannot be read counts as not there and becomes a finding.
#[derive(Clone, Copy)]
pub(crate) struct Registry<'h> {
    name: &'static str,
    hive: &'h Hive,
    findings: &'h RefCell<Vec<String>>,
}

impl<'h> Registry<'h> {
    pub(crate) fn new(
        name: &'static str,
        hive: &'h Hive,
        findings: &'h RefCell<Vec<String>>,
    ) -> Self {
        Self {
            name,
            hive,
            findings,
        }
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

    fn read<T>(
        self,
        key: Key<'h>,
        name: &str,
        read: impl FnOnce(&Value<'h>) -> Result<T, HiveError>,
    ) -> Option<T> {
        let value = self.readable(name, key.value(name))??;
        self.readable(name, read(&value))
    }

    fn readable<T>(self, what: &str, result: Result<T, HiveError>) -> Option<T> {
        result
            .map_err(|error| {
                let mut findings = self.findings.borrow_mut();
                let finding = format!("{} hive, {what}: {error}", self.name);
                if findings.len() < MOST_FINDINGS && !findings.contains(&finding) {
                    findings.push(finding);
                }
            })
            .ok()
    }
}

/// More than any key of a real hive that is looked through has.
const MOST_SUBKEYS: usize = 20_000;

/// In characters; names of products are shorter.
const LONGEST_TEXT: usize = 1024;

/// A hive that is damaged everywhere need not say so everywhere.
const MOST_FINDINGS: usize = 50;
