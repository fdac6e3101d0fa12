use std::cell::Cell;

use super::*;
use crate::content::ContentDigest;
use crate::error::BlockError;
use crate::format::{HEADER_LENGTH, HEADER_OFFSETS, REGION_TABLE_LENGTH, seal};
use crate::units::{BlockSize, MIB, SectorSize};
use crate::writer::{ClosingStep, VhdxWriter};

/// A disk of 6 MiB in blocks of 1 MiB, of which 0, 1 and 4 are in the file.
fn image() -> Vec<u8> {
    let block = BlockSize::from_bytes(1 << 20).expect("a block size");
    let geometry = Geometry::new(6 * MIB, SectorSize::B512, SectorSize::B4096, block);
    written(&geometry.expect("a valid geometry"), &[0, 1, 4])
}

/// A disk of which these blocks of 1 MiB are in the file, filled with their numbers from 1.
fn written(geometry: &Geometry, blocks: &[u8]) -> Vec<u8> {
    let mut writer = VhdxWriter::new(*geometry);
    let mut file = vec![0; buffer_index(geometry.data_offset().0)];
    for &block in blocks {
        let start = VirtualOffset(u64::from(block) * MIB);
        let at = writer.place(start, MIB).expect("a whole block");
        file.resize(buffer_index(at.0), 0);
        file.resize(buffer_index(at.0 + MIB), block + 1);
    }
    for step in writer.finish(ContentDigest::new().finish(geometry)) {
        if let ClosingStep::Write { offset, bytes } = step {
            let start = buffer_index(offset.0);
            file[start..start + bytes.len()].copy_from_slice(&bytes);
        }
    }
    file
}

fn put(file: &mut [u8], offset: u64, bytes: &[u8]) {
    let start = buffer_index(offset);
    file[start..start + bytes.len()].copy_from_slice(bytes);
}

/// Changes both copies of the region table and corrects their checksums.
fn put_region(file: &mut [u8], offset: u64, bytes: &[u8]) {
    for table in crate::format::REGION_TABLE_OFFSETS {
        put(file, table + offset, bytes);
        let start = buffer_index(table);
        seal(&mut file[start..start + REGION_TABLE_LENGTH]);
    }
}

fn put_header(file: &mut [u8], which: usize, offset: u64, bytes: &[u8]) {
    put(file, HEADER_OFFSETS[which] + offset, bytes);
    let start = buffer_index(HEADER_OFFSETS[which]);
    seal(&mut file[start..start + HEADER_LENGTH]);
}

fn refusal(file: &[u8]) -> String {
    VhdxReader::open(file)
        .map(|_| ())
        .expect_err("a file that is refused")
        .to_string()
}

#[test]
fn extents_join_what_lies_together() {
    let file = image();
    let reader = VhdxReader::open(file.as_slice()).expect("our own file");
    let at = |offset| {
        reader
            .extent_at(VirtualOffset(offset))
            .expect("on the disk")
    };
    let file_offset = FileOffset(4 * MIB + 512);
    assert_eq!(
        at(512),
        Extent::Data {
            file_offset,
            length: 2 * MIB - 512
        }
    );
    assert_eq!(at(2 * MIB), Extent::Zero { length: 2 * MIB });
    assert_eq!(at(5 * MIB + 1), Extent::Zero { length: MIB - 1 });
    let outside = reader.extent_at(VirtualOffset(6 * MIB));
    assert!(matches!(outside, Err(ReadError::OutsideDisk { .. })));
}

/// A file that counts the bytes that are read from it.
struct Counted<'a>(&'a [u8], Cell<usize>);

impl ReadAt for Counted<'_> {
    fn length(&self) -> u64 {
        self.0.length()
    }

    fn read_at(&self, offset: FileOffset, buffer: &mut [u8]) -> std::io::Result<()> {
        self.1.set(self.1.get() + buffer.len());
        self.0.read_at(offset, buffer)
    }
}

#[test]
fn an_extent_takes_one_page_of_the_table() {
    // 2 TiB and no data: a table of 2^21 entries.
    let block = BlockSize::from_bytes(1 << 20).expect("a block size");
    let geometry = Geometry::new(2 << 40, SectorSize::B512, SectorSize::B4096, block);
    let file = written(&geometry.expect("a valid geometry"), &[]);
    let counted = Counted(&file, Cell::new(0));
    let reader = VhdxReader::open(&counted).expect("our own file");
    let before = counted.1.get();
    let extent = reader.extent_at(VirtualOffset(0)).expect("on the disk");
    assert!(extent.length() >= 256 * MIB, "{extent:?}");
    let read = counted.1.get() - before;
    assert!(read <= 4096, "{read} bytes read");
}

#[test]
fn every_state_without_content_reads_as_zeros() {
    for state in 0..=3 {
        let mut file = image();
        put(&mut file, 3 * MIB, &[state, 0, 0x50]);
        let reader = VhdxReader::open(file.as_slice()).expect("a valid file");
        let mut bytes = [9; 4];
        reader
            .read_at(VirtualOffset(MIB - 2), &mut bytes)
            .expect("readable");
        assert_eq!(bytes, [0, 0, 2, 2], "state {state}");
    }
}

#[test]
fn a_table_entry_that_can_t_be_right_is_refused_by_its_block() {
    let cases: [(&[u8], &str); 6] = [
        (&[4, 0, 0x40], "block 2 is 0x400004: there is no such state"),
        (&[7, 0, 0x40], "only a differencing disk"),
        (&[6, 1, 0x40], "bits 3 to 19 must be zero"),
        (&[6, 0, 0], "the head of the file"),
        (&[6, 0, 0x30], "block 2 at 0x300000 of the image overlaps"),
        (&[6, 0, 0x50], "overlaps"),
    ];
    for (entry, message) in cases {
        let mut file = image();
        put(&mut file, 3 * MIB + 16, entry);
        let found = refusal(&file);
        assert!(found.contains(message), "{found}");
    }
}

#[test]
fn a_block_that_is_cut_short_is_an_error_and_not_zeros() {
    let mut file = image();
    file.truncate(file.len() - 1);
    let Err(OpenError::Block(BlockError::Truncated { block, offset, .. })) =
        VhdxReader::open(file.as_slice())
    else {
        panic!("the last block is not wholly there")
    };
    assert_eq!((block, offset), (PayloadBlock(4), FileOffset(6 * MIB)));
}

#[test]
fn a_file_that_shrinks_gives_an_error_and_no_zeros() {
    struct Shrinking<'a>(&'a [u8], Cell<u64>);

    impl ReadAt for Shrinking<'_> {
        fn length(&self) -> u64 {
            self.1.get()
        }

        fn read_at(&self, offset: FileOffset, buffer: &mut [u8]) -> std::io::Result<()> {
            self.0[..buffer_index(self.1.get())].read_at(offset, buffer)
        }
    }

    let file = image();
    let shrinking = Shrinking(&file, Cell::new(file.length()));
    let reader = VhdxReader::open(&shrinking).expect("our own file");
    shrinking.1.set(6 * MIB);
    let refusal = reader.read_at(VirtualOffset(4 * MIB), &mut [0; 16]);
    assert!(matches!(refusal, Err(ReadError::Read(_))), "{refusal:?}");
}

#[test]
fn one_damaged_copy_of_header_or_region_table_does_no_harm() {
    for offset in [HEADER_OFFSETS, crate::format::REGION_TABLE_OFFSETS].as_flattened() {
        let mut file = image();
        put(&mut file, offset + 30, b"damage");
        VhdxReader::open(file.as_slice()).expect("the other copy is whole");
    }
    let mut file = image();
    for offset in HEADER_OFFSETS {
        put(&mut file, offset + 30, b"damage");
    }
    assert!(refusal(&file).contains("header 1 and header 2"));
}

#[test]
fn headers_with_the_same_number_must_be_the_same() {
    let mut file = image();
    put_header(&mut file, 0, 8, &[2]);
    VhdxReader::open(file.as_slice()).expect("the same header twice");
    put_header(&mut file, 0, 20, &[1, 2, 3]);
    assert!(refusal(&file).contains("another sequence number"));
}

#[test]
fn a_log_that_can_t_be_replayed_is_refused() {
    let mut file = image();
    put_header(&mut file, 1, 48, &[1; 16]);
    assert!(refusal(&file).contains("no complete sequence"));
}

#[test]
fn regions_are_checked_for_their_place_and_kind() {
    let cases: [(u64, &[u8], &str); 5] = [
        (16 + 16, &MIB.to_le_bytes(), "space of its own"),
        (16 + 16, &512_u64.to_le_bytes(), "multiples of 1 MiB"),
        (16 + 16, &(900 * MIB).to_le_bytes(), "cut short"),
        (16, &[1], "needs the region"),
        (8, &[1], "no BAT region"),
    ];
    for (offset, bytes, message) in cases {
        let mut file = image();
        put_region(&mut file, offset, bytes);
        let found = refusal(&file);
        assert!(found.contains(message), "{found}");
    }
}

#[test]
fn metadata_are_checked_for_their_place_kind_and_value() {
    let items = 2 * MIB + 65536;
    let entries = 2 * MIB + 32;
    let cases: [(u64, &[u8], &str); 8] = [
        (2 * MIB, b"x", "\"metadata\""),
        (items, &[1], "a power of two from 1 MiB"),
        (items + 8, &[1], "impossible disk"),
        (items + 8 + 5, &[1], "the BAT region"),
        (items + 32, &[1], "512 or 4096"),
        (entries + 16, &[0, 0, 0x10], "the place of a metadata item"),
        (entries + 20, &[9], "expected 8 bytes, found 9"),
        (entries, &[1], "needs the metadata item"),
    ];
    for (offset, bytes, message) in cases {
        let mut file = image();
        put(&mut file, offset, bytes);
        let found = refusal(&file);
        assert!(found.contains(message), "{found}");
    }
    let mut file = image();
    put(&mut file, items + 4, &[2]);
    assert!(refusal(&file).contains("differencing disk"));
}
