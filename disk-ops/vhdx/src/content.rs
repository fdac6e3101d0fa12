//! The identity of what is on a disk, from which an image takes its GUIDs.
//!
//! ```text
//!  piece 0 (1 MiB) -- BLAKE3 --> PieceHash --+
//!  piece 1: zeros  -- none                   |   folded in ascending order
//!  piece 2 (1 MiB) -- BLAKE3 --> PieceHash --+--> state (32 bytes) --> ContentId
//! ```
//!
//! The state is small so that an interrupted export can keep it, and pieces can be hashed by
//! several threads. Zeros contribute nothing: neither whole pieces, nor the end of a piece. So the
//! result depends on the disk's bytes alone; not on how it was read, what the source knew to be
//! unallocated, or with how many zeros the last read was padded.

use blake3::Hasher;

use crate::geometry::Geometry;
use crate::zero::without_trailing_zeros;

/// The BLAKE3 hash of a piece of the disk that is not all zeros.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PieceHash([u8; 32]);

impl PieceHash {
    /// The hash of one piece, or `None` if all of it is zero.
    ///
    /// Zeros at the end of `bytes` do not change it: a short piece is as good as a padded one.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let content = without_trailing_zeros(bytes);
        (!content.is_empty()).then(|| Self(*blake3::hash(content).as_bytes()))
    }
}

/// Folds the pieces of a disk into a [`ContentId`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ContentDigest {
    state: [u8; 32],
    next_piece: u64,
}

impl ContentDigest {
    /// The digest of a disk of which nothing has been seen yet.
    pub const fn new() -> Self {
        Self {
            state: [0; 32],
            next_piece: 0,
        }
    }

    /// Adds the piece number `piece`, the [`PIECE_LENGTH`] bytes from `piece * PIECE_LENGTH` on.
    ///
    /// Only the last piece of a disk may be shorter. Pieces of zeros may be given or left out.
    ///
    /// # Errors
    ///
    /// [`ContentError`] when a piece was given before or is too long.
    pub fn update(&mut self, piece: u64, bytes: &[u8]) -> Result<(), ContentError> {
        if bytes.len() > PIECE_LENGTH {
            return Err(ContentError::PieceTooLong {
                piece,
                length: bytes.len(),
            });
        }
        match PieceHash::of(bytes) {
            Some(hash) => self.fold(piece, hash),
            None => self.check_order(piece),
        }
    }

    /// Adds the piece number `piece` by its hash, which may have been computed elsewhere.
    ///
    /// # Errors
    ///
    /// [`ContentError::OutOfOrder`] when this piece or a later one was given before.
    pub fn fold(&mut self, piece: u64, hash: PieceHash) -> Result<(), ContentError> {
        self.check_order(piece)?;
        let mut hasher = Hasher::new_derive_key(FOLD_CONTEXT);
        hasher.update(&self.state);
        hasher.update(&piece.to_le_bytes());
        hasher.update(&hash.0);
        self.state = *hasher.finalize().as_bytes();
        self.next_piece = piece.saturating_add(1);
        Ok(())
    }

    /// The lowest piece that may still be added.
    pub const fn next_piece(&self) -> u64 {
        self.next_piece
    }

    /// The identity of the disk whose pieces have been added.
    pub fn finish(&self, geometry: &Geometry) -> ContentId {
        let mut hasher = Hasher::new_derive_key(FINISH_CONTEXT);
        hasher.update(&self.state);
        hasher.update(&geometry.disk_size().to_le_bytes());
        hasher.update(&geometry.logical_sector().bytes().to_le_bytes());
        hasher.update(&geometry.physical_sector().bytes().to_le_bytes());
        ContentId(*hasher.finalize().as_bytes())
    }

    /// The state as bytes, for [`restore`](Self::restore).
    pub fn save(&self) -> [u8; SAVED_LENGTH] {
        let mut bytes = [0; SAVED_LENGTH];
        let (state, next_piece) = bytes.split_at_mut(self.state.len());
        state.copy_from_slice(&self.state);
        next_piece.copy_from_slice(&self.next_piece.to_le_bytes());
        bytes
    }

    /// The digest that [`save`](Self::save) saved. Every 40 bytes are a possible state, so it is
    /// for the caller to know that they are the ones that were saved.
    pub fn restore(bytes: &[u8; SAVED_LENGTH]) -> Self {
        let mut digest = Self::new();
        let mut next_piece = [0; 8];
        let (state, tail) = bytes.split_at(digest.state.len());
        digest.state.copy_from_slice(state);
        next_piece.copy_from_slice(tail);
        digest.next_piece = u64::from_le_bytes(next_piece);
        digest
    }

    fn check_order(&self, piece: u64) -> Result<(), ContentError> {
        if piece < self.next_piece {
            return Err(ContentError::OutOfOrder {
                piece,
                next: self.next_piece,
            });
        }
        Ok(())
    }
}

impl Default for ContentDigest {
    fn default() -> Self {
        Self::new()
    }
}

/// What identifies the content, size and sector sizes of a disk: equal for equal disks only.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ContentId([u8; 32]);

impl ContentId {
    /// The identity as bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Why a piece can't be added to a digest.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// Pieces must come in ascending order, each once.
    #[error("piece {piece} of the disk came after piece {} had been taken", next - 1)]
    OutOfOrder {
        /// The piece that came.
        piece: u64,
        /// The lowest piece that may come.
        next: u64,
    },
    /// A piece is at most [`PIECE_LENGTH`] bytes long.
    #[error("piece {piece} of the disk has {length} bytes, over the {PIECE_LENGTH} of a piece")]
    PieceTooLong {
        /// The piece.
        piece: u64,
        /// Its length in bytes.
        length: usize,
    },
}

/// The length of a piece in bytes: 1 MiB.
pub const PIECE_LENGTH: usize = 1 << 20;

/// The length of a saved [`ContentDigest`] in bytes.
pub const SAVED_LENGTH: usize = 40;

const FOLD_CONTEXT: &str = "ce-vhdx 2026-11-22 disk content: fold one piece";
const FINISH_CONTEXT: &str = "ce-vhdx 2026-11-22 disk content: finish";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{BlockSize, SectorSize};

    fn geometry(disk_size: u64, logical: SectorSize) -> Geometry {
        Geometry::new(disk_size, logical, SectorSize::B4096, BlockSize::DEFAULT).expect("valid")
    }

    #[test]
    fn zeros_contribute_nothing_however_they_are_told() {
        let (mut told, mut left_out) = (ContentDigest::new(), ContentDigest::new());
        for piece in 0..5 {
            let mut bytes = vec![0; PIECE_LENGTH];
            if piece == 2 {
                bytes[77] = 1;
                left_out.update(piece, &bytes[..78]).expect("in order");
            }
            told.update(piece, &bytes).expect("in order");
        }
        let g = geometry(5 << 20, SectorSize::B512);
        assert_eq!(told.finish(&g), left_out.finish(&g));
    }

    #[test]
    fn every_property_of_the_disk_changes_its_identity() {
        let identity = |piece, bytes: &[u8], g: Geometry| {
            let mut digest = ContentDigest::new();
            digest.update(piece, bytes).expect("in order");
            digest.finish(&g)
        };
        let g = geometry(8 << 20, SectorSize::B512);
        let ids = [
            identity(0, &[0], g),
            identity(0, &[1], g),
            identity(0, &[0, 1], g),
            identity(1, &[1], g),
            identity(1, &[1], geometry(9 << 20, SectorSize::B512)),
            identity(1, &[1], geometry(8 << 20, SectorSize::B4096)),
        ];
        for (i, a) in ids.iter().enumerate() {
            for b in &ids[..i] {
                assert_ne!(a, b);
            }
        }
    }

    #[test]
    fn a_restored_digest_goes_on_where_it_was_saved() {
        let mut digest = ContentDigest::new();
        digest.update(3, b"abc").expect("in order");
        let mut restored = ContentDigest::restore(&digest.save());
        assert_eq!(restored, digest);
        assert_eq!(
            restored.update(3, b"abc"),
            Err(ContentError::OutOfOrder { piece: 3, next: 4 })
        );
        restored.update(4, b"d").expect("in order");
        digest.update(4, b"d").expect("in order");
        assert_eq!(restored, digest);
    }

    #[test]
    fn a_piece_that_is_too_long_is_refused() {
        let error = ContentDigest::new().update(0, &vec![1; PIECE_LENGTH + 1]);
        assert!(matches!(
            error,
            Err(ContentError::PieceTooLong { piece: 0, .. })
        ));
    }
}
