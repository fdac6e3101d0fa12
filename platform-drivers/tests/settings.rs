//! Settings of each target, and what the source cloud had set, as they stand in the hives and in the
//! boot configuration after a prepare.

#[path = "prepare/guest.rs"]
#[expect(dead_code, reason = "the rest is for all pairs of platforms")]
mod guest;

use ce_platform::Platform;
use ce_regf::{Hive, RegValue};
use guest::{Draft, Guest, SETS, catalog};

const ENTRY: &str = r"Objects\{6d5c1f0e-8a3b-4c27-9e10-52d17f3a00ff}\Elements";
const EMS: &str = r"Objects\{0ce4991b-e6b3-4b16-b23c-5e0d9250e5d9}\Elements";
const ACTIVATION: &str = r"Microsoft\Windows NT\CurrentVersion\SoftwareProtectionPlatform";
const CLOUDS: [Platform; 3] = [Platform::Aws, Platform::Azure, Platform::Gcp];

/// A guest after it was prepared.
fn prepared(guest: &Guest, from: Platform, to: Platform) -> Guest {
    let preparation = catalog().preparation(Some(from), to);
    let (plan, files) = guest.prepared(&preparation);
    assert_eq!(plan.blockers, [], "{from} to {to}");
    guest.written(&files)
}

fn value(hive: &Hive, key: &str, name: &str) -> Option<RegValue> {
    let key = hive.root().unwrap().subkey(key).unwrap()?;
    let value = key.value(name).unwrap();
    value.map(|value| value.to_reg_value().unwrap())
}

fn dword(hive: &Hive, key: &str, name: &str) -> Option<u32> {
    let bytes = value(hive, key, name)?.data;
    bytes.first_chunk().copied().map(u32::from_le_bytes)
}

fn element(guest: &Guest, key: &str) -> Option<Vec<u8>> {
    let store = Hive::load(guest.boot[ce_platform::plan::BCD].clone()).unwrap();
    value(&store, key, "Element").map(|value| value.data)
}

#[test]
fn disks_are_online_nothing_hibernates_and_a_stop_code_stays_on_every_target() {
    for to in Platform::ALL {
        let from = if to == Platform::Vsphere {
            Platform::Azure
        } else {
            Platform::Vsphere
        };
        let after = prepared(&Guest::of(from, to), from, to);
        let system = after.hive("SYSTEM");
        for set in SETS {
            for (key, name, expected) in [
                (r"Services\partmgr\Parameters", "SanPolicy", 1),
                (r"Control\Power", "HibernateEnabled", 0),
                (r"Control\Session Manager\Power", "HiberbootEnabled", 0),
                (r"Control\CrashControl", "AutoReboot", 0),
            ] {
                let found = dword(&system, &format!(r"{set}\{key}"), name);
                assert_eq!(found, Some(expected), "{to}: {set}: {name}");
            }
        }
        let loader = &after.boot[r"EFI\Microsoft\Boot\bootmgfw.efi"];
        assert_eq!(
            after.boot.get(r"EFI\Boot\bootx64.efi"),
            Some(loader),
            "{to}"
        );
        assert_eq!(element(&after, &format!(r"{ENTRY}\16000046")), None, "{to}");
    }
}

#[test]
fn the_clock_is_what_the_target_gives_and_is_left_where_that_is_not_known() {
    for (to, expected) in [
        (Platform::Aws, Some(1)),
        (Platform::Azure, Some(1)),
        (Platform::Gcp, Some(1)),
        (Platform::Nutanix, Some(7)),
        (Platform::Vsphere, None),
        (Platform::Xenserver, Some(7)),
    ] {
        let from = Platform::Aws;
        let mut draft = Draft::windows();
        draft.install_drivers_of(to);
        for set in SETS {
            draft.system.push_str(&format!(
                "[{set}\\Control\\TimeZoneInformation]\n\"RealTimeIsUniversal\"=dword:00000007\n"
            ));
        }
        let system = prepared(&draft.guest(), from, to).hive("SYSTEM");
        for set in SETS {
            let key = format!(r"{set}\Control\TimeZoneInformation");
            assert_eq!(
                dword(&system, &key, "RealTimeIsUniversal"),
                expected,
                "{to}: {set}"
            );
        }
    }
}

#[test]
fn clouds_are_reached_by_remote_desktop_and_other_targets_keep_their_setting() {
    for to in Platform::ALL {
        let mut draft = Draft::windows();
        draft.install_drivers_of(to);
        for set in SETS {
            draft.system.push_str(&format!(
                "[{set}\\Control\\Terminal Server]\n\"fDenyTSConnections\"=dword:00000001\n"
            ));
        }
        let system = prepared(&draft.guest(), Platform::Xenserver, to).hive("SYSTEM");
        let expected = u32::from(!CLOUDS.contains(&to));
        for set in SETS {
            let key = format!(r"{set}\Control\Terminal Server");
            assert_eq!(
                dword(&system, &key, "fDenyTSConnections"),
                Some(expected),
                "{to}"
            );
        }
    }
}

#[test]
fn the_serial_console_is_on_where_the_platform_asks_for_it() {
    for (to, port) in [
        (Platform::Azure, Some(1_u64)),
        (Platform::Gcp, Some(2)),
        // On AWS it would keep the launch agent from telling the password.
        (Platform::Aws, None),
        (Platform::Vsphere, None),
    ] {
        let after = prepared(&Guest::of(Platform::Nutanix, to), Platform::Nutanix, to);
        let number = |number: u64| number.to_le_bytes().to_vec();
        let has = |key: &str| element(&after, key);
        assert_eq!(
            has(&format!(r"{ENTRY}\260000b0")),
            port.map(|_| vec![1]),
            "{to}: ems"
        );
        assert_eq!(
            has(&format!(r"{ENTRY}\250000e0")),
            port.map(|_| number(1)),
            "{to}: policy"
        );
        assert_eq!(
            has(&format!(r"{EMS}\15000022")),
            port.map(number),
            "{to}: port"
        );
        assert_eq!(
            has(&format!(r"{EMS}\15000023")),
            port.map(|_| number(115_200)),
            "{to}: rate"
        );
    }
}

#[test]
fn the_activation_host_of_the_source_cloud_goes_and_that_of_a_company_stays() {
    for (from, host) in [
        (Platform::Aws, "169.254.169.250"),
        (Platform::Aws, "169.254.169.251"),
        (Platform::Azure, "kms.core.windows.net"),
        (Platform::Azure, "AZKMS.core.windows.net"),
        (Platform::Gcp, "kms.windows.googlecloud.com"),
    ] {
        for (host, is_left) in [(host, false), ("kms.corp.example.com", true)] {
            let mut draft = Draft::windows();
            draft.install_drivers_of(Platform::Vsphere);
            draft.software.push_str(&format!(
                "[{ACTIVATION}]\n\"KeyManagementServiceName\"=\"{host}\"\n"
            ));
            let software = prepared(&draft.guest(), from, Platform::Vsphere).hive("SOFTWARE");
            let found = value(&software, ACTIVATION, "KeyManagementServiceName");
            assert_eq!(found.is_some(), is_left, "{from}: {host}");
        }
    }
}

#[test]
fn the_time_server_of_the_source_cloud_goes_and_that_of_a_company_stays() {
    for (from, server, expected) in [
        (Platform::Aws, "169.254.169.123,0x9", "time.windows.com,0x9"),
        (
            Platform::Gcp,
            "metadata.google.internal,0x1",
            "time.windows.com,0x9",
        ),
        (
            Platform::Aws,
            "ntp.corp.example.com,0x9",
            "ntp.corp.example.com,0x9",
        ),
        (
            Platform::Gcp,
            "ntp.corp.example.com,0x9",
            "ntp.corp.example.com,0x9",
        ),
    ] {
        let mut draft = Draft::windows();
        draft.install_drivers_of(Platform::Nutanix);
        for set in SETS {
            draft.system.push_str(&format!(
                "[{set}\\Services\\W32Time\\Parameters]\n\"NtpServer\"=\"{server}\"\n"
            ));
        }
        let system = prepared(&draft.guest(), from, Platform::Nutanix).hive("SYSTEM");
        for set in SETS {
            let key = format!(r"{set}\Services\W32Time\Parameters");
            let found = value(&system, &key, "NtpServer");
            assert_eq!(found, Some(RegValue::sz(expected)), "{from}: {server}");
        }
    }
}

#[test]
fn routes_to_the_metadata_service_go_and_other_routes_stay() {
    let own = "10.8.0.0,255.255.0.0,10.20.30.1,1";
    for (from, address) in [
        (Platform::Aws, "169.254.169.254"),
        (Platform::Aws, "169.254.169.123"),
        (Platform::Aws, "169.254.169.249"),
        (Platform::Aws, "169.254.169.253"),
        (Platform::Azure, "168.63.129.16"),
        (Platform::Azure, "169.254.169.254"),
        (Platform::Gcp, "169.254.169.254"),
    ] {
        let route = format!("{address},255.255.255.255,10.20.30.1,1");
        let mut draft = Draft::windows();
        draft.install_drivers_of(Platform::Vsphere);
        for set in SETS {
            draft.system.push_str(&format!(
                "[{set}\\Services\\Tcpip\\Parameters\\PersistentRoutes]\n\"{route}\"=\"\"\n\"{own}\"=\"\"\n"
            ));
        }
        let system = prepared(&draft.guest(), from, Platform::Vsphere).hive("SYSTEM");
        for set in SETS {
            let key = format!(r"{set}\Services\Tcpip\Parameters\PersistentRoutes");
            assert_eq!(value(&system, &key, &route), None, "{from}: {address}");
            assert!(value(&system, &key, own).is_some(), "{from}: {own}");
        }
    }
}
