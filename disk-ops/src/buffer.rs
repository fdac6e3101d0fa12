//! Memory that direct I/O accepts.

use std::fmt;

/// What direct I/O asks of offset, length and memory address: a multiple of this many bytes.
///
/// 4096 satisfies every logical sector size we accept and the page size of the file systems that
/// ask for more than a sector.
pub const DIRECT_IO_ALIGNMENT: usize = 4096;

/// A buffer whose first byte lies on a [`DIRECT_IO_ALIGNMENT`] boundary.
pub struct Buffer {
    /// Longer than asked for by one alignment, so that an aligned start can be found inside.
    memory: Box<[u8]>,
    start: usize,
}

impl Buffer {
    /// A zeroed buffer of `capacity` bytes.
    pub fn new(capacity: usize) -> Self {
        let memory = vec![0; capacity + DIRECT_IO_ALIGNMENT].into_boxed_slice();
        let past = memory.as_ptr().addr() % DIRECT_IO_ALIGNMENT;
        let start = if past == 0 {
            0
        } else {
            DIRECT_IO_ALIGNMENT - past
        };
        Self { memory, start }
    }

    /// How many bytes it holds.
    pub fn capacity(&self) -> usize {
        self.memory.len() - DIRECT_IO_ALIGNMENT
    }

    /// The first `length` bytes.
    ///
    /// # Panics
    ///
    /// If `length` is more than the capacity.
    pub fn bytes(&self, length: usize) -> &[u8] {
        assert!(length <= self.capacity());
        &self.memory[self.start..][..length]
    }

    /// The first `length` bytes, to be changed.
    ///
    /// # Panics
    ///
    /// If `length` is more than the capacity.
    pub fn bytes_mut(&mut self, length: usize) -> &mut [u8] {
        assert!(length <= self.capacity());
        &mut self.memory[self.start..][..length]
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_whatever_their_size() {
        for capacity in [1, 511, 4096, 4097, 2 << 20] {
            let mut buffer = Buffer::new(capacity);
            assert_eq!(buffer.capacity(), capacity);
            assert_eq!(buffer.bytes(capacity).len(), capacity);
            assert_eq!(buffer.bytes_mut(1).as_ptr().addr() % DIRECT_IO_ALIGNMENT, 0);
        }
    }
}
