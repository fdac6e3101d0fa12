//! The types of a GPT for those of an MBR, with the names and attributes that Windows gives them.

use uuid::{Uuid, uuid};

use super::super::{Partition, PartitionType};
use super::ConversionRefused;

/// What a partition is said to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Kind {
    pub(super) guid: Uuid,
    pub(super) attributes: u64,
    pub(super) name: &'static str,
}

/// What becomes of the type of a partition of an MBR.
pub(super) fn of_mbr(partition: &Partition) -> Result<Kind, ConversionRefused> {
    let linux = |guid| Kind {
        guid,
        attributes: 0,
        name: "",
    };
    Ok(match partition.kind {
        PartitionType::Mbr(0x01 | 0x04 | 0x06 | 0x07 | 0x0B | 0x0C | 0x0E) => BASIC_DATA,
        PartitionType::Mbr(0x11 | 0x14 | 0x16 | 0x17 | 0x1B | 0x1C | 0x1E) => Kind {
            attributes: HIDDEN | NO_DRIVE_LETTER,
            ..BASIC_DATA
        },
        PartitionType::Mbr(0x27) => RECOVERY,
        PartitionType::Mbr(0xEF) => EFI_SYSTEM,
        PartitionType::Mbr(0x82) => linux(uuid!("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f")),
        PartitionType::Mbr(0x83) => linux(uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4")),
        PartitionType::Mbr(0x8E) => linux(uuid!("e6d6d379-f507-44c2-a23c-238f2a3df928")),
        kind => {
            return Err(ConversionRefused::UnknownType {
                number: partition.number,
                kind,
            });
        }
    })
}

/// Bit 0: the platform needs it to function.
const REQUIRED: u64 = 1;
/// Bit 62: Windows does not mount it.
const HIDDEN: u64 = 1 << 62;
/// Bit 63: Windows gives it no drive letter.
pub(super) const NO_DRIVE_LETTER: u64 = 1 << 63;

const BASIC_DATA: Kind = Kind {
    guid: uuid!("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"),
    attributes: 0,
    name: "Basic data partition",
};

/// The attributes are those that the documentation of Windows asks for.
const RECOVERY: Kind = Kind {
    guid: uuid!("de94bba4-06d1-4d40-a16a-bfd50179d6ac"),
    attributes: REQUIRED | NO_DRIVE_LETTER,
    name: "Basic data partition",
};

pub(super) const EFI_SYSTEM: Kind = Kind {
    guid: uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"),
    attributes: NO_DRIVE_LETTER,
    name: "EFI system partition",
};

pub(super) const RESERVED: Kind = Kind {
    guid: uuid!("e3c9e316-0b5c-4db8-817d-f92df00215ae"),
    attributes: NO_DRIVE_LETTER,
    name: "Microsoft reserved partition",
};
