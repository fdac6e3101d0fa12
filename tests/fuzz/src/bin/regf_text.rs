//! Reads `.reg` text of any bytes and makes its edits.
//!
//! Oracle: nothing panics. The hive that comes of it, written as text and read again, makes the
//! same hive out of an empty one, and changes nothing in itself.

#![no_main]

use ce_regf::{
    Encoding, ExportError, ExportOptions, FileTime, Hive, ImportReport, KeyPath, RegScript,
    SecurityDescriptor, Version,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, &[u8])| {
    let (utf8, text) = input;
    let Ok(script) = RegScript::parse(text, &KeyPath::ROOT) else {
        return;
    };
    let mut hive = new_hive();
    // An edit that can't be made ends the import; what was made before it counts.
    let _ = hive
        .edit(FileTime::default())
        .expect("a clean hive")
        .import(&script);
    let encoding = if utf8 {
        Encoding::Utf8
    } else {
        Encoding::Utf16Le
    };
    let options = ExportOptions {
        encoding,
        ..ExportOptions::default()
    };
    let text = match hive.export("", &options) {
        Ok(text) => text,
        Err(ExportError::Unwritable { .. }) => return,
        Err(error) => panic!("{error}"),
    };
    let script = RegScript::parse(&text, &KeyPath::ROOT).expect("text of our own");
    let report = hive
        .edit(FileTime::default())
        .expect("a clean hive")
        .import(&script);
    assert_eq!(report, Ok(ImportReport::default()));
    let mut other = new_hive();
    other
        .edit(FileTime::default())
        .expect("a clean hive")
        .import(&script)
        .expect("possible edits");
    assert!(other.export("", &options).expect("writable keys") == text);
});

fn new_hive() -> Hive {
    let security = SecurityDescriptor::for_administrators();
    Hive::new_empty(Version::V1_5, &security, FileTime::default()).expect("a small hive")
}
