//! Reads the list of disks from sysfs (`Documentation/ABI/testing/sysfs-block` of the kernel).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

use super::{AttachedDisk, SWAP, own};
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
    }
    Ok(disks)
}

/// The disks below `sys`, a sysfs, ordered by name; at most 256.
///
/// Left out is what holds no data of its own (mappers, RAID sets, memory) and what has no medium.
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
    let scsi_lun = hctl.rsplit(':').next().and_then(|lun| lun.parse().ok());
    let vendor = text(&at("device/vendor"));
    // PCI devices have the number of their maker there.
    let vendor = Some(vendor).filter(|vendor| !vendor.starts_with("0x"));
    let model = format!(
        "{} {}",
        vendor.unwrap_or_default(),
        text(&at("device/model"))
    );
    Some(AttachedDisk {
        device_name: name,
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
        lun: scsi_lun.or_else(|| number(&at("nsid"))),
        hctl,
        model: model.trim().to_owned(),
        is_read_only: number(&at("ro")) == Some(1),
        is_removable: number(&at("removable")) == Some(1),
        mounted_at: Vec::new(),
        has_image: false,
    })
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

/// Names of what is no disk of its own.
const VIRTUAL: [&str; 7] = ["dm-", "fd", "md", "nbd", "ram", "sr", "zram"];

/// `size` counts these, whatever the device's sectors are.
const SYSFS_SECTOR: u64 = 512;

/// Devices looked at below one mount.
const MOST_LAYERS: usize = 256;

const LONGEST_TEXT: usize = 255;

/// A page of memory: more than one attribute can't hold.
const LONGEST_FILE: u64 = 4096;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A machine with its system on `sda` (through a mapper), data on `sdb`, an NVMe disk, a virtio
    /// disk, an empty drive and a RAM disk.
    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let sys = root.path();
        let put = |path: &str, content: &[u8]| {
            let path = sys.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        for (name, id, sectors) in [
            ("sda", "8:0", "2097152\n"),
            ("sdb", "8:16", "4194304\n"),
            ("nvme0n1", "259:0", "8388608\n"),
            ("vda", "252:0", "1024\n"),
            ("sdc", "8:32", "0\n"),
            ("ram0", "1:0", "8192\n"),
            ("dm-0", "253:0", "1024\n"),
        ] {
            put(&format!("devices/{name}/dev"), format!("{id}\n").as_bytes());
            put(&format!("devices/{name}/size"), sectors.as_bytes());
            put(
                &format!("devices/{name}/queue/logical_block_size"),
                b"512\n",
            );
            for index in ["block", "class/block"] {
                fs::create_dir_all(sys.join(index)).unwrap();
                symlink(sys.join("devices").join(name), sys.join(index).join(name)).unwrap();
            }
            fs::create_dir_all(sys.join("dev/block")).unwrap();
            symlink(
                sys.join("devices").join(name),
                sys.join("dev/block").join(id),
            )
            .unwrap();
        }
        for (disk, hctl) in [("sda", "0:0:0:0"), ("sdb", "1:0:0:3")] {
            let scsi = format!("devices/scsi/{hctl}");
            put(&format!("{scsi}/vendor"), b"Msft    \n");
            put(&format!("{scsi}/model"), b"Virtual Disk    \n");
            put(&format!("{scsi}/wwid"), b"naa.60022480abc\n");
            put(
                &format!("{scsi}/vpd_pg80"),
                b"\0\x80\0\x06  77X\x07trailing",
            );
            symlink(
                sys.join(scsi),
                sys.join("devices").join(disk).join("device"),
            )
            .unwrap();
        }
        put("devices/sda/sda2/partition", b"2\n");
        put("devices/sda/sda2/dev", b"8:2\n");
        symlink(sys.join("devices/sda/sda2"), sys.join("dev/block/8:2")).unwrap();
        symlink(sys.join("devices/sda/sda2"), sys.join("class/block/sda2")).unwrap();
        fs::create_dir_all(sys.join("devices/dm-0/slaves")).unwrap();
        symlink(
            sys.join("devices/sda/sda2"),
            sys.join("devices/dm-0/slaves/sda2"),
        )
        .unwrap();
        put("devices/nvme0n1/nsid", b"1\n");
        put("devices/nvme0n1/wwid", b"eui.0025388b\n");
        put("devices/nvme0n1/device/serial", b"S4N\n");
        put("devices/vda/serial", b"vd-serial\n");
        put("devices/vda/device/vendor", b"0x1af4\n");
        put("devices/vda/ro", b"1\n");
        root
    }

    fn tables() -> SystemTables {
        SystemTables {
            mounts: "20 1 253:0 / / rw - ext4 /dev/mapper/vg-root rw\n\
                     21 1 0:40 / /mnt/data rw - btrfs /dev/sdb rw\n\
                     22 1 0:5 / /proc rw - proc proc rw\n"
                .into(),
            swaps: "Filename Type Size Used Priority\n".into(),
        }
    }

    #[test]
    fn disks_are_listed_with_what_they_say_of_themselves() {
        let machine = machine();
        let disks = read(machine.path(), &tables()).unwrap();
        let names: Vec<_> = disks.iter().map(|disk| &*disk.device_name).collect();
        assert_eq!(names, ["nvme0n1", "sda", "sdb", "vda"]);
        let [nvme, sda, sdb, vda] = &disks[..] else {
            panic!()
        };
        assert_eq!(
            (nvme.lun, &*nvme.serial, &*nvme.wwid),
            (Some(1), "S4N", "eui.0025388b")
        );
        assert_eq!((&*sdb.hctl, sdb.lun), ("1:0:0:3", Some(3)));
        assert_eq!((&*sdb.serial, &*sdb.model), ("77X", "Msft Virtual Disk"));
        assert_eq!(sda.size, ByteCount(1 << 30));
        assert_eq!(
            (&*vda.serial, &*vda.model, vda.is_read_only),
            ("vd-serial", "", true)
        );
    }

    #[test]
    fn the_systems_disk_shows_through_a_mapper_and_a_partition() {
        let machine = machine();
        let disks = read(machine.path(), &tables()).unwrap();
        let own: Vec<_> = disks.iter().filter(|disk| disk.is_own()).collect();
        assert_eq!(own.len(), 1);
        assert_eq!(own[0].device_name, "sda");
        assert_eq!(own[0].mounted_at, ["/"]);
        let data = disks.iter().find(|disk| disk.device_name == "sdb").unwrap();
        assert_eq!(data.mounted_at, ["/mnt/data"]);
    }

    #[test]
    fn swap_makes_a_disk_the_systems() {
        let machine = machine();
        let swaps = "Filename Type\n/dev/sdb partition 1 0 -2\n".to_owned();
        let tables = SystemTables { swaps, ..tables() };
        let disks = read(machine.path(), &tables).unwrap();
        let sdb = disks.iter().find(|disk| disk.device_name == "sdb").unwrap();
        assert!(sdb.is_own());
    }

    #[test]
    fn a_partition_and_a_mapper_lead_to_their_disk() {
        let machine = machine();
        let disk = |major, minor| disk_of_device(machine.path(), rustix::fs::makedev(major, minor));
        assert_eq!(disk(8, 2), BTreeSet::from(["sda".to_owned()]));
        assert_eq!(disk(253, 0), BTreeSet::from(["sda".to_owned()]));
        assert_eq!(disk(8, 16), BTreeSet::from(["sdb".to_owned()]));
        assert!(disk(9, 9).is_empty());
    }

    #[test]
    fn a_tree_that_is_not_there_is_an_error() {
        let error = read(Path::new("/nonexistent"), &SystemTables::default()).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/block"));
    }

    #[test]
    fn the_disks_of_this_machine_can_be_listed() {
        for disk in attached_disks().unwrap() {
            assert!(disk.size.0 > 0, "{disk}");
        }
    }
}
