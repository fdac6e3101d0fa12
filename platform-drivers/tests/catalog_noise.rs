//! Catalogues of any text: reading and checking never panics, and what is wrong has a line that the
//! file has.

use ce_platform::Catalog;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,300}", file in 0..17usize) {
        read(file, &text);
    }

    #[test]
    fn any_toml_of_the_right_words_is_read_or_refused(
        lines in prop::collection::vec(line(), 0..40),
        file in 0..17usize,
    ) {
        read(file, &lines.join("\n"));
    }

    #[test]
    fn a_catalogue_with_a_piece_cut_out_or_doubled_is_read_or_refused(
        file in 0..17usize,
        from in 0.0..1.0f64,
        length in 0..200usize,
        double: bool,
    ) {
        let (_, text) = Catalog::builtin_files().nth(file).unwrap();
        let letters: Vec<char> = text.chars().collect();
        let start = (letters.len() as f64 * from) as usize;
        let end = (start + length).min(letters.len());
        let end = if double { start } else { end };
        let again = letters[start..(start + length).min(letters.len())].iter().filter(|_| double);
        let text: String = letters[..start].iter().chain(again).chain(&letters[end..]).collect();
        read(file, &text);
    }
}

/// Lines that catalogues are made of, right and wrong.
fn line() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "id",
        "title",
        "why",
        "evidence",
        "when",
        "area",
        "keep-for",
        "also-from",
        "service",
        "filter",
        "registry",
        "device",
        "boot-service",
        "schema",
        "platform",
        "component",
        "name",
        "kind",
        "action",
        "hive",
        "key",
        "value",
        "x",
    ]);
    let value = prop::sample::select(vec![
        "1",
        "-1",
        "99999999999999999999",
        "true",
        "\"\"",
        "\"x\"",
        "[]",
        "[1]",
        "[\"doc: x\"]",
        "{}",
        "[{}]",
        "{ build = \">=1\" }",
        "1979-05-27",
        "1.5",
        "\"aws\"",
        "[\"aws\"]",
        "[{ name = \"x\", kind = \"driver\", action = \"disable\" }]",
        "[{ hive = \"system\", key = 'ControlSet\\x', action = \"delete-key\" }]",
        "nan",
        "'\\'",
    ]);
    let header = prop::sample::select(vec![
        "[[item]]",
        "[[group]]",
        "[item]",
        "[[item.service]]",
        "[[item.registry]]",
        "[item.when]",
        "[x]",
        "[[item",
    ]);
    prop_oneof![
        3 => (key, value).prop_map(|(key, value)| format!("{key} = {value}")),
        1 => header.prop_map(str::to_owned),
    ]
}

fn read(file: usize, text: &str) {
    let files = Catalog::builtin_files().enumerate();
    let files = files.map(|(index, (name, own))| (name, if index == file { text } else { own }));
    let (catalog, findings) = Catalog::read(files);
    let lines = text.split('\n').count();
    for finding in findings {
        assert!(!finding.message.is_empty());
        assert!(
            finding.line.is_none_or(|line| (1..=lines).contains(&line)),
            "{finding}"
        );
    }
    for finding in catalog.check() {
        assert!(!finding.message.is_empty());
    }
}
