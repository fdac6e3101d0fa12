//! Opens a VHDX whose log holds changes.
//!
//! Oracle: a log that is whole is replayed as a model replays it, entry after entry over the plain
//! bytes of the file. One that is then changed at random, with its checksums corrected, is
//! refused or replayed to a disk that can be read; nothing panics.

#![no_main]

use arbitrary::Arbitrary;
use ce_vhdx::{VhdxReader, VirtualOffset};
use libfuzzer_sys::fuzz_target;

#[path = "../sparse_image.rs"]
mod sparse_image;
#[path = "../vhdx_template.rs"]
mod vhdx_template;

use sparse_image::{Patch, check_extents};
use vhdx_template::{MIB, image, repair, seal};

#[derive(Arbitrary, Debug)]
struct Change {
    page: u8,
    /// `None` zeroes up to four pages.
    fill: Option<u8>,
    pages: u8,
}

fuzz_target!(|input: (u8, Vec<Vec<Change>>, Vec<Patch>)| {
    let (start, entries, patches) = input;
    if entries.is_empty() || entries.len() > 8 || entries.iter().any(|entry| entry.len() > 8) {
        return;
    }
    let mut image = image();
    // The payload of the first block, which the changes go to.
    let payload = 4 * MIB;
    let mut model = vec![0; 64 * PAGE];
    model[..8192].fill(1);

    let mut log = Vec::new();
    // The sequence begins anywhere, and so may wrap around the end.
    let tail = usize::from(start) * PAGE;
    for (number, changes) in entries.iter().enumerate() {
        log.extend(entry(number as u64 + 1, tail, changes, payload));
        for change in changes {
            let at = usize::from(change.page % 60) * PAGE;
            match change.fill {
                Some(fill) => model[at..at + PAGE].fill(fill),
                None => model[at..at + usize::from(change.pages % 5) * PAGE].fill(0),
            }
        }
    }
    let mut ring = vec![0; MIB as usize];
    for (i, byte) in log.iter().enumerate() {
        ring[(tail + i) % MIB as usize] = *byte;
    }
    image.pieces.push((MIB, ring));
    image.piece(0)[(128 << 10) + 48..][..16].fill(GUID);
    repair(&mut image);

    if patches.is_empty() {
        let reader = VhdxReader::open(image).expect("a whole log");
        assert_eq!(reader.replayed_log_entries(), entries.len() as u64);
        let mut found = vec![0xA5; model.len()];
        reader
            .read_at(VirtualOffset(0), &mut found)
            .expect("readable");
        assert!(found == model, "the replay differs from the model");
        return;
    }
    let places: Vec<(u64, u64)> = (0..16)
        .map(|sector| (MIB + (tail as u64 + sector * 4096) % MIB, 256))
        .collect();
    image.patch(&patches, &places);
    let (_, ring) = image.pieces.last_mut().expect("the log");
    for at in (0..ring.len()).step_by(PAGE) {
        let length = u32::from_le_bytes(ring[at + 8..at + 12].try_into().expect("four bytes"));
        if ring[at..].starts_with(b"loge") && length as usize <= ring.len() - at && length >= 8 {
            seal(&mut ring[at..at + length as usize]);
        }
    }
    if let Ok(reader) = VhdxReader::open(image) {
        check_extents(
            reader.geometry().disk_size(),
            u64::MAX,
            |at| reader.extent_at(VirtualOffset(at)),
            |at, bytes| reader.read_at(VirtualOffset(at), bytes),
        );
    }
});

fn entry(sequence: u64, tail: usize, changes: &[Change], payload: u64) -> Vec<u8> {
    let mut bytes = b"loge\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend((tail as u32).to_le_bytes());
    bytes.extend(sequence.to_le_bytes());
    bytes.extend((changes.len() as u64).to_le_bytes());
    bytes.extend([GUID; 16]);
    bytes.extend([8 * MIB, 8 * MIB].map(u64::to_le_bytes).as_flattened());
    let mut sectors = Vec::new();
    for change in changes {
        match change.fill {
            Some(fill) => {
                bytes.extend(b"desc");
                bytes.extend([fill; 12]);
                sectors.extend(b"data\0\0\0\0");
                sectors.extend([fill; 4084]);
                sectors.extend((sequence as u32).to_le_bytes());
            }
            None => {
                bytes.extend(b"zero\0\0\0\0");
                bytes.extend((u64::from(change.pages % 5) * PAGE as u64).to_le_bytes());
            }
        }
        bytes.extend((payload + u64::from(change.page % 60) * PAGE as u64).to_le_bytes());
        bytes.extend(sequence.to_le_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
    bytes.extend(sectors);
    let length = bytes.len() as u32;
    bytes[8..12].copy_from_slice(&length.to_le_bytes());
    seal(&mut bytes);
    bytes
}

const PAGE: usize = 4096;
const GUID: u8 = 5;
