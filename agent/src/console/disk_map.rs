//! A disk as a bar: where its partitions are, and how full each of them is.
//!
//! ```text
//!  ▕▓█████████████░░░░░░░░░░░░░░░░░░░▓▏
//!   12 3                             4
//! ```

use crate::job::Inspection;

/// The bar and the numbers of the partitions below it; nothing for a disk without partitions.
pub(super) fn lines(found: &Inspection) -> Vec<String> {
    let mut stretches: Vec<Stretch> = found
        .partitions
        .iter()
        .filter(|partition| partition.start < found.size_bytes)
        .map(|partition| Stretch {
            number: Some(partition.number),
            start: partition.start,
            length: partition.size_bytes,
            used: partition
                .free_bytes
                .map(|free| partition.size_bytes.saturating_sub(free)),
        })
        .collect();
    if stretches.is_empty() {
        return Vec::new();
    }
    // What is too small to be seen would only be in the way.
    let gaps = found
        .unallocated
        .iter()
        .filter(|gap| gap.size_bytes >= found.size_bytes / WIDTH);
    stretches.extend(gaps.map(|gap| Stretch {
        number: None,
        start: gap.start,
        length: gap.size_bytes,
        used: None,
    }));
    stretches.sort_by_key(|stretch| stretch.start);
    stretches.truncate(MOST_STRETCHES);
    let (mut bar, mut numbers) = (String::from("▕"), String::from(" "));
    for stretch in &stretches {
        let width = stretch.width(found.size_bytes);
        bar.extend(stretch.cells(width));
        let label = stretch
            .number
            .map(|number| number.to_string())
            .unwrap_or_default();
        numbers.push_str(&format!("{label:<0$}", width as usize));
    }
    bar.push('▏');
    let legend = format!(" {USED} used  {FREE} free  {UNKNOWN} not known  {NOTHING} unallocated");
    vec![bar, numbers.trim_end().to_owned(), legend]
}

struct Stretch {
    /// Of the partition; nothing for a gap.
    number: Option<u32>,
    start: u64,
    length: u64,
    used: Option<u64>,
}

impl Stretch {
    /// Its part of the bar; wide enough for its number, and for a blank behind that.
    fn width(&self, disk: u64) -> u64 {
        let share = scaled(self.length, WIDTH, disk);
        let label = self
            .number
            .map_or(0, |number| number.to_string().len() as u64);
        share.clamp(label + 1, WIDTH)
    }

    fn cells(&self, width: u64) -> impl Iterator<Item = char> {
        let (used, rest) = match (self.number, self.used) {
            (None, _) => (0, NOTHING),
            (Some(_), None) => (0, UNKNOWN),
            (Some(_), Some(used)) => {
                let cells = scaled(used, width, self.length);
                // Something is there, and something is free, unless there is nothing of it.
                let least = u64::from(used > 0);
                let most = width - u64::from(used < self.length);
                (cells.max(least).min(most), FREE)
            }
        };
        (0..width).map(move |cell| if cell < used { USED } else { rest })
    }
}

/// `part` of `whole` in cells of `width`, rounded.
fn scaled(part: u64, width: u64, whole: u64) -> u64 {
    let whole = u128::from(whole.max(1));
    let cells = (u128::from(part) * u128::from(width) + whole / 2) / whole;
    u64::try_from(cells).unwrap_or(width).min(width)
}

/// In characters, as far as small partitions do not make it longer.
const WIDTH: u64 = 72;

/// More than that is no map any more.
const MOST_STRETCHES: usize = 24;

const USED: char = '█';
const FREE: char = '░';
const UNKNOWN: char = '▓';
const NOTHING: char = '·';

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(length: u64, used: Option<u64>) -> Stretch {
        Stretch {
            number: Some(3),
            start: 0,
            length,
            used,
        }
    }

    #[test]
    fn what_is_used_is_shown_in_proportion() {
        let cells = |used| stretch(100, Some(used)).cells(10).collect::<String>();
        assert_eq!(cells(0), "░░░░░░░░░░");
        assert_eq!(cells(1), "█░░░░░░░░░");
        assert_eq!(cells(50), "█████░░░░░");
        assert_eq!(cells(99), "█████████░");
        assert_eq!(cells(100), "██████████");
        assert_eq!(stretch(100, None).cells(2).collect::<String>(), "▓▓");
    }

    #[test]
    fn a_small_partition_has_room_for_its_number() {
        assert_eq!(stretch(1, None).width(1 << 60), 2);
        assert_eq!(stretch(1 << 60, None).width(1 << 60), WIDTH);
        // Tables lie.
        assert_eq!(stretch(u64::MAX, None).width(1), WIDTH);
    }
}
