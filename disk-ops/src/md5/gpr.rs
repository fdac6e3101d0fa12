//! The compression function in x86-64's general-purpose registers: 4.5 cycles per byte.
//!
//! For the order of the operations see [the module above](super#where-the-time-goes).

#![expect(
    unsafe_code,
    reason = "only an empty asm! keeps the compiler from reordering the sums, which costs a fifth"
)]

use std::arch::asm;

use super::rounds::{Step, steps};

/// Digests `blocks` into `state`.
pub fn compress(state: &mut [u32; 4], blocks: &[[u8; 64]]) {
    for block in blocks {
        let after = steps!(*state, block, word, [f, g, h, i]);
        for (sum, word) in state.iter_mut().zip(after) {
            *sum = sum.wrapping_add(word);
        }
    }
}

#[inline(always)]
fn f<const SHIFT: u32>([a, b, c, d]: [u32; 4], word: u32, constant: u32) -> [u32; 4] {
    let early = a.wrapping_add(word).wrapping_add(constant);
    turn::<SHIFT>([b, c, d], early, d ^ (b & (c ^ d)))
}

#[inline(always)]
fn g<const SHIFT: u32>([a, b, c, d]: [u32; 4], word: u32, constant: u32) -> [u32; 4] {
    let early = a
        .wrapping_add(word)
        .wrapping_add(constant)
        .wrapping_add(!d & c);
    turn::<SHIFT>([b, c, d], early, d & b)
}

#[inline(always)]
fn h<const SHIFT: u32>([a, b, c, d]: [u32; 4], word: u32, constant: u32) -> [u32; 4] {
    let early = a.wrapping_add(word).wrapping_add(constant);
    turn::<SHIFT>([b, c, d], early, b ^ settled(c ^ d))
}

#[inline(always)]
fn i<const SHIFT: u32>([a, b, c, d]: [u32; 4], word: u32, constant: u32) -> [u32; 4] {
    let early = a.wrapping_add(word).wrapping_add(constant);
    turn::<SHIFT>([b, c, d], early, c ^ (b | !d))
}

/// The end of every step: joins what was known `early` with what had to wait for `b`, and gives
/// the registers in the order in which the next step wants them.
#[inline(always)]
fn turn<const SHIFT: u32>([b, c, d]: [u32; 3], early: u32, late: u32) -> [u32; 4] {
    let sum = settled(early).wrapping_add(late);
    [d, b.wrapping_add(sum.rotate_left(SHIFT)), b, c]
}

/// Word `index` (0 to 15) of a block.
#[inline(always)]
fn word(block: &[u8; 64], index: usize) -> u32 {
    u32::from_le_bytes(block.as_chunks().0[index])
}

/// Gives `value` back, as one operand that the compiler cannot take apart.
#[inline(always)]
fn settled(mut value: u32) -> u32 {
    // SAFETY: no instruction is emitted: the register keeps its value, and nothing else is touched.
    unsafe {
        asm!("/* {0:e} */", inout(reg) value, options(pure, nomem, nostack, preserves_flags));
    }
    value
}
