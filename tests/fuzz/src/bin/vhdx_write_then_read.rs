//! Writes a disk as a VHDX, interrupted at any point, and reads it back.
//!
//! Oracle: the reader finds the geometry and the bytes that were written, and zeros elsewhere; a
//! writer that was saved and restored on the way places everything where one that was not does.
//!
//! Input: the size in 512-byte sectors (32 bits, little-endian), the block size as a power of two
//! above 1 MiB (modulo 9) with 128 for sectors of 4096 bytes, before which of the sectors the
//! writer is restored, and sectors that are not zero: number (32 bits) and content, five bytes
//! each.

#![no_main]

use std::collections::BTreeMap;

use ce_vhdx::{
    BlockSize, ClosingStep, ContentDigest, Geometry, SectorSize, VhdxReader, VhdxWriter,
    VirtualOffset,
};
use libfuzzer_sys::fuzz_target;

#[path = "../sparse_image.rs"]
#[expect(dead_code, reason = "nothing is patched here")]
mod sparse_image;

use sparse_image::SparseImage;

fuzz_target!(|input: &[u8]| {
    let Some((&[a, b, c, d, shape, restore_at], sectors)) = input.split_first_chunk() else {
        return;
    };
    let sector = if shape & 128 != 0 {
        SectorSize::B4096
    } else {
        SectorSize::B512
    };
    // Up to 9 GiB: more than two chunks, but a BAT that is quickly written.
    let disk_size = (u64::from(u32::from_le_bytes([a, b, c, d])) % (9 << 21) + 1) * 512;
    let disk_size = disk_size.next_multiple_of(sector.bytes());
    let block = BlockSize::from_bytes(1 << (20 + shape % 128 % 9)).expect("a block size");
    let geometry = Geometry::new(disk_size, sector, sector, block).expect("a valid geometry");

    let data: BTreeMap<u64, u8> = sectors
        .as_chunks()
        .0
        .iter()
        .take(64)
        .map(|[a, b, c, d, fill]| {
            let number = u64::from(u32::from_le_bytes([*a, *b, *c, *d]));
            (number % (disk_size / 512) * 512, *fill | 1)
        })
        .collect();
    let mut writer = VhdxWriter::new(geometry);
    let mut image = SparseImage::default();
    for (i, (offset, fill)) in data.iter().enumerate() {
        if i == usize::from(restore_at) {
            let saved = writer.save();
            let restored = VhdxWriter::restore(geometry, &saved).expect("what was saved");
            assert_eq!(restored, writer);
            writer = restored;
        }
        let at = writer
            .place(VirtualOffset(*offset), 512)
            .expect("an ascending sector");
        image.pieces.push((at.0, vec![*fill; 512]));
    }
    image.length = writer.file_length().0;
    for step in writer.finish(ContentDigest::new().finish(&geometry)) {
        if let ClosingStep::Write { offset, bytes } = step {
            // Not the zeros at the end of a region, which are slow to keep and to copy.
            let used = match offset.0 >> 20 {
                0 => 320 << 10,
                1 => 0,
                2 => 65 << 10,
                _ => geometry.bat_entry_count() as usize * 8,
            };
            image.pieces.push((offset.0, bytes[..used].to_vec()));
        }
    }

    let reader = VhdxReader::open(image).expect("our own file");
    assert_eq!(reader.geometry(), &geometry);
    for (offset, fill) in &data {
        // The sector and what is around it.
        let start = offset.saturating_sub(512);
        let mut found = vec![0xA4; (disk_size - start).min(1536) as usize];
        reader
            .read_at(VirtualOffset(start), &mut found)
            .expect("readable");
        for (at, sector) in (start..).step_by(512).zip(found.chunks(512)) {
            let expected = data.get(&at).copied().unwrap_or(0);
            assert!(
                sector.iter().all(|byte| *byte == expected),
                "sector at {at:#x}, {fill}"
            );
        }
    }
});
