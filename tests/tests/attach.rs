//! "I give a job before its disk is attached." The disk is a loop device, which only root can make; it comes
//! with no size at first, as disks do.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ce_tests::agent::{Invocation, ce_agent};
use ce_tests::oracle;
use ce_tests::pattern::MIB;
use ce_tests::tool::{LOSETUP, MKE2FS, MOUNT, UMOUNT, text};
use rustix::process::Signal;
use serde_json::{Value, json};

#[path = "../../disk-ops/tests/share/mod.rs"]
#[expect(dead_code, reason = "other tests use it")]
mod share;
#[path = "connector/site.rs"]
#[expect(dead_code, reason = "the rest serves the tests of the Connector")]
mod site;

use site::Site;

/// A device with this number is nobody else's. Each test has its own.
struct Loop(String);

impl Loop {
    fn number(number: u32) -> Self {
        Self(format!("loop{number}"))
    }

    fn node(&self) -> String {
        format!("/dev/{}", self.0)
    }

    fn attach(&self, file: &Path) -> Result<()> {
        self.attach_with(&[], file)
    }

    fn attach_with(&self, options: &[&str], file: &Path) -> Result<()> {
        let node = self.node();
        let arguments = options.iter().copied().chain([&*node, text(file)?]);
        LOSETUP
            .run(arguments)
            .context("loop devices need root and a kernel that has them")?;
        Ok(())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // One that was not attached can't be detached.
        let _ = LOSETUP.run(["--detach", &self.node()]);
    }
}

fn waiting(site: &Site, seconds: u32) -> Result<Invocation> {
    let wait = format!("CE_DISK_WAIT={seconds}");
    Ok(site.agent("ce-1")?.below(["env", &wait]))
}

fn export(site: &Site, device: &Loop) -> Value {
    json!({
        "operation": "export",
        "disk": {"deviceName": device.0},
        "outputStorageLocation": {"location": site.path("images")},
        "outputImageFilename": "image",
        "hashDisk": true,
    })
}

/// Waits until the Connector sees that the job waits.
fn until_waiting(site: &Site, job: &str) -> Result<()> {
    site.wait(job, |job| job["step"] == "waitForDisk")?;
    Ok(())
}

#[test]
fn a_job_waits_for_its_disk_and_goes_on_when_it_comes() -> Result<()> {
    let site = Site::new()?;
    let (device, disk) = (Loop::number(71), site.disk("disk.raw", 32 * MIB)?);
    let agent = waiting(&site, 600)?.start()?;
    let job = site.submit(&export(&site, &device))?;
    until_waiting(&site, &job)?;
    // Three heartbeats of silence would end the session.
    sleep(Duration::from_secs(7));
    ensure!(site.connected()? == ["ce-1"], "the session was lost");
    ensure!(site.show(&job)?["status"] == "inProgress");
    device.attach(&disk)?;
    let ended = site.complete(&job)?;
    let md5 = oracle::md5_of_file(&disk)?;
    ensure!(ended["artifacts"]["md5Hash"] == md5, "{ended:#}");
    let said = agent.stop()?;
    let waited = "waiting for the disk deviceName `loop71`";
    ensure!(said.contains(waited), "{said}");
    Ok(())
}

#[test]
fn a_disk_that_never_comes_is_told_with_those_that_are_there() -> Result<()> {
    let site = Site::new()?;
    let device = Loop::number(72);
    let agent = waiting(&site, 3)?.start()?;
    let mut request = export(&site, &device);
    let ended = site.ended(&site.submit(&request)?)?;
    let error = &ended["error"];
    let message = error["message"].as_str().unwrap_or_default();
    ensure!(error["code"] == "DiskNotFound", "{ended:#}");
    let told = "waited 3 s for the disk: no disk has deviceName `loop72`; attached: ";
    ensure!(message.starts_with(told), "{message}");
    // All else is looked at first, and told at once.
    request["outputImageFilename"] = "a/b".into();
    let refused = site.ended(&site.submit(&request)?)?;
    ensure!(refused["error"]["code"] == "InvalidRequest", "{refused:#}");
    agent.stop()?;
    Ok(())
}

#[test]
fn a_wait_ends_with_the_time_of_the_job_and_when_it_is_cancelled() -> Result<()> {
    let site = Site::new()?;
    let device = Loop::number(73);
    let agent = waiting(&site, 6000)?.start()?;
    let mut request = export(&site, &device);
    let job = site.submit(&request)?;
    until_waiting(&site, &job)?;
    site.said(&["cancel", &job])?;
    ensure!(site.ended(&job)?["status"] == "cancelled");
    request["timeoutSeconds"] = 5.into();
    let ended = site.ended(&site.submit(&request)?)?;
    let error = &ended["error"];
    ensure!(error["code"] == "DiskNotFound", "{ended:#}");
    agent.stop()?;
    Ok(())
}

#[test]
fn an_agent_that_is_killed_while_a_job_waits_takes_up_the_wait() -> Result<()> {
    let site = Site::new()?;
    let (device, disk) = (Loop::number(74), site.disk("disk.raw", 8 * MIB)?);
    let daemon = waiting(&site, 600)?;
    let agent = daemon.start()?;
    // One that changes its disk, and would be given up if it had begun.
    let request = json!({"operation": "convertToUefi", "disk": {"deviceName": device.0}});
    let job = site.submit(&request)?;
    until_waiting(&site, &job)?;
    agent.signal(Signal::KILL)?;
    drop(agent);
    let agent = daemon.start()?;
    site.until_connected("ce-1")?;
    device.attach(&disk)?;
    // It has begun: there is nothing on the disk that could be converted.
    let ended = site.ended(&job)?;
    let code = ended["error"]["code"].as_str().unwrap_or_default();
    ensure!(
        code != "Interrupted" && ended["status"] == "failed",
        "{ended:#}"
    );
    let warnings = ended["warnings"].to_string();
    ensure!(warnings.contains("the agent was restarted"), "{ended:#}");
    agent.stop()?;
    Ok(())
}

#[test]
fn a_disk_that_cannot_serve_is_refused_at_once_though_others_would_be_waited_for() -> Result<()> {
    let site = Site::new()?;
    let agent = waiting(&site, 6000)?.start()?;
    let (sealed, file) = (Loop::number(75), site.disk("sealed.raw", 8 * MIB)?);
    sealed.attach_with(&["--read-only"], &file)?;
    let (used, file) = (Loop::number(76), site.disk("used.raw", 16 * MIB)?);
    MKE2FS.run(["-q", "-F", "-t", "ext4", text(&file)?])?;
    used.attach(&file)?;
    let point = site.path("mounted");
    fs::create_dir(&point)?;
    MOUNT.run([used.node().as_ref(), point.as_path()])?;
    let by = |device: &Loop| json!({"deviceName": device.0});
    let refusals = [
        (
            "convertToUefi",
            by(&sealed),
            "DiskWriteFailed",
            "can't be written: loop75 (",
        ),
        ("inspect", by(&used), "DiskBusy", "in use: loop76 ("),
        (
            "inspect",
            json!({"path": used.node()}),
            "DiskBusy",
            text(&point)?,
        ),
        (
            "inspect",
            json!({"deviceName": sealed.0, "sizeBytes": 9 * MIB}),
            "DiskNotFound",
            "disk.sizeBytes says 9437184 bytes (9.0 MiB); attached: ",
        ),
    ];
    let told = refusals.map(|(operation, disk, code, part)| -> Result<()> {
        let request = json!({"operation": operation, "disk": disk});
        let ended = site.ended(&site.submit(&request)?)?;
        let message = ended["error"]["message"].as_str().unwrap_or_default();
        let is_told = ended["error"]["code"] == code && message.contains(part);
        ensure!(is_told, "{request}: {ended:#}");
        Ok(())
    });
    // Before anything is given up: nobody else unmounts it.
    UMOUNT.run([point.as_path()])?;
    told.into_iter().collect::<Result<()>>()?;
    // To read one that can't be written is no harm.
    let request = json!({"operation": "inspect", "disk": by(&sealed)});
    site.complete(&site.submit(&request)?)?;
    agent.stop()?;
    Ok(())
}

#[test]
fn a_local_run_waits_if_it_is_asked_to() -> Result<()> {
    let site = Site::new()?;
    let (device, disk) = (Loop::number(77), site.disk("disk.raw", 8 * MIB)?);
    let request = site.write("request.json", &export(&site, &device).to_string())?;
    let run = || ce_agent(["run", text(&request)?, "--json"]);
    let (code, _) = run()?.expect_code(1)?.error()?;
    ensure!(code == "DiskNotFound", "{code}");
    let began = run()?.with(["--disk-wait", "600"]).start()?;
    sleep(Duration::from_secs(3));
    device.attach(&disk)?;
    let ended = began.finish()?;
    let waited = ended.events()?.into_iter();
    let waited = waited.filter(|event| event["step"] == "waitForDisk");
    ensure!(waited.count() >= 1, "{}", ended.stdout);
    ensure!(ended.md5_hash()? == oracle::md5_of_file(&disk)?);
    Ok(())
}
