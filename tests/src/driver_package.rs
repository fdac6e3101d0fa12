//! Driver packages as vendors ship them: INF, a driver that is a PE file, and a signed catalogue.
//!
//! The catalogue is put together byte by byte, by no code that the program reads it with.

use std::fs;
use std::path::Path;

use anyhow::{Result, anyhow};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use sha2::{Digest, Sha256};

/// The signer of all packages made here.
pub const SIGNER: &str = "Test Driver Publisher";

/// The hardware id of the one device.
pub const HARDWARE_ID: &str = r"PCI\VEN_1AF4&DEV_1048&SUBSYS_11001AF4&REV_01";

/// The same of a network adapter.
pub const NETWORK_ID: &str = r"PCI\VEN_1AF4&DEV_1000&SUBSYS_00011AF4&REV_00";

/// Writes `NAME.inf`, `NAME.sys` and `NAME.cat` of a storage controller for amd64 and Windows 10 from
/// build 17763 on.
pub fn write_package(folder: &Path, name: &str) -> Result<()> {
    write(folder, name, inf(name))
}

/// The same of a network adapter, which Windows does not boot from.
pub fn write_network_package(folder: &Path, name: &str) -> Result<()> {
    let inf = inf(name)
        .replace("SCSIAdapter", "Net")
        .replace("4d36e97b-e325", "4d36e972-e325")
        .replace(HARDWARE_ID, NETWORK_ID)
        .replace(r"PCI\VEN_1AF4&DEV_1048", r"PCI\VEN_1AF4&DEV_1000")
        .replace("StartType = 0", "StartType = 3");
    write(folder, name, inf)
}

fn write(folder: &Path, name: &str, inf: String) -> Result<()> {
    fs::create_dir_all(folder)?;
    let inf = inf.into_bytes();
    let sys = driver(0x8664);
    let cat = catalog(&[
        (&format!("{name}.inf"), Sha256::digest(&inf).into()),
        (&format!("{name}.sys"), authenticode(&sys)),
    ])?;
    fs::write(folder.join(format!("{name}.inf")), inf)?;
    fs::write(folder.join(format!("{name}.sys")), sys)?;
    fs::write(folder.join(format!("{name}.cat")), cat)?;
    Ok(())
}

fn inf(name: &str) -> String {
    format!(
        "[Version]\r\nSignature = \"$Windows NT$\"\r\nClass = SCSIAdapter\r\n\
         ClassGuid = {{4d36e97b-e325-11ce-bfc1-08002be10318}}\r\nProvider = %Vendor%\r\n\
         DriverVer = 05/06/2024,100.95.104.26100\r\nCatalogFile = {name}.cat\r\n\
         [SourceDisksNames]\r\n1 = Disk\r\n[SourceDisksFiles]\r\n{name}.sys = 1\r\n\
         [DestinationDirs]\r\nDefaultDestDir = 12\r\n\
         [Manufacturer]\r\n%Vendor% = M,NTamd64.10.0...17763\r\n\
         [M.NTamd64.10.0...17763]\r\n%Device% = I, {HARDWARE_ID}, PCI\\VEN_1AF4&DEV_1048\r\n\
         [I.NT]\r\nCopyFiles = @{name}.sys\r\n[I.NT.Services]\r\nAddService = {name},2,S\r\n\
         [S]\r\nServiceType = 1\r\nStartType = 0\r\nErrorControl = 1\r\n\
         ServiceBinary = %12%\\{name}.sys\r\n\
         [Strings]\r\nVendor = \"Vendor, Inc.\"\r\nDevice = \"Storage controller\"\r\n"
    )
}

/// A PE32+ file without sections or certificates, for this machine.
pub fn driver(machine: u16) -> Vec<u8> {
    let mut bytes = vec![0; 1024];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3C] = 0x80;
    bytes[0x80..0x84].copy_from_slice(b"PE\0\0");
    bytes[0x84..0x86].copy_from_slice(&machine.to_le_bytes());
    bytes[OPTIONAL..OPTIONAL + 2].copy_from_slice(&0x20B_u16.to_le_bytes());
    bytes[OPTIONAL + 108] = 16;
    bytes
}

/// The hash of such a file: all of it but the checksum and the entry of the certificates.
fn authenticode(bytes: &[u8]) -> [u8; 32] {
    let (checksum, entry) = (OPTIONAL + 64, OPTIONAL + 112 + 4 * 8);
    let mut hash = Sha256::new();
    hash.update(&bytes[..checksum]);
    hash.update(&bytes[checksum + 4..entry]);
    hash.update(&bytes[entry + 8..]);
    hash.finalize().into()
}

/// A catalogue that lists files by SHA-256, signed with a new key.
fn catalog(files: &[(&str, [u8; 32])]) -> Result<Vec<u8>> {
    let members: Vec<u8> = files
        .iter()
        .flat_map(|(name, hash)| {
            let file = name_value("File", name);
            let attribute = tlv(SEQUENCE, &[NAME_VALUE, &tlv(SET, &[&file])]);
            tlv(SEQUENCE, &[&tlv(OCTETS, &[hash]), &tlv(SET, &[&attribute])])
        })
        .collect();
    let system = name_value("OS", "_v100_X64_22H2,Server_v100_X64_FE");
    let system = tlv(SEQUENCE, &[NAME_VALUE, &tlv(OCTETS, &[&system])]);
    let list = [
        tlv(SEQUENCE, &[LIST_USAGE]),
        tlv(OCTETS, &[&[7; 16]]),
        tlv(UTC_TIME, &[b"240506070809Z"]),
        tlv(SEQUENCE, &[LIST_MEMBER, NULL]),
        tlv(SEQUENCE, &[&members]),
        tlv(0xA0, &[&tlv(SEQUENCE, &[&system])]),
    ]
    .concat();

    let random = SystemRandom::new();
    let failed = |_| anyhow!("ring makes no key");
    let key =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).map_err(failed)?;
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.as_ref(), &random)
        .map_err(|error| anyhow!("ring refuses its key: {error}"))?;
    let sign = |message: &[u8]| {
        key.sign(&random, message)
            .map_err(|_| anyhow!("ring does not sign"))
    };

    let name = tlv(SEQUENCE, &[COMMON_NAME, &tlv(UTF8, &[SIGNER.as_bytes()])]);
    let name = tlv(SEQUENCE, &[&tlv(SET, &[&name])]);
    let serial = tlv(INTEGER, &[&[1]]);
    let public = [&[0], key.public_key().as_ref()].concat();
    let years = [
        tlv(UTC_TIME, &[b"240101000000Z"]),
        tlv(UTC_TIME, &[b"440101000000Z"]),
    ]
    .concat();
    let signing = tlv(SEQUENCE, &[ECDSA_SHA256]);
    let to_be_signed = tlv(
        SEQUENCE,
        &[
            &tlv(0xA0, &[&tlv(INTEGER, &[&[2]])]),
            &serial,
            &signing,
            &name,
            &tlv(SEQUENCE, &[&years]),
            &name,
            &tlv(
                SEQUENCE,
                &[&tlv(SEQUENCE, &[EC_KEY, P256]), &tlv(BITS, &[&public])],
            ),
        ],
    );
    let signature = [&[0], sign(&to_be_signed)?.as_ref()].concat();
    let certificate = tlv(
        SEQUENCE,
        &[&to_be_signed, &signing, &tlv(BITS, &[&signature])],
    );

    let digest = tlv(OCTETS, &[&Sha256::digest(&list)]);
    let attributes = [
        tlv(SEQUENCE, &[CONTENT_TYPE, &tlv(SET, &[TRUST_LIST])]),
        tlv(SEQUENCE, &[MESSAGE_DIGEST, &tlv(SET, &[&digest])]),
    ]
    .concat();
    let signature = sign(&tlv(SET, &[&attributes]))?;
    let hash = tlv(SEQUENCE, &[SHA256, NULL]);
    let version = tlv(INTEGER, &[&[1]]);
    let signer = tlv(
        SEQUENCE,
        &[
            &version,
            &tlv(SEQUENCE, &[&name, &serial]),
            &hash,
            &tlv(0xA0, &[&attributes]),
            &signing,
            &tlv(OCTETS, &[signature.as_ref()]),
        ],
    );
    let content = tlv(
        SEQUENCE,
        &[TRUST_LIST, &tlv(0xA0, &[&tlv(SEQUENCE, &[&list])])],
    );
    let signed = tlv(
        SEQUENCE,
        &[
            &version,
            &tlv(SET, &[&hash]),
            &content,
            &tlv(0xA0, &[&certificate]),
            &tlv(SET, &[&signer]),
        ],
    );
    Ok(tlv(SEQUENCE, &[SIGNED_DATA, &tlv(0xA0, &[&signed])]))
}

fn name_value(name: &str, value: &str) -> Vec<u8> {
    let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let value = value.encode_utf16().chain([0]);
    let value: Vec<u8> = value.flat_map(u16::to_le_bytes).collect();
    let flags = tlv(INTEGER, &[&[0x10, 1, 0, 1]]);
    tlv(
        SEQUENCE,
        &[&tlv(BMP, &[&name]), &flags, &tlv(OCTETS, &[&value])],
    )
}

/// Tag, length, content.
fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = vec![tag];
    match length {
        0..0x80 => bytes.push(length as u8),
        0x80..0x100 => bytes.extend([0x81, length as u8]),
        _ => {
            bytes.push(0x82);
            bytes.extend((length as u16).to_be_bytes());
        }
    }
    parts.iter().for_each(|part| bytes.extend(*part));
    bytes
}

/// Where the optional header begins.
const OPTIONAL: usize = 0x80 + 24;

const INTEGER: u8 = 0x02;
const BITS: u8 = 0x03;
const OCTETS: u8 = 0x04;
const UTF8: u8 = 0x0C;
const UTC_TIME: u8 = 0x17;
const BMP: u8 = 0x1E;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

// Whole, with tag and length.
const NULL: &[u8] = &[5, 0];
const SIGNED_DATA: &[u8] = b"\x06\x09\x2A\x86\x48\x86\xF7\x0D\x01\x07\x02";
const CONTENT_TYPE: &[u8] = b"\x06\x09\x2A\x86\x48\x86\xF7\x0D\x01\x09\x03";
const MESSAGE_DIGEST: &[u8] = b"\x06\x09\x2A\x86\x48\x86\xF7\x0D\x01\x09\x04";
const SHA256: &[u8] = b"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01";
const COMMON_NAME: &[u8] = b"\x06\x03\x55\x04\x03";
const EC_KEY: &[u8] = b"\x06\x07\x2A\x86\x48\xCE\x3D\x02\x01";
const P256: &[u8] = b"\x06\x08\x2A\x86\x48\xCE\x3D\x03\x01\x07";
const ECDSA_SHA256: &[u8] = b"\x06\x08\x2A\x86\x48\xCE\x3D\x04\x03\x02";
const TRUST_LIST: &[u8] = b"\x06\x09\x2B\x06\x01\x04\x01\x82\x37\x0A\x01";
const LIST_USAGE: &[u8] = b"\x06\x0A\x2B\x06\x01\x04\x01\x82\x37\x0C\x01\x01";
const LIST_MEMBER: &[u8] = b"\x06\x0A\x2B\x06\x01\x04\x01\x82\x37\x0C\x01\x03";
const NAME_VALUE: &[u8] = b"\x06\x0A\x2B\x06\x01\x04\x01\x82\x37\x0C\x02\x01";
