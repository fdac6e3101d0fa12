//! Little-endian fields of a structure, read by position.

/// The bytes of a structure. What is behind its end reads as nothing.
#[derive(Clone, Copy, Debug)]
pub(in crate::volume) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub fn bytes<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    pub fn slice(self, at: usize, length: usize) -> Option<&'a [u8]> {
        self.0.get(at..at.checked_add(length)?)
    }

    pub fn u8(self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    pub fn u16(self, at: usize) -> Option<u16> {
        self.bytes(at).map(u16::from_le_bytes)
    }

    pub fn u32(self, at: usize) -> Option<u32> {
        self.bytes(at).map(u32::from_le_bytes)
    }

    pub fn u64(self, at: usize) -> Option<u64> {
        self.bytes(at).map(u64::from_le_bytes)
    }

    /// A text of `length` bytes of UTF-16; unpaired surrogates are replaced.
    pub fn utf16(self, at: usize, length: usize) -> Option<String> {
        let units = self.slice(at, length)?.chunks_exact(2);
        let units: Vec<u16> = units
            .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
            .collect();
        Some(String::from_utf16_lossy(&units))
    }
}

/// Puts the last two bytes of every 512-byte block back where the update sequence array has kept
/// them. `None` when the array leaves the record or a block does not end as it should: the record
/// was torn.
pub(in crate::volume) fn undo_update_sequence(record: &mut [u8]) -> Option<()> {
    let fields = Fields(record);
    let at = usize::from(fields.u16(4)?);
    let count = usize::from(fields.u16(6)?).checked_sub(1)?;
    let expected: [u8; 2] = fields.bytes(at)?;
    let saved = fields
        .slice(at.checked_add(2)?, count.checked_mul(2)?)?
        .to_vec();
    if count.checked_mul(UPDATE_BLOCK)? > record.len() {
        return None;
    }
    for (block, saved) in record
        .chunks_exact_mut(UPDATE_BLOCK)
        .zip(saved.chunks_exact(2))
    {
        let end = block.get_mut(UPDATE_BLOCK - 2..)?;
        if *end != expected {
            return None;
        }
        end.copy_from_slice(saved);
    }
    Some(())
}

/// What one entry of an update sequence array stands for, whatever the sector size of the disk.
const UPDATE_BLOCK: usize = 512;
