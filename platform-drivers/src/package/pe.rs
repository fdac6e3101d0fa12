//! PE files: for what machine they are, and the hash by which catalogues know them.
//!
//! "PE Format" and "Windows Authenticode Portable Executable Signature Format": the hash leaves out
//! the header's checksum, the directory entry of the certificates, and the certificates themselves,
//! so that signing a file does not change it.

use digest::Digest;

use crate::inf::Architecture;

/// What of a PE file concerns a driver.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PeFile {
    /// `IMAGE_FILE_MACHINE_*`.
    pub machine: u16,
    /// Where the checksum is.
    checksum: usize,
    /// Where the directory entry of the certificates is; `None` if there are fewer entries.
    certificates_entry: Option<usize>,
    /// Where the certificates begin: the end of what is hashed. `None` in a file without.
    certificates: Option<usize>,
}

impl PeFile {
    /// Reads the headers; `None` of what is no PE file, and of one whose headers lead outside.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let header = coff_header(bytes)?;
        let machine = u16_at(bytes, header)?;
        let optional = header.checked_add(20)?;
        // PE32 and PE32+ differ in what stands before the directories.
        let (count, directories) = match u16_at(bytes, optional)? {
            0x10B => (optional.checked_add(92)?, optional.checked_add(96)?),
            0x20B => (optional.checked_add(108)?, optional.checked_add(112)?),
            _ => return None,
        };
        let checksum = optional.checked_add(64)?;
        let certificates_entry = if u32_at(bytes, count)? > CERTIFICATES {
            Some(directories.checked_add(8 * CERTIFICATES as usize)?)
        } else {
            None
        };
        // This entry alone has a place in the file and no address.
        let certificates = match certificates_entry {
            None => None,
            Some(entry) => {
                let begin = usize::try_from(u32_at(bytes, entry)?).ok()?;
                let length = usize::try_from(u32_at(bytes, entry.checked_add(4)?)?).ok()?;
                let is_inside = begin.checked_add(length)? <= bytes.len();
                match (begin, length) {
                    (0, _) | (_, 0) => None,
                    _ if begin >= entry.checked_add(8)? && is_inside => Some(begin),
                    _ => return None,
                }
            }
        };
        Some(Self {
            machine,
            checksum,
            certificates_entry,
            certificates,
        })
    }

    /// The machine, if drivers are made for it.
    pub fn architecture(&self) -> Option<Architecture> {
        match self.machine {
            MACHINE_X86 => Some(Architecture::X86),
            0x01C4 => Some(Architecture::Arm),
            0x0200 => Some(Architecture::Ia64),
            MACHINE_AMD64 => Some(Architecture::Amd64),
            MACHINE_ARM64 => Some(Architecture::Arm64),
            _ => None,
        }
    }

    /// The Authenticode hash of the file that this was read from.
    pub fn digest<D: Digest>(&self, bytes: &[u8]) -> Vec<u8> {
        let end = self.certificates.unwrap_or(bytes.len());
        let mut hash = D::new();
        let mut update = |from: usize, to: usize| {
            hash.update(bytes.get(from..to).unwrap_or_default());
        };
        update(0, self.checksum);
        let behind_checksum = self.checksum + 4;
        match self.certificates_entry {
            Some(entry) => {
                update(behind_checksum, entry);
                update(entry + 8, end);
            }
            None => update(behind_checksum, end),
        }
        if self.certificates.is_none() {
            // Signing would fill up to a place that eight divides.
            let padding = bytes.len().next_multiple_of(8) - bytes.len();
            hash.update([0; 8].get(..padding).unwrap_or_default());
        }
        hash.finalize().to_vec()
    }
}

/// The machine that a PE file is for (`IMAGE_FILE_MACHINE_*`); `None` of anything else. What stands
/// behind that in the file is not looked at.
pub fn machine_of(bytes: &[u8]) -> Option<u16> {
    u16_at(bytes, coff_header(bytes)?)
}

/// The machine that drivers of a Windows are for whose `PROCESSOR_ARCHITECTURE` was read as this.
pub fn machine_for(architecture: Option<&str>) -> u16 {
    match architecture {
        Some("x86") => MACHINE_X86,
        Some("arm64") => MACHINE_ARM64,
        _ => MACHINE_AMD64,
    }
}

/// Where the COFF header begins, behind the signature.
fn coff_header(bytes: &[u8]) -> Option<usize> {
    if !bytes.starts_with(b"MZ") {
        return None;
    }
    let signature = usize::try_from(u32_at(bytes, 0x3C)?).ok()?;
    if bytes.get(signature..)?.get(..4)? != b"PE\0\0" {
        return None;
    }
    signature.checked_add(4)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(field.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}

/// `IMAGE_FILE_MACHINE_AMD64`
pub const MACHINE_AMD64: u16 = 0x8664;
/// `IMAGE_FILE_MACHINE_ARM64`
pub const MACHINE_ARM64: u16 = 0xAA64;
/// `IMAGE_FILE_MACHINE_I386`
pub const MACHINE_X86: u16 = 0x014C;

/// The directory entry of the certificates.
const CERTIFICATES: u32 = 4;

#[cfg(test)]
mod tests {
    use sha2::Sha256;

    use super::*;

    #[test]
    fn a_pe_file_says_what_machine_it_is_for_and_damaged_ones_say_nothing() {
        let mut file = vec![0; 0x80];
        file[..2].copy_from_slice(b"MZ");
        file[0x3c] = 0x40;
        file[0x40..0x46].copy_from_slice(b"PE\0\0\x64\x86");
        assert_eq!(machine_of(&file), Some(0x8664));
        for cut in 0..0x46 {
            assert_eq!(machine_of(&file[..cut]), None, "{cut}");
        }
        file[0x3c..0x40].fill(0xff);
        assert_eq!(machine_of(&file), None);
    }

    #[test]
    fn the_hash_leaves_out_what_signing_changes() {
        let plain = pe(false);
        let mut signed = pe(true);
        let expected = PeFile::parse(&plain).unwrap().digest::<Sha256>(&plain);
        assert_eq!(
            PeFile::parse(&signed).unwrap().digest::<Sha256>(&signed),
            expected
        );
        // Checksum, certificates.
        signed[0x80 + 24 + 64] ^= 0xFF;
        *signed.last_mut().unwrap() ^= 0xFF;
        assert_eq!(
            PeFile::parse(&signed).unwrap().digest::<Sha256>(&signed),
            expected
        );
        signed[0x1F0] ^= 1;
        assert_ne!(
            PeFile::parse(&signed).unwrap().digest::<Sha256>(&signed),
            expected
        );
    }

    #[test]
    fn the_machine_is_read() {
        let mut bytes = pe(false);
        for (machine, architecture) in [
            (0x8664_u16, Some(Architecture::Amd64)),
            (0xAA64, Some(Architecture::Arm64)),
            (0x014C, Some(Architecture::X86)),
            (0x1234, None),
        ] {
            bytes[0x84..0x86].copy_from_slice(&machine.to_le_bytes());
            let file = PeFile::parse(&bytes).unwrap();
            assert_eq!(file.architecture(), architecture);
        }
    }

    #[test]
    fn what_is_cut_or_leads_outside_is_no_pe_file() {
        let signed = pe(true);
        for length in 0..0x80 + 24 + 112 + 40 {
            assert_eq!(PeFile::parse(&signed[..length]), None, "{length}");
        }
        let entry = 0x80 + 24 + 112 + 32;
        for begin in [1_u32, 0x1FF + 0x40, u32::MAX] {
            let mut bytes = signed.clone();
            bytes[entry..entry + 4].copy_from_slice(&begin.to_le_bytes());
            assert_eq!(PeFile::parse(&bytes), None, "{begin:#x}");
        }
        let mut far = signed;
        far[0x3C..0x40].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(PeFile::parse(&far), None);
    }

    /// A PE32+ file of 512 bytes, with 32 of certificates behind them or none.
    fn pe(signed: bool) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3C] = 0x80;
        bytes[0x80..0x84].copy_from_slice(b"PE\0\0");
        bytes[0x84..0x86].copy_from_slice(&0x8664_u16.to_le_bytes());
        let optional = 0x80 + 24;
        bytes[optional..optional + 2].copy_from_slice(&0x20B_u16.to_le_bytes());
        bytes[optional + 108] = 16;
        if signed {
            let entry = optional + 112 + 32;
            bytes[entry..entry + 4].copy_from_slice(&512_u32.to_le_bytes());
            bytes[entry + 4] = 32;
            bytes.extend([7; 32]);
        }
        bytes
    }
}
