//! MD5 at the speed the processor allows, behind the interface of the `digest` crate.
//!
//! MD5 is serial: every step needs the result of the one before, so no second thread and no wider
//! register helps, and the digest of a disk sets the pace of its whole export. [`Md5`] therefore
//! brings its own compression function. Buffering, padding and the traits are `digest`'s.
//!
//! ```text
//!  Md5  =  digest's block buffer and padding
//!            |  whole blocks of 64 bytes
//!          Md5Core
//!            |  state and blocks
//!          Compression: measured once per process, the fastest is kept
//!            +-- avx512vl  all in vector registers     x86-64 with AVX-512VL
//!            +-- gpr       general-purpose registers   x86-64
//!            +-- md-5      the md-5 crate's own        any processor
//! ```
//!
//! All of them give the same digest. Nothing here is fit to protect against forgery: MD5 is broken
//! for that, and is kept because the digest of a disk is agreed to be one.
//!
//! # Where the time goes
//!
//! Step by step, MD5 computes `a = b + rotl(a + f(b, c, d) + word + constant, shift)`, then renames
//! the registers. Of the operands, only `b` is new: it is what the previous step has just produced.
//! All that does not depend on `b` runs beside the step before, whatever it costs. What counts is
//! the number of instructions, of one cycle each, between one `b` and the next:
//!
//! | round | written as | in the chain of `b` | general-purpose | AVX-512VL |
//! |---|---|---|---|---|
//! | F | `d ^ (b & (c ^ d))` | and, xor, add, rol, add | 5 | 4 |
//! | G | `(d & b) + (!d & c)` | and, add, rol, add | 4 | 4 |
//! | H | `b ^ (c ^ d)` | xor, add, rol, add | 4 | 4 |
//! | I | `c ^ (b \| !d)` | or, xor, add, rol, add | 5 | 4 |
//! | | cycles per block of 64 bytes | | 288 | 256 |
//! | | cycles per byte | | 4.5 | 4.0 |
//!
//! G's two terms have no bit in common, so that `+` may stand for `|`, and the term without `b` is
//! added ahead of time. AVX-512VL's `vpternlogd` computes any function of three operands in one
//! instruction, hence 4 in each round.
//!
//! A compiler does not know that `b` comes last. It is free to sum `f(b, c, d) + a` first and the
//! rest after, which puts more additions into the chain. Each kernel's `settled` takes that freedom
//! away: the value passes through an empty `asm!`, of which the compiler has to assume that it
//! computes something. On an Intel Xeon (Emerald Rapids) this alone takes `gpr` from 528 to 651
//! MB/s, and `avx512vl` from 585 to 735; at its 2.96 GHz that is 4.55 and 4.03 cycles per byte, so
//! both are at their limit and no shuffling of instructions will bring more.
//!
//! `docs/decisions/0001-md5-compression-function.md` has the comparison with other libraries.

use std::fmt;

use digest::Output;
use digest::array::Array;
use digest::block_api::{
    AlgorithmName, Block, BlockSizeUser, Buffer, BufferKindUser, CoreProxy, Eager, FixedOutputCore,
    OutputSizeUser, Reset, UpdateCore,
};
use digest::common::hazmat::{DeserializeStateError, SerializableState, SerializedState};
use digest::typenum::{U16, U24, U64};

#[cfg(target_arch = "x86_64")]
mod avx512vl;
mod compression;
#[cfg(target_arch = "x86_64")]
mod gpr;
#[cfg(target_arch = "x86_64")]
mod rounds;

pub use compression::Compression;

digest::buffer_fixed!(
    /// The MD5 message digest (RFC 1321), to be used through [`digest::Digest`].
    ///
    /// Its state can be saved at any byte with [`SerializableState::serialize`] and taken up again
    /// later, by another process or on another processor as well. The bytes are those of `md5::Md5`
    /// of the `md-5` crate 0.11: the four words of the state, the count of whole blocks, and the
    /// bytes of the block begun.
    pub struct Md5(Md5Core);
    impl: BaseFixedTraits AlgorithmName Default Clone HashMarker
        Reset FixedOutputReset SerializableState;
);

impl Md5 {
    /// A digest of nothing yet that uses `compression`, and not the fastest one.
    ///
    /// For comparing them: [`Default`] is what an export wants.
    pub fn with_compression(compression: Compression) -> Self {
        Self::compose(
            Md5Core::with_compression(compression),
            Buffer::<Md5Core>::default(),
        )
    }
}

/// The state of MD5 between two blocks; [`Md5`] adds the buffering.
#[derive(Clone)]
pub struct Md5Core {
    state: [u32; 4],
    /// Whole blocks digested. Wraps, as the length in the padding is one modulo 2^64 bits.
    blocks: u64,
    compression: Compression,
}

impl Md5Core {
    fn with_compression(compression: Compression) -> Self {
        Self {
            state: INITIAL_STATE,
            blocks: 0,
            compression,
        }
    }
}

impl Default for Md5Core {
    fn default() -> Self {
        Self::with_compression(Compression::fastest())
    }
}

impl Reset for Md5Core {
    fn reset(&mut self) {
        *self = Self::with_compression(self.compression);
    }
}

impl digest::HashMarker for Md5Core {}

impl BlockSizeUser for Md5Core {
    type BlockSize = U64;
}

impl BufferKindUser for Md5Core {
    type BufferKind = Eager;
}

impl OutputSizeUser for Md5Core {
    type OutputSize = U16;
}

impl UpdateCore for Md5Core {
    fn update_blocks(&mut self, blocks: &[Block<Self>]) {
        self.blocks = self.blocks.wrapping_add(blocks.len() as u64);
        self.compression
            .compress(&mut self.state, Array::cast_slice_to_core(blocks));
    }
}

impl FixedOutputCore for Md5Core {
    fn finalize_fixed_core(&mut self, buffer: &mut Buffer<Self>, out: &mut Output<Self>) {
        let bytes = self
            .blocks
            .wrapping_mul(64)
            .wrapping_add(buffer.get_pos() as u64);
        buffer.len64_padding_le(bytes.wrapping_mul(8), |block| {
            self.compression.compress(&mut self.state, &[block.0]);
        });
        let (words, _) = out.as_chunks_mut();
        for (bytes, word) in words.iter_mut().zip(self.state) {
            *bytes = word.to_le_bytes();
        }
    }
}

impl SerializableState for Md5Core {
    type SerializedStateSize = U24;

    fn serialize(&self) -> SerializedState<Self> {
        let mut saved = SerializedState::<Self>::default();
        let (words, blocks) = saved.split_at_mut(16);
        for (bytes, word) in words.as_chunks_mut().0.iter_mut().zip(self.state) {
            *bytes = word.to_le_bytes();
        }
        blocks.copy_from_slice(&self.blocks.to_le_bytes());
        saved
    }

    /// Every 24 bytes are a state that MD5 may have been in, so this never fails. That they are
    /// the right ones is for whoever stored them to see to.
    fn deserialize(saved: &SerializedState<Self>) -> Result<Self, DeserializeStateError> {
        let (words, blocks) = saved.split_ref::<U16>();
        let mut core = Self::default();
        for (word, bytes) in core.state.iter_mut().zip(words.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        core.blocks = u64::from_le_bytes((*blocks).into());
        Ok(core)
    }
}

impl AlgorithmName for Md5Core {
    fn write_alg_name(f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Md5")
    }
}

impl fmt::Debug for Md5Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Md5Core")
            .field("compression", &self.compression)
            .finish_non_exhaustive()
    }
}

/// The state before the first block (RFC 1321, section 3.3): the bytes 01 23 .. ef, fe dc .. 10.
const INITIAL_STATE: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

#[cfg(test)]
mod tests;
