//! What BitLocker is doing on a volume, as far as its metadata tells without a key.
//!
//! ```text
//!  boot sector: -FVE-FS-, GUID, three positions --> metadata block: state, entries
//!                                                      entry: a volume master key and what
//!                                                      protects it; a clear key protects nothing
//! ```
//!
//! The structures are those that libbde's format description and dislocker agree on.

use std::fmt;

use uuid::{Uuid, uuid};

use super::blocker::Blocker;
use super::fields::Fields;
use crate::block::{BlockError, BlockRead, Window};
use crate::partition::Partition;
use crate::units::{ByteCount, ByteOffset};

/// What BitLocker is doing on a volume.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum BitLockerState {
    /// It is encrypting or decrypting, or was stopped while it did.
    Converting,
    /// The volume is encrypted, and its keys are protected.
    On,
    /// The volume is encrypted, but its key lies open beside the protected ones.
    Suspended,
    /// The signature is there, but no metadata that can be read.
    Unknown,
    /// The volume is encrypted, but only with an open key: protectors were never added.
    WaitingForActivation,
}

impl fmt::Display for BitLockerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Converting => "being encrypted or decrypted",
            Self::On => "on",
            Self::Suspended => "suspended",
            Self::Unknown => "in a state that cannot be read",
            Self::WaitingForActivation => "waiting for activation",
        })
    }
}

/// The blocker that the BitLocker volume in `partition` of `disk` is.
pub(super) fn blocker<D: BlockRead>(
    disk: &D,
    partition: &Partition,
) -> Result<Option<Blocker>, BlockError> {
    let window = Window::new(disk, partition.start, partition.length, String::new())?;
    Ok(Some(Blocker::BitLocker {
        partition: Some(partition.number),
        at: partition.start,
        state: state(&window)?,
    }))
}

/// What BitLocker is doing on the volume that has its signature.
pub(super) fn state<D: BlockRead>(volume: &D) -> Result<BitLockerState, BlockError> {
    let boot = read(volume, 0, 512)?;
    for at in metadata_positions(Fields(&boot)) {
        let block = read(volume, at, METADATA)?;
        if let Some(state) = parse(Fields(&block)) {
            return Ok(state);
        }
    }
    Ok(BitLockerState::Unknown)
}

/// Where the three copies of the metadata are, by the GUID that the boot sector carries.
fn metadata_positions(boot: Fields<'_>) -> Vec<u64> {
    const FVE: Uuid = uuid!("4967d63b-2e29-4ad8-8399-f6a339e3d001");
    let table = [(160, 176), (424, 440)].into_iter().find(|(guid, _)| {
        let found = boot.bytes(*guid).map(Uuid::from_bytes_le);
        found == Some(FVE)
    });
    let positions = table.map(|(_, first)| [first, first + 8, first + 16]);
    let positions = positions.unwrap_or_default().into_iter();
    positions
        .filter(|at| *at > 0)
        .filter_map(|at| boot.u64(at))
        .collect()
}

fn parse(block: Fields<'_>) -> Option<BitLockerState> {
    const DECRYPTED: u16 = 1;
    const ENCRYPTED: u16 = 4;
    if block.slice(0, 8)? != b"-FVE-FS-" || block.u16(10)? != 2 {
        return None;
    }
    match block.u16(12)? {
        ENCRYPTED => {}
        DECRYPTED | 2 | 3 | 5 => return Some(BitLockerState::Converting),
        _ => return None,
    }
    let mut at = 64 + usize::try_from(block.u32(64 + 8)?).ok()?;
    let end = 64 + usize::try_from(block.u32(64)?).ok()?;
    let mut clear = 0;
    let mut protected = 0;
    while at < end.min(METADATA) {
        const MASTER_KEY: u16 = 2;
        let length = usize::from(block.u16(at)?);
        if length < 8 {
            break;
        }
        if block.u16(at + 2)? == MASTER_KEY {
            match block.u16(at + 8 + 26)? {
                0 => clear += 1,
                _ => protected += 1,
            }
        }
        at += length;
    }
    match (clear, protected) {
        (0, 0) => None,
        (0, _) => Some(BitLockerState::On),
        (_, 0) => Some(BitLockerState::WaitingForActivation),
        _ => Some(BitLockerState::Suspended),
    }
}

/// Up to `length` bytes of the volume from `at` on; none when they do not lie on it.
fn read<D: BlockRead>(volume: &D, at: u64, length: usize) -> Result<Vec<u8>, BlockError> {
    let room = volume.size().0.saturating_sub(at);
    let length = ByteCount(room.min(length as u64));
    let mut bytes = vec![0; length.0 as usize];
    if !bytes.is_empty() {
        volume.read_at(ByteOffset(at), &mut bytes)?;
    }
    Ok(bytes)
}

/// The room of a metadata block.
const METADATA: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::MemoryDisk;
    use crate::units::SectorSizes;

    fn volume(state: u16, protections: &[u16]) -> MemoryDisk {
        let mut disk = MemoryDisk::new(ByteCount::mib(1), SectorSizes::B512);
        disk.write(ByteOffset(3), b"-FVE-FS-");
        disk.write(
            ByteOffset(160),
            &uuid!("4967d63b-2e29-4ad8-8399-f6a339e3d001").to_bytes_le(),
        );
        disk.write(ByteOffset(176), &0x8000_u64.to_le_bytes());
        let mut block = vec![0; 112];
        block[..8].copy_from_slice(b"-FVE-FS-");
        block[10] = 2;
        block[12..14].copy_from_slice(&state.to_le_bytes());
        for protection in protections {
            let mut entry = vec![0; 64];
            entry[0] = 64;
            entry[2] = 2;
            entry[34..36].copy_from_slice(&protection.to_le_bytes());
            block.extend(entry);
        }
        let length = (block.len() - 64) as u32;
        block[64..68].copy_from_slice(&length.to_le_bytes());
        block[72] = 48;
        disk.write(ByteOffset(0x8000), &block);
        disk
    }

    #[test]
    fn the_protection_of_the_keys_tells_the_state() {
        for (stored, protections, expected) in [
            (4, &[0x0100, 0x0800][..], BitLockerState::On),
            (4, &[0x0800, 0], BitLockerState::Suspended),
            (4, &[0], BitLockerState::WaitingForActivation),
            (4, &[], BitLockerState::Unknown),
            (2, &[0x0100], BitLockerState::Converting),
            (5, &[0x0100], BitLockerState::Converting),
            (9, &[0x0100], BitLockerState::Unknown),
        ] {
            assert_eq!(state(&volume(stored, protections)).unwrap(), expected);
        }
    }

    #[test]
    fn metadata_outside_the_volume_is_no_error() {
        let mut disk = volume(4, &[0]);
        disk.write(ByteOffset(176), &u64::MAX.to_le_bytes());
        assert_eq!(state(&disk).unwrap(), BitLockerState::Unknown);
    }
}
