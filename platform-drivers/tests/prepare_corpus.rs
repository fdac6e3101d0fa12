//! Plan, apply and proof on registries of real installations, for every target.
//!
//! The files of these machines are not there: every service gets a program for x64 as its file, so
//! what is proved is the half in the registry.
//!
//! Needs the corpus: `CE_CORPUS_DIR=<folder> cargo test -p ce-platform --features corpus`.
#![cfg(feature = "corpus")]

mod prepare {
    #[expect(
        dead_code,
        reason = "guests of the catalogues are for the tests without a corpus"
    )]
    pub mod guest;
    #[expect(
        dead_code,
        reason = "random leftovers are for the tests without a corpus"
    )]
    pub mod model;
}

use std::fs;
use std::path::PathBuf;

use ce_platform::Platform;
use ce_platform::plan::State;
use ce_regf::Hive;
use prepare::guest::{Draft, Guest, NOW, catalog, hive, program};
use prepare::model;

/// The guest with this SYSTEM hive, which Windows did not close and whose logs are lost: what it
/// wrote last is given up.
fn guest(folder: &str, build: u32) -> Guest {
    let corpus = std::env::var_os("CE_CORPUS_DIR").expect("CE_CORPUS_DIR names no folder");
    let path = PathBuf::from(corpus)
        .join("hives")
        .join(folder)
        .join("SYSTEM");
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut system = Hive::load(bytes).unwrap();
    system.accept_without_logs();
    // A change and its undoing make a hive that is saved as closed.
    let mut editor = system.edit(NOW).unwrap();
    editor.create_key(r"Select\mark").unwrap();
    editor.delete_key(r"Select\mark").unwrap();
    let bytes = system.save(NOW).unwrap().bytes.to_vec();
    let mut guest = Draft::windows().guest();
    let software = format!(
        "[Microsoft\\Windows NT\\CurrentVersion]\n\"CurrentBuildNumber\"=\"{build}\"\n\"InstallationType\"=\"Client\"\n"
    );
    let config = r"Windows\System32\config";
    guest
        .windows
        .insert(format!(r"{config}\SOFTWARE"), hive(&software));
    for file in driver_files(&Hive::load(bytes.clone()).unwrap()) {
        guest.windows.insert(file, program(0x8664));
    }
    guest.windows.insert(format!(r"{config}\SYSTEM"), bytes);
    guest
}

/// The files of all drivers.
fn driver_files(system: &Hive) -> Vec<String> {
    let services = system
        .root()
        .unwrap()
        .subkey(r"ControlSet001\Services")
        .unwrap()
        .unwrap();
    let services = services.subkeys().unwrap().map(|service| {
        let service = service.unwrap();
        let name = service.name().to_string();
        let path = service
            .value("ImagePath")
            .unwrap()
            .and_then(|value| value.string().ok());
        path.unwrap_or_else(|| format!(r"System32\drivers\{name}.sys"))
    });
    services
        .filter(|path| path.to_lowercase().ends_with(".sys"))
        .map(|path| {
            let lower = path.to_lowercase();
            let start = [r"\systemroot\", r"%systemroot%\", r"\??\c:\windows\"];
            let start = start.iter().find(|start| lower.starts_with(**start));
            format!(r"Windows\{}", &path[start.map_or(0, |start| start.len())..])
        })
        .collect()
}

#[test]
fn windows_10_from_vsphere_is_prepared_for_every_target_that_it_has_drivers_for() {
    let guest = guest("sys-win10-vmware-hyperv-nolog", 16299);
    for (to, blockers) in [
        (Platform::Aws, vec![r"PCI\VEN_1D0F&DEV_EC20"]),
        (Platform::Azure, vec![]),
        (
            Platform::Gcp,
            vec![r"PCI\VEN_1AF4&DEV_1004", r"PCI\VEN_1AE0&DEV_0042"],
        ),
        (
            Platform::Nutanix,
            vec![r"PCI\VEN_1AF4&DEV_1004", r"PCI\VEN_1AF4&DEV_1000"],
        ),
        (Platform::Vsphere, vec![]),
        (Platform::Xenserver, vec![]),
    ] {
        assert_eq!(round(&guest, to), blockers, "{to}");
    }
}

#[test]
fn windows_8_1_from_virtualbox_is_prepared_for_every_target_that_it_has_drivers_for() {
    let guest = guest("sys-win81-vbox-nolog", 9600);
    for (to, blockers) in [
        (Platform::Aws, 1),
        (Platform::Azure, 0),
        (Platform::Gcp, 2),
        (Platform::Nutanix, 2),
        (Platform::Vsphere, 0),
        (Platform::Xenserver, 0),
    ] {
        assert_eq!(round(&guest, to).len(), blockers, "{to}");
    }
}

/// Plans, and where nothing is missing applies, proves and plans again. The first ids of what is
/// missing.
fn round(guest: &Guest, to: Platform) -> Vec<String> {
    let preparation = catalog().preparation(None, to);
    let plan = guest.plan(&preparation);
    if !plan.blockers.is_empty() {
        return plan
            .blockers
            .iter()
            .map(|blocker| blocker.ids[0].clone())
            .collect();
    }
    let (plan, files) = guest.prepared(&preparation);
    let after = guest.written(&files);
    let mut expected = model::Tree::of(&guest.hive("SYSTEM"));
    expected.apply("SYSTEM", &plan);
    let difference = expected.difference(&model::Tree::of(&after.hive("SYSTEM")));
    assert_eq!(difference, Vec::<String>::new(), "{to}");
    assert!(after.hive("SYSTEM").check().is_sound(), "{to}");
    let proof = after.proof(&preparation);
    assert_eq!(proof.failures, Vec::<String>::new(), "{to}");
    let again = after.plan(&preparation);
    let left: Vec<String> = again.to_do().map(|edit| edit.change.to_string()).collect();
    assert_eq!(left, Vec::<String>::new(), "{to}");
    Vec::new()
}

#[test]
fn the_traps_of_a_real_vsphere_guest_are_out_of_the_way() {
    let guest = guest("sys-win10-vmware-hyperv-nolog", 16299);
    let preparation = catalog().preparation(Some(Platform::Vsphere), Platform::Azure);
    let (plan, files) = guest.prepared(&preparation);
    let lines: Vec<String> = plan.to_do().map(|edit| edit.change.to_string()).collect();
    let planned = |wanted: &str| {
        assert!(
            lines.iter().any(|line| line == wanted),
            "{wanted}\n{lines:#?}"
        )
    };
    for service in ["vmbus", "storvsc", "stornvme"] {
        planned(&format!(
            r"SYSTEM ControlSet001\Services\{service}\StartOverride: delete key"
        ));
    }
    planned(r"SYSTEM ControlSet001\Services\vpci: Start = 0");
    planned(r"SYSTEM ControlSet001\Services\vmci: Start = 4");
    // Devices name it, and they do without it afterwards.
    let enumerated = |line: &&String| line.contains(r"\Enum\") && line.contains("UpperFilters");
    assert!(lines.iter().find(enumerated).is_some(), "{lines:#?}");
    // These belong to other INFs, too.
    let after = guest.written(&files).hive("SYSTEM");
    for shared in ["i8042prt", "mouclass", "mouhid"] {
        let key = after
            .root()
            .unwrap()
            .subkey(format!(r"ControlSet001\Services\{shared}"))
            .unwrap()
            .unwrap();
        let owners = key
            .value("Owners")
            .unwrap()
            .unwrap()
            .multi_string()
            .unwrap();
        assert!(
            !owners.is_empty()
                && owners
                    .iter()
                    .all(|owner| !owner.starts_with("oem") && !owner.starts_with('!')),
            "{shared}: {owners:?}"
        );
        assert_ne!(
            key.value("Start").unwrap().unwrap().dword().unwrap(),
            4,
            "{shared}"
        );
    }
    // The stub stays one.
    let stub = after
        .root()
        .unwrap()
        .subkey(r"ControlSet001\Services\pvscsi")
        .unwrap()
        .unwrap();
    assert!(stub.value("Start").unwrap().is_none());
    let skipped = plan
        .edits
        .iter()
        .filter(|edit| matches!(edit.state, State::Skipped { .. }));
    assert!(skipped.clone().any(|edit| edit.item == "vsphere.firmware"));
}
