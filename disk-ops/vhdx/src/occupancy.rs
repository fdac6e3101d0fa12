//! Which parts of a file are in use, so that nothing lies over anything else.

use crate::units::{MIB, buffer_index};

/// One bit for each MiB of the file, the unit in which VHDX places everything.
///
/// The memory follows from the length of the file, not from what the file says: at most 16 MiB,
/// as [`MAX_FILE_LENGTH`] bounds it.
#[derive(Debug)]
pub(crate) struct Occupancy(Vec<u8>);

impl Occupancy {
    /// The map of a file of `file_length` bytes in which only the head is in use.
    pub(crate) fn new(file_length: u64) -> Self {
        let units = file_length.min(MAX_FILE_LENGTH).div_ceil(MIB);
        let mut map = Self(vec![0; buffer_index(units.div_ceil(8))]);
        map.claim(0, MIB);
        map
    }

    /// Takes the units of the `length` bytes from `offset` on; `false` if one of them is taken or
    /// lies outside the file.
    pub(crate) fn claim(&mut self, offset: u64, length: u64) -> bool {
        let end = offset.saturating_add(length).div_ceil(MIB);
        for unit in offset / MIB..end {
            let mask = 1 << (unit % 8);
            match self.0.get_mut(buffer_index(unit / 8)) {
                Some(bits) if *bits & mask == 0 => *bits |= mask,
                _ => return false,
            }
        }
        true
    }
}

/// Twice the largest disk: room for every structure around it, and for old blocks.
pub(crate) const MAX_FILE_LENGTH: u64 = 128 << 40;
