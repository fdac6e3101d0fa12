//! `AddReg`, `DelReg` and `BitReg`: changes of the registry.

use ce_regf::{RegValue, ValueType};

use super::super::error::{InfError, InfErrorKind, LineNumber};
use super::super::section::{Line, Section};
use super::{Reader, number};

/// A change of the registry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RegistryChange {
    /// What [`Self::key`] is below.
    pub root: RegistryRoot,
    /// The path of the key; empty for the root itself.
    pub key: String,
    /// What happens to it.
    pub action: RegistryAction,
    /// The line that says so.
    pub line: LineNumber,
}

/// What a key is below. `HKR` is a different one in each kind of section.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum RegistryRoot {
    /// `HKCR`: SOFTWARE\Classes.
    ClassesRoot,
    /// `HKCU`: the user who installs. Offline there is none.
    CurrentUser,
    /// `HKLM`.
    LocalMachine,
    /// `HKU`.
    Users,
    /// `HKR` in the install section: the driver's key below Control\Class.
    Driver,
    /// `HKR` in the `.HW` section: the device's key below Enum.
    Device,
    /// `HKR` in a service's section: its key below Services.
    Service,
    /// `HKR` in the section of an event log source.
    EventLog,
    /// `HKR` in `[ClassInstall32]`: the class's key below Control\Class.
    Class,
    /// `HKR` of a device interface.
    Interface,
}

/// What happens to a key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RegistryAction {
    /// It is made if it is not there.
    CreateKey,
    /// It is deleted with all below it.
    DeleteKey,
    /// A value is set.
    Set {
        /// The value's name; empty for the default value.
        name: String,
        /// Its type and data.
        value: RegValue,
        /// What is done if it is there already.
        rule: SetRule,
    },
    /// A value is deleted.
    DeleteValue {
        /// The value's name.
        name: String,
    },
    /// Strings are added to a REG_MULTI_SZ that lacks them.
    Append {
        /// The value's name.
        name: String,
        /// What is added.
        strings: Vec<String>,
    },
    /// A string is taken out of a REG_MULTI_SZ.
    RemoveString {
        /// The value's name.
        name: String,
        /// What is taken out.
        string: String,
    },
    /// Bits of a byte of a REG_BINARY are set or cleared.
    Bits {
        /// The value's name.
        name: String,
        /// Which bits.
        mask: u8,
        /// Which byte.
        byte: u32,
        /// Set or cleared.
        set: bool,
    },
}

/// What becomes of a value that is there already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SetRule {
    /// It is replaced.
    Always,
    /// It stays (`FLG_ADDREG_NOCLOBBER`).
    IfMissing,
    /// It is replaced; one that is not there is not made (`FLG_ADDREG_OVERWRITEONLY`).
    IfPresent,
}

impl Reader<'_> {
    /// What the `AddReg`, `DelReg` and `BitReg` lines of a section change, deletions first, as
    /// SetupAPI does them.
    pub(in super::super) fn registry(
        &self,
        section: &Section,
        relative: RegistryRoot,
    ) -> Result<Vec<RegistryChange>, InfError> {
        let mut changes = Vec::new();
        for directive in ["DelReg", "AddReg", "BitReg"] {
            for (_, list) in self.named_sections(section, directive)? {
                for line in &list.lines {
                    self.budget.spend_line(line.number)?;
                    if line.key.is_none() && line.values.iter().all(String::is_empty) {
                        continue;
                    }
                    let fields = self.fields(line, relative)?;
                    let action = match directive {
                        "DelReg" => self.deletion(line, &fields)?,
                        "AddReg" => self.addition(line, &fields)?,
                        _ => self.bits(line, &fields)?,
                    };
                    changes.push(RegistryChange {
                        root: fields.root,
                        key: fields.key,
                        action,
                        line: line.number,
                    });
                }
            }
        }
        Ok(changes)
    }

    fn fields(&self, line: &Line, relative: RegistryRoot) -> Result<Fields, InfError> {
        let text = |index| self.value(line, index).map(Option::unwrap_or_default);
        // A line with `=` in it has nothing before its first comma but that.
        let written = match &line.key {
            Some(key) => format!("{key}={}", text(0)?),
            None => text(0)?,
        };
        let root = match written.to_ascii_uppercase().as_str() {
            "HKR" => relative,
            "HKLM" | "HKEY_LOCAL_MACHINE" => RegistryRoot::LocalMachine,
            "HKCR" | "HKEY_CLASSES_ROOT" => RegistryRoot::ClassesRoot,
            "HKCU" | "HKEY_CURRENT_USER" => RegistryRoot::CurrentUser,
            "HKU" | "HKEY_USERS" => RegistryRoot::Users,
            _ => {
                return Err(InfErrorKind::Malformed {
                    what: "the root key",
                    expected: "HKR, HKLM, HKCR, HKCU or HKU",
                    found: written.chars().take(super::SHOWN).collect(),
                }
                .at(line.number));
            }
        };
        Ok(Fields {
            root,
            key: text(1)?.trim_matches('\\').to_owned(),
            name: text(2)?,
            flags: self.number(line, 3, "the registry flags")?.unwrap_or(0),
        })
    }

    fn addition(&self, line: &Line, fields: &Fields) -> Result<RegistryAction, InfError> {
        let flags = fields.flags;
        let name = fields.name.clone();
        if flags & (DELETE_VALUE | DELETE_BIT) != 0 {
            return self.deletion(line, fields);
        }
        let says_nothing = name.is_empty() && line.values.len() <= VALUE;
        if flags & (KEY_ONLY | KEY_ONLY_COMMON) != 0 || says_nothing && flags == 0 {
            return Ok(RegistryAction::CreateKey);
        }
        if flags & APPEND != 0 && flags & TYPE_MASK == TYPE_MULTI_SZ {
            let strings = self.texts(line)?;
            return Ok(RegistryAction::Append { name, strings });
        }
        let rule = if flags & NO_CLOBBER != 0 {
            SetRule::IfMissing
        } else if flags & OVERWRITE_ONLY != 0 {
            SetRule::IfPresent
        } else {
            SetRule::Always
        };
        let value = self.data(line, flags)?;
        Ok(RegistryAction::Set { name, value, rule })
    }

    fn deletion(&self, line: &Line, fields: &Fields) -> Result<RegistryAction, InfError> {
        let name = fields.name.clone();
        if name.is_empty() || fields.flags & KEY_ONLY_COMMON != 0 {
            return Ok(RegistryAction::DeleteKey);
        }
        if fields.flags & DELETE_STRING == DELETE_STRING {
            let string = self.value(line, VALUE)?.unwrap_or_default();
            return Ok(RegistryAction::RemoveString { name, string });
        }
        Ok(RegistryAction::DeleteValue { name })
    }

    /// `root, key, name, flags, mask, byte`
    fn bits(&self, line: &Line, fields: &Fields) -> Result<RegistryAction, InfError> {
        let mask = self.number(line, VALUE, "the bit mask")?.unwrap_or(0);
        let mask = u8::try_from(mask).map_err(|_| {
            let found = format!("{mask:#x}");
            let (what, expected) = ("the bit mask", "a byte");
            InfErrorKind::Malformed {
                what,
                expected,
                found,
            }
            .at(line.number)
        })?;
        let byte = self.number(line, VALUE + 1, "the byte")?.unwrap_or(0);
        Ok(RegistryAction::Bits {
            name: fields.name.clone(),
            mask,
            byte,
            set: fields.flags & 1 != 0,
        })
    }

    fn data(&self, line: &Line, flags: u32) -> Result<RegValue, InfError> {
        let text = |index| self.value(line, index).map(Option::unwrap_or_default);
        let value = match flags & TYPE_MASK {
            TYPE_SZ => RegValue::sz(&text(VALUE)?),
            TYPE_EXPAND_SZ => RegValue::expand_sz(&text(VALUE)?),
            TYPE_MULTI_SZ => RegValue::multi_sz(self.texts(line)?),
            TYPE_DWORD if line.values.len() <= VALUE + 1 => {
                RegValue::dword(self.number(line, VALUE, "the DWORD")?.unwrap_or(0))
            }
            TYPE_DWORD => {
                let bytes = self.bytes(line)?;
                let Ok(bytes) = <[u8; 4]>::try_from(bytes.as_slice()) else {
                    return Err(InfErrorKind::Malformed {
                        what: "the DWORD",
                        expected: "one number or four bytes",
                        found: format!("{} bytes", bytes.len()),
                    }
                    .at(line.number));
                };
                RegValue::dword(u32::from_le_bytes(bytes))
            }
            TYPE_BINARY => RegValue::binary(self.bytes(line)?),
            TYPE_NONE => RegValue::new(ValueType::NONE, self.bytes(line)?),
            other if other & BINARY_BIT != 0 => {
                RegValue::new(ValueType::from_raw(other >> 16), self.bytes(line)?)
            }
            other => {
                return Err(InfErrorKind::Malformed {
                    what: "the registry flags",
                    expected: "a type of value",
                    found: format!("{other:#010x}"),
                }
                .at(line.number));
            }
        };
        Ok(value)
    }

    /// The strings of a REG_MULTI_SZ. An empty one would end the list, so Windows leaves it out.
    fn texts(&self, line: &Line) -> Result<Vec<String>, InfError> {
        let mut texts = Vec::new();
        for index in VALUE..line.values.len() {
            texts.extend(self.value(line, index)?);
        }
        Ok(texts)
    }

    /// Bytes in hexadecimal, with or without `0x`.
    fn bytes(&self, line: &Line) -> Result<Vec<u8>, InfError> {
        let mut bytes = Vec::new();
        let last = line.values.len().saturating_sub(1);
        for index in VALUE..line.values.len() {
            let Some(text) = self.value(line, index)? else {
                // A comma at the end of the line adds nothing.
                if index == last {
                    break;
                }
                bytes.push(0);
                continue;
            };
            let digits = text
                .strip_prefix("0x")
                .or_else(|| text.strip_prefix("0X"))
                .unwrap_or(&text);
            let byte = number(&format!("0x{digits}")).and_then(|byte| u8::try_from(byte).ok());
            bytes.push(byte.ok_or_else(|| {
                InfErrorKind::Malformed {
                    what: "the binary value",
                    expected: "bytes in hexadecimal, with commas between them",
                    found: text.chars().take(super::SHOWN).collect(),
                }
                .at(line.number)
            })?);
        }
        Ok(bytes)
    }
}

/// The fields that all lines have.
struct Fields {
    root: RegistryRoot,
    key: String,
    name: String,
    flags: u32,
}

/// Where the data begin: behind root, key, name and flags.
const VALUE: usize = 4;

// FLG_ADDREG_* and FLG_DELREG_* of setupapi.h.
const BINARY_BIT: u32 = 0x1;
const NO_CLOBBER: u32 = 0x2;
const DELETE_VALUE: u32 = 0x4;
const APPEND: u32 = 0x8;
const KEY_ONLY: u32 = 0x10;
const OVERWRITE_ONLY: u32 = 0x20;
const KEY_ONLY_COMMON: u32 = 0x2000;
const DELETE_BIT: u32 = 0x8000;
const DELETE_STRING: u32 = 0x18002;
const TYPE_MASK: u32 = 0xFFFF_0000 | BINARY_BIT;
const TYPE_SZ: u32 = 0;
const TYPE_MULTI_SZ: u32 = 0x1_0000;
const TYPE_EXPAND_SZ: u32 = 0x2_0000;
const TYPE_BINARY: u32 = BINARY_BIT;
const TYPE_DWORD: u32 = 0x1_0000 | BINARY_BIT;
const TYPE_NONE: u32 = 0x2_0000 | BINARY_BIT;
