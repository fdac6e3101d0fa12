//! A thousand values of a large hive changed, by `ce-agent hive import` and by `hivexsh`.

use std::fmt::Write;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use ce_regf::{FileTime, Hive, HiveEditor, RegValue, SecurityDescriptor, Version};
use ce_tests::agent::{Cost, Invocation, ce_agent, drop_from_page_cache};
use ce_tests::pattern::MIB;
use ce_tests::tool::{HIVEXSH, text};

use crate::memory;

/// One round.
#[derive(Clone, Copy, Debug)]
pub struct HiveRound {
    /// `ce-agent hive import`: read, checked, changed, checked, written beside it and renamed.
    pub agent: Cost,
    /// `hivexsh -w` with the same changes, written over the file.
    pub hivexsh: Cost,
}

/// A hive of the size of a large SOFTWARE hive, and changes to it in the words of both.
pub struct LargeHive {
    folder: PathBuf,
    original: PathBuf,
    edits: PathBuf,
    script: PathBuf,
}

impl LargeHive {
    /// Makes the hive, and the files that say what is to be changed.
    pub fn make(folder: &Path) -> Result<Self> {
        let now = FileTime::from_ticks(133_000_000_000_000_000);
        let owner = SecurityDescriptor::for_administrators();
        let mut hive = Hive::new_empty(Version::V1_5, &owner, now)?;
        add_keys(&mut hive.edit(now)?, CLASSES, KEYS)?;
        let original = folder.join("SOFTWARE");
        let bytes = hive.save(now)?.bytes.to_vec();
        ensure!(bytes.len() as u64 >= 80 * MIB, "{} bytes", bytes.len());
        fs::write(&original, bytes)?;

        let mut edits = String::from("Windows Registry Editor Version 5.00\r\n");
        let mut script = String::new();
        for number in (0..KEYS).step_by((KEYS / CHANGES) as usize) {
            let key = key_of(CLASSES, number);
            let value = number + 1;
            write!(edits, "\r\n[{key}]\r\n\"Start\"=dword:{value:08x}\r\n")?;
            // hivexsh replaces all values of a key: the others have to be given again.
            write!(
                script,
                "cd \\{key}\nsetval 5\n@\nstring:{DESCRIPTION}\nVersion\ndword:{number:#x}\n\
                 AppID\nstring:{number:032x}\nData\nhex:3:{}\nStart\ndword:{value:#x}\n",
                vec!["5a"; 256].join(",")
            )?;
        }
        script.push_str("commit\n");
        let made = Self {
            folder: folder.to_owned(),
            original,
            edits: folder.join("edits.reg"),
            script: folder.join("edits.hivexsh"),
        };
        fs::write(&made.edits, edits)?;
        fs::write(&made.script, script)?;
        Ok(made)
    }

    /// How long the hive is.
    pub fn size(&self) -> Result<u64> {
        Ok(fs::metadata(&self.original)?.len())
    }

    /// Lets both change a copy, and checks that both did.
    pub fn round(&self) -> Result<HiveRound> {
        let copy = self.copy("agent")?;
        memory::fill(&self.folder)?;
        let agent = ce_agent(["hive", "import", text(&copy)?, text(&self.edits)?])?
            .expect_code(0)?
            .cost;
        File::open(&copy)?.sync_all()?;
        expect_changed(&copy)?;

        let copy = self.copy("hivexsh")?;
        memory::fill(&self.folder)?;
        let script = ["-w", "-f", text(&self.script)?, text(&copy)?];
        let hivexsh = Invocation::new(HIVEXSH.path()?, script)
            .expect_code(0)?
            .cost;
        expect_changed(&copy)?;
        Ok(HiveRound { agent, hivexsh })
    }

    fn copy(&self, name: &str) -> Result<PathBuf> {
        let copy = self.folder.join(name);
        fs::copy(&self.original, &copy)?;
        drop_from_page_cache(&copy)?;
        Ok(copy)
    }
}

/// Adds `count` keys below `folder`, with four values each: about 780 bytes a key.
pub fn add_keys(editor: &mut HiveEditor<'_>, folder: &str, count: u32) -> Result<()> {
    for number in 0..count {
        let key = key_of(folder, number);
        editor.create_key(&*key)?;
        editor.set_value(&*key, "", &RegValue::sz(DESCRIPTION))?;
        editor.set_value(&*key, "Version", &RegValue::dword(number))?;
        editor.set_value(&*key, "AppID", &RegValue::sz(&format!("{number:032x}")))?;
        editor.set_value(&*key, "Data", &RegValue::binary(vec![0x5A; 256]))?;
    }
    Ok(())
}

fn expect_changed(path: &Path) -> Result<()> {
    let hive = Hive::load(fs::read(path)?)?;
    let root = hive.root()?;
    for number in (0..KEYS).step_by((KEYS / CHANGES) as usize) {
        let key = root.subkey(&*key_of(CLASSES, number))?;
        let value = key.map(|key| key.value("Start")).transpose()?.flatten();
        let value = value.map(|value| value.dword()).transpose()?;
        ensure!(value == Some(number + 1), "{number}: {value:?}");
    }
    Ok(())
}

fn key_of(folder: &str, number: u32) -> String {
    format!(
        r"{folder}\{{{:04x}}}\{{{number:08x}-0000-0000-c000-000000000046}}",
        number / 256
    )
}

const CLASSES: &str = r"Classes\CLSID";
const DESCRIPTION: &str = "A class that someone registered, with a description of some length.";

/// About 89 MiB.
const KEYS: u32 = 120_000;
const CHANGES: u32 = 1000;
