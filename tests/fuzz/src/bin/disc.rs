//! Reads disc images in which any bytes may be wrong.
//!
//! Oracle: nothing panics or takes long. What is read is bounded, has plain paths, and is as long as
//! it says; a second look sees the same.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../disc_template.rs"]
mod disc_template;

use disc_template::{check, descriptors, image, seal};

// The first byte: which formats there are, and whether checksums are put right. Then patches of four
// bytes: which stretch, where in it (16 bits), what.
fuzz_target!(|input: &[u8]| {
    let Some((kind, patches)) = input.split_first() else {
        return;
    };
    let (mut image, stretches) = image();
    let sealed = match kind & 1 {
        0 => Vec::new(),
        _ => descriptors(&image),
    };
    // Without the mark of UDF, and without Joliet.
    if kind & 2 != 0 {
        image[19 * 2048..22 * 2048].fill(0);
    }
    if kind & 4 != 0 {
        image[17 * 2048] = 3;
    }
    for [stretch, low, high, byte] in patches.as_chunks::<4>().0 {
        let stretch = &stretches[usize::from(*stretch) % stretches.len()];
        let at = usize::from(u16::from_le_bytes([*low, *high])) % stretch.len();
        image[stretch.start + at] = *byte;
    }
    for at in sealed {
        seal(&mut image, at);
    }
    if let Ok(found) = check(&image) {
        assert_eq!(check(&image).expect("the same image"), found);
    }
});
