//! `[Strings]`, `[Strings.0409]` and what `%...%` stands for.

use std::collections::{BTreeMap, HashMap};

use super::dirid;
use super::error::{InfError, InfErrorKind, LineNumber};
use super::section::{Sections, fold};

/// A Windows language identifier, such as 0x0409 for English of the United States.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LanguageId(pub u16);

impl LanguageId {
    /// English of the United States, which Windows is serviced in.
    pub const EN_US: Self = Self(0x0409);

    /// The language without its country: the lower ten bits.
    fn primary(self) -> u16 {
        self.0 & 0x3FF
    }
}

/// The strings of an INF, for one language.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StringTable {
    base: Table,
    /// The sections of other languages.
    localised: BTreeMap<LanguageId, Table>,
    /// The one that is asked before the base.
    chosen: Option<LanguageId>,
}

type Table = HashMap<String, String>;

impl StringTable {
    pub(super) fn read(sections: &Sections) -> Self {
        let mut table = Self::default();
        for section in sections.iter() {
            let name = fold(&section.name);
            let entries = section.lines.iter().filter_map(|line| {
                let key = line.key.as_deref()?;
                Some((fold(key), line.values.join(",")))
            });
            let into = if name == "strings" {
                &mut table.base
            } else if let Some(language) = name
                .strip_prefix("strings.")
                .filter(|digits| digits.len() == 4)
                .and_then(|digits| u16::from_str_radix(digits, 16).ok())
            {
                table.localised.entry(LanguageId(language)).or_default()
            } else {
                continue;
            };
            for (key, value) in entries {
                // Windows takes the first line of a name.
                into.entry(key).or_insert(value);
            }
        }
        table
    }

    /// Chooses a language: its own section, else one of the same language in another country, else
    /// `[Strings]` alone. What the section lacks comes from `[Strings]`.
    pub(super) fn choose(&mut self, language: LanguageId) {
        let exact = self.localised.contains_key(&language).then_some(language);
        let primary = || {
            self.localised
                .keys()
                .copied()
                .find(|found| found.primary() == language.primary())
        };
        self.chosen = exact.or_else(primary);
    }

    /// The languages that have a section of their own.
    pub fn languages(&self) -> impl Iterator<Item = LanguageId> {
        self.localised.keys().copied()
    }

    /// What a name stands for, in whatever case it is written.
    pub fn find(&self, name: &str) -> Option<&str> {
        let name = fold(name);
        let chosen = self
            .chosen
            .and_then(|language| self.localised.get(&language)?.get(&name));
        chosen.or_else(|| self.base.get(&name)).map(String::as_str)
    }

    /// Replaces `%name%` by its string, `%12%` by the directory, `%%` by `%`. A name that is not
    /// known stays as it is written, as it does in Windows: `%SystemRoot%` is meant to.
    ///
    /// # Errors
    ///
    /// [`InfErrorKind::TooMuch`] if the result has more than 64 KiB.
    pub fn expand(&self, text: &str, line: LineNumber) -> Result<String, InfError> {
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('%') {
            expanded.push_str(before);
            let Some((name, behind_name)) = behind.split_once('%') else {
                expanded.push('%');
                rest = behind;
                break;
            };
            if name.is_empty() {
                expanded.push('%');
            } else if let Some(value) = self.find(name) {
                expanded.push_str(value);
            } else if let Some(directory) = dirid::absolute(name) {
                expanded.push_str(&directory);
            } else {
                expanded.push('%');
                expanded.push_str(name);
                expanded.push('%');
            }
            rest = behind_name;
            if expanded.len() > LONGEST_FIELD {
                break;
            }
        }
        expanded.push_str(rest);
        if expanded.len() > LONGEST_FIELD {
            let what = "bytes in a field with its strings put in";
            let limit = LONGEST_FIELD;
            return Err(InfErrorKind::TooMuch { what, limit }.at(line));
        }
        Ok(expanded)
    }
}

/// Windows itself takes 4096 characters; values of the registry may be put together of several.
const LONGEST_FIELD: usize = 64 << 10;
