//! The disks of a machine on AWS: an EBS volume has its id for a serial number, without the dash that
//! everybody else writes (*Map Amazon EBS volumes to NVMe device names* of the EBS user guide).

use super::AttachedDisk;
use super::platform::{Facts, Place, Role};

pub(super) fn place(facts: &Facts) -> Option<Place> {
    (facts.model == INSTANCE_STORE).then(|| Place::of(Role::Temporary))
}

/// Whether `serial` is the id of the volume that `disk` is. Disks of the instance store are none,
/// whatever they call themselves.
pub(super) fn is_volume(disk: &AttachedDisk, serial: &str) -> bool {
    let asked = volume_id(serial);
    asked.is_some() && disk.model == VOLUME && asked == volume_id(&disk.serial)
}

/// The digits of `vol-0abc` or `vol0abc`.
pub(super) fn volume_id(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.strip_prefix("vol")?;
    let digits = digits.strip_prefix('-').unwrap_or(digits);
    let is_id = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_id.then(|| digits.to_owned())
}

const VOLUME: &str = "Amazon Elastic Block Store";

const INSTANCE_STORE: &str = "Amazon EC2 NVMe Instance Storage";

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(model: &str, serial: &str) -> AttachedDisk {
        AttachedDisk {
            model: model.into(),
            serial: serial.into(),
            ..AttachedDisk::default()
        }
    }

    #[test]
    fn a_volume_is_known_with_and_without_its_dash() {
        let volume = disk(VOLUME, "vol01234567890abcdef");
        for serial in [
            "vol-01234567890abcdef",
            "vol01234567890ABCDEF ",
            "VOL-01234567890abcdef",
        ] {
            assert!(is_volume(&volume, serial), "{serial}");
        }
        for serial in [
            "vol-1234567890abcdef",
            "01234567890abcdef",
            "vol-",
            "vol",
            "",
        ] {
            assert!(!is_volume(&volume, serial), "{serial}");
        }
        // Nothing is no id.
        assert!(!is_volume(&disk(VOLUME, ""), "vol-"));
    }

    #[test]
    fn the_instance_store_is_temporary_and_no_volume() {
        assert!(!is_volume(&disk(INSTANCE_STORE, "vol0abc"), "vol-0abc"));
        let place = |model: &str| {
            place(&Facts {
                model: model.into(),
                namespace: Some(1),
                ..Facts::default()
            })
        };
        assert_eq!(place(INSTANCE_STORE), Some(Place::of(Role::Temporary)));
        assert_eq!(place(VOLUME), None);
    }
}
