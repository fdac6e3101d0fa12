//! How much memory a program and those that it starts take, seen while they run.
//!
//! [`Cost::peak_memory`](crate::agent::Cost::peak_memory) is what the kernel counts for a process, and begins
//! with what the process that started it had: a test that has disks in memory learns of itself by it. What
//! `/proc` says is of the program alone, and ends with it, so that it is asked again and again: what is taken
//! only in the last milliseconds is missed.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::agent::{Finished, Running};

/// The largest resident sets, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peak {
    /// Of the program itself.
    pub own: u64,
    /// Of the processes that it had started, as many as there were at a time.
    pub children: u64,
}

/// Waits for the end of a program as [`Running::finish`] does, and looks at it meanwhile.
pub fn watched(running: Running) -> Result<(Finished, Peak)> {
    let id = running.id();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peak = Peak::default();
            while !is_over.load(Ordering::Relaxed) {
                peak.own = peak.own.max(peak_of(id));
                peak.children = peak.children.max(children_peak(id));
                thread::sleep(INTERVAL);
            }
            peak
        });
        let run = running.finish();
        is_over.store(true, Ordering::Relaxed);
        let peak = watch.join().map_err(|_| anyhow!("the watch panicked"))?;
        Ok((run?, peak))
    })
}

/// The largest resident sets of a process's children so far. One that has just ended has none.
fn children_peak(process: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{process}/task"));
    let mut peak = 0;
    for thread in threads.into_iter().flatten().flatten() {
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        let children = children.split_whitespace();
        peak += children
            .filter_map(|child| Some(peak_of(child.parse().ok()?)))
            .sum::<u64>();
    }
    peak
}

fn peak_of(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kibibytes.unwrap_or(0_u64) * 1024
}

const INTERVAL: Duration = Duration::from_millis(5);
