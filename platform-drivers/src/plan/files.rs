//! Files and folders, scheduled tasks, boot options and loaders, and what waits for the first boot.

use ce_disk::units::ByteCount;
use ce_disk::volume::{VolumeError, WinPath};
use ce_regf::RegValue;

use super::draft::Store;
use super::first_boot::{is_product_code, uninstall_command};
use super::{Change, FirstBootStep, PlanError, Planner, State};
use crate::catalog::Item;
use crate::catalog::schema::{
    BootObject, BootOption, BootValue, FileKind, FileRule, FirstBoot, Loader, Sign, TaskAction,
    TaskRule,
};

impl Planner<'_, '_> {
    pub(super) fn file(&mut self, rule: &FileRule) -> Result<(), PlanError> {
        let Some(path) = self.place(&rule.path) else {
            return Ok(());
        };
        let is_folder = match self.machine.volume.metadata(&path) {
            Ok(found) => found.is_folder(),
            Err(VolumeError::NotFound { .. } | VolumeError::NotAFolder { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        match (rule.kind, is_folder) {
            (FileKind::File, false) => self.delete_file(&path),
            (FileKind::Folder, true) => self.delete_folder(&path),
            (FileKind::File, true) => {
                self.skip(path.to_string(), "it is a folder, expected a file".into());
                Ok(())
            }
            (FileKind::Folder, false) => {
                self.skip(path.to_string(), "it is a file, expected a folder".into());
                Ok(())
            }
        }
    }

    /// Deletes what is in a folder, then the folder. Reparse points are deleted, not followed.
    pub(super) fn delete_folder(&mut self, folder: &WinPath) -> Result<(), PlanError> {
        let volume = self.machine.volume;
        if !volume.exists(folder)? {
            return Ok(());
        }
        let mut found = vec![folder.clone()];
        let mut next = 0;
        while let Some(path) = found.get(next).cloned() {
            next += 1;
            let meta = volume.metadata(&path)?;
            if meta.is_folder() && meta.reparse.is_none() {
                for entry in volume.list(&path)? {
                    found.extend(path.join(&entry.name));
                }
            }
            if found.len() > LARGEST_FOLDER {
                return Err(PlanError::FolderTooLarge {
                    folder: folder.to_string(),
                    limit: LARGEST_FOLDER,
                });
            }
        }
        for path in found.iter().rev() {
            self.push_deletion(path);
        }
        Ok(())
    }

    /// Plans that what is at `path` goes.
    pub(super) fn push_deletion(&mut self, path: &WinPath) {
        let (path, reason) = (path.clone(), self.reason.clone());
        self.push(Change::Delete { path, reason }, State::ToDo);
    }

    pub(super) fn task(&mut self, rule: &TaskRule) -> Result<(), PlanError> {
        let Some(path) = self.in_windows(&format!(r"System32\Tasks\{}", rule.path)) else {
            return Ok(());
        };
        if !self.machine.volume.exists(&path)? {
            return Ok(());
        }
        if rule.action == TaskAction::Delete {
            return self.delete_file(&path);
        }
        let definition = self.machine.volume.read(&path, LARGEST_TASK)?;
        let reason = self.reason.clone();
        match disabled(&definition) {
            Disabled::Already => {
                let what = format!("task {path} is disabled");
                self.push(Change::Subject { what, reason }, State::AlreadySo);
            }
            Disabled::Now(content) => self.push(
                Change::Task {
                    path,
                    content,
                    reason,
                },
                State::ToDo,
            ),
            Disabled::NoTask => self.skip(
                path.to_string(),
                "it is no definition of a task in UTF-16 with settings".into(),
            ),
        }
        Ok(())
    }

    pub(super) fn boot_option(&mut self, option: &BootOption) -> Result<(), PlanError> {
        if !self.draft.has(Store::Boot) {
            let what = format!("boot option {}", option.name);
            self.skip(what, "there is no boot store of UEFI".into());
            return Ok(());
        }
        let default = format!(r"Objects\{BOOT_MANAGER}\Elements\{DEFAULT_OBJECT}");
        let object = match option.object {
            BootObject::BootManager => Some(BOOT_MANAGER.to_owned()),
            BootObject::EmsSettings => Some(EMS_SETTINGS.to_owned()),
            BootObject::DefaultLoader => self.draft.text(Store::Boot, &default, "Element")?,
        };
        let object = object.filter(|object| object.starts_with('{') && !object.contains('\\'));
        let key = object.map(|object| format!(r"Objects\{object}"));
        let is_there = match &key {
            Some(key) => self.draft.has_key(Store::Boot, key)?,
            None => false,
        };
        let Some(object) = key.filter(|_| is_there) else {
            let what = format!("boot option {}", option.name);
            self.skip(what, "the boot store has no such object".into());
            return Ok(());
        };
        let key = format!(r"{object}\Elements\{:08x}", option.element);
        let value = match option.value {
            BootValue::Deleted => return self.delete_key(Store::Boot, &key),
            BootValue::Boolean(value) => RegValue::binary([u8::from(value)]),
            BootValue::Integer(value) => RegValue::binary(value.to_le_bytes()),
        };
        self.set(Store::Boot, &key, "Element", value)
    }

    pub(super) fn loader(&mut self, loader: &Loader) -> Result<(), PlanError> {
        let (from, to) = (loader.from.clone(), loader.to.clone());
        let what = format!("{to} on the EFI system partition");
        let Some(boot) = self.machine.boot else {
            self.skip(what, "there is no EFI system partition".into());
            return Ok(());
        };
        if !boot.volume.exists(&from)? {
            self.skip(what, format!("there is no {from} to copy"));
            return Ok(());
        }
        let source = boot.volume.read(&from, LARGEST_LOADER)?;
        let is_same = boot.volume.exists(&to)? && boot.volume.read(&to, LARGEST_LOADER)? == source;
        let state = match is_same {
            true => State::AlreadySo,
            false => State::ToDo,
        };
        let reason = self.reason.clone();
        self.push(Change::CopyLoader { from, to, reason }, state);
        Ok(())
    }

    pub(super) fn first_boot(&mut self, item: &Item, step: &FirstBoot) -> Result<(), PlanError> {
        if !item.detect.is_empty() && !self.is_detected(item)? {
            // Whoever asked for it has to know.
            if let Some(field) = item.about.when.asked {
                self.skip(field.name().to_owned(), NOT_INSTALLED.into());
            }
            return Ok(());
        }
        let (step, commands) = match step {
            FirstBoot::Uninstall(name) => {
                let listed = self.listed(name.as_str())?;
                if listed.is_empty() {
                    return Ok(());
                }
                let products = listed.iter().filter(|entry| is_product_code(entry));
                let commands = products.map(|product| uninstall_command(product));
                (
                    FirstBootStep::Uninstall(name.to_string()),
                    commands.collect(),
                )
            }
            FirstBoot::UninstallUpgradeCode(code) => {
                let packed = packed(&code.to_string());
                let mut products = Vec::new();
                let mut is_there = false;
                for key in UPGRADE_CODES {
                    let key = format!(r"{key}\{packed}");
                    is_there |= self.draft.has_key(Store::Software, &key)?;
                    products.extend(self.products_of(&key)?);
                }
                if !is_there {
                    return Ok(());
                }
                products.sort();
                products.dedup();
                let commands = products.iter().map(|product| uninstall_command(product));
                (
                    FirstBootStep::UninstallUpgradeCode(code.to_string()),
                    commands.collect::<Vec<_>>(),
                )
            }
            FirstBoot::Run(command) => (
                FirstBootStep::Run(command.to_string()),
                vec![command.to_string()],
            ),
            FirstBoot::Install(file) => return self.install_at_first_boot(file),
        };
        let state = match commands.is_empty() {
            true => State::Skipped {
                why: "Windows Installer does not know it: take it out by its own program".into(),
            },
            false => {
                self.add_to_script(commands);
                State::Deferred
            }
        };
        let reason = self.reason.clone();
        self.push(Change::FirstBoot { step, reason }, state);
        Ok(())
    }

    fn is_detected(&self, item: &Item) -> Result<bool, PlanError> {
        for sign in &item.detect {
            let is_there = match sign {
                Sign::File(path) => match self.place(path) {
                    Some(path) => self.machine.volume.exists(&path)?,
                    None => false,
                },
                Sign::Key(hive, key) => {
                    self.any_key(super::settings::store(*hive), &self.keys(key))?
                }
                Sign::Service(name) => {
                    let sets = self.sets.iter();
                    let keys: Vec<String> =
                        sets.map(|set| format!(r"{set}\Services\{name}")).collect();
                    self.any_key(Store::System, &keys)?
                }
            };
            if is_there {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn any_key(&self, store: Store, keys: &[String]) -> Result<bool, PlanError> {
        for key in keys {
            if self.draft.has_key(store, key)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The entries of the product of this name in the list of programs.
    fn listed(&self, name: &str) -> Result<Vec<String>, PlanError> {
        let mut listed = Vec::new();
        for list in [
            r"Microsoft\Windows\CurrentVersion\Uninstall",
            r"WOW6432Node\Microsoft\Windows\CurrentVersion\Uninstall",
        ] {
            for entry in self.draft.subkeys(Store::Software, list)? {
                let key = format!(r"{list}\{entry}");
                let found = self.draft.text(Store::Software, &key, "DisplayName")?;
                if found.is_some_and(|found| found.eq_ignore_ascii_case(name)) {
                    listed.push(entry);
                }
            }
        }
        Ok(listed)
    }
}

/// A GUID as Windows Installer names its keys: the digits of the first three parts back to front,
/// those of each byte of the rest swapped.
fn packed(guid: &str) -> String {
    let digits = guid.trim_matches(['{', '}']).to_ascii_uppercase();
    let mut packed = String::new();
    for (number, part) in digits.split('-').enumerate() {
        let step = if number < 3 { part.len().max(1) } else { 2 };
        let letters: Vec<char> = part.chars().collect();
        for chunk in letters.chunks(step) {
            packed.extend(chunk.iter().rev());
        }
    }
    packed
}

enum Disabled {
    Already,
    NoTask,
    Now(Vec<u8>),
}

/// The definition of a task, switched off. Definitions are XML in UTF-16 with a byte order mark; the
/// `Enabled` of the settings counts, those of triggers are other ones.
///
/// Task Scheduler keeps a hash of the definition. Where it does not fit any more it runs the task
/// even less.
fn disabled(definition: &[u8]) -> Disabled {
    let Some((units, [])) = definition
        .strip_prefix(b"\xff\xfe")
        .map(<[u8]>::as_chunks::<2>)
    else {
        return Disabled::NoTask;
    };
    let units: Vec<u16> = units.iter().copied().map(u16::from_le_bytes).collect();
    let Ok(text) = String::from_utf16(&units) else {
        return Disabled::NoTask;
    };
    let settings = text.find("<Settings>").map(|at| at + "<Settings>".len());
    let Some((before, rest)) = settings.and_then(|at| text.split_at_checked(at)) else {
        return Disabled::NoTask;
    };
    let Some((inside, after)) = rest
        .find("</Settings>")
        .and_then(|at| rest.split_at_checked(at))
    else {
        return Disabled::NoTask;
    };
    let (on, off) = ("<Enabled>true</Enabled>", "<Enabled>false</Enabled>");
    if inside.contains(off) {
        return Disabled::Already;
    }
    let inside = match inside.contains(on) {
        true => inside.replacen(on, off, 1),
        false => format!("{off}{inside}"),
    };
    let text = format!("{before}{inside}{after}");
    let bytes = text.encode_utf16().flat_map(u16::to_le_bytes);
    Disabled::Now(b"\xff\xfe".iter().copied().chain(bytes).collect())
}

pub(super) const NOT_INSTALLED: &str = "the component that it is for is not installed";

/// Objects of the store: `{bootmgr}`, `{emssettings}`.
const BOOT_MANAGER: &str = "{9dea862c-5cdd-4e70-acc1-f32b344d4795}";
const EMS_SETTINGS: &str = "{0ce4991b-e6b3-4b16-b23c-5e0d9250e5d9}";

/// BcdBootMgrObject_DefaultObject
const DEFAULT_OBJECT: &str = "23000003";

/// A loader has 2 MiB.
const LARGEST_LOADER: ByteCount = ByteCount::mib(64);

/// A definition has a few KiB.
const LARGEST_TASK: ByteCount = ByteCount::mib(4);

/// What a platform leaves behind, or a driver package, has some hundred files.
const LARGEST_FOLDER: usize = 20_000;

/// Where Windows Installer keeps which products have an upgrade code.
const UPGRADE_CODES: [&str; 2] = [
    r"Microsoft\Windows\CurrentVersion\Installer\UpgradeCodes",
    r"Classes\Installer\UpgradeCodes",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str) -> Vec<u8> {
        let bytes = text.encode_utf16().flat_map(u16::to_le_bytes);
        b"\xff\xfe".iter().copied().chain(bytes).collect()
    }

    #[test]
    fn a_task_is_switched_off_in_its_settings_and_not_in_its_triggers() {
        let task = |settings: &str| {
            utf16(&format!(
                "<Task><Triggers><BootTrigger><Enabled>true</Enabled></BootTrigger></Triggers>\
                 <Settings>{settings}</Settings></Task>"
            ))
        };
        let off = task("<Enabled>false</Enabled><Hidden>true</Hidden>");
        for settings in [
            "<Enabled>true</Enabled><Hidden>true</Hidden>",
            "<Hidden>true</Hidden>",
        ] {
            let Disabled::Now(done) = disabled(&task(settings)) else {
                panic!("{settings}");
            };
            assert_eq!(done, off);
        }
        assert!(matches!(disabled(&off), Disabled::Already));
        for other in [
            &b""[..],
            b"<Task/>",
            b"\xff\xfeT",
            &utf16("<Task/>"),
            &utf16("<Settings>"),
        ] {
            assert!(matches!(disabled(other), Disabled::NoTask));
        }
    }

    #[test]
    fn installer_keys_have_a_code_with_its_digits_turned_round() {
        assert_eq!(
            packed("{21ef141f-9126-42da-93cd-b50442047420}"),
            "F141FE126219AD2439DC5B4024404702"
        );
    }
}
