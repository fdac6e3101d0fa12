//! Bundles: folders of driver packages, sorted by the platform that they are for.
//!
//! ```text
//!  BUNDLE/
//!    gcp/                                 a platform
//!      vioscsi-5f0c9c3e0d1b/              a package: INF name and the hash of INF and catalogue
//!        vioscsi.inf  vioscsi.cat  vioscsi.sys
//!    vsphere/
//!      ...
//! ```
//!
//! A package's folder holds what its INF names and nothing else, so that a bundle can be looked
//! through. The layout is for those who write bundles: whoever reads one takes every INF in it,
//! wherever it stands, and every `.msi` for an installer that may be asked for by its name.

pub mod cabinet;
pub mod disc;
mod installer;
pub mod msi;
mod unpack;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

pub use installer::{Installer, installers_in};
pub use unpack::{UnpackError, UnpackLimits, unpack};

use crate::inf::InfErrorKind;
use crate::package::{DriverPackage, HostFolder, PackageError, PackageFiles};
use crate::platform::Platform;

/// A package that was found in a folder.
#[derive(Debug)]
pub struct Found {
    /// The folder of the INF.
    pub folder: PathBuf,
    /// The package, or why it is none.
    pub package: Result<DriverPackage, PackageError>,
}

/// What an import did with a package.
#[derive(Debug)]
pub struct Imported {
    /// Where it is now.
    pub folder: PathBuf,
    /// Whether it was there before.
    pub was_there: bool,
    /// The package.
    pub package: DriverPackage,
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// A folder or file cannot be read.
    #[error("reading {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A folder or file cannot be written.
    #[error("writing {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// More than a bundle has.
    #[error("{} has more than {limit} {what}", path.display())]
    TooMuch {
        /// The folder.
        path: PathBuf,
        /// What there is too much of.
        what: &'static str,
        /// How much is looked at.
        limit: usize,
    },
    /// An archive that is not taken.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
}

/// All packages in a folder and the folders below it, by path. Links are not followed. A file that
/// bears the name of an INF and is none, such as `autorun.inf`, is passed by.
///
/// # Errors
///
/// A folder that cannot be read, or with more in it than any bundle has.
pub fn packages_in(folder: &Path) -> Result<Vec<Found>, BundleError> {
    let mut found = Vec::new();
    for inf in files_in(folder, "inf")? {
        // `files_in` gives paths of files only, which have both.
        let folder = inf.parent().unwrap_or(Path::new("")).to_owned();
        let name = inf.file_name().unwrap_or_default().to_string_lossy();
        let package = DriverPackage::read(&HostFolder::new(&folder), &name);
        let is_other = matches!(
            &package,
            Err(PackageError::Inf { source, .. })
                if matches!(source.kind, InfErrorKind::NotAnInf { .. })
        );
        if !is_other {
            found.push(Found { folder, package });
        }
    }
    Ok(found)
}

/// Copies a package that [`packages_in`] found into a bundle: the INF, the catalogue and the files
/// that the INF copies, each as it is.
///
/// # Errors
///
/// A file that cannot be read or written.
pub fn import(
    package: DriverPackage,
    from: &Path,
    bundle: &Path,
    platform: Platform,
) -> Result<Imported, BundleError> {
    let source = HostFolder::new(from);
    let read = |path: &str| {
        let failed = |source| BundleError::Read {
            path: from.join(path),
            source,
        };
        source
            .read(path)
            .and_then(|bytes| bytes.ok_or_else(|| io::ErrorKind::NotFound.into()))
            .map_err(failed)
    };
    let catalog = package.catalog.as_ref().map(|(name, _)| name.as_str());
    let mut hash = Sha256::new();
    hash.update(read(&package.inf_name)?);
    if let Some(name) = catalog {
        hash.update(read(name)?);
    }
    let digits: String = hash
        .finalize()
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let stem = Path::new(&package.inf_name)
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    let folder = bundle
        .join(platform.name())
        .join(format!("{stem}-{digits}"));
    if folder.is_dir() {
        return Ok(Imported {
            folder,
            was_there: true,
            package,
        });
    }
    let write = |path: &Path, source| BundleError::Write {
        path: path.to_owned(),
        source,
    };
    let parent = folder.parent().unwrap_or(bundle);
    fs::create_dir_all(parent).map_err(|error| write(parent, error))?;
    // Beside its place and renamed: an import that is cut short leaves no half package.
    let partial = tempfile::Builder::new()
        .prefix(".partial-")
        .tempdir_in(parent)
        .map_err(|error| write(parent, error))?;
    let files = package.files.iter().map(|file| file.path.as_str());
    for path in files.chain(catalog) {
        let target = partial.path().join(path.split('\\').collect::<PathBuf>());
        let above = target.parent().unwrap_or(partial.path());
        fs::create_dir_all(above)
            .and_then(|()| match fs::File::create_new(&target) {
                // Two spellings of one file.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
                result => result.map(Some),
            })
            .map_err(|error| write(&target, error))?
            .map(|mut file| -> Result<(), BundleError> {
                let bytes = read(path)?;
                io::Write::write_all(&mut file, &bytes).map_err(|error| write(&target, error))
            })
            .transpose()?;
    }
    let partial = partial.keep();
    fs::rename(&partial, &folder).map_err(|error| {
        // The error that matters is the one that is told.
        drop(fs::remove_dir_all(&partial));
        write(&folder, error)
    })?;
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&folder, open).map_err(|error| write(&folder, error))?;
    Ok(Imported {
        folder,
        was_there: false,
        package,
    })
}

/// The files with this extension.
fn files_in(top: &Path, wanted: &str) -> Result<Vec<PathBuf>, BundleError> {
    let mut folders = vec![top.to_owned()];
    let mut files = Vec::new();
    let mut looked_at = 0;
    while let Some(folder) = folders.pop() {
        let read = |source| BundleError::Read {
            path: folder.clone(),
            source,
        };
        for entry in fs::read_dir(&folder).map_err(read)? {
            let entry = entry.map_err(read)?;
            looked_at += 1;
            if looked_at > MOST_ENTRIES {
                return Err(BundleError::TooMuch {
                    path: top.to_owned(),
                    what: "files and folders",
                    limit: MOST_ENTRIES,
                });
            }
            let kind = entry.file_type().map_err(read)?;
            let path = entry.path();
            let is_wanted = path
                .extension()
                .is_some_and(|extension| extension.eq_ignore_ascii_case(wanted));
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && is_wanted {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The largest collection of drivers for virtual machines has some 3,000.
const MOST_ENTRIES: usize = 200_000;
