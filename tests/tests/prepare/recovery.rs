//! The recovery environment gets the drivers that Windows boots with, or stays as it is and that is told.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ce_platform::Platform;
use ce_tests::agent::{Invocation, ce_agent};
use ce_tests::driver_package::{write_network_package, write_package};
use ce_tests::memory::watched;
use ce_tests::oracle;
use ce_tests::pattern::write_noise;
use ce_tests::tool::{WIMLIB_IMAGEX, text};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::disk::{Bench, artifacts, hivexsh, ntfs_file};
use super::guest::{Draft, Guest, SETS, hive};

const NAME: &str = r"recovery environment on partition 3 (Recovery\WindowsRE\Winre.wim)";

#[test]
fn the_recovery_environment_sees_the_disk_on_the_target_and_is_changed_once() -> Result<()> {
    let tree = Tree::new()?;
    let environment = tree.captured(&["--check"])?;
    let bench = Bench::with_recovery(&without_drivers(), environment.clone())?;
    let prepare = with_bundle(&bench)?;
    let before = bench.bytes()?;
    let plan = with_bundle(&bench)?.with(["--plan"]);
    let planned = artifacts(&plan.expect_code(0)?)?;
    ensure!(bench.bytes()? == before, "a plan has changed the disk");
    ensure!(copies(&bench)? == 0, "a plan has left a copy behind");

    let (run, peak) = watched(prepare.start()?)?;
    ensure!(run.status.success(), "{}{}", run.stdout, run.stderr);
    ensure!(
        (1..256 << 20).contains(&peak.own) && (1..256 << 20).contains(&peak.children),
        "{peak:?}"
    );
    let found = artifacts(&run)?;
    // But for the time of it.
    let changes = |found: &Value| {
        let mut changes = found["changes"].as_array().cloned().unwrap_or_default();
        changes.retain(|line| !line.to_string().contains("Date = "));
        changes
    };
    let (done, planned) = (changes(&found), changes(&planned));
    let differ = done
        .iter()
        .zip(&planned)
        .find(|(done, planned)| done != planned);
    ensure!(
        done.len() == planned.len() && differ.is_none(),
        "what was done is not what was planned: {differ:#?}"
    );
    ensure!(run.job()?["warnings"] == json!([]), "{}", run.stdout);
    ensure!(found["proof"]["failures"] == json!([]), "{found}");
    let proved = found["proof"]["recovery"]
        .as_array()
        .context("nothing is proved")?;
    let links = proved
        .iter()
        .flat_map(|chain| chain["links"].as_array())
        .flatten();
    ensure!(
        proved.len() == 1
            && links.clone().count() > 4
            && links.clone().all(|link| link["holds"] == true),
        "{proved:?}"
    );
    let done = lines(&found, "done");
    for part in [
        r"write Windows\System32\drivers\vioscsi.sys",
        r"Services\vioscsi: Start = 0",
    ] {
        let is_it = |line: &String| line.starts_with(NAME) && line.contains(part);
        ensure!(done.iter().any(is_it), "no {part} in {done:#?}");
    }
    ensure!(copies(&bench)? == 0, "a copy is left behind");

    // What others see of it.
    bench.checked_volumes()?;
    let (volume, after) = bench.recovery()?;
    let listed = oracle::dissected(&volume)?;
    let md5 = listed.get(PLACE).and_then(|file| file.md5.clone());
    ensure!(md5 == Some(oracle::md5_of_bytes(&after)?), "{listed:#?}");
    let extracted = extracted(&after)?;
    let bundle = bench.path("bundle");
    let driver = fs::read(bundle.join("storage").join("vioscsi.sys"))?;
    ensure!(
        fs::read(
            extracted
                .path()
                .join("Windows/System32/drivers/vioscsi.sys")
        )? == driver
    );
    let inf = fs::read(bundle.join("storage").join("vioscsi.inf"))?;
    // 0 is taken by a package of its DRIVERS hive.
    ensure!(fs::read(extracted.path().join("Windows/INF/oem1.inf"))? == inf);
    ensure!(
        !extracted.path().join("Windows/INF/oem2.inf").exists(),
        "more than the boot driver"
    );
    let config = extracted.path().join("Windows/System32/config");
    let system = fs::read(config.join("SYSTEM"))?;
    for set in SETS {
        let said = hivexsh(
            &system,
            &format!("cd \\{set}\\Services\\vioscsi\nlsval Start\nlsval ImagePath\n"),
        )?;
        ensure!(said.contains("vioscsi.sys"), "{set}: {said}");
    }
    let ids = hivexsh(
        &system,
        "cd \\DriverDatabase\\DeviceIds\\PCI\\VEN_1AF4&DEV_1048\nlsval\n",
    )?;
    ensure!(ids.contains("oem1.inf"), "{ids}");
    for untouched in ["SOFTWARE", "DRIVERS"] {
        let name = format!("Windows/System32/config/{untouched}");
        ensure!(
            fs::read(config.join(untouched))? == fs::read(tree.folder.path().join(name))?,
            "{untouched}"
        );
    }

    let prepared = bench.bytes()?;
    let again = artifacts(&prepare.expect_code(0)?)?;
    ensure!(
        bench.bytes()? == prepared,
        "a second run has changed something"
    );
    ensure!(
        again["changedBytes"].is_null() && lines(&again, "done").is_empty(),
        "{again}"
    );
    // Without the bundle nobody looks into it.
    let again = artifacts(&bench.prepare(Platform::Nutanix)?.expect_code(0)?)?;
    let skipped = lines(&again, "skipped");
    ensure!(skipped.iter().any(|line| line == NAME), "{skipped:?}");
    ensure!(again["changedBytes"].is_null(), "{again}");
    Ok(())
}

#[test]
fn a_recovery_environment_on_the_volume_of_windows_is_found_wherever_it_lies() -> Result<()> {
    let environment = Tree::new()?.captured(&[])?;
    let mut guest = without_drivers();
    for place in [PLACE, r"Windows\System32\Recovery\Winre.wim"] {
        guest.windows.insert(place.into(), environment.clone());
    }
    let bench = Bench::new(&guest)?;
    let found = artifacts(&with_bundle(&bench)?.expect_code(0)?)?;
    ensure!(found["proof"]["failures"] == json!([]), "{found}");
    ensure!(
        found["proof"]["recovery"].as_array().map(Vec::len) == Some(2),
        "{found}"
    );
    let (windows, _) = bench.checked_volumes()?;
    for place in [PLACE, r"Windows\System32\Recovery\Winre.wim"] {
        let after = extracted(&ntfs_file(&windows, &place.replace('\\', "/"))?)?;
        ensure!(
            after
                .path()
                .join("Windows/System32/drivers/vioscsi.sys")
                .exists(),
            "{place}"
        );
    }
    let again = artifacts(&with_bundle(&bench)?.expect_code(0)?)?;
    ensure!(again["changedBytes"].is_null(), "{again}");
    Ok(())
}

#[test]
fn a_recovery_environment_that_cannot_be_changed_is_told_and_windows_is_prepared() -> Result<()> {
    let tree = Tree::new()?;
    let whole = tree.captured(&[])?;
    let cut = whole
        .get(..whole.len() - 1)
        .context("an empty WIM")?
        .to_vec();
    let mut damaged = whole.clone();
    damaged[300..1000].fill(0x5A);
    let unreadable = {
        let mut bytes = whole.clone();
        // The table of blobs.
        let at = u64::from_le_bytes(bytes[56..64].try_into()?) as usize;
        bytes[at..at + 50].fill(0xFF);
        bytes
    };
    let with_file = |path: &str, content: Option<&[u8]>| -> Result<Vec<u8>> {
        let tree = Tree::new()?;
        let path = tree.folder.path().join(path);
        match content {
            Some(content) => fs::write(path, content)?,
            None => fs::remove_file(path)?,
        }
        tree.captured(&[])
    };
    let no_system = with_file("Windows/System32/config/SYSTEM", None)?;
    let no_hive = with_file(
        "Windows/System32/config/SYSTEM",
        Some(b"regf, and no more of it"),
    )?;
    let no_software = with_file("Windows/System32/config/SOFTWARE", None)?;
    for (environment, problem) in [
        (cut, "it is cut"),
        (tree.captured(&["--pipable"])?, "pipable"),
        (tree.captured(&["--solid"])?, "ESD"),
        (b"MSWIM".to_vec(), "no WIM"),
        (damaged, "wimlib-imagex"),
        (unreadable, "wimlib-imagex"),
        (no_system, "SYSTEM"),
        (no_hive, "SYSTEM"),
        (no_software, "SOFTWARE"),
    ] {
        let bench = Bench::with_recovery(&without_drivers(), environment.clone())?;
        told_and_left(&bench, &with_bundle(&bench)?, &environment, problem)?;
    }

    let bench = Bench::with_recovery(&without_drivers(), whole.clone())?;
    let without_wimlib = with_bundle(&bench)?.below(["/usr/bin/env", "PATH=/nothing"]);
    told_and_left(&bench, &without_wimlib, &whole, "Debian package wimtools")?;

    // A file that fills its volume: mkntfs leaves 5518 clusters of 4096 bytes to files.
    let noise = Tree::new()?;
    let file = fs::File::create(noise.folder.path().join("noise"))?;
    let room = 5504 * 4096 - whole.len() as u64;
    write_noise(&file, 7, 0, room)?;
    let large = noise.captured(&[])?;
    let bench = Bench::with_recovery(&without_drivers(), large.clone())?;
    told_and_left(&bench, &with_bundle(&bench)?, &large, "free")
}

/// Checks that a prepare works, and says why the environment is left.
fn told_and_left(
    bench: &Bench,
    prepare: &Invocation,
    environment: &[u8],
    problem: &str,
) -> Result<()> {
    let run = prepare.expect_code(0)?;
    let found = artifacts(&run)?;
    let changes = found["changes"].as_array().context("no changes")?;
    let mut told = changes.iter().filter(|line| line["title"] == NAME);
    let line = told
        .next()
        .with_context(|| format!("{problem}: it is not told: {changes:?}"))?;
    let why = line["why"].as_str().unwrap_or_default();
    ensure!(
        line["outcome"] == "skipped" && why.contains(problem),
        "expected {problem}: {line}"
    );
    let warnings = run.job()?["warnings"].take();
    let is_warned = |warnings: &Value| {
        let mut warnings = warnings.as_array().into_iter().flatten();
        warnings.any(|warning| warning.as_str().is_some_and(|text| text.contains(problem)))
    };
    ensure!(is_warned(&warnings), "expected {problem}: {warnings}");
    ensure!(found["proof"]["failures"] == json!([]), "{found}");
    let (_, after) = bench.recovery()?;
    ensure!(after == environment, "{problem}: it has changed");
    ensure!(copies(bench)? == 0, "a copy is left behind");
    bench.checked_volumes()?;
    Ok(())
}

#[test]
fn nobody_looks_into_it_where_windows_boots_by_its_own_drivers() -> Result<()> {
    let guest = Guest::of(Platform::Vsphere, Platform::Azure);
    let bench = Bench::with_recovery(&guest, Tree::new()?.captured(&[])?)?;
    let plan = bench.prepare(Platform::Azure)?.with(["--plan"]);
    let planned = artifacts(&plan.expect_code(0)?)?;
    ensure!(
        !planned.to_string().contains("recovery environment on"),
        "{planned}"
    );
    ensure!(
        !bench.scratch().exists(),
        "a plan has made a scratch folder"
    );
    Ok(())
}

#[test]
fn a_prepare_that_is_killed_with_a_recovery_environment_leaves_both_old_or_both_new() -> Result<()>
{
    let environment = Tree::new()?.captured(&[])?;
    let bench = Bench::with_recovery(&without_drivers(), environment.clone())?;
    let prepare = with_bundle(&bench)?;
    let old = bench.bytes()?;
    let began = Instant::now();
    prepare.expect_code(0)?;
    let takes = began.elapsed();
    let (mut before, mut after) = (0, 0);
    let rounds = if ce_tests::is_long() { 40 } else { 8 };
    for round in 0..rounds {
        fs::write(&bench.disk, &old)?;
        let running = prepare.start()?;
        sleep(takes * (round * 3 % rounds + 1) / rounds);
        running.signal(Signal::KILL)?;
        running.finish()?;
        if bench.scratch().exists() {
            ce_agent(["recover", "--scratch", text(&bench.scratch())?])?.expect_code(0)?;
        }
        if bench.bytes()? == old {
            before += 1;
        } else {
            after += 1;
            bench.checked_volumes()?;
        }
        // Either way the next one brings it to its end, and tidies up.
        let again = artifacts(&prepare.expect_code(0)?)?;
        let was_done = again["changedBytes"].is_null();
        ensure!(
            was_done == (after > 0 && bench.bytes()? != old && lines(&again, "done").is_empty()),
            "{again}"
        );
        ensure!(copies(&bench)? == 0, "a copy is left behind");
        let driver = extracted(&bench.recovery()?.1)?;
        ensure!(
            driver
                .path()
                .join("Windows/System32/drivers/vioscsi.sys")
                .exists()
        );
    }
    ensure!(
        before > 0,
        "no kill of {rounds} came before the commit ({after} after)"
    );
    Ok(())
}

/// A Windows from vSphere that has no driver of Nutanix.
fn without_drivers() -> Guest {
    let mut draft = Draft::windows();
    draft.came_from(Platform::Vsphere);
    draft.guest()
}

/// A prepare for Nutanix with the drivers for it.
fn with_bundle(bench: &Bench) -> Result<Invocation> {
    let bundle = bench.path("bundle");
    if !bundle.exists() {
        write_package(&bundle.join("storage"), "vioscsi")?;
        write_network_package(&bundle.join("network"), "netkvm")?;
    }
    let prepare = bench.prepare(Platform::Nutanix)?;
    Ok(prepare.with(["--drivers", text(&bundle)?]))
}

/// The files of a recovery environment.
struct Tree {
    folder: TempDir,
}

impl Tree {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let guest = Draft::windows().guest();
        for (name, content) in &guest.windows {
            let path = folder.path().join(name.replace('\\', "/"));
            fs::create_dir_all(path.parent().context("a file in the root")?)?;
            fs::write(path, content)?;
        }
        let drivers = hive("[DriverDatabase\\DriverInfFiles\\oem0.inf]\n@=hex(7):00,00\n");
        fs::write(
            folder.path().join("Windows/System32/config/DRIVERS"),
            drivers,
        )?;
        Ok(Self { folder })
    }

    /// A WIM file of it, made by wimlib.
    fn captured(&self, options: &[&str]) -> Result<Vec<u8>> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("Winre.wim");
        let capture = [
            "capture",
            text(self.folder.path())?,
            text(&file)?,
            "Microsoft Windows Recovery Environment (amd64)",
            "--boot",
        ];
        WIMLIB_IMAGEX.run(capture.iter().chain(options))?;
        Ok(fs::read(&file)?)
    }
}

/// All files of a WIM file, after wimlib has found it whole and with an image that boots.
fn extracted(wim: &[u8]) -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), wim)?;
    let file = text(file.path())?;
    WIMLIB_IMAGEX.run(["verify", file])?;
    let told = String::from_utf8(WIMLIB_IMAGEX.run(["info", file])?.stdout)?;
    let boot = told.lines().find(|line| line.starts_with("Boot Index:"));
    ensure!(boot.is_some_and(|line| line.ends_with(" 1")), "{told}");
    WIMLIB_IMAGEX.run(["apply", file, "1", text(folder.path())?])?;
    Ok(folder)
}

fn lines(found: &Value, outcome: &str) -> Vec<String> {
    let lines = found["changes"].as_array().into_iter().flatten();
    let lines = lines.filter(|line| line["outcome"] == outcome);
    lines
        .filter_map(|line| Some(line["title"].as_str()?.to_owned()))
        .collect()
}

/// How many copies of environments are in the scratch folder.
fn copies(bench: &Bench) -> Result<usize> {
    if !bench.scratch().exists() {
        return Ok(0);
    }
    let entries = fs::read_dir(bench.scratch())?.flatten();
    Ok(entries.filter(|entry| is_copy(&entry.path())).count())
}

fn is_copy(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().contains("recovery-"))
}

const PLACE: &str = r"Recovery\WindowsRE\Winre.wim";
