//! "I export without the free space, and nothing of what was deleted leaves the house."

#[path = "../../disk-ops/tests/share/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest of it")]
mod share;
#[expect(dead_code, reason = "other tests use the rest of it")]
mod smb_desk;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ce_tests::agent::{Invocation, ce_agent};
use ce_tests::disk::{Content, Disk, DiskBuilder, FileContent, Placed, Role, Step, Table};
use ce_tests::guest::PhonyWindows;
use ce_tests::oracle;
use ce_tests::pattern::{GIB, MIB, Noise, Pattern};
use ce_tests::tool::{NTFSCAT, NTFSFIX, QEMU_IMG, text};
use rustix::process::Signal;
use tempfile::TempDir;

use share::Setup;
use smb_desk::failure;

#[test]
fn every_file_is_in_the_image_and_nothing_that_was_deleted() -> Result<()> {
    let desk = Desk::new()?;
    let before = fs::read(&desk.disk.path)?;
    ensure!(holds_secret(&before), "the test deletes nothing");
    let run = desk
        .skip(&desk.image)?
        .with(["--hash", "--verify"])
        .expect_code(0)?;
    let artifacts = &run.job()?["artifacts"];
    ensure!(artifacts["freeSpace"] == "skip", "{artifacts}");
    let skipped = artifacts["skippedBytes"]
        .as_u64()
        .context("no skippedBytes")?;
    ensure!((200 * MIB..400 * MIB).contains(&skipped), "{skipped}");

    let raw = desk.folder.path().join("image.raw");
    QEMU_IMG.run(["convert", "-O", "raw", text(&desk.image)?, text(&raw)?])?;
    let after = fs::read(&raw)?;
    ensure!(!holds_secret(&after), "deleted content is in the image");
    // What a reader of the image sees is what was hashed.
    ensure!(run.md5_hash()? == oracle::md5_of_file(&raw)?);
    ensure!(oracle::libvhdi_digest(&desk.image)?.md5 == run.md5_hash()?);
    // Outside of volumes all is as it was, up to the spare copy of the table.
    let windows = desk.windows();
    let end = (windows.offset + windows.length) as usize;
    ensure!(after[..windows.offset as usize] == before[..windows.offset as usize]);
    ensure!(
        after.len() == before.len()
            && after[after.len() - 17408..] == before[before.len() - 17408..]
    );
    ensure!(
        after[end - 512..end] == before[end - 512..end],
        "the spare boot sector"
    );

    let volume = desk.folder.path().join("volume");
    fs::write(&volume, &after[windows.offset as usize..end])?;
    NTFSFIX.run(["--no-action", text(&volume)?])?;
    for number in 0..KEPT {
        let content = NTFSCAT
            .run([text(&volume)?, &format!("Users/kept-{number}")])?
            .stdout;
        ensure!(content == kept(number), "Users/kept-{number} differs");
    }
    Ok(())
}

#[test]
fn a_second_export_gives_the_same_bytes_whatever_the_free_clusters_hold() -> Result<()> {
    let desk = Desk::new()?;
    desk.skip(&desk.image)?.expect_code(0)?;
    let image = fs::read(&desk.image)?;
    // Of the image itself, in which free clusters are zeros, and of a VHD of it.
    for (format, name) in [("vhdx", "again.vhdx"), ("vhd", "again.vhd")] {
        let again = desk.folder.path().join(name);
        let of_image = ce_agent([
            "export",
            text(&desk.image)?,
            "--to",
            text(&again)?,
            "--json",
        ])?;
        let run = of_image
            .with(["--free-space", "skip", "--format", format])
            .expect_code(0)?;
        ensure!(run.job()?["artifacts"]["skippedBytes"].as_u64() > Some(0));
        let last = desk.folder.path().join("last.vhdx");
        let of_copy = ce_agent(["export", text(&again)?, "--to", text(&last)?, "--json"])?;
        of_copy.with(["--overwrite"]).expect_code(0)?;
        ensure!(fs::read(last)? == image, "by way of {format}");
    }
    desk.skip(&desk.image)?
        .with(["--overwrite", "--hash"])
        .expect_code(0)?;
    ensure!(fs::read(&desk.image)? == image);
    Ok(())
}

#[test]
fn everything_that_stands_against_it_is_told_at_once_and_nothing_is_written() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let hibernated = PhonyWindows::new().file(
        "hiberfil.sys",
        FileContent::Bytes([&b"hibr"[..], &[7; 9000]].concat()),
    );
    let disk = DiskBuilder::new(96 * MIB)
        .table(Table::Gpt)
        .partition(Role::BasicData, 48 * MIB, hibernated.volume()?)
        .partition(
            Role::BasicData,
            20 * MIB,
            Content::Pattern(Pattern::Dense, 3),
        )
        .partition(Role::BasicData, 20 * MIB, ntfs(Vec::new()))
        .build(folder.path().join("disk.raw"))?;
    let file = File::options().write(true).open(&disk.path)?;
    file.write_all_at(&bitlocker_boot_sector(), disk.partitions[1].offset)?;
    // The record of $MFT itself.
    let table = disk.partitions[2].offset + 4 * 4096;
    file.write_all_at(b"FAIL", table)?;
    drop(file);

    let image = folder.path().join("image.vhdx");
    let export = ce_agent(["export", text(&disk.path)?, "--to", text(&image)?])?;
    let run = export
        .with(["--free-space", "skip", "--json"])
        .expect_code(3)?;
    let error = &run.job()?["error"];
    let blockers = error["blockers"].as_array().context("no blockers")?;
    let codes: Vec<_> = blockers
        .iter()
        .filter_map(|found| found["code"].as_str())
        .collect();
    ensure!(codes == ["Hibernated", "BitLocker", "NtfsDirty"], "{error}");
    ensure!(error["code"] == "Hibernated", "{error}");
    for found in blockers {
        let message = found["message"].as_str().context("no message")?;
        ensure!(message.starts_with("partition "), "{message}");
        ensure!(
            error["message"]
                .as_str()
                .is_some_and(|all| all.contains(message))
        );
        ensure!(
            found["wayOut"].as_str().is_some_and(|way| !way.is_empty()),
            "{found}"
        );
    }
    ensure!(
        fs::read_dir(folder.path())?.count() == 1,
        "something was written"
    );
    // With its free space it is exported as ever.
    let export = ce_agent(["export", text(&disk.path)?, "--to", text(&image)?])?;
    export.with(["--json"]).expect_code(0)?;
    Ok(())
}

#[test]
fn shadow_copies_and_disks_without_ntfs_are_warned_of() -> Result<()> {
    let desk = Desk::new()?;
    let mut header = [0_u8; 64];
    header[..16].copy_from_slice(&[
        0x6b, 0x87, 0x08, 0x38, 0x76, 0xc1, 0x48, 0x4e, 0xb7, 0xae, 0x04, 0x04, 0x6e, 0x6c, 0xc7,
        0x52,
    ]);
    header[48..56].copy_from_slice(&0x4000_u64.to_le_bytes());
    let file = File::options().write(true).open(&desk.disk.path)?;
    file.write_all_at(&header, desk.windows().offset + 0x1E00)?;
    let run = desk.skip(&desk.image)?.expect_code(0)?;
    let warnings = run.job()?["warnings"].to_string();
    ensure!(
        warnings.contains("partition 3 has shadow copies"),
        "{warnings}"
    );

    let blank = desk.folder.path().join("blank.raw");
    DiskBuilder::filled(4 * MIB, Pattern::Dense, 1).build(&blank)?;
    let image = desk.folder.path().join("blank.vhdx");
    let run = ce_agent([
        "export",
        text(&blank)?,
        "--to",
        text(&image)?,
        "--free-space",
        "skip",
    ])?;
    let run = run.with(["--json"]).expect_code(0)?;
    ensure!(
        run.job()?["warnings"]
            .to_string()
            .contains("no NTFS volume")
    );
    ensure!(run.job()?["artifacts"]["skippedBytes"] == 0);
    Ok(())
}

#[test]
fn a_volume_without_a_table_is_masked_as_well() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = DiskBuilder::new(64 * MIB)
        .table(Table::Gpt)
        .partition(Role::BasicData, 48 * MIB, ntfs(with_deleted()))
        .build(folder.path().join("disk.raw"))?;
    let place = disk.partitions[0];
    let bytes = fs::read(&disk.path)?;
    let volume = folder.path().join("volume.raw");
    fs::write(
        &volume,
        &bytes[place.offset as usize..(place.offset + place.length) as usize],
    )?;
    ensure!(holds_secret(&fs::read(&volume)?));
    let image = folder.path().join("image.vhd");
    let export = ce_agent([
        "export",
        text(&volume)?,
        "--to",
        text(&image)?,
        "--format",
        "vhd",
    ])?;
    let run = export
        .with(["--free-space", "skip", "--json"])
        .expect_code(0)?;
    ensure!(run.job()?["artifacts"]["skippedBytes"].as_u64() > Some(8 * MIB));
    ensure!(!holds_secret(&fs::read(&image)?));
    Ok(())
}

#[test]
fn a_request_can_ask_for_it() -> Result<()> {
    let desk = Desk::new()?;
    let request = desk.folder.path().join("request.json");
    let told = serde_json::json!({
        "operation": "export", "disk": {"path": desk.disk.path}, "freeSpace": "skip",
        "outputStorageLocation": {"location": desk.folder.path()},
        "outputImageFilename": "image",
    });
    fs::write(&request, told.to_string())?;
    let run = ce_agent(["run", text(&request)?, "--json"])?.expect_code(0)?;
    ensure!(run.job()?["artifacts"]["freeSpace"] == "skip");
    let image = fs::read(&desk.image)?;
    desk.skip(&desk.image)?
        .with(["--overwrite"])
        .expect_code(0)?;
    ensure!(fs::read(&desk.image)? == image);
    Ok(())
}

#[test]
fn an_export_to_a_share_is_gone_on_with_only_in_the_same_way() -> Result<()> {
    let desk = Desk::new()?;
    let server = Setup::default().start();
    let smb = smb_desk::Desk {
        folder: tempfile::tempdir()?,
        disk: desk.disk.path.clone(),
        server,
    };
    smb.write_credentials("smb.json", share::PASSWORD)?;
    let export = smb.export("share/image.vhdx")?;
    let export = export.with(["--hash", "--checkpoint-every", "1M"]);
    let skip = export.clone().with(["--free-space", "skip"]);
    let partial = smb.server.folder().join("image.vhdx.partial.state");
    for (begun, other, said) in [
        (&skip, &export, "free space skipped, now copied"),
        (&export, &skip, "free space copied, now skipped"),
    ] {
        kill_once_there(begun, &partial)?;
        let (code, message) = failure(&other.clone().with(["--resume"]).run()?, 1)?;
        ensure!(
            code == "ResumeRefused" && message.contains(said),
            "{code}: {message}"
        );
    }
    kill_once_there(&skip, &partial)?;
    let run = skip.with(["--resume", "--verify"]).expect_code(0)?;
    let artifacts = &run.job()?["artifacts"];
    ensure!(
        artifacts["resumedFromBytes"].as_u64() >= Some(MIB),
        "{artifacts}"
    );
    desk.skip(&desk.image)?.expect_code(0)?;
    let image = fs::read(smb.server.folder().join("image.vhdx"))?;
    ensure!(
        image == fs::read(&desk.image)?,
        "the image on the share differs"
    );
    Ok(())
}

#[test]
fn the_free_space_of_64_gib_is_known_at_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = DiskBuilder::new(64 * GIB + 2 * MIB)
        .table(Table::Gpt)
        .partition(Role::BasicData, 64 * GIB, ntfs(Vec::new()))
        .build(folder.path().join("disk.raw"))?;
    let image = folder.path().join("image.vhdx");
    let export = ce_agent(["export", text(&disk.path)?, "--to", text(&image)?, "--json"])?;
    let export = export.with(["--free-space", "skip", "--overwrite"]);
    let mut best = f64::MAX;
    for _ in 0..3 {
        let job = export.expect_code(0)?.job()?;
        let seconds = job["artifacts"]["durations"]["freeSpace"].as_f64();
        best = best.min(seconds.context("no duration")?);
    }
    ensure!(best <= 0.05, "{best} s");
    Ok(())
}

/// A disk with Windows, files and what is left of deleted ones; and an image to be.
struct Desk {
    disk: Disk,
    image: PathBuf,
    folder: TempDir,
}

impl Desk {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut windows = PhonyWindows::new();
        for number in 0..KEPT {
            windows = windows.file(&format!("Users/kept-{number}"), kept(number));
        }
        for step in with_deleted() {
            windows = windows.step(step);
        }
        let disk = windows
            .disk(400 * MIB)?
            .build(folder.path().join("disk.raw"))?;
        Ok(Self {
            disk,
            image: folder.path().join("image.vhdx"),
            folder,
        })
    }

    fn windows(&self) -> Placed {
        self.disk.partitions[2]
    }

    fn skip(&self, image: &Path) -> Result<Invocation> {
        let export = ce_agent(["export", text(&self.disk.path)?, "--to", text(image)?])?;
        Ok(export.with(["--free-space", "skip", "--json"]))
    }
}

fn ntfs(steps: Vec<Step>) -> Content {
    Content::NtfsTree {
        label: "Data".into(),
        cluster: 4096,
        steps,
    }
}

/// Files that stay between files that are deleted.
fn with_deleted() -> Vec<Step> {
    let mut steps = Vec::new();
    for number in 0..24 {
        let secret = SECRET.repeat(512 << 10 >> 4);
        steps.push(Step::File(format!("Temp/secret-{number}"), secret.into()));
        let between = FileContent::Noise {
            length: 100_000,
            seed: number,
        };
        steps.push(Step::File(format!("Temp/between-{number}"), between));
    }
    steps.extend((0..24).map(|number| Step::Delete(format!("Temp/secret-{number}"))));
    steps
}

/// Lengths around clusters and records.
fn kept(number: usize) -> Vec<u8> {
    let length = [0, 1, 700, 4095, 4096, 4097, 65_536, 1_000_003][number % KEPT];
    Noise::new(number as u64 + 900).bytes(0, length)
}

fn holds_secret(bytes: &[u8]) -> bool {
    // Content lies at whole clusters.
    bytes.chunks(512).any(|sector| sector.starts_with(SECRET))
}

/// The signature of BitLocker in place of that of NTFS, and no metadata behind it.
fn bitlocker_boot_sector() -> [u8; 512] {
    let mut sector = [0; 512];
    sector[..11].copy_from_slice(b"\xEB\x58\x90-FVE-FS-");
    sector[11..13].copy_from_slice(&512_u16.to_le_bytes());
    sector[13] = 8;
    sector[510..].copy_from_slice(&[0x55, 0xAA]);
    sector
}

/// Starts an export and kills it when `state` is there.
fn kill_once_there(export: &Invocation, state: &Path) -> Result<()> {
    for entry in fs::read_dir(state.parent().context("a file without a folder")?)? {
        fs::remove_file(entry?.path())?;
    }
    let running = export.start()?;
    let started = Instant::now();
    while !state.exists() {
        ensure!(
            started.elapsed() < Duration::from_secs(30),
            "no checkpoint was saved"
        );
        thread::sleep(Duration::from_millis(1));
    }
    running.signal(Signal::KILL)?;
    let run = running.finish()?;
    ensure!(
        !run.status.success(),
        "the export was over before it could be killed"
    );
    Ok(())
}

const KEPT: usize = 8;

/// Sixteen bytes.
const SECRET: &[u8] = b"payroll of 2019;";
