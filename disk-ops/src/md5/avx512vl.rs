//! The compression function in vector registers with AVX-512VL: 4 cycles per byte where each of
//! `vpternlogd`, `vprold` and `vpaddd` takes one.
//!
//! Of each register only the lowest 32 bits matter; the others hold copies or leftovers. The use of
//! these registers is not their width but the three-operand logic and the rotation. For the order
//! of the operations see [the module above](super#where-the-time-goes).

#![expect(
    unsafe_code,
    reason = "instructions beyond the x86-64 baseline may be run only where the processor has them"
)]

use std::arch::asm;
use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_cvtsi32_si128, _mm_cvtsi128_si32, _mm_rol_epi32, _mm_set1_epi32,
    _mm_ternarylogic_epi32,
};

use super::rounds::{self, Step, steps};

/// The proof that this processor has AVX-512VL: only [`Avx512Vl::detect`] makes one.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Avx512Vl(());

impl Avx512Vl {
    /// `None` if the processor, or the system's support for its registers, lacks AVX-512VL.
    pub fn detect() -> Option<Self> {
        let supported = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl");
        supported.then_some(Self(()))
    }

    /// Digests `blocks` into `state`.
    pub fn compress(self, state: &mut [u32; 4], blocks: &[[u8; 64]]) {
        // SAFETY: `self` exists, so `detect` has found both features that `compress` needs.
        unsafe { compress(state, blocks) }
    }
}

#[target_feature(enable = "avx512f,avx512vl")]
fn compress(state: &mut [u32; 4], blocks: &[[u8; 64]]) {
    let mut sums = state.map(|word| _mm_cvtsi32_si128(word.cast_signed()));
    for block in blocks {
        let after = steps!(sums, block, word, [f, g, h, i]);
        for (sum, word) in sums.iter_mut().zip(after) {
            *sum = _mm_add_epi32(*sum, word);
        }
    }
    *state = sums.map(|sum| _mm_cvtsi128_si32(sum).cast_unsigned());
}

/// One step of the round whose function is `rounds::$round`.
macro_rules! step {
    ($round:ident) => {
        #[target_feature(enable = "avx512f,avx512vl")]
        #[inline]
        fn $round<const SHIFT: i32>(
            [a, b, c, d]: [__m128i; 4],
            word: __m128i,
            constant: u32,
        ) -> [__m128i; 4] {
            // vpternlogd wants the function as a table: bit n is its value where the bits of n are
            // those of b, c and d. These three operands run through all eight cases.
            const TABLE: i32 =
                (rounds::$round(0b1111_0000, 0b1100_1100, 0b1010_1010) & 0xff) as i32;

            let constant = _mm_set1_epi32(constant.cast_signed());
            let early = _mm_add_epi32(_mm_add_epi32(a, word), constant);
            let late = _mm_ternarylogic_epi32::<TABLE>(b, c, d);
            let sum = _mm_add_epi32(settled(early), late);
            [d, _mm_add_epi32(b, _mm_rol_epi32::<SHIFT>(sum)), b, c]
        }
    };
}

step!(f);
step!(g);
step!(h);
step!(i);

/// Word `index` (0 to 15) of a block.
#[target_feature(enable = "avx512f,avx512vl")]
#[inline]
fn word(block: &[u8; 64], index: usize) -> __m128i {
    _mm_set1_epi32(i32::from_le_bytes(block.as_chunks().0[index]))
}

/// Gives `value` back, as one operand that the compiler cannot take apart.
#[target_feature(enable = "avx512f,avx512vl")]
#[inline]
fn settled(mut value: __m128i) -> __m128i {
    // SAFETY: no instruction is emitted: the register keeps its value, and nothing else is touched.
    unsafe {
        asm!("/* {0} */", inout(xmm_reg) value, options(pure, nomem, nostack, preserves_flags));
    }
    value
}
