//! The Connector's own certificate authority.
//!
//! It signs two kinds of certificates: the server's, which is made anew whenever the server starts,
//! and those of agents. Subjects and extensions of an agent's request are ignored; of a request
//! only the key counts.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SanType, SerialNumber, date_time_ymd,
};
use ring::rand::{SecureRandom, SystemRandom};
use tokio_rustls::rustls::pki_types::{
    CertificateDer, CertificateSigningRequestDer, PrivateKeyDer, PrivatePkcs8KeyDer,
};
use zeroize::Zeroizing;

use crate::ids::{AgentId, UnixMillis};
use crate::private_file::{self, PrivateFileError};

/// A certificate authority with its key.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate that was signed.
#[derive(Clone, Debug)]
pub struct Issued {
    /// In DER.
    pub certificate: CertificateDer<'static>,
    /// In PEM.
    pub pem: String,
    /// When it ends to be valid.
    pub expires: UnixMillis,
}

/// Why a certificate can't be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// A file of the authority can't be read or written.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// The authority's own files are not what they should be.
    #[error("the certificate authority's {what} can't be used")]
    Own {
        /// Key or certificate.
        what: &'static str,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// A name of the server is neither a DNS name nor an address.
    #[error("`{name}` is neither a DNS name nor an IP address")]
    ServerName {
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// An agent's request can't be read, or was not signed with its own key.
    #[error("the certificate request can't be used")]
    Request(#[source] rcgen::Error),
    /// Signing failed.
    #[error("the certificate can't be signed")]
    Sign(#[source] rcgen::Error),
    /// The system has no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

impl Authority {
    /// Makes an authority and keeps it in `folder`.
    ///
    /// # Errors
    ///
    /// The files can't be written.
    pub fn create(folder: &Path, now: UnixMillis) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate().map_err(AuthorityError::Sign)?;
        let mut params = params("Connector CA", now, AUTHORITY_LIFE)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let certificate = params.self_signed(&key).map_err(AuthorityError::Sign)?;
        let key_pem = Zeroizing::new(key.serialize_pem());
        private_file::write(&folder.join(KEY_FILE), &key_pem)?;
        private_file::write(&folder.join(CERTIFICATE_FILE), &certificate.pem())?;
        Self::open(folder)
    }

    /// Opens the authority that is kept in `folder`.
    ///
    /// # Errors
    ///
    /// The files can't be read, or are not what they should be.
    pub fn open(folder: &Path) -> Result<Self, AuthorityError> {
        let key = private_file::read(&folder.join(KEY_FILE), MAX_FILE)?;
        let pem = private_file::read(&folder.join(CERTIFICATE_FILE), MAX_FILE)?;
        let own = |what| move |source| AuthorityError::Own { what, source };
        let key = KeyPair::from_pem(&key).map_err(own("key"))?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(own("certificate"))?;
        Ok(Self {
            issuer,
            pem: (*pem).clone(),
        })
    }

    /// The authority's certificate in PEM: what agents are given to check the server by.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Makes a certificate and a key for the server under all of `names`.
    ///
    /// # Errors
    ///
    /// A name that is none.
    pub fn server(
        &self,
        names: &[String],
        now: UnixMillis,
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), AuthorityError> {
        let key = KeyPair::generate().map_err(AuthorityError::Sign)?;
        let mut params = params("Connector", now, SERVER_LIFE)?;
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => {
                    let dns = name.as_str().try_into();
                    SanType::DnsName(dns.map_err(|source| AuthorityError::ServerName {
                        name: name.clone(),
                        source,
                    })?)
                }
            });
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(AuthorityError::Sign)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Ok((certificate.der().clone(), key.into()))
    }

    /// Makes a key (PEM) and a certificate for an agent that can't ask for one itself.
    ///
    /// # Errors
    ///
    /// Signing fails.
    pub fn agent_with_key(
        &self,
        agent: &AgentId,
        now: UnixMillis,
    ) -> Result<(Issued, Zeroizing<String>), AuthorityError> {
        let key = KeyPair::generate().map_err(AuthorityError::Sign)?;
        let issued = agent_params(agent, now)?
            .signed_by(&key, &self.issuer)
            .map_err(AuthorityError::Sign)?;
        let issued = issued_until(&issued, now);
        Ok((issued, Zeroizing::new(key.serialize_pem())))
    }

    /// Signs the key in an agent's request.
    ///
    /// # Errors
    ///
    /// The request is damaged or not signed with its own key.
    pub fn agent_for(
        &self,
        agent: &AgentId,
        request: &CertificateRequest,
        now: UnixMillis,
    ) -> Result<Issued, AuthorityError> {
        let request = CertificateSigningRequestParams {
            params: agent_params(agent, now)?,
            public_key: request.parse()?.public_key,
        };
        let certificate = request
            .signed_by(&self.issuer)
            .map_err(AuthorityError::Sign)?;
        Ok(issued_until(&certificate, now))
    }
}

/// A certificate request in DER, as an agent sent it; not checked yet.
#[derive(Clone, Debug)]
pub struct CertificateRequest(Vec<u8>);

impl CertificateRequest {
    /// Takes what an agent sent. Nothing if it sent nothing.
    pub fn new(der: Vec<u8>) -> Option<Self> {
        (!der.is_empty()).then_some(Self(der))
    }

    /// A digest of the key for which a certificate is asked.
    ///
    /// # Errors
    ///
    /// The request is damaged or not signed with its own key.
    pub fn key_digest(&self) -> Result<String, AuthorityError> {
        let key = self.parse()?.public_key;
        Ok(digest(&key.subject_public_key_info()))
    }

    /// Reading it checks that whoever made it has the key.
    fn parse(&self) -> Result<CertificateSigningRequestParams, AuthorityError> {
        let der = CertificateSigningRequestDer::from(self.0.as_slice());
        CertificateSigningRequestParams::from_der(&der).map_err(AuthorityError::Request)
    }
}

/// SHA-256 in hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

/// 256 random bits in hexadecimal digits.
///
/// # Errors
///
/// The system gives no random numbers.
pub fn random_secret() -> Result<Zeroizing<String>, AuthorityError> {
    let mut bytes = Zeroizing::new([0; 32]);
    SystemRandom::new()
        .fill(&mut *bytes)
        .map_err(|_| AuthorityError::Random)?;
    Ok(Zeroizing::new(hex(&*bytes)))
}

fn hex(bytes: &[u8]) -> String {
    // Exactly as long as needed: no copy of a secret is left behind by growing.
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
    }
    text
}

fn agent_params(agent: &AgentId, now: UnixMillis) -> Result<CertificateParams, AuthorityError> {
    let mut params = params(agent.as_str(), now, AGENT_LIFE)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    Ok(params)
}

fn params(
    name: &str,
    now: UnixMillis,
    life: Duration,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let mut serial = [0; 16];
    SystemRandom::new()
        .fill(&mut serial)
        .map_err(|_| AuthorityError::Random)?;
    // RFC 5280, 4.1.2.2: positive, and not zero.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let since_1970 = Duration::from_millis(now.0);
    let now = date_time_ymd(1970, 1, 1) + since_1970;
    params.not_before = now - CLOCK_SKEW;
    params.not_after = now + life;
    Ok(params)
}

fn issued_until(certificate: &rcgen::Certificate, now: UnixMillis) -> Issued {
    let life = u64::try_from(AGENT_LIFE.as_millis()).unwrap_or(u64::MAX);
    Issued {
        certificate: certificate.der().clone(),
        pem: certificate.pem(),
        expires: now.plus(life),
    }
}

const KEY_FILE: &str = "ca.key";
const CERTIFICATE_FILE: &str = "ca.pem";
const MAX_FILE: u64 = 64 << 10;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const AUTHORITY_LIFE: Duration = DAY.saturating_mul(3650);
/// Made anew at each start; no server runs for two years without one.
const SERVER_LIFE: Duration = DAY.saturating_mul(730);
const AGENT_LIFE: Duration = DAY.saturating_mul(90);
/// How far the clock of a machine that has just started may be behind.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);
