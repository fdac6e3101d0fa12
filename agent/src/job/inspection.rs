//! What is on a disk, as the result of an `inspect` job says it.

use ce_disk::block::BlockRead;
use ce_disk::partition::{Finding, Gap, Partition, PartitionTable, Scheme, Severity};
use ce_disk::units::ByteCount;
use ce_platform::inspect::BootStore;
use serde::Serialize;

use super::FoundBlocker;

/// A disk, its partition table and what is in it. Sizes and positions are in bytes.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// What the disk is called.
    pub name: String,
    /// Its size.
    pub size_bytes: u64,
    /// The unit in which it is addressed.
    pub logical_sector_bytes: u64,
    /// The unit in which its medium stores data.
    pub physical_sector_bytes: u64,
    /// `GPT`, `MBR` or `none`.
    pub partition_table: String,
    /// For a GPT: whether both copies are there, undamaged and the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub both_copies_good: Option<bool>,
    /// The disk's GUID (GPT) or signature (MBR).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What fills a disk without a table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The partitions in the order of the table.
    pub partitions: Vec<InspectedPartition>,
    /// The ranges that belong to no partition.
    pub unallocated: Vec<InspectedGap>,
    /// By what the disk starts: `UEFI` or `BIOS`, if it can be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firmware: Option<&'static str>,
    /// Every installation of Windows.
    pub windows: Vec<InspectedWindows>,
    /// Every recovery environment.
    pub recovery: Vec<InspectedRecovery>,
    /// Everything that stands against preparing the disk.
    pub blockers: Vec<FoundBlocker>,
    /// What is wrong or unusual.
    pub findings: Vec<InspectedFinding>,
}

/// An installation of Windows.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectedWindows {
    /// The number of its partition; none if its volume fills the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
    /// Its folder.
    pub folder: String,
    /// The platform that it comes from, if the tools in it agree on one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_platform: Option<&'static str>,
    /// What its hives say.
    #[serde(flatten)]
    pub inspection: ce_platform::inspect::Inspection,
}

/// A recovery environment (`Winre.wim`).
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectedRecovery {
    /// The number of its partition; none if its volume fills the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
    /// The file.
    pub path: String,
    /// How long it is.
    pub size_bytes: u64,
    /// Whether Windows starts this one when it cannot start, if that can be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_enabled: Option<bool>,
    /// Why its file cannot be changed, if it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// One partition.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectedPartition {
    /// Its number in the table, from 1.
    pub number: u32,
    /// Its first byte.
    pub start: u64,
    /// Its length.
    pub size_bytes: u64,
    /// What the table says that it is for.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its GUID (GPT).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its name in the table (GPT).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Those of its attributes that are set.
    pub attributes: Vec<&'static str>,
    /// What its first sectors show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// What is free on its volume, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_bytes: Option<u64>,
    /// What a machine would start from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot: Option<BootStore>,
}

/// A range that belongs to no partition.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InspectedGap {
    /// Its first byte.
    pub start: u64,
    /// Its length.
    pub size_bytes: u64,
}

/// Something wrong or unusual.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct InspectedFinding {
    /// `note`, `warning` or `damage`.
    pub severity: &'static str,
    /// What it is, and where.
    pub message: String,
}

impl Inspection {
    /// Puts into words what `table` says of `disk`.
    pub(super) fn new(disk: &dyn BlockRead, table: &PartitionTable) -> Self {
        Self {
            name: disk.name().to_owned(),
            size_bytes: disk.size().0,
            logical_sector_bytes: disk.sectors().logical.bytes(),
            physical_sector_bytes: disk.sectors().physical.bytes(),
            partition_table: table.scheme.to_string(),
            both_copies_good: (table.scheme == Scheme::Gpt)
                .then(|| !table.findings.iter().any(concerns_a_copy)),
            id: table.id.map(|id| id.to_string()),
            content: table.content.as_ref().map(ToString::to_string),
            partitions: table
                .partitions
                .iter()
                .map(InspectedPartition::from)
                .collect(),
            unallocated: table.gaps.iter().map(InspectedGap::from).collect(),
            firmware: None,
            windows: Vec::new(),
            recovery: Vec::new(),
            blockers: Vec::new(),
            findings: table.findings.iter().map(InspectedFinding::from).collect(),
        }
    }
}

impl From<&Partition> for InspectedPartition {
    fn from(partition: &Partition) -> Self {
        let set = &partition.attributes;
        let attributes = [
            ("required", set.required),
            ("noBlockIo", set.no_block_io),
            ("active", set.active),
            ("readOnly", set.read_only),
            ("shadowCopy", set.shadow_copy),
            ("hidden", set.hidden),
            ("noDriveLetter", set.no_drive_letter),
        ];
        Self {
            number: partition.number,
            start: partition.start.0,
            size_bytes: partition.length.0,
            kind: partition.kind.to_string(),
            id: partition.id.map(|id| id.to_string()),
            name: partition.name.clone(),
            attributes: attributes
                .into_iter()
                .filter_map(|(name, set)| set.then_some(name))
                .collect(),
            content: partition.content.as_ref().map(ToString::to_string),
            free_bytes: None,
            boot: None,
        }
    }
}

impl From<&Gap> for InspectedGap {
    fn from(gap: &Gap) -> Self {
        Self {
            start: gap.start.0,
            size_bytes: gap.length.0,
        }
    }
}

impl From<&Finding> for InspectedFinding {
    fn from(finding: &Finding) -> Self {
        Self {
            severity: match finding.severity() {
                Severity::Note => "note",
                Severity::Warning => "warning",
                Severity::Damage => "damage",
            },
            message: finding.to_string(),
        }
    }
}

impl InspectedFinding {
    /// Something that its owner should know.
    pub(super) fn warning(message: String) -> Self {
        Self {
            severity: "warning",
            message,
        }
    }

    /// Something that is as well known as not.
    pub(super) fn note(message: String) -> Self {
        Self {
            severity: "note",
            message,
        }
    }
}

impl InspectedPartition {
    /// Its length, to be shown.
    pub(crate) fn size(&self) -> ByteCount {
        ByteCount(self.size_bytes)
    }
}

fn concerns_a_copy(finding: &Finding) -> bool {
    matches!(
        finding,
        Finding::GptCopy { .. }
            | Finding::CopiesDisagree { .. }
            | Finding::BackupOutsideDisk { .. }
            | Finding::NoUsableGpt
            | Finding::ReadFromBackup
    )
}
