//! "The disk is a device of the machine, not a file": real block devices of the kernel, made of
//! files by `losetup`, which only root can do.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ce_tests::agent::ce_agent;
use ce_tests::disk::{Content, DiskBuilder, Role, SectorSize, Table};
use ce_tests::oracle;
use ce_tests::pattern::{MIB, Pattern};
use ce_tests::tool::{LOSETUP, MKE2FS, MOUNT, UMOUNT, text};

#[test]
fn a_device_is_exported_as_the_file_behind_it_would_be() -> Result<()> {
    for sectors in [SectorSize::B512, SectorSize::B4096] {
        let folder = tempfile::tempdir()?;
        let raw = folder.path().join("disk.raw");
        DiskBuilder::new(64 * MIB)
            .sector_size(sectors)
            .table(Table::Gpt)
            .partition(
                Role::BasicData,
                32 * MIB,
                Content::Pattern(Pattern::HalfZero, 3),
            )
            .build(&raw)?;
        let device = Device::of(&raw, sectors)?;
        let mut images = Vec::new();
        for (source, image) in [(&raw, "file.vhdx"), (&device.path, "device.vhdx")] {
            let image = folder.path().join(image);
            let arguments = ["export", text(source)?, "--to", text(&image)?, "--hash"];
            let job = ce_agent(arguments)?
                .with(["--json"])
                .expect_code(0)?
                .job()?;
            assert_eq!(job["artifacts"]["md5Hash"], oracle::md5_of_file(&raw)?);
            images.push(fs::read(image)?);
        }
        ensure!(
            images[0] == images[1],
            "the images of file and device differ"
        );

        let job = ce_agent(["inspect", text(&device.path)?, "--json"])?
            .expect_code(0)?
            .job()?;
        let disk = &job["artifacts"]["disk"];
        let expected = match sectors {
            SectorSize::B512 => 512,
            SectorSize::B4096 => 4096,
        };
        assert_eq!(disk["logicalSectorBytes"], expected);
        assert_eq!(disk["bothCopiesGood"], true, "{disk}");
    }
    Ok(())
}

#[test]
fn a_mounted_device_is_refused_and_its_mount_point_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let raw = folder.path().join("volume.raw");
    fs::File::create(&raw)?.set_len(16 * MIB)?;
    MKE2FS.run(["-q", "-t", "ext4", text(&raw)?])?;
    let device = Device::of(&raw, SectorSize::B512)?;
    let mount_point = folder.path().join("mounted");
    fs::create_dir(&mount_point)?;
    let mounted = Mount::of(&device.path, &mount_point)?;

    let image = folder.path().join("image.vhdx");
    let export = || {
        ce_agent([
            "export",
            text(&device.path)?,
            "--to",
            text(&image)?,
            "--json",
        ])
    };
    let (code, message) = export()?.expect_code(1)?.error()?;
    assert_eq!(code, "DiskBusy", "{message}");
    ensure!(message.contains(text(&mount_point)?), "{message}");
    ensure!(!image.exists());

    drop(mounted);
    export()?.expect_code(0)?;
    oracle::qemu_check(&image)
}

/// A loop device, detached when it is dropped.
struct Device {
    path: PathBuf,
}

impl Device {
    fn of(file: &Path, sectors: SectorSize) -> Result<Self> {
        let sectors = match sectors {
            SectorSize::B512 => "512",
            SectorSize::B4096 => "4096",
        };
        let arguments = ["--find", "--show", "--sector-size", sectors, text(file)?];
        let output = LOSETUP
            .run(arguments)
            .context("loop devices need root and a kernel that has them")?;
        let path = PathBuf::from(String::from_utf8(output.stdout)?.trim());
        Ok(Self { path })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Err(error) = LOSETUP.run(["--detach".as_ref(), self.path.as_os_str()]) {
            eprintln!("{} is left behind: {error:#}", self.path.display());
        }
    }
}

/// A mounted file system, unmounted when it is dropped.
struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    fn of(device: &Path, point: &'a Path) -> Result<Self> {
        MOUNT.run([device, point])?;
        Ok(Self(point))
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        if let Err(error) = UMOUNT.run([self.0]) {
            eprintln!("{} is left mounted: {error:#}", self.0.display());
        }
    }
}
