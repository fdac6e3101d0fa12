//! Puts a folder of this machine onto an NTFS volume of a disk, all of it or nothing: the way of
//! what a prepare writes.
//!
//! `commit-folder DISK PARTITION FOLDER SCRATCH` says `committing` when everything is written to the
//! overlay and read back, and at the end, in JSON, what it took. Tests kill it in between.

use std::fs::{self, File};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use ce_disk::block::{OpenOptions, Window, open_writable};
use ce_disk::cancel::Cancel;
use ce_disk::partition::PartitionTable;
use ce_disk::progress::Progress;
use ce_disk::scratch::ScratchFolder;
use ce_disk::transaction::Transaction;
use ce_disk::volume::WinPath;
use ce_disk::volume::ntfs::write::{
    ConfinedWriter, FileWrite, HostFile, NtfsWrite, Security, ShortNames, VolumeEdit,
    WORKER_ARGUMENT, worker_main,
};
use ce_tests::tool::text;
use serde_json::json;

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [WORKER_ARGUMENT] => return Ok(worker_main()),
        [disk, partition, folder, scratch] => commit(
            Path::new(disk),
            partition.parse()?,
            Path::new(folder),
            Path::new(scratch),
        )?,
        _ => bail!("usage: commit-folder DISK PARTITION FOLDER SCRATCH"),
    }
    Ok(ExitCode::SUCCESS)
}

fn commit(disk: &Path, partition: u32, folder: &Path, scratch: &Path) -> Result<()> {
    let mut edits = Vec::new();
    add_edits(folder, &WinPath::ROOT, &mut edits)?;
    let started = Instant::now();
    let disk = open_writable(disk, &OpenOptions::default())?;
    let table = PartitionTable::read(&disk)?;
    let mut partitions = table.partitions.iter();
    let place = partitions.find(|found| found.number == partition);
    let place = place.with_context(|| format!("no partition {partition}: {table:?}"))?;
    let scratch = Arc::new(ScratchFolder::open(scratch)?);
    let transaction = Transaction::begin(disk, scratch, None)?;
    let name = format!("partition {partition}");
    let volume = Window::new(transaction.disk(), place.start, place.length, name)?;
    let applied = ConfinedWriter::new(volume, ShortNames::Create).apply(&edits)?;
    let seconds_until_commit = started.elapsed().as_secs_f64();
    println!("committing");
    let committed = transaction.commit(&Cancel::default(), &Progress::default())?;
    let cost = json!({
        "edits": edits.len(),
        "writtenBytes": applied.written.0,
        "committedBytes": committed.changed.0,
        "secondsUntilCommit": seconds_until_commit,
        "peakMemory": own_peak_memory()?,
        "workerPeakMemory": peak_memory_of_children(),
    });
    println!("{cost}");
    Ok(())
}

/// One edit for everything in `folder`, folders before what is in them.
fn add_edits(folder: &Path, to: &WinPath, edits: &mut Vec<VolumeEdit>) -> Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = to.join(text(Path::new(&entry.file_name()))?)?;
        if entry.file_type()?.is_dir() {
            let security = Security::Inherit;
            edits.push(VolumeEdit::CreateFolder {
                path: path.clone(),
                security,
            });
            add_edits(&entry.path(), &path, edits)?;
        } else {
            edits.push(VolumeEdit::WriteFile(FileWrite {
                path,
                content: Arc::new(HostFile::new(File::open(entry.path())?)?),
                attributes: None,
                times: None,
                security: Security::Inherit,
            }));
        }
    }
    Ok(())
}

/// In bytes. Unlike what `getrusage` says, nothing of the process that started this one.
fn own_peak_memory() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next());
    let kibibytes: u64 = kibibytes.context("no VmHWM")?.parse()?;
    Ok(kibibytes * 1024)
}

/// In bytes: that of the largest, and never less than what this process had when it started it.
fn peak_memory_of_children() -> u64 {
    // SAFETY: the structure is plain numbers, for which zeros are a value, and is written whole.
    #[expect(unsafe_code, reason = "getrusage has no safe wrapper here")]
    let kibibytes = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage);
        usage.ru_maxrss
    };
    kibibytes as u64 * 1024
}
