//! `[Version]`: what the INF is, from whom and of when.

use std::fmt;

use uuid::Uuid;

use super::decorate::Architecture;
use super::error::{InfError, InfErrorKind, LineNumber};
use super::section::{Line, Section, Sections};
use super::strings::StringTable;

/// What `[Version]` says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InfVersion {
    /// `Class`: the name of the device class.
    pub class: Option<String>,
    /// `ClassGuid`.
    pub class_guid: Option<Uuid>,
    /// `Provider`.
    pub provider: Option<String>,
    /// `DriverVer`.
    pub driver: Option<DriverVersion>,
    /// `CatalogFile`, for machines that no other line is for.
    pub catalog: Option<String>,
    /// `CatalogFile.NTamd64` and the like, by what is behind the dot.
    pub decorated_catalogs: Vec<(String, String)>,
    /// `PnpLockdown`: Windows guards the files that the package brings.
    pub lockdown: bool,
    /// `ExtensionId`: the INF adds to another driver and is none itself.
    pub extension_id: Option<Uuid>,
    /// `LayoutFile`: INFs of Windows that say where files come from.
    pub layout_files: Vec<String>,
}

/// `DriverVer = mm/dd/yyyy, a.b.c.d`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DriverVersion {
    /// When it was made.
    pub date: DriverDate,
    /// Parts that are not written are 0.
    pub version: [u16; 4],
}

/// A day of the Gregorian calendar that exists.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct DriverDate {
    /// 1601, where a FILETIME begins, to 9999.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
}

impl InfVersion {
    pub(super) fn read(sections: &Sections, strings: &StringTable) -> Result<Self, InfError> {
        let none = || InfErrorKind::NotAnInf {
            found: "nothing".into(),
        };
        let section = sections.find("Version").ok_or_else(|| none().of_file())?;
        let entries = Entries { section, strings };
        let (line, signature) = entries
            .find("Signature")?
            .ok_or_else(|| none().at(section.number))?;
        if !SIGNATURES
            .iter()
            .any(|known| known.eq_ignore_ascii_case(&signature))
        {
            return Err(InfErrorKind::NotAnInf {
                found: format!("{signature:?}"),
            }
            .at(line));
        }
        let driver = section
            .with_key("DriverVer")
            .next()
            // `DriverVer =` is what a template has that nobody has stamped: the same as none.
            .filter(|line| line.values.iter().any(|value| !value.is_empty()))
            .map(|line| DriverVersion::read(line, strings))
            .transpose()?;
        let lockdown = match entries.find("PnpLockdown")? {
            None => false,
            Some((line, text)) => super::directives::number(&text)
                .ok_or_else(|| not_a_number("PnpLockdown", text).at(line))?
                .eq(&1),
        };
        let text = |key| Ok(entries.find(key)?.map(|(_, text)| text));
        Ok(Self {
            class: text("Class")?,
            class_guid: entries.guid("ClassGuid")?,
            provider: text("Provider")?,
            driver,
            catalog: entries.file("CatalogFile")?,
            decorated_catalogs: entries.decorated_catalogs()?,
            lockdown,
            extension_id: entries.guid("ExtensionId")?,
            layout_files: entries.list("LayoutFile")?,
        })
    }

    /// The catalogue for a machine.
    pub fn catalog_for(&self, architecture: Architecture) -> Option<&str> {
        let decorated = |suffix: &str| {
            self.decorated_catalogs
                .iter()
                .find(|(found, _)| found.eq_ignore_ascii_case(suffix))
                .map(|(_, name)| name.as_str())
        };
        decorated(&format!("NT{architecture}"))
            .or_else(|| decorated("NT"))
            .or(self.catalog.as_deref())
    }
}

struct Entries<'i> {
    section: &'i Section,
    strings: &'i StringTable,
}

impl Entries<'_> {
    /// The first value of the first line with a key; an empty one counts as none.
    fn find(&self, key: &str) -> Result<Option<(LineNumber, String)>, InfError> {
        let Some(line) = self.section.with_key(key).next() else {
            return Ok(None);
        };
        let Some(text) = line.value(0) else {
            return Ok(None);
        };
        let text = self.strings.expand(text, line.number)?;
        Ok(Some((line.number, text)))
    }

    fn guid(&self, key: &'static str) -> Result<Option<Uuid>, InfError> {
        let Some((line, text)) = self.find(key)? else {
            return Ok(None);
        };
        let wrong = || InfErrorKind::Malformed {
            what: key,
            expected: "a GUID in braces",
            found: text.clone(),
        };
        let bare = text
            .strip_prefix('{')
            .and_then(|text| text.strip_suffix('}'))
            .filter(|bare| bare.len() == 36)
            .ok_or_else(|| wrong().at(line))?;
        Uuid::try_parse(bare)
            .map(Some)
            .map_err(|_| wrong().at(line))
    }

    fn file(&self, key: &str) -> Result<Option<String>, InfError> {
        self.find(key)?
            .map(|(line, name)| {
                super::directives::files::file_name("the catalogue", &name)
                    .map_err(|kind| kind.at(line))
            })
            .transpose()
    }

    fn list(&self, key: &str) -> Result<Vec<String>, InfError> {
        let mut list = Vec::new();
        for line in self.section.with_key(key) {
            for value in line.values.iter().filter(|value| !value.is_empty()) {
                list.push(self.strings.expand(value, line.number)?);
            }
        }
        Ok(list)
    }

    fn decorated_catalogs(&self) -> Result<Vec<(String, String)>, InfError> {
        let mut found = Vec::new();
        for line in &self.section.lines {
            let suffix = line.key.as_deref().and_then(|key| {
                let (name, suffix) = key.split_once('.')?;
                name.trim()
                    .eq_ignore_ascii_case("CatalogFile")
                    .then_some(suffix)
            });
            if let (Some(suffix), Some(name)) = (suffix, line.value(0)) {
                let name = self.strings.expand(name, line.number)?;
                let name = super::directives::files::file_name("the catalogue", &name)
                    .map_err(|kind| kind.at(line.number))?;
                found.push((suffix.to_owned(), name));
            }
        }
        Ok(found)
    }
}

impl DriverVersion {
    fn read(line: &Line, strings: &StringTable) -> Result<Self, InfError> {
        let written = strings.expand(&line.values.join(","), line.number)?;
        let wrong = || {
            InfErrorKind::Malformed {
                what: "DriverVer",
                expected: "mm/dd/yyyy,a.b.c.d",
                found: written.clone(),
            }
            .at(line.number)
        };
        let (date, version) = match written.split_once(',') {
            Some((date, version)) => (date, version),
            None => (written.as_str(), ""),
        };
        // A third field, such as a comment that lacks its semicolon, is not looked at.
        let version = version.split(',').next().unwrap_or_default();
        Ok(Self {
            date: DriverDate::parse(date.trim()).ok_or_else(wrong)?,
            version: parts_of_version(version.trim()).ok_or_else(wrong)?,
        })
    }

    /// As it stands in the DriverDatabase: the last part first.
    pub fn packed(&self) -> u64 {
        let [a, b, c, d] = self.version.map(u64::from);
        a << 48 | b << 32 | c << 16 | d
    }
}

impl DriverDate {
    /// `mm/dd/yyyy`, with `-` for `/` as the documentation allows.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(['/', '-']);
        let mut next = |longest: usize| {
            let digits = parts.next()?.trim();
            let is_number = !digits.is_empty()
                && digits.len() <= longest
                && digits.bytes().all(|digit| digit.is_ascii_digit());
            is_number.then(|| digits.parse::<u16>().ok()).flatten()
        };
        let (month, day, year) = (next(2)?, next(2)?, next(4)?);
        let date = Self {
            year,
            month: u8::try_from(month).ok()?,
            day: u8::try_from(day).ok()?,
        };
        let exists = (1601..=9999).contains(&year)
            && (1..=12).contains(&month)
            && (1..=date.days_in_month()).contains(&date.day);
        (parts.next().is_none() && exists).then_some(date)
    }

    fn is_leap_year(self) -> bool {
        self.year.is_multiple_of(4) && !self.year.is_multiple_of(100)
            || self.year.is_multiple_of(400)
    }

    fn days_in_month(self) -> u8 {
        match self.month {
            2 if self.is_leap_year() => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    /// Midnight UTC in units of 100 ns since 1601, as a FILETIME counts.
    pub fn file_time(self) -> u64 {
        let years = u64::from(self.year) - 1601;
        let leap_days = years / 4 - years / 100 + years / 400;
        let months = 1..self.month;
        let in_year: u64 = months
            .map(|month| u64::from(Self { month, ..self }.days_in_month()))
            .sum();
        let days = years * 365 + leap_days + in_year + u64::from(self.day) - 1;
        days * TICKS_PER_DAY
    }
}

impl fmt::Display for DriverDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

impl fmt::Display for DriverVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = self.version;
        write!(f, "{a}.{b}.{c}.{d} of {}", self.date)
    }
}

/// One to four numbers of 16 bits; nothing at all is 0.0.0.0.
fn parts_of_version(text: &str) -> Option<[u16; 4]> {
    let mut version = [0; 4];
    if text.is_empty() {
        return Some(version);
    }
    let mut parts = text.split('.');
    for place in &mut version {
        let Some(part) = parts.next() else { break };
        if part.is_empty() || !part.bytes().all(|digit| digit.is_ascii_digit()) {
            return None;
        }
        *place = part.parse().ok()?;
    }
    parts.next().is_none().then_some(version)
}

fn not_a_number(what: &'static str, found: String) -> InfErrorKind {
    InfErrorKind::NotANumber { what, found }
}

const SIGNATURES: [&str; 3] = ["$Windows NT$", "$Chicago$", "$Windows 95$"];

const TICKS_PER_DAY: u64 = 24 * 60 * 60 * 10_000_000;
