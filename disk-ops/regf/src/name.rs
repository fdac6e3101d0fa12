//! Names of keys and values, and paths of keys.
//!
//! A name is UTF-16 that nobody has checked: unpaired surrogates occur and are kept. The file
//! stores it either as such or, when every code unit is below 256, one byte each.

use std::cmp::Ordering;
use std::fmt;

use crate::error::{Defect, DefectKind, HiveError};
use crate::units::CellOffset;
use crate::upcase::{name_hash, upcase};

/// A name as it stands in the file. Nothing is copied.
#[derive(Clone, Copy)]
pub struct NameRef<'h> {
    stored: Stored<'h>,
}

#[derive(Clone, Copy)]
enum Stored<'h> {
    Latin1(&'h [u8]),
    Utf16(&'h [u8]),
}

impl<'h> NameRef<'h> {
    /// The name behind a key's or value's fixed part, of which `behind` is what is left of the cell.
    pub(crate) fn read(
        at: CellOffset,
        kind: DefectKind,
        behind: &'h [u8],
        len: u16,
        compressed: bool,
    ) -> Result<Self, HiveError> {
        let len = usize::from(len);
        let wrong = |expected: String| Defect::new(at.in_file(), kind, expected, len.to_string());
        let name = behind
            .get(..len)
            .ok_or_else(|| wrong(format!("a name of at most {} bytes", behind.len())))?;
        if compressed {
            return Ok(Self::latin1(name));
        }
        if !len.is_multiple_of(2) {
            return Err(wrong("a UTF-16 name of an even number of bytes".into()).into());
        }
        Ok(Self::utf16(name))
    }

    pub(crate) const fn latin1(bytes: &'h [u8]) -> Self {
        Self {
            stored: Stored::Latin1(bytes),
        }
    }

    /// An odd last byte is no code unit and is not looked at.
    pub(crate) const fn utf16(bytes: &'h [u8]) -> Self {
        Self {
            stored: Stored::Utf16(bytes),
        }
    }

    /// The UTF-16 code units.
    pub fn units(self) -> impl Iterator<Item = u16> + 'h {
        let (narrow, wide) = match self.stored {
            Stored::Latin1(bytes) => (bytes, &[][..]),
            Stored::Utf16(bytes) => (&[][..], bytes),
        };
        narrow.iter().copied().map(u16::from).chain(units_of(wide))
    }

    /// Number of UTF-16 code units.
    pub fn len(self) -> usize {
        match self.stored {
            Stored::Latin1(bytes) => bytes.len(),
            Stored::Utf16(bytes) => bytes.len() / 2,
        }
    }

    /// Whether there are none, as in the default value of a key.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// An owned copy.
    pub fn to_name(self) -> Name {
        Name {
            units: self.units().collect(),
        }
    }

    /// Whether this is `other` to Windows, which ignores case.
    pub fn matches(self, other: &Name) -> bool {
        self.len() == other.units.len() && self.order(other) == Ordering::Equal
    }

    /// The order subkeys are listed in: by code units in upper case.
    pub(crate) fn order(self, other: &Name) -> Ordering {
        self.units()
            .map(upcase)
            .cmp(other.units.iter().copied().map(upcase))
    }

    pub(crate) fn order_of(self, other: NameRef<'_>) -> Ordering {
        self.units().map(upcase).cmp(other.units().map(upcase))
    }
}

/// Unpaired surrogates are shown as U+FFFD.
impl fmt::Display for NameRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_lossy(self.units(), f)
    }
}

impl fmt::Debug for NameRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// A name of one's own. Equality and order are exact; [`Name::matches`] is Windows' equality.
#[derive(Clone, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Name {
    units: Vec<u16>,
}

impl Name {
    /// A name of these UTF-16 code units, unpaired surrogates included.
    pub fn from_units(units: impl Into<Vec<u16>>) -> Self {
        Self {
            units: units.into(),
        }
    }

    /// The UTF-16 code units.
    pub fn units(&self) -> &[u16] {
        &self.units
    }

    /// Whether this is the empty name, that of a key's default value.
    pub fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// Whether the two are the same to Windows, which ignores case.
    pub fn matches(&self, other: &Self) -> bool {
        self.folded() == other.folded()
    }

    /// The name in Windows' upper case: equal for names that Windows takes for the same.
    #[must_use]
    pub fn folded(&self) -> Self {
        Self {
            units: self.units.iter().copied().map(upcase).collect(),
        }
    }

    pub(crate) fn hash(&self) -> u32 {
        name_hash(self.units.iter().copied())
    }

    /// The bytes to store, and whether they are one for each code unit.
    pub(crate) fn stored(&self) -> (Vec<u8>, bool) {
        let narrow: Option<Vec<u8>> = self
            .units
            .iter()
            .map(|&unit| u8::try_from(unit).ok())
            .collect();
        match narrow {
            Some(bytes) => (bytes, true),
            None => (
                self.units
                    .iter()
                    .flat_map(|unit| unit.to_le_bytes())
                    .collect(),
                false,
            ),
        }
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Self {
            units: name.encode_utf16().collect(),
        }
    }
}

impl From<&String> for Name {
    fn from(name: &String) -> Self {
        Self::from(name.as_str())
    }
}

impl From<String> for Name {
    fn from(name: String) -> Self {
        Self::from(name.as_str())
    }
}

impl From<&Self> for Name {
    fn from(name: &Self) -> Self {
        name.clone()
    }
}

impl From<NameRef<'_>> for Name {
    fn from(name: NameRef<'_>) -> Self {
        name.to_name()
    }
}

/// Unpaired surrogates are shown as U+FFFD.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_lossy(self.units.iter().copied(), f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// Where a key is: names from below the root down, none for the root itself.
///
/// From text, `\` separates; leading, trailing and doubled separators don't matter.
#[derive(Clone, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KeyPath {
    names: Vec<Name>,
}

impl KeyPath {
    /// The root key.
    pub const ROOT: Self = Self { names: Vec::new() };

    /// A path of these names. A name with a separator in it names no key that can be.
    pub fn from_names(names: impl IntoIterator<Item = Name>) -> Self {
        Self {
            names: names.into_iter().collect(),
        }
    }

    /// A path out of UTF-16 text.
    pub fn from_units(units: &[u16]) -> Self {
        let names = units
            .split(|&unit| unit == SEPARATOR)
            .filter(|name| !name.is_empty());
        Self {
            names: names.map(Name::from_units).collect(),
        }
    }

    /// The names, the outermost first.
    pub fn names(&self) -> &[Name] {
        &self.names
    }

    /// The key above and this key's own name; `None` for the root.
    pub fn split_last(&self) -> Option<(Self, &Name)> {
        let (last, above) = self.names.split_last()?;
        Some((
            Self {
                names: above.to_vec(),
            },
            last,
        ))
    }

    /// The path of a key below this one.
    #[must_use]
    pub fn join(&self, name: impl Into<Name>) -> Self {
        let mut names = self.names.clone();
        names.push(name.into());
        Self { names }
    }

    /// UTF-16 code units with separators.
    pub fn to_units(&self) -> Vec<u16> {
        let names: Vec<&[u16]> = self.names.iter().map(Name::units).collect();
        names.join(&SEPARATOR)
    }
}

impl From<&str> for KeyPath {
    fn from(path: &str) -> Self {
        let names = path.split('\\').filter(|name| !name.is_empty());
        Self {
            names: names.map(Name::from).collect(),
        }
    }
}

impl From<&String> for KeyPath {
    fn from(path: &String) -> Self {
        Self::from(path.as_str())
    }
}

impl From<String> for KeyPath {
    fn from(path: String) -> Self {
        Self::from(path.as_str())
    }
}

impl From<&Self> for KeyPath {
    fn from(path: &Self) -> Self {
        path.clone()
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, name) in self.names.iter().enumerate() {
            let separator = if position == 0 { "" } else { "\\" };
            write!(f, "{separator}{name}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// The code units in little-endian bytes; an odd last byte is left out.
pub(crate) fn units_of(bytes: &[u8]) -> impl Iterator<Item = u16> {
    let (pairs, _odd) = bytes.as_chunks::<2>();
    pairs.iter().map(|pair| u16::from_le_bytes(*pair))
}

/// The code units in little-endian bytes, as text; what is no UTF-16 becomes U+FFFD.
pub(crate) fn lossy_text(units: impl Iterator<Item = u16>) -> String {
    char::decode_utf16(units)
        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect()
}

fn write_lossy(units: impl Iterator<Item = u16>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    use fmt::Write;
    char::decode_utf16(units)
        .try_for_each(|unit| f.write_char(unit.unwrap_or(char::REPLACEMENT_CHARACTER)))
}

pub(crate) const SEPARATOR: u16 = 0x5C;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_without_regard_to_case_beyond_ascii() {
        assert!(Name::from("Пример-ß").matches(&Name::from("пРИМЕР-ß")));
        assert!(!Name::from("straße").matches(&Name::from("STRASSE")));
    }

    #[test]
    fn an_unpaired_surrogate_survives_storing() {
        let name = Name::from_units([0x41, 0xD800, 0x42]);
        let (bytes, compressed) = name.stored();
        assert!(!compressed);
        assert_eq!(NameRef::utf16(&bytes).to_name(), name);
        assert_eq!(name.to_string(), "A\u{FFFD}B");
    }

    #[test]
    fn a_name_below_256_is_stored_one_byte_a_unit() {
        let (bytes, compressed) = Name::from("Größe").stored();
        assert!(compressed);
        assert_eq!(bytes, b"Gr\xF6\xDFe");
        assert_eq!(NameRef::latin1(&bytes).to_string(), "Größe");
    }

    #[test]
    fn separators_around_and_between_names_do_not_matter() {
        let path = KeyPath::from(r"\ControlSet001\\Services\x\");
        assert_eq!(path.names().len(), 3);
        assert_eq!(path.to_string(), r"ControlSet001\Services\x");
        assert_eq!(KeyPath::from(""), KeyPath::ROOT);
        assert_eq!(KeyPath::from_units(&path.to_units()), path);
    }
}
