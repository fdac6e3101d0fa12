//! Writes to an overlay, reads it, and commits it.
//!
//! Oracle: a vector of bytes that goes through the same writes. The disk below never changes before
//! the commit, the changes are ordered, differ, and make the old disk the new one; what does not fit
//! is refused, and is not committed either.

#![no_main]

use std::sync::Arc;

use arbitrary::Arbitrary;
use ce_disk::block::{BlockError, BlockRead, BlockWrite, MemoryDisk, Overlay};
use ce_disk::cancel::Cancel;
use ce_disk::fault::Faults;
use ce_disk::progress::Progress;
use ce_disk::scratch::MemoryScratch;
use ce_disk::transaction::{CommitError, Transaction};
use ce_disk::units::{ByteCount, ByteOffset, SectorSizes};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Op {
    Write { at: u32, length: u16, byte: u8 },
    Restore { at: u32, length: u16 },
    Read { at: u32, length: u16 },
}

fuzz_target!(|input: (u8, Vec<Op>)| {
    let (blocks, ops) = input;
    let size = usize::from(blocks % 40) * 4096 + 512;
    let before: Vec<u8> = (0..size).map(|i| (i / 3) as u8).collect();
    let mut disk = MemoryDisk::new(ByteCount(size as u64), SectorSizes::B512);
    disk.write(ByteOffset::ZERO, &before);
    let scratch = Arc::new(MemoryScratch::new(Faults::default()));
    let limit = ByteCount(u64::from(blocks) * 4096);
    let transaction = Transaction::begin(&disk, scratch, Some(limit)).expect("an empty scratch");
    let overlay = transaction.disk();
    let mut model = before.clone();
    for op in &ops {
        let (Op::Write { at, length, .. } | Op::Restore { at, length } | Op::Read { at, length }) =
            op;
        let start = *at as usize % (size + 1);
        let end = (start + usize::from(*length)).min(size);
        let offset = ByteOffset(start as u64);
        let bytes = match op {
            Op::Read { .. } => {
                let mut found = vec![0xEE; end - start];
                overlay.read_at(offset, &mut found).expect("inside");
                if !overlay.is_broken() {
                    assert_eq!(found, model[start..end]);
                }
                continue;
            }
            Op::Write { byte, .. } => vec![*byte; end - start],
            Op::Restore { .. } => before[start..end].to_vec(),
        };
        match overlay.write_at(offset, &bytes) {
            Ok(()) => model[start..end].copy_from_slice(&bytes),
            Err(BlockError::OverlayFull { .. }) => {
                assert!(overlay.changed().0 + bytes.len() as u64 + 2 * 4096 > limit.0);
            }
            Err(error) => assert!(overlay.is_broken(), "{error}"),
        }
    }
    assert_eq!(content(&disk), before);
    check_changes(overlay, &before, &model);
    let is_broken = overlay.is_broken();
    match transaction.commit(&Cancel::default(), &Progress::default()) {
        Ok(_) => assert!(!is_broken && content(&disk) == model),
        Err(CommitError::Incomplete) => assert!(is_broken && content(&disk) == before),
        Err(error) => panic!("{error}"),
    }
});

fn check_changes(overlay: &Overlay<&MemoryDisk>, before: &[u8], model: &[u8]) {
    let mut rebuilt = before.to_vec();
    let mut last = 0;
    overlay
        .visit_changes(|change| {
            let at = change.offset.0 as usize;
            assert!(at >= last && at.is_multiple_of(4096));
            assert_eq!(&rebuilt[at..at + change.old.len()], change.old);
            for (old, new) in change.old.chunks(4096).zip(change.new.chunks(4096)) {
                assert_ne!(old, new);
            }
            last = at + change.new.len();
            rebuilt[at..last].copy_from_slice(change.new);
            Ok::<_, BlockError>(())
        })
        .expect("a disk without faults");
    assert_eq!(rebuilt, model);
}

fn content(disk: &MemoryDisk) -> Vec<u8> {
    let mut bytes = vec![0; disk.size().0 as usize];
    disk.read_at(ByteOffset::ZERO, &mut bytes).expect("inside");
    bytes
}
