//! What a block device calls itself, and which file a disk is: names that outlive a reboot.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

use super::DiskIdentity;

/// The identity of the regular file at `path`.
///
/// The number of the file system is left out: it is given out anew at every boot.
pub(super) fn identity_of_file(path: &Path, metadata: &fs::Metadata) -> DiskIdentity {
    DiskIdentity {
        path: absolute(path),
        node: Some(format!("inode:{}", metadata.ino())),
    }
}

/// The identity of the block device at `path`, whose number is `device_number` (`st_rdev`).
pub(super) fn identity_of_device(path: &Path, device_number: u64) -> DiskIdentity {
    let id = format!("{}:{}", major(device_number), minor(device_number));
    DiskIdentity {
        path: absolute(path),
        node: device_name(Path::new("/sys"), &id),
    }
}

fn absolute(path: &Path) -> Option<PathBuf> {
    std::path::absolute(path).ok()
}

/// The name by which the device `id` (`8:0`) reports itself, if it has one.
fn device_name(sys: &Path, id: &str) -> Option<String> {
    let own = fs::canonicalize(sys.join("dev/block").join(id)).ok()?;
    if let Some(start) = attribute(&own, "start").filter(|_| own.join("partition").exists()) {
        // A partition is known by its disk and where on it it begins.
        let disk = named(own.parent()?)?;
        return Some(format!("{disk}@{start}"));
    }
    named(&own)
}

fn named(device: &Path) -> Option<String> {
    // World-wide names first: serial numbers are unique per vendor at best.
    const ATTRIBUTES: [(&str, &str); 6] = [
        ("wwid", "wwid"),
        ("device/wwid", "wwid"),
        ("dm/uuid", "uuid"),
        ("md/uuid", "uuid"),
        ("serial", "serial"),
        ("device/serial", "serial"),
    ];
    ATTRIBUTES.iter().find_map(|(file, kind)| {
        let value = attribute(device, file)?;
        Some(format!("{kind}:{value}"))
    })
}

fn attribute(device: &Path, file: &str) -> Option<String> {
    let value = fs::read(device.join(file)).ok()?;
    let value = String::from_utf8_lossy(&value);
    let value = value.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    // Empty and longer ones are no names; the bound is that of the journal's header.
    (1..=LONGEST_NAME)
        .contains(&value.len())
        .then(|| value.to_owned())
}

/// Longer than any name that a standard knows: SCSI designators have at most 255 bytes.
const LONGEST_NAME: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    fn sysfs(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (file, content) in files {
            let path = root.path().join("devices").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let index = root.path().join("dev/block");
        fs::create_dir_all(&index).unwrap();
        for (id, device) in [("8:0", "sda"), ("8:2", "sda/sda2"), ("7:0", "loop0")] {
            std::os::unix::fs::symlink(root.path().join("devices").join(device), index.join(id))
                .unwrap();
        }
        root
    }

    #[test]
    fn a_device_is_known_by_its_world_wide_name_before_its_serial_number() {
        let sys = sysfs(&[
            ("sda/device/wwid", " naa.5000c500 \n"),
            ("sda/serial", "S1\n"),
        ]);
        assert_eq!(
            device_name(sys.path(), "8:0").as_deref(),
            Some("wwid:naa.5000c500")
        );
        let sys = sysfs(&[("sda/device/wwid", "\n"), ("sda/serial", "S1\n")]);
        assert_eq!(device_name(sys.path(), "8:0").as_deref(), Some("serial:S1"));
    }

    #[test]
    fn a_partition_is_known_by_its_disk_and_its_start() {
        let sys = sysfs(&[
            ("sda/serial", "S1\n"),
            ("sda/sda2/partition", "2\n"),
            ("sda/sda2/start", "2048\n"),
        ]);
        assert_eq!(
            device_name(sys.path(), "8:2").as_deref(),
            Some("serial:S1@2048")
        );
    }

    #[test]
    fn a_device_without_a_name_and_an_unknown_one_have_none() {
        let sys = sysfs(&[("loop0/size", "8\n"), ("sda/serial", &"x".repeat(301))]);
        for id in ["7:0", "8:0", "9:9"] {
            assert_eq!(device_name(sys.path(), id), None);
        }
    }
}
