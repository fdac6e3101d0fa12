//! Which compression functions this processor has, and which of them is the fastest.

use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

#[cfg(target_arch = "x86_64")]
use super::{avx512vl::Avx512Vl, gpr};

/// A way to compute MD5's compression function. A value exists only where the processor has all
/// that it takes.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Compression(Kernel);

impl Compression {
    /// Those this processor can run; there is always one.
    pub fn available() -> impl Iterator<Item = Self> {
        let crate_only = [Some(Kernel::Crate)];
        #[cfg(target_arch = "x86_64")]
        let own = [Avx512Vl::detect().map(Kernel::Avx512Vl), Some(Kernel::Gpr)];
        #[cfg(not(target_arch = "x86_64"))]
        let own = [];
        own.into_iter().chain(crate_only).flatten().map(Self)
    }

    /// The fastest of [`Compression::available`], as measured at the first call in this process,
    /// which takes under a millisecond.
    ///
    /// It is measured because the processor's name does not tell: with AVX-512VL a step takes 4
    /// cycles on one make, and on another twice as long as without. The choice can change the
    /// speed only, never the digest.
    pub fn fastest() -> Self {
        static FASTEST: OnceLock<Compression> = OnceLock::new();
        *FASTEST.get_or_init(Self::measure_fastest)
    }

    /// Digests `blocks` into `state`.
    pub fn compress(self, state: &mut [u32; 4], blocks: &[[u8; 64]]) {
        match self.0 {
            Kernel::Crate => ::md5::block_api::compress(state, blocks),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512Vl(kernel) => kernel.compress(state, blocks),
            #[cfg(target_arch = "x86_64")]
            Kernel::Gpr => gpr::compress(state, blocks),
        }
    }

    /// Times the functions in turn, several times over, and compares the shortest time of each:
    /// whatever else the machine does can lengthen a round, but not shorten one. The first rounds
    /// also warm up the caches and the clock.
    fn measure_fastest() -> Self {
        let blocks = [[0x5a; 64]; TRIAL_BLOCKS];
        let mut trials: Vec<_> = Self::available()
            .map(|candidate| (candidate, Duration::MAX))
            .collect();
        for _ in 0..TRIAL_ROUNDS {
            for (candidate, shortest) in &mut trials {
                let mut state = [0; 4];
                let start = Instant::now();
                candidate.compress(&mut state, &blocks);
                *shortest = start.elapsed().min(*shortest);
                std::hint::black_box(state);
            }
        }
        trials
            .into_iter()
            .min_by_key(|&(_, shortest)| shortest)
            .map_or(Self(Kernel::Crate), |(candidate, _)| candidate)
    }
}

/// The name under which it stands in reports of speed.
impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self.0 {
            Kernel::Crate => "md-5",
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512Vl(_) => "avx512vl",
            #[cfg(target_arch = "x86_64")]
            Kernel::Gpr => "gpr",
        })
    }
}

impl fmt::Debug for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Compression({self})")
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Kernel {
    Crate,
    #[cfg(target_arch = "x86_64")]
    Avx512Vl(Avx512Vl),
    #[cfg(target_arch = "x86_64")]
    Gpr,
}

/// 4 KiB: well inside the first-level cache, and hundreds of times the clock's resolution.
const TRIAL_BLOCKS: usize = 64;

/// Enough that each function has a few rounds undisturbed. With twelve, one process in 600 chose
/// wrong on two processors shared with four busy loops; with 32, none in 2000.
const TRIAL_ROUNDS: usize = 32;
