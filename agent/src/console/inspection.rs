//! The page that `inspect` prints.

use std::fmt::Write;

use ce_disk::units::{ByteCount, ByteOffset};

use crate::job::{InspectedPartition, Inspection};

/// What is on a disk, ready to print.
pub(super) fn page(found: &Inspection) -> String {
    let mut page = String::new();
    let mut line = |text: String| {
        page.push_str(text.trim_end());
        page.push('\n');
    };
    line(format!("disk     {}", printable(&found.name)));
    line(format!("size     {}", ByteCount(found.size_bytes)));
    line(format!(
        "sectors  {} bytes, {} on the medium",
        found.logical_sector_bytes, found.physical_sector_bytes
    ));
    line(format!("table    {}", table(found)));
    if let Some(content) = &found.content {
        line(format!("content  {content}"));
    }
    let rows = rows(found);
    if !rows.is_empty() {
        line(String::new());
        for row in aligned(&rows) {
            line(row);
        }
    }
    if !found.findings.is_empty() {
        line(String::new());
        for finding in found.findings.iter().take(MOST_FINDINGS) {
            line(format!("{}: {}", finding.severity, finding.message));
        }
        let left = found.findings.len().saturating_sub(MOST_FINDINGS);
        if left > 0 {
            line(format!("and {left} more findings: --json has them all"));
        }
    }
    page
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
fn rows(found: &Inspection) -> Vec<[String; 6]> {
    let partitions = found
        .partitions
        .iter()
        .map(|partition| (partition.start, row(partition)));
    let gaps = found.unallocated.iter().map(|gap| {
        let start = ByteOffset(gap.start).to_string();
        let size = format!("{:#}", ByteCount(gap.size_bytes));
        let nothing = String::new;
        (
            gap.start,
            [
                "-".into(),
                start,
                size,
                "(unallocated)".into(),
                nothing(),
                nothing(),
            ],
        )
    });
    let mut rows: Vec<_> = partitions.chain(gaps).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    rows.sort_by_key(|(start, _)| *start);
    let heading = ["#", "start", "size", "type", "content", "name, attributes"];
    let heading = heading.map(str::to_owned);
    std::iter::once(heading)
        .chain(rows.into_iter().map(|(_, row)| row))
        .collect()
}

fn row(partition: &InspectedPartition) -> [String; 6] {
    let name = (!partition.name.is_empty()).then(|| printable(&partition.name));
    let attributes = partition.attributes.iter().map(|set| (*set).to_owned());
    let remarks: Vec<String> = name.into_iter().chain(attributes).collect();
    [
        partition.number.to_string(),
        ByteOffset(partition.start).to_string(),
        format!("{:#}", partition.size()),
        partition.kind.clone(),
        printable(partition.content.as_deref().unwrap_or("-")),
        remarks.join(", "),
    ]
}

/// A name from the disk cannot move the cursor, ring the bell, or turn the line around.
fn printable(text: &str) -> String {
    let replaced = |c: char| match c {
        _ if c.is_control() => '\u{fffd}',
        // Line and paragraph separators, then the marks that change the direction of writing.
        '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}' => '\u{fffd}',
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        _ => c,
    };
    text.chars().map(replaced).collect()
}

/// The rows with their columns one below the other. Sizes end together, all else begins together.
fn aligned(rows: &[[String; 6]]) -> impl Iterator<Item = String> {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let [number, start, size, kind, content] = [0, 1, 2, 3, 4].map(width);
    rows.iter().map(move |[a, b, c, d, e, f]| {
        format!("{a:>number$}  {b:>start$}  {c:>size$}  {d:<kind$}  {e:<content$}  {f}")
    })
}

/// More than anyone reads. A hostile table can have thousands.
const MOST_FINDINGS: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_the_disk_cannot_play_tricks() {
        assert_eq!(printable("Grüße 日本"), "Grüße 日本");
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(printable("x\u{202e}gpj.exe"), "x\u{fffd}gpj.exe");
    }
}
