//! Who is compared: each as the commands a person would type.

use std::fs::File;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use ce_tests::agent::{Cost, Invocation, ce_agent};
use ce_tests::disk::Disk;
use ce_tests::tool::{MD5SUM, QEMU_IMG, text};

/// A way to export a disk, or to hash it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Contender {
    /// `ce-agent export --hash`.
    AgentHashed,
    /// `ce-agent export`.
    Agent,
    /// `qemu-img convert` with the flags that bypass the page cache, then `md5sum`.
    QemuDirectThenMd5,
    /// Both at the same time.
    QemuDirectBesideMd5,
    /// `qemu-img convert` as it comes, then `md5sum`.
    QemuThenMd5,
    /// `qemu-img convert` with the flags that bypass the page cache.
    QemuDirect,
    /// `qemu-img convert` as it comes.
    Qemu,
}

impl Contender {
    /// All of them, in the order they run and are shown.
    pub const ALL: [Self; 7] = [
        Self::AgentHashed,
        Self::QemuDirectThenMd5,
        Self::QemuDirectBesideMd5,
        Self::QemuThenMd5,
        Self::Agent,
        Self::QemuDirect,
        Self::Qemu,
    ];

    /// How the report names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AgentHashed => "ce-agent export --hash",
            Self::Agent => "ce-agent export",
            Self::QemuDirectThenMd5 => "qemu-img (direct), then md5sum",
            Self::QemuDirectBesideMd5 => "qemu-img (direct) beside md5sum",
            Self::QemuThenMd5 => "qemu-img (default), then md5sum",
            Self::QemuDirect => "qemu-img (direct)",
            Self::Qemu => "qemu-img (default)",
        }
    }

    /// Whether it computes the MD5 of the disk.
    pub fn hashes(self) -> bool {
        match self {
            Self::AgentHashed
            | Self::QemuDirectThenMd5
            | Self::QemuDirectBesideMd5
            | Self::QemuThenMd5 => true,
            Self::Agent | Self::QemuDirect | Self::Qemu => false,
        }
    }

    /// Runs it until its image is on the disk.
    pub fn run(self, disk: &Disk, image: &Path) -> Result<Cost> {
        let source = text(&disk.path)?;
        let image_name = text(image)?;
        let md5sum = || Ok::<_, anyhow::Error>(vec![Invocation::new(MD5SUM.path()?, [source])]);
        let qemu = |flags: &[&str]| {
            let convert = Invocation::new(QEMU_IMG.path()?, ["convert", "-f", "raw", "-O", "vhdx"]);
            Ok::<_, anyhow::Error>(vec![convert.with(flags).with([source, image_name])])
        };
        let agent = || ce_agent(["export", source, "--to", image_name, "--quiet"]);
        // Stages follow each other, what is inside a stage runs at the same time.
        let stages = match self {
            Self::AgentHashed => vec![vec![agent()?.with(["--hash"])]],
            Self::Agent => vec![vec![agent()?]],
            Self::QemuDirectThenMd5 => vec![qemu(DIRECT)?, md5sum()?],
            Self::QemuDirectBesideMd5 => vec![[qemu(DIRECT)?, md5sum()?].concat()],
            Self::QemuThenMd5 => vec![qemu(&[])?, md5sum()?],
            Self::QemuDirect => vec![qemu(DIRECT)?],
            Self::Qemu => vec![qemu(&[])?],
        };
        let started = Instant::now();
        let mut total = Cost::default();
        for stage in stages {
            total = total.then(run_together(stage)?);
        }
        File::open(image)?.sync_all()?;
        Ok(Cost {
            wall: started.elapsed(),
            ..total
        })
    }
}

/// Runs all at once; memory and processor time add up.
pub fn run_together(calls: Vec<Invocation>) -> Result<Cost> {
    let runs: Vec<_> = calls
        .into_iter()
        .map(|call| thread::spawn(move || call.time_limit(TIME_LIMIT).expect_code(0)))
        .collect();
    let mut together = Cost::default();
    for run in runs {
        let run = run.join().map_err(|_| anyhow!("a run panicked"))??;
        together = together.beside(run.cost);
    }
    Ok(together)
}

/// Past the page cache on both sides, sixteen requests at a time, in any order.
const DIRECT: &[&str] = &["-T", "none", "-t", "none", "-W", "-m", "16"];
const TIME_LIMIT: Duration = Duration::from_secs(3600);
