//! Reads the list of disks from sysfs (`Documentation/ABI/testing/sysfs-block` of the kernel).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

use super::platform::Facts;
use super::{AttachedDisk, SWAP, gcp, own};
use crate::block::Mount;
use crate::units::ByteCount;

/// The kernel's tables of what is in use.
#[derive(Clone, Debug, Default)]
pub struct SystemTables {
    /// `/proc/self/mountinfo`.
    pub mounts: String,
    /// `/proc/swaps`.
    pub swaps: String,
}

/// Why disks can't be listed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoverError {
    /// A folder or a table can't be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// The disks of this machine.
///
/// # Errors
///
/// [`DiscoverError`] if sysfs or a table of the kernel can't be read: without them nobody knows
/// which disk is the machine's own.
pub fn attached_disks() -> Result<Vec<AttachedDisk>, DiscoverError> {
    let table = |path: &str| {
        fs::read_to_string(path).map_err(|source| DiscoverError::Unreadable {
            path: path.into(),
            source,
        })
    };
    let tables = SystemTables {
        mounts: table("/proc/self/mountinfo")?,
        // A kernel without swap has no such table.
        swaps: fs::read_to_string("/proc/swaps").unwrap_or_default(),
    };
    let mut disks = read(Path::new("/sys"), &tables)?;
    for disk in &mut disks {
        disk.has_image = own::has_image(&disk.node(), disk.logical_sector_bytes);
        if gcp::is_persistent(&disk.model)
            && let Some(namespace) = disk.lun
            && let Some(name) = gcp::name_of_namespace(&disk.node(), namespace)
        {
            disk.serial = name;
        }
    }
    Ok(disks)
}

/// The disks below `sys`, a sysfs, ordered by name; at most 256.
///
/// Left out is what holds no data of its own (mappers, RAID sets, memory) and what has no medium. Discs are
/// among them, so that who names one is told that it is no disk to work on.
///
/// # Errors
///
/// [`DiscoverError`] if `sys/block` can't be read.
pub fn read(sys: &Path, tables: &SystemTables) -> Result<Vec<AttachedDisk>, DiscoverError> {
    let block = sys.join("block");
    let unreadable = |source| DiscoverError::Unreadable {
        path: block.clone(),
        source,
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(&block).map_err(unreadable)? {
        names.push(
            entry
                .map_err(unreadable)?
                .file_name()
                .to_string_lossy()
                .into_owned(),
        );
    }
    names.sort();
    let in_use = mounted_disks(sys, tables);
    let disks = names
        .into_iter()
        .filter(|name| !VIRTUAL.iter().any(|prefix| name.starts_with(prefix)))
        .filter_map(|name| describe(&block.join(&name), name))
        .map(|mut disk| {
            disk.mounted_at = in_use
                .iter()
                .filter(|(name, _)| *name == disk.device_name)
                .map(|(_, point)| point.clone())
                .collect();
            disk
        });
    Ok(disks.take(MOST_DISKS).collect())
}

/// The names of the disks that the device with this number (`st_rdev`) lies on: itself, the disk
/// that it is a partition of, or what a mapper stands on. Empty for what sysfs does not know.
pub fn disk_of_device(sys: &Path, device_number: u64) -> BTreeSet<String> {
    let id = format!("{}:{}", major(device_number), minor(device_number));
    disks_below(sys, &id)
}

fn disks_below(sys: &Path, id: &str) -> BTreeSet<String> {
    let mut disks = BTreeSet::new();
    let Ok(own) = fs::canonicalize(sys.join("dev/block").join(id)) else {
        return disks;
    };
    let mut open = vec![own];
    // A tree of the kernel has no loops; a made-up one is given up.
    for _ in 0..MOST_LAYERS {
        let Some(device) = open.pop() else { break };
        let device = match (device.join("partition").exists(), device.parent()) {
            (true, Some(disk)) => disk.to_owned(),
            _ => device,
        };
        let slaves = fs::read_dir(device.join("slaves")).into_iter().flatten();
        let slaves: Vec<_> = slaves
            .filter_map(|entry| fs::canonicalize(entry.ok()?.path()).ok())
            .collect();
        if slaves.is_empty() {
            let name = device.file_name().map(|name| name.to_string_lossy());
            disks.extend(name.map(|name| name.into_owned()));
        }
        open.extend(slaves);
    }
    disks
}

/// Pairs of a disk's name and a place where something on it is mounted.
fn mounted_disks(sys: &Path, tables: &SystemTables) -> BTreeSet<(String, String)> {
    let mut in_use = BTreeSet::new();
    let mut note = |id: Option<&str>, source: &str, point: &str| {
        let mut disks = id.map(|id| disks_below(sys, id)).unwrap_or_default();
        // Btrfs and others give their mounts numbers that are no device's; then the source counts.
        if disks.is_empty()
            && let Some(id) = number_of_node(sys, source)
        {
            disks = disks_below(sys, &id);
        }
        in_use.extend(disks.into_iter().map(|disk| (disk, point.to_owned())));
    };
    for mount in tables.mounts.lines().filter_map(Mount::parse) {
        note(Some(&mount.device_id), &mount.source, &mount.point);
    }
    for source in tables.swaps.lines().skip(1) {
        let source = source.split_whitespace().next().unwrap_or_default();
        note(None, source, SWAP);
    }
    in_use
}

/// `major:minor` of a device file such as `/dev/sda2` or `/dev/mapper/vg-root`.
fn number_of_node(sys: &Path, source: &str) -> Option<String> {
    let node = Path::new(source);
    node.strip_prefix("/dev").ok()?;
    // Names below /dev/mapper are links to the kernel's.
    let node = fs::canonicalize(node).unwrap_or_else(|_| node.to_owned());
    let name = node.file_name()?.to_str()?.to_owned();
    let class = text(&sys.join("class/block").join(&name).join("dev"));
    Some(class).filter(|id| !id.is_empty())
}

/// A disk of some size; `None` for a drive without a medium, or a node that is going away.
fn describe(device: &Path, name: String) -> Option<AttachedDisk> {
    let at = |file: &str| device.join(file);
    let size = ByteCount(number(&at("size"))?.checked_mul(SYSFS_SECTOR)?);
    if size.0 == 0 {
        return None;
    }
    let hctl = fs::read_link(at("device"))
        .ok()
        .and_then(|target| Some(target.file_name()?.to_str()?.to_owned()))
        .filter(|name| is_hctl(name))
        .unwrap_or_default();
    let vendor = text(&at("device/vendor"));
    // PCI devices have the number of their maker there.
    let vendor = Some(vendor).filter(|vendor| !vendor.starts_with("0x"));
    let model = format!(
        "{} {}",
        vendor.unwrap_or_default(),
        text(&at("device/model"))
    );
    let facts = Facts {
        model: model.trim().to_owned(),
        scsi_lun: hctl.rsplit(':').next().and_then(|lun| lun.parse().ok()),
        namespace: number(&at("nsid")),
        vmbus_device: vmbus_device(&at("device")),
        xen_node: text(&at("device/nodename")),
    };
    let place = facts.place();
    Some(AttachedDisk {
        is_removable: number(&at("removable")) == Some(1) || name.starts_with(DISC),
        device_name: name,
        platform_name: place.name,
        size,
        logical_sector_bytes: number(&at("queue/logical_block_size"))
            .and_then(|bytes| bytes.try_into().ok())
            .unwrap_or(512),
        serial: first_text([
            unit_serial(&at("device/vpd_pg80")),
            text(&at("device/serial")),
            text(&at("serial")),
        ]),
        wwid: first_text([text(&at("device/wwid")), text(&at("wwid"))]),
        lun: place.lun,
        hctl,
        model: facts.model,
        role: place.role,
        is_read_only: number(&at("ro")) == Some(1),
        mounted_at: Vec::new(),
        has_image: false,
    })
}

/// `device_id` of the device on Hyper-V's bus on which `device` hangs (`Documentation/ABI/stable/sysfs-bus-vmbus`
/// of the kernel); empty if it hangs on another bus.
fn vmbus_device(device: &Path) -> String {
    let Ok(real) = fs::canonicalize(device) else {
        return String::new();
    };
    // Disk, target, host, bus device; nothing of the kernel lies deeper.
    let above = real.ancestors().take(MOST_PARENTS);
    let ids = above.map(|parent| text(&parent.join("device_id")));
    ids.into_iter()
        .find(|id| !id.is_empty())
        .unwrap_or_default()
}

fn is_hctl(name: &str) -> bool {
    let parts: Vec<_> = name.split(':').collect();
    parts.len() == 4 && parts.iter().all(|part| part.parse::<u64>().is_ok())
}

/// The serial number in a Unit Serial Number page (SPC-4, 7.8.15): two bytes, a length, the text.
fn unit_serial(path: &Path) -> String {
    let page = bytes(path);
    let length = match page.get(1..4) {
        Some(&[0x80, high, low]) => usize::from(u16::from_be_bytes([high, low])),
        _ => return String::new(),
    };
    let end = page.len().min(4 + length);
    clean(page.get(4..end).unwrap_or_default())
}

fn first_text<const N: usize>(texts: [String; N]) -> String {
    let mut texts = texts.into_iter();
    texts.find(|text| !text.is_empty()).unwrap_or_default()
}

fn number(path: &Path) -> Option<u64> {
    text(path).parse().ok()
}

fn text(path: &Path) -> String {
    clean(&bytes(path))
}

/// What a device says of itself, without what would spoil a terminal or a log.
fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    let text = text.trim();
    let mut end = text.len().min(LONGEST_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// A file of sysfs; empty if it is not there, which is how a device says that it has no such thing.
fn bytes(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        // What was read before an error is whole attributes or nothing.
        let _ = file.take(LONGEST_FILE).read_to_end(&mut bytes);
    }
    bytes
}

/// The most disks that are listed.
const MOST_DISKS: usize = 256;

/// Folders above a device that are looked at.
const MOST_PARENTS: usize = 6;

/// Drives of discs, some of which deny that these can be taken out.
const DISC: &str = "sr";

/// Names of what is no disk of its own.
const VIRTUAL: [&str; 6] = ["dm-", "fd", "md", "nbd", "ram", "zram"];

/// `size` counts these, whatever the device's sectors are.
const SYSFS_SECTOR: u64 = 512;

/// Devices looked at below one mount.
const MOST_LAYERS: usize = 256;

const LONGEST_TEXT: usize = 255;

/// A page of memory: more than one attribute can't hold.
const LONGEST_FILE: u64 = 4096;

#[cfg(test)]
mod platforms;
#[cfg(test)]
mod tests;
