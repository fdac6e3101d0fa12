//! A second opinion on what was written: the `ntfs` crate alone walks the whole volume, without the
//! records, trees and runs of our own reader.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use ce_disk::volume::ntfs::write::{FileTimes, NtfsWrite, VolumeEdit};
use ce_disk::volume::{FileAttributes, WindowsTime};
use ntfs::indexes::NtfsFileNameIndex;
use ntfs::structured_values::{NtfsFileName, NtfsFileNamespace};
use ntfs::{Ntfs, NtfsFile, NtfsReadSeek};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::model::{Model, Step, edit, step, stored};
use super::volume::{GEOMETRIES, Geometry, Volume, bytes_of, noise, path, writer};

/// What the walk finds of a file or folder.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Walked {
    /// `None` for a folder.
    content: Option<Vec<u8>>,
    meta: Meta,
    /// The same as the folder shows it, which is all that a listing in Windows reads.
    shown: Meta,
    shown_size: u64,
}

/// Times in ticks of 100 ns since 1601.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Meta {
    attributes: u32,
    created: u64,
    modified: u64,
    accessed: u64,
}

/// A volume in memory, read by the `ntfs` crate and nothing else.
struct Walk {
    bytes: Cursor<Vec<u8>>,
    ntfs: Ntfs,
}

impl Walk {
    fn of(bytes: Vec<u8>) -> Result<Self> {
        let mut bytes = Cursor::new(bytes);
        let mut ntfs = Ntfs::new(&mut bytes)?;
        ntfs.read_upcase_table(&mut bytes)?;
        Ok(Self { bytes, ntfs })
    }

    /// Everything that the root leads to, by path.
    fn everything(mut self) -> Result<BTreeMap<String, Walked>> {
        let mut found = BTreeMap::new();
        let root = self.ntfs.root_directory(&mut self.bytes)?;
        let mut folders = vec![(String::new(), root.file_record_number())];
        while let Some((path, record)) = folders.pop() {
            for (name, record) in self.names_in(record).with_context(|| path.clone())? {
                let inner = match path.as_str() {
                    "" => name.name().to_string_lossy(),
                    path => format!("{path}\\{}", name.name().to_string_lossy()),
                };
                let walked = self.look_at(record, &name);
                let walked = walked.with_context(|| inner.clone())?;
                if walked.content.is_none() {
                    folders.push((inner.clone(), record));
                }
                ensure!(
                    found.insert(inner.clone(), walked).is_none(),
                    "{inner} twice"
                );
            }
        }
        Ok(found)
    }

    /// The long names in a folder and their records, each of which is found by its name as well.
    fn names_in(&mut self, folder: u64) -> Result<Vec<(NtfsFileName, u64)>> {
        let folder = self.ntfs.file(&mut self.bytes, folder)?;
        let index = folder.directory_index(&mut self.bytes)?;
        let mut entries = index.entries();
        let (mut long, mut short) = (Vec::new(), BTreeSet::new());
        while let Some(entry) = entries.next(&mut self.bytes) {
            let entry = entry?;
            let name = entry.key().context("an entry with a name")??;
            let reference = entry.file_reference();
            let record = reference.file_record_number();
            let file = self.ntfs.file(&mut self.bytes, record)?;
            ensure!(
                file.sequence_number() == reference.sequence_number(),
                "{name:?} is that of a deleted file"
            );
            if record < FIRST_USER_RECORD {
                continue;
            }
            match name.namespace() {
                NtfsFileNamespace::Dos => {
                    short.insert(record);
                }
                _ => long.push((name, record)),
            }
        }
        for (name, record) in &long {
            // A tree out of order is walked, but not searched, without a word.
            let wanted = name.name().to_string_lossy().to_lowercase();
            let mut finder = index.finder();
            let found = NtfsFileNameIndex::find(&mut finder, &self.ntfs, &mut self.bytes, &wanted);
            let found = found.with_context(|| format!("{wanted} is not found"))??;
            ensure!(found.file_reference().file_record_number() == *record);
            short.remove(record);
        }
        ensure!(short.is_empty(), "{short:?} have a short name alone");
        Ok(long)
    }

    fn look_at(&mut self, record: u64, name: &NtfsFileName) -> Result<Walked> {
        let file = self.ntfs.file(&mut self.bytes, record)?;
        let content = match file.is_directory() {
            true => None,
            false => Some(content_of(&file, &mut self.bytes)?),
        };
        let information = file.info()?;
        Ok(Walked {
            content,
            meta: Meta {
                attributes: information.file_attributes().bits(),
                created: information.creation_time().nt_timestamp(),
                modified: information.modification_time().nt_timestamp(),
                accessed: information.access_time().nt_timestamp(),
            },
            shown: Meta {
                attributes: name.file_attributes().bits() & !SHOWN_FOLDER,
                created: name.creation_time().nt_timestamp(),
                modified: name.modification_time().nt_timestamp(),
                accessed: name.access_time().nt_timestamp(),
            },
            shown_size: name.data_size(),
        })
    }
}

fn content_of(file: &NtfsFile<'_>, bytes: &mut Cursor<Vec<u8>>) -> Result<Vec<u8>> {
    let item = file.data(bytes, "").context("no content")??;
    let attribute = item.to_attribute()?;
    let mut value = attribute.value(bytes)?;
    let mut content = vec![0; usize::try_from(value.len())?];
    value.read_exact(bytes, &mut content)?;
    Ok(content)
}

/// What the writer promised of a file.
#[derive(Clone, Copy, Debug)]
struct Promise {
    attributes: u32,
    created: Moment,
    modified: Moment,
    accessed: Moment,
}

#[derive(Clone, Copy, Debug)]
enum Moment {
    Exactly(WindowsTime),
    /// When the edits were applied.
    Meanwhile,
}

impl Promise {
    const NEW: Self = Self {
        attributes: FileAttributes::ARCHIVE.0,
        created: Moment::Meanwhile,
        modified: Moment::Meanwhile,
        accessed: Moment::Meanwhile,
    };

    fn set(&mut self, attributes: Option<FileAttributes>, times: Option<FileTimes>) {
        if let Some(attributes) = attributes {
            self.attributes = attributes.0;
        }
        if let Some(times) = times {
            self.created = Moment::Exactly(times.created);
            self.modified = Moment::Exactly(times.modified);
            self.accessed = Moment::Exactly(times.accessed);
        }
    }

    fn expect(&self, found: Meta, meanwhile: (u64, u64)) -> Result<()> {
        ensure!(found.attributes == self.attributes, "attributes");
        for (promised, found) in [
            (self.created, found.created),
            (self.modified, found.modified),
            (self.accessed, found.accessed),
        ] {
            let (earliest, latest) = match promised {
                Moment::Exactly(time) => (time.0, time.0),
                Moment::Meanwhile => meanwhile,
            };
            ensure!(
                (earliest..=latest).contains(&found),
                "{found} is not in {earliest}..={latest}"
            );
        }
        Ok(())
    }
}

/// Edits of a batch, with times and attributes that follow from `seed`, and what they promise.
fn edits_of(
    steps: &[Step],
    seed: u64,
    model: &mut Model,
    promises: &mut BTreeMap<String, Promise>,
) -> Vec<VolumeEdit> {
    let mut edits = Vec::new();
    for (seed, step) in (seed..).zip(steps) {
        let Some(mut next) = edit(model, step, seed) else {
            continue;
        };
        promises.retain(|path, _| model.contains_key(path));
        if let VolumeEdit::WriteFile(file) = &mut next {
            let known = stored(model, &file.path.to_string()).expect("it was written");
            let promise = promises.entry(known).or_insert(Promise::NEW);
            promise.attributes |= FileAttributes::ARCHIVE.0;
            promise.modified = Moment::Meanwhile;
            (file.attributes, file.times) = meta_of(seed);
            promise.set(file.attributes, file.times);
        }
        edits.push(next);
        // And then somebody who changes a file without writing to it.
        let (attributes, times) = meta_of(seed.wrapping_mul(7));
        let chosen = promises.iter_mut().nth(seed as usize % 5);
        if let Some((known, promise)) = chosen
            && (attributes.is_some() || times.is_some())
        {
            promise.set(attributes, times);
            edits.push(VolumeEdit::SetMeta {
                path: path(known),
                attributes,
                times,
            });
        }
    }
    edits
}

fn meta_of(seed: u64) -> (Option<FileAttributes>, Option<FileTimes>) {
    let random = noise(32, seed);
    let attributes = [0x20, 0x1, 0x2 | 0x4, 0x2127];
    let attributes = attributes.map(FileAttributes)[usize::from(random[24] % 4)];
    // 1970 to 2300, to the tick.
    let time = |at: usize| {
        let word = random[at..at + 8].iter();
        let word = word.fold(0u64, |word, byte| word << 8 | u64::from(*byte));
        WindowsTime(116_444_736_000_000_000 + word % (330 * 365 * 864_000_000_000))
    };
    let times = FileTimes {
        created: time(0),
        modified: time(8),
        accessed: time(16),
    };
    (
        (random[25] > 127).then_some(attributes),
        (random[26] > 127).then_some(times),
    )
}

fn now() -> Result<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(116_444_736_000_000_000 + u64::try_from(since.as_nanos() / 100)?)
}

/// Applies batches of random steps, and holds what the walk finds against the model.
fn check(geometry: Geometry, batches: &[Vec<Step>]) -> Result<()> {
    let volume = Volume::new(24, geometry)?;
    let disk = volume.overlay();
    let mut model = Model::new();
    let mut promises = BTreeMap::new();
    let started = now()?;
    for (batch, steps) in (0..).zip(batches) {
        let edits = edits_of(steps, batch * 100, &mut model, &mut promises);
        writer(&disk).apply(&edits)?;
    }
    let meanwhile = (started, now()?);
    let found = Walk::of(bytes_of(&disk)?)?.everything()?;
    ensure!(
        found.keys().eq(model.keys()),
        "{:?} instead of {:?}",
        found.keys(),
        model.keys()
    );
    for (path, content) in &model {
        let walked = &found[path];
        ensure!(walked.content == *content, "{path}: the content");
        let Some(content) = content else {
            continue;
        };
        ensure!(
            walked.shown_size == content.len() as u64,
            "{path}: the size"
        );
        let promise = &promises[path];
        for (what, found) in [
            ("its record", walked.meta),
            ("its entry in the folder", walked.shown),
        ] {
            promise
                .expect(found, meanwhile)
                .with_context(|| format!("{path}, {what}: {found:?} instead of {promise:?}"))?;
        }
    }
    Ok(())
}

#[test]
fn a_walk_by_the_ntfs_crate_alone_finds_what_was_promised() {
    let config = Config {
        cases: if ce_tests::is_long() { 200 } else { 12 },
        failure_persistence: None,
        ..Config::default()
    };
    let batches = prop::collection::vec(prop::collection::vec(step(), 1..25), 1..4);
    let geometries: Vec<_> = GEOMETRIES.into_iter().filter(can_be_walked).collect();
    let strategy = (prop::sample::select(geometries), batches);
    let result = TestRunner::new(config).run(&strategy, |(geometry, batches)| {
        check(geometry, &batches).map_err(|error| TestCaseError::fail(format!("{error:#}")))
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_walk_by_the_ntfs_crate_alone_finds_thousands_of_names() -> Result<()> {
    for geometry in GEOMETRIES.into_iter().filter(can_be_walked) {
        let volume = Volume::new(24, geometry)?;
        let disk = volume.overlay();
        let name = |n: usize| format!(r"many\a rather long name of a file {n:05}.sys");
        let mut edits = vec![super::volume::create_folder("many")];
        for n in (0..1500).map(|n| n * 7919 % 1500) {
            edits.push(super::volume::write_file(
                &name(n),
                n.to_string().as_bytes(),
            ));
        }
        edits.extend(
            (0..1500)
                .step_by(3)
                .map(|n| super::volume::delete(&name(n))),
        );
        writer(&disk).apply(&edits)?;
        let mut found = Walk::of(bytes_of(&disk)?)?.everything()?;
        found.remove("many").context("the folder")?;
        assert_eq!(found.len(), 1000, "{geometry:?}");
        for n in (0..1500).filter(|n| n % 3 != 0) {
            let walked = found.get(&name(n)).with_context(|| name(n))?;
            assert_eq!(walked.content, Some(n.to_string().into_bytes()));
        }
    }
    Ok(())
}

/// The crate takes the numbers of index blocks for those of clusters, which they are only where a
/// cluster is no larger than such a block.
fn can_be_walked(geometry: &Geometry) -> bool {
    geometry.cluster <= 4096
}

/// The bit by which an entry in a folder says that it is one itself.
const SHOWN_FOLDER: u32 = 0x1000_0000;
const FIRST_USER_RECORD: u64 = 24;
