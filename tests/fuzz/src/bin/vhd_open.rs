//! Changes the structures of a dynamic VHD and opens it.
//!
//! Oracle: what is accepted has extents that tile the disk, lie in the file, and share no byte of
//! it; every one can be read. Nothing panics, and no read leaves the file.

#![no_main]

use ce_vhdx::{VhdReader, VirtualOffset};
use libfuzzer_sys::fuzz_target;

#[path = "../sparse_image.rs"]
mod sparse_image;

use sparse_image::{Patch, SparseImage, check_extents};

fuzz_target!(|input: (u8, Vec<Patch>)| {
    let (cut, patches) = input;
    let mut image = template();
    image.patch(&patches, &PLACES);
    // One copy of the footer is as good as the other, and may be all there is.
    let footer = image.piece(0)[..512].to_vec();
    *image.piece(END) = footer;
    for (start, length, field) in [(0, 512, 64), (512, 1024, 36)] {
        seal(&mut image.piece(0)[start..start + length], field);
    }
    seal(image.piece(END), 64);
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

/// Five blocks of 2 MiB, of which two are in the file.
fn template() -> SparseImage {
    let mut head = vec![0; 2048];
    head[..8].copy_from_slice(b"conectix");
    head[12..16].copy_from_slice(&0x1_0000_u32.to_be_bytes());
    head[16..24].copy_from_slice(&512_u64.to_be_bytes());
    head[48..56].copy_from_slice(&(9_u64 << 20).to_be_bytes());
    head[60..64].copy_from_slice(&3_u32.to_be_bytes());
    head[512..520].copy_from_slice(b"cxsparse");
    head[528..536].copy_from_slice(&1536_u64.to_be_bytes());
    head[536..540].copy_from_slice(&0x1_0000_u32.to_be_bytes());
    head[540..544].copy_from_slice(&5_u32.to_be_bytes());
    head[544..548].copy_from_slice(&(2_u32 << 20).to_be_bytes());
    head[1536..].fill(0xFF);
    head[1536..1540].copy_from_slice(&4_u32.to_be_bytes());
    head[1544..1548].copy_from_slice(&4101_u32.to_be_bytes());
    SparseImage {
        length: END + 512,
        pieces: vec![
            (0, head),
            (2048, vec![0xF0; 512]),
            (4101 * 512, vec![0x0F; 512]),
            (END, vec![0; 512]),
        ],
    }
}

fn seal(bytes: &mut [u8], field: usize) {
    bytes[field..field + 4].fill(0);
    let sum = bytes.iter().fold(0_u32, |sum, byte| sum + u32::from(*byte));
    bytes[field..field + 4].copy_from_slice(&(!sum).to_be_bytes());
}

/// Where the last footer lies: behind two blocks with their bitmaps.
const END: u64 = 2048 + 2 * (512 + (2 << 20));

/// Footer, dynamic header, BAT, first bitmap.
const PLACES: [(u64, u64); 4] = [(0, 84), (512, 84), (1536, 32), (2048, 512)];
