//! Where an image goes, and who the agent is there.

use std::fmt;
use std::path::{Path, PathBuf};

use ce_disk::sink::smb::{
    SmbCredentials, SmbLocation, SmbSecurity, SmbTimeouts, forbid_core_dumps,
};

use super::{ErrorCode, JobError, file_name};

/// Where an image is written.
#[derive(Clone, Debug)]
pub enum Destination {
    /// A file of this machine.
    File(PathBuf),
    /// A file on a share.
    Share(Box<Share>),
}

/// A file on a share and the way to get there.
#[derive(Clone, Debug)]
pub struct Share {
    /// Server, share and path.
    pub location: SmbLocation,
    /// Who the agent is there.
    pub credentials: SmbCredentials,
    /// How well the connection has to be protected.
    pub security: SmbSecurity,
    /// How long to wait for a server that does not answer.
    pub timeouts: SmbTimeouts,
}

/// What is said of shares beside the location.
#[derive(Clone, Debug, Default)]
pub struct ShareAccess {
    /// Credentials that came beside the request, for a location that comes without.
    pub credentials: Option<SmbCredentials>,
    /// A file with credentials, for a location that comes without.
    pub credentials_file: Option<PathBuf>,
    /// Files with credentials, by the name under which a request knows them.
    pub named_credentials: Vec<(String, PathBuf)>,
    /// How well the connection has to be protected.
    pub security: SmbSecurity,
    /// How long to wait for a server that does not answer.
    pub timeouts: SmbTimeouts,
}

impl Destination {
    /// Whether `text` speaks of a share, well or badly.
    pub fn is_share(text: &str) -> bool {
        text.get(..6)
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("smb://"))
    }

    /// The local path, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Share(_) => None,
        }
    }
}

impl Destination {
    /// The name of the image, without extension.
    pub(super) fn image_name(&self) -> Option<String> {
        let path = self.file();
        Some(path.file_stem()?.to_string_lossy().into_owned())
    }

    /// Refuses a name that Provisioning does not take.
    pub(crate) fn expect_published_name(&self, field: &str) -> Result<(), JobError> {
        let file = self.file();
        let extension = file
            .extension()
            .map(|extension| extension.to_string_lossy());
        if !extension.is_some_and(|extension| extension.eq_ignore_ascii_case("vhdx")) {
            return Err(JobError::invalid(
                field,
                "the image is a VHDX: name it NAME.vhdx",
            ));
        }
        let name = self.image_name().unwrap_or_default();
        file_name::check_published(&name).map_err(|problem| JobError::invalid(field, problem))
    }

    fn file(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Share(share) => PathBuf::from(share.location.to_string()),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Share(share) => share.location.fmt(f),
        }
    }
}

impl ShareAccess {
    /// The share of `location`, as `credentials` if there are any, otherwise as the credentials
    /// file says.
    ///
    /// # Errors
    ///
    /// `InvalidRequest` if there are none, or the file can't be trusted or read.
    pub fn share(
        &self,
        location: SmbLocation,
        credentials: Option<SmbCredentials>,
    ) -> Result<Share, JobError> {
        let credentials = credentials.or_else(|| self.credentials.clone());
        let credentials = match (credentials, &self.credentials_file) {
            (Some(credentials), _) => credentials,
            (None, Some(file)) => read_credentials(file)?,
            (None, None) => {
                let missing = "a share needs credentials; name a file with --smb-credentials or \
                               $CE_SMB_CREDENTIALS";
                return Err(JobError::new(ErrorCode::InvalidRequest, missing));
            }
        };
        Ok(Share {
            location,
            credentials,
            security: self.security,
            timeouts: self.timeouts,
        })
    }
}

/// Reads a file with credentials, after [`guard_secrets`].
///
/// # Errors
///
/// `InvalidRequest` for a file that can't be trusted or read.
pub fn read_credentials(file: &Path) -> Result<SmbCredentials, JobError> {
    guard_secrets()?;
    SmbCredentials::from_file(file).map_err(|error| {
        JobError::from_chain(ErrorCode::InvalidRequest, &error)
            .with_hint("a JSON file with domain, username and password, of mode 0600")
    })
}

/// Keeps what is read from now on out of core dumps.
///
/// # Errors
///
/// `Internal` if the system does not allow that.
pub fn guard_secrets() -> Result<(), JobError> {
    forbid_core_dumps().map_err(|error| {
        let message =
            format!("core dumps cannot be forbidden, and a password is to be read: {error}");
        JobError::new(ErrorCode::Internal, message)
    })
}
