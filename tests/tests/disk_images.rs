//! The disks the other tests stand on are what they claim to be, and the oracles can tell right
//! from wrong.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

use anyhow::Result;
use ce_tests::disk::{Content, DiskBuilder, FileOnVolume, Role, SectorSize, Table};
use ce_tests::oracle::{self, Comparison, Format};
use ce_tests::pattern::{GIB, MIB, Noise, Pattern};
use ce_tests::tool::said;

#[test]
fn a_windows_layout_has_a_valid_gpt_and_its_files_read_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let files = vec![FileOnVolume::new("data.bin", 3 * MIB + 17, 5)];
    let disk = DiskBuilder::windows_layout(512 * MIB, files).build(folder.path().join("disk"))?;
    oracle::sgdisk_verify(&disk.path)?;

    let windows = disk.partitions[2];
    let volume = folder.path().join("volume");
    let mut bytes = vec![0; usize::try_from(windows.length)?];
    File::open(&disk.path)?.read_exact_at(&mut bytes, windows.offset)?;
    fs::write(&volume, bytes)?;
    let output = Command::new("ntfscat")
        .args(["-q", "-f"])
        .arg(&volume)
        .arg("data.bin")
        .output()?;
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(
        output.stdout,
        Noise::new(5).bytes(0, usize::try_from(3 * MIB + 17)?)
    );

    let esp = format!("{}@@{}", disk.path.display(), disk.partitions[0].offset);
    let output = Command::new("mtype")
        .args(["-i", &esp, "::EFI/Microsoft/Boot/bootmgfw.efi"])
        .output()?;
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(
        output.stdout,
        Noise::new(11).bytes(0, usize::try_from(2 * MIB)?)
    );
    Ok(())
}

#[test]
fn a_disk_of_4096_byte_sectors_has_its_gpt_at_the_second_4096() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = DiskBuilder::new(256 * MIB)
        .sector_size(SectorSize::B4096)
        .table(Table::Gpt)
        .partition(
            Role::BasicData,
            128 * MIB,
            Content::Ntfs {
                label: "four".into(),
                cluster: 4096,
                files: Vec::new(),
            },
        )
        .build(folder.path().join("disk"))?;
    let mut header = [0; 8];
    File::open(&disk.path)?.read_exact_at(&mut header, 4096)?;
    assert_eq!(&header, b"EFI PART");
    let mut boot_sector = [0; 13];
    File::open(&disk.path)?.read_exact_at(&mut boot_sector, disk.partitions[0].offset)?;
    assert_eq!(&boot_sector[3..7], b"NTFS");
    assert_eq!(u16::from_le_bytes([boot_sector[11], boot_sector[12]]), 4096);
    Ok(())
}

#[test]
fn an_empty_stretch_of_a_disk_takes_no_room() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = DiskBuilder::new(64 * GIB)
        .table(Table::Mbr)
        .partition(
            Role::BasicData,
            32 * GIB,
            Content::Ntfs {
                label: "big".into(),
                cluster: 4096,
                files: Vec::new(),
            },
        )
        .partition(Role::Recovery, GIB, Content::Empty)
        .build(folder.path().join("disk"))?;
    let on_disk = fs::metadata(&disk.path)?.blocks() * 512;
    assert!(
        on_disk < 200 * MIB,
        "{on_disk} bytes of a nearly empty disk are allocated"
    );
    Ok(())
}

#[test]
fn qemu_and_libvhdi_agree_on_an_image_and_see_one_changed_byte() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let raw = folder.path().join("disk");
    DiskBuilder::filled(20 * MIB, Pattern::HalfZero, 3).build(&raw)?;
    let vhdx = folder.path().join("disk.vhdx");
    oracle::qemu_convert(
        (&raw, Format::Raw),
        (&vhdx, Format::Vhdx),
        "subformat=dynamic",
    )?;

    oracle::qemu_check(&vhdx)?;
    let pair = ((raw.as_path(), Format::Raw), (vhdx.as_path(), Format::Vhdx));
    assert_eq!(oracle::qemu_compare(pair.0, pair.1)?, Comparison::Identical);
    let digest = oracle::libvhdi_digest(&vhdx)?;
    assert_eq!(
        (digest.md5, digest.length),
        (oracle::md5_of_file(&raw)?, 20 * MIB)
    );
    assert_eq!(oracle::qemu_info(&vhdx)?.virtual_size, 20 * MIB);

    OpenOptions::new()
        .write(true)
        .open(&raw)?
        .write_all_at(b"?", 11 * MIB)?;
    assert!(matches!(
        oracle::qemu_compare(pair.0, pair.1)?,
        Comparison::Different(_)
    ));
    Ok(())
}
