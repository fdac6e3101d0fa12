//! How the partitions of a table lie to each other and to the disk.

use super::{Finding, Gap, Partition, PartitionTable, Role, Scheme};
use crate::units::{ByteCount, ByteOffset};

/// Adds findings about the positions of the partitions, and takes them out of the gaps.
pub(super) fn check(table: &mut PartitionTable, disk_size: ByteCount) {
    let disk_end = disk_size.end();
    let leaving = table.partitions.iter().filter(|p| p.end() > disk_end);
    let leaving = leaving.map(|partition| Finding::OutsideDisk {
        number: partition.number,
        end: partition.end(),
        disk_end,
    });
    table.findings.extend(leaving);

    // Logical partitions lie inside of an extended one by design, so that each is compared with
    // its own kind only.
    let ranges = sorted(&table.partitions, |role| role != Role::Extended);
    let mut overlaps = overlaps(&ranges);
    if table.partitions.iter().any(|p| p.role == Role::Extended) {
        let outer = self::overlaps(&sorted(&table.partitions, |role| role != Role::Logical));
        overlaps.extend(
            outer
                .into_iter()
                .filter(|o| !overlaps.contains(o))
                .collect::<Vec<_>>(),
        );
    }
    table.findings.extend(overlaps);

    if table.scheme == Scheme::None && table.content.is_none() {
        table.gaps.push(Gap {
            start: ByteOffset::ZERO,
            length: disk_size,
        });
    }
    table.gaps = table
        .gaps
        .iter()
        .flat_map(|gap| subtract(*gap, &ranges))
        .collect();
}

fn sorted(partitions: &[Partition], is_wanted: fn(Role) -> bool) -> Vec<&Partition> {
    let mut ranges: Vec<_> = partitions.iter().filter(|p| is_wanted(p.role)).collect();
    ranges.sort_by_key(|partition| (partition.start, partition.number));
    ranges
}

/// One finding for each partition that starts before all earlier ones have ended.
fn overlaps(ranges: &[&Partition]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut furthest: Option<&Partition> = None;
    for &partition in ranges {
        if let Some(earlier) = furthest
            && partition.start < earlier.end()
        {
            findings.push(Finding::Overlap {
                first: earlier.number,
                second: partition.number,
                at: partition.start,
            });
        }
        if furthest.is_none_or(|earlier| partition.end() > earlier.end()) {
            furthest = Some(partition);
        }
    }
    findings
}

/// What is left of `gap` without `ranges`, which are sorted by their start.
fn subtract(gap: Gap, ranges: &[&Partition]) -> Vec<Gap> {
    let end = ByteOffset(gap.start.0.saturating_add(gap.length.0));
    let mut position = gap.start;
    let mut left = Vec::new();
    let mut leave = |from: ByteOffset, to: ByteOffset| {
        let length = to.min(end).since(from).filter(|length| length.0 > 0);
        left.extend(length.map(|length| Gap {
            start: from,
            length,
        }));
    };
    for range in ranges {
        leave(position, range.start);
        position = position.max(range.end());
    }
    leave(position, end);
    left
}
