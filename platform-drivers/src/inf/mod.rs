//! INF files: what a driver needs copied, registered and started, and on which Windows.
//!
//! ```text
//!  bytes -> lexer -> sections -> Inf ---models()--> devices it is for
//!                                 |
//!                                 +---plan(hardware id, Windows, other INFs)--> InstallPlan
//!                                       decorate: which section     files, registry, services,
//!                                       directives: what it says    filters, what is left to PnP
//! ```
//!
//! A plan is made as Windows would make it, without touching anything. What can be done only by a
//! running Windows (co-installers, RegisterDlls) is listed in the plan and not dropped. An INF that
//! cannot be followed is refused with the line and the reason. No input can make this take more
//! than a bounded time or memory: the plan of an INF that asks for too much is refused.
//!
//! Not done: the signature (see [`crate::package`]), `LogConfig`, and the obsolete directives that
//! change INI files; all are named in [`InstallPlan::left_to_windows`].

mod decorate;
mod directives;
mod dirid;
mod error;
mod lexer;
mod models;
mod plan;
mod section;
mod strings;
mod version;

pub use decorate::{Architecture, Decoration, ProductType, WindowsTarget, WindowsVersion};
pub use directives::LocalisedText;
pub use directives::files::{Destination, FileCopy, FileDelete, FileRename};
pub use directives::registry::{RegistryAction, RegistryChange, RegistryRoot, SetRule};
pub use directives::service::{EventLogSource, Service, ServiceFlags};
pub use dirid::DRIVER_STORE_MARK;
pub use error::{InfError, InfErrorKind, LineNumber};
pub use lexer::TextEncoding;
pub use models::{Manufacturer, Model, Supported};
pub use plan::{Filter, FilterPosition, InfLibrary, InstallPlan, LeftToWindows, Parts, Unresolved};
pub use section::{Line, Section, Sections};
pub use strings::{LanguageId, StringTable};
pub use version::{DriverDate, DriverVersion, InfVersion};

use directives::files::DiskIndex;

/// An INF file.
#[derive(Clone, Debug)]
pub struct Inf {
    encoding: TextEncoding,
    sections: Sections,
    strings: StringTable,
    version: InfVersion,
    disks: DiskIndex,
}

impl Inf {
    /// Reads the bytes of an INF file, with the strings of `[Strings]`.
    ///
    /// # Errors
    ///
    /// What Windows refuses too: no signature, text before the first section, a section name that is
    /// not closed or too long; and a `[Version]` with a date, version or class GUID that is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, InfError> {
        let (text, encoding) = lexer::decode(bytes)?;
        let sections = lexer::sections(&text)?;
        let strings = StringTable::read(&sections);
        let version = InfVersion::read(&sections, &strings)?;
        Ok(Self {
            encoding,
            version,
            disks: DiskIndex::new(&sections, &strings),
            sections,
            strings,
        })
    }

    /// Takes strings from the section of a language, such as `[Strings.0407]`, where there is one.
    #[must_use]
    pub fn in_language(mut self, language: LanguageId) -> Self {
        self.strings.choose(language);
        self
    }

    /// How the file is encoded.
    pub fn encoding(&self) -> TextEncoding {
        self.encoding
    }

    /// The lines as they stand, with nothing substituted.
    pub fn sections(&self) -> &Sections {
        &self.sections
    }

    /// What `%name%` stands for.
    pub fn strings(&self) -> &StringTable {
        &self.strings
    }

    /// What `[Version]` says.
    pub fn version(&self) -> &InfVersion {
        &self.version
    }
}

#[cfg(test)]
mod tests;
