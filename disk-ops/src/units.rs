//! Positions and lengths as types, so that one is never taken for the other.

use std::fmt;

/// A byte position on a disk or in an image file, counted from its start.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ByteOffset(pub u64);

impl ByteOffset {
    /// The start of the disk or file.
    pub const ZERO: Self = Self(0);

    /// The position `count` bytes further on, or `None` past 2^64.
    pub fn checked_add(self, count: ByteCount) -> Option<Self> {
        self.0.checked_add(count.0).map(Self)
    }

    /// The distance from `earlier` to here, or `None` if `earlier` lies behind.
    pub fn since(self, earlier: Self) -> Option<ByteCount> {
        self.0.checked_sub(earlier.0).map(ByteCount)
    }
}

/// Shown in hexadecimal, as positions are in every disk tool.
impl fmt::Display for ByteOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ByteCount(pub u64);

impl ByteCount {
    /// `count` mebibytes (2^20 bytes each).
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// The position that lies this many bytes after the start.
    pub fn end(self) -> ByteOffset {
        ByteOffset(self.0)
    }
}

/// Exact bytes with the nearest binary unit behind them, `1610612736 bytes (1.5 GiB)`; in the
/// alternate form (`{:#}`) the unit alone, `1.5 GiB`.
impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        let mut value = self.0 as f64;
        let mut unit = None;
        for name in UNITS {
            if value < 1024.0 {
                break;
            }
            value /= 1024.0;
            unit = Some(name);
        }
        match unit {
            Some(name) if f.alternate() => write!(f, "{value:.1} {name}"),
            Some(name) => write!(f, "{} bytes ({value:.1} {name})", self.0),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

/// The two sector sizes a disk reports.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SectorSizes {
    /// The unit in which the disk is addressed (LBA), and in which GPT and NTFS count.
    pub logical: SectorSize,
    /// The unit in which the medium stores data; at least `logical`.
    pub physical: SectorSize,
}

impl SectorSizes {
    /// 512-byte sectors throughout, which is what a raw file is unless it is said otherwise.
    pub const B512: Self = Self {
        logical: SectorSize::B512,
        physical: SectorSize::B512,
    };
}

pub use ce_vhdx::{BlockSize, SectorSize};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_shown_exactly_and_in_the_nearest_unit() {
        assert_eq!(ByteCount(512).to_string(), "512 bytes");
        assert_eq!(
            ByteCount::mib(1536).to_string(),
            "1610612736 bytes (1.5 GiB)"
        );
        assert_eq!(format!("{:#}", ByteCount::mib(1536)), "1.5 GiB");
        assert_eq!(format!("{:#}", ByteCount(1023)), "1023 bytes");
        assert_eq!(format!("{:#}", ByteCount(u64::MAX)), "16384.0 PiB");
    }
}
