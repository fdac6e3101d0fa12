//! The first 208 bytes of a WIM file.
//!
//! ```text
//!    0 magic "MSWIM"   8 length   12 version   16 flags   20 chunk size   24 GUID
//!   40 part   42 parts   44 images   48 blobs   72 XML   96 metadata of the boot image
//!  120 boot image   124 integrity table
//! ```
//!
//! Resources are 24 bytes: 7 of length in the file, 1 of flags, 8 of position, 8 of length unpacked.
//! Numbers are little-endian. Source: Microsoft, "Windows Imaging File Format (WIM)", and the headers of
//! wimlib for what came later (pipable files, solid resources).

use std::fmt;

use crate::units::ByteCount;

/// A WIM file that can be changed: one part, an image to boot, packed in chunks or not at all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WimHeader {
    /// How many images are in it.
    pub images: u32,
    /// The image that boots, from 1.
    pub boot_image: u32,
}

/// Why a file is no WIM file, or none that is changed here.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WimProblem {
    /// Somebody stopped while writing it.
    #[error("it was not written to its end")]
    BeingWritten,
    /// It ends before what its header names.
    #[error("it is cut: {part} ends at byte {end}, and the file has {found}")]
    Cut {
        /// What does not fit.
        part: &'static str,
        /// Where that would end.
        end: u64,
        /// How long the file is.
        found: ByteCount,
    },
    /// Which of its images boots cannot be told.
    #[error("it has {images} images and boots number {boot}")]
    NoBootImage {
        /// How many it has.
        images: u32,
        /// The one that it boots.
        boot: u32,
    },
    /// It does not begin as one.
    #[error("it is no WIM file")]
    NotAWim,
    /// It is made to be sent through a pipe; nothing boots from one.
    #[error("it is a pipable WIM file")]
    Pipable,
    /// It says that it is not to be changed.
    #[error("it is marked read-only")]
    ReadOnly,
    /// It is packed as a whole, as ESD files are.
    #[error("it is packed as a whole (an ESD file)")]
    Solid,
    /// Other parts are in other files.
    #[error("it is part {part} of {parts}")]
    Split {
        /// Which one it is.
        part: u16,
        /// Of how many.
        parts: u16,
    },
}

impl WimHeader {
    /// How long it is.
    pub const LENGTH: usize = 208;

    /// Reads it from the start of a file of `size` bytes.
    ///
    /// # Errors
    ///
    /// [`WimProblem`], for all that is not changed here.
    pub fn parse(start: &[u8], size: ByteCount) -> Result<Self, WimProblem> {
        let header: &[u8; Self::LENGTH] = match start.first_chunk() {
            Some(header) => header,
            None => return Err(WimProblem::NotAWim),
        };
        let fields = Fields(header);
        match &header[..8] {
            b"MSWIM\0\0\0" => {}
            b"WLPWM\0\0\0" => return Err(WimProblem::Pipable),
            _ => return Err(WimProblem::NotAWim),
        }
        if fields.u32(8) as usize != Self::LENGTH {
            return Err(WimProblem::NotAWim);
        }
        let flags = fields.u32(16);
        match fields.u32(12) {
            VERSION if flags & LZMS == 0 => {}
            VERSION | VERSION_SOLID => return Err(WimProblem::Solid),
            _ => return Err(WimProblem::NotAWim),
        }
        let (part, parts) = (fields.u16(40), fields.u16(42));
        if flags & SPANNED != 0 || (part, parts) != (1, 1) {
            return Err(WimProblem::Split { part, parts });
        }
        if flags & WRITE_IN_PROGRESS != 0 {
            return Err(WimProblem::BeingWritten);
        }
        if flags & READ_ONLY != 0 {
            return Err(WimProblem::ReadOnly);
        }
        for (part, at) in RESOURCES {
            let end = fields.resource_end(at);
            if end > size.0 {
                let found = size;
                return Err(WimProblem::Cut { part, end, found });
            }
        }
        let (images, boot) = (fields.u32(44), fields.u32(120));
        let boot_image = match (images, boot) {
            // A file of one image boots that, whatever it says.
            (1, 0) => 1,
            (images, boot) if (1..=images).contains(&boot) => boot,
            _ => return Err(WimProblem::NoBootImage { images, boot }),
        };
        Ok(Self { images, boot_image })
    }
}

impl fmt::Display for WimHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "image {} of {}", self.boot_image, self.images)
    }
}

/// The header by positions, all of which lie in it.
struct Fields<'h>(&'h [u8; WimHeader::LENGTH]);

impl Fields<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        let bytes = self.0.get(at..).and_then(<[u8]>::first_chunk);
        bytes.copied().unwrap_or([0; N])
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes(at))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes(at))
    }

    /// Where a resource ends in the file.
    fn resource_end(&self, at: usize) -> u64 {
        let length = self.u64(at) & 0x00FF_FFFF_FFFF_FFFF;
        match length {
            0 => 0,
            length => self.u64(at + 8).saturating_add(length),
        }
    }
}

const VERSION: u32 = 0x10D00;
const VERSION_SOLID: u32 = 0xE00;

const READ_ONLY: u32 = 0x4;
const SPANNED: u32 = 0x8;
const WRITE_IN_PROGRESS: u32 = 0x40;
const LZMS: u32 = 0x8_0000;

const RESOURCES: [(&str, usize); 4] = [
    ("the table of blobs", 48),
    ("the description", 72),
    ("the tree of the boot image", 96),
    ("the integrity table", 124),
];

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: ByteCount = ByteCount(1000);

    /// The header of a file of one image, packed by LZX.
    fn header() -> [u8; WimHeader::LENGTH] {
        let mut header = [0; WimHeader::LENGTH];
        header[..5].copy_from_slice(b"MSWIM");
        header[8] = 208;
        header[12..16].copy_from_slice(&VERSION.to_le_bytes());
        header[16..20].copy_from_slice(&0x4_0002_u32.to_le_bytes());
        (header[40], header[42], header[44]) = (1, 1, 1);
        header[48] = 50;
        header[56..58].copy_from_slice(&700_u16.to_le_bytes());
        header[120] = 1;
        header
    }

    fn with(change: impl Fn(&mut [u8])) -> Result<WimHeader, WimProblem> {
        let mut header = header();
        change(&mut header);
        WimHeader::parse(&header, SIZE)
    }

    #[test]
    fn a_file_of_one_image_boots_it() {
        let expected = WimHeader {
            images: 1,
            boot_image: 1,
        };
        assert_eq!(with(|_| ()), Ok(expected));
        assert_eq!(with(|header| header[120] = 0), Ok(expected));
        let two = with(|header| (header[44], header[120]) = (2, 2)).unwrap();
        assert_eq!((two.images, two.boot_image), (2, 2));
        assert_eq!(two.to_string(), "image 2 of 2");
    }

    #[test]
    fn what_is_not_changed_is_told_by_its_reason() {
        use WimProblem as P;
        let found = SIZE;
        let flag = |flag: u32| {
            move |header: &mut [u8]| header[16..20].copy_from_slice(&flag.to_le_bytes())
        };
        for (problem, expected) in [
            (with(|header| header[0] = b'X'), P::NotAWim),
            (with(|header| header[8] = 96), P::NotAWim),
            (with(|header| header[13] = 0x0C), P::NotAWim),
            (
                with(|header| header[..5].copy_from_slice(b"WLPWM")),
                P::Pipable,
            ),
            (
                with(|header| header[12..16].copy_from_slice(&0xE00_u32.to_le_bytes())),
                P::Solid,
            ),
            (with(flag(0x8_0002)), P::Solid),
            (with(flag(0x8)), P::Split { part: 1, parts: 1 }),
            (
                with(|header| (header[40], header[42]) = (2, 3)),
                P::Split { part: 2, parts: 3 },
            ),
            (with(flag(0x40)), P::BeingWritten),
            (with(flag(0x4)), P::ReadOnly),
            (
                with(|header| header[120] = 2),
                P::NoBootImage { images: 1, boot: 2 },
            ),
            (
                with(|header| header[44] = 0),
                P::NoBootImage { images: 0, boot: 1 },
            ),
            (
                with(|header| header[57] = 4),
                P::Cut {
                    part: "the table of blobs",
                    end: 1262,
                    found: SIZE,
                },
            ),
            (
                with(|header| header[124..140].fill(0xFF)),
                P::Cut {
                    part: "the integrity table",
                    end: u64::MAX,
                    found,
                },
            ),
        ] {
            assert_eq!(problem, Err(expected));
        }
        assert_eq!(WimHeader::parse(&header()[..207], SIZE), Err(P::NotAWim));
    }
}
