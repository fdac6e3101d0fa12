//! Hives of real machines, and what is known of them.

use std::fs;
use std::path::PathBuf;

use ce_disk::volume::{MemoryVolume, WinPath};
use ce_platform::hives::{HiveName, HiveSet, LoadedHive, Recovery};
use ce_platform::inspect::{BootStore, HIVES, Inspection, Start};
use ce_platform::preflight;

/// A file of the corpus.
fn corpus(name: &str) -> Vec<u8> {
    let folder = std::env::var_os("CE_CORPUS_DIR").expect("CE_CORPUS_DIR names no folder");
    let path = PathBuf::from(folder).join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn path(text: &str) -> WinPath {
    text.parse().unwrap()
}

/// A volume with these hives of the corpus in a folder `Windows`.
fn volume(hives: &[(&str, &str)]) -> MemoryVolume {
    let mut volume = MemoryVolume::default();
    for (name, file) in hives {
        volume.put(
            &path(&format!(r"Windows\System32\config\{name}")),
            corpus(file),
        );
    }
    volume
}

fn inspected(volume: &MemoryVolume) -> (HiveSet, Inspection) {
    let hives = HiveSet::load(volume, &path("Windows"), &HIVES);
    let inspection = Inspection::of(&hives);
    (hives, inspection)
}

fn codes(volume: &MemoryVolume) -> Vec<&'static str> {
    let (hives, inspection) = inspected(volume);
    let blockers = preflight::blockers(volume, &path("Windows"), &hives, &inspection);
    blockers.iter().map(preflight::Blocker::code).collect()
}

#[test]
fn windows_7_on_vsphere() {
    let volume = volume(&[
        ("SYSTEM", "hives/pair-win7x86-vmware/SYSTEM"),
        ("SOFTWARE", "hives/pair-win7x86-vmware/SOFTWARE"),
    ]);
    let (_, found) = inspected(&volume);
    assert_eq!(found.version.title(), "Windows 7 Ultimate (build 7601)");
    assert_eq!(found.version.architecture.as_deref(), Some("x86"));
    assert_eq!(found.version.languages, ["en-US"]);
    assert_eq!(
        found.version.installed.unwrap().to_string(),
        "2010-11-10 16:28 UTC"
    );
    assert_eq!(
        found.version.last_shutdown.unwrap().to_string(),
        "2012-04-04 01:58 UTC"
    );
    assert_eq!(found.computer.name.as_deref(), Some("WKS-WIN732BITA"));
    assert_eq!(found.control_sets.present, [1, 2]);
    assert_eq!(found.control_sets.last_known_good, Some(2));
    assert_eq!(found.platform(), Some(ce_platform::Platform::Vsphere));
    let tools = found
        .components
        .iter()
        .find(|found| found.id == "vmware-tools")
        .unwrap();
    assert_eq!(tools.program.as_deref(), Some("VMware Tools"));
    assert!(codes(&volume).contains(&"UnsupportedWindows"));
}

#[test]
fn windows_10_without_logs_is_read_as_it_is_and_not_to_be_changed() {
    let volume = volume(&[("SYSTEM", "hives/sys-win10-vmware-hyperv-nolog/SYSTEM")]);
    let (hives, found) = inspected(&volume);
    let system = hives.hive(HiveName::System).unwrap();
    assert_eq!(system.recovery, Recovery::NothingApplies);
    assert_eq!(found.computer.name.as_deref(), Some("DESKTOP-2KGM189"));
    assert_eq!(found.version.architecture.as_deref(), Some("x64"));
    assert_eq!(found.control_sets.current, Some(1));
    let driver = |name: &str| found.drivers.iter().find(|driver| driver.service == name);
    assert_eq!(driver("storahci").unwrap().start, Some(Start::Boot));
    assert!(driver("pvscsi").is_some() && driver("vmxnet3ndis6").is_some());
    assert!(
        found
            .drivers
            .iter()
            .any(|driver| !driver.start_override.is_empty())
    );
    assert_eq!(
        codes(&volume),
        ["HiveUnrecoverable", "HiveCorrupt", "PendingReboot"]
    );
}

#[test]
fn windows_8_1_on_virtualbox() {
    let volume = volume(&[("SYSTEM", "hives/sys-win81-vbox-nolog/SYSTEM")]);
    let (_, found) = inspected(&volume);
    assert_eq!(found.computer.name.as_deref(), Some("SENSEI"));
    assert_eq!(found.platform(), None);
    assert!(
        found
            .components
            .iter()
            .any(|found| found.id == "virtualbox-additions")
    );
}

#[test]
fn members_of_a_domain_and_of_a_workgroup_are_told_apart() {
    for (file, member, name) in [
        ("hives/Registry__SECURITY", true, "prwua.org"),
        ("hives/regipy__SECURITY", false, "WORKGROUP"),
    ] {
        let (_, found) = inspected(&volume(&[("SECURITY", file)]));
        assert_eq!(found.computer.is_domain_member, Some(member), "{file}");
        assert_eq!(found.computer.domain.as_deref(), Some(name));
    }
}

#[test]
fn dirty_hives_are_replayed_in_memory() {
    let mut volume = MemoryVolume::default();
    for (name, file) in [
        ("HIVE", "NewDirtyHive"),
        ("HIVE.LOG1", "NewDirtyHive.LOG1"),
        ("hive.log2", "NewDirtyHive.LOG2"),
    ] {
        volume.put(
            &path(name),
            corpus(&format!("dirty-hives/yarp_new1/{file}")),
        );
    }
    let loaded = LoadedHive::load(&volume, &path("HIVE")).unwrap();
    let Recovery::Applied { logs } = &loaded.recovery else {
        panic!("{:?}", loaded.recovery);
    };
    assert!(!logs.is_empty());
    assert!(
        loaded
            .recovery
            .to_string()
            .contains("brought up to date from")
    );
}

#[test]
fn a_real_boot_store_tells_its_default() {
    let mut volume = MemoryVolume::default();
    volume.put(
        &path(r"EFI\Microsoft\Boot\BCD"),
        corpus("bcd/BCD-installed-efi"),
    );
    let entry = BootStore::find(&volume).unwrap().default_entry.unwrap();
    assert_eq!(
        entry.application.as_deref(),
        Some(r"\Windows\system32\winload.efi")
    );
    assert_eq!(entry.system_root.as_deref(), Some(r"\Windows"));
    assert_eq!(entry.description.as_deref(), Some("Windows 10"));
}

#[test]
fn damaged_hives_are_inspected_to_an_end() {
    for file in [
        "corrupt-hives/regipy__corrupted_system_hive",
        "corrupt-hives/yarp__TruncatedHive",
        "corrupt-hives/Registry__NotAHive",
    ] {
        let volume = volume(&[("SYSTEM", file), ("SOFTWARE", file), ("SECURITY", file)]);
        let (_, found) = inspected(&volume);
        assert!(!found.findings.is_empty(), "{file}");
    }
}
