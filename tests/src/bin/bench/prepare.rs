//! `ce-agent prepare` of the large Windows disk.
//!
//! ```text
//!  kept disk --copy--> leftovers of vSphere, large hives, a boot configuration --> source
//!  each round:         copy --> prepare        copy --> prepare --md5        source --> hash
//! ```
//!
//! Every prepare gets a copy of its own, for the second one of a disk has nothing to do.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ce_disk::block::{OpenOptions, open_writable};
use ce_disk::cancel::Cancel;
use ce_disk::progress::Progress;
use ce_disk::scratch::ScratchFolder;
use ce_disk::transaction::Transaction;
use ce_disk::volume::ntfs::write::{
    ConfinedWriter, ContentSource, NtfsWrite, Security, ShortNames, VolumeEdit, WORKER_ARGUMENT,
    WorkerProgram,
};
use ce_disk::volume::{FatEdit, NtfsVolume, WinPath, write_fat};
use ce_platform::Platform;
use ce_tests::agent::{Cost, Invocation, binary, ce_agent, drop_from_page_cache};
use ce_tests::memory::{Peak, watched};
use ce_tests::tool::{CP, SGDISK, text};
use serde_json::{Value, json};

use crate::guest::{DISK, Guest, PARTITION};
use crate::memory;
use crate::windows::{
    LARGE_HIVES, WINDOWS_PARTITION, boot_of, grown, kept_disk, windows_of, write_file,
};

/// One round.
#[derive(Clone, Copy, Debug)]
pub struct PrepareRound {
    /// `ce-agent prepare`.
    pub plain: Cost,
    /// `ce-agent hash`.
    pub hash: Cost,
    /// `ce-agent prepare --md5`.
    pub hashed: Cost,
}

/// The disk that is prepared.
pub struct LargeGuest {
    pub source: PathBuf,
    pub folder: PathBuf,
    /// How long its SYSTEM and SOFTWARE are.
    pub hives_size: u64,
}

impl LargeGuest {
    /// A guest of vSphere, in `folder`, on the disk in `kept`.
    pub fn make(kept: &Path, folder: &Path) -> Result<Self> {
        let guest = Guest::of(Platform::Vsphere, Platform::Azure);
        Self::of(&guest, "guest.raw", kept, folder)
    }

    /// Makes the disk of `guest`.
    pub fn of(guest: &Guest, name: &str, kept: &Path, folder: &Path) -> Result<Self> {
        let source = folder.join(name);
        let arguments = [
            text(&kept_disk(kept)?)?.to_owned(),
            text(&source)?.to_owned(),
        ];
        CP.run(["--sparse=auto", &arguments[0], &arguments[1]])?;
        let hives_size = lay_out(guest, &source, folder)?;
        let (disk, partition) = (DISK.to_string(), format!("{WINDOWS_PARTITION}:{PARTITION}"));
        SGDISK.run(["-U", &disk, "-u", &partition, text(&source)?])?;
        Ok(Self {
            source,
            folder: folder.to_owned(),
            hives_size,
        })
    }

    /// Runs all once.
    pub fn round(&self) -> Result<PrepareRound> {
        let plain = self.prepare(None)?;
        drop_from_page_cache(&self.source)?;
        memory::fill(&self.folder)?;
        let hash = ce_agent(["hash", text(&self.source)?, "--json"])?
            .time_limit(TIME_LIMIT)
            .expect_code(0)?;
        let hashed = self.prepare(Some(&hash.md5_hash()?))?;
        Ok(PrepareRound {
            plain,
            hash: hash.cost,
            hashed,
        })
    }

    /// Prepares a copy of the disk.
    fn prepare(&self, md5: Option<&str>) -> Result<Cost> {
        let options: Vec<&str> = md5.iter().flat_map(|md5| ["--md5", md5]).collect();
        self.run(
            "prepare",
            &[&["--platform", "azure"], &options[..]].concat(),
        )
    }

    /// Changes a copy of the disk by `command`.
    pub fn run(&self, command: &str, options: &[&str]) -> Result<Cost> {
        let copy = self.folder.join("prepared.raw");
        CP.run(["--sparse=auto", text(&self.source)?, text(&copy)?])?;
        drop_from_page_cache(&copy)?;
        drop_from_page_cache(&self.source)?;
        memory::fill(&self.folder)?;
        let scratch = self.folder.join("prepare-scratch");
        let run = ce_agent([command, text(&copy)?, "--json"])?
            .with(["--scratch", text(&scratch)?])
            .with(options)
            .time_limit(TIME_LIMIT);
        let (cost, job) = with_children(&run)?;
        let done = &job["artifacts"];
        ensure!(
            done["proof"]["failures"] == json!([]) && done["changedBytes"].as_u64() > Some(0),
            "{job}"
        );
        eprintln!("{:.2} s: {}", cost.wall.as_secs_f64(), done["durations"]);
        fs::remove_file(copy)?;
        Ok(cost)
    }
}

/// Puts the files of `guest`, its hives grown, onto the disk, and gives the length of the hives.
fn lay_out(guest: &Guest, disk: &Path, folder: &Path) -> Result<u64> {
    let scratch = Arc::new(ScratchFolder::open(&folder.join("guest-scratch"))?);
    let disk = open_writable(disk, &OpenOptions::default())?;
    let transaction = Transaction::begin(disk, scratch, None)?;
    let volume = windows_of(transaction.disk())?;
    let (mut folders, mut files) = (BTreeSet::new(), Vec::new());
    let mut hives_size = 0;
    for (name, content) in &guest.windows {
        let path: WinPath = name.parse()?;
        let mut above = path.parent();
        while let Some(folder) = above.filter(|folder| *folder != WinPath::ROOT) {
            above = folder.parent();
            folders.insert(folder.to_string());
        }
        let mut content = content.clone();
        let grows = LARGE_HIVES
            .iter()
            .find(|(hive, ..)| *name == format!(r"Windows\System32\config\{hive}"));
        if let Some((_, keys_below, count)) = grows {
            content = grown(content, keys_below, *count)?;
            hives_size += content.len() as u64;
        }
        let content: Arc<dyn ContentSource> = Arc::new(content);
        files.push(write_file(name, &content)?);
    }
    let mut edits = Vec::new();
    {
        let found = NtfsVolume::open(&volume)?;
        for folder in folders {
            let path: WinPath = folder.parse()?;
            if !found.exists(&path)? {
                edits.push(VolumeEdit::CreateFolder {
                    path,
                    security: Security::Inherit,
                });
            }
        }
    }
    edits.extend(files);
    let worker = WorkerProgram::new(binary()?, [WORKER_ARGUMENT]);
    ConfinedWriter::new(&volume, ShortNames::Omit)
        .with_worker(worker)
        .with_time_limit(TIME_LIMIT)
        .apply(&edits)?;
    let edits = guest.boot.iter().map(|(path, content)| {
        Ok(FatEdit::Write {
            path: path.parse()?,
            content: content.clone(),
        })
    });
    let edits = edits.collect::<Result<Vec<_>>>()?;
    write_fat(&boot_of(transaction.disk())?, &edits)?;
    transaction.commit(&Cancel::default(), &Progress::default())?;
    Ok(hives_size)
}

/// Runs it, and adds the peak memory of the processes that it starts to its own.
fn with_children(call: &Invocation) -> Result<(Cost, Value)> {
    let (run, Peak { children, .. }) = watched(call.start()?)?;
    ensure!(run.status.success(), "{}{}", run.stdout, run.stderr);
    ensure!(children > 0, "no process that writes NTFS was seen");
    let cost = Cost {
        peak_memory: run.cost.peak_memory + children,
        ..run.cost
    };
    let job = run.job().context("what prepare said")?;
    Ok((cost, job))
}

/// How long anything may take.
pub const TIME_LIMIT: Duration = Duration::from_secs(3600);
