//! A small VHDX for the fuzzer to change.

use ce_vhdx::{
    BlockSize, ClosingStep, ContentDigest, Geometry, SectorSize, VhdxWriter, VirtualOffset,
};

use crate::sparse_image::SparseImage;

pub const MIB: u64 = 1 << 20;

/// A disk of 40 MiB of which four blocks of 1 MiB are in the file.
pub fn image() -> SparseImage {
    let block = BlockSize::from_bytes(1 << 20).expect("a block size");
    let geometry = Geometry::new(40 * MIB, SectorSize::B512, SectorSize::B4096, block);
    let geometry = geometry.expect("a valid geometry");
    let mut writer = VhdxWriter::new(geometry);
    let mut image = SparseImage::default();
    for block in [0, 1, 7, 39] {
        let at = writer
            .place(VirtualOffset(block * MIB), MIB)
            .expect("a whole block");
        image.pieces.push((at.0, vec![block as u8 + 1; 8192]));
    }
    image.length = writer.file_length().0;
    let content = ContentDigest::new().finish(&geometry);
    for step in writer.finish(content) {
        if let ClosingStep::Write { offset, mut bytes } = step {
            // Regions are zero after their first part, and slow to compare and copy.
            bytes.truncate(if offset.0 == 0 { 320 << 10 } else { 70 << 10 });
            image.pieces.push((offset.0, bytes));
        }
    }
    image
}

/// Corrects the checksums of headers and region tables, so that the fuzzer gets past them.
pub fn repair(image: &mut SparseImage) {
    let head = image.piece(0);
    for (start, length) in [(64, 4), (128, 4), (192, 64), (256, 64)] {
        seal(&mut head[start << 10..(start + length) << 10]);
    }
}

/// Puts the checksum of all of `bytes` at offset 4.
pub fn seal(bytes: &mut [u8]) {
    bytes[4..8].fill(0);
    let sum = crc32c::crc32c(bytes);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
}
