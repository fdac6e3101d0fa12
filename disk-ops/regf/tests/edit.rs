//! What editing and saving promise, case by case.

mod model;
mod second_opinion;

use ce_regf::{
    EditError, FileTime, Hive, HiveState, Key, LogFate, Logs, Name, RegValue, Replay,
    SecurityDescriptor, ValueType, Version, neutralise_log,
};
use second_opinion::{hivex_agrees, is_flawless, reglookup_agrees};

#[test]
fn an_unchanged_hive_saves_byte_for_byte() {
    let bytes = populated(Version::V1_5).save(now()).unwrap().bytes.to_vec();
    let mut hive = Hive::load(bytes.clone()).unwrap();
    let mut editor = hive.edit(later()).unwrap();
    assert!(!editor.create_key(r"CONTROL\SESSION MANAGER").unwrap());
    assert!(
        !editor
            .set_value("services", "START", &RegValue::dword(3))
            .unwrap()
    );
    assert!(!editor.delete_value("Services", "absent").unwrap());
    assert!(!editor.delete_key("absent").unwrap());
    let saved = hive.save(later()).unwrap();
    assert_eq!(saved.logs, LogFate::Keep);
    assert!(saved.bytes == bytes);
}

#[test]
fn a_changed_hive_saves_with_equal_sequences_its_time_and_a_right_checksum() {
    let before = populated(Version::V1_5).save(now()).unwrap().bytes.to_vec();
    let mut hive = Hive::load(before.clone()).unwrap();
    hive.edit(later())
        .unwrap()
        .set_value("Services", "Start", &RegValue::dword(4))
        .unwrap();
    assert!(hive.is_modified());
    let saved = hive.save(later()).unwrap();
    assert_eq!(saved.logs, LogFate::Neutralise);
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!(word(saved.bytes, 4), word(&before, 4) + 1);
    assert_eq!(word(saved.bytes, 8), word(saved.bytes, 4));
    let hive = Hive::load(saved.bytes).unwrap();
    assert_eq!(hive.last_written(), later());
    let key = hive.root().unwrap().subkey("Services").unwrap().unwrap();
    assert_eq!(key.last_written(), later());
    assert_eq!(hive.root().unwrap().last_written(), now());
    is_flawless(hive.as_bytes());
}

#[test]
fn a_dirty_hive_is_edited_only_after_it_was_accepted() {
    let mut bytes = populated(Version::V1_5).save(now()).unwrap().bytes.to_vec();
    bytes[4] += 1;
    fix_checksum(&mut bytes);
    let mut hive = Hive::load(bytes.clone()).unwrap();
    assert_eq!(hive.state(), HiveState::Dirty);
    assert!(matches!(hive.edit(now()), Err(EditError::Dirty)));
    assert!(hive.save(now()).unwrap().bytes == bytes);
    hive.accept_without_logs();
    hive.edit(now()).unwrap();
    let saved = hive.save(now()).unwrap();
    assert_eq!(saved.logs, LogFate::Neutralise);
    assert_eq!(Hive::load(saved.bytes).unwrap().state(), HiveState::Clean);
}

#[test]
fn a_neutralised_log_is_not_applied() {
    let mut bytes = populated(Version::V1_5).save(now()).unwrap().bytes.to_vec();
    let mut log = bytes[..1024].to_vec();
    log[28] = 6;
    fix_checksum(&mut log);
    bytes[4] += 1;
    fix_checksum(&mut bytes);
    neutralise_log(&mut log);
    neutralise_log(&mut []);
    assert_eq!(log.len(), 1024);
    let logs = Logs {
        log1: Some(&log),
        ..Logs::default()
    };
    let (_, report) = Hive::recover(bytes, &logs).unwrap();
    assert_eq!(report.outcome, Replay::NothingApplies);
}

#[test]
fn a_long_list_of_subkeys_is_split_as_windows_splits_it_and_emptied_again() {
    for (version, kinds) in [
        (Version::V1_3, [b"lf", b"li", b"ri"]),
        (Version::V1_5, [b"lh", b"lh", b"ri"]),
    ] {
        let mut hive = new_hive(version);
        let mut kind_at = Vec::new();
        let mut editor = hive.edit(now()).unwrap();
        // Not in order, so that splits happen everywhere; 7919 is a prime.
        for number in (0..3000_u32).map(|number| number * 7919 % 3000) {
            assert!(editor.create_key(format!(r"Many\Key{number}")).unwrap());
            let count = editor
                .hive()
                .root()
                .unwrap()
                .subkey("many")
                .unwrap()
                .unwrap();
            if [505, 1012, 1013].contains(&count.subkey_count()) {
                kind_at.push(list_kind(editor.hive(), "Many"));
            }
        }
        assert_eq!(kind_at, kinds.map(|kind| kind.to_vec()), "{version}");
        let saved = hive.save(now()).unwrap().bytes.to_vec();
        is_flawless(&saved);
        hivex_agrees(&saved);
        reglookup_agrees(&saved);

        let full = hive.bins_len();
        let mut editor = hive.edit(now()).unwrap();
        for number in (0..3000_u32).map(|number| number * 4001 % 3000) {
            assert!(
                editor.delete_key(format!(r"Many\KEY{number}")).unwrap(),
                "{number}"
            );
        }
        is_flawless(hive.save(now()).unwrap().bytes);
        let mut editor = hive.edit(now()).unwrap();
        for number in 0..3000 {
            editor.create_key(format!(r"Many\Key{number}")).unwrap();
        }
        assert!(hive.bins_len() <= full + full / 10, "free cells are reused");
    }
}

#[test]
fn other_readers_agree_about_a_hive_made_here() {
    for version in [Version::V1_3, Version::V1_4, Version::V1_5] {
        let saved = populated(version).save(now()).unwrap().bytes.to_vec();
        is_flawless(&saved);
        hivex_agrees(&saved);
        reglookup_agrees(&saved);
    }
}

#[test]
fn data_around_every_change_of_storage_comes_back() {
    for version in [Version::V1_3, Version::V1_5] {
        let mut hive = new_hive(version);
        let lens = [
            0, 1, 4, 5, 8, 16343, 16344, 16345, 32688, 32689, 300_000, 16345, 20, 3, 0,
        ];
        for (turn, &len) in (1_u8..).zip(&lens) {
            let value = RegValue::new(ValueType::BINARY, vec![turn; len]);
            hive.edit(now())
                .unwrap()
                .set_value("", "data", &value)
                .unwrap();
            let saved = hive.save(now()).unwrap().bytes.to_vec();
            is_flawless(&saved);
            let again = Hive::load(saved).unwrap();
            let found = again.root().unwrap().value("DATA").unwrap().unwrap();
            assert_eq!(
                found.to_reg_value().unwrap(),
                value,
                "{len} bytes in {version}"
            );
        }
    }
}

#[test]
fn data_that_no_value_can_have_is_refused() {
    let mut hive = new_hive(Version::V1_3);
    let _ = hive.save(now()).unwrap();
    let value = RegValue::binary(vec![0; (1 << 20) + 1]);
    let error = hive
        .edit(now())
        .unwrap()
        .set_value("", "x", &value)
        .unwrap_err();
    assert!(
        matches!(
            error,
            EditError::ValueTooLong {
                limit: 0x10_0000,
                ..
            }
        ),
        "{error}"
    );
    assert!(!hive.is_modified());
}

#[test]
fn names_that_no_key_or_value_can_have_are_refused() {
    let mut hive = new_hive(Version::V1_5);
    let mut editor = hive.edit(now()).unwrap();
    let long = "x".repeat(256);
    let error = editor.create_key(&long).unwrap_err();
    assert!(matches!(error, EditError::InvalidName { .. }), "{error}");
    assert!(editor.create_key(&long[1..]).is_ok());
    let error = editor
        .set_value("", "x".repeat(16384), &RegValue::dword(1))
        .unwrap_err();
    assert!(matches!(error, EditError::InvalidName { .. }), "{error}");
    assert!(
        editor
            .set_value("", "ж".repeat(16383), &RegValue::dword(1))
            .is_ok()
    );
    let error = editor
        .set_value("absent", "", &RegValue::dword(1))
        .unwrap_err();
    assert!(matches!(error, EditError::NoSuchKey { .. }), "{error}");
    is_flawless(hive.save(now()).unwrap().bytes);
}

#[test]
fn keys_are_not_nested_deeper_than_windows_allows() {
    let mut hive = new_hive(Version::V1_5);
    let mut editor = hive.edit(now()).unwrap();
    let deep = "k\\".repeat(512);
    editor.create_key(&deep).unwrap();
    let error = editor.create_key(format!("{deep}k")).unwrap_err();
    assert!(matches!(error, EditError::TooDeep { .. }), "{error}");
    is_flawless(editor.hive().clone().save(now()).unwrap().bytes);
    assert!(editor.delete_key("k").unwrap());
    is_flawless(hive.save(now()).unwrap().bytes);
}

#[test]
fn the_root_and_protected_keys_are_not_deleted() {
    let mut hive = populated(Version::V1_5);
    let error = hive.edit(now()).unwrap().delete_key("").unwrap_err();
    assert!(matches!(error, EditError::Protected { .. }), "{error}");
    // KEY_NO_DELETE.
    let mut hive = patched(hive, |hive| {
        (key(hive, r"Control\Session Manager").0 + 2, vec![0x28])
    });
    let error = hive.edit(now()).unwrap().delete_key("Control").unwrap_err();
    assert!(matches!(error, EditError::Protected { .. }), "{error}");
}

#[test]
fn layered_keys_are_read_and_not_edited() {
    // "Layer semantics" of the key.
    let mut hive = patched(populated(Version::V1_5), |hive| {
        (key(hive, "Services").0 + 13, vec![1])
    });
    assert!(
        hive.root()
            .unwrap()
            .subkey("Services")
            .unwrap()
            .unwrap()
            .is_layered()
    );
    let mut editor = hive.edit(now()).unwrap();
    for error in [
        editor.create_key(r"Services\x").unwrap_err(),
        editor
            .set_value("Services", "x", &RegValue::dword(1))
            .unwrap_err(),
        editor.delete_value("Services", "Start").unwrap_err(),
        editor.delete_key("Services").unwrap_err(),
    ] {
        assert!(matches!(error, EditError::Layered { .. }), "{error}");
    }
}

#[test]
fn a_key_with_a_predefined_handle_has_no_values_and_gets_none() {
    // KEY_PREDEF_HANDLE, and the handle where the number of values is elsewhere.
    let hive = patched(populated(Version::V1_5), |hive| {
        (key(hive, "Control").0 + 2, vec![0x60])
    });
    let mut hive = patched(hive, |hive| {
        (key(hive, "Control").0 + 36, vec![0x60, 0, 0, 0x80])
    });
    let control = hive.root().unwrap().subkey("Control").unwrap().unwrap();
    assert_eq!(control.values().unwrap().count(), 0);
    assert!(hive.check().is_sound());
    let mut editor = hive.edit(now()).unwrap();
    let error = editor
        .set_value("Control", "x", &RegValue::dword(1))
        .unwrap_err();
    assert!(
        matches!(error, EditError::PredefinedHandle { .. }),
        "{error}"
    );
    assert!(!editor.delete_value("Control", "x").unwrap());
    assert!(editor.delete_key("Control").unwrap());
}

#[test]
fn a_new_key_has_the_rights_and_the_virtualization_of_the_key_above() {
    let own = model::security(2);
    // REG_KEY_RECURSE_FLAG with REG_KEY_DONT_VIRTUALIZE.
    let mut hive = patched(populated(Version::V1_5), |hive| {
        (key(hive, "Services").0 + 54, vec![0xA])
    });
    let mut editor = hive.edit(now()).unwrap();
    assert!(editor.set_security("Services", &own).unwrap());
    assert!(!editor.set_security("Services", &own).unwrap());
    editor.create_key(r"Services\new").unwrap();
    editor.create_key(r"Control\new").unwrap();
    let rights = |hive: &Hive, path: &str| {
        let key = hive.root().unwrap().subkey(path).unwrap().unwrap();
        key.security_descriptor().unwrap()
    };
    assert_eq!(rights(editor.hive(), r"Services\new"), own);
    assert_eq!(
        rights(editor.hive(), r"Control\new"),
        SecurityDescriptor::for_administrators()
    );
    let saved = hive.save(now()).unwrap().bytes.to_vec();
    assert_eq!(saved[key(&hive, r"Services\new").0 + 54], 0xA);
    assert_eq!(saved[key(&hive, r"Control\new").0 + 54], 0);
    is_flawless(&saved);
    reglookup_agrees(&saved);

    let mut editor = hive.edit(now()).unwrap();
    editor.delete_key("Services").unwrap();
    is_flawless(hive.save(now()).unwrap().bytes);
}

#[test]
fn a_hive_grows_no_further_than_it_may() {
    let mut hive = new_hive(Version::V1_5);
    hive.limit_growth(3 * 4096);
    let mut editor = hive.edit(now()).unwrap();
    let value = RegValue::binary(vec![1; 3000]);
    let mut set = 0;
    let error = loop {
        match editor.set_value("", format!("v{set}"), &value) {
            Ok(_) => set += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(
        error,
        EditError::Full {
            needed: 3000,
            limit: 3 * 4096
        }
    );
    assert_eq!(set, 3);
    assert_eq!(hive.bins_len(), 3 * 4096);
    is_flawless(hive.save(now()).unwrap().bytes);
    assert_eq!(
        Hive::load(hive.as_bytes()).unwrap().growth_limit(),
        0x7FFF_F000
    );
}

#[test]
fn what_lies_behind_the_bins_is_kept_until_they_grow_over_it() {
    let mut bytes = new_hive(Version::V1_5).save(now()).unwrap().bytes.to_vec();
    bytes.extend([0xEE; 3 * 4096]);
    let mut hive = Hive::load(bytes.clone()).unwrap();
    let value = RegValue::binary(vec![1; 4000]);
    hive.edit(now())
        .unwrap()
        .set_value("", "x", &value)
        .unwrap();
    let saved = hive.save(now()).unwrap().bytes;
    assert_eq!(saved.len(), bytes.len());
    assert!(saved[3 * 4096..].iter().all(|&byte| byte == 0xEE));
    is_flawless(saved);
}

#[test]
fn what_a_cell_held_before_does_not_stay_in_its_padding() {
    let mut hive = new_hive(Version::V1_5);
    let mut editor = hive.edit(now()).unwrap();
    editor
        .set_value("", "old", &RegValue::binary([0xEE; 200]))
        .unwrap();
    editor.delete_value("", "old").unwrap();
    editor
        .set_value("", "new", &RegValue::binary([0x11; 5]))
        .unwrap();
    let bytes = hive.as_bytes();
    let data = bytes.windows(5).position(|five| five == [0x11; 5]).unwrap();
    assert_eq!(bytes[data - 4..data], (-16_i32).to_le_bytes());
    assert_eq!(bytes[data + 5..data + 12], [0; 7]);
}

#[test]
fn an_edit_broken_off_half_way_makes_the_hive_refuse_to_be_saved() {
    // The value's data is the security record that only this key uses: deleting frees it twice.
    let mut hive = populated(Version::V1_5);
    hive.edit(now())
        .unwrap()
        .set_security("Services", &model::security(1))
        .unwrap();
    let mut hive = patched(hive, |hive| {
        let services = hive.root().unwrap().subkey("Services").unwrap().unwrap();
        let value = services.value("ImagePath").unwrap().unwrap().offset();
        let node = key(hive, "Services").0;
        let security = hive.as_bytes()[node + 44..node + 48].to_vec();
        (
            usize::try_from(value.in_file().get()).unwrap() + 4 + 8,
            security,
        )
    });
    let error = hive
        .edit(now())
        .unwrap()
        .delete_key("Services")
        .unwrap_err();
    assert!(matches!(error, EditError::Damaged(_)), "{error}");
    assert_eq!(hive.save(now()).unwrap_err(), EditError::Interrupted);
    assert!(matches!(hive.edit(now()), Err(EditError::Interrupted)));
}

#[test]
fn typed_values_are_read_as_their_type_only() {
    let mut hive = populated(Version::V1_5);
    let short = RegValue::new(ValueType::DWORD, [1, 2]);
    hive.edit(now())
        .unwrap()
        .set_value("Services", "Short", &short)
        .unwrap();
    let key: Key<'_> = hive.root().unwrap().subkey("services").unwrap().unwrap();
    let value = |name: &str| key.value(name).unwrap().unwrap();
    assert_eq!(value("Start").dword().unwrap(), 3);
    assert_eq!(value("Big").qword().unwrap(), 1 << 40);
    assert_eq!(
        value("ImagePath").string().unwrap(),
        r"System32\drivers\x.sys"
    );
    assert_eq!(value("Owners").multi_string().unwrap(), ["a.inf", "b.inf"]);
    assert!(
        value("Start")
            .string()
            .unwrap_err()
            .to_string()
            .contains("REG_DWORD")
    );
    assert!(
        value("Short")
            .dword()
            .unwrap_err()
            .to_string()
            .contains("2 bytes")
    );
    assert_eq!(key.class_name().unwrap(), Some(Name::from("Class")));
}

/// A hive with something of everything.
fn populated(version: Version) -> Hive {
    let mut hive = new_hive(version);
    let mut editor = hive.edit(now()).unwrap();
    editor.create_key(r"Control\Session Manager").unwrap();
    editor.create_key("Services").unwrap();
    editor
        .set_class_name("Services", Some(&Name::from("Class")))
        .unwrap();
    for (name, value) in [
        ("Start", RegValue::dword(3)),
        ("Big", RegValue::qword(1 << 40)),
        ("ImagePath", RegValue::expand_sz(r"System32\drivers\x.sys")),
        ("Owners", RegValue::multi_sz(["a.inf", "b.inf"])),
        ("Blob", RegValue::binary(vec![0xAB; 16_000])),
    ] {
        assert!(editor.set_value("Services", name, &value).unwrap());
    }
    hive
}

fn new_hive(version: Version) -> Hive {
    Hive::new_empty(version, &SecurityDescriptor::for_administrators(), now()).unwrap()
}

/// The hive with bytes changed at a place in its file.
fn patched(mut hive: Hive, patch: impl FnOnce(&Hive) -> (usize, Vec<u8>)) -> Hive {
    let (at, new) = patch(&hive);
    let mut bytes = hive.save(now()).unwrap().bytes.to_vec();
    bytes[at..at + new.len()].copy_from_slice(&new);
    Hive::load(bytes).unwrap()
}

/// Where a key's node is in the file, behind the cell's size; and where its list of subkeys is.
fn key(hive: &Hive, path: &str) -> (usize, usize) {
    let key = hive.root().unwrap().subkey(path).unwrap().unwrap();
    let node = usize::try_from(key.offset().in_file().get()).unwrap() + 4;
    let list = &hive.as_bytes()[node + 28..node + 32];
    let list = usize::try_from(u32::from_le_bytes(list.try_into().unwrap())).unwrap();
    (node, list.wrapping_add(4096 + 4))
}

fn list_kind(hive: &Hive, path: &str) -> Vec<u8> {
    let list = key(hive, path).1;
    hive.as_bytes()[list..list + 2].to_vec()
}

fn fix_checksum(base: &mut [u8]) {
    let sum = base[..508].chunks(4).fold(0, |sum, word| {
        sum ^ u32::from_le_bytes(word.try_into().unwrap())
    });
    base[508..512].copy_from_slice(&sum.to_le_bytes());
}

fn now() -> FileTime {
    FileTime::from_ticks(133_000_000_000_000_000)
}

fn later() -> FileTime {
    FileTime::from_ticks(133_000_000_000_000_001)
}
