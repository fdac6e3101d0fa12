//! How long an export takes, beside the tools people use for it and beside what the machine can do.
//!
//! ```text
//!  disks        dense, half zero, mostly holes
//!  limits       MD5 on one core, reading past the page cache, writing past the page cache
//!  contenders   ce-agent with and without --hash; qemu-img; qemu-img and md5sum, one after the
//!               other and side by side
//!  shares       ce-agent to an SMB share; smbclient and a plain copy of the same bytes
//!  hive         a thousand changes to a large hive; hivexsh with the same changes
//!  Windows      what a prepare writes to a volume of 200,000 files; the same by a mounted ntfs-3g.
//!               ce-agent inspect of that disk; sleuthkit and hivex
//!  prepare      ce-agent prepare of that disk, with and without its hash; ce-agent hash alone
//!  publish      ce-agent prepare-and-publish of that disk; ce-agent export alone
//!  convert      ce-agent convert-to-uefi of that disk, laid out as a BIOS starts it
//! ```
//!
//! Rounds are interleaved: every contender and every limit runs once before any runs again, so a
//! slow minute of the machine slows all. Before each run source and image leave the page cache, and
//! what they leave free is [filled](memory). A run has ended when its image is on the disk.

mod contenders;
mod convert;
#[path = "../../../../platform-drivers/tests/prepare/guest.rs"]
#[expect(dead_code, reason = "it is shared with tests in memory")]
mod guest;
mod hive;
mod limits;
mod machine;
mod memory;
mod prepare;
mod publish;
mod report;
mod share;
mod windows;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ce_tests::agent::{Cost, ce_agent, drop_from_page_cache};
use ce_tests::disk::{Disk, DiskBuilder};
use ce_tests::pattern::{GIB, MIB, Pattern, TIB};
use ce_tests::tool::text;
use clap::{Parser, ValueEnum};

use contenders::Contender;
use convert::BiosGuest;
use hive::LargeHive;
use limits::Limits;
use prepare::LargeGuest;
use publish::StreamedGuest;
use report::{DiskResult, Report};
use share::Share;
use windows::LargeWindows;

/// Compare exports with ce-agent, qemu-img and md5sum.
#[derive(Parser)]
struct Arguments {
    /// Where disks and images are made; needs about 17 GiB. A disk of 2 GiB is kept for next time.
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    /// How often everything is run.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Size of the dense and of the half zero disk in MiB; the one of mostly holes is twice that.
    #[arg(long, default_value_t = 2560)]
    size: u64,
    /// Only this, may be repeated.
    #[arg(long, value_enum, conflicts_with = "write")]
    only: Vec<Part>,
    /// Also write the report to this file.
    #[arg(long)]
    write: Option<PathBuf>,
}

/// What can be left out.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Part {
    /// Exports of the three disks, and the limits of the machine.
    Exports,
    /// Exports of the dense disk to shares.
    Shares,
    /// The large hive.
    Hive,
    /// A look at the large Windows disk, and what is written to it.
    Windows,
    /// The large Windows disk prepared.
    Prepare,
    /// The large Windows disk prepared and published.
    Publish,
    /// The large Windows disk brought from BIOS to UEFI.
    Convert,
    /// Very large sparse disks.
    Sparse,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(
        arguments.rounds > 0 && arguments.size > 0,
        "nothing to measure"
    );
    let measured = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    fs::create_dir_all(&arguments.dir)?;
    let folder = tempfile::tempdir_in(&arguments.dir)?;
    let mut disks = Vec::new();
    for (name, pattern, size, needed) in [
        (
            "dense",
            Pattern::Dense,
            arguments.size * MIB,
            measured(Part::Exports) || measured(Part::Shares),
        ),
        (
            "half zero",
            Pattern::HalfZero,
            arguments.size * MIB,
            measured(Part::Exports),
        ),
        (
            "mostly holes",
            Pattern::MostlyHoles,
            2 * arguments.size * MIB,
            measured(Part::Exports),
        ),
    ] {
        if !needed {
            continue;
        }
        eprintln!("making the {name} disk");
        let path = folder
            .path()
            .join(format!("{}.raw", name.replace(' ', "-")));
        let disk = DiskBuilder::filled(size, pattern, 1).build(path)?;
        drop_from_page_cache(&disk.path)?;
        disks.push((name, disk, DiskResult::new(name, size)));
    }

    let image = folder.path().join("dense.vhdx");
    let mut shares = Vec::new();
    if measured(Part::Shares) {
        // What an export of the dense disk writes, for the others to copy.
        ce_agent(["export", text(&disks[0].1.path)?, "--to", text(&image)?])?.expect_code(0)?;
        let both = Share::both(folder.path())?;
        shares.extend(both.into_iter().map(|share| (share, Vec::new())));
    }
    let mut hive = match measured(Part::Hive) {
        true => Some((LargeHive::make(folder.path())?, Vec::new())),
        false => None,
    };
    let mut windows = match measured(Part::Windows) {
        true => {
            let windows = LargeWindows::make(&arguments.dir, folder.path())?;
            Some((windows, Vec::new()))
        }
        false => None,
    };
    let mut prepared = match measured(Part::Prepare) {
        true => {
            let guest = LargeGuest::make(&arguments.dir, folder.path())?;
            Some((guest, Vec::new()))
        }
        false => None,
    };
    let mut published = match measured(Part::Publish) {
        true => {
            let guest = StreamedGuest::make(&arguments.dir, folder.path())?;
            Some((guest, Vec::new()))
        }
        false => None,
    };
    let mut converted = match measured(Part::Convert) {
        true => {
            let guest = BiosGuest::make(&arguments.dir, folder.path())?;
            Some((guest, Vec::new()))
        }
        false => None,
    };

    for round in 1..=arguments.rounds {
        let tell = |what: &str| eprintln!("round {round} of {}: {what}", arguments.rounds);
        if let Some((hive, rounds)) = &mut hive {
            tell("hive");
            rounds.push(hive.round()?);
        }
        if let Some((windows, rounds)) = &mut windows {
            tell("Windows");
            rounds.push(windows.round()?);
        }
        if let Some((guest, rounds)) = &mut prepared {
            tell("prepare");
            rounds.push(guest.round()?);
        }
        if let Some((guest, rounds)) = &mut published {
            tell("publish");
            rounds.push(guest.round()?);
        }
        if let Some((guest, rounds)) = &mut converted {
            tell("convert");
            rounds.push(guest.round()?);
        }
        if disks.is_empty() {
            continue;
        }
        let md5_rate = limits::md5_rate()?;
        let dense = &disks[0].1;
        for (share, rounds) in &mut shares {
            tell(&format!("{} share", share.name));
            rounds.push(share.round(dense, &image, md5_rate)?);
        }
        if !measured(Part::Exports) {
            continue;
        }
        for (name, disk, result) in &mut disks {
            tell(name);
            result
                .limits
                .push(Limits::measure(disk, folder.path(), md5_rate)?);
            export_with_everyone(disk, folder.path(), result)?;
        }
    }
    let mut report = Report::new(machine::describe(folder.path())?, arguments.rounds);
    if measured(Part::Exports) {
        let results = disks.into_iter().map(|(_, _, result)| result);
        report.disks.extend(results);
    }
    let shares = shares.into_iter();
    report.shares = shares.map(|(share, rounds)| (share.name, rounds)).collect();
    if let Some((hive, rounds)) = hive {
        report.hive = Some((hive.size()?, rounds));
    }
    report.windows = windows.map(|(windows, rounds)| (windows.payload_size, rounds));
    report.publish = published.map_or(Vec::new(), |(_, rounds)| rounds);
    report.convert = converted.map_or(Vec::new(), |(_, rounds)| rounds);
    report.prepare = prepared.map(|(guest, rounds)| (guest.hives_size, rounds));
    if measured(Part::Sparse) {
        eprintln!("the large sparse disks");
        report.huge = vec![
            (
                "3 TiB, 1 GiB of data",
                sparse_export(folder.path(), 3 * TIB, GIB)?,
            ),
            (
                "2 TiB, 256 MiB of data",
                sparse_export(folder.path(), 2 * TIB, 256 * MIB)?,
            ),
        ];
    }

    println!("{report}");
    if let Some(path) = arguments.write {
        fs::write(&path, report.to_string())
            .with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}

/// One round on one disk.
fn export_with_everyone(disk: &Disk, folder: &Path, result: &mut DiskResult) -> Result<()> {
    for contender in Contender::ALL {
        let image = folder.join("image.vhdx");
        drop_from_page_cache(&disk.path)?;
        memory::fill(folder)?;
        let cost = contender
            .run(disk, &image)
            .with_context(|| format!("{} on {}", contender.name(), disk.path.display()))?;
        result.add(contender, cost, fs::metadata(&image)?.len());
        fs::remove_file(image)?;
    }
    Ok(())
}

/// An export of a very large disk with little on it, without a hash.
fn sparse_export(folder: &Path, size: u64, data: u64) -> Result<Cost> {
    let stretches = 64;
    let mut disk = DiskBuilder::new(size);
    for number in 0..stretches {
        let offset = number * (size / stretches);
        disk = disk.pattern(Pattern::Dense, number, offset, data / stretches);
    }
    let disk = disk.build(folder.join("huge.raw"))?;
    drop_from_page_cache(&disk.path)?;
    let image = folder.join("huge.vhdx");
    let run = ce_agent(["export", text(&disk.path)?, "--to", text(&image)?])?.expect_code(0)?;
    fs::remove_file(image)?;
    fs::remove_file(disk.path)?;
    Ok(run.cost)
}
