//! What has to be kept of an export to go on with it in another process: a small file.
//!
//! ```text
//!  "ce-chkp2" | disk: size, sectors, stamp, samples, mask | options | position | file end
//!             | content digest | MD5 state, if hashed | image writer: one bit per block | BLAKE3
//! ```
//!
//! All numbers are little-endian. The file lies where others may write, so [`Checkpoint::parse`]
//! takes any bytes: a checksum finds damage, every field is checked, and nothing is allocated that
//! is longer than what was given. It is no protection against forgery, as whoever can write the
//! checkpoint can write the image.

use digest::common::hazmat::SerializableState;

use super::fingerprint::SourceFingerprint;
use super::stage::CHUNK;
use super::{ExportOptions, FreeSpace, ImageFormat};
use crate::block::FileStamp;
use crate::md5::Md5;
use crate::units::{BlockSize, ByteCount, ByteOffset};
use crate::volume::MaskIdentity;

/// An export that can be gone on with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Checkpoint {
    pub(super) source: SourceFingerprint,
    pub(super) format: ImageFormat,
    /// Where on the disk it goes on: whole chunks, and not the end.
    pub(super) position: ByteOffset,
    pub(super) image: SavedImage,
    /// There if the disk is hashed.
    pub(super) md5: Option<SavedMd5>,
}

/// The state of the stage that writes the image.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct SavedImage {
    /// The end of what was written, or counts as zeros, in the file.
    pub(super) end: u64,
    pub(super) content: [u8; ce_vhdx::SAVED_LENGTH],
    /// A saved [`ce_vhdx::VhdxWriter`]; empty for a VHD, whose writer has no state.
    pub(super) writer: Vec<u8>,
}

/// A saved [`Md5`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct SavedMd5([u8; MD5_LENGTH]);

impl SavedMd5 {
    pub(super) fn of(md5: &Md5) -> Self {
        Self(md5.serialize().0)
    }

    /// The digest that was saved, or `None` if no digest can be in that state.
    pub(super) fn restore(&self) -> Option<Md5> {
        Md5::deserialize(&self.0.into()).ok()
    }
}

impl Checkpoint {
    /// How far on the disk it is.
    pub fn position(&self) -> ByteOffset {
        self.position
    }

    /// Whether the disk is hashed.
    pub(super) fn is_hashed(&self) -> bool {
        self.md5.is_some()
    }

    /// Whether free space is left out.
    fn skips_free_space(&self) -> bool {
        matches!(self.source.free_space, FreeSpace::Skip(_))
    }

    /// The option in which the export that is continued by `options` differs, if it does, and what
    /// it was and is.
    pub(super) fn other_option(
        &self,
        options: &ExportOptions,
    ) -> Option<(&'static str, String, String)> {
        use ImageFormat as F;
        let told = |hash| if hash { "wanted" } else { "not wanted" }.to_owned();
        match (self.format, options.format) {
            (F::Vhdx(was), F::Vhdx(now)) if was != now => {
                let size = |size: BlockSize| format!("{:#}", ByteCount(size.bytes()));
                Some(("block size", size(was), size(now)))
            }
            (F::Vhdx(_), F::FixedVhd) => Some(("format", "VHDX".into(), "VHD".into())),
            (F::FixedVhd, F::Vhdx(_)) => Some(("format", "VHD".into(), "VHDX".into())),
            _ if self.is_hashed() != options.hash => {
                Some(("hash", told(self.is_hashed()), told(options.hash)))
            }
            _ if self.skips_free_space() != matches!(options.free_space, FreeSpace::Skip(_)) => {
                let told = |skip| if skip { "skipped" } else { "copied" }.to_owned();
                let was = self.skips_free_space();
                Some(("free space", told(was), told(!was)))
            }
            _ => None,
        }
    }

    /// The checkpoint as bytes, at most [`LONGEST_CHECKPOINT`] of them.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        let source = &self.source;
        bytes.extend(source.size.to_le_bytes());
        bytes.extend(source.logical_sector.to_le_bytes());
        bytes.extend(source.physical_sector.to_le_bytes());
        match source.file {
            None => bytes.push(0),
            Some(stamp) => {
                bytes.push(1);
                bytes.extend(stamp.inode.to_le_bytes());
                bytes.extend(stamp.modified_seconds.to_le_bytes());
                bytes.extend(stamp.modified_nanoseconds.to_le_bytes());
            }
        }
        bytes.extend(source.samples);
        match source.free_space {
            FreeSpace::Copy => bytes.push(0),
            FreeSpace::Skip(MaskIdentity(identity)) => {
                bytes.push(1);
                bytes.extend(identity);
            }
        }
        let block_size = match self.format {
            ImageFormat::Vhdx(size) => size.bytes(),
            ImageFormat::FixedVhd => 0,
        };
        bytes.extend(block_size.to_le_bytes());
        bytes.extend(self.position.0.to_le_bytes());
        bytes.extend(self.image.end.to_le_bytes());
        bytes.extend(self.image.content);
        match self.md5 {
            None => bytes.push(0),
            Some(SavedMd5(state)) => {
                bytes.push(1);
                bytes.extend(state);
            }
        }
        bytes.extend((self.image.writer.len() as u64).to_le_bytes());
        bytes.extend(&self.image.writer);
        let sum = blake3::hash(&bytes);
        bytes.extend(sum.as_bytes());
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`], for any other bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let name = &SIGNATURE[..SIGNATURE.len() - 1];
        if !bytes.starts_with(name) {
            return Err(CheckpointError::Foreign);
        }
        if !bytes.starts_with(&SIGNATURE) {
            return Err(CheckpointError::Version);
        }
        let (body, sum) = bytes
            .split_last_chunk::<{ blake3::OUT_LEN }>()
            .ok_or(CheckpointError::Damaged)?;
        if blake3::hash(body).as_bytes() != sum {
            return Err(CheckpointError::Damaged);
        }
        let mut fields = Fields(body);
        fields.take::<{ SIGNATURE.len() }>()?;
        let checkpoint = Self {
            source: fields.source()?,
            format: match fields.number()? {
                0 => ImageFormat::FixedVhd,
                size => {
                    let size = u32::try_from(size).ok().and_then(BlockSize::from_bytes);
                    ImageFormat::Vhdx(size.ok_or(CheckpointError::Field { name: "block size" })?)
                }
            },
            position: ByteOffset(fields.number()?),
            image: SavedImage {
                end: fields.number()?,
                content: fields.take()?,
                writer: Vec::new(),
            },
            md5: match fields.is_there("hash")? {
                true => Some(SavedMd5(fields.take()?)),
                false => None,
            },
        };
        let length = fields.number()?;
        if length != fields.0.len() as u64 {
            return Err(CheckpointError::Field {
                name: "length of the image writer's state",
            });
        }
        let aligned = checkpoint.position.0.is_multiple_of(CHUNK as u64);
        if !aligned || checkpoint.position.0 >= checkpoint.source.size {
            return Err(CheckpointError::Field { name: "position" });
        }
        let image = SavedImage {
            writer: fields.0.to_vec(),
            ..checkpoint.image
        };
        Ok(Self {
            image,
            ..checkpoint
        })
    }
}

/// Why bytes are no checkpoint.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The checksum is wrong, or bytes are missing.
    #[error("the checkpoint beside the partial image is damaged")]
    Damaged,
    /// A field has a value that no export writes.
    #[error("the {name} in the checkpoint beside the partial image can't be right")]
    Field {
        /// The field.
        name: &'static str,
    },
    /// The file is something else.
    #[error("what lies beside the partial image is no checkpoint")]
    Foreign,
    /// Another version of the program wrote it.
    #[error("the checkpoint beside the partial image is of another version of this program")]
    Version,
}

/// What has not been read yet.
struct Fields<'b>(&'b [u8]);

impl Fields<'_> {
    fn take<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], CheckpointError> {
        let (field, rest) = self.0.split_first_chunk().ok_or(CheckpointError::Damaged)?;
        self.0 = rest;
        Ok(*field)
    }

    fn number(&mut self) -> Result<u64, CheckpointError> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    /// Whether an optional field follows.
    fn is_there(&mut self, name: &'static str) -> Result<bool, CheckpointError> {
        match self.take()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(CheckpointError::Field { name }),
        }
    }

    fn source(&mut self) -> Result<SourceFingerprint, CheckpointError> {
        Ok(SourceFingerprint {
            size: self.number()?,
            logical_sector: self.number()?,
            physical_sector: self.number()?,
            file: match self.is_there("file stamp")? {
                true => Some(FileStamp {
                    inode: self.number()?,
                    modified_seconds: i64::from_le_bytes(self.take()?),
                    modified_nanoseconds: u32::from_le_bytes(self.take()?),
                }),
                false => None,
            },
            samples: self.take()?,
            free_space: match self.is_there("free space")? {
                true => FreeSpace::Skip(MaskIdentity(self.take()?)),
                false => FreeSpace::Copy,
            },
        })
    }
}

/// The longest a checkpoint can be, in bytes: one bit for each 1 MiB block of 64 TiB, and 64 KiB
/// for everything else.
pub const LONGEST_CHECKPOINT: usize = (8 << 20) + (64 << 10);

/// Ends in the version of the layout.
const SIGNATURE: [u8; 8] = *b"ce-chkp2";

/// State, count and begun block of [`Md5`].
const MD5_LENGTH: usize = 24 + 64;

#[cfg(test)]
mod tests {
    use digest::Digest;
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn checkpoints()(
            size in 1u64..1 << 46,
            stamp in any::<Option<(u64, i64, u32)>>(),
            samples in any::<[u8; 32]>(),
            masked in any::<Option<[u8; 32]>>(),
            format in prop_oneof![
                Just(ImageFormat::FixedVhd),
                (20u32..29).prop_map(|log| ImageFormat::Vhdx(BlockSize::from_bytes(1 << log).unwrap())),
            ],
            at in any::<prop::sample::Index>(),
            end in any::<u64>(),
            hashed in any::<Option<[u8; 40]>>(),
            writer in prop::collection::vec(any::<u8>(), 0..100),
        ) -> Checkpoint {
            let md5 = hashed.map(|bytes| SavedMd5::of(&Md5::default().chain_update(bytes)));
            let chunks = size.div_ceil(CHUNK as u64);
            Checkpoint {
                source: SourceFingerprint {
                    size,
                    logical_sector: 512,
                    physical_sector: 4096,
                    file: stamp.map(|(inode, modified_seconds, modified_nanoseconds)| FileStamp {
                        inode, modified_seconds, modified_nanoseconds,
                    }),
                    samples,
                    free_space: masked.map_or(FreeSpace::Copy, |identity| {
                        FreeSpace::Skip(MaskIdentity(identity))
                    }),
                },
                format,
                position: ByteOffset(at.index(chunks as usize) as u64 * CHUNK as u64),
                image: SavedImage { end, content: hashed.unwrap_or([3; 40]), writer },
                md5,
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_saved_is_read_again(checkpoint in checkpoints()) {
            prop_assert_eq!(Checkpoint::parse(&checkpoint.to_bytes()), Ok(checkpoint));
        }

        #[test]
        fn a_single_wrong_byte_is_found(
            checkpoint in checkpoints(),
            at in any::<prop::sample::Index>(),
            wrong in 1u8..,
        ) {
            let mut bytes = checkpoint.to_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= wrong;
            prop_assert!(Checkpoint::parse(&bytes).is_err());
        }

        #[test]
        fn a_checkpoint_that_is_cut_short_is_refused(
            checkpoint in checkpoints(),
            at in any::<prop::sample::Index>(),
        ) {
            let bytes = checkpoint.to_bytes();
            prop_assert!(Checkpoint::parse(&bytes[..at.index(bytes.len())]).is_err());
        }

        // With a checksum that is right: what is refused is refused by a field.
        #[test]
        fn whatever_is_written_there_is_read_or_refused(
            checkpoint in checkpoints(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
            more in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut bytes = checkpoint.to_bytes();
            bytes.truncate(bytes.len() - blake3::OUT_LEN);
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            bytes.extend(more);
            bytes.extend(blake3::hash(&bytes).as_bytes().as_slice());
            if let Ok(read) = Checkpoint::parse(&bytes) {
                prop_assert_eq!(read.to_bytes(), bytes);
            }
        }
    }

    #[test]
    fn other_files_and_versions_are_told_apart() {
        assert_eq!(Checkpoint::parse(b""), Err(CheckpointError::Foreign));
        assert_eq!(
            Checkpoint::parse(b"ce-chkp9..."),
            Err(CheckpointError::Version)
        );
        assert_eq!(Checkpoint::parse(&SIGNATURE), Err(CheckpointError::Damaged));
    }

    #[test]
    fn a_digest_goes_on_where_it_was_saved() {
        let half = Md5::default().chain_update(b"ab");
        let restored = SavedMd5::of(&half).restore().unwrap().chain_update(b"c");
        assert_eq!(restored.finalize(), Md5::digest(b"abc"));
        // More bytes in the block that is begun than a block has.
        assert!(SavedMd5([0xff; MD5_LENGTH]).restore().is_none());
    }
}
