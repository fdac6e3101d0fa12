//! Who may connect: certificates that were handed out, and one-time tokens.
//!
//! Both are small files, so that they can be added and taken away while the server runs and while
//! it does not:
//!
//! ```text
//! identities/SHA-256-OF-CERTIFICATE.json   {"agent", "expires"}
//! tokens/SHA-256-OF-TOKEN.json             {"agent", "expires", "key"}
//! ```
//!
//! A certificate that is not among the identities is not let in, whoever signed it: to remove the
//! file is to revoke. The token itself is nowhere; whoever reads the file can't use it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::authority::{self, Authority, AuthorityError, CertificateRequest, Issued};
use crate::ids::{AgentId, UnixMillis};
use crate::private_file::{self, PrivateFileError};

/// The folder with identities and tokens.
#[derive(Debug)]
pub struct Registry {
    folder: PathBuf,
    /// Held while a token is looked at and changed.
    tokens: Mutex<()>,
}

/// A certificate that was handed out.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    agent: AgentId,
    expires: UnixMillis,
}

/// A token that was handed out.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Token {
    agent: AgentId,
    expires: UnixMillis,
    /// The digest of the key that it was used for.
    key: Option<String>,
}

/// Why someone is not let in, or the registry can't say.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// A file of the registry can't be read or written.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// The token is none that was handed out.
    #[error("the token is unknown")]
    TokenUnknown,
    /// The token's time is over.
    #[error("the token has expired")]
    TokenExpired,
    /// The token was exchanged for a certificate for another key.
    #[error("the token has been used")]
    TokenUsed,
    /// The certificate can't be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// No agent has that name.
    #[error("there is no agent `{0}`")]
    NoAgent(AgentId),
}

impl Registry {
    /// The registry in `folder`.
    ///
    /// # Errors
    ///
    /// Its folders can't be made.
    pub fn open(folder: &Path) -> Result<Self, RegistryError> {
        for name in [IDENTITIES, TOKENS] {
            let path = folder.join(name);
            fs::create_dir_all(&path).map_err(|source| PrivateFileError::Io { path, source })?;
        }
        Ok(Self {
            folder: folder.to_owned(),
            tokens: Mutex::new(()),
        })
    }

    /// Lets an agent in by this certificate from now on.
    ///
    /// # Errors
    ///
    /// The file can't be written.
    pub fn add(&self, agent: &AgentId, issued: &Issued) -> Result<(), RegistryError> {
        let identity = Identity {
            agent: agent.clone(),
            expires: issued.expires,
        };
        write(&self.identity_file(&issued.certificate), &identity)
    }

    /// Whose certificate this is, if it is still someone's.
    ///
    /// # Errors
    ///
    /// The file can't be read.
    pub fn agent(
        &self,
        certificate: &CertificateDer<'_>,
        now: UnixMillis,
    ) -> Result<Option<AgentId>, RegistryError> {
        let identity: Option<Identity> = read(&self.identity_file(certificate))?;
        Ok(identity
            .filter(|identity| now < identity.expires)
            .map(|identity| identity.agent))
    }

    /// The agents that have a certificate, each with the end of its last one.
    ///
    /// # Errors
    ///
    /// The folder can't be read.
    pub fn agents(&self) -> Result<Vec<(AgentId, UnixMillis)>, RegistryError> {
        let mut agents = std::collections::BTreeMap::new();
        for file in self.files(IDENTITIES)? {
            if let Some(Identity { agent, expires }) = read(&file)? {
                let last = agents.entry(agent).or_insert(expires);
                *last = expires.max(*last);
            }
        }
        Ok(agents.into_iter().collect())
    }

    /// Lets an agent in no more: by no certificate, and by no token.
    ///
    /// # Errors
    ///
    /// There is no such agent, or a file can't be removed.
    pub fn remove(&self, agent: &AgentId) -> Result<(), RegistryError> {
        let mut found = false;
        for file in self.files(IDENTITIES)? {
            if read::<Identity>(&file)?.is_some_and(|identity| identity.agent == *agent) {
                remove(&file)?;
                found = true;
            }
        }
        let _guard = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        for file in self.files(TOKENS)? {
            if read::<Token>(&file)?.is_some_and(|token| token.agent == *agent) {
                remove(&file)?;
                found = true;
            }
        }
        if found {
            Ok(())
        } else {
            Err(RegistryError::NoAgent(agent.clone()))
        }
    }

    /// Makes a token for an agent. Tokens whose time is over are removed on the way.
    ///
    /// # Errors
    ///
    /// The file can't be written.
    pub fn new_token(
        &self,
        agent: &AgentId,
        expires: UnixMillis,
        now: UnixMillis,
    ) -> Result<Zeroizing<String>, RegistryError> {
        let _guard = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        for file in self.files(TOKENS)? {
            if read::<Token>(&file)?.is_some_and(|token| token.expires <= now) {
                remove(&file)?;
            }
        }
        let secret = authority::random_secret()?;
        let token = Token {
            agent: agent.clone(),
            expires,
            key: None,
        };
        write(&self.token_file(&secret), &token)?;
        Ok(secret)
    }

    /// Whose token this is.
    ///
    /// # Errors
    ///
    /// It is nobody's, or its time is over. Whether it has been used shows only when the key is
    /// known.
    pub fn token_owner(&self, secret: &str, now: UnixMillis) -> Result<AgentId, RegistryError> {
        Ok(self.valid_token(secret, now)?.1.agent)
    }

    /// Takes a token for a certificate, once: it is bound to the key in the request. The same token
    /// with the same key is answered again, in case the first answer was lost on its way.
    ///
    /// # Errors
    ///
    /// The token is unknown, expired or used for another key, or the request is bad; then the token
    /// is as it was.
    pub fn exchange(
        &self,
        secret: &str,
        request: &CertificateRequest,
        authority: &Authority,
        now: UnixMillis,
    ) -> Result<(AgentId, Issued), RegistryError> {
        let key = request.key_digest()?;
        let _guard = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, mut token) = self.valid_token(secret, now)?;
        match &token.key {
            Some(bound) if *bound != key => return Err(RegistryError::TokenUsed),
            Some(_) => {}
            None => {
                token.key = Some(key);
                write(&file, &token)?;
            }
        }
        let issued = authority.agent_for(&token.agent, request, now)?;
        self.add(&token.agent, &issued)?;
        Ok((token.agent, issued))
    }

    fn valid_token(
        &self,
        secret: &str,
        now: UnixMillis,
    ) -> Result<(PathBuf, Token), RegistryError> {
        let file = self.token_file(secret);
        let token: Token = read(&file)?.ok_or(RegistryError::TokenUnknown)?;
        if token.expires <= now {
            return Err(RegistryError::TokenExpired);
        }
        Ok((file, token))
    }

    fn identity_file(&self, certificate: &CertificateDer<'_>) -> PathBuf {
        let name = format!("{}.json", authority::digest(certificate));
        self.folder.join(IDENTITIES).join(name)
    }

    fn token_file(&self, secret: &str) -> PathBuf {
        let name = format!("{}.json", authority::digest(secret.as_bytes()));
        self.folder.join(TOKENS).join(name)
    }

    fn files(&self, name: &str) -> Result<Vec<PathBuf>, PrivateFileError> {
        let path = self.folder.join(name);
        let list = || {
            let paths = fs::read_dir(&path)?.map(|entry| Ok(entry?.path()));
            paths.collect::<io::Result<Vec<_>>>()
        };
        let mut files = list().map_err(|source| PrivateFileError::Io {
            path: path.clone(),
            source,
        })?;
        files.retain(|file| file.extension().is_some_and(|ending| ending == "json"));
        Ok(files)
    }
}

/// What the file says; nothing if there is none.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RegistryError> {
    let text = match private_file::read(path, MAX_FILE) {
        Err(PrivateFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        other => other?,
    };
    let value = serde_json::from_str(&text).map_err(|error| PrivateFileError::Content {
        path: path.to_owned(),
        problem: error.to_string(),
    })?;
    Ok(Some(value))
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), RegistryError> {
    let text = serde_json::to_string(value).map_err(|error| PrivateFileError::Content {
        path: path.to_owned(),
        problem: error.to_string(),
    })?;
    Ok(private_file::write(path, &text)?)
}

fn remove(path: &Path) -> Result<(), PrivateFileError> {
    fs::remove_file(path).map_err(|source| PrivateFileError::Io {
        path: path.to_owned(),
        source,
    })
}

const IDENTITIES: &str = "identities";
const TOKENS: &str = "tokens";
const MAX_FILE: u64 = 4096;
