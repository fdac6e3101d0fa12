//! The quantities of the format as types.

/// A sector size that VHDX, and every tool around it, can express.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
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
