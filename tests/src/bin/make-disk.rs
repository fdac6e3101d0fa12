//! Makes a raw disk image for the demo: GPT, EFI system partition, NTFS volume with files.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use ce_tests::disk::{DiskBuilder, FileContent, FileOnVolume, Step};
use ce_tests::guest::PhonyWindows;
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
    /// Make one that passes for a virtual desktop from vSphere, with as many empty files.
    #[arg(long, value_name = "COUNT", conflicts_with = "files")]
    guest: Option<usize>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(count) = arguments.guest {
        let empty = |number: usize| {
            let path = format!("Users/{}/file-{number}", number / 1000);
            Step::File(path, FileContent::Bytes(Vec::new()))
        };
        let guest = (0..count).fold(PhonyWindows::vda_on_vsphere(), |guest, number| {
            guest.step(empty(number))
        });
        let disk = guest.disk(arguments.size * MIB)?.build(&arguments.path)?;
        println!("{}: {} bytes", disk.path.display(), disk.size);
        return Ok(());
    }
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
