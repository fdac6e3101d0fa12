//! Installers of a bundle: programs that only the running Windows can put in.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ce_disk::units::ByteCount;

use super::{BundleError, files_in};

/// A package of Windows Installer (`.msi`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Installer {
    /// The name of its file.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

impl Installer {
    /// All of the file.
    ///
    /// # Errors
    ///
    /// What reading gives; `FileTooLarge` for one that is longer than `most`.
    pub fn read(&self, most: ByteCount) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        let file = fs::File::open(&self.path)?;
        file.take(most.0.saturating_add(1))
            .read_to_end(&mut content)?;
        if content.len() as u64 > most.0 {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("longer than {most:#}"),
            ));
        }
        Ok(content)
    }
}

/// All installers in a folder and the folders below it, by path. Links are not followed.
///
/// # Errors
///
/// A folder that cannot be read, or with more in it than any bundle has.
pub fn installers_in(folder: &Path) -> Result<Vec<Installer>, BundleError> {
    let paths = files_in(folder, "msi")?.into_iter();
    Ok(paths
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.to_owned();
            Some(Installer { name, path })
        })
        .collect())
}
