//! Makes a raw disk image for the demo: GPT, EFI system partition, NTFS volume with files.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use ce_tests::disk::{DiskBuilder, FileOnVolume};
use ce_tests::pattern::MIB;
use clap::Parser;

/// Make a raw image of a Windows-like disk: GPT with an EFI system partition, a reserved
/// partition, an NTFS volume with files of reproducible noise, and a recovery partition.
#[derive(Parser)]
struct Arguments {
    /// The image to make; must not exist.
    path: PathBuf,
    /// Size of the disk in MiB.
    #[arg(long, default_value_t = 1024)]
    size: u64,
    /// How much the files on the NTFS volume hold in all, in MiB.
    #[arg(long, default_value_t = 256)]
    files: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(
        arguments.size >= arguments.files + 192,
        "{} MiB of files do not fit",
        arguments.files
    );
    let files = (0..arguments.files.div_ceil(FILE_MIB))
        .map(|number| {
            let length = FILE_MIB.min(arguments.files - number * FILE_MIB) * MIB;
            // An odd length: the last cluster of the file is partly used.
            FileOnVolume::new(format!("file-{number:03}.bin"), length - number - 1, number)
        })
        .collect();
    let disk = DiskBuilder::windows_layout(arguments.size * MIB, files).build(&arguments.path)?;
    println!("{}: {} bytes", disk.path.display(), disk.size);
    for (number, place) in disk.partitions.iter().enumerate() {
        println!(
            "  partition {}: {} bytes at {}",
            number + 1,
            place.length,
            place.offset
        );
    }
    Ok(())
}

const FILE_MIB: u64 = 16;
