//! Memory that costs the same for everyone.
//!
//! A hypervisor that takes freed memory back makes the first touch of every page a fault of its own,
//! of 10 to 15 µs: a program that fills the page cache is then measured by the memory that happened
//! to be free, and can take five times as long as a minute before.
//!
//! What is touched here must not be held against others: a program that is started shares the memory
//! of its parent until it executes, and the parent's peak counts as its own.

use std::fs;

use anyhow::{Context, Result};

/// Touches `bytes` of memory, half of what is available at the most, and frees them again.
pub fn back(bytes: u64) -> Result<()> {
    let length = usize::try_from(bytes.min(available()? / 2))?;
    let mut memory: Vec<u8> = Vec::with_capacity(length);
    for page in memory.spare_capacity_mut().chunks_mut(PAGE) {
        // Not optimised away, as no other access to the page would be.
        std::hint::black_box(page[0].write(1));
    }
    drop(memory);
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

/// Bytes that programs can still be given, as the kernel estimates it.
fn available() -> Result<u64> {
    let table = fs::read_to_string("/proc/meminfo")?;
    let line = table.lines().find(|line| line.starts_with("MemAvailable:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().nth(1));
    let kibibytes: u64 = kibibytes.context("no MemAvailable")?.parse()?;
    Ok(kibibytes * 1024)
}

const PAGE: usize = 4096;
