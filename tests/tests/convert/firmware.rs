//! A program that stands in for the boot manager of Windows, and the firmware that starts it.
//!
//! The program is made here byte by byte: it writes a word to the first serial port and ends the
//! machine by a port that qemu has for that. The firmware is that of the Debian package `ovmf`; qemu
//! emulates the processor, so that no machine is too small for the test.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ce_tests::tool::{QEMU_SYSTEM, text};

/// A program for UEFI on x64 that prints `word` (PE format, revision 11).
pub fn program(word: &str) -> Vec<u8> {
    let mut file = vec![0; 2 * SECTION];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3C, &[0x40]);
    put(0x40, b"PE\0\0");
    let coff = 0x44;
    put(coff, &0x8664_u16.to_le_bytes());
    put(coff + 2, &1_u16.to_le_bytes()); // sections
    put(coff + 16, &0xF0_u16.to_le_bytes()); // length of what follows
    put(coff + 18, &0x0022_u16.to_le_bytes()); // executable, large addresses
    let optional = coff + 20;
    let words = [
        (4, SECTION as u32),  // code
        (16, ENTRY),          // entry point
        (20, ENTRY),          // base of code
        (24, 0x40_0000),      // base of the image
        (32, ENTRY),          // alignment in memory
        (36, SECTION as u32), // alignment in the file
        (56, 2 * ENTRY),      // length in memory
        (60, SECTION as u32), // length of the headers
        (108, 16),            // directories, all empty
    ];
    for (at, number) in words {
        put(optional + at, &number.to_le_bytes());
    }
    put(optional, &0x020B_u16.to_le_bytes()); // PE32+
    put(optional + 68, &10_u16.to_le_bytes()); // a program of UEFI
    let section = optional + 0xF0;
    put(section, b".text");
    for (at, number) in [
        (8, ENTRY),
        (12, ENTRY),
        (16, SECTION as u32),
        (20, SECTION as u32),
        (36, 0x6000_0020), // code, to be read and executed
    ] {
        put(section + at, &number.to_le_bytes());
    }
    put(SECTION, &CODE);
    put(SECTION + CODE.len(), word.as_bytes());
    file
}

/// Starts `disk`, which is not changed and has a format that qemu calls `format`, and gives what comes
/// out of the serial port.
pub fn start(disk: &Path, format: &str, folder: &Path) -> Result<String> {
    let variables = folder.join("variables.fd");
    fs::copy(VARIABLES, &variables)
        .with_context(|| format!("{VARIABLES}: install the package ovmf (or run `make setup`)"))?;
    let serial = folder.join("serial");
    let flash = |file: &str, more: &str| format!("if=pflash,format=raw,file={file}{more}");
    let mut qemu = QEMU_SYSTEM.command()?;
    qemu.args([
        "-machine", "q35", "-accel", "tcg", "-m", "256", "-display", "none",
    ])
    .args(["-nodefaults", "-no-reboot"])
    .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"])
    .args(["-serial", &format!("file:{}", text(&serial)?)])
    .args(["-drive", &flash(CODE_OF_FIRMWARE, ",readonly=on")])
    .args(["-drive", &flash(text(&variables)?, "")])
    .args([
        "-drive",
        &format!("if=ide,format={format},snapshot=on,file={}", text(disk)?),
    ]);
    let status = wait(&mut qemu)?;
    let said = String::from_utf8_lossy(&fs::read(&serial)?).into_owned();
    ensure!(status == Some(ENDED), "qemu ended with {status:?}: {said}");
    Ok(said)
}

fn wait(command: &mut Command) -> Result<Option<i32>> {
    let mut child: Child = command.stdin(Stdio::null()).spawn()?;
    let deadline = Instant::now() + TIME_LIMIT;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code());
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("nothing was started after {TIME_LIMIT:?}");
        }
        sleep(Duration::from_millis(50));
    }
}

const ENTRY: u32 = 0x1000;
const SECTION: usize = 0x200;

/// ```text
///       lea  rsi, [rip + word]
///       mov  dx, 0x3F8
/// next: lodsb
///       test al, al
///       jz   end
///       out  dx, al
///       jmp  next
/// end:  mov  dx, 0xF4
///       mov  al, 0x10
///       out  dx, al
/// stay: hlt
///       jmp  stay
/// word:
/// ```
const CODE: [u8; 29] = [
    0x48, 0x8D, 0x35, 22, 0, 0, 0, 0x66, 0xBA, 0xF8, 0x03, 0xAC, 0x84, 0xC0, 0x74, 0x03, 0xEE,
    0xEB, 0xF8, 0x66, 0xBA, 0xF4, 0x00, 0xB0, 0x10, 0xEE, 0xF4, 0xEB, 0xFD,
];

/// The exit code that qemu makes of 0x10.
const ENDED: i32 = 0x10 << 1 | 1;

/// It takes some seconds; a machine under load is given more.
const TIME_LIMIT: Duration = Duration::from_secs(300);

const CODE_OF_FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
