//! Security descriptors, as far as it takes to see whether everyone may write (MS-DTYP 2.4.6).

use super::super::fields::Fields;

/// What of a descriptor is not as MS-DTYP has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the security descriptor is malformed: {0}")]
pub struct DescriptorError(&'static str);

/// Whether `descriptor` (self-relative) lets any user of the machine change what it protects.
///
/// Any user means everyone, anonymous, guests, users, authenticated and interactive users. Entries
/// that are only handed on to what is made in a folder do not count; those that refuse something
/// are not set off against those that allow it, so that the answer errs on the side of yes.
///
/// # Errors
///
/// [`DescriptorError`] when it cannot be told.
pub fn lets_anyone_write(descriptor: &[u8]) -> Result<bool, DescriptorError> {
    let fields = Fields(descriptor);
    let control = fields.u16(2).ok_or(DescriptorError("it is too short"))?;
    let at = fields.u32(16).ok_or(DescriptorError("it is too short"))? as usize;
    if control & DACL_PRESENT == 0 || at == 0 {
        return Ok(true);
    }
    let outside = DescriptorError("its access list leaves it");
    let list = descriptor.get(at..).ok_or(outside)?;
    let size = usize::from(Fields(list).u16(2).ok_or(outside)?);
    let count = Fields(list).u16(4).ok_or(outside)?;
    let mut entries = list.get(8..size).ok_or(outside)?;
    for _ in 0..count {
        let broken = DescriptorError("an entry of its access list leaves the list");
        let length = usize::from(Fields(entries).u16(2).ok_or(broken)?);
        if length < 16 {
            return Err(DescriptorError("an entry of its access list is too short"));
        }
        let (entry, rest) = entries.split_at_checked(length).ok_or(broken)?;
        entries = rest;
        if allows_anyone_to_write(entry) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn allows_anyone_to_write(entry: &[u8]) -> bool {
    let (kind, flags) = (entry[0], entry[1]);
    let mask = Fields(entry).u32(4).unwrap_or_default();
    if flags & INHERIT_ONLY != 0 || mask & CHANGES == 0 {
        return false;
    }
    let sid = match kind {
        ALLOWED | ALLOWED_CALLBACK => &entry[8..],
        ALLOWED_OBJECT | ALLOWED_CALLBACK_OBJECT => {
            let present = Fields(entry).u32(8).unwrap_or_default();
            let guids = 16 * (present & 3).count_ones() as usize;
            entry.get(12 + guids..).unwrap_or_default()
        }
        _ => return false,
    };
    ANYONE.iter().any(|anyone| sid.starts_with(anyone))
}

/// What a new file gets whose source would let everyone write: the system and the administrators,
/// who own it, may do all; users may read and run it. What is made in a folder inherits the same.
///
/// `O:BAG:SYD:(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;0x1200a9;;;BU)`, without inheritance flags
/// for a file.
pub(super) fn standard(is_folder: bool) -> Vec<u8> {
    let inherit = if is_folder {
        OBJECT_INHERIT | CONTAINER_INHERIT
    } else {
        0
    };
    let entries = [
        (ALL_ACCESS, LOCAL_SYSTEM),
        (ALL_ACCESS, ADMINISTRATORS),
        (READ_AND_EXECUTE, USERS),
    ];
    let mut list = vec![2, 0, 0, 0, entries.len() as u8, 0, 0, 0];
    for (mask, sid) in entries {
        // At most 24 bytes each.
        list.extend_from_slice(&[ALLOWED, inherit, 8 + sid.len() as u8, 0]);
        list.extend_from_slice(&u32::to_le_bytes(mask));
        list.extend_from_slice(sid);
    }
    list[2] = list.len() as u8;
    let owner = 20 + list.len();
    let group = owner + ADMINISTRATORS.len();
    let mut descriptor = vec![1, 0];
    descriptor.extend_from_slice(&(SELF_RELATIVE | DACL_PRESENT).to_le_bytes());
    for at in [owner, group, 0, 20] {
        descriptor.extend_from_slice(&(at as u32).to_le_bytes());
    }
    descriptor.extend_from_slice(&list);
    descriptor.extend_from_slice(ADMINISTRATORS);
    descriptor.extend_from_slice(LOCAL_SYSTEM);
    descriptor
}

const SELF_RELATIVE: u16 = 0x8000;
const DACL_PRESENT: u16 = 0x0004;

const OBJECT_INHERIT: u8 = 1;
const CONTAINER_INHERIT: u8 = 2;
const INHERIT_ONLY: u8 = 8;

const ALLOWED: u8 = 0;
const ALLOWED_OBJECT: u8 = 5;
const ALLOWED_CALLBACK: u8 = 9;
const ALLOWED_CALLBACK_OBJECT: u8 = 11;

const ALL_ACCESS: u32 = 0x001F_01FF;
const READ_AND_EXECUTE: u32 = 0x0012_00A9;

/// FILE_WRITE_DATA, FILE_APPEND_DATA, FILE_WRITE_EA, FILE_DELETE_CHILD, FILE_WRITE_ATTRIBUTES,
/// DELETE, WRITE_DAC, WRITE_OWNER, GENERIC_WRITE, GENERIC_ALL.
const CHANGES: u32 = 0x0156 | 0x000D_0000 | 0x5000_0000;

const LOCAL_SYSTEM: &[u8] = &[1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0];
const ADMINISTRATORS: &[u8] = &[1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20, 2, 0, 0];
const USERS: &[u8] = &[1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x21, 2, 0, 0];

/// Everyone (S-1-1-0), anonymous (S-1-5-7), authenticated users (S-1-5-11), interactive (S-1-5-4),
/// users (S-1-5-32-545), guests (S-1-5-32-546).
const ANYONE: &[&[u8]] = &[
    &[1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0],
    &[1, 1, 0, 0, 0, 0, 0, 5, 7, 0, 0, 0],
    &[1, 1, 0, 0, 0, 0, 0, 5, 11, 0, 0, 0],
    &[1, 1, 0, 0, 0, 0, 0, 5, 4, 0, 0, 0],
    USERS,
    &[1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x22, 2, 0, 0],
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A descriptor with one entry.
    fn with_entry(kind: u8, flags: u8, mask: u32, sid: &[u8]) -> Vec<u8> {
        let length = 8 + sid.len() as u8;
        let mut descriptor = vec![1, 0, 4, 0x80];
        descriptor.extend_from_slice(&[0; 12]);
        descriptor.extend_from_slice(&20u32.to_le_bytes());
        descriptor.extend_from_slice(&[2, 0, 8 + length, 0, 1, 0, 0, 0]);
        descriptor.extend_from_slice(&[kind, flags, length, 0]);
        descriptor.extend_from_slice(&mask.to_le_bytes());
        descriptor.extend_from_slice(sid);
        descriptor
    }

    #[test]
    fn the_standard_descriptor_lets_nobody_but_the_system_write() {
        for is_folder in [true, false] {
            let descriptor = standard(is_folder);
            assert_eq!(lets_anyone_write(&descriptor), Ok(false));
            assert_eq!(descriptor.len(), 20 + 8 + 20 + 24 + 24 + 16 + 12);
        }
    }

    #[test]
    fn whoever_everyone_is_is_seen() {
        for sid in ANYONE {
            for mask in [2, 4, 0x10, 0x100, 0x10000, 0x40000, 0x4000_0000, ALL_ACCESS] {
                let descriptor = with_entry(ALLOWED, 0, mask, sid);
                assert_eq!(
                    lets_anyone_write(&descriptor),
                    Ok(true),
                    "{sid:?} {mask:#x}"
                );
            }
            let reads = with_entry(ALLOWED, 0, READ_AND_EXECUTE, sid);
            assert_eq!(lets_anyone_write(&reads), Ok(false));
            let handed_on = with_entry(ALLOWED, INHERIT_ONLY, ALL_ACCESS, sid);
            assert_eq!(lets_anyone_write(&handed_on), Ok(false));
            let denied = with_entry(1, 0, ALL_ACCESS, sid);
            assert_eq!(lets_anyone_write(&denied), Ok(false));
        }
        let system = with_entry(ALLOWED, 0, ALL_ACCESS, LOCAL_SYSTEM);
        assert_eq!(lets_anyone_write(&system), Ok(false));
    }

    #[test]
    fn without_an_access_list_everyone_may_do_all() {
        let mut descriptor = standard(false);
        descriptor[2] = 0;
        assert_eq!(lets_anyone_write(&descriptor), Ok(true));
        let mut descriptor = standard(false);
        descriptor[16] = 0;
        assert_eq!(lets_anyone_write(&descriptor), Ok(true));
    }

    proptest! {
        #[test]
        fn a_malformed_descriptor_is_an_error_and_never_a_panic(
            changes in proptest::collection::vec((0usize..120, any::<u8>()), 1..5),
            cut in 0usize..121,
        ) {
            let mut descriptor = standard(true);
            for (at, byte) in changes {
                descriptor[at] = byte;
            }
            descriptor.truncate(cut);
            let _ = lets_anyone_write(&descriptor);
        }
    }
}
