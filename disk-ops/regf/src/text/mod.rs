//! `.reg` text: a hive or part of it as text that regedit writes and reads, and edits as text.
//!
//! Read: "Windows Registry Editor Version 5.00" in UTF-16LE with a byte order mark, or in UTF-8
//! with or without one, and "REGEDIT4" as far as it is ASCII (beyond that it depends on the code
//! page of the machine it came from). Written: version 5.00, wrapped as regedit wraps.
//!
//! ```text
//! Windows Registry Editor Version 5.00
//!
//! [ControlSet001\Services\stornvme]          create the key
//! @="default value"                          REG_SZ
//! "Start"=dword:00000000                     REG_DWORD
//! "ImagePath"=hex(2):53,00,79,00,\           REG_EXPAND_SZ; any type by its number
//!   00,00
//! "Group"=-                                  delete the value
//!
//! [-ControlSet001\Services\vmci]             delete the key and all below it
//! ```
//!
//! Text that is written reads back as exactly what was written: a REG_SZ that the quoted form
//! can't carry (a missing or second zero, a line break) is written as `hex(1):`.

mod parse;
mod print;

use crate::edit::{EditError, HiveEditor};
use crate::name::{KeyPath, Name};
use crate::value::RegValue;

pub use print::{Encoding, ExportError, ExportOptions};

/// Edits, as a `.reg` file lists them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RegScript {
    /// The edits and the line each begins at, from 1.
    pub edits: Vec<(usize, RegEdit)>,
}

/// One edit of a `.reg` file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RegEdit {
    /// `[key]`
    CreateKey(KeyPath),
    /// `[-key]`
    DeleteKey(KeyPath),
    /// `"name"=data`
    SetValue {
        /// The key.
        key: KeyPath,
        /// The value; empty for `@`.
        name: Name,
        /// Type and data.
        value: RegValue,
    },
    /// `"name"=-`
    DeleteValue {
        /// The key.
        key: KeyPath,
        /// The value; empty for `@`.
        name: Name,
    },
}

/// Text that is no `.reg` file.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line}: expected {expected}, found {found}")]
pub struct TextError {
    /// From 1.
    pub line: usize,
    /// What should stand there.
    pub expected: &'static str,
    /// What does.
    pub found: String,
}

/// An edit of a `.reg` file that could not be made.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line} of the edits")]
pub struct ImportError {
    /// The line the edit begins at, from 1.
    pub line: usize,
    /// Why.
    pub source: EditError,
}

/// What an import changed. What was so already is not counted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ImportReport {
    /// `[key]` lines that made at least one key.
    pub keys_created: usize,
    /// `[-key]` lines whose key existed.
    pub keys_deleted: usize,
    /// Values that are new or have other data.
    pub values_set: usize,
    /// Values that existed.
    pub values_deleted: usize,
}

impl RegScript {
    /// Reads a `.reg` file.
    ///
    /// Keys are named below the hive's root, `[\]` being the root itself. With a `prefix`, such as
    /// `HKEY_LOCAL_MACHINE\SYSTEM`, every key must begin with it, and it is taken off.
    ///
    /// # Errors
    ///
    /// The first line that can't be understood. A key that begins with `HKEY_` without a prefix is
    /// one: it is meant for a whole registry, not for a hive.
    pub fn parse(text: &[u8], prefix: &KeyPath) -> Result<Self, TextError> {
        parse::parse(text, prefix)
    }
}

impl HiveEditor<'_> {
    /// Makes all edits of a `.reg` file in their order.
    ///
    /// # Errors
    ///
    /// The first edit that can't be made. Those before it are made.
    pub fn import(&mut self, script: &RegScript) -> Result<ImportReport, ImportError> {
        let mut report = ImportReport::default();
        for (line, edit) in &script.edits {
            let (result, count) = match edit {
                RegEdit::CreateKey(key) => (self.create_key(key), &mut report.keys_created),
                RegEdit::DeleteKey(key) => (self.delete_key(key), &mut report.keys_deleted),
                RegEdit::SetValue { key, name, value } => {
                    (self.set_value(key, name, value), &mut report.values_set)
                }
                RegEdit::DeleteValue { key, name } => {
                    (self.delete_value(key, name), &mut report.values_deleted)
                }
            };
            match result {
                Ok(changed) => *count += usize::from(changed),
                Err(source) => {
                    return Err(ImportError {
                        line: *line,
                        source,
                    });
                }
            }
        }
        Ok(report)
    }
}

const HEADER: &str = "Windows Registry Editor Version 5.00";
const HEADER_4: &str = "REGEDIT4";
