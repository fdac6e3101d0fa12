//! Which disks are attached to this machine, and which of them a job means.
//!
//! ```text
//!  /sys, /proc --> sysfs::read --> [AttachedDisk] --> resolve(selector) --> exactly one, or why not
//! ```
//!
//! The reader takes the folders as arguments and the resolution is pure, so both are tested with
//! trees that are made up. Of a disk nothing is read but whether the image of the Compositing Engine
//! is on it.
//!
//! A disk that this machine runs from is never the answer: not by its name, and not by one of its
//! partitions, nor by a mapper on top of it.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::units::ByteCount;

mod own;
mod sysfs;

pub use sysfs::{DiscoverError, SystemTables, attached_disks, disk_of_device, read};

/// A disk as the kernel describes it. Texts are trimmed, and empty where there is nothing to tell.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AttachedDisk {
    /// The kernel's name, `sdb` or `nvme1n1`.
    pub device_name: String,
    /// Its size.
    pub size: ByteCount,
    /// The unit in which it is addressed, in bytes.
    pub logical_sector_bytes: u32,
    /// The serial number that the device reports.
    pub serial: String,
    /// Its world wide identifier, as the kernel writes it: `naa.6000c29...`.
    pub wwid: String,
    /// SCSI host, channel, target and LUN, `0:0:1:0`.
    pub hctl: String,
    /// The SCSI LUN, or the NVMe namespace number.
    pub lun: Option<u64>,
    /// Vendor and model.
    pub model: String,
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
        self.has_image || self.mounted_at.iter().any(|point| is_systems(point))
    }
}

/// `sdb (64.0 GiB, serial 123, hctl 0:0:1:0, lun 0, Msft Virtual Disk)`
impl fmt::Display for AttachedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:#}", self.device_name, self.size)?;
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
        if self.is_own() {
            write!(f, ", own disk")?;
        }
        write!(f, ")")
    }
}

/// How a job names its disk.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DiskSelector {
    /// By the kernel's name, with or without `/dev/`.
    DeviceName(String),
    /// By SCSI host, channel, target and LUN.
    Hctl(String),
    /// By the SCSI LUN or the NVMe namespace number. Disks that this machine runs from don't count:
    /// clouds number the data disks of a machine beside its own.
    Lun(u64),
    /// By the serial number.
    Serial(String),
    /// By the world wide identifier, with or without its `naa.`, `eui.` or `0x`.
    Wwid(String),
}

impl DiskSelector {
    fn selects(&self, disk: &AttachedDisk) -> bool {
        match self {
            Self::DeviceName(name) => {
                name.strip_prefix("/dev/").unwrap_or(name) == disk.device_name
            }
            Self::Hctl(hctl) => !disk.hctl.is_empty() && *hctl == disk.hctl,
            Self::Lun(lun) => disk.lun == Some(*lun),
            Self::Serial(serial) => {
                let serial = serial.trim();
                !serial.is_empty() && serial.eq_ignore_ascii_case(&disk.serial)
            }
            Self::Wwid(wwid) => {
                let plain = plain_wwid(wwid);
                !plain.is_empty() && plain == plain_wwid(&disk.wwid)
            }
        }
    }
}

impl fmt::Display for DiskSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |text: &str| text.escape_debug().to_string();
        match self {
            Self::DeviceName(name) => write!(f, "deviceName `{}`", shown(name)),
            Self::Hctl(hctl) => write!(f, "hctl `{}`", shown(hctl)),
            Self::Lun(lun) => write!(f, "lun {lun}"),
            Self::Serial(serial) => write!(f, "serial `{}`", shown(serial)),
            Self::Wwid(wwid) => write!(f, "wwid `{}`", shown(wwid)),
        }
    }
}

/// Why a selector leads to no disk.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// Several disks answer to it.
    #[error("{selector} is true of several disks: {}", listed(.candidates))]
    Ambiguous {
        /// What was asked for.
        selector: DiskSelector,
        /// All that answer to it.
        candidates: Vec<AttachedDisk>,
    },
    /// Only a disk that this machine runs from answers to it.
    #[error("{selector} is a disk that this machine itself runs from: {}", listed(.candidates))]
    Own {
        /// What was asked for.
        selector: DiskSelector,
        /// All that answer to it.
        candidates: Vec<AttachedDisk>,
    },
    /// None answers to it.
    #[error("no disk has {selector}; attached: {}", listed(.attached))]
    NotFound {
        /// What was asked for.
        selector: DiskSelector,
        /// All that are attached.
        attached: Vec<AttachedDisk>,
    },
}

/// The one disk of `disks` that `selector` means. If it is true of several, `size` decides between
/// them, if it can.
///
/// # Errors
///
/// [`ResolveError`], with every disk that comes into question.
pub fn resolve<'d>(
    disks: &'d [AttachedDisk],
    selector: &DiskSelector,
    size: Option<ByteCount>,
) -> Result<&'d AttachedDisk, ResolveError> {
    let selected: Vec<_> = disks.iter().filter(|disk| selector.selects(disk)).collect();
    let (own, mut others): (Vec<_>, Vec<_>) = selected.into_iter().partition(|disk| disk.is_own());
    // A number that a machine's own disk shares with others is no reason to refuse these.
    if !own.is_empty() && (others.is_empty() || !matches!(selector, DiskSelector::Lun(_))) {
        return Err(ResolveError::Own {
            selector: selector.clone(),
            candidates: own.into_iter().cloned().collect(),
        });
    }
    if others.len() > 1
        && let Some(size) = size
        && others.iter().any(|disk| disk.size == size)
    {
        others.retain(|disk| disk.size == size);
    }
    match others[..] {
        [disk] => Ok(disk),
        [] => Err(ResolveError::NotFound {
            selector: selector.clone(),
            attached: disks.to_vec(),
        }),
        _ => Err(ResolveError::Ambiguous {
            selector: selector.clone(),
            candidates: others.into_iter().cloned().collect(),
        }),
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

fn plain_wwid(wwid: &str) -> String {
    let lower = wwid.trim().to_ascii_lowercase();
    let plain = ["naa.", "eui.", "0x"]
        .into_iter()
        .find_map(|prefix| lower.strip_prefix(prefix));
    plain.unwrap_or(&lower).to_owned()
}

fn listed(disks: &[AttachedDisk]) -> String {
    if disks.is_empty() {
        return "none".into();
    }
    let disks: Vec<_> = disks.iter().map(ToString::to_string).collect();
    disks.join(", ")
}

/// What stands for a mount point where swap lies.
const SWAP: &str = "swap";

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str, lun: u64, serial: &str, size: u64, mounted_at: &[&str]) -> AttachedDisk {
        AttachedDisk {
            device_name: name.into(),
            lun: Some(lun),
            hctl: format!("{}:0:0:{lun}", name.len()),
            serial: serial.into(),
            wwid: format!("naa.6000{serial}"),
            size: ByteCount(size),
            mounted_at: mounted_at.iter().map(|point| (*point).to_owned()).collect(),
            ..AttachedDisk::default()
        }
    }

    fn machine() -> Vec<AttachedDisk> {
        vec![
            disk("sda", 0, "AA", 1 << 30, &["/", "/boot/efi"]),
            disk("sdb", 0, "BB", 1 << 31, &["/mnt/resource"]),
            disk("sdc", 1, "CC", 1 << 32, &[]),
            disk("sdd", 1, "CC", 1 << 33, &[]),
        ]
    }

    fn name(selector: DiskSelector, size: Option<u64>) -> Result<String, ResolveError> {
        let disks = machine();
        resolve(&disks, &selector, size.map(ByteCount)).map(|disk| disk.device_name.clone())
    }

    #[test]
    fn every_selector_finds_its_disk() {
        assert_eq!(
            name(DiskSelector::DeviceName("sdc".into()), None).unwrap(),
            "sdc"
        );
        assert_eq!(
            name(DiskSelector::DeviceName("/dev/sdc".into()), None).unwrap(),
            "sdc"
        );
        assert_eq!(
            name(DiskSelector::Serial("bb ".into()), None).unwrap(),
            "sdb"
        );
        assert_eq!(
            name(DiskSelector::Wwid("0x6000BB".into()), None).unwrap(),
            "sdb"
        );
        assert_eq!(name(DiskSelector::Lun(0), None).unwrap(), "sdb");
    }

    #[test]
    fn several_candidates_are_all_named_unless_the_size_decides() {
        let error = name(DiskSelector::Lun(1), None).unwrap_err();
        let ResolveError::Ambiguous { candidates, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(candidates.len(), 2);
        assert!(error.to_string().contains("sdc (4.0 GiB, serial CC"));
        assert_eq!(name(DiskSelector::Lun(1), Some(1 << 33)).unwrap(), "sdd");
        assert!(name(DiskSelector::Lun(1), Some(1)).is_err());
    }

    #[test]
    fn the_machines_own_disk_is_never_the_answer() {
        for selector in [
            DiskSelector::DeviceName("sda".into()),
            DiskSelector::Serial("AA".into()),
            DiskSelector::Hctl("3:0:0:0".into()),
        ] {
            let error = name(selector, None).unwrap_err();
            assert!(matches!(error, ResolveError::Own { .. }), "{error}");
        }
    }

    #[test]
    fn the_disk_of_the_image_is_never_the_answer() {
        let mut disks = machine();
        disks[2].has_image = true;
        for selector in [
            DiskSelector::DeviceName("sdc".into()),
            DiskSelector::Hctl("3:0:0:1".into()),
        ] {
            let error = resolve(&disks, &selector, None).unwrap_err();
            assert!(matches!(error, ResolveError::Own { .. }), "{error}");
        }
        let other = resolve(&disks, &DiskSelector::Lun(1), None).unwrap();
        assert_eq!(other.device_name, "sdd");
    }

    #[test]
    fn a_disk_that_is_not_there_is_told_with_those_that_are() {
        let error = name(DiskSelector::Serial("ZZ".into()), None).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("no disk has serial `ZZ`; attached: sda ("),
            "{text}"
        );
        assert!(
            text.contains("own disk") && text.contains("sdd ("),
            "{text}"
        );
        // What a disk does not tell selects nothing.
        let silent = [AttachedDisk::default()];
        for selector in [
            DiskSelector::Serial(String::new()),
            DiskSelector::Wwid("0x".into()),
            DiskSelector::Hctl(String::new()),
        ] {
            assert!(resolve(&silent, &selector, None).is_err());
        }
    }

    #[test]
    fn mounts_of_the_system_are_told_from_others() {
        for point in ["/", "/boot", "/boot/efi", "/usr", "/var/lib/x", "swap"] {
            assert!(is_systems(point), "{point}");
        }
        for point in ["/mnt", "/bootleg", "/media/usr", "/home/x"] {
            assert!(!is_systems(point), "{point}");
        }
    }
}
