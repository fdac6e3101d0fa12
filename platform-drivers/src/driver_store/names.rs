//! What a package is called in an installed Windows.

use std::collections::BTreeSet;

use ce_regf::{Hive, HiveError, Key};
use sha2::{Digest, Sha256};

use crate::inf::Architecture;

/// The package's folder in the driver store, `vioscsi.inf_amd64_580a262bfd85344b`, which is also its
/// key below DriverPackages.
///
/// Windows derives the sixteen digits from the package's content in a way that it does not publish,
/// and takes any others: they tell packages apart and are not checked. These are the first of the
/// SHA-256 of the INF and the catalogue, so the same package always gets the same folder.
pub fn package_label(
    inf_name: &str,
    architecture: Architecture,
    inf: &[u8],
    catalog: Option<&[u8]>,
) -> String {
    let mut hash = Sha256::new();
    // The length keeps the end of one apart from the beginning of the other.
    hash.update((inf.len() as u64).to_le_bytes());
    hash.update(inf);
    hash.update(catalog.unwrap_or_default());
    let digits: String = hash
        .finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{}_{architecture}_{digits}", inf_name.to_lowercase())
}

/// The numbers of the `oemN.inf` that are taken: by the map of the SYSTEM hive, and by name in either
/// driver database. The map alone has been seen overwritten by other tools.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct OemNames {
    map: Vec<u8>,
    taken: BTreeSet<u32>,
}

impl OemNames {
    /// Reads both databases.
    ///
    /// # Errors
    ///
    /// A hive that is damaged where they stand.
    pub fn read(system: &Hive, drivers: Option<&Hive>) -> Result<Self, HiveError> {
        let mut names = Self::default();
        if let Some(database) = system.root()?.subkey("DriverDatabase")? {
            if let Some(map) = database.value("OemInfMap")? {
                names.map = map.data()?.into_owned();
            }
            names.add_names(&database)?;
        }
        if let Some(drivers) = drivers
            && let Some(database) = super::database::root_of_drivers(drivers)?
        {
            names.add_names(&database)?;
        }
        Ok(names)
    }

    fn add_names(&mut self, database: &Key<'_>) -> Result<(), HiveError> {
        let Some(list) = database.subkey("DriverInfFiles")? else {
            return Ok(());
        };
        for key in list.subkeys()? {
            self.taken.extend(number_of(&key?.name().to_string()));
        }
        Ok(())
    }

    /// Whether a number is taken.
    pub fn is_taken(&self, number: u32) -> bool {
        let byte = usize::try_from(number / 8).ok();
        let in_map = byte
            .and_then(|byte| self.map.get(byte))
            .is_some_and(|byte| byte & bit(number) != 0);
        in_map || self.taken.contains(&number)
    }

    /// Takes the lowest free number, which is what Windows does, and keeps all that are taken.
    pub fn allocate(&mut self) -> u32 {
        let number = (0..=u32::MAX)
            .find(|&number| !self.is_taken(number))
            .unwrap_or(u32::MAX);
        self.taken.insert(number);
        number
    }

    /// The map with all that is taken: as long as it was, or as it has to be.
    pub fn map(&self) -> Vec<u8> {
        let mut map = self.map.clone();
        // A name such as oem4000000000.inf is taken by name, and no map is made that long for it.
        for &number in self.taken.range(..MOST_IN_MAP) {
            let byte = number as usize / 8;
            if map.len() <= byte {
                map.resize(byte + 1, 0);
            }
            if let Some(byte) = map.get_mut(byte) {
                *byte |= bit(number);
            }
        }
        map
    }
}

/// The number of `oem12.inf`.
fn number_of(name: &str) -> Option<u32> {
    let name = name.to_lowercase();
    let digits = name.strip_prefix("oem")?.strip_suffix(".inf")?;
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| digits.parse().ok()).flatten()
}

/// The most significant bit comes first.
fn bit(number: u32) -> u8 {
    0x80 >> (number % 8)
}

/// The map of a Windows with as many third-party drivers as nobody has would have 8 KiB.
const MOST_IN_MAP: u32 = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_number_is_taken_and_the_map_keeps_the_others() {
        // Holes are filled: 0, 1 and 3 are in the map, 2 is known by name only.
        let mut names = OemNames {
            map: vec![0b1101_0000],
            taken: [2].into(),
        };
        assert_eq!(names.allocate(), 4);
        assert_eq!(names.allocate(), 5);
        assert_eq!(names.map(), [0b1111_1100]);
        let mut full = OemNames {
            map: vec![0xFF, 0xFF],
            taken: BTreeSet::new(),
        };
        assert_eq!(full.allocate(), 16);
        assert_eq!(full.map(), [0xFF, 0xFF, 0x80]);
    }

    #[test]
    fn only_the_names_that_windows_gives_count() {
        assert_eq!(number_of("OEM12.inf"), Some(12));
        for name in [
            "oem.inf",
            "oem1x.inf",
            "oem-1.inf",
            "oem1.pnf",
            "oem99999999999.inf",
        ] {
            assert_eq!(number_of(name), None, "{name}");
        }
    }

    #[test]
    fn the_same_package_always_has_the_same_folder() {
        let label =
            |inf: &[u8], catalog| package_label("VioStor.inf", Architecture::Amd64, inf, catalog);
        let first = label(b"inf", Some(b"cat"));
        assert_eq!(first, label(b"inf", Some(b"cat")));
        assert_ne!(first, label(b"infc", Some(b"at")));
        let digits = first.strip_prefix("viostor.inf_amd64_").unwrap();
        assert!(digits.len() == 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
    }
}
