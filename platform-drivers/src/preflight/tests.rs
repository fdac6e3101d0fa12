//! Blockers of hives made of text.

use super::*;
use crate::inspect::HIVES;
use crate::inspect::tests::{folder, hive, inspected, volume};

fn found(software: &str) -> Vec<Blocker> {
    let system = "[Select]\n\"Current\"=dword:00000001\n[ControlSet001]\n";
    let volume = volume(&[
        (HiveName::System, hive(system)),
        (HiveName::Software, hive(software)),
    ]);
    let hives = HiveSet::load(&volume, &folder(), &HIVES);
    blockers(&volume, &folder(), &hives, &Inspection::of(&hives))
}

#[test]
fn a_windows_that_waits_for_nothing_can_be_changed() {
    assert_eq!(found(""), []);
    let sessions = r"Microsoft\Windows\CurrentVersion\Component Based Servicing\SessionsPending";
    assert_eq!(
        found(&format!("[{sessions}]\n\"Exclusive\"=dword:00000000")),
        []
    );
}

#[test]
fn a_windows_that_is_too_old_is_refused_by_its_name() {
    let version = |build: u32| {
        let key = r"[Microsoft\Windows NT\CurrentVersion]";
        found(&format!(
            "{key}\n\"ProductName\"=\"Windows\"\n\"CurrentBuild\"=\"{build}\""
        ))
    };
    assert_eq!(version(9600), []);
    let old = version(9200);
    assert!(
        matches!(&old[..], [Blocker::UnsupportedWindows { found }] if found == "Windows (build 9200)")
    );
}

#[test]
fn hives_that_are_missing_are_blockers_all_at_once() {
    let volume = volume(&[]);
    let hives = HiveSet::load(&volume, &folder(), &HIVES);
    let found = blockers(&volume, &folder(), &hives, &Inspection::of(&hives));
    let codes: Vec<&str> = found.iter().map(Blocker::code).collect();
    assert_eq!(codes, ["HiveCorrupt", "HiveCorrupt"]);
}

#[test]
fn room_and_the_number_of_installations_are_judged() {
    assert_eq!(room("C", ByteCount::mib(64)), None);
    let full = room("C", ByteCount::mib(63)).unwrap();
    assert_eq!(
        full.to_string(),
        "C has 63.0 MiB free, expected at least 64.0 MiB"
    );
    assert_eq!(one_windows(&["a".into()]), None);
    assert_eq!(one_windows(&[]).unwrap().code(), "NoWindows");
    let two = one_windows(&["a".into(), "b".into()]).unwrap();
    assert!(two.to_string().ends_with("on the disk: a, b"), "{two}");
}

#[test]
fn the_target_device_software_is_named_by_what_shows_it() {
    let service = "[ControlSet001\\Services\\bnistack]\n\"Start\"=dword:00000000\n";
    assert_eq!(pvs_target(&inspected("", "")), None);
    let found = pvs_target(&inspected(service, "")).unwrap();
    assert!(found.to_string().ends_with("services bnistack"), "{found}");
    assert!(found.way_out().starts_with("Uninstall"));
}
