//! Which disks are attached to this machine, and which of them a job means.
//!
//! ```text
//!  /sys, /proc --> sysfs::read --> facts --> azure, aws, gcp, xen: what the platform says by them
//!                                                            |
//!            exactly one, or why not <-- resolve(wanted) <-- [AttachedDisk]
//! ```
//!
//! The reader takes the folders as arguments, and rules and resolution are pure, so all are tested with
//! trees that are made up. Of a disk nothing is read but whether the image of the Compositing Engine
//! is on it, and of some what their controller says of them ([`attached_disks`]).
//!
//! A disk that this machine runs from is never the answer: not by its name, and not by one of its
//! partitions, nor by a mapper on top of it. Nor is one that is in use, can be taken out, or can't be
//! written though the job has to.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::units::ByteCount;

mod aws;
mod azure;
mod changes;
mod gcp;
mod nvme;
mod own;
mod platform;
mod resolve;
mod selector;
mod sysfs;
mod xen;

pub use changes::DeviceChanges;
pub use platform::Role;
pub use resolve::{ResolveError, Wanted, check_fitness, resolve};
pub use selector::DiskSelector;
pub use sysfs::{DiscoverError, SystemTables, attached_disks, disk_of_device, read};

/// A disk as the kernel describes it. Texts are trimmed, and empty where there is nothing to tell.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AttachedDisk {
    /// The kernel's name, `sdb` or `nvme1n1`.
    pub device_name: String,
    /// The name that the platform gave the device, where it tells one: `xvdb` or `hdb` on XenServer.
    pub platform_name: String,
    /// Its size.
    pub size: ByteCount,
    /// The unit in which it is addressed, in bytes.
    pub logical_sector_bytes: u32,
    /// The serial number that the device reports; on Google Cloud, the device name of the disk.
    pub serial: String,
    /// Its world wide identifier, as the kernel writes it: `naa.6000c29...`.
    pub wwid: String,
    /// SCSI host, channel, target and LUN, `0:0:1:0`.
    pub hctl: String,
    /// The number that a job selects it by: on Azure the LUN of a data disk, elsewhere the SCSI LUN or
    /// the NVMe namespace number.
    pub lun: Option<u64>,
    /// Vendor and model.
    pub model: String,
    /// What the platform has it for.
    pub role: Role,
    /// Whether it can't be written.
    pub is_read_only: bool,
    /// Whether the medium can be taken out.
    pub is_removable: bool,
    /// Where it, one of its partitions or something on top of them is mounted; `swap` for swap.
    pub mounted_at: Vec<String>,
    /// Whether it holds the image of the Compositing Engine, from which this machine or another one
    /// was started.
    pub has_image: bool,
}

impl AttachedDisk {
    /// Its device file.
    pub fn node(&self) -> PathBuf {
        Path::new("/dev").join(&self.device_name)
    }

    /// Whether this machine itself runs from it.
    pub fn is_own(&self) -> bool {
        self.has_image
            || self.role == Role::System
            || self.mounted_at.iter().any(|point| is_systems(point))
    }
}

/// `sdb (64.0 GiB, serial 123, hctl 0:0:1:0, lun 0, Msft Virtual Disk)`
impl fmt::Display for AttachedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:#}", self.device_name, self.size)?;
        if self.platform_name != self.device_name && !self.platform_name.is_empty() {
            write!(f, ", deviceName {} too", self.platform_name)?;
        }
        for (name, value) in [
            ("serial ", &self.serial),
            ("wwid ", &self.wwid),
            ("hctl ", &self.hctl),
        ] {
            if !value.is_empty() {
                write!(f, ", {name}{value}")?;
            }
        }
        if let Some(lun) = self.lun {
            write!(f, ", lun {lun}")?;
        }
        if !self.model.is_empty() {
            write!(f, ", {}", self.model)?;
        }
        let is_elsewhere = !self.is_own() && !self.mounted_at.is_empty();
        for (is_so, what) in [
            (self.is_own(), "own disk"),
            (self.role == Role::Temporary, "temporary disk"),
            (self.is_removable, "removable"),
            (self.is_read_only, "read-only"),
            (is_elsewhere, "mounted"),
        ] {
            if is_so {
                write!(f, ", {what}")?;
            }
        }
        write!(f, ")")
    }
}

/// Whether what is mounted there belongs to the running system.
fn is_systems(point: &str) -> bool {
    const TREES: [&str; 6] = ["/boot", "/efi", "/etc", "/nix", "/usr", "/var"];
    let below = |tree: &str| {
        point
            .strip_prefix(tree)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    point == "/" || point == SWAP || TREES.into_iter().any(below)
}

/// What stands for a mount point where swap lies.
const SWAP: &str = "swap";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_the_system_are_told_from_others() {
        for point in ["/", "/boot", "/boot/efi", "/usr", "/var/lib/x", "swap"] {
            assert!(is_systems(point), "{point}");
        }
        for point in ["/mnt", "/bootleg", "/media/usr", "/home/x"] {
            assert!(!is_systems(point), "{point}");
        }
    }

    #[test]
    fn a_disk_is_told_with_all_that_it_can_be_known_by() {
        let disk = AttachedDisk {
            device_name: "xvdb".into(),
            platform_name: "hdb".into(),
            size: ByteCount(1 << 36),
            serial: "S".into(),
            lun: Some(3),
            model: "Msft Virtual Disk".into(),
            role: Role::Temporary,
            is_read_only: true,
            mounted_at: vec!["/mnt".into()],
            ..AttachedDisk::default()
        };
        assert_eq!(
            disk.to_string(),
            "xvdb (64.0 GiB, deviceName hdb too, serial S, lun 3, Msft Virtual Disk, temporary disk, \
             read-only, mounted)"
        );
    }
}
