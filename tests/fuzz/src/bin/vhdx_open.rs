//! Changes the structures of a VHDX and opens it.
//!
//! Oracle: what is accepted has extents that tile the disk, lie in the file, and share no byte of
//! it; every one can be read. Nothing panics, and no read leaves the file.
//!
//! Input: the length of the file in MiB, of which 0 stands for the right one, and patches.

#![no_main]

use ce_vhdx::{VhdxReader, VirtualOffset};
use libfuzzer_sys::fuzz_target;

#[path = "../sparse_image.rs"]
mod sparse_image;
#[path = "../vhdx_template.rs"]
mod vhdx_template;

use sparse_image::check_extents;
use vhdx_template::{MIB, PLACES, image, repair};

fuzz_target!(|input: &[u8]| {
    let Some((&length, patches)) = input.split_first() else {
        return;
    };
    let mut image = image();
    image.patch(patches, &PLACES);
    repair(&mut image);
    // Now and then longer, so that lying offsets find room, or shorter.
    if length > 0 {
        image.length = u64::from(length) * MIB;
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
