//! Hives made of text, read back as an inspection.

use ce_disk::volume::{MemoryVolume, WinPath};
use ce_regf::{FileTime, Hive, KeyPath, RegScript, SecurityDescriptor, Version};
use proptest::prelude::*;

use super::components::PRODUCTS;
use super::*;
use crate::Platform;

/// A hive with these keys: `.reg` text without the first line.
pub(crate) fn hive(keys: &str) -> Vec<u8> {
    let text = format!("Windows Registry Editor Version 5.00\n\n{keys}");
    let script = RegScript::parse(text.as_bytes(), &KeyPath::from("")).unwrap();
    let now = FileTime::from_ticks(133_752_744_000_000_000);
    let security = SecurityDescriptor::for_administrators();
    let mut hive = Hive::new_empty(Version::V1_5, &security, now).unwrap();
    hive.edit(now).unwrap().import(&script).unwrap();
    hive.save(now).unwrap().bytes.to_vec()
}

/// A volume with these hives.
pub(crate) fn volume(hives: &[(HiveName, Vec<u8>)]) -> MemoryVolume {
    let mut volume = MemoryVolume::default();
    for (name, bytes) in hives {
        let path = format!(r"Windows\System32\config\{name}").parse().unwrap();
        volume.put(&path, bytes.clone());
    }
    volume
}

pub(crate) fn folder() -> WinPath {
    "Windows".parse().unwrap()
}

/// What is seen of a SYSTEM and a SOFTWARE hive with these keys.
pub(crate) fn inspected(system: &str, software: &str) -> Inspection {
    let volume = volume(&[
        (HiveName::System, hive(&format!("{SELECT}\n{system}"))),
        (HiveName::Software, hive(software)),
    ]);
    Inspection::of(&HiveSet::load(&volume, &folder(), &HIVES))
}

const SELECT: &str = "[Select]\n\"Current\"=dword:00000001\n[ControlSet001]\n";

fn versioned(values: &str) -> WindowsVersion {
    let key = r"[Microsoft\Windows NT\CurrentVersion]";
    inspected("", &format!("{key}\n{values}")).version
}

#[test]
fn windows_is_called_by_the_name_that_it_is_sold_by() {
    for (values, expected) in [
        (
            "\"ProductName\"=\"Windows 10 Pro\"\n\"CurrentBuildNumber\"=\"22631\"\n\
             \"DisplayVersion\"=\"23H2\"\n\"ReleaseId\"=\"2009\"\n\"UBR\"=dword:00000001\n\
             \"InstallationType\"=\"Client\"",
            "Windows 11 Pro 23H2 (build 22631.1)",
        ),
        (
            "\"ProductName\"=\"Windows 10 Enterprise 2016 LTSB\"\n\"CurrentBuild\"=\"14393\"\n\
             \"ReleaseId\"=\"1607\"",
            "Windows 10 Enterprise 2016 LTSB 1607 (build 14393)",
        ),
        (
            "\"ProductName\"=\"Windows Server 2025 Datacenter\"\n\"CurrentBuild\"=\"26100\"\n\
             \"InstallationType\"=\"Server Core\"\n\"DisplayVersion\"=\"24H2\"",
            "Windows Server 2025 Datacenter 24H2 (build 26100)",
        ),
        (
            "\"ProductName\"=\"Windows 8.1 Pro\"\n\"CurrentBuild\"=\"9600\"",
            "Windows 8.1 Pro (build 9600)",
        ),
        (
            "\"CurrentBuild\"=\"not a number\"",
            "Windows of an unknown version",
        ),
    ] {
        assert_eq!(versioned(values).title(), expected);
    }
}

#[test]
fn the_control_set_that_counts_is_the_current_one_if_it_is_there() {
    let computer = |set: &str, name: &str| {
        format!("[{set}\\Control\\ComputerName\\ComputerName]\n\"ComputerName\"=\"{name}\"\n")
    };
    let both = computer("ControlSet001", "ONE") + &computer("ControlSet002", "TWO");
    let select = |current: u32| {
        format!("[Select]\n\"Current\"=dword:{current:08x}\n\"Default\"=dword:00000002\n{both}")
    };
    for (current, expected) in [(1, "ONE"), (2, "TWO"), (9, "TWO")] {
        let found = inspected(&select(current), "");
        assert_eq!(found.computer.name.as_deref(), Some(expected), "{current}");
        assert_eq!(found.control_sets.present, [1, 2]);
    }
}

#[test]
fn only_the_security_authority_knows_whether_a_machine_is_in_a_domain() {
    let text = |text: &str| {
        let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let length = u16::try_from(bytes.len()).unwrap().to_le_bytes();
        let header = [length[0], length[1], length[0], length[1], 8, 0, 0, 0];
        let bytes: Vec<String> = header
            .iter()
            .chain(&bytes)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("@=hex(0):{}", bytes.join(","))
    };
    let security = |sid: &str, flat: &str, dns: &str| {
        format!(
            "[Policy\\PolPrDmS]\n@=hex(0):{sid}\n[Policy\\PolPrDmN]\n{}\n[Policy\\PolDnDDN]\n{dns}\n",
            text(flat)
        )
    };
    let system = "[ControlSet001\\Services\\Tcpip\\Parameters]\n\"Domain\"=\"suffix.example\"\n";
    let seen = |security: Option<String>| {
        let mut hives = vec![(HiveName::System, hive(&format!("{SELECT}{system}")))];
        hives.extend(security.map(|keys| (HiveName::Security, hive(&keys))));
        let hives = HiveSet::load(&volume(&hives), &folder(), &HIVES);
        let computer = Inspection::of(&hives).computer;
        (computer.is_domain_member, computer.domain.unwrap())
    };
    assert_eq!(seen(None), (None, "suffix.example".into()));
    let workgroup = security("", "WORKGROUP", "@=hex(0):");
    assert_eq!(seen(Some(workgroup)), (Some(false), "WORKGROUP".into()));
    let member = security("01,04,00,00", "CORP", &text("corp.example"));
    assert_eq!(seen(Some(member)), (Some(true), "corp.example".into()));
    let cut = "[Policy\\PolPrDmN]\n@=hex(0):ff,ff,00,00,f0,ff,ff,ff\n".to_owned();
    assert_eq!(seen(Some(cut)), (Some(false), "suffix.example".into()));
}

#[test]
fn every_product_is_recognised_by_each_of_its_marks() {
    for product in &PRODUCTS {
        let ids = PRODUCTS.iter().filter(|other| other.id == product.id);
        assert_eq!(ids.count(), 1, "{}", product.id);
        assert!(!product.services.is_empty() || !product.programs.is_empty());
        for name in product.services {
            let service = format!(r"[ControlSet001\Services\{}]", name.to_uppercase());
            let found = inspected(&format!("{service}\n\"Start\"=dword:00000004\n"), "");
            let component = found.components.iter().find(|found| found.id == product.id);
            assert!(component.unwrap().is_disabled(), "{name}");
        }
        for (start, part) in product.programs {
            for list in ["", r"WOW6432Node\"] {
                let entry = format!(
                    "[{list}Microsoft\\Windows\\CurrentVersion\\Uninstall\\x]\n\
                     \"DisplayName\"=\"{start} x {part}\"\n\"DisplayVersion\"=\"1.2\"\n"
                );
                // A word that ends in a number goes on with it.
                let entry = entry.replace("Workspace 2 x", "Workspace 2402");
                let found = inspected("", &entry);
                let component = found.components.iter().find(|found| found.id == product.id);
                let component = component.unwrap_or_else(|| panic!("{entry}"));
                assert_eq!(component.version.as_deref(), Some("1.2"), "{start}");
            }
        }
    }
    assert!(inspected("", "").components.is_empty());
}

#[test]
fn an_image_comes_from_the_platform_whose_tools_are_switched_on() {
    let service = |name: &str, start: u32| {
        format!("[ControlSet001\\Services\\{name}]\n\"Start\"=dword:{start:08x}\n")
    };
    let platform = |system: &str| inspected(system, "").platform();
    assert_eq!(platform(&service("VMTools", 2)), Some(Platform::Vsphere));
    let left = service("VMTools", 4) + &service("RdAgent", 2);
    assert_eq!(platform(&left), Some(Platform::Azure));
    let both = service("VMTools", 2) + &service("RdAgent", 2);
    assert_eq!(platform(&both), None);
    // Drivers that several platforms have say nothing.
    assert_eq!(platform(&service("vioscsi", 0)), None);
}

#[test]
fn drivers_are_told_with_what_overrides_their_start() {
    let found = inspected(
        "[ControlSet001\\Services\\stornvme]\n\"Type\"=dword:00000001\n\"Start\"=dword:00000000\n\
         [ControlSet001\\Services\\stornvme\\StartOverride]\n\"0\"=dword:00000003\n\
         [ControlSet001\\Services\\ourraid]\n\"Type\"=dword:00000001\n\"Start\"=dword:00000000\n\
         \"Group\"=\"SCSI Miniport\"\n\"Owners\"=hex(7):6f,00,65,00,6d,00,37,00,2e,00,69,00,6e,00,66,00,00,00,00,00\n\
         [ControlSet001\\Services\\inboxraid]\n\"Type\"=dword:00000001\n\"Group\"=\"SCSI Miniport\"\n\
         [ControlSet001\\Services\\ena]\n\"Type\"=dword:00000001\n\"Start\"=dword:00000009\n",
        "",
    );
    let names: Vec<&str> = found
        .drivers
        .iter()
        .map(|driver| &*driver.service)
        .collect();
    assert_eq!(names, ["ourraid", "stornvme", "ena"]);
    let [raid, nvme, ena] = found.drivers.as_slice() else {
        panic!("{:?}", found.drivers);
    };
    assert_eq!((raid.title, raid.start), (None, Some(Start::Boot)));
    assert_eq!(nvme.start_override[0].start, Start::Demand);
    assert_eq!(
        (ena.kind, ena.start),
        (DriverKind::Network, Some(Start::Unknown))
    );
}

#[test]
fn values_of_other_types_are_findings_and_the_rest_is_read() {
    let found = inspected(
        "[ControlSet001\\Control\\Windows]\n\"ShutdownTime\"=dword:00000001\n\
         [ControlSet001\\Control\\ComputerName\\ComputerName]\n\"ComputerName\"=\"HERE\"\n",
        "[Microsoft\\Windows NT\\CurrentVersion]\n\"ProductName\"=dword:00000001\n\"UBR\"=\"x\"\n",
    );
    assert_eq!(found.computer.name.as_deref(), Some("HERE"));
    assert_eq!(found.version.last_shutdown, None);
    let findings = found.findings.join("\n");
    for name in ["ProductName", "UBR"] {
        assert!(
            findings.contains(&format!("SOFTWARE hive, {name}")),
            "{findings}"
        );
    }
}

#[test]
fn what_a_hive_makes_us_look_through_is_bounded() {
    let large = "00,".repeat(400_000);
    let keys = format!("[Large]\n\"Value\"=hex(1):{large}00\n");
    let loaded = Hive::load(hive(&keys)).unwrap();
    let notes = Notes::default();
    let registry = Registry::new("SOFTWARE", &loaded, &notes);
    let reads = (0..2000).take_while(|_| registry.data("Large", "Value").is_some());
    assert!((600..700).contains(&reads.count()));
    assert!(notes.into_findings()[0].contains("more in it than is looked through"));
}

#[test]
fn hives_that_are_missing_or_none_are_said_to_be() {
    let volume = volume(&[(HiveName::System, b"no hive".to_vec())]);
    let hives = HiveSet::load(&volume, &folder(), &HIVES);
    let found = Inspection::of(&hives);
    assert_eq!(found.version.title(), "Windows of an unknown version");
    assert!(
        found.findings[0].starts_with("SYSTEM hive: "),
        "{:?}",
        found.findings
    );
    assert!(
        found.findings[1].ends_with("SOFTWARE is missing"),
        "{:?}",
        found.findings
    );
    for (_, hive) in hives.all() {
        assert_eq!(hive.unwrap_err().code(), "HiveCorrupt");
    }
}

#[test]
fn the_boot_store_says_what_starts_by_default() {
    let store = |loader: &str| {
        hive(&format!(
            "[Objects\\{{9dea862c-5cdd-4e70-acc1-f32b344d4795}}\\Elements\\23000003]\n\"Element\"=\"{{x}}\"\n\
             [Objects\\{{x}}\\Elements\\12000002]\n\"Element\"=\"\\\\Windows\\\\system32\\\\{loader}\"\n\
             [Objects\\{{x}}\\Elements\\12000004]\n\"Element\"=\"Windows 11\"\n"
        ))
    };
    let path = |text: &str| text.parse::<WinPath>().unwrap();
    let mut esp = MemoryVolume::default();
    assert_eq!(BootStore::find(&esp), None);
    esp.put(&path(r"EFI\Boot\bootx64.efi"), *b"MZ");
    esp.put(&path(r"EFI\Microsoft\Boot\BCD"), store("winload.efi"));
    let found = BootStore::find(&esp).unwrap();
    assert!(found.is_uefi() && found.findings.is_empty());
    let entry = found.default_entry.unwrap();
    assert_eq!(entry.application.unwrap(), r"\Windows\system32\winload.efi");
    assert_eq!(entry.description.unwrap(), "Windows 11");

    let mut active = MemoryVolume::default();
    active.put(&path("bootmgr"), *b"");
    active.put(&path(r"Boot\BCD"), *b"damaged");
    let found = BootStore::find(&active).unwrap();
    assert!(!found.is_uefi() && found.default_entry.is_none());
    assert!(found.findings[0].contains("BCD"), "{:?}", found.findings);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn bytes_in_place_of_hives_are_told_and_never_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..3000),
        begins_well in any::<bool>(),
    ) {
        let bytes = if begins_well { [&b"regf"[..], &bytes].concat() } else { bytes };
        let hives = HIVES.map(|name| (name, bytes.clone()));
        let found = Inspection::of(&HiveSet::load(&volume(&hives), &folder(), &HIVES));
        prop_assert_eq!(found.findings.len(), 3);
    }

    #[test]
    fn a_damaged_hive_is_inspected_to_an_end(
        changes in prop::collection::vec((4096_usize..9000, any::<u8>()), 1..30),
    ) {
        use std::sync::OnceLock;
        static HIVE: OnceLock<Vec<u8>> = OnceLock::new();
        let mut bytes = HIVE.get_or_init(|| hive(&format!(
            "{SELECT}[ControlSet001\\Services\\pvscsi]\n\"Start\"=dword:00000000\n\
             [ControlSet001\\Services\\pvscsi\\StartOverride]\n\"0\"=dword:00000003\n\
             [Microsoft\\Windows NT\\CurrentVersion]\n\"ProductName\"=\"Windows\"\n"
        ))).clone();
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at.max(4096)] = value;
        }
        let hives = HIVES.map(|name| (name, bytes.clone()));
        let volume = volume(&hives);
        let hives = HiveSet::load(&volume, &folder(), &HIVES);
        let found = Inspection::of(&hives);
        drop(crate::preflight::blockers(&volume, &folder(), &hives, &found));
        prop_assert!(serde_json::to_string(&found).is_ok());
    }
}
