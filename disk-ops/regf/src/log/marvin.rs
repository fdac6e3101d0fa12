//! Marvin32, the hash that guards log entries.

/// The hash of `data` under the seed that log entries use ("Log entries", note 3).
pub(super) fn marvin32(data: &[u8]) -> u64 {
    let mut state = State {
        low: SEED_LOW,
        high: SEED_HIGH,
    };
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        state.add(u32::from_le_bytes(*word));
    }
    // The tail, then one set bit, as a little-endian number.
    let last = tail
        .iter()
        .rev()
        .fold(0x80, |number, &byte| number << 8 | u32::from(byte));
    state.add(last);
    state.mix();
    u64::from(state.high) << 32 | u64::from(state.low)
}

struct State {
    low: u32,
    high: u32,
}

impl State {
    fn add(&mut self, word: u32) {
        self.low = self.low.wrapping_add(word);
        self.mix();
    }

    fn mix(&mut self) {
        self.high ^= self.low;
        self.low = self.low.rotate_left(20).wrapping_add(self.high);
        self.high = self.high.rotate_left(9) ^ self.low;
        self.low = self.low.rotate_left(27).wrapping_add(self.high);
        self.high = self.high.rotate_left(19);
    }
}

/// The seed 0x82EF4D887A4E55C5.
const SEED_LOW: u32 = 0x7A4E_55C5;
const SEED_HIGH: u32 = 0x82EF_4D88;
