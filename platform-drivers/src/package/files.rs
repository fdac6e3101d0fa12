//! Where the files of a package are read from.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A folder with an INF and what it brings.
pub trait PackageFiles {
    /// A file by its path from the folder, with backslashes, in whatever case; `None` if there is
    /// none.
    ///
    /// # Errors
    ///
    /// It is there and cannot be read, or is larger than [`LARGEST_FILE`].
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>>;
}

/// A folder of the host. Names are found without regard to case, as Windows finds them. Links are
/// not followed: a package brings its files itself.
#[derive(Clone, Debug)]
pub struct HostFolder {
    path: PathBuf,
}

impl HostFolder {
    /// The folder at this path.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The folder's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The host's path of a file.
    fn find(&self, path: &str) -> io::Result<Option<PathBuf>> {
        let mut current = self.path.clone();
        for wanted in path.split('\\') {
            let mut found = None;
            for entry in fs::read_dir(&current)? {
                let entry = entry?;
                let name = entry.file_name();
                if name.to_string_lossy().to_lowercase() == wanted.to_lowercase() {
                    if entry.file_type()?.is_symlink() {
                        let message = format!("{} is a link", entry.path().display());
                        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
                    }
                    found = Some(entry.path());
                    break;
                }
            }
            match found {
                Some(path) => current = path,
                None => return Ok(None),
            }
            if !current.is_dir() {
                break;
            }
        }
        Ok(Some(current).filter(|path| path.is_file()))
    }
}

impl PackageFiles for HostFolder {
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        let Some(path) = self.find(path)? else {
            return Ok(None);
        };
        let file = fs::File::open(&path)?;
        let mut bytes = Vec::new();
        file.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LARGEST_FILE {
            let message = format!("more than the {LARGEST_FILE} bytes a driver file can have");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        Ok(Some(bytes))
    }
}

/// Bytes. The largest driver files, those of graphics cards, have about 200 MiB.
pub const LARGEST_FILE: u64 = 512 << 20;
