//! Values: as they lie in a hive ("Key value") and as they are to be set.

use std::borrow::Cow;
use std::fmt;

use zerocopy::IntoBytes;

use crate::big_data::Segments;
use crate::error::{Defect, DefectKind, HiveError};
use crate::format::{
    DATA_RESIDENT, KEY_PREDEFINED_HANDLE, KeyNode, KeyValue, SEGMENT_LEN, VALUE_COMP_NAME,
    VALUE_SIGNATURE, VALUE_TOMBSTONE,
};
use crate::hive::Hive;
use crate::name::{NameRef, lossy_text, units_of};
use crate::units::{CellOffset, index};

/// The type of a value's data. Any number may stand in a hive; the named ones are Windows' own.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ValueType(u32);

impl ValueType {
    /// No type.
    pub const NONE: Self = Self(0);
    /// UTF-16 text.
    pub const SZ: Self = Self(1);
    /// UTF-16 text with `%variables%`.
    pub const EXPAND_SZ: Self = Self(2);
    /// Bytes.
    pub const BINARY: Self = Self(3);
    /// 32 bits, little-endian.
    pub const DWORD: Self = Self(4);
    /// 32 bits, big-endian.
    pub const DWORD_BIG_ENDIAN: Self = Self(5);
    /// The target of a symbolic link.
    pub const LINK: Self = Self(6);
    /// UTF-16 texts, each with a zero after it, and one more zero.
    pub const MULTI_SZ: Self = Self(7);
    /// Hardware resources of a device.
    pub const RESOURCE_LIST: Self = Self(8);
    /// Hardware resources as the firmware tells.
    pub const FULL_RESOURCE_DESCRIPTOR: Self = Self(9);
    /// Hardware resources a device can use.
    pub const RESOURCE_REQUIREMENTS_LIST: Self = Self(10);
    /// 64 bits, little-endian.
    pub const QWORD: Self = Self(11);

    /// The type of this number.
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The number in the file.
    pub const fn raw(self) -> u32 {
        self.0
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match usize::try_from(self.0)
            .ok()
            .and_then(|raw| TYPE_NAMES.get(raw))
        {
            Some(name) => f.write_str(name),
            None => write!(f, "value of type {:#x}", self.0),
        }
    }
}

/// A value of a key, as it lies in a hive.
#[derive(Clone, Copy)]
pub struct Value<'h> {
    hive: &'h Hive,
    at: CellOffset,
    node: &'h KeyValue,
    name: NameRef<'h>,
}

impl<'h> Value<'h> {
    pub(crate) fn at(hive: &'h Hive, at: CellOffset) -> Result<Self, HiveError> {
        let (node, behind) = hive.record::<KeyValue>(at, DefectKind::Value)?;
        if node.signature != VALUE_SIGNATURE {
            return Err(Defect::new(
                at.in_file(),
                DefectKind::Value,
                "signature \"vk\"",
                format!("{:02x?}", node.signature),
            )
            .into());
        }
        let compressed = node.flags.get() & VALUE_COMP_NAME != 0;
        let len = node.name_len.get();
        let name = NameRef::read(at, DefectKind::Value, behind, len, compressed)?;
        Ok(Self {
            hive,
            at,
            node,
            name,
        })
    }

    /// The name; empty for the key's default value.
    pub fn name(&self) -> NameRef<'h> {
        self.name
    }

    /// Where the value's record is.
    pub fn offset(&self) -> CellOffset {
        self.at
    }

    /// The type.
    pub fn value_type(&self) -> ValueType {
        ValueType(self.node.value_type.get())
    }

    /// Whether it hides the value of a lower layer instead of being one ("Layered keys").
    pub fn is_tombstone(&self) -> bool {
        self.node.flags.get() & VALUE_TOMBSTONE != 0
    }

    /// The data, copied only when it is stored in several pieces.
    ///
    /// # Errors
    ///
    /// The reference to it is broken.
    pub fn data(&self) -> Result<Cow<'h, [u8]>, HiveError> {
        match self.storage()? {
            Storage::Resident(data) | Storage::Cell(_, data) => Ok(Cow::Borrowed(data)),
            Storage::Segments(_, segments) => segments
                .data(self.hive, self.node.data_len.get())
                .map(Cow::Owned),
            Storage::Nothing => Ok(Cow::Borrowed(&[])),
        }
    }

    /// The number of a DWORD of either byte order.
    ///
    /// # Errors
    ///
    /// The value is of another type, its data is not four bytes, or can't be read.
    pub fn dword(&self) -> Result<u32, HiveError> {
        match self.value_type() {
            ValueType::DWORD => self.number().map(u32::from_le_bytes),
            ValueType::DWORD_BIG_ENDIAN => self.number().map(u32::from_be_bytes),
            _ => Err(self.wrong_type("a REG_DWORD")),
        }
    }

    /// The number of a QWORD.
    ///
    /// # Errors
    ///
    /// As [`Value::dword`], with eight bytes.
    pub fn qword(&self) -> Result<u64, HiveError> {
        match self.value_type() {
            ValueType::QWORD => self.number().map(u64::from_le_bytes),
            _ => Err(self.wrong_type("a REG_QWORD")),
        }
    }

    /// The text of a string of any kind, up to its first zero. What is no UTF-16 becomes U+FFFD.
    ///
    /// # Errors
    ///
    /// The value is of another type, or its data can't be read.
    pub fn string(&self) -> Result<String, HiveError> {
        match self.value_type() {
            ValueType::SZ | ValueType::EXPAND_SZ | ValueType::LINK => Ok(lossy_text(
                units_of(&self.data()?).take_while(|&unit| unit != 0),
            )),
            _ => Err(self.wrong_type("a REG_SZ or REG_EXPAND_SZ")),
        }
    }

    /// The texts of a list of strings, up to the first empty one, where Windows ends the list.
    ///
    /// # Errors
    ///
    /// The value is of another type, or its data can't be read.
    pub fn multi_string(&self) -> Result<Vec<String>, HiveError> {
        if self.value_type() != ValueType::MULTI_SZ {
            return Err(self.wrong_type("a REG_MULTI_SZ"));
        }
        let units: Vec<u16> = units_of(&self.data()?).collect();
        let texts = units
            .split(|&unit| unit == 0)
            .take_while(|text| !text.is_empty());
        Ok(texts.map(|text| lossy_text(text.iter().copied())).collect())
    }

    /// Type and data, copied.
    ///
    /// # Errors
    ///
    /// The data can't be read.
    pub fn to_reg_value(&self) -> Result<RegValue, HiveError> {
        Ok(RegValue {
            value_type: self.value_type(),
            data: self.data()?.into_owned(),
        })
    }

    /// Where the data is kept.
    pub(crate) fn storage(&self) -> Result<Storage<'h>, HiveError> {
        let raw_len = self.node.data_len.get();
        if raw_len & DATA_RESIDENT != 0 {
            let len = raw_len & !DATA_RESIDENT;
            return match self.node.data.as_bytes().get(..index(len)) {
                Some(data) => Ok(Storage::Resident(data)),
                None => Err(self.defect("at most 4 bytes of data in the value itself", len)),
            };
        }
        if raw_len == 0 {
            return Ok(Storage::Nothing);
        }
        let at = CellOffset::new(self.node.data.get());
        if self.hive.version().has_big_data() && index(raw_len) > SEGMENT_LEN {
            return Ok(Storage::Segments(
                at,
                Segments::read(self.hive, at, raw_len)?,
            ));
        }
        let cell = self.hive.cell(at, DefectKind::ValueData)?;
        match cell.get(..index(raw_len)) {
            Some(data) => Ok(Storage::Cell(at, data)),
            None => Err(self.defect(
                &format!("data that fits its cell of {} bytes", cell.len()),
                raw_len,
            )),
        }
    }

    /// Length of the data in bytes, as the value says.
    pub(crate) fn data_len(&self) -> u32 {
        self.node.data_len.get() & !DATA_RESIDENT
    }

    fn number<const N: usize>(&self) -> Result<[u8; N], HiveError> {
        let data = self.data()?;
        <[u8; N]>::try_from(data.as_ref()).map_err(|_| HiveError::WrongLength {
            name: self.name.to_string(),
            value_type: self.value_type(),
            expected: N,
            found: data.len(),
        })
    }

    fn wrong_type(&self, expected: &'static str) -> HiveError {
        HiveError::WrongType {
            name: self.name.to_string(),
            expected,
            found: self.value_type(),
        }
    }

    fn defect(&self, expected: &str, found: u32) -> HiveError {
        Defect::new(
            self.at.in_file(),
            DefectKind::ValueData,
            expected,
            format!("{found} bytes"),
        )
        .into()
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Value")
            .field("name", &self.name)
            .field("type", &self.value_type())
            .field("at", &self.at)
            .finish()
    }
}

/// Where a value's data is.
#[derive(Debug)]
pub(crate) enum Storage<'h> {
    /// There is none.
    Nothing,
    /// In the value's record.
    Resident(&'h [u8]),
    /// In a cell.
    Cell(CellOffset, &'h [u8]),
    /// In several cells, listed by the big data record at this offset.
    Segments(CellOffset, Segments<'h>),
}

/// The values of a key, one after the other.
#[derive(Clone, Debug)]
pub struct Values<'h> {
    hive: &'h Hive,
    list: ValueList<'h>,
    next: usize,
}

impl<'h> Values<'h> {
    pub(crate) fn new(hive: &'h Hive, list: ValueList<'h>) -> Self {
        Self {
            hive,
            list,
            next: 0,
        }
    }
}

impl<'h> Iterator for Values<'h> {
    type Item = Result<Value<'h>, HiveError>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.list.get(self.next)?;
        self.next += 1;
        Some(Value::at(self.hive, at))
    }
}

/// "Key values list".
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ValueList<'h> {
    /// The list's cell; none when there are no values.
    pub(crate) at: Option<CellOffset>,
    elements: &'h [u8],
}

impl<'h> ValueList<'h> {
    pub(crate) fn read(hive: &'h Hive, key: CellOffset, node: &KeyNode) -> Result<Self, HiveError> {
        let count = node.value_count.get();
        // Such a key keeps a handle where others keep the number of values.
        if count == 0 || node.flags.get() & KEY_PREDEFINED_HANDLE != 0 {
            return Ok(Self::default());
        }
        let at = CellOffset::from_raw(node.values.get()).ok_or_else(|| {
            Defect::new(
                key.in_file(),
                DefectKind::ValueList,
                format!("the offset of a list of {count} values"),
                "the value that points nowhere",
            )
        })?;
        let cell = hive.cell(at, DefectKind::ValueList)?;
        let elements = index(count).checked_mul(4).and_then(|len| cell.get(..len));
        let elements = elements.ok_or_else(|| {
            Defect::new(
                at.in_file(),
                DefectKind::ValueList,
                format!("a list of {count} values"),
                format!("room for {}", cell.len() / 4),
            )
        })?;
        Ok(Self {
            at: Some(at),
            elements,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.elements.len() / 4
    }

    pub(crate) fn get(&self, position: usize) -> Option<CellOffset> {
        let raw = self.elements.as_chunks::<4>().0.get(position)?;
        Some(CellOffset::new(u32::from_le_bytes(*raw)))
    }
}

/// Type and data of a value, to be set or compared.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct RegValue {
    /// The type.
    pub value_type: ValueType,
    /// The data, as it lies in the hive.
    pub data: Vec<u8>,
}

impl RegValue {
    /// Data of any type.
    pub fn new(value_type: ValueType, data: impl Into<Vec<u8>>) -> Self {
        Self {
            value_type,
            data: data.into(),
        }
    }

    /// A REG_BINARY.
    pub fn binary(data: impl Into<Vec<u8>>) -> Self {
        Self::new(ValueType::BINARY, data)
    }

    /// A REG_DWORD.
    pub fn dword(number: u32) -> Self {
        Self::new(ValueType::DWORD, number.to_le_bytes())
    }

    /// A REG_EXPAND_SZ with its final zero.
    pub fn expand_sz(text: &str) -> Self {
        Self::new(ValueType::EXPAND_SZ, utf16_with_zero(text))
    }

    /// A REG_MULTI_SZ with all its zeros. An empty text would end the list for most readers.
    pub fn multi_sz<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Self {
        let texts = texts
            .into_iter()
            .flat_map(|text| utf16_with_zero(text.as_ref()));
        Self::new(
            ValueType::MULTI_SZ,
            texts.chain([0, 0]).collect::<Vec<u8>>(),
        )
    }

    /// A REG_QWORD.
    pub fn qword(number: u64) -> Self {
        Self::new(ValueType::QWORD, number.to_le_bytes())
    }

    /// A REG_SZ with its final zero.
    pub fn sz(text: &str) -> Self {
        Self::new(ValueType::SZ, utf16_with_zero(text))
    }
}

fn utf16_with_zero(text: &str) -> Vec<u8> {
    text.encode_utf16()
        .chain([0])
        .flat_map(u16::to_le_bytes)
        .collect()
}

const TYPE_NAMES: [&str; 12] = [
    "REG_NONE",
    "REG_SZ",
    "REG_EXPAND_SZ",
    "REG_BINARY",
    "REG_DWORD",
    "REG_DWORD_BIG_ENDIAN",
    "REG_LINK",
    "REG_MULTI_SZ",
    "REG_RESOURCE_LIST",
    "REG_FULL_RESOURCE_DESCRIPTOR",
    "REG_RESOURCE_REQUIREMENTS_LIST",
    "REG_QWORD",
];
