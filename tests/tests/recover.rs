//! "The power went while the disk was being changed": whatever was killed when, `ce-agent recover`
//! leaves the old disk or the new one.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ce_tests::agent::ce_agent;
use ce_tests::pattern::MIB;
use ce_tests::tool::text;
use serde_json::Value;
use tempfile::TempDir;

const SIZE: usize = 24 * MIB as usize;

/// A disk, a scratch folder, and the program that commits to it.
struct Bench {
    folder: TempDir,
    disk: PathBuf,
    scratch: PathBuf,
}

impl Bench {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let disk = folder.path().join("disk.raw");
        fs::write(&disk, old_content())?;
        let scratch = folder.path().join("scratch");
        Ok(Self {
            disk,
            scratch,
            folder,
        })
    }

    fn content(&self) -> Result<Vec<u8>> {
        Ok(fs::read(&self.disk)?)
    }

    /// Kills a commit so long after it has begun; `false` if it was faster.
    fn kill_commit_after(&self, delay: Duration) -> Result<bool> {
        let mut child = Command::new(example()?)
            .args([text(&self.disk)?, text(&self.scratch)?, "165"])
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        ensure!(lines.next().transpose()?.as_deref() == Some("begun"));
        sleep(delay);
        child.kill()?;
        let was_killed = !child.wait()?.success();
        Ok(was_killed)
    }

    fn recover(&self, code: i32, more: &[&str]) -> Result<Value> {
        let arguments = ["recover", "--json", "--scratch", text(&self.scratch)?];
        ce_agent(arguments)?.with(more).expect_code(code)?.job()
    }

    /// Leaves a sealed journal behind that is not on the disk, or only in part.
    fn unfinished() -> Result<Self> {
        for delay in (0..400).cycle().step_by(7).take(400) {
            let bench = Self::new()?;
            bench.kill_commit_after(Duration::from_millis(delay))?;
            if bench.is_sealed()? {
                // Some of it, as if the power had gone early.
                let mut content = old_content();
                content[..5 * MIB as usize].copy_from_slice(&new_content()[..5 * MIB as usize]);
                fs::write(&bench.disk, content)?;
                return Ok(bench);
            }
        }
        anyhow::bail!("no commit was killed between its seal and its end")
    }

    fn journals(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(&self.scratch)?;
        let paths = entries.map(|entry| Ok(entry?.path()));
        let paths = paths.collect::<Result<Vec<_>>>()?;
        let is_journal = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "journal");
        Ok(paths.into_iter().filter(is_journal).collect())
    }

    /// Whether there is a journal whose first seal is there.
    fn is_sealed(&self) -> Result<bool> {
        let journals = self.journals()?;
        let Some(journal) = journals.first() else {
            return Ok(false);
        };
        let bytes = fs::read(journal)?;
        Ok(bytes.get(8192..8200) == Some(b"ce-seal1".as_slice()))
    }
}

#[test]
fn a_commit_that_is_killed_at_any_time_leaves_the_old_or_the_new_disk() -> Result<()> {
    let (mut old, mut new) = (0, 0);
    for delay in (0..120).step_by(if ce_tests::is_long() { 2 } else { 12 }) {
        let bench = Bench::new()?;
        let was_killed = bench.kill_commit_after(Duration::from_millis(delay))?;
        bench.recover(0, &[])?;
        let content = bench.content()?;
        let is_old = content == old_content();
        ensure!(
            is_old || content == new_content(),
            "killed after {delay} ms, the disk is between old and new"
        );
        ensure!(was_killed || !is_old, "the commit said that it is done");
        ensure!(bench.journals()?.is_empty());
        old += u32::from(is_old);
        new += u32::from(!is_old);
    }
    println!("{old} times the old disk, {new} times the new one");
    Ok(())
}

#[test]
fn an_unfinished_commit_is_finished_and_told_of() -> Result<()> {
    let bench = Bench::unfinished()?;
    let job = bench.recover(0, &[])?;
    assert_eq!(job["operation"], "recover");
    assert_eq!(job["status"], "complete");
    let journal = &job["artifacts"]["journals"][0];
    assert_eq!(journal["found"], "unfinished", "{job}");
    assert_eq!(journal["done"], "finished", "{job}");
    assert_eq!(journal["disk"], text(&bench.disk)?);
    assert_eq!(journal["bytesWritten"], 12 * MIB + 4096);
    ensure!(bench.content()? == new_content());
    // And there is no more to do.
    let job = bench.recover(0, &[])?;
    assert_eq!(job["artifacts"]["journals"], Value::Array(Vec::new()));
    let arguments = ["recover", "--scratch", text(&bench.scratch)?];
    let said = ce_agent(arguments)?.expect_code(0)?.stdout;
    ensure!(said.contains("nothing to recover"), "{said}");
    Ok(())
}

#[test]
fn a_disk_that_was_written_to_meanwhile_is_refused_and_left_alone() -> Result<()> {
    let bench = Bench::unfinished()?;
    let mut content = bench.content()?;
    content[8 * MIB as usize + 5] ^= 1;
    fs::write(&bench.disk, &content)?;
    let job = bench.recover(3, &[])?;
    assert_eq!(job["error"]["code"], "JournalMismatch", "{job}");
    let message = job["error"]["message"].as_str().unwrap_or_default();
    ensure!(message.contains("0x800000"), "{message}");
    ensure!(bench.content()? == content);
    assert_eq!(bench.journals()?.len(), 1);
    Ok(())
}

#[test]
fn a_disk_that_was_moved_is_found_by_its_new_path_only() -> Result<()> {
    let bench = Bench::unfinished()?;
    let moved = bench.folder.path().join("moved.raw");
    fs::copy(&bench.disk, &moved)?;
    fs::remove_file(&bench.disk)?;
    let job = bench.recover(1, &[])?;
    assert_eq!(job["error"]["code"], "DiskNotFound", "{job}");
    let hint = job["error"]["hint"].as_str().unwrap_or_default();
    ensure!(hint.contains("--disk"), "{job}");
    bench.recover(0, &["--disk", text(&moved)?])?;
    ensure!(fs::read(&moved)? == new_content());
    Ok(())
}

#[test]
fn a_damaged_journal_is_kept_and_nothing_is_written() -> Result<()> {
    let bench = Bench::unfinished()?;
    let before = bench.content()?;
    let journal = bench.journals()?.remove(0);
    let mut bytes = fs::read(&journal)?;
    bytes[100_000] ^= 1;
    fs::write(&journal, &bytes)?;
    let job = bench.recover(4, &[])?;
    assert_eq!(job["error"]["code"], "JournalDamaged", "{job}");
    ensure!(bench.content()? == before);
    ensure!(journal.exists());
    Ok(())
}

#[test]
fn a_folder_that_is_not_there_is_an_error_only_if_it_was_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let none = folder.path().join("none");
    ce_agent(["recover", "--scratch", text(&none)?])?.expect_code(1)?;
    ensure!(!none.exists());
    Ok(())
}

fn old_content() -> Vec<u8> {
    (0..SIZE).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// What the example makes of it.
fn new_content() -> Vec<u8> {
    let mut content = old_content();
    for piece in content.chunks_mut(MIB as usize).step_by(2) {
        piece.fill(165);
    }
    let end = content.len();
    content[end - 7..].fill(165);
    content
}

/// The example `commit` of `ce-disk`, built as the program under test is.
fn example() -> Result<&'static Path> {
    static EXAMPLE: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    let built = EXAMPLE.get_or_init(|| build_example().map_err(|error| format!("{error:#}")));
    built.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

fn build_example() -> Result<PathBuf> {
    let executable = std::env::current_exe()?;
    let profile = executable.ancestors().nth(2).context("a target folder")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = Command::new(cargo);
    cargo.args([
        "build",
        "--quiet",
        "--locked",
        "-p",
        "ce-disk",
        "--example",
        "commit",
    ]);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let status = cargo.status().context("can't start cargo")?;
    ensure!(status.success(), "{cargo:?}: {status}");
    let example = profile.join("examples/commit");
    ensure!(example.is_file(), "cargo built no {}", example.display());
    Ok(example)
}
