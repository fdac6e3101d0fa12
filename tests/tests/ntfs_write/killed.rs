//! The worker is killed, whatever it does at that moment.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ce_disk::block::BlockRead;
use ce_disk::cancel::Cancel;
use ce_disk::progress::Progress;
use ce_disk::volume::ntfs::write::{Applied, NtfsWrite, NtfsWriteError, VolumeEdit, WorkerError};
use rustix::process::{Pid, Signal, kill_process};

use super::confined::children_of;
use super::model::Model;
use super::volume::{
    USUAL, Volume, all_agree, begin, bytes_of, create_folder, delete, memory, noise, write_file,
    writer,
};

/// A disk in a file and the folder for what is on its way to it.
struct Desk {
    volume: Volume,
    disk: PathBuf,
    scratch: PathBuf,
}

impl Desk {
    fn new() -> Result<Self> {
        let volume = Volume::new(16, USUAL)?;
        let (disk, scratch) = (
            volume.folder.path().join("disk"),
            volume.folder.path().join("scratch"),
        );
        fs::write(&disk, bytes_of(&volume.base)?)?;
        Ok(Self {
            volume,
            disk,
            scratch,
        })
    }

    /// Applies the edits with a worker that is killed so long after it was started, if it is still
    /// there.
    fn apply_and_kill(&self, after: Duration) -> Result<Result<Applied, NtfsWriteError>> {
        let transaction = begin(&self.disk, &self.scratch)?;
        let thread = rustix::thread::gettid();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let killer = scope.spawn(|| kill_child_of(thread, after, &over));
            let applied = writer(transaction.disk()).apply(&edits());
            over.store(true, Ordering::Relaxed);
            killer.join().expect("no panic")?;
            Ok(applied)
        })
    }

    /// What this process has open of the disk and the scratch folder, and what lies there.
    fn left_behind(&self) -> Result<BTreeSet<String>> {
        let mut left = BTreeSet::new();
        for entry in fs::read_dir("/proc/self/fd")? {
            // Others open and close files meanwhile.
            if let Ok(path) = fs::read_link(entry?.path())
                && path.starts_with(self.volume.folder.path())
            {
                left.insert(format!("open: {}", path.display()));
            }
        }
        for entry in fs::read_dir(&self.scratch)? {
            left.insert(format!("{}", entry?.path().display()));
        }
        left.remove(&self.scratch.join("lock").display().to_string());
        Ok(left)
    }
}

/// Kills the first process that `thread` starts, so long after it is there.
fn kill_child_of(thread: Pid, after: Duration, over: &AtomicBool) -> Result<()> {
    let task = Path::new("/proc/self/task").join(thread.as_raw_nonzero().to_string());
    while !over.load(Ordering::Relaxed) {
        let Some(child) = children_of(&task)?.pop() else {
            continue;
        };
        sleep(after);
        // It may have ended by itself, and its number may be that of somebody else.
        if children_of(&task)?.contains(&child) {
            let child = Pid::from_raw(child).context("not 0")?;
            kill_process(child, Signal::KILL)?;
        }
        break;
    }
    Ok(())
}

fn edits() -> Vec<VolumeEdit> {
    let mut edits = vec![create_folder(r"Windows\System32\config")];
    for number in 0..30 {
        let name = format!(r"Windows\System32\a driver of some length {number}.sys");
        edits.push(write_file(&name, &noise(40_000, number)));
    }
    edits.push(write_file(
        r"Windows\System32\config\SYSTEM",
        &noise(2_000_000, 99),
    ));
    edits.push(write_file(r"Windows\gone", &noise(10_000, 98)));
    edits.push(delete(r"Windows\gone"));
    edits
}

fn model() -> Model {
    let mut model: Model = ["Windows", r"Windows\System32", r"Windows\System32\config"]
        .map(|folder| (folder.to_owned(), None))
        .into();
    for number in 0..30 {
        let name = format!(r"Windows\System32\a driver of some length {number}.sys");
        model.insert(name, Some(noise(40_000, number)));
    }
    let system = r"Windows\System32\config\SYSTEM".to_owned();
    model.insert(system, Some(noise(2_000_000, 99)));
    model
}

#[test]
fn a_worker_that_is_killed_at_any_moment_leaves_an_error_and_nothing_else() -> Result<()> {
    let desk = Desk::new()?;
    let before = fs::read(&desk.disk)?;
    let seen = fs::metadata(&desk.disk)?.modified()?;
    let started = Instant::now();
    let transaction = begin(&desk.disk, &desk.scratch)?;
    writer(transaction.disk()).apply(&edits())?;
    drop(transaction);
    let usual = started.elapsed();
    let kills = match ce_tests::is_long() {
        true => 1000,
        false => 60,
    };
    let mut killed_while = BTreeSet::new();
    for kill in 0..kills {
        let after = usual.mul_f64(f64::from(kill) / f64::from(kills));
        match desk.apply_and_kill(after)? {
            // It was faster this time.
            Ok(applied) => assert_eq!(applied.outcomes.len(), edits().len()),
            Err(error) => {
                let NtfsWriteError::Worker {
                    ref during,
                    source: WorkerError::Ended { .. },
                } = error
                else {
                    panic!("after {after:?}: {error:?}");
                };
                killed_while.insert(during.clone());
                let text = format!("{:#}", anyhow::Error::new(error));
                ensure!(text.contains("signal: 9 (SIGKILL)"), "{text}");
            }
        }
        ensure!(fs::read(&desk.disk)? == before, "after {after:?}");
        ensure!(fs::metadata(&desk.disk)?.modified()? == seen);
        let left = desk.left_behind()?;
        ensure!(left.is_empty(), "after {after:?}: {left:?}");
        let children = children_of(Path::new("/proc/thread-self"))?;
        ensure!(children.is_empty(), "after {after:?}: {children:?}");
    }
    // While it starts, while it works on this and that.
    ensure!(killed_while.len() >= 3, "{killed_while:?}");

    let transaction = begin(&desk.disk, &desk.scratch)?;
    writer(transaction.disk()).apply(&edits())?;
    transaction.commit(&Cancel::default(), &Progress::default())?;
    let after = memory(&fs::read(&desk.disk)?, desk.volume.base.sectors());
    all_agree(&desk.volume, &after, &model())?;
    Ok(())
}
