//! Reads a checkpoint of an export: any bytes, or, where the input can't have guessed it, any bytes
//! with the right checksum behind them.
//!
//! Oracle: reading never panics; what is read says the same when it is written again, and goes on
//! at a whole chunk of the disk.

#![no_main]

use ce_disk::export::Checkpoint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    check(input);
    let mut sealed = input.to_vec();
    sealed.extend(blake3::hash(input).as_bytes());
    check(&sealed);
});

fn check(bytes: &[u8]) {
    match Checkpoint::parse(bytes) {
        Ok(checkpoint) => {
            assert_eq!(checkpoint.to_bytes(), bytes);
            assert!(checkpoint.position().0.is_multiple_of(2 << 20));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
