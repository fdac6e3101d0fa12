//! The machine's watchdog: it resets the machine if this program does not turn its loop any more.
//!
//! A watchdog of the (virtual) hardware is taken if there is one, because it works when the kernel
//! does not; the kernel's own (`softdog`) otherwise.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// A watchdog that was started. It can't be stopped: if it is not fed, the machine starts anew.
#[derive(Debug)]
pub struct Watchdog {
    device: File,
    /// What it calls itself.
    pub name: String,
}

impl Watchdog {
    /// Starts the watchdog, if there is one.
    ///
    /// # Errors
    ///
    /// It is there and can't be started.
    pub fn start() -> io::Result<Option<Self>> {
        let device = match OpenOptions::new().write(true).open(DEVICE) {
            Ok(device) => device,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let name = std::fs::read_to_string("/sys/class/watchdog/watchdog0/identity");
        let name = name.unwrap_or_default().trim().to_owned();
        Ok(Some(Self { device, name }))
    }

    /// Whether there is one.
    pub fn is_there() -> bool {
        Path::new(DEVICE).exists()
    }

    /// Says that all is well.
    ///
    /// # Errors
    ///
    /// The device does not take it.
    pub fn feed(&mut self) -> io::Result<()> {
        // Anything but `V`, which would be the word for "stop" (watchdog-api.rst of the kernel).
        self.device.write_all(b"\0")
    }
}

const DEVICE: &str = "/dev/watchdog";
