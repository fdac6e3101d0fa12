//! Offsets, sizes and times as types of their own.
//!
//! A hive mixes two kinds of offset: from the start of the file and from the start of the hive
//! bins, 4096 bytes further on. Mixing them up is the classic mistake with this format, so each is
//! a type.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::format::BASE_BLOCK_LEN;

/// The position of a cell's size field, in bytes from the start of the hive bins.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CellOffset(u32);

impl CellOffset {
    /// Takes an offset field as it stands in the file; the value that points nowhere
    /// (0xFFFFFFFF) is `None`.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        if raw == NIL { None } else { Some(Self(raw)) }
    }

    /// The offset in bytes from the start of the hive bins.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The same place in bytes from the start of the file.
    pub fn in_file(self) -> FileOffset {
        FileOffset(u64::from(self.0) + BASE_BLOCK_LEN_U64)
    }

    /// For offsets that are in hand already and so are not the value that points nowhere.
    pub(crate) const fn new(raw: u32) -> Self {
        Self(raw)
    }
}

impl fmt::Display for CellOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A position in a hive or log file, in bytes from its start.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FileOffset(u64);

impl FileOffset {
    /// The position `bytes` from the start of the file.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Bytes from the start of the file.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for FileOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A Windows FILETIME: 100 ns ticks since 1 January 1601, UTC.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FileTime(u64);

impl FileTime {
    /// The time `ticks` of 100 ns after 1 January 1601.
    pub const fn from_ticks(ticks: u64) -> Self {
        Self(ticks)
    }

    /// 100 ns ticks since 1 January 1601.
    pub const fn ticks(self) -> u64 {
        self.0
    }
}

/// A clock that stands before 1970 is wrong, and counts as 1970.
impl From<SystemTime> for FileTime {
    fn from(time: SystemTime) -> Self {
        let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let ticks = u64::try_from(since_1970.as_nanos() / 100).unwrap_or(u64::MAX);
        Self(ticks.saturating_add(TICKS_BEFORE_1970))
    }
}

/// From the first day of 1601 to the first of 1970.
const TICKS_BEFORE_1970: u64 = 116_444_736_000_000_000;

/// The version of the hive format; the major number is always 1.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Version {
    /// Windows NT 4 on; still written for user hives and BCD stores.
    V1_3,
    /// Never released widely; adds big data.
    V1_4,
    /// Windows XP on; adds hash leaves. The system's own hives.
    V1_5,
    /// Windows 10 on; differencing hives of containers.
    V1_6,
}

impl Version {
    pub(crate) const fn from_minor(minor: u32) -> Option<Self> {
        match minor {
            3 => Some(Self::V1_3),
            4 => Some(Self::V1_4),
            5 => Some(Self::V1_5),
            6 => Some(Self::V1_6),
            _ => None,
        }
    }

    /// The minor version number.
    pub const fn minor(self) -> u32 {
        match self {
            Self::V1_3 => 3,
            Self::V1_4 => 4,
            Self::V1_5 => 5,
            Self::V1_6 => 6,
        }
    }

    /// Whether values longer than one segment are stored as big data ("Big data").
    pub(crate) const fn has_big_data(self) -> bool {
        self.minor() > 3
    }

    /// Whether subkey lists carry name hashes ("Hash leaf").
    pub(crate) const fn has_hash_leaves(self) -> bool {
        self.minor() > 4
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.minor())
    }
}

/// A `u32` as an index. Lossless: Windows hives are handled on 32 and 64-bit machines only.
#[expect(
    clippy::as_conversions,
    reason = "usize has at least 32 bits, asserted below"
)]
pub(crate) const fn index(value: u32) -> usize {
    value as usize
}

/// A length that is known to be within a hive, as the 32 bits the format has for it. A longer one
/// (no hive holds it) becomes the largest number, which every bound check refuses.
pub(crate) fn length(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// `value` rounded up to a multiple of `step`, a power of two; `None` past 32 bits.
pub(crate) const fn round_up(value: u32, step: u32) -> Option<u32> {
    match value.checked_add(step - 1) {
        Some(sum) => Some(sum & !(step - 1)),
        None => None,
    }
}

/// The offset that points nowhere.
pub(crate) const NIL: u32 = 0xFFFF_FFFF;

#[expect(clippy::as_conversions, reason = "widening in a constant")]
const BASE_BLOCK_LEN_U64: u64 = BASE_BLOCK_LEN as u64;

const _: () = assert!(usize::BITS >= 32);
