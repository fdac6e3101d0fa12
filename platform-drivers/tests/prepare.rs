//! Plan, apply, proof, and plan again, for all pairs of platforms, on guests made of the catalogues.
//!
//! The plans stand in `tests/snapshots/plans`, to be reviewed like code.

mod prepare {
    #[expect(dead_code, reason = "the rest serves tests of disks")]
    pub mod guest;
    pub mod model;
}

use ce_platform::Platform;
use ce_platform::apply::{ApplyError, Content};
use ce_platform::catalog::schema::Action;
use ce_platform::plan::State;
use prepare::guest::{BUILD, Draft, Guest, SETS, catalog, path, program};
use prepare::model;
use proptest::prelude::*;

fn pairs() -> impl Iterator<Item = (Platform, Platform)> {
    let all = Platform::ALL.into_iter();
    all.flat_map(|from| Platform::ALL.into_iter().map(move |to| (from, to)))
}

#[test]
fn what_a_prepare_plans_is_reviewed_for_every_pair_of_platforms() {
    for (from, to) in pairs() {
        let preparation = catalog().preparation(Some(from), to);
        let plan = Guest::of(from, to).plan(&preparation).to_string();
        insta::with_settings!({
            omit_expression => true,
            prepend_module_to_snapshot => false,
            snapshot_path => "snapshots/plans",
        }, {
            insta::assert_snapshot!(format!("{from}-to-{to}"), plan);
        });
    }
}

#[test]
fn what_is_planned_is_done_and_nothing_else_and_a_second_plan_has_nothing_to_do() {
    for (from, to) in pairs() {
        let pair = format!("{from} to {to}");
        let preparation = catalog().preparation(Some(from), to);
        let before = Guest::of(from, to);
        let (plan, files) = before.prepared(&preparation);
        assert_eq!(plan.blockers, [], "{pair}");
        let after = before.written(&files);
        for name in ["SYSTEM", "SOFTWARE"] {
            let mut expected = model::Tree::of(&before.hive(name));
            expected.apply(name, &plan);
            let difference = expected.difference(&model::Tree::of(&after.hive(name)));
            assert_eq!(difference, Vec::<String>::new(), "{pair}: {name}");
            let report = after.hive(name).check();
            assert!(report.findings.is_empty(), "{pair}: {:?}", report.findings);
        }
        let proof = after.proof(&preparation);
        assert_eq!(proof.failures, Vec::<String>::new(), "{pair}");
        model::every_filter_is_a_service_that_starts(&after.hive("SYSTEM"));
        let again = after.plan(&preparation);
        let left: Vec<String> = again.to_do().map(|edit| edit.change.to_string()).collect();
        assert_eq!(left, Vec::<String>::new(), "{pair}");
        let (_, nothing) = after.prepared(&preparation);
        assert!(nothing.is_empty(), "{pair}: {nothing:?}");
    }
}

#[test]
fn logs_of_a_hive_that_changed_are_ones_that_nothing_applies() {
    let preparation = catalog().preparation(None, Platform::Azure);
    let guest = Guest::of(Platform::Vsphere, Platform::Azure);
    let (_, files) = guest.prepared(&preparation);
    let log = path(r"Windows\System32\config\SYSTEM.LOG1");
    let change = files.windows.iter().find(|change| change.path == log);
    assert!(change.is_some_and(|change| change.content == Content::NeutralisedLog));
    let written = guest.written(&files);
    let log = &written.windows[r"Windows\System32\config\SYSTEM.LOG1"];
    assert!(
        log[..512].iter().all(|byte| *byte == 0) && log[512..].iter().all(|byte| *byte == 0x5a)
    );
}

#[test]
fn a_target_without_its_driver_is_refused_with_the_hardware_id_and_where_to_get_it() {
    for (to, id, vendor) in [
        (
            Platform::Nutanix,
            r"PCI\VEN_1AF4&DEV_1004",
            "Nutanix VirtIO",
        ),
        (Platform::Gcp, r"PCI\VEN_1AF4&DEV_1004", "Google"),
        (Platform::Aws, r"PCI\VEN_1D0F&DEV_EC20", "ENA"),
    ] {
        let mut draft = Draft::windows();
        draft.came_from(Platform::Vsphere);
        let guest = draft.guest();
        let preparation = catalog().preparation(None, to);
        let plan = guest.plan(&preparation);
        let blocker = plan
            .blockers
            .iter()
            .find(|blocker| blocker.ids.iter().any(|other| other == id));
        let blocker = blocker.unwrap_or_else(|| panic!("{to}: {:?}", plan.blockers));
        assert_eq!(blocker.code(), "DriverMissing");
        assert!(blocker.to_string().contains(id), "{blocker}");
        assert!(blocker.way_out().contains(vendor), "{}", blocker.way_out());
        // What the source boots with stays until then.
        let is_disabled = |edit: &&ce_platform::plan::Edit| {
            edit.change
                .to_string()
                .contains(r"Services\vmci: Start = 4")
        };
        assert!(plan.to_do().find(is_disabled).is_none(), "{plan}");
        guest.with(&preparation, |machine| {
            let refused = ce_platform::apply::apply(
                &plan,
                guest.hives(),
                machine.volume,
                None,
                prepare::guest::NOW,
            );
            assert!(matches!(refused, Err(ApplyError::Blocked { .. })));
        });
    }
}

#[test]
fn a_driver_for_another_processor_is_no_driver() {
    let mut guest = Guest::of(Platform::Vsphere, Platform::Azure);
    guest.windows.insert(
        r"Windows\System32\drivers\storvsc.sys".into(),
        program(0xaa64),
    );
    let plan = guest.plan(&catalog().preparation(None, Platform::Azure));
    let codes: Vec<_> = plan.blockers.iter().map(|blocker| blocker.code()).collect();
    assert_eq!(codes, ["DriverInvalid"]);
    assert!(
        plan.blockers[0].to_string().contains("0xaa64"),
        "{}",
        plan.blockers[0]
    );
}

#[test]
fn a_stub_of_a_driver_that_is_not_installed_stays_a_stub() {
    let guest = Guest::of(Platform::Vsphere, Platform::Vsphere);
    let preparation = catalog().preparation(None, Platform::Vsphere);
    let plan = guest.plan(&preparation);
    assert!(
        !plan
            .to_do()
            .any(|edit| edit.change.to_string().contains("pvscsi")),
        "{plan}"
    );
    let skipped = plan
        .edits
        .iter()
        .find(|edit| edit.change.to_string() == "driver pvscsi");
    assert!(matches!(skipped.unwrap().state, State::Skipped { .. }));
}

#[test]
fn a_service_of_a_removal_that_still_stands_in_a_filter_list_stays() {
    let mut draft = Draft::windows();
    draft.came_from(Platform::Vsphere);
    let class = "{4d36e967-e325-11ce-bfc1-08002be10318}";
    for set in SETS {
        let key = (format!(r"{set}\Control\Class\{class}"), "UpperFilters");
        draft.filters.get_mut(&key).unwrap().push("vmci".into());
    }
    let plan = draft
        .guest()
        .plan(&catalog().preparation(None, Platform::Azure));
    let skipped: Vec<_> = plan
        .edits
        .iter()
        .filter(|edit| edit.change.to_string().ends_with(r"Services\vmci"))
        .collect();
    assert_eq!(skipped.len(), SETS.len());
    assert!(
        skipped
            .iter()
            .all(|edit| matches!(&edit.state, State::Skipped { why } if why.contains("filter")))
    );
}

#[test]
fn a_proof_names_the_link_that_does_not_hold() {
    let preparation = catalog().preparation(None, Platform::Azure);
    let guest = Guest::of(Platform::Vsphere, Platform::Azure);
    let (_, files) = guest.prepared(&preparation);
    let good = guest.written(&files);
    assert!(good.proof(&preparation).holds());
    let break_system = |edit: &dyn Fn(&mut ce_regf::HiveEditor<'_>)| {
        let mut guest = good.clone();
        let mut hive = guest.hive("SYSTEM");
        edit(&mut hive.edit(prepare::guest::NOW).unwrap());
        let bytes = hive.save(prepare::guest::NOW).unwrap().bytes.to_vec();
        guest
            .windows
            .insert(r"Windows\System32\config\SYSTEM".into(), bytes);
        guest
    };
    let file = |name: &str, content: Option<Vec<u8>>| {
        let mut guest = good.clone();
        match content {
            Some(content) => guest.windows.insert(name.into(), content),
            None => guest.windows.remove(name),
        };
        guest
    };
    let boot = |name: &str, content: Option<&str>| {
        let mut guest = good.clone();
        match content {
            Some(keys) => guest.boot.insert(name.into(), prepare::guest::hive(keys)),
            None => guest.boot.remove(name),
        };
        guest
    };
    let storvsc = r"ControlSet002\Services\storvsc";
    let id = r"DriverDatabase\DeviceIds\VMBUS\{ba6163d9-04a1-4d29-b605-72e2ffb1dc7f}";
    let disks = r"ControlSet001\Control\Class\{4d36e967-e325-11ce-bfc1-08002be10318}";
    for (guest, link) in [
        (
            break_system(&|editor| {
                editor.delete_key(id).unwrap();
            }),
            "hardware id",
        ),
        (
            break_system(&|editor| {
                editor
                    .delete_key(r"DriverDatabase\DriverInfFiles\wstorvsc.inf")
                    .unwrap();
            }),
            "package",
        ),
        (
            break_system(&|editor| {
                editor.delete_key(storvsc).unwrap();
            }),
            "service",
        ),
        (
            break_system(&|editor| {
                editor
                    .set_value(storvsc, "Start", &ce_regf::RegValue::dword(3))
                    .unwrap();
            }),
            "start type",
        ),
        (
            break_system(&|editor| {
                editor
                    .create_key(format!(r"{storvsc}\StartOverride"))
                    .unwrap();
            }),
            "no override",
        ),
        (
            break_system(&|editor| {
                let list = ce_regf::RegValue::multi_sz(["gone"]);
                editor.set_value(disks, "UpperFilters", &list).unwrap();
            }),
            "filter",
        ),
        (file(r"Windows\System32\drivers\storvsc.sys", None), "file"),
        (
            file(
                r"Windows\System32\drivers\storvsc.sys",
                Some(program(0x014c)),
            ),
            "machine",
        ),
        (file(r"Windows\System32\winload.efi", None), "loader"),
        (boot(r"EFI\Boot\bootx64.efi", None), "file"),
        (boot(r"EFI\Microsoft\Boot\BCD", None), "store"),
        (
            boot(r"EFI\Microsoft\Boot\BCD", Some("[Objects]\n")),
            "default entry",
        ),
    ] {
        let proof = guest.proof(&preparation);
        let named = proof
            .failures
            .iter()
            .any(|failure| failure.contains(&format!(": {link}: ")));
        assert!(named, "{link}: {:#?}", proof.failures);
    }
    let damaged = file(r"Windows\System32\config\SYSTEM", Some(b"regf".to_vec()));
    // What it is comes from the sound one, as it does when a writer damaged it.
    good.with(&preparation, |machine| {
        let volume = damaged.volume();
        let proof = ce_platform::proof::Proof::of(&ce_platform::proof::Subject {
            preparation: &preparation,
            inspection: machine.inspection,
            volume: &volume,
            folder: machine.folder,
            boot: None,
        });
        assert!(
            proof.failures[0].starts_with("cannot be read back"),
            "{:?}",
            proof.failures
        );
    });
}

#[test]
fn a_proof_wants_the_partition_that_the_loader_is_on() {
    let preparation = catalog().preparation(None, Platform::Azure);
    let mut guest = Guest::of(Platform::Vsphere, Platform::Azure);
    let (_, files) = guest.prepared(&preparation);
    guest = guest.written(&files);
    guest.with(&preparation, |machine| {
        let boot = machine.boot.unwrap();
        let proof = ce_platform::proof::Proof::of(&ce_platform::proof::Subject {
            preparation: &preparation,
            inspection: machine.inspection,
            volume: machine.volume,
            folder: machine.folder,
            boot: Some(ce_platform::proof::BootSubject {
                volume: boot.volume,
                disk: prepare::guest::DISK,
                windows: uuid::Uuid::from_u128(0x3333),
            }),
        });
        assert!(
            proof.failures[0].contains("device: partition"),
            "{:?}",
            proof.failures
        );
        assert!(
            proof.failures[0].contains("expected partition"),
            "{:?}",
            proof.failures
        );
    });
}

#[test]
fn a_windows_without_a_driver_database_boots_by_its_critical_devices() {
    for to in [Platform::Azure, Platform::Aws, Platform::Vsphere] {
        let preparation = catalog().preparation(Some(Platform::Xenserver), to);
        let mut draft = Draft::windows();
        draft.came_from(Platform::Xenserver);
        draft.drop_database();
        let mut before = draft.guest();
        // Network adapters are found by their INFs.
        before
            .windows
            .insert(r"Windows\INF\ena.inf".into(), b"; INF".to_vec());
        let (plan, files) = before.prepared(&preparation);
        assert_eq!(plan.blockers, [], "{to}");
        let after = before.written(&files);
        let system = after.hive("SYSTEM");
        assert!(
            system
                .root()
                .unwrap()
                .subkey("DriverDatabase")
                .unwrap()
                .is_none()
        );
        let proof = after.proof(&preparation);
        assert_eq!(proof.failures, Vec::<String>::new(), "{to}");
        assert_eq!(after.plan(&preparation).to_do().count(), 0, "{to}");
        assert!(!before.proof(&preparation).holds(), "{to}");
        let id = match to {
            Platform::Azure => "VMBUS#{ba6163d9-04a1-4d29-b605-72e2ffb1dc7f}",
            Platform::Aws => "PCI#CC_010802",
            _ => "PCI#VEN_1000&DEV_0054",
        };
        for set in SETS {
            let key = format!(r"{set}\Control\CriticalDeviceDatabase\{id}");
            let key = system.root().unwrap().subkey(key.as_str()).unwrap();
            let key = key.unwrap_or_else(|| panic!("{to}: {set}: {id}"));
            assert!(key.value("Service").unwrap().is_some());
            let class = key.value("ClassGUID").unwrap().unwrap().string().unwrap();
            assert_eq!(class, "{4D36E97B-E325-11CE-BFC1-08002BE10318}");
        }
    }
}

#[test]
fn changes_are_listed_as_a_job_tells_them() {
    let guest = Guest::of(Platform::Vsphere, Platform::Azure);
    let plan = guest.plan(&catalog().preparation(None, Platform::Azure));
    let changes = serde_json::to_value(plan.changes()).unwrap();
    let changes = changes.as_array().unwrap();
    for line in changes {
        assert!(line["id"].is_string() && line["title"].is_string() && line["reason"].is_string());
        assert_eq!(
            line["why"].is_string(),
            line["outcome"] == "skipped",
            "{line}"
        );
    }
    for outcome in ["done", "alreadySo", "deferred", "skipped"] {
        let is_there = changes.iter().any(|line| line["outcome"] == outcome);
        assert!(is_there, "{outcome}");
    }
    assert!(
        plan.first_boot()
            .any(|(_, step)| step.to_string() == "uninstall \"VMware Tools\"")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_is_left_behind_no_filter_loses_its_service_and_nothing_protected_is_touched(
        picked in prop::collection::btree_set(0_usize..64, 1..20),
        filtered in prop::collection::vec(0_usize..64, 0..4),
        to in prop::sample::select(Platform::ALL.to_vec()),
    ) {
        let preparation = catalog().preparation(None, to);
        let mut draft = Draft::windows();
        draft.install_drivers_of(to);
        let items: Vec<_> = Platform::ALL.into_iter().flat_map(|from| catalog().removal(from)).collect();
        let services = |index: usize| items[index % items.len()].steps.iter().filter_map(|step| match &step.action {
            Action::Service(rule) => Some(rule),
            _ => None,
        });
        for index in picked {
            draft.bait(items[index % items.len()]);
        }
        // Any driver may stand in any list.
        for index in filtered {
            for rule in services(index) {
                let key = format!(r"{}\Control\Class\{{4d36e97d-e325-11ce-bfc1-08002be10318}}", SETS[0]);
                draft.service(rule.name.as_str(), 1, 0, rule.image.first().map_or("some.sys", |image| image.as_str()), "");
                draft.filters.get_mut(&(key, "LowerFilters")).unwrap().push(rule.name.to_string());
            }
        }
        let before = draft.guest();
        let (plan, files) = before.prepared(&preparation);
        prop_assert!(plan.blockers.is_empty());
        let after = before.written(&files);
        model::every_filter_is_a_service_that_starts(&after.hive("SYSTEM"));
        let protected: std::collections::BTreeSet<String> = catalog()
            .protected()
            .flat_map(|group| &group.services)
            .map(|service| service.folded())
            .collect();
        for edit in plan.to_do() {
            let what = edit.change.to_string().to_lowercase();
            for set in SETS {
                let start = format!(r"system {}\services\", set.to_lowercase());
                if let Some(service) = what.strip_prefix(&start).and_then(|rest| rest.split_once(':'))
                    && protected.contains(service.0)
                {
                    prop_assert!(!what.ends_with("start = 4") && !what.ends_with("delete key"), "{what}");
                }
            }
        }
    }
}

#[test]
fn the_build_of_the_guest_is_one_without_pvscsi() {
    let of_vsphere = catalog()
        .target(Platform::Vsphere)
        .flat_map(|item| &item.steps);
    let mut services = of_vsphere.filter_map(|step| match &step.action {
        Action::BootService(service) if service.name.as_str() == "pvscsi" => Some(service),
        _ => None,
    });
    assert!(!services.next().unwrap().inbox.has(BUILD));
}
