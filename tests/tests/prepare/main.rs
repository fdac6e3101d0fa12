//! "I have an image of one platform and want it to start on another": what is done to the disk, what
//! other programs see of it, and that nothing at all is done unless all of it is.

mod disk;
#[path = "../../../platform-drivers/tests/prepare/guest.rs"]
#[expect(dead_code, reason = "the rest serves tests in memory")]
mod guest;
mod prepare_and_publish;
mod publish;
mod recovery;
#[path = "../../../disk-ops/tests/share/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest of it")]
mod share;

use std::ffi::OsString;
use std::fs;
use std::thread::sleep;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ce_platform::Platform;
use ce_tests::driver_package::{write_network_package, write_package};
use ce_tests::guest::{Firmware, PhonyWindows};
use ce_tests::oracle;
use ce_tests::pattern::MIB;
use ce_tests::tool::{QEMU_IMG, UNSHARE, text};
use rustix::process::Signal;
use serde_json::{Value, json};

use disk::{Bench, artifacts, fat_file, hivexsh, ntfs_file};
use guest::{Draft, Guest, SETS};

fn pairs() -> Vec<(Platform, Platform)> {
    let all = Platform::ALL.into_iter();
    let pairs = all.flat_map(|from| Platform::ALL.into_iter().map(move |to| (from, to)));
    // Each platform as source and as target; all pairs take long.
    let every = ce_tests::is_long();
    pairs
        .enumerate()
        .filter(|(index, _)| every || index % 7 == 1 || index % 7 == 5)
        .map(|(_, pair)| pair)
        .collect()
}

#[test]
fn a_disk_is_prepared_for_another_platform_once_and_for_good() -> Result<()> {
    for (from, to) in pairs() {
        let pair = format!("{from} to {to}");
        let bench = Bench::of(from, to)?;
        let found = bench.prepared(to).with_context(|| pair.clone())?;
        ensure!(found["proof"]["failures"] == json!([]), "{pair}: {found}");
        ensure!(found["changedBytes"].as_u64() > Some(0), "{pair}: {found}");
        let changes = found["changes"].as_array().context("no changes")?;
        ensure!(
            changes.iter().any(|change| change["outcome"] == "done"),
            "{pair}: {found}"
        );
        bench.checked_volumes().with_context(|| pair.clone())?;
        let after = bench.bytes()?;
        let again = bench.prepared(to)?;
        ensure!(
            bench.bytes()? == after,
            "{pair}: a second run has changed something"
        );
        ensure!(again["changedBytes"].is_null(), "{pair}: {again}");
        let done = again["changes"].as_array().context("no changes")?;
        let done = done.iter().filter(|change| change["outcome"] == "done");
        ensure!(done.count() == 0, "{pair}: {again}");
    }
    Ok(())
}

#[test]
fn scratch_that_is_too_small_is_told_before_anything_is_written() -> Result<()> {
    let bench = Bench::of(Platform::Vsphere, Platform::Azure)?;
    let before = bench.bytes()?;
    fs::create_dir(bench.scratch())?;
    let mut wrapper = vec![OsString::from(UNSHARE.path()?), "--mount".into()];
    if !rustix::process::geteuid().is_root() {
        wrapper.extend(["--user".into(), "--map-root-user".into()]);
    }
    let script = "mount -t tmpfs -o size=64k,mode=0700 small \"$0\" || exit 99; exec \"$@\"";
    wrapper.extend(["sh".into(), "-c".into(), script.into()]);
    wrapper.push(bench.scratch().into());
    let run = bench.prepare(Platform::Azure)?.below(wrapper);
    let job = run.expect_code(1)?.job()?;
    let message = job["error"]["message"].as_str().unwrap_or_default();
    ensure!(
        job["error"]["code"] == "ScratchNoSpace" && message.starts_with("the changes have"),
        "{job:#}"
    );
    ensure!(bench.bytes()? == before, "the disk was changed");
    Ok(())
}

#[test]
fn other_programs_see_the_drivers_of_the_target_start_and_those_of_the_source_gone() -> Result<()> {
    let bench = Bench::of(Platform::Vsphere, Platform::Azure)?;
    let found = bench.prepared(Platform::Azure)?;
    ensure!(found["sourcePlatform"] == "vsphere", "{found}");
    let (windows, boot) = bench.checked_volumes()?;
    let system = ntfs_file(&windows, "Windows/System32/config/SYSTEM")?;
    for set in ["ControlSet001", "ControlSet002"] {
        for service in ["vmbus", "storvsc"] {
            let said = hivexsh(
                &system,
                &format!("cd \\{set}\\Services\\{service}\nlsval Start\nls\n"),
            )?;
            ensure!(
                said.contains("dword:00000000") || said.trim() == "0",
                "{service}: {said}"
            );
            ensure!(!said.contains("StartOverride"), "{service}: {said}");
        }
    }
    let log = ntfs_file(&windows, "Windows/System32/config/SYSTEM.LOG1")?;
    ensure!(log.len() == 1024 && log[..512].iter().all(|byte| *byte == 0));
    let loader = fat_file(&boot, "EFI/Boot/bootx64.efi")?;
    ensure!(loader == fat_file(&boot, "EFI/Microsoft/Boot/bootmgfw.efi")?);
    hivexsh(
        &fat_file(&boot, "EFI/Microsoft/Boot/BCD")?,
        "cd \\Objects\nls\n",
    )?;
    let script = ntfs_file(&windows, "Windows/ce-agent/first-boot.cmd")?;
    let script = String::from_utf8(script)?;
    ensure!(
        script.contains("source=static address=10.20.30.40 mask=255.255.255.0 gateway=10.20.30.1"),
        "{script}"
    );
    Ok(())
}

#[test]
fn an_image_with_the_provisioning_target_device_software_stays_on_its_platform() -> Result<()> {
    let mut draft = Draft::windows();
    draft.came_from(Platform::Vsphere);
    draft.service("bnistack", 1, 0, "bnistack6.sys", "");
    draft.service("BNDevice", 0x10, 2, "BNDevice.exe", "");
    let bench = Bench::new(&draft.guest())?;
    let before = bench.bytes()?;
    let run = bench.prepare(Platform::Azure)?.expect_code(3)?;
    let (code, message) = run.error()?;
    ensure!(code == "PvsTargetPresent", "{code}: {message}");
    ensure!(bench.bytes()? == before, "the disk has changed");

    let found = bench.prepared(Platform::Vsphere)?;
    let changes = found["changes"].as_array().context("no changes")?;
    let mut network = changes.iter().filter(|change| change["id"] == "network");
    let told = network.next().context("nothing about the network")?;
    ensure!(
        told["outcome"] == "skipped" && network.next().is_none(),
        "{found}"
    );
    let (windows, _) = bench.checked_volumes()?;
    ensure!(ntfs_file(&windows, "Windows/ce-agent/first-boot.cmd").is_err());
    Ok(())
}

#[test]
fn a_plan_tells_every_change_with_its_reason_and_writes_nothing() -> Result<()> {
    let bench = Bench::of(Platform::Nutanix, Platform::Azure)?;
    let before = bench.bytes()?;
    let run = bench
        .prepare(Platform::Azure)?
        .with(["--plan"])
        .expect_code(0)?;
    let planned = artifacts(&run)?;
    let told = planned["changes"].as_array().context("no changes")?;
    ensure!(
        told.iter().all(|line| line["reason"].as_str() > Some("")),
        "{planned}"
    );
    ensure!(
        planned["proof"].is_null() && planned["changedBytes"].is_null(),
        "{planned}"
    );
    ensure!(bench.bytes()? == before, "a plan has changed the disk");
    ensure!(
        !bench.scratch().exists(),
        "a plan has made a scratch folder"
    );

    // The same of an image that is never written.
    let image = bench.path("disk.vhdx");
    QEMU_IMG.run(["convert", "-O", "vhdx", text(&bench.disk)?, text(&image)?])?;
    let of_image = ["prepare", text(&image)?, "--platform", "azure"];
    let run = ce_tests::agent::ce_agent(of_image)?
        .with(["--plan"])
        .expect_code(0)?;
    ensure!(
        run.stdout.contains("to do") && run.stdout.contains("deferred"),
        "{}",
        run.stdout
    );
    let refused = ce_tests::agent::ce_agent(of_image)?.expect_code(1)?;
    ensure!(
        refused.stderr.contains("never written"),
        "{}",
        refused.stderr
    );

    let done = bench.prepared(Platform::Azure)?;
    ensure!(
        done["changes"] == planned["changes"],
        "what was done is not what was planned"
    );
    Ok(())
}

#[test]
fn a_disk_that_is_not_the_one_of_the_hash_is_left_alone() -> Result<()> {
    let bench = Bench::of(Platform::Aws, Platform::Vsphere)?;
    let before = bench.bytes()?;
    let wrong = "0123456789abcdef0123456789abcdef";
    let run = bench
        .prepare(Platform::Vsphere)?
        .with(["--md5", wrong])
        .expect_code(4)?;
    let (code, message) = run.error()?;
    ensure!(code == "HashMismatch", "{code}");
    ensure!(
        message == format!("Expected hash [{wrong}] does not match provided disk"),
        "{message}"
    );
    ensure!(bench.bytes()? == before, "the disk has changed");

    let md5 = oracle::md5_of_file(&bench.disk)?;
    let upper = md5.to_uppercase();
    let run = bench
        .prepare(Platform::Vsphere)?
        .with(["--md5", &upper])
        .expect_code(0)?;
    let found = artifacts(&run)?;
    ensure!(found["md5Hash"] == md5.as_str(), "{found}");
    ensure!(
        found["hashedBytes"].as_u64() == Some(before.len() as u64),
        "{found}"
    );
    ensure!(bench.bytes()? != before, "nothing has changed");
    Ok(())
}

#[test]
fn a_disk_that_a_cloud_rounded_up_still_has_its_hash() -> Result<()> {
    let bench = Bench::of(Platform::Vsphere, Platform::Azure)?;
    let before = bench.bytes()?;
    let md5 = oracle::md5_of_file(&bench.disk)?;
    let grown = fs::OpenOptions::new().write(true).open(&bench.disk)?;
    grown.set_len(before.len() as u64 + 5 * MIB)?;
    let run = bench
        .prepare(Platform::Azure)?
        .with(["--md5", &md5, "--plan"])
        .expect_code(0)?;
    ensure!(artifacts(&run)?["md5Hash"].is_null());
    let run = bench
        .prepare(Platform::Azure)?
        .with(["--md5", &md5])
        .expect_code(0)?;
    let found = artifacts(&run)?;
    ensure!(
        found["hashedBytes"].as_u64() == Some(before.len() as u64),
        "{found}"
    );
    Ok(())
}

#[test]
fn everything_that_stands_against_it_is_told_at_once_and_nothing_is_touched() -> Result<()> {
    // No driver of the target.
    let mut draft = Draft::windows();
    draft.came_from(Platform::Vsphere);
    let bench = Bench::new(&draft.guest())?;
    let before = bench.bytes()?;
    let run = bench.prepare(Platform::Nutanix)?.expect_code(3)?;
    let (code, message) = run.error()?;
    ensure!(code == "DriverMissing", "{code}");
    ensure!(message.contains(r"PCI\VEN_1AF4&DEV_1004"), "{message}");
    let job = run.job()?;
    ensure!(
        job["error"]["hint"]
            .as_str()
            .is_some_and(|hint| hint.contains("Nutanix VirtIO")),
        "{job}"
    );
    ensure!(bench.bytes()? == before, "the disk has changed");

    // Starts by BIOS, and waits for a restart.
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk.raw");
    PhonyWindows::new()
        .firmware(Firmware::Bios)
        .step(ce_tests::disk::Step::File(
            "Windows/WinSxS/pending.xml".into(),
            "x".into(),
        ))
        .disk(400 * MIB)?
        .build(&disk)?;
    let before = fs::read(&disk)?;
    let scratch = folder.path().join("scratch");
    let run = ce_tests::agent::ce_agent([
        "prepare",
        text(&disk)?,
        "--platform",
        "azure",
        "--json",
        "--scratch",
        text(&scratch)?,
    ])?
    .expect_code(3)?;
    let blockers = run.job()?["error"]["blockers"].take();
    let codes: Vec<&str> = blockers
        .as_array()
        .context("no blockers")?
        .iter()
        .filter_map(|found| found["code"].as_str())
        .collect();
    ensure!(
        codes.contains(&"NotUefi") && codes.contains(&"PendingReboot"),
        "{codes:?}"
    );
    ensure!(fs::read(&disk)? == before, "the disk has changed");
    Ok(())
}

#[test]
fn drivers_that_the_target_needs_come_from_a_bundle() -> Result<()> {
    let mut draft = Draft::windows();
    draft.came_from(Platform::Vsphere);
    let bench = Bench::new(&draft.guest())?;
    let bundle = bench.path("bundle");
    write_package(&bundle.join("storage"), "vioscsi")?;
    write_network_package(&bundle.join("network"), "netkvm")?;
    let before = bench.bytes()?;
    let run = bench
        .prepare(Platform::Nutanix)?
        .with(["--drivers", text(&bundle.join("storage"))?]);
    let (code, message) = run.expect_code(3)?.error()?;
    ensure!(
        code == "DriverMissing" && message.contains("DEV_1000"),
        "{code}: {message}"
    );

    // A file that is not the one that was signed.
    let file = bundle.join("network").join("netkvm.sys");
    let driver = fs::read(&file)?;
    let mut changed = driver.clone();
    changed[0x90] ^= 1;
    fs::write(&file, changed)?;
    let prepare = bench
        .prepare(Platform::Nutanix)?
        .with(["--drivers", text(&bundle)?]);
    let (code, message) = prepare.expect_code(3)?.error()?;
    ensure!(
        code == "DriverInvalid" && message.contains("netkvm"),
        "{code}: {message}"
    );
    ensure!(bench.bytes()? == before, "the disk has changed");

    fs::write(&file, &driver)?;
    let found = artifacts(&prepare.expect_code(0)?)?;
    ensure!(found["proof"]["failures"] == json!([]), "{found}");
    let (windows, _) = bench.checked_volumes()?;
    let put_in = fs::read(bundle.join("storage").join("vioscsi.sys"))?;
    ensure!(ntfs_file(&windows, "Windows/System32/drivers/vioscsi.sys")? == put_in);
    let inf = fs::read(bundle.join("storage").join("vioscsi.inf"))?;
    let is_there = |number: u32| {
        let name = format!("Windows/INF/oem{number}.inf");
        ntfs_file(&windows, &name).is_ok_and(|content| content == inf)
    };
    ensure!((0..100).any(is_there), "no oemN.inf is the package's");
    let system = ntfs_file(&windows, "Windows/System32/config/SYSTEM")?;
    for set in ["ControlSet001", "ControlSet002"] {
        let said = hivexsh(
            &system,
            &format!("cd \\{set}\\Services\\vioscsi\nlsval Start\nlsval ImagePath\n"),
        )?;
        ensure!(said.contains("vioscsi.sys"), "{said}");
    }
    let ids = hivexsh(
        &system,
        "cd \\DriverDatabase\\DeviceIds\\PCI\\VEN_1AF4&DEV_1048\nlsval\n",
    )?;
    ensure!(ids.contains("oem"), "{ids}");
    let software = ntfs_file(&windows, "Windows/System32/config/SOFTWARE")?;
    let file = r"PnpLockdownFiles\%SystemRoot%/System32/drivers/vioscsi.sys";
    let owner = hivexsh(
        &software,
        &format!("cd \\Microsoft\\Windows\\CurrentVersion\\Setup\\{file}\nlsval\n"),
    )?;
    ensure!(owner.contains("\"Class\"=dword:00000005"), "{owner}");
    let again = artifacts(&prepare.expect_code(0)?)?;
    ensure!(again["changedBytes"].is_null(), "{again}");
    Ok(())
}

#[test]
fn a_windows_without_a_driver_database_gets_drivers_of_a_bundle_too() -> Result<()> {
    let mut draft = Draft::windows();
    draft.came_from(Platform::Vsphere);
    draft.drop_database();
    let bench = Bench::new(&draft.guest())?;
    let bundle = bench.path("bundle");
    write_package(&bundle.join("storage"), "vioscsi")?;
    write_network_package(&bundle.join("network"), "netkvm")?;
    let prepare = bench
        .prepare(Platform::Nutanix)?
        .with(["--drivers", text(&bundle)?]);
    let found = artifacts(&prepare.expect_code(0)?)?;
    ensure!(found["proof"]["failures"] == json!([]), "{found}");
    let (windows, _) = bench.checked_volumes()?;
    let put_in = fs::read(bundle.join("storage").join("vioscsi.sys"))?;
    for path in [
        "Windows/System32/drivers/vioscsi.sys",
        "Windows/INF/vioscsi.sys",
    ] {
        ensure!(ntfs_file(&windows, path)? == put_in, "{path}");
    }
    let inf = fs::read(bundle.join("network").join("netkvm.inf"))?;
    ensure!(ntfs_file(&windows, "Windows/INF/netkvm.inf")? == inf);
    let system = ntfs_file(&windows, "Windows/System32/config/SYSTEM")?;
    for set in SETS {
        let id = "PCI#VEN_1AF4&DEV_1048&SUBSYS_11001AF4&REV_01";
        let key = format!("\\{set}\\Control\\CriticalDeviceDatabase\\{id}");
        let said = hivexsh(&system, &format!("cd {key}\nlsval\n"))?;
        ensure!(said.contains("\"Service\"=\"vioscsi\""), "{set}: {said}");
    }
    let again = artifacts(&prepare.expect_code(0)?)?;
    ensure!(again["changedBytes"].is_null(), "{again}");
    Ok(())
}

#[test]
fn a_prepare_that_is_killed_leaves_the_old_disk_or_the_new_one() -> Result<()> {
    let guest = Guest::of(Platform::Xenserver, Platform::Azure);
    let bench = Bench::new(&guest)?;
    let old = bench.bytes()?;
    let began = Instant::now();
    bench.prepared(Platform::Azure)?;
    let takes = began.elapsed();
    let (mut before, mut after) = (0, 0);
    let rounds = if ce_tests::is_long() { 60 } else { 12 };
    for round in 0..rounds {
        fs::write(&bench.disk, &old)?;
        let running = bench.prepare(Platform::Azure)?.start()?;
        sleep(takes * (round * 7 % rounds + 1) / rounds);
        running.signal(Signal::KILL)?;
        running.finish()?;
        let scratch = bench.scratch();
        if scratch.exists() {
            let recover = ["recover", "--scratch", text(&scratch)?];
            ce_tests::agent::ce_agent(recover)?.expect_code(0)?;
        }
        if bench.bytes()? == old {
            before += 1;
            continue;
        }
        after += 1;
        bench.checked_volumes()?;
        let again = bench.prepared(Platform::Azure)?;
        ensure!(
            again["changedBytes"].is_null(),
            "only a part was committed: {again}"
        );
    }
    ensure!(
        before > 0,
        "no kill of {rounds} came before the commit ({after} after)"
    );
    Ok(())
}

#[test]
fn a_prepare_that_is_cancelled_leaves_the_disk_as_it_was() -> Result<()> {
    let bench = Bench::of(Platform::Gcp, Platform::Azure)?;
    let old = bench.bytes()?;
    let began = Instant::now();
    bench.prepared(Platform::Azure)?;
    let takes = began.elapsed();
    fs::write(&bench.disk, &old)?;
    let mut cancelled = 0;
    for part in 0..10 {
        let running = bench.prepare(Platform::Azure)?.start()?;
        let delay = takes * part / 10;
        sleep(delay);
        running.signal(Signal::INT)?;
        let run = running.finish()?;
        match run.status.code() {
            Some(130) => {
                cancelled += 1;
                ensure!(
                    bench.bytes()? == old,
                    "cancelled after {delay:?}, and changed"
                );
            }
            // Before it could hear it, or too late.
            None => ensure!(bench.bytes()? == old, "ended after {delay:?}, and changed"),
            Some(0) => fs::write(&bench.disk, &old)?,
            other => anyhow::bail!("{other:?}: {}{}", run.stdout, run.stderr),
        }
    }
    ensure!(cancelled > 0, "nothing was ever cancelled");
    Ok(())
}

#[test]
fn an_orchestrator_words_it_as_a_request() -> Result<()> {
    let bench = Bench::of(Platform::Vsphere, Platform::Azure)?;
    let request = |more: Value| {
        let mut request = json!({"operation": "prepare", "platform": "Azure"});
        for (name, value) in more.as_object().into_iter().flatten() {
            request[name] = value.clone();
        }
        request.to_string()
    };
    let path = bench.path("request.json");
    let run = |text_of: String| -> Result<_> {
        fs::write(&path, text_of)?;
        let scratch = bench.scratch();
        ce_tests::agent::ce_agent([
            "run",
            text(&path)?,
            "--disk",
            text(&bench.disk)?,
            "--scratch",
            text(&scratch)?,
            "--json",
        ])
    };
    let wrong = json!({
        "md5Hash": "12", "hashedBytes": 0, "xdReconfigure": {"controllers": ["a b"], "portNumber": 0},
        "hashDisk": true, "network": "static",
    });
    let (code, message) = run(request(wrong))?.expect_code(2)?.error()?;
    ensure!(code == "InvalidRequest", "{code}");
    for field in [
        "md5Hash",
        "hashedBytes",
        "xdReconfigure.controllers",
        "xdReconfigure.portNumber",
        "hashDisk",
        "network",
    ] {
        ensure!(message.contains(field), "{field}: {message}");
    }
    let right = json!({
        "provisioningType": "Mcs", "domainUnjoin": false, "network": "dhcp",
        "xdReconfigure": {"controllers": ["ddc1.example.com"], "portNumber": 8080},
        "md5Hash": oracle::md5_of_file(&bench.disk)?,
    });
    let found = artifacts(&run(request(right))?.expect_code(0)?)?;
    ensure!(found["proof"]["failures"] == json!([]), "{found}");
    let (windows, _) = bench.checked_volumes()?;
    let system = ntfs_file(&windows, "Windows/System32/config/SYSTEM")?;
    for set in SETS {
        let interfaces = format!(r"\{set}\Services\Tcpip\Parameters\Interfaces");
        let said = hivexsh(
            &system,
            &format!("cd {interfaces}\\{{6F1C0A5E-0000-4B1D-8F00-5A1DE2C90007}}\nlsval\n"),
        )?;
        ensure!(
            said.contains("\"EnableDHCP\"=dword:00000001") && !said.contains("IPAddress"),
            "{set}: {said}"
        );
    }
    Ok(())
}
