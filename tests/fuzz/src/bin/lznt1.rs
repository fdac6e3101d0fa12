//! Unpacks the input as a unit of LZNT1.
//!
//! Oracle: no panic; the result does not depend on what was in the buffer, and unpacking into a
//! longer buffer gives the same bytes with zeros behind them.
//!
//! Input: the length of the unit (16 bits, little-endian), then the packed bytes.

#![no_main]

use ce_disk::volume::ntfs::lznt1::decompress;
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
    // A last chunk that was cut short by the buffer is an error, hence more room changes nothing.
    let mut longer = vec![0xFF; length + 4096];
    if decompress(packed, &mut longer).is_ok() {
        assert_eq!(longer[..length], first);
    }
});
