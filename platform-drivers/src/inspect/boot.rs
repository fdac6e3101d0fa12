//! What the boot manager is told to start (BCD).

use ce_disk::volume::{WinPath, WindowsVolume};
use serde::Serialize;

use super::registry::{Notes, Registry};
use crate::hives::{LoadedHive, Recovery};

/// The boot loaders and the store on a volume that a machine starts from: an EFI system partition,
/// or the active partition of an MBR disk.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BootStore {
    /// The boot files that are there.
    pub files: Vec<&'static str>,
    /// Where the store (BCD) is, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<&'static str>,
    /// What the boot manager starts by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_entry: Option<BootEntry>,
    /// What could not be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
}

/// A loader that the boot manager knows.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BootEntry {
    /// What it is called in the menu.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The loader: `winload.efi` starts by UEFI, `winload.exe` by BIOS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
    /// The folder of Windows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_root: Option<String>,
}

impl BootStore {
    /// Looks for boot files and the store on `volume`; `None` if there is nothing of them.
    pub fn find(volume: &dyn WindowsVolume) -> Option<Self> {
        let mut found = Self::default();
        let mut is_there = |path: &'static str| {
            let parsed: WinPath = path.parse().ok()?;
            match volume.exists(&parsed) {
                Ok(true) => Some((path, parsed)),
                Ok(false) => None,
                Err(error) => {
                    found
                        .findings
                        .push(format!("{path}: {}", super::chain(&error)));
                    None
                }
            }
        };
        let files: Vec<_> = LOADERS.into_iter().filter_map(&mut is_there).collect();
        let store = STORES.into_iter().find_map(&mut is_there);
        found.files = files.into_iter().map(|(path, _)| path).collect();
        if let Some((path, parsed)) = store {
            found.store = Some(path);
            found.read_store(volume, &parsed);
        }
        let is_nothing = found.files.is_empty() && found.store.is_none();
        (!is_nothing || !found.findings.is_empty()).then_some(found)
    }

    /// Whether what is here starts by UEFI.
    pub fn is_uefi(&self) -> bool {
        let is_efi = |path: &&str| path.to_ascii_lowercase().ends_with(".efi");
        self.files.iter().any(is_efi)
    }

    fn read_store(&mut self, volume: &dyn WindowsVolume, path: &WinPath) {
        let loaded = match LoadedHive::load(volume, path) {
            Ok(loaded) => loaded,
            Err(problem) => {
                self.findings.push(super::chain(&problem));
                return;
            }
        };
        if loaded.recovery != Recovery::NotNeeded {
            self.findings.push(format!("{path}: {}", loaded.recovery));
        }
        let notes = Notes::default();
        let store = Registry::new("BCD", &loaded.hive, &notes);
        let element = |object: &str, element: &str| {
            store.text(&format!(r"Objects\{object}\Elements\{element}"), "Element")
        };
        let default = element(BOOT_MANAGER, DEFAULT_OBJECT);
        self.default_entry = default.map(|object| BootEntry {
            description: element(&object, DESCRIPTION),
            application: element(&object, APPLICATION_PATH),
            system_root: element(&object, SYSTEM_ROOT),
        });
        self.findings.extend(notes.into_findings());
    }
}

/// Loaders of UEFI, then of BIOS.
const LOADERS: [&str; 4] = [
    r"EFI\Microsoft\Boot\bootmgfw.efi",
    r"EFI\Boot\bootx64.efi",
    r"EFI\Boot\bootaa64.efi",
    "bootmgr",
];

const STORES: [&str; 2] = [r"EFI\Microsoft\Boot\BCD", r"Boot\BCD"];

/// The object `{bootmgr}`.
const BOOT_MANAGER: &str = "{9dea862c-5cdd-4e70-acc1-f32b344d4795}";

/// BcdBootMgrObject_DefaultObject, BcdLibraryString_Description, BcdLibraryString_ApplicationPath
/// and BcdOSLoaderString_SystemRoot.
const DEFAULT_OBJECT: &str = "23000003";
const DESCRIPTION: &str = "12000004";
const APPLICATION_PATH: &str = "12000002";
const SYSTEM_ROOT: &str = "22000002";
