//! The machine finds by itself what it is to do, wherever it runs.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use ce_tests::pattern::MIB;
use ce_tests::tool::{GENISOIMAGE, text};
use serde_json::json;

use crate::built::image;
use crate::cloud::{Cloud, HOST_IN_CLOUD, Owner};
use crate::machine::{Machine, Plan};
use crate::site::Site;
use crate::work::{config, config_for, config_with, site};

/// Lets a machine that has found its Connector look at a disk, and go.
fn inspects_and_goes(site: &Site, machine: &mut Machine) -> Result<String> {
    machine.until_said("the session stands")?;
    let disk = json!({"serial": "look-at-me"});
    let job = site.complete(&site.submit(&json!({"operation": "inspect", "disk": disk}))?)?;
    ensure!(job["artifacts"]["disk"]["sizeBytes"] == 8 * MIB, "{job:#}");
    site.said(&["dismiss", "ce-1"])?;
    machine.until_off()
}

/// A machine with a disk that is to be looked at.
fn with_disk(site: &Site, plan: Plan) -> Result<Plan> {
    let disk = site.disk("disk.raw", 8 * MIB)?;
    Ok(plan
        .drive("a", &disk)?
        .device("virtio-scsi-pci,id=scsi")
        .device("scsi-hd,bus=scsi.0,drive=a,serial=look-at-me"))
}

/// A machine in a cloud is configured by its metadata service.
fn works_in(owner: Owner, origin: &str, log: &[&str]) -> Result<()> {
    let site = Site::reached_as("127.0.0.1", HOST_IN_CLOUD)?;
    let token = site.said(&["token", "new", "ce-1"])?;
    let cloud = Cloud::of(owner, config_for(&site, HOST_IN_CLOUD, token.trim())?)?;
    let mut machine = with_disk(&site, cloud.with(Plan::unconfigured()?))?.start(image()?)?;
    let console = inspects_and_goes(&site, &mut machine)?;
    ensure!(
        console.contains(&format!("configured by {origin}")),
        "{console}"
    );
    ensure!(!console.contains(token.trim()), "{console}");
    ensure!(cloud.log() == log, "{:?}", cloud.log());
    Ok(())
}

#[test]
fn azure_tells_by_the_user_data_of_its_metadata_service() -> Result<()> {
    works_in(
        Owner::Azure,
        "Azure's user data",
        &["GET /metadata/instance/compute/userData?api-version=2021-01-01&format=text 200 OK"],
    )
}

#[test]
fn aws_tells_by_user_data_after_a_token() -> Result<()> {
    works_in(
        Owner::Aws,
        "the user data of AWS",
        &[
            "PUT /latest/api/token 200 OK",
            "GET /latest/user-data 200 OK",
        ],
    )
}

#[test]
fn google_cloud_tells_by_an_attribute() -> Result<()> {
    works_in(
        Owner::Gcp,
        "the attribute ce-agent-config of Google Cloud",
        &["GET /computeMetadata/v1/instance/attributes/ce-agent-config 200 OK"],
    )
}

#[test]
fn a_config_drive_tells_where_there_is_no_service() -> Result<()> {
    let site = site()?;
    let files = site.path("drive");
    fs::create_dir_all(files.join("openstack/latest"))?;
    fs::write(
        files.join("openstack/latest/user_data"),
        config(&site, "ce-1")?,
    )?;
    let drive = site.path("config.iso");
    let options = ["-quiet", "-R", "-J", "-V", "config-2", "-o", text(&drive)?];
    GENISOIMAGE.run(options.into_iter().chain([text(&files)?]))?;
    // Nutanix AHV attaches it as a CD.
    let plan = Plan::unconfigured()?
        .drive("config", &drive)?
        .device("ahci,id=sata")
        .device("ide-cd,bus=sata.0,drive=config");
    let mut machine = with_disk(&site, plan)?.start(image()?)?;
    let console = inspects_and_goes(&site, &mut machine)?;
    let origin = "configured by openstack/latest/user_data on the drive config-2";
    ensure!(console.contains(origin), "{console}");
    Ok(())
}

#[test]
fn a_cloud_that_keeps_nothing_for_the_machine_is_told_on_the_console() -> Result<()> {
    let cloud = Cloud::of(Owner::Gcp, "#cloud-config\n{}\n".into())?;
    let mut machine = cloud.with(Plan::unconfigured()?).start(image()?)?;
    let console = machine.until_off()?;
    for part in [
        "the attribute ce-agent-config of Google Cloud: this is a configuration of cloud-init",
        "power off: the agent fails again and again",
    ] {
        ensure!(console.contains(part), "no `{part}` in:\n{console}");
    }
    Ok(())
}

#[test]
fn a_token_whose_time_is_over_is_told_on_both_sides_and_the_machine_switches_off() -> Result<()> {
    let site = site()?;
    let token = site.said(&["token", "new", "ce-1", "--valid-for", "1"])?;
    sleep(Duration::from_secs(61));
    let mut machine = Plan::new(config_with(&site, token.trim())?)?
        .parameters("ce.idle=15 ce.hold=1")
        .start(image()?)?;
    site.until_logged("not let in: the token has expired")?;
    let console = machine.until_off()?;
    for part in ["the token has expired", "power off: there was no job"] {
        ensure!(console.contains(part), "no `{part}` in:\n{console}");
    }
    Ok(())
}
