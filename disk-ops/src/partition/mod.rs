//! What lies on a disk: its partition table, the gaps between the partitions, and what they hold.
//!
//! ```text
//!  sector 0 --> mbr    0xEE entry, or nothing but a GPT header behind it?
//!                |         |
//!                | no      | yes
//!                v         v
//!        extended chain   gpt    both copies, each with its two checksums
//!                \         /
//!                 partitions --> layout   overlaps, gaps, what leaves the disk
//!                     |
//!                     v
//!                  content    the first sectors of each, or of a disk without a table
//! ```
//!
//! A table is described even when it is damaged: what is wrong with it stands in
//! [`PartitionTable::findings`], with positions. Only a medium that cannot be read is an error.
//! Any byte may be hostile: tables of absurd size are refused by a finding ([`gpt`] and [`mbr`]
//! name the bounds), and nothing is allocated before its size has been checked.
//!
//! Nothing is written, and file systems are recognised, not read.

use std::fmt;

use uuid::Uuid;

use crate::block::{BlockError, BlockRead, ExtentKind, detect_sector_size};
use crate::units::{ByteCount, ByteOffset, SectorSize};

pub mod content;
pub mod convert;
pub mod finding;
pub mod gpt;
pub mod kind;
mod layout;
pub mod mbr;

pub use content::{ContentKind, ExtVersion, FatKind};
pub use finding::{CopyProblem, Finding, Severity};
pub use kind::PartitionType;

/// Everything that the partition table of a disk says, and what is wrong with it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PartitionTable {
    /// What kind of table it is.
    pub scheme: Scheme,
    /// By what the table identifies the disk; `None` without a table.
    pub id: Option<DiskId>,
    /// The unit in which the table counts.
    pub sector_size: SectorSize,
    /// The partitions in the order of the table.
    pub partitions: Vec<Partition>,
    /// The ranges that belong to no partition, in ascending order.
    ///
    /// Of a GPT disk, within the range that its header calls usable, and never over a sound copy
    /// of the GPT; of an MBR disk, behind the MBR. The small one that aligns the first partition is among them.
    pub gaps: Vec<Gap>,
    /// What fills the whole disk, if it has no table ("superfloppy").
    pub content: Option<ContentKind>,
    /// What is wrong or unusual, in the order in which it was found.
    pub findings: Vec<Finding>,
}

/// A kind of partition table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scheme {
    /// A GUID partition table (UEFI 2.10, chapter 5).
    Gpt,
    /// A master boot record.
    Mbr,
    /// No table: the disk is blank, or one volume fills it.
    None,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gpt => "GPT",
            Self::Mbr => "MBR",
            Self::None => "none",
        })
    }
}

/// By what a table identifies its disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DiskId {
    /// The disk GUID of a GPT.
    Guid(Uuid),
    /// The disk signature of an MBR (bytes 0x1B8 to 0x1BB).
    Signature(u32),
}

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guid(guid) => guid.fmt(f),
            Self::Signature(signature) => write!(f, "{signature:08x}"),
        }
    }
}

/// One partition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Partition {
    /// Its number, as Linux counts: the entry from 1, logical partitions of an MBR from 5.
    pub number: u32,
    /// Its first byte.
    pub start: ByteOffset,
    /// Its length; never zero. With a finding, it may leave the disk.
    pub length: ByteCount,
    /// What the table says that it is for.
    pub kind: PartitionType,
    /// How the table holds it.
    pub role: Role,
    /// The partition's own GUID, of a GPT.
    pub id: Option<Uuid>,
    /// Its name in the table; unpaired surrogates are replaced. Empty in an MBR.
    pub name: String,
    /// Its attributes.
    pub attributes: Attributes,
    /// What its first sectors show, if that is known to [`ContentKind`].
    pub content: Option<ContentKind>,
}

impl Partition {
    /// The first byte behind the partition.
    pub fn end(&self) -> ByteOffset {
        // Both readers of tables check the sum; a hand-made partition is cut off.
        ByteOffset(self.start.0.saturating_add(self.length.0))
    }
}

/// How a table holds a partition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// The container of the logical partitions of an MBR.
    Extended,
    /// A partition of an MBR inside of an extended one.
    Logical,
    /// Any partition of a GPT, or one of the four of an MBR.
    Primary,
}

/// The attributes of a partition (UEFI 2.10, table 5.8; bits 60 to 63 as Windows defines them for
/// basic data partitions).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Attributes {
    /// Bit 0: the platform needs it to function.
    pub required: bool,
    /// Bit 1: firmware ignores its content.
    pub no_block_io: bool,
    /// Bit 2, or the active flag of an MBR: a BIOS boots from it.
    pub active: bool,
    /// Bit 60: Windows does not write to it.
    pub read_only: bool,
    /// Bit 61: a shadow copy of another partition.
    pub shadow_copy: bool,
    /// Bit 62: Windows does not mount it.
    pub hidden: bool,
    /// Bit 63: Windows gives it no drive letter.
    pub no_drive_letter: bool,
}

impl Attributes {
    /// The attributes that the bits of a GPT entry mean.
    pub fn from_gpt(bits: u64) -> Self {
        let bit = |number: u32| bits >> number & 1 == 1;
        Self {
            required: bit(0),
            no_block_io: bit(1),
            active: bit(2),
            read_only: bit(60),
            shadow_copy: bit(61),
            hidden: bit(62),
            no_drive_letter: bit(63),
        }
    }
}

/// A range that belongs to no partition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Gap {
    /// Its first byte.
    pub start: ByteOffset,
    /// Its length; never zero.
    pub length: ByteCount,
}

impl PartitionTable {
    /// Reads the table of `disk` and looks at what the partitions hold.
    ///
    /// # Errors
    ///
    /// [`BlockError`] when the disk cannot be read. A damaged table is no error.
    pub fn read<D: BlockRead + ?Sized>(disk: &D) -> Result<Self, BlockError> {
        let first = mbr::BootSector::read(disk)?;
        let volume = content::probe(disk, ByteOffset::ZERO, disk.size())?;
        let has_gpt = gpt::has_primary_signature(disk)?;

        let mut table = match (&first, has_gpt) {
            (Some(mbr), _) if mbr.is_protective() => gpt::read(disk, Some(mbr))?,
            (Some(mbr), _) if mbr.is_partitioned(disk, volume.as_ref()) => {
                let mut table = mbr::read(disk, mbr)?;
                if has_gpt {
                    table.findings.push(Finding::StaleGpt {
                        at: gpt::primary_position(disk),
                    });
                }
                table
            }
            (_, true) => gpt::read(disk, first.as_ref())?,
            (Some(mbr), false) if volume.is_none() && mbr.is_blank() => mbr::read(disk, mbr)?,
            (unknown, false) => {
                let mut table = Self::without_scheme(disk, volume);
                if unknown.is_some() && table.content.is_none() {
                    table.findings.push(Finding::ImplausibleMbr);
                }
                table
            }
        };
        table.note_other_sector_size(disk)?;
        layout::check(&mut table, disk.size());
        for partition in &mut table.partitions {
            if partition.role == Role::Extended || partition.end() > disk.size().end() {
                continue;
            }
            partition.content = content::probe(disk, partition.start, partition.length)?;
        }
        content::check(&mut table);
        mbr::check_dynamic(disk, &mut table)?;
        Ok(table)
    }

    fn without_scheme<D: BlockRead + ?Sized>(disk: &D, content: Option<ContentKind>) -> Self {
        Self {
            content,
            ..Self::empty(Scheme::None, disk)
        }
    }

    fn empty<D: BlockRead + ?Sized>(scheme: Scheme, disk: &D) -> Self {
        Self {
            scheme,
            id: None,
            sector_size: disk.sectors().logical,
            partitions: Vec::new(),
            gaps: Vec::new(),
            content: None,
            findings: Vec::new(),
        }
    }

    /// A GPT that was made for the other sector size is there to see, but in no use here.
    fn note_other_sector_size<D: BlockRead + ?Sized>(
        &mut self,
        disk: &D,
    ) -> Result<(), BlockError> {
        if !self.partitions.is_empty() {
            return Ok(());
        }
        let head = read_prefix(disk, ByteOffset::ZERO, disk.size(), 8192)?;
        let shown = detect_sector_size(&head).filter(|shown| *shown != self.sector_size);
        self.findings
            .extend(shown.map(|shown| Finding::OtherSectorSize {
                found: shown.bytes(),
                expected: self.sector_size.bytes(),
            }));
        Ok(())
    }
}

/// Reads up to `limit` bytes of the `length` bytes from `start` on, without reading a known hole.
fn read_prefix<D: BlockRead + ?Sized>(
    disk: &D,
    start: ByteOffset,
    length: ByteCount,
    limit: usize,
) -> Result<Vec<u8>, BlockError> {
    let wanted = usize::try_from(length.0).unwrap_or(limit).min(limit);
    let mut bytes = vec![0; wanted];
    if wanted == 0 {
        return Ok(bytes);
    }
    let extent = disk.extent_at(start)?;
    let is_hole = extent.kind == ExtentKind::Zero
        && extent
            .end
            .since(start)
            .is_some_and(|known| known.0 >= wanted as u64);
    if !is_hole {
        disk.read_at(start, &mut bytes)?;
    }
    Ok(bytes)
}

/// The position of the block `lba`, or `None` past 2^64.
fn position(lba: u64, sector: SectorSize) -> Option<ByteOffset> {
    lba.checked_mul(sector.bytes()).map(ByteOffset)
}

#[cfg(test)]
mod tests;
