//! What a partition is for, as the table says it.

use std::fmt;

use uuid::{Uuid, uuid};

/// The type of a partition.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum PartitionType {
    /// The type GUID of a GPT entry.
    Gpt(Uuid),
    /// The type byte of an MBR entry.
    Mbr(u8),
}

impl PartitionType {
    /// The EFI system partition of a GPT.
    pub const EFI_SYSTEM: Self = Self::Gpt(uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"));
    /// The reserved partition that Windows puts on every GPT disk.
    pub const MICROSOFT_RESERVED: Self = Self::Gpt(uuid!("e3c9e316-0b5c-4db8-817d-f92df00215ae"));
    /// A volume of Windows on a GPT disk.
    pub const MICROSOFT_BASIC_DATA: Self = Self::Gpt(uuid!("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"));
    /// The Windows recovery environment.
    pub const WINDOWS_RECOVERY: Self = Self::Gpt(uuid!("de94bba4-06d1-4d40-a16a-bfd50179d6ac"));
    /// The database of a dynamic disk on a GPT disk.
    pub const LDM_METADATA: Self = Self::Gpt(uuid!("5808c8aa-7e8f-42e0-85d2-e1e90434cfb3"));
    /// The volumes of a dynamic disk on a GPT disk.
    pub const LDM_DATA: Self = Self::Gpt(uuid!("af9b60a0-1431-4f62-bc68-3311714a69ad"));
    /// A member of a Windows storage pool.
    pub const STORAGE_SPACES: Self = Self::Gpt(uuid!("e75caf8f-f680-4cee-afa3-b001e56efc2d"));
    /// A dynamic disk on an MBR disk.
    pub const MBR_DYNAMIC: Self = Self::Mbr(0x42);

    /// What the type is called, if it is in this small table.
    pub fn name(self) -> Option<&'static str> {
        NAMES
            .iter()
            .find(|(kind, _)| *kind == self)
            .map(|(_, name)| *name)
    }

    /// Whether the partition belongs to the Logical Disk Manager.
    pub fn is_dynamic(self) -> bool {
        [Self::LDM_DATA, Self::LDM_METADATA, Self::MBR_DYNAMIC].contains(&self)
    }

    /// Whether the partition is the container of logical partitions of an MBR.
    pub fn is_extended(self) -> bool {
        matches!(self, Self::Mbr(0x05 | 0x0F | 0x85))
    }
}

/// The name if there is one, else the GUID or the byte in hexadecimal.
impl fmt::Display for PartitionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name(), self) {
            (Some(name), _) => f.write_str(name),
            (None, Self::Gpt(guid)) => guid.fmt(f),
            (None, Self::Mbr(byte)) => write!(f, "{byte:#04x}"),
        }
    }
}

/// What Windows disks, and those that share a machine with them, are seen to carry.
const NAMES: &[(PartitionType, &str)] = &[
    (PartitionType::EFI_SYSTEM, "EFI system"),
    (PartitionType::MICROSOFT_RESERVED, "Microsoft reserved"),
    (PartitionType::MICROSOFT_BASIC_DATA, "Microsoft basic data"),
    (PartitionType::WINDOWS_RECOVERY, "Windows recovery"),
    (PartitionType::LDM_METADATA, "LDM metadata"),
    (PartitionType::LDM_DATA, "LDM data"),
    (PartitionType::STORAGE_SPACES, "Storage Spaces"),
    (
        gpt(uuid!("558d43c5-a1ac-43c0-aac8-d1472b2923d1")),
        "Storage replica",
    ),
    (
        gpt(uuid!("21686148-6449-6e6f-744e-656564454649")),
        "BIOS boot",
    ),
    (
        gpt(uuid!("0fc63daf-8483-4772-8e79-3d69d8477de4")),
        "Linux file system",
    ),
    (
        gpt(uuid!("4f68bce3-e8cd-4db1-96e7-fbcaf984b709")),
        "Linux root (x86-64)",
    ),
    (
        gpt(uuid!("bc13c2ff-59e6-4262-a352-b275fd6f7172")),
        "Linux extended boot",
    ),
    (
        gpt(uuid!("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f")),
        "Linux swap",
    ),
    (
        gpt(uuid!("e6d6d379-f507-44c2-a23c-238f2a3df928")),
        "Linux LVM",
    ),
    (
        gpt(uuid!("a19d880f-05fc-4d3b-a006-743f0f84911e")),
        "Linux RAID",
    ),
    (
        gpt(uuid!("ca7d7ccb-63ed-4c53-861c-1742536059cc")),
        "Linux LUKS",
    ),
    (PartitionType::Mbr(0x01), "FAT12"),
    (PartitionType::Mbr(0x04), "FAT16 up to 32 MiB"),
    (PartitionType::Mbr(0x05), "Extended"),
    (PartitionType::Mbr(0x06), "FAT16"),
    (PartitionType::Mbr(0x07), "NTFS or exFAT"),
    (PartitionType::Mbr(0x0B), "FAT32"),
    (PartitionType::Mbr(0x0C), "FAT32 (LBA)"),
    (PartitionType::Mbr(0x0E), "FAT16 (LBA)"),
    (PartitionType::Mbr(0x0F), "Extended (LBA)"),
    (PartitionType::Mbr(0x17), "Hidden NTFS"),
    (PartitionType::Mbr(0x27), "Windows recovery"),
    (PartitionType::MBR_DYNAMIC, "LDM (dynamic disk)"),
    (PartitionType::Mbr(0x82), "Linux swap"),
    (PartitionType::Mbr(0x83), "Linux file system"),
    (PartitionType::Mbr(0x85), "Linux extended"),
    (PartitionType::Mbr(0x8E), "Linux LVM"),
    (PartitionType::Mbr(0xEE), "GPT protective"),
    (PartitionType::Mbr(0xEF), "EFI system"),
    (PartitionType::Mbr(0xFD), "Linux RAID"),
];

const fn gpt(guid: Uuid) -> PartitionType {
    PartitionType::Gpt(guid)
}
