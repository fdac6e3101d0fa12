//! What the machine itself allows: no export can be faster than the slowest of these.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use ce_tests::disk::{Disk, data_stretches};
use ce_tests::pattern::{MIB, Noise};
use serde_json::Value;

/// The times of one round for one disk.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// MD5 of as many bytes as the disk has, on one core.
    pub md5: Duration,
    /// Reading what is not a hole, in order, 4 MiB at a time, past the page cache.
    pub read: Duration,
    /// Writing as many bytes as are not zero, in the same way, until they are on the disk.
    pub write: Duration,
    /// Both at the same time: what a source and an image cost that share a device.
    pub copy: Duration,
}

impl Limits {
    /// Measures reading and writing; `md5_rate` is what [`md5_rate`] said in the same round.
    pub fn measure(disk: &Disk, folder: &Path, md5_rate: f64) -> Result<Self> {
        let mut payload = 0;
        let read = read_directly(disk, |chunk| payload += bytes_in_use(chunk))?;
        let write = write_directly(folder, payload)?;
        let started = Instant::now();
        thread::scope(|scope| {
            let reader = scope.spawn(|| read_directly(disk, |_| ()));
            write_directly(folder, payload)?;
            reader.join().map_err(|_| anyhow!("the reader panicked"))?
        })?;
        Ok(Self {
            md5: Duration::from_secs_f64(disk.size as f64 / md5_rate),
            read,
            write,
            copy: started.elapsed(),
        })
    }

    /// The least time that an export can take.
    pub fn export(&self, hashed: bool) -> Duration {
        let copying = self.read.max(self.write);
        if hashed {
            copying.max(self.md5)
        } else {
            copying
        }
    }
}

/// Bytes that one core digests in a second, as the `md5_speed` example of ce-disk measures it.
pub fn md5_rate() -> Result<f64> {
    let example = std::env::current_exe()?
        .with_file_name("examples")
        .join("md5_speed");
    let output = Command::new(&example)
        .arg("--json")
        .output()
        .with_context(|| format!("can't start {}; `make bench` builds it", example.display()))?;
    let report: Value = serde_json::from_slice(&output.stdout).context("what md5_speed wrote")?;
    let rate = report["md5LimitMbPerS"].as_f64().filter(|rate| *rate > 0.0);
    Ok(rate.with_context(|| format!("no md5LimitMbPerS in {report}"))? * 1e6)
}

/// Returns the time for reading alone, without what is done with `each` chunk.
fn read_directly(disk: &Disk, mut each: impl FnMut(&[u8])) -> Result<Duration> {
    let stretches = data_stretches(&File::open(&disk.path)?)?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(O_DIRECT)
        .open(&disk.path)?;
    let mut buffer = Aligned::new();
    let mut time = Duration::ZERO;
    for (start, end) in stretches {
        for position in (start..end).step_by(CHUNK as usize) {
            let length = CHUNK.min(end - position) as usize;
            let started = Instant::now();
            let read = file.read_at(&mut buffer.bytes()[..length], position)?;
            time += started.elapsed();
            ensure!(
                read == length,
                "read {read} of {length} bytes at {position}"
            );
            each(&buffer.bytes()[..length]);
        }
    }
    Ok(time)
}

/// How many bytes are in blocks that are not all zero.
fn bytes_in_use(chunk: &[u8]) -> u64 {
    chunk
        .chunks(4096)
        .filter(|block| block.iter().any(|byte| *byte != 0))
        .map(|block| block.len() as u64)
        .sum()
}

/// Writes `length` bytes to a file in `folder`, until they are on the disk, and removes it.
pub fn write_directly(folder: &Path, length: u64) -> Result<Duration> {
    let path = folder.join("write-limit");
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .custom_flags(O_DIRECT)
        .open(&path)?;
    let mut buffer = Aligned::new();
    Noise::new(99).fill(0, buffer.bytes());
    let started = Instant::now();
    for position in (0..length).step_by(CHUNK as usize) {
        file.write_all_at(
            &buffer.bytes()[..CHUNK.min(length - position) as usize],
            position,
        )?;
    }
    file.sync_data()?;
    let time = started.elapsed();
    fs::remove_file(path)?;
    Ok(time)
}

/// A chunk that begins on a page, as direct I/O demands.
struct Aligned {
    memory: Vec<u8>,
    start: usize,
}

impl Aligned {
    fn new() -> Self {
        let memory = vec![0; (CHUNK + PAGE) as usize];
        let start = memory.as_ptr().align_offset(PAGE as usize);
        Self { memory, start }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..][..CHUNK as usize]
    }
}

const CHUNK: u64 = 4 * MIB;
const PAGE: u64 = 4096;
const O_DIRECT: i32 = rustix::fs::OFlags::DIRECT.bits() as i32;
