//! Unpacks the input as a chunk of XPRESS with Huffman codes.
//!
//! Oracle: no panic; the result does not depend on what was in the buffer; what unpacks into a
//! buffer unpacks into a shorter one to the same first bytes, unless a match is cut by its end.
//!
//! Input: the length of the chunk (16 bits, little-endian), then the packed bytes.

#![no_main]

use ce_disk::volume::ntfs::xpress::decompress;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((length, packed)) = input.split_first_chunk() else {
        return;
    };
    let length = usize::from(u16::from_le_bytes(*length));
    let (mut first, mut second) = (vec![0x00; length], vec![0xFF; length]);
    let result = decompress(packed, &mut first);
    assert_eq!(decompress(packed, &mut second), result);
    if result.is_err() {
        return;
    }
    assert_eq!(first, second);
    let mut half = vec![0xFF; length / 2];
    if decompress(packed, &mut half).is_ok() {
        assert_eq!(half, first[..length / 2]);
    }
});
