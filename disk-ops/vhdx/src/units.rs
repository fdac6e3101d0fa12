//! The quantities of the format as types, so that one is never taken for the other.

use std::fmt;

/// A sector size that VHDX, and every tool around it, can express.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum SectorSize {
    /// 512 bytes.
    B512,
    /// 4096 bytes ("4K native").
    B4096,
}

impl SectorSize {
    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::B512 => 512,
            Self::B4096 => 4096,
        }
    }

    /// The sector size of `bytes` bytes, if it is one of the two.
    pub const fn from_bytes(bytes: u64) -> Option<Self> {
        match bytes {
            512 => Some(Self::B512),
            4096 => Some(Self::B4096),
            _ => None,
        }
    }
}

/// The size of a VHDX payload block: a power of two from 1 MiB to 256 MiB (MS-VHDX 2.6.2.1).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BlockSize(u32);

impl BlockSize {
    /// 2 MiB: small enough that little zero padding is stored, and the block allocation table of
    /// a 2 TiB disk still takes no more than 9 MiB.
    pub const DEFAULT: Self = Self(2 << 20);

    /// 32 MiB, as Citrix Provisioning makes its own disks.
    pub const PROVISIONING: Self = Self(32 << 20);

    /// The block size of `bytes` bytes, if the format has it.
    pub const fn from_bytes(bytes: u32) -> Option<Self> {
        if bytes.is_power_of_two() && bytes >= 1 << 20 && bytes <= 256 << 20 {
            Some(Self(bytes))
        } else {
            None
        }
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    /// The size as the field of the file parameters holds it.
    pub const fn raw(self) -> u32 {
        self.0
    }
}

impl Default for BlockSize {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A byte position in an image file, counted from its start. Shown in hexadecimal.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FileOffset(pub u64);

/// A byte position on the disk that an image holds. Shown in hexadecimal.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct VirtualOffset(pub u64);

/// The number of a payload block on the disk, counted from zero.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PayloadBlock(pub u64);

impl fmt::Display for FileOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for VirtualOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for PayloadBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `value` as an index into a buffer.
///
/// What lies past the address space becomes the largest index, which no buffer has: checked
/// slicing refuses it as it refuses every other position behind the end.
pub(crate) fn buffer_index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// The length of `bytes` in the type that file positions are counted in.
pub(crate) fn length_of<T>(bytes: &[T]) -> u64 {
    // No buffer is longer than the address space, and no address space is wider than 64 bits.
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// One mebibyte, the unit in which VHDX places everything.
pub(crate) const MIB: u64 = 1 << 20;
