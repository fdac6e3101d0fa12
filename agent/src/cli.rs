//! The command line.

use std::path::PathBuf;

use ce_disk::units::{BlockSize, SectorSize};
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
    /// Check, print and change registry hives
    #[command(subcommand)]
    Hive(HiveCommand),
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
    /// Run a job as the orchestrator words it
    Run(RunArgs),
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

    /// Where to write the image
    #[arg(long, value_name = "DEST")]
    pub to: String,

    /// Compute the MD5 of the disk while it is read
    #[arg(long)]
    pub hash: bool,

    /// Format of the image
    #[arg(long, value_enum, default_value_t = Format::Vhdx)]
    pub format: Format,

    /// Size of a VHDX payload block, a power of two from 1M to 256M; PVS likes 32M [default: 2M]
    #[arg(long, value_name = "SIZE", value_parser = block_size)]
    pub block_size: Option<BlockSize>,

    /// Replace the image if it exists
    #[arg(long)]
    pub overwrite: bool,
}

/// The image formats.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// Dynamic VHDX
    Vhdx,
    /// Fixed VHD, its size rounded up to a whole MiB (what Azure takes)
    Vhd,
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

/// `run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// The job: a JSON file, or - for standard input
    pub request: PathBuf,

    /// The disk to run it on, in place of the one that the request selects
    #[arg(long)]
    pub disk: Option<PathBuf>,

    /// Replace the image if it exists
    #[arg(long)]
    pub overwrite: bool,
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

fn sector_size(text: &str) -> Result<SectorSize, String> {
    let size = text.parse().ok().and_then(SectorSize::from_bytes);
    size.ok_or_else(|| "sectors have 512 or 4096 bytes".to_owned())
}

/// Reads `32`, `32M` or `32MiB`.
fn block_size(text: &str) -> Result<BlockSize, String> {
    let mib = text
        .strip_suffix("MiB")
        .or_else(|| text.strip_suffix('M'))
        .unwrap_or(text);
    let bytes = mib
        .parse::<u32>()
        .ok()
        .and_then(|mib| mib.checked_mul(1 << 20));
    let size = bytes.and_then(BlockSize::from_bytes);
    size.ok_or_else(|| "blocks are 1M, 2M, 4M and so on up to 256M".to_owned())
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
