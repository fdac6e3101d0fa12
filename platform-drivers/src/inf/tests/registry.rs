//! What Windows makes of AddReg and DelReg lines.

use ce_regf::{RegValue, ValueType};

use super::*;

#[test]
fn registry_values_have_the_type_and_data_that_their_flags_say() {
    let value = |value_type, data: &[u8]| RegValue::new(ValueType::from_raw(value_type), data);
    let always = |line: &str, value| (line.to_owned(), value, SetRule::Always);
    let cases = [
        always("HKR,,n,,text", RegValue::sz("text")),
        always("HKR,,n", RegValue::sz("")),
        always("HKR,,n,0x00020000,%%a%%", RegValue::expand_sz("%a%")),
        always(
            "HKR,,n,0x10000,a,,\"b c\"",
            RegValue::multi_sz(["a", "b c"]),
        ),
        always("HKR,,n,0x10001,0x10", RegValue::dword(16)),
        always("HKR,,n,65537,-1", RegValue::dword(u32::MAX)),
        always("HKR,,n,0x10001", RegValue::dword(0)),
        always("HKR,,n,0x10001,01,02,00,ff", RegValue::dword(0xFF00_0201)),
        always("HKR,,n,1,01,0x2,ff", RegValue::binary([1, 2, 255])),
        always("HKR,,n,1,", RegValue::binary([])),
        always("HKR,,n,0x20001", value(0, &[])),
        always("HKR,,n,0xB0001,1,0,0,0,0,0,0,0", RegValue::qword(1)),
        (
            "HKR,,n,2,t".to_owned(),
            RegValue::sz("t"),
            SetRule::IfMissing,
        ),
        (
            "HKR,,n,0x10021,1".to_owned(),
            RegValue::dword(1),
            SetRule::IfPresent,
        ),
    ];
    for (line, value, rule) in cases {
        let name = "n".to_owned();
        assert_eq!(
            add_reg(&line).unwrap().action,
            RegistryAction::Set { name, value, rule },
            "{line}"
        );
    }
}

#[test]
fn registry_lines_without_data_make_keys_or_delete() {
    let name = || "n".to_owned();
    let strings = vec!["a".to_owned()];
    for (line, action) in [
        ("HKR,key", RegistryAction::CreateKey),
        ("HKR,key,,0x10", RegistryAction::CreateKey),
        ("HKR,key,n,4", RegistryAction::DeleteValue { name: name() }),
        ("HKR,key,,4", RegistryAction::DeleteKey),
        (
            "HKR,key,n,0x10008,a",
            RegistryAction::Append {
                name: name(),
                strings,
            },
        ),
        (
            "HKR,key,n,0x18002,a",
            RegistryAction::RemoveString {
                name: name(),
                string: "a".to_owned(),
            },
        ),
    ] {
        let change = add_reg(line).unwrap();
        assert_eq!(
            (change.key.as_str(), change.action),
            ("key", action),
            "{line}"
        );
    }
}

#[test]
fn flags_that_stand_a_field_too_early_are_the_name_as_they_are_in_windows() {
    // Real DriverDatabases hold values with this name.
    let change = add_reg("HKR,Interrupt Management,0x00000010").unwrap();
    assert_eq!(
        change.action,
        RegistryAction::Set {
            name: "0x00000010".to_owned(),
            value: RegValue::sz(""),
            rule: SetRule::Always,
        }
    );
}

#[test]
fn registry_lines_that_cannot_be_followed_are_refused() {
    for (line, expected) in [
        ("HKX,,n", "line 10: the root key"),
        (
            "HKR,,n,flags",
            "line 10: the registry flags: expected a number",
        ),
        (
            "HKR,,n,0x10001,abc",
            "line 10: the DWORD: expected a number",
        ),
        (
            "HKR,,n,0x10001,1,2",
            "line 10: the DWORD: expected one number",
        ),
        ("HKR,,n,1,100", "line 10: the binary value"),
        ("HKR,,n,0x40000,1", "line 10: the registry flags"),
    ] {
        let error = add_reg(line).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{line}: {error}");
    }
}
