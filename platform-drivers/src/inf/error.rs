//! Why an INF is refused, and where.

use std::fmt;

/// A line of an INF file, from 1.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LineNumber(pub u32);

impl fmt::Display for LineNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.0)
    }
}

/// An INF that cannot be read or followed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{}{kind}", self.line.map(|line| format!("{line}: ")).unwrap_or_default())]
#[non_exhaustive]
pub struct InfError {
    /// Where; `None` of what the whole file lacks.
    pub line: Option<LineNumber>,
    /// What is wrong.
    pub kind: InfErrorKind,
}

/// What is wrong with an INF.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InfErrorKind {
    /// The file is larger than any INF.
    #[error("the file has {found} bytes; an INF of more than {limit} is not read")]
    TooLarge {
        /// Bytes.
        found: usize,
        /// Bytes.
        limit: usize,
    },
    /// The file is no text.
    #[error("a NUL character: this is no text in UTF-16, UTF-8 or a Windows code page")]
    NotText,
    /// `[Version]` with a signature makes a file an INF.
    #[error(
        "no INF: expected Signature=\"$Windows NT$\" or \"$Chicago$\" in [Version], found {found}"
    )]
    NotAnInf {
        /// What stands in its place.
        found: String,
    },
    /// Text before the first section.
    #[error("expected a [section], found {found:?}")]
    ExpectedSection {
        /// The line.
        found: String,
    },
    /// A section's name is not closed.
    #[error("expected `]` behind the name of the section {found:?}")]
    UnclosedSectionName {
        /// The name as far as it goes.
        found: String,
    },
    /// Windows refuses section names of more than 255 characters.
    #[error("a section name of {found} characters; 255 are the most that Windows takes")]
    SectionNameTooLong {
        /// Characters.
        found: usize,
    },
    /// A section that something else names.
    #[error("{directive} names the section [{section}], which is not in the file")]
    NoSuchSection {
        /// What names it.
        directive: String,
        /// The section.
        section: String,
    },
    /// A value that should be a number.
    #[error("{what}: expected a number, found {found:?}")]
    NotANumber {
        /// The field's name.
        what: &'static str,
        /// What stands there.
        found: String,
    },
    /// A value that has another form.
    #[error("{what}: expected {expected}, found {found:?}")]
    Malformed {
        /// The field's name.
        what: &'static str,
        /// The form.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// A field that has to be there.
    #[error("{directive}: the {what} is missing")]
    Missing {
        /// Where it is missing.
        directive: String,
        /// What is missing.
        what: &'static str,
    },
    /// A directory number that Windows does not define.
    #[error("directory {found} is none that Windows defines")]
    UnknownDirectory {
        /// The number.
        found: u32,
    },
    /// A name with a path in it, or none that Windows can give to a file.
    #[error("{what} {found:?}: {reason}")]
    BadPath {
        /// What the path is of.
        what: &'static str,
        /// The path.
        found: String,
        /// Why it can't be used.
        reason: &'static str,
    },
    /// `CopyFiles` names a file, and nothing says where it comes from.
    #[error("{file} is copied but not listed in [SourceDisksFiles]")]
    NoSource {
        /// The file's name in the package.
        file: String,
    },
    /// `[SourceDisksFiles]` names a disk that `[SourceDisksNames]` has not.
    #[error("{file} is on disk {disk}, which is not in [SourceDisksNames]")]
    NoSuchDisk {
        /// The file's name in the package.
        file: String,
        /// The disk's number.
        disk: String,
    },
    /// The INF is for other Windows versions or machines.
    #[error("no models for {target}; the INF has {found}")]
    NotForThisWindows {
        /// What was asked for.
        target: String,
        /// The decorations in `[Manufacturer]`.
        found: String,
    },
    /// The INF has no such device.
    #[error("no device {hardware_id} for {target}")]
    NoSuchDevice {
        /// What was asked for.
        hardware_id: String,
        /// The Windows.
        target: String,
    },
    /// More than any INF needs: the file is made to exhaust whoever follows it.
    #[error("more than {limit} {what}; no driver needs as many")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// How much is taken.
        limit: usize,
    },
}

impl InfErrorKind {
    pub(crate) fn at(self, line: LineNumber) -> InfError {
        InfError {
            line: Some(line),
            kind: self,
        }
    }

    pub(crate) fn of_file(self) -> InfError {
        InfError {
            line: None,
            kind: self,
        }
    }
}
