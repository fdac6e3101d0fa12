//! What can be wrong with a partition table.

use crate::units::{ByteCount, ByteOffset};

/// Something about a partition table that is wrong or unusual.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Finding {
    /// The backup GPT is inside of the disk: the disk has grown since the table was written.
    #[error(
        "the backup GPT header is at {at}, not in the last sector at {end}: the disk has grown"
    )]
    BackupNotAtEnd {
        /// Where the primary header says that the backup is.
        at: ByteOffset,
        /// Where it should be.
        end: ByteOffset,
    },
    /// The backup GPT lies behind the end of the disk: the disk was cut off.
    #[error("the backup GPT header should be at LBA {lba}, behind the end of the disk at {end}")]
    BackupOutsideDisk {
        /// Where the primary header says that the backup is.
        lba: u64,
        /// The end of the disk.
        end: ByteOffset,
    },
    /// The two copies of the GPT are sound but say different things; the primary one is followed.
    #[error("the two GPT copies differ in their {field}; the primary one is followed")]
    CopiesDisagree {
        /// In what.
        field: &'static str,
    },
    /// Two partitions of a GPT carry the same GUID.
    #[error("partitions {first} and {second} have the same GUID")]
    DuplicateId {
        /// The one that comes first in the table.
        first: u32,
        /// The other.
        second: u32,
    },
    /// The disk belongs to the Logical Disk Manager ("dynamic disk").
    #[error("this is a dynamic disk of the Logical Disk Manager: {evidence}")]
    DynamicDisk {
        /// What shows it.
        evidence: String,
    },
    /// A chain of extended boot records came back to a place where it had been.
    #[error("the chain of logical partitions returns to the boot record at {at}")]
    ExtendedLoop {
        /// The boot record that was met twice.
        at: ByteOffset,
    },
    /// A chain of extended boot records leads out of the extended partition or off the disk.
    #[error(
        "the chain of logical partitions leads to LBA {lba}, outside of the extended partition"
    )]
    ExtendedOutside {
        /// Where it leads to.
        lba: u64,
    },
    /// An extended boot record is none.
    #[error("at {at} there is no extended boot record, expected the bytes 55 AA at its end")]
    ExtendedSignature {
        /// Where it should be.
        at: ByteOffset,
    },
    /// There are more logical partitions than are read.
    #[error("there are more than {limit} logical partitions; the rest was not read")]
    ExtendedTooLong {
        /// How many were read.
        limit: usize,
    },
    /// One copy of the GPT cannot be used.
    #[error("the {copy} GPT at {at} is damaged: {problem}")]
    GptCopy {
        /// Which one: `primary` or `backup`.
        copy: &'static str,
        /// The position of its header.
        at: ByteOffset,
        /// What is wrong with it.
        problem: CopyProblem,
    },
    /// Besides the protective entry, the MBR of a GPT disk has partitions of its own.
    #[error("hybrid MBR: {partitions} MBR partitions beside the GPT; the GPT is followed")]
    HybridMbr {
        /// How many of them.
        partitions: usize,
    },
    /// The first sector ends like a boot record, but is neither an MBR nor a known volume.
    #[error("the first sector ends in 55 AA but is neither an MBR nor the start of a known volume")]
    ImplausibleMbr,
    /// A logical partition leaves the extended partition that holds it.
    #[error("logical partition {number} leaves the extended partition")]
    LogicalOutsideExtended {
        /// The partition.
        number: u32,
    },
    /// No copy of the GPT can be used.
    #[error("the disk is marked as GPT, but neither copy of the table can be used")]
    NoUsableGpt,
    /// There is a GPT, but no protective MBR.
    #[error("the GPT has no protective MBR: firmware and Windows take the disk for a blank one")]
    NoProtectiveMbr,
    /// The table was made for another sector size.
    #[error("there is a GPT for sectors of {found} bytes, but the disk has sectors of {expected}")]
    OtherSectorSize {
        /// The sector size for which it was made, in bytes.
        found: u64,
        /// The sector size of the disk, in bytes.
        expected: u64,
    },
    /// Two partitions share bytes.
    #[error("partitions {first} and {second} overlap at {at}")]
    Overlap {
        /// The one that starts first.
        first: u32,
        /// The other.
        second: u32,
        /// The first shared byte.
        at: ByteOffset,
    },
    /// A partition leaves the disk.
    #[error("partition {number} ends at {end}, behind the end of the disk at {disk_end}")]
    OutsideDisk {
        /// The partition.
        number: u32,
        /// Its end.
        end: ByteOffset,
        /// The end of the disk.
        disk_end: ByteOffset,
    },
    /// A partition leaves the range that the GPT header calls usable.
    #[error(
        "partition {number} is at {start} to {end}, outside of the usable range {usable_start} to {usable_end}"
    )]
    OutsideUsable {
        /// The partition.
        number: u32,
        /// Its start.
        start: ByteOffset,
        /// Its end.
        end: ByteOffset,
        /// The start of the usable range.
        usable_start: ByteOffset,
        /// The end of the usable range.
        usable_end: ByteOffset,
    },
    /// The protective entry of the MBR does not cover the disk.
    #[error(
        "the protective MBR covers {sectors} sectors from LBA {start}, expected {expected} from LBA 1"
    )]
    ProtectiveRange {
        /// Where it starts.
        start: u32,
        /// How much it covers.
        sectors: u32,
        /// How much it should cover.
        expected: u32,
    },
    /// The primary copy of the GPT cannot be used; everything was taken from the backup.
    #[error("the table was read from the backup GPT")]
    ReadFromBackup,
    /// There is more than one extended partition; only the first is followed.
    #[error("partition {number} is a second extended partition, which is not followed")]
    SecondExtended {
        /// The second one.
        number: u32,
    },
    /// An entry of the GPT cannot be a partition, and is left out.
    #[error("entry {number} runs from LBA {first} to LBA {last}, which is no range on any disk")]
    SenselessEntry {
        /// The entry, from 1.
        number: u32,
        /// Its first block.
        first: u64,
        /// Its last block.
        last: u64,
    },
    /// A GPT header is left over on a disk that has an MBR.
    #[error("there is an old GPT header at {at}; the MBR is followed")]
    StaleGpt {
        /// Where it is.
        at: ByteOffset,
    },
    /// The range that the GPT header calls usable holds a part of the GPT itself.
    #[error("the range that the GPT calls usable holds a part of the GPT itself, at {at}")]
    UsableHoldsTable {
        /// Where the header or the array of entries begins.
        at: ByteOffset,
    },
    /// The range that the GPT header calls usable is none, or leaves the disk.
    #[error("the GPT calls LBA {first} to LBA {last} usable, but the disk ends at {disk_end}")]
    UsableRange {
        /// The first usable block.
        first: u64,
        /// The last usable block.
        last: u64,
        /// The end of the disk.
        disk_end: ByteOffset,
    },
    /// A file system is larger than the partition that holds it.
    #[error("the volume in partition {number} is {volume} long, the partition {partition}")]
    VolumeTooLarge {
        /// The partition.
        number: u32,
        /// What the file system says.
        volume: ByteCount,
        /// What the table says.
        partition: ByteCount,
    },
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// Unusual, but every system copes with it.
    Note,
    /// Systems may disagree about the disk, or a spare is missing.
    Warning,
    /// Something that the table promises is not there.
    Damage,
}

impl Finding {
    /// How much it matters.
    pub fn severity(&self) -> Severity {
        match self {
            Self::BackupNotAtEnd { .. }
            | Self::DynamicDisk { .. }
            | Self::ImplausibleMbr
            | Self::ProtectiveRange { .. }
            | Self::StaleGpt { .. } => Severity::Note,
            Self::BackupOutsideDisk { .. }
            | Self::CopiesDisagree { .. }
            | Self::DuplicateId { .. }
            | Self::ExtendedTooLong { .. }
            | Self::GptCopy { .. }
            | Self::HybridMbr { .. }
            | Self::LogicalOutsideExtended { .. }
            | Self::NoProtectiveMbr
            | Self::OtherSectorSize { .. }
            | Self::OutsideUsable { .. }
            | Self::ReadFromBackup
            | Self::SecondExtended { .. }
            | Self::UsableHoldsTable { .. }
            | Self::UsableRange { .. } => Severity::Warning,
            Self::ExtendedLoop { .. }
            | Self::ExtendedOutside { .. }
            | Self::ExtendedSignature { .. }
            | Self::NoUsableGpt
            | Self::OutsideDisk { .. }
            | Self::Overlap { .. }
            | Self::SenselessEntry { .. }
            | Self::VolumeTooLarge { .. } => Severity::Damage,
        }
    }
}

/// What is wrong with one copy of a GPT.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CopyProblem {
    /// The array of entries does not match its checksum.
    #[error("its entries have the checksum {found:#010x}, expected {expected:#010x}")]
    EntriesChecksum {
        /// What was computed.
        found: u32,
        /// What the header says.
        expected: u32,
    },
    /// The array of entries leaves the disk.
    #[error("its entries are said to be at LBA {lba}, {length} bytes long, which leaves the disk")]
    EntriesOutsideDisk {
        /// Where it starts.
        lba: u64,
        /// How long it is.
        length: u64,
    },
    /// The array of entries has a shape that no table has.
    #[error(
        "it has {count} entries of {size} bytes, expected entries of 128 bytes times a power of two, at most 1 MiB in all"
    )]
    EntriesShape {
        /// The number of entries.
        count: u32,
        /// The size of an entry in bytes.
        size: u32,
    },
    /// The header does not match its checksum.
    #[error("its header has the checksum {found:#010x}, expected {expected:#010x}")]
    HeaderChecksum {
        /// What was computed.
        found: u32,
        /// What the header says.
        expected: u32,
    },
    /// The header has a length that it cannot have.
    #[error("its header is said to be {size} bytes long, expected 92 to {sector}")]
    HeaderSize {
        /// The length found.
        size: u32,
        /// The sector size, in which the header has to fit.
        sector: u64,
    },
    /// The header was written for another position.
    #[error("its header says that it is at LBA {found}, expected {expected}")]
    OwnPosition {
        /// What it says.
        found: u64,
        /// Where it is.
        expected: u64,
    },
    /// The header has a revision that is not known.
    #[error("its revision is {found:#010x}, expected 0x00010000")]
    Revision {
        /// What it says.
        found: u32,
    },
    /// There is no header.
    #[error("there is no header, expected the bytes \"EFI PART\"")]
    Signature,
}
