//! Where the EFI system partition goes, and the reserved one.

use std::ops::Range;

use super::super::Partition;
use super::{ConversionRefused, MIB, RESERVED_LENGTH, VolumeFacts};
use crate::units::{ByteCount, ByteOffset};

/// A place for the EFI system partition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Room {
    /// The number of the partition whose place it is; `None` for a gap.
    pub(super) replaces: Option<u32>,
    pub(super) start: ByteOffset,
    pub(super) length: ByteCount,
    /// Where the reserved partition begins, if there is room for one.
    pub(super) reserved: Option<ByteOffset>,
}

/// Finds room for as much as `facts` ask for, in whole MiB.
pub(super) fn find_room(
    partitions: &[&Partition],
    usable: &Range<ByteOffset>,
    facts: &VolumeFacts,
) -> Result<Room, ConversionRefused> {
    let whole = facts.efi_system.0.checked_next_multiple_of(MIB);
    let needed = ByteCount(whole.unwrap_or(u64::MAX));
    let mut gaps = aligned_gaps(partitions, usable);
    match of_system(partitions, facts, needed) {
        Ok(partition) => Ok(Room {
            replaces: Some(partition.number),
            start: partition.start,
            length: partition.length,
            reserved: reserved(&gaps),
        }),
        Err(system) => {
            let wanted = needed.max(USUAL_LENGTH);
            // As large as Windows makes it, or else as there is room for.
            let gap = gaps.iter().position(|gap| length(gap) >= wanted);
            let largest = || (0..gaps.len()).max_by_key(|index| length(&gaps[*index]));
            let index = gap.or_else(largest);
            let gap = index.and_then(|index| gaps.get_mut(index));
            let largest_gap = gap.as_deref().map(length).unwrap_or_default();
            match gap {
                Some(gap) if largest_gap >= needed => {
                    let start = gap.start;
                    let length = largest_gap.min(wanted);
                    gap.start = ByteOffset(start.0 + length.0);
                    Ok(Room {
                        replaces: None,
                        start,
                        length,
                        reserved: reserved(&gaps),
                    })
                }
                _ => Err(ConversionRefused::NoRoom {
                    needed,
                    largest_gap,
                    system,
                }),
            }
        }
    }
}

/// The partition that the BIOS starts from, if it can be given up, or why it cannot.
fn of_system<'p>(
    partitions: &[&'p Partition],
    facts: &VolumeFacts,
    needed: ByteCount,
) -> Result<&'p Partition, String> {
    let Some(system) = &facts.system else {
        return Err("the BIOS starts from the partition of Windows itself".to_owned());
    };
    let found = partitions
        .iter()
        .find(|partition| partition.number == system.number && system.number != facts.windows);
    let Some(partition) = found else {
        return Err("the BIOS starts from no partition of its own".to_owned());
    };
    let number = partition.number;
    if let Some(kept) = &system.keeps {
        return Err(format!(
            "partition {number}, which the BIOS starts from, has to stay: {kept}"
        ));
    }
    if partition.length > LARGEST_SYSTEM {
        return Err(format!(
            "partition {number}, which the BIOS starts from, is so large ({}) that it may hold data",
            partition.length
        ));
    }
    if partition.length < needed {
        return Err(format!(
            "partition {number}, which the BIOS starts from, has {}",
            partition.length
        ));
    }
    Ok(partition)
}

/// The whole MiB of the gaps between the copies of a GPT, in order.
fn aligned_gaps(partitions: &[&Partition], usable: &Range<ByteOffset>) -> Vec<Range<ByteOffset>> {
    let mut sorted: Vec<_> = partitions
        .iter()
        .map(|partition| partition.start..partition.end())
        .collect();
    sorted.sort_by_key(|range| range.start);
    sorted.push(usable.end..usable.end);
    let mut gaps = Vec::new();
    let mut free_from = usable.start;
    for taken in sorted {
        // Positions on a disk: the next MiB is far from the end of 64 bits, or there is no gap.
        let start = free_from
            .0
            .checked_next_multiple_of(MIB)
            .unwrap_or(u64::MAX);
        let end = taken.start.0 / MIB * MIB;
        if start < end {
            gaps.push(ByteOffset(start)..ByteOffset(end));
        }
        free_from = free_from.max(taken.end);
    }
    gaps
}

fn reserved(gaps: &[Range<ByteOffset>]) -> Option<ByteOffset> {
    let gap = gaps.iter().find(|gap| length(gap) >= RESERVED_LENGTH);
    gap.map(|gap| gap.start)
}

fn length(gap: &Range<ByteOffset>) -> ByteCount {
    gap.end.since(gap.start).unwrap_or_default()
}

/// What Windows makes when it has the choice; a disk with sectors of 4 KiB needs more, by FAT32.
const USUAL_LENGTH: ByteCount = ByteCount::mib(100);

/// The largest partition that is taken for one that Windows made to start from. Its largest ones have
/// some 550 MiB.
const LARGEST_SYSTEM: ByteCount = ByteCount::mib(1024);
