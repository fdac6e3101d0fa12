//! Channels of a virtual machine in a laboratory, in builds for development only: the file
//! `opt/ce/config` of QEMU's `fw_cfg` (`docs/specs/fw_cfg.rst` of QEMU), and an OEM string of SMBIOS
//! (type 11) that begins with `ce.config:`, with Base64 behind it.

use std::fs;
use std::path::Path;

use super::user_data::{from_base64, look_into};
use super::{BootstrapError, Found, LONGEST_CONFIG, Look, Place};
use crate::job::journal::read_bounded;

/// The configuration in fw_cfg.
pub(super) fn fw_cfg(place: &Place) -> Result<Look, BootstrapError> {
    let path = place.root.join(FW_CFG);
    let text = read_bounded(&path, LONGEST_CONFIG)?;
    let found = text.map(|text| Found::at(path.display().to_string(), text.into()));
    Ok(found.into())
}

/// The configuration in SMBIOS.
pub(super) fn smbios(place: &Place) -> Result<Look, BootstrapError> {
    let Ok(structures) = fs::read_dir(place.root.join(SMBIOS)) else {
        return Ok(Look::NotHere);
    };
    for structure in structures.flatten() {
        if !structure.file_name().to_string_lossy().starts_with("11-") {
            continue;
        }
        if let Some(encoded) = oem_string(&structure.path().join("raw")) {
            return look_into(ORIGIN, from_base64(ORIGIN, &encoded)?);
        }
    }
    Ok(Look::NotHere)
}

/// What follows our mark in the strings of a structure: they stand behind its formatted part, whose
/// length is its second byte (DMTF DSP0134, 6.1.3).
fn oem_string(path: &Path) -> Option<Vec<u8>> {
    let structure = fs::read(path).ok()?;
    let strings = structure.get(usize::from(*structure.get(1)?)..)?;
    let mut strings = strings.split(|byte| *byte == 0);
    strings.find_map(|string| Some(string.strip_prefix(MARK)?.to_vec()))
}

const FW_CFG: &str = "sys/firmware/qemu_fw_cfg/by_name/opt/ce/config/raw";

const SMBIOS: &str = "sys/firmware/dmi/entries";

const MARK: &[u8] = b"ce.config:";

const ORIGIN: &str = "the OEM string ce.config: of SMBIOS";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_oem_string_and_fw_cfg_configure_a_machine_of_a_laboratory() {
        let root = tempfile::tempdir().unwrap();
        let place = Place::in_tests(root.path());
        assert!(matches!(smbios(&place), Ok(Look::NotHere)));
        let folder = root.path().join(SMBIOS).join("11-0");
        fs::create_dir_all(&folder).unwrap();
        let structure = b"\x0b\x05\x00\x0b\x02other\0ce.config:bG9nID0gJ3gn\0\0";
        fs::write(folder.join("raw"), structure).unwrap();
        let Ok(Look::Found(found)) = smbios(&place) else {
            panic!()
        };
        assert_eq!(*found.text, "log = 'x'");
        for cut in 0..structure.len() {
            fs::write(folder.join("raw"), &structure[..cut]).unwrap();
            assert!(!matches!(smbios(&place), Ok(Look::Found(found)) if found.text.is_empty()));
        }

        let file = root.path().join(FW_CFG);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "log = 'y'").unwrap();
        let Ok(Look::Found(found)) = fw_cfg(&place) else {
            panic!()
        };
        assert_eq!(*found.text, "log = 'y'");
    }
}
