//! Guests with the SYSTEM hives of real installations, from the corpus that `CE_CORPUS_DIR` names.
//!
//! The files of these machines are not there: every service gets a program for x64 as its file.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use ce_regf::Hive;

use crate::guest::{Draft, Guest, NOW, hive, program};

/// The guest with this SYSTEM hive, as if its Windows had finished what waits for its next start.
pub fn guest(folder: &str, build: u32) -> Guest {
    let mut guest = unfinished(folder, build);
    let mut system = guest.hive("SYSTEM");
    let mut editor = system.edit(NOW).unwrap();
    for set in ["ControlSet001", "ControlSet002"] {
        let key = format!(r"{set}\Control\Session Manager");
        editor
            .delete_value(key, "PendingFileRenameOperations")
            .unwrap();
    }
    let bytes = system.save(NOW).unwrap().bytes.to_vec();
    guest.windows.insert(SYSTEM.to_owned(), bytes);
    guest
}

/// The guest with this SYSTEM hive, which Windows did not close and whose logs are lost: what it
/// wrote last is given up.
pub fn unfinished(folder: &str, build: u32) -> Guest {
    let corpus = std::env::var_os("CE_CORPUS_DIR").expect("CE_CORPUS_DIR names no folder");
    let path = PathBuf::from(corpus)
        .join("hives")
        .join(folder)
        .join("SYSTEM");
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut system = Hive::load(bytes).unwrap();
    system.accept_without_logs();
    // A change and its undoing make a hive that is saved as closed.
    let mut editor = system.edit(NOW).unwrap();
    editor.create_key(r"Select\mark").unwrap();
    editor.delete_key(r"Select\mark").unwrap();
    let bytes = system.save(NOW).unwrap().bytes.to_vec();
    let mut guest = Draft::windows().guest();
    let software = format!(
        "[Microsoft\\Windows NT\\CurrentVersion]\n\"CurrentBuildNumber\"=\"{build}\"\n\"InstallationType\"=\"Client\"\n"
    );
    let config = r"Windows\System32\config";
    guest
        .windows
        .insert(format!(r"{config}\SOFTWARE"), hive(&software));
    // Services spell the same folder in several ways, and a real volume has it once.
    let mut spelled: HashMap<String, String> = HashMap::new();
    let known: Vec<String> = guest.windows.keys().cloned().collect();
    let drivers = driver_files(&Hive::load(bytes.clone()).unwrap());
    for file in known.into_iter().chain(drivers) {
        let mut path = String::new();
        for name in file.split('\\') {
            if !path.is_empty() {
                path.push('\\');
            }
            path.push_str(name);
            path = spelled.entry(path.to_lowercase()).or_insert(path).clone();
        }
        guest.windows.entry(path).or_insert_with(|| program(0x8664));
    }
    guest.windows.insert(SYSTEM.to_owned(), bytes);
    guest
}

/// The files of all drivers.
fn driver_files(system: &Hive) -> Vec<String> {
    let services = system
        .root()
        .unwrap()
        .subkey(r"ControlSet001\Services")
        .unwrap()
        .unwrap();
    let services = services.subkeys().unwrap().map(|service| {
        let service = service.unwrap();
        let name = service.name().to_string();
        let path = service
            .value("ImagePath")
            .unwrap()
            .and_then(|value| value.string().ok());
        path.unwrap_or_else(|| format!(r"System32\drivers\{name}.sys"))
    });
    services
        .filter(|path| path.to_lowercase().ends_with(".sys"))
        .map(|path| {
            let lower = path.to_lowercase();
            let start = [r"\systemroot\", r"%systemroot%\", r"\??\c:\windows\"];
            let start = start.iter().find(|start| lower.starts_with(**start));
            format!(r"Windows\{}", &path[start.map_or(0, |start| start.len())..])
        })
        .collect()
}

const SYSTEM: &str = r"Windows\System32\config\SYSTEM";
