//! What was measured on.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use ce_tests::tool::{QEMU_IMG, text};

/// One line each: processor, memory, kernel, file system, versions, date, load.
pub fn describe(folder: &Path) -> Result<Vec<String>> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let field = |name: &str| {
        cpuinfo
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim() == name)
            .map_or("?", |(_, value)| value.trim())
            .to_owned()
    };
    let cores = std::thread::available_parallelism()?;
    let memory = fs::read_to_string("/proc/meminfo")?;
    let memory = memory
        .lines()
        .next()
        .unwrap_or_default()
        .replace("MemTotal:", "");
    let qemu = QEMU_IMG.run(["--version"])?;
    let qemu = String::from_utf8_lossy(&qemu.stdout);
    Ok(vec![
        format!(
            "processor: {} (family {}, model {}), {cores} cores",
            field("model name"),
            field("cpu family"),
            field("model")
        ),
        format!("memory: {}", memory.trim()),
        format!("kernel: {}", first_line("uname", &["-sr"])?),
        format!("file system: {}", mount_of(folder)?),
        format!("qemu: {}", qemu.lines().next().unwrap_or("?")),
        format!("date: {}", first_line("date", &["--utc", "+%Y-%m-%d"])?),
        format!(
            "load at the end: {}",
            fs::read_to_string("/proc/loadavg")?.trim()
        ),
    ])
}

/// Device, type and, where the kernel tells, model of what holds the folder.
fn mount_of(folder: &Path) -> Result<String> {
    let folder = text(folder)?;
    let table = output("df", &["--output=source,fstype", folder])?;
    let row = table
        .lines()
        .nth(1)
        .context("df says nothing of the folder")?;
    let words: Vec<&str> = row.split_whitespace().collect();
    let device = words
        .first()
        .copied()
        .unwrap_or("?")
        .trim_start_matches("/dev/");
    let model = fs::read_to_string(format!("/sys/class/block/{device}/device/model"));
    let model = model
        .map(|model| format!(", {}", model.trim()))
        .unwrap_or_default();
    Ok(format!("{}{model}", words.join(" ")))
}

fn first_line(program: &str, arguments: &[&str]) -> Result<String> {
    Ok(output(program, arguments)?
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned())
}

fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("can't start {program}"))?;
    Ok(String::from_utf8(output.stdout)?)
}
