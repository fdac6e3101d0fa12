//! Changes the structures of a VHDX and opens it.
//!
//! Oracle: what is accepted has extents that tile the disk, lie in the file, and share no byte of
//! it; every one can be read. Nothing panics, and no read leaves the file.

#![no_main]

use ce_vhdx::{VhdxReader, VirtualOffset};
use libfuzzer_sys::fuzz_target;

#[path = "../sparse_image.rs"]
mod sparse_image;
#[path = "../vhdx_template.rs"]
mod vhdx_template;

use sparse_image::{Patch, check_extents};
use vhdx_template::{MIB, image, repair};

fuzz_target!(|input: (u8, Vec<Patch>)| {
    let (length, patches) = input;
    let mut image = image();
    image.patch(&patches, &PLACES);
    repair(&mut image);
    // Now and then longer, so that lying offsets find room, or shorter.
    image.length = (image.length + u64::from(length % 64) * MIB).saturating_sub(8 * MIB);
    if length % 64 == 0 {
        image.length += 8 * MIB;
    }
    let file_length = image.length;
    if let Ok(reader) = VhdxReader::open(image) {
        check_extents(
            reader.geometry().disk_size(),
            file_length,
            |at| reader.extent_at(VirtualOffset(at)),
            |at, bytes| reader.read_at(VirtualOffset(at), bytes),
        );
    }
});

/// Headers, region tables, metadata table and items, BAT.
const PLACES: [(u64, u64); 7] = [
    (64 << 10, 80),
    (128 << 10, 80),
    (192 << 10, 112),
    (256 << 10, 112),
    (2 * MIB, 224),
    (2 * MIB + 65536, 48),
    (3 * MIB, 40 * 8),
];
