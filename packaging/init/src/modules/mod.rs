//! The kernel's modules: which one a device asks for, and what that one needs.
//!
//! ```text
//!  modalias of a device --> modules.alias --> name --> modules.dep --> files, in order --> finit_module
//! ```
//!
//! It does what udev and modprobe do, from the tables that depmod(8) writes. Modules are given to the
//! kernel as they are, with their signatures.

use std::collections::BTreeSet;
use std::ffi::{CString, NulError};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::system::finit_module;

mod pattern;
mod table;

use table::Table;

/// Why a module is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// Nothing in the image has that name.
    #[error("there is no module {0}")]
    Missing(String),
    /// Its file can't be read, or the kernel does not take it.
    #[error("module {path}: {source}")]
    Refused {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The tables can't be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Options with a NUL.
    #[error("options of a module: {0}")]
    Options(#[from] NulError),
}

/// The modules of the kernel that runs.
#[derive(Debug)]
pub struct Modules {
    folder: PathBuf,
    table: Table,
    /// Files that are in the kernel, or that it does not want.
    settled: BTreeSet<String>,
}

impl Modules {
    /// Reads the tables of the modules in `folder`, `/lib/modules/RELEASE`.
    ///
    /// # Errors
    ///
    /// They can't be read.
    pub fn read(folder: &Path) -> Result<Self, ModuleError> {
        let text = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(|source| ModuleError::Unreadable { path, source })
        };
        Ok(Self {
            table: Table::parse(&text("modules.alias")?, &text("modules.dep")?),
            folder: folder.to_owned(),
            settled: BTreeSet::new(),
        })
    }

    /// Loads what a device asks for; what goes wrong is handed back, and the rest loaded.
    pub fn load_for(&mut self, modalias: &str) -> Vec<ModuleError> {
        let names = self.table.names_for(modalias);
        let loaded = names.into_iter().map(|name| self.load(&name, ""));
        loaded.filter_map(Result::err).collect()
    }

    /// Loads what answers to a name: its own, or one that modules say they have besides.
    ///
    /// # Errors
    ///
    /// Nothing answers to it, or the kernel does not take it.
    pub fn load_as(&mut self, name: &str) -> Result<(), ModuleError> {
        let names = self.table.names_for(name);
        if names.is_empty() {
            return self.load(name, "");
        }
        names.iter().try_for_each(|name| self.load(name, ""))
    }

    /// Loads a module by its name, and before it what it needs.
    ///
    /// # Errors
    ///
    /// It is not there, or the kernel does not take it.
    pub fn load(&mut self, name: &str, options: &str) -> Result<(), ModuleError> {
        let files = self.table.files(name);
        let Some((last, needed)) = files.split_last() else {
            return Err(ModuleError::Missing(name.to_owned()));
        };
        for file in needed {
            self.insert(file, "")?;
        }
        self.insert(last, options)
    }

    fn insert(&mut self, file: &str, options: &str) -> Result<(), ModuleError> {
        if !self.settled.insert(file.to_owned()) {
            return Ok(());
        }
        let path = self.folder.join(file);
        let options = CString::new(options)?;
        let inserted =
            File::open(&path).and_then(|module| Ok(finit_module(&module, options.as_c_str(), 0)?));
        match inserted {
            Ok(()) => Ok(()),
            // It is in the kernel already.
            Err(error) if error.raw_os_error() == Some(Errno::EXIST.raw_os_error()) => Ok(()),
            // There is no such device after all: a driver of a watchdog or a processor says so.
            Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(()),
            Err(source) => Err(ModuleError::Refused { path, source }),
        }
    }
}

/// Where the modules of this release of the kernel are.
pub fn folder_of(release: &str) -> PathBuf {
    Path::new("/lib/modules").join(release)
}

/// What the devices that are there ask for: every `modalias` below `devices`, which is `/sys/devices`.
pub fn asked_for(devices: &Path) -> BTreeSet<String> {
    let mut asked = BTreeSet::new();
    let mut open = vec![devices.to_owned()];
    // Links lead up and sideways; only folders are entered, and of them a tree has no loops.
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(kind) if kind.is_file() && entry.file_name() == "modalias" => {
                    // A device may go away while it is looked at.
                    if let Ok(text) = fs::read_to_string(entry.path()) {
                        asked.insert(text.trim().to_owned());
                    }
                }
                _ => {}
            }
        }
    }
    asked.remove("");
    asked
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_device_is_asked_and_loops_do_no_harm() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for (folder, modalias) in [
            ("pci/a", "pci:1\n"),
            ("pci/a/virtio0", "virtio:2\n"),
            ("x", ""),
        ] {
            fs::create_dir_all(at(folder)).unwrap();
            fs::write(at(folder).join("modalias"), modalias).unwrap();
        }
        symlink(at("pci"), at("pci/a/subsystem")).unwrap();
        let asked = asked_for(root.path());
        assert_eq!(asked.into_iter().collect::<Vec<_>>(), ["pci:1", "virtio:2"]);
        assert!(asked_for(&at("none")).is_empty());
    }

    #[test]
    fn a_module_that_is_not_there_is_told_by_name() {
        let root = tempfile::tempdir().unwrap();
        assert!(Modules::read(root.path()).is_err());
        fs::write(root.path().join("modules.alias"), "alias pci:* gone\n").unwrap();
        fs::write(root.path().join("modules.dep"), "kernel/a.ko:\n").unwrap();
        let mut modules = Modules::read(root.path()).unwrap();
        let errors = modules.load_for("pci:1");
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].to_string(), "there is no module gone");
        let error = modules.load("a", "").unwrap_err().to_string();
        assert!(error.contains("kernel/a.ko: No such file"), "{error}");
    }

    #[test]
    fn a_module_answers_to_its_own_name_and_to_its_others() {
        let root = tempfile::tempdir().unwrap();
        let aliases = "alias fs-ext3 ext4\nalias fs-ext4 ext4\n";
        fs::write(root.path().join("modules.alias"), aliases).unwrap();
        let needs = "kernel/ext4.ko: kernel/jbd2.ko\nkernel/jbd2.ko:\n";
        fs::write(root.path().join("modules.dep"), needs).unwrap();
        let mut modules = Modules::read(root.path()).unwrap();
        for name in ["ext4", "fs-ext3", "fs-ext4"] {
            let error = modules.load_as(name).unwrap_err().to_string();
            assert!(error.contains("kernel/jbd2.ko"), "{error}");
            modules.settled.clear();
        }
        let error = modules.load_as("fs-xfs").unwrap_err().to_string();
        assert_eq!(error, "there is no module fs-xfs");
    }
}
