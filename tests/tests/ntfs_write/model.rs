//! Many edits: random ones against a map, thousands of files, and a disk that they are committed to.

use std::collections::BTreeMap;

use anyhow::Result;
use ce_disk::block::{BlockRead, Window};
use ce_disk::cancel::Cancel;
use ce_disk::progress::Progress;
use ce_disk::units::{ByteCount, ByteOffset};
use ce_disk::volume::NtfsVolume;
use ce_disk::volume::ntfs::write::{NtfsWrite, VolumeEdit};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::volume::{
    GEOMETRIES, USUAL, Volume, all_agree, begin, bytes_of, create_folder, delete, delete_tree,
    noise, write_file, writer,
};

/// Paths and contents, `None` for folders.
pub type Model = BTreeMap<String, Option<Vec<u8>>>;

/// One random step: what to do, to which of few names, with how much.
#[derive(Clone, Debug)]
pub enum Step {
    Folder(u8),
    File(u8, u8, u32),
    Delete(u8, u8),
    Tree(u8),
}

/// Any step.
pub fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![0u32..900, 900u32..10_000, 10_000u32..300_000];
    prop_oneof![
        2 => (0u8..6).prop_map(Step::Folder),
        6 => (0u8..6, 0u8..8, size).prop_map(|(folder, file, size)| Step::File(folder, file, size)),
        2 => (0u8..6, 0u8..8).prop_map(|(folder, file)| Step::Delete(folder, file)),
        1 => (0u8..6).prop_map(Step::Tree),
    ]
}

/// Names that differ, and the same ones in other letters.
fn folder(number: u8) -> &'static str {
    [
        "Alpha",
        "alpha\\Inner folder",
        "Größe",
        "x",
        "ALPHA",
        "X\\y\\z",
    ][usize::from(number)]
}

fn file(number: u8) -> &'static str {
    [
        "one.sys",
        "ONE.SYS",
        "a much longer name.txt",
        "ÄÖÜ",
        "äöü",
        "n",
        "m.b.c",
        "日本",
    ][usize::from(number)]
}

/// The name as it stands in the model, whatever its letters.
pub fn stored(model: &Model, path: &str) -> Option<String> {
    let wanted = path.to_uppercase();
    model
        .keys()
        .find(|known| known.to_uppercase() == wanted)
        .cloned()
}

/// The edit, if the model says that it can be done; the model is brought up to date.
pub fn edit(model: &mut Model, step: &Step, seed: u64) -> Option<VolumeEdit> {
    match step {
        Step::Folder(number) => {
            let mut made = String::new();
            for name in folder(*number).split('\\') {
                let path = if made.is_empty() {
                    name.to_owned()
                } else {
                    format!("{made}\\{name}")
                };
                made = stored(model, &path).unwrap_or(path);
                model.entry(made.clone()).or_insert(None);
            }
            Some(create_folder(folder(*number)))
        }
        Step::File(number, name, size) => {
            let parent = stored(model, folder(*number))?;
            let path = format!("{parent}\\{}", file(*name));
            let content = noise(*size as usize, seed);
            let edit = write_file(&path, &content);
            let known = stored(model, &path).unwrap_or(path);
            model.insert(known, Some(content));
            Some(edit)
        }
        Step::Delete(number, name) => {
            let path = format!("{}\\{}", folder(*number), file(*name));
            if let Some(known) = stored(model, &path) {
                model.remove(&known);
            }
            Some(delete(&path))
        }
        Step::Tree(number) => {
            if let Some(known) = stored(model, folder(*number)) {
                let inside = format!("{known}\\");
                model.retain(|path, _| *path != known && !path.starts_with(&inside));
            }
            Some(delete_tree(folder(*number)))
        }
    }
}

#[test]
fn random_edits_come_to_what_a_map_says() {
    let config = Config {
        cases: 12,
        failure_persistence: None,
        ..Config::default()
    };
    let batches = prop::collection::vec(prop::collection::vec(step(), 1..25), 1..4);
    let mut runner = TestRunner::new(config);
    let result = runner.run(&(0..GEOMETRIES.len(), batches), |(geometry, batches)| {
        let volume = Volume::new(24, GEOMETRIES[geometry]).expect("a volume");
        let disk = volume.overlay();
        let mut model = Model::new();
        for (batch, steps) in batches.iter().enumerate() {
            let steps = (batch as u64 * 100..).zip(steps);
            let edits: Vec<_> = steps
                .filter_map(|(seed, step)| edit(&mut model, step, seed))
                .collect();
            writer(&disk).apply(&edits).expect("applied");
        }
        all_agree(&volume, &disk, &model).expect("read");
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn thousands_of_files_grow_the_table_and_the_folder() -> Result<()> {
    let volume = Volume::new(48, USUAL)?;
    let disk = volume.overlay();
    let name = |n: usize| format!(r"many\a rather long name of a file {n:05}.sys");
    let mut edits = vec![create_folder("many")];
    edits.extend((0..5000).map(|n| write_file(&name(n * 7919 % 5000), n.to_string().as_bytes())));
    writer(&disk).apply(&edits)?;
    let mut model: Model = (0..5000)
        .map(|n| (name(n * 7919 % 5000), Some(n.to_string().into_bytes())))
        .collect();
    model.insert("many".to_owned(), None);
    all_agree(&volume, &disk, &model)?;
    // Most of them go again, which empties leaves of the index.
    let gone: Vec<_> = (0..5000)
        .filter(|n| n % 10 != 3)
        .map(|n| delete(&name(n)))
        .collect();
    writer(&disk).apply(&gone)?;
    model.retain(|path, _| path == "many" || path.ends_with("3.sys"));
    all_agree(&volume, &disk, &model)?;
    writer(&disk).apply(&[delete_tree("MANY")])?;
    all_agree(&volume, &disk, &Model::new())?;
    Ok(())
}

#[test]
fn what_lies_around_the_volume_on_its_disk_stays_as_it_is() -> Result<()> {
    let inner = Volume::new(8, USUAL)?;
    let bytes = bytes_of(&inner.base)?;
    // Not aligned to the blocks of the overlay.
    let start = (1 << 20) + 512;
    let mut whole = vec![0xA5; start];
    whole.extend_from_slice(&bytes);
    whole.extend_from_slice(&[0x5A; 100 << 10]);
    let base = super::volume::memory(&whole, inner.base.sectors());
    let overlay = ce_disk::block::Overlay::in_memory(&base, base.size());
    let size = ByteCount(bytes.len() as u64);
    let window = Window::new(
        &overlay,
        ByteOffset(start as u64),
        size,
        "partition 1".to_owned(),
    )?;
    writer(&window).apply(&[write_file("file", &noise(1_000_000, 1))])?;
    assert!(bytes_of(&base)? == whole, "the disk itself");
    let after = bytes_of(&overlay)?;
    let (head, tail) = (&after[..start], &after[start + bytes.len()..]);
    assert!(head.iter().all(|byte| *byte == 0xA5) && tail.iter().all(|byte| *byte == 0x5A));
    let volume = NtfsVolume::open(&window)?;
    let file = super::volume::path("file");
    assert!(volume.read(&file, ByteCount::mib(4))? == noise(1_000_000, 1));
    Ok(())
}

#[test]
fn edits_are_on_the_disk_after_a_commit_and_not_a_byte_of_them_without_one() -> Result<()> {
    let volume = Volume::new(8, USUAL)?;
    let before = bytes_of(&volume.base)?;
    let (path, scratch) = (
        volume.folder.path().join("disk"),
        volume.folder.path().join("scratch"),
    );
    std::fs::write(&path, &before)?;
    std::fs::create_dir(&scratch)?;
    let edits = [
        create_folder("drivers"),
        write_file(r"drivers\disk.sys", &noise(200_000, 1)),
    ];
    let transaction = begin(&path, &scratch)?;
    writer(transaction.disk()).apply(&edits)?;
    drop(transaction);
    assert!(std::fs::read(&path)? == before);
    let transaction = begin(&path, &scratch)?;
    writer(transaction.disk()).apply(&edits)?;
    transaction.commit(&Cancel::default(), &Progress::default())?;
    let after = super::volume::memory(&std::fs::read(&path)?, volume.base.sectors());
    let model = Model::from([
        ("drivers".to_owned(), None),
        (r"drivers\disk.sys".to_owned(), Some(noise(200_000, 1))),
    ]);
    all_agree(&volume, &after, &model)?;
    Ok(())
}
