//! Work that goes well, or is stopped by whoever asked for it.

use std::fs;

use anyhow::{Context, Result, ensure};
use ce_platform::Platform;
use ce_tests::guest::inspected;
use ce_tests::oracle;
use ce_tests::pattern::MIB;
use ce_tests::tool::text;
use serde_json::{Value, json};

use crate::bios_disk::{Bench, Layout};
use crate::share::{PASSWORD, Setup};
use crate::site::{Admission, Site, has_ended};
use crate::{guest, guest_disk};

#[test]
fn a_disk_is_exported_to_a_share_at_the_command_of_the_connector() -> Result<()> {
    let server = Setup::default().start();
    let site = Site::new()?;
    let disk = site.disk("disk.raw", 64 * MIB)?;
    site.keep_credentials(&server)?;
    let agent = site.agent("ce-1")?.start()?;
    let request = json!({
        "operation": "export",
        "disk": {"path": disk},
        "outputStorageLocation": {
            "location": server.url("share/folder"),
            "credentialId": "backup",
        },
        "outputImageFilename": "image",
        "hashDisk": true,
    });
    let file = site.write("request.json", &request.to_string())?;
    let waited = site
        .command(&["submit", text(&file)?, "--agent", "ce-1", "--wait"])?
        .expect_code(0)?;
    let (id, shown) = waited.stdout.split_once('\n').context("no job")?;
    let shown: Value = serde_json::from_str(shown)?;
    let md5 = oracle::md5_of_file(&disk)?;
    ensure!(shown["status"] == "complete", "{shown:#}");
    ensure!(shown["artifacts"]["md5Hash"] == md5, "{shown:#}");
    ensure!(shown["overallProgressPercent"] == 100, "{shown:#}");
    ensure!(server.folder().join("folder/image.vhdx").is_file());
    ensure!(site.show(id)?["artifacts"] == shown["artifacts"]);

    let listed = site.said(&["list"])?;
    ensure!(
        listed.contains(id) && listed.contains("complete"),
        "{listed}"
    );
    // `--follow` ends with the job; the agent's last records follow its result.
    let told = said_of(&site, id, "job is complete")?;
    ensure!(told.contains("job starts"), "{told}");
    let run = agent.stop()?;
    // The password is nowhere but in the wallet.
    let kept = fs::read_to_string(
        site.path("agent-ce-1/state/jobs")
            .join(format!("{id}.json")),
    )?;
    let log = fs::read_to_string(site.path("connector.log"))?;
    for text in [&run, &kept, &log, &told, &shown.to_string()] {
        ensure!(!text.contains(PASSWORD), "the password shows: {text}");
    }
    Ok(())
}

#[test]
fn an_agent_with_a_token_prepares_a_disk_that_the_orchestrator_names() -> Result<()> {
    let site = Site::new()?;
    let disk = site.path("disks").join("windows.raw");
    let windows = guest::Guest::of(Platform::Vsphere, Platform::Azure);
    guest_disk::make(&windows, &disk)?;
    let md5 = oracle::md5_of_file(&disk)?;
    let address = site.agents.to_string();
    let daemon = site.agent_by("ce-2", Admission::Token, &address, "")?;
    let agent = daemon.start()?;
    site.until_connected("ce-2")?;

    let body = json!({"platform": "AHV-or-so", "disk": {"path": disk}}).to_string();
    let (head, answer) = site.http("POST /images/$prepare", &body)?;
    ensure!(head.starts_with("HTTP/1.1 400"), "{head}");
    ensure!(answer["error"]["code"] == "InvalidRequest", "{answer}");
    let body = json!({"platform": "azure", "disk": {"path": disk}, "md5Hash": md5}).to_string();
    let (head, _) = site.http("POST /images/$prepare", &body)?;
    ensure!(head.starts_with("HTTP/1.1 202"), "{head}");
    let location = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("location").then_some(value)
    });
    let location = location.context("no Location")?;
    let id = location.trim_start_matches("/jobs/");
    let prepared = site.complete(id)?;
    let (_, job) = site.http(&format!("GET {location}"), "")?;
    ensure!(job["artifacts"] == prepared["artifacts"], "{job:#}");
    let artifacts = &job["artifacts"];
    ensure!(artifacts["md5Hash"] == md5, "{artifacts:#}");
    let changes = artifacts["changes"].as_array().context("no changes")?;
    ensure!(
        changes.iter().any(|change| change["outcome"] == "done"),
        "{changes:?}"
    );
    ensure!(artifacts["proof"]["failures"] == json!([]), "{artifacts:#}");
    ensure!(oracle::md5_of_file(&disk)? != md5, "nothing was changed");

    // The disk is another one now, and the orchestrator hears the words of the contract.
    let (_, accepted) = site.http("POST /images/$prepare", &body)?;
    let failed = site.ended(accepted["id"].as_str().context("no id")?)?;
    let message = format!("Expected hash [{md5}] does not match provided disk");
    ensure!(failed["error"]["code"] == "HashMismatch", "{failed:#}");
    ensure!(failed["error"]["message"] == message, "{failed:#}");
    agent.stop()?;

    // The token is spent: in other hands it opens nothing, and both sides say so.
    fs::remove_dir_all(site.path("agent-ce-2/state"))?;
    let thief = daemon.start()?;
    site.until_logged("not let in: the token has been used")?;
    let said = thief.stop()?;
    ensure!(said.contains("the token has been used"), "{said}");
    Ok(())
}

#[test]
fn a_disk_that_starts_by_bios_is_prepared_and_converted_if_the_request_says_so() -> Result<()> {
    let site = Site::new()?;
    let agent = site.agent("ce-1")?.start()?;
    let disk = site.path("disks").join("bios.raw");
    fs::rename(&Bench::new(&Layout::default())?.disk, &disk)?;
    let mut request = json!({"operation": "prepare", "platform": "azure", "disk": {"path": disk}});
    let refused = site.ended(&site.submit(&request)?)?;
    ensure!(refused["error"]["code"] == "NotUefi", "{refused:#}");
    ensure!(inspected(&disk)?["firmware"] == "BIOS");
    request["convertToUefi"] = true.into();
    let prepared = site.complete(&site.submit(&request)?)?;
    ensure!(
        prepared["artifacts"]["proof"]["failures"] == json!([]),
        "{prepared:#}"
    );
    ensure!(inspected(&disk)?["firmware"] == "UEFI");
    agent.stop()?;
    Ok(())
}

#[test]
fn a_job_is_cancelled_while_it_waits_and_while_it_runs() -> Result<()> {
    let site = Site::new()?;
    let disk = site.disk("disk.raw", 2000 * MIB)?;
    let waiting = site.submit(&site.export(&disk, "waiting"))?;
    ensure!(site.said(&["cancel", &waiting])?.trim() == "cancelled");
    let agent = site.agent("ce-1")?.start()?;
    let running = site.submit(&site.export(&disk, "running"))?;
    let begun = |job: &Value| has_ended(job) || job["overallProgressPercent"].as_u64() > Some(0);
    site.wait(&running, begun)?;
    let (head, _) = site.http(&format!("POST /jobs/{running}/$cancel"), "")?;
    ensure!(head.starts_with("HTTP/1.1 202"), "{head}");
    let ended = site.ended(&running)?;
    ensure!(ended["status"] == "cancelled", "{ended:#}");
    ensure!(ended["error"]["code"] == "Cancelled", "{ended:#}");
    ensure!(fs::read_dir(site.path("images"))?.next().is_none());
    // Too late is said to be too late.
    let run = site.command(&["cancel", &running])?.run()?;
    let told = format!("{}{}", run.stdout, run.stderr);
    ensure!(
        told.contains("cancelled") || told.contains("ended"),
        "{told}"
    );
    agent.stop()?;
    Ok(())
}

#[test]
fn what_an_agent_refuses_is_told_with_every_problem() -> Result<()> {
    let site = Site::new()?;
    let agent = site.agent("ce-1")?.start()?;
    let id = site.submit(&json!({
        "operation": "export",
        "disk": {"serial": "no such disk"},
        "outputStorageLocation": {"location": "/etc"},
        "outputImageFilename": "CON",
    }))?;
    let ended = site.ended(&id)?;
    ensure!(ended["status"] == "failed", "{ended:#}");
    let told = ended["error"].to_string();
    for field in ["outputImageFilename", "outputStorageLocation.location"] {
        ensure!(told.contains(field), "{field}: {told}");
    }
    let diagnostics = site.submit(&json!({"operation": "diagnostics"}))?;
    let ended = site.complete(&diagnostics)?;
    let bundle = &ended["artifacts"]["diagnostics"]["content"];
    ensure!(
        bundle.as_str().is_some_and(|text| text.starts_with("H4sI")),
        "{ended}"
    );
    agent.stop()?;
    Ok(())
}

/// Waits until the log of a job holds a text, and gives all of it.
fn said_of(site: &Site, job: &str, text: &str) -> Result<String> {
    let until = std::time::Instant::now() + crate::site::PATIENCE;
    loop {
        let told = site.said(&["logs", job])?;
        if told.contains(text) {
            return Ok(told);
        }
        ensure!(std::time::Instant::now() < until, "no `{text}` in {told}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}
