//! What can be wrong with a hive's bytes.

use std::fmt;

use crate::units::FileOffset;
use crate::value::ValueType;

/// Why a hive can't be read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HiveError {
    /// The structure at a known place is not what the format demands.
    #[error(transparent)]
    Damaged(Box<Defect>),

    /// The file does not begin like a hive.
    #[error("not a registry hive: the file begins with {found:02x?}, expected \"regf\"")]
    NotAHive {
        /// The first bytes of the file, at most four.
        found: Vec<u8>,
    },

    /// A hive of a format this crate doesn't know.
    #[error("hive format {major}.{minor} is not supported, expected 1.3 to 1.6")]
    UnsupportedVersion {
        /// Major number in the base block.
        major: u32,
        /// Minor number in the base block.
        minor: u32,
    },

    /// A value was asked for as a type it doesn't have.
    #[error("value \"{name}\" is a {found}, expected {expected}")]
    WrongType {
        /// The value's name.
        name: String,
        /// What was asked for.
        expected: &'static str,
        /// The type it has.
        found: ValueType,
    },

    /// A number whose data has another length than its type demands.
    #[error("value \"{name}\" is a {value_type} of {found} bytes, expected {expected}")]
    WrongLength {
        /// The value's name.
        name: String,
        /// Its type.
        value_type: ValueType,
        /// Bytes the type has.
        expected: usize,
        /// Bytes the value has.
        found: usize,
    },
}

/// A place in a hive that is not as the format demands.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{kind} at file offset {at}: expected {expected}, found {found}")]
pub struct Defect {
    /// Where, from the start of the file.
    pub at: FileOffset,
    /// Which structure.
    pub kind: DefectKind,
    /// What the format demands there.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

impl Defect {
    pub(crate) fn new(
        at: FileOffset,
        kind: DefectKind,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self {
            at,
            kind,
            expected: expected.into(),
            found: found.into(),
        }
    }
}

impl From<Defect> for HiveError {
    fn from(defect: Defect) -> Self {
        Self::Damaged(Box::new(defect))
    }
}

/// The structure a [`Defect`] was found in, in the terms of the format.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum DefectKind {
    /// The 4096 bytes the file begins with.
    BaseBlock,
    /// The record of a long value's segments (`db`).
    BigData,
    /// The header of a hive bin.
    Bin,
    /// A cell's size, or a reference to no cell.
    Cell,
    /// A cell that nothing refers to, or that two things refer to.
    CellUse,
    /// A key's class name.
    ClassName,
    /// A key node (`nk`).
    KeyNode,
    /// The order of a subkey list.
    KeyOrder,
    /// A key's back reference to its parent.
    ParentLink,
    /// A security record (`sk`).
    Security,
    /// A list of subkeys (`lf`, `lh`, `li`, `ri`).
    SubkeyList,
    /// A value (`vk`).
    Value,
    /// A value's data.
    ValueData,
    /// A key's list of values.
    ValueList,
}

impl fmt::Display for DefectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BaseBlock => "base block",
            Self::BigData => "big data record",
            Self::Bin => "hive bin",
            Self::Cell => "cell",
            Self::CellUse => "use of a cell",
            Self::ClassName => "class name",
            Self::KeyNode => "key node",
            Self::KeyOrder => "subkey order",
            Self::ParentLink => "parent link",
            Self::Security => "security record",
            Self::SubkeyList => "subkey list",
            Self::Value => "value",
            Self::ValueData => "value data",
            Self::ValueList => "value list",
        })
    }
}
