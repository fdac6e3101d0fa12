//! All keys below one, each before its subkeys.

use crate::bitmap::CellSet;
use crate::error::{Defect, DefectKind, HiveError};
use crate::format::MAX_DEPTH;
use crate::key::Key;
use crate::name::{KeyPath, Name};
use crate::subkeys::Subkeys;

/// Keys in the order of a depth-first walk.
///
/// Ends after the first error. A key that is reached twice, or one deeper than Windows allows, is
/// an error, so the walk of any hive ends.
#[derive(Debug)]
pub struct Walk<'h> {
    start: Option<Key<'h>>,
    /// The keys from the start to the current one: what is left of their subkeys, their names.
    open: Vec<Subkeys<'h>>,
    names: Vec<Name>,
    seen: CellSet,
}

/// A key met on a [`Walk`].
#[derive(Clone, Debug)]
pub struct WalkedKey<'h> {
    /// Names from below the key the walk began at.
    pub path: KeyPath,
    /// The key.
    pub key: Key<'h>,
}

impl<'h> Walk<'h> {
    pub(crate) fn new(start: Key<'h>) -> Self {
        let seen = CellSet::new(start.hive().bins_len());
        Self {
            start: Some(start),
            open: Vec::new(),
            names: Vec::new(),
            seen,
        }
    }

    fn step(&mut self) -> Result<Option<Key<'h>>, HiveError> {
        if let Some(start) = self.start.take() {
            self.enter(start)?;
            return Ok(Some(start));
        }
        while let Some(subkeys) = self.open.last_mut() {
            let Some(key) = subkeys.next() else {
                self.open.pop();
                self.names.pop();
                continue;
            };
            let key = key?;
            if self.open.len() > MAX_DEPTH {
                return Err(defect(&key, "at most 512 levels of keys", "more"));
            }
            self.names.push(key.name().to_name());
            self.enter(key)?;
            return Ok(Some(key));
        }
        Ok(None)
    }

    fn enter(&mut self, key: Key<'h>) -> Result<(), HiveError> {
        if !self.seen.insert(key.offset()) {
            return Err(defect(
                &key,
                "a key listed once",
                "a second list that names it",
            ));
        }
        self.open.push(key.subkeys()?);
        Ok(())
    }
}

impl<'h> Iterator for Walk<'h> {
    type Item = Result<WalkedKey<'h>, HiveError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.step() {
            Ok(None) => None,
            Ok(Some(key)) => {
                let path = KeyPath::from_names(self.names.iter().cloned());
                Some(Ok(WalkedKey { path, key }))
            }
            Err(error) => {
                self.open.clear();
                Some(Err(error))
            }
        }
    }
}

fn defect(key: &Key<'_>, expected: &str, found: &str) -> HiveError {
    Defect::new(key.offset().in_file(), DefectKind::KeyNode, expected, found).into()
}
