//! A certificate authority of the tests, and what it signs.

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer,
    KeyPair, date_time_ymd,
};

/// An authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// A certificate and its key, in PEM.
pub struct Signed {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        Ok(Self { issuer, pem })
    }

    /// A certificate for these names, valid from the start of one year to that of another.
    pub fn sign(&self, names: &[&str], years: (i32, i32)) -> Result<Signed> {
        let key = KeyPair::generate()?;
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Signed {
            certificate,
            key: key.serialize_pem(),
        })
    }

    /// A certificate for whoever has the key of this request.
    pub fn sign_request(&self, request: &[u8]) -> Result<Vec<u8>> {
        let request = CertificateSigningRequestParams::from_der(&request.to_vec().into())?;
        Ok(request.signed_by(&self.issuer)?.der().to_vec())
    }
}

/// Valid now.
pub const NOW: (i32, i32) = (2020, 2090);
