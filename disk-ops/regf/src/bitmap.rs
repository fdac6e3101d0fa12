//! One bit for every 8 bytes of a hive's bins: the places where a cell can start.

use crate::units::{CellOffset, index};

/// A set of cell offsets, in memory a 64th of the hive.
#[derive(Clone, Debug)]
pub(crate) struct CellSet {
    words: Vec<u64>,
}

impl CellSet {
    /// An empty set for bins of `bins_len` bytes.
    pub(crate) fn new(bins_len: u32) -> Self {
        Self {
            words: vec![0; index(bins_len.div_ceil(BYTES_PER_WORD))],
        }
    }

    /// Makes room for bins of `bins_len` bytes.
    pub(crate) fn grow(&mut self, bins_len: u32) {
        self.words
            .resize(index(bins_len.div_ceil(BYTES_PER_WORD)), 0);
    }

    pub(crate) fn contains(&self, at: CellOffset) -> bool {
        let (word, mask) = place(at);
        at.get().is_multiple_of(CELL_ALIGNMENT)
            && self.words.get(word).is_some_and(|word| word & mask != 0)
    }

    /// Adds an offset; false when it was there already or can't be in the set.
    pub(crate) fn insert(&mut self, at: CellOffset) -> bool {
        let (word, mask) = place(at);
        match self.words.get_mut(word) {
            Some(word) if at.get().is_multiple_of(CELL_ALIGNMENT) && *word & mask == 0 => {
                *word |= mask;
                true
            }
            _ => false,
        }
    }

    pub(crate) fn remove(&mut self, at: CellOffset) {
        let (word, mask) = place(at);
        if let Some(word) = self.words.get_mut(word) {
            *word &= !mask;
        }
    }

    /// The nearest member below `at`, no lower than `floor`.
    pub(crate) fn before(&self, at: CellOffset, floor: u32) -> Option<CellOffset> {
        let mut bit = at.get() / CELL_ALIGNMENT;
        let floor_bit = floor / CELL_ALIGNMENT;
        while bit > floor_bit {
            let last = bit - 1;
            let below_or_at = u64::MAX >> (63 - last % 64);
            let word = self.words.get(index(last / 64))? & below_or_at;
            if word == 0 {
                bit = last / 64 * 64;
                continue;
            }
            let found = last / 64 * 64 + (63 - word.leading_zeros());
            return (found >= floor_bit).then(|| CellOffset::new(found * CELL_ALIGNMENT));
        }
        None
    }
}

fn place(at: CellOffset) -> (usize, u64) {
    let bit = at.get() / CELL_ALIGNMENT;
    (index(bit / 64), 1 << (bit % 64))
}

/// Cells are aligned to 8 bytes ("Cell").
pub(crate) const CELL_ALIGNMENT: u32 = 8;
const BYTES_PER_WORD: u32 = CELL_ALIGNMENT * u64::BITS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_member_before_an_offset_is_found_across_words_and_not_below_the_floor() {
        let mut set = CellSet::new(8192);
        for at in [32, 40, 1024, 4088] {
            assert!(set.insert(CellOffset::new(at)));
        }
        let before = |at, floor| set.before(CellOffset::new(at), floor).map(CellOffset::get);
        assert_eq!(before(8000, 0), Some(4088));
        assert_eq!(before(4088, 0), Some(1024));
        assert_eq!(before(1024, 0), Some(40));
        assert_eq!(before(40, 0), Some(32));
        assert_eq!(before(32, 0), None);
        assert_eq!(before(4088, 1032), None);
    }

    #[test]
    fn an_offset_between_cells_or_past_the_end_is_never_a_member() {
        let mut set = CellSet::new(4096);
        assert!(!set.insert(CellOffset::new(33)));
        assert!(!set.insert(CellOffset::new(4096)));
        assert!(!set.contains(CellOffset::new(0xFFFF_FFF8)));
        assert!(set.insert(CellOffset::new(4088)));
        assert!(!set.insert(CellOffset::new(4088)));
    }
}
