//! "I look into a registry hive, and change it, without a Windows": checked by hivex and reglookup.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use anyhow::{Result, ensure};
use ce_regf::{FileTime, Hive, SecurityDescriptor, Version};
use ce_tests::agent::ce_agent;
use ce_tests::tool::{HIVEXGET, REGLOOKUP, text};
use tempfile::TempDir;

const EDITS: &str = r#"Windows Registry Editor Version 5.00

[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services\stornvme]
"Start"=dword:00000000
"ImagePath"=hex(2):53,00,79,00,73,00,00,00
"Group"="SCSI miniport"

[HKEY_LOCAL_MACHINE\SYSTEM\Select]
"Current"=dword:00000001
"#;

const PREFIX: &str = r"HKEY_LOCAL_MACHINE\SYSTEM";

#[test]
fn what_is_imported_is_there_for_every_reader() -> Result<()> {
    let desk = Desk::new()?;
    let run = desk.import(EDITS)?.expect_code(0)?;
    assert_eq!(
        run.stdout,
        "2 keys created, 0 deleted; 4 values set, 0 deleted\n"
    );

    let key = r"\ControlSet001\Services\stornvme";
    let group = HIVEXGET.run([text(&desk.hive)?, key, "Group"])?;
    assert_eq!(String::from_utf8(group.stdout)?.trim(), "SCSI miniport");
    let listed = REGLOOKUP.run(["-p", "/ControlSet001", text(&desk.hive)?])?;
    let listed = String::from_utf8(listed.stdout)?;
    ensure!(
        listed.contains("/ControlSet001/Services/stornvme/Start,DWORD,0x00000000"),
        "{listed}"
    );

    ce_agent(["hive", "check", text(&desk.hive)?])?.expect_code(0)?;
    let exported = ce_agent(["hive", "export", text(&desk.hive)?, key, "--prefix", PREFIX])?;
    let exported = exported.expect_code(0)?.stdout;
    let expected: String = EDITS
        .split("\n\n")
        .take(2)
        .collect::<Vec<_>>()
        .join("\r\n\r\n");
    assert_eq!(sorted(&exported), sorted(&expected));
    Ok(())
}

#[test]
fn importing_what_is_so_already_changes_no_byte() -> Result<()> {
    let desk = Desk::new()?;
    desk.import(EDITS)?.expect_code(0)?;
    let before = fs::read(&desk.hive)?;
    for edits in [EDITS, "Windows Registry Editor Version 5.00\n"] {
        desk.import(edits)?.expect_code(0)?;
        ensure!(fs::read(&desk.hive)? == before, "the hive changed");
    }
    Ok(())
}

#[test]
fn with_out_the_hive_itself_stays_as_it_was() -> Result<()> {
    let desk = Desk::new()?;
    let before = fs::read(&desk.hive)?;
    let out = desk.folder.path().join("NEW");
    desk.import(EDITS)?
        .with(["--out", text(&out)?])
        .expect_code(0)?;
    ensure!(fs::read(&desk.hive)? == before);
    ensure!(fs::read(&out)? != before);
    // And nothing that is there is replaced.
    let run = desk
        .import(EDITS)?
        .with(["--out", text(&out)?, "--json"])
        .expect_code(1)?;
    ensure!(run.stdout.contains("OutputExists"), "{}", run.stdout);
    Ok(())
}

#[test]
fn a_dirty_hive_without_its_logs_is_shown_but_not_changed() -> Result<()> {
    let desk = Desk::new()?;
    desk.import(EDITS)?.expect_code(0)?;
    let mut bytes = fs::read(&desk.hive)?;
    // The second sequence number stays behind while Windows writes.
    bytes[8] ^= 0xFF;
    let sum = bytes[..508].chunks(4).fold(0, |sum, word| {
        sum ^ u32::from_le_bytes([word[0], word[1], word[2], word[3]])
    });
    bytes[508..512].copy_from_slice(&sum.to_le_bytes());
    fs::write(&desk.hive, &bytes)?;

    let run = ce_agent(["hive", "export", text(&desk.hive)?])?.expect_code(0)?;
    ensure!(
        run.stderr.contains("not closed by Windows"),
        "{}",
        run.stderr
    );
    ensure!(run.stdout.contains("stornvme"));
    let run = desk.import(EDITS)?.with(["--json"]).expect_code(1)?;
    ensure!(run.stdout.contains("HiveUnrecoverable"), "{}", run.stdout);
    ensure!(fs::read(&desk.hive)? == bytes, "a refused hive was changed");
    Ok(())
}

#[test]
fn the_replaced_hive_keeps_its_permissions_and_a_link_is_not_replaced() -> Result<()> {
    let desk = Desk::new()?;
    fs::set_permissions(&desk.hive, fs::Permissions::from_mode(0o640))?;
    desk.import(EDITS)?.expect_code(0)?;
    assert_eq!(
        fs::metadata(&desk.hive)?.permissions().mode() & 0o777,
        0o640
    );

    let link = desk.folder.path().join("LINK");
    symlink(&desk.hive, &link)?;
    let more = EDITS.replace("stornvme", "vioscsi");
    fs::write(&desk.edits, more)?;
    let run = ce_agent([
        "hive",
        "import",
        text(&link)?,
        text(&desk.edits)?,
        "--prefix",
        PREFIX,
    ])?;
    let run = run.expect_code(2)?;
    ensure!(run.stderr.contains("is a link"), "{}", run.stderr);
    Ok(())
}

#[test]
fn what_is_wrong_is_told_with_its_place() -> Result<()> {
    let desk = Desk::new()?;
    let run = desk.import("Windows Registry Editor Version 5.00\n\n[A]\n\"v\"=dword:xyz\n")?;
    let run = run.expect_code(2)?;
    ensure!(run.stderr.contains("line 3"), "{}", run.stderr);

    let run = ce_agent(["hive", "export", text(&desk.hive)?, r"No\Such"])?.expect_code(2)?;
    ensure!(run.stderr.contains(r#"no key "No\Such""#), "{}", run.stderr);

    let mut bytes = fs::read(&desk.hive)?;
    // The root key's cell says that it reaches behind its bin.
    bytes[4096 + 32..][..4].copy_from_slice(&(-0x7000_i32).to_le_bytes());
    fs::write(&desk.hive, bytes)?;
    let run = ce_agent(["hive", "check", text(&desk.hive)?])?.expect_code(1)?;
    ensure!(
        run.stdout.contains("0x1020") && run.stdout.contains("NOT sound"),
        "{}",
        run.stdout
    );
    Ok(())
}

/// A folder with an empty hive.
struct Desk {
    hive: PathBuf,
    edits: PathBuf,
    folder: TempDir,
}

impl Desk {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (hive, edits) = (
            folder.path().join("SYSTEM"),
            folder.path().join("edits.reg"),
        );
        let now = FileTime::from_ticks(133_000_000_000_000_000);
        let rights = SecurityDescriptor::for_administrators();
        let mut empty = Hive::new_empty(Version::V1_5, &rights, now)?;
        fs::write(&hive, empty.save(now)?.bytes)?;
        Ok(Self {
            hive,
            edits,
            folder,
        })
    }

    fn import(&self, edits: &str) -> Result<ce_tests::agent::Invocation> {
        fs::write(&self.edits, edits)?;
        ce_agent([
            "hive",
            "import",
            text(&self.hive)?,
            text(&self.edits)?,
            "--prefix",
            PREFIX,
        ])
    }
}

/// The lines of a text, whatever their order and line ends.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text
        .lines()
        .map(str::trim_end)
        .filter(|line| !line.is_empty())
        .collect();
    lines.sort_unstable();
    lines
}
