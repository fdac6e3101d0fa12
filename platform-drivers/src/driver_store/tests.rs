//! What a package becomes, key by key. The corpus tests compare with what Windows wrote.

use ce_regf::{RegValue, ValueType};

use super::critical::critical_device_edits;
use super::database::{Form, database_edits};
use super::lockdown::{lockdown_edits, lockdown_key};
use super::services::service_edits;
use super::*;
use crate::hives::HiveName;
use crate::inf::{Inf, InfLibrary, ProductType, WindowsTarget, WindowsVersion};
use crate::plan::edit::{RegistryEdit, RegistryEditKind};

#[test]
fn a_package_that_boot_does_not_need_is_entered_in_short_and_the_map_in_system() {
    let plans = plans();
    let edits = database_edits(&package(&plans), HiveName::Drivers, Form::Short, &[0x80]);
    for edit in &edits {
        let is_root = edit.key == "DriverDatabase";
        let expected = if is_root {
            HiveName::System
        } else {
            HiveName::Drivers
        };
        assert_eq!(edit.hive, expected, "{edit:?}");
        assert!(!edit.key.contains("Configurations") && !edit.key.contains("Descriptors"));
    }
    assert_eq!(
        value(&edits, "DriverDatabase", "OemInfMap"),
        Some(RegValue::binary([0x80]))
    );
}

#[test]
fn ids_say_how_well_they_fit_and_filters_stand_in_the_configuration() {
    let plans = plans();
    let edits = database_edits(&package(&plans), HiveName::System, Form::Full, &[0x80]);
    for (id, expected) in [
        (r"BUS\ONE", [1, 0x80, 0, 0]),
        (r"BUS\TWO", [2, 0x80, 0, 0]),
        (r"BUS\THREE", [2, 0x80, 1, 0]),
        // A compatible id of the first line and the hardware id of the second.
        (r"BUS\FOUR", [1, 0x80, 0, 0]),
    ] {
        assert_eq!(
            value(
                &edits,
                &format!(r"DriverDatabase\DeviceIds\{id}"),
                "oem0.inf"
            ),
            Some(RegValue::binary(expected)),
            "{id}"
        );
    }
    let section = r"DriverDatabase\DriverPackages\a.inf_amd64_0123456789abcdef\Configurations\I";
    assert_eq!(
        value(&edits, section, "UpperFilters"),
        Some(RegValue::multi_sz(["above"]))
    );
    assert_eq!(
        value(&edits, section, "ConfigScope"),
        Some(RegValue::dword(7))
    );
    let device = format!(r"{section}\Device");
    assert_eq!(value(&edits, &device, "UpperFilters"), None);
    assert_eq!(
        value(&edits, &device, "gone"),
        Some(RegValue::new(ValueType::from_raw(0x20_0000), []))
    );
    assert_eq!(
        value(&edits, &device, "more"),
        Some(RegValue::new(
            ValueType::from_raw(0x4_0007),
            RegValue::multi_sz(["x"]).data
        ))
    );
}

#[test]
fn a_windows_without_database_gets_its_critical_devices() {
    let plans = plans();
    let edits = critical_device_edits(&package(&plans), "ControlSet001");
    let key = r"ControlSet001\Control\CriticalDeviceDatabase\BUS#ONE";
    assert_eq!(value(&edits, key, "Service"), Some(RegValue::sz("s")));
    assert_eq!(
        value(&edits, key, "ClassGUID"),
        Some(RegValue::sz("{4D36E97B-E325-11CE-BFC1-08002BE10318}"))
    );
}

#[test]
fn a_service_is_registered_and_its_override_goes() {
    let plans = plans();
    let package = package(&plans);
    let service = plans[0].function_driver().unwrap();
    let edits = service_edits(service, &package, "ControlSet002", true);
    let key = r"ControlSet002\Services\s";
    assert_eq!(value(&edits, key, "Start"), Some(RegValue::dword(0)));
    assert_eq!(
        value(&edits, key, "ImagePath"),
        Some(RegValue::expand_sz(r"System32\drivers\s.sys"))
    );
    assert_eq!(
        value(&edits, key, "DependOnGroup"),
        Some(RegValue::multi_sz(["group"]))
    );
    assert_eq!(
        value(&edits, key, "DependOnService"),
        Some(RegValue::multi_sz(["other"]))
    );
    assert_eq!(
        value(&edits, &format!(r"{key}\Parameters"), "kept"),
        Some(RegValue::sz("v"))
    );
    let gone = format!(r"{key}\StartOverride");
    let mut deleted = edits
        .iter()
        .filter(|edit| edit.change == RegistryEditKind::DeleteKey);
    assert!(deleted.any(|edit| edit.key == gone));
    let log = r"ControlSet002\Services\EventLog\System\s";
    assert_eq!(
        value(&edits, log, "TypesSupported"),
        Some(RegValue::dword(7))
    );
    // What is there stays where the INF says so.
    let again = service_edits(service, &package, "ControlSet002", false);
    assert_eq!(value(&again, &format!(r"{key}\Parameters"), "kept"), None);
}

#[test]
fn a_file_in_its_place_is_entered_with_all_of_its_owners() {
    let plans = plans();
    let package = package(&plans);
    let key = lockdown_key(r"Windows\System32\drivers\s.sys").unwrap();
    assert_eq!(
        key,
        r"Microsoft\Windows\CurrentVersion\Setup\PnpLockdownFiles\%SystemRoot%/System32/drivers/s.sys"
    );
    assert_eq!(lockdown_key(r"Program Files\Vendor\s.exe"), None);
    for (is_locked, class) in [(true, 4), (false, 5)] {
        let owners = ["oem7.inf".to_owned(), "OEM0.INF".to_owned()];
        let edits = lockdown_edits(&package, &key, "s.sys", is_locked, &owners);
        assert!(edits.iter().all(|edit| edit.hive == HiveName::Software));
        assert_eq!(value(&edits, &key, "Class"), Some(RegValue::dword(class)));
        assert_eq!(
            value(&edits, &key, "Owners"),
            Some(RegValue::multi_sz(["oem7.inf", "oem0.inf"]))
        );
        let source =
            r"%SystemRoot%\System32\DriverStore\FileRepository\a.inf_amd64_0123456789abcdef\s.sys";
        assert_eq!(
            value(&edits, &key, "Source"),
            Some(RegValue::expand_sz(source))
        );
    }
}

fn value(edits: &[RegistryEdit], key: &str, wanted: &str) -> Option<RegValue> {
    edits.iter().find_map(|edit| match &edit.change {
        RegistryEditKind::SetValue { name, value } if edit.key == key && name == wanted => {
            Some(value.clone())
        }
        _ => None,
    })
}

fn plans() -> Vec<InstallPlan> {
    let inf = Inf::parse(INF.as_bytes()).unwrap();
    let target = WindowsTarget {
        architecture: Architecture::Amd64,
        version: WindowsVersion {
            major: 10,
            minor: 0,
            build: 20348,
        },
        product_type: ProductType::Server,
        suites: 0,
    };
    let models = inf.models(&target).unwrap().into_iter();
    models
        .map(|model| {
            inf.plan_model(model, &target, &InfLibrary::default())
                .unwrap()
        })
        .collect()
}

fn package(plans: &[InstallPlan]) -> StagedPackage<'_> {
    StagedPackage {
        label: "a.inf_amd64_0123456789abcdef",
        published_name: "oem0.inf",
        inf_name: "a.inf",
        architecture: Architecture::Amd64,
        class: Some(Uuid::from_u128(0x4d36e97b_e325_11ce_bfc1_08002be10318)),
        driver: None,
        provider: None,
        signer: None,
        is_hardware_programme: false,
        catalog: None,
        oem_path: "bundle",
        plans,
        is_windows_10: true,
        now: 0,
    }
}

const INF: &str = r#"
[Version]
Signature = "$Windows NT$"
[Manufacturer]
V = M, NTamd64
[M.NTamd64]
d = I, BUS\ONE, BUS\TWO, BUS\THREE, BUS\FOUR
d = I, BUS\FOUR
[I]
FeatureScore = 80
[I.HW]
AddReg = H
[H]
HKR,,UpperFilters,0x10000,above
HKR,,gone,4
HKR,,more,0x10008,x
[I.Services]
AddService = s, 2, S, E
[E]
AddReg = T
[T]
HKR,,TypesSupported,0x10001,7
[S]
ServiceType = 1
StartType = 0
ErrorControl = 1
ServiceBinary = %12%\s.sys
Dependencies = +group, other
AddReg = P
[P]
HKR,Parameters,kept,2,v
"#;
