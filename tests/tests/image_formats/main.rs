//! "I give each platform the file that is for it, and the machine comes up." The image as `make image` leaves
//! it, in `$CE_IMAGE`: other programs look at the files, and UEFI starts each.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use ce_tests::agent::{binary, init_binary};
use ce_tests::oracle;
use ce_tests::tool::{QEMU_IMG, VHDIINFO, output_of, said, text};
use serde_json::Value;

#[path = "../image/machine.rs"]
#[expect(dead_code, reason = "the rest serves the tests of the image at work")]
mod machine;
#[path = "../../../disk-ops/tests/share/mod.rs"]
#[expect(dead_code, reason = "the site needs it")]
mod share;
#[path = "../connector/site.rs"]
#[expect(dead_code, reason = "the rest serves the tests of the Connector")]
mod site;

use machine::Plan;
use site::Site;

fn folder() -> Result<PathBuf> {
    let folder = std::env::var_os("CE_IMAGE").context("$CE_IMAGE is not set: `make test-image`")?;
    Ok(folder.into())
}

/// A file that the tests may write to, or that is no disk yet, of one of the image.
fn copied(name: &str, to: &Path) -> Result<PathBuf> {
    let copy = to.join(name);
    fs::copy(folder()?.join(name), &copy).with_context(|| name.to_owned())?;
    Ok(copy)
}

#[test]
fn the_image_is_small_and_its_checksums_are_right() -> Result<()> {
    let folder = folder()?;
    output_of(
        Command::new("sha256sum")
            .args(["--check", "--strict", "--quiet", "SHA256SUMS"])
            .current_dir(&folder),
    )?;
    let sums = fs::read_to_string(folder.join("SHA256SUMS"))?;
    for name in [
        "ce.raw",
        "ce.qcow2",
        "ce-azure.vhd",
        "ce-gcp.tar.gz",
        "ce.vmdk",
        "ce.ova",
        "ce-xenserver.vhd",
        "ce.iso",
        "ce.cdx.json",
    ] {
        ensure!(
            sums.contains(&format!("  {name}\n")),
            "{name} is not in {sums}"
        );
        let size = fs::metadata(folder.join(name))?.len();
        println!("{name}: {:.1} MiB", size as f64 / f64::from(1 << 20));
        ensure!(size <= 64 << 20, "{name} has {size} bytes");
    }
    Ok(())
}

#[test]
fn every_format_holds_the_same_disk_to_other_eyes() -> Result<()> {
    let folder = folder()?;
    let raw = folder.join("ce.raw");
    oracle::sgdisk_verify(&raw)?;
    for (name, format) in [
        ("ce.qcow2", "qcow2"),
        ("ce.vmdk", "vmdk"),
        ("ce-azure.vhd", "vpc"),
        ("ce-xenserver.vhd", "vpc"),
    ] {
        let file = folder.join(name);
        QEMU_IMG.run([
            "compare",
            "-f",
            "raw",
            "-F",
            format,
            text(&raw)?,
            text(&file)?,
        ])?;
    }
    for name in ["ce-azure.vhd", "ce-xenserver.vhd"] {
        let info = said(&VHDIINFO.run([text(&folder.join(name))?])?);
        ensure!(!info.contains("corrupt"), "{info}");
    }
    // Azure: whole MiB before the footer.
    let azure = fs::metadata(folder.join("ce-azure.vhd"))?.len();
    ensure!((azure - 512) % (1 << 20) == 0, "{azure} bytes");

    let work = tempfile::tempdir()?;
    for archive in ["ce.ova", "ce-gcp.tar.gz"] {
        let archive = folder.join(archive);
        output_of(
            Command::new("tar")
                .arg("-xf")
                .arg(&archive)
                .current_dir(work.path()),
        )?;
    }
    ensure!(
        oracle::md5_of_file(&work.path().join("ce.vmdk"))?
            == oracle::md5_of_file(&folder.join("ce.vmdk"))?
    );
    let manifest = fs::read_to_string(work.path().join("ce.mf"))?;
    for name in ["ce.ovf", "ce.vmdk"] {
        let sum = output_of(Command::new("sha256sum").arg(work.path().join(name)))?.stdout;
        let sum = String::from_utf8(sum)?;
        let sum = sum.split(' ').next().unwrap_or_default();
        ensure!(
            manifest.contains(&format!("SHA256({name})= {sum}")),
            "{manifest}"
        );
    }
    let gcp = work.path().join("disk.raw");
    ensure!(fs::metadata(&gcp)?.len() == 1 << 30);
    oracle::sgdisk_verify(&gcp)
}

#[test]
fn what_is_in_the_image_is_listed() -> Result<()> {
    let folder = folder()?;
    let listed: Value = serde_json::from_slice(&fs::read(folder.join("ce.cdx.json"))?)?;
    ensure!(
        listed["bomFormat"] == "CycloneDX",
        "{}",
        listed["bomFormat"]
    );
    let components = listed["components"].as_array().context("no components")?;
    let names: BTreeSet<_> = components
        .iter()
        .filter_map(|one| one["purl"].as_str())
        .collect();
    ensure!(names.len() == components.len(), "something is listed twice");
    for part in [
        "pkg:cargo/rustls@",
        "pkg:cargo/mozim@",
        "pkg:deb/debian/libsmbclient@",
        "pkg:deb/debian/linux-image-",
    ] {
        ensure!(names.iter().any(|name| name.starts_with(part)), "no {part}");
    }
    Ok(())
}

#[test]
fn uefi_starts_every_format_from_the_controllers_of_its_platform() -> Result<()> {
    let work = tempfile::tempdir()?;
    for (name, format, controller, device) in [
        (
            "ce.raw",
            "raw",
            "virtio-scsi-pci,id=c",
            "scsi-hd,bus=c.0,drive=own,bootindex=1",
        ),
        (
            "ce.vmdk",
            "vmdk",
            "virtio-scsi-pci,id=c",
            "scsi-hd,bus=c.0,drive=own,bootindex=1",
        ),
        (
            "ce.qcow2",
            "qcow2",
            "virtio-scsi-pci,id=c",
            "scsi-hd,bus=c.0,drive=own,bootindex=1",
        ),
        (
            "ce-azure.vhd",
            "vpc",
            "virtio-scsi-pci,id=c",
            "nvme,serial=own,drive=own,bootindex=1",
        ),
        (
            "ce-xenserver.vhd",
            "vpc",
            "ahci,id=c",
            "ide-hd,bus=c.0,drive=own,bootindex=1",
        ),
        (
            "ce.iso",
            "raw",
            "ahci,id=c",
            "ide-cd,bus=c.0,drive=own,bootindex=1",
        ),
    ] {
        let disk = copied(name, work.path())?;
        let mut machine = Plan::new(String::new())?
            .drive_of("own", &disk, format)?
            .device(controller)
            .device(device)
            .start_by_uefi()?;
        machine.until_said("network eth0: 10.0.2.15/24 by DHCP")?;
        // It has not been told where its Connector is, and says so.
        let told = machine.until_said("error: connectors: missing")?;
        println!(
            "{name}: {:.1} s from power on to its agent",
            told.as_secs_f32()
        );
        drop(machine);
        fs::remove_file(disk)?;
    }
    Ok(())
}

/// A Connector, and the configuration of an agent that it lets in.
fn site() -> Result<(Site, String)> {
    let site = Site::reached_as("127.0.0.1", "10.0.2.2")?;
    let token = site.said(&["token", "new", "ce-1"])?;
    let ca = fs::read_to_string(site.path("site/ca.pem"))?;
    let port = site.agents.port();
    let config = format!(
        "connectors = ['10.0.2.2:{port}']\ntoken = '{}'\nca = '''\n{ca}'''\n",
        token.trim()
    );
    Ok((site, config))
}

#[test]
fn a_machine_that_is_given_the_kernel_reaches_its_connector_without_firmware() -> Result<()> {
    let (site, config) = site()?;
    let mut machine = Plan::new(config)?.start(&folder()?)?;
    let reached = machine.until_said("the session stands")?;
    println!(
        "in session {:.1} s after power on, without firmware",
        reached.as_secs_f32()
    );
    site.said(&["dismiss", "ce-1"])?;
    machine.until_off()?;
    Ok(())
}

#[test]
fn a_machine_that_uefi_starts_reaches_its_connector_and_never_takes_its_own_disk() -> Result<()> {
    let (site, config) = site()?;
    let config = site.write("config.toml", &config)?;
    let built = site.path("built");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    output_of(
        Command::new("packaging/image/build.sh")
            .current_dir(root)
            .args(["--agent", text(binary()?)?, "--init", text(init_binary()?)?])
            .args([
                "--out",
                text(&built)?,
                "--level",
                "3",
                "--config",
                text(&config)?,
            ]),
    )?;
    let mut machine = Plan::new(String::new())?
        .drive("own", &built.join("ce.raw"))?
        .device("nvme,serial=own,drive=own,bootindex=1")
        .start_by_uefi()?;
    let reached = machine.until_said("the session stands")?;
    println!("in session {:.1} s after power on", reached.as_secs_f32());
    let job =
        site.submit(&serde_json::json!({"operation": "inspect", "disk": {"serial": "own"}}))?;
    let ended = site.ended(&job)?;
    ensure!(ended["error"]["code"] == "DiskIsOwn", "{ended:#}");
    site.said(&["dismiss", "ce-1"])?;
    machine.until_off()?;
    Ok(())
}
