//! Text in columns.

/// Rows with their columns one below the other. The columns of `right` end together, all others
/// begin together; blanks at the end of a line are left out.
pub(super) fn aligned(rows: &[Vec<String>], right: &[usize]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells: Vec<String> = cells
            .map(|(column, (cell, &width))| match right.contains(&column) {
                true => format!("{cell:>width$}"),
                false => format!("{cell:<width$}"),
            })
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// A name from the disk cannot move the cursor, ring the bell, or turn the line around.
pub(super) fn printable(text: &str) -> String {
    let replaced = |c: char| match c {
        _ if c.is_control() => '\u{fffd}',
        // Line and paragraph separators, then the marks that change the direction of writing.
        '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}' => '\u{fffd}',
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        _ => c,
    };
    text.chars().map(replaced).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_the_disk_cannot_play_tricks() {
        assert_eq!(printable("Grüße 日本"), "Grüße 日本");
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(printable("x\u{202e}gpj.exe"), "x\u{fffd}gpj.exe");
    }

    #[test]
    fn columns_begin_or_end_together() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let lines = aligned(&[row(["a", "1", "x"]), row(["bcd", "100", ""])], &[1]);
        assert_eq!(lines, ["a      1  x", "bcd  100"]);
        assert!(aligned(&[], &[]).is_empty());
    }
}
