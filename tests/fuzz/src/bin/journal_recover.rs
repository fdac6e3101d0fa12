//! Recovers from a sealed journal whose bytes were changed, with every checksum and the digest made
//! right again where the input asks for it, on a disk that was changed as well.
//!
//! Oracle: a recovery that is refused has not changed one byte. One that succeeds has changed nothing
//! but what an extent of the journal names, and a second one, with the same journal, changes nothing
//! more.

#![no_main]

use std::sync::Arc;

use arbitrary::Arbitrary;
use ce_disk::block::{BlockRead, BlockWrite, MemoryDisk};
use ce_disk::cancel::Cancel;
use ce_disk::fault::{Failure, Faults};
use ce_disk::progress::Progress;
use ce_disk::scratch::{MemoryScratch, Scratch};
use ce_disk::transaction::{Recovery, Transaction, Trust};
use ce_disk::units::{ByteCount, ByteOffset, SectorSizes};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    writes: Vec<(u16, u16, u8)>,
    cut_at: u8,
    journal: Vec<(u16, u8)>,
    cut_off: Option<u16>,
    seal_again: bool,
    disk: Vec<(u16, u8)>,
}

const SIZE: usize = 48 << 10;

fuzz_target!(|input: Input| {
    let faults = Faults::default();
    let mut disk =
        MemoryDisk::new(ByteCount(SIZE as u64), SectorSizes::B512).with_faults(faults.clone());
    disk.write(ByteOffset::ZERO, &vec![7; SIZE]);
    let scratch = MemoryScratch::new(faults.clone());
    let transaction = Transaction::begin(&disk, Arc::new(scratch.clone()), None).expect("begun");
    for (at, length, byte) in &input.writes {
        let start = usize::from(*at) % SIZE;
        let bytes = vec![*byte; usize::from(*length).min(SIZE - start)];
        transaction
            .disk()
            .write_at(ByteOffset(start as u64), &bytes)
            .expect("inside");
    }
    let number = faults.operations() + u64::from(input.cut_at % 24);
    let after_sectors = 1;
    faults.fail_operation(number, Failure::PowerCut { after_sectors });
    drop(transaction.commit(&Cancel::default(), &Progress::default()));
    faults.clear();
    for (at, byte) in &input.disk {
        disk.write(ByteOffset(u64::from(*at) % SIZE as u64), &[*byte]);
    }
    let names = scratch.names().expect("names");
    let Some(name) = names.iter().find(|name| name.ends_with(".journal")) else {
        return;
    };
    let mut journal = scratch.content(name).expect("a journal");
    for (at, byte) in &input.journal {
        if let Some(target) = journal.get_mut(usize::from(*at)) {
            *target = *byte;
        }
    }
    if let Some(length) = input.cut_off {
        journal.truncate(length.into());
    }
    if input.seal_again {
        seal_again(&mut journal);
    }
    scratch.put(name, &journal);

    let before = content(&disk);
    let Some(after) = recover(&scratch, &disk) else {
        assert_eq!(content(&disk), before, "a refusal has written");
        return;
    };
    for (at, (old, new)) in before.chunks(512).zip(after.chunks(512)).enumerate() {
        let is_named = extents(&journal).any(|(offset, length)| {
            (offset..offset + length).contains(&(at as u64 * 512))
        });
        assert!(old == new || is_named, "sector {at} is in no extent");
    }
    scratch.put(name, &journal);
    assert_eq!(recover(&scratch, &disk), Some(after), "a second time");
});

/// What the disk is after a recovery; `None` if it was refused.
fn recover(scratch: &MemoryScratch, disk: &MemoryDisk) -> Option<Vec<u8>> {
    let recovery = Recovery::open(Arc::new(scratch.clone())).expect("nobody else");
    let journals = recovery.journals().expect("no faults");
    let journal = journals.first().expect("a journal");
    if recovery.discard(journal).expect("no faults") {
        return Some(content(disk));
    }
    let (cancel, progress) = (Cancel::default(), Progress::default());
    let finished = recovery.finish(journal, disk, Trust::Named, &cancel, &progress);
    finished.is_ok().then(|| content(disk))
}

/// Offset and length of the extents, as a plain reader sees them.
fn extents(journal: &[u8]) -> impl Iterator<Item = (u64, u64)> {
    let mut at = FIRST_EXTENT;
    std::iter::from_fn(move || {
        let head = journal.get(at..at + 24)?;
        let length = u64::from(u32::from_le_bytes(head[4..8].try_into().ok()?));
        let offset = u64::from_le_bytes(head[8..16].try_into().ok()?);
        (head[..4] == *b"extn").then_some(())?;
        at += 24 + (length / 512 * 4 + length) as usize;
        Some((offset, length))
    })
}

/// Makes the checksums of the header, of the extents and of the seals right, so that what is refused
/// is refused by a field.
fn seal_again(journal: &mut [u8]) {
    if journal.len() < FIRST_EXTENT {
        return;
    }
    let crc = crc32c::crc32c(&journal[..8188]);
    journal[8188..8192].copy_from_slice(&crc.to_le_bytes());
    let mut at = FIRST_EXTENT;
    while let Some(head) = journal.get(at..at + 24) {
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let body = length / 512 * 4 + length;
        let Some(bytes) = journal.get(at + 24..at + 24 + body) else {
            break;
        };
        if head[..4] != *b"extn" {
            break;
        }
        let crc = crc32c::crc32c(bytes);
        journal[at + 16..at + 20].copy_from_slice(&crc.to_le_bytes());
        let crc = crc32c::crc32c(&journal[at..at + 20]);
        journal[at + 20..at + 24].copy_from_slice(&crc.to_le_bytes());
        at += 24 + body;
    }
    let mut digest = blake3::Hasher::new();
    digest.update(&journal[..8192]);
    digest.update(&journal[FIRST_EXTENT..at]);
    let digest = *digest.finalize().as_bytes();
    let last = at.next_multiple_of(4096);
    for seal in [8192, last] {
        if let Some(seal) = journal.get_mut(seal..seal + 512)
            && seal.starts_with(b"ce-seal1")
        {
            seal[48..56].copy_from_slice(&(at as u64).to_le_bytes());
            seal[56..88].copy_from_slice(&digest);
            let crc = crc32c::crc32c(&seal[..120]);
            seal[120..124].copy_from_slice(&crc.to_le_bytes());
        }
    }
}

fn content(disk: &MemoryDisk) -> Vec<u8> {
    let mut bytes = vec![0; disk.size().0 as usize];
    disk.read_at(ByteOffset::ZERO, &mut bytes).expect("inside");
    bytes
}

const FIRST_EXTENT: usize = 12_288;
