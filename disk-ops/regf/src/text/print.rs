//! Keys and values as `.reg` text.

use std::fmt::Write;

use super::HEADER;
use crate::bitmap::CellSet;
use crate::error::{Defect, DefectKind, HiveError};
use crate::hive::Hive;
use crate::key::Key;
use crate::name::{KeyPath, units_of};
use crate::value::{RegValue, ValueType};

/// How text is to be written.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ExportOptions {
    /// Put before every key, such as `HKEY_LOCAL_MACHINE\SYSTEM`.
    pub prefix: KeyPath,
    /// The text's encoding.
    pub encoding: Encoding,
}

/// The encodings `.reg` text is written in.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Encoding {
    /// UTF-16 with a byte order mark, as regedit writes it. Carries every name.
    #[default]
    Utf16Le,
    /// UTF-8 without one.
    Utf8,
}

/// Why keys can't be written as text.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// A key or value can't be read.
    #[error(transparent)]
    Damaged(#[from] HiveError),

    /// There is no such key.
    #[error("no key \"{path}\"")]
    NoSuchKey {
        /// The key.
        path: KeyPath,
    },

    /// There is no way to write this key as text.
    #[error("key \"{path}\" or one of its values can't be written as text: {reason}")]
    Unwritable {
        /// The key.
        path: KeyPath,
        /// What is in the way.
        reason: &'static str,
    },
}

impl Hive {
    /// A key and all below it as a `.reg` file.
    ///
    /// # Errors
    ///
    /// There is no such key, the hive is damaged there, or a name can't be written.
    pub fn export(
        &self,
        key: impl Into<KeyPath>,
        options: &ExportOptions,
    ) -> Result<Vec<u8>, ExportError> {
        let path = key.into();
        let Some(start) = self.root()?.subkey(&path)? else {
            return Err(ExportError::NoSuchKey { path });
        };
        let bare = options.prefix.names().is_empty();
        let mut printer = Printer {
            bare,
            text: Vec::new(),
            claimed: CellSet::new(self.bins_len()),
        };
        printer.text.extend(HEADER.encode_utf16());
        printer.text.extend(LINE_END);
        let above: Vec<_> = options
            .prefix
            .names()
            .iter()
            .chain(path.names())
            .cloned()
            .collect();
        let mut utf8 = Vec::new();
        for walked in start.walk() {
            let walked = walked?;
            let names = above.iter().chain(walked.path.names()).cloned();
            let path = KeyPath::from_names(names);
            printer.text.extend(LINE_END);
            printer.key(&path, &walked.key)?;
            if options.encoding == Encoding::Utf8 {
                let text = std::mem::take(&mut printer.text);
                let text = String::from_utf16(&text).map_err(|_| ExportError::Unwritable {
                    path,
                    reason: "it is no valid UTF-16, which UTF-8 can't express",
                })?;
                utf8.extend(text.into_bytes());
            }
        }
        printer.text.extend(LINE_END);
        Ok(match options.encoding {
            Encoding::Utf8 => {
                // Only the last line end is left.
                utf8.extend(printer.text.iter().flat_map(|&unit| u8::try_from(unit)));
                utf8
            }
            Encoding::Utf16Le => {
                let marked = [BYTE_ORDER_MARK].into_iter().chain(printer.text);
                marked.flat_map(u16::to_le_bytes).collect()
            }
        })
    }
}

struct Printer {
    /// Keys are named without a prefix.
    bare: bool,
    text: Vec<u16>,
    /// Value lists that are written: text must not grow without bound when keys share one.
    claimed: CellSet,
}

impl Printer {
    fn key(&mut self, path: &KeyPath, key: &Key<'_>) -> Result<(), ExportError> {
        if path
            .names()
            .iter()
            .flat_map(|name| name.units())
            .any(|&unit| is_line_end(unit))
        {
            let reason = "a line break in the name of a key";
            return Err(ExportError::Unwritable {
                path: path.clone(),
                reason,
            });
        }
        refuse_layered(path, key.is_layered())?;
        self.text.push(unit('['));
        // What could be read as a deletion or as another hive's is named from the root.
        let first = path
            .names()
            .first()
            .map(|name| name.to_string())
            .unwrap_or_default();
        let is_plain = !first.is_empty() && !first.starts_with('-');
        if !is_plain || (self.bare && first.starts_with("HKEY_")) {
            self.text.push(unit('\\'));
        }
        self.text.extend(path.to_units());
        self.text.push(unit(']'));
        self.text.extend(LINE_END);
        if let Some(list) = key.value_list()?.at
            && !self.claimed.insert(list)
        {
            let expected = "a list that one key uses";
            let list = list.in_file();
            let defect = Defect::new(list, DefectKind::ValueList, expected, "a second one");
            return Err(HiveError::from(defect).into());
        }
        for value in key.values()? {
            let value = value?;
            refuse_layered(path, value.is_tombstone())?;
            let start = self.text.len();
            if value.name().is_empty() {
                self.text.push(unit('@'));
            } else {
                self.quoted(value.name().units());
            }
            self.text.push(unit('='));
            self.data(&value.to_reg_value()?, start);
            self.text.extend(LINE_END);
        }
        Ok(())
    }

    /// The data of a value whose line begins at `start`.
    fn data(&mut self, value: &RegValue, start: usize) {
        match value.value_type {
            ValueType::SZ => {
                if let Some(text) = plain_text(&value.data) {
                    return self.quoted(text.into_iter());
                }
                self.push("hex(1):");
            }
            ValueType::DWORD => {
                if let Ok(bytes) = <[u8; 4]>::try_from(value.data.as_slice()) {
                    return self.push(&format!("dword:{:08x}", u32::from_le_bytes(bytes)));
                }
                self.push("hex(4):");
            }
            ValueType::BINARY => self.push("hex:"),
            other => self.push(&format!("hex({:x}):", other.raw())),
        }
        let mut column = self.text.len() - start;
        let mut hex = String::new();
        for (position, byte) in value.data.iter().enumerate() {
            hex.clear();
            if position > 0 {
                hex.push(',');
                column += 1;
                if column >= WRAP_COLUMN {
                    hex.push_str("\\\r\n  ");
                    column = 2;
                }
            }
            // Writing to a String can't fail.
            let _ = write!(hex, "{byte:02x}");
            column += 2;
            self.push(&hex);
        }
    }

    fn quoted(&mut self, units: impl Iterator<Item = u16>) {
        self.text.push(unit('"'));
        for found in units {
            if found == unit('"') || found == unit('\\') {
                self.text.push(unit('\\'));
            }
            self.text.push(found);
        }
        self.text.push(unit('"'));
    }

    fn push(&mut self, text: &str) {
        self.text.extend(text.encode_utf16());
    }
}

/// What a lower layer's key or value is hidden by has no form as text.
fn refuse_layered(path: &KeyPath, layered: bool) -> Result<(), ExportError> {
    let reason = "it is part of a layered hive";
    let error = ExportError::Unwritable {
        path: path.clone(),
        reason,
    };
    if layered { Err(error) } else { Ok(()) }
}

/// The text of a REG_SZ that reads back from its quoted form as it was.
fn plain_text(data: &[u8]) -> Option<Vec<u16>> {
    let mut text: Vec<u16> = units_of(data).collect();
    let ends = data.len().is_multiple_of(2) && text.pop() == Some(0);
    let plain = ends && !text.iter().any(|&unit| unit == 0 || is_line_end(unit));
    // A lone surrogate would not survive as UTF-8.
    (plain && String::from_utf16(&text).is_ok()).then_some(text)
}

fn is_line_end(found: u16) -> bool {
    LINE_END.contains(&found)
}

/// An ASCII character as a code unit.
fn unit(ascii: char) -> u16 {
    u16::try_from(u32::from(ascii)).unwrap_or(0)
}

const LINE_END: [u16; 2] = [0x0D, 0x0A];
const BYTE_ORDER_MARK: u16 = 0xFEFF;
/// Regedit breaks a line of bytes behind the comma that reaches this column.
const WRAP_COLUMN: usize = 77;
