//! Disks that start by BIOS, real down to the file systems, and how other programs see them afterwards.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ce_platform::Platform;
use ce_tests::agent::{Finished, Invocation, ce_agent};
use ce_tests::disk::{Content, DiskBuilder, MBR_SIGNATURE, Placed, Role, SectorSize, Step, Table};
use ce_tests::pattern::MIB;
use ce_tests::tool::{
    FSCK_FAT, HIVEXSH, MCOPY, NTFSCAT, NTFSFIX, SGDISK, STRACE, output_with_input, said, text,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::firmware::program;
use crate::guest::{BIOS_STORE, Draft, hive};

/// What a disk is made of.
pub struct Layout {
    /// The partition that the BIOS starts from, in MiB; none if it is that of Windows.
    pub system: Option<u64>,
    /// What is on it beside boot files.
    pub more: Option<&'static str>,
    /// What is left behind the last partition, beside the MiB that Windows leaves.
    pub left: u64,
    /// What the boot manager of UEFI prints.
    pub says: &'static str,
    /// What Windows takes its processor for.
    pub processor: &'static str,
    /// A file that Windows should have and has not.
    pub without: Option<&'static str>,
    /// How long a sector is.
    pub sector: SectorSize,
    /// Whether it runs on Azure with the target device software of Provisioning, and not on vSphere.
    pub is_streamed: bool,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            system: Some(60),
            more: None,
            left: 0,
            says: "started",
            processor: "AMD64",
            without: None,
            sector: SectorSize::B512,
            is_streamed: false,
        }
    }
}

/// A disk in a folder of its own, with room for a scratch folder.
pub struct Bench {
    folder: TempDir,
    pub disk: PathBuf,
    pub partitions: Vec<Placed>,
    sector: SectorSize,
}

impl Bench {
    /// An image with all drivers for Azure, and C: and S: on its first partitions.
    pub fn new(layout: &Layout) -> Result<Self> {
        let mut draft = Draft::windows();
        draft.install_drivers_of(Platform::Azure);
        match layout.is_streamed {
            true => {
                draft.install_provisioning();
                draft.came_from(Platform::Azure);
            }
            false => draft.came_from(Platform::Vsphere),
        }
        let mut start = MIB;
        if let Some(system) = layout.system {
            draft.drive_letter('S', MBR_SIGNATURE, start);
            start += system * MIB;
        }
        draft.drive_letter('C', MBR_SIGNATURE, start);
        draft.system = draft.system.replace("AMD64", layout.processor);
        let mut files = draft.guest().windows;
        let boot = [
            ("EFI\\bootmgfw.efi", program(layout.says)),
            ("EFI\\memtest.efi", program("tested")),
            ("EFI\\de-DE\\bootmgfw.efi.mui", b"words".to_vec()),
            ("Fonts\\wgl4_boot.ttf", vec![7; 50_000]),
        ];
        for (name, content) in boot {
            files.insert(format!("Windows\\Boot\\{name}"), content);
        }
        let recovery_at = start + WINDOWS * MIB;
        let recovery = REAGENT
            .replace("SIGNATURE", &MBR_SIGNATURE.to_string())
            .replace("OFFSET", &recovery_at.to_string());
        files.insert(
            "Windows\\System32\\Recovery\\ReAgent.xml".into(),
            recovery.into(),
        );
        if let Some(file) = layout.without {
            files.remove(file).context("it has no such file")?;
        }
        let slashes = |path: String| path.replace('\\', "/");
        let steps = files.into_iter();
        let mut steps: Vec<Step> = steps
            .map(|(path, content)| Step::File(slashes(path), content.into()))
            .collect();
        let mut of_bios = vec![
            Step::File("bootmgr".into(), "code of a BIOS".into()),
            Step::File("Boot/BCD".into(), hive(BIOS_STORE).into()),
        ];
        let more = layout.more.map(|path| Step::File(path.into(), "x".into()));
        of_bios.extend(more);
        let volume = |label: &str, steps| Content::NtfsTree {
            label: label.into(),
            cluster: 4096,
            steps,
        };
        let around = layout.system.unwrap_or(0) + RECOVERY + layout.left + 2;
        let mut builder = DiskBuilder::new((around + WINDOWS) * MIB)
            .sector_size(layout.sector)
            .table(Table::Mbr);
        match layout.system {
            Some(system) => {
                let content = volume("System Reserved", of_bios);
                builder = builder.partition(Role::BasicData, system * MIB, content);
            }
            None => steps.extend(of_bios),
        }
        let recovery = Step::File("Recovery/WindowsRE/Winre.wim".into(), "MSWIM".into());
        let folder = tempfile::tempdir()?;
        let disk = builder
            .partition(Role::BasicData, WINDOWS * MIB, volume("Windows", steps))
            .partition(
                Role::Recovery,
                RECOVERY * MIB,
                volume("Recovery", vec![recovery]),
            )
            .build(folder.path().join("disk.raw"))?;
        Ok(Self {
            folder,
            disk: disk.path,
            partitions: disk.partitions,
            sector: layout.sector,
        })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn scratch(&self) -> PathBuf {
        self.path("scratch")
    }

    pub fn bytes(&self) -> Result<Vec<u8>> {
        Ok(fs::read(&self.disk)?)
    }

    /// A command of the agent on this disk.
    pub fn agent(&self, command: &str) -> Result<Invocation> {
        let scratch = self.scratch();
        let (disk, scratch) = (text(&self.disk)?, text(&scratch)?);
        let sector = self.sector.bytes().to_string();
        ce_agent([command, disk, "--scratch", scratch, "--json"]).map(|agent| match self.sector {
            SectorSize::B512 => agent,
            SectorSize::B4096 => agent.with(["--sector-size", &sector]),
        })
    }

    /// The conversion below strace, which is told of every write and flush of the disk itself, and
    /// what to do at which of them. They are listed in the file `writes`.
    pub fn convert_below_strace(&self, more: &[&str]) -> Result<Invocation> {
        let (strace, listed) = (STRACE.path()?, self.path("writes"));
        let mut wrapper = vec![text(&strace)?, "-f", "-q", "-o", text(&listed)?];
        wrapper.extend(["-P", text(&self.disk)?, "-e", "trace=pwrite64,fsync"]);
        wrapper.extend(more);
        Ok(self.agent("convert-to-uefi")?.below(wrapper))
    }

    pub fn convert(&self) -> Result<Value> {
        artifacts(&self.agent("convert-to-uefi")?.expect_code(0)?)
    }

    /// Copies a partition into a file of its own, for tools that know no partitions.
    pub fn volume(&self, place: Placed, name: &str) -> Result<PathBuf> {
        let bytes = self.bytes()?;
        let range = place.offset as usize..(place.offset + place.length) as usize;
        let path = self.path(name);
        let bytes = bytes.get(range).context("the partition leaves the disk")?;
        fs::write(&path, bytes)?;
        Ok(path)
    }

    /// Has sgdisk, fsck.fat and ntfsfix look at a converted disk, whose EFI system partition is
    /// `efi_system`, and gives the volumes of it and of Windows.
    pub fn checked_volumes(
        &self,
        efi_system: Placed,
        windows: Placed,
    ) -> Result<(PathBuf, PathBuf)> {
        // It takes sectors of files for those of 512 bytes.
        if self.sector == SectorSize::B512 {
            let verified = SGDISK.run(["--verify", text(&self.disk)?])?;
            let words = said(&verified);
            ensure!(words.contains("No problems found"), "{words}");
        }
        let boot = self.volume(efi_system, "boot.fat")?;
        let windows = self.volume(windows, "windows.ntfs")?;
        FSCK_FAT.run(["-n", text(&boot)?])?;
        NTFSFIX.run(["--no-action", text(&windows)?])?;
        Ok((boot, windows))
    }

    /// What sgdisk says of a partition: its type and its GUID, in small letters.
    pub fn partition(&self, number: u32) -> Result<(String, String)> {
        let told = SGDISK.run([&format!("--info={number}"), text(&self.disk)?])?;
        let told = String::from_utf8(told.stdout)?.to_lowercase();
        let after = |label: &str| {
            let line = told.lines().find(|line| line.starts_with(label));
            let rest = line.and_then(|line| line.strip_prefix(label));
            let word = rest.and_then(|rest| rest.split_whitespace().next());
            word.map(str::to_owned).with_context(|| told.clone())
        };
        Ok((
            after("partition guid code:")?,
            after("partition unique guid:")?,
        ))
    }

    /// The GUID of the disk, as sgdisk says it, in small letters.
    pub fn disk_guid(&self) -> Result<String> {
        let told = SGDISK.run(["--print", text(&self.disk)?])?;
        let told = String::from_utf8(told.stdout)?.to_lowercase();
        let label = "disk identifier (guid): ";
        let line = told.lines().find_map(|line| line.strip_prefix(label));
        Ok(line.with_context(|| told.clone())?.trim().to_owned())
    }
}

pub fn artifacts(run: &Finished) -> Result<Value> {
    ensure!(!run.stderr.contains("panicked"), "{}", run.stderr);
    Ok(run.job()?["artifacts"].take())
}

/// A file of a FAT volume, as mtools read it.
pub fn fat_file(volume: &Path, path: &str) -> Result<Vec<u8>> {
    let name = format!("::{path}");
    Ok(MCOPY.run(["-i", text(volume)?, &name, "-"])?.stdout)
}

/// A file of an NTFS volume, as ntfscat reads it.
pub fn ntfs_file(volume: &Path, path: &str) -> Result<Vec<u8>> {
    Ok(NTFSCAT.run([text(volume)?, path])?.stdout)
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

/// A GUID as it stands in a hive and as hivexsh prints it: the first three fields in little endian.
pub fn as_stored(guid: &str) -> Result<String> {
    let guid: uuid::Uuid = guid.parse()?;
    let bytes = guid.to_bytes_le();
    let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(bytes.join(","))
}

const WINDOWS: u64 = 160;
const RECOVERY: u64 = 16;

/// What `reagentc` keeps on a disk with an MBR.
const REAGENT: &str = r#"<?xml version='1.0' encoding='utf-8'?>

<WindowsRE version="2.0">
  <WinreBCD id="{6d5c1f0e-8a3b-4c27-9e10-52d17f3a00fe}"/>
  <WinreLocation path="\Recovery\WindowsRE" id="SIGNATURE" offset="OFFSET" guid="{00000000-0000-0000-0000-000000000000}"/>
  <ImageLocation path="" id="0" offset="0" guid="{00000000-0000-0000-0000-000000000000}"/>
  <InstallState state="1"/>
</WindowsRE>
"#;
