//! What is wrong is said on the console and at the Connector, and the machine switches itself off.

use anyhow::{Result, ensure};
use ce_tests::pattern::MIB;
use serde_json::{Value, json};

use crate::built::image;
use crate::machine::{Plan, empty_disk};
use crate::site::Site;
use crate::work::{HOST, config, config_with, site, with_patience};

/// Gives a job that has to fail, and gives its error.
fn refused(site: &Site, disk: Value) -> Result<Value> {
    let job = site.submit(&json!({"operation": "inspect", "disk": disk}))?;
    let ended = site.ended(&job)?;
    ensure!(ended["status"] == "failed", "{ended:#}");
    Ok(ended["error"].clone())
}

#[test]
fn no_disk_two_disks_the_wrong_disk_a_disc_and_the_own_disk_are_refused() -> Result<()> {
    let site = site()?;
    let at = |name: &str| site.path("disks").join(name);
    empty_disk(&at("a.raw"), 8 * MIB)?;
    empty_disk(&at("b.raw"), 8 * MIB)?;
    empty_disk(&at("disc.iso"), 2 * MIB)?;
    let mut machine = Plan::new(config(&site, "ce-1")?)?
        .parameters("ce.idle=20 ce.hold=1")
        .drive("a", &at("a.raw"))?
        .drive("b", &at("b.raw"))?
        .drive("own", &image()?.join("ce.raw"))?
        .device("virtio-scsi-pci,id=scsi")
        .device("scsi-hd,bus=scsi.0,drive=a,serial=twin,lun=1")
        .device("scsi-hd,bus=scsi.0,drive=b,serial=twin,lun=2")
        .device("virtio-blk-pci,drive=own,serial=own")
        .drive("disc", &at("disc.iso"))?
        .device("scsi-cd,bus=scsi.0,drive=disc,lun=3")
        .start(image()?)?;
    machine.until_said("the session stands")?;
    for disk in ["sda", "sdb", "sr0", "vda"] {
        machine.until_said(&format!("disk {disk} is attached"))?;
    }
    for (disk, code, part) in [
        (
            json!({"serial": "none"}),
            "DiskNotFound",
            "no disk has serial `none`",
        ),
        (
            json!({"serial": "twin"}),
            "DiskAmbiguous",
            "serial `twin` is true of several disks",
        ),
        (
            json!({"lun": 1, "sizeBytes": 9 * MIB}),
            "DiskNotFound",
            "disk.sizeBytes says",
        ),
        (
            json!({"serial": "own"}),
            "DiskIsOwn",
            "serial `own` is a disk that this machine itself runs from",
        ),
        (
            json!({"path": "/dev/vda"}),
            "DiskIsOwn",
            "/dev/vda is on vda",
        ),
        (
            json!({"deviceName": "sr0"}),
            "DiskInvalid",
            "deviceName `sr0` is a removable medium: sr0 (",
        ),
        (
            json!({"path": "/dev/sr0"}),
            "DiskInvalid",
            "path `/dev/sr0` is a removable medium: sr0 (",
        ),
    ] {
        let error = refused(&site, disk.clone())?;
        let message = error["message"].as_str().unwrap_or_default();
        ensure!(
            error["code"] == code && message.contains(part),
            "{disk}: {error:#}"
        );
        machine.until_said(part)?;
    }
    // Nobody has work for it.
    let console = machine.until_off()?;
    ensure!(
        console.contains("power off: there was no job for 20 s (ce.idle)"),
        "{console}"
    );
    Ok(())
}

#[test]
fn a_disk_that_never_comes_is_told_after_the_wait_and_the_machine_switches_off() -> Result<()> {
    let site = site()?;
    empty_disk(&site.path("disks").join("other.raw"), 8 * MIB)?;
    let mut machine = Plan::new(with_patience(&config(&site, "ce-1")?, 5)?)?
        .parameters("ce.idle=20 ce.hold=1")
        .drive("other", &site.path("disks").join("other.raw"))?
        .device("virtio-blk-pci,drive=other,serial=other")
        .start(image()?)?;
    machine.until_said("the session stands")?;
    machine.until_said("disk vda is attached")?;
    let error = refused(&site, json!({"serial": "none"}))?;
    let message = error["message"].as_str().unwrap_or_default();
    let told = "waited 5 s for the disk: no disk has serial `none`; attached: vda (";
    ensure!(
        error["code"] == "DiskNotFound" && message.starts_with(told),
        "{error:#}"
    );
    let console = machine.until_off()?;
    for part in [
        "waiting for the disk serial `none`",
        told,
        "power off: there was no job for 20 s (ce.idle)",
    ] {
        ensure!(console.contains(part), "no `{part}` in:\n{console}");
    }
    Ok(())
}

#[test]
fn a_machine_without_a_network_says_so_and_switches_off() -> Result<()> {
    let site = site()?;
    let mut machine = Plan::new(config(&site, "ce-1")?)?
        .card(None)
        .parameters("ce.idle=40 ce.hold=1")
        .start(image()?)?;
    let console = machine.until_off()?;
    for part in [
        "network: no interface has an address",
        "no session",
        "power off: there was no job",
    ] {
        ensure!(console.contains(part), "no `{part}` in:\n{console}");
    }
    Ok(())
}

#[test]
fn a_machine_that_does_not_find_its_connector_says_so_and_switches_off() -> Result<()> {
    let mut site = site()?;
    let config = config(&site, "ce-1")?;
    site.kill()?;
    let mut machine = Plan::new(config)?
        .parameters("ce.idle=15 ce.hold=1")
        .start(image()?)?;
    let console = machine.until_off()?;
    let connector = format!("{HOST}:{}", site.agents.port());
    for part in ["no session", &connector, "power off: there was no job"] {
        ensure!(console.contains(part), "no `{part}` in:\n{console}");
    }
    Ok(())
}

#[test]
fn a_token_that_is_spent_is_told_on_both_sides_and_the_machine_switches_off() -> Result<()> {
    let site = site()?;
    let token = site.said(&["token", "new", "ce-1"])?.trim().to_owned();
    let mut first = Plan::new(config_with(&site, &token)?)?.start(image()?)?;
    first.until_said("the session stands")?;
    drop(first);
    let mut second = Plan::new(config_with(&site, &token)?)?
        .parameters("ce.idle=15 ce.hold=1")
        .start(image()?)?;
    site.until_logged("not let in: the token has been used")?;
    let console = second.until_off()?;
    for part in ["the token has been used", "power off: there was no job"] {
        ensure!(console.contains(part), "no `{part}` in:\n{console}");
    }
    Ok(())
}

#[test]
fn a_machine_whose_power_button_is_pressed_switches_off_in_order() -> Result<()> {
    let site = site()?;
    let mut machine = Plan::new(config(&site, "ce-1")?)?.start(image()?)?;
    machine.until_said("the session stands")?;
    machine.command("system_powerdown", &json!({}))?;
    let console = machine.until_off()?;
    for part in [
        "the power button was pressed",
        "asked to stop",
        "power off: this machine was asked to",
    ] {
        ensure!(console.contains(part), "no `{part}` in:\n{console}");
    }
    Ok(())
}

#[test]
fn a_configuration_that_is_none_is_told_with_its_line() -> Result<()> {
    let mut machine = Plan::new("connectors = ['x']\ntokn = 's3cret'\n".into())?.start(image()?)?;
    let console = machine.until_off()?;
    for part in [
        "/etc/ce-agent/config.toml, line 2: unknown field `tokn`",
        "power off: the agent fails again and again",
    ] {
        ensure!(console.contains(part), "no `{part}` in:\n{console}");
    }
    ensure!(!console.contains("s3cret"), "{console}");
    Ok(())
}
