//! The catalogues that are compiled in: they can be used, and what they come to for every pair of
//! platforms stands in `tests/snapshots`, to be reviewed like code.
//!
//! A change of a catalogue changes snapshots: `INSTA_UPDATE=always cargo test -p ce-platform --test
//! catalog` writes them anew.

use std::collections::BTreeSet;

use ce_platform::catalog::schema::{Action, Leave, ServiceAction};
use ce_platform::{Catalog, Platform};

#[test]
fn the_catalogues_can_be_read_and_contradict_themselves_nowhere() {
    let catalog = builtin();
    let findings: Vec<String> = catalog.check().iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "{findings:#?}");
}

#[test]
fn what_a_prepare_does_is_reviewed_for_every_pair_of_platforms() {
    let catalog = builtin();
    for to in Platform::ALL {
        for from in Platform::ALL.into_iter().map(Some).chain([None]) {
            let shown = catalog.preparation(from, to).show().to_string();
            let from = from.map_or("any", Platform::name);
            insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
                insta::assert_snapshot!(format!("{from}-to-{to}"), shown);
            });
        }
    }
}

#[test]
fn a_text_fits_a_terminal_and_gives_every_item_and_reason() {
    let catalog = builtin();
    for to in Platform::ALL {
        let preparation = catalog.preparation(None, to);
        let shown = preparation.show().to_string();
        for line in shown.lines() {
            let is_one_word = line
                .trim_start()
                .trim_start_matches("- ")
                .split(' ')
                .count()
                <= 4;
            assert!(line.chars().count() <= 80 || is_one_word, "{line}");
        }
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let all = words(&shown);
        for item in preparation.items() {
            assert!(all.contains(item.about.id.as_str()), "{}", item.about.id);
            assert!(
                all.contains(&words(item.about.why.as_str())),
                "{}",
                item.about.id
            );
        }
    }
}

#[test]
fn what_a_platform_put_into_an_image_stays_for_that_platform() {
    let catalog = builtin();
    for platform in Platform::ALL {
        assert!(
            catalog
                .preparation(Some(platform), platform)
                .removal
                .is_empty()
        );
        let others = catalog.preparation(None, platform);
        let from_elsewhere: BTreeSet<&str> = Platform::ALL
            .into_iter()
            .filter(|from| *from != platform)
            .flat_map(|from| catalog.preparation(Some(from), platform).removal)
            .map(|item| item.about.id.as_str())
            .collect();
        let all: BTreeSet<&str> = others
            .removal
            .iter()
            .map(|item| item.about.id.as_str())
            .collect();
        assert_eq!(all, from_elsewhere, "{platform}");
        assert_eq!(all.len(), others.removal.len(), "{platform}: an item twice");
    }
}

#[test]
fn virtio_disk_drivers_stay_between_platforms_that_boot_from_them() {
    let catalog = builtin();
    let takes_out = |from, to| {
        let preparation = catalog.preparation(Some(from), to);
        preparation.steps().iter().any(|(_, step)| {
            matches!(&step.action, Action::Service(service) if service.name.as_str() == "vioscsi")
        })
    };
    assert!(takes_out(Platform::Nutanix, Platform::Azure));
    assert!(takes_out(Platform::Gcp, Platform::Vsphere));
    assert!(!takes_out(Platform::Nutanix, Platform::Gcp));
    assert!(!takes_out(Platform::Gcp, Platform::Nutanix));
}

#[test]
fn filters_are_stripped_before_anything_is_disabled_and_the_target_is_ready_before_that() {
    let catalog = builtin();
    for to in Platform::ALL {
        let preparation = catalog.preparation(None, to);
        let steps = preparation.steps();
        let is_disabling = |action: &Action| matches!(action, Action::Service(service) if service.action == ServiceAction::Disable);
        let first_disabled = steps
            .iter()
            .position(|(_, step)| is_disabling(&step.action))
            .unwrap();
        let is_before =
            |action: &Action| matches!(action, Action::BootService(_) | Action::Filter(_));
        let last_before = steps
            .iter()
            .rposition(|(_, step)| is_before(&step.action))
            .unwrap();
        assert!(last_before < first_disabled, "{to}");
        let count: usize = preparation.items().map(|item| item.steps.len()).sum();
        assert_eq!(steps.len(), count, "{to}");
    }
}

#[test]
fn microsofts_own_drivers_are_named_as_such_and_never_by_a_removal() {
    let catalog = builtin();
    let protected: BTreeSet<String> = catalog
        .protected()
        .flat_map(|group| &group.services)
        .map(|service| service.folded())
        .collect();
    for own in [
        "vmbus",
        "vmgid",
        "gencounter",
        "vmicheartbeat",
        "vmictimesync",
        "storvsc",
        "netvsc",
        "storflt",
        "s3cap",
        "vpci",
        "stornvme",
        "storahci",
        "pciide",
        "wmiapsrv",
        "vmms",
    ] {
        // vmms is no part of a guest; all that were once deleted by others are.
        assert_eq!(protected.contains(own), own != "vmms", "{own}");
    }
    for item in Platform::ALL
        .into_iter()
        .flat_map(|from| catalog.removal(from))
    {
        for step in &item.steps {
            if let Action::Service(service) = &step.action {
                assert!(
                    !protected.contains(&service.name.folded()),
                    "{}",
                    service.name
                );
            }
        }
    }
}

#[test]
fn the_drivers_that_others_bricked_guests_by_removing_are_left() {
    let catalog = builtin();
    let preparation = catalog.preparation(Some(Platform::Vsphere), Platform::Azure);
    let left: Vec<String> = preparation
        .steps()
        .iter()
        .filter_map(|(_, step)| match &step.action {
            Action::Leave(Leave::Service(name)) => Some(name.to_string()),
            _ => None,
        })
        .collect();
    assert!(left.contains(&"pvscsi".to_owned()), "{left:?}");
}

#[test]
fn the_json_has_the_reasons_and_says_what_is_not_verified() {
    let shown = builtin()
        .preparation(Some(Platform::Aws), Platform::Vsphere)
        .show();
    let json = serde_json::to_value(&shown).unwrap();
    assert_eq!(json["from"], "aws");
    assert_eq!(json["to"], "vsphere");
    let items: Vec<_> = json["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["items"].as_array().unwrap())
        .collect();
    assert!(
        items
            .iter()
            .all(|item| !item["why"].as_str().unwrap().is_empty())
    );
    let launch = items
        .iter()
        .find(|item| item["id"] == "aws.launch")
        .unwrap();
    assert_eq!(launch["notVerified"].as_array().unwrap().len(), 1);
    assert_eq!(launch["actions"][0]["kind"], "service");
}

fn builtin() -> &'static Catalog {
    Catalog::builtin().unwrap_or_else(|error| panic!("{:#?}", error.findings))
}
