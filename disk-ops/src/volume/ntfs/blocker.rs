//! What stands against changing a disk, or against believing what is free on it.
//!
//! Everything that is found is told at once, each with its place, what shows it, and the one way
//! out of it. Nothing is repaired.

use super::logfile::{self, LogState};
use super::{DATA, bitlocker};
use super::{LOGFILE_RECORD, NtfsVolume, VOLUME_INFORMATION, VOLUME_RECORD};
use crate::block::{BlockRead, Window};
use crate::partition::{Attributes, Finding};
use crate::partition::{ContentKind, Partition, PartitionTable, PartitionType, Role};
use crate::units::{ByteCount, ByteOffset};
use crate::volume::{VolumeError, WinPath, ntfs::fields::Fields};

pub use super::bitlocker::BitLockerState;

/// Something that has to be settled inside the Windows of the disk first. Positions are on the
/// disk; `partition` is `None` when a volume fills the disk without a table.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Blocker {
    /// A volume is encrypted by BitLocker, or about to be.
    #[error("{} at {at}: BitLocker is {state}", place(partition))]
    BitLocker {
        /// The partition's number.
        partition: Option<u32>,
        /// Where the volume begins.
        at: ByteOffset,
        /// What BitLocker is doing.
        state: BitLockerState,
    },
    /// The disk is a dynamic one.
    #[error("the disk is a dynamic disk (LDM): {evidence}")]
    DynamicDisk {
        /// What shows it.
        evidence: String,
    },
    /// Windows is hibernated, or was shut down with Fast Startup.
    #[error(
        "{} at {at}: Windows is hibernated: hiberfil.sys begins with {signature:?}",
        place(partition)
    )]
    Hibernated {
        /// The partition's number.
        partition: Option<u32>,
        /// Where the volume begins.
        at: ByteOffset,
        /// What the file begins with.
        signature: String,
    },
    /// The log of the volume has changes in it that are not on the volume yet.
    #[error("{} at {at}: $LogFile is not clean: {evidence}", place(partition))]
    LogNotClean {
        /// The partition's number.
        partition: Option<u32>,
        /// Where the volume begins.
        at: ByteOffset,
        /// What shows it.
        evidence: String,
    },
    /// A volume cannot be read as far as is needed to know its state.
    #[error("{} at {at}: the volume is damaged: {problem}", place(partition))]
    NtfsDamaged {
        /// The partition's number.
        partition: Option<u32>,
        /// Where the volume begins.
        at: ByteOffset,
        /// What is wrong with it, and where.
        problem: String,
    },
    /// Windows will check the volume at the next start.
    #[error(
        "{} at {at}: the volume is marked as dirty (flags {flags:#06x})",
        place(partition)
    )]
    NtfsDirty {
        /// The partition's number.
        partition: Option<u32>,
        /// Where the record of `$Volume` is.
        at: ByteOffset,
        /// The flags of the volume.
        flags: u16,
    },
    /// The partition is a member of a storage pool.
    #[error("{} at {at}: is a member of a Storage Spaces pool", place(partition))]
    StorageSpaces {
        /// The partition's number.
        partition: Option<u32>,
        /// Where it begins.
        at: ByteOffset,
    },
}

impl Blocker {
    /// The stable code of its kind.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BitLocker { .. } => "BitLocker",
            Self::DynamicDisk { .. } | Self::StorageSpaces { .. } => "DynamicDisk",
            Self::Hibernated { .. } => "Hibernated",
            Self::LogNotClean { .. } | Self::NtfsDamaged { .. } | Self::NtfsDirty { .. } => {
                "NtfsDirty"
            }
        }
    }

    /// What `error` means for the volume in `partition`.
    pub fn unreadable(partition: &Partition, error: &VolumeError) -> Self {
        let mut problem = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            problem.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        Self::NtfsDamaged {
            partition: Some(partition.number).filter(|number| *number > 0),
            at: partition.start,
            problem,
        }
    }

    /// What to do about it.
    pub fn way_out(&self) -> &'static str {
        match self {
            Self::BitLocker {
                state: BitLockerState::Converting,
                ..
            } => {
                "Let BitLocker finish in Windows, then decrypt the volume with: manage-bde -off C:"
            }
            Self::BitLocker { .. } => {
                "Decrypt the volume in Windows with: manage-bde -off C:, and wait until manage-bde \
                 -status shows it fully decrypted. Suspending BitLocker is not enough."
            }
            Self::DynamicDisk { .. } => {
                "Move the volumes to a basic disk, for instance by restoring a backup to one."
            }
            Self::Hibernated { .. } => {
                "Start Windows, turn hibernation and Fast Startup off with: powercfg /h off, and \
                 shut down with: shutdown /s /t 0"
            }
            Self::LogNotClean { .. } => {
                "Start Windows and shut it down completely with: shutdown /s /t 0; take no copy of \
                 a running machine."
            }
            Self::NtfsDamaged { .. } | Self::NtfsDirty { .. } => {
                "Start Windows, run: chkdsk C: /f, let it restart, and shut down."
            }
            Self::StorageSpaces { .. } => "Move the volumes out of the pool to a basic disk.",
        }
    }
}

/// In what state Windows left a volume.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VolumeState {
    /// The flags of the volume (`$VOLUME_INFORMATION`).
    pub flags: u16,
    /// The log.
    pub log: LogState,
    /// What `hiberfil.sys` begins with, if that is the mark of an image to resume from.
    pub hibernation: Option<String>,
    /// Whether there are shadow copies: they keep deleted content in free clusters.
    pub has_shadow_copies: bool,
    dirty_at: ByteOffset,
}

impl VolumeState {
    /// Looks at everything that tells the state of `volume`.
    ///
    /// # Errors
    ///
    /// [`VolumeError`] when one of the files that tell it is unusable.
    pub fn read<D: BlockRead>(volume: &NtfsVolume<D>) -> Result<Self, VolumeError> {
        let record = volume.record(VOLUME_RECORD)?;
        let information = Fields(record.resident(VOLUME_INFORMATION).unwrap_or_default());
        let flags = information.u16(10).ok_or_else(|| {
            volume.damaged(
                "file record",
                VOLUME_RECORD,
                "no $VOLUME_INFORMATION".to_owned(),
            )
        })?;
        Ok(Self {
            flags,
            log: log_state(volume)?,
            hibernation: hibernation(volume)?,
            has_shadow_copies: has_shadow_copies(volume)?,
            dirty_at: volume.record_position(VOLUME_RECORD),
        })
    }

    /// What of it stands against changing the volume, which is in `partition`.
    pub fn blockers(&self, partition: Option<&Partition>) -> Vec<Blocker> {
        let number = partition.map(|partition| partition.number);
        let start = partition.map_or(0, |partition| partition.start.0);
        let at = ByteOffset(start);
        let mut blockers = Vec::new();
        if let Some(signature) = &self.hibernation {
            blockers.push(Blocker::Hibernated {
                partition: number,
                at,
                signature: signature.clone(),
            });
        }
        if self.flags & MUST_BE_CHECKED != 0 {
            blockers.push(Blocker::NtfsDirty {
                partition: number,
                at: ByteOffset(start.saturating_add(self.dirty_at.0)),
                flags: self.flags,
            });
        }
        if let LogState::NotClean { evidence } = &self.log {
            blockers.push(Blocker::LogNotClean {
                partition: number,
                at,
                evidence: evidence.clone(),
            });
        }
        blockers
    }
}

/// What was found on a disk.
#[derive(Debug, Default)]
pub struct Survey {
    /// What stands against changing it, in the order of the partitions.
    pub blockers: Vec<Blocker>,
    /// The NTFS volumes whose state could not be read, by partition, and why.
    pub unreadable: Vec<(Option<u32>, VolumeError)>,
}

/// Looks for everything that stands against changing `disk`.
///
/// # Errors
///
/// [`VolumeError::Block`] when the disk cannot be read. A damaged volume is no error: it stands
/// in [`Survey::unreadable`].
pub fn survey<D: BlockRead>(disk: &D, table: &PartitionTable) -> Result<Survey, VolumeError> {
    let mut survey = Survey {
        blockers: survey_table(table),
        ..Survey::default()
    };
    let whole = whole_disk(disk, table);
    for partition in table.partitions.iter().chain(&whole) {
        if partition.end() > disk.size().end() {
            continue;
        }
        let numbered = Some(partition).filter(|partition| partition.number > 0);
        match &partition.content {
            Some(ContentKind::BitLocker) => {
                let mut found = bitlocker::blocker(disk, partition)?;
                if let Some(Blocker::BitLocker { partition, .. }) = &mut found {
                    *partition = numbered.map(|partition| partition.number);
                }
                survey.blockers.extend(found);
            }
            Some(ContentKind::Ntfs { .. }) => {
                let name = format!("partition {}", partition.number);
                let window = Window::new(disk, partition.start, partition.length, name)?;
                let state = NtfsVolume::open(window).and_then(|volume| VolumeState::read(&volume));
                match state {
                    Ok(state) => survey.blockers.extend(state.blockers(numbered)),
                    Err(error @ VolumeError::Block(_)) => return Err(error),
                    Err(error) => {
                        let number = numbered.map(|partition| partition.number);
                        survey.unreadable.push((number, error));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(survey)
}

/// A volume without a table as the partition that it would be.
pub(super) fn whole_disk<D: BlockRead>(disk: &D, table: &PartitionTable) -> Option<Partition> {
    let content = table.content.clone()?;
    Some(Partition {
        number: 0,
        start: ByteOffset::ZERO,
        length: disk.size(),
        kind: PartitionType::Mbr(7),
        role: Role::Primary,
        id: None,
        name: String::new(),
        attributes: Attributes::default(),
        content: Some(content),
    })
}

/// What the table and its partitions show without a look into volumes.
pub(super) fn survey_table(table: &PartitionTable) -> Vec<Blocker> {
    let mut blockers = survey_partitions(&table.partitions);
    let has_dynamic_type = blockers
        .iter()
        .any(|found| matches!(found, Blocker::DynamicDisk { .. }));
    let dynamic = table.findings.iter().find_map(|finding| match finding {
        Finding::DynamicDisk { evidence } => Some(evidence.clone()),
        _ => None,
    });
    if let Some(evidence) = dynamic.filter(|_| !has_dynamic_type) {
        blockers.insert(0, Blocker::DynamicDisk { evidence });
    }
    blockers
}

/// What the types and marks of partitions show without a look into them.
pub(super) fn survey_partitions(partitions: &[Partition]) -> Vec<Blocker> {
    let mut blockers = Vec::new();
    let dynamic = partitions.iter().find(|partition| {
        partition.kind.is_dynamic() || partition.content == Some(ContentKind::Ldm)
    });
    if let Some(partition) = dynamic {
        blockers.push(Blocker::DynamicDisk {
            evidence: format!(
                "partition {} at {} belongs to it",
                partition.number, partition.start
            ),
        });
    }
    let spaces = partitions
        .iter()
        .filter(|partition| partition.kind == PartitionType::STORAGE_SPACES);
    blockers.extend(spaces.map(|partition| Blocker::StorageSpaces {
        partition: Some(partition.number),
        at: partition.start,
    }));
    blockers
}

fn log_state<D: BlockRead>(volume: &NtfsVolume<D>) -> Result<LogState, VolumeError> {
    let record = volume.record(LOGFILE_RECORD)?;
    let Some(data) = record.attribute(DATA, "") else {
        return Ok(logfile::state(&[]));
    };
    // At most 128 KiB.
    let mut head = vec![0; data.stream.size.min(logfile::HEAD as u64) as usize];
    data.stream
        .read_at(&volume.disk, &volume.geometry, "$LogFile", 0, &mut head)?;
    Ok(logfile::state(&head))
}

/// What `hiberfil.sys` begins with, if Windows would resume from it.
///
/// Windows overwrites the mark with `WAKE` or zeros when it has resumed. `RSTR` stands there while
/// it does: a resume that was cut short.
fn hibernation<D: BlockRead>(volume: &NtfsVolume<D>) -> Result<Option<String>, VolumeError> {
    let path = WinPath::ROOT.join("hiberfil.sys");
    // The name is a valid one.
    let Ok(path) = path else { return Ok(None) };
    let file = match volume.open_file(&path) {
        Ok(file) => file,
        Err(VolumeError::NotFound { .. } | VolumeError::IsFolder { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut mark = [0; 4];
    file.read_at(ByteOffset::ZERO, &mut mark)?;
    let is_live = [&b"HIBR"[..], b"RSTR"]
        .iter()
        .any(|live| mark.eq_ignore_ascii_case(live));
    Ok(is_live.then(|| mark.escape_ascii().to_string()))
}

/// Shadow copies begin at a fixed place behind the boot sectors, with a GUID.
fn has_shadow_copies<D: BlockRead>(volume: &NtfsVolume<D>) -> Result<bool, VolumeError> {
    const HEADER_AT: u64 = 0x1E00;
    const IDENTIFIER: [u8; 16] = uuid::uuid!("3808876b-c176-4e48-b7ae-04046e6cc752").to_bytes_le();
    if volume.disk.size() < ByteCount(HEADER_AT + 512) {
        return Ok(false);
    }
    let mut header = [0; 64];
    volume.disk.read_at(ByteOffset(HEADER_AT), &mut header)?;
    // The position of the catalogue is 0 when there are none.
    let catalogue = Fields(&header).u64(48).unwrap_or_default();
    Ok(header.starts_with(&IDENTIFIER) && catalogue != 0)
}

fn place(partition: &Option<u32>) -> String {
    partition.map_or("the disk".to_owned(), |number| {
        format!("partition {number}")
    })
}

/// VOLUME_IS_DIRTY and VOLUME_CHKDSK_UNDERWAY.
const MUST_BE_CHECKED: u16 = 0x0001 | 0x4000;
