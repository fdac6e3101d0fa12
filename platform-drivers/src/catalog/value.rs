//! The words that catalogues are made of, each checked when it is read.
//!
//! Names and paths keep the case that the catalogue gives them and are equal when they differ in
//! ASCII case only, as Windows compares them.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::Deserialize;
use uuid::Uuid;

/// A word that cannot stand where it stands, and what could.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{found:?} {expected}")]
pub struct InvalidWord {
    /// The word as it was found.
    pub found: String,
    /// What is wrong with it and what was expected.
    pub expected: &'static str,
}

impl InvalidWord {
    fn new(found: &str, expected: &'static str) -> Self {
        Self {
            found: found.to_owned(),
            expected,
        }
    }
}

/// Makes a type of text that `check` accepts and that compares without regard to ASCII case.
macro_rules! word {
    ($(#[$documentation:meta])* $name:ident, $check:path) => {
        $(#[$documentation])*
        #[derive(Clone, Debug, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl $name {
            /// The text, in the case that the catalogue gives it.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The text in lower case: equal for all that are equal.
            pub fn folded(&self) -> String {
                self.0.to_ascii_lowercase()
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidWord;

            fn try_from(text: String) -> Result<Self, InvalidWord> {
                $check(&text).map_err(|expected| InvalidWord::new(&text, expected))?;
                Ok(Self(text))
            }
        }

        impl FromStr for $name {
            type Err = InvalidWord;

            fn from_str(text: &str) -> Result<Self, InvalidWord> {
                text.to_owned().try_into()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.eq_ignore_ascii_case(&other.0)
            }
        }

        impl Eq for $name {}

        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.folded().hash(state);
            }
        }
    };
}

word! {
    /// The id of an item: lower-case letters, digits, dots and hyphens.
    ItemId, item_id
}

word! {
    /// Text that says something: not empty, no line breaks, no spaces around it.
    Sentence, sentence
}

word! {
    /// The name of a service or driver, as its key below `Services` has it.
    ServiceName, service_name
}

word! {
    /// The name of a file, without a folder.
    FileName, file_name
}

word! {
    /// The name of a file, without a folder; a `*` stands for a version number in it.
    ImageName, image_name
}

word! {
    /// A registry key below the root of its hive. `ControlSet` as the first name means every
    /// control set.
    RegistryKey, registry_key
}

word! {
    /// A hardware id as Windows makes it: `PCI\VEN_15AD&DEV_07C0`, `PCI\CC_010802`,
    /// `VMBUS\{guid}`, `ACPI\QEMU0001`, `XENBUS\...`.
    HardwareId, hardware_id
}

impl ImageName {
    /// Whether a file of this name is meant.
    pub fn matches(&self, file: &str) -> bool {
        let (pattern, file) = (self.folded(), file.to_ascii_lowercase());
        match pattern.split_once('*') {
            None => pattern == file,
            Some((start, end)) => {
                file.len() >= start.len() + end.len()
                    && file.starts_with(start)
                    && file.ends_with(end)
            }
        }
    }
}

impl RegistryKey {
    /// The names from the root on.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.split('\\')
    }

    /// Whether the first name is `ControlSet`, which stands for every control set.
    pub fn is_in_control_set(&self) -> bool {
        let first = self.names().next();
        first.is_some_and(|first| first.eq_ignore_ascii_case(CONTROL_SET))
    }

    /// Whether this is `other` or one of the keys above it.
    pub fn is_or_holds(&self, other: &Self) -> bool {
        let mut others = other.names();
        self.names().all(|name| {
            let other = others.next();
            other.is_some_and(|other| other.eq_ignore_ascii_case(name))
        })
    }
}

/// A GUID as the registry writes it, in braces.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[serde(try_from = "String")]
pub struct Guid(Uuid);

impl Guid {
    /// The GUID itself.
    pub fn uuid(self) -> Uuid {
        self.0
    }
}

impl FromStr for Guid {
    type Err = InvalidWord;

    fn from_str(text: &str) -> Result<Self, InvalidWord> {
        let inner = text
            .strip_prefix('{')
            .and_then(|text| text.strip_suffix('}'));
        inner
            .filter(|inner| inner.len() == GUID_LENGTH)
            .and_then(|inner| Uuid::try_parse(inner).ok())
            .map(Self)
            .ok_or_else(|| InvalidWord::new(text, "is no GUID in braces, {8-4-4-4-12 hex digits}"))
    }
}

impl TryFrom<String> for Guid {
    type Error = InvalidWord;

    fn try_from(text: String) -> Result<Self, InvalidWord> {
        text.parse()
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}", self.0.hyphenated())
    }
}

/// Builds of Windows: from one on, up to another.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct BuildRange {
    /// The first build that is meant.
    pub from: Option<u32>,
    /// The first build after those that are meant.
    pub before: Option<u32>,
}

impl BuildRange {
    /// Whether `build` is one of them.
    pub fn contains(self, build: u32) -> bool {
        self.from.is_none_or(|from| build >= from)
            && self.before.is_none_or(|before| build < before)
    }
}

impl FromStr for BuildRange {
    type Err = InvalidWord;

    fn from_str(text: &str) -> Result<Self, InvalidWord> {
        let invalid = || {
            InvalidWord::new(
                text,
                "names no builds; expected \">=17763\", \"<20348\" or both with a comma between",
            )
        };
        let mut range = Self::default();
        for bound in text.split(',').map(str::trim) {
            let (slot, number) = if let Some(number) = bound.strip_prefix(">=") {
                (&mut range.from, number)
            } else {
                (
                    &mut range.before,
                    bound.strip_prefix('<').ok_or_else(invalid)?,
                )
            };
            let number = number.trim().parse().map_err(|_| invalid())?;
            if slot.replace(number).is_some() {
                return Err(invalid());
            }
        }
        match (range.from, range.before) {
            (Some(from), Some(before)) if from >= before => Err(invalid()),
            _ => Ok(range),
        }
    }
}

impl TryFrom<String> for BuildRange {
    type Error = InvalidWord;

    fn try_from(text: String) -> Result<Self, InvalidWord> {
        text.parse()
    }
}

/// In words: `build 17763 and later`.
impl fmt::Display for BuildRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.from, self.before) {
            (Some(from), Some(before)) => write!(f, "builds from {from} to before {before}"),
            (Some(from), None) => write!(f, "build {from} and later"),
            (None, Some(before)) => write!(f, "builds before {before}"),
            (None, None) => f.write_str("every build"),
        }
    }
}

/// Where a driver comes from: Windows has it, or a bundle of packages has to bring it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub enum Inbox {
    /// Every Windows that is supported has it.
    Always,
    /// These builds have it; for others a bundle has to bring it.
    Builds(BuildRange),
    /// No Windows has it: a bundle has to bring it.
    Never,
}

impl Inbox {
    /// Whether Windows of this build has it.
    pub fn has(self, build: u32) -> bool {
        match self {
            Self::Always => true,
            Self::Builds(range) => range.contains(build),
            Self::Never => false,
        }
    }
}

impl TryFrom<String> for Inbox {
    type Error = InvalidWord;

    fn try_from(text: String) -> Result<Self, InvalidWord> {
        match text.as_str() {
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            builds => builds.parse().map(Self::Builds).map_err(|_| {
                InvalidWord::new(
                    &text,
                    "is not one of \"always\", \"never\" and builds such as \">=22621\"",
                )
            }),
        }
    }
}

/// In words, after the name of a driver.
impl fmt::Display for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => f.write_str("part of Windows"),
            Self::Builds(builds) => {
                write!(
                    f,
                    "part of Windows in {builds}, else from the driver bundle"
                )
            }
            Self::Never => f.write_str("from the driver bundle"),
        }
    }
}

/// What shows that an item is right: where it was read, and how far that can be trusted.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct Evidence {
    /// How it is known.
    pub kind: EvidenceKind,
    /// Where it stands, or what it rests on.
    pub text: String,
}

/// How something is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EvidenceKind {
    /// `doc`: documentation of the vendor.
    Documentation,
    /// `hive`: read in the registry of a real installation.
    Hive,
    /// `inference`: it follows from other facts; nobody has seen it.
    Inference,
    /// `inf`: the INF file of the driver.
    Inf,
    /// `memory`: commonly said, and not verified.
    Memory,
    /// `public`: text by others than the vendor: scripts, lists, reports.
    Public,
    /// `source`: the source code of a program that does the same.
    Source,
}

impl EvidenceKind {
    /// Whether somebody has seen it, in a place that is named.
    pub fn is_verified(self) -> bool {
        !matches!(self, Self::Inference | Self::Memory)
    }

    /// The word in the catalogue.
    pub fn name(self) -> &'static str {
        match self {
            Self::Documentation => "doc",
            Self::Hive => "hive",
            Self::Inference => "inference",
            Self::Inf => "inf",
            Self::Memory => "memory",
            Self::Public => "public",
            Self::Source => "source",
        }
    }
}

impl TryFrom<String> for Evidence {
    type Error = InvalidWord;

    fn try_from(text: String) -> Result<Self, InvalidWord> {
        let (kind, rest) = text.split_once(": ").unwrap_or_default();
        let kind = EVIDENCE_KINDS
            .into_iter()
            .find(|known| known.name() == kind);
        match kind {
            Some(kind) if sentence(rest).is_ok() => Ok(Self {
                kind,
                text: rest.to_owned(),
            }),
            _ => Err(InvalidWord::new(
                &text,
                "is no evidence; expected doc, hive, inf, inference, memory, public or source, \
                 then a colon, a space and the place",
            )),
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.text)
    }
}

impl Borrow<str> for ItemId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

fn item_id(text: &str) -> Result<(), &'static str> {
    let letters = |letter: char| {
        letter.is_ascii_lowercase() || letter.is_ascii_digit() || ".-".contains(letter)
    };
    if text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.len() <= 60
        && text.chars().all(letters)
    {
        Ok(())
    } else {
        Err("is no id: lower-case letters, digits, dots and hyphens, at most 60")
    }
}

fn sentence(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("says nothing");
    }
    if text.trim() != text || text.chars().any(char::is_control) {
        return Err("has spaces around it, or a line break or another control character in it");
    }
    Ok(())
}

fn service_name(text: &str) -> Result<(), &'static str> {
    sentence(text)?;
    if text.len() > 256 {
        return Err("is longer than the 256 characters that a service's name can have");
    }
    if text.contains(['\\', '/', '*', '?']) {
        return Err("is no name of a service: it is one name, exact, without \\ / * ?");
    }
    Ok(())
}

fn file_name(text: &str) -> Result<(), &'static str> {
    sentence(text)?;
    let forbidden = |letter: char| r#"<>:"/\|?*"#.contains(letter);
    if text.contains(forbidden) || text.ends_with('.') || text.len() > 255 {
        return Err("is no name of a file: one name, exact, without a folder");
    }
    Ok(())
}

fn image_name(text: &str) -> Result<(), &'static str> {
    match text.split_once('*') {
        None => file_name(text),
        // A pattern that begins with the star, or has no more than it, could be anything.
        Some((start, end)) if start.len() >= 3 => {
            file_name(start)?;
            file_name(end)
        }
        Some(_) => Err("begins with its *: at least three letters have to stand before it"),
    }
}

fn registry_key(text: &str) -> Result<(), &'static str> {
    sentence(text)?;
    if text.split('\\').any(str::is_empty) {
        return Err("is no key: names between single backslashes, none at the start or the end");
    }
    // Windows' own limit for a name of a key.
    if text.split('\\').any(|name| name.chars().count() > 255) {
        return Err("has a name of more than 255 characters");
    }
    let first = text.split('\\').next().unwrap_or_default();
    let first = first.to_ascii_lowercase();
    if first == "currentcontrolset"
        || (first.starts_with("controlset") && first != CONTROL_SET.to_ascii_lowercase())
    {
        return Err("names one control set; write `ControlSet`, which means every one of them");
    }
    if ["hklm", "system", "hkey_local_machine", "hkey_users", "hku"].contains(&first.as_str()) {
        return Err("begins with a root; write the key below the hive that `hive` names");
    }
    Ok(())
}

fn hardware_id(text: &str) -> Result<(), &'static str> {
    let Some((bus, id)) = text.split_once('\\') else {
        return Err("is no hardware id: a bus, a backslash, and the id on that bus");
    };
    let well_formed = match bus {
        "PCI" => pci_id(id),
        "VMBUS" => id.parse::<Guid>().is_ok(),
        "ACPI" => {
            (4..=8).contains(&id.len()) && id.chars().all(|letter| letter.is_ascii_alphanumeric())
        }
        "XENBUS" | "XENVIF" => {
            let (vendor, device) = id.split_once("&DEV_").unwrap_or_default();
            vendor.len() == 10
                && vendor.starts_with("VEN_")
                && vendor
                    .chars()
                    .skip(4)
                    .all(|letter| letter.is_ascii_alphanumeric())
                && !device.is_empty()
                && device.chars().all(|letter| letter.is_ascii_uppercase())
        }
        _ => return Err("is on a bus that is not known: PCI, VMBUS, ACPI, XENBUS or XENVIF"),
    };
    if well_formed {
        Ok(())
    } else {
        Err("is no hardware id of its bus; hex digits and letters are in upper case, but in a GUID")
    }
}

/// `VEN_15AD&DEV_07C0`, with `&SUBSYS_`, `&REV_` or `&CC_` after it, or `CC_010802` alone.
fn pci_id(id: &str) -> bool {
    let hex = |text: &str, lengths: &[usize]| {
        let digit = |letter: char| letter.is_ascii_digit() || ('A'..='F').contains(&letter);
        lengths.contains(&text.len()) && text.chars().all(digit)
    };
    let mut parts = id
        .split('&')
        .map(|part| part.split_once('_').unwrap_or((part, "")));
    match parts.next() {
        Some(("CC", class)) => hex(class, &[4, 6]) && parts.next().is_none(),
        Some(("VEN", vendor)) if hex(vendor, &[4]) => {
            let device = parts.next();
            device.is_some_and(|(name, digits)| name == "DEV" && hex(digits, &[4]))
                && parts.all(|(name, digits)| match name {
                    "SUBSYS" => hex(digits, &[8]),
                    "REV" => hex(digits, &[2]),
                    "CC" => hex(digits, &[4, 6]),
                    _ => false,
                })
        }
        _ => false,
    }
}

/// The first name of a key that is meant in every control set.
const CONTROL_SET: &str = "ControlSet";

/// Characters of a GUID without its braces.
const GUID_LENGTH: usize = 36;

const EVIDENCE_KINDS: [EvidenceKind; 7] = [
    EvidenceKind::Documentation,
    EvidenceKind::Hive,
    EvidenceKind::Inference,
    EvidenceKind::Inf,
    EvidenceKind::Memory,
    EvidenceKind::Public,
    EvidenceKind::Source,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_ids_are_those_that_windows_makes() {
        for id in [
            r"PCI\VEN_15AD&DEV_07C0",
            r"PCI\VEN_1AF4&DEV_1004&SUBSYS_00081AF4&REV_00",
            r"PCI\CC_010802",
            r"VMBUS\{ba6163d9-04a1-4d29-b605-72e2ffb1dc7f}",
            r"ACPI\QEMU0001",
            r"XENBUS\VEN_XS0001&DEV_VBD",
        ] {
            assert!(id.parse::<HardwareId>().is_ok(), "{id}");
        }
        for id in [
            "",
            "PCI",
            r"PCI\",
            r"PCI\VEN_15AD",
            r"PCI\VEN_15ad&DEV_07C0",
            r"PCI\VEN_15AD&DEV_07C",
            r"PCI\DEV_07C0&VEN_15AD",
            r"PCI\CC_0108&VEN_15AD",
            r"PCI\VEN_15AD&DEV_07C0&SUB_1",
            r"VMBUS\ba6163d9-04a1-4d29-b605-72e2ffb1dc7f",
            r"ACPI\QEMU-001",
            r"USB\VID_0E0F",
            r"XENBUS\VEN_XS0001",
        ] {
            assert!(id.parse::<HardwareId>().is_err(), "{id}");
        }
    }

    #[test]
    fn registry_keys_name_every_control_set_and_no_root() {
        let key: RegistryKey = r"ControlSet\Services\xenfilt".parse().unwrap();
        assert!(key.is_in_control_set());
        assert_eq!(key, r"controlset\services\XENFILT".parse().unwrap());
        let above: RegistryKey = r"ControlSet\Services".parse().unwrap();
        assert!(above.is_or_holds(&key) && key.is_or_holds(&key) && !key.is_or_holds(&above));
        let beside: RegistryKey = r"ControlSet\Services\xenfilter".parse().unwrap();
        assert!(!key.is_or_holds(&beside));
        for wrong in [
            "",
            r"\a",
            r"a\",
            r"a\\b",
            r"ControlSet001\Services",
            r"CurrentControlSet\Control",
            r"HKLM\SOFTWARE",
            " a",
            "a\nb",
        ] {
            assert!(wrong.parse::<RegistryKey>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_star_stands_for_a_version_and_never_for_a_whole_name() {
        let agent: ImageName = "xenagent_*.exe".parse().unwrap();
        assert!(agent.matches("XenAgent_9_0_0_1.exe"));
        assert!(!agent.matches("xenagent.exe") && !agent.matches("other_1.exe"));
        let short: ImageName = "abca*abc".parse().unwrap();
        assert!(!short.matches("abcabc"));
        for wrong in ["*", "*.sys", "vm*", r"a\b.sys", "abc*d*e"] {
            assert!(wrong.parse::<ImageName>().is_err(), "{wrong}");
        }
        assert!("vm*".parse::<ServiceName>().is_err());
        assert!("oem*.inf".parse::<FileName>().is_err());
    }

    #[test]
    fn builds_are_ranges_that_hold_something() {
        let range: BuildRange = ">=17763, <20348".parse().unwrap();
        assert!(range.contains(17763) && range.contains(20347));
        assert!(!range.contains(17762) && !range.contains(20348));
        for wrong in ["", "17763", ">17763", ">=a", ">=2,>=3", ">=5,<5", "<-1"] {
            assert!(wrong.parse::<BuildRange>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn guids_stand_in_braces_and_compare_whatever_their_case() {
        let upper: Guid = "{4D36E97D-E325-11CE-BFC1-08002BE10318}".parse().unwrap();
        let lower: Guid = "{4d36e97d-e325-11ce-bfc1-08002be10318}".parse().unwrap();
        assert_eq!(upper, lower);
        assert_eq!(upper.to_string(), "{4d36e97d-e325-11ce-bfc1-08002be10318}");
        for wrong in [
            "",
            "{}",
            "4d36e97d-e325-11ce-bfc1-08002be10318",
            "{4d36e97de32511cebfc108002be10318}",
            "{4d36e97d-e325-11ce-bfc1-08002be1031g}",
        ] {
            assert!(wrong.parse::<Guid>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn evidence_says_how_far_it_can_be_trusted() {
        let seen = Evidence::try_from("hive: Windows 10 build 16299".to_owned()).unwrap();
        assert!(seen.kind.is_verified());
        let said = Evidence::try_from("memory: commonly said".to_owned()).unwrap();
        assert!(!said.kind.is_verified());
        for wrong in ["", "hive", "hive:", "hive: ", "hearsay: x", "memory:x"] {
            assert!(Evidence::try_from(wrong.to_owned()).is_err(), "{wrong:?}");
        }
    }
}
