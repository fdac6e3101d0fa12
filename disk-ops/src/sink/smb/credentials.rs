//! Who the agent is on a share.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use zeroize::Zeroizing;

/// A user of the server, with the password.
///
/// The password is wiped when this is dropped, and neither `Debug` nor any error shows it. There
/// is no anonymous and no guest user: an empty name or password is refused.
#[derive(Clone, Deserialize)]
#[serde(try_from = "Written")]
pub struct SmbCredentials {
    domain: String,
    username: String,
    password: SecretString,
}

impl SmbCredentials {
    /// A user of `domain` (or workgroup; may be empty).
    ///
    /// # Errors
    ///
    /// [`SmbCredentialsError::Empty`], [`SmbCredentialsError::TooLong`] and
    /// [`SmbCredentialsError::Nul`] for what no server could accept.
    pub fn new(
        domain: String,
        username: String,
        password: SecretString,
    ) -> Result<Self, SmbCredentialsError> {
        for (field, value, required) in [
            ("domain", domain.as_str(), false),
            ("username", username.as_str(), true),
            ("password", password.expose_secret(), true),
        ] {
            if required && value.is_empty() {
                return Err(SmbCredentialsError::Empty { field });
            }
            if value.len() > LONGEST_FIELD {
                return Err(SmbCredentialsError::TooLong { field });
            }
            if value.contains('\0') {
                return Err(SmbCredentialsError::Nul { field });
            }
        }
        Ok(Self {
            domain,
            username,
            password,
        })
    }

    /// Reads a JSON file with the fields `domain`, `username` and `password`.
    ///
    /// # Errors
    ///
    /// [`SmbCredentialsError::Exposed`] when anyone but the file's owner can read or change it,
    /// [`SmbCredentialsError::Foreign`] when the owner is neither root nor the running user, and
    /// the other variants for a file that is unreadable or says something else.
    pub fn from_file(path: &Path) -> Result<Self, SmbCredentialsError> {
        let unreadable = |source| SmbCredentialsError::Read {
            path: path.to_owned(),
            source,
        };
        let mut file = File::open(path).map_err(unreadable)?;
        // Of the open file, so that nobody can put another one in its place meanwhile.
        let metadata = file.metadata().map_err(unreadable)?;
        let mode = metadata.mode() & 0o7777;
        if !metadata.is_file() {
            return Err(SmbCredentialsError::NotAFile {
                path: path.to_owned(),
            });
        }
        if mode & 0o077 != 0 {
            return Err(SmbCredentialsError::Exposed {
                path: path.to_owned(),
                mode,
            });
        }
        if metadata.uid() != 0 && metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(SmbCredentialsError::Foreign {
                path: path.to_owned(),
                owner: metadata.uid(),
            });
        }
        // Reserved whole, so that the buffer is never moved and left behind unwiped.
        let mut text = Zeroizing::new(Vec::with_capacity(LONGEST_FILE + 1));
        let limit = LONGEST_FILE as u64 + 1;
        file.by_ref()
            .take(limit)
            .read_to_end(&mut text)
            .map_err(unreadable)?;
        if text.len() > LONGEST_FILE {
            return Err(SmbCredentialsError::FileTooLong {
                path: path.to_owned(),
            });
        }
        serde_json::from_slice(&text).map_err(|error| SmbCredentialsError::Json {
            path: path.to_owned(),
            line: error.line(),
            column: error.column(),
        })
    }

    /// The user's domain or workgroup; may be empty.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The user's name.
    pub fn username(&self) -> &str {
        &self.username
    }

    pub(super) fn password(&self) -> &str {
        self.password.expose_secret()
    }
}

impl fmt::Debug for SmbCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmbCredentials")
            .field("domain", &self.domain)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SmbCredentialsError {
    /// The file can't be opened or read.
    #[error("{}: the SMB credentials can't be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The path names a folder, a device or a pipe.
    #[error("{}: not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Others than the owner have access to the file.
    #[error(
        "{}: the file's mode is {mode:04o}, so others can read or change the credentials; \
         expected 0600 or 0400", path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to another user.
    #[error("{}: the file belongs to user {owner}, not to root or the running user", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The user id of its owner.
        owner: u32,
    },
    /// The file is longer than 64 KiB.
    #[error("{}: longer than any credentials are", path.display())]
    FileTooLong {
        /// The file.
        path: PathBuf,
    },
    /// The file is not JSON, lacks a field, or has one too many. What stands there is not
    /// repeated.
    #[error(
        "{}: line {line}, column {column}: expected a JSON object with the strings \
         `username`, `password` and, if need be, `domain`", path.display()
    )]
    Json {
        /// The file.
        path: PathBuf,
        /// The line of the trouble, from 1.
        line: usize,
        /// The column of the trouble.
        column: usize,
    },
    /// A field that must say something is empty.
    #[error("the SMB {field} is empty; there is no anonymous or guest access")]
    Empty {
        /// The field.
        field: &'static str,
    },
    /// A field is longer than 255 bytes, which is what libsmbclient can hold.
    #[error("the SMB {field} is longer than 255 bytes")]
    TooLong {
        /// The field.
        field: &'static str,
    },
    /// A field has a NUL in it.
    #[error("the SMB {field} has a NUL character in it")]
    Nul {
        /// The field.
        field: &'static str,
    },
}

/// The fields as they are written in a file or a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    domain: String,
    username: String,
    password: SecretString,
}

impl TryFrom<Written> for SmbCredentials {
    type Error = SmbCredentialsError;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        Self::new(written.domain, written.username, written.password)
    }
}

/// libsmbclient hands out 256 bytes for each field, a NUL among them.
const LONGEST_FIELD: usize = 255;
const LONGEST_FILE: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("smb.json");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    const GOOD: &str = r#"{"domain":"LAB","username":"alice","password":"p\u00e4ss"}"#;

    #[test]
    fn a_private_file_is_read() {
        let (_dir, path) = file(GOOD, 0o600);
        let credentials = SmbCredentials::from_file(&path).unwrap();
        assert_eq!(credentials.domain(), "LAB");
        assert_eq!(credentials.username(), "alice");
        assert_eq!(credentials.password(), "päss");
        let (_dir, path) = file(r#"{"username":"a","password":"b"}"#, 0o400);
        assert_eq!(SmbCredentials::from_file(&path).unwrap().domain(), "");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        for mode in [0o644, 0o640, 0o604, 0o620, 0o602] {
            let (_dir, path) = file(GOOD, mode);
            let error = SmbCredentials::from_file(&path).unwrap_err();
            assert!(
                matches!(error, SmbCredentialsError::Exposed { mode: found, .. } if found == mode),
                "{mode:o}: {error}"
            );
        }
    }

    #[test]
    fn neither_debug_nor_an_error_shows_the_password() {
        let (_dir, path) = file(GOOD, 0o600);
        let credentials = SmbCredentials::from_file(&path).unwrap();
        assert!(!format!("{credentials:?}").contains("pä"));
        for text in [
            r#"{"username":"a","password":"Secret-1","pasword":"Secret-2"}"#,
            r#"{"username":"a","password":["Secret-1"]}"#,
            r#"{"username":"a","password":"Secret-1""#,
            r#""Secret-1""#,
        ] {
            let (_dir, path) = file(text, 0o600);
            let error = SmbCredentials::from_file(&path).unwrap_err();
            assert!(
                !format!("{error} {error:?}").contains("Secret"),
                "{error:?}"
            );
        }
    }

    #[test]
    fn what_no_server_accepts_is_refused_before_it_is_tried() {
        let make = |user: &str, password: &str| {
            SmbCredentials::new(String::new(), user.into(), password.to_owned().into())
        };
        assert!(matches!(
            make("", "x"),
            Err(SmbCredentialsError::Empty { field: "username" })
        ));
        assert!(matches!(
            make("x", ""),
            Err(SmbCredentialsError::Empty { field: "password" })
        ));
        assert!(matches!(
            make("x", &"y".repeat(256)),
            Err(SmbCredentialsError::TooLong { field: "password" })
        ));
        assert!(matches!(
            make("x\0y", "z"),
            Err(SmbCredentialsError::Nul { field: "username" })
        ));
        make("x", &"y".repeat(255)).unwrap();
    }

    #[test]
    fn a_file_without_end_is_refused() {
        let (_dir, path) = file(&" ".repeat(LONGEST_FILE + 1), 0o600);
        let error = SmbCredentials::from_file(&path).unwrap_err();
        assert!(matches!(error, SmbCredentialsError::FileTooLong { .. }));
        let error = SmbCredentials::from_file(Path::new("/dev/null")).unwrap_err();
        assert!(matches!(error, SmbCredentialsError::NotAFile { .. }));
    }
}
