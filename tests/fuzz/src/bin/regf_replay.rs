//! Recovers a dirty hive from one or two logs of entries.
//!
//! Oracle: the pages of the entries that belong to the file, applied one after the other to a plain
//! vector, are what the hive holds afterwards. Where bytes are then changed at random, with the
//! hashes put right again, nothing panics, and what was recovered can be checked.

#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use ce_regf::{FileTime, Hive, Logs, RegValue, Replay, SecurityDescriptor, Version};
use libfuzzer_sys::fuzz_target;

#[path = "../../../../disk-ops/regf/src/log/marvin.rs"]
mod marvin;

use marvin::marvin32;

#[derive(Arbitrary, Debug)]
struct Input {
    /// Number of the first entry; it may wrap.
    first: u32,
    /// Entries of the first log, and of the second: page and what to fill it with.
    logs: [Vec<Vec<(u8, u8)>>; 2],
    /// Whether a number is missing between the logs.
    gap: bool,
    /// An entry of the first log that was not written to its end.
    torn: Option<u8>,
    /// Changes of the first log: place and difference.
    patches: Vec<(u16, u8)>,
}

fuzz_target!(|input: Input| {
    if input
        .logs
        .iter()
        .any(|log| log.len() > 6 || log.iter().any(|pages| pages.len() > 8))
    {
        return;
    }
    let Template { hive, data_at } = &*TEMPLATE;
    let mut primary = hive.clone();
    set_sequences(&mut primary, input.first, input.first.wrapping_sub(1));
    let second = input
        .first
        .wrapping_add(input.logs[0].len() as u32)
        .wrapping_add(input.gap.into());
    let mut logs = [
        log_of(&primary, *data_at, input.first, &input.logs[0]),
        log_of(&primary, *data_at, second, &input.logs[1]),
    ];
    let torn = input
        .torn
        .map(usize::from)
        .filter(|&entry| entry < input.logs[0].len());
    if let Some(entry) = torn {
        let at = starts(&logs[0])[entry];
        logs[0][at + 41] ^= 1;
    }
    if !input.patches.is_empty() {
        for &(at, difference) in &input.patches {
            let len = logs[0].len();
            logs[0][usize::from(at) % len] ^= difference;
        }
        seal_entries(&mut logs[0]);
        let logs = Logs {
            log: None,
            log1: Some(&logs[0]),
            log2: Some(&logs[1]),
        };
        if let Ok((hive, _)) = Hive::recover(primary, &logs) {
            let _ = hive.check();
        }
        return;
    }

    if input.logs[0].is_empty() && !input.gap {
        // Which of two logs that begin with one number comes first is nobody's to say.
        return;
    }
    let mut model = vec![0; DATA_LEN];
    let applied = torn.unwrap_or(input.logs[0].len());
    let whole = torn.is_none() && !input.gap && !input.logs[0].is_empty();
    let entries = input.logs[0][..applied]
        .iter()
        .chain(input.logs[1].iter().filter(|_| whole));
    for &(page, fill) in entries.flatten() {
        let at = usize::from(page) % PAGES * PAGE;
        model[at..at + PAGE].fill(fill);
    }
    let given = Logs {
        log: None,
        log1: Some(&logs[0]),
        log2: Some(&logs[1]),
    };
    let (hive, report) = Hive::recover(primary, &given).expect("pages of one value's data");
    assert_eq!(report.outcome == Replay::Applied, applied > 0, "{report:?}");
    let found = hive
        .root()
        .expect("a root")
        .value("data")
        .expect("a list")
        .expect("a value");
    assert!(*found.data().expect("data") == *model, "{report:?}");
    assert!(hive.check().is_sound());
});

/// A hive with one value whose data takes whole pages, and where in the bins they begin.
struct Template {
    hive: Vec<u8>,
    data_at: u32,
}

static TEMPLATE: LazyLock<Template> = LazyLock::new(|| {
    let security = SecurityDescriptor::for_administrators();
    let now = FileTime::default();
    // The data is a single cell only in this version.
    let mut hive = Hive::new_empty(Version::V1_3, &security, now).expect("a small hive");
    let data = RegValue::binary(vec![0xDA; DATA_LEN]);
    hive.edit(now)
        .expect("clean")
        .set_value("", "data", &data)
        .expect("room");
    let mut hive = hive.save(now).expect("sound").bytes.to_vec();
    let data_at = hive
        .windows(4)
        .position(|four| four == [0xDA; 4])
        .expect("the data");
    hive[data_at..data_at + DATA_LEN].fill(0);
    Template {
        hive,
        data_at: (data_at - 4096) as u32,
    }
});

fn log_of(primary: &[u8], data_at: u32, first: u32, entries: &[Vec<(u8, u8)>]) -> Vec<u8> {
    let mut log = primary[..512].to_vec();
    log[28] = 6;
    set_sequences(&mut log, first, first);
    for (number, pages) in entries.iter().enumerate() {
        let mut body = Vec::new();
        for &(page, _) in pages {
            body.extend((data_at + (usize::from(page) % PAGES * PAGE) as u32).to_le_bytes());
            body.extend((PAGE as u32).to_le_bytes());
        }
        pages
            .iter()
            .for_each(|&(_, fill)| body.extend([fill; PAGE]));
        let size = (40 + body.len()).next_multiple_of(512);
        body.resize(size - 40, 0);
        log.extend(b"HvLE");
        log.extend((size as u32).to_le_bytes());
        log.extend([0; 4]);
        log.extend(first.wrapping_add(number as u32).to_le_bytes());
        log.extend(&primary[40..44]);
        log.extend((pages.len() as u32).to_le_bytes());
        log.extend([0; 16]);
        log.extend(body);
    }
    seal_entries(&mut log);
    log
}

/// Where entries begin, as far as their sizes lead.
fn starts(log: &[u8]) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut at = 512;
    while log.get(at..at + 4) == Some(b"HvLE") {
        let size = u32::from_le_bytes(log[at + 4..at + 8].try_into().expect("four bytes")) as usize;
        if size < 512 || size > log.len() - at {
            break;
        }
        starts.push(at);
        at += size;
    }
    starts
}

fn seal_entries(log: &mut [u8]) {
    let starts = starts(log);
    for (i, &at) in starts.iter().enumerate() {
        let size = u32::from_le_bytes(log[at + 4..at + 8].try_into().expect("four bytes")) as usize;
        let end = starts.get(i + 1).copied().unwrap_or(at + size);
        let hash = marvin32(&log[at + 40..end]);
        log[at + 24..at + 32].copy_from_slice(&hash.to_le_bytes());
        let hash = marvin32(&log[at..at + 32]);
        log[at + 32..at + 40].copy_from_slice(&hash.to_le_bytes());
    }
}

fn set_sequences(base: &mut [u8], primary: u32, secondary: u32) {
    base[4..8].copy_from_slice(&primary.to_le_bytes());
    base[8..12].copy_from_slice(&secondary.to_le_bytes());
    let (words, _) = base[..508].as_chunks::<4>();
    let sum = words
        .iter()
        .fold(0, |sum, word| sum ^ u32::from_le_bytes(*word));
    let sum = match sum {
        0 => 1,
        u32::MAX => u32::MAX - 1,
        sum => sum,
    };
    base[508..512].copy_from_slice(&sum.to_le_bytes());
}

const PAGE: usize = 512;
const PAGES: usize = 40;
const DATA_LEN: usize = PAGES * PAGE;
