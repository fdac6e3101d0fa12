//! Who holds a block device that cannot be claimed, or a file that is not to be written.
//!
//! Best effort, for a message: what the kernel does not tell is left out.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

/// What holds the device `device_number` (`st_rdev`), one of its partitions, or the disk that it
/// is a partition of; each as a clause such as `/dev/sda2 is mounted at /srv`.
pub(super) fn find_holders(device_number: u64) -> Vec<String> {
    let id = format!("{}:{}", major(device_number), minor(device_number));
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    holders(
        Path::new("/sys"),
        &id,
        &Users {
            mounts: read("/proc/self/mountinfo"),
            swaps: read("/proc/swaps"),
        },
    )
}

/// The loop devices that use the file that `metadata` describes, each as a clause such as
/// `/dev/loop0 is made of it`.
pub(super) fn find_users_of_file(metadata: &fs::Metadata) -> Vec<String> {
    loops_of_file(Path::new("/sys"), metadata)
}

fn loops_of_file(sys: &Path, metadata: &fs::Metadata) -> Vec<String> {
    let is_it = |file: &Path| {
        fs::metadata(file)
            .is_ok_and(|found| (found.dev(), found.ino()) == (metadata.dev(), metadata.ino()))
    };
    let mut loops: Vec<_> = children(&sys.join("block"))
        .into_iter()
        .filter(|device| {
            let backing = fs::read(device.join("loop/backing_file")).unwrap_or_default();
            let backing = backing.strip_suffix(b"\n").unwrap_or(&backing);
            !backing.is_empty() && is_it(Path::new(OsStr::from_bytes(backing)))
        })
        .filter_map(|device| Some(device.file_name()?.to_string_lossy().into_owned()))
        .map(|name| format!("/dev/{name} is made of it"))
        .collect();
    loops.sort();
    loops
}

/// The kernel's tables of what uses block devices.
struct Users {
    mounts: String,
    swaps: String,
}

fn holders(sys: &Path, id: &str, users: &Users) -> Vec<String> {
    let Ok(own) = fs::canonicalize(sys.join("dev/block").join(id)) else {
        return Vec::new();
    };
    family(&own)
        .iter()
        .flat_map(|device| holders_of(device, users))
        .collect()
}

/// The device whose sysfs directory is `own`, its partitions and, for a partition, its disk.
fn family(own: &Path) -> Vec<PathBuf> {
    let mut devices = vec![own.to_owned()];
    if own.join("partition").exists() {
        devices.extend(own.parent().map(Path::to_owned));
    }
    let mut partitions: Vec<_> = children(own)
        .into_iter()
        .filter(|child| child.join("partition").exists())
        .collect();
    partitions.sort();
    devices.extend(partitions);
    devices
}

fn holders_of(device: &Path, users: &Users) -> Vec<String> {
    let Some(name) = device.file_name().map(|name| name.to_string_lossy()) else {
        return Vec::new();
    };
    let node = format!("/dev/{name}");
    let id = fs::read_to_string(device.join("dev")).unwrap_or_default();
    let mounted = users
        .mounts
        .lines()
        .filter_map(Mount::parse)
        .filter(|mount| mount.device_id == id.trim() || mount.source == node)
        .map(|mount| format!("{node} is mounted at {}", mount.point));
    let swapped = users
        .swaps
        .lines()
        .filter(|line| line.split_whitespace().next() == Some(node.as_str()))
        .map(|_| format!("{node} is used as swap space"));
    let mut stacked: Vec<_> = children(&device.join("holders"))
        .iter()
        .filter_map(|holder| {
            holder
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
        })
        .map(|holder| {
            // Device mapper and MD nodes have a name that people know them by.
            match fs::read_to_string(device.join("holders").join(&holder).join("dm/name")) {
                Ok(known_as) => format!("{node} is part of {holder} ({})", known_as.trim()),
                Err(_) => format!("{node} is part of {holder}"),
            }
        })
        .collect();
    stacked.sort();
    mounted.chain(swapped).chain(stacked).collect()
}

fn children(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect()
}

/// A line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
pub(crate) struct Mount {
    /// `major:minor`.
    pub(crate) device_id: String,
    /// Where it is mounted.
    pub(crate) point: String,
    /// What is mounted, as the mounter named it.
    pub(crate) source: String,
}

impl Mount {
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ');
        Some(Self {
            device_id: fields.nth(2)?.to_owned(),
            point: unescape(fields.nth(1)?),
            source: unescape(file_system.split(' ').nth(1)?),
        })
    }
}

/// Undoes the octal escapes (`\040` for a space) of the kernel's tables.
fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = (first == b'\\')
            .then(|| std::str::from_utf8(tail.get(..3)?).ok())
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sysfs with the disk 8:0 `sda`, its partitions `sda1` and `sda2`, and `dm-0` on `sda2`.
    fn sysfs() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let block = root.path().join("devices/block");
        for (directory, id) in [("sda", "8:0"), ("sda/sda1", "8:1"), ("sda/sda2", "8:2")] {
            let device = block.join(directory);
            fs::create_dir_all(device.join("holders")).unwrap();
            fs::write(device.join("dev"), format!("{id}\n")).unwrap();
            let index = root.path().join("dev/block");
            fs::create_dir_all(&index).unwrap();
            std::os::unix::fs::symlink(&device, index.join(id)).unwrap();
        }
        fs::write(block.join("sda/sda1/partition"), "1\n").unwrap();
        fs::write(block.join("sda/sda2/partition"), "2\n").unwrap();
        let mapper = block.join("dm-0");
        fs::create_dir_all(mapper.join("dm")).unwrap();
        fs::write(mapper.join("dm/name"), "vg-root\n").unwrap();
        std::os::unix::fs::symlink(&mapper, block.join("sda/sda2/holders/dm-0")).unwrap();
        root
    }

    fn users() -> Users {
        Users {
            mounts: "30 1 8:1 / /boot\\040files rw - ext4 /dev/sda1 rw\n\
                     31 1 0:50 /sub /data rw shared:1 - btrfs /dev/sda2 rw\n\
                     32 1 8:17 / /other rw - ext4 /dev/sdb1 rw\n"
                .into(),
            swaps: "Filename Type Size Used Priority\n/dev/sda1 partition 1 0 -2\n".into(),
        }
    }

    #[test]
    fn the_holders_of_a_disk_are_those_of_its_partitions() {
        let sys = sysfs();
        assert_eq!(
            holders(sys.path(), "8:0", &users()),
            [
                "/dev/sda1 is mounted at /boot files",
                "/dev/sda1 is used as swap space",
                "/dev/sda2 is mounted at /data",
                "/dev/sda2 is part of dm-0 (vg-root)",
            ]
        );
    }

    #[test]
    fn a_partition_is_not_held_by_what_holds_its_neighbour() {
        let sys = sysfs();
        assert_eq!(
            holders(sys.path(), "8:2", &users()),
            [
                "/dev/sda2 is mounted at /data",
                "/dev/sda2 is part of dm-0 (vg-root)",
            ]
        );
    }

    #[test]
    fn a_file_is_held_by_the_loop_devices_made_of_it() {
        let sys = tempfile::tempdir().unwrap();
        let file = sys.path().join("disk.raw");
        let other = sys.path().join("other.raw");
        for (name, backing) in [("loop0", &other), ("loop1", &file)] {
            let folder = sys.path().join("block").join(name).join("loop");
            fs::create_dir_all(&folder).unwrap();
            fs::write(backing, []).unwrap();
            let line = format!("{}\n", backing.display());
            fs::write(folder.join("backing_file"), line).unwrap();
        }
        fs::create_dir_all(sys.path().join("block/sda")).unwrap();
        let held = |path: &Path| loops_of_file(sys.path(), &fs::metadata(path).unwrap());
        assert_eq!(held(&file), ["/dev/loop1 is made of it"]);
        assert!(held(sys.path()).is_empty());
    }

    #[test]
    fn an_unknown_device_has_no_known_holders() {
        assert!(holders(sysfs().path(), "9:9", &users()).is_empty());
    }

    #[test]
    fn octal_escapes_are_undone_and_others_left_alone() {
        assert_eq!(unescape(r"/a\040b\134\09x\"), r"/a b\\09x\");
    }
}
