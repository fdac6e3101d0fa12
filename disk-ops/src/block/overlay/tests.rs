use std::io;

use proptest::prelude::*;

use super::super::{MemoryDisk, Window};
use super::*;
use crate::fault::{Failure, Faults};
use crate::scratch::{MemoryScratch, Scratch};
use crate::units::{SectorSize, SectorSizes};

/// Eleven blocks and a short one of a sector, with content in the middle.
fn disk() -> MemoryDisk {
    let mut disk = MemoryDisk::new(ByteCount(SIZE as u64), SectorSizes::B512);
    disk.write(ByteOffset(8192), &pattern(3 * 4096));
    disk
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 251) as u8 | 1).collect()
}

fn content(disk: &dyn BlockRead) -> Vec<u8> {
    let mut bytes = vec![0; disk.size().0 as usize];
    disk.read_at(ByteOffset::ZERO, &mut bytes).unwrap();
    bytes
}

fn changes(overlay: &Overlay<impl BlockRead>) -> Vec<(u64, usize)> {
    let mut found = Vec::new();
    overlay
        .visit_changes(|change| {
            assert_eq!(change.old.len(), change.new.len());
            found.push((change.offset.0, change.new.len()));
            Ok::<_, BlockError>(())
        })
        .unwrap();
    found
}

const SIZE: usize = 11 * 4096 + 512;

#[test]
fn changes_are_read_and_the_disk_below_stays_as_it_is() {
    let base = disk();
    let before = content(&base);
    let overlay = Overlay::in_memory(&base, ByteCount::mib(1));
    overlay.write_at(ByteOffset(5000), &[9; 10_000]).unwrap();
    overlay
        .write_at(ByteOffset(SIZE as u64 - 512), &[8; 512])
        .unwrap();
    overlay.flush().unwrap();
    let mut expected = before.clone();
    expected[5000..15_000].fill(9);
    expected[SIZE - 512..].fill(8);
    assert_eq!(content(&overlay), expected);
    assert_eq!(content(&base), before);
    assert_eq!(
        changes(&overlay),
        [(4096, 3 * 4096), (SIZE as u64 - 512, 512)]
    );
    overlay.discard_changes();
    assert_eq!(content(&overlay), before);
}

#[test]
fn blocks_that_are_as_before_in_the_end_are_no_changes() {
    let base = disk();
    let before = content(&base);
    let overlay = Overlay::in_memory(&base, ByteCount::mib(1));
    overlay.write_at(ByteOffset(0), &[1; 5 * 4096]).unwrap();
    overlay.write_at(ByteOffset(0), &before[..4096]).unwrap();
    overlay
        .write_at(ByteOffset(2 * 4096), &before[2 * 4096..4 * 4096])
        .unwrap();
    assert_eq!(changes(&overlay), [(4096, 4096), (4 * 4096, 4096)]);
    assert_eq!(overlay.changed(), ByteCount(5 * 4096));
}

#[test]
fn changes_come_in_the_order_of_the_disk_and_not_of_the_writes() {
    let overlay = Overlay::in_memory(disk(), ByteCount::mib(1));
    for block in [9_u64, 1, 8, 5, 0] {
        overlay
            .write_at(ByteOffset(block * 4096 + 7), &[block as u8 + 1])
            .unwrap();
    }
    assert_eq!(
        changes(&overlay),
        [(0, 8192), (5 * 4096, 4096), (8 * 4096, 8192)]
    );
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_lost() {
    let overlay = Overlay::in_memory(disk(), ByteCount(3 * 4096));
    overlay.write_at(ByteOffset(4000), &[7; 200]).unwrap();
    let before = content(&overlay);
    let error = overlay.write_at(ByteOffset(8191), &[6; 4098]).unwrap_err();
    let BlockError::OverlayFull { offset, limit, .. } = error else {
        panic!("{error}");
    };
    assert_eq!((offset, limit), (ByteOffset(8191), ByteCount(3 * 4096)));
    assert_eq!(content(&overlay), before);
    // One write is missing now: what would fit is not taken either.
    assert!(overlay.is_broken());
    assert!(overlay.write_at(ByteOffset(4000), &[7; 1]).is_err());
    overlay.discard_changes();
    overlay.write_at(ByteOffset(0), &[5; 3 * 4096]).unwrap();
    // And what is there already can be written again and again.
    overlay.write_at(ByteOffset(1), &[6; 3 * 4096 - 1]).unwrap();
}

#[test]
fn a_scratch_that_fails_breaks_the_overlay() {
    let faults = Faults::default();
    let scratch = MemoryScratch::new(faults.clone());
    let file = scratch.create_unnamed().unwrap();
    let overlay = Overlay::new(disk(), file, "scratch".into(), ByteCount::mib(1));
    faults.fail_operation(
        2,
        Failure::Error {
            kind: io::ErrorKind::StorageFull,
            after_sectors: 1,
        },
    );
    overlay.write_at(ByteOffset(0), &[1; 4096]).unwrap();
    let error = overlay.write_at(ByteOffset(4096), &[1; 4096]).unwrap_err();
    assert!(matches!(error, BlockError::Scratch { .. }), "{error}");
    assert!(overlay.is_broken());
}

#[test]
fn ranges_that_leave_the_disk_are_refused_and_break_nothing() {
    let overlay = Overlay::in_memory(disk(), ByteCount::mib(1));
    for (offset, length) in [(SIZE as u64, 1), (SIZE as u64 - 1, 2), (u64::MAX, 1)] {
        let error = overlay
            .write_at(ByteOffset(offset), &vec![0; length])
            .unwrap_err();
        assert!(matches!(error, BlockError::OutOfRange { .. }), "{error}");
    }
    overlay.write_at(ByteOffset(SIZE as u64), &[]).unwrap();
    assert!(!overlay.is_broken());
    assert_eq!(overlay.changed(), ByteCount(0));
}

#[test]
fn changed_blocks_are_data_and_the_rest_is_as_below() {
    let overlay = Overlay::in_memory(disk(), ByteCount::mib(1));
    overlay.write_at(ByteOffset(6 * 4096), &[1; 1]).unwrap();
    let mut found = Vec::new();
    let mut position = ByteOffset::ZERO;
    while position < overlay.size().end() {
        let extent = overlay.extent_at(position).unwrap();
        found.push((extent.kind, extent.end.0 / 4096));
        position = extent.end;
    }
    assert_eq!(
        found,
        [
            (ExtentKind::Zero, 2),
            (ExtentKind::Data, 5),
            (ExtentKind::Zero, 6),
            (ExtentKind::Data, 7),
            (ExtentKind::Zero, 11),
        ]
    );
}

#[test]
fn a_window_on_an_overlay_is_written_in_its_own_positions() {
    let overlay = Overlay::in_memory(disk(), ByteCount::mib(1));
    let window = Window::new(&overlay, ByteOffset(4608), ByteCount(8192), "p1".into()).unwrap();
    window.write_at(ByteOffset(100), &[3; 50]).unwrap();
    window.flush().unwrap();
    assert!(window.write_at(ByteOffset(8191), &[3; 2]).is_err());
    let bytes = content(&overlay);
    assert_eq!(bytes[4708..4758], [3; 50]);
    assert_eq!(bytes[4758], 0);
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, usize, u8),
    Restore(usize, usize),
    Read(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let range = || (0..SIZE, 0..20_000_usize);
    let step = prop_oneof![
        4 => (range(), any::<u8>()).prop_map(|((at, length), byte)| Step::Write(at, length, byte)),
        1 => range().prop_map(|(at, length)| Step::Restore(at, length)),
        2 => range().prop_map(|(at, length)| Step::Read(at, length)),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #[test]
    fn an_overlay_is_a_vector_with_the_changes_in_it(steps in steps(), big_sectors in any::<bool>()) {
        let sector = if big_sectors { SectorSize::B4096 } else { SectorSize::B512 };
        let size = SIZE as u64 / sector.bytes() * sector.bytes();
        let sectors = SectorSizes { logical: sector, physical: sector };
        let mut base = MemoryDisk::new(ByteCount(size), sectors);
        base.write(ByteOffset(4096), &pattern(20_000));
        let before = content(&base);
        let overlay = Overlay::in_memory(&base, ByteCount::mib(1));
        let mut model = before.clone();
        for step in steps {
            let clip = |at: usize, length: usize| at.min(model.len())..(at + length).min(model.len());
            match step {
                Step::Write(at, length, byte) => {
                    let range = clip(at, length);
                    let bytes = vec![byte; range.len()];
                    overlay.write_at(ByteOffset(range.start as u64), &bytes).unwrap();
                    model[range].copy_from_slice(&bytes);
                }
                Step::Restore(at, length) => {
                    let range = clip(at, length);
                    let bytes = &before[range.clone()];
                    overlay.write_at(ByteOffset(range.start as u64), bytes).unwrap();
                    model[range].copy_from_slice(bytes);
                }
                Step::Read(at, length) => {
                    let range = clip(at, length);
                    let mut bytes = vec![0xEE; range.len()];
                    overlay.read_at(ByteOffset(range.start as u64), &mut bytes).unwrap();
                    prop_assert_eq!(&bytes, &model[range]);
                }
            }
        }
        prop_assert_eq!(content(&base), before.clone());
        let mut rebuilt = before;
        let mut last = 0;
        overlay.visit_changes(|change| {
            let at = change.offset.0 as usize;
            assert!(at >= last, "changes come in order");
            assert_eq!(&rebuilt[at..at + change.old.len()], change.old);
            for (old, new) in change.old.chunks(4096).zip(change.new.chunks(4096)) {
                assert_ne!(old, new);
            }
            rebuilt[at..at + change.new.len()].copy_from_slice(change.new);
            last = at + change.new.len();
            Ok::<_, BlockError>(())
        }).unwrap();
        prop_assert_eq!(rebuilt, model);
    }
}
