//! `.reg` text in and out.

mod model;

use ce_regf::{
    Encoding, ExportError, ExportOptions, FileTime, Hive, KeyPath, LogFate, Name, RegScript,
    RegValue, SecurityDescriptor, ValueType, Version,
};
use model::{ModelKey, apply, ops};
use proptest::prelude::*;

#[test]
fn every_kind_of_data_is_written_as_regedit_writes_it() {
    let mut hive = new_hive();
    let mut editor = hive.edit(now()).unwrap();
    editor.create_key(r"Control\Empty").unwrap();
    for (name, value) in [
        ("", RegValue::sz("default")),
        ("path", RegValue::sz(r#"C:\Windows "x""#)),
        ("dword", RegValue::dword(0x1F)),
        ("short dword", RegValue::new(ValueType::DWORD, [1, 2])),
        ("qword", RegValue::qword(1)),
        ("expand", RegValue::expand_sz("%a%")),
        ("multi", RegValue::multi_sz(["a", "b"])),
        ("none", RegValue::new(ValueType::NONE, [])),
        (
            "odd type",
            RegValue::new(ValueType::from_raw(0xFFFF_0012), [7]),
        ),
        ("no zero", RegValue::new(ValueType::SZ, [0x41, 0])),
        ("two lines", RegValue::sz("a\r\nb")),
        ("quote \" and \\", RegValue::binary([1])),
        ("long", RegValue::binary((0..60).collect::<Vec<u8>>())),
    ] {
        editor.set_value("Control", name, &value).unwrap();
    }
    let expected = "Windows Registry Editor Version 5.00\r\n\
        \r\n\
        [Control]\r\n\
        @=\"default\"\r\n\
        \"path\"=\"C:\\\\Windows \\\"x\\\"\"\r\n\
        \"dword\"=dword:0000001f\r\n\
        \"short dword\"=hex(4):01,02\r\n\
        \"qword\"=hex(b):01,00,00,00,00,00,00,00\r\n\
        \"expand\"=hex(2):25,00,61,00,25,00,00,00\r\n\
        \"multi\"=hex(7):61,00,00,00,62,00,00,00,00,00\r\n\
        \"none\"=hex(0):\r\n\
        \"odd type\"=hex(ffff0012):07\r\n\
        \"no zero\"=hex(1):41,00\r\n\
        \"two lines\"=hex(1):61,00,0d,00,0a,00,62,00,00,00\r\n\
        \"quote \\\" and \\\\\"=hex:01\r\n\
        \"long\"=hex:00,01,02,03,04,05,06,07,08,09,0a,0b,0c,0d,0e,0f,10,11,12,13,14,15,\\\r\n  \
          16,17,18,19,1a,1b,1c,1d,1e,1f,20,21,22,23,24,25,26,27,28,29,2a,2b,2c,2d,2e,\\\r\n  \
          2f,30,31,32,33,34,35,36,37,38,39,3a,3b\r\n\
        \r\n\
        [Control\\Empty]\r\n\
        \r\n";
    let utf8 = ExportOptions {
        encoding: Encoding::Utf8,
        ..ExportOptions::default()
    };
    let text = String::from_utf8(hive.export("control", &utf8).unwrap()).unwrap();
    assert_eq!(text, expected.replace("[Control", "[control"));

    let utf16 = hive.export("Control", &ExportOptions::default()).unwrap();
    assert_eq!(utf16[..4], [0xFF, 0xFE, b'W', 0]);
    let read = |text: &[u8]| RegScript::parse(text, &KeyPath::ROOT).unwrap();
    assert_eq!(read(&utf16), read(expected.as_bytes()));
}

#[test]
fn text_is_read_with_comments_continuations_deletions_and_either_line_end() {
    let text = "\u{FEFF}Windows Registry Editor Version 5.00\n\
        ; a comment\n\
        [A\\B]  \n\
        \"bytes\" = hex:1,02, \\\r\n\
        \t 03 , \\\n\
        04 ; the end\n\
        \"empty\"=hex:\n\
        \"gone\"=-\n\
        @=-\n\
        \"lines\"=\"one\ntwo\"\n\
        \"guestfs\"=str(2):\"%x%\"\n\
        [-A\\C]\n\
        \n\
        [\\]\n\
        @=dword:F";
    let mut hive = new_hive();
    let mut editor = hive.edit(now()).unwrap();
    editor.create_key(r"a\c\d").unwrap();
    editor.create_key(r"a\b").unwrap();
    editor
        .set_value(r"a\b", "GONE", &RegValue::dword(1))
        .unwrap();
    let script = RegScript::parse(text.as_bytes(), &KeyPath::ROOT).unwrap();
    let report = editor.import(&script).unwrap();
    assert_eq!((report.keys_created, report.keys_deleted), (0, 1));
    assert_eq!((report.values_set, report.values_deleted), (5, 1));

    let root = hive.root().unwrap();
    let key = root.subkey(r"A\B").unwrap().unwrap();
    let value = |name: &str| key.value(name).unwrap().unwrap();
    assert_eq!(*value("bytes").data().unwrap(), [1, 2, 3, 4]);
    assert!(value("empty").data().unwrap().is_empty());
    assert_eq!(value("lines").string().unwrap(), "one\ntwo");
    assert_eq!(value("guestfs").value_type(), ValueType::EXPAND_SZ);
    assert!(key.value("gone").unwrap().is_none());
    assert!(root.subkey(r"A\C").unwrap().is_none());
    assert_eq!(root.value("").unwrap().unwrap().dword().unwrap(), 15);
}

#[test]
fn text_of_windows_9x_is_read_as_far_as_it_is_ascii() {
    let script = |text: &[u8]| RegScript::parse(text, &KeyPath::ROOT);
    let text = b"REGEDIT4\r\n\r\n[A]\r\n\"e\"=hex(2):25,61,25,00\r\n";
    let mut hive = new_hive();
    hive.edit(now())
        .unwrap()
        .import(&script(text).unwrap())
        .unwrap();
    let key = hive.root().unwrap().subkey("A").unwrap().unwrap();
    assert_eq!(key.value("e").unwrap().unwrap().string().unwrap(), "%a%");
    let error = script("REGEDIT4\r\n[Ä]\r\n".as_bytes()).unwrap_err();
    assert!(error.to_string().contains("code page"), "{error}");
}

#[test]
fn an_error_names_its_line_what_was_expected_and_what_was_found() {
    for (text, line, found) in [
        ("", 1, "\"\""),
        ("Windows Registry Editor", 1, "\"Windows Registry Editor\""),
        ("H\n\"a\"=dword:1", 2, "\"\"a\"=dword:1\""),
        ("H\n[A", 2, "\"[A\""),
        ("H\n[A]\n\n\"a\"", 4, "the end of the text"),
        ("H\n[A]\n\"a\"\n", 3, "the end of the line"),
        ("H\n[A]\n\"a=", 3, "the end of the text"),
        ("H\n[A]\n\"a\"=dword:xyz", 3, "\"xyz\""),
        ("H\n[A]\n\"a\"=dword:123456789", 3, "\"123456789\""),
        ("H\n[A]\n\"a\"=hex:01,\\\n  02,\\\n  1ff", 5, "\"1ff\""),
        ("H\n[A]\n\"a\"=hex:01,\\ x", 3, "\"x\""),
        ("H\n[A]\n\"a\"=hex(zz):01", 3, "\"hex(zz)\""),
        ("H\n[A]\n\"a\"=dword:1 x", 3, "\"x\""),
        ("H\n[A]\n\"a\"=word", 3, "\"word\""),
        ("H\n[A]\nname=1", 3, "\"name=1\""),
        ("H\n[A]\n\"a\\n\"=1", 3, "a backslash and \"n\""),
        ("H\n[-A]\n\"a\"=-", 3, "\"\"a\"=-\""),
        (
            "H\n[HKEY_LOCAL_MACHINE\\SYSTEM\\x]",
            2,
            "\"HKEY_LOCAL_MACHINE\\SYSTEM\\x\"",
        ),
    ] {
        let text = text.replace("H\n", "Windows Registry Editor Version 5.00\n");
        let error = RegScript::parse(text.as_bytes(), &KeyPath::ROOT).unwrap_err();
        assert_eq!(
            (error.line, error.found.as_str()),
            (line, found),
            "{text:?}: {error}"
        );
    }
    let error = RegScript::parse(b"\xFF\xFEW", &KeyPath::ROOT).unwrap_err();
    assert!(error.to_string().contains("UTF-16"), "{error}");
    let error = RegScript::parse(b"Windows\n\xC3", &KeyPath::ROOT).unwrap_err();
    assert_eq!(error.line, 2);
}

#[test]
fn a_failed_edit_names_its_line() {
    let name = "x".repeat(256);
    let text = format!("Windows Registry Editor Version 5.00\n\n[A]\n[{name}]\n");
    let script = RegScript::parse(text.as_bytes(), &KeyPath::ROOT).unwrap();
    let error = new_hive().edit(now()).unwrap().import(&script).unwrap_err();
    assert_eq!(error.line, 4);
}

#[test]
fn a_prefix_is_put_on_and_taken_off_without_regard_to_case() {
    let mut hive = new_hive();
    hive.edit(now()).unwrap().create_key(r"Select\Sub").unwrap();
    let prefix = KeyPath::from(r"HKEY_LOCAL_MACHINE\SYSTEM");
    let options = ExportOptions {
        prefix,
        encoding: Encoding::Utf8,
    };
    let text = hive.export("Select", &options).unwrap();
    assert!(String::from_utf8_lossy(&text).contains(r"[HKEY_LOCAL_MACHINE\SYSTEM\Select\Sub]"));

    let script = RegScript::parse(&text, &KeyPath::from(r"hkey_local_machine\system")).unwrap();
    let mut other = new_hive();
    other.edit(now()).unwrap().import(&script).unwrap();
    assert!(
        other
            .root()
            .unwrap()
            .subkey(r"Select\Sub")
            .unwrap()
            .is_some()
    );
    let error = RegScript::parse(&text, &KeyPath::from("HKEY_USERS")).unwrap_err();
    assert_eq!(error.line, 3);
}

#[test]
fn a_key_whose_name_looks_like_a_deletion_or_another_hive_survives() {
    let mut hive = new_hive();
    let mut editor = hive.edit(now()).unwrap();
    for name in ["-A", "HKEY_X", "A]", ";A", "[A", "A ", " A"] {
        editor
            .create_key(KeyPath::from_names([Name::from(name)]))
            .unwrap();
    }
    assert_importing_an_export_changes_nothing(hive);
}

#[test]
fn a_name_that_text_cannot_carry_is_refused() {
    let mut hive = new_hive();
    let mut editor = hive.edit(now()).unwrap();
    editor.create_key("A").unwrap();
    editor
        .set_value("A", Name::from_units([0xD800]), &RegValue::dword(1))
        .unwrap();
    assert!(hive.export("", &ExportOptions::default()).is_ok());
    let utf8 = ExportOptions {
        encoding: Encoding::Utf8,
        ..ExportOptions::default()
    };
    assert!(matches!(
        hive.export("", &utf8),
        Err(ExportError::Unwritable { .. })
    ));
    hive.edit(now()).unwrap().create_key("line\nbreak").unwrap();
    let error = hive.export("", &ExportOptions::default()).unwrap_err();
    assert!(matches!(error, ExportError::Unwritable { .. }));
    assert!(matches!(
        hive.export("B", &utf8),
        Err(ExportError::NoSuchKey { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn importing_an_export_changes_nothing_and_rebuilds_the_hive_elsewhere(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let security = SecurityDescriptor::for_administrators();
        let mut hive = new_hive();
        let mut model = ModelKey::root(security);
        for op in ops(&bytes) {
            apply(&op, &mut hive, &mut model, now());
        }
        assert_importing_an_export_changes_nothing(hive);
    }

    #[test]
    fn any_text_is_read_or_refused(text in r#"(\[|\]|-|"|=|@|hex|dword|\(|\)|:|,|\\|[0-9a-f]|;|\n|\r| ){0,80}"#) {
        let text = format!("Windows Registry Editor Version 5.00\n[A]\n{text}");
        let _ = RegScript::parse(text.as_bytes(), &KeyPath::ROOT);
    }
}

/// Nor does it matter which hive: an empty one becomes the same, but for rights and class names.
fn assert_importing_an_export_changes_nothing(mut hive: Hive) {
    let saved = hive.save(now()).unwrap().bytes.to_vec();
    let mut hive = Hive::load(saved.clone()).unwrap();
    let text = hive.export("", &ExportOptions::default()).unwrap();
    let script = RegScript::parse(&text, &KeyPath::ROOT).unwrap();
    hive.edit(now()).unwrap().import(&script).unwrap();
    let unchanged = hive.save(FileTime::from_ticks(9)).unwrap();
    assert_eq!(unchanged.logs, LogFate::Keep);
    assert!(unchanged.bytes == saved);

    let mut other = new_hive();
    other.edit(now()).unwrap().import(&script).unwrap();
    assert!(other.export("", &ExportOptions::default()).unwrap() == text);
}

fn new_hive() -> Hive {
    let security = SecurityDescriptor::for_administrators();
    Hive::new_empty(Version::V1_5, &security, now()).unwrap()
}

fn now() -> FileTime {
    FileTime::from_ticks(133_000_000_000_000_000)
}
