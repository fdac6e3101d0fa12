//! A disk of its own for what a prepare keeps until it commits: the rest of the machine is memory.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use ce_platform::Platform;
use ce_tests::oracle;
use ce_tests::pattern::MIB;
use ce_tests::tool::{DUMPE2FS, E2FSCK, said, text};
use serde_json::{Value, json};

use crate::built::image;
use crate::machine::{Machine, Plan, empty_disk};
use crate::site::Site;
use crate::work::{config, site};
use crate::{guest, guest_disk};

/// A machine with a Windows and a disk for scratch.
fn start(site: &Site, agent: &str, windows: &Path, scratch: &Path) -> Result<Machine> {
    let config = config(site, agent)? + "[scratch_disk]\nserial = 'scratch'\n";
    let mut machine = Plan::new(config)?
        .drive("a", windows)?
        .drive("b", scratch)?
        .device("virtio-scsi-pci,id=scsi")
        .device("scsi-hd,bus=scsi.0,drive=a,serial=windows")
        .device("scsi-hd,bus=scsi.0,drive=b,serial=scratch")
        .start(image()?)?;
    machine.until_said("the session stands")?;
    Ok(machine)
}

fn windows(site: &Site) -> Result<PathBuf> {
    let path = site.path("disks").join("windows.raw");
    let guest = guest::Guest::of(Platform::Vsphere, Platform::Azure);
    guest_disk::make(&guest, &path)?;
    Ok(path)
}

fn prepare() -> Value {
    json!({"operation": "prepare", "platform": "azure", "disk": {"serial": "windows"}})
}

/// What another program says of the file system: its state is checked, and when it was made is told.
fn made_at(scratch: &Path) -> Result<String> {
    E2FSCK.run(["-f", "-n", text(scratch)?])?;
    let facts = said(&DUMPE2FS.run(["-h", text(scratch)?])?);
    ensure!(facts.contains("ce-scratch"), "{facts}");
    let made = facts.lines().find(|line| line.contains("created:"));
    Ok(made.unwrap_or_default().to_owned())
}

#[test]
fn a_blank_disk_becomes_scratch_and_is_taken_again_by_the_next_machine() -> Result<()> {
    let site = site()?;
    let (windows, scratch) = (windows(&site)?, site.path("scratch.raw"));
    empty_disk(&scratch, 300 * MIB)?;
    let mut first = start(&site, "ce-1", &windows, &scratch)?;
    let prepared = site.complete(&site.submit(&prepare())?)?;
    ensure!(
        !prepared["warnings"].to_string().contains("in memory"),
        "{prepared:#}"
    );
    // It is no disk for jobs.
    let job = json!({"operation": "inspect", "disk": {"serial": "scratch"}});
    let refused = site.ended(&site.submit(&job)?)?;
    ensure!(refused["error"]["code"] == "DiskBusy", "{refused:#}");
    site.said(&["dismiss", "ce-1"])?;
    first.until_off()?;
    let made = made_at(&scratch)?;

    let mut second = start(&site, "ce-2", &windows, &scratch)?;
    let again = site.complete(&site.submit(&prepare())?)?;
    ensure!(
        again["artifacts"]["proof"]["failures"] == json!([]),
        "{again:#}"
    );
    site.said(&["dismiss", "ce-2"])?;
    second.until_off()?;
    ensure!(made_at(&scratch)? == made, "it was made anew");
    Ok(())
}

#[test]
fn a_scratch_disk_with_something_on_it_is_left_alone_and_nothing_is_prepared() -> Result<()> {
    let site = site()?;
    let (windows, scratch) = (windows(&site)?, site.disk("scratch.raw", 300 * MIB)?);
    let md5 = |path: &Path| oracle::md5_of_file(path);
    let before = (md5(&windows)?, md5(&scratch)?);
    let mut machine = start(&site, "ce-1", &windows, &scratch)?;
    let refused = site.ended(&site.submit(&prepare())?)?;
    let message = refused["error"]["message"].as_str().unwrap_or_default();
    ensure!(
        refused["error"]["code"] == "ScratchFailed" && message.contains("is not empty"),
        "{refused:#}"
    );
    machine.until_said("is not empty")?;
    // What keeps nothing goes on as ever.
    site.complete(&site.submit(&json!({"operation": "inspect", "disk": {"serial": "windows"}}))?)?;
    site.said(&["dismiss", "ce-1"])?;
    machine.until_off()?;
    ensure!(
        (md5(&windows)?, md5(&scratch)?) == before,
        "a disk was changed"
    );
    Ok(())
}
