//! Images of which only the interesting structures are in memory, and what holds for every image
//! that a reader accepts.

use std::io;

use ce_vhdx::{Extent, FileOffset, ReadAt, ReadError};

/// A file that is zero but for some pieces; later ones lie over earlier ones.
#[derive(Clone, Default)]
pub struct SparseImage {
    pub length: u64,
    pub pieces: Vec<(u64, Vec<u8>)>,
}

impl SparseImage {
    /// The piece that begins at `offset`.
    pub fn piece(&mut self, offset: u64) -> &mut Vec<u8> {
        let piece = self.pieces.iter_mut().find(|(start, _)| *start == offset);
        &mut piece.expect("a piece of the template").1
    }

    /// Lays patches into the pieces that begin at `places`.
    pub fn patch(&mut self, patches: &[u8], places: &[u64]) {
        for patch in Patch::all(patches) {
            let piece = self.piece(places[usize::from(patch.place) % places.len()]);
            patch.apply(piece);
        }
    }
}

impl ReadAt for SparseImage {
    fn length(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: FileOffset, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.0 + buffer.len() as u64;
        assert!(
            end <= self.length,
            "a read up to {end:#x} of {:#x}",
            self.length
        );
        buffer.fill(0);
        for (start, piece) in &self.pieces {
            let from = offset.0.max(*start);
            let to = end.min(start + piece.len() as u64);
            if from < to {
                buffer[(from - offset.0) as usize..(to - offset.0) as usize]
                    .copy_from_slice(&piece[(from - start) as usize..(to - start) as usize]);
            }
        }
        Ok(())
    }
}

/// Bytes to be laid over a structure. In an input: which structure, where in it (16 bits,
/// little-endian), how many bytes from 1 to 4 (modulo 4), the bytes.
pub struct Patch<'a> {
    pub place: u8,
    offset: u16,
    bytes: &'a [u8],
}

impl<'a> Patch<'a> {
    /// The patches that `input` holds, eight bytes each.
    pub fn all(input: &'a [u8]) -> impl Iterator<Item = Self> {
        input
            .as_chunks()
            .0
            .iter()
            .map(|[place, low, high, count, bytes @ ..]: &[u8; 8]| Self {
                place: *place,
                offset: u16::from_le_bytes([*low, *high]),
                bytes: &bytes[..usize::from(*count % 4) + 1],
            })
    }

    /// Lays the bytes over `structure`, as far as they fit in.
    pub fn apply(&self, structure: &mut [u8]) {
        let start = usize::from(self.offset) % structure.len();
        for (target, byte) in structure[start..].iter_mut().zip(self.bytes) {
            *target = *byte;
        }
    }
}

/// Whatever the image, its extents tile the disk, lie in the file, and share no byte of it.
pub fn check_extents(
    disk_size: u64,
    file_length: u64,
    extent_at: impl Fn(u64) -> Result<Extent, ReadError>,
    read_at: impl Fn(u64, &mut [u8]) -> Result<(), ReadError>,
) {
    let mut in_file = Vec::new();
    let mut next = 0;
    for _ in 0..10_000 {
        if next == disk_size {
            break;
        }
        let extent = extent_at(next).expect("an extent on the disk");
        assert!(extent.length() > 0 && extent.length() <= disk_size - next);
        let mut byte = [0xA5];
        read_at(next + extent.length() - 1, &mut byte).expect("a byte of an extent");
        match extent {
            Extent::Data {
                file_offset,
                length,
            } => in_file.push((file_offset.0, length)),
            Extent::Zero { .. } => assert_eq!(byte, [0], "a zero extent reads as zeros"),
        }
        next += extent.length();
    }
    in_file.sort_unstable();
    let mut free = 0;
    for (start, length) in in_file {
        assert!(start >= free, "two extents share the byte at {start:#x}");
        free = start + length;
        assert!(
            free <= file_length,
            "an extent ends at {free:#x} of {file_length:#x}"
        );
    }
    extent_at(disk_size).expect_err("nothing lies behind the disk");
}
