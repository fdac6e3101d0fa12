//! Files for one user's eyes: read only if nobody else can read them, written whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Why a private file can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrivateFileError {
    /// The system says no.
    #[error("{path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Others could have read it.
    #[error("{path}: mode {mode:04o} lets others at it; say `chmod 600 {path}`")]
    TooOpen {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Somebody else's file could be changed under our hands.
    #[error("{path}: belongs to user {owner}, not to {expected} who runs this")]
    NotOurs {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Whose it should be.
        expected: u32,
    },
    /// More than such a file can hold.
    #[error("{path}: is longer than {limit} bytes")]
    TooLong {
        /// Which file.
        path: PathBuf,
        /// How long it may be.
        limit: u64,
    },
    /// Not what such a file holds.
    #[error("{path}: {problem}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong, without repeating what may be a secret.
        problem: String,
    },
}

/// Reads the text of a file that only its owner can read, at most `limit` bytes.
///
/// # Errors
///
/// It can't be read, others can, or it is too long or no UTF-8.
pub fn read(path: &Path, limit: u64) -> Result<Zeroizing<String>, PrivateFileError> {
    let failed = |source| PrivateFileError::Io {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    // Of the file that was opened, not of whatever has the name by now.
    let facts = file.metadata().map_err(failed)?;
    let mode = facts.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(PrivateFileError::TooOpen {
            path: path.to_owned(),
            mode,
        });
    }
    let expected = rustix::process::geteuid().as_raw();
    if facts.uid() != expected && facts.uid() != 0 {
        return Err(PrivateFileError::NotOurs {
            path: path.to_owned(),
            owner: facts.uid(),
            expected,
        });
    }
    // Room for all of it at once: a buffer that grew would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(
        usize::try_from(facts.len().min(limit)).unwrap_or_default() + 1,
    ));
    let read = file
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if read as u64 > limit {
        return Err(PrivateFileError::TooLong {
            path: path.to_owned(),
            limit,
        });
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(error) => Err(PrivateFileError::Content {
            path: path.to_owned(),
            problem: format!("byte {} is no UTF-8", error.valid_up_to()),
        }),
    }
}

/// Writes a file that only its owner can read, in place of what was there; durable on return.
///
/// # Errors
///
/// It can't be written; what was there is still there.
pub fn write(path: &Path, text: &str) -> Result<(), PrivateFileError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let attempt = || {
        // A left-over may have other permissions.
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        sync_folder(path)
    };
    attempt().map_err(|source| PrivateFileError::Io {
        path: path.to_owned(),
        source,
    })
}

/// Makes the name of a new, renamed or removed file durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_written_is_for_its_owner_only_and_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        for text in ["one", "two, longer"] {
            write(&path, text).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
            assert_eq!(*read(&path, 100).unwrap(), text);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        write(&path, "hunter2").unwrap();
        for mode in [0o640, 0o604, 0o602] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = read(&path, 100).unwrap_err().to_string();
            assert!(error.contains(&format!("{mode:04o}")), "{error}");
            assert!(!error.contains("hunter2"));
        }
    }

    #[test]
    fn a_file_that_is_too_long_or_no_text_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        write(&path, "12345").unwrap();
        assert_eq!(*read(&path, 5).unwrap(), "12345");
        let error = read(&path, 4).unwrap_err();
        assert!(matches!(error, PrivateFileError::TooLong { limit: 4, .. }));
        fs::write(&path, b"ab\xff").unwrap();
        let error = read(&path, 100).unwrap_err().to_string();
        assert!(error.ends_with("byte 2 is no UTF-8"), "{error}");
    }
}
