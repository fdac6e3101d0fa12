//! Writes a disk as a VHDX, interrupted at any point, and reads it back.
//!
//! Oracle: the reader finds the geometry and the bytes that were written, and zeros elsewhere; a
//! writer that was saved and restored on the way places everything where one that was not does.

#![no_main]

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use ce_vhdx::{
    BlockSize, ClosingStep, ContentDigest, Geometry, SectorSize, VhdxReader, VhdxWriter,
    VirtualOffset,
};
use libfuzzer_sys::fuzz_target;

#[path = "../sparse_image.rs"]
#[expect(dead_code, reason = "nothing is patched here")]
mod sparse_image;

use sparse_image::SparseImage;

#[derive(Arbitrary, Debug)]
struct Disk {
    sectors: u32,
    four_k: bool,
    block: u8,
    /// Sectors with data, and what is in them.
    data: BTreeMap<u32, u8>,
    restore_at: u8,
}

fuzz_target!(|disk: Disk| {
    let sector = if disk.four_k {
        SectorSize::B4096
    } else {
        SectorSize::B512
    };
    // Up to 16 GiB: more than one chunk, but a BAT that is quickly written.
    let disk_size = (u64::from(disk.sectors) % (16 << 21) + 1) * 512;
    let disk_size = disk_size.next_multiple_of(sector.bytes());
    let block = BlockSize::from_bytes(1 << (20 + disk.block % 9)).expect("a block size");
    let geometry = Geometry::new(disk_size, sector, sector, block).expect("a valid geometry");

    let data: BTreeMap<u64, u8> = disk
        .data
        .iter()
        .take(64)
        .map(|(at, fill)| (u64::from(*at) % (disk_size / 512) * 512, *fill | 1))
        .collect();
    let mut writer = VhdxWriter::new(geometry);
    let mut image = SparseImage::default();
    for (i, (offset, fill)) in data.iter().enumerate() {
        if i == usize::from(disk.restore_at) {
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
            image.pieces.push((offset.0, bytes));
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
