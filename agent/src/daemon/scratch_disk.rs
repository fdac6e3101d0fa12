//! A disk of its own for what jobs keep until it is on the disk that they change.
//!
//! ```text
//!  [scratch_disk] --> the disk, once it is attached --+-- nothing on it ---> ext4, labelled --+--> mounted
//!                                                     +-- our label ---------------------------+
//!                                                     +-- anything else ---> refused, untouched
//! ```
//!
//! For machines whose other files are in memory, as those of the image are: a journal on a disk survives a
//! power cut, and large changes have room. It is mounted once, before the daemon gives up the right to.
//!
//! It is not for disks that others can write to while the machine is off: the kernel believes a file system
//! that carries our label.

use std::ffi::CString;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ce_disk::discover::{
    AttachedDisk, DiscoverError, DiskSelector, ResolveError, Wanted, attached_disks, resolve,
};
use ce_disk::units::ByteCount;
use rustix::fs::OFlags;
use rustix::mount::{MountFlags, mount};

/// Why a disk is no scratch disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum ScratchDiskError {
    /// Disks can't be listed.
    #[error("disks can't be listed")]
    Discover(#[from] DiscoverError),
    /// The system refuses.
    #[error("{}: {action}", node.display())]
    Io {
        /// The disk.
        node: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The program that makes file systems failed.
    #[error("{}: mke2fs failed: {said}", node.display())]
    NotFormatted {
        /// The disk.
        node: PathBuf,
        /// Its words.
        said: String,
    },
    /// Something is on it.
    #[error(
        "{disk} is not empty and holds no scratch of ours (ext4 labelled {LABEL}); nothing of it was touched. \
         Attach an empty disk, or overwrite the first 4 MiB and the last 1 MiB of this one with zeros"
    )]
    Occupied {
        /// Which.
        disk: Box<AttachedDisk>,
    },
    /// There is no such disk, or several, or it is not free to be used.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// It can't hold anything worthwhile.
    #[error("{disk} is too small; a scratch disk has at least {SMALLEST}")]
    TooSmall {
        /// Which.
        disk: Box<AttachedDisk>,
    },
}

/// The folder for scratch on the disk that `selector` names. Blocks while the disk is waited for, at most
/// half a minute, and while a file system is made.
///
/// # Errors
///
/// [`ScratchDiskError`]; a disk with something on it is as it was.
pub(super) fn attach(selector: &DiskSelector) -> Result<PathBuf, ScratchDiskError> {
    match wait_for(selector) {
        // An earlier life of the daemon has mounted it.
        Err(ScratchDiskError::Resolve(ResolveError::InUse { disk, .. }))
            if disk.mounted_at == [MOUNT_POINT] => {}
        Err(error) => return Err(error),
        Ok(disk) if disk.size < SMALLEST => {
            let disk = Box::new(disk);
            return Err(ScratchDiskError::TooSmall { disk });
        }
        Ok(disk) => settle(&disk)?,
    }
    Ok(Path::new(MOUNT_POINT).join(FOLDER))
}

/// Brings the disk to be mounted.
fn settle(disk: &AttachedDisk) -> Result<(), ScratchDiskError> {
    let node = disk.node();
    let failed = |action| {
        let node = node.clone();
        move |source| ScratchDiskError::Io {
            node,
            action,
            source,
        }
    };
    match look_at(&node, disk.size).map_err(failed("reading what is on it"))? {
        Content::Ours => {}
        Content::Nothing => format(&node)?,
        Content::Foreign => {
            return Err(ScratchDiskError::Occupied {
                disk: Box::new(disk.clone()),
            });
        }
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(MOUNT_POINT)
        .map_err(failed("making the folder that it is mounted on"))?;
    let flags = MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOSUID;
    // Changes are not to be lost silently on a disk that fails.
    let options = CString::from(c"errors=remount-ro");
    mount(&node, MOUNT_POINT, FILE_SYSTEM, flags, options.as_c_str())
        .map_err(|error| failed("mounting it")(error.into()))?;
    Ok(())
}

fn wait_for(selector: &DiskSelector) -> Result<AttachedDisk, ScratchDiskError> {
    let wanted = Wanted {
        selector: selector.clone(),
        size: None,
        is_changed: true,
    };
    let until = Instant::now() + PATIENCE;
    loop {
        match resolve(&attached_disks()?, &wanted) {
            Ok(disk) => return Ok(disk.clone()),
            Err(ResolveError::NotFound { .. }) if Instant::now() < until => {
                sleep(Duration::from_millis(500));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// What is on a disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Content {
    Nothing,
    Ours,
    Foreign,
}

fn look_at(node: &Path, size: ByteCount) -> io::Result<Content> {
    let disk = File::options()
        .read(true)
        .custom_flags(OFlags::EXCL.bits() as i32)
        .open(node)?;
    let mut head = vec![0; HEAD];
    disk.read_exact_at(&mut head, 0)?;
    let mut tail = vec![0; TAIL];
    let end = size.0.saturating_sub(TAIL as u64);
    disk.read_exact_at(&mut tail, end)?;
    Ok(content_of(&head, &tail))
}

/// What the first and the last bytes of a disk tell ("The Super Block" in the kernel's documentation of
/// ext4).
fn content_of(head: &[u8], tail: &[u8]) -> Content {
    let part = |offset: usize, length| head.get(offset..offset + length);
    let mut label = [0; 16];
    label[..LABEL.len()].copy_from_slice(LABEL.as_bytes());
    let is_ours = part(SUPER_BLOCK + 0x38, 2) == Some(&[0x53, 0xef])
        && part(SUPER_BLOCK + 0x78, label.len()) == Some(&label);
    let is_blank = [head, tail].iter().all(|part| part.iter().all(|&b| b == 0));
    match (is_ours, is_blank) {
        (true, _) => Content::Ours,
        (false, true) => Content::Nothing,
        (false, false) => Content::Foreign,
    }
}

fn format(node: &Path) -> Result<(), ScratchDiskError> {
    let made = Command::new(MKE2FS)
        .args(["-q", "-F", "-t", FILE_SYSTEM, "-L", LABEL, "-m", "0"])
        .args(["-E", "lazy_itable_init=1,lazy_journal_init=1"])
        .arg(node)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| ScratchDiskError::Io {
            node: node.to_owned(),
            action: "starting mke2fs (package e2fsprogs)",
            source,
        })?;
    if made.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&made.stderr).trim().to_owned();
    Err(ScratchDiskError::NotFormatted {
        node: node.to_owned(),
        said,
    })
}

const FILE_SYSTEM: &str = "ext4";
const LABEL: &str = "ce-scratch";
const MKE2FS: &str = "/sbin/mke2fs";
const MOUNT_POINT: &str = "/run/ce-agent/scratch";

/// On the disk.
const FOLDER: &str = "jobs";

/// Where the super block of ext4 begins.
const SUPER_BLOCK: usize = 1024;

const HEAD: usize = 4 << 20;
const TAIL: usize = 1 << 20;

const SMALLEST: ByteCount = ByteCount(256 << 20);

/// How long a disk is waited for that is attached while the machine starts.
const PATIENCE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_blank_disk_and_our_own_are_taken() {
        let (mut head, mut tail) = (vec![0; HEAD], vec![0; TAIL]);
        assert_eq!(content_of(&head, &tail), Content::Nothing);
        *tail.last_mut().unwrap() = 1;
        assert_eq!(content_of(&head, &tail), Content::Foreign);
        head[SUPER_BLOCK + 0x38..][..2].copy_from_slice(&[0x53, 0xef]);
        assert_eq!(content_of(&head, &tail), Content::Foreign);
        head[SUPER_BLOCK + 0x78..][..11].copy_from_slice(b"ce-scratch2");
        assert_eq!(content_of(&head, &tail), Content::Foreign);
        head[SUPER_BLOCK + 0x78..][..11].copy_from_slice(b"ce-scratch\0");
        assert_eq!(content_of(&head, &tail), Content::Ours);
    }

    #[test]
    fn what_mke2fs_makes_is_ours() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk");
        let size = ByteCount(64 << 20);
        File::create(&disk).unwrap().set_len(size.0).unwrap();
        assert_eq!(look_at(&disk, size).unwrap(), Content::Nothing);
        format(&disk).unwrap();
        assert_eq!(look_at(&disk, size).unwrap(), Content::Ours);
        let error = format(&folder.path().join("none")).unwrap_err();
        assert!(
            matches!(&error, ScratchDiskError::NotFormatted { said, .. } if said.contains("none")),
            "{error}"
        );
    }
}
