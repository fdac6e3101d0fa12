//! What the lines of install sections say.

pub mod files;
pub mod registry;
pub mod service;

use std::cell::Cell;

use super::Inf;
use super::error::{InfError, InfErrorKind, LineNumber};
use super::section::{Line, Section};

/// Text that people read: as it is written, for Windows looks `%name%` up again in the user's
/// language, and with its strings put in.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LocalisedText {
    /// As it stands, such as `%Device.Desc%`.
    pub written: String,
    /// What is read.
    pub text: String,
}

/// Reads one INF on behalf of a plan, and counts what the plan becomes of.
#[derive(Clone, Copy)]
pub(super) struct Reader<'i> {
    pub inf: &'i Inf,
    pub budget: &'i Budget,
}

/// How much a plan may hold. The lines of a section can be asked for by every line of another.
#[derive(Debug)]
pub(super) struct Budget {
    lines: Cell<usize>,
    bytes: Cell<usize>,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self {
            lines: Cell::new(MOST_LINES),
            bytes: Cell::new(MOST_BYTES),
        }
    }

    fn take(left: &Cell<usize>, taken: usize) -> bool {
        let rest = left.get().checked_sub(taken);
        left.set(rest.unwrap_or(0));
        rest.is_some()
    }

    pub(super) fn spend_line(&self, line: LineNumber) -> Result<(), InfError> {
        if Self::take(&self.lines, 1) {
            return Ok(());
        }
        let what = "lines that a device's installation leads to";
        let limit = MOST_LINES;
        Err(InfErrorKind::TooMuch { what, limit }.at(line))
    }

    fn spend_bytes(&self, bytes: usize, line: LineNumber) -> Result<(), InfError> {
        if Self::take(&self.bytes, bytes) {
            return Ok(());
        }
        let what = "bytes of text that a device's installation leads to";
        let limit = MOST_BYTES;
        Err(InfErrorKind::TooMuch { what, limit }.at(line))
    }
}

impl<'i> Reader<'i> {
    /// Text with its strings put in.
    pub(super) fn expand(&self, text: &str, line: LineNumber) -> Result<String, InfError> {
        let text = self.inf.strings.expand(text, line)?;
        self.budget.spend_bytes(text.len(), line)?;
        Ok(text)
    }

    /// A value of a line, from 0; an empty one counts as none.
    pub(super) fn value(&self, line: &Line, index: usize) -> Result<Option<String>, InfError> {
        let Some(text) = line.value(index) else {
            return Ok(None);
        };
        let text = self.expand(text, line.number)?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// A number of a line; `None` if it is not there.
    pub(super) fn number(
        &self,
        line: &Line,
        index: usize,
        what: &'static str,
    ) -> Result<Option<u32>, InfError> {
        let Some(text) = self.value(line, index)? else {
            return Ok(None);
        };
        match number(&text) {
            Some(number) => Ok(Some(number)),
            None => Err(InfErrorKind::NotANumber { what, found: text }.at(line.number)),
        }
    }

    /// The sections that a directive such as `AddReg = one, two` names, each with the line.
    pub(super) fn named_sections(
        &self,
        section: &'i Section,
        directive: &str,
    ) -> Result<Vec<(LineNumber, &'i Section)>, InfError> {
        let mut found = Vec::new();
        for line in section.lines.iter().filter(|line| is_key(line, directive)) {
            for index in 0..line.values.len() {
                self.budget.spend_line(line.number)?;
                if let Some(name) = self.value(line, index)? {
                    found.push((line.number, self.section(&name, directive, line.number)?));
                }
            }
        }
        Ok(found)
    }

    /// The section that a directive names.
    pub(super) fn section(
        &self,
        name: &str,
        directive: &str,
        line: LineNumber,
    ) -> Result<&'i Section, InfError> {
        self.inf.sections.find(name).ok_or_else(|| {
            InfErrorKind::NoSuchSection {
                directive: directive.to_owned(),
                section: name.chars().take(SHOWN).collect(),
            }
            .at(line)
        })
    }

    /// Text with the form in which it is written.
    pub(super) fn localised(
        &self,
        line: &Line,
        index: usize,
    ) -> Result<Option<LocalisedText>, InfError> {
        let Some(written) = line.value(index) else {
            return Ok(None);
        };
        self.localised_text(written, line.number).map(Some)
    }

    pub(super) fn localised_text(
        &self,
        written: &str,
        line: LineNumber,
    ) -> Result<LocalisedText, InfError> {
        Ok(LocalisedText {
            text: self.expand(written, line)?,
            written: written.to_owned(),
        })
    }
}

/// Whether a line has this key.
pub(super) fn is_key(line: &Line, key: &str) -> bool {
    line.key
        .as_deref()
        .is_some_and(|found| found.eq_ignore_ascii_case(key))
}

/// A number as SetupAPI reads it: decimal, or hexadecimal behind `0x`; 32 bits, a negative one as its
/// two's complement.
pub(super) fn number(text: &str) -> Option<u32> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let hexadecimal = digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"));
    let (digits, radix) = hexadecimal.map_or((digits, 10), |digits| (digits, 16));
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let number = u32::from_str_radix(digits, radix).ok()?;
    Some(if negative {
        number.wrapping_neg()
    } else {
        number
    })
}

/// The largest packages of the vendors need some thousands.
const MOST_LINES: usize = 100_000;

const MOST_BYTES: usize = 64 << 20;

/// Characters of a wrong name that a message shows.
const SHOWN: usize = 80;
