//! Plan, apply and proof on registries of real installations, for every target.
//!
//! The files of these machines are not there: every service gets a program for x64 as its file, so
//! what is proved is the half in the registry.
//!
//! Needs the corpus: `CE_CORPUS_DIR=<folder> cargo test -p ce-platform --features corpus`.
#![cfg(feature = "corpus")]

#[path = "prepare/guest.rs"]
#[expect(
    dead_code,
    reason = "guests of the catalogues are for the tests without a corpus"
)]
mod guest;
#[path = "prepare/model.rs"]
#[expect(
    dead_code,
    reason = "random leftovers are for the tests without a corpus"
)]
mod model;
#[path = "prepare/real.rs"]
mod real;

use ce_platform::Platform;
use ce_platform::plan::State;
use guest::{Guest, catalog};

#[test]
fn windows_10_from_vsphere_is_prepared_for_every_target_that_it_has_drivers_for() {
    let guest = real::guest("sys-win10-vmware-hyperv-nolog", 16299);
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
    let guest = real::guest("sys-win81-vbox-nolog", 9600);
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
    let guest = real::guest("sys-win10-vmware-hyperv-nolog", 16299);
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
