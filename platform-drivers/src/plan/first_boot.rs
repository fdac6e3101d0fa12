//! What only the running Windows can do: a service that does it when Windows boots first, and is gone.
//!
//! ```text
//!  service ce-first-boot --> first-boot.cmd --> step, step, ... --> first-boot.log
//!    starts by itself            |   each once: NAME.done
//!                                |
//!                                +--> all done, or the third attempt --> the service is deleted
//! ```
//!
//! It is a service and no scheduled task, as the store of tasks cannot be written offline; and a
//! script of `cmd`, as no policy keeps those from running. It never restarts the machine, so that no
//! boot can lead to the next. The folder is below that of Windows, where only administrators may write.

use std::fmt::Write;

use ce_disk::units::ByteCount;
use ce_disk::volume::{WinPath, WindowsVolume};
use ce_regf::RegValue;

use super::draft::Store;
use super::edit::{Reason, RegistryEditKind};
use super::{Change, FirstBootStep, PlanError, Planner, State};
use crate::Platform;
use crate::catalog::value::FileName;
use crate::inspect::{FIRST_BOOT_SERVICE, PREPARED_FROM, PREPARED_TO};

/// A step of the script.
pub(super) struct ScriptStep {
    /// The item of the catalogue that asks for it.
    pub(super) item: String,
    /// Its commands, one after the other.
    pub(super) commands: Vec<String>,
    /// What they call, below the end of the script.
    pub(super) routine: String,
}

impl Planner<'_, '_> {
    /// Has the script run commands for the item at hand.
    pub(super) fn add_to_script(&mut self, commands: Vec<String>) {
        match self.script.last_mut() {
            // What is done is kept by item.
            Some(last) if last.item == self.item => last.commands.extend(commands),
            _ => self.script.push(ScriptStep {
                item: self.item.clone(),
                commands,
                routine: String::new(),
            }),
        }
    }

    /// Has the script begin with a command that runs `routine`, the text of which ends by `exit /b`.
    pub(super) fn begin_script_with(&mut self, command: &str, routine: String) {
        let step = ScriptStep {
            item: self.item.clone(),
            commands: vec![command.to_owned()],
            routine,
        };
        self.script.insert(0, step);
    }

    /// Puts an installer of the bundle beside the script, which runs it.
    pub(super) fn install_at_first_boot(&mut self, file: &FileName) -> Result<(), PlanError> {
        let mut installers = self.machine.installers.iter();
        let found = installers.find(|found| found.name.eq_ignore_ascii_case(file.as_str()));
        let content = match found.map(|found| (found, found.read(LARGEST_INSTALLER))) {
            Some((_, Ok(content))) => Ok(content),
            Some((found, Err(error))) => Err(format!("{}: {error}", found.path.display())),
            None => Err("no bundle has the installer".to_owned()),
        };
        let state = match content {
            Err(why) => State::Skipped { why },
            Ok(content) => {
                if let Some(path) = self.in_windows(&format!(r"{FOLDER}\{file}")) {
                    self.write_for_first_boot(path, content)?;
                }
                let installer = format!("\"%~dp0{file}\"");
                self.add_to_script(vec![format!("{MSIEXEC} /i {installer} /qn /norestart")]);
                State::Deferred
            }
        };
        let step = FirstBootStep::Install(file.to_string());
        let reason = self.reason.clone();
        self.push(Change::FirstBoot { step, reason }, state);
        Ok(())
    }

    /// Plans a file of the first boot's folder.
    fn write_for_first_boot(&mut self, path: WinPath, content: Vec<u8>) -> Result<(), PlanError> {
        let volume = self.machine.volume;
        let is_so = volume.exists(&path)? && has_content(volume, &path, &content)?;
        let reason = self.reason.clone();
        let change = Change::Write {
            path,
            content,
            reason,
        };
        self.push(change, if is_so { State::AlreadySo } else { State::ToDo });
        Ok(())
    }

    /// Plans that what the script of an earlier prepare has done is not taken for done in this one.
    fn forget_done(&mut self, folder: &WinPath) -> Result<(), PlanError> {
        if !self.machine.volume.exists(folder)? {
            return Ok(());
        }
        for entry in self.machine.volume.list(folder)? {
            let path = folder.join(&entry.name).ok();
            if let Some(path) = path.filter(|_| entry.name.to_lowercase().ends_with(DONE)) {
                self.delete_file(&path)?;
            }
        }
        Ok(())
    }

    /// Plans the service and its script, if there is anything for them to do.
    pub(super) fn first_boot_service(&mut self) -> Result<(), PlanError> {
        let steps = std::mem::take(&mut self.script);
        let folder = self.in_windows(FOLDER);
        let (Some(folder), false) = (folder, steps.is_empty()) else {
            return Ok(());
        };
        self.item = ITEM.to_owned();
        self.reason = Reason(WHY.to_owned());
        let Ok(path) = folder.join(SCRIPT) else {
            return Ok(());
        };
        self.write_for_first_boot(path, script(&steps).into_bytes())?;
        self.forget_done(&folder)?;
        // What a second prepare goes by, whatever the drivers that this one puts in look like.
        let preparation = self.machine.preparation;
        let from = preparation.from.map_or("", Platform::name);
        for set in self.sets.clone() {
            let key = format!(r"{set}\Services\{FIRST_BOOT_SERVICE}");
            for (name, value) in [
                ("Type", RegValue::dword(OWN_PROCESS)),
                ("Start", RegValue::dword(AUTO_START)),
                ("ErrorControl", RegValue::dword(IGNORE)),
                ("ImagePath", RegValue::expand_sz(IMAGE)),
                ("ObjectName", RegValue::sz("LocalSystem")),
                ("DisplayName", RegValue::sz(TITLE)),
                (PREPARED_FROM, RegValue::sz(from)),
                (PREPARED_TO, RegValue::sz(preparation.to.name())),
            ] {
                self.set(Store::System, &key, name, value)?;
            }
            // What an earlier prepare's script has counted is not this one's.
            let name = ATTEMPTS.to_owned();
            self.change(Store::System, &key, RegistryEditKind::DeleteValue { name })?;
        }
        Ok(())
    }

    /// The codes of the products that a key of upgrade codes lists, packed as they are there.
    pub(super) fn products_of(&self, key: &str) -> Result<Vec<String>, PlanError> {
        let names = self.draft.value_names(Store::Software, key)?;
        Ok(names.iter().filter_map(|name| unpacked(name)).collect())
    }
}

/// The command that takes out a product of Windows Installer.
pub(super) fn uninstall_command(product: &str) -> String {
    format!("{MSIEXEC} /x {product} /qn /norestart")
}

fn has_content(
    volume: &dyn WindowsVolume,
    path: &WinPath,
    content: &[u8],
) -> Result<bool, PlanError> {
    let size = ByteCount(content.len() as u64);
    Ok(volume.metadata(path)?.size == size && volume.read(path, size)? == content)
}

/// The text of the script. Commands come from the catalogues, and product codes are checked: nothing
/// in it is taken from the image as it is.
fn script(steps: &[ScriptStep]) -> String {
    let mut text = String::from(HEAD);
    for (number, step) in (1..).zip(steps) {
        let item = &step.item;
        let _ = write!(
            text,
            ":step{number}\n\
             if exist \"%~dp0{item}.done\" goto step{next}\n",
            next = number + 1
        );
        for command in &step.commands {
            let _ = write!(
                text,
                ">>\"%LOG%\" echo %DATE% %TIME% {item}\n\
                 {command} >>\"%LOG%\" 2>&1\n\
                 set RESULT=%ERRORLEVEL%\n\
                 >>\"%LOG%\" echo exit code %RESULT%\n"
            );
            // Done; done, and a restart is wanted; not there (any more).
            for good in [0, 3010, 1641, 1605] {
                let _ = writeln!(text, "if \"%RESULT%\"==\"{good}\" set RESULT=ok");
            }
            let _ = write!(
                text,
                "if not \"%RESULT%\"==\"ok\" set FAILED=1\n\
                 if not \"%RESULT%\"==\"ok\" goto step{next}\n",
                next = number + 1
            );
        }
        let _ = writeln!(text, ">\"%~dp0{item}.done\" echo done");
    }
    let _ = writeln!(text, ":step{}", steps.len() + 1);
    text.push_str(TAIL);
    text.extend(steps.iter().map(|step| step.routine.as_str()));
    // As `cmd` wants it: labels are not found otherwise.
    text.replace('\n', "\r\n")
}

/// Whether it is the code of a product, with braces.
pub(super) fn is_product_code(text: &str) -> bool {
    text.len() == 38
        && text.starts_with('{')
        && text.ends_with('}')
        && text[1..37].parse::<uuid::Uuid>().is_ok()
}

/// A product code from the form that Windows Installer keeps it in: the digits of the first three
/// groups and of each byte of the rest are in reverse order.
fn unpacked(packed: &str) -> Option<String> {
    if packed.len() != 32 || !packed.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let reversed = |range: std::ops::Range<usize>| packed[range].chars().rev().collect::<String>();
    let pairs = |from: usize, to: usize| {
        let starts = (from..to).step_by(2);
        starts.map(|at| reversed(at..at + 2)).collect::<String>()
    };
    Some(format!(
        "{{{}-{}-{}-{}-{}}}",
        reversed(0..8),
        reversed(8..12),
        reversed(12..16),
        pairs(16, 20),
        pairs(20, 32)
    ))
}

const ITEM: &str = "first-boot";
const WHY: &str =
    "what only the running Windows can do is done by a service, once, which then removes itself";
const TITLE: &str = "Completes the preparation of this image";
const FOLDER: &str = "ce-agent";
const SCRIPT: &str = "first-boot.cmd";
const ATTEMPTS: &str = "Attempts";
const MSIEXEC: &str = r"%SystemRoot%\System32\msiexec.exe";

/// How the names of the marks end that steps leave when they are done.
const DONE: &str = ".done";

/// It is held in memory. Agents have a few MiB, XenServer VM Tools some 30.
const LARGEST_INSTALLER: ByteCount = ByteCount::mib(64);

/// The service manager ends what does not answer it; what was started from there goes on.
const IMAGE: &str = r#"%SystemRoot%\System32\cmd.exe /c start "" /b %SystemRoot%\System32\cmd.exe /c %SystemRoot%\ce-agent\first-boot.cmd"#;

const OWN_PROCESS: u32 = 0x10;
const AUTO_START: u32 = 2;
const IGNORE: u32 = 0;

const HEAD: &str = r#"@echo off
setlocal
set LOG=%~dp0first-boot.log
set KEY=HKLM\SYSTEM\CurrentControlSet\Services\ce-first-boot
set ATTEMPT=0
set FAILED=0
for /f "tokens=3" %%n in ('%SystemRoot%\System32\reg.exe query %KEY% /v Attempts 2^>nul') do set /a ATTEMPT=%%n
set /a ATTEMPT+=1
%SystemRoot%\System32\reg.exe add %KEY% /v Attempts /t REG_DWORD /d %ATTEMPT% /f >nul
>>"%LOG%" echo %DATE% %TIME% attempt %ATTEMPT% of 3
"#;

const TAIL: &str = r#"if "%FAILED%"=="1" if %ATTEMPT% LSS 3 exit /b 1
%SystemRoot%\System32\sc.exe delete ce-first-boot >>"%LOG%" 2>&1
del /q "%~dp0*.done" "%~dp0*.msi" 2>nul
>>"%LOG%" echo %DATE% %TIME% over, failed: %FAILED%
exit /b %FAILED%
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_does_every_step_once_and_ends() {
        let step = |item: &str, commands: &[&str]| ScriptStep {
            item: item.into(),
            commands: commands.iter().map(|command| (*command).into()).collect(),
            routine: String::new(),
        };
        let text = script(&[step("a.b", &["one"]), step("c.d", &["two", "three"])]);
        assert!(text.lines().all(|line| !line.contains('\r')));
        assert_eq!(text.matches('\n').count(), text.matches("\r\n").count());
        for line in ["one >>\"%LOG%\" 2>&1", "three >>\"%LOG%\" 2>&1", ":step3"] {
            assert!(text.lines().any(|other| other == line), "{line}: {text}");
        }
        // Every label that is gone to is there.
        for target in text.lines().filter_map(|line| line.split("goto ").nth(1)) {
            assert!(
                text.lines().any(|line| line == format!(":{target}")),
                "{target}"
            );
        }
        assert!(!text.contains("shutdown") && text.contains("sc.exe delete"));
    }

    #[test]
    fn product_codes_are_unpacked_or_are_none() {
        assert_eq!(
            unpacked("46E471FAFC2268349ACE372F58379989").as_deref(),
            Some("{AF174E64-22CF-4386-A9EC-73F285739998}")
        );
        assert_eq!(unpacked("46E471FAFC2268349ACE372F5837998"), None);
        assert_eq!(unpacked("46E471FAFC2268349ACE372F5837998é"), None);
        assert!(is_product_code("{AF174E64-22CF-4386-A9EC-73F285739998}"));
        for other in [
            "{x} & del C:\\",
            "VMware",
            "{AF174E64-22CF-4386-A9EC-73F28573999}}",
        ] {
            assert!(!is_product_code(other), "{other}");
        }
    }
}
