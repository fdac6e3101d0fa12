//! Changes the structures of a dynamic VHD and opens it.
//!
//! Oracle: what is accepted has extents that tile the disk, lie in the file, and share no byte of
//! it; every one can be read. Nothing panics, and no read leaves the file.
//!
//! Input: by how many bytes the file is cut short, and patches.

#![no_main]

use std::sync::LazyLock;

use ce_vhdx::{VhdReader, VirtualOffset};
use libfuzzer_sys::fuzz_target;

#[path = "../sparse_image.rs"]
mod sparse_image;

use sparse_image::{SparseImage, check_extents};

fuzz_target!(|input: &[u8]| {
    let Some((&cut, patches)) = input.split_first() else {
        return;
    };
    let mut image = TEMPLATE.clone();
    image.patch(patches, &PLACES);
    // One copy of the footer is as good as the other, and may be all there is.
    seal(image.piece(0), 64);
    seal(image.piece(512), 36);
    let footer = image.piece(0).clone();
    *image.piece(END) = footer;
    image.length -= u64::from(cut);
    let file_length = image.length;
    if let Ok(reader) = VhdReader::open(image) {
        check_extents(
            reader.disk_size(),
            file_length,
            |at| reader.extent_at(VirtualOffset(at)),
            |at, bytes| reader.read_at(VirtualOffset(at), bytes),
        );
    }
});

/// Five blocks of 2 MiB, of which two are in the file. Of footer and header, only the part that is
/// not zero is kept.
static TEMPLATE: LazyLock<SparseImage> = LazyLock::new(|| {
    let mut footer = vec![0; 85];
    footer[..8].copy_from_slice(b"conectix");
    footer[12..16].copy_from_slice(&0x1_0000_u32.to_be_bytes());
    footer[16..24].copy_from_slice(&512_u64.to_be_bytes());
    footer[48..56].copy_from_slice(&(9_u64 << 20).to_be_bytes());
    footer[60..64].copy_from_slice(&3_u32.to_be_bytes());
    let mut header = vec![0; 96];
    header[..8].copy_from_slice(b"cxsparse");
    header[16..24].copy_from_slice(&1536_u64.to_be_bytes());
    header[24..28].copy_from_slice(&0x1_0000_u32.to_be_bytes());
    header[28..32].copy_from_slice(&5_u32.to_be_bytes());
    header[32..36].copy_from_slice(&(2_u32 << 20).to_be_bytes());
    let mut table = vec![0xFF; 32];
    table[..4].copy_from_slice(&4_u32.to_be_bytes());
    table[8..12].copy_from_slice(&4101_u32.to_be_bytes());
    // Every change of a bit is an extent of its own: a few are enough.
    let mut bitmap = vec![0xFF; 512];
    bitmap[8..16].fill(0xF0);
    bitmap[500..].fill(0);
    SparseImage {
        length: END + 512,
        pieces: vec![
            (0, footer),
            (512, header),
            (1536, table),
            (2048, bitmap),
            (4101 * 512, vec![0x0F; 8]),
            (END, Vec::new()),
        ],
    }
});

fn seal(bytes: &mut [u8], field: usize) {
    bytes[field..field + 4].fill(0);
    let sum = bytes.iter().fold(0_u32, |sum, byte| sum + u32::from(*byte));
    bytes[field..field + 4].copy_from_slice(&(!sum).to_be_bytes());
}

/// Where the last footer lies: behind two blocks with their bitmaps.
const END: u64 = 2048 + 2 * (512 + (2 << 20));

/// Footer, dynamic header, BAT, first bitmap.
const PLACES: [u64; 4] = [0, 512, 1536, 2048];
