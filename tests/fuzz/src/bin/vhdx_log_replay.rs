//! Opens a VHDX whose log holds changes.
//!
//! Oracle: a log that is whole is replayed as a model replays it, entry after entry over the plain
//! bytes of the file. One that is then changed at random, with its checksums corrected, is
//! refused or replayed to a disk that can be read; nothing panics.
//!
//! Input: the page of the log at which it begins, how many entries are older than the tail of the
//! rest, the number of changes, the changes (four bytes each), and patches, whose place is a page.

#![no_main]

use ce_vhdx::{VhdxReader, VirtualOffset};
use libfuzzer_sys::fuzz_target;

#[path = "../sparse_image.rs"]
#[expect(dead_code, reason = "the log is patched before it is in the image")]
mod sparse_image;
#[path = "../vhdx_template.rs"]
mod vhdx_template;

use sparse_image::{Patch, SparseImage, check_extents};
use vhdx_template::{BLOCK_DATA, MIB, image, repair, seal};

/// In an input: flags (1: in an entry of its own, 2: zeros), the page, the byte to fill it with,
/// the number of pages to be zeroed (modulo 5).
struct Change {
    page: u8,
    /// `None` zeroes.
    fill: Option<u8>,
    pages: u8,
}

fuzz_target!(|input: &[u8]| {
    let Some((&[start, old, count], input)) = input.split_first_chunk() else {
        return;
    };
    let Some((changes, patches)) = input.split_at_checked(usize::from(count % 64) * 4) else {
        return;
    };
    let entries = entries(changes);
    if entries.is_empty() {
        return;
    }
    // The head of the sequence names the entry where it begins; what is older does not count.
    let old = usize::from(old) % entries.len();
    // The sequence begins anywhere, and so may wrap around the end.
    let start = usize::from(start) * PAGE;
    let mut log = Vec::new();
    let mut positions = Vec::new();
    for (number, changes) in entries.iter().enumerate() {
        positions.push((start + log.len()) % LOG);
        let tail = positions[old.min(number)];
        log.extend(entry(number as u64 + 1, tail, changes));
    }
    let mut image = image();
    image.piece(128 << 10)[48..64].fill(GUID);
    repair(&mut image);

    if patches.len() < 8 {
        place_log(&mut image, start, log);
        let reader = VhdxReader::open(image).expect("a whole log");
        assert_eq!(reader.replayed_log_entries(), (entries.len() - old) as u64);
        let model = model(&entries[old..]);
        let mut found = vec![0xA5; model.len()];
        reader
            .read_at(VirtualOffset(0), &mut found)
            .expect("readable");
        assert!(found == model, "the replay differs from the model");
        return;
    }
    for patch in Patch::all(patches) {
        let page = usize::from(patch.place) % (log.len() / PAGE) * PAGE;
        // Headers and descriptors are at the start of their pages.
        patch.apply(&mut log[page..page + 256]);
    }
    for at in (0..log.len()).step_by(PAGE) {
        let length = u32::from_le_bytes(log[at + 8..at + 12].try_into().expect("four bytes"));
        let length = length as usize;
        if log[at..].starts_with(b"loge") && length <= log.len() - at && length >= 8 {
            seal(&mut log[at..at + length], length);
        }
    }
    place_log(&mut image, start, log);
    if let Ok(reader) = VhdxReader::open(image) {
        check_extents(
            reader.geometry().disk_size(),
            u64::MAX,
            |at| reader.extent_at(VirtualOffset(at)),
            |at, bytes| reader.read_at(VirtualOffset(at), bytes),
        );
    }
});

fn entries(input: &[u8]) -> Vec<Vec<Change>> {
    let mut entries: Vec<Vec<Change>> = Vec::new();
    for [flags, page, fill, pages] in input.as_chunks().0 {
        let change = Change {
            page: page % 60,
            fill: (flags & 2 == 0).then_some(*fill),
            pages: pages % 5,
        };
        match entries.last_mut() {
            Some(last) if flags & 1 == 0 => last.push(change),
            _ => entries.push(vec![change]),
        }
    }
    entries
}

/// The first 64 pages of the disk, which the changes go to.
fn model(entries: &[Vec<Change>]) -> Vec<u8> {
    let mut model = vec![0; 64 * PAGE];
    model[..BLOCK_DATA].fill(1);
    for change in entries.iter().flatten() {
        let at = usize::from(change.page) * PAGE;
        match change.fill {
            Some(fill) => model[at..at + PAGE].fill(fill),
            None => model[at..at + usize::from(change.pages) * PAGE].fill(0),
        }
    }
    model
}

/// Lays `log`, which is shorter than the ring, around the end of the ring.
fn place_log(image: &mut SparseImage, start: usize, mut log: Vec<u8>) {
    let around = log.split_off(log.len().min(LOG - start));
    image.pieces.push((MIB + start as u64, log));
    image.pieces.push((MIB, around));
}

fn entry(sequence: u64, tail: usize, changes: &[Change]) -> Vec<u8> {
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
                sectors.resize(sectors.len() + 4084, fill);
                sectors.extend((sequence as u32).to_le_bytes());
            }
            None => {
                bytes.extend(b"zero\0\0\0\0");
                bytes.extend((u64::from(change.pages) * PAGE as u64).to_le_bytes());
            }
        }
        bytes.extend((PAYLOAD + u64::from(change.page) * PAGE as u64).to_le_bytes());
        bytes.extend(sequence.to_le_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
    bytes.extend(sectors);
    let length = bytes.len();
    bytes[8..12].copy_from_slice(&(length as u32).to_le_bytes());
    seal(&mut bytes, length);
    bytes
}

const PAGE: usize = 4096;
const LOG: usize = 1 << 20;
/// Where the first block of the disk lies.
const PAYLOAD: u64 = 4 * MIB;
const GUID: u8 = 5;
