//! The end: all processes are told, disks are let go, the machine is switched off.

use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use rustix::system::{RebootCommand, reboot};

use crate::console;
use crate::filesystems;
use crate::supervisor::Ending;

/// Switches the machine off, whatever happens.
pub fn off(ending: &Ending) -> ! {
    console::last_words(&format!("power off: {ending}"));
    end_processes();
    for point in filesystems::on_disks() {
        // It was written to the disk before, and would be replayed.
        if let Err(error) = unmount(&*point, UnmountFlags::empty()) {
            console::last_words(&format!("{point} can't be unmounted: {error}"));
        }
    }
    switch_off()
}

/// Called by the hook for panics, in whichever thread: nothing is left that could be done better.
pub fn after_panic(what: &str) {
    console::last_words(&format!("power off: ce-init failed: {what}"));
    switch_off()
}

fn end_processes() {
    // 0 stands for nobody and -1 for everybody in kill(2); rustix knows neither, so they are named.
    for signal in [Signal::TERM, Signal::KILL] {
        for pid in processes() {
            // One that has ended in between is as it should be.
            let _ = kill_process(pid, signal);
        }
        let until = Instant::now() + GRACE;
        // An error says that no child is left.
        while let Ok(ended) = wait(WaitOptions::NOHANG) {
            if Instant::now() >= until {
                break;
            }
            if ended.is_none() {
                sleep(Duration::from_millis(20));
            }
        }
    }
}

/// All processes with a program; threads of the kernel have none.
fn processes() -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| std::fs::read_link(entry.path().join("exe")).is_ok())
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(Pid::from_raw)
        .filter(|pid| *pid != Pid::INIT)
        .collect()
}

fn switch_off() -> ! {
    rustix::fs::sync();
    loop {
        if let Err(error) = reboot(RebootCommand::PowerOff) {
            console::last_words(&format!("the machine can't be switched off: {error}"));
        }
        // Without a way to switch it off the kernel halts, and does not come back here.
        sleep(Duration::from_secs(10));
    }
}

const GRACE: Duration = Duration::from_secs(2);
