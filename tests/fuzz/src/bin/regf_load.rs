//! Loads a hive of any bytes, behind a base block whose checksum is put right.
//!
//! Oracle: nothing panics or takes long. What loads saves byte for byte. Where the check finds no
//! error, every key and value can be read, the text of all of it reads back, and importing that
//! changes nothing.

#![no_main]

use ce_regf::{
    CheckReport, ExportError, ExportOptions, FileTime, Hive, HiveError, ImportReport, KeyPath,
    RegScript, Severity, check_file,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut bytes = input.to_vec();
    seal(&mut bytes);
    let report = check_file(&bytes);
    let Ok(mut hive) = Hive::load(bytes.clone()) else {
        assert!(
            !report.is_ok_and(|report| no_errors(&report)),
            "refused without a finding"
        );
        return;
    };
    let sound = no_errors(&report.expect("a hive that loads"));
    let read = read_all(&hive);
    assert!(read.is_ok() || !sound, "no error found, but {read:?}");
    assert!(
        hive.save(FileTime::default())
            .expect("nothing was edited")
            .bytes
            == bytes
    );

    let text = match hive.export("", &ExportOptions::default()) {
        Ok(text) => text,
        Err(ExportError::Unwritable { .. }) => return,
        Err(error) => {
            assert!(!sound, "no error found, but {error}");
            return;
        }
    };
    let script = RegScript::parse(&text, &KeyPath::ROOT).expect("text of our own");
    hive.accept_without_logs();
    let report = hive
        .edit(FileTime::default())
        .expect("accepted")
        .import(&script);
    assert!(
        !sound || has_equal_names(&hive) || report == Ok(ImportReport::default()),
        "{report:?}"
    );
});

fn no_errors(report: &CheckReport) -> bool {
    report.count(Severity::Error) == 0
}

fn read_all(hive: &Hive) -> Result<(), HiveError> {
    for walked in hive.walk()? {
        let key = walked?.key;
        key.class_name()?;
        key.security_descriptor()?;
        for value in key.values()? {
            value?.data()?;
        }
    }
    Ok(())
}

/// Two values of one name in a key are read as they are, but only the first can be set.
fn has_equal_names(hive: &Hive) -> bool {
    hive.walk().into_iter().flatten().flatten().any(|walked| {
        let values = walked.key.values().into_iter().flatten().flatten();
        let mut names: Vec<_> = values
            .map(|value| value.name().to_name().folded())
            .collect();
        let all = names.len();
        names.sort();
        names.dedup();
        names.len() < all
    })
}

fn seal(bytes: &mut [u8]) {
    let Some((words, rest)) = bytes.split_at_mut_checked(508) else {
        return;
    };
    let Some(checksum) = rest.first_chunk_mut::<4>() else {
        return;
    };
    let (words, _) = words.as_chunks::<4>();
    let sum = words
        .iter()
        .fold(0, |sum, word| sum ^ u32::from_le_bytes(*word));
    *checksum = match sum {
        0 => 1,
        u32::MAX => u32::MAX - 1,
        sum => sum,
    }
    .to_le_bytes();
}
