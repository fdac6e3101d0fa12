//! Volumes that mkntfs and ntfs-3g have made, read here and by other tools.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use tempfile::TempDir;

use super::blocker::{Blocker, VolumeState, survey};
use super::free::FreeMap;
use super::mask::{FreeSpaceMask, MaskError};
use super::meta::Storage;
use super::*;
use crate::block::{ExtentKind, MemoryDisk};
use crate::partition::{Attributes, ContentKind, Partition, PartitionType};
use crate::partition::{PartitionTable, Role};
use crate::units::SectorSizes;
use crate::volume::find_windows;

mod damage;
mod kinds;
mod masked;

/// A volume in a file.
struct Image {
    folder: TempDir,
    path: PathBuf,
}

impl Image {
    fn new(size: u64, cluster: u32, sector: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("volume");
        fs::File::create(&path).unwrap().set_len(size).unwrap();
        let (cluster, sector) = (cluster.to_string(), sector.to_string());
        let options = [
            "-q", "-F", "-Q", "-L", "Système", "-p", "0", "-H", "255", "-S", "63",
        ];
        let sizes = ["-c", &cluster, "-s", &sector];
        run(tool("mkntfs", "ntfs-3g")
            .args(options)
            .args(sizes)
            .arg(&path));
        Self { folder, path }
    }

    /// Puts `content` into a file of the root with ntfscp.
    fn put(&self, name: &str, content: &[u8]) {
        let source = self.folder.path().join("source");
        fs::write(&source, content).unwrap();
        run(tool("ntfscp", "ntfs-3g")
            .arg("-q")
            .arg(&self.path)
            .arg(source)
            .arg(name));
    }

    /// Mounts the volume for the time of a Python script, which finds itself in its root.
    fn populate(&self, script: &str) {
        let mount = self.folder.path().join("mount");
        fs::create_dir_all(&mount).unwrap();
        let shell = "ntfs-3g -o compression,streams_interface=windows \"$0\" \"$1\" || exit 99
            cd \"$1\" && python3 -c \"$2\"; code=$?; cd /; umount \"$1\"; exit $code";
        // Root mounts where nobody else sees it; others need ntfs-3g to be allowed to.
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = tool("unshare", "util-linux");
            command.args(["--mount", "sh"]);
            command
        } else {
            tool("sh", "dash")
        };
        command.args(["-c", shell]);
        let prelude = "import os, struct, random\n";
        command
            .arg(&self.path)
            .arg(&mount)
            .arg(format!("{prelude}{script}"));
        let output = command.output().unwrap();
        assert_ne!(
            output.status.code(),
            Some(99),
            "ntfs-3g cannot mount: it needs root and /dev/fuse (package ntfs-3g): {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn disk(&self) -> MemoryDisk {
        memory(&fs::read(&self.path).unwrap())
    }

    fn open(&self) -> NtfsVolume<MemoryDisk> {
        NtfsVolume::open(self.disk()).unwrap()
    }
}

/// A disk in memory whose zero pages are holes.
fn memory(bytes: &[u8]) -> MemoryDisk {
    let mut disk = MemoryDisk::new(ByteCount(bytes.len() as u64), SectorSizes::B512);
    for (page, bytes) in (0..).zip(bytes.chunks(4096)) {
        if bytes.iter().any(|byte| *byte != 0) {
            disk.write(ByteOffset(page * 4096), bytes);
        }
    }
    disk
}

fn bytes_of(disk: &impl BlockRead) -> Vec<u8> {
    let mut bytes = vec![0; disk.size().0 as usize];
    disk.read_at(ByteOffset::ZERO, &mut bytes).unwrap();
    bytes
}

/// The volume as the only partition of its disk.
fn partition(disk: &MemoryDisk, number: u32) -> Partition {
    let table = PartitionTable::read(disk).unwrap();
    Partition {
        number,
        start: ByteOffset::ZERO,
        length: disk.size(),
        kind: PartitionType::Mbr(7),
        role: Role::Primary,
        id: None,
        name: String::new(),
        attributes: Attributes::default(),
        content: table.content,
    }
}

fn tool(program: &str, package: &str) -> Command {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut candidates = std::env::split_paths(&folders)
        .chain(system)
        .map(|folder| folder.join(program));
    let found = candidates.find(|candidate| candidate.is_file());
    let Some(program) = found else {
        panic!("{program} is missing: install the package {package} (or run `make setup`)");
    };
    let mut command = Command::new(program);
    command.env("LC_ALL", "C.UTF-8");
    command
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What sleuthkit reads of the file whose record is `record`.
fn icat(volume: &Path, record: u64) -> Vec<u8> {
    let mut command = tool("icat", "sleuthkit");
    run(command
        .args(["-f", "ntfs"])
        .arg(volume)
        .arg(record.to_string()))
    .stdout
}

fn path(text: &str) -> WinPath {
    text.parse().unwrap()
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let words = (seed..).map(|word| word.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31));
    let bytes = words.flat_map(|word| word.wrapping_mul(word | 1).to_le_bytes());
    bytes.take(length).collect()
}

const LIMIT: ByteCount = ByteCount::mib(64);
