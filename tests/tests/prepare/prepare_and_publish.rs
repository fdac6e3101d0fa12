//! "I want the disk prepared and PVS to stream it": one run, one image of what the disk becomes, and
//! neither half without the other.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ce_platform::Platform;
use ce_tests::agent::{Invocation, ce_agent};
use ce_tests::oracle;
use ce_tests::pattern::MIB;
use ce_tests::tool::{QEMU_IMG, text};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::disk::{Bench, artifacts, hivexsh, streamable};
use crate::guest::Draft;
use crate::share::{PASSWORD, Server, Setup};

const IMAGE: &str = "golden.vhdx";

#[test]
fn the_image_is_what_the_disk_becomes() -> Result<()> {
    let bench = Bench::new(&on_azure().guest())?;
    let before = bench.bytes()?;
    let md5 = oracle::md5_of_file(&bench.disk)?;
    let run = both(&bench)?.with(["--md5", &md5, "--hash", "--verify"]);
    let found = artifacts(&run.expect_code(0)?)?;
    ensure!(found["proof"]["failures"] == json!([]), "{found}");
    ensure!(found["changedBytes"].as_u64() > Some(0), "{found}");
    ensure!(found["registration"].is_string(), "{found}");
    ensure!(bench.bytes()? != before, "nothing was prepared");
    bench.checked_volumes()?;
    let image = bench.path(IMAGE);
    QEMU_IMG.run(["check", text(&image)?])?;
    QEMU_IMG.run(["compare", text(&bench.disk)?, text(&image)?])?;
    let after = oracle::md5_of_file(&bench.disk)?;
    ensure!(found["md5Hash"] == after.as_str(), "{found}");

    // The disk is prepared; it is published all the same, and to the same bytes.
    let first = fs::read(&image)?;
    let again = both(&bench)?.with(["--overwrite"]);
    let found = artifacts(&again.expect_code(0)?)?;
    ensure!(found["changedBytes"].is_null(), "{found}");
    ensure!(fs::read(&image)? == first, "another image of the same disk");

    // What PVS would stream.
    let told = hivexsh(
        &bench.system_in(&image)?,
        "cd \\ControlSet001\\Services\\partmgr\\Parameters\nlsval SanPolicy\n",
    )?;
    ensure!(told.trim() == "1", "{told}");
    Ok(())
}

#[test]
fn the_image_goes_to_a_share() -> Result<()> {
    let bench = Bench::new(&on_azure().guest())?;
    let server = Setup::default().start();
    let md5 = oracle::md5_of_file(&bench.disk)?;
    let run = to_share(&bench, &server)?.with(["--md5", &md5]);
    let found = artifacts(&run.expect_code(0)?)?;
    ensure!(found["md5Hash"] == md5.as_str(), "{found}");
    let image = server.folder().join(IMAGE);
    QEMU_IMG.run(["compare", text(&bench.disk)?, text(&image)?])?;
    Ok(())
}

#[test]
fn a_share_that_runs_full_leaves_the_disk_as_it_was() -> Result<()> {
    let bench = Bench::new(&on_azure().guest())?;
    let before = bench.bytes()?;
    let server = Setup::default().tmpfs(20 * MIB).start();
    let (code, message) = to_share(&bench, &server)?.expect_code(1)?.error()?;
    ensure!(code == "SmbNoSpace", "{code}: {message}");
    ensure!(
        message.starts_with("not published, and the disk is as it was: "),
        "{message}"
    );
    as_it_was(&bench, &before)?;
    ensure!(!server.folder().join(IMAGE).exists());
    Ok(())
}

#[test]
fn a_disk_that_is_not_the_one_of_the_hash_is_neither_prepared_nor_published() -> Result<()> {
    let bench = Bench::new(&on_azure().guest())?;
    let before = bench.bytes()?;
    let wrong = "0123456789abcdef0123456789abcdef";
    for keep in [&[][..], &["--keep-prepared"]] {
        let run = both(&bench)?.with(["--md5", wrong]).with(keep);
        let (code, message) = run.expect_code(4)?.error()?;
        ensure!(code == "HashMismatch", "{code}");
        ensure!(
            message == format!("Expected hash [{wrong}] does not match provided disk"),
            "{message}"
        );
        as_it_was(&bench, &before)?;
    }
    Ok(())
}

#[test]
fn a_disk_that_cannot_be_prepared_or_streamed_is_left_alone() -> Result<()> {
    let mut unfit = Draft::windows();
    unfit.install_drivers_of(Platform::Azure);
    unfit.came_from(Platform::Azure);
    for (draft, platform, expected, said) in [
        (
            unfit,
            "azure",
            "NotStreamable",
            "not published, and the disk is as it was: ",
        ),
        (
            on_azure(),
            "gcp",
            "PvsTargetPresent",
            "nothing was published: ",
        ),
    ] {
        let bench = Bench::new(&draft.guest())?;
        let before = bench.bytes()?;
        let run = for_platform(&bench, platform, text(&bench.path(IMAGE))?)?;
        let (code, message) = run.expect_code(3)?.error()?;
        ensure!(code == expected, "{code}: {message}");
        ensure!(message.starts_with(said), "{message}");
        as_it_was(&bench, &before)?;
    }
    Ok(())
}

#[test]
fn a_failed_upload_leaves_the_disk_as_it_was_unless_told_otherwise() -> Result<()> {
    let bench = Bench::new(&on_azure().guest())?;
    let before = bench.bytes()?;
    let nowhere = bench.path("nowhere").join(IMAGE);
    let run = to(&bench, text(&nowhere)?)?;
    let (_, message) = run.expect_code(1)?.error()?;
    ensure!(
        message.starts_with("not published, and the disk is as it was: "),
        "{message}"
    );
    as_it_was(&bench, &before)?;

    let run = to(&bench, text(&nowhere)?)?.with(["--keep-prepared"]);
    let failed = run.expect_code(1)?;
    let (_, message) = failed.error()?;
    ensure!(
        message.starts_with("the disk is prepared, but not published: "),
        "{message}"
    );
    ensure!(bench.bytes()? != before, "nothing was prepared");
    let found = bench.prepared(Platform::Azure)?;
    ensure!(found["changedBytes"].is_null(), "{found}");
    bench.publish(IMAGE)?.expect_code(0)?;

    let resumed = both(&bench)?.with(["--overwrite", "--resume"]);
    let (code, message) = resumed.expect_code(2)?.error()?;
    ensure!(code == "InvalidRequest", "{code}: {message}");
    ensure!(message.contains("nothing to go on with"), "{message}");
    Ok(())
}

#[test]
fn a_plan_of_both_writes_nothing() -> Result<()> {
    let bench = Bench::new(&on_azure().guest())?;
    let before = bench.bytes()?;
    let found = artifacts(&both(&bench)?.with(["--plan"]).expect_code(0)?)?;
    ensure!(found["changes"].is_array(), "{found}");
    as_it_was(&bench, &before)?;

    let for_people = ce_agent([
        "prepare-and-publish",
        text(&bench.disk)?,
        "--platform",
        "azure",
        "--to",
        text(&bench.path(IMAGE))?,
        "--plan",
    ])?;
    let run = for_people.expect_code(0)?;
    ensure!(run.stdout.contains("to do"), "{}", run.stdout);
    as_it_was(&bench, &before)
}

#[test]
fn whenever_it_is_stopped_there_is_no_image_without_a_proof_and_no_half_of_a_disk() -> Result<()> {
    let bench = Bench::new(&on_azure().guest())?;
    let old = bench.bytes()?;
    let began = Instant::now();
    both(&bench)?.expect_code(0)?;
    let takes = began.elapsed();
    let new_image = fs::read(bench.path(IMAGE))?;
    let rounds = if ce_tests::is_long() { 60 } else { 12 };
    let mut stopped = 0;
    for round in 0..rounds {
        fs::write(&bench.disk, &old)?;
        let _ = fs::remove_file(bench.path(IMAGE));
        let running = both(&bench)?.start()?;
        sleep(takes * (round * 7 % rounds + 1) / rounds);
        let signal = if round % 2 == 0 {
            Signal::KILL
        } else {
            Signal::INT
        };
        running.signal(signal)?;
        let run = running.finish()?;
        if bench.scratch().exists() {
            ce_agent(["recover", "--scratch", text(&bench.scratch())?])?.expect_code(0)?;
        }
        let is_new = bench.bytes()? != old;
        let image = bench.path(IMAGE).exists();
        match run.status.code() {
            Some(0) => ensure!(is_new && image, "round {round}: done, and not"),
            // It heard of it in time.
            Some(130) => ensure!(!is_new && !image, "round {round}: {}", run.stdout),
            None => ensure!(image || !is_new, "round {round}: prepared before published"),
            other => bail!("round {round}: {other:?}: {}{}", run.stdout, run.stderr),
        }
        if is_new {
            bench.checked_volumes()?;
            let again = bench.prepared(Platform::Azure)?;
            ensure!(again["changedBytes"].is_null(), "only a part: {again}");
        } else {
            stopped += 1;
        }
        if image {
            // Times of keys differ from run to run, and nothing else.
            let length = fs::metadata(bench.path(IMAGE))?.len();
            ensure!(
                length == new_image.len() as u64,
                "round {round}: a part of an image"
            );
            QEMU_IMG.run(["check", text(&bench.path(IMAGE))?])?;
        }
    }
    ensure!(stopped > 0, "no stop came before the end");
    Ok(())
}

#[test]
fn an_orchestrator_asks_for_both_in_one_request() -> Result<()> {
    let bench = Bench::new(&on_azure().guest())?;
    let before = bench.bytes()?;
    let md5 = oracle::md5_of_file(&bench.disk)?;
    let request = |name: &str, folder: &str| {
        json!({
            "operation": "prepareAndPublish",
            "platform": "azure",
            "disk": {"path": bench.disk},
            "md5Hash": md5,
            "provisioningType": "Pvs",
            "outputStorageLocation": {"location": bench.path(folder)},
            "outputImageFilename": name,
        })
    };
    let file = bench.path("request.json");
    let run = |request: &Value| -> Result<Invocation> {
        fs::write(&file, request.to_string())?;
        ce_agent([
            "run",
            text(&file)?,
            "--scratch",
            text(&bench.scratch())?,
            "--json",
        ])
    };
    let (_, message) = run(&request(&"x".repeat(53), ""))?
        .expect_code(2)?
        .error()?;
    ensure!(message.contains("outputImageFilename: "), "{message}");
    let mut alone = request("golden", "");
    alone["operation"] = "publish".into();
    alone["keepPrepared"] = true.into();
    let (_, message) = run(&alone)?.expect_code(2)?.error()?;
    for field in ["md5Hash", "provisioningType", "keepPrepared"] {
        ensure!(message.contains(&format!("{field}: ")), "{message}");
    }
    ensure!(bench.bytes()? == before);

    let mut kept = request("golden", "nowhere");
    kept["keepPrepared"] = true.into();
    let (_, message) = run(&kept)?.expect_code(1)?.error()?;
    ensure!(message.starts_with("the disk is prepared"), "{message}");
    ensure!(bench.bytes()? != before, "nothing was prepared");

    let mut published = request("golden", "");
    published["md5Hash"] = oracle::md5_of_file(&bench.disk)?.into();
    let job = run(&published)?.expect_code(0)?.job()?;
    ensure!(job["operation"] == "prepareAndPublish", "{job}");
    QEMU_IMG.run(["compare", text(&bench.disk)?, text(&bench.path(IMAGE))?])?;
    Ok(())
}

/// A Windows on Azure that was streamed there before.
fn on_azure() -> Draft {
    let mut draft = streamable();
    draft.came_from(Platform::Azure);
    draft
}

fn both(bench: &Bench) -> Result<Invocation> {
    to(bench, text(&bench.path(IMAGE))?)
}

fn to(bench: &Bench, destination: &str) -> Result<Invocation> {
    for_platform(bench, "azure", destination)
}

fn to_share(bench: &Bench, server: &Server) -> Result<Invocation> {
    let file = bench.path("smb.json");
    let credentials = json!({"domain": "", "username": server.user(), "password": PASSWORD});
    fs::write(&file, credentials.to_string())?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    let run = to(bench, &server.url(&format!("share/{IMAGE}")))?;
    Ok(run.with(["--smb-credentials", text(&file)?, "--smb-timeout", "10"]))
}

fn for_platform(bench: &Bench, platform: &str, destination: &str) -> Result<Invocation> {
    let run = ce_agent([
        "prepare-and-publish",
        text(&bench.disk)?,
        "--platform",
        platform,
        "--to",
        destination,
        "--scratch",
        text(&bench.scratch())?,
        "--json",
    ])?;
    Ok(run.time_limit(Duration::from_secs(600)))
}

/// The disk is what it was, and there is nothing of an image.
fn as_it_was(bench: &Bench, before: &[u8]) -> Result<()> {
    ensure!(bench.bytes()? == before, "the disk has changed");
    for entry in fs::read_dir(bench.path(""))? {
        let name = entry?.file_name();
        let name = name.to_str().context("a name")?;
        ensure!(!name.contains("golden"), "{name} was left");
    }
    Ok(())
}
