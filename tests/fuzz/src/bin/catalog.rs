//! Reads a catalogue of any text in the place of one of those that are built in.
//!
//! Oracle: nothing panics; what is wrong is in a line that the text has; and of a catalogue that is
//! good, every item that is not kept everywhere is shown for some target.

#![no_main]

use ce_platform::catalog::Item;
use ce_platform::{Catalog, Platform};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &str)| {
    let (chosen, text) = input;
    let files: Vec<_> = Catalog::builtin_files().collect();
    let chosen = usize::from(chosen) % files.len();
    let files = files.iter().enumerate();
    let files = files.map(|(index, (name, own))| (*name, if index == chosen { text } else { own }));
    let (catalog, findings) = Catalog::read(files);
    let lines = text.split('\n').count();
    for finding in &findings {
        assert!(
            finding.line.is_none_or(|line| (1..=lines).contains(&line)),
            "{finding}"
        );
    }
    if !findings.is_empty() || !catalog.check().is_empty() {
        return;
    }
    let shown: Vec<String> = Platform::ALL
        .into_iter()
        .map(|to| catalog.preparation(None, to).show().to_string())
        .collect();
    // One that is kept for every target is never done, and not shown either.
    let done = |item: &&Item| item.about.keep_for.len() + 1 < Platform::ALL.len();
    for item in catalog.items().filter(done) {
        let id = format!("[{}]", item.about.id);
        assert!(
            shown.iter().any(|text| text.contains(&id)),
            "{id} is never shown"
        );
    }
});
