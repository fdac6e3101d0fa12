//! Who the agent is for the Connector: a certificate, or a token to be exchanged for one.
//!
//! ```text
//!  configured certificate --------------------------------------> Certificate
//!  STATE/identity.pem with a certificate -----------------------> Certificate
//!  STATE/identity.pem with a key, or nothing; and a token ------> Token (and a request for that key)
//! ```
//!
//! The key is made here, before the token is shown to anyone, and never leaves this machine: a token
//! whose answer was lost can be shown again for the same key.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use secrecy::SecretString;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::job::journal::{JournalError, read_bounded, write_durably};

/// What the agent shows.
#[derive(Debug)]
pub(crate) enum Credential {
    /// A client certificate and what follows it up to the CA, with its key.
    Certificate {
        /// The chain.
        chain: Vec<CertificateDer<'static>>,
        /// The key.
        key: PrivateKeyDer<'static>,
    },
    /// A token that can be exchanged for a certificate once.
    Token(SecretString),
}

/// Where certificates are, and where the one is kept that a token was exchanged for.
#[derive(Debug)]
pub(crate) struct Identity {
    configured: Option<(PathBuf, PathBuf)>,
    token: Option<SecretString>,
    own: PathBuf,
}

/// Why the agent can't say who it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum IdentityError {
    /// A file can't be read or written.
    #[error(transparent)]
    File(#[from] JournalError),
    /// A file has no certificate, or no key.
    #[error("{path}: no {what} in PEM")]
    Pem {
        /// Which.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// There is neither a certificate nor a token.
    #[error("there is no client certificate and no token")]
    Nothing,
    /// A key or a request can't be made.
    #[error("a certificate request can't be made")]
    Request(#[source] rcgen::Error),
    /// What the Connector sent is no certificate for this agent's key.
    #[error("the Connector sent {0}")]
    Answer(&'static str),
}

impl Identity {
    /// An identity from these sources; the token's certificate is kept in the folder `state`.
    pub(crate) fn new(
        configured: Option<(PathBuf, PathBuf)>,
        token: Option<SecretString>,
        state: &Path,
    ) -> Self {
        Self {
            configured,
            token,
            own: state.join("identity.pem"),
        }
    }

    /// What to show to the Connector.
    ///
    /// # Errors
    ///
    /// There is nothing to show, or it can't be read.
    pub(crate) fn credential(&self) -> Result<Credential, IdentityError> {
        if let Some((certificate, key)) = &self.configured {
            return Ok(Credential::Certificate {
                chain: chain_in(certificate, &read_pem(certificate)?)?,
                key: key_in(key, &read_pem(key)?)?,
            });
        }
        if let Some(pem) = self.own_pem()? {
            let chain = chain_in(&self.own, &pem);
            // One that has expired is of no use while there is a token.
            let is_over = |chain: &[CertificateDer<'_>]| {
                chain
                    .first()
                    .and_then(|certificate| validity(certificate))
                    .is_some_and(|(_, end)| end <= unix_now())
            };
            match chain {
                Ok(chain) if self.token.is_none() || !is_over(&chain) => {
                    let key = key_in(&self.own, &pem)?;
                    return Ok(Credential::Certificate { chain, key });
                }
                _ => {}
            }
        }
        let token = self.token.clone().ok_or(IdentityError::Nothing)?;
        Ok(Credential::Token(token))
    }

    /// A request for a certificate for this agent's key, in DER: if there is none yet, or if of the
    /// one there is less than a third of its life is left.
    ///
    /// # Errors
    ///
    /// It can't be made, or the key can't be kept.
    pub(crate) fn certificate_request(&self) -> Result<Option<Vec<u8>>, IdentityError> {
        if self.configured.is_some() {
            return Ok(None);
        }
        let pem = self.own_pem()?;
        if let Some(pem) = &pem
            && let Ok(chain) = chain_in(&self.own, pem)
            && let Some((begin, end)) = chain.first().and_then(|first| validity(first))
            && end - unix_now() > (end - begin) / 3
        {
            return Ok(None);
        }
        let key = match pem {
            Some(pem) => KeyPair::from_pem(&pem).map_err(IdentityError::Request)?,
            None => {
                let key = KeyPair::generate().map_err(IdentityError::Request)?;
                let pem = Zeroizing::new(key.serialize_pem());
                write_durably(&self.own, pem.as_bytes())?;
                key
            }
        };
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key);
        let request = request.map_err(IdentityError::Request)?;
        Ok(Some(request.der().to_vec()))
    }

    /// Keeps the certificate that the Connector made.
    ///
    /// # Errors
    ///
    /// It is not for this agent's key, or can't be written.
    pub(crate) fn keep(&self, chain: &[Vec<u8>]) -> Result<(), IdentityError> {
        let (Some(first), Some(pem)) = (chain.first(), self.own_pem()?) else {
            return Err(IdentityError::Answer("no certificate"));
        };
        let key = KeyPair::from_pem(&pem).map_err(IdentityError::Request)?;
        let (_, certificate) = X509Certificate::from_der(first)
            .map_err(|_| IdentityError::Answer("what is no certificate"))?;
        if certificate.public_key().subject_public_key.data != key.public_key_raw() {
            return Err(IdentityError::Answer("a certificate for another key"));
        }
        let mut text = Zeroizing::new(key.serialize_pem());
        for certificate in chain.iter().take(LONGEST_CHAIN) {
            text.push_str(&pem_of(certificate));
        }
        Ok(write_durably(&self.own, text.as_bytes())?)
    }

    fn own_pem(&self) -> Result<Option<Zeroizing<String>>, IdentityError> {
        Ok(read_bounded(&self.own, LONGEST_PEM)?.map(Zeroizing::new))
    }
}

fn read_pem(path: &Path) -> Result<Zeroizing<String>, IdentityError> {
    let text = read_bounded(path, LONGEST_PEM)?.map(Zeroizing::new);
    text.ok_or_else(|| IdentityError::Pem {
        path: path.to_owned(),
        what: "such file, and so nothing",
    })
}

fn chain_in(path: &Path, pem: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let missing = || IdentityError::Pem {
        path: path.to_owned(),
        what: "certificate",
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    chain
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or_else(missing)
}

fn key_in(path: &Path, pem: &str) -> Result<PrivateKeyDer<'static>, IdentityError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| IdentityError::Pem {
        path: path.to_owned(),
        what: "private key",
    })
}

/// From when to when a certificate is valid, in seconds since 1970.
fn validity(certificate: &[u8]) -> Option<(i64, i64)> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let validity = certificate.validity();
    Some((
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    ))
}

fn unix_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
}

fn pem_of(der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = &*text;
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = tail;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

const LONGEST_PEM: u64 = 64 << 10;
const LONGEST_CHAIN: usize = 8;

#[cfg(test)]
mod tests {
    use rcgen::{CertificateSigningRequestParams, Issuer, date_time_ymd};
    use tokio_rustls::rustls::pki_types::CertificateSigningRequestDer;

    use super::*;

    fn token() -> Option<SecretString> {
        Some("t0ken".into())
    }

    /// A certificate for a request, valid from the start of one year to that of another.
    fn sign(request: &[u8], from: i32, to: i32) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::new(CertificateParams::default(), key);
        let der = CertificateSigningRequestDer::from(request.to_vec());
        let mut request = CertificateSigningRequestParams::from_der(&der).unwrap();
        request.params.not_before = date_time_ymd(from, 1, 1);
        request.params.not_after = date_time_ymd(to, 1, 1);
        request.signed_by(&issuer).unwrap().der().to_vec()
    }

    #[test]
    fn a_token_is_exchanged_for_a_certificate_of_one_key() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::new(None, token(), folder.path());
        assert!(matches!(
            identity.credential().unwrap(),
            Credential::Token(_)
        ));
        let request = identity.certificate_request().unwrap().unwrap();
        // The answer was lost: the same key again.
        let again = Identity::new(None, token(), folder.path());
        let second = again.certificate_request().unwrap().unwrap();
        let key = |der: &[u8]| {
            let der = CertificateSigningRequestDer::from(der.to_vec());
            let request = CertificateSigningRequestParams::from_der(&der).unwrap();
            rcgen::PublicKeyData::der_bytes(&request.public_key).to_vec()
        };
        assert_eq!(key(&request), key(&second));

        again.keep(&[sign(&request, 2020, 2090)]).unwrap();
        assert!(matches!(
            again.credential().unwrap(),
            Credential::Certificate { chain, .. } if chain.len() == 1
        ));
        assert_eq!(again.certificate_request().unwrap(), None);
    }

    #[test]
    fn a_certificate_is_renewed_in_the_last_third_of_its_life() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::new(None, token(), folder.path());
        let request = identity.certificate_request().unwrap().unwrap();
        identity.keep(&[sign(&request, 1975, 2030)]).unwrap();
        assert!(identity.certificate_request().unwrap().is_some());
        assert!(matches!(
            identity.credential().unwrap(),
            Credential::Certificate { .. }
        ));
        identity.keep(&[sign(&request, 1975, 2001)]).unwrap();
        assert!(matches!(
            identity.credential().unwrap(),
            Credential::Token(_)
        ));
    }

    #[test]
    fn a_certificate_for_another_key_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::new(None, token(), folder.path());
        identity.certificate_request().unwrap();
        let other = tempfile::tempdir().unwrap();
        let other = Identity::new(None, token(), other.path());
        let foreign = sign(&other.certificate_request().unwrap().unwrap(), 2020, 2090);
        assert!(identity.keep(&[foreign]).is_err());
        assert!(identity.keep(&[]).is_err());
        assert!(identity.keep(&[vec![1, 2, 3]]).is_err());
        let nobody = Identity::new(None, None, folder.path());
        assert!(matches!(
            nobody.credential().unwrap_err(),
            IdentityError::Nothing
        ));
    }
}
