//! Disks with the registries of real installations, prepared for every target: what a run does to them
//! from the command to the commit, and that nothing is left for a second one.
//!
//! The hives are not part of the project: `CE_CORPUS_DIR` names the folder that they were unpacked to;
//! `make test-corpus` runs this.

#[path = "prepare/disk.rs"]
#[expect(dead_code, reason = "the rest is for guests of the catalogues")]
mod disk;
#[path = "../../platform-drivers/tests/prepare/guest.rs"]
#[expect(dead_code, reason = "the rest serves tests in memory")]
mod guest;
#[path = "../../platform-drivers/tests/prepare/real.rs"]
mod real;

use anyhow::{Context, Result, ensure};
use ce_platform::Platform;
use serde_json::json;

use disk::{Bench, hivexsh, ntfs_file};

/// Hives, the build of their Windows, and the targets that it has drivers for.
const MACHINES: [(&str, u32, &[Platform]); 2] = [
    (
        "sys-win10-vmware-hyperv-nolog",
        16299,
        &[Platform::Azure, Platform::Vsphere, Platform::Xenserver],
    ),
    (
        "sys-win81-vbox-nolog",
        9600,
        &[Platform::Azure, Platform::Vsphere, Platform::Xenserver],
    ),
];

#[test]
fn a_disk_with_a_real_registry_is_prepared_once_and_for_good() -> Result<()> {
    for (folder, build, targets) in MACHINES {
        let guest = real::guest(folder, build);
        for to in targets {
            let bench = Bench::new(&guest)?;
            let found = bench
                .prepared(*to)
                .with_context(|| format!("{folder} to {to}"))?;
            ensure!(
                found["proof"]["failures"] == json!([]),
                "{folder} to {to}: {found}"
            );
            let (windows, _) = bench.checked_volumes()?;
            // Another reader finds the hive sound, down to its last key.
            let system = ntfs_file(&windows, "Windows/System32/config/SYSTEM")?;
            hivexsh(&system, "cd \\ControlSet001\\Services\nls\n")?;
            let after = bench.bytes()?;
            let again = bench.prepared(*to)?;
            ensure!(
                again["changedBytes"].is_null() && bench.bytes()? == after,
                "{folder} to {to}: a second run has changed something: {again}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_disk_with_a_real_registry_is_left_alone_where_its_windows_lacks_a_driver() -> Result<()> {
    for (folder, build, targets) in MACHINES {
        let guest = real::guest(folder, build);
        for to in Platform::ALL {
            if targets.contains(&to) {
                continue;
            }
            let bench = Bench::new(&guest)?;
            let before = bench.bytes()?;
            let (code, message) = bench.prepare(to)?.expect_code(3)?.error()?;
            ensure!(
                code == "DriverMissing" && message.contains("VEN_"),
                "{folder} to {to}: {code}: {message}"
            );
            ensure!(
                bench.bytes()? == before,
                "{folder} to {to}: the disk has changed"
            );
        }
    }
    Ok(())
}

#[test]
fn a_windows_that_waits_for_its_next_start_is_left_alone_as_it_was_found() -> Result<()> {
    let guest = real::unfinished("sys-win10-vmware-hyperv-nolog", 16299);
    let bench = Bench::new(&guest)?;
    let before = bench.bytes()?;
    let run = bench.prepare(Platform::Azure)?.expect_code(3)?;
    let (code, message) = run.error()?;
    ensure!(
        code == "PendingReboot" && message.contains("MXDWDRV.DLL and 35 more"),
        "{code}: {message}"
    );
    ensure!(bench.bytes()? == before, "the disk has changed");
    Ok(())
}
