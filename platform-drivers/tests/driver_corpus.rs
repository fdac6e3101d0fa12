//! INFs that vendors and Microsoft wrote.
//!
//! Needs the corpus: `CE_CORPUS_DIR=<folder> cargo test -p ce-platform --features corpus`.
#![cfg(feature = "corpus")]

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use ce_platform::inf::{
    Architecture, Inf, InfError, InfErrorKind, InfLibrary, ProductType, WindowsTarget,
    WindowsVersion,
};

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
