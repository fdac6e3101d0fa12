//! "I want PVS to stream this disk": what is written, and which disks are refused and why.

use std::fs;

use anyhow::{Context, Result, ensure};
use ce_platform::Platform;
use ce_tests::agent::{Finished, Invocation, ce_agent};
use ce_tests::guest::{Firmware, PhonyWindows};
use ce_tests::pattern::MIB;
use ce_tests::tool::{QEMU_IMG, text};
use serde_json::{Value, json};

use crate::disk::{Bench, artifacts, hivexsh, streamable, with_loader};
use crate::guest::Draft;

#[test]
fn a_disk_with_the_target_device_software_is_published_as_pvs_wants_it() -> Result<()> {
    let bench = Bench::new(&with_loader(streamable()))?;
    let before = bench.bytes()?;
    let image = bench.path("golden-1.vhdx");
    let run = bench
        .publish("golden-1.vhdx")?
        .with(["--platform", "azure", "--hash", "--verify"])
        .expect_code(0)?;
    let found = artifacts(&run)?;
    ensure!(bench.bytes()? == before, "publishing has changed the disk");
    ensure!(found["verified"] == true, "{found}");
    ensure!(
        found["md5Hash"].as_str().is_some_and(|md5| md5.len() == 32),
        "{found}"
    );
    let registration = found["registration"].as_str().context("no registration")?;
    ensure!(
        registration.contains("New-PvsDiskLocator -DiskLocatorName golden-1 "),
        "{registration}"
    );

    let told = QEMU_IMG.run(["info", "--output=json", text(&image)?])?;
    let told: Value = serde_json::from_slice(&told.stdout)?;
    ensure!(told["format"] == "vhdx", "{told}");
    ensure!(told["cluster-size"] == 32 * MIB, "{told}");
    ensure!(told["backing-filename"].is_null(), "{told}");
    QEMU_IMG.run(["check", text(&image)?])?;
    QEMU_IMG.run(["compare", text(&bench.disk)?, text(&image)?])?;

    // What a machine would read from it.
    let said = hivexsh(
        &bench.system_in(&image)?,
        "cd \\ControlSet001\\Services\\bnistack\nlsval ImagePath\n",
    )?;
    ensure!(said.contains("bnistack6.sys"), "{said}");
    Ok(())
}

#[test]
fn a_publish_tells_what_may_not_work_and_goes_on() -> Result<()> {
    let mut draft = streamable();
    let address = Draft::static_address("10.20.30.40", "255.255.255.0", "10.20.30.1");
    let adapter = r"VMBUS\{f8615163-df3e-46c5-913f-f2d2f965ed0e}\1";
    draft.adapter(7, adapter, "Ethernet", "netvsc", &address);
    draft
        .files
        .insert("Personality.ini".into(), b"[StringData]\r\n".to_vec());
    let bench = Bench::new(&with_loader(draft))?;
    let run = bench.publish("golden.vhdx")?.expect_code(0)?;
    let job = run.job()?;
    let warnings: Vec<&str> = job["warnings"]
        .as_array()
        .context("no warnings")?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    for expected in [
        "which platform the disk is to be streamed on is not known",
        "has the fixed address 10.20.30.40",
        "Personality.ini is there",
    ] {
        ensure!(
            warnings.iter().any(|warning| warning.contains(expected)),
            "{expected}: {warnings:#?}"
        );
    }
    Ok(())
}

#[test]
fn a_disk_that_cannot_be_streamed_is_refused_with_every_reason() -> Result<()> {
    let mut no_file = streamable();
    no_file
        .files
        .remove(r"Windows\System32\drivers\CfsDep2.sys");
    no_file.override_start("cvhdmp");
    let mut only_windows = Draft::windows();
    only_windows.install_drivers_of(Platform::Azure);
    let cases: [(&str, Draft, &str, &[&str]); 3] = [
        (
            "no software",
            only_windows,
            "azure",
            &["the target device software of Citrix Provisioning is not installed"],
        ),
        (
            "broken chain",
            no_file,
            "azure",
            &[
                "CfsDep2.sys is there",
                "ControlSet001: StartOverride",
                "ControlSet002: StartOverride",
            ],
        ),
        (
            "platform",
            streamable(),
            "aws",
            &["disks are not streamed on aws, but on azure, gcp, vsphere, xenserver"],
        ),
    ];
    for (what, draft, platform, expected) in cases {
        let bench = Bench::new(&with_loader(draft))?;
        let run = bench
            .publish("golden.vhdx")?
            .with(["--platform", platform])
            .expect_code(3)
            .context(what)?;
        refused(&run, expected).context(what)?;
        nothing_written(&bench).context(what)?;
    }
    Ok(())
}

#[test]
fn a_disk_that_starts_by_bios_or_has_no_windows_or_large_sectors_is_not_published() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("bios.raw");
    let windows = PhonyWindows::vda_on_vsphere().firmware(Firmware::Bios);
    windows.disk(160 * MIB)?.build(&disk)?;
    let image = folder.path().join("golden.vhdx");
    let run = ce_agent(["publish", text(&disk)?, "--to", text(&image)?, "--json"])?;
    let job = run.expect_code(3)?.job()?;
    let codes: Vec<&str> = job["error"]["blockers"]
        .as_array()
        .context("no blockers")?
        .iter()
        .filter_map(|blocker| blocker["code"].as_str())
        .collect();
    ensure!(codes.contains(&"NotUefi"), "{job}");
    ensure!(codes.contains(&"NotStreamable"), "{job}");

    let empty = folder.path().join("empty.raw");
    fs::File::create(&empty)?.set_len(8 * MIB)?;
    let run = ce_agent(["publish", text(&empty)?, "--to", text(&image)?, "--json"])?;
    let job = run.expect_code(3)?.job()?;
    ensure!(job["error"]["code"] == "NoWindows", "{job}");
    let large = ["publish", text(&empty)?, "--to", text(&image)?, "--json"];
    let run = ce_agent(large)?.with(["--sector-size", "4096"]);
    let (_, message) = run.expect_code(3)?.error()?;
    ensure!(
        message.contains("logical sectors of 4096 bytes"),
        "{message}"
    );
    ensure!(!image.exists());
    Ok(())
}

#[test]
fn a_name_that_pvs_does_not_take_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk.raw");
    fs::File::create(&disk)?.set_len(MIB)?;
    let long = format!("{}.vhdx", "x".repeat(53));
    for name in ["Büro.vhdx", "golden.vhd", "golden", &long] {
        let image = folder.path().join(name);
        let run = ce_agent(["publish", text(&disk)?, "--to", text(&image)?, "--json"])?;
        let job = run.expect_code(2)?.job()?;
        ensure!(job["error"]["code"] == "InvalidRequest", "{name}: {job}");
        ensure!(!image.exists(), "{name}");
    }
    Ok(())
}

#[test]
fn a_request_to_publish_says_the_same() -> Result<()> {
    let bench = Bench::new(&with_loader(streamable()))?;
    let request = |name: &str, format: Option<&str>| {
        json!({
            "operation": "publish",
            "platform": "azure",
            "disk": {"path": bench.disk},
            "outputStorageLocation": {"location": bench.disk.parent()},
            "outputImageFilename": name,
            "outputFormat": format,
            "hashDisk": true,
        })
    };
    let file = bench.path("request.json");
    let run = |request: Value| -> Result<Invocation> {
        fs::write(&file, request.to_string())?;
        ce_agent(["run", text(&file)?, "--json"])
    };
    let job = run(request(&"x".repeat(53), Some("VhdDiskFormat")))?
        .expect_code(2)?
        .job()?;
    let message = job["error"]["message"].as_str().unwrap_or_default();
    ensure!(
        message.contains("outputFormat: ") && message.contains("outputImageFilename: "),
        "{job}"
    );
    let job = run(request("golden", None))?.expect_code(0)?.job()?;
    ensure!(job["operation"] == "publish", "{job}");
    ensure!(
        job["artifacts"]["outputImage"] == json!(bench.path("golden.vhdx")),
        "{job}"
    );
    QEMU_IMG.run([
        "compare",
        text(&bench.disk)?,
        text(&bench.path("golden.vhdx"))?,
    ])?;
    Ok(())
}

fn refused(run: &Finished, expected: &[&str]) -> Result<()> {
    let job = run.job()?;
    ensure!(job["error"]["code"] == "NotStreamable", "{job}");
    let message = job["error"]["message"].as_str().unwrap_or_default();
    for part in expected {
        ensure!(message.contains(part), "{part}: {job}");
    }
    let blockers = job["error"]["blockers"].as_array().context("no blockers")?;
    ensure!(blockers.len() == expected.len(), "{job}");
    ensure!(
        blockers
            .iter()
            .all(|blocker| blocker["wayOut"].as_str() > Some("")),
        "{job}"
    );
    Ok(())
}

fn nothing_written(bench: &Bench) -> Result<()> {
    for entry in fs::read_dir(bench.path(""))? {
        let name = entry?.file_name();
        ensure!(name == "disk.raw", "{} was left", name.display());
    }
    Ok(())
}
