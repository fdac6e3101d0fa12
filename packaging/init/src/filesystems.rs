//! The file systems that programs expect, all of them in memory. Nothing of a disk is mounted here; a scratch
//! disk, if one is configured, is mounted by the agent.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};

use rustix::mount::{MountFlags, mount};

/// Why the machine is of no use.
#[derive(Debug, thiserror::Error)]
#[error("{file_system} can't be mounted on {target}")]
pub struct MountError {
    file_system: &'static str,
    target: &'static str,
    #[source]
    source: io::Error,
}

/// Mounts all of them. What the kernel or a boot stub has mounted is left as it is.
///
/// # Errors
///
/// One that is needed can't be mounted.
pub fn mount_all() -> Result<(), MountError> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    for (file_system, target, flags, options) in TABLE {
        if is_mounted(&mounts, target) {
            continue;
        }
        let failed = |source| MountError {
            file_system,
            target,
            source,
        };
        let mut folder = fs::DirBuilder::new();
        folder.recursive(true).mode(0o755);
        folder.create(target).map_err(failed)?;
        // The options are ours, and hold no NUL.
        let options = CString::new(options).unwrap_or_default();
        mount(file_system, target, file_system, flags, options.as_c_str())
            .map_err(|error| failed(error.into()))?;
    }
    for (link, target) in LINKS {
        match symlink(target, link) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => {
                return Err(MountError {
                    file_system: "devtmpfs",
                    target: link,
                    source,
                });
            }
        }
    }
    Ok(())
}

/// Where file systems of disks are mounted, by whomever.
pub fn on_disks() -> Vec<String> {
    on_disks_in(&fs::read_to_string("/proc/mounts").unwrap_or_default())
}

fn on_disks_in(mounts: &str) -> Vec<String> {
    let of_disk = mounts.lines().filter(|line| line.starts_with("/dev/"));
    let points = of_disk.filter_map(|line| line.split(' ').nth(1));
    points.map(str::to_owned).collect()
}

fn is_mounted(mounts: &str, target: &str) -> bool {
    mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(target))
}

/// What is never run from, and has no devices.
const DATA: MountFlags = MountFlags::NODEV
    .union(MountFlags::NOEXEC)
    .union(MountFlags::NOSUID);

/// File system, where, how, and its options. What jobs write (journals, overlays, partial files) lies
/// below /var/lib/ce-agent and can fill no more than half of the memory: the agent finds out how much
/// that is before it begins.
const TABLE: [(&str, &str, MountFlags, &str); 7] = [
    ("proc", "/proc", DATA, ""),
    ("sysfs", "/sys", DATA, ""),
    (
        "devtmpfs",
        "/dev",
        MountFlags::NOEXEC.union(MountFlags::NOSUID),
        "mode=0755",
    ),
    ("tmpfs", "/dev/shm", DATA, "mode=1777,size=16m"),
    ("tmpfs", "/run", DATA, "mode=0755,size=16m"),
    ("tmpfs", "/tmp", DATA, "mode=1777,size=64m"),
    ("tmpfs", "/var/lib/ce-agent", DATA, "mode=0700,size=50%"),
];

/// What udev would have made.
const LINKS: [(&str, &str); 4] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_is_told_by_its_whole_name() {
        let mounts = "none /dev devtmpfs rw 0 0\nproc /proc proc rw 0 0\n";
        assert!(is_mounted(mounts, "/dev"));
        assert!(!is_mounted(mounts, "/dev/shm"));
        assert!(!is_mounted("", "/proc"));
    }

    #[test]
    fn what_is_on_a_disk_is_told_by_its_device() {
        let mounts = "proc /proc proc rw 0 0\n/dev/sdb /run/ce-agent/scratch ext4 rw 0 0\n";
        assert_eq!(on_disks_in(mounts), ["/run/ce-agent/scratch"]);
        assert!(on_disks_in("").is_empty());
    }

    #[test]
    fn nothing_is_mounted_below_what_is_mounted_later() {
        for (index, (_, target, ..)) in TABLE.iter().enumerate() {
            for (_, later, ..) in &TABLE[index + 1..] {
                assert!(!target.starts_with(later), "{target} would be hidden");
            }
        }
    }
}
