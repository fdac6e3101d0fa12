//! "My scripts read the JSON lines and the exit code": the shapes of the contract.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use ce_tests::agent::ce_agent;
use ce_tests::disk::DiskBuilder;
use ce_tests::oracle;
use ce_tests::pattern::{GIB, MIB, Pattern};
use ce_tests::tool::text;
use serde_json::Value;
use tempfile::TempDir;

#[test]
fn progress_rises_to_the_whole_and_the_last_line_is_the_job() -> Result<()> {
    // Long enough for some lines: a hole has to be hashed too.
    let size = 2 * GIB;
    let folder = tempfile::tempdir()?;
    let disk = DiskBuilder::new(size)
        .build(folder.path().join("disk"))?
        .path;
    let image = folder.path().join("image.vhdx");
    let run = ce_agent([
        "export",
        text(&disk)?,
        "--to",
        text(&image)?,
        "--hash",
        "--json",
    ])?
    .expect_code(0)?;
    let mut events = run.events()?;
    let last = events.pop().context("no event at all")?;
    assert_eq!(last["event"], "finished");
    assert_eq!(keys(&last)?, ["event", "job"]);

    ensure!(!events.is_empty(), "no progress was reported");
    let mut before = 0;
    for event in &events {
        assert_eq!(event["event"], "progress", "{event}");
        assert_eq!(event["step"], "export", "{event}");
        assert_eq!(event["bytesTotal"], size, "{event}");
        let done = event["bytesDone"]
            .as_u64()
            .context("bytesDone is no number")?;
        ensure!((before..=size).contains(&done), "{done} after {before}");
        let percent = event["percent"].as_f64().context("percent is no number")?;
        ensure!((0.0..=100.0).contains(&percent), "{event}");
        before = done;
    }
    Ok(())
}

#[test]
fn a_complete_export_has_every_artifact() -> Result<()> {
    let (_folder, disk, image) = desk(8 * MIB)?;
    let job = ce_agent([
        "export",
        text(&disk)?,
        "--to",
        text(&image)?,
        "--hash",
        "--json",
    ])?
    .expect_code(0)?
    .job()?;
    assert_eq!(job["operation"], "export");
    assert_eq!(job["status"], "complete");
    assert_eq!(job["overallProgressPercent"], 100);
    assert!(job["id"].as_str().is_some_and(|id| !id.is_empty()), "{job}");
    assert!(job["warnings"].is_array(), "{job}");
    assert!(job["error"].is_null(), "{job}");
    let artifacts = &job["artifacts"];
    assert_eq!(artifacts["md5Hash"], oracle::md5_of_file(&disk)?);
    assert_eq!(artifacts["hashedBytes"], 8 * MIB);
    assert_eq!(artifacts["virtualSizeBytes"], 8 * MIB);
    assert_eq!(artifacts["fileSizeBytes"], fs::metadata(&image)?.len());
    assert_eq!(artifacts["outputImage"], text(&image)?);
    assert_eq!(artifacts["freeSpace"], "copy");
    assert!(artifacts["durations"].is_object(), "{job}");
    Ok(())
}

#[test]
fn without_hashing_no_hash_is_claimed() -> Result<()> {
    let (_folder, disk, image) = desk(8 * MIB)?;
    let job = ce_agent(["export", text(&disk)?, "--to", text(&image)?, "--json"])?
        .expect_code(0)?
        .job()?;
    assert!(job["artifacts"]["md5Hash"].is_null(), "{job}");
    assert!(job["artifacts"]["hashedBytes"].is_null(), "{job}");
    Ok(())
}

#[test]
fn a_failure_has_a_code_and_a_message_and_no_image() -> Result<()> {
    let (_folder, disk, image) = desk(8 * MIB)?;
    fs::remove_file(&disk)?;
    let run = ce_agent(["export", text(&disk)?, "--to", text(&image)?, "--json"])?.run()?;
    ensure!(matches!(run.status.code(), Some(1 | 3)), "{}", run.status);
    let job = run.job()?;
    assert_eq!(job["status"], "failed");
    assert_eq!(run.error()?.0, "DiskNotFound");
    assert!(job["artifacts"]["outputImage"].is_null(), "{job}");
    Ok(())
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_is_right() -> Result<()> {
    for arguments in [
        vec![],
        vec!["export"],
        vec!["export", "disk"],
        vec!["exprot", "disk", "--to", "image"],
        vec!["export", "disk", "--to", "image", "--format", "qcow2"],
        vec!["export", "disk", "--to", "image", "--block-size", "some"],
        vec!["export", "disk", "--to", "image", "--block-size", "3M"],
        vec!["export", "disk", "--to", "image", "--block-size", "512M"],
        vec!["hash"],
    ] {
        let run = ce_agent(&arguments)?.expect_code(2)?;
        ensure!(
            run.stderr.contains("Usage") || run.stderr.contains("--help"),
            "{}",
            run.stderr
        );
        ensure!(
            run.stdout.is_empty(),
            "usage errors go to standard error: {}",
            run.stdout
        );
    }
    Ok(())
}

#[test]
fn a_destination_of_an_unknown_kind_is_refused_by_its_name() -> Result<()> {
    let (folder, disk, _) = desk(8 * MIB)?;
    let run = ce_agent([
        "export",
        text(&disk)?,
        "--to",
        "ftp://host/x.vhdx",
        "--json",
    ])?;
    let (code, message) = run.expect_code(2)?.error()?;
    assert_eq!(code, "InvalidRequest", "{message}");
    ensure!(message.contains("ftp://"), "{message}");
    assert_eq!(fs::read_dir(folder.path())?.count(), 1);
    Ok(())
}

#[test]
fn without_json_a_person_reads_the_hash_and_where_the_image_is() -> Result<()> {
    let (_folder, disk, image) = desk(8 * MIB)?;
    let run =
        ce_agent(["export", text(&disk)?, "--to", text(&image)?, "--hash"])?.expect_code(0)?;
    ensure!(
        run.stdout.contains(&oracle::md5_of_file(&disk)?),
        "{}",
        run.stdout
    );
    ensure!(run.stdout.contains(text(&image)?), "{}", run.stdout);
    Ok(())
}

#[test]
fn quiet_says_nothing_on_standard_error() -> Result<()> {
    let (_folder, disk, image) = desk(8 * MIB)?;
    let run = ce_agent([
        "export",
        text(&disk)?,
        "--to",
        text(&image)?,
        "--quiet",
        "--json",
    ])?
    .expect_code(0)?;
    assert_eq!(run.stderr, "");
    assert_eq!(run.job()?["status"], "complete");
    Ok(())
}

#[test]
fn hash_reports_the_disk_and_writes_nothing() -> Result<()> {
    let (folder, disk, _) = desk(8 * MIB)?;
    let run = ce_agent(["hash", text(&disk)?, "--json"])?.expect_code(0)?;
    assert_eq!(run.md5_hash()?, oracle::md5_of_file(&disk)?);
    assert_eq!(run.job()?["artifacts"]["hashedBytes"], 8 * MIB);
    assert_eq!(fs::read_dir(folder.path())?.count(), 1);
    Ok(())
}

#[test]
fn inspect_lists_the_partitions_of_a_disk() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let disk =
        DiskBuilder::windows_layout(400 * MIB, Vec::new()).build(folder.path().join("disk"))?;
    let path = text(&disk.path)?;
    let job = ce_agent(["inspect", path, "--json"])?
        .expect_code(0)?
        .job()?;
    let found = &job["artifacts"]["disk"];
    assert_eq!(found["partitionTable"], "GPT", "{found}");
    assert_eq!(found["sizeBytes"], disk.size, "{found}");
    let listed = found["partitions"].as_array().context("no partitions")?;
    let places: Vec<_> = listed
        .iter()
        .map(|partition| (partition["start"].as_u64(), partition["sizeBytes"].as_u64()))
        .collect();
    let expected: Vec<_> = disk
        .partitions
        .iter()
        .map(|place| (Some(place.offset), Some(place.length)))
        .collect();
    assert_eq!(places, expected, "{found}");
    let content: Vec<_> = listed
        .iter()
        .map(|partition| partition["content"].as_str())
        .collect();
    assert_eq!(
        content,
        [Some("FAT32"), None, Some("NTFS"), Some("NTFS")],
        "{found}"
    );

    let table = ce_agent(["inspect", path])?.expect_code(0)?.stdout;
    for name in [
        "EFI system",
        "Microsoft reserved",
        "Microsoft basic data",
        "Windows recovery",
    ] {
        ensure!(table.contains(name), "{name} is not listed:\n{table}");
    }
    Ok(())
}

fn desk(size: u64) -> Result<(TempDir, PathBuf, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let (disk, image) = (
        folder.path().join("disk.raw"),
        folder.path().join("image.vhdx"),
    );
    DiskBuilder::filled(size, Pattern::HalfZero, size).build(&disk)?;
    Ok((folder, disk, image))
}

fn keys(value: &Value) -> Result<Vec<&str>> {
    let object = value.as_object().context("not an object")?;
    Ok(object.keys().map(String::as_str).collect())
}
