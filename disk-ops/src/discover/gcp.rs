//! The disks of a machine on Google Cloud. Users know a disk by its device name. SCSI disks have it for their
//! serial number; of NVMe disks the controller tells it, and all have the same serial number.
//!
//! The rules are those by which Google names disks on Linux (`65-gce-disk-naming.rules` and
//! `google_nvme_id` of guest-configs).

use std::path::Path;

use serde::Deserialize;

use super::nvme::Namespace;
use super::platform::{Facts, Place, Role};

pub(super) fn place(facts: &Facts) -> Option<Place> {
    let is_local = facts.model.starts_with(ANY_NVME) && !is_persistent(&facts.model);
    is_local.then(|| Place::of(Role::Temporary))
}

/// Whether an NVMe disk of this model is a persistent one, which has a name.
pub(super) fn is_persistent(model: &str) -> bool {
    model.starts_with(PERSISTENT_NVME)
}

/// The device name of the NVMe disk behind `node`. None where the controller does not tell it, or may not be
/// asked; then the disk can be selected otherwise.
pub(super) fn name_of_namespace(node: &Path, number: u64) -> Option<String> {
    let namespace = Namespace::identify(node, u32::try_from(number).ok()?).ok()?;
    device_name(namespace.vendor_specific())
}

/// The name in what belongs to the vendor: a JSON object, up to the first zero byte.
fn device_name(vendor_specific: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Told {
        device_name: String,
    }
    let end = vendor_specific.iter().position(|byte| *byte == 0);
    let json = &vendor_specific[..end.unwrap_or(vendor_specific.len())];
    let name = serde_json::from_slice::<Told>(json).ok()?.device_name;
    let is_name = (1..=LONGEST_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    is_name.then_some(name)
}

const ANY_NVME: &str = "nvme_card";

const PERSISTENT_NVME: &str = "nvme_card-pd";

/// Names of Google Cloud's resources are no longer (RFC 1035).
const LONGEST_NAME: usize = 63;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_local_ssd_is_temporary_and_a_persistent_disk_is_not() {
        let place = |model: &str| {
            place(&Facts {
                model: model.into(),
                namespace: Some(1),
                ..Facts::default()
            })
        };
        assert_eq!(place("nvme_card"), Some(Place::of(Role::Temporary)));
        assert_eq!(place("nvme_card0"), Some(Place::of(Role::Temporary)));
        assert_eq!(place("nvme_card-pd"), None);
        assert_eq!(place("Google PersistentDisk"), None);
    }

    #[test]
    fn the_name_stands_in_json() {
        let told = |json: &str| {
            let mut bytes = json.as_bytes().to_vec();
            bytes.resize(4096 - 384, 0);
            device_name(&bytes)
        };
        let golden = Some("golden-disk_1".to_owned());
        assert_eq!(told(r#"{"device_name":"golden-disk_1"}"#), golden);
        assert_eq!(
            told(r#"{"disk_type": "PERSISTENT", "device_name" : "golden-disk_1"}"#),
            golden
        );
        for wrong in [
            "",
            "golden",
            "[]",
            r#"{"device_name":""}"#,
            r#"{"device_name":7}"#,
            r#"{"device_name":"a b"}"#,
            r#"{"device_name":"a\u001b[2J"}"#,
            r#"{"device_name":"a""#,
        ] {
            assert_eq!(told(wrong), None, "{wrong}");
        }
        let long = format!(r#"{{"device_name":"{}"}}"#, "a".repeat(64));
        assert_eq!(told(&long), None);
        assert_eq!(device_name(&[]), None);
        // Nesting without an end is given up.
        assert_eq!(device_name(&[b'['; 3712]), None);
    }

    proptest! {
        #[test]
        fn whatever_a_controller_says_a_name_is_one_or_there_is_none(
            bytes in prop::collection::vec(any::<u8>(), 0..3712),
            name in "[a-zA-Z0-9_-]{1,63}",
            rest in "\\PC{0,40}",
        ) {
            if let Some(name) = device_name(&bytes) {
                prop_assert!(name.bytes().all(|byte| byte.is_ascii_graphic()));
            }
            let json = serde_json::json!({"rest": rest, "device_name": name, "z": [1, null]});
            let mut told = json.to_string().into_bytes();
            told.push(0);
            told.extend(bytes);
            prop_assert_eq!(device_name(&told), Some(name));
        }
    }
}
