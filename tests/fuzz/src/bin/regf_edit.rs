//! Edits an empty hive.
//!
//! Oracle: a tree of maps that goes through the same edits holds the same keys, values, class names
//! and rights, in the same order; the saved hive loads, and its check finds nothing at all, not
//! even a cell that nobody uses. An edit for which there is no room changes nothing.

#![no_main]

use ce_regf::{FileTime, Hive, SecurityDescriptor, Version};
use libfuzzer_sys::fuzz_target;

#[path = "../../../../disk-ops/regf/tests/model/mod.rs"]
mod model;

use model::{ModelKey, apply, ops};

fuzz_target!(|input: (u8, &[u8])| {
    let (kind, edits) = input;
    let version = [Version::V1_3, Version::V1_4, Version::V1_5][usize::from(kind % 3)];
    let security = SecurityDescriptor::for_administrators();
    let mut hive = Hive::new_empty(version, &security, FileTime::default()).expect("a small hive");
    if kind >= 128 {
        hive.limit_growth(4096 * u32::from(kind - 127));
    }
    let mut model = ModelKey::root(security);
    for (time, op) in (1..).zip(ops(edits)) {
        apply(&op, &mut hive, &mut model, FileTime::from_ticks(time));
    }
    let saved = hive
        .save(FileTime::default())
        .expect("no edit was broken off")
        .bytes
        .to_vec();
    let hive = Hive::load(saved).expect("a saved hive");
    model.assert_equals(&hive.root().expect("a root key"));
    let findings = hive.check().findings;
    assert!(findings.is_empty(), "{findings:#?}");
});
