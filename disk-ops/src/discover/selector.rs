//! How a job names its disk, and which disks answer to that.

use std::fmt;
use std::path::PathBuf;

use super::platform::Role;
use super::{AttachedDisk, aws};

/// How a job names its disk.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DiskSelector {
    /// By the kernel's name or the platform's, with or without `/dev/`.
    DeviceName(String),
    /// By SCSI host, channel, target and LUN.
    Hctl(String),
    /// By the number of a data disk; see [`AttachedDisk::lun`]. Disks that this machine runs from don't
    /// count: clouds number the data disks of a machine beside its own.
    Lun(u64),
    /// By its device file. To follow links is for the caller.
    Path(PathBuf),
    /// By the serial number. The id of an EBS volume is one, with its dash or without it.
    Serial(String),
    /// By the world wide identifier, with or without its `naa.`, `eui.` or `0x`.
    Wwid(String),
}

impl DiskSelector {
    pub(super) fn selects(&self, disk: &AttachedDisk) -> bool {
        match self {
            Self::DeviceName(name) => {
                let name = name.strip_prefix("/dev/").unwrap_or(name);
                !name.is_empty() && (name == disk.device_name || name == disk.platform_name)
            }
            Self::Hctl(hctl) => !disk.hctl.is_empty() && *hctl == disk.hctl,
            Self::Lun(lun) => disk.lun == Some(*lun),
            Self::Path(path) => *path == disk.node(),
            Self::Serial(serial) => is_serial(serial.trim(), disk),
            Self::Wwid(wwid) => {
                let plain = plain_wwid(wwid);
                !plain.is_empty() && plain == plain_wwid(&disk.wwid)
            }
        }
    }
}

fn is_serial(serial: &str, disk: &AttachedDisk) -> bool {
    if disk.role == Role::Temporary && aws::volume_id(serial).is_some() {
        return false;
    }
    let is_same = !serial.is_empty() && serial.eq_ignore_ascii_case(&disk.serial);
    is_same || aws::is_volume(disk, serial)
}

fn plain_wwid(wwid: &str) -> String {
    let lower = wwid.trim().to_ascii_lowercase();
    let plain = ["naa.", "eui.", "0x"]
        .into_iter()
        .find_map(|prefix| lower.strip_prefix(prefix));
    plain.unwrap_or(&lower).to_owned()
}

impl fmt::Display for DiskSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |text: &str| text.escape_debug().to_string();
        match self {
            Self::DeviceName(name) => write!(f, "deviceName `{}`", shown(name)),
            Self::Hctl(hctl) => write!(f, "hctl `{}`", shown(hctl)),
            Self::Lun(lun) => write!(f, "lun {lun}"),
            Self::Path(path) => write!(f, "path `{}`", shown(&path.display().to_string())),
            Self::Serial(serial) => write!(f, "serial `{}`", shown(serial)),
            Self::Wwid(wwid) => write!(f, "wwid `{}`", shown(wwid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_disk_does_not_tell_selects_nothing() {
        let silent = AttachedDisk::default();
        for selector in [
            DiskSelector::DeviceName(String::new()),
            DiskSelector::DeviceName("/dev/".into()),
            DiskSelector::Serial(String::new()),
            DiskSelector::Wwid("0x".into()),
            DiskSelector::Hctl(String::new()),
        ] {
            assert!(!selector.selects(&silent), "{selector}");
        }
    }

    #[test]
    fn the_platforms_name_of_a_device_selects_it_as_the_kernels_does() {
        let disk = AttachedDisk {
            device_name: "xvdb".into(),
            platform_name: "hdb".into(),
            ..AttachedDisk::default()
        };
        for name in ["xvdb", "/dev/xvdb", "hdb", "/dev/hdb"] {
            assert!(
                DiskSelector::DeviceName(name.into()).selects(&disk),
                "{name}"
            );
        }
        assert!(!DiskSelector::DeviceName("xvda".into()).selects(&disk));
    }

    #[test]
    fn the_id_of_a_volume_selects_the_volume_and_never_the_instance_store() {
        let disk = |model: &str, role| AttachedDisk {
            model: model.into(),
            serial: "vol0abc".into(),
            role,
            ..AttachedDisk::default()
        };
        let volume = disk("Amazon Elastic Block Store", Role::Data);
        let store = disk("Amazon EC2 NVMe Instance Storage", Role::Temporary);
        // A serial number as any other.
        let other = disk("QEMU HARDDISK", Role::Data);
        for (serial, selected) in [
            ("vol-0abc", [true, false, false]),
            ("vol0abc", [true, false, true]),
            ("VOL0ABC", [true, false, true]),
        ] {
            let selector = DiskSelector::Serial(serial.into());
            let found = [&volume, &store, &other].map(|disk| selector.selects(disk));
            assert_eq!(found, selected, "{serial}");
        }
    }
}
