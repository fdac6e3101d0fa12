//! Credentials for shares, by name: `wallet.toml`, which only its owner can read.
//!
//! ```toml
//! [credentials.backup]
//! domain   = "EXAMPLE"      # optional
//! username = "writer"
//! password = "..."
//! ```
//!
//! It is read whenever a job is sent, and kept nowhere. No error repeats anything of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ce_proto::v1;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::private_file::{self, PrivateFileError};

/// Where the wallet is.
#[derive(Clone, Debug)]
pub struct Wallet {
    path: PathBuf,
}

/// Why there are no credentials of that name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalletError {
    /// The wallet can't be read.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// The wallet has no such name.
    #[error("`{id}` is not in {path}")]
    Unknown {
        /// The name.
        id: String,
        /// The wallet.
        path: PathBuf,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    #[serde(default)]
    credentials: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    domain: String,
    username: String,
    password: SecretString,
}

impl Wallet {
    /// The wallet in that file, which need not be there until it is asked for something.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// The credentials of that name, ready to send.
    ///
    /// # Errors
    ///
    /// There are none, or the wallet can't be read or is open to others.
    pub fn credentials(&self, id: &str) -> Result<v1::Credentials, WalletError> {
        let text = private_file::read(&self.path, MAX_WALLET)?;
        let mut content: Content = toml::from_str(&text).map_err(|error| {
            // The text of the error shows the line that it is about, and so perhaps a password.
            let at = error.span().map_or(0, |span| span.start);
            let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
            let problem = format!(
                "line {line}: expected [credentials.NAME] with the strings `username`, \
                 `password` and, if need be, `domain`"
            );
            self.problem(problem)
        })?;
        let Some(entry) = content.credentials.remove(id) else {
            return Err(WalletError::Unknown {
                id: id.chars().take(80).collect(),
                path: self.path.clone(),
            });
        };
        let password = entry.password.expose_secret();
        for (name, value, may_be_empty) in [
            ("domain", entry.domain.as_str(), true),
            ("username", &entry.username, false),
            ("password", password, false),
        ] {
            if value.len() > 255 || (value.is_empty() && !may_be_empty) {
                let problem = format!("credentials.{id}.{name}: is empty or over 255 bytes");
                return Err(self.problem(problem).into());
            }
        }
        Ok(v1::Credentials {
            domain: entry.domain,
            username: entry.username,
            password: password.to_owned(),
        })
    }

    fn problem(&self, problem: String) -> PrivateFileError {
        PrivateFileError::Content {
            path: self.path.clone(),
            problem,
        }
    }
}

const MAX_WALLET: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn wallet(text: &str) -> (tempfile::TempDir, Wallet) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wallet.toml");
        private_file::write(&path, text).unwrap();
        (folder, Wallet::new(&path))
    }

    #[test]
    fn credentials_are_found_by_name() {
        let (_folder, wallet) = wallet(
            "[credentials.a]\nusername = 'u'\npassword = 'p'\n\
             [credentials.\"b c\"]\ndomain = 'D'\nusername = 'v'\npassword = 'q'\n",
        );
        let found = wallet.credentials("b c").unwrap();
        assert_eq!(
            (&*found.domain, &*found.username, &*found.password),
            ("D", "v", "q")
        );
        let error = wallet.credentials("c").unwrap_err();
        assert!(matches!(error, WalletError::Unknown { .. }));
    }

    #[test]
    fn no_error_repeats_what_is_in_the_wallet() {
        for text in [
            "[credentials.a]\nusername = 'u'\npassword = hunter2\n",
            "[credentials.a]\nusername = 'u'\npassword = ['hunter2']\n",
            "[credentials.a]\nusername = 'u'\npasswrd = 'hunter2'\n",
            "[credentials.a]\nusername = 'u'\npassword = 'hunter2'\nhunter2 = 1\n",
        ] {
            let (_folder, wallet) = wallet(text);
            let error = wallet.credentials("a").unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(shown.contains("line "), "{shown}");
        }
    }
}
