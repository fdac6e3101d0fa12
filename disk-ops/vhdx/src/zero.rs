//! Telling zeros from data, fast enough to be asked about every byte of a disk.

/// Whether all of `bytes` are zero.
///
/// Reads at the speed of memory, and stops at the first 256 bytes that hold anything.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (steps, rest) = bytes.as_chunks::<STEP>();
    steps.iter().all(step_is_zero) && rest.iter().all(|byte| *byte == 0)
}

/// `bytes` up to the last one that is not zero.
pub(crate) fn without_trailing_zeros(mut bytes: &[u8]) -> &[u8] {
    while let Some((rest, step)) = bytes.split_last_chunk()
        && step_is_zero(step)
    {
        bytes = rest;
    }
    while let Some((0, rest)) = bytes.split_last() {
        bytes = rest;
    }
    bytes
}

/// An OR over a whole step, without a branch, is what the compiler turns into vector code.
fn step_is_zero(step: &[u8; STEP]) -> bool {
    step.iter().fold(0, |sum, byte| sum | byte) == 0
}

const STEP: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_is_found_wherever_it_is() {
        for length in [0_usize, 1, 255, 256, 257, 511, 512, 4096] {
            assert!(is_zero(&vec![0; length]));
            assert!(without_trailing_zeros(&vec![0; length]).is_empty());
            for last in (0..length).step_by(17).chain(length.checked_sub(1)) {
                let mut bytes = vec![0; length];
                bytes[last] = 1;
                assert!(!is_zero(&bytes), "byte {last} of {length}");
                assert_eq!(without_trailing_zeros(&bytes).len(), last + 1);
            }
        }
    }
}
