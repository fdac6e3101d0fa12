//! Random edits do to a hive what they do to a tree of maps, and leave it flawless for others.

mod model;
mod second_opinion;

use ce_regf::{FileTime, Hive, SecurityDescriptor, Version};
use model::{ModelKey, apply, ops};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_hive_edited_at_random_holds_what_its_model_holds(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        version in prop_oneof![Just(Version::V1_3), Just(Version::V1_4), Just(Version::V1_5)],
    ) {
        let (saved, _) = run(&bytes, version, None);
        second_opinion::is_flawless(&saved);
    }

    #[test]
    fn a_hive_that_runs_out_of_room_stays_as_its_model(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        limit in 1_u32..20,
    ) {
        let (saved, _) = run(&bytes, Version::V1_5, Some(limit * 4096));
        prop_assert!(saved.len() <= 4096 * (1 + usize::try_from(limit).unwrap()));
        second_opinion::is_flawless(&saved);
    }
}

/// Edits an empty hive, compares it with the model, saves it.
fn run(bytes: &[u8], version: Version, limit: Option<u32>) -> (Vec<u8>, ModelKey) {
    let security = SecurityDescriptor::for_administrators();
    let mut hive = Hive::new_empty(version, &security, FileTime::from_ticks(1)).unwrap();
    if let Some(limit) = limit {
        hive.limit_growth(limit);
    }
    let mut model = ModelKey::root(security);
    for (time, op) in (2..).zip(ops(bytes)) {
        apply(&op, &mut hive, &mut model, FileTime::from_ticks(time));
    }
    model.assert_equals(&hive.root().unwrap());
    let saved = hive
        .save(FileTime::from_ticks(u64::MAX))
        .unwrap()
        .bytes
        .to_vec();
    model.assert_equals(&Hive::load(saved.clone()).unwrap().root().unwrap());
    (saved, model)
}
