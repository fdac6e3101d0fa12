//! Logs made here, for what the logs of real machines don't show.

use zerocopy::{FromZeros, IntoBytes};

use super::marvin::marvin32;
use super::*;
use crate::format::{LogEntryHeader, PageReference};
use crate::{FileTime, HiveState, RegValue, SecurityDescriptor, Version};

#[test]
fn entries_are_applied_while_their_numbers_follow_each_other() {
    let states = states(5);
    let log1 = entries_log(11, &[(11, &states, 1), (12, &states, 2)]);
    let log2 = entries_log(13, &[(13, &states, 3), (14, &states, 4)]);
    let (number, report) = replay(&dirty(&states[0]), Some(&log1), Some(&log2));
    assert_eq!(number, 4);
    assert_eq!(sequences(&report), [Some((11, 12)), Some((13, 14))]);

    // The first log isn't always the older one.
    let (number, report) = replay(&dirty(&states[0]), Some(&log2), Some(&log1));
    assert_eq!(number, 4);
    assert_eq!(sequences(&report), [Some((13, 14)), Some((11, 12))]);
}

#[test]
fn a_gap_between_the_logs_ends_recovery() {
    let states = states(5);
    let log1 = entries_log(11, &[(11, &states, 1), (12, &states, 2)]);
    let log2 = entries_log(14, &[(14, &states, 4)]);
    let (number, report) = replay(&dirty(&states[0]), Some(&log1), Some(&log2));
    assert_eq!(number, 2);
    assert_eq!(report.logs[1].verdict, LogVerdict::Stale);
}

#[test]
fn an_entry_left_from_earlier_ends_its_log() {
    let states = states(5);
    let log = entries_log(11, &[(11, &states, 1), (12, &states, 2), (9, &states, 3)]);
    let (number, report) = replay(&dirty(&states[0]), Some(&log), None);
    assert_eq!(number, 2);
    let end = LogEnd::Sequence {
        expected: 13,
        found: 9,
    };
    assert!(
        matches!(report.logs[0].verdict, LogVerdict::Applied { end: found, .. } if found == end)
    );
}

#[test]
fn a_torn_entry_ends_its_log_whatever_byte_is_wrong() {
    let states = states(3);
    let whole = entries_log(11, &[(11, &states, 1), (12, &states, 2)]);
    let second = SECTOR + entry(11, &states[0], &states[1]).len();
    for at in [8, 13, 20, 24, 32, 44, 60, 4000] {
        let mut log = whole.clone();
        log[second + at] ^= 0x10;
        let (number, report) = replay(&dirty(&states[0]), Some(&log), None);
        assert_eq!(number, 1, "byte {at}");
        let LogVerdict::Applied {
            sequence: (11, 11),
            end,
            ..
        } = report.logs[0].verdict
        else {
            panic!("{report:?}");
        };
        assert_ne!(end, LogEnd::NoMoreEntries, "byte {at}");
    }
}

#[test]
fn a_first_log_with_nothing_to_give_keeps_the_second_from_being_applied() {
    let states = states(4);
    let mut log1 = entries_log(11, &[(11, &states, 1)]);
    log1[SECTOR + 30] ^= 1;
    let log2 = entries_log(12, &[(12, &states, 2)]);
    let (number, report) = replay(&dirty(&states[0]), Some(&log1), Some(&log2));
    assert_eq!((number, report.outcome), (0, Replay::NothingApplies));
    assert!(matches!(report.logs[0].verdict, LogVerdict::Invalid { .. }));
    assert_eq!(report.logs[1].verdict, LogVerdict::Stale);
}

#[test]
fn sequence_numbers_wrap() {
    let states = states(3);
    let mut primary = dirty(&states[0]);
    set_sequences(&mut primary, u32::MAX, u32::MAX - 1);
    let log1 = entries_log(0, &[(0, &states, 2)]);
    let log2 = entries_log(u32::MAX, &[(u32::MAX, &states, 1)]);
    let (number, report) = replay(&primary, Some(&log1), Some(&log2));
    assert_eq!(number, 2, "{report:?}");
}

#[test]
fn a_lost_base_block_comes_from_the_log_with_the_latest_entries_alone() {
    let states = states(3);
    let log1 = entries_log(11, &[(11, &states, 1)]);
    // Entries carry whole pages, so the later log is enough here.
    let log2 = entries_log(12, &[(12, &states, 2)]);
    let mut primary = dirty(&states[0]);
    primary[..512].fill(0);
    let (number, report) = replay(&primary, Some(&log1), Some(&log2));
    assert_eq!(number, 2);
    assert!(report.base_block_recovered);
    assert_eq!(report.logs[0].verdict, LogVerdict::NotUsed);
}

#[test]
fn a_dirty_vector_is_applied_whole_and_only_to_the_file_of_its_time() {
    let states = states(3);
    let log = vector_log(&states[0], &states[1]);
    let (number, _) = replay(&dirty(&states[0]), Some(&log), None);
    assert_eq!(number, 1);

    let (number, report) = replay(&dirty(&states[0]), Some(&log[..log.len() - 1]), None);
    assert_eq!(number, 0);
    assert!(
        matches!(report.logs[0].verdict, LogVerdict::Invalid { .. }),
        "{report:?}"
    );

    let mut other_time = dirty(&states[0]);
    other_time[12] ^= 1;
    seal(&mut other_time);
    let (number, report) = replay(&other_time, Some(&log), None);
    assert_eq!((number, &report.logs[0].verdict), (0, &LogVerdict::Stale));

    // The second is looked at where the first does not fit.
    let (number, report) = replay(&dirty(&states[0]), Some(&[0; 512]), Some(&log));
    assert_eq!((number, &report.logs[0].verdict), (1, &LogVerdict::Empty));
}

#[test]
fn the_single_log_counts_only_without_the_two() {
    let states = states(3);
    let single = entries_log(11, &[(11, &states, 1)]);
    let dual = entries_log(11, &[(11, &states, 2)]);
    let logs = Logs {
        log: Some(&single),
        log1: Some(&[]),
        log2: Some(&[]),
    };
    let (hive, _) = Hive::recover(dirty(&states[0]), &logs).unwrap();
    assert_eq!(number_in(&hive), 1);
    let logs = Logs {
        log: Some(&single),
        log1: Some(&dual),
        log2: Some(&[]),
    };
    let (hive, report) = Hive::recover(dirty(&states[0]), &logs).unwrap();
    assert_eq!(number_in(&hive), 2);
    assert_eq!(report.logs[2].verdict, LogVerdict::NotUsed);
}

#[test]
fn a_log_that_makes_the_hive_longer_brings_the_new_bins() {
    let short = states(1).remove(0);
    let mut hive = Hive::load(short.clone()).unwrap();
    let long = RegValue::binary(vec![7; 9000]);
    hive.edit(NOW)
        .unwrap()
        .set_value("", "long", &long)
        .unwrap();
    let long = hive.save(NOW).unwrap().bytes.to_vec();
    let mut log = log_base(&short, 11, FILE_TYPE_LOG_ENTRIES);
    log.extend(entry(11, &short, &long));
    let logs = Logs {
        log1: Some(&log),
        ..Logs::default()
    };
    let (hive, _) = Hive::recover(dirty(&short), &logs).unwrap();
    assert_eq!(hive.bins_len(), Hive::load(long).unwrap().bins_len());
    assert!(hive.check().findings.is_empty());
}

#[test]
fn a_log_that_claims_more_bins_than_it_brings_is_refused_before_memory_is_taken() {
    let states = states(2);
    let mut claimed = states[1].clone();
    claimed[40..44].copy_from_slice(&MAX_BINS_LEN.to_le_bytes());
    let mut log = log_base(&states[0], 11, FILE_TYPE_LOG_ENTRIES);
    log.extend(entry(11, &states[0], &claimed));
    let logs = Logs {
        log1: Some(&log),
        ..Logs::default()
    };
    let error = Hive::recover(dirty(&states[0]), &logs).unwrap_err();
    assert!(error.to_string().contains("2147483648"), "{error}");
}

#[test]
fn what_was_replayed_is_saved_with_later_numbers_than_its_logs() {
    let states = states(3);
    let log = entries_log(11, &[(11, &states, 1), (12, &states, 2)]);
    let logs = Logs {
        log1: Some(&log),
        ..Logs::default()
    };
    let (mut hive, _) = Hive::recover(dirty(&states[0]), &logs).unwrap();
    assert!(hive.is_modified());
    let saved = hive.save(NOW).unwrap();
    assert_eq!(saved.logs, crate::LogFate::Neutralise);
    let mut dirty_again = saved.bytes.to_vec();
    let base = BaseBlock::ref_from_prefix(&dirty_again).unwrap().0;
    assert_eq!(base.primary_sequence.get(), 13);
    set_sequences(&mut dirty_again, 14, 13);
    let (_, report) = Hive::recover(dirty_again, &logs).unwrap();
    assert_eq!(report.logs[0].verdict, LogVerdict::Stale);
}

/// A hive at several times: its value `number` counts them from 0.
fn states(count: u32) -> Vec<Vec<u8>> {
    let security = SecurityDescriptor::for_administrators();
    let mut hive = Hive::new_empty(Version::V1_5, &security, NOW).unwrap();
    (0..count)
        .map(|number| {
            hive.edit(NOW)
                .unwrap()
                .set_value("", "number", &RegValue::dword(number))
                .unwrap();
            let mut state = hive.save(NOW).unwrap().bytes.to_vec();
            set_sequences(&mut state, 10, 10);
            state
        })
        .collect()
}

/// The state as it is found when Windows stopped while it wrote the next.
fn dirty(state: &[u8]) -> Vec<u8> {
    let mut dirty = state.to_vec();
    set_sequences(&mut dirty, 11, 10);
    dirty
}

fn set_sequences(bytes: &mut [u8], primary: u32, secondary: u32) {
    bytes[4..8].copy_from_slice(&primary.to_le_bytes());
    bytes[8..12].copy_from_slice(&secondary.to_le_bytes());
    seal(bytes);
}

fn seal(bytes: &mut [u8]) {
    let (base, _) = BaseBlock::mut_from_prefix(bytes).unwrap();
    base.checksum = base.expected_checksum().into();
}

fn log_base(state: &[u8], sequence: u32, file_type: u32) -> Vec<u8> {
    let mut base = state[..SECTOR].to_vec();
    base[28..32].copy_from_slice(&file_type.to_le_bytes());
    set_sequences(&mut base, sequence, sequence);
    base
}

/// A log of entries: number, states, and which of them the entry brings about.
fn entries_log(first: u32, entries: &[(u32, &Vec<Vec<u8>>, usize)]) -> Vec<u8> {
    let (_, states, _) = entries[0];
    let mut log = log_base(&states[0], first, FILE_TYPE_LOG_ENTRIES);
    for &(sequence, states, to) in entries {
        log.extend(entry(sequence, &states[0], &states[to]));
    }
    log
}

/// An entry with all pages of `to` that are not so in `from`.
fn entry(sequence: u32, from: &[u8], to: &[u8]) -> Vec<u8> {
    let old = from[BASE_BLOCK_LEN..]
        .chunks(4096)
        .map(Some)
        .chain(std::iter::repeat(None));
    let pages: Vec<(usize, &[u8])> = to[BASE_BLOCK_LEN..]
        .chunks(4096)
        .zip(old)
        .enumerate()
        .filter(|(_, (new, old))| Some(*new) != *old)
        .map(|(page, (new, _))| (page * 4096, new))
        .collect();
    let mut body = Vec::new();
    for (at, page) in &pages {
        let mut reference = PageReference::new_zeroed();
        reference.offset = u32::try_from(*at).unwrap().into();
        reference.size = u32::try_from(page.len()).unwrap().into();
        body.extend(reference.as_bytes());
    }
    pages.iter().for_each(|(_, page)| body.extend(*page));
    let size = (size_of::<LogEntryHeader>() + body.len()).next_multiple_of(SECTOR);
    body.resize(size - size_of::<LogEntryHeader>(), 0);

    let mut header = LogEntryHeader::new_zeroed();
    header.signature = *b"HvLE";
    header.size = u32::try_from(size).unwrap().into();
    header.sequence = sequence.into();
    header.bins_len = BaseBlock::ref_from_prefix(to).unwrap().0.bins_len;
    header.page_count = u32::try_from(pages.len()).unwrap().into();
    header.hash_1 = marvin32(&body).into();
    header.hash_2 = marvin32(&header.as_bytes()[..32]).into();
    [header.as_bytes(), &body].concat()
}

/// A log with a dirty vector, all pages of 512 bytes that differ.
fn vector_log(from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut log = log_base(from, 11, FILE_TYPE_LOG);
    let pages: Vec<(&[u8], &[u8])> = from[BASE_BLOCK_LEN..]
        .chunks(512)
        .zip(to[BASE_BLOCK_LEN..].chunks(512))
        .collect();
    let mut vector = b"DIRT".to_vec();
    for byte in pages.chunks(8) {
        let bits = byte
            .iter()
            .enumerate()
            .map(|(bit, (old, new))| u8::from(old != new) << bit);
        vector.push(bits.sum());
    }
    vector.resize(SECTOR, 0);
    log.extend(vector);
    pages
        .iter()
        .filter(|(old, new)| old != new)
        .for_each(|(_, new)| log.extend(*new));
    log
}

fn replay(primary: &[u8], log1: Option<&[u8]>, log2: Option<&[u8]>) -> (u32, ReplayReport) {
    let (hive, report) = Hive::recover(
        primary,
        &Logs {
            log: None,
            log1,
            log2,
        },
    )
    .unwrap();
    let clean = report.outcome == Replay::Applied;
    assert_eq!(hive.state() == HiveState::Clean, clean);
    assert_eq!(hive.is_modified(), clean);
    (number_in(&hive), report)
}

fn number_in(hive: &Hive) -> u32 {
    hive.root()
        .unwrap()
        .value("number")
        .unwrap()
        .unwrap()
        .dword()
        .unwrap()
}

fn sequences(report: &ReplayReport) -> Vec<Option<(u32, u32)>> {
    let of = |log: &LogReport| match log.verdict {
        LogVerdict::Applied { sequence, .. } => Some(sequence),
        _ => None,
    };
    report.logs.iter().map(of).collect()
}

const NOW: FileTime = FileTime::from_ticks(133_000_000_000_000_000);
