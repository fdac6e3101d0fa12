//! "My image starts by BIOS, and the cloud starts by UEFI only": what is done to the disk, what other
//! programs see of it, that firmware starts it, and that nothing at all is done unless all of it is.

mod disk;
mod firmware;
#[path = "../../../platform-drivers/tests/prepare/guest.rs"]
#[expect(dead_code, reason = "the rest serves tests in memory")]
mod guest;

use std::fs;
use std::os::unix::fs::FileExt;
use std::thread::sleep;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use ce_tests::disk::{Placed, SectorSize};
use ce_tests::guest::inspected;
use ce_tests::pattern::MIB;
use ce_tests::tool::{QEMU_IMG, text};
use rustix::process::Signal;
use serde_json::{Value, json};

use disk::{Bench, Layout, artifacts, as_stored, fat_file, hivexsh, ntfs_file};

const EFI_SYSTEM: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
const BASIC_DATA: &str = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7";
const RECOVERY: &str = "de94bba4-06d1-4d40-a16a-bfd50179d6ac";

/// The GUID of the entry in the store of the BIOS, which it keeps.
const LOADER: &str = "{6d5c1f0e-8a3b-4c27-9e10-52d17f3a00ff}";

#[test]
fn a_bios_disk_starts_by_uefi_afterwards_and_other_programs_agree() -> Result<()> {
    let bench = Bench::new(&Layout::default())?;
    let before = bench.bytes()?;
    let found = bench.convert()?;
    ensure!(found["proof"]["failures"] == json!([]), "{found}");
    ensure!(found["changedBytes"].as_u64() > Some(0), "{found}");
    let [system, windows, recovery] = bench.partitions[..] else {
        anyhow::bail!("{:?}", bench.partitions);
    };
    let (boot, volume) = bench.checked_volumes(system, windows)?;

    let kinds = [EFI_SYSTEM, BASIC_DATA, RECOVERY];
    let mut ids = Vec::new();
    for (number, kind) in (1..).zip(kinds) {
        let (found, id) = bench.partition(number)?;
        ensure!(found == kind, "partition {number}: {found}");
        ids.push(as_stored(&id)?);
    }
    let manager = ntfs_file(&volume, "Windows/Boot/EFI/bootmgfw.efi")?;
    for copy in ["EFI/Microsoft/Boot/bootmgfw.efi", "EFI/Boot/bootx64.efi"] {
        ensure!(fat_file(&boot, copy)? == manager, "{copy}");
    }
    for file in [
        "memtest.efi",
        "de-DE/bootmgfw.efi.mui",
        "Fonts/wgl4_boot.ttf",
    ] {
        fat_file(&boot, &format!("EFI/Microsoft/Boot/{file}"))?;
    }
    let store = fat_file(&boot, "EFI/Microsoft/Boot/BCD")?;
    let disk = as_stored(&bench.disk_guid()?)?;
    for (object, element, partition) in [
        (
            "{9dea862c-5cdd-4e70-acc1-f32b344d4795}",
            "11000001",
            &ids[0],
        ),
        (
            "{b2721d73-1db4-4c62-bf78-c548a880142d}",
            "11000001",
            &ids[0],
        ),
        (LOADER, "11000001", &ids[1]),
        (LOADER, "21000001", &ids[1]),
    ] {
        let key = format!("cd \\Objects\\{object}\\Elements\\{element}\nlsval\n");
        let told = hivexsh(&store, &key)?;
        ensure!(
            told.contains(partition.as_str()) && told.contains(&disk),
            "{object} {element}: {told}, expected {partition} of {disk}"
        );
    }
    let element = |number: &str| {
        let key = format!("cd \\Objects\\{LOADER}\\Elements\\{number}\nlsval Element\n");
        hivexsh(&store, &key)
    };
    ensure!(element("12000004")?.contains("Gold image"));
    ensure!(element("12000002")?.contains("winload.efi"));

    let hive = ntfs_file(&volume, "Windows/System32/config/SYSTEM")?;
    let told = hivexsh(&hive, "cd \\MountedDevices\nlsval\n")?;
    let expected = format!("44,4d,49,4f,3a,49,44,3a,{}", ids[1]);
    ensure!(told.contains(&expected) && !told.contains("S:"), "{told}");

    let reagent = ntfs_file(&volume, "Windows/System32/Recovery/ReAgent.xml")?;
    let reagent = String::from_utf8(reagent)?;
    let place = format!(
        "id=\"0\" offset=\"{}\" guid=\"{{{}}}\"",
        recovery.offset,
        bench.disk_guid()?
    );
    ensure!(reagent.contains(&place), "{reagent}, expected {place}");

    // Nothing was moved, and what is not Windows' was not touched.
    let after = bench.bytes()?;
    ensure!(after.len() == before.len());
    let range = recovery.offset as usize..(recovery.offset + recovery.length) as usize;
    ensure!(
        after[range.clone()] == before[range],
        "the recovery partition has changed"
    );
    ensure!(inspected(&bench.disk)?["firmware"] == "UEFI");
    let again = bench.convert()?;
    ensure!(again["changedBytes"].is_null(), "{again}");
    ensure!(
        bench.bytes()? == after,
        "a second run has changed something"
    );
    Ok(())
}

#[test]
fn firmware_starts_the_boot_manager_of_a_converted_disk() -> Result<()> {
    let bench = Bench::new(&Layout {
        says: "the boot manager was started",
        ..Layout::default()
    })?;
    bench.convert()?;
    let said = firmware::start(&bench.disk, "raw", &bench.path(""))?;
    ensure!(said.contains("the boot manager was started"), "{said}");
    Ok(())
}

#[test]
fn firmware_starts_an_image_that_was_published_of_a_bios_disk() -> Result<()> {
    let bench = Bench::new(&Layout {
        says: "the image was started",
        is_streamed: true,
        ..Layout::default()
    })?;
    let image = bench.path("golden.vhdx");
    let publish = bench.agent("prepare-and-publish")?;
    let publish = publish.with(["--platform", "azure", "--convert-to-uefi", "--to"]);
    let found = artifacts(&publish.with([text(&image)?]).expect_code(0)?)?;
    ensure!(found["proof"]["failures"] == json!([]), "{found}");
    bench.checked_volumes(bench.partitions[0], bench.partitions[1])?;
    QEMU_IMG.run(["compare", text(&bench.disk)?, text(&image)?])?;
    let said = firmware::start(&image, "vhdx", &bench.path(""))?;
    ensure!(said.contains("the image was started"), "{said}");
    Ok(())
}

#[test]
fn a_gap_becomes_the_efi_system_partition_where_the_other_one_has_to_stay() -> Result<()> {
    for layout in [
        Layout {
            system: None,
            left: 120,
            ..Layout::default()
        },
        Layout {
            more: Some("Recovery/WindowsRE/Winre.wim"),
            left: 120,
            ..Layout::default()
        },
    ] {
        let bench = Bench::new(&layout)?;
        bench.convert()?;
        let last = bench.partitions.last().context("no partition")?;
        let efi_system = Placed {
            offset: last.offset + last.length,
            length: 100 * MIB,
        };
        let windows = usize::from(layout.system.is_some());
        bench.checked_volumes(efi_system, bench.partitions[windows])?;
        // Behind it, the reserved one of Windows.
        let number = bench.partitions.len() as u32 + 1;
        ensure!(bench.partition(number)?.0 == EFI_SYSTEM);
        let (reserved, _) = bench.partition(number + 1)?;
        ensure!(
            reserved == "e3c9e316-0b5c-4db8-817d-f92df00215ae",
            "{reserved}"
        );
    }
    Ok(())
}

#[test]
fn a_disk_without_room_is_refused_with_the_numbers_and_left_alone() -> Result<()> {
    let alone = Layout {
        system: None,
        ..Layout::default()
    };
    let data = Layout {
        more: Some("invoices.txt"),
        ..Layout::default()
    };
    let small = Layout {
        system: Some(30),
        ..Layout::default()
    };
    for (layout, words) in [
        (alone, "the partition of Windows itself"),
        (data, "invoices.txt"),
        (small, "30.0 MiB"),
    ] {
        let bench = Bench::new(&layout)?;
        let before = bench.bytes()?;
        let run = bench.agent("convert-to-uefi")?.expect_code(3)?;
        let (code, message) = run.error()?;
        ensure!(code == "NotUefi", "{code}");
        ensure!(
            message.contains("33.0 MiB") && message.contains(words),
            "{message}"
        );
        let hint = run.job()?["error"]["hint"].to_string();
        ensure!(hint.contains("Grow the virtual disk by"), "{hint}");
        ensure!(bench.bytes()? == before, "the disk has changed");
    }
    Ok(())
}

#[test]
fn what_uefi_could_not_start_is_refused_with_what_to_do() -> Result<()> {
    let without = |file| Layout {
        without: Some(file),
        ..Layout::default()
    };
    let old = Layout {
        processor: "x86",
        ..Layout::default()
    };
    for (layout, words, way_out) in [
        (
            without(r"Windows\Boot\EFI\bootmgfw.efi"),
            r"Windows\Boot\EFI\bootmgfw.efi is missing",
            "sfc /scannow",
        ),
        (
            without(r"Windows\System32\winload.efi"),
            r"Windows\System32\winload.efi is missing",
            "sfc /scannow",
        ),
        (old, "Windows is x86", "64 bits"),
    ] {
        let bench = Bench::new(&layout)?;
        refused(&bench, "NotUefi", words, way_out)?;
    }
    let bench = Bench::new(&Layout::default())?;
    // The type of the third partition, by which the Logical Disk Manager is known.
    let third = fs::OpenOptions::new().write(true).open(&bench.disk)?;
    for (kind, code, words, way_out) in [
        (0x42, "DynamicDisk", "dynamic disk", ""),
        (0xDE, "NotUefi", "type 0xde", "Delete partitions"),
    ] {
        third.write_all_at(&[kind], 446 + 2 * 16 + 4)?;
        refused(&bench, code, words, way_out)?;
    }
    Ok(())
}

/// A conversion is refused with this code, and every byte is as it was.
fn refused(bench: &Bench, code: &str, words: &str, way_out: &str) -> Result<()> {
    let before = bench.bytes()?;
    let run = bench.agent("convert-to-uefi")?.expect_code(3)?;
    let (found, message) = run.error()?;
    ensure!(
        found == code && message.contains(words),
        "{found}: {message}"
    );
    let hint = run.job()?["error"]["hint"].to_string();
    ensure!(hint.contains(way_out), "{hint}");
    ensure!(bench.bytes()? == before, "the disk has changed");
    Ok(())
}

#[test]
fn a_disk_with_sectors_of_4096_bytes_is_converted_too() -> Result<()> {
    let bench = Bench::new(&Layout {
        system: Some(300),
        sector: SectorSize::B4096,
        ..Layout::default()
    })?;
    let found = bench.convert()?;
    ensure!(found["proof"]["failures"] == json!([]), "{found}");
    bench.checked_volumes(bench.partitions[0], bench.partitions[1])?;
    let again = bench.convert()?;
    ensure!(again["changedBytes"].is_null(), "{again}");
    Ok(())
}

#[test]
fn a_plan_tells_every_change_and_writes_nothing() -> Result<()> {
    let bench = Bench::new(&Layout::default())?;
    let before = bench.bytes()?;
    let run = bench
        .agent("convert-to-uefi")?
        .with(["--plan"])
        .expect_code(0)?;
    let planned = artifacts(&run)?;
    ensure!(bench.bytes()? == before, "a plan has changed the disk");
    ensure!(
        !bench.scratch().exists(),
        "a plan has made a scratch folder"
    );
    ensure!(planned["changedBytes"].is_null(), "{planned}");
    let shown = ce_tests::agent::ce_agent(["convert-to-uefi", text(&bench.disk)?, "--plan"])?;
    let shown = shown.expect_code(0)?.stdout;
    ensure!(
        shown.contains("to do") && !shown.contains("done"),
        "{shown}"
    );
    let done = bench.convert()?;
    ensure!(
        done["changes"] == planned["changes"],
        "{done} is not {planned}"
    );
    let told = done["changes"].to_string();
    for words in ["GPT in place of MBR", "boot files", "BCD", "MountedDevices"] {
        ensure!(told.contains(words), "{words}: {told}");
    }
    Ok(())
}

#[test]
fn a_prepare_converts_along_with_it_or_says_that_it_can() -> Result<()> {
    let bench = Bench::new(&Layout::default())?;
    let before = bench.bytes()?;
    let prepare = bench.agent("prepare")?.with(["--platform", "azure"]);
    let run = prepare.expect_code(3)?;
    let (code, _) = run.error()?;
    let hint = run.job()?["error"]["hint"].to_string();
    ensure!(
        code == "NotUefi" && hint.contains("--convert-to-uefi"),
        "{hint}"
    );
    ensure!(bench.bytes()? == before, "the disk has changed");

    let prepare = prepare.with(["--convert-to-uefi"]);
    let planned = bench.agent("prepare")?;
    let planned = planned.with(["--platform", "azure", "--convert-to-uefi", "--plan"]);
    let planned = artifacts(&planned.expect_code(0)?)?;
    ensure!(bench.bytes()? == before, "a plan has changed the disk");
    let found = artifacts(&prepare.expect_code(0)?)?;
    ensure!(
        found["changes"] == planned["changes"],
        "{found} is not {planned}"
    );
    ensure!(found["proof"]["failures"] == json!([]), "{found}");
    bench.checked_volumes(bench.partitions[0], bench.partitions[1])?;
    let after = bench.bytes()?;
    let again = artifacts(&prepare.expect_code(0)?)?;
    ensure!(again["changedBytes"].is_null(), "{again}");
    ensure!(
        bench.bytes()? == after,
        "a second run has changed something"
    );
    Ok(())
}

#[test]
fn an_orchestrator_words_it_as_a_request() -> Result<()> {
    let bench = Bench::new(&Layout::default())?;
    let request = |request: Value| -> Result<_> {
        let path = bench.path("request.json");
        fs::write(&path, request.to_string())?;
        let (disk, scratch) = (text(&bench.disk)?.to_owned(), bench.scratch());
        let arguments = [
            "run",
            text(&path)?,
            "--disk",
            &disk,
            "--scratch",
            text(&scratch)?,
        ];
        Ok(ce_tests::agent::ce_agent(arguments)?.with(["--json"]))
    };
    let wrong = json!({"operation": "convertToUefi", "hashDisk": true, "convertToUefi": true});
    let (code, message) = request(wrong)?.expect_code(2)?.error()?;
    ensure!(code == "InvalidRequest", "{code}");
    ensure!(
        message.contains("hashDisk") && message.contains("convertToUefi:"),
        "{message}"
    );
    let right = json!({"operation": "convertToUefi"});
    let job = request(right)?.expect_code(0)?.job()?;
    ensure!(job["operation"] == "convertToUefi", "{job}");
    let prepare = json!({"operation": "prepare", "platform": "Azure", "convertToUefi": true});
    let found = artifacts(&request(prepare)?.expect_code(0)?)?;
    ensure!(found["proof"]["failures"] == json!([]), "{found}");
    Ok(())
}

#[test]
fn a_conversion_that_is_killed_leaves_the_old_disk_or_the_new_one() -> Result<()> {
    let bench = Bench::new(&Layout::default())?;
    let old = bench.bytes()?;
    let began = Instant::now();
    bench.convert()?;
    let takes = began.elapsed();
    let mut before = 0;
    let rounds = if ce_tests::is_long() { 60 } else { 10 };
    for round in 0..rounds {
        fs::write(&bench.disk, &old)?;
        let running = bench.agent("convert-to-uefi")?.start()?;
        sleep(takes * (round * 7 % rounds) / rounds);
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
        bench.checked_volumes(bench.partitions[0], bench.partitions[1])?;
        let again = bench.convert()?;
        ensure!(
            again["changedBytes"].is_null(),
            "only a part was committed: {again}"
        );
    }
    ensure!(before > 0, "no kill of {rounds} came before the commit");
    Ok(())
}

/// The kernel does not carry out the write that it is killed at: what was written before is a part of
/// the new disk, and recovering makes the rest.
#[test]
fn a_commit_that_is_killed_at_any_of_its_writes_is_finished() -> Result<()> {
    let bench = Bench::new(&Layout::default())?;
    let old = bench.bytes()?;
    bench.convert_below_strace(&[])?.expect_code(0)?;
    let told = fs::read_to_string(bench.path("writes"))?;
    let of = |call: &str| told.matches(&format!(" {call}(")).count();
    let (writes, flushes) = (of("pwrite64"), of("fsync"));
    ensure!(writes > 5 && flushes > 0, "{told}");
    let every = |count: usize| match ce_tests::is_long() {
        true => (1..=count).collect(),
        false => vec![1, count / 2 + 1, count],
    };
    let moments = every(writes).into_iter().map(|nth| ("pwrite64", nth));
    for (call, nth) in moments.chain([("fsync", flushes)]) {
        fs::write(&bench.disk, &old)?;
        let last = format!("inject={call}:signal=KILL:when={nth}");
        let killed = bench.convert_below_strace(&["-e", &last])?.run()?;
        ensure!(!killed.status.success(), "{last} did not happen");
        let is_old = bench.bytes()? == old;
        ensure!(is_old == (call == "pwrite64" && nth == 1), "{last}");
        let scratch = bench.scratch();
        let recover = ["recover", "--scratch", text(&scratch)?];
        ce_tests::agent::ce_agent(recover)?.expect_code(0)?;
        bench.checked_volumes(bench.partitions[0], bench.partitions[1])?;
        let again = bench.convert()?;
        ensure!(
            again["changedBytes"].is_null(),
            "{last}: only a part was committed: {again}"
        );
    }
    Ok(())
}

#[test]
fn the_backup_of_a_disk_that_a_cloud_has_grown_goes_to_its_end() -> Result<()> {
    let bench = Bench::new(&Layout::default())?;
    bench.convert()?;
    let length = bench.bytes()?.len() as u64;
    let md5 = ce_tests::oracle::md5_of_file(&bench.disk)?;
    let file = fs::OpenOptions::new().write(true).open(&bench.disk)?;
    file.set_len(length + 64 * MIB)?;
    let prepare = bench
        .agent("prepare")?
        .with(["--platform", "azure", "--md5", &md5]);
    let found = artifacts(&prepare.expect_code(0)?)?;
    ensure!(found["hashedBytes"].as_u64() == Some(length), "{found}");
    ensure!(
        found["changes"].to_string().contains("backup GPT"),
        "{found}"
    );
    bench.checked_volumes(bench.partitions[0], bench.partitions[1])?;
    let end = format!("{:#x}", length + 64 * MIB - 512);
    ensure!(found["changes"].to_string().contains(&end), "{found}");
    Ok(())
}
