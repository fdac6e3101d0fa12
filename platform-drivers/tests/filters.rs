//! That nothing which starts a disk is lost on the way, whatever pair of platforms: filters of the
//! source are out of every list, and the drivers of the target start at boot.

mod prepare {
    #[expect(dead_code, reason = "the rest is for all pairs of platforms")]
    pub mod guest;
    #[expect(dead_code, reason = "the rest is for all pairs of platforms")]
    pub mod model;
}

use std::collections::BTreeMap;

use ce_platform::Platform;
use ce_platform::catalog::schema::Action;
use ce_regf::{Hive, RegValue};
use prepare::guest::{Draft, Guest, SETS, catalog};
use prepare::model;

/// Classes from the bus to the volume, CD-ROM drives and mice.
const CLASSES: [&str; 6] = [
    "{4d36e965-e325-11ce-bfc1-08002be10318}",
    "{4d36e967-e325-11ce-bfc1-08002be10318}",
    "{4d36e96a-e325-11ce-bfc1-08002be10318}",
    "{4d36e96f-e325-11ce-bfc1-08002be10318}",
    "{4d36e97d-e325-11ce-bfc1-08002be10318}",
    "{71a27cdd-812a-11d0-bec7-08002be2092f}",
];
const LISTS: [&str; 2] = ["LowerFilters", "UpperFilters"];

fn prepared(guest: &Guest, from: Option<Platform>, to: Platform) -> Guest {
    let preparation = catalog().preparation(from, to);
    let (plan, files) = guest.prepared(&preparation);
    assert_eq!(plan.blockers, [], "{from:?} to {to}");
    let after = guest.written(&files);
    let proof = after.proof(&preparation);
    assert_eq!(proof.failures, Vec::<String>::new(), "{from:?} to {to}");
    after
}

fn value(hive: &Hive, key: &str, name: &str) -> Option<RegValue> {
    let key = hive.root().unwrap().subkey(key).unwrap()?;
    let value = key.value(name).unwrap();
    value.map(|value| value.to_reg_value().unwrap())
}

/// A driver of the source in lists of these classes, above and below other filters.
fn filtered(to: Platform, driver: &str, classes: &[&str]) -> Draft {
    let mut draft = Draft::windows();
    draft.install_drivers_of(to);
    draft.service(driver, 1, 0, &format!("{driver}.sys"), "");
    for set in SETS {
        for class in classes {
            for list in LISTS {
                let key = (format!(r"{set}\Control\Class\{class}"), list);
                let filters = draft.filters.entry(key).or_default();
                filters.insert(0, driver.to_uppercase());
                filters.push("keepflt".into());
                filters.dedup();
            }
        }
    }
    draft
}

#[test]
fn a_filter_of_the_source_is_out_of_every_list_before_its_service_is_off() {
    let mouse = &CLASSES[3..4];
    for (from, driver, classes) in [
        (Platform::Xenserver, "xenfilt", &CLASSES[..]),
        (Platform::Xenserver, "scsifilt", &CLASSES[..]),
        (Platform::Aws, "xenfilt", &CLASSES[..]),
        (Platform::Aws, "scsifilt", &CLASSES[..]),
        (Platform::Vsphere, "vsepflt", &CLASSES[..]),
        (Platform::Vsphere, "vmmouse", mouse),
        (Platform::Vsphere, "vmusbmouse", mouse),
        (Platform::Nutanix, "prl_strg", &CLASSES[..]),
        (Platform::Vsphere, "prl_strg", &CLASSES[..]),
    ] {
        for to in Platform::ALL.into_iter().filter(|to| *to != from) {
            // Where it comes from is not always known.
            for from in [Some(from), None] {
                if from.is_none() && catalog().removal(to).any(|item| takes_out(item, driver)) {
                    continue;
                }
                let pair = format!("{driver}, {from:?} to {to}");
                let draft = filtered(to, driver, classes);
                let system = prepared(&draft.guest(), from, to).hive("SYSTEM");
                for set in SETS {
                    let start = value(&system, &format!(r"{set}\Services\{driver}"), "Start");
                    assert_eq!(start, Some(RegValue::dword(4)), "{pair}: {set}");
                    for class in classes {
                        for list in LISTS {
                            let key = format!(r"{set}\Control\Class\{class}");
                            let left = value(&system, &key, list);
                            let others = RegValue::multi_sz(["keepflt"]);
                            assert_eq!(left, Some(others), "{pair}: {key}\\{list}");
                        }
                    }
                }
                model::every_filter_is_a_service_that_starts(&system);
            }
        }
    }
}

fn takes_out(item: &ce_platform::catalog::Item, driver: &str) -> bool {
    item.steps.iter().any(|step| match &step.action {
        Action::Filter(rule) => rule.driver.as_str() == driver,
        _ => false,
    })
}

#[test]
fn lists_that_name_files_of_vmware_tools_lose_them_and_keep_the_others() {
    let display = "{4d36e968-e325-11ce-bfc1-08002be10318}";
    for to in Platform::ALL {
        let system = prepared(
            &Guest::of(Platform::Vsphere, to),
            Some(Platform::Vsphere),
            to,
        );
        let system = system.hive("SYSTEM");
        let stays = to == Platform::Vsphere;
        for set in SETS {
            let installers = value(
                &system,
                &format!(r"{set}\Control\CoDeviceInstallers"),
                display,
            );
            let order = format!(r"{set}\Control\NetworkProvider\Order");
            let order = value(&system, &order, "ProviderOrder");
            if stays {
                continue;
            }
            assert_eq!(installers, Some(RegValue::multi_sz(["other.dll"])), "{to}");
            assert_eq!(order, Some(RegValue::sz("RDPNP,LanmanWorkstation")), "{to}");
        }
    }
}

#[test]
fn whatever_controller_the_target_shows_its_driver_starts_at_boot_in_every_control_set() {
    for to in Platform::ALL {
        let mut draft = Draft::windows();
        draft.install_drivers_of(to);
        let steps = || catalog().target(to).flat_map(|item| &item.steps);
        let services: BTreeMap<&str, &str> = steps()
            .filter_map(|step| match &step.action {
                Action::BootService(service) => {
                    Some((service.name.as_str(), service.group.as_str()))
                }
                _ => None,
            })
            .collect();
        for name in services.keys() {
            draft.override_start(name);
            for set in SETS {
                let key = format!("[{set}\\Services\\{name}]");
                // One that is not part of this Windows stays the stub that it is.
                if draft.system.contains(&format!("{key}\n\"Type\"")) {
                    draft.system.push_str(&format!(
                        "{key}\n\"Start\"=dword:00000004\n\"Group\"=\"Extended Base\"\n"
                    ));
                }
            }
        }
        let after = prepared(&draft.guest(), None, to);
        let system = after.hive("SYSTEM");
        let mut started = 0;
        for (name, group) in &services {
            for set in SETS {
                let key = format!(r"{set}\Services\{name}");
                if value(&system, &key, "Type").is_none() {
                    continue;
                }
                assert_eq!(
                    value(&system, &key, "Start"),
                    Some(RegValue::dword(0)),
                    "{to}: {key}"
                );
                let found =
                    value(&system, &key, "Group").map(|found| found.data.to_ascii_lowercase());
                let expected = RegValue::sz(group).data.to_ascii_lowercase();
                assert_eq!(found, Some(expected), "{to}: {key}");
                let root = system.root().unwrap();
                let override_of = root.subkey(format!(r"{key}\StartOverride").as_str());
                assert!(override_of.unwrap().is_none(), "{to}: {key}");
                started += 1;
            }
        }
        assert!(started >= 2 * SETS.len(), "{to}: {started}");
    }
}
