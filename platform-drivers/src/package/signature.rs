//! Who signed a catalogue, and whether the signature fits.

use cms::cert::CertificateChoices;
use cms::signed_data::{SignedData, SignerIdentifier, SignerInfo};
use der::asn1::{ObjectIdentifier, OctetStringRef};
use der::{Decode, Encode};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
    RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
    RSA_PKCS1_2048_8192_SHA384, UnparsedPublicKey, VerificationAlgorithm,
};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_cert::Certificate;

use super::catalog_file::CatalogFileError;

/// Who signed.
///
/// The signature is checked with the certificates that are in the file: that the list is the one
/// that was signed, by the holder of the first certificate, which the holder of the second signed,
/// and so on. Whether Windows trusts the last of them is Windows' to say, as is whether it accepts
/// the time of signing: neither can be known offline.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Signer {
    /// The common name, such as `Microsoft Windows Hardware Compatibility Publisher`.
    pub name: String,
    /// The names of those who vouch for it, the nearest first; the last is not in the file.
    pub issuers: Vec<String>,
    /// What is wrong with the signature; `None` if it fits.
    pub fault: Option<String>,
}

impl Signer {
    /// Whether Microsoft's hardware programme signed: the drivers of others a Windows with Secure
    /// Boot does not load.
    pub fn is_hardware_programme(&self) -> bool {
        self.fault.is_none() && HARDWARE_PROGRAMME.contains(&self.name.as_str())
    }
}

/// Checks the one signer of a message with this content.
pub(super) fn check(signed: &SignedData, content: &[u8]) -> Result<Signer, CatalogFileError> {
    let signers: Vec<&SignerInfo> = signed.signer_infos.0.iter().collect();
    let [info] = signers[..] else {
        return Err(CatalogFileError::Signers {
            found: signers.len(),
        });
    };
    let certificates: Vec<&Certificate> = signed
        .certificates
        .iter()
        .flat_map(|set| set.0.iter())
        .filter_map(|choice| match choice {
            CertificateChoices::Certificate(certificate) => Some(certificate),
            CertificateChoices::Other(_) => None,
        })
        .collect();
    let certificate = certificates
        .iter()
        .find(|certificate| is_of(info, certificate))
        .ok_or(CatalogFileError::NoCertificate)?;
    let fault = message_fault(info, content, certificate);
    let (issuers, broken_chain) = chain(certificate, &certificates);
    Ok(Signer {
        name: common_name(&certificate.tbs_certificate.subject),
        issuers,
        fault: fault.or(broken_chain).map(str::to_owned),
    })
}

fn is_of(info: &SignerInfo, certificate: &Certificate) -> bool {
    let tbs = &certificate.tbs_certificate;
    match &info.sid {
        SignerIdentifier::IssuerAndSerialNumber(id) => {
            id.issuer == tbs.issuer && id.serial_number == tbs.serial_number
        }
        // Catalogues are PKCS #7 1.5, which has no such identifier.
        SignerIdentifier::SubjectKeyIdentifier(_) => false,
    }
}

/// What is wrong with the signature of the message.
fn message_fault(info: &SignerInfo, content: &[u8], by: &Certificate) -> Option<&'static str> {
    let Some(attributes) = &info.signed_attrs else {
        return Some("the signature is over no attributes");
    };
    let Some(hash) = Hash::of(info.digest_alg.oid) else {
        return Some("the signature uses a hash that is not known");
    };
    let signed_digest = attributes
        .iter()
        .find(|attribute| attribute.oid == MESSAGE_DIGEST)
        .and_then(|attribute| attribute.values.iter().next())
        .and_then(|value| value.decode_as::<OctetStringRef<'_>>().ok());
    if signed_digest.as_ref().map(OctetStringRef::as_bytes) != Some(hash.digest(content).as_slice())
    {
        return Some("the list was changed after it was signed");
    }
    // What is signed is the SET, not the [0] that it is written as.
    let Ok(message) = attributes.to_der() else {
        return Some("the signed attributes cannot be encoded");
    };
    let key = &by.tbs_certificate.subject_public_key_info;
    let fits = verify(
        key.algorithm.oid,
        hash,
        key.subject_public_key.raw_bytes(),
        &message,
        info.signature.as_bytes(),
    );
    (!fits).then_some("the signature is not the signer's")
}

/// The names of the issuers, and what is wrong with the signatures between them.
fn chain(first: &Certificate, all: &[&Certificate]) -> (Vec<String>, Option<&'static str>) {
    let mut names = Vec::new();
    let mut current = first;
    while names.len() < LONGEST_CHAIN {
        let tbs = &current.tbs_certificate;
        if tbs.issuer == tbs.subject {
            break;
        }
        names.push(common_name(&tbs.issuer));
        let issuer = all
            .iter()
            .find(|found| found.tbs_certificate.subject == tbs.issuer);
        let Some(issuer) = issuer else { break };
        if !is_signed_by(current, issuer) {
            return (names, Some("a certificate is not signed by its issuer"));
        }
        current = issuer;
    }
    (names, None)
}

fn is_signed_by(certificate: &Certificate, issuer: &Certificate) -> bool {
    let key = &issuer.tbs_certificate.subject_public_key_info;
    let Some(hash) = Hash::of_signature(certificate.signature_algorithm.oid) else {
        return false;
    };
    certificate.tbs_certificate.to_der().is_ok_and(|message| {
        verify(
            key.algorithm.oid,
            hash,
            key.subject_public_key.raw_bytes(),
            &message,
            certificate.signature.raw_bytes(),
        )
    })
}

fn verify(
    key_kind: ObjectIdentifier,
    hash: Hash,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    let algorithm: &dyn VerificationAlgorithm = match (key_kind, hash) {
        (RSA, Hash::Sha1) => &RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
        (RSA, Hash::Sha256) => &RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
        (RSA, Hash::Sha384) => &RSA_PKCS1_2048_8192_SHA384,
        (RSA, Hash::Sha512) => &RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
        (ELLIPTIC, Hash::Sha256) => &ECDSA_P256_SHA256_ASN1,
        (ELLIPTIC, Hash::Sha384) => &ECDSA_P384_SHA384_ASN1,
        _ => return false,
    };
    UnparsedPublicKey::new(algorithm, key)
        .verify(message, signature)
        .is_ok()
}

#[derive(Clone, Copy)]
enum Hash {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    fn of(oid: ObjectIdentifier) -> Option<Self> {
        HASHES
            .iter()
            .find(|(known, ..)| *known == oid)
            .map(|&(.., hash)| hash)
    }

    fn of_signature(oid: ObjectIdentifier) -> Option<Self> {
        HASHES
            .iter()
            .find(|(_, rsa, ecdsa, _)| *rsa == oid || *ecdsa == oid)
            .map(|&(.., hash)| hash)
    }

    fn digest(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha1 => Sha1::digest(bytes).to_vec(),
            Self::Sha256 => Sha256::digest(bytes).to_vec(),
            Self::Sha384 => Sha384::digest(bytes).to_vec(),
            Self::Sha512 => Sha512::digest(bytes).to_vec(),
        }
    }
}

/// The common name, or the whole name if there is none.
fn common_name(name: &x509_cert::name::Name) -> String {
    let common = name
        .0
        .iter()
        .flat_map(|part| part.0.iter())
        .find(|attribute| attribute.oid == COMMON_NAME)
        .and_then(|attribute| {
            let value = &attribute.value;
            let bytes = value.value();
            match der::Tagged::tag(value) {
                der::Tag::BmpString => der::asn1::BmpString::from_der(&value.to_der().ok()?)
                    .ok()
                    .map(|text| text.to_string()),
                _ => std::str::from_utf8(bytes).ok().map(str::to_owned),
            }
        });
    common.unwrap_or_else(|| name.to_string())
}

/// The names that Microsoft's hardware programme signs with.
const HARDWARE_PROGRAMME: [&str; 2] = [
    "Microsoft Windows Hardware Compatibility Publisher",
    "Microsoft Windows Hardware Abstraction Layer Publisher",
];

const LONGEST_CHAIN: usize = 8;

const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ELLIPTIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");

/// The identifiers of the hash itself, with RSA, with ECDSA.
const HASHES: [(ObjectIdentifier, ObjectIdentifier, ObjectIdentifier, Hash); 4] = [
    (
        ObjectIdentifier::new_unwrap("1.3.14.3.2.26"),
        ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.5"),
        ObjectIdentifier::new_unwrap("1.2.840.10045.4.1"),
        Hash::Sha1,
    ),
    (
        ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1"),
        ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11"),
        ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"),
        Hash::Sha256,
    ),
    (
        ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2"),
        ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12"),
        ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3"),
        Hash::Sha384,
    ),
    (
        ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3"),
        ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13"),
        ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4"),
        Hash::Sha512,
    ),
];
