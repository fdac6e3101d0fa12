//! The disks of a machine on Google Cloud. Users know a disk by its device name, which SCSI disks have for
//! their serial number.
//!
//! The rules are those by which Google names disks on Linux (`65-gce-disk-naming.rules` of guest-configs).

use super::platform::{Facts, Place, Role};

pub(super) fn place(facts: &Facts) -> Option<Place> {
    let is_local = facts.model.starts_with(ANY_NVME) && !facts.model.starts_with(PERSISTENT_NVME);
    is_local.then(|| Place::of(Role::Temporary))
}

const ANY_NVME: &str = "nvme_card";

const PERSISTENT_NVME: &str = "nvme_card-pd";

#[cfg(test)]
mod tests {
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
}
