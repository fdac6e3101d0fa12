//! The consoles that the kernel's command line names: a screen is drawn, of a serial line one gets the
//! lines.
//!
//! A serial line that takes nothing must not hold up this program: a thread of its own writes to it,
//! and what it does not take in time is dropped.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::status::printable;

/// All consoles.
#[derive(Debug)]
pub struct Consoles {
    screens: Vec<File>,
    lines: Vec<SyncSender<String>>,
}

impl Consoles {
    /// Opens those that are there.
    pub fn open() -> Self {
        let mut consoles = Self {
            screens: Vec::new(),
            lines: Vec::new(),
        };
        for name in active() {
            if is_screen(&name) {
                consoles.screens.extend(device(&name));
                continue;
            }
            let Ok(mut device) = OpenOptions::new()
                .write(true)
                .custom_flags(libc::O_NOCTTY)
                .open(format!("/dev/{name}"))
            else {
                continue;
            };
            let (sender, receiver) = sync_channel::<String>(MOST_WAITING);
            let thread = thread::Builder::new().name("ce-console".into());
            let started = thread.spawn(move || {
                for line in receiver {
                    // Nobody is left who could be told.
                    let _ = device.write_all(line.as_bytes());
                }
            });
            if started.is_ok() {
                consoles.lines.push(sender);
            }
        }
        consoles
    }

    /// Says a line on every serial console.
    pub fn say(&self, line: &str) {
        for console in &self.lines {
            // One that takes nothing has missed something.
            let _ = console.try_send(format!("{}\r\n", printable(line)));
        }
    }

    /// Draws the screens anew.
    pub fn draw(&mut self, lines: &[String]) {
        let mut text = String::from(BEGIN);
        for line in lines {
            text.push_str(line);
            text.push_str(NEXT_LINE);
        }
        text.push_str(END);
        for screen in &mut self.screens {
            // The next drawing makes up for it.
            let _ = screen.write_all(text.as_bytes());
        }
    }
}

/// Says something on every console when nothing else works any more, within 2 s.
pub fn last_words(text: &str) {
    let line = format!("\r\n{}\r\n", printable(text));
    for name in active() {
        let Ok(mut device) = device(&name) else {
            continue;
        };
        let until = Instant::now() + Duration::from_secs(2);
        let mut rest = line.as_bytes();
        while !rest.is_empty() && Instant::now() < until {
            match device.write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    thread::sleep(Duration::from_millis(10));
                }
                Err(_) => break,
            }
        }
    }
}

/// The names of the consoles, `tty0 ttyS0`.
fn active() -> Vec<String> {
    let names = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    names.split_whitespace().map(str::to_owned).collect()
}

/// `tty0` is the screen, `ttyS0`, `hvc0` and others are lines.
fn is_screen(name: &str) -> bool {
    name.strip_prefix("tty")
        .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
}

fn device(name: &str) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
        .open(format!("/dev/{name}"))
}

/// No cursor, no screen saver, to the upper left (console_codes(4)).
const BEGIN: &str = "\x1b[?25l\x1b[9;0]\x1b[H";
/// Clear what is left of the line.
const NEXT_LINE: &str = "\x1b[K\r\n";
/// Clear what is below.
const END: &str = "\x1b[J";

/// Lines that wait for a serial console.
const MOST_WAITING: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn screens_are_told_from_lines() {
        for (name, is_so) in [
            ("tty0", true),
            ("tty1", true),
            ("ttyS0", false),
            ("hvc0", false),
        ] {
            assert_eq!(is_screen(name), is_so, "{name}");
        }
    }
}
