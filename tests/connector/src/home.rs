//! The folder in which a Connector keeps everything.
//!
//! ```text
//! ca.key ca.pem      its certificate authority
//! connector.toml     its names
//! api-token          what opens the HTTP interface
//! admin-address      where that listens, while the server runs
//! wallet.toml        credentials for shares (made by hand)
//! identities/        certificates of agents that may connect
//! tokens/            tokens that agents may exchange for certificates
//! jobs.redb          jobs, results and logs
//! ```
//!
//! All of it is for its owner only.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::authority::{Authority, AuthorityError, random_secret};
use crate::ids::UnixMillis;
use crate::private_file::{self, PrivateFileError};
use crate::registry::{Registry, RegistryError};
use crate::wallet::Wallet;

/// A Connector's folder.
#[derive(Clone, Debug)]
pub struct Home {
    folder: PathBuf,
}

/// What is set in `connector.toml`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The names and addresses under which agents reach the server.
    names: Vec<String>,
}

/// Why a Connector's folder can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// There is a Connector already.
    #[error("{0}: holds a Connector already")]
    Exists(PathBuf),
    /// A folder can't be made.
    #[error("{path}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file can't be used.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// The authority can't be used.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The registry can't be used.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl Home {
    /// The folder of that path; whether it holds a Connector shows when it is used.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// Makes a Connector that agents reach under `names`.
    ///
    /// # Errors
    ///
    /// There is one already, or the files can't be made; a name that is none.
    pub fn create(&self, names: &[String], now: UnixMillis) -> Result<(), HomeError> {
        let path = |name| self.folder.join(name);
        let failed = |source| HomeError::Io {
            path: self.folder.clone(),
            source,
        };
        if path("ca.key").exists() || path(SETTINGS).exists() {
            return Err(HomeError::Exists(self.folder.clone()));
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(failed)?;
        let authority = Authority::create(&self.folder, now)?;
        // A name that is none is found now and not when the server starts.
        authority.server(names, now)?;
        let settings = Settings {
            names: names.to_vec(),
        };
        let text = toml::to_string(&settings).map_err(|error| PrivateFileError::Content {
            path: path(SETTINGS),
            problem: error.to_string(),
        })?;
        Registry::open(&self.folder)?;
        private_file::write(&path(TOKEN), &random_secret()?)?;
        // Last: with it, the folder holds a Connector.
        private_file::write(&path(SETTINGS), &text)?;
        Ok(())
    }

    /// The certificate authority.
    ///
    /// # Errors
    ///
    /// Its files can't be used.
    pub fn authority(&self) -> Result<Authority, HomeError> {
        Ok(Authority::open(&self.folder)?)
    }

    /// Who may connect.
    ///
    /// # Errors
    ///
    /// Its folders can't be used.
    pub fn registry(&self) -> Result<Registry, HomeError> {
        Ok(Registry::open(&self.folder)?)
    }

    /// Credentials for shares.
    pub fn wallet(&self) -> Wallet {
        Wallet::new(&self.folder.join("wallet.toml"))
    }

    /// Where jobs are kept.
    pub fn database(&self) -> PathBuf {
        self.folder.join("jobs.redb")
    }

    /// The names under which agents reach the server.
    ///
    /// # Errors
    ///
    /// `connector.toml` can't be read.
    pub fn names(&self) -> Result<Vec<String>, HomeError> {
        let path = self.folder.join(SETTINGS);
        let text = private_file::read(&path, 64 << 10)?;
        let settings: Settings =
            toml::from_str(&text).map_err(|error| PrivateFileError::Content {
                path,
                problem: error.to_string(),
            })?;
        Ok(settings.names)
    }

    /// What opens the HTTP interface.
    ///
    /// # Errors
    ///
    /// The file can't be read.
    pub fn api_token(&self) -> Result<SecretString, HomeError> {
        let path = self.folder.join(TOKEN);
        let text = private_file::read(&path, 4096)?;
        let token = text.trim();
        if token.len() < 32 || !token.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            let problem = "expected at least 32 letters and digits".to_owned();
            return Err(PrivateFileError::Content { path, problem }.into());
        }
        Ok(SecretString::from(token.to_owned()))
    }

    /// Tells commands where the server listens.
    ///
    /// # Errors
    ///
    /// The file can't be written.
    pub fn tell_admin_address(&self, address: SocketAddr) -> Result<(), HomeError> {
        let path = self.folder.join(ADDRESS);
        Ok(private_file::write(&path, &address.to_string())?)
    }

    /// The server stops.
    pub fn forget_admin_address(&self) {
        // A file that stays leads to a port where nobody answers; that is told as it is.
        let _ = fs::remove_file(self.folder.join(ADDRESS));
    }

    /// Where the server listens; nothing if it does not run.
    ///
    /// # Errors
    ///
    /// The file can't be read.
    pub fn admin_address(&self) -> Result<Option<SocketAddr>, HomeError> {
        let path = self.folder.join(ADDRESS);
        match private_file::read(&path, 256) {
            Ok(text) => match text.trim().parse() {
                Ok(address) => Ok(Some(address)),
                Err(_) => {
                    let problem = "expected an address and a port".to_owned();
                    Err(PrivateFileError::Content { path, problem }.into())
                }
            },
            Err(PrivateFileError::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

const SETTINGS: &str = "connector.toml";
const TOKEN: &str = "api-token";
const ADDRESS: &str = "admin-address";
