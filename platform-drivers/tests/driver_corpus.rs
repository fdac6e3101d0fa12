//! INFs that vendors and Microsoft wrote.
//!
//! Needs the corpus: `CE_CORPUS_DIR=<folder> cargo test -p ce-platform --features corpus`.
#![cfg(feature = "corpus")]

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use ce_platform::driver_store::StagedPackage;
use ce_platform::driver_store::database::{Form, database_edits, version_value};
use ce_platform::driver_store::names::OemNames;
use ce_platform::driver_store::services::service_edits;
use ce_platform::hives::HiveName;
use ce_platform::inf::{
    Architecture, Inf, InfError, InfErrorKind, InfLibrary, ProductType, WindowsTarget,
    WindowsVersion,
};
use ce_platform::package::{CatalogFile, DriverPackage, HostFolder, PackageFiles, Problem};
use ce_platform::plan::edit::RegistryEditKind;
use ce_regf::Hive;

#[test]
fn every_inf_is_read_or_refused_for_a_reason_that_holds() {
    let mut read = 0;
    let mut refused = BTreeSet::new();
    for (name, bytes) in infs() {
        match Inf::parse(&bytes) {
            Ok(inf) => {
                read += 1;
                let printed = inf.sections().to_string();
                let again = Inf::parse(printed.as_bytes())
                    .unwrap_or_else(|error| panic!("{name}, printed: {error}"));
                assert_eq!(again.sections().to_string(), printed, "{name}");
                assert_eq!(again.version(), inf.version(), "{name}");
            }
            Err(error) => {
                expect_line_of(&bytes, &error, &name);
                refused.insert(format!("{name}: {error}"));
            }
        }
    }
    assert!(read > 110, "{read} INFs");
    let expected: BTreeSet<String> = REFUSED.map(str::to_owned).into();
    assert_eq!(refused, expected);
}

#[test]
fn every_device_of_every_inf_is_followed_on_the_windows_it_is_for() {
    let (mut plans, mut services, mut copies) = (0, 0, 0);
    let mut refused = BTreeSet::new();
    for (name, bytes) in infs() {
        let bytes = stamped(&bytes);
        let Ok(inf) = Inf::parse(&bytes) else {
            continue;
        };
        for target in targets() {
            let models = match inf.models(&target) {
                Ok(models) => models,
                Err(error) if matches!(error.kind, InfErrorKind::NotForThisWindows { .. }) => {
                    let found = inf.plan_default(&target, &InfLibrary::default());
                    if let Err(error) = found {
                        expect_line_of(&bytes, &error, &name);
                        refused.insert(format!("{name}: {error}"));
                    }
                    continue;
                }
                Err(error) => panic!("{name}: {error}"),
            };
            for model in models {
                match inf.plan_model(model, &target, &InfLibrary::default()) {
                    Ok(plan) => {
                        plans += 1;
                        services += plan.services.len();
                        copies += plan.copies.len();
                    }
                    Err(error) => {
                        expect_line_of(&bytes, &error, &name);
                        refused.insert(format!("{name}: {error}"));
                    }
                }
            }
        }
    }
    assert!(plans > 1000, "{plans} plans");
    assert!(services > 500, "{services} services");
    assert!(copies > 500, "{copies} copies");
    let expected: BTreeSet<String> = NOT_FOLLOWED.map(str::to_owned).into();
    assert_eq!(refused, expected);
}

#[test]
fn every_catalogue_is_read_and_its_signature_fits() {
    for (folder, name, members) in CATALOGS {
        let path = corpus().join("inf").join(folder).join(name);
        let bytes = fs::read(&path).expect("a catalogue");
        let catalog = CatalogFile::parse(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(catalog.members.len(), members, "{name}");
        assert!(
            catalog.members.iter().all(|member| member.name.is_some()),
            "{name}"
        );
        assert!(
            !catalog.windows.is_empty() && !catalog.hardware_ids.is_empty(),
            "{name}"
        );
        let signer = &catalog.signer;
        assert_eq!(signer.fault, None, "{name}");
        assert!(signer.is_hardware_programme(), "{name}: {}", signer.name);
        assert_eq!(
            signer.issuers,
            [
                "Microsoft Windows Third Party Component CA 2014",
                "Microsoft Root Certificate Authority 2010"
            ],
            "{name}"
        );
    }
}

#[test]
fn a_catalogue_that_was_changed_is_found_out() {
    let (folder, name, _) = CATALOGS[0];
    let bytes = fs::read(corpus().join("inf").join(folder).join(name)).expect("a catalogue");
    let sound = CatalogFile::parse(&bytes).expect("a catalogue");
    let hash = sound.members[0].hash;
    let at = bytes
        .windows(hash.as_bytes().len())
        .position(|found| found == hash.as_bytes())
        .expect("the hash");
    let mut changed = bytes.clone();
    changed[at] ^= 1;
    let fault = CatalogFile::parse(&changed)
        .expect("a catalogue")
        .signer
        .fault;
    assert_eq!(
        fault.as_deref(),
        Some("the list was changed after it was signed")
    );
    // Wherever a bit turns over, it is refused, or found out, or in what is not signed: the
    // counter-signature of the time, which stands at the end.
    let signed_part = bytes.len() - COUNTER_SIGNATURE;
    let mut refused = 0;
    for at in (0..signed_part).step_by(97) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        match CatalogFile::parse(&changed) {
            Err(_) => refused += 1,
            Ok(catalog) => assert!(
                catalog.signer.fault.is_some() || catalog.members == sound.members,
                "byte {at}"
            ),
        }
    }
    assert!(refused > 0);
}

#[test]
fn real_packages_are_sound_and_what_is_wrong_with_others_is_told() {
    for (folder, inf, expected) in PACKAGES {
        let files = Shipped::new(folder);
        let package = DriverPackage::read(&files, inf).expect("a package");
        let problems: Vec<String> = package.problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems, expected, "{folder} {inf}");
        if expected.is_empty() {
            assert!(package.files.iter().all(|file| file.is_listed), "{inf}");
        }
    }
}

#[test]
fn a_file_that_was_changed_is_not_listed_any_more() {
    for path in ["VBoxUSB.sys", "VBoxUSB.inf"] {
        let mut files = Shipped::new("dorssel-usbipd-win/Drivers/x64");
        files.changed = Some(path);
        let Ok(package) = DriverPackage::read(&files, "VBoxUSB.inf") else {
            panic!("{path}");
        };
        let [Problem::NotListed { path: found, .. }] = &package.problems[..] else {
            panic!("{path}: {:?}", package.problems);
        };
        assert_eq!(found, path);
    }
}

/// A package as it was signed: the corpus took it from a source tree, where the lines of text end
/// without carriage returns.
struct Shipped {
    folder: HostFolder,
    /// A file in which a byte is changed.
    changed: Option<&'static str>,
}

impl Shipped {
    fn new(folder: &str) -> Self {
        Self {
            folder: HostFolder::new(corpus().join("inf").join(folder)),
            changed: None,
        }
    }
}

impl PackageFiles for Shipped {
    fn read(&self, path: &str) -> std::io::Result<Option<Vec<u8>>> {
        let Some(mut bytes) = self.folder.read(path)? else {
            return Ok(None);
        };
        if path.to_lowercase().ends_with(".inf") && !bytes.contains(&b'\r') {
            let text = String::from_utf8(bytes).expect("text");
            bytes = text.replace('\n', "\r\n").into_bytes();
        }
        if self
            .changed
            .is_some_and(|changed| path.eq_ignore_ascii_case(changed))
        {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        Ok(Some(bytes))
    }
}

/// An error's line is one of the file.
fn expect_line_of(bytes: &[u8], error: &InfError, name: &str) {
    let lines = bytes.split(|&byte| byte == b'\n').count();
    if let Some(line) = error.line {
        assert!((1..=lines).contains(&(line.0 as usize)), "{name}: {error}");
    }
}

/// Templates as the tools of the driver kits leave them. What stays as it is has other marks.
fn stamped(bytes: &[u8]) -> Vec<u8> {
    let Ok(mut text) = String::from_utf8(bytes.to_vec()) else {
        return bytes.to_vec();
    };
    for (mark, value) in [
        ("$ARCH$", "amd64"),
        ("@INF_ARCH@", "amd64"),
        ("@INF_DATE@", "01/02/2024"),
        ("@MAJOR_VERSION@", "9"),
        ("@MINOR_VERSION@", "1"),
        ("@MICRO_VERSION@", "0"),
        ("@BUILD_NUMBER@", "7"),
        ("$KMDFVERSION$", "1.15"),
        ("$UMDFVERSION$", "2.15.0"),
        ("INX_PLATFORM_DRIVERS_DIR", "12"),
    ] {
        text = text.replace(mark, value);
    }
    text.into_bytes()
}

fn targets() -> impl Iterator<Item = WindowsTarget> {
    let versions = [(6, 1, 7601), (6, 3, 9600), (10, 0, 17763), (10, 0, 26100)];
    let kinds = [ProductType::Workstation, ProductType::Server];
    Architecture::ALL.into_iter().flat_map(move |architecture| {
        versions.into_iter().flat_map(move |(major, minor, build)| {
            kinds.into_iter().map(move |product_type| WindowsTarget {
                architecture,
                version: WindowsVersion {
                    major,
                    minor,
                    build,
                },
                product_type,
                suites: 0,
            })
        })
    })
}

/// All INFs and templates of INFs, with their paths below the folder.
fn infs() -> Vec<(String, Vec<u8>)> {
    let top = corpus().join("inf");
    let mut folders = vec![top.clone()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the corpus") {
            let path = entry.expect("an entry").path();
            let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
            if path.is_dir() {
                folders.push(path);
            } else if ["inf", "inx", "in"].iter().any(|known| extension == *known) {
                let name = path.strip_prefix(&top).expect("below it").to_string_lossy();
                found.push((name.into_owned(), fs::read(&path).expect("a file")));
            }
        }
    }
    assert!(found.len() > 120, "{} INFs", found.len());
    found.sort();
    found
}

fn corpus() -> PathBuf {
    let folder = env::var_os("CE_CORPUS_DIR").expect("CE_CORPUS_DIR names the unpacked corpus");
    Path::new(&folder).to_owned()
}

/// Folder, catalogue, members.
const CATALOGS: [(&str, &str, usize); 6] = [
    ("dorssel-usbipd-win/Drivers/x64", "VBoxUSB.cat", 4),
    ("dorssel-usbipd-win/Drivers/arm64", "VBoxUSB.cat", 4),
    ("tidepool-org-windows-driver", "phdc_driver.cat", 10),
    ("tidepool-org-windows-driver", "tidepoolhid.cat", 2),
    ("tidepool-org-windows-driver", "tidepoolvcp.cat", 26),
    ("tidepool-org-windows-driver", "winusbinstallation.cat", 2),
];

/// Folder, INF, problems.
const PACKAGES: [(&str, &str, &[&str]); 6] = [
    ("dorssel-usbipd-win/Drivers/x64", "VBoxUSB.inf", &[]),
    ("dorssel-usbipd-win/Drivers/arm64", "VBoxUSB.inf", &[]),
    ("tidepool-org-windows-driver", "webusb.inf", &[]),
    (
        "tidepool-org-windows-driver",
        "phdc.inf",
        &[
            "x64\\WdfCoInstaller01009.dll is missing; line 91 copies it",
            "x64\\WinUSBCoInstaller2.dll is missing; line 90 copies it",
            "x86\\WdfCoInstaller01009.dll is missing; line 91 copies it",
            "x86\\WinUSBCoInstaller2.dll is missing; line 90 copies it",
        ],
    ),
    ("tidepool-org-windows-driver", "tidepoolhid.inf", &[]),
    (
        "tidepool-org-windows-driver",
        "tidepoolvcp.inf",
        &[
            "amd64\\silabser.sys is missing; line 142 copies it",
            "amd64\\tiusb.i51 is missing; line 245 copies it",
            "i386\\silabser.sys is missing; line 142 copies it",
            "i386\\tiusb.i51 is missing; line 245 copies it",
            "x64\\WdfCoInstaller01009.dll is missing; line 210 copies it",
            "x64\\WdfCoInstaller01011.dll is missing; line 185 copies it",
            "x86\\WdfCoInstaller01009.dll is missing; line 210 copies it",
            "x86\\WdfCoInstaller01011.dll is missing; line 185 copies it",
        ],
    ),
];

/// Bytes at the end of the first catalogue that its signature does not cover.
const COUNTER_SIGNATURE: usize = 6100;

/// Not INFs, or templates that no tool has stamped.
const REFUSED: [&str; 9] = [
    "microsoft-Windows-driver-samples/general/toaster/toastpkg/inf/autorun.inf: no INF: expected Signature=\"$Windows NT$\" or \"$Chicago$\" in [Version], found nothing",
    "microsoft-Windows-driver-samples/sensors/ADXL345Acc/ADXL345Acc.inx: line 1: expected a [section], found \"/*++\"",
    "microsoft-Windows-driver-samples/sensors/Activity/Activity.inx: line 1: expected a [section], found \"/*++\"",
    "microsoft-Windows-driver-samples/sensors/Fusion/FusionSensor.inx: line 1: expected a [section], found \"/*++\"",
    "microsoft-Windows-driver-samples/sensors/Pedometer/Pedometer.inx: line 1: expected a [section], found \"/*++\"",
    "microsoft-Windows-driver-samples/sensors/SimpleDeviceOrientationSensor/SimpleDeviceOrientationSensor.inx: line 1: expected a [section], found \"/*++\"",
    "xcp-ng-win-xencons/src/xencons.inf: line 39: DriverVer: expected mm/dd/yyyy,a.b.c.d, found \"@INF_DATE@,@MAJOR_VERSION@.@MINOR_VERSION@.@MICRO_VERSION@.@BUILD_NUMBER@\"",
    "xcp-ng-win-xeniface/src/xeniface.inf: line 38: DriverVer: expected mm/dd/yyyy,a.b.c.d, found \"@INF_DATE@,@MAJOR_VERSION@.@MINOR_VERSION@.@MICRO_VERSION@.@BUILD_NUMBER@\"",
    "xcp-ng-win-xennet/src/xennet.inf: line 38: DriverVer: expected mm/dd/yyyy,a.b.c.d, found \"@INF_DATE@,@MAJOR_VERSION@.@MINOR_VERSION@.@MICRO_VERSION@.@BUILD_NUMBER@\"",
];

/// Devices that cannot be installed: Wine's own INFs use what Windows does not know.
const NOT_FOLLOWED: [&str; 7] = [
    "wine/dlls/hidclass.sys/input.inf: line 10: [mfg_section] names the section [device_section], which is not in the file",
    "wine/dlls/mouhid.sys/mouhid.inf: line 10: [mfg_section] names the section [device_section], which is not in the file",
    "wine/dlls/winebth.sys/winebth.inf: line 10: [mfg_section] names the section [device_section], which is not in the file",
    "wine/dlls/winehid.sys/winehid.inf: line 10: [mfg_section] names the section [device_section], which is not in the file",
    "wine/dlls/wineusb.sys/wineusb.inf: line 10: [mfg_section] names the section [device_section], which is not in the file",
    "wine/dlls/winexinput.sys/winexinput.inf: line 10: [mfg_section] names the section [device_section], which is not in the file",
    "wine/loader/wine.inf.in: line 2624: the file \"@C:\\\\Windows\\\\System32\\\\mscms.dll,-1\": a file name without a folder was expected",
];

#[test]
fn the_database_entries_of_a_package_are_those_that_windows_wrote() {
    let hive = load_hive("sys-win10-vmware-hyperv-nolog");
    let root = hive.root().expect("a root");
    let inf = Inf::parse(VMCI.as_bytes()).expect("an INF");
    let target = WindowsTarget {
        architecture: Architecture::Amd64,
        version: WindowsVersion {
            major: 10,
            minor: 0,
            build: 16299,
        },
        product_type: ProductType::Workstation,
        suites: 0,
    };
    let plans: Vec<_> = inf
        .models(&target)
        .expect("models")
        .into_iter()
        .map(|model| {
            inf.plan_model(model, &target, &InfLibrary::default())
                .expect("a plan")
        })
        .collect();
    let label = "vmci.inf_amd64_5e38a278d114b813";
    let key = format!("DriverDatabase\\DriverPackages\\{label}");
    let real = root
        .subkey(key.as_str())
        .expect("readable")
        .expect("the package");
    let import_date = real.value("ImportDate").expect("readable").expect("a date");
    let import_date = import_date.data().expect("eight bytes");
    let version = inf.version();
    let package = StagedPackage {
        label,
        published_name: "oem2.inf",
        inf_name: "vmci.inf",
        architecture: Architecture::Amd64,
        class: version.class_guid,
        driver: version.driver,
        provider: version.provider.as_deref(),
        signer: Some("Microsoft Windows Hardware Compatibility Publisher"),
        is_hardware_programme: true,
        catalog: version.catalog.as_deref(),
        oem_path: r"C:\Program Files\Common Files\VMware\Drivers\vmci\device\Win8",
        plans: &plans,
        is_windows_10: true,
        now: u64::from_le_bytes(import_date.as_ref().try_into().expect("eight bytes")),
    };
    let names = OemNames::read(&hive, None).expect("readable");
    let edits = database_edits(&package, HiveName::System, Form::Full, &names.map());

    let mut ours = BTreeMap::new();
    for edit in edits {
        if let RegistryEditKind::SetValue { name, value } = edit.change {
            // When the database was changed last is no part of the package.
            if name != "UpdateDate" {
                ours.insert((edit.key.to_lowercase(), name.to_lowercase()), value);
            }
        }
    }
    for ((key, name), value) in &ours {
        let found = root
            .subkey(key.as_str())
            .expect("readable")
            .and_then(|key| key.value(name.as_str()).expect("readable"))
            .map(|found| found.to_reg_value().expect("readable"));
        assert_eq!(found.as_ref(), Some(value), "{key} {name}");
    }
    // And nothing that Windows wrote is missing, but for properties of its device metadata.
    let mut compared = 0;
    let mut waiting = vec![(key, real)];
    while let Some((path, key)) = waiting.pop() {
        for value in key.values().expect("values") {
            let name = value.expect("a value").name().to_string().to_lowercase();
            assert!(
                ours.contains_key(&(path.to_lowercase(), name.clone())),
                "{path} {name}"
            );
            compared += 1;
        }
        for child in key.subkeys().expect("subkeys") {
            let child = child.expect("a key");
            if child.name().to_string() != "Properties" {
                waiting.push((format!("{path}\\{}", child.name()), child));
            }
        }
    }
    assert_eq!(compared, 30);

    let service = plans[0].function_driver().expect("a service");
    for edit in service_edits(service, &package, "ControlSet001", false) {
        let RegistryEditKind::SetValue { name, value } = edit.change else {
            continue;
        };
        let key = root
            .subkey(edit.key.as_str())
            .expect("readable")
            .expect("the service");
        let found = key.value(name.as_str()).expect("readable").expect(&name);
        if name == "Owners" {
            // The vendor's own installer added itself.
            assert_eq!(found.multi_string().expect("texts")[0], "oem2.inf");
        } else {
            assert_eq!(found.to_reg_value().expect("readable"), value, "{name}");
        }
    }
}

#[test]
fn versions_of_packages_are_encoded_as_windows_encodes_them() {
    let mut compared = 0;
    for name in ["sys-win10-vmware-hyperv-nolog", "sys-win81-vbox-nolog"] {
        let hive = load_hive(name);
        let root = hive.root().expect("a root");
        let packages = root.subkey("DriverDatabase\\DriverPackages");
        let packages = packages.expect("readable").expect("the packages");
        for package in packages.subkeys().expect("subkeys") {
            let package = package.expect("a key");
            let Some(version) = package.value("Version").expect("readable") else {
                continue;
            };
            let real = version.data().expect("48 bytes");
            let (class, date) = (&real[8..24], &real[24..32]);
            let class = uuid::Uuid::from_bytes_le(class.try_into().expect("16 bytes"));
            let ticks = u64::from_le_bytes(date.try_into().expect("8 bytes"));
            let parts = real[32..40].chunks(2).rev();
            let parts: Vec<String> = parts
                .map(|part| u16::from_le_bytes([part[0], part[1]]).to_string())
                .collect();
            let text = format!(
                "[Version]\nSignature=$CHICAGO$\nDriverVer={},{}\n",
                date_of(ticks),
                parts.join(".")
            );
            let inf = Inf::parse(text.as_bytes()).expect("a date that exists");
            let driver = inf.version().driver.expect("a version");
            let ours = version_value(Architecture::Amd64, class, &driver);
            // The first byte tells Windows' own INFs; the last eight are not understood.
            assert_eq!(ours[1..40], real[1..40], "{}", package.name());
            compared += 1;
        }
    }
    assert!(compared > 390, "{compared}");
}

#[test]
fn the_map_of_published_names_holds_every_name_in_the_database() {
    for (name, next) in [
        ("sys-win10-vmware-hyperv-nolog", 12),
        ("sys-win81-vbox-nolog", 3),
    ] {
        let hive = load_hive(name);
        let mut names = OemNames::read(&hive, None).expect("readable");
        let before = names.map();
        assert_eq!(names.allocate(), next, "{name}");
        let after = names.map();
        for (index, byte) in before.iter().enumerate() {
            assert_eq!(after[index] & byte, *byte, "{name}");
        }
    }
}

/// `mm/dd/yyyy` of a FILETIME, by counting days.
fn date_of(ticks: u64) -> String {
    let mut days = ticks / (86_400 * 10_000_000);
    let is_leap =
        |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let mut year = 1601;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{month:02}/{:02}/{year:04}", days + 1)
}

fn load_hive(name: &str) -> Hive {
    let path = corpus().join("hives").join(name).join("SYSTEM");
    Hive::load(fs::read(path).expect("a hive")).expect("a hive")
}

/// What must have stood in the INF for Windows to write what is in the hive: the INF itself is not in
/// the corpus.
const VMCI: &str = r#"
[Version]
Signature = "$Windows NT$"
Class = System
ClassGuid = {4d36e97d-e325-11ce-bfc1-08002be10318}
Provider = "VMware, Inc."
DriverVer = 07/11/2019, 9.8.16.0
CatalogFile = vmci.cat
[Manufacturer]
%loc.VMwareManufacturer% = Devices, NTamd64
[Devices.NTamd64]
%loc.VMwareBusDeviceDesc% = vmci.install.x64, PCI\VEN_15AD&DEV_0740&SUBSYS_074015AD, PCI\VEN_15AD&DEV_0740
%loc.VMwareHostDeviceDesc% = vmci.install.x64, ROOT\VMWVMCIHOSTDEV
[vmci.install.x64.NT]
[vmci.install.x64.NT.HW]
AddReg = Interrupts
[Interrupts]
HKR, "Interrupt Management", 0x00000010
HKR, "Interrupt Management\MessageSignaledInterruptProperties", 0x00000010
HKR, "Interrupt Management\MessageSignaledInterruptProperties", MSISupported, 0x00010001, 1
HKR, "Interrupt Management\MessageSignaledInterruptProperties", MessageNumberLimit, 0x00010001, 2
[vmci.install.x64.NT.Services]
AddService = vmci, 2, Service
[Service]
ServiceType = 1
StartType = 0
ErrorControl = 0
ServiceBinary = %12%\vmci.sys
LoadOrderGroup = "System Bus Extender"
DisplayName = %loc.vmciServiceDisplayName%
AddReg = Installers
[Installers]
HKR,, vwdk.installers, 0x00010002, Windows
[Strings]
loc.VMwareManufacturer = "VMware, Inc."
loc.VMwareBusDeviceDesc = "VMware VMCI Bus Device"
loc.VMwareHostDeviceDesc = "VMware VMCI Host Device"
loc.vmciServiceDisplayName = "VMware VMCI Bus Driver"
"#;
