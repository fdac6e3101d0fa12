//! The disks of a machine on Azure. Users number data disks by LUN; the system's disk and the temporary
//! one have numbers on their buses too, which mean nothing to users.
//!
//! The rules are those by which Microsoft names disks on Linux (`udev/80-azure-disk.rules` of
//! azure-vm-utils).

use super::platform::{Facts, Place, Role};

pub(super) fn place(facts: &Facts) -> Option<Place> {
    on_vmbus(facts).or_else(|| on_nvme(facts))
}

/// SCSI and IDE disks hang on devices of the VMBus, which are known by their ids.
fn on_vmbus(facts: &Facts) -> Option<Place> {
    let id = facts.vmbus_device.trim_matches(['{', '}']);
    let id = id.to_ascii_lowercase();
    let lun = facts.scsi_lun;
    match &*id {
        SYSTEM_CONTROLLER => Some(Place::of(match lun {
            Some(0) => Role::System,
            Some(1) => Role::Temporary,
            _ => Role::Data,
        })),
        id if DATA_CONTROLLERS.contains(&id) => lun.map(Place::numbered),
        id if id.starts_with(FIRST_IDE_DISK) => Some(Place::of(Role::System)),
        id if id.starts_with(SECOND_IDE_DISK) => Some(Place::of(Role::Temporary)),
        _ => None,
    }
}

fn on_nvme(facts: &Facts) -> Option<Place> {
    if facts.model.starts_with(LOCAL_NVME) {
        return Some(Place::of(Role::Temporary));
    }
    if facts.model != REMOTE_NVME {
        return None;
    }
    // The system's disk comes first, then the data disks by their LUNs.
    Some(match facts.namespace?.checked_sub(2) {
        None => Place::of(Role::System),
        Some(lun) => Place::numbered(lun),
    })
}

/// Machines of generation 2: the system's disk is LUN 0 on it, the temporary one LUN 1.
const SYSTEM_CONTROLLER: &str = "f8b3781a-1e82-4818-a1c3-63d806ec15bb";

const DATA_CONTROLLERS: [&str; 3] = [
    "f8b3781b-1e82-4818-a1c3-63d806ec15bb",
    "f8b3781c-1e82-4818-a1c3-63d806ec15bb",
    "f8b3781d-1e82-4818-a1c3-63d806ec15bb",
];

/// Machines of generation 1 start from the first disk of the first IDE controller.
const FIRST_IDE_DISK: &str = "00000000-0000-";

/// The temporary disk of machines of generation 1.
const SECOND_IDE_DISK: &str = "00000000-0001-";

const REMOTE_NVME: &str = "MSFT NVMe Accelerator v1.0";

/// There is a "v2" of it.
const LOCAL_NVME: &str = "Microsoft NVMe Direct Disk";

#[cfg(test)]
mod tests {
    use super::*;

    fn scsi(vmbus_device: &str, lun: u64) -> Option<Place> {
        place(&Facts {
            model: "Msft Virtual Disk".into(),
            scsi_lun: Some(lun),
            vmbus_device: vmbus_device.into(),
            ..Facts::default()
        })
    }

    fn nvme(model: &str, namespace: u64) -> Option<Place> {
        place(&Facts {
            model: model.into(),
            namespace: Some(namespace),
            ..Facts::default()
        })
    }

    #[test]
    fn the_numbers_of_data_controllers_are_the_users_luns() {
        for controller in ["{f8b3781b", "{f8b3781c", "{F8B3781D"] {
            let device = format!("{controller}-1e82-4818-a1c3-63d806ec15bb}}");
            assert_eq!(scsi(&device, 0), Some(Place::numbered(0)));
            assert_eq!(scsi(&device, 63), Some(Place::numbered(63)));
        }
    }

    #[test]
    fn the_systems_disk_and_the_temporary_one_have_no_lun() {
        let second = "{f8b3781a-1e82-4818-a1c3-63d806ec15bb}";
        let first = "{00000000-0000-8899-0000-000000000000}";
        let temporary = "{00000000-0001-8899-0000-000000000000}";
        for (device, lun, role) in [
            (second, 0, Role::System),
            (second, 1, Role::Temporary),
            (second, 2, Role::Data),
            (first, 0, Role::System),
            (temporary, 0, Role::Temporary),
        ] {
            assert_eq!(scsi(device, lun), Some(Place::of(role)), "{device} {lun}");
        }
    }

    #[test]
    fn a_controller_of_someone_elses_hyper_v_is_none_of_azures() {
        assert_eq!(scsi("{1b2c3d4e-0000-4818-a1c3-63d806ec15bb}", 1), None);
        assert_eq!(scsi("", 1), None);
    }

    #[test]
    fn namespaces_count_from_the_systems_disk() {
        let remote = |namespace| nvme("MSFT NVMe Accelerator v1.0", namespace);
        assert_eq!(remote(1), Some(Place::of(Role::System)));
        assert_eq!(remote(2), Some(Place::numbered(0)));
        assert_eq!(remote(9), Some(Place::numbered(7)));
        for local in [
            "Microsoft NVMe Direct Disk",
            "Microsoft NVMe Direct Disk v2",
        ] {
            assert_eq!(nvme(local, 1), Some(Place::of(Role::Temporary)));
            assert_eq!(nvme(local, 2), Some(Place::of(Role::Temporary)));
        }
        assert_eq!(nvme("Samsung SSD", 2), None);
    }
}
