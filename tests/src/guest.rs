//! A disk that passes for one with Windows on it: folders, hives, boot files, and none of the code.
//!
//! ```text
//!  UEFI  | ESP: bootmgfw.efi, bootx64.efi, BCD | reserved | NTFS: Windows | recovery |
//!  BIOS  | NTFS: bootmgr, Boot\BCD | NTFS: Windows |
//! ```
//!
//! The hives are written as `.reg` text, keys below the hive's root, and made by `ce-regf`; what it
//! writes, hivex and reglookup check in tests of their own. Nothing of it needs root.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ce_regf::{FileTime, Hive, KeyPath, RegScript, SecurityDescriptor, Version};
use serde_json::Value;

use crate::agent::ce_agent;
use crate::disk::{Content, DiskBuilder, FileContent, Role, Step, Table};
use crate::pattern::MIB;
use crate::tool::text;

/// By what a guest starts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Firmware {
    /// UEFI, from a GPT disk.
    #[default]
    Uefi,
    /// BIOS, from an MBR disk.
    Bios,
}

/// A Windows to be; [`disk`](Self::disk) makes a disk of it.
///
/// ```no_run
/// # use ce_tests::guest::PhonyWindows;
/// let windows = PhonyWindows::new()
///     .system("[ControlSet001\\Services\\pvscsi]\n\"Start\"=dword:00000000\n")
///     .file("Windows/System32/drivers/pvscsi.sys", "a driver");
/// let disk = windows.disk(400 << 20)?.build("disk.raw")?;
/// # anyhow::Ok(())
/// ```
#[derive(Clone, Debug)]
pub struct PhonyWindows {
    firmware: Firmware,
    system: String,
    software: String,
    steps: Vec<Step>,
    recovery: FileContent,
}

impl Default for PhonyWindows {
    fn default() -> Self {
        Self::new()
    }
}

impl PhonyWindows {
    /// Windows 11 Enterprise 23H2 for x64, named `GOLD`, that was shut down and waits for nothing.
    pub fn new() -> Self {
        let folders = ["Windows/WinSxS", "Program Files", "Users/Public"];
        let files = [
            "Windows/System32/ntoskrnl.exe",
            "Windows/System32/winload.efi",
            "Windows/System32/winload.exe",
            "Windows/System32/drivers/stornvme.sys",
        ];
        let folders = folders.into_iter().map(|path| Step::Folder(path.into()));
        let files = files
            .into_iter()
            .map(|path| Step::File(path.into(), "MZ: not the real one".into()));
        Self {
            firmware: Firmware::default(),
            system: SYSTEM.into(),
            software: SOFTWARE.into(),
            steps: folders.chain(files).collect(),
            recovery: "MSWIM".into(),
        }
    }

    /// The same with VMware Tools, a Virtual Delivery Agent and Workspace app.
    pub fn vda_on_vsphere() -> Self {
        Self::new()
            .system(&service("pvscsi", 1, 0))
            .system(&service("vmxnet3ndis6", 1, 3))
            .system(&service("VMTools", 16, 2))
            .system(&service("BrokerAgent", 16, 2))
            .software(&uninstall_entry(
                "{AF174E64}",
                "VMware Tools",
                "12.3.5.22544099",
            ))
            .software(&uninstall_entry(
                "Citrix Virtual Desktop Agent",
                "Citrix Virtual Apps and Desktops 7 2203 LTSR CU5 - Virtual Delivery Agent",
                "2203.0.5000.5057",
            ))
            .software(&uninstall_entry(
                "CitrixOnlinePluginPackWeb",
                "Citrix Workspace 2402",
                "24.2.1000.2",
            ))
    }

    /// By what it starts.
    pub fn firmware(mut self, firmware: Firmware) -> Self {
        self.firmware = firmware;
        self
    }

    /// Adds to the SYSTEM hive: `.reg` text without the first line.
    pub fn system(mut self, keys: &str) -> Self {
        self.system.push_str(&format!("\n{keys}\n"));
        self
    }

    /// Adds to the SOFTWARE hive: `.reg` text without the first line.
    pub fn software(mut self, keys: &str) -> Self {
        self.software.push_str(&format!("\n{keys}\n"));
        self
    }

    /// Puts a file on the Windows volume. Paths have `/`.
    pub fn file(self, path: &str, content: impl Into<FileContent>) -> Self {
        self.step(Step::File(path.into(), content.into()))
    }

    /// What `Winre.wim` on the recovery partition is; there is none on a BIOS disk.
    pub fn recovery(mut self, image: impl Into<FileContent>) -> Self {
        self.recovery = image.into();
        self
    }

    /// Does something on the Windows volume, after what was said before.
    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Everything that is on the Windows volume.
    pub fn volume(&self) -> Result<Content> {
        let mut steps = self.steps.clone();
        for (name, keys) in [
            ("SYSTEM", self.system.as_str()),
            ("SOFTWARE", self.software.as_str()),
            ("SECURITY", SECURITY),
        ] {
            let path = format!("Windows/System32/config/{name}");
            let is_replaced = steps
                .iter()
                .any(|step| matches!(step, Step::File(other, _) if *other == path));
            if !is_replaced {
                steps.push(Step::File(path, hive(keys)?.into()));
            }
        }
        Ok(Content::NtfsTree {
            label: "Windows".into(),
            cluster: 4096,
            steps,
        })
    }

    /// A disk of `size` bytes with it; at least 200 MiB.
    pub fn disk(&self, size: u64) -> Result<DiskBuilder> {
        let windows = |around: u64| (size / MIB) * MIB - around - 2 * MIB;
        let volume = self.volume()?;
        let bcd = hive(BCD)?;
        Ok(match self.firmware {
            Firmware::Uefi => {
                let (esp, reserved, recovery) = (100 * MIB, 16 * MIB, 16 * MIB);
                let boot = vec![
                    ("EFI/Microsoft/Boot/bootmgfw.efi".into(), "MZ".into()),
                    ("EFI/Boot/bootx64.efi".into(), "MZ".into()),
                    ("EFI/Microsoft/Boot/BCD".into(), bcd.into()),
                ];
                let esp_content = Content::FatTree {
                    label: "SYSTEM".into(),
                    files: boot,
                };
                let recovery_content = Content::NtfsTree {
                    label: "Recovery".into(),
                    cluster: 4096,
                    steps: vec![Step::File(
                        "Recovery/WindowsRE/Winre.wim".into(),
                        self.recovery.clone(),
                    )],
                };
                DiskBuilder::new(size)
                    .table(Table::Gpt)
                    .partition(Role::EfiSystem, esp, esp_content)
                    .partition(Role::MicrosoftReserved, reserved, Content::Empty)
                    .partition(Role::BasicData, windows(esp + reserved + recovery), volume)
                    .partition(Role::Recovery, recovery, recovery_content)
            }
            Firmware::Bios => {
                let system = 50 * MIB;
                let steps = vec![
                    Step::File("bootmgr".into(), "not the real one".into()),
                    Step::File("Boot/BCD".into(), bcd.into()),
                ];
                let system_content = Content::NtfsTree {
                    label: "System Reserved".into(),
                    cluster: 4096,
                    steps,
                };
                DiskBuilder::new(size)
                    .table(Table::Mbr)
                    .partition(Role::BasicData, system, system_content)
                    .partition(Role::BasicData, windows(system), volume)
            }
        })
    }
}

/// What `inspect` says of a disk: `artifacts.disk` of the job.
pub fn inspected(disk: &Path) -> Result<Value> {
    let run = ce_agent(["inspect", text(disk)?, "--json"])?.expect_code(0)?;
    ensure!(!run.stderr.contains("panicked"), "{}", run.stderr);
    Ok(run.job()?["artifacts"]["disk"].take())
}

/// The codes of what stands against preparing an inspected disk.
pub fn blocker_codes(inspected: &Value) -> Vec<&str> {
    let blockers = inspected["blockers"].as_array();
    let blockers = blockers.map(Vec::as_slice).unwrap_or_default();
    let codes = blockers.iter().map(|found| found["code"].as_str());
    codes.flatten().collect()
}

/// A hive with these keys: `.reg` text without the first line, keys below the hive's root.
pub fn hive(keys: &str) -> Result<Vec<u8>> {
    let text = format!("Windows Registry Editor Version 5.00\n\n{keys}");
    let script = RegScript::parse(text.as_bytes(), &KeyPath::from(""))
        .with_context(|| format!("the hive's text:\n{text}"))?;
    let now = FileTime::from_ticks(MADE_AT);
    let security = SecurityDescriptor::for_administrators();
    let mut hive = Hive::new_empty(Version::V1_5, &security, now)?;
    hive.edit(now)?.import(&script)?;
    Ok(hive.save(now)?.bytes.to_vec())
}

/// A hive as it is found when Windows stopped while it wrote `change` to it, and the log beside it
/// that has the change: a dirty vector of 512-byte pages, as up to Windows 8. The change must fit
/// into the room that there is.
pub fn dirty_hive(keys: &str, change: &str) -> Result<(Vec<u8>, Vec<u8>)> {
    let mut dirty = hive(keys)?;
    let changed = hive(&format!("{keys}\n{change}"))?;
    ensure!(dirty.len() == changed.len(), "the change needs more room");
    set_sequences(&mut dirty, 11, 10);
    let mut log = dirty[..512].to_vec();
    log[28..32].copy_from_slice(&1_u32.to_le_bytes());
    set_sequences(&mut log, 11, 11);
    let pairs = dirty[BASE_BLOCK..]
        .chunks(512)
        .zip(changed[BASE_BLOCK..].chunks(512));
    let pages: Vec<_> = pairs
        .map(|(old, new)| (old != new).then_some(new))
        .collect();
    let mut vector = b"DIRT".to_vec();
    for eight in pages.chunks(8) {
        let bits = eight.iter().enumerate();
        vector.push(
            bits.map(|(bit, page)| u8::from(page.is_some()) << bit)
                .sum(),
        );
    }
    vector.resize(512, 0);
    log.extend(vector);
    log.extend(pages.into_iter().flatten().flatten());
    Ok((dirty, log))
}

/// Gives the base block of a hive or log other sequence numbers, and the checksum that goes with them.
pub fn set_sequences(base: &mut [u8], primary: u32, secondary: u32) {
    base[4..8].copy_from_slice(&primary.to_le_bytes());
    base[8..12].copy_from_slice(&secondary.to_le_bytes());
    let (words, _) = base[..508].as_chunks::<4>();
    let sum = words
        .iter()
        .fold(0, |sum, word| sum ^ u32::from_le_bytes(*word));
    base[508..512].copy_from_slice(&sum.to_le_bytes());
}

/// Keys as if a program had been installed by an installer that calls it `name`.
pub fn uninstall_entry(key: &str, name: &str, version: &str) -> String {
    let mut text = String::new();
    let path = r"Microsoft\Windows\CurrentVersion\Uninstall";
    // Writing to a string does not fail.
    let _ = writeln!(text, "[{path}\\{key}]");
    let _ = writeln!(text, "\"DisplayName\"=\"{name}\"");
    let _ = writeln!(text, "\"DisplayVersion\"=\"{version}\"");
    text
}

/// Keys of a service in the first control set.
pub fn service(name: &str, kind: u32, start: u32) -> String {
    format!(
        "[ControlSet001\\Services\\{name}]\n\"Type\"=dword:{kind:08x}\n\"Start\"=dword:{start:08x}\n"
    )
}

/// Where the bins of a hive begin.
const BASE_BLOCK: usize = 4096;

/// 2024-11-05 10:00 UTC.
const MADE_AT: u64 = 133_752_744_000_000_000;

const SYSTEM: &str = r#"
[Select]
"Current"=dword:00000001
"Default"=dword:00000001
"Failed"=dword:00000000
"LastKnownGood"=dword:00000001

[ControlSet001\Control\ComputerName\ComputerName]
"ComputerName"="GOLD"

[ControlSet001\Control\MUI\UILanguages\en-US]
"Type"=dword:00000191

[ControlSet001\Control\Nls\Language]
"Default"="0409"
"InstallLanguage"="0409"

[ControlSet001\Control\ProductOptions]
"ProductType"="WinNT"

[ControlSet001\Control\Session Manager\Environment]
"PROCESSOR_ARCHITECTURE"="AMD64"

[ControlSet001\Control\Windows]
"ShutdownTime"=hex:00,80,3e,d5,de,b1,db,01

[ControlSet001\Services\Tcpip\Parameters]
"Hostname"="GOLD"
"Domain"=""

[ControlSet001\Services\stornvme]
"Type"=dword:00000001
"Start"=dword:00000000
"ImagePath"="System32\\drivers\\stornvme.sys"

[ControlSet001\Services\storahci]
"Type"=dword:00000001
"Start"=dword:00000000
"ImagePath"="System32\\drivers\\storahci.sys"

[ControlSet001\Services\storahci\StartOverride]
"0"=dword:00000003
"#;

const SOFTWARE: &str = r#"
[Microsoft\Windows NT\CurrentVersion]
"ProductName"="Windows 10 Enterprise"
"EditionID"="Enterprise"
"InstallationType"="Client"
"DisplayVersion"="23H2"
"ReleaseId"="2009"
"CurrentVersion"="6.3"
"CurrentMajorVersionNumber"=dword:0000000a
"CurrentMinorVersionNumber"=dword:00000000
"CurrentBuild"="22631"
"CurrentBuildNumber"="22631"
"UBR"=dword:000010f9
"InstallDate"=dword:66ab5c40
"BuildLabEx"="22621.1.amd64fre.ni_release.220506-1250"

[Microsoft\Windows\CurrentVersion\Component Based Servicing]
"Version"="10.0.22621.4391"
"#;

/// No domain, and the workgroup `WORKGROUP`.
const SECURITY: &str = r#"
[Policy\PolPrDmS]
@=hex(0):

[Policy\PolPrDmN]
@=hex(0):12,00,14,00,08,00,00,00,57,00,4f,00,52,00,4b,00,47,00,52,00,4f,00,55,00,50,00,00,00
"#;

const BCD: &str = r#"
[Description]
"KeyName"="BCD00000000"
"System"=dword:00000001

[Objects\{9dea862c-5cdd-4e70-acc1-f32b344d4795}\Description]
"Type"=dword:10100002

[Objects\{9dea862c-5cdd-4e70-acc1-f32b344d4795}\Elements\23000003]
"Element"="{6d5c1f0e-8a3b-4c27-9e10-52d17f3a00ff}"

[Objects\{6d5c1f0e-8a3b-4c27-9e10-52d17f3a00ff}\Description]
"Type"=dword:10200003

[Objects\{6d5c1f0e-8a3b-4c27-9e10-52d17f3a00ff}\Elements\12000002]
"Element"="\\Windows\\system32\\winload.efi"

[Objects\{6d5c1f0e-8a3b-4c27-9e10-52d17f3a00ff}\Elements\12000004]
"Element"="Windows 11"

[Objects\{6d5c1f0e-8a3b-4c27-9e10-52d17f3a00ff}\Elements\22000002]
"Element"="\\Windows"
"#;
