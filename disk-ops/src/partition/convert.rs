//! How an MBR disk that starts Windows by BIOS becomes a GPT disk that starts it by UEFI: the plan.
//!
//! ```text
//!  MBR | system reserved | Windows               | recovery |     |
//!  GPT | EFI system      | Windows               | recovery |     | GPT
//!        formatted anew    not a byte is moved     typed
//! ```
//!
//! A pure function of the table and of what is known of the volumes; [`NewGpt::write`] writes what comes
//! of it. No partition is moved and none grows or shrinks. The EFI system partition takes the place of
//! the partition that the BIOS started from, if Windows itself is on another one and nothing else is
//! kept there; else a gap. Where there is neither, the disk is refused, with the numbers.
//!
//! Logical partitions become partitions like the others, and what held them vanishes with its boot
//! records, which stay in the gaps.

use uuid::Uuid;

use super::gpt::{MOST_PARTITIONS, NewGpt, NewPartition, usable_range};
use super::{Finding, Partition, PartitionTable, PartitionType, Role, Scheme};
use crate::units::{ByteCount, ByteOffset};

mod kinds;
mod room;

use room::{Room, find_room};

/// What is known of the volumes of a disk that is to be converted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VolumeFacts {
    /// The number of the partition that Windows is on.
    pub windows: u32,
    /// What the BIOS starts from, if that is another partition.
    pub system: Option<SystemPartition>,
    /// How large the EFI system partition has to be at least.
    pub efi_system: ByteCount,
}

/// The partition that a BIOS starts from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SystemPartition {
    /// Its number.
    pub number: u32,
    /// What is on it that has to be kept, if there is something.
    pub keeps: Option<String>,
}

/// What becomes of an MBR disk.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConversionPlan {
    /// The new table.
    pub gpt: NewGpt,
    /// Every partition of the new table, in its order.
    pub partitions: Vec<ConvertedPartition>,
}

/// What a partition of the new table comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ConvertedPartition {
    /// Its number in the MBR; `None` if it is new.
    pub old_number: Option<u32>,
    /// Its GUID in the new table.
    pub id: Uuid,
    /// Its first byte, which is the same before and after.
    pub start: ByteOffset,
    /// Its length, which is the same as well.
    pub length: ByteCount,
    /// What is done with it.
    pub fate: Fate,
}

/// What is done with a partition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// It is formatted as the EFI system partition.
    EfiSystem,
    /// Its content stays as it is.
    Kept,
    /// It is the reserved partition of Windows, which has no content.
    Reserved,
}

impl ConversionPlan {
    /// The EFI system partition.
    pub fn efi_system(&self) -> Option<&ConvertedPartition> {
        let mut partitions = self.partitions.iter();
        partitions.find(|partition| partition.fate == Fate::EfiSystem)
    }

    /// What became of the partition that had this number in the MBR.
    pub fn of_old(&self, number: u32) -> Option<&ConvertedPartition> {
        let mut partitions = self.partitions.iter();
        partitions.find(|partition| partition.old_number == Some(number))
    }
}

/// Why a disk cannot be converted. Nothing has been done.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConversionRefused {
    /// Something is wrong with the table, so that it is not known for sure what lies where.
    #[error("its partition table is not sound: {}", words(findings))]
    DamagedTable {
        /// What.
        findings: Vec<Finding>,
    },
    /// The disk is too small for a GPT.
    #[error("a disk of {size} is too small for a GPT")]
    DiskTooSmall {
        /// Its size.
        size: ByteCount,
    },
    /// Windows is on none of the partitions.
    #[error("Windows is not on a partition of its own")]
    NoPartitionOfWindows,
    /// There is no place for the EFI system partition.
    #[error(
        "there is no place for an EFI system partition of {needed}: the largest gap that it could \
         begin in on a whole MiB has {largest_gap}, and {system}"
    )]
    NoRoom {
        /// How large it has to be at least.
        needed: ByteCount,
        /// The largest gap between the copies of a GPT.
        largest_gap: ByteCount,
        /// Why it is not the partition that the BIOS starts from.
        system: String,
    },
    /// A partition reaches to where the second copy of the GPT has to be.
    #[error(
        "partition {number} ends at {end}, and the second copy of the GPT begins at {limit}: {} too \
         far",
        ByteCount(end.0.saturating_sub(limit.0))
    )]
    NoRoomAtEnd {
        /// The partition.
        number: u32,
        /// Its end.
        end: ByteOffset,
        /// Where partitions have to have ended.
        limit: ByteOffset,
    },
    /// A partition begins where the first copy of the GPT has to be.
    #[error("partition {number} begins at {start}, and the GPT takes the bytes up to {limit}")]
    NoRoomAtStart {
        /// The partition.
        number: u32,
        /// Its start.
        start: ByteOffset,
        /// Where partitions may begin.
        limit: ByteOffset,
    },
    /// The disk has no MBR.
    #[error("its partition table is {found}, expected MBR")]
    NotMbr {
        /// What it has.
        found: Scheme,
    },
    /// There are more partitions than a GPT has entries, those included that have to be made.
    #[error("it would have {found} partitions, and a GPT holds 128 at most")]
    TooManyPartitions {
        /// How many.
        found: usize,
    },
    /// There is no type of a GPT for a partition.
    #[error("partition {number} has the type {kind}, for which a GPT has none that is known")]
    UnknownType {
        /// The partition.
        number: u32,
        /// Its type.
        kind: PartitionType,
    },
}

/// Plans the conversion of a disk of `size` bytes with this table. `new_guid` makes the GUIDs of the
/// disk and of the partitions, each of them once.
///
/// # Errors
///
/// [`ConversionRefused`].
pub fn plan(
    size: ByteCount,
    table: &PartitionTable,
    facts: &VolumeFacts,
    new_guid: &mut dyn FnMut() -> Uuid,
) -> Result<ConversionPlan, ConversionRefused> {
    if table.scheme != Scheme::Mbr {
        let found = table.scheme;
        return Err(ConversionRefused::NotMbr { found });
    }
    // An old GPT header is written over. Whatever else there is leaves a doubt.
    let is_harmless = |finding: &Finding| matches!(finding, Finding::StaleGpt { .. });
    let findings = table
        .findings
        .iter()
        .filter(|finding| !is_harmless(finding));
    let findings: Vec<Finding> = findings.cloned().collect();
    if !findings.is_empty() {
        return Err(ConversionRefused::DamagedTable { findings });
    }
    let usable =
        usable_range(size, table.sector_size).ok_or(ConversionRefused::DiskTooSmall { size })?;
    let kept: Vec<&Partition> = table
        .partitions
        .iter()
        .filter(|partition| partition.role != Role::Extended)
        .collect();
    if !kept
        .iter()
        .any(|partition| partition.number == facts.windows)
    {
        return Err(ConversionRefused::NoPartitionOfWindows);
    }
    for partition in &kept {
        let number = partition.number;
        if partition.start < usable.start {
            return Err(ConversionRefused::NoRoomAtStart {
                number,
                start: partition.start,
                limit: usable.start,
            });
        }
        if partition.end() > usable.end {
            return Err(ConversionRefused::NoRoomAtEnd {
                number,
                end: partition.end(),
                limit: usable.end,
            });
        }
    }
    let room = find_room(&kept, &usable, facts)?;
    let mut draft = Draft {
        gpt: NewGpt {
            disk_guid: new_guid(),
            partitions: Vec::new(),
        },
        partitions: Vec::new(),
        new_guid,
    };
    for partition in kept {
        if room.replaces == Some(partition.number) {
            draft.efi_system(&room);
            continue;
        }
        let mut kind = kinds::of_mbr(partition)?;
        if facts
            .system
            .as_ref()
            .is_some_and(|system| system.number == partition.number)
        {
            kind.attributes |= kinds::NO_DRIVE_LETTER;
        }
        let (start, length) = (partition.start, partition.length);
        draft.add(Some(partition.number), kind, start, length, Fate::Kept);
    }
    if room.replaces.is_none() {
        draft.efi_system(&room);
    }
    // Windows can do without.
    if let Some(start) = room.reserved
        && draft.partitions.len() < MOST_PARTITIONS
    {
        draft.add(
            None,
            kinds::RESERVED,
            start,
            RESERVED_LENGTH,
            Fate::Reserved,
        );
    }
    match draft.partitions.len() {
        found if found > MOST_PARTITIONS => Err(ConversionRefused::TooManyPartitions { found }),
        _ => Ok(ConversionPlan {
            gpt: draft.gpt,
            partitions: draft.partitions,
        }),
    }
}

/// A plan as it grows.
struct Draft<'g> {
    gpt: NewGpt,
    partitions: Vec<ConvertedPartition>,
    new_guid: &'g mut dyn FnMut() -> Uuid,
}

impl Draft<'_> {
    fn efi_system(&mut self, room: &Room) {
        let (start, length) = (room.start, room.length);
        let fate = Fate::EfiSystem;
        self.add(room.replaces, kinds::EFI_SYSTEM, start, length, fate);
    }

    fn add(
        &mut self,
        old_number: Option<u32>,
        kind: kinds::Kind,
        start: ByteOffset,
        length: ByteCount,
        fate: Fate,
    ) {
        let id = (self.new_guid)();
        self.gpt.partitions.push(NewPartition {
            kind: kind.guid,
            id,
            start,
            length,
            attributes: kind.attributes,
            name: kind.name.to_owned(),
        });
        self.partitions.push(ConvertedPartition {
            old_number,
            id,
            start,
            length,
            fate,
        });
    }
}

fn words(findings: &[Finding]) -> String {
    let words: Vec<String> = findings.iter().map(ToString::to_string).collect();
    words.join("; ")
}

const MIB: u64 = 1 << 20;

/// What Windows gives its reserved partition since version 10.
const RESERVED_LENGTH: ByteCount = ByteCount::mib(16);

#[cfg(test)]
mod tests;
