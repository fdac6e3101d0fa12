//! Bytes made to hurt: no panic, no endless work, no memory out of proportion.

mod model;

use std::time::{Duration, Instant};

use ce_regf::{
    ExportOptions, FileTime, Hive, HiveError, Logs, RegValue, SecurityDescriptor, Version,
    check_file,
};
use model::{ModelKey, apply, ops};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_hive_with_any_damage_is_read_checked_and_edited_without_a_panic(
        made in prop::collection::vec(any::<u8>(), 100..300),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        edits in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = hive_of(&made);
        for (at, byte) in damage {
            let at = 4096 + at.index(bytes.len() - 4096);
            bytes[at] ^= byte;
        }
        use_all_of(&bytes, &edits);
    }

    #[test]
    fn any_bytes_behind_a_base_block_are_read_or_refused(
        bins in prop::collection::vec(any::<u8>(), 4096),
    ) {
        let mut bytes = hive_of(&[]);
        bytes[4096 + 32..].copy_from_slice(&bins[32..]);
        use_all_of(&bytes, &[]);
    }
}

/// Reads, checks, prints and edits; every outcome but a panic is right.
fn use_all_of(bytes: &[u8], edits: &[u8]) {
    let _ = check_file(bytes);
    let Ok(mut hive) = Hive::load(bytes) else {
        return;
    };
    if let Ok(walk) = hive.walk() {
        for walked in walk.flatten() {
            let _ = walked.key.class_name();
            let _ = walked.key.security_descriptor();
            for value in walked.key.values().into_iter().flatten().flatten() {
                let _ = (
                    value.data(),
                    value.string(),
                    value.multi_string(),
                    value.dword(),
                );
            }
        }
    }
    let _ = hive.export("", &ExportOptions::default());
    hive.limit_growth(64 * 4096);
    let Ok(mut editor) = hive.edit(FileTime::default()) else {
        return;
    };
    for op in ops(edits) {
        model::try_edit(&op, &mut editor);
    }
    if let Ok(saved) = hive.save(FileTime::default()) {
        Hive::load(saved.bytes).expect("cells stay in order whatever the hive is");
    }
}

#[test]
fn keys_that_list_each_other_do_not_make_the_walk_endless() {
    let mut hive = new_hive();
    hive.edit(NOW).unwrap().create_key(r"A\B").unwrap();
    let root = hive.root().unwrap().offset().get();
    let list = field(&hive, "A", 28);
    let bytes = patched(&mut hive, list + 4, root);
    let hive = Hive::load(bytes).unwrap();
    let last = hive.walk().unwrap().last().unwrap();
    assert!(last.unwrap_err().to_string().contains("a second list"));
}

#[test]
fn a_list_named_over_and_over_is_refused_and_not_multiplied() {
    // 30,000 leaves of 1,000 keys each, all the same one.
    let mut hive = new_hive();
    let mut editor = hive.edit(NOW).unwrap();
    for number in 0..1000 {
        editor.create_key(format!(r"A\{number}")).unwrap();
    }
    let leaf = field(&hive, "A", 28) - 4096 - 4;
    let mut root = b"ri".to_vec();
    root.extend(30_000_u16.to_le_bytes());
    (0..30_000).for_each(|_| root.extend(u32::try_from(leaf).unwrap().to_le_bytes()));
    let hive = with_cell(&hive, &root, "A", 28);
    let started = Instant::now();
    assert!(
        hive.root()
            .unwrap()
            .subkey("A")
            .unwrap()
            .unwrap()
            .subkeys()
            .is_err()
    );
    assert!(!hive.check().is_sound());
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_list_of_values_that_all_keys_share_is_written_and_checked_once() {
    let mut hive = new_hive();
    let mut editor = hive.edit(NOW).unwrap();
    for number in 0..3000 {
        editor.create_key(format!("K{number}")).unwrap();
        editor
            .set_value("", format!("v{number}"), &RegValue::dword(1))
            .unwrap();
    }
    let root = offset(&hive, "");
    let nodes: Vec<usize> = (0..3000)
        .map(|number| offset(&hive, &format!("K{number}")))
        .collect();
    let mut bytes = hive.save(NOW).unwrap().bytes.to_vec();
    for node in nodes {
        bytes.copy_within(root + 36..root + 44, node + 36);
    }
    let hive = Hive::load(bytes).unwrap();
    let started = Instant::now();
    assert!(hive.export("", &ExportOptions::default()).is_err());
    assert!(!hive.check().is_sound());
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn segments_that_are_all_one_cell_do_not_multiply_their_data() {
    let mut hive = new_hive();
    let big = RegValue::binary(vec![1; 40_000]);
    hive.edit(NOW).unwrap().set_value("", "big", &big).unwrap();
    let value = hive
        .root()
        .unwrap()
        .value("big")
        .unwrap()
        .unwrap()
        .offset()
        .in_file()
        .get();
    let at = usize::try_from(value).unwrap() + 4;
    let bytes = patched(&mut hive, at + 4, 0x7FFF_FFFF);
    let hive = Hive::load(bytes).unwrap();
    let error = hive
        .root()
        .unwrap()
        .value("big")
        .unwrap()
        .unwrap()
        .data()
        .unwrap_err();
    assert!(error.to_string().contains("2147483647"), "{error}");
}

#[test]
fn a_length_that_the_file_does_not_have_is_refused_before_memory_is_taken() {
    for claimed in [0, 100, 8192, 0x7FFF_F000, 0x8000_0000, 0xFFFF_F000] {
        let mut hive = new_hive();
        let mut bytes = patched(&mut hive, 40, claimed);
        fix_checksum(&mut bytes);
        assert!(
            matches!(Hive::load(bytes), Err(HiveError::Damaged(_))),
            "{claimed:#x}"
        );
    }
}

#[test]
fn files_that_are_no_hives_are_refused_with_what_they_begin_with() {
    for bytes in [&b""[..], b"r", b"regf", b"MZ\x90\0", &[0; 5000]] {
        assert!(Hive::load(bytes).is_err());
        assert!(check_file(bytes).is_err());
        assert!(Hive::recover(bytes, &Logs::default()).is_err());
        let logs = Logs {
            log: Some(bytes),
            log1: Some(bytes),
            log2: Some(bytes),
        };
        assert!(Hive::recover(bytes, &logs).is_err());
    }
    let error = Hive::load(*b"MZ\x90\0").unwrap_err();
    assert_eq!(
        error.to_string(),
        "not a registry hive: the file begins with [4d, 5a, 90, 00], expected \"regf\""
    );
}

fn hive_of(edits: &[u8]) -> Vec<u8> {
    let mut hive = new_hive();
    let mut model = ModelKey::root(SecurityDescriptor::for_administrators());
    for op in ops(edits) {
        apply(&op, &mut hive, &mut model, NOW);
    }
    hive.save(NOW).unwrap().bytes.to_vec()
}

fn new_hive() -> Hive {
    Hive::new_empty(
        Version::V1_5,
        &SecurityDescriptor::for_administrators(),
        NOW,
    )
    .unwrap()
}

/// Where the contents of a key's cell begin in the file.
fn offset(hive: &Hive, path: &str) -> usize {
    let key = hive.root().unwrap().subkey(path).unwrap().unwrap();
    usize::try_from(key.offset().in_file().get()).unwrap() + 4
}

/// Where the contents of the cell begin that a field of a key refers to.
fn field(hive: &Hive, path: &str, field: usize) -> usize {
    let at = offset(hive, path) + field;
    let raw = u32::from_le_bytes(hive.as_bytes()[at..at + 4].try_into().unwrap());
    usize::try_from(raw).unwrap() + 4096 + 4
}

fn patched(hive: &mut Hive, at: usize, number: u32) -> Vec<u8> {
    let mut bytes = hive.save(NOW).unwrap().bytes.to_vec();
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// The hive with a bin appended that holds `contents`, to which a field of a key refers.
fn with_cell(hive: &Hive, contents: &[u8], path: &str, field: usize) -> Hive {
    let at = offset(hive, path) + field;
    let mut bytes = hive.clone().save(NOW).unwrap().bytes.to_vec();
    let start = u32::try_from(bytes.len() - 4096).unwrap();
    let size = u32::try_from((contents.len() + 36).next_multiple_of(4096)).unwrap();
    bytes[at..at + 4].copy_from_slice(&(start + 32).to_le_bytes());
    bytes[40..44].copy_from_slice(&(start + size).to_le_bytes());
    bytes.extend(b"hbin");
    bytes.extend(start.to_le_bytes());
    bytes.extend(size.to_le_bytes());
    bytes.extend([0; 20]);
    bytes.extend((32_i32 - i32::try_from(size).unwrap()).to_le_bytes());
    bytes.extend(contents);
    bytes.resize(4096 + usize::try_from(start + size).unwrap(), 0);
    fix_checksum(&mut bytes);
    Hive::load(bytes).unwrap()
}

fn fix_checksum(base: &mut [u8]) {
    let sum = base[..508].chunks(4).fold(0, |sum, word| {
        sum ^ u32::from_le_bytes(word.try_into().unwrap())
    });
    base[508..512].copy_from_slice(&sum.to_le_bytes());
}

const NOW: FileTime = FileTime::from_ticks(133_000_000_000_000_000);
