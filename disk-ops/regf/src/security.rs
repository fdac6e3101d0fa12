//! Security descriptors and the records that keep them ("Key security").
//!
//! Keys with equal rights share a record, which counts them; all records of a hive form a ring.

use crate::error::{Defect, DefectKind, HiveError};
use crate::format::{KeySecurity, SECURITY_SIGNATURE};
use crate::hive::Hive;
use crate::units::{CellOffset, index};

/// A security descriptor in self-relative form (MS-DTYP 2.4.6).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct SecurityDescriptor {
    bytes: Vec<u8>,
}

/// Why bytes are no security descriptor.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{part} at byte {at}: expected {expected}")]
pub struct InvalidDescriptor {
    /// The part of the descriptor that is wrong.
    pub part: &'static str,
    /// Where it is, from the descriptor's start.
    pub at: usize,
    /// What should be there.
    pub expected: &'static str,
}

impl SecurityDescriptor {
    /// Takes a descriptor as it stands in a hive.
    ///
    /// # Errors
    ///
    /// It is not self-relative, or an owner, group or list in it does not fit.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Result<Self, InvalidDescriptor> {
        let bytes = bytes.into();
        validate(&bytes)?;
        Ok(Self { bytes })
    }

    /// Owner Administrators, full access for Administrators and SYSTEM and nobody else, inherited
    /// by subkeys: in SDDL, `O:BAG:SYD:P(A;CI;KA;;;BA)(A;CI;KA;;;SY)`.
    pub fn for_administrators() -> Self {
        const ACL_LEN: u16 = 8 + 24 + 20;
        let mut bytes = vec![1, 0];
        bytes.extend(CONTROL_OWN_DACL.to_le_bytes());
        let owner = HEADER_LEN + u32::from(ACL_LEN);
        let group = owner + 16;
        for offset in [owner, group, 0, HEADER_LEN] {
            bytes.extend(offset.to_le_bytes());
        }
        bytes.extend([2, 0]);
        bytes.extend(ACL_LEN.to_le_bytes());
        bytes.extend([2, 0, 0, 0]);
        for (sid, len) in [(&SID_ADMINISTRATORS[..], 24_u16), (&SID_SYSTEM[..], 20)] {
            bytes.extend([ACE_ALLOW, ACE_CONTAINER_INHERIT]);
            bytes.extend(len.to_le_bytes());
            bytes.extend(KEY_ALL_ACCESS.to_le_bytes());
            bytes.extend(sid);
        }
        bytes.extend(SID_ADMINISTRATORS);
        bytes.extend(SID_SYSTEM);
        Self { bytes }
    }

    /// The descriptor's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The security record at `at` and the descriptor in it, unchecked.
pub(crate) fn record(hive: &Hive, at: CellOffset) -> Result<(&KeySecurity, &[u8]), HiveError> {
    let (record, behind) = hive.record::<KeySecurity>(at, DefectKind::Security)?;
    let wrong = |expected: String, found: String| {
        HiveError::from(Defect::new(
            at.in_file(),
            DefectKind::Security,
            expected,
            found,
        ))
    };
    if record.signature != SECURITY_SIGNATURE {
        return Err(wrong(
            "signature \"sk\"".into(),
            format!("{:02x?}", record.signature),
        ));
    }
    let len = record.descriptor_len.get();
    match behind.get(..index(len)) {
        Some(descriptor) => Ok((record, descriptor)),
        None => Err(wrong(
            format!("a descriptor of at most {} bytes", behind.len()),
            format!("{len}"),
        )),
    }
}

fn validate(bytes: &[u8]) -> Result<(), InvalidDescriptor> {
    let invalid = |part, at, expected| Err(InvalidDescriptor { part, at, expected });
    let Some((&[revision, _, control_0, control_1], _)) = bytes.split_first_chunk::<4>() else {
        return invalid("header", 0, "20 bytes");
    };
    if revision != 1 {
        return invalid("revision", 0, "1");
    }
    let control = u16::from_le_bytes([control_0, control_1]);
    if control & CONTROL_SELF_RELATIVE == 0 {
        return invalid("control flags", 2, "the flag for the self-relative form");
    }
    for (part, field) in [("owner", 4), ("group", 8)] {
        if let Some(at) = offset_at(bytes, field)? {
            sid_len(bytes, at, part)?;
        }
    }
    for (part, field, present) in [
        ("SACL", 12, CONTROL_SACL_PRESENT),
        ("DACL", 16, CONTROL_DACL_PRESENT),
    ] {
        if let Some(at) = offset_at(bytes, field)?.filter(|_| control & present != 0) {
            validate_acl(bytes, at, part)?;
        }
    }
    Ok(())
}

fn offset_at(bytes: &[u8], field: usize) -> Result<Option<usize>, InvalidDescriptor> {
    match bytes.get(field..).and_then(|rest| rest.first_chunk::<4>()) {
        Some(raw) => Ok(Some(index(u32::from_le_bytes(*raw))).filter(|&at| at != 0)),
        None => Err(InvalidDescriptor {
            part: "header",
            at: field,
            expected: "20 bytes",
        }),
    }
}

fn sid_len(bytes: &[u8], at: usize, part: &'static str) -> Result<usize, InvalidDescriptor> {
    let invalid = |expected| Err(InvalidDescriptor { part, at, expected });
    let Some(&[revision, authorities]) = bytes.get(at..).and_then(|rest| rest.first_chunk::<2>())
    else {
        return invalid("a SID inside the descriptor");
    };
    if revision != 1 || authorities > MAX_SUB_AUTHORITIES {
        return invalid("a SID of revision 1 with at most 15 subauthorities");
    }
    let len = 8 + 4 * usize::from(authorities);
    match at.checked_add(len).filter(|&end| end <= bytes.len()) {
        Some(_) => Ok(len),
        None => invalid("a SID inside the descriptor"),
    }
}

fn validate_acl(bytes: &[u8], at: usize, part: &'static str) -> Result<(), InvalidDescriptor> {
    let invalid = |at, expected| Err(InvalidDescriptor { part, at, expected });
    let Some(&[_, _, len_0, len_1, count_0, count_1, _, _]) =
        bytes.get(at..).and_then(|rest| rest.first_chunk::<8>())
    else {
        return invalid(at, "an access list inside the descriptor");
    };
    let len = usize::from(u16::from_le_bytes([len_0, len_1]));
    let Some(acl) = bytes
        .get(at..)
        .and_then(|rest| rest.get(..len))
        .filter(|_| len >= 8)
    else {
        return invalid(at, "an access list inside the descriptor");
    };
    let mut ace = 8;
    for _ in 0..u16::from_le_bytes([count_0, count_1]) {
        let Some(&[_, _, ace_0, ace_1]) = acl.get(ace..).and_then(|rest| rest.first_chunk::<4>())
        else {
            return invalid(at + ace, "as many entries as the list says");
        };
        let ace_len = usize::from(u16::from_le_bytes([ace_0, ace_1]));
        if ace_len < 4 || ace_len > acl.len() - ace {
            return invalid(at + ace, "an entry inside its list");
        }
        ace += ace_len;
    }
    Ok(())
}

const HEADER_LEN: u32 = 20;
const CONTROL_SELF_RELATIVE: u16 = 0x8000;
const CONTROL_DACL_PRESENT: u16 = 0x0004;
const CONTROL_SACL_PRESENT: u16 = 0x0010;
const CONTROL_DACL_PROTECTED: u16 = 0x1000;
const CONTROL_OWN_DACL: u16 = CONTROL_SELF_RELATIVE | CONTROL_DACL_PRESENT | CONTROL_DACL_PROTECTED;
const ACE_ALLOW: u8 = 0;
const ACE_CONTAINER_INHERIT: u8 = 2;
const KEY_ALL_ACCESS: u32 = 0x000F_003F;
const MAX_SUB_AUTHORITIES: u8 = 15;
/// S-1-5-32-544.
const SID_ADMINISTRATORS: [u8; 16] = [1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20, 2, 0, 0];
/// S-1-5-18.
const SID_SYSTEM: [u8; 12] = [1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_descriptor_is_valid() {
        let descriptor = SecurityDescriptor::for_administrators();
        assert_eq!(
            SecurityDescriptor::from_bytes(descriptor.as_bytes()),
            Ok(descriptor.clone())
        );
    }

    #[test]
    fn a_descriptor_cut_anywhere_is_refused() {
        let whole = SecurityDescriptor::for_administrators();
        for len in 0..whole.as_bytes().len() {
            assert!(
                SecurityDescriptor::from_bytes(&whole.as_bytes()[..len]).is_err(),
                "{len}"
            );
        }
    }
}
