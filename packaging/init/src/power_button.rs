//! The power button of the machine, which hypervisors press to have it switched off.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// Waits until it is pressed on an input device, `input/event0`.
///
/// # Errors
///
/// The device is gone, or is none.
pub fn wait(device: &str) -> io::Result<()> {
    let mut device = File::open(Path::new("/dev").join(device))?;
    let mut event = [0; EVENT];
    loop {
        device.read_exact(&mut event)?;
        if is_press(&event) {
            return Ok(());
        }
    }
}

/// The input devices that are there.
pub fn devices() -> Vec<String> {
    let entries = fs::read_dir("/dev/input").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| name.starts_with("event"))
        .map(|name| format!("input/{name}"))
        .collect()
}

/// Whether an event (`struct input_event` of linux/input.h: time, type, code, value) says that the key has
/// gone down.
fn is_press(event: &[u8; EVENT]) -> bool {
    let word = |at: usize| u16::from_ne_bytes([event[at], event[at + 1]]);
    word(16) == EV_KEY && word(18) == KEY_POWER && event[20..] == 1_i32.to_ne_bytes()
}

/// On a machine of 64 bits.
const EVENT: usize = 24;

const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u16, code: u16, value: i32) -> [u8; EVENT] {
        let mut event = [7; EVENT];
        event[16..18].copy_from_slice(&kind.to_ne_bytes());
        event[18..20].copy_from_slice(&code.to_ne_bytes());
        event[20..].copy_from_slice(&value.to_ne_bytes());
        event
    }

    #[test]
    fn only_the_power_button_going_down_counts() {
        assert!(is_press(&event(EV_KEY, KEY_POWER, 1)));
        assert!(!is_press(&event(EV_KEY, KEY_POWER, 0)));
        assert!(!is_press(&event(EV_KEY, 30, 1)));
        assert!(!is_press(&event(0, 0, 0)));
    }
}
