//! A small VHDX for the fuzzer to change.
//!
//! What a copy and a checksum cost sets how many inputs a second are tried: of each structure only
//! the part that says something is kept, and zeros up to its end are summed, not stored.

use std::sync::LazyLock;

use ce_vhdx::{
    BlockSize, ClosingStep, ContentDigest, Geometry, SectorSize, VhdxWriter, VirtualOffset,
};

use crate::sparse_image::SparseImage;

pub const MIB: u64 = 1 << 20;

/// A disk of 40 MiB of which four blocks of 1 MiB are in the file, with data at their start.
pub fn image() -> SparseImage {
    TEMPLATE.clone()
}

/// Where the structures are that a fuzzer may change: headers, region tables, metadata table and
/// items, BAT.
pub const PLACES: [u64; 7] = [
    64 << 10,
    128 << 10,
    192 << 10,
    256 << 10,
    2 * MIB,
    2 * MIB + 65536,
    3 * MIB,
];

/// How much of each of them is kept: all that is in use, and room for more entries.
const KEPT: [usize; 7] = [80, 80, 240, 240, 352, 48, 40 * 8];

/// How many bytes at the start of each of them are not zero.
pub const BLOCK_DATA: usize = 512;

/// Corrects the checksums of headers and region tables, so that the fuzzer gets past them.
pub fn repair(image: &mut SparseImage) {
    for (place, length) in PLACES
        .into_iter()
        .zip([4 << 10, 4 << 10, 64 << 10, 64 << 10])
    {
        seal(image.piece(place), length);
    }
}

/// Puts the checksum of all of `bytes`, followed by zeros up to `length`, at offset 4.
pub fn seal(bytes: &mut [u8], length: usize) {
    bytes[4..8].fill(0);
    let sum = crc32c::crc32c(bytes);
    let sum = crc32c::crc32c_append(sum, &ZEROS[..length - bytes.len()]);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
}

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

static TEMPLATE: LazyLock<SparseImage> = LazyLock::new(|| {
    let block = BlockSize::from_bytes(1 << 20).expect("a block size");
    let geometry = Geometry::new(40 * MIB, SectorSize::B512, SectorSize::B4096, block);
    let geometry = geometry.expect("a valid geometry");
    let mut writer = VhdxWriter::new(geometry);
    let mut image = SparseImage::default();
    for block in [0, 1, 7, 39] {
        let at = writer
            .place(VirtualOffset(block * MIB), MIB)
            .expect("a whole block");
        image.pieces.push((at.0, vec![block as u8 + 1; BLOCK_DATA]));
    }
    image.length = writer.file_length().0;
    let content = ContentDigest::new().finish(&geometry);
    for step in writer.finish(content) {
        if let ClosingStep::Write { offset, bytes } = step {
            let places = PLACES.into_iter().zip(KEPT).chain([(0, 8)]);
            for (place, kept) in places {
                let inside = place.checked_sub(offset.0).map(|inside| inside as usize);
                if let Some(piece) = inside.and_then(|inside| bytes.get(inside..inside + kept)) {
                    image.pieces.push((place, piece.to_vec()));
                }
            }
        }
    }
    image
});
