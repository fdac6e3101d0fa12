//! "The line is bad, the server is restarted, the machine dies: I lose a few hundred megabytes at
//! most, and the image is the same."

#[path = "../../disk-ops/tests/share/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest of it")]
mod share;
mod smb_desk;

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ce_tests::agent::{Invocation, Running, ce_agent};
use ce_tests::cable::Cable;
use ce_tests::oracle;
use ce_tests::pattern::{MIB, Pattern, write_noise};
use ce_tests::tool::text;
use rustix::process::Signal;
use serde_json::Value;

use share::{Server, Setup};
use smb_desk::{Desk, failure};

#[test]
fn a_server_that_is_killed_twenty_times_ends_with_the_same_image() -> Result<()> {
    let desk = Desk::new(Setup::default().start(), 160 * MIB, Pattern::HalfZero)?;
    let expected = desk.local_image(&[])?;
    let md5 = oracle::md5_of_file(&desk.disk)?;
    let wanted = if ce_tests::is_long() { 200 } else { 20 };
    let mut random = 0x1234_5678_u64;
    let (mut kills, mut resumed) = (0, 0);
    for number in 0.. {
        let name = format!("image-{number}.vhdx");
        let running = desk
            .export(&format!("share/{name}"))?
            .with(["--hash", "--checkpoint-every", "8M"])
            .start()?;
        let over = AtomicBool::new(false);
        // A first connection that fails ends the job, as is right.
        let partial = desk.server.folder().join(format!("{name}.partial"));
        wait_for(|| partial.exists())?;
        let run = thread::scope(|scope| {
            let killer = scope.spawn(|| {
                let mut killed = 0;
                while !over.load(Ordering::Relaxed) {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    thread::sleep(Duration::from_millis(20 + (random >> 33) % 200));
                    // Not for ever, or the export would never end.
                    if killed < 8 {
                        killed += desk.server.kill_connections();
                    }
                }
                killed
            });
            let run = running.finish();
            over.store(true, Ordering::Relaxed);
            let killed = killer
                .join()
                .map_err(|_| anyhow::anyhow!("the killer panicked"))?;
            kills += killed;
            run
        })?;
        ensure!(
            run.status.success(),
            "{}{}\n{}",
            run.stdout,
            run.stderr,
            desk.server.log()
        );
        ensure!(run.md5_hash()? == md5, "the MD5 is wrong");
        let image = desk.server.folder().join(&name);
        ensure!(fs::read(&image)? == expected, "{name} differs");
        fs::remove_file(image)?;
        progress_never_goes_back(&run.events()?)?;
        let job = run.job()?;
        resumed += usize::from(job["artifacts"]["resumedFromBytes"].as_u64() > Some(0));
        ensure!(desk.names()?.is_empty(), "{:?} is left", desk.names()?);
        if kills >= wanted {
            break;
        }
    }
    ensure!(resumed > 0, "no export was ever resumed in {kills} kills");
    Ok(())
}

#[test]
fn a_server_that_is_away_for_some_seconds_is_waited_for() -> Result<()> {
    let mut desk = Desk::new(Setup::default().start(), 200 * MIB, Pattern::Dense)?;
    let export = desk.export("share/image.vhdx")?;
    let running = export
        .with(["--hash", "--verify", "--checkpoint-every", "8M"])
        .start()?;
    wait_for_state(&desk.server)?;
    desk.server.stop();
    thread::sleep(Duration::from_secs(3));
    desk.server.start_again();
    let run = running.finish()?;
    ensure!(run.status.success(), "{}{}", run.stdout, run.stderr);
    desk.expect_image(&run, "image.vhdx", &[])?;
    let job = run.job()?;
    let warnings = job["warnings"].to_string();
    ensure!(warnings.contains("interrupted at"), "{warnings}");
    ensure!(job["artifacts"]["verified"] == true, "{job}");
    ensure!(
        job["artifacts"]["resumedFromBytes"].as_u64() > Some(0),
        "{job}"
    );
    Ok(())
}

#[test]
fn a_network_that_is_cut_for_longer_than_the_timeout_is_waited_for() -> Result<()> {
    let Some(cable) = Cable::new()? else {
        return Ok(());
    };
    let interfaces = format!("interfaces = lo {}/30", cable.here());
    let server = Setup::default().global(&interfaces).start();
    let desk = Desk::new(server, 200 * MIB, Pattern::Dense)?;
    let url = format!(
        "smb://{}:{}/share/image.vhdx",
        cable.here(),
        desk.server.port()
    );
    // So slow that there is something to cut; 3 s is the time for an answer.
    cable.limit("400mbit")?;
    let running = desk
        .export_to(&url)?
        .with(["--hash", "--checkpoint-every", "8M"])
        .below(cable.wrapper())
        .start()?;
    wait_for_state(&desk.server)?;
    cable.plug(false)?;
    thread::sleep(Duration::from_secs(7));
    cable.plug(true)?;
    let run = running.finish()?;
    ensure!(run.status.success(), "{}{}", run.stdout, run.stderr);
    desk.expect_image(&run, "image.vhdx", &[])?;
    let job = run.job()?;
    ensure!(
        job["artifacts"]["resumedFromBytes"].as_u64() > Some(0),
        "{job}"
    );
    Ok(())
}

#[test]
fn an_agent_that_is_killed_is_gone_on_with_by_the_next() -> Result<()> {
    for (name, format) in [("image.vhdx", "vhdx"), ("image.vhd", "vhd")] {
        let desk = Desk::new(Setup::default().start(), 200 * MIB, Pattern::HalfZero)?;
        let path = format!("share/folder/../{name}").replace("folder/../", "");
        let export =
            desk.export(&path)?
                .with(["--hash", "--checkpoint-every", "8M", "--format", format]);
        kill_after_a_checkpoint(&export, &desk)?;
        ensure!(desk.names()?.contains(&format!("{name}.partial")));
        let run = export.with(["--resume"]).expect_code(0)?;
        desk.expect_image(&run, name, &["--format", format])?;
        let from = run.job()?["artifacts"]["resumedFromBytes"].as_u64();
        ensure!(from >= Some(8 * MIB), "resumed from {from:?}");
        ensure!(desk.names()? == [name], "{:?}", desk.names()?);
    }
    Ok(())
}

#[test]
fn a_local_export_that_is_killed_is_gone_on_with_by_the_next() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk.raw");
    ce_tests::disk::DiskBuilder::filled(400 * MIB, Pattern::Dense, 5).build(&disk)?;
    let (whole, image) = (
        folder.path().join("whole.vhdx"),
        folder.path().join("image.vhdx"),
    );
    let export = |to: &Path| {
        let export = ce_agent([
            "export",
            text(&disk)?,
            "--to",
            text(to)?,
            "--hash",
            "--json",
        ])?;
        Ok::<_, anyhow::Error>(export.with(["--checkpoint-every", "8M"]))
    };
    let md5 = export(&whole)?.expect_code(0)?.md5_hash()?;
    let running = export(&image)?.with(["--resume"]).start()?;
    wait_for(|| folder.path().join("image.vhdx.partial.state").exists())?;
    kill(running)?;
    let run = export(&image)?
        .with(["--resume", "--verify"])
        .expect_code(0)?;
    ensure!(run.md5_hash()? == md5);
    ensure!(fs::read(&image)? == fs::read(&whole)?, "the image differs");
    ensure!(run.job()?["artifacts"]["resumedFromBytes"].as_u64() >= Some(8 * MIB));
    ensure!(fs::read_dir(folder.path())?.count() == 3);
    Ok(())
}

#[test]
fn what_is_not_the_same_export_is_refused_and_can_be_started_over() -> Result<()> {
    let desk = Desk::new(Setup::default().start(), 120 * MIB, Pattern::Dense)?;
    let export = desk
        .export("share/image.vhdx")?
        .with(["--hash", "--checkpoint-every", "8M"]);
    kill_after_a_checkpoint(&export, &desk)?;
    let resume = export.clone().with(["--resume"]);
    let refused = |run: Invocation, said: &str| {
        let (code, message) = failure(&run.run()?, 1)?;
        ensure!(code == "ResumeRefused", "{code}: {message}");
        ensure!(message.contains(said), "{message}");
        ensure!(desk.names()?.contains(&"image.vhdx.partial".to_owned()));
        Ok(())
    };
    let other_size = resume.clone().with(["--block-size", "32M"]);
    refused(other_size, "block size 2.0 MiB, now 32.0 MiB")?;

    // The time of the last change is what gives it away.
    let time = fs::metadata(&desk.disk)?.modified()?;
    let file = fs::File::options().write(true).open(&desk.disk)?;
    write_noise(&file, 6, 77 * MIB, 8)?;
    refused(resume.clone(), "written to")?;
    write_noise(&file, 5, 77 * MIB, 8)?;
    file.set_modified(time)?;

    // The last byte that the checkpoint speaks of is not on the server any more, or another.
    let partial = desk.server.folder().join("image.vhdx.partial");
    let mut image = fs::File::options().read(true).write(true).open(&partial)?;
    let mut whole = Vec::new();
    image.read_to_end(&mut whole)?;
    // 8 MiB behind the tables there certainly is something of the disk: the first checkpoint.
    let mut other = whole.clone();
    other[4 << 20..].iter_mut().for_each(|byte| *byte ^= 1);
    image.seek(SeekFrom::Start(0))?;
    image.write_all(&other)?;
    refused(resume.clone(), "before the checkpoint")?;
    image.set_len(6 << 20)?;
    refused(resume.clone(), "before the checkpoint")?;
    let state = desk.server.folder().join("image.vhdx.partial.state");
    let good = fs::read(&state)?;
    fs::write(&state, &good[..good.len() - 1])?;
    refused(resume, "damaged")?;

    let run = export.expect_code(0)?;
    desk.expect_image(&run, "image.vhdx", &[])?;
    ensure!(run.job()?["artifacts"].get("resumedFromBytes").is_none());
    ensure!(desk.names()? == ["image.vhdx"], "{:?}", desk.names()?);
    Ok(())
}

#[test]
fn a_cancelled_export_leaves_nothing_unless_it_is_to_be_resumed() -> Result<()> {
    let desk = Desk::new(Setup::default().start(), 400 * MIB, Pattern::Dense)?;
    for (options, left) in [
        (["--hash"].as_slice(), [].as_slice()),
        (
            &["--hash", "--resume"],
            &["image.vhdx.partial", "image.vhdx.partial.state"],
        ),
    ] {
        let export = desk
            .export("share/image.vhdx")?
            .with(["--checkpoint-every", "8M"]);
        let running = export.with(options).start()?;
        wait_for_state(&desk.server)?;
        running.signal(Signal::INT)?;
        let run = running.finish()?;
        ensure!(
            run.status.code() == Some(130),
            "{}{}",
            run.stdout,
            run.stderr
        );
        ensure!(desk.names()? == left, "{:?}", desk.names()?);
    }
    let run = desk
        .export("share/image.vhdx")?
        .with(["--hash", "--resume"])
        .expect_code(0)?;
    desk.expect_image(&run, "image.vhdx", &[])
}

#[test]
fn a_job_that_times_out_while_the_server_is_away_says_what_is_left() -> Result<()> {
    let mut desk = Desk::new(Setup::default().start(), 200 * MIB, Pattern::Dense)?;
    let request = serde_json::json!({
        "operation": "export", "disk": {"path": text(&desk.disk)?}, "hashDisk": true,
        "outputStorageLocation": {"location": desk.server.url("share")},
        "outputImageFilename": "image", "timeoutSeconds": 5
    });
    let file = desk.folder.path().join("request.json");
    fs::write(&file, request.to_string())?;
    let credentials = desk.folder.path().join("smb.json");
    let run = ce_agent(["run", text(&file)?, "--json", "--checkpoint-every", "8M"])?;
    let run = run.with([
        "--smb-timeout",
        "3",
        "--smb-credentials",
        text(&credentials)?,
    ]);
    let running = run.start()?;
    wait_for_state(&desk.server)?;
    desk.server.stop();
    let run = running.finish()?;
    let (code, message) = failure(&run, 1)?;
    ensure!(code == "Timeout", "{code}: {message}");
    let warnings = run.job()?["warnings"].to_string();
    ensure!(
        warnings.contains("image.vhdx.partial is left"),
        "{warnings}"
    );
    ensure!(desk.names()?.contains(&"image.vhdx.partial".to_owned()));
    Ok(())
}

fn kill_after_a_checkpoint(export: &Invocation, desk: &Desk) -> Result<()> {
    let running = export.start()?;
    wait_for_state(&desk.server)?;
    kill(running)?;
    // The server notices that nobody is left, and closes the file.
    thread::sleep(Duration::from_millis(300));
    Ok(())
}

fn kill(running: Running) -> Result<()> {
    running.signal(Signal::KILL)?;
    let run = running.finish()?;
    ensure!(
        run.status.code().is_none(),
        "it had ended before: {}",
        run.stdout
    );
    Ok(())
}

fn wait_for_state(server: &Server) -> Result<()> {
    let folder = server.folder();
    wait_for(|| {
        let names = fs::read_dir(&folder).into_iter().flatten().flatten();
        names
            .map(|entry| entry.file_name())
            .any(|name| name.to_string_lossy().ends_with(".state"))
    })
}

fn wait_for(is_there: impl Fn() -> bool) -> Result<()> {
    let begin = Instant::now();
    while !is_there() {
        ensure!(
            begin.elapsed() < Duration::from_secs(30),
            "no checkpoint came"
        );
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn progress_never_goes_back(events: &[Value]) -> Result<()> {
    let mut before = 0;
    for event in events.iter().filter(|event| event["event"] == "progress") {
        let done = event["bytesDone"].as_u64().context("bytesDone")?;
        ensure!(done >= before, "{done} after {before}");
        before = done;
    }
    Ok(())
}
