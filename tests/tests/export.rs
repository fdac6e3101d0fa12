//! "I export a disk and get an image that every reader reads the same."
//!
//! Each image is opened by qemu and by libvhdi, and the hash that was reported is compared with
//! what `md5sum` says of the source and libvhdi of the image.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use ce_tests::agent::{Finished, ce_agent};
use ce_tests::disk::{Content, DiskBuilder, FileOnVolume, Role, SectorSize, Table};
use ce_tests::oracle::{self, Comparison, Format};
use ce_tests::pattern::{GIB, MIB, Noise, Pattern, TIB, write_noise};
use ce_tests::tool::{CP, text};
use tempfile::TempDir;

#[test]
fn disks_of_every_awkward_size_are_exported_byte_for_byte() -> Result<()> {
    // One sector; odd numbers of sectors; a MiB and its neighbours; a partial last block of 2 MiB.
    for size in [
        512,
        1536,
        MIB - 512,
        MIB,
        MIB + 512,
        7 * MIB + 1024,
        32 * MIB,
        33 * MIB - 512,
    ] {
        let desk = Desk::new()?;
        DiskBuilder::filled(size, Pattern::Dense, size).build(&desk.disk)?;
        desk.export_and_check(&[])?;
    }
    Ok(())
}

#[test]
fn a_disk_with_partitions_and_file_systems_is_exported_byte_for_byte() -> Result<()> {
    let desk = Desk::new()?;
    let files = vec![FileOnVolume::new("pagefile.sys", 24 * MIB + 1, 9)];
    DiskBuilder::windows_layout(420 * MIB, files).build(&desk.disk)?;
    desk.export_and_check(&[])?;
    Ok(())
}

#[test]
fn a_disk_of_4096_byte_sectors_is_exported_byte_for_byte() -> Result<()> {
    let desk = Desk::new()?;
    DiskBuilder::new(96 * MIB + 4096)
        .sector_size(SectorSize::B4096)
        .table(Table::Gpt)
        .partition(
            Role::BasicData,
            64 * MIB,
            Content::Pattern(Pattern::HalfZero, 4),
        )
        .build(&desk.disk)?;
    // qemu opens no VHDX of 4096-byte sectors; libvhdi and our own reader remain.
    let run = desk.export()?;
    let expected = oracle::md5_of_file(&desk.disk)?;
    assert_eq!(run.md5_hash()?, expected);
    let digest = oracle::libvhdi_digest(&desk.image)?;
    assert_eq!((&digest.md5, digest.length), (&expected, 96 * MIB + 4096));
    let hash = ce_agent(["hash", text(&desk.image)?, "--json"])?
        .expect_code(0)?
        .md5_hash()?;
    assert_eq!(hash, expected);
    assert_eq!(sector_size_of_vhdx(&desk.image)?, 4096);
    // Told otherwise, the same bytes become an image of 512-byte sectors.
    desk.export_and_check(&["--overwrite", "--sector-size", "512"])?;
    assert_eq!(sector_size_of_vhdx(&desk.image)?, 512);
    Ok(())
}

#[test]
fn data_on_both_sides_of_four_gib_stays_where_it_was() -> Result<()> {
    let desk = Desk::new()?;
    DiskBuilder::new(4 * GIB + 5 * MIB + 1536)
        .pattern(Pattern::Dense, 1, 0, 3 * MIB)
        .pattern(Pattern::Dense, 2, 4 * GIB - MIB, 2 * MIB)
        .pattern(Pattern::Dense, 3, 4 * GIB + 5 * MIB, 1536)
        .build(&desk.disk)?;
    desk.export_and_check(&[])?;
    Ok(())
}

#[test]
fn a_disk_of_zeros_becomes_a_small_image_whether_they_were_written_or_not() -> Result<()> {
    let mut images = Vec::new();
    for written in [false, true] {
        let desk = Desk::new()?;
        DiskBuilder::new(64 * MIB).build(&desk.disk)?;
        if written {
            fs::write(&desk.disk, vec![0; usize::try_from(64 * MIB)?])?;
        }
        desk.export_and_check(&[])?;
        let length = fs::metadata(&desk.image)?.len();
        assert!(length <= 8 * MIB, "an empty disk became {length} bytes");
        images.push(fs::read(&desk.image)?);
    }
    assert!(
        images[0] == images[1],
        "the images of holes and of written zeros differ"
    );
    Ok(())
}

#[test]
fn three_tib_with_a_little_data_are_exported_without_reading_the_holes() -> Result<()> {
    let desk = Desk::new()?;
    let size = 3 * TIB;
    let stretches = [
        (0, MIB),
        (TIB + 3 * MIB, 4 * MIB),
        (2 * TIB - MIB, 2 * MIB),
        (size - MIB, MIB),
    ];
    let mut disk = DiskBuilder::new(size);
    for (offset, length) in stretches {
        disk = disk.pattern(Pattern::Dense, offset + 1, offset, length);
    }
    disk.build(&desk.disk)?;

    let run = ce_agent(desk.export_arguments()?)?.expect_code(0)?;
    let job = run.job()?;
    assert_eq!(job["artifacts"]["virtualSizeBytes"], size);
    oracle::qemu_check(&desk.image)?;
    assert_eq!(oracle::qemu_info(&desk.image)?.virtual_size, size);
    // Each stretch with a MiB of nothing before and after, as far as the disk goes.
    let raw = File::open(&desk.disk)?;
    let mut looked_at = Vec::new();
    let mut expected = Vec::new();
    for (offset, length) in stretches {
        let start = offset.saturating_sub(MIB);
        let end = (offset + length + MIB).min(size);
        let mut bytes = vec![0; usize::try_from(end - start)?];
        raw.read_exact_at(&mut bytes, start)?;
        looked_at.push((start, end - start));
        expected.push(oracle::md5_of_bytes(&bytes)?);
    }
    let digests = oracle::libvhdi_digests_of(&desk.image, &looked_at)?;
    let found: Vec<String> = digests.into_iter().map(|digest| digest.md5).collect();
    assert_eq!(found, expected);
    let allocated = fs::metadata(&desk.image)?.blocks() * 512;
    assert!(
        allocated <= 128 * MIB,
        "{allocated} bytes for 8 MiB of data"
    );
    Ok(())
}

#[test]
fn the_same_disk_gives_the_same_file_every_time_sparse_or_not() -> Result<()> {
    let first = Desk::new()?;
    DiskBuilder::filled(80 * MIB + 512, Pattern::MostlyHoles, 21).build(&first.disk)?;
    let second = Desk::new()?;
    CP.run([text(&first.disk)?, "--sparse=never", text(&second.disk)?])?;
    let blocks = |path: &Path| Ok::<_, anyhow::Error>(fs::metadata(path)?.blocks());
    ensure!(
        blocks(&first.disk)? < blocks(&second.disk)?,
        "the copy should have no holes"
    );

    first.export_and_check(&[])?;
    second.export_and_check(&[])?;
    let once = fs::read(&first.image)?;
    assert!(
        once == fs::read(&second.image)?,
        "holes in the source changed the image"
    );
    ce_agent(first.export_arguments()?)?
        .with(["--overwrite"])
        .expect_code(0)?;
    assert!(
        once == fs::read(&first.image)?,
        "a second export gave another file"
    );
    ce_agent(first.export_arguments()?)?
        .with(["--overwrite", "--hash"])
        .expect_code(0)?;
    assert!(once == fs::read(&first.image)?, "hashing changed the image");
    Ok(())
}

#[test]
fn two_disks_that_differ_in_a_byte_have_different_identities() -> Result<()> {
    let mut identities = Vec::new();
    for byte in [1, 2] {
        let desk = Desk::new()?;
        DiskBuilder::new(8 * MIB).build(&desk.disk)?;
        OpenOptions::new()
            .write(true)
            .open(&desk.disk)?
            .write_all_at(&[byte], 5 * MIB)?;
        desk.export_and_check(&[])?;
        let report = oracle::vhdiinfo(&desk.image)?;
        let identity: Vec<String> = report
            .lines()
            .filter(|line| line.contains("Identifier"))
            .map(str::to_owned)
            .collect();
        ensure!(
            !identity.is_empty(),
            "vhdiinfo shows no identifier: {report}"
        );
        identities.push(identity);
    }
    assert_ne!(identities[0], identities[1]);
    Ok(())
}

#[test]
fn a_chosen_block_size_is_used_and_the_content_stays() -> Result<()> {
    for (argument, bytes) in [("1M", MIB), ("32M", 32 * MIB), ("256M", 256 * MIB)] {
        let desk = Desk::new()?;
        DiskBuilder::filled(70 * MIB, Pattern::HalfZero, 6).build(&desk.disk)?;
        desk.export_and_check(&["--block-size", argument])?;
        assert_eq!(block_size_of_vhdx(&desk.image)?, bytes);
    }
    Ok(())
}

#[test]
fn a_vhd_has_whole_mebibytes_and_the_content_of_the_disk() -> Result<()> {
    for size in [512, 3 * MIB, 37 * MIB + 1536] {
        let mut desk = Desk::new()?;
        desk.image.set_extension("vhd");
        DiskBuilder::filled(size, Pattern::HalfZero, size).build(&desk.disk)?;
        let run = ce_agent(desk.export_arguments()?)?
            .with(["--hash", "--format", "vhd"])
            .expect_code(0)?;
        let rounded = size.next_multiple_of(MIB);
        let job = run.job()?;
        assert_eq!(job["artifacts"]["virtualSizeBytes"], rounded);
        // What a reader of the image sees: the disk, then zeros up to the whole MiB.
        OpenOptions::new()
            .write(true)
            .open(&desk.disk)?
            .set_len(rounded)?;
        assert_eq!(run.md5_hash()?, oracle::md5_of_file(&desk.disk)?);
        let compared = oracle::qemu_compare((&desk.disk, Format::Raw), (&desk.image, Format::Vhd))?;
        assert_eq!(compared, Comparison::Identical);
        let digest = oracle::libvhdi_digest(&desk.image)?;
        assert_eq!((digest.md5, digest.length), (run.md5_hash()?, rounded));
    }
    Ok(())
}

#[test]
fn images_by_other_programs_are_sources_like_any_disk() -> Result<()> {
    let sources = [
        (Format::Vhdx, "subformat=dynamic"),
        (Format::Vhdx, "subformat=dynamic,block_size=1M"),
        (Format::Vhdx, "subformat=fixed"),
        (Format::Vhd, "subformat=dynamic,force_size=on"),
        (Format::Vhd, "subformat=fixed,force_size=on"),
    ];
    let folder = tempfile::tempdir()?;
    let raw = folder.path().join("raw");
    DiskBuilder::filled(45 * MIB, Pattern::HalfZero, 12).build(&raw)?;
    let expected = oracle::md5_of_file(&raw)?;
    for (format, options) in sources {
        let mut desk = Desk::new()?;
        desk.disk
            .set_extension(if format == Format::Vhd { "vhd" } else { "vhdx" });
        oracle::qemu_convert((&raw, Format::Raw), (&desk.disk, format), options)?;

        let hash = ce_agent(["hash", text(&desk.disk)?, "--json"])?
            .expect_code(0)?
            .md5_hash()?;
        assert_eq!(hash, expected, "hash of {format:?} {options}");
        let hash = desk.export()?.md5_hash()?;
        assert_eq!(hash, expected, "export of {format:?} {options}");
        oracle::qemu_check(&desk.image)?;
        let compared = oracle::qemu_compare((&raw, Format::Raw), (&desk.image, Format::Vhdx))?;
        assert_eq!(compared, Comparison::Identical, "{format:?} {options}");
    }
    Ok(())
}

#[test]
fn our_own_images_are_read_back_to_the_same_file() -> Result<()> {
    let desk = Desk::new()?;
    DiskBuilder::filled(21 * MIB + 512, Pattern::HalfZero, 30).build(&desk.disk)?;
    desk.export_and_check(&[])?;
    let again = Desk {
        disk: desk.image.clone(),
        ..Desk::new()?
    };
    again.export()?;
    assert!(
        fs::read(&desk.image)? == fs::read(&again.image)?,
        "an image of an image differs"
    );
    Ok(())
}

#[test]
fn the_source_is_neither_written_nor_touched() -> Result<()> {
    let desk = Desk::new()?;
    DiskBuilder::filled(9 * MIB, Pattern::Dense, 40).build(&desk.disk)?;
    let before = fs::metadata(&desk.disk)?;
    let digest = oracle::md5_of_file(&desk.disk)?;
    desk.export()?;
    let after = fs::metadata(&desk.disk)?;
    assert_eq!(
        (before.mtime(), before.mtime_nsec()),
        (after.mtime(), after.mtime_nsec())
    );
    assert_eq!(
        (before.len(), before.blocks()),
        (after.len(), after.blocks())
    );
    assert_eq!(digest, oracle::md5_of_file(&desk.disk)?);
    Ok(())
}

#[test]
fn a_read_only_source_is_enough() -> Result<()> {
    let desk = Desk::new()?;
    DiskBuilder::filled(3 * MIB, Pattern::Dense, 41).build(&desk.disk)?;
    let mut permissions = fs::metadata(&desk.disk)?.permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&desk.disk, permissions)?;
    desk.export_and_check(&[])?;
    Ok(())
}

#[test]
fn random_sparse_layouts_keep_every_byte() -> Result<()> {
    let rounds = if ce_tests::is_long() { 100 } else { 6 };
    for round in 0..rounds {
        let desk = Desk::new()?;
        let size = (1 + draw(round, 0) % (48 * MIB / 512)) * 512;
        DiskBuilder::new(size).build(&desk.disk)?;
        let raw = OpenOptions::new().write(true).open(&desk.disk)?;
        for part in 1..12 {
            let offset = draw(round, 2 * part) % size / 8 * 8;
            let length = (draw(round, 2 * part + 1) % (3 * MIB)).min(size - offset);
            write_noise(&raw, part, offset, length)?;
        }
        desk.export_and_check(&[])?;
    }
    Ok(())
}

/// A folder with a source and the place its image goes to.
struct Desk {
    disk: PathBuf,
    image: PathBuf,
    _folder: TempDir,
}

impl Desk {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (disk, image) = (
            folder.path().join("disk.raw"),
            folder.path().join("image.vhdx"),
        );
        Ok(Self {
            disk,
            image,
            _folder: folder,
        })
    }

    fn export_arguments(&self) -> Result<[&str; 5]> {
        Ok([
            "export",
            text(&self.disk)?,
            "--to",
            text(&self.image)?,
            "--json",
        ])
    }

    fn export(&self) -> Result<Finished> {
        ce_agent(self.export_arguments()?)?
            .with(["--hash"])
            .expect_code(0)
    }

    /// Exports to VHDX with a hash; everyone must agree on size and content.
    fn export_and_check(&self, options: &[&str]) -> Result<()> {
        let run = ce_agent(self.export_arguments()?)?
            .with(["--hash"])
            .with(options)
            .expect_code(0)?;
        let size = fs::metadata(&self.disk)?.len();
        let expected = oracle::md5_of_file(&self.disk)?;
        let job = run.job()?;
        assert_eq!(job["artifacts"]["virtualSizeBytes"], size, "{job}");
        assert_eq!(job["artifacts"]["hashedBytes"], size, "{job}");
        assert_eq!(
            run.md5_hash()?,
            expected,
            "the hash reported for {size} bytes"
        );
        assert_eq!(
            job["artifacts"]["fileSizeBytes"],
            fs::metadata(&self.image)?.len(),
            "the size reported of the file"
        );

        let info = oracle::qemu_info(&self.image)?;
        assert_eq!((info.format.as_str(), info.virtual_size), ("vhdx", size));
        oracle::qemu_check(&self.image)?;
        let compared =
            oracle::qemu_compare((&self.disk, Format::Raw), (&self.image, Format::Vhdx))?;
        assert_eq!(compared, Comparison::Identical, "{size} bytes by qemu");
        let digest = oracle::libvhdi_digest(&self.image)?;
        assert_eq!(
            (&digest.md5, digest.length),
            (&expected, size),
            "{size} bytes by libvhdi"
        );
        let hash = ce_agent(["hash", text(&self.image)?, "--json"])?
            .expect_code(0)?
            .md5_hash()?;
        assert_eq!(
            hash, expected,
            "our own reading of the image of {size} bytes"
        );
        let leftovers = fs::read_dir(self.image.parent().unwrap_or(Path::new("/")))?.count();
        assert_eq!(
            leftovers,
            if self.image.parent() == self.disk.parent() {
                2
            } else {
                1
            }
        );
        Ok(())
    }
}

/// The size of a payload block.
fn block_size_of_vhdx(path: &Path) -> Result<u64> {
    metadata_of_vhdx(path, 0xCAA1_6737_FA36_4D43_B3B6_33F0_AA44_E76B)
}

/// The size of a logical sector.
fn sector_size_of_vhdx(path: &Path) -> Result<u64> {
    metadata_of_vhdx(path, 0x8141_BF1D_A96F_4709_BA47_F233_A8FA_AB5F)
}

/// The first 32 bits of an item in the metadata region, found as MS-VHDX 2.6 says.
fn metadata_of_vhdx(path: &Path, item: u128) -> Result<u64> {
    let file = File::open(path)?;
    let metadata_guid = 0x8B7C_A206_4790_4B9A_B8FE_575F_050F_886E_u128;
    let region = find_entry(&file, 192 << 10, 16, metadata_guid)?;
    let item = find_entry(&file, region, 32, item)?;
    let mut value = [0; 4];
    file.read_exact_at(&mut value, region + item)?;
    Ok(u64::from(u32::from_le_bytes(value)))
}

/// The offset that stands behind a GUID in a table whose entries begin at `start + header`.
fn find_entry(file: &File, start: u64, header: u64, guid: u128) -> Result<u64> {
    let guid = uuid::Uuid::from_u128(guid).to_bytes_le();
    for number in 0..64 {
        let mut entry = [0; 32];
        file.read_exact_at(&mut entry, start + header + 32 * number)?;
        if entry[..16] == guid {
            // A region entry has 64 bits of offset, a metadata entry 32 bits and then its length.
            let wide = header == 16;
            let mut offset = [0; 8];
            offset[..if wide { 8 } else { 4 }]
                .copy_from_slice(&entry[16..if wide { 24 } else { 20 }]);
            return Ok(u64::from_le_bytes(offset));
        }
    }
    anyhow::bail!("no entry with this GUID at {start}")
}

fn draw(round: u64, number: u64) -> u64 {
    let bytes = Noise::new(round).bytes(number * 8, 8);
    bytes
        .iter()
        .fold(0, |value, byte| (value << 8) | u64::from(*byte))
}
