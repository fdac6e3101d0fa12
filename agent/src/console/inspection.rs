//! The page that `inspect` prints.

use std::fmt::Write;

use ce_disk::units::{ByteCount, ByteOffset};

use super::Style;
use super::columns::{aligned, printable};
use super::{disk_map, windows};
use crate::job::{InspectedPartition, Inspection};

/// What is on a disk, ready to print.
pub(super) fn page(found: &Inspection, style: Style) -> String {
    let mut blocks = vec![head(found)];
    blocks.push(disk_map::lines(found));
    blocks.push(aligned(&rows(found), &RIGHT));
    blocks.extend(
        found
            .windows
            .iter()
            .map(|found| windows::lines(found, style)),
    );
    blocks.push(recovery(found, style));
    blocks.push(blockers(found, style));
    blocks.push(findings(found));
    blocks.retain(|block| !block.is_empty());
    let blocks: Vec<String> = blocks.iter().map(|lines| lines.join("\n") + "\n").collect();
    blocks.join("\n")
}

fn head(found: &Inspection) -> Vec<String> {
    let mut head = vec![
        format!("disk     {}", printable(&found.name)),
        format!("size     {}", ByteCount(found.size_bytes)),
        format!(
            "sectors  {} bytes, {} on the medium",
            found.logical_sector_bytes, found.physical_sector_bytes
        ),
        format!("table    {}", table(found)),
    ];
    if let Some(content) = &found.content {
        head.push(format!("content  {content}"));
    }
    if let Some(firmware) = found.firmware {
        let mut boot = found
            .partitions
            .iter()
            .filter_map(|partition| partition.boot.as_ref());
        let entry = boot.find_map(|boot| boot.default_entry.as_ref());
        let loader = entry.and_then(|entry| entry.application.as_deref());
        let loader = loader.map(|loader| format!(", {}", printable(loader)));
        head.push(format!(
            "starts   by {firmware}{}",
            loader.unwrap_or_default()
        ));
    }
    head
}

fn table(found: &Inspection) -> String {
    let mut text = found.partition_table.clone();
    match found.both_copies_good {
        Some(true) => text.push_str(", both copies good"),
        Some(false) => text.push_str(", NOT both copies good"),
        None => {}
    }
    if let Some(id) = &found.id {
        // Writing to a string does not fail.
        let _ = write!(text, ", id {id}");
    }
    text
}

/// Partitions and gaps in the order in which they lie, below a heading.
fn rows(found: &Inspection) -> Vec<Vec<String>> {
    let partitions = found
        .partitions
        .iter()
        .map(|partition| (partition.start, row(partition)));
    let gaps = found.unallocated.iter().map(|gap| {
        let start = ByteOffset(gap.start).to_string();
        let size = format!("{:#}", ByteCount(gap.size_bytes));
        let row = [
            "-".into(),
            start,
            size,
            String::new(),
            "(unallocated)".into(),
        ];
        (gap.start, row.to_vec())
    });
    let mut rows: Vec<_> = partitions.chain(gaps).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    rows.sort_by_key(|(start, _)| *start);
    let heading = [
        "#",
        "start",
        "size",
        "free",
        "type",
        "content",
        "name, attributes",
    ];
    let heading = heading.map(str::to_owned).to_vec();
    std::iter::once(heading)
        .chain(rows.into_iter().map(|(_, row)| row))
        .collect()
}

fn row(partition: &InspectedPartition) -> Vec<String> {
    let name = (!partition.name.is_empty()).then(|| printable(&partition.name));
    let attributes = partition.attributes.iter().map(|set| (*set).to_owned());
    let remarks: Vec<String> = name.into_iter().chain(attributes).collect();
    let free = partition
        .free_bytes
        .map(|free| format!("{:#}", ByteCount(free)));
    vec![
        partition.number.to_string(),
        ByteOffset(partition.start).to_string(),
        format!("{:#}", partition.size()),
        free.unwrap_or_default(),
        partition.kind.clone(),
        printable(partition.content.as_deref().unwrap_or("-")),
        remarks.join(", "),
    ]
}

/// Every recovery environment.
fn recovery(found: &Inspection, style: Style) -> Vec<String> {
    if found.recovery.is_empty() {
        return Vec::new();
    }
    let rows: Vec<Vec<String>> = found
        .recovery
        .iter()
        .map(|image| {
            let place = match image.partition {
                Some(number) => format!("{} on partition {number}", printable(&image.path)),
                None => printable(&image.path),
            };
            let state = match image.is_enabled {
                Some(true) => "enabled",
                Some(false) => "not enabled",
                None => "",
            };
            let problem = image
                .problem
                .as_ref()
                .map(|problem| format!("its file cannot be changed: {problem}"));
            let remarks: Vec<String> = Some(state.to_owned())
                .filter(|state| !state.is_empty())
                .into_iter()
                .chain(problem)
                .collect();
            let size = format!("{:#}", ByteCount(image.size_bytes));
            vec![format!("  {place}"), size, remarks.join(", ")]
        })
        .collect();
    let mut lines = vec![style.heading("recovery environment")];
    lines.extend(aligned(&rows, &[1]));
    lines
}

/// What stands against preparing the disk, and the way out of each.
fn blockers(found: &Inspection, style: Style) -> Vec<String> {
    if found.blockers.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![style.heading("stands against preparing this disk")];
    for blocker in &found.blockers {
        lines.push(format!(
            "  {:?}: {}",
            blocker.code,
            printable(&blocker.message)
        ));
        lines.push(format!("    -> {}", blocker.way_out));
    }
    lines
}

fn findings(found: &Inspection) -> Vec<String> {
    let shown = found.findings.iter().take(MOST_FINDINGS);
    let mut lines: Vec<String> = shown
        .map(|finding| format!("{}: {}", finding.severity, printable(&finding.message)))
        .collect();
    let left = found.findings.len().saturating_sub(MOST_FINDINGS);
    if left > 0 {
        lines.push(format!("and {left} more findings: --json has them all"));
    }
    lines
}

/// The columns of sizes and positions.
const RIGHT: [usize; 4] = [0, 1, 2, 3];

/// More than anyone reads. A hostile table can have thousands.
const MOST_FINDINGS: usize = 40;
