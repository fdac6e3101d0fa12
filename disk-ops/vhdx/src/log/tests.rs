use super::*;
use crate::format::seal;
use crate::units::MIB;

/// An entry with these changes; `None` for a page stands for a zeroed page.
fn entry(sequence: u64, tail: u32, pages: &[(u64, Option<u8>)]) -> Vec<u8> {
    let mut bytes = ENTRY_SIGNATURE.to_vec();
    bytes.extend([0; 8]);
    bytes.extend(tail.to_le_bytes());
    bytes.extend(sequence.to_le_bytes());
    bytes.extend(u32::try_from(pages.len()).expect("few").to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(GUID);
    bytes.extend(FLUSHED.to_le_bytes());
    bytes.extend(LAST.to_le_bytes());
    let mut sectors = Vec::new();
    for (offset, fill) in pages {
        match fill {
            Some(fill) => {
                bytes.extend(DATA_SIGNATURE);
                bytes.extend([*fill; 12]);
                sectors.extend(SECTOR_SIGNATURE);
                sectors.extend(
                    u32::try_from(sequence >> 32)
                        .expect("32 bits")
                        .to_le_bytes(),
                );
                sectors.extend([*fill; 4084]);
                sectors.extend(
                    u32::try_from(sequence & 0xFFFF_FFFF)
                        .expect("32")
                        .to_le_bytes(),
                );
            }
            None => {
                bytes.extend(ZERO_SIGNATURE);
                bytes.extend([0; 4]);
                bytes.extend(SECTOR_LENGTH.to_le_bytes());
            }
        }
        bytes.extend(offset.to_le_bytes());
        bytes.extend(sequence.to_le_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(4096), 0);
    bytes.extend(sectors);
    let length = u32::try_from(bytes.len()).expect("small");
    bytes[8..12].copy_from_slice(&length.to_le_bytes());
    seal(&mut bytes);
    bytes
}

/// Replays a log of 1 MiB that has `entries` at these offsets, in a file of `file_length` bytes.
fn replay_of(entries: &[(usize, Vec<u8>)], file_length: u64) -> Result<Replay, OpenError> {
    let mut file = vec![0; buffer_index(file_length)];
    for (offset, entry) in entries {
        for (i, byte) in entry.iter().enumerate() {
            file[buffer_index(MIB) + (offset + i) % buffer_index(MIB)] = *byte;
        }
    }
    let location = LogLocation {
        offset: MIB,
        length: MIB,
        guid: zerocopy::transmute!(GUID),
    };
    replay(&Image::new(file.as_slice()), &location)
}

/// The first byte of the page at `offset` after the replay, over a file of 0xEE.
fn page_after(replay: &Replay, offset: u64) -> u8 {
    let mut page = [0xEE; PAGE_LENGTH];
    replay.overlay.apply(FileOffset(offset), &mut page);
    assert!(
        page.iter().all(|byte| *byte == page[0]),
        "a page is changed as a whole"
    );
    page[0]
}

#[test]
fn the_newest_sequence_is_replayed_in_its_order() {
    let entries = [
        (
            0,
            entry(
                7,
                0,
                &[(8 * MIB, Some(1)), (9 * MIB, Some(1)), (10 * MIB, Some(1))],
            ),
        ),
        (16384, entry(8, 0, &[(9 * MIB, Some(2)), (10 * MIB, None)])),
        // An older sequence that is complete, and younger entries that belong to no sequence.
        (40960, entry(3, 40960, &[(8 * MIB, Some(9))])),
        (81920, entry(20, 4096, &[(8 * MIB, Some(9))])),
    ];
    let replay = replay_of(&entries, LAST).expect("a complete sequence");
    assert_eq!((replay.entries, replay.file_length), (2, LAST));
    let pages = [8 * MIB, 9 * MIB, 10 * MIB, 11 * MIB].map(|at| page_after(&replay, at));
    assert_eq!(pages, [1, 2, 0, 0xEE]);
}

#[test]
fn entries_older_than_the_tail_are_left_alone() {
    let entries = [
        (0, entry(7, 0, &[(8 * MIB, Some(1))])),
        (8192, entry(8, 8192, &[(9 * MIB, Some(2))])),
    ];
    let replay = replay_of(&entries, LAST).expect("a complete sequence");
    assert_eq!(replay.entries, 1);
    assert_eq!(
        [8 * MIB, 9 * MIB].map(|at| page_after(&replay, at)),
        [0xEE, 2]
    );
}

#[test]
fn a_sequence_may_wrap_around_the_end_of_the_log() {
    let last_sector = (1 << 20) - 4096;
    let tail = u32::try_from(last_sector).expect("under 1 MiB");
    let entries = [
        (last_sector, entry(7, tail, &[(8 * MIB, Some(1))])),
        (
            4096,
            entry(8, tail, &[(8 * MIB, Some(2)), (9 * MIB, Some(2))]),
        ),
    ];
    let replay = replay_of(&entries, LAST).expect("a complete sequence");
    assert_eq!(replay.entries, 2);
    assert_eq!([8 * MIB, 9 * MIB].map(|at| page_after(&replay, at)), [2, 2]);
}

#[test]
fn a_log_whose_entries_are_damaged_is_refused_wherever_the_damage_is() {
    let whole = entry(7, 0, &[(8 * MIB, Some(1)), (9 * MIB, None)]);
    for at in (0..whole.len())
        .step_by(97)
        .chain([8, 12, 16, 24, 32, 64, 96])
    {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        let refusal = replay_of(&[(0, damaged)], LAST);
        assert!(
            matches!(refusal, Err(OpenError::LogUnusable { .. })),
            "byte {at}: {refusal:?}"
        );
    }
    let empty = replay_of(&[], LAST);
    assert!(matches!(empty, Err(OpenError::LogUnusable { .. })));
}

#[test]
fn a_file_that_is_shorter_than_its_log_knows_is_refused() {
    let entries = [(0, entry(7, 0, &[(8 * MIB, Some(1))]))];
    let refusal = replay_of(&entries, FLUSHED - 1).expect_err("a truncated file");
    let is_right = matches!(refusal, OpenError::Truncated { end: FLUSHED, .. });
    assert!(is_right, "{refusal}");
    assert!(replay_of(&entries, FLUSHED).is_ok());
}

#[test]
fn entries_that_overlap_without_end_do_not_take_forever() {
    // Each sector claims to begin an entry as long as the log; only the checksums are wrong.
    let mut log = Vec::new();
    for _ in 0..256 {
        let mut header = entry(7, 0, &[]);
        header[8..12].copy_from_slice(&(1_u32 << 20).to_le_bytes());
        log.extend(header);
    }
    let refusal = replay_of(&[(0, log)], LAST).expect_err("an absurd log");
    assert!(
        refusal.to_string().contains("overlap without end"),
        "{refusal}"
    );
}

const GUID: [u8; 16] = [5; 16];
const FLUSHED: u64 = 6 * MIB;
const LAST: u64 = 12 * MIB;
