//! Catalogue files (`.cat`): the signed list of the hashes of a package's files.
//!
//! ```text
//!  ContentInfo > SignedData (PKCS #7)
//!    content: CertificateTrustList (1.3.6.1.4.1.311.10.1)
//!       member: hash, as bytes or as UTF-16 hexadecimal digits
//!         File, OSAttr            name and Windows versions (name-value attributes)
//!         SpcIndirectData         the hash again, with its algorithm and what was hashed
//!       ...
//!       HWID1, HWID2, OS ...      what the package is for
//!    certificates, signer
//! ```
//!
//! No document of Microsoft's describes the list as a whole; the structure is that of MS-CAESO and
//! "Windows Authenticode Portable Executable Signature Format", checked against real catalogues.
//! Decoded by the `der` and `cms` crates, which refuse lengths that do not fit.

use std::collections::HashSet;
use std::fmt;

use cms::content_info::ContentInfo;
use cms::signed_data::SignedData;
use der::asn1::{
    AnyRef, BmpString, ContextSpecific, GeneralizedTime, ObjectIdentifier, OctetStringRef, UtcTime,
};
use der::{Decode, Reader, Sequence, SliceReader, Tag, TagNumber};

use super::signature::{self, Signer};

/// A hash of a file.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum FileHash {
    /// SHA-1, in older catalogues, or beside SHA-256.
    Sha1([u8; 20]),
    /// SHA-256.
    Sha256([u8; 32]),
}

impl FileHash {
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let sha1 = <[u8; 20]>::try_from(bytes).ok().map(Self::Sha1);
        sha1.or_else(|| <[u8; 32]>::try_from(bytes).ok().map(Self::Sha256))
    }

    /// From the UTF-16 digits that version 1 of the lists has, with a zero behind them.
    fn from_digits(units: &[u8]) -> Option<Self> {
        let mut bytes = Vec::new();
        let digits = units.strip_suffix(&[0, 0]).unwrap_or(units);
        if digits.len() > 128 || !digits.len().is_multiple_of(4) {
            return None;
        }
        for pair in digits.chunks_exact(4) {
            let &[high, 0, low, 0] = pair else {
                return None;
            };
            let digit = |found: u8| char::from(found).to_digit(16);
            bytes.push(u8::try_from(digit(high)? << 4 | digit(low)?).ok()?);
        }
        Self::from_bytes(&bytes)
    }

    /// The hash's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Sha1(bytes) => bytes,
            Self::Sha256(bytes) => bytes,
        }
    }
}

/// `sha256:` and the digits.
impl fmt::Display for FileHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha1(_) => "sha1:",
            Self::Sha256(_) => "sha256:",
        })?;
        self.as_bytes()
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for FileHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A catalogue.
#[derive(Clone, Debug)]
pub struct CatalogFile {
    /// Its members. A file has one for each kind of hash.
    pub members: Vec<Member>,
    /// Hardware ids that it was made for: `HWID1` and on.
    pub hardware_ids: Vec<String>,
    /// Windows versions that it was made for, as it has them: `_v100_X64_22H2`.
    pub windows: Vec<String>,
    /// Who signed it, and whether the signature fits.
    pub signer: Signer,
    hashes: HashSet<FileHash>,
}

/// A file that a catalogue lists.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Member {
    /// Its hash.
    pub hash: FileHash,
    /// Its name, if the list has it. The hash alone decides.
    pub name: Option<String>,
}

/// Bytes that are no catalogue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogFileError {
    /// Larger than any catalogue of a driver.
    #[error("{found} bytes; a catalogue of more than {LARGEST} is not read")]
    TooLarge {
        /// Bytes.
        found: usize,
    },
    /// Not the structure that a catalogue has.
    #[error("{part} cannot be read")]
    Structure {
        /// Which part.
        part: &'static str,
        /// The decoder's reason, with the offset in that part.
        #[source]
        source: der::Error,
    },
    /// Another kind of signed message.
    #[error("expected {expected} ({wanted}), found {found}")]
    OtherType {
        /// What it should be.
        expected: &'static str,
        /// The object identifier of that.
        wanted: ObjectIdentifier,
        /// The object identifier that stands there.
        found: ObjectIdentifier,
    },
    /// A member that is known by something else than SHA-1 or SHA-256.
    #[error("member {index} has an identifier of {length} bytes, which is no SHA-1 or SHA-256")]
    UnknownHash {
        /// From 0.
        index: usize,
        /// Bytes.
        length: usize,
    },
    /// Nobody signed it, or several did.
    #[error("{found} signers; a catalogue has one")]
    Signers {
        /// How many.
        found: usize,
    },
    /// The signer's certificate is not in it.
    #[error("the signer's certificate is not in the catalogue")]
    NoCertificate,
}

impl CatalogFile {
    /// Reads a catalogue and checks its signature; see [`Signer`] for what that means.
    ///
    /// # Errors
    ///
    /// Bytes that are no catalogue. A signature that does not fit is no error but an answer.
    pub fn parse(bytes: &[u8]) -> Result<Self, CatalogFileError> {
        if bytes.len() > LARGEST {
            return Err(CatalogFileError::TooLarge { found: bytes.len() });
        }
        // Signing tools fill up to eight bytes with zeros.
        let padding = bytes.iter().rev().take(7).take_while(|&&byte| byte == 0);
        let padding = padding.count();
        let whole = ContentInfo::from_der(bytes).or_else(|error| {
            let cut = bytes.get(..bytes.len() - padding).unwrap_or_default();
            ContentInfo::from_der(cut).map_err(|_| error)
        });
        let outer = whole.map_err(|error| broken("the envelope", error))?;
        expect_type("signed data", SIGNED_DATA, outer.content_type)?;
        let signed: SignedData = outer
            .content
            .decode_as()
            .map_err(|error| broken("the signed data", error))?;
        let content = &signed.encap_content_info;
        expect_type("a list of hashes", TRUST_LIST, content.econtent_type)?;
        let list = content
            .econtent
            .as_ref()
            .ok_or_else(|| broken("the list", Tag::Sequence.value_error()))?;
        let signer = signature::check(&signed, list.value())?;
        let mut catalog = Self {
            members: Vec::new(),
            hardware_ids: Vec::new(),
            windows: Vec::new(),
            signer,
            hashes: HashSet::new(),
        };
        SliceReader::new(list.value())
            .and_then(List::read)
            .map_err(|error| broken("the list", error))
            .and_then(|list| catalog.fill(&list))?;
        Ok(catalog)
    }

    /// Whether a file with one of these hashes is listed.
    pub fn lists(&self, hashes: &[FileHash]) -> bool {
        hashes.iter().any(|hash| self.hashes.contains(hash))
    }

    fn fill(&mut self, list: &List<'_>) -> Result<(), CatalogFileError> {
        for (index, subject) in list.subjects.iter().enumerate() {
            let identifier = subject.identifier.as_bytes();
            let hash = FileHash::from_digits(identifier)
                .or_else(|| FileHash::from_bytes(identifier))
                .ok_or(CatalogFileError::UnknownHash {
                    index,
                    length: identifier.len(),
                })?;
            let mut name = None;
            for attribute in attributes(subject.attributes)
                .map_err(|error| broken("a member's attributes", error))?
            {
                if attribute.kind == NAME_VALUE
                    && let Some((key, value)) = name_value(attribute.values)
                    && key == "File"
                {
                    name = Some(value);
                } else if attribute.kind == INDIRECT_DATA
                    && let Some(digest) = indirect_digest(attribute.values)
                {
                    self.hashes.insert(digest);
                }
            }
            self.hashes.insert(hash);
            self.members.push(Member { hash, name });
        }
        for (key, value) in &list.extensions {
            let values = || value.split(',').map(|text| text.trim().to_owned());
            if key == "OS" {
                self.windows.extend(values());
            } else if key.starts_with("HWID") {
                self.hardware_ids.push(value.clone());
            }
        }
        Ok(())
    }
}

/// CertificateTrustList, as far as catalogues use it.
struct List<'a> {
    subjects: Vec<Subject<'a>>,
    extensions: Vec<(String, String)>,
}

#[derive(Sequence)]
struct Subject<'a> {
    identifier: OctetStringRef<'a>,
    /// SET OF Attribute, which is not always in the order that DER wants.
    attributes: Option<AnyRef<'a>>,
}

#[derive(Sequence)]
struct Attribute<'a> {
    kind: ObjectIdentifier,
    values: AnyRef<'a>,
}

#[derive(Sequence)]
struct NameValue<'a> {
    name: BmpString,
    flags: AnyRef<'a>,
    value: OctetStringRef<'a>,
}

#[derive(Sequence)]
struct IndirectData<'a> {
    hashed: AnyRef<'a>,
    digest: DigestInfo<'a>,
}

#[derive(Sequence)]
struct DigestInfo<'a> {
    algorithm: AnyRef<'a>,
    digest: OctetStringRef<'a>,
}

#[derive(Sequence)]
struct Extension<'a> {
    kind: ObjectIdentifier,
    critical: Option<bool>,
    value: OctetStringRef<'a>,
}

impl<'a> List<'a> {
    /// Reads what is in the list's outermost SEQUENCE.
    fn read(mut whole: SliceReader<'a>) -> der::Result<Self> {
        let reader = &mut whole;
        // Version, usage, identifier, number, dates, algorithm: whatever comes before the members,
        // which are the first SEQUENCE behind the algorithm.
        while reader.peek_tag()? == Tag::Integer {
            AnyRef::decode(reader)?;
        }
        expect_sequence(reader)?; // usage
        while matches!(reader.peek_tag()?, Tag::OctetString | Tag::Integer) {
            AnyRef::decode(reader)?;
        }
        match reader.peek_tag()? {
            Tag::UtcTime => drop(UtcTime::decode(reader)?),
            _ => drop(GeneralizedTime::decode(reader)?),
        }
        if matches!(reader.peek_tag()?, Tag::UtcTime | Tag::GeneralizedTime) {
            AnyRef::decode(reader)?;
        }
        expect_sequence(reader)?; // algorithm
        let mut subjects = Vec::new();
        if !reader.is_finished() && reader.peek_tag()? == Tag::Sequence {
            let members = expect_sequence(reader)?;
            let mut members = SliceReader::new(members.value())?;
            while !members.is_finished() {
                subjects.push(Subject::decode(&mut members)?);
            }
        }
        let mut extensions = Vec::new();
        if let Some(found) = ContextSpecific::<AnyRef<'_>>::decode_explicit(reader, TagNumber::N0)?
        {
            let mut found = SliceReader::new(found.value.value())?;
            while !found.is_finished() {
                let extension = Extension::decode(&mut found)?;
                let pair = NameValue::from_der(extension.value.as_bytes()).ok();
                if extension.kind == NAME_VALUE
                    && let Some(pair) = pair
                {
                    extensions.push((pair.name.to_string(), pair.text()));
                }
            }
        }
        whole.finish(Self {
            subjects,
            extensions,
        })
    }
}

impl NameValue<'_> {
    /// The value, which is UTF-16 with a zero behind it.
    fn text(&self) -> String {
        let units = self
            .value
            .as_bytes()
            .chunks_exact(2)
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
        let units: Vec<u16> = units.take_while(|&unit| unit != 0).collect();
        String::from_utf16_lossy(&units)
    }
}

fn expect_sequence<'a>(reader: &mut SliceReader<'a>) -> der::Result<AnyRef<'a>> {
    let found = AnyRef::decode(reader)?;
    der::Tagged::tag(&found).assert_eq(Tag::Sequence)?;
    Ok(found)
}

fn attributes(set: Option<AnyRef<'_>>) -> der::Result<Vec<Attribute<'_>>> {
    let Some(set) = set else {
        return Ok(Vec::new());
    };
    der::Tagged::tag(&set).assert_eq(Tag::Set)?;
    let mut reader = SliceReader::new(set.value())?;
    let mut found = Vec::new();
    while !reader.is_finished() {
        found.push(Attribute::decode(&mut reader)?);
    }
    Ok(found)
}

/// A name-value attribute; another form is not ours to judge, for only hashes decide.
fn name_value(values: AnyRef<'_>) -> Option<(String, String)> {
    let pair = NameValue::from_der(values.value()).ok()?;
    Some((pair.name.to_string(), pair.text()))
}

fn indirect_digest(values: AnyRef<'_>) -> Option<FileHash> {
    let data = IndirectData::from_der(values.value()).ok()?;
    FileHash::from_bytes(data.digest.digest.as_bytes())
}

fn expect_type(
    expected: &'static str,
    wanted: ObjectIdentifier,
    found: ObjectIdentifier,
) -> Result<(), CatalogFileError> {
    if found == wanted {
        return Ok(());
    }
    Err(CatalogFileError::OtherType {
        expected,
        wanted,
        found,
    })
}

fn broken(part: &'static str, source: der::Error) -> CatalogFileError {
    CatalogFileError::Structure { part, source }
}

/// Windows' own have some hundred KiB.
const LARGEST: usize = 16 << 20;

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const TRUST_LIST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.10.1");
const NAME_VALUE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.12.2.1");
const INDIRECT_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.4");
