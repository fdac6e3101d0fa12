//! "Before anything is changed I am told everything that stands against it, and what to do."

use std::fs;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use ce_tests::agent::ce_agent;
use ce_tests::disk::FileContent;
use ce_tests::guest::{PhonyWindows, blocker_codes, dirty_hive, hive, inspected, set_sequences};
use ce_tests::oracle;
use ce_tests::pattern::MIB;
use ce_tests::tool::text;

#[test]
fn everything_is_told_at_once_with_one_way_out_each_and_nothing_is_repaired() -> Result<()> {
    let windows = PhonyWindows::new()
        .file("hiberfil.sys", FileContent::Bytes(b"HIBR".repeat(1000)))
        .file("Windows/WinSxS/pending.xml", "<xml/>")
        .software(&format!("[{CBS}\\RebootPending]"))
        .software(&format!(
            "[{CBS}\\SessionsPending]\n\"Exclusive\"=dword:00000001"
        ))
        .software("[Microsoft\\Windows NT\\CurrentVersion]\n\"CurrentBuildNumber\"=\"7601\"");
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk.raw");
    windows.disk(300 * MIB)?.build(&disk)?;
    let before = oracle::md5_of_file(&disk)?;
    let found = inspected(&disk)?;
    ensure!(
        blocker_codes(&found) == ["Hibernated", "UnsupportedWindows", "PendingReboot"],
        "{found}"
    );
    for blocker in found["blockers"].as_array().context("no blockers")? {
        ensure!(
            blocker["wayOut"].as_str().is_some_and(|way| way.len() > 10),
            "{blocker}"
        );
    }
    let pending = found["blockers"][2]["message"]
        .as_str()
        .context("no message")?;
    for said in ["RebootPending", "Exclusive", "pending.xml"] {
        ensure!(pending.contains(said), "{pending}");
    }
    let page = ce_agent(["inspect", text(&disk)?])?.expect_code(0)?.stdout;
    ensure!(
        page.contains("  Hibernated: ") && page.contains("    -> Start Windows"),
        "{page}"
    );
    ensure!(
        oracle::md5_of_file(&disk)? == before,
        "the disk was changed"
    );
    Ok(())
}

#[test]
fn work_that_is_pending_is_found_wherever_it_is_noted() -> Result<()> {
    let manager = r"[ControlSet001\Control\Session Manager]";
    let renames = |from: &str, to: &str| {
        let units = format!("{from}\0{to}\0\0");
        let bytes: Vec<String> = units
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!(
            "{manager}\n\"PendingFileRenameOperations\"=hex(7):{}",
            bytes.join(",")
        )
    };
    let new = PhonyWindows::new;
    for (windows, is_pending) in [
        (new(), false),
        (
            new().software(&format!("[{CBS}\\PackagesPending\\x]")),
            true,
        ),
        (new().software(&format!("[{CBS}\\RebootInProgress]")), true),
        (
            new().software(&format!(
                "[{CBS}\\SessionsPending]\n\"Exclusive\"=dword:00000000"
            )),
            false,
        ),
        (
            new().software(&format!("[{WINDOWS_UPDATE}\\RebootRequired]")),
            true,
        ),
        (
            new().system(&renames(r"\??\C:\a.dll", r"!\??\C:\Windows\b.dll")),
            true,
        ),
        (
            new().system(&renames(r"\??\C:\Windows\System32\drivers\x.sys", "")),
            true,
        ),
        (
            new().system(&renames(r"\??\C:\Windows\Temp\x.tmp", "")),
            false,
        ),
        (
            new().system(&format!("{manager}\n\"SetupExecute\"=hex(7):00,00")),
            false,
        ),
        (
            new().system(&format!(
                "{manager}\n\"SetupExecute\"=hex(7):70,00,00,00,00,00"
            )),
            true,
        ),
    ] {
        let folder = tempfile::tempdir()?;
        let disk = folder.path().join("disk.raw");
        windows.disk(220 * MIB)?.build(&disk)?;
        let found = inspected(&disk)?;
        let expected: &[&str] = if is_pending { &["PendingReboot"] } else { &[] };
        ensure!(
            blocker_codes(&found) == expected,
            "{} for {windows:?}",
            found["blockers"]
        );
    }
    Ok(())
}

#[test]
fn a_hive_that_windows_did_not_close_is_read_and_refused() -> Result<()> {
    let mut system = hive(
        "[Select]\n\"Current\"=dword:00000001\n\
         [ControlSet001\\Control\\ComputerName\\ComputerName]\n\"ComputerName\"=\"DIRTY\"\n",
    )?;
    set_sequences(&mut system, 3, 2);
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk.raw");
    let windows = PhonyWindows::new().file("Windows/System32/config/SYSTEM", system);
    windows.disk(220 * MIB)?.build(&disk)?;
    let found = inspected(&disk)?;
    ensure!(blocker_codes(&found) == ["HiveUnrecoverable"], "{found}");
    ensure!(
        found["windows"][0]["computer"]["name"] == "DIRTY",
        "{found}"
    );
    ensure!(
        found["findings"].to_string().contains("did not close it"),
        "{found}"
    );
    Ok(())
}

#[test]
fn a_dirty_hive_is_replayed_before_reading_and_stays_as_it_is_on_the_disk() -> Result<()> {
    let name = |name: &str| {
        format!(
            "[Select]\n\"Current\"=dword:00000001\n\
             [ControlSet001\\Control\\ComputerName\\ComputerName]\n\"ComputerName\"=\"{name}\"\n"
        )
    };
    let (system, log) = dirty_hive(&name("BEFORE"), &name("BEHIND"))?;
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk.raw");
    let windows = PhonyWindows::new()
        .file("Windows/System32/config/SYSTEM", system)
        .file("Windows/System32/config/SYSTEM.LOG1", log);
    windows.disk(220 * MIB)?.build(&disk)?;
    let before = oracle::md5_of_file(&disk)?;
    let found = inspected(&disk)?;
    ensure!(
        found["windows"][0]["computer"]["name"] == "BEHIND",
        "{found}"
    );
    ensure!(blocker_codes(&found).is_empty(), "{}", found["blockers"]);
    let findings = found["findings"].to_string();
    ensure!(
        findings.contains("in memory brought up to date from .LOG1"),
        "{findings}"
    );
    ensure!(
        oracle::md5_of_file(&disk)? == before,
        "the disk was changed"
    );
    Ok(())
}

#[test]
fn a_full_volume_is_told() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk.raw");
    let windows = PhonyWindows::new().file(
        "pagefile.sys",
        FileContent::Noise {
            length: 40 * MIB,
            seed: 3,
        },
    );
    windows.disk(220 * MIB)?.build(&disk)?;
    let found = inspected(&disk)?;
    ensure!(
        blocker_codes(&found) == ["NoSpaceOnVolume"],
        "{}",
        found["blockers"]
    );
    Ok(())
}

#[test]
fn bitlocker_and_dynamic_disks_are_told_without_a_look_inside() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk.raw");
    let built = PhonyWindows::new().disk(220 * MIB)?.build(&disk)?;
    let file = fs::File::options().write(true).open(&disk)?;
    file.write_all_at(b"\xEB\x58\x90-FVE-FS-", built.partitions[2].offset)?;
    let found = inspected(&disk)?;
    ensure!(
        blocker_codes(&found) == ["BitLocker", "NoWindows"],
        "{}",
        found["blockers"]
    );
    Ok(())
}

const CBS: &str = r"Microsoft\Windows\CurrentVersion\Component Based Servicing";
const WINDOWS_UPDATE: &str = r"Microsoft\Windows\CurrentVersion\WindowsUpdate\Auto Update";
