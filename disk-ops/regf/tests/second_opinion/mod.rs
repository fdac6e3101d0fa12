//! Other readers of hives, which must see what this crate sees: nt-hive (strict), hivexsh and
//! reglookup.
#![allow(dead_code, reason = "each test binary uses some of it")]

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use ce_regf::{Hive, Severity, Version};

/// What a reader sees: for each key, by its path, name, type and data of its values in order.
pub type Tree = Vec<(String, Vec<(String, u32, Vec<u8>)>)>;

/// Our own check has nothing to say, not even of lost cells, and nt-hive sees the same tree.
pub fn is_flawless(bytes: &[u8]) {
    let hive = Hive::load(bytes).expect("a saved hive loads");
    let report = hive.check();
    assert!(report.findings.is_empty(), "{}", lines(&report.findings));
    nt_hive_agrees(bytes, &hive);
}

/// As [`is_flawless`], for hives that others made and that have lost cells already.
pub fn is_sound(bytes: &[u8]) {
    let hive = Hive::load(bytes).expect("a saved hive loads");
    let report = hive.check();
    assert_eq!(
        report.count(Severity::Error),
        0,
        "{}",
        lines(&report.findings)
    );
    nt_hive_agrees(bytes, &hive);
}

fn nt_hive_agrees(bytes: &[u8], hive: &Hive) {
    let mut ours = tree(hive);
    let flat = hive.version() == Version::V1_3;
    for (_, value_type, data) in ours.iter_mut().flat_map(|(_, values)| values) {
        // Types outside Windows' own are an error there.
        if *value_type > 11 {
            *value_type = u32::MAX;
        }
        if flat && data.len() > LONGEST_FLAT {
            data.clear();
        }
    }
    assert!(
        nt_hive_tree(bytes, flat) == ours,
        "nt-hive sees something else"
    );
}

fn lines(findings: &[ce_regf::Finding]) -> String {
    findings
        .iter()
        .map(|finding| format!("{finding}\n"))
        .collect()
}

/// What this crate sees.
pub fn tree(hive: &Hive) -> Tree {
    hive.walk()
        .unwrap()
        .map(|walked| {
            let walked = walked.unwrap();
            let values = walked.key.values().unwrap().map(|value| {
                let value = value.unwrap();
                let data = value.data().unwrap().into_owned();
                (value.name().to_string(), value.value_type().raw(), data)
            });
            (walked.path.to_string(), values.collect())
        })
        .collect()
}

/// What nt-hive sees. It panics on some damaged hives, which is as good as an error here.
///
/// Long data of hives before 1.4 (`flat`) is left out: it takes it for big data, which Windows
/// doesn't write there.
pub fn nt_hive_tree(bytes: &[u8], flat: bool) -> Tree {
    let hive = nt_hive::Hive::new(bytes).unwrap_or_else(|error| panic!("nt-hive: {error}"));
    let root = hive
        .root_key_node()
        .unwrap_or_else(|error| panic!("nt-hive: {error}"));
    let mut tree = Tree::new();
    nt_hive_key(&root, String::new(), flat, &mut tree)
        .unwrap_or_else(|error| panic!("nt-hive: {error}"));
    tree
}

fn nt_hive_key(
    key: &nt_hive::KeyNode<'_, &[u8]>,
    path: String,
    flat: bool,
    tree: &mut Tree,
) -> Result<(), nt_hive::NtHiveError> {
    let mut values = Vec::new();
    if let Some(list) = key.values() {
        for value in list? {
            let value = value?;
            // Types outside Windows' own are an error there.
            let value_type = value
                .data_type()
                .map_or(u32::MAX, |value_type| value_type as u32);
            values.push((
                value.name()?.to_string_lossy(),
                value_type,
                match usize::try_from(value.data_size()) {
                    Ok(len) if flat && len > LONGEST_FLAT => Vec::new(),
                    _ => value.data()?.into_vec()?,
                },
            ));
        }
    }
    tree.push((path.clone(), values));
    if let Some(subkeys) = key.subkeys() {
        for subkey in subkeys? {
            let subkey = subkey?;
            let name = subkey.name()?.to_string_lossy();
            if name.is_ascii() {
                let found = key.subkey(&name).expect("nt-hive finds what it lists")?;
                assert_eq!(found.name()?.to_string_lossy(), name);
            }
            let below = if path.is_empty() {
                name
            } else {
                format!("{path}\\{name}")
            };
            nt_hive_key(&subkey, below, flat, tree)?;
        }
    }
    Ok(())
}

/// hivexsh lists the same subkeys and the same number of values for every key. For hives whose
/// names are ASCII letters and digits.
pub fn hivex_agrees(bytes: &[u8]) {
    let hive = Hive::load(bytes).unwrap();
    let tree = tree(&hive);
    let mut script = String::new();
    for (path, _) in &tree {
        script += &format!("cd \\{path}\nls\nlsval\n");
    }
    let output = on_file(bytes, |file| {
        let mut child = Command::new("hivexsh")
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("hivexsh can't be run: install the Debian package libhivex-bin");
        let mut stdin = child.stdin.take().unwrap();
        let feeder = std::thread::spawn(move || stdin.write_all(script.as_bytes()));
        let output = child.wait_with_output().unwrap();
        feeder.join().unwrap().unwrap();
        output
    });
    assert!(
        output.status.success(),
        "hivexsh: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.stderr.is_empty(),
        "hivexsh: {}",
        String::from_utf8_lossy(&output.stderr)
    );

    let mut expected = Vec::new();
    for (path, values) in &tree {
        let prefix = if path.is_empty() {
            String::new()
        } else {
            format!("{path}\\")
        };
        let below = tree
            .iter()
            .filter_map(|(other, _)| other.strip_prefix(prefix.as_str()));
        expected.extend(
            below
                .filter(|name| !name.is_empty() && !name.contains('\\'))
                .map(String::from),
        );
        expected.extend(values.iter().map(|(name, ..)| match name.as_str() {
            "" => "@=".into(),
            name => format!("\"{name}\"="),
        }));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let found: Vec<&str> = text.lines().collect();
    assert_eq!(found.len(), expected.len(), "hivexsh:\n{text}");
    for (found, expected) in found.iter().zip(&expected) {
        assert!(
            found.starts_with(expected.as_str()),
            "hivexsh: {found:?}, expected {expected:?}"
        );
    }
}

/// reglookup sees the same keys, with the same owners and access lists for keys of equal rights,
/// and the same number of values. For hives whose names are ASCII letters and digits.
pub fn reglookup_agrees(bytes: &[u8]) {
    let output = on_file(bytes, |file| {
        Command::new("reglookup")
            .args(["-H", "-s"])
            .arg(file)
            .output()
            .expect("reglookup can't be run: install the Debian package reglookup")
    });
    assert!(
        output.status.success(),
        "reglookup: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.stderr.is_empty(),
        "reglookup: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout);

    let hive = Hive::load(bytes).unwrap();
    let mut keys = Vec::new();
    let mut rights = BTreeMap::new();
    let mut values = 0;
    for line in text.lines() {
        let fields: Vec<&str> = line.split(',').collect();
        if fields[1] != "KEY" {
            values += 1;
            continue;
        }
        let path = fields[0].trim_start_matches('/').replace('/', "\\");
        let key = hive
            .root()
            .unwrap()
            .subkey(&path)
            .unwrap()
            .expect("a key that reglookup lists");
        let ours = key.security_descriptor().unwrap();
        let class = key.class_name().unwrap().map(|name| name.to_string());
        assert_eq!(
            fields[8],
            class.unwrap_or_default(),
            "reglookup: class of {path}"
        );
        let theirs = fields[4..8].join(",");
        let first = rights
            .entry(ours.as_bytes().to_vec())
            .or_insert_with(|| theirs.clone());
        assert_eq!(*first, theirs, "reglookup: rights of {path}");
        keys.push(path);
    }
    let tree = tree(&hive);
    let mut expected: Vec<String> = tree.iter().map(|(path, _)| path.clone()).collect();
    keys.sort();
    expected.sort();
    assert_eq!(keys, expected, "reglookup");
    assert_eq!(
        values,
        tree.iter().map(|(_, values)| values.len()).sum::<usize>(),
        "reglookup"
    );
}

fn on_file<T>(bytes: &[u8], run: impl FnOnce(&std::path::Path) -> T) -> T {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    run(file.path())
}

const LONGEST_FLAT: usize = 16344;
