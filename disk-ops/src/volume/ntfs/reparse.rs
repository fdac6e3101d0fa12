//! Reparse points (MS-FSCC 2.1.2): what they are and where they lead.

use std::fmt;

use super::fields::Fields;

/// What a reparse point is.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Reparse {
    /// A mount point that leads to another folder, often of another volume.
    Junction {
        /// Where to, as Windows NT names it: `\??\C:\Users`.
        target: String,
    },
    /// Anything else; a filter driver of this tag would know.
    Other {
        /// The tag.
        tag: u32,
    },
    /// A symbolic link.
    Symlink {
        /// Where to.
        target: String,
        /// Whether the target counts from the folder of the link.
        is_relative: bool,
    },
    /// A file whose content is kept compressed in a stream beside it (CompactOS).
    Wof(WofAlgorithm),
    /// A file whose content is in a WIM file.
    WofWim,
}

/// A compression of CompactOS (FILE_PROVIDER_EXTERNAL_INFO_V1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WofAlgorithm {
    /// XPRESS in chunks of 4 KiB.
    Xpress4K,
    /// LZX in chunks of 32 KiB.
    Lzx,
    /// XPRESS in chunks of 8 KiB.
    Xpress8K,
    /// XPRESS in chunks of 16 KiB.
    Xpress16K,
}

impl Reparse {
    /// Reads the value of a `$REPARSE_POINT` attribute; `None` when it is cut or malformed.
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        let tag = Fields(value).u32(0)?;
        let length = usize::from(Fields(value).u16(4)?);
        // A tag that is not Microsoft's has a GUID between the header and the data.
        let data_at = if tag & MICROSOFT_TAG == 0 { 24 } else { 8 };
        let data = Fields(Fields(value).slice(data_at, length)?);
        match tag {
            MOUNT_POINT => Some(Self::Junction {
                target: target(data, 8)?,
            }),
            SYMLINK => Some(Self::Symlink {
                target: target(data, 12)?,
                is_relative: data.u32(8)? & 1 == 1,
            }),
            WOF => wof(data),
            tag => Some(Self::Other { tag }),
        }
    }

    /// Whether it stands for the file itself, not for another place.
    pub fn is_content(&self) -> bool {
        matches!(self, Self::Wof(_) | Self::WofWim)
    }
}

impl fmt::Display for Reparse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Junction { target } => write!(f, "a junction to {target}"),
            Self::Other { tag } => write!(f, "a reparse point of tag {tag:#010x}"),
            Self::Symlink { target, .. } => write!(f, "a symbolic link to {target}"),
            Self::Wof(algorithm) => write!(f, "compressed by CompactOS ({algorithm})"),
            Self::WofWim => f.write_str("a file kept in a WIM file"),
        }
    }
}

impl WofAlgorithm {
    /// The bytes of content in a chunk.
    pub fn chunk_size(self) -> usize {
        match self {
            Self::Xpress4K => 4 << 10,
            Self::Lzx => 32 << 10,
            Self::Xpress8K => 8 << 10,
            Self::Xpress16K => 16 << 10,
        }
    }

    fn from_raw(raw: u32) -> Option<Self> {
        match raw {
            0 => Some(Self::Xpress4K),
            1 => Some(Self::Lzx),
            2 => Some(Self::Xpress8K),
            3 => Some(Self::Xpress16K),
            _ => None,
        }
    }
}

impl fmt::Display for WofAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xpress4K => "XPRESS4K",
            Self::Lzx => "LZX",
            Self::Xpress8K => "XPRESS8K",
            Self::Xpress16K => "XPRESS16K",
        })
    }
}

/// The substitute name in a buffer whose names begin at `names_at`.
fn target(data: Fields<'_>, names_at: usize) -> Option<String> {
    let offset = usize::from(data.u16(0)?);
    let length = usize::from(data.u16(2)?);
    data.utf16(names_at + offset, length)
}

/// WOF_EXTERNAL_INFO, and behind it the information of the provider.
fn wof(data: Fields<'_>) -> Option<Reparse> {
    const WIM_PROVIDER: u32 = 1;
    const FILE_PROVIDER: u32 = 2;
    match (data.u32(0)?, data.u32(4)?) {
        (1, WIM_PROVIDER) => Some(Reparse::WofWim),
        (1, FILE_PROVIDER) if data.u32(8)? == 1 => {
            WofAlgorithm::from_raw(data.u32(12)?).map(Reparse::Wof)
        }
        _ => Some(Reparse::Other { tag: WOF }),
    }
}

const MICROSOFT_TAG: u32 = 0x8000_0000;
const MOUNT_POINT: u32 = 0xA000_0003;
const SYMLINK: u32 = 0xA000_000C;
const WOF: u32 = 0x8000_0017;

#[cfg(test)]
mod tests {
    use super::*;

    fn point(tag: u32, data: &[u8]) -> Vec<u8> {
        let head = [
            &tag.to_le_bytes()[..],
            &(data.len() as u16).to_le_bytes(),
            &[0, 0],
        ];
        [&head.concat()[..], data].concat()
    }

    fn names(more: &[u8], target: &str) -> Vec<u8> {
        let target: Vec<u8> = target.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let length = (target.len() as u16).to_le_bytes();
        [&[0, 0], &length[..], &length, &[0, 0], more, &target].concat()
    }

    #[test]
    fn links_tell_where_they_lead() {
        let junction = point(MOUNT_POINT, &names(&[], r"\??\C:\Users"));
        assert_eq!(
            Reparse::parse(&junction).unwrap(),
            Reparse::Junction {
                target: r"\??\C:\Users".into()
            }
        );
        let link = point(SYMLINK, &names(&[1, 0, 0, 0], r"..\x"));
        assert_eq!(
            Reparse::parse(&link).unwrap().to_string(),
            r"a symbolic link to ..\x"
        );
        assert!(Reparse::parse(&link[..link.len() - 1]).is_none());
    }

    #[test]
    fn compressed_files_tell_their_algorithm() {
        for (raw, algorithm) in [(0, WofAlgorithm::Xpress4K), (1, WofAlgorithm::Lzx)] {
            let value = point(WOF, &[1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, raw, 0, 0, 0]);
            assert_eq!(Reparse::parse(&value), Some(Reparse::Wof(algorithm)));
        }
        let unknown = point(WOF, &[1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0]);
        assert_eq!(Reparse::parse(&unknown), None);
    }
}
