//! Disks and files for the tests of the image writers and readers.

use std::fs::File;
use std::os::unix::fs::FileExt;

use ce_vhdx::{
    ClosingStep, ContentDigest, ContentId, FixedVhdWriter, Geometry, PIECE_LENGTH, VhdxWriter,
    VirtualOffset, is_zero,
};

pub const MIB: u64 = 1 << 20;

/// A disk of which only a few extents are not zero, in ascending order.
#[derive(Clone, Debug)]
pub struct Disk {
    pub geometry: Geometry,
    pub extents: Vec<(u64, Vec<u8>)>,
}

impl Disk {
    /// What the disk has at `offset`.
    pub fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let end = offset + length as u64;
        for (start, data) in &self.extents {
            let from = offset.max(*start);
            let to = end.min(start + data.len() as u64);
            if from < to {
                bytes[(from - offset) as usize..(to - offset) as usize]
                    .copy_from_slice(&data[(from - start) as usize..(to - start) as usize]);
            }
        }
        bytes
    }

    /// Hands every chunk of `chunk` bytes that is not all zeros to `take`; chunks also end at
    /// the borders of pieces and blocks, which are multiples of a MiB.
    pub fn chunks(&self, chunk: u64, mut take: impl FnMut(u64, &[u8])) {
        let mut next = 0;
        for (start, data) in &self.extents {
            let end = start + data.len() as u64;
            next = next.max(start / MIB * MIB);
            while next < end {
                let border = (next / MIB + 1) * MIB;
                let stop = (next + chunk).min(border).min(self.geometry.disk_size());
                let bytes = self.read(next, (stop - next) as usize);
                if !is_zero(&bytes) {
                    take(next, &bytes);
                }
                next = stop;
            }
        }
    }

    pub fn content(&self) -> ContentId {
        let mut digest = ContentDigest::new();
        self.chunks(PIECE_LENGTH as u64, |offset, bytes| {
            digest
                .update(offset / MIB, bytes)
                .expect("ascending pieces");
        });
        digest.finish(&self.geometry)
    }

    /// Writes the payload, reading `chunk` bytes at a time, and leaves the rest to be done.
    pub fn write_payload(&self, chunk: u64, file: &mut impl WriteAt) -> VhdxWriter {
        let mut writer = VhdxWriter::new(self.geometry);
        self.chunks(chunk, |offset, bytes| {
            let at = writer
                .place(VirtualOffset(offset), bytes.len() as u64)
                .expect("an ascending chunk inside a block");
            file.write(at.0, bytes);
        });
        file.grow(writer.file_length().0);
        writer
    }

    pub fn write_vhdx(&self, chunk: u64, file: &mut impl WriteAt) {
        for step in self.write_payload(chunk, file).finish(self.content()) {
            if let ClosingStep::Write { offset, bytes } = step {
                file.write(offset.0, &bytes);
            }
        }
    }

    pub fn write_vhd(&self, file: &mut impl WriteAt) {
        let writer = FixedVhdWriter::new(&self.geometry).expect("512-byte sectors");
        self.chunks(MIB, |offset, bytes| file.write(offset, bytes));
        file.grow(writer.footer_offset().0);
        file.write(writer.footer_offset().0, &writer.footer(&self.content()));
    }
}

/// A file that can be written anywhere; what was never written is zero.
pub trait WriteAt {
    fn write(&mut self, offset: u64, bytes: &[u8]);
    fn grow(&mut self, length: u64);
}

impl WriteAt for Vec<u8> {
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let start = offset as usize;
        self.grow(offset + bytes.len() as u64);
        self[start..start + bytes.len()].copy_from_slice(bytes);
    }

    fn grow(&mut self, length: u64) {
        let length = self.len().max(length as usize);
        self.resize(length, 0);
    }
}

impl WriteAt for File {
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.write_all_at(bytes, offset).expect("a writable file");
    }

    fn grow(&mut self, length: u64) {
        if self.metadata().expect("an open file").len() < length {
            self.set_len(length).expect("a writable file");
        }
    }
}

/// Bytes that look random and are the same on every machine (SplitMix64).
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bytes.extend((z ^ (z >> 31)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
