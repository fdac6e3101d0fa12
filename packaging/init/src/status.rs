//! What an operator reads on the screen: what is done where, how far it is, what went wrong last.
//!
//! Texts come from the agent and from the network: nothing in them reaches the terminal but letters.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// All that is known, to be shown.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Status {
    /// How each interface is.
    pub network: BTreeMap<String, String>,
    /// How the clock is.
    pub clock: String,
    /// How the agent's process is.
    pub agent: String,
    /// How its session is.
    pub session: String,
    /// The job that runs.
    pub job: Option<String>,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// What was said last, oldest first.
    lines: VecDeque<String>,
}

impl Status {
    /// Keeps a line for the lower part of the screen; the oldest one goes.
    pub fn add_line(&mut self, line: &str) {
        if self.lines.len() >= MOST_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line.to_owned());
    }

    /// The screen, in lines of at most 79 letters. `up` is how long the machine has been on,
    /// `idle_left` what is left until it is switched off if no job comes.
    pub fn screen(&self, up: Duration, idle_left: Option<Duration>) -> Vec<String> {
        let or = |text: &str, otherwise: &str| match text {
            "" => otherwise.to_owned(),
            text => text.to_owned(),
        };
        let mut screen = vec![
            format!(
                "Compositing Engine {}, on for {}",
                env!("CARGO_PKG_VERSION"),
                spoken(up)
            ),
            RULE.repeat(WIDTH),
        ];
        let mut row = |name: &str, text: String| {
            let mut name = name;
            // A long text goes on below itself, twice at most.
            for part in folded(&printable(&text), WIDTH - LABEL).into_iter().take(3) {
                screen.push(format!("{name:LABEL$}{part}"));
                name = "";
            }
        };
        if self.network.is_empty() {
            row("network", "no interface".into());
        }
        for (interface, how) in self.network.iter().take(MOST_INTERFACES) {
            row("network", format!("{interface}: {how}"));
        }
        row("clock", or(&self.clock, "as the machine has it"));
        row("agent", or(&self.agent, "not started yet"));
        row("session", or(&self.session, "none yet"));
        row("job", self.job.clone().unwrap_or_else(|| "none".into()));
        row(
            "last error",
            self.last_error.clone().unwrap_or_else(|| "none".into()),
        );
        if let Some(left) = idle_left {
            row(
                "power off",
                format!("in {} if there is no job", spoken(left)),
            );
        }
        screen.push(RULE.repeat(WIDTH));
        let room = HEIGHT.saturating_sub(screen.len());
        let skipped = self.lines.len().saturating_sub(room);
        let last = self.lines.iter().skip(skipped);
        screen.extend(last.map(|line| clipped(&printable(line), WIDTH)));
        screen
    }
}

/// A text without what a terminal would take for a command: ASCII, the rest as `?`.
pub fn printable(text: &str) -> String {
    let letters = text.chars().map(|letter| match letter {
        '\t' => ' ',
        ' '..='~' => letter,
        _ => '?',
    });
    letters.collect()
}

fn clipped(text: &str, width: usize) -> String {
    text.chars().take(width).collect()
}

/// Pieces of at most `width` letters of an ASCII text; at least one.
fn folded(text: &str, width: usize) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    if letters.is_empty() {
        return vec![String::new()];
    }
    letters
        .chunks(width)
        .map(|piece| piece.iter().collect())
        .collect()
}

fn spoken(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// A screen of a PC has 80 columns and 25 rows; the last of each is left free, where a terminal might
/// scroll.
const WIDTH: usize = 79;
const HEIGHT: usize = 24;
const LABEL: usize = 12;
const RULE: &str = "-";
const MOST_LINES: usize = HEIGHT;
const MOST_INTERFACES: usize = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_screen_says_what_where_how_far_and_what_went_wrong() {
        let mut status = Status {
            session: "in session with c.example:8443 as ce-1".into(),
            job: Some("export: 42 %".into()),
            last_error: Some("DiskNotFound: no disk has lun 3".into()),
            ..Status::default()
        };
        status
            .network
            .insert("eth0".into(), "10.0.2.15/24 by DHCP".into());
        status.add_line("a line");
        let screen = status.screen(Duration::from_secs(130), None).join("\n");
        for part in [
            "on for 2 min",
            "network     eth0: 10.0.2.15/24 by DHCP",
            "session     in session with c.example:8443 as ce-1",
            "job         export: 42 %",
            "last error  DiskNotFound: no disk has lun 3",
            "\na line",
        ] {
            assert!(screen.contains(part), "`{part}` is not on:\n{screen}");
        }
        let idle = status.screen(Duration::ZERO, Some(Duration::from_secs(7300)));
        assert!(
            idle.join("\n")
                .contains("power off   in 2 h 1 min if there is no job")
        );
    }

    proptest! {
        #[test]
        fn no_text_leaves_the_screen_or_commands_the_terminal(
            texts in proptest::collection::vec("(\\PC|\\x1b|\\n|\\x07|\u{9b}){0,400}", 5),
            lines in proptest::collection::vec("\\PC{0,200}", 0..40),
        ) {
            let mut status = Status {
                clock: texts[0].clone(),
                session: texts[1].clone(),
                job: Some(texts[2].clone()),
                last_error: Some(texts[3].clone()),
                agent: texts[4].clone(),
                ..Status::default()
            };
            for (index, text) in texts.iter().enumerate() {
                status.network.insert(format!("eth{index}"), text.clone());
            }
            for line in &lines {
                status.add_line(line);
            }
            let screen = status.screen(Duration::MAX, Some(Duration::MAX));
            for line in &screen {
                prop_assert!(line.len() <= WIDTH && line.chars().all(|c| (' '..='~').contains(&c)));
            }
            prop_assert!(screen.len() <= 40);
        }
    }
}
