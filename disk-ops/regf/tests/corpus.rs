//! Hives of real Windows installations and other people's test hives.
//!
//! Needs the corpus: `CE_CORPUS_DIR=<folder> cargo test -p ce-regf --features corpus`.
#![cfg(feature = "corpus")]

use std::path::{Path, PathBuf};

use ce_regf::{Hive, HiveError};

#[test]
fn every_key_and_value_of_every_sound_hive_is_read() {
    let mut hives = 0;
    for path in files_below("hives").into_iter().chain(files_below("bcd")) {
        let hive = load(&path);
        let (keys, _) =
            read_all(&hive).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(keys > 0, "{}", path.display());
        hives += 1;
    }
    assert!(hives > 40, "{hives} hives");
}

#[test]
fn what_is_no_sound_hive_is_refused_or_read_without_a_panic() {
    for path in files_below("corrupt-hives") {
        match Hive::load(read(&path)) {
            Ok(hive) => println!("{}: {:?}", path.display(), read_all(&hive)),
            Err(error) => println!("{}: refused: {error}", path.display()),
        }
    }
}

/// Reads all there is and counts keys and values.
fn read_all(hive: &Hive) -> Result<(usize, usize), HiveError> {
    let (mut keys, mut values) = (0, 0);
    for walked in hive.walk()? {
        let key = walked?.key;
        keys += 1;
        key.class_name()?;
        key.security_descriptor()?;
        for value in key.values()? {
            value?.data()?;
            values += 1;
        }
    }
    Ok((keys, values))
}

fn load(path: &Path) -> Hive {
    Hive::load(read(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn corpus() -> PathBuf {
    std::env::var_os("CE_CORPUS_DIR")
        .expect("CE_CORPUS_DIR must name the folder the corpus is unpacked in")
        .into()
}

fn files_below(folder: &str) -> Vec<PathBuf> {
    let mut folders = vec![corpus().join(folder)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}
