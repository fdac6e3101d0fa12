//! Hives of real Windows installations and other people's test hives.
//!
//! Needs the corpus: `CE_CORPUS_DIR=<folder> cargo test -p ce-regf --features corpus`.
#![cfg(feature = "corpus")]

mod second_opinion;

use std::path::{Path, PathBuf};

use ce_regf::{
    EditError, ExportError, ExportOptions, FileTime, Hive, HiveError, HiveState, ImportReport,
    KeyPath, LogEnd, LogSlot, LogVerdict, Logs, RegScript, RegValue, Replay, ReplayReport,
    Severity, check_file,
};
use second_opinion::is_sound;

#[test]
fn every_key_and_value_of_every_sound_hive_is_read() {
    let mut hives = 0;
    for path in sound_hives() {
        let hive = load(&path);
        let (keys, _) =
            read_all(&hive).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(keys > 0, "{}", path.display());
        hives += 1;
    }
    assert!(hives > 40, "{hives} hives");
}

#[test]
fn the_check_finds_nothing_wrong_with_the_hives_of_real_installations() {
    for path in sound_hives() {
        let report = load(&path).check();
        let name = path.file_name().unwrap().to_string_lossy();
        // Made by hand or by a recovery that did not count right.
        let warnings = match name.as_ref() {
            "nt-hive__testhive" | "yarp__CompHive" => 1,
            "yarp__HealedHive" => 2,
            _ => 0,
        };
        let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
        assert_eq!(report.count(Severity::Error), 0, "{name}: {findings:#?}");
        assert_eq!(
            report.count(Severity::Warning),
            warnings,
            "{name}: {findings:#?}"
        );
    }
}

#[test]
fn every_sound_hive_saves_as_it_is_until_it_is_edited_and_stays_sound_then() {
    for path in sound_hives() {
        let bytes = read(&path);
        let mut hive = load(&path);
        assert!(hive.save(NOW).unwrap().bytes == bytes, "{}", path.display());
        hive.accept_without_logs();
        let before = hive.check();
        if path.ends_with("yarp__System_Delta") {
            assert!(matches!(
                hive.edit(NOW)
                    .unwrap()
                    .create_key(r"ControlSet001\Services\ce"),
                Err(EditError::Layered { .. })
            ));
            continue;
        }
        let some = hive.walk().unwrap().map(|walked| walked.unwrap().path);
        let some: Vec<KeyPath> = some.skip(1).step_by(97).take(200).collect();
        let mut editor = hive.edit(NOW).unwrap();
        editor.create_key(r"CE test\Sub").unwrap();
        for (number, path) in some.iter().enumerate() {
            let long = RegValue::binary(vec![0xCE; number * 331 % 40_000]);
            editor
                .create_key(path.join(format!("CE {number}")))
                .unwrap();
            editor
                .set_value(path, format!("CE {number}"), &long)
                .unwrap();
            if number % 5 == 4 {
                assert!(editor.delete_key(path).unwrap(), "{path}");
            }
        }
        let saved = hive.save(NOW).unwrap().bytes.to_vec();
        let after = Hive::load(saved.clone()).unwrap().check();
        for severity in [Severity::Error, Severity::Warning, Severity::Note] {
            assert!(
                after.count(severity) <= before.count(severity),
                "{}: {:?}",
                path.display(),
                after.findings
            );
        }
        is_sound(&saved);
    }
}

#[test]
fn importing_the_export_of_any_sound_hive_changes_nothing() {
    for path in sound_hives() {
        let mut hive = load(&path);
        let options = ExportOptions::default();
        let text = match hive.export("", &options) {
            Ok(text) => text,
            // Its keys mean more than what stands in them.
            Err(ExportError::Unwritable { .. }) if path.ends_with("yarp__System_Delta") => continue,
            Err(error) => panic!("{}: {error}", path.display()),
        };
        let script = RegScript::parse(&text, &KeyPath::ROOT).unwrap();
        hive.accept_without_logs();
        let report = hive.edit(NOW).unwrap().import(&script);
        let report = report.unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
        assert_eq!(report, ImportReport::default(), "{}", path.display());
    }
}

#[test]
fn a_dirty_hive_is_replayed_to_what_windows_and_another_reader_made_of_it() {
    // Folder, primary file, logs, what others recovered, sequence numbers applied of each log.
    let cases: [Case; 4] = [
        (
            "yarp_new1",
            "NewDirtyHive",
            "NewDirtyHive.LOG1",
            "NewDirtyHive.LOG2",
            &[
                "EXPECTED-RecoveredHive_Windows10",
                "EXPECTED-recovered-by-yarp.hive",
            ],
            [Some((2, 2)), Some((3, 5))],
        ),
        (
            "yarp_old",
            "OldDirtyHive",
            "OldDirtyHive.LOG1",
            "",
            &["EXPECTED-RecoveredHive_Windows7"],
            [Some((5, 5)), None],
        ),
        (
            "usrclass",
            "UsrClass.dat",
            "UsrClass.dat.LOG1",
            "UsrClass.dat.LOG2",
            &["EXPECTED-recovered-by-yarp.hive"],
            [Some((287, 290)), Some((291, 300))],
        ),
        (
            "ntuser_tony",
            "transactions_NTUSER.DAT",
            "transactions_ntuser.dat.log1",
            "transactions_ntuser.dat.log2",
            &["EXPECTED-recovered-by-yarp.hive"],
            [Some((566, 588)), None],
        ),
    ];
    for (folder, primary, log1, log2, expected, applied) in cases {
        let folder = corpus().join("dirty-hives").join(folder);
        let (hive, report) = recover(&folder, primary, log1, log2);
        assert_eq!(report.outcome, Replay::Applied, "{report:?}");
        assert_eq!(hive.state(), HiveState::Clean);
        assert!(hive.is_modified());
        assert_eq!(sequences(&report), applied, "{report:?}");
        for expected in expected {
            let theirs = load(&folder.join(expected));
            let ours = contents(&hive).unwrap();
            assert_eq!(
                ours,
                contents(&theirs).unwrap(),
                "{}",
                folder.join(expected).display()
            );
        }
    }
}

#[test]
fn a_log_that_is_older_than_its_hive_is_told_apart_and_left_alone() {
    let folder = corpus().join("dirty-hives/ntuser_tony");
    let log2 = "transactions_ntuser.dat.log2";
    let (hive, report) = recover(&folder, "transactions_NTUSER.DAT", "", log2);
    assert_eq!(report.outcome, Replay::NothingApplies);
    assert_eq!(report.logs[0].slot, LogSlot::Log2);
    assert_eq!(report.logs[0].verdict, LogVerdict::Stale);
    assert_eq!(hive.state(), HiveState::Dirty);
    assert!(!hive.is_modified());
}

#[test]
fn a_log_whose_base_block_is_damaged_is_not_applied() {
    let folder = corpus().join("dirty-hives/yarp_badlog1");
    let (hive, report) = recover(&folder, "BadLogHive", "BadLogHive.LOG1", "");
    assert_eq!(report.outcome, Replay::NothingApplies);
    assert!(
        matches!(report.logs[0].verdict, LogVerdict::Invalid { .. }),
        "{report:?}"
    );
    assert_eq!(hive.state(), HiveState::Dirty);
}

#[test]
fn a_lost_base_block_comes_back_from_the_log() {
    let folder = corpus().join("dirty-hives/yarp_new1");
    let mut primary = read(&folder.join("NewDirtyHive"));
    primary[508] ^= 1;
    let (log1, log2) = (
        read(&folder.join("NewDirtyHive.LOG1")),
        read(&folder.join("NewDirtyHive.LOG2")),
    );
    let logs = Logs {
        log: None,
        log1: Some(&log1),
        log2: Some(&log2),
    };
    let (hive, report) = Hive::recover(primary, &logs).unwrap();
    assert_eq!(report.outcome, Replay::Applied, "{report:?}");
    assert!(report.base_block_recovered);
    assert!(read_all(&hive).is_ok());
}

#[test]
fn the_logs_of_a_clean_hive_do_not_matter() {
    let folder = corpus().join("dirty-hives/usrclass");
    let clean = read(&folder.join("EXPECTED-recovered-by-yarp.hive"));
    let log = read(&folder.join("UsrClass.dat.LOG1"));
    let logs = Logs {
        log: None,
        log1: Some(&log),
        log2: Some(&[]),
    };
    let (hive, report) = Hive::recover(clean.clone(), &logs).unwrap();
    assert_eq!(report.outcome, Replay::NotNeeded);
    assert_eq!(report.logs[0].verdict, LogVerdict::NotUsed);
    assert_eq!(report.logs[1].verdict, LogVerdict::Empty);
    assert_eq!(hive.as_bytes(), clean);
}

#[test]
fn a_log_cut_anywhere_gives_the_entries_before_the_cut_or_nothing() {
    let folder = corpus().join("dirty-hives/ntuser_tony");
    let primary = read(&folder.join("transactions_NTUSER.DAT"));
    let log = read(&folder.join("transactions_ntuser.dat.log1"));
    for len in (0..log.len()).step_by(37_123) {
        let logs = Logs {
            log: None,
            log1: Some(&log[..len]),
            log2: None,
        };
        let (_, report) = Hive::recover(primary.clone(), &logs).unwrap();
        if let LogVerdict::Applied {
            sequence: (566, last),
            end,
            ..
        } = report.logs[0].verdict
        {
            assert!(last < 588 || end == LogEnd::NoMoreEntries, "{report:?}");
        }
    }
}

#[test]
fn what_is_no_sound_hive_is_refused_or_found_out() {
    for path in files_below("corrupt-hives") {
        let bytes = read(&path);
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let outcome = match check_file(&bytes) {
            Err(error) => format!("refused: {error}"),
            Ok(report) if report.findings.is_empty() => "nothing".into(),
            Ok(report) => report.findings[0].to_string(),
        };
        let expected = match name.as_str() {
            // Half a surrogate pair in a name, which Windows allows.
            "yarp__TruncatedPairHive2" => "nothing",
            "yarp__DeletedTreePartialPathHive" => "warning: ",
            "yarp__BadListHive"
            | "yarp__DeletedDataHiveTruncated"
            | "yarp__EffectiveSizeHive"
            | "yarp__InvalidParentHive"
            | "yarp__TruncatedHive"
            | "yarp__TruncatedNameHive"
            | "Registry__SAMBadHBinHeader"
            | "regipy__corrupted_system_hive" => "error: ",
            _ => "refused: not a registry hive",
        };
        assert!(outcome.starts_with(expected), "{name}: {outcome}");
    }
}

type Case = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
    Applied,
);

type Applied = [Option<(u32, u32)>; 2];

/// First and last entry taken from each log.
fn sequences(report: &ReplayReport) -> Applied {
    [LogSlot::Log1, LogSlot::Log2].map(|slot| {
        let log = report.logs.iter().find(|log| log.slot == slot)?;
        match log.verdict {
            LogVerdict::Applied { sequence, .. } => Some(sequence),
            _ => None,
        }
    })
}

fn recover(folder: &Path, primary: &str, log1: &str, log2: &str) -> (Hive, ReplayReport) {
    let log = |name: &str| (!name.is_empty()).then(|| read(&folder.join(name)));
    let (log1, log2) = (log(log1), log(log2));
    let logs = Logs {
        log: None,
        log1: log1.as_deref(),
        log2: log2.as_deref(),
    };
    Hive::recover(read(&folder.join(primary)), &logs).unwrap()
}

type Contents = Vec<(
    String,
    u64,
    Option<String>,
    Vec<u8>,
    Vec<(String, u32, Vec<u8>)>,
)>;

/// Everything a key can tell, key by key.
fn contents(hive: &Hive) -> Result<Contents, HiveError> {
    let mut contents = Vec::new();
    for walked in hive.walk()? {
        let walked = walked?;
        let key = walked.key;
        let mut values = Vec::new();
        for value in key.values()? {
            let value = value?;
            let data = value.data()?.into_owned();
            values.push((value.name().to_string(), value.value_type().raw(), data));
        }
        contents.push((
            walked.path.to_string(),
            key.last_written().ticks(),
            key.class_name()?.map(|name| name.to_string()),
            key.security_descriptor()?.as_bytes().to_vec(),
            values,
        ));
    }
    Ok(contents)
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

fn sound_hives() -> impl Iterator<Item = PathBuf> {
    files_below("hives").into_iter().chain(files_below("bcd"))
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

const NOW: FileTime = FileTime::from_ticks(133_000_000_000_000_000);
