//! "The helper machine is small": peak memory does not grow with the disk.

use anyhow::{Result, ensure};
use ce_tests::agent::ce_agent;
use ce_tests::disk::DiskBuilder;
use ce_tests::pattern::{GIB, MIB, Pattern, TIB};
use ce_tests::tool::text;

#[test]
fn two_tib_are_exported_in_48_mib() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let size = 2 * TIB;
    let mut disk = DiskBuilder::new(size);
    // Data all over the disk: every part of the block allocation table is used.
    for number in 0..128 {
        disk = disk.pattern(Pattern::Dense, number, number * (size / 128), 2 * MIB);
    }
    let disk = disk.build(folder.path().join("disk"))?;
    let image = folder.path().join("image.vhdx");
    let run = ce_agent(["export", text(&disk.path)?, "--to", text(&image)?])?.expect_code(0)?;
    within_limit(run.cost.peak_memory)
}

#[test]
fn some_gib_are_hashed_and_exported_in_48_mib() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = DiskBuilder::new(3 * GIB)
        .pattern(Pattern::Dense, 1, 0, GIB / 2)
        .build(folder.path().join("disk"))?;
    let image = folder.path().join("image.vhdx");
    let arguments = ["export", text(&disk.path)?, "--to", text(&image)?, "--hash"];
    let run = ce_agent(arguments)?.expect_code(0)?;
    within_limit(run.cost.peak_memory)
}

fn within_limit(peak: u64) -> Result<()> {
    ensure!(
        peak <= 48 * MIB,
        "peak memory is {:.1} MiB",
        peak as f64 / MIB as f64
    );
    Ok(())
}
