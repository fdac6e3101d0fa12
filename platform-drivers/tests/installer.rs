//! MSI packages that another program wrote, whole and with bytes wrong.

use std::io::{Cursor, Read, Write};

use ce_platform::bundle::msi::{InstallerError, InstallerPackage};
use msi::{Column, Insert, Package, PackageType, Value};
use proptest::prelude::*;

/// A package with a table `File` of these rows, with a column of numbers among its columns, and a stream.
fn written(rows: &[(String, Option<String>, i32)]) -> Vec<u8> {
    let mut package = Package::create(PackageType::Installer, Cursor::new(Vec::new())).unwrap();
    let columns = vec![
        Column::build("File").primary_key().string(72),
        Column::build("Size").nullable().int32(),
        Column::build("Component_").nullable().string(0),
        Column::build("Sequence").nullable().int16(),
    ];
    package.create_table("File", columns).unwrap();
    let rows = rows.iter().map(|(key, component, size)| {
        let text = |text: &str| Value::Str(text.to_owned());
        vec![
            text(key),
            Value::Int(*size),
            component.as_deref().map_or(Value::Null, text),
            Value::Int(size % 1000),
        ]
    });
    package
        .insert_rows(Insert::into("File").rows(rows.collect()))
        .unwrap();
    package
        .write_stream("drivers.cab")
        .unwrap()
        .write_all(b"MSCF")
        .unwrap();
    package.into_inner().unwrap().into_inner()
}

/// Keys and components.
fn read(bytes: &[u8]) -> Result<Vec<[Option<String>; 2]>, InstallerError> {
    let mut package = InstallerPackage::open(Cursor::new(bytes))?;
    let rows = package.rows("File", ["File", "Component_"])?;
    let rows = rows
        .into_iter()
        .map(|row| row.map(|field| field.as_deref().map(str::to_owned)));
    Ok(rows.collect())
}

fn rows() -> impl Strategy<Value = Vec<(String, Option<String>, i32)>> {
    let row = (proptest::option::of("[ -~é]{1,40}"), 0..100_000_i32);
    proptest::collection::vec(row, 0..60).prop_map(|rows| {
        let keyed = rows.into_iter().enumerate();
        let keyed = keyed.map(|(number, (text, size))| (format!("key{number:03}"), text, size));
        keyed.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_another_program_wrote_is_read(rows in rows()) {
        let bytes = written(&rows);
        let expected = rows.into_iter().map(|(key, component, _)| [Some(key), component]);
        let mut found = read(&bytes).unwrap();
        found.sort();
        prop_assert_eq!(found, expected.collect::<Vec<_>>());
        let mut package = InstallerPackage::open(Cursor::new(&bytes)).unwrap();
        let mut content = Vec::new();
        package.stream("drivers.cab").unwrap().read_to_end(&mut content).unwrap();
        prop_assert_eq!(content, b"MSCF");
    }

    #[test]
    fn whatever_is_wrong_with_it_a_package_is_read_or_refused(
        rows in rows(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = written(&rows);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(found) = read(&bytes) {
            prop_assert!(found.len() <= bytes.len());
            prop_assert_eq!(read(&bytes).unwrap(), found);
        }
    }
}

#[test]
fn a_text_of_more_than_64_kib_does_not_shift_those_after_it() {
    let long = "long ".repeat(20_000);
    let rows = [
        ("a".to_owned(), Some(long.clone()), 1),
        ("b".to_owned(), Some("short".to_owned()), 2),
    ];
    let found = read(&written(&rows)).unwrap();
    let expected = [("a", long.as_str()), ("b", "short")];
    assert_eq!(
        found,
        expected.map(|row| <[&str; 2]>::from(row).map(|text| Some(text.to_owned())))
    );
}

#[test]
fn what_a_package_has_not_is_named() {
    let bytes = written(&[]);
    let mut package = InstallerPackage::open(Cursor::new(&bytes)).unwrap();
    let mut refusal = |table, column| package.rows(table, [column]).unwrap_err().to_string();
    assert_eq!(refusal("Media", "Cabinet"), "there is no table Media");
    assert_eq!(
        refusal("File", "FileName"),
        "the table File has no column FileName of text"
    );
    assert_eq!(
        refusal("File", "Size"),
        "the table File has no column Size of text"
    );
    assert!(package.stream("other.cab").is_err());
    let error = InstallerPackage::open(Cursor::new(b"MZ")).unwrap_err();
    assert_eq!(error.to_string(), "reading the compound file");
}
