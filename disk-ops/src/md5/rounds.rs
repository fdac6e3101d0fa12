//! MD5's rounds as RFC 1321 section 3.4 gives them: the functions, the tables, and the order of the
//! 64 steps. It leaves to each kernel in what registers, and in what order, one step is computed.

/// `F(X, Y, Z) = XY v not(X) Z`
pub const fn f(x: u32, y: u32, z: u32) -> u32 {
    (x & y) | (!x & z)
}

/// `G(X, Y, Z) = XZ v Y not(Z)`
pub const fn g(x: u32, y: u32, z: u32) -> u32 {
    (x & z) | (y & !z)
}

/// `H(X, Y, Z) = X xor Y xor Z`
pub const fn h(x: u32, y: u32, z: u32) -> u32 {
    x ^ y ^ z
}

/// `I(X, Y, Z) = Y xor (X v not(Z))`
pub const fn i(x: u32, y: u32, z: u32) -> u32 {
    y ^ (x | !z)
}

/// What differs from one step of a round to the next: the `[abcd k s i]` of the RFC, less the
/// registers, whose names only turn by one place.
#[derive(Clone, Copy)]
pub struct Step {
    /// Which word of the block is added (the RFC's `k`).
    pub word: usize,
    /// How far the sum is rotated to the left, in bits (the RFC's `s`).
    pub shift: u32,
    /// The constant that is added (the RFC's `T[i]`).
    pub constant: u32,
}

impl Step {
    /// Step `place` (0 to 15) of round `round` (0 to 3).
    pub const fn of(round: usize, place: usize) -> Self {
        let (first, stride) = WORD_ORDER[round];
        Self {
            word: (first + stride * place) % 16,
            shift: SHIFTS[round][place % 4],
            constant: T[16 * round + place],
        }
    }
}

/// Expands to the 64 steps, and gives the state after them.
///
/// `$f`, `$g`, `$h` and `$i` are functions
/// `fn step<const SHIFT: _>(state: [W; 4], word: W, constant: u32) -> [W; 4]` that do one step of
/// their round; `$word` is called as `$word(block, index)`. They are called by a macro because a
/// rotation wants its distance as a constant, which a loop's counter is not.
macro_rules! steps {
    ($state:expr, $block:expr, $word:ident, [$f:ident, $g:ident, $h:ident, $i:ident]) => {{
        let state = $state;
        let state = steps!(round 0, state, $block, $word, $f);
        let state = steps!(round 1, state, $block, $word, $g);
        let state = steps!(round 2, state, $block, $word, $h);
        steps!(round 3, state, $block, $word, $i)
    }};
    (round $round:literal, $state:expr, $block:expr, $word:ident, $step:ident) => {
        steps!(
            places 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15,
            $round, $state, $block, $word, $step
        )
    };
    (
        places $($place:literal)*,
        $round:literal, $state:expr, $block:expr, $word:ident, $step:ident
    ) => {{
        let state = $state;
        $(
            let state = {
                const STEP: Step = Step::of($round, $place);
                $step::<{ STEP.shift as _ }>(state, $word($block, STEP.word), STEP.constant)
            };
        )*
        state
    }};
}
pub(super) use steps;

/// First word and stride in which a round goes through the block's words.
const WORD_ORDER: [(usize, usize); 4] = [(0, 1), (1, 5), (5, 3), (0, 7)];

/// Rotations of a round's steps, which repeat every four.
const SHIFTS: [[u32; 4]; 4] = [
    [7, 12, 17, 22],
    [5, 9, 14, 20],
    [4, 11, 16, 23],
    [6, 10, 15, 21],
];

/// `T[i]` is the integer part of `4294967296 * abs(sin(i))`, with `i` in radians, for `i` = 1 to 64.
#[rustfmt::skip]
const T: [u32; 64] = [
    0xd76a_a478, 0xe8c7_b756, 0x2420_70db, 0xc1bd_ceee,
    0xf57c_0faf, 0x4787_c62a, 0xa830_4613, 0xfd46_9501,
    0x6980_98d8, 0x8b44_f7af, 0xffff_5bb1, 0x895c_d7be,
    0x6b90_1122, 0xfd98_7193, 0xa679_438e, 0x49b4_0821,
    0xf61e_2562, 0xc040_b340, 0x265e_5a51, 0xe9b6_c7aa,
    0xd62f_105d, 0x0244_1453, 0xd8a1_e681, 0xe7d3_fbc8,
    0x21e1_cde6, 0xc337_07d6, 0xf4d5_0d87, 0x455a_14ed,
    0xa9e3_e905, 0xfcef_a3f8, 0x676f_02d9, 0x8d2a_4c8a,
    0xfffa_3942, 0x8771_f681, 0x6d9d_6122, 0xfde5_380c,
    0xa4be_ea44, 0x4bde_cfa9, 0xf6bb_4b60, 0xbebf_bc70,
    0x289b_7ec6, 0xeaa1_27fa, 0xd4ef_3085, 0x0488_1d05,
    0xd9d4_d039, 0xe6db_99e5, 0x1fa2_7cf8, 0xc4ac_5665,
    0xf429_2244, 0x432a_ff97, 0xab94_23a7, 0xfc93_a039,
    0x655b_59c3, 0x8f0c_cc92, 0xffef_f47d, 0x8584_5dd1,
    0x6fa8_7e4f, 0xfe2c_e6e0, 0xa301_4314, 0x4e08_11a1,
    0xf753_7e82, 0xbd3a_f235, 0x2ad7_d2bb, 0xeb86_d391,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_t_holds_the_sines_that_the_rfc_defines() {
        for (index, constant) in T.into_iter().enumerate() {
            let sine = ((index + 1) as f64).sin().abs();
            assert_eq!(
                constant,
                (4_294_967_296.0 * sine) as u32,
                "T[{}]",
                index + 1
            );
        }
    }

    #[test]
    fn every_round_takes_every_word_of_the_block_once() {
        for round in 0..4 {
            let mut words: Vec<_> = (0..16).map(|place| Step::of(round, place).word).collect();
            words.sort_unstable();
            assert!(words.into_iter().eq(0..16), "round {round}");
        }
    }
}
