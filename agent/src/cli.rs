//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use ce_disk::export::Md5Digest;
use ce_disk::sink::smb::{SmbDialect, SmbEncryption, SmbSecurity, SmbTimeouts};
use ce_disk::units::{BlockSize, ByteCount, SectorSize};
use ce_platform::Platform;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Exports, prepares and publishes Windows disk images.
#[derive(Debug, Parser)]
#[command(
    name = "ce-agent",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
#[command(
    after_help = "Exit codes: 0 complete, 1 failed, 2 wrong usage, 3 refused (the disk is \
                        untouched), 4 integrity mismatch, 130 cancelled."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// How to report it.
    #[command(flatten)]
    pub output: OutputOptions,
}

/// How a command reports, whatever it does.
#[derive(Args, Clone, Copy, Debug)]
pub struct OutputOptions {
    /// Print one JSON object a line on standard output: progress, then the finished job
    #[arg(long, global = true)]
    pub json: bool,

    /// Print no progress
    #[arg(long, short, global = true)]
    pub quiet: bool,

    /// Log what is done to standard error; twice for details
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Work on a disk.
    #[command(flatten)]
    Job(JobCommand),
    /// Look through, check and collect driver packages
    #[command(subcommand)]
    Drivers(DriversCommand),
    /// Serve jobs of a Connector, over a session that is opened from here
    Daemon(DaemonArgs),
    /// Check, print and change registry hives
    #[command(subcommand)]
    Hive(HiveCommand),
    /// Tell what a prepare looks for and does, or check the catalogues that say so
    #[command(subcommand)]
    Catalog(CatalogCommand),
    /// Finish or discard a commit to a disk that was cut short
    Recover(RecoverArgs),
}

/// The commands that work on a disk.
#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// Write the disk as an image, in one pass
    Export(ExportArgs),
    /// Compute the MD5 of the disk's content
    Hash(HashArgs),
    /// Show partition tables, partitions and what each holds
    Inspect(InspectArgs),
    /// Make the Windows on the disk fit for another platform, all or nothing
    Prepare(PrepareArgs),
    /// Write a prepared disk as an image that Citrix Provisioning streams
    Publish(PublishArgs),
    /// Prepare the disk, and write what it becomes as an image that Citrix Provisioning streams
    PrepareAndPublish(PrepareAndPublishArgs),
    /// Bring the Windows on an MBR disk that a BIOS starts to start by UEFI, in place, all or nothing
    ConvertToUefi(ConvertArgs),
    /// Run a job as the orchestrator words it
    Run(RunArgs),
}

/// `daemon`.
#[derive(Args, Debug)]
pub struct DaemonArgs {
    /// Configuration [default: what ce.config= on the kernel's command line names, what the
    /// platform keeps for this machine, or /etc/ce-agent/config.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// A Connector, HOST or HOST:PORT, in place of those in the configuration; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    pub connector: Vec<String>,

    /// The CA that vouches for the Connector, in PEM
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,

    /// Where jobs and results are kept [default: $CE_STATE_DIR, or /var/lib/ce-agent for root]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Which records are logged, such as info or ce_agent=debug
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

/// The disk that is read.
#[derive(Args, Debug)]
pub struct DiskArgs {
    /// The disk: a raw file, a block device, a VHDX or a VHD
    pub disk: PathBuf,

    /// Sector size of a raw file [default: 4096 if its partition table says so, else 512]
    #[arg(long, value_name = "BYTES", value_parser = sector_size)]
    pub sector_size: Option<SectorSize>,

    /// Take the file for a raw disk, even if it looks like an image
    #[arg(long)]
    pub raw: bool,
}

/// `export`.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// What to read.
    #[command(flatten)]
    pub disk: DiskArgs,

    /// Where to write the image: a path, or smb://host/share/folder/name.vhdx
    #[arg(long, value_name = "DEST")]
    pub to: String,

    /// Compute the MD5 of the disk while it is read
    #[arg(long)]
    pub hash: bool,

    /// Format of the image
    #[arg(long, value_enum, default_value_t = Format::Vhdx)]
    pub format: Format,

    /// What becomes of the free space of NTFS volumes
    #[arg(long, value_enum, default_value_t = FreeSpace::Copy)]
    pub free_space: FreeSpace,

    /// Size of a VHDX payload block, a power of two from 1M to 256M; PVS likes 32M [default: 2M]
    #[arg(long, value_name = "SIZE", value_parser = block_size)]
    pub block_size: Option<BlockSize>,

    /// What becomes of images.
    #[command(flatten)]
    pub image: ImageArgs,

    /// How a share is reached.
    #[command(flatten)]
    pub smb: SmbArgs,
}

/// `publish`.
#[derive(Args, Debug)]
pub struct PublishArgs {
    /// What to read.
    #[command(flatten)]
    pub disk: DiskArgs,

    /// Where the disk is streamed: azure, gcp, vsphere or xenserver [default: the platform whose tools
    /// are in it]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<Platform>,

    /// What is written.
    #[command(flatten)]
    pub output: PublishedArgs,
}

/// `prepare-and-publish`.
#[derive(Args, Debug)]
pub struct PrepareAndPublishArgs {
    /// What becomes of the disk.
    #[command(flatten)]
    pub prepare: PrepareArgs,

    /// What is written.
    #[command(flatten)]
    pub output: PublishedArgs,

    /// Prepare the disk also if the image cannot be written
    #[arg(long)]
    pub keep_prepared: bool,
}

/// An image for Citrix Provisioning.
#[derive(Args, Debug)]
pub struct PublishedArgs {
    /// Where to write the image, NAME.vhdx: a path, or smb://host/share/folder/NAME.vhdx in the store
    /// of Provisioning
    #[arg(long, value_name = "DEST")]
    pub to: String,

    /// Compute the MD5 of what is written
    #[arg(long)]
    pub hash: bool,

    /// What becomes of the free space of NTFS volumes
    #[arg(long, value_enum, default_value_t = FreeSpace::Copy)]
    pub free_space: FreeSpace,

    /// What becomes of images.
    #[command(flatten)]
    pub image: ImageArgs,

    /// How a share is reached.
    #[command(flatten)]
    pub smb: SmbArgs,
}

/// What becomes of an image that is there, that is unfinished, and that is done.
#[derive(Args, Clone, Copy, Debug)]
pub struct ImageArgs {
    /// Replace the image if it exists
    #[arg(long)]
    pub overwrite: bool,

    /// Go on with what an earlier run left; leave what a later one can go on with
    #[arg(long)]
    pub resume: bool,

    /// Read the image back and compare its content before it gets its name
    #[arg(long)]
    pub verify: bool,

    /// Save a checkpoint after as much data, in whole MiB [default: 256M]
    #[arg(long, value_name = "SIZE", value_parser = whole_mib)]
    pub checkpoint_every: Option<ByteCount>,
}

/// How a share is reached.
#[derive(Args, Debug)]
pub struct SmbArgs {
    /// File with the credentials for a share (JSON: domain, username, password), closed to other
    /// users [default: the file that $CE_SMB_CREDENTIALS names]
    #[arg(long, value_name = "FILE")]
    pub smb_credentials: Option<PathBuf>,

    /// Whether what is sent to a share must be encrypted
    #[arg(long, value_enum, default_value_t = Encryption::Required)]
    pub smb_encryption: Encryption,

    /// The oldest dialect that a server may speak
    #[arg(long, value_enum, default_value_t = Dialect::Smb3_11, value_name = "VERSION")]
    pub smb_min_dialect: Dialect,

    /// How long a server may take to answer before it counts as lost
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
          value_parser = clap::value_parser!(u16).range(1..=600))]
    pub smb_timeout: u16,
}

impl SmbArgs {
    /// How well connections have to be protected.
    pub fn security(&self) -> SmbSecurity {
        SmbSecurity {
            oldest_dialect: match self.smb_min_dialect {
                Dialect::Smb2_02 => SmbDialect::Smb2_02,
                Dialect::Smb2_10 => SmbDialect::Smb2_10,
                Dialect::Smb3_00 => SmbDialect::Smb3_00,
                Dialect::Smb3_02 => SmbDialect::Smb3_02,
                Dialect::Smb3_11 => SmbDialect::Smb3_11,
            },
            encryption: match self.smb_encryption {
                Encryption::Required => SmbEncryption::Required,
                Encryption::IfDemanded => SmbEncryption::IfDemanded,
            },
        }
    }

    /// How long to wait.
    pub fn timeouts(&self) -> SmbTimeouts {
        let answer = Duration::from_secs(self.smb_timeout.into());
        SmbTimeouts {
            connect: answer.min(SmbTimeouts::default().connect),
            answer,
        }
    }
}

/// Whether connections are encrypted. They are signed in any case.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Encryption {
    /// Only if the server demands it
    IfDemanded,
    /// Always
    Required,
}

/// Versions of SMB.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Dialect {
    /// Windows Vista, Server 2008
    #[value(name = "2.0.2")]
    Smb2_02,
    /// Windows 7, Server 2008 R2
    #[value(name = "2.1")]
    Smb2_10,
    /// Windows 8, Server 2012
    #[value(name = "3.0")]
    Smb3_00,
    /// Windows 8.1, Server 2012 R2
    #[value(name = "3.0.2")]
    Smb3_02,
    /// Windows 10, Server 2016
    #[value(name = "3.1.1")]
    Smb3_11,
}

/// The image formats.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// Dynamic VHDX
    Vhdx,
    /// Fixed VHD, its size rounded up to a whole MiB (what Azure takes)
    Vhd,
}

/// What becomes of free space.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum FreeSpace {
    /// It is copied: the image is the disk, byte for byte
    Copy,
    /// It is left out: zeros in the image, and nothing of deleted files. Only volumes that Windows
    /// shut down cleanly, without BitLocker
    Skip,
}

/// `hash`.
#[derive(Args, Debug)]
pub struct HashArgs {
    /// What to read.
    #[command(flatten)]
    pub disk: DiskArgs,
}

/// `inspect`.
#[derive(Args, Debug)]
pub struct InspectArgs {
    /// What to read.
    #[command(flatten)]
    pub disk: DiskArgs,
}

/// `prepare`.
#[derive(Args, Debug)]
pub struct PrepareArgs {
    /// What to change: a raw file or a block device; with --plan also a VHDX or VHD
    #[command(flatten)]
    pub disk: DiskArgs,

    /// Where it is to run: aws, azure, gcp, nutanix, vsphere or xenserver
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Platform,

    /// Change nothing unless the disk has this MD5
    #[arg(long, value_name = "HEX", value_parser = md5)]
    pub md5: Option<Md5Digest>,

    /// How much of the disk, from its start, the MD5 covers [default: all of it, but for zeros that
    /// a cloud has added]
    #[arg(long, value_name = "BYTES", requires = "md5")]
    pub hashed_bytes: Option<u64>,

    /// A folder with driver packages, in it or below it, of which those that the target needs are put
    /// in; may be repeated
    #[arg(long, value_name = "DIR")]
    pub drivers: Vec<PathBuf>,

    /// What is wanted beyond the platform: a JSON file with provisioningType, xdReconfigure,
    /// domainUnjoin, installMisa, network
    #[arg(long, value_name = "FILE")]
    pub options: Option<PathBuf>,

    /// Bring a disk that starts by BIOS to start by UEFI first, in the same change; it starts by BIOS
    /// no more
    #[arg(long)]
    pub convert_to_uefi: bool,

    /// Print every change with its reason, and write nothing
    #[arg(long)]
    pub plan: bool,

    /// Where changes and the journal are kept until they are on the disk [default: $CE_STATE_DIR,
    /// else /var/lib/ce-agent for root and $XDG_STATE_HOME/ce-agent for others]
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
}

/// `convert-to-uefi`.
#[derive(Args, Debug)]
pub struct ConvertArgs {
    /// What to change: a raw file or a block device; with --plan also a VHDX or VHD
    #[command(flatten)]
    pub disk: DiskArgs,

    /// Print every change with its reason, and write nothing
    #[arg(long)]
    pub plan: bool,

    /// Where changes and the journal are kept until they are on the disk [default: as for prepare]
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
}

fn md5(text: &str) -> Result<Md5Digest, String> {
    Md5Digest::from_hex(text).ok_or_else(|| "an MD5 has 32 hexadecimal digits".to_owned())
}

/// `run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// The job: a JSON file, or - for standard input
    pub request: PathBuf,

    /// The disk to run it on, in place of the one that the request selects
    #[arg(long)]
    pub disk: Option<PathBuf>,

    /// How long to wait for a disk that is not attached yet
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub disk_wait: u32,

    /// File with the credentials that the request knows as ID
    #[arg(long, value_name = "ID=FILE", value_parser = named_file)]
    pub credential: Vec<(String, PathBuf)>,

    /// For a prepare: a folder with driver packages, in it or below it, of which those that the target needs are put
    /// in; may be repeated
    #[arg(long, value_name = "DIR")]
    pub drivers: Vec<PathBuf>,

    /// Where a prepare keeps changes and journal [default: as for prepare]
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,

    /// What becomes of images.
    #[command(flatten)]
    pub image: ImageArgs,

    /// How a share is reached.
    #[command(flatten)]
    pub smb: SmbArgs,
}

fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((id, file)) if !id.is_empty() && !file.is_empty() => Ok((id.into(), file.into())),
        _ => Err("expected ID=FILE".into()),
    }
}

/// Reads `32`, `32M` or `32MiB`; not 0, and at most a TiB.
fn whole_mib(text: &str) -> Result<ByteCount, String> {
    let size = mib(text).filter(|mib| (1..=1 << 20).contains(mib));
    size.map(|mib| ByteCount::mib(mib.into()))
        .ok_or_else(|| "a size is a number of MiB, from 1M to 1048576M".to_owned())
}

/// `recover`.
#[derive(Args, Debug)]
pub struct RecoverArgs {
    /// The folder with the journal [default: $CE_STATE_DIR, else /var/lib/ce-agent for root and
    /// $XDG_STATE_HOME/ce-agent for others]
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,

    /// Where the disk of the journal is now [default: where it was]
    #[arg(long)]
    pub disk: Option<PathBuf>,
}

/// `drivers`.
#[derive(Debug, Subcommand)]
pub enum DriversCommand {
    /// Say what each package is for: devices, Windows versions, machines; and who signed it
    List(DriversFolderArgs),
    /// Compare every file of every package with its catalogue; exit code 1 if one does not fit
    Check(DriversFolderArgs),
    /// Put the packages of a folder, archive, disc or installer into a bundle
    Import(DriversImportArgs),
}

/// `drivers list`, `drivers check`.
#[derive(Args, Debug)]
pub struct DriversFolderArgs {
    /// A bundle, or any folder with INF files in it or below it
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}

/// `drivers import`.
#[derive(Args, Debug)]
pub struct DriversImportArgs {
    /// A folder, or a ZIP, TAR, TAR.GZ, GOO, CAB, ISO or MSI file
    pub source: PathBuf,

    /// The platform that the drivers are for: aws, azure, gcp, nutanix, vsphere, xenserver
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Platform,

    /// The bundle; it is made if it is not there
    #[arg(long, value_name = "DIR")]
    pub into: PathBuf,
}

/// `hive`.
#[derive(Debug, Subcommand)]
pub enum HiveCommand {
    /// Look for broken references, overlaps and wrong counts
    Check(HiveCheckArgs),
    /// Print a key and all below it as .reg text
    Export(HiveExportArgs),
    /// Make the changes that a .reg file lists
    Import(HiveImportArgs),
}

/// `hive check`.
#[derive(Args, Debug)]
pub struct HiveCheckArgs {
    /// The hive; its logs are looked for beside it
    pub file: PathBuf,
}

/// `hive export`.
#[derive(Args, Debug)]
pub struct HiveExportArgs {
    /// The hive; its logs are looked for beside it
    pub file: PathBuf,

    /// The key, below the hive's root [default: all]
    #[arg(default_value = "", hide_default_value = true)]
    pub key: String,

    /// Put this before every key, such as HKEY_LOCAL_MACHINE\SYSTEM
    #[arg(long, default_value = "", hide_default_value = true)]
    pub prefix: String,

    /// Print UTF-16 with a byte order mark, as regedit does, and not UTF-8
    #[arg(long)]
    pub utf16: bool,
}

/// `hive import`.
#[derive(Args, Debug)]
pub struct HiveImportArgs {
    /// The hive; its logs are looked for beside it
    pub file: PathBuf,

    /// The changes: a .reg file, in UTF-8 or UTF-16
    pub edits: PathBuf,

    /// Take this away from the start of every key, such as HKEY_LOCAL_MACHINE\SYSTEM
    #[arg(long, default_value = "", hide_default_value = true)]
    pub prefix: String,

    /// Write the changed hive here, and leave FILE as it is
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// `catalog`.
#[derive(Debug, Subcommand)]
pub enum CatalogCommand {
    /// Tell in plain words what a prepare looks for and does, and why
    Show(CatalogShowArgs),
    /// Look for what is wrong in the catalogues, and for what contradicts each other
    Check(CatalogCheckArgs),
}

/// `catalog show`.
#[derive(Args, Debug)]
pub struct CatalogShowArgs {
    /// Where the image comes from [default: from any of the others]
    #[arg(long, value_name = "PLATFORM")]
    pub from: Option<Platform>,

    /// Where it is to run: aws, azure, gcp, nutanix, vsphere or xenserver
    #[arg(long, value_name = "PLATFORM")]
    pub to: Platform,
}

/// `catalog check`.
#[derive(Args, Debug)]
pub struct CatalogCheckArgs {
    /// A folder with edited catalogues, laid out as platform-drivers/catalog is [default: those
    /// that are built in]
    pub dir: Option<PathBuf>,
}

fn sector_size(text: &str) -> Result<SectorSize, String> {
    let size = text.parse().ok().and_then(SectorSize::from_bytes);
    size.ok_or_else(|| "sectors have 512 or 4096 bytes".to_owned())
}

/// Reads `32`, `32M` or `32MiB`.
fn block_size(text: &str) -> Result<BlockSize, String> {
    let bytes = mib(text).and_then(|mib| mib.checked_mul(1 << 20));
    let size = bytes.and_then(BlockSize::from_bytes);
    size.ok_or_else(|| "blocks are 1M, 2M, 4M and so on up to 256M".to_owned())
}

fn mib(text: &str) -> Option<u32> {
    let number = text
        .strip_suffix("MiB")
        .or_else(|| text.strip_suffix('M'))
        .unwrap_or(text);
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_and_named_files_are_read_or_refused() {
        assert_eq!(whole_mib("16M"), Ok(ByteCount::mib(16)));
        assert!(whole_mib("0").is_err() && whole_mib("-1").is_err() && whole_mib("2G").is_err());
        assert_eq!(named_file("7=/a=b"), Ok(("7".into(), "/a=b".into())));
        assert!(named_file("7").is_err() && named_file("=x").is_err() && named_file("7=").is_err());
    }

    #[test]
    fn block_sizes_are_powers_of_two_in_mib() {
        assert_eq!(
            block_size("32M"),
            Ok(BlockSize::from_bytes(32 << 20).unwrap())
        );
        assert_eq!(
            block_size("1MiB"),
            Ok(BlockSize::from_bytes(1 << 20).unwrap())
        );
        for wrong in [
            "",
            "M",
            "3M",
            "0M",
            "512M",
            "4096M",
            "7",
            "2K",
            "-2M",
            "99999999999M",
        ] {
            assert!(block_size(wrong).is_err(), "{wrong}");
        }
    }
}
