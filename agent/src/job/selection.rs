//! What a request may reach: which disk it means, and where it may write.
//!
//! Someone at the machine may name any file. A request that comes from elsewhere may name a disk
//! that this machine does not run from, shares of servers that the configuration allows, and
//! otherwise only what lies in folders that the configuration opens.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use ce_disk::discover::{
    AttachedDisk, DiskSelector, ResolveError, Wanted, attached_disks, check_fitness,
    disk_of_device, resolve,
};

use super::{ErrorCode, JobError};

/// How far a request is trusted.
#[derive(Clone, Debug, Default)]
pub enum Reach {
    /// It comes from someone at this machine, who could do it without the agent.
    #[default]
    Local,
    /// It comes over the network.
    Remote(RemoteReach),
}

/// What a request from elsewhere may reach.
#[derive(Clone, Debug, Default)]
pub struct RemoteReach {
    /// The servers whose shares may be written to; any, if there are none.
    pub smb_hosts: Vec<String>,
    /// Folders of this machine in which images may be written.
    pub output_folders: Vec<PathBuf>,
    /// Folders of this machine whose files may be named as disks.
    pub disk_folders: Vec<PathBuf>,
}

/// What came of a look for a disk.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// Its device or file.
    Disk(PathBuf),
    /// It may be attached yet; `DiskNotFound`.
    None(JobError),
}

/// The disk that is wanted, if a request may name it so.
///
/// # Errors
///
/// `DiskAmbiguous`, `DiskIsOwn`, `DiskBusy`, or what else stands against working on it, with every candidate;
/// `InvalidRequest` for what is out of reach, and `DiskNotFound` for a file that is not there.
pub(super) fn find_disk(wanted: &Wanted, reach: &Reach) -> Result<Found, JobError> {
    if let DiskSelector::Path(path) = &wanted.selector {
        return match disk_at(path, wanted, reach) {
            // Whoever names a device has not attached it yet; a file is there or is not.
            Err(error) if error.code == ErrorCode::DiskNotFound && is_absent_device(path) => {
                Ok(Found::None(error))
            }
            found => found.map(Found::Disk),
        };
    }
    let disks = listed()?;
    match resolve(&disks, wanted) {
        Ok(disk) => Ok(Found::Disk(disk.node())),
        Err(error @ ResolveError::NotFound { .. }) => Ok(Found::None(unresolved(&error))),
        Err(error) => Err(unresolved(&error)),
    }
}

fn is_absent_device(path: &Path) -> bool {
    path.starts_with("/dev") && path.symlink_metadata().is_err()
}

/// The disk at `path`. One of this machine has to be of the size that is wanted, and fit to be changed if it is.
fn disk_at(path: &Path, wanted: &Wanted, reach: &Reach) -> Result<PathBuf, JobError> {
    let reach = match reach {
        Reach::Local if is_absent_device(path) => {
            let message = format!("disk.path: there is no {}", path.display());
            return Err(JobError::new(ErrorCode::DiskNotFound, message));
        }
        Reach::Local => return Ok(path.to_owned()),
        Reach::Remote(reach) => reach,
    };
    let refused = |problem: &str| {
        let shown = path.display().to_string();
        let message = format!("disk.path: `{}` {problem}", shown.escape_debug());
        JobError::new(ErrorCode::InvalidRequest, message)
    };
    if !path.is_absolute() {
        return Err(refused("is no absolute path"));
    }
    // Links are followed here and never again: what is checked is what is opened.
    let real = fs::canonicalize(path).map_err(|error| {
        let message = format!("disk.path: {}: {error}", path.display());
        JobError::new(ErrorCode::DiskNotFound, message)
    })?;
    let facts = fs::metadata(&real).map_err(|error| {
        JobError::new(
            ErrorCode::DiskNotFound,
            format!("{}: {error}", real.display()),
        )
    })?;
    if facts.is_file() && lies_in(&real, &reach.disk_folders) {
        return Ok(real);
    }
    if !facts.file_type().is_block_device() {
        return Err(refused(
            "is no block device, nor a file in a folder that `jobs.disk_folders` lists",
        ));
    }
    let sys = Path::new("/sys");
    let id = format!(
        "{}:{}",
        rustix::fs::major(facts.rdev()),
        rustix::fs::minor(facts.rdev())
    );
    if sys.join("dev/block").join(id).join("partition").exists() {
        return Err(refused("is a partition; name the disk that it is on"));
    }
    let below = disk_of_device(sys, facts.rdev());
    if below.is_empty() {
        return Err(refused("is no device that the kernel knows"));
    }
    let disks = listed()?;
    let below = || {
        disks
            .iter()
            .filter(|disk| below.contains(&disk.device_name))
    };
    if let Some(disk) = below().find(|disk| disk.is_own()) {
        return Err(own_disk(format!(
            "{} is on {disk}, which this machine itself runs from",
            path.display()
        )));
    }
    // Of what stands on a disk, size and use are its own.
    if let Some(disk) = below().find(|disk| real == disk.node()) {
        check_fitness(disk, &disks, wanted).map_err(|error| unresolved(&error))?;
    }
    Ok(real)
}

/// Checks a folder of this machine in which an image is to be written.
///
/// # Errors
///
/// What is wrong with it.
pub(super) fn check_folder(folder: &Path, reach: &Reach) -> Result<PathBuf, String> {
    let Reach::Remote(reach) = reach else {
        return Ok(folder.to_owned());
    };
    let real = fs::canonicalize(folder).map_err(|error| format!("{}: {error}", folder.display()));
    match real {
        Ok(real) if folder.is_absolute() && lies_in(&real, &reach.output_folders) => Ok(real),
        // Whether such a folder is there is no business of who may not write to it.
        _ => Err(
            "is neither a share (smb://...) nor a folder that `jobs.output_folders` lists".into(),
        ),
    }
}

/// Checks the server of a share.
///
/// # Errors
///
/// What is wrong with it.
pub(super) fn check_smb_host(host: &str, reach: &Reach) -> Result<(), String> {
    match reach {
        Reach::Remote(reach)
            if !reach.smb_hosts.is_empty()
                && !reach
                    .smb_hosts
                    .iter()
                    .any(|allowed| allowed.eq_ignore_ascii_case(host)) =>
        {
            let allowed = reach.smb_hosts.join(", ");
            Err(format!(
                "the server {host} is none of those that `jobs.smb_hosts` lists: {allowed}"
            ))
        }
        _ => Ok(()),
    }
}

fn listed() -> Result<Vec<AttachedDisk>, JobError> {
    attached_disks().map_err(|error| JobError::from_chain(ErrorCode::Internal, &error))
}

fn unresolved(error: &ResolveError) -> JobError {
    let failed = |code| JobError::from_chain(code, error);
    match error {
        ResolveError::Ambiguous { .. } => failed(ErrorCode::DiskAmbiguous)
            .with_hint("select it by something that only it has, or say its `sizeBytes`"),
        ResolveError::InUse { .. } => failed(ErrorCode::DiskBusy)
            .with_hint("unmount it, or check that the right disk is selected"),
        ResolveError::Own { .. } => own_disk(error.to_string()),
        ResolveError::ReadOnly { .. } => failed(ErrorCode::DiskWriteFailed)
            .with_hint("attach the disk so that this machine may write to it"),
        ResolveError::Removable { .. } => failed(ErrorCode::DiskInvalid)
            .with_hint("attach the disk of the image as a fixed disk, and select that one"),
        ResolveError::WrongSize { .. } => {
            failed(ErrorCode::DiskNotFound).with_hint("check that the right disk is selected")
        }
        _ => failed(ErrorCode::DiskNotFound)
            .with_hint("check that the disk is attached to this machine"),
    }
}

fn own_disk(message: String) -> JobError {
    JobError::new(ErrorCode::DiskIsOwn, message)
        .with_hint("attach the disk of the image beside the machine's own and select that one")
}

/// Whether `real`, free of links, lies in one of `folders`.
fn lies_in(real: &Path, folders: &[PathBuf]) -> bool {
    folders
        .iter()
        .filter_map(|folder| fs::canonicalize(folder).ok())
        .any(|folder| real.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn remote(folder: &Path) -> Reach {
        Reach::Remote(RemoteReach {
            smb_hosts: vec!["files.example".into()],
            output_folders: vec![folder.join("out")],
            disk_folders: vec![folder.join("disks")],
        })
    }

    fn at_path(path: &Path, reach: &Reach) -> Result<PathBuf, JobError> {
        let wanted = Wanted {
            selector: DiskSelector::Path(path.to_owned()),
            size: None,
            is_changed: false,
        };
        disk_at(path, &wanted, reach)
    }

    #[test]
    fn a_remote_request_reaches_only_the_files_of_open_folders() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("disks")).unwrap();
        fs::write(at("disks/good.raw"), [0; 512]).unwrap();
        fs::write(at("secret"), [0; 512]).unwrap();
        symlink(at("secret"), at("disks/link.raw")).unwrap();
        let reach = remote(folder.path());
        assert!(at_path(&at("disks/good.raw"), &reach).is_ok());
        assert!(at_path(&at("secret"), &Reach::Local).is_ok());
        for (path, code) in [
            (at("secret"), ErrorCode::InvalidRequest),
            (at("disks/link.raw"), ErrorCode::InvalidRequest),
            (at("disks/../secret"), ErrorCode::InvalidRequest),
            (PathBuf::from("disks/good.raw"), ErrorCode::InvalidRequest),
            (PathBuf::from("/dev/null"), ErrorCode::InvalidRequest),
            (PathBuf::from("/dev"), ErrorCode::InvalidRequest),
            (at("disks/none.raw"), ErrorCode::DiskNotFound),
        ] {
            let error = at_path(&path, &reach).unwrap_err();
            assert_eq!(error.code, code, "{}: {error}", path.display());
        }
    }

    #[test]
    fn a_device_that_is_not_there_may_come_and_a_file_may_not() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("disks")).unwrap();
        let wanted = |selector| Wanted {
            selector,
            size: None,
            is_changed: false,
        };
        for reach in [Reach::Local, remote(folder.path())] {
            for selector in [
                DiskSelector::Path("/dev/ce-none".into()),
                DiskSelector::DeviceName("ce-none".into()),
                DiskSelector::Serial("ce-none".into()),
            ] {
                match find_disk(&wanted(selector.clone()), &reach) {
                    Ok(Found::None(error)) => {
                        assert_eq!(error.code, ErrorCode::DiskNotFound, "{error}");
                    }
                    found => panic!("{selector}: {found:?}"),
                }
            }
        }
        let file = DiskSelector::Path(folder.path().join("disks/none.raw"));
        let error = find_disk(&wanted(file), &remote(folder.path())).unwrap_err();
        assert_eq!(error.code, ErrorCode::DiskNotFound, "{error}");
    }

    #[test]
    fn a_remote_request_writes_only_where_it_may() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("out/deep")).unwrap();
        fs::create_dir(at("other")).unwrap();
        symlink(at("other"), at("out/link")).unwrap();
        let reach = remote(folder.path());
        assert!(check_folder(&at("out/deep"), &reach).is_ok());
        assert!(check_folder(&at("other"), &Reach::Local).is_ok());
        for name in ["other", "out/link", "out/../other", "out/none"] {
            assert!(check_folder(&at(name), &reach).is_err(), "{name}");
        }
        assert!(check_smb_host("FILES.example", &reach).is_ok());
        assert!(check_smb_host("evil.example", &reach).is_err());
        assert!(check_smb_host("any", &Reach::Remote(RemoteReach::default())).is_ok());
    }
}
