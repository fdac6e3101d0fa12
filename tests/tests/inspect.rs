//! "I look at a disk before I do anything with it": one page, and the same as JSON.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ce_tests::agent::ce_agent;
use ce_tests::disk::{Content, DiskBuilder, Role, Step, Table};
use ce_tests::guest::{Firmware, PhonyWindows, blocker_codes, inspected};
use ce_tests::pattern::{MIB, Pattern};
use ce_tests::tool::{WIMLIB_IMAGEX, text};
use serde_json::Value;
use tempfile::TempDir;

#[test]
fn a_vda_from_vsphere_is_described_down_to_its_drivers() -> Result<()> {
    let desk = Desk::new(&PhonyWindows::vda_on_vsphere(), 400 * MIB)?;
    let disk = desk.inspect()?;
    ensure!(disk["firmware"] == "UEFI", "{disk}");
    let boot = &disk["partitions"][0]["boot"];
    ensure!(
        boot["files"]
            == serde_json::json!([r"EFI\Microsoft\Boot\bootmgfw.efi", r"EFI\Boot\bootx64.efi"]),
        "{boot}"
    );
    ensure!(
        boot["defaultEntry"]["application"] == r"\Windows\system32\winload.efi",
        "{boot}"
    );
    let free = disk["partitions"][2]["freeBytes"]
        .as_u64()
        .context("no freeBytes")?;
    ensure!((200 * MIB..270 * MIB).contains(&free), "{free}");

    ensure!(disk["windows"].as_array().is_some_and(|all| all.len() == 1));
    let windows = &disk["windows"][0];
    ensure!(windows["partition"] == 3 && windows["folder"] == "Windows");
    ensure!(windows["sourcePlatform"] == "vsphere", "{windows}");
    let version = &windows["version"];
    for (field, expected) in [
        ("product", "Windows 11 Enterprise"),
        ("edition", "Enterprise"),
        ("version", "23H2"),
        ("architecture", "x64"),
        ("installed", "2024-08-01T09:58:24Z"),
    ] {
        ensure!(version[field] == expected, "{field}: {version}");
    }
    ensure!(
        version["build"] == 22631 && version["revision"] == 4345,
        "{version}"
    );
    ensure!(version["languages"] == serde_json::json!(["en-US"]));
    ensure!(windows["computer"]["name"] == "GOLD");
    let sets = &windows["controlSets"];
    ensure!(
        sets["current"] == 1 && sets["present"] == serde_json::json!([1]),
        "{sets}"
    );

    let driver = |name: &str| find(&windows["drivers"], "service", name);
    ensure!(driver("pvscsi")?["start"] == "boot");
    ensure!(driver("storahci")?["startOverride"][0]["start"] == "demand");
    ensure!(driver("vmxnet3ndis6")?["kind"] == "network");
    let component = |id: &str| find(&windows["components"], "id", id);
    ensure!(component("vmware-tools")?["version"] == "12.3.5.22544099");
    ensure!(component("citrix-vda")?["version"] == "2203.0.5000.5057");
    ensure!(component("citrix-workspace-app")?["version"] == "24.2.1000.2");
    ensure!(component("citrix-pvs-target").is_err());
    ensure!(
        disk["blockers"] == serde_json::json!([]),
        "{}",
        disk["blockers"]
    );

    let job = ce_agent(["inspect", text(&desk.disk)?, "--json"])?
        .expect_code(0)?
        .job()?;
    let artifacts = &job["artifacts"];
    ensure!(artifacts["sourcePlatform"] == "vsphere");
    ensure!(
        artifacts["windows"]["build"] == "22631.4345",
        "{}",
        artifacts["windows"]
    );
    Ok(())
}

#[test]
fn the_page_is_aligned_and_has_no_control_codes() -> Result<()> {
    let desk = Desk::new(&PhonyWindows::vda_on_vsphere(), 400 * MIB)?;
    let page = ce_agent(["inspect", text(&desk.disk)?])?
        .expect_code(0)?
        .stdout;
    ensure!(!page.contains('\u{1b}'), "{page}");
    for line in [
        "starts   by UEFI, \\Windows\\system32\\winload.efi",
        "Windows 11 Enterprise 23H2 (build 22631.4345)  Windows on partition 3",
        "  edition       Enterprise, Client, x64",
        "  computer      GOLD, in the workgroup WORKGROUP",
        "  control sets  001 (current, default, last known good)",
        "  comes from    VMware vSphere",
        "    pvscsi    boot  VMware paravirtual SCSI",
        "    storahci  boot  AHCI                     StartOverride 0=demand",
        "    VMware Tools  12.3.5.22544099",
    ] {
        ensure!(
            page.lines().any(|found| found == line),
            "no line {line:?} in\n{page}"
        );
    }
    let bar = page
        .lines()
        .find(|line| line.starts_with('▕'))
        .context("no map")?;
    ensure!((60..90).contains(&bar.chars().count()), "{bar}");
    ensure!(page.lines().all(|line| line.trim_end() == line), "{page}");
    Ok(())
}

#[test]
fn a_bios_disk_and_an_image_of_it_look_the_same() -> Result<()> {
    let desk = Desk::new(&PhonyWindows::new().firmware(Firmware::Bios), 300 * MIB)?;
    let raw = desk.inspect()?;
    ensure!(raw["firmware"] == "BIOS", "{raw}");
    ensure!(raw["partitions"][0]["boot"]["files"] == serde_json::json!(["bootmgr"]));
    ensure!(raw["windows"][0]["partition"] == 2);
    for format in ["vhdx", "vhd"] {
        let image = desk.folder.path().join(format!("image.{format}"));
        let export = ce_agent(["export", text(&desk.disk)?, "--to", text(&image)?])?;
        export.with(["--format", format]).expect_code(0)?;
        let found = inspected(&image)?;
        for part in ["firmware", "partitions", "windows", "blockers"] {
            ensure!(
                found[part] == raw[part],
                "{part} of a {format}: {}",
                found[part]
            );
        }
        let note = found["findings"].to_string();
        ensure!(note.contains("image file"), "{note}");
    }
    Ok(())
}

#[test]
fn several_installations_are_all_shown() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk.raw");
    let second = PhonyWindows::new().system(
        "[ControlSet001\\Control\\ComputerName\\ComputerName]\n\"ComputerName\"=\"SECOND\"\n",
    );
    DiskBuilder::new(200 * MIB)
        .table(Table::Gpt)
        .partition(Role::BasicData, 90 * MIB, PhonyWindows::new().volume()?)
        .partition(Role::BasicData, 90 * MIB, second.volume()?)
        .build(&disk)?;
    let found = inspected(&disk)?;
    let names: Vec<_> = (0..2)
        .map(|at| &found["windows"][at]["computer"]["name"])
        .collect();
    ensure!(names == ["GOLD", "SECOND"], "{names:?}");
    let blocker = find(&found["blockers"], "code", "MultipleWindows")?;
    let message = blocker["message"].as_str().context("no message")?;
    ensure!(
        message.contains("partition 1") && message.contains("partition 2"),
        "{message}"
    );
    let page = ce_agent(["inspect", text(&disk)?])?.expect_code(0)?.stdout;
    ensure!(
        page.matches("Windows 11 Enterprise 23H2").count() == 2,
        "{page}"
    );
    Ok(())
}

#[test]
fn what_cannot_be_read_is_a_finding_and_the_rest_is_shown() -> Result<()> {
    // SOFTWARE is none, a second volume has no record of its table, a third one is no FAT.
    let windows = PhonyWindows::new().file("Windows/System32/config/SOFTWARE", "not a hive");
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk.raw");
    let built = DiskBuilder::new(200 * MIB)
        .table(Table::Gpt)
        .partition(Role::BasicData, 90 * MIB, windows.volume()?)
        .partition(Role::BasicData, 20 * MIB, ntfs())
        .partition(
            Role::EfiSystem,
            40 * MIB,
            Content::Pattern(Pattern::Dense, 4),
        )
        .build(&disk)?;
    let file = fs::File::options().write(true).open(&disk)?;
    std::os::unix::fs::FileExt::write_all_at(&file, b"FAIL", built.partitions[1].offset + 16_384)?;
    let found = inspected(&disk)?;
    ensure!(found["windows"][0]["computer"]["name"] == "GOLD", "{found}");
    ensure!(found["windows"][0]["version"]["architecture"] == "x64");
    let codes: Vec<_> = blocker_codes(&found);
    ensure!(codes == ["NtfsDirty", "HiveCorrupt"], "{codes:?}");
    let findings = found["findings"].to_string();
    for said in ["SOFTWARE hive", "partition 2"] {
        ensure!(findings.contains(said), "{said}: {findings}");
    }
    Ok(())
}

#[test]
fn a_disk_without_windows_is_shown_as_far_as_it_goes() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk.raw");
    DiskBuilder::filled(8 * MIB, Pattern::Dense, 3).build(&disk)?;
    let found = inspected(&disk)?;
    ensure!(found["partitionTable"] == "none" && found["windows"] == serde_json::json!([]));
    ensure!(blocker_codes(&found) == ["NoWindows"]);
    Ok(())
}

#[test]
fn a_recovery_environment_is_told_with_whether_it_is_enabled_and_can_be_changed() -> Result<()> {
    let whole = wim(&[])?;
    let start = Desk::new(&PhonyWindows::new(), 400 * MIB)?.inspect()?["partitions"][3]["start"]
        .as_u64()
        .context("no start")?;
    let reagent = |state: u8, start: u64| {
        format!(
            "<?xml version='1.0' encoding='utf-8'?>\r\n<WindowsRE version=\"2.0\">\r\n  \
             <WinreLocation path=\"\\Recovery\\WindowsRE\" id=\"0\" offset=\"{start}\" guid=\"{{0}}\"/>\r\n  \
             <InstallState state=\"{state}\"/>\r\n</WindowsRE>\r\n"
        )
    };
    let cut = whole
        .get(..whole.len() - 1)
        .context("an empty WIM")?
        .to_vec();
    for (image, settings, enabled, problem) in [
        (whole.clone(), Some((1, start)), Some(true), None),
        (whole.clone(), Some((1, start + MIB)), Some(false), None),
        (whole.clone(), Some((0, start)), Some(false), None),
        (whole, None, None, None),
        (cut, None, None, Some("it is cut")),
        (wim(&["--pipable"])?, None, None, Some("pipable")),
        (wim(&["--solid"])?, None, None, Some("ESD")),
        (b"MSWIM".to_vec(), None, None, Some("no WIM")),
        (Vec::new(), None, None, Some("no WIM")),
    ] {
        let length = image.len();
        let mut windows = PhonyWindows::new().recovery(image);
        if let Some((state, start)) = settings {
            let path = "Windows/System32/Recovery/ReAgent.xml";
            windows = windows.file(path, reagent(state, start).as_str());
        }
        let found = Desk::new(&windows, 400 * MIB)?.inspect()?;
        let image = &found["recovery"][0];
        ensure!(
            found["recovery"].as_array().map(Vec::len) == Some(1),
            "{found}"
        );
        ensure!(image["partition"] == 4 && image["path"] == r"Recovery\WindowsRE\Winre.wim");
        ensure!(image["sizeBytes"] == length, "{image}");
        ensure!(
            image["isEnabled"].as_bool() == enabled,
            "{settings:?}: {image}"
        );
        let told = image["problem"].as_str();
        let is_told = match problem {
            Some(problem) => told.is_some_and(|told| told.contains(problem)),
            None => told.is_none(),
        };
        ensure!(is_told, "expected {problem:?}: {image}");
        ensure!(blocker_codes(&found).is_empty(), "{found}");
    }

    // One that is not in use lies in the folder of Windows; the page has both.
    let windows = PhonyWindows::new().file("Windows/System32/Recovery/Winre.wim", wim(&[])?);
    let desk = Desk::new(&windows, 400 * MIB)?;
    let page = ce_agent(["inspect", text(&desk.disk)?])?
        .expect_code(0)?
        .stdout;
    let line = page
        .lines()
        .find(|line| line.contains(r"System32\Recovery\Winre.wim"));
    ensure!(
        line.is_some_and(|line| line.contains("on partition 3")),
        "{page}"
    );
    ensure!(
        page.contains("its file cannot be changed: it is no WIM file"),
        "{page}"
    );
    Ok(())
}

/// A WIM file of one image that boots, made by wimlib.
fn wim(options: &[&str]) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let (tree, file) = (folder.path().join("tree"), folder.path().join("made.wim"));
    fs::create_dir_all(tree.join("Windows/System32/config"))?;
    fs::write(tree.join("Windows/System32/config/SYSTEM"), [0x5A; 100_000])?;
    let capture = [
        "capture",
        text(&tree)?,
        text(&file)?,
        "Windows RE",
        "--boot",
    ];
    WIMLIB_IMAGEX.run(capture.iter().chain(options))?;
    Ok(fs::read(file)?)
}

#[test]
fn a_large_volume_with_many_files_is_looked_at_in_half_a_second() -> Result<()> {
    let mut windows = PhonyWindows::new();
    for number in 0..20_000 {
        let folder = number / 1000;
        windows = windows.step(Step::File(
            format!("Users/{folder}/file-{number}"),
            ce_tests::disk::FileContent::Bytes(Vec::new()),
        ));
    }
    let desk = Desk::new(&windows, 64 << 30)?;
    let run = ce_agent(["inspect", text(&desk.disk)?])?;
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let cost = run.expect_code(0)?.cost;
        best = best.min(cost.wall);
        ensure!(cost.peak_memory < 256 << 20, "{} bytes", cost.peak_memory);
    }
    ensure!(best.as_millis() <= 500, "{best:?}");
    Ok(())
}

/// A disk with a Windows.
struct Desk {
    disk: PathBuf,
    folder: TempDir,
}

impl Desk {
    fn new(windows: &PhonyWindows, size: u64) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let disk = folder.path().join("disk.raw");
        windows.disk(size)?.build(&disk)?;
        Ok(Self { disk, folder })
    }

    fn inspect(&self) -> Result<Value> {
        inspected(&self.disk)
    }
}

fn find<'v>(list: &'v Value, field: &str, wanted: &str) -> Result<&'v Value> {
    let list = list.as_array().context("no list")?;
    let found = list.iter().find(|item| item[field] == wanted);
    found.with_context(|| format!("no {wanted} in {list:?}"))
}

fn ntfs() -> Content {
    Content::NtfsTree {
        label: "Data".into(),
        cluster: 4096,
        steps: Vec::new(),
    }
}
