//! Tables made by sgdisk, sfdisk and fdisk, which have to be read as they were asked for.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::NamedTempFile;

use super::*;
use crate::block::RawFile;

/// Runs `command`, which the Debian package `package` provides.
pub fn run(package: &str, command: &mut Command) {
    run_with_input(package, command, "");
}

fn run_with_input(package: &str, command: &mut Command, input: &str) {
    let program = command.get_program().to_owned();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut child = command
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("{program:?} cannot be run ({error}): install the package {package}")
        });
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{program:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn blank(mib: u64) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(mib << 20).unwrap();
    file
}

fn read_file(path: &Path) -> PartitionTable {
    PartitionTable::read(&RawFile::open(path, None).unwrap()).unwrap()
}

#[test]
fn a_gpt_of_sgdisk_is_read_as_it_was_asked_for() {
    let file = blank(64);
    let arguments = [
        "--disk-guid=12345678-9ABC-DEF0-1234-56789ABCDEF0",
        "--new=1:2048:+16M",
        "--typecode=1:EF00",
        "--change-name=1:Système EFI",
        "--new=2:0:+1M",
        "--typecode=2:0C01",
        "--new=4:0:0",
        "--typecode=4:2700",
        "--attributes=4:set:0",
        "--attributes=4:set:63",
        "--partition-guid=4:AAAAAAAA-BBBB-CCCC-DDDD-EEEEEEEEEEEE",
    ];
    run(
        "gdisk",
        Command::new("sgdisk").args(arguments).arg(file.path()),
    );
    let table = read_file(file.path());
    assert_eq!(table.findings, []);
    let id = table.id.unwrap().to_string();
    assert_eq!(id, "12345678-9abc-def0-1234-56789abcdef0");
    let last_usable = (64 << 11) - 34;
    assert_eq!(
        ranges(&table),
        [
            (1, 2048, 32_768),
            (2, 34_816, 2048),
            (4, 36_864, last_usable + 1 - 36_864)
        ]
    );
    let kinds: Vec<_> = table.partitions.iter().map(|p| p.kind).collect();
    assert_eq!(
        kinds,
        [
            PartitionType::EFI_SYSTEM,
            PartitionType::MICROSOFT_RESERVED,
            PartitionType::WINDOWS_RECOVERY
        ]
    );
    assert_eq!(table.partitions[0].name, "Système EFI");
    let last = &table.partitions[2];
    assert_eq!(
        last.id.unwrap().to_string(),
        "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
    );
    assert_eq!(
        last.attributes,
        Attributes {
            required: true,
            no_drive_letter: true,
            ..Attributes::default()
        }
    );
}

#[test]
fn a_gpt_of_sgdisk_in_a_file_that_has_grown_is_read() {
    let file = blank(8);
    run(
        "gdisk",
        Command::new("sgdisk")
            .arg("--largest-new=1")
            .arg(file.path()),
    );
    file.as_file().set_len(16 << 20).unwrap();
    let table = read_file(file.path());
    assert_eq!(table.partitions.len(), 1);
    let at = ByteOffset((8 << 20) - 512);
    let end = ByteOffset((16 << 20) - 512);
    assert!(
        table
            .findings
            .contains(&Finding::BackupNotAtEnd { at, end })
    );
}

#[test]
fn a_gpt_of_fdisk_in_sectors_of_4096_bytes_is_read() {
    let file = blank(64);
    let mut fdisk = Command::new("fdisk");
    fdisk.args(["-b", "4096"]).arg(file.path());
    run_with_input("fdisk", &mut fdisk, "g\nn\n1\n\n+16M\nn\n2\n\n+8M\nw\n");
    let table = read_file(file.path());
    assert_eq!(table.sector_size, SectorSize::B4096);
    assert_eq!(table.findings, []);
    assert_eq!(ranges(&table), [(1, 256, 4096), (2, 4352, 2048)]);
}

#[test]
fn an_mbr_of_sfdisk_with_logical_partitions_is_read_as_it_was_asked_for() {
    let file = blank(64);
    let partitions = [
        (1, 2048, 8192, "7, bootable"),
        (2, 10_240, 2048, "27"),
        (3, 12_288, 100_000, "f"),
        (5, 14_336, 4096, "7"),
        (6, 20_480, 4096, "b"),
        (7, 26_624, 1000, "83"),
    ];
    let mut script = "label: dos\nlabel-id: 0x8badf00d\n".to_owned();
    for (number, start, size, kind) in partitions {
        script += &format!("/dev/sda{number} : start={start}, size={size}, type={kind}\n");
    }
    let mut sfdisk = Command::new("sfdisk");
    run_with_input("fdisk", sfdisk.arg("--no-reread").arg(file.path()), &script);
    let table = read_file(file.path());
    assert_eq!(table.findings, []);
    assert_eq!(table.id.unwrap().to_string(), "8badf00d");
    let asked_for = partitions.map(|(number, start, size, _)| (number, start, size));
    assert_eq!(ranges(&table), asked_for);
    let kinds: Vec<_> = table.partitions.iter().map(|p| p.kind).collect();
    assert_eq!(
        kinds,
        [0x07, 0x27, 0x0F, 0x07, 0x0B, 0x83].map(PartitionType::Mbr)
    );
    let active = table.partitions.iter().filter(|p| p.attributes.active);
    assert_eq!(active.map(|p| p.number).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_hybrid_mbr_of_sgdisk_is_told() {
    let file = blank(16);
    let arguments = ["--new=1:2048:+4M", "--new=2:0:+4M", "--hybrid=1"];
    run(
        "gdisk",
        Command::new("sgdisk").args(arguments).arg(file.path()),
    );
    let table = read_file(file.path());
    assert_eq!(table.scheme, Scheme::Gpt);
    assert_eq!(table.findings, [Finding::HybridMbr { partitions: 1 }]);
}
