//! Memory that costs the same for everyone.
//!
//! A hypervisor that takes freed memory back makes the next touch of every page a fault of its own, of
//! 10 to 15 µs: who fills the page cache is then measured by the memory that happened to be free, and
//! can take five times as long as a minute before. So no memory is left free: what is, is filled with
//! pages of a file that nobody needs, as it is with something on every machine that has been up for a
//! while, and a run gets its pages from there. Nothing else leaves the page cache for it: the programs
//! that are measured stay there.

use std::fs::{self, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result};

/// Fills what is free with pages of a sparse file in `folder`, which is made when there is none. What
/// this process has needed so far is forgotten: a program that is started shares the memory of its parent
/// until it executes, and the parent's peak counts as its own.
pub fn fill(folder: &Path) -> Result<()> {
    let path = folder.join("filler");
    let options = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(&path);
    let mut filler = options.with_context(|| format!("can't make {}", path.display()))?;
    let filled = filler.metadata()?.len();
    let length = free()?.saturating_sub(LEFT_FREE);
    filler.set_len(filled + length)?;
    filler.seek(SeekFrom::Start(filled))?;
    let mut pages = BufReader::with_capacity(BUFFER, filler.take(length));
    io::copy(&mut pages, &mut io::sink())
        .with_context(|| format!("can't read {}", path.display()))?;
    forget_peak()
}

/// Gives back what this process has no use for, and makes what it still has its peak.
fn forget_peak() -> Result<()> {
    // SAFETY: it touches nothing but what the allocator holds as free.
    #[expect(unsafe_code, reason = "the allocator has no safe interface for this")]
    unsafe {
        libc::malloc_trim(0);
    }
    let path = "/proc/self/clear_refs";
    fs::write(path, "5").with_context(|| format!("can't reset the peak memory by {path}"))
}

/// Bytes that nobody uses.
fn free() -> Result<u64> {
    let table = fs::read_to_string("/proc/meminfo")?;
    let line = table.lines().find(|line| line.starts_with("MemFree:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().nth(1));
    let kibibytes: u64 = kibibytes.context("no MemFree")?.parse()?;
    Ok(kibibytes * 1024)
}

/// What the programs that are measured need for themselves, and more.
const LEFT_FREE: u64 = 512 << 20;
const BUFFER: usize = 1 << 20;
