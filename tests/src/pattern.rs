//! Reproducible disk content, and how it is laid out.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// How the bytes of a stretch of disk look.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Pattern {
    /// Every byte is pseudo-random.
    Dense,
    /// Stretches of random bytes and of written zeros take turns: half of the bytes are zero, and
    /// the file is as large as the disk.
    HalfZero,
    /// One MiB of random bytes in every 16 MiB; the rest is a hole in the file.
    MostlyHoles,
}

/// A stream of pseudo-random bytes in which every position can be computed on its own.
///
/// Word `n` is SplitMix64's output for the state `seed + n`. Not for secrets.
#[derive(Clone, Copy, Debug)]
pub struct Noise {
    seed: u64,
}

impl Noise {
    /// The stream that belongs to a seed.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Fills `buffer` with the bytes of the stream from `offset` on.
    ///
    /// # Panics
    ///
    /// When `offset` is not a multiple of eight.
    pub fn fill(self, offset: u64, buffer: &mut [u8]) {
        assert_eq!(offset % WORD, 0, "noise starts at a whole word");
        let mut state = self.seed.wrapping_add((offset / WORD).wrapping_mul(GAMMA));
        for bytes in buffer.chunks_mut(WORD as usize) {
            state = state.wrapping_add(GAMMA);
            let mut word = state;
            word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            word ^= word >> 31;
            bytes.copy_from_slice(&word.to_le_bytes()[..bytes.len()]);
        }
    }

    /// `length` bytes of the stream from `offset` on.
    pub fn bytes(self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.fill(offset, &mut bytes);
        bytes
    }
}

/// Writes the noise of a seed to `file` at `offset`; the noise, too, is taken at `offset`.
pub fn write_noise(file: &File, seed: u64, offset: u64, length: u64) -> io::Result<()> {
    let noise = Noise::new(seed);
    write_chunks(file, offset, length, |at, buffer| noise.fill(at, buffer))
}

/// Lays a pattern over `length` bytes of `file` from `offset` on. What the pattern leaves empty is
/// not touched.
pub fn write_pattern(
    file: &File,
    pattern: Pattern,
    seed: u64,
    offset: u64,
    length: u64,
) -> io::Result<()> {
    let end = offset + length;
    match pattern {
        Pattern::Dense => write_noise(file, seed, offset, length),
        Pattern::HalfZero => {
            // Uneven on purpose: the stretches cross the block borders of every image format.
            let stretch = 2 * MIB + MIB / 2;
            let mut random = true;
            for start in (offset..end).step_by(stretch as usize) {
                let length = stretch.min(end - start);
                if random {
                    write_noise(file, seed, start, length)?;
                } else {
                    write_chunks(file, start, length, |_, buffer| buffer.fill(0))?;
                }
                random = !random;
            }
            Ok(())
        }
        Pattern::MostlyHoles => {
            for start in (offset..end).step_by(16 * MIB as usize) {
                write_noise(file, seed, start, MIB.min(end - start))?;
            }
            Ok(())
        }
    }
}

fn write_chunks(
    file: &File,
    offset: u64,
    length: u64,
    content: impl Fn(u64, &mut [u8]),
) -> io::Result<()> {
    let mut buffer = vec![0; length.min(MIB) as usize];
    let end = offset + length;
    for start in (offset..end).step_by(MIB as usize) {
        let part = &mut buffer[..(end - start).min(MIB) as usize];
        content(start, part);
        file.write_all_at(part, start)?;
    }
    Ok(())
}

/// 2^20 bytes.
pub const MIB: u64 = 1 << 20;
/// 2^30 bytes.
pub const GIB: u64 = 1 << 30;
/// 2^40 bytes.
pub const TIB: u64 = 1 << 40;

const WORD: u64 = 8;
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_the_same_wherever_reading_starts() {
        let whole = Noise::new(7).bytes(0, 4096 + 5);
        let part = Noise::new(7).bytes(1024, 3072 + 5);
        assert_eq!(whole[1024..], part);
        assert_ne!(whole, Noise::new(8).bytes(0, whole.len()));
    }

    #[test]
    fn half_of_a_half_zero_pattern_is_zero() {
        let file = tempfile::tempfile().unwrap();
        write_pattern(&file, Pattern::HalfZero, 1, 0, 20 * MIB).unwrap();
        let mut bytes = vec![1; 20 * MIB as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let zeros = bytes.iter().filter(|byte| **byte == 0).count() as u64;
        // One byte of 256 is zero in the random half as well.
        assert!(
            (10 * MIB..10 * MIB + MIB / 8).contains(&zeros),
            "{zeros} zeros"
        );
    }
}
