//! What becomes of addresses and adapters: carried at the first boot, or reset at once.

#[path = "prepare/guest.rs"]
#[expect(dead_code, reason = "the rest is for all pairs of platforms")]
mod guest;

use ce_platform::Platform;
use ce_platform::plan::{EditPlan, Network, State};
use guest::{Draft, Guest, SETS, catalog};

const SCRIPT: &str = r"Windows\ce-agent\first-boot.cmd";
const VMXNET: &str = r"PCI\VEN_15AD&DEV_07B0&SUBSYS_07B015AD&REV_01\FF290C00D4E6A7FE00";

/// A guest with two adapters, the second one with everything that can be set by hand.
fn two_adapters() -> Draft {
    let mut draft = Draft::windows();
    draft.adapter(
        1,
        r"PCI\VEN_8086&DEV_10D3\000C29FFFFF3FFDE00",
        "LAN",
        "e1iexpress",
        "",
    );
    let mut settings = Draft::static_address("192.168.7.20", "255.255.252.0", "192.168.4.1");
    settings.push_str("\"Domain\"=\"corp.example.com\"\n\"InterfaceMetric\"=dword:0000000f\n");
    draft.adapter(2, VMXNET, "Backup & data", "vmxnet3ndis6", &settings);
    for set in SETS {
        let guid = "{6F1C0A5E-0000-4B1D-8F00-5A1DE2C90002}";
        let services = format!("{set}\\Services");
        draft.system.push_str(&format!(
            "[{services}\\NetBT\\Parameters\\Interfaces\\Tcpip_{guid}]\n\"NetbiosOptions\"=dword:00000002\n\
             \"NameServerList\"=hex(7):31,00,30,00,2e,00,30,00,2e,00,30,00,2e,00,39,00,00,00,00,00\n\
             [{services}\\Tcpip6\\Parameters\\Interfaces\\{guid}]\n\"NameServer\"=\"fd00::53\"\n"
        ));
    }
    draft
}

fn plan(guest: &Guest, to: Platform) -> EditPlan {
    guest.plan(&catalog().preparation(Some(Platform::Vsphere), to))
}

/// The script that a prepare puts on the disk.
fn script(guest: &Guest, to: Platform) -> Option<String> {
    let preparation = catalog().preparation(Some(Platform::Vsphere), to);
    let (_, files) = guest.prepared(&preparation);
    let script = guest.written(&files).windows.get(SCRIPT).cloned();
    script.map(|bytes| String::from_utf8(bytes).unwrap())
}

/// The lines of a plan about the network, by what becomes of them.
fn told(plan: &EditPlan, wanted: impl Fn(&State) -> bool) -> Vec<String> {
    let lines = plan
        .edits
        .iter()
        .filter(|edit| edit.item == "network" && wanted(&edit.state));
    lines.map(|edit| edit.change.to_string()).collect()
}

fn skipped(state: &State) -> bool {
    matches!(state, State::Skipped { .. })
}

#[test]
fn the_script_that_carries_addresses_is_reviewed() {
    let text = script(&two_adapters().guest(), Platform::Azure).unwrap();
    insta::with_settings!({
        omit_expression => true,
        prepend_module_to_snapshot => false,
    }, {
        insta::assert_snapshot!("first-boot-network", text);
    });
}

#[test]
fn every_label_that_the_script_goes_to_is_there_and_every_routine_ends() {
    let text = script(&two_adapters().guest(), Platform::Azure).unwrap();
    let labels: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix(':'))
        .collect();
    for line in text.lines() {
        for word in ["goto ", "call :"] {
            for target in line.split(word).skip(1) {
                let target = target.split([' ', '"']).next().unwrap();
                assert_eq!(
                    labels.iter().filter(|label| **label == target).count(),
                    1,
                    "{line}"
                );
            }
        }
    }
    let end = text.trim_end().lines().last().unwrap();
    assert!(end.starts_with("exit /b"), "{end}");
    // Between the script and its routines, too.
    let (before, _) = text.split_once(":network\r\n").unwrap();
    assert!(before.trim_end().ends_with("exit /b %FAILED%"), "{before}");
}

#[test]
fn what_is_carried_is_told_and_the_hives_keep_it() {
    let guest = two_adapters().guest();
    let plan = plan(&guest, Platform::Azure);
    let deferred = told(&plan, |state| *state == State::Deferred);
    assert_eq!(
        deferred,
        [
            r#"take out "LAN", unless the new machine has it"#,
            r#"carry addresses of "Backup & data" to the adapter in its place: 192.168.7.20/22, gateway 192.168.4.1, DNS 10.20.0.2, DNS 10.20.0.3, DNS fd00::53, WINS 10.0.0.9, suffix corp.example.com, metric 15, NetBIOS off"#,
            r#"take out "Backup & data", unless the new machine has it"#,
        ]
    );
    let changed = told(&plan, |state| *state == State::ToDo);
    assert_eq!(changed, Vec::<String>::new());
}

#[test]
fn an_image_that_asks_dhcp_and_stays_on_its_platform_needs_no_first_boot() {
    let mut draft = Draft::windows();
    draft.adapter(
        1,
        VMXNET,
        "LAN",
        "vmxnet3ndis6",
        "\"EnableDHCP\"=dword:00000001\n",
    );
    let guest = draft.guest();
    assert_eq!(script(&guest, Platform::Vsphere), None);
    assert_eq!(
        told(&plan(&guest, Platform::Azure), |state| *state
            == State::Deferred),
        [r#"take out "LAN", unless the new machine has it"#]
    );
}

#[test]
fn nothing_of_the_image_gets_into_the_script_but_what_is_of_its_form() {
    for (value, what) in [
        ("\"NameServer\"=\"10.0.0.1&calc\"\n", "DNS server"),
        ("\"Domain\"=\"a.b & calc\"\n", "suffix"),
        ("\"Domain\"=\"%COMSPEC%\"\n", "suffix"),
    ] {
        let mut draft = Draft::windows();
        draft.adapter(1, VMXNET, "x\" & calc & \"", "vm & calc", value);
        let address = Draft::static_address("10.0.0.5 & calc", "255.255.255.0", "10.0.0.1");
        draft.adapter(2, r"PCI\VEN_1\1", "LAN", "vmxnet3ndis6", &address);
        let address = Draft::static_address("10.0.0.5", "255.0.255.0", "10.0.0.1");
        draft.adapter(4, r"PCI\VEN_1\2", "LAN", "vmxnet3ndis6", &address);
        draft.adapter(5, r"PCI\VEN_1&%x%\3", "LAN", "vmxnet3ndis6", "");
        let guest = draft.guest();
        let text = script(&guest, Platform::Azure).unwrap();
        for bad in ["calc", "COMSPEC", "%x%", "255.0.255.0", "address=10.0.0.5"] {
            assert!(!text.contains(bad), "{bad}: {text}");
        }
        let told = told(&plan(&guest, Platform::Azure), skipped);
        for what in [what, "address", "network adapter"] {
            assert!(
                told.iter().any(|line| line.starts_with(what)),
                "{what}: {told:#?}"
            );
        }
    }
}

#[test]
fn an_adapter_that_was_gone_or_disabled_has_no_one_in_its_place() {
    let mut draft = two_adapters();
    let address = Draft::static_address("10.9.9.9", "255.255.255.0", "10.9.9.1");
    draft.adapter(3, r"PCI\VEN_1\3", "Gone", "e1iexpress", &address);
    draft.adapter(4, r"PCI\VEN_1\4", "Disabled", "e1iexpress", &address);
    for set in SETS {
        let times = r"Properties\{83da6326-97a6-4088-9453-a1923f573b29}";
        draft.system.push_str(&format!(
            "[{set}\\Enum\\PCI\\VEN_1\\3\\{times}\\0067]\n@=hex(ffff0010):00,00,00,00,00,00,02,00\n\
             [{set}\\Enum\\PCI\\VEN_1\\4]\n\"ConfigFlags\"=dword:00000001\n"
        ));
    }
    let guest = draft.guest();
    let told = told(&plan(&guest, Platform::Azure), skipped);
    assert_eq!(told.len(), 2, "{told:#?}");
    let text = script(&guest, Platform::Azure).unwrap();
    assert!(!text.contains("10.9.9.9"), "{text}");
    assert!(!text.contains(r#"remove-device "PCI\VEN_1\4""#), "{text}");
    assert!(text.contains(r#"remove-device "PCI\VEN_1\3""#), "{text}");
}

#[test]
fn dhcp_takes_every_address_off_every_control_set_at_once() {
    let mut draft = two_adapters();
    for set in SETS {
        draft.system.push_str(&format!(
            "[{set}\\Services\\Tcpip\\Parameters]\n\"NameServer\"=\"10.0.0.53\"\n\
             [{set}\\Services\\Tcpip\\Parameters\\PersistentRoutes]\n\"10.8.0.0,255.255.0.0,10.20.30.1,1\"=\"\"\n\
             [{set}\\Control\\Nsi\\{{eb004a01-9b1a-11d4-9123-0050047759bc}}\\10]\n\"fd00\"=hex:01\n"
        ));
    }
    let mut guest = draft.guest();
    let kept = told(&plan(&guest, Platform::Azure), skipped);
    assert_eq!(kept, ["static addresses of IPv6"]);

    guest.options.network = Network::Dhcp;
    let preparation = catalog().preparation(Some(Platform::Vsphere), Platform::Azure);
    let (_, files) = guest.prepared(&preparation);
    let after = guest.written(&files);
    let system = after.hive("SYSTEM");
    let text = |key: &str, value: &str| {
        let key = system.root().unwrap().subkey(key).unwrap().unwrap();
        let value = key.value(value).unwrap();
        value.map(|value| value.to_reg_value().unwrap())
    };
    for set in SETS {
        let tcpip = format!(r"{set}\Services\Tcpip\Parameters");
        let guid = "{6F1C0A5E-0000-4B1D-8F00-5A1DE2C90002}";
        let interface = format!(r"{tcpip}\Interfaces\{guid}");
        let dhcp = text(&interface, "EnableDHCP").unwrap();
        assert_eq!(dhcp, ce_regf::RegValue::dword(1));
        for gone in ["IPAddress", "SubnetMask", "DefaultGateway"] {
            assert_eq!(text(&interface, gone), None, "{gone}");
        }
        let none = ce_regf::RegValue::sz("");
        for key in [&interface, &tcpip, &interface.replace("Tcpip", "Tcpip6")] {
            assert_eq!(text(key, "NameServer").as_ref(), Some(&none), "{key}");
        }
        assert_eq!(text(&interface, "Domain"), Some(none));
        let routes = format!(r"{tcpip}\PersistentRoutes");
        assert_eq!(text(&routes, "10.8.0.0,255.255.0.0,10.20.30.1,1"), None);
    }
    let script = String::from_utf8(after.windows[SCRIPT].clone()).unwrap();
    assert!(
        !script.contains("192.168.7.20") && script.contains("/remove-device"),
        "{script}"
    );
    let again = after.plan(&preparation);
    assert_eq!(
        told(&again, |state| *state == State::ToDo),
        Vec::<String>::new()
    );
}

#[test]
fn adapters_under_the_software_of_provisioning_services_are_left_alone() {
    let mut draft = two_adapters();
    draft.service("bnistack", 1, 0, "bnistack6.sys", "");
    draft.service("BNDevice", 0x10, 2, "BNDevice.exe", "");
    let guest = draft.guest();
    let plan = plan(&guest, Platform::Vsphere);
    assert_eq!(told(&plan, skipped), ["network adapters"]);
    assert_eq!(script(&guest, Platform::Vsphere), None);
}

#[test]
fn new_adapters_are_looked_for_on_the_bus_of_the_target() {
    for (to, bus, other) in [
        (Platform::Azure, "VMBUS", "PCI"),
        (Platform::Vsphere, "PCI", "VMBUS"),
        (Platform::Xenserver, "PCI", "VMBUS"),
    ] {
        let text = script(&two_adapters().guest(), to).unwrap();
        let looks = |bus: &str| text.contains(&format!(r#"=="{bus}\" goto look-bus"#));
        assert!(looks(bus) && !looks(other), "{to}: {text}");
    }
}
