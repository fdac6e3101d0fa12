//! What a partition holds, by the marks in its first sectors.
//!
//! A mark is believed together with the fields around it, not alone: sectors of old file systems
//! survive repartitioning. Nothing beyond the first 8 KiB and the last sector is looked at.

use std::fmt;

use uuid::{Uuid, uuid};

use super::{Finding, PartitionTable, read_prefix};
use crate::block::{BlockError, BlockRead};
use crate::units::{ByteCount, ByteOffset};

/// A kind of content that is recognised.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ContentKind {
    /// A volume encrypted by BitLocker.
    BitLocker,
    /// exFAT.
    ExFat {
        /// The length of the volume.
        volume_size: ByteCount,
    },
    /// ext2, ext3 or ext4.
    Ext {
        /// Which of them, by the features in use.
        version: ExtVersion,
        /// The label, if there is one.
        label: Option<String>,
    },
    /// FAT.
    Fat {
        /// Which of the three, by the number of clusters.
        kind: FatKind,
        /// The label in the boot sector, if there is one.
        label: Option<String>,
    },
    /// The database of the Logical Disk Manager.
    Ldm,
    /// A LUKS container.
    Luks,
    /// A physical volume of LVM2.
    Lvm2,
    /// NTFS.
    Ntfs {
        /// The size of a cluster.
        cluster_size: ByteCount,
        /// The serial number, as in the boot sector.
        serial: u64,
        /// The length of the volume, without the spare boot sector behind it.
        volume_size: ByteCount,
    },
    /// ReFS.
    ReFs,
    /// Linux swap space.
    Swap,
    /// XFS.
    Xfs,
}

/// A generation of the ext family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ExtVersion {
    /// Without a journal.
    Ext2,
    /// With a journal.
    Ext3,
    /// With extents or another feature that ext3 has not.
    Ext4,
}

/// The width of a FAT entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FatKind {
    /// 12 bits.
    Fat12,
    /// 16 bits.
    Fat16,
    /// 28 bits, stored in 32.
    Fat32,
}

impl fmt::Display for ContentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BitLocker => "BitLocker",
            Self::ExFat { .. } => "exFAT",
            Self::Ext { version, .. } => match version {
                ExtVersion::Ext2 => "ext2",
                ExtVersion::Ext3 => "ext3",
                ExtVersion::Ext4 => "ext4",
            },
            Self::Fat { kind, .. } => match kind {
                FatKind::Fat12 => "FAT12",
                FatKind::Fat16 => "FAT16",
                FatKind::Fat32 => "FAT32",
            },
            Self::Ldm => "LDM database",
            Self::Luks => "LUKS",
            Self::Lvm2 => "LVM2 physical volume",
            Self::Ntfs { .. } => "NTFS",
            Self::ReFs => "ReFS",
            Self::Swap => "swap",
            Self::Xfs => "XFS",
        })
    }
}

/// Looks at the `length` bytes of `disk` from `start` on, which lie on the disk.
pub(super) fn probe<D: BlockRead + ?Sized>(
    disk: &D,
    start: ByteOffset,
    length: ByteCount,
) -> Result<Option<ContentKind>, BlockError> {
    let bytes = read_prefix(disk, start, length, PROBED_LENGTH)?;
    if let Some(content) = recognise(&Head(&bytes)) {
        return Ok(Some(content));
    }
    // On a GPT disk the LDM database begins in the last sector of its own partition.
    let sector = disk.sectors().logical.bytes();
    let Some(back) = length.0.checked_sub(sector) else {
        return Ok(None);
    };
    let last = read_prefix(disk, ByteOffset(start.0 + back), ByteCount(sector), 8)?;
    Ok((last == b"PRIVHEAD").then_some(ContentKind::Ldm))
}

/// Adds findings about file systems that do not fit in their partitions.
pub(super) fn check(table: &mut PartitionTable) {
    let too_large = table.partitions.iter().filter_map(|partition| {
        let volume = match &partition.content {
            Some(ContentKind::Ntfs { volume_size, .. } | ContentKind::ExFat { volume_size }) => {
                *volume_size
            }
            _ => return None,
        };
        (volume > partition.length).then_some(Finding::VolumeTooLarge {
            number: partition.number,
            volume,
            partition: partition.length,
        })
    });
    table.findings.extend(too_large.collect::<Vec<_>>());
}

/// The start of a volume, read by position. What is behind its end reads as nothing.
struct Head<'a>(&'a [u8]);

impl Head<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    fn holds(&self, at: usize, mark: &[u8]) -> bool {
        self.0.get(at..).is_some_and(|tail| tail.starts_with(mark))
    }

    fn u8(&self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    fn u16(&self, at: usize) -> Option<u16> {
        self.bytes(at).map(u16::from_le_bytes)
    }

    fn u32(&self, at: usize) -> Option<u32> {
        self.bytes(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: usize) -> Option<u64> {
        self.bytes(at).map(u64::from_le_bytes)
    }

    /// A text of up to `N` bytes that ends at a NUL or in spaces; `None` if it is empty.
    fn label<const N: usize>(&self, at: usize) -> Option<String> {
        let bytes: [u8; N] = self.bytes(at)?;
        let text = bytes.split(|byte| *byte == 0).next()?;
        let text = String::from_utf8_lossy(text);
        let text = text.trim_end();
        (!text.is_empty()).then(|| text.to_owned())
    }
}

fn recognise(head: &Head<'_>) -> Option<ContentKind> {
    let ends_as_boot_sector = head.holds(510, &[0x55, 0xAA]);
    if head.holds(3, b"-FVE-FS-") || is_bitlocker_to_go(head) {
        Some(ContentKind::BitLocker)
    } else if head.holds(3, b"NTFS    ") {
        ntfs(head)
    } else if head.holds(3, b"EXFAT   ") {
        exfat(head)
    } else if head.holds(3, b"ReFS\0\0\0\0") {
        Some(ContentKind::ReFs)
    } else if head.holds(0, b"LUKS\xBA\xBE") {
        Some(ContentKind::Luks)
    } else if head.holds(0, b"XFSB") {
        Some(ContentKind::Xfs)
    } else if is_lvm2(head) {
        Some(ContentKind::Lvm2)
    } else if head.holds(4086, b"SWAPSPACE2") || head.holds(4086, b"SWAP-SPACE") {
        Some(ContentKind::Swap)
    } else if let Some(ext) = ext(head) {
        Some(ext)
    } else if ends_as_boot_sector {
        fat(head)
    } else {
        None
    }
}

/// BitLocker To Go keeps a FAT boot sector, and tells itself by a GUID in it.
fn is_bitlocker_to_go(head: &Head<'_>) -> bool {
    const TO_GO: Uuid = uuid!("4967d63b-2e29-4ad8-8399-f6a339e3d001");
    head.holds(3, b"MSWIN4.1")
        && head
            .bytes(424)
            .is_some_and(|guid| Uuid::from_bytes_le(guid) == TO_GO)
}

fn ntfs(head: &Head<'_>) -> Option<ContentKind> {
    let sector = sector_length(head.u16(11)?)?;
    let cluster_sectors = match head.u8(13)? {
        // Above 64 KiB clusters, the byte holds the negative binary logarithm.
        small @ 1..=0x80 if small.is_power_of_two() => u64::from(small),
        large @ 0xF4..=0xFF => 1 << (256 - u32::from(large)),
        _ => return None,
    };
    Some(ContentKind::Ntfs {
        cluster_size: ByteCount(sector * cluster_sectors),
        serial: head.u64(72)?,
        volume_size: ByteCount(head.u64(40)?.checked_mul(sector)?),
    })
}

fn exfat(head: &Head<'_>) -> Option<ContentKind> {
    let shift = head.u8(108).filter(|shift| (9..=12).contains(shift))?;
    let volume_size = ByteCount(head.u64(72)?.checked_mul(1 << shift)?);
    Some(ContentKind::ExFat { volume_size })
}

/// The label of a physical volume stands in one of the first four sectors.
fn is_lvm2(head: &Head<'_>) -> bool {
    (0..4).any(|sector| {
        let at = sector * 512;
        head.holds(at, b"LABELONE") && head.holds(at + 24, b"LVM2 001")
    })
}

fn ext(head: &Head<'_>) -> Option<ContentKind> {
    const SUPERBLOCK: usize = 1024;
    const HAS_JOURNAL: u32 = 0x4;
    // Extents, 64 bit, flexible block groups; the others are features that ext4 came with as well.
    const EXT4_INCOMPATIBLE: u32 = 0x40 | 0x80 | 0x200;
    // Huge files, group checksums, many subdirectories, large inodes, metadata checksums.
    const EXT4_READ_ONLY: u32 = 0x8 | 0x10 | 0x20 | 0x40 | 0x400;
    let is_superblock = head.u16(SUPERBLOCK + 56)? == 0xEF53
        && head.u32(SUPERBLOCK + 4)? > 0
        && head.u32(SUPERBLOCK + 24)? <= 6;
    if !is_superblock {
        return None;
    }
    let is_ext4 = head.u32(SUPERBLOCK + 96)? & EXT4_INCOMPATIBLE != 0
        || head.u32(SUPERBLOCK + 100)? & EXT4_READ_ONLY != 0;
    let version = if is_ext4 {
        ExtVersion::Ext4
    } else if head.u32(SUPERBLOCK + 92)? & HAS_JOURNAL != 0 {
        ExtVersion::Ext3
    } else {
        ExtVersion::Ext2
    };
    let label = head.label::<16>(SUPERBLOCK + 120);
    Some(ContentKind::Ext { version, label })
}

/// FAT has no mark that can be relied on: the fields have to make sense together.
fn fat(head: &Head<'_>) -> Option<ContentKind> {
    let jumps = matches!((head.u8(0)?, head.u8(2)?), (0xEB, 0x90) | (0xE9, _));
    let sector = sector_length(head.u16(11)?)?;
    let cluster_sectors = head.u8(13).filter(|sectors| sectors.is_power_of_two())?;
    let reserved = head.u16(14)?;
    let fats = head.u8(16)?;
    let root_entries = head.u16(17)?;
    let media = head.u8(21)?;
    if !jumps || reserved == 0 || !matches!(fats, 1 | 2) || !matches!(media, 0xF0 | 0xF8..=0xFF) {
        return None;
    }
    let either = |short: u16, long: u32| if short == 0 { long } else { short.into() };
    let sectors = either(head.u16(19)?, head.u32(32)?);
    let fat_sectors = either(head.u16(22)?, head.u32(36)?);
    let root_sectors = (u64::from(root_entries) * 32).div_ceil(sector);
    let overhead = u64::from(reserved) + u64::from(fats) * u64::from(fat_sectors) + root_sectors;
    let data = u64::from(sectors).checked_sub(overhead)?;
    // The limits are those of Microsoft's FAT specification 1.03, "FAT Type Determination".
    let (kind, label_at) = match data / u64::from(cluster_sectors) {
        _ if fat_sectors == 0 => return None,
        _ if root_entries == 0 => (FatKind::Fat32, 71),
        ..4085 => (FatKind::Fat12, 43),
        4085..65_525 => (FatKind::Fat16, 43),
        _ => return None,
    };
    let label = head
        .label::<11>(label_at)
        .filter(|label| label != "NO NAME");
    Some(ContentKind::Fat { kind, label })
}

/// The bytes in a sector, if the number is one that boot sectors have.
fn sector_length(bytes: u16) -> Option<u64> {
    matches!(bytes, 512 | 1024 | 2048 | 4096).then_some(bytes.into())
}

/// How much of the start is looked at: enough for a swap header, which ends with the first page.
const PROBED_LENGTH: usize = 8192;
