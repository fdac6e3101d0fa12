//! Files that a real writer left dirty: our replay against that of the writer.
//!
//! qemu applies an entry to the file as soon as it is in the log. A write error that is injected
//! where it is to be applied leaves what a crash at that moment leaves: an entry in the log, and a
//! file without it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use ce_vhdx::{FileOffset, OpenError, ReadAt, VhdxReader, VirtualOffset};
use tempfile::TempDir;

#[path = "support/tool.rs"]
mod tool;

use tool::{run, try_run};

/// A file to read an image from.
#[derive(Debug)]
struct ImageFile(File);

impl ReadAt for ImageFile {
    fn length(&self) -> u64 {
        self.0.metadata().expect("an open file").len()
    }

    fn read_at(&self, offset: FileOffset, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset.0)
    }
}

/// An empty disk of 520 blocks of 1 MiB, whose table begins a second page.
fn create(folder: &TempDir) -> String {
    let path = folder.path().join("dirty.vhdx");
    let path = path.to_str().expect("a path in ASCII").to_owned();
    let options = "subformat=dynamic,block_size=1M";
    let arguments = ["create", "-q", "-f", "vhdx", "-o", options, &path, "520M"];
    run("qemu-utils", "qemu-img", &arguments);
    path
}

/// Runs qemu's `commands` on the image at `path`, with every write to 4 KiB at `refused` failing.
fn write(path: &str, refused: u64, commands: &[String]) {
    let image = format!(
        "driver=vhdx,file.driver=blkdebug,file.image.driver=file,file.image.filename={path},\
         file.inject-error.0.event=none,file.inject-error.0.iotype=write,\
         file.inject-error.0.sector={}",
        refused / 512
    );
    let mut arguments = vec!["--image-opts", &image];
    for command in commands {
        arguments.extend(["-c", command]);
    }
    let output = try_run("qemu-utils", "qemu-io", &arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("Input/output error"), "{text}");
}

/// Opens the image at `path`, compares the disk in it with what qemu finds when it has replayed the
/// log of a copy, and returns the number of entries that we replayed.
fn compare_with_qemu(path: &str) -> u64 {
    let (copy, raw) = (format!("{path}.copy"), format!("{path}.raw"));
    fs::copy(path, &copy).expect("a copy");
    run(
        "qemu-utils",
        "qemu-img",
        &["check", "-q", "-r", "all", &copy],
    );
    let arguments = ["convert", "-f", "vhdx", "-O", "raw", &copy, &raw];
    run("qemu-utils", "qemu-img", &arguments);

    let reader = VhdxReader::open(ImageFile(File::open(path).expect("the image")));
    let reader = reader.expect("a log that is whole");
    let raw = File::open(Path::new(&raw)).expect("qemu's opinion");
    let disk_size = reader.geometry().disk_size();
    assert_eq!(raw.metadata().expect("an open file").len(), disk_size);
    let (mut ours, mut theirs) = (vec![0; MIB as usize], vec![0; MIB as usize]);
    for offset in (0..disk_size).step_by(MIB as usize) {
        reader
            .read_at(VirtualOffset(offset), &mut ours)
            .expect("readable");
        raw.read_exact_at(&mut theirs, offset).expect("readable");
        assert!(ours == theirs, "the MiB at {offset:#x} differs");
    }
    reader.replayed_log_entries()
}

/// What the disk in the image at `path` has at `offset`.
fn byte_at(path: &str, offset: u64) -> u8 {
    let reader = VhdxReader::open(ImageFile(File::open(path).expect("the image")));
    let mut byte = [0xEE];
    let read = reader
        .expect("a log that is whole")
        .read_at(VirtualOffset(offset), &mut byte);
    read.expect("readable");
    byte[0]
}

#[test]
fn the_first_write_ever_is_found_in_the_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = create(&folder);
    write(&path, TABLE, &["write -P 0x11 0 64k".to_owned()]);
    assert_eq!(compare_with_qemu(&path), 1);
    assert_eq!(byte_at(&path, 65_535), 0x11);
}

#[test]
fn entries_that_were_applied_are_not_applied_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = create(&folder);
    // Blocks 0 to 511 have their entries in the first page of the table.
    let applied = (0..3).map(|block| format!("write -P 0x22 {block}M 1M"));
    let lost = "write -P 0x33 515M 1M".to_owned();
    let commands: Vec<String> = applied.chain([lost]).collect();
    write(&path, TABLE + PAGE, &commands);
    assert_eq!(compare_with_qemu(&path), 1);
    assert_eq!([MIB, 515 * MIB].map(|at| byte_at(&path, at)), [0x22, 0x33]);
}

#[test]
fn the_newest_entry_is_found_when_the_log_has_gone_round() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = create(&folder);
    // An entry for a block has two pages: after 128 of them, the log of 1 MiB is full.
    let applied = (0..131).map(|block| format!("write -P 0x44 {block}M 4k"));
    let lost = "write -P 0x55 519M 4k".to_owned();
    let commands: Vec<String> = applied.chain([lost]).collect();
    write(&path, TABLE + PAGE, &commands);
    assert_eq!(compare_with_qemu(&path), 1);
    assert_eq!(
        [130 * MIB, 519 * MIB].map(|at| byte_at(&path, at)),
        [0x44, 0x55]
    );
}

#[test]
fn a_log_whose_only_entry_was_never_written_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = create(&folder);
    // The header names the log before there is anything in it.
    write(&path, LOG, &["write -P 0x66 0 64k".to_owned()]);
    let refusal = VhdxReader::open(ImageFile(File::open(&path).expect("the image")));
    assert!(
        matches!(refusal, Err(OpenError::LogUnusable { .. })),
        "{refusal:?}"
    );
}

const MIB: u64 = 1 << 20;
/// Where qemu puts the log and the table.
const LOG: u64 = MIB;
const TABLE: u64 = 2 * MIB;
const PAGE: u64 = 4096;
