//! Disks with the guests of the catalogues on them, real down to the file systems.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ce_platform::Platform;
use ce_tests::agent::{Finished, Invocation, ce_agent};
use ce_tests::disk::{Content, DiskBuilder, Role, Step, Table};
use ce_tests::oracle;
use ce_tests::pattern::MIB;
use ce_tests::tool::{
    FSCK_FAT, HIVEXSH, MCOPY, NTFSCAT, NTFSFIX, QEMU_IMG, SGDISK, output_with_input, said, text,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::guest::{DISK, Draft, Guest, PARTITION, program};

const SIZE: u64 = 300 * MIB;
const ESP: u64 = 40 * MIB;

/// A disk in a folder of its own, with room for a scratch folder.
pub struct Bench {
    folder: TempDir,
    pub disk: PathBuf,
}

/// A partition: its first byte and its length.
#[derive(Clone, Copy)]
pub struct Place {
    start: u64,
    length: u64,
}

impl Bench {
    pub fn new(guest: &Guest) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let disk = folder.path().join("disk.raw");
        make(guest, &disk)?;
        Ok(Self { folder, disk })
    }

    /// The same with a recovery partition behind it, and the recovery environment on that.
    pub fn with_recovery(guest: &Guest, environment: Vec<u8>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let disk = folder.path().join("disk.raw");
        let name = "Recovery/WindowsRE/Winre.wim".to_owned();
        let volume = Content::NtfsTree {
            label: "Recovery".into(),
            cluster: 4096,
            steps: vec![Step::File(name, environment.into())],
        };
        make_disk(guest, Some(volume), &disk)?;
        Ok(Self { folder, disk })
    }

    /// The recovery partition, as ntfsfix takes it for sound, and its environment, as ntfscat reads it.
    pub fn recovery(&self) -> Result<(PathBuf, Vec<u8>)> {
        let volume = self.volume(RECOVERY, "recovery.ntfs")?;
        NTFSFIX.run(["--no-action", text(&volume)?])?;
        let environment = ntfs_file(&volume, "Recovery/WindowsRE/Winre.wim")?;
        Ok((volume, environment))
    }

    /// The guest of a pair of platforms.
    pub fn of(from: Platform, to: Platform) -> Result<Self> {
        Self::new(&Guest::of(from, to))
    }

    /// Another disk beside it, to be made.
    pub fn with_disk(self, name: &str) -> Self {
        Self {
            disk: self.path(name),
            ..self
        }
    }

    pub fn publish(&self, name: &str) -> Result<Invocation> {
        let image = self.path(name);
        let arguments = [
            "publish",
            text(&self.disk)?,
            "--to",
            text(&image)?,
            "--json",
        ];
        ce_agent(arguments)
    }

    pub fn scratch(&self) -> PathBuf {
        self.folder.path().join("scratch")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn bytes(&self) -> Result<Vec<u8>> {
        Ok(fs::read(&self.disk)?)
    }

    pub fn prepare(&self, to: Platform) -> Result<Invocation> {
        ce_agent([
            "prepare",
            text(&self.disk)?,
            "--platform",
            to.name(),
            "--scratch",
            text(&self.scratch())?,
            "--json",
        ])
    }

    /// Prepares it, and gives the artifacts.
    pub fn prepared(&self, to: Platform) -> Result<Value> {
        artifacts(&self.prepare(to)?.expect_code(0)?)
    }

    /// Copies a partition into a file of its own, for tools that know no partitions.
    fn volume(&self, place: Place, name: &str) -> Result<PathBuf> {
        let bytes = self.bytes()?;
        let path = self.path(name);
        let range = place.start as usize..(place.start + place.length) as usize;
        fs::write(
            &path,
            bytes.get(range).context("the partition leaves the disk")?,
        )?;
        Ok(path)
    }

    /// SYSTEM of the Windows in an image, by programs that know nothing of this one: qemu-img, the ones
    /// that look at volumes, ntfscat, and dissect.ntfs, which has to read the same.
    pub fn system_in(self, image: &Path) -> Result<Vec<u8>> {
        let copy = self.with_disk("copy.raw");
        QEMU_IMG.run(["convert", "-O", "raw", text(image)?, text(&copy.disk)?])?;
        let (windows, _) = copy.checked_volumes()?;
        let system = ntfs_file(&windows, "Windows/System32/config/SYSTEM")?;
        let listed = oracle::dissected(&windows)?;
        let md5 = listed
            .get(r"Windows\System32\config\SYSTEM")
            .and_then(|file| file.md5.clone());
        ensure!(md5 == Some(oracle::md5_of_bytes(&system)?), "{listed:#?}");
        Ok(system)
    }

    /// Has ntfsfix, fsck.fat and sgdisk look at it, and gives the two volumes.
    pub fn checked_volumes(&self) -> Result<(PathBuf, PathBuf)> {
        SGDISK.run(["--verify", text(&self.disk)?])?;
        let windows = self.volume(WINDOWS, "windows.ntfs")?;
        let boot = self.volume(BOOT, "boot.fat")?;
        NTFSFIX.run(["--no-action", text(&windows)?])?;
        FSCK_FAT.run(["-n", text(&boot)?])?;
        Ok((windows, boot))
    }
}

pub fn artifacts(run: &Finished) -> Result<Value> {
    ensure!(!run.stderr.contains("panicked"), "{}", run.stderr);
    Ok(run.job()?["artifacts"].take())
}

/// A file of an NTFS volume, as ntfscat reads it.
pub fn ntfs_file(volume: &Path, path: &str) -> Result<Vec<u8>> {
    Ok(NTFSCAT.run([text(volume)?, path])?.stdout)
}

/// A file of a FAT volume, as mtools read it.
pub fn fat_file(volume: &Path, path: &str) -> Result<Vec<u8>> {
    let name = format!("::{path}");
    Ok(MCOPY.run(["-i", text(volume)?, &name, "-"])?.stdout)
}

/// What hivexsh says to some commands about a hive.
pub fn hivexsh(hive: &[u8], commands: &str) -> Result<String> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), hive)?;
    let mut command = HIVEXSH.command()?;
    let output = output_with_input(command.arg(file.path()), commands.as_bytes())?;
    ensure!(output.status.success(), "{}", said(&output));
    Ok(String::from_utf8(output.stdout)?)
}

const BOOT: Place = Place {
    start: MIB,
    length: ESP,
};
const WINDOWS: Place = Place {
    start: MIB + ESP,
    length: SIZE - ESP - 2 * MIB,
};
const RECOVERY: Place = Place {
    start: SIZE - MIB,
    length: 24 * MIB,
};

/// A Windows on Azure with the target device software.
pub fn streamable() -> Draft {
    let mut draft = Draft::windows();
    draft.install_drivers_of(Platform::Azure);
    draft.install_provisioning();
    draft
}

/// The guest with the loader that a prepare puts where firmware without a boot entry looks.
pub fn with_loader(draft: Draft) -> Guest {
    let mut guest = draft.guest();
    let loader = r"EFI\Boot\bootx64.efi".to_owned();
    guest.boot.insert(loader, program(0x8664));
    guest
}

/// Makes the disk of a guest, with the GUIDs that its boot configuration names.
pub fn make(guest: &Guest, path: &Path) -> Result<()> {
    make_disk(guest, None, path)
}

fn make_disk(guest: &Guest, recovery: Option<Content>, path: &Path) -> Result<()> {
    let slashes = |path: &String| path.replace('\\', "/");
    let files = guest.windows.iter();
    let steps = files.map(|(path, content)| Step::File(slashes(path), content.clone().into()));
    let windows = Content::NtfsTree {
        label: "Windows".into(),
        cluster: 4096,
        steps: steps.collect(),
    };
    let files = guest.boot.iter();
    let files = files.map(|(path, content)| (slashes(path), content.clone().into()));
    let boot = Content::FatTree {
        label: "SYSTEM".into(),
        files: files.collect(),
    };
    let size = match recovery {
        Some(_) => SIZE + RECOVERY.length,
        None => SIZE,
    };
    let mut disk = DiskBuilder::new(size)
        .table(Table::Gpt)
        .partition(Role::EfiSystem, BOOT.length, boot)
        .partition(Role::BasicData, WINDOWS.length, windows);
    if let Some(volume) = recovery {
        disk = disk.partition(Role::Recovery, RECOVERY.length, volume);
    }
    disk.build(path)?;
    let (disk, partition) = (DISK.to_string(), format!("2:{PARTITION}"));
    SGDISK.run(["-U", &disk, "-u", &partition, text(path)?])?;
    Ok(())
}
