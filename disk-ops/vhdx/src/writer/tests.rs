use super::*;
use crate::content::ContentDigest;
use crate::units::{BlockSize, SectorSize};

fn geometry(disk_size: u64) -> Geometry {
    Geometry::new(
        disk_size,
        SectorSize::B512,
        SectorSize::B4096,
        BlockSize::DEFAULT,
    )
    .expect("a valid geometry")
}

fn content(geometry: &Geometry) -> ContentId {
    ContentDigest::new().finish(geometry)
}

const BLOCK: u64 = 2 * MIB;

#[test]
fn blocks_are_appended_in_the_order_they_are_touched() {
    let mut writer = VhdxWriter::new(geometry(100 * BLOCK));
    let data = writer.geometry().data_offset();
    assert_eq!(data, FileOffset(4 * MIB));
    assert_eq!(writer.file_length(), data);
    assert_eq!(
        writer.place(VirtualOffset(5 * BLOCK + 512), 512),
        Ok(FileOffset(data.0 + 512))
    );
    assert_eq!(
        writer.place(VirtualOffset(5 * BLOCK + 4096), 512),
        Ok(FileOffset(data.0 + 4096))
    );
    assert_eq!(
        writer.place(VirtualOffset(99 * BLOCK), BLOCK),
        Ok(FileOffset(data.0 + BLOCK))
    );
    assert_eq!(writer.file_length(), FileOffset(data.0 + 2 * BLOCK));
}

#[test]
fn a_block_is_found_again_where_it_was_placed() {
    let mut writer = VhdxWriter::new(geometry(100 * BLOCK));
    let touched = [0, 7, 8, 9, 31, 64, 99];
    let placed = touched.map(|block| {
        writer
            .place(VirtualOffset(block * BLOCK), 512)
            .expect("in order")
    });
    for (block, place) in touched.into_iter().zip(placed) {
        let last_byte = VirtualOffset(block * BLOCK + BLOCK - 1);
        assert_eq!(writer.locate(last_byte), Some(place), "block {block}");
    }
    for block in [1, 6, 10, 98, 100, u64::MAX / BLOCK] {
        assert_eq!(writer.locate(VirtualOffset(block * BLOCK)), None);
    }
    assert_eq!(writer.next(), VirtualOffset(99 * BLOCK + 512));
}

#[test]
fn a_range_that_has_no_place_is_refused_and_changes_nothing() {
    let mut writer = VhdxWriter::new(geometry(3 * BLOCK + 512));
    writer
        .place(VirtualOffset(BLOCK), 1024)
        .expect("a valid range");
    let before = writer.clone();
    let mut refusal = |offset, length| {
        writer
            .place(VirtualOffset(offset), length)
            .expect_err("no place for it")
    };
    assert!(matches!(refusal(BLOCK, 512), PlaceError::OutOfOrder { .. }));
    assert!(matches!(
        refusal(BLOCK + 1023, 1),
        PlaceError::OutOfOrder { .. }
    ));
    assert!(matches!(refusal(2 * BLOCK, 0), PlaceError::Empty { .. }));
    assert!(matches!(
        refusal(2 * BLOCK - 1, 2),
        PlaceError::CrossesBlocks { .. }
    ));
    assert!(matches!(
        refusal(3 * BLOCK, 513),
        PlaceError::OutsideDisk { .. }
    ));
    assert!(matches!(
        refusal(u64::MAX, u64::MAX),
        PlaceError::OutsideDisk { .. }
    ));
    assert_eq!(writer, before);
}

#[test]
fn the_closing_steps_cover_everything_before_the_payload_and_end_with_the_head() {
    for disk_size in [512, 2 << 40] {
        let writer = VhdxWriter::new(geometry(disk_size));
        let data = writer.geometry().data_offset();
        let content = content(writer.geometry());
        let mut steps: Vec<ClosingStep> = writer.finish(content).collect();
        assert_eq!(steps.pop(), Some(ClosingStep::Flush));
        let head = steps.pop().expect("a head");
        let ClosingStep::Write { offset, bytes } = head else {
            panic!("{head:?} is no write")
        };
        assert_eq!((offset, length_of(&bytes)), (FileOffset(0), MIB));
        assert_eq!(steps.pop(), Some(ClosingStep::Flush));
        let mut next = MIB;
        for step in steps {
            let ClosingStep::Write { offset, bytes } = step else {
                panic!("{step:?} is no write")
            };
            assert_eq!(offset.0, next);
            assert!(length_of(&bytes) <= MIB);
            next += length_of(&bytes);
        }
        assert_eq!(FileOffset(next), data);
    }
}

#[test]
fn a_restored_writer_goes_on_where_it_was_saved() {
    let mut writer = VhdxWriter::new(geometry(100 * BLOCK));
    let fresh = VhdxWriter::restore(*writer.geometry(), &writer.save());
    assert_eq!(fresh.as_ref(), Ok(&writer));
    for block in [0, 3, 8, 99] {
        writer
            .place(VirtualOffset(block * BLOCK + 100), 7)
            .expect("a valid range");
        let mut restored =
            VhdxWriter::restore(*writer.geometry(), &writer.save()).expect("what was saved");
        assert_eq!(restored, writer);
        let rest = VirtualOffset(block * BLOCK + 107);
        assert_eq!(restored.place(rest, 1), writer.clone().place(rest, 1));
    }
}

#[test]
fn no_saved_state_that_was_touched_is_restored() {
    let mut writer = VhdxWriter::new(geometry(100 * BLOCK));
    writer
        .place(VirtualOffset(8 * BLOCK), 512)
        .expect("a valid range");
    let saved = writer.save();
    for i in 0..saved.len() {
        let mut damaged = saved.clone();
        damaged[i] ^= 1;
        let refusal = VhdxWriter::restore(*writer.geometry(), &damaged);
        assert_eq!(refusal, Err(RestoreError::Damaged), "byte {i}");
        let refusal = VhdxWriter::restore(*writer.geometry(), &saved[..i]);
        assert_eq!(refusal, Err(RestoreError::Damaged), "cut at {i}");
    }
    let other = VhdxWriter::restore(geometry(101 * BLOCK), &saved);
    assert_eq!(other, Err(RestoreError::OtherGeometry));
}

#[test]
fn a_saved_state_that_no_writer_can_be_in_is_refused_even_with_a_valid_checksum() {
    let mut writer = VhdxWriter::new(geometry(100 * BLOCK));
    writer
        .place(VirtualOffset(8 * BLOCK), 512)
        .expect("a valid range");
    let saved = writer.save();
    let body = saved.len() - 4;
    let bits = body - 13;
    let (next, last) = (bits - 8, body - 1);
    type Change = fn(u8) -> u8;
    let changes: [(&str, usize, Change); 4] = [
        ("the next offset lies in another block", next + 3, |byte| {
            byte ^ 0x80
        }),
        ("the next offset leaves the disk", next + 7, |byte| byte | 1),
        ("a later block is marked", bits + 2, |byte| byte | 1),
        ("a block behind the disk is marked", last, |byte| {
            byte | 0x80
        }),
    ];
    for (what, at, change) in changes {
        let mut bytes = saved[..body].to_vec();
        bytes[at] = change(bytes[at]);
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        let refusal = VhdxWriter::restore(*writer.geometry(), &bytes);
        assert_eq!(refusal, Err(RestoreError::Impossible), "{what}");
    }
}
