//! Work that goes well.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ce_platform::Platform;
use ce_tests::guest::inspected;
use ce_tests::oracle::{self, Comparison, Format};
use ce_tests::pattern::MIB;
use serde_json::{Value, json};

use crate::built::image;
use crate::machine::Plan;
use crate::share::{Server, Setup};
use crate::site::Site;
use crate::{guest, guest_disk};

/// Under this address an emulated machine finds the host.
pub const HOST: &str = "10.0.2.2";

/// A Connector that emulated machines reach.
pub fn site() -> Result<Site> {
    Site::reached_as("127.0.0.1", HOST)
}

/// The configuration of an agent that is let in by a token.
pub fn config(site: &Site, agent: &str) -> Result<String> {
    let token = site.said(&["token", "new", agent])?;
    config_with(site, token.trim())
}

/// The same with a token that there is already.
pub fn config_with(site: &Site, token: &str) -> Result<String> {
    config_for(site, HOST, token)
}

/// The same for a machine that finds the host under another address.
pub fn config_for(site: &Site, host: &str, token: &str) -> Result<String> {
    let ca = fs::read_to_string(site.path("site/ca.pem"))?;
    Ok(format!(
        "connectors = ['{host}:{}']\ntoken = '{token}'\nca = '''\n{ca}'''\n\
         [jobs]\nsmb_hosts = ['{host}']\ndisk_wait = 0\n",
        site.agents.port()
    ))
}

/// A configuration whose jobs wait so many seconds for their disks.
pub fn with_patience(config: &str, seconds: u32) -> Result<String> {
    let (without, with) = ("disk_wait = 0", format!("disk_wait = {seconds}"));
    ensure!(config.contains(without), "{config}");
    Ok(config.replace(without, &with))
}

fn export(server: &Server, selector: Value, image: &str) -> Value {
    json!({
        "operation": "export",
        "disk": selector,
        "outputStorageLocation": {
            "location": format!("smb://{HOST}:{}/share/images", server.port()),
            "credentialId": "backup",
        },
        "outputImageFilename": image,
        "hashDisk": true,
    })
}

/// Exports the disk that `selector` names, and compares what comes out with it.
fn exported(site: &Site, server: &Server, selector: Value, disk: &Path, name: &str) -> Result<()> {
    let job = site.complete(&site.submit(&export(server, selector, name))?)?;
    let md5 = oracle::md5_of_file(disk)?;
    ensure!(job["artifacts"]["md5Hash"] == md5, "{job:#}");
    let image = server.folder().join(format!("images/{name}.vhdx"));
    let comparison = oracle::qemu_compare((disk, Format::Raw), (&image, Format::Vhdx))?;
    ensure!(comparison == Comparison::Identical, "{comparison:?}");
    Ok(())
}

#[test]
fn the_image_exports_a_disk_prepares_another_and_switches_off() -> Result<()> {
    let server = Setup::default().start();
    let site = site()?;
    site.keep_credentials(&server)?;
    let disk = site.disk("disk.raw", 64 * MIB)?;
    let windows = site.path("disks").join("windows.raw");
    guest_disk::make(
        &guest::Guest::of(Platform::Vsphere, Platform::Azure),
        &windows,
    )?;
    let mut machine = Plan::new(config(&site, "ce-1")?)?
        .drive("a", &disk)?
        .drive("b", &windows)?
        .device("virtio-scsi-pci,id=scsi")
        .device("scsi-hd,bus=scsi.0,drive=a,serial=export-me")
        .device("nvme,drive=b,serial=prepare-me")
        .start(image()?)?;
    let reached = machine.until_said("the session stands")?;
    println!("in session {:.1} s after power on", reached.as_secs_f32());

    for disk in ["sda", "nvme0n1"] {
        machine.until_said(&format!("disk {disk} is attached"))?;
    }
    exported(
        &site,
        &server,
        json!({"serial": "export-me"}),
        &disk,
        "image",
    )?;
    let screen = machine.screen()?;
    for part in [
        "Compositing Engine",
        "network     eth0: 10.0.2.15/24 by DHCP, router 10.0.2.2",
        "session     in session with 10.0.2.2",
        "last error  none",
    ] {
        ensure!(
            screen.contains(part),
            "`{part}` is not on the screen:\n{screen}"
        );
    }

    let md5 = oracle::md5_of_file(&windows)?;
    let prepare = json!({
        "operation": "prepare", "platform": "azure",
        "disk": {"serial": "prepare-me"}, "md5Hash": md5,
    });
    let job = site.complete(&site.submit(&prepare)?)?;
    ensure!(
        job["artifacts"]["proof"]["failures"] == json!([]),
        "{job:#}"
    );

    site.said(&["dismiss", "ce-1"])?;
    let console = machine.until_off()?;
    ensure!(console.contains("goodbye"), "{console}");
    // That of the machine's chipset, not the kernel's own.
    ensure!(console.contains("watchdog: iTCO_wdt"), "{console}");
    // The machine is off: what it wrote is on the disk.
    ensure!(oracle::md5_of_file(&windows)? != md5, "nothing was changed");
    inspected(&windows)?;
    Ok(())
}

#[test]
fn every_controller_and_card_serves_and_a_disk_may_come_later() -> Result<()> {
    let server = Setup::default().start();
    let site = site()?;
    site.keep_credentials(&server)?;
    let (first, second) = (site.disk("a.raw", 8 * MIB)?, site.disk("b.raw", 9 * MIB)?);
    let (third, fourth) = (site.disk("c.raw", 10 * MIB)?, site.disk("d.raw", 11 * MIB)?);
    let mut machine = Plan::new(config(&site, "ce-1")?)?
        .card(Some("vmxnet3"))
        .drive("a", &first)?
        .drive("b", &second)?
        .drive("c", &third)?
        .device("pvscsi,id=vmware")
        // As on vSphere without disk.EnableUUID, it has no serial number.
        .device("scsi-hd,bus=vmware.0,drive=a,scsi-id=3")
        .device("virtio-blk-pci,drive=b,serial=virtio-disk")
        .device("ahci,id=sata")
        .device("ide-hd,bus=sata.0,drive=c,serial=sata-disk")
        .device("virtio-scsi-pci,id=scsi")
        .start(image()?)?;
    machine.until_said("the session stands")?;
    for disk in ["sda", "sdb", "vda"] {
        machine.until_said(&format!("disk {disk} is attached"))?;
    }
    // A wrong name is answered with all that are right.
    let wrong = export(&server, json!({"hctl": "99:0:3:0"}), "a");
    let refused = site.ended(&site.submit(&wrong)?)?["error"]["message"].to_string();
    let hctl = refused
        .split([' ', ','])
        .find(|word| word.ends_with(":0:3:0"));
    let hctl = hctl.with_context(|| refused.clone())?;
    exported(&site, &server, json!({"hctl": hctl}), &first, "a")?;
    exported(
        &site,
        &server,
        json!({"serial": "virtio-disk"}),
        &second,
        "b",
    )?;
    exported(&site, &server, json!({"serial": "sata-disk"}), &third, "c")?;
    machine.attach("late", &fourth, "serial=came-later")?;
    machine.until_said("disk sdc is attached")?;
    exported(
        &site,
        &server,
        json!({"serial": "came-later"}),
        &fourth,
        "d",
    )?;
    site.said(&["dismiss", "ce-1"])?;
    machine.until_off()?;
    Ok(())
}

#[test]
fn a_job_may_be_given_before_its_disk_is_attached() -> Result<()> {
    let server = Setup::default().start();
    let site = site()?;
    site.keep_credentials(&server)?;
    let (first, second) = (site.disk("a.raw", 8 * MIB)?, site.disk("b.raw", 24 * MIB)?);
    let mut machine = Plan::new(with_patience(&config(&site, "ce-1")?, 3600)?)?
        .device("virtio-scsi-pci,id=scsi")
        .start(image()?)?;
    machine.until_said("the session stands")?;
    let selector = json!({"serial": "came-later", "sizeBytes": 24 * MIB});
    let job = site.submit(&export(&server, selector, "image"))?;
    machine.until_said("waiting for the disk serial `came-later`")?;
    site.wait(&job, |job| job["step"] == "waitForDisk")?;
    let screen = machine.screen()?;
    let row = format!("job         export {job}: waiting for the disk");
    ensure!(screen.contains(&row), "no `{row}` in:\n{screen}");
    // Another one is no reason to begin.
    machine.attach("other", &first, "serial=another-one")?;
    machine.until_said("disk sda is attached")?;
    ensure!(site.show(&job)?["step"] == "waitForDisk");
    machine.attach("late", &second, "serial=came-later")?;
    let job = site.complete(&job)?;
    let md5 = oracle::md5_of_file(&second)?;
    ensure!(job["artifacts"]["md5Hash"] == md5, "{job:#}");
    let image = server.folder().join("images/image.vhdx");
    let comparison = oracle::qemu_compare((&second, Format::Raw), (&image, Format::Vhdx))?;
    ensure!(comparison == Comparison::Identical, "{comparison:?}");
    site.said(&["dismiss", "ce-1"])?;
    machine.until_off()?;
    Ok(())
}
