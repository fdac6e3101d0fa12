//! What support needs to know of this machine, in one archive.
//!
//! ```text
//!  versions.txt    the agent, the system, its kernel, memory
//!  disks.txt       the disks, and the partition tables of those that are not in use
//!  kernel.log      the kernel's messages
//!  agent.log       the agent's last records, if it is a daemon
//! ```
//!
//! No file and no sector of a volume is in it, and no configuration: there are secrets in that.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use ce_disk::block::{self, OpenOptions as DiskOptions};
use ce_disk::discover::attached_disks;
use ce_disk::partition::PartitionTable;
use ce_disk::sink::smb::SmbShare;
use flate2::Compression;
use flate2::write::GzEncoder;
use rustix::fs::OFlags;
use serde::Serialize;

use super::destination::{Destination, Share};
use super::failure::smb_failed;
use super::{ErrorCode, Inspection, JobError};
use crate::telemetry;

/// The archive, or where it is.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiagnosticsBundle {
    /// Its size.
    pub size_bytes: u64,
    /// Where it was written, if the job named a place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// The archive itself (tar, gzip) in Base64, if it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// Collects what there is and puts it to its place.
pub(super) fn collect(destination: Option<&Destination>) -> Result<DiagnosticsBundle, JobError> {
    let limit = match destination {
        Some(_) => LONGEST_LOG,
        None => LONGEST_LOG_INLINE,
    };
    let archive = archive(&[
        ("versions.txt", versions()),
        ("disks.txt", disks()),
        ("kernel.log", tail(kernel_log(), limit)),
        ("agent.log", tail(telemetry::last_records(), limit)),
    ])
    .map_err(|error| {
        JobError::new(
            ErrorCode::Internal,
            format!("the archive can't be made: {error}"),
        )
    })?;
    let mut bundle = DiagnosticsBundle {
        size_bytes: archive.len() as u64,
        location: destination.map(ToString::to_string),
        content: None,
    };
    match destination {
        None => {
            bundle.content = Some(base64::engine::general_purpose::STANDARD.encode(&archive));
        }
        Some(Destination::File(path)) => write_file(path, &archive)?,
        Some(Destination::Share(share)) => write_to_share(share, archive)?,
    }
    Ok(bundle)
}

fn write_file(path: &Path, archive: &[u8]) -> Result<(), JobError> {
    let failed = |error: io::Error| {
        let code = match error.kind() {
            io::ErrorKind::AlreadyExists => ErrorCode::OutputExists,
            io::ErrorKind::StorageFull => ErrorCode::OutputNoSpace,
            _ => ErrorCode::OutputFailed,
        };
        JobError::new(code, format!("{}: {error}", path.display()))
    };
    let mut file = File::create_new(path).map_err(failed)?;
    io::Write::write_all(&mut file, archive).map_err(failed)?;
    file.sync_all().map_err(failed)
}

fn write_to_share(to: &Share, archive: Vec<u8>) -> Result<(), JobError> {
    let failed = |error| smb_failed(&error);
    let path = to.location.image();
    let share = SmbShare::connect(&to.location, &to.credentials, to.security, to.timeouts)
        .map_err(failed)?;
    if share.metadata(path).map_err(failed)?.is_some() {
        let message = format!("{} is there already", to.location);
        return Err(
            JobError::new(ErrorCode::OutputExists, message).with_hint("choose another name")
        );
    }
    share.create_folders(path).map_err(failed)?;
    share.replace_small(path, archive).map_err(failed)
}

fn archive(files: &[(&str, String)]) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        archive.append_data(&mut header, name, text.as_bytes())?;
    }
    archive.into_inner()?.finish()
}

fn versions() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let memory = read("/proc/meminfo");
    let memory: Vec<_> = memory.lines().take(5).collect();
    format!(
        "ce-agent {}\n{}{}{}\n",
        env!("CARGO_PKG_VERSION"),
        read("/proc/version"),
        read("/etc/os-release"),
        memory.join("\n"),
    )
}

fn disks() -> String {
    let mut text = String::new();
    let disks = match attached_disks() {
        Ok(disks) => disks,
        Err(error) => return format!("the disks can't be listed: {error}\n"),
    };
    // Writing to a string does not fail.
    for disk in disks {
        let _ = writeln!(text, "{disk}");
        if !disk.mounted_at.is_empty() {
            let _ = writeln!(text, "  in use; its partition table is not read");
            continue;
        }
        let opened = block::open(&disk.node(), &DiskOptions::default());
        let table = opened.map_err(|error| error.to_string()).and_then(|disk| {
            let table = PartitionTable::read(disk.as_ref()).map_err(|error| error.to_string())?;
            let found = Inspection::new(disk.as_ref(), &table);
            serde_json::to_string_pretty(&found).map_err(|error| error.to_string())
        });
        let _ = match table {
            Ok(table) => writeln!(text, "{table}"),
            Err(error) => writeln!(text, "  {error}"),
        };
    }
    text
}

/// The kernel's messages, one a line (`Documentation/ABI/testing/dev-kmsg`).
fn kernel_log() -> String {
    let flags = OFlags::NONBLOCK.bits() as i32;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open("/dev/kmsg");
    let mut log = match opened {
        Ok(log) => log,
        Err(error) => return format!("/dev/kmsg: {error}\n"),
    };
    let mut text = String::new();
    let mut record = [0; 8192];
    // More than a kernel's buffer holds; one that writes faster than this reads is cut off.
    for _ in 0..MOST_KERNEL_RECORDS {
        match log.read(&mut record) {
            Ok(0) => break,
            Ok(length) => {
                let record = String::from_utf8_lossy(record.get(..length).unwrap_or_default());
                text.push_str(record.lines().next().unwrap_or_default());
                text.push('\n');
            }
            // Records were overwritten meanwhile; the next is there.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            // The end, for now.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => {
                let _ = writeln!(text, "/dev/kmsg: {error}");
                break;
            }
        }
    }
    text
}

/// The end of a text, in whole lines.
fn tail(text: String, limit: usize) -> String {
    if text.len() <= limit {
        return text;
    }
    let from = text.ceil_char_boundary(text.len() - limit);
    let rest = text.get(from..).unwrap_or_default();
    rest.split_once('\n')
        .map_or(rest, |(_, lines)| lines)
        .to_owned()
}

const LONGEST_LOG: usize = 4 << 20;

/// Both logs uncompressed, with a third more for Base64, fit into a message's 512 KiB.
const LONGEST_LOG_INLINE: usize = 128 << 10;

const MOST_KERNEL_RECORDS: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn names(archive: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(archive));
        let entries = archive.entries().unwrap();
        entries
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect()
    }

    #[test]
    fn the_archive_comes_with_the_result_or_is_written() {
        let inline = collect(None).unwrap();
        let content = inline.content.unwrap();
        assert!(content.len() < 500 << 10);
        let engine = base64::engine::general_purpose::STANDARD;
        let archive = engine.decode(content).unwrap();
        let expected = ["versions.txt", "disks.txt", "kernel.log", "agent.log"];
        assert_eq!(names(&archive), expected);

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.tar.gz");
        let destination = Destination::File(path.clone());
        let written = collect(Some(&destination)).unwrap();
        assert_eq!(written.content, None);
        assert_eq!(names(&fs::read(path).unwrap()), expected);
        let again = collect(Some(&destination)).unwrap_err();
        assert_eq!(again.code, ErrorCode::OutputExists);
    }

    #[test]
    fn of_a_long_log_the_end_is_kept() {
        assert_eq!(tail("a\nb\nc\n".into(), 5), "b\nc\n");
        assert_eq!(tail("short".into(), 5), "short");
    }
}
