//! Memory that costs the same for everyone.
//!
//! A hypervisor that takes freed memory back makes the next touch of every page a fault of its own, of
//! 10 to 15 µs: who fills the page cache is then measured by the memory that happened to be free, and
//! can take five times as long as a minute before. So no memory is left free: the page cache is full of
//! a file that nobody needs, as it is of something on every machine that has been up for a while, and
//! a run gets its pages from there.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::Path;

use anyhow::{Context, Result};

/// Fills the page cache with a sparse file in `folder`, which is made when there is none.
pub fn fill(folder: &Path) -> Result<()> {
    let path = folder.join("filler");
    if !path.exists() {
        let length = available()?.saturating_sub(LEFT_FREE).min(MOST);
        File::create(&path)?.set_len(length)?;
    }
    let mut filler = BufReader::with_capacity(BUFFER, File::open(&path)?);
    io::copy(&mut filler, &mut io::sink())
        .with_context(|| format!("can't read {}", path.display()))?;
    Ok(())
}

/// Bytes that programs can still be given, as the kernel estimates it.
fn available() -> Result<u64> {
    let table = fs::read_to_string("/proc/meminfo")?;
    let line = table.lines().find(|line| line.starts_with("MemAvailable:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().nth(1));
    let kibibytes: u64 = kibibytes.context("no MemAvailable")?.parse()?;
    Ok(kibibytes * 1024)
}

/// What the programs that are measured need for themselves, and more.
const LEFT_FREE: u64 = 512 << 20;
/// Far more than any run caches; what is more takes minutes to fill.
const MOST: u64 = 64 << 30;
const BUFFER: usize = 1 << 20;
