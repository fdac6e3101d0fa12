//! Driver packages: an INF with its catalogue and files, and whether they belong together.
//!
//! ```text
//!  INF --supported()--> every device, on the oldest Windows that it is for --> plan
//!   |                                                                           |
//!   +--CatalogFile--> catalogue: hashes, signer                        files that are copied
//!                          |                                                    |
//!                          +------ SHA-1, SHA-256, plain or Authenticode -------+
//!                                            machine of PE files
//! ```
//!
//! Nothing is repaired or guessed: what does not fit is a [`Problem`], and which of them make a
//! package unusable is for the caller to say. See [`Signer`] for how far a signature is checked.

mod catalog_file;
mod files;
pub mod pe;
mod signature;

use std::collections::BTreeMap;
use std::fmt;

use sha1::Sha1;
use sha2::{Digest, Sha256};

pub use catalog_file::{CatalogFile, CatalogFileError, FileHash, Member};
pub use files::{HostFolder, LARGEST_FILE, PackageFiles};
pub use pe::PeFile;
pub use signature::Signer;

use crate::inf::{
    Architecture, Inf, InfError, InfLibrary, LineNumber, Model, Supported, WindowsTarget,
};

/// A driver package, read and checked.
#[derive(Debug)]
pub struct DriverPackage {
    /// The INF's file name.
    pub inf_name: String,
    /// The INF.
    pub inf: Inf,
    /// What devices and Windows it is for.
    pub supported: Vec<Supported>,
    /// The catalogue; `None` if it is missing, cannot be read, or the INF names none.
    pub catalog: Option<(String, CatalogFile)>,
    /// The INF itself and all files that it brings, by path in the package.
    pub files: Vec<PackageFile>,
    /// What does not fit.
    pub problems: Vec<Problem>,
}

/// A file of a package.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PackageFile {
    /// The path from the INF's folder.
    pub path: String,
    /// Bytes.
    pub length: u64,
    /// SHA-256 of the whole file.
    pub sha256: [u8; 32],
    /// The machine, of a PE file that names one of Windows'.
    pub machine: Option<Architecture>,
    /// Whether the catalogue lists it.
    pub is_listed: bool,
}

/// What does not fit in a package.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The INF names no catalogue: its files cannot be signed by one.
    #[error("the INF names no catalogue")]
    NoCatalogNamed,
    /// The catalogue is not there.
    #[error("the catalogue {name} is missing")]
    CatalogMissing {
        /// Its name.
        name: String,
    },
    /// The catalogue is none.
    #[error("the catalogue {name}")]
    CatalogUnreadable {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: Box<CatalogFileError>,
    },
    /// The catalogue's signature does not fit.
    #[error("the signature of {name} does not fit: {fault}")]
    BadSignature {
        /// The catalogue.
        name: String,
        /// Why.
        fault: String,
    },
    /// A file that the INF copies is not there.
    #[error("{path} is missing; {line} copies it")]
    FileMissing {
        /// Its path in the package.
        path: String,
        /// The line of the INF.
        line: LineNumber,
    },
    /// A file is packed in a cabinet of the package, which Windows unpacks itself.
    #[error("{path} is packed in {cabinet}, which is not looked into")]
    InCabinet {
        /// Its path.
        path: String,
        /// The cabinet's.
        cabinet: String,
    },
    /// A file cannot be read.
    #[error("reading {path}")]
    Unreadable {
        /// Its path in the package.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The catalogue does not list a file as it is.
    #[error("{path} is not what the catalogue lists (no member {hash})")]
    NotListed {
        /// Its path in the package.
        path: String,
        /// Its SHA-256.
        hash: FileHash,
    },
    /// A driver for another machine.
    #[error("{path} is a driver for {found}, copied on {expected}")]
    WrongMachine {
        /// Its path in the package.
        path: String,
        /// What it is for; `None` of no PE file at all.
        found: Machine,
        /// What the INF copies it on.
        expected: Architecture,
    },
    /// The INF cannot be followed for a device.
    #[error("the device {id} cannot be installed")]
    NotFollowed {
        /// The device.
        id: String,
        /// Why.
        #[source]
        source: InfError,
    },
}

/// The machine of a file, for a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Machine(pub Option<Architecture>);

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(architecture) => architecture.fmt(f),
            None => f.write_str("no machine that Windows has"),
        }
    }
}

/// A package that cannot be checked at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackageError {
    /// The INF is not there.
    #[error("there is no {name}")]
    NoInf {
        /// Its name.
        name: String,
    },
    /// The INF cannot be read.
    #[error("reading {name}")]
    Unreadable {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The INF is refused.
    #[error("{name}")]
    Inf {
        /// Its name.
        name: String,
        /// Why and where.
        #[source]
        source: InfError,
    },
}

impl DriverPackage {
    /// Reads a package: its INF, its catalogue, and every file that installing any of its devices on
    /// any Windows copies.
    ///
    /// # Errors
    ///
    /// The INF is missing or refused. All else that does not fit is in [`Self::problems`].
    pub fn read(files: &dyn PackageFiles, inf_name: &str) -> Result<Self, PackageError> {
        let name = || inf_name.to_owned();
        let bytes = files
            .read(inf_name)
            .map_err(|source| PackageError::Unreadable {
                name: name(),
                source,
            })?
            .ok_or_else(|| PackageError::NoInf { name: name() })?;
        let refused = |source| PackageError::Inf {
            name: name(),
            source,
        };
        let inf = Inf::parse(&bytes).map_err(refused)?;
        let supported = inf.supported().map_err(refused)?;
        let mut package = Self {
            inf_name: name(),
            inf,
            supported,
            catalog: None,
            files: Vec::new(),
            problems: Vec::new(),
        };
        package.read_catalog(files);
        package.check_file(inf_name, &bytes);
        let needed = package.needed();
        for (path, need) in needed {
            package.check_needed(files, path, &need);
        }
        Ok(package)
    }

    /// Whether all that it brings is there and as its catalogue lists it, and the catalogue's
    /// signature fits.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    fn read_catalog(&mut self, files: &dyn PackageFiles) {
        let version = self.inf.version();
        // Packages for several machines have one catalogue with several names, if any.
        let architectures = self.supported.iter().filter_map(|supported| {
            let target = supported.target.as_ref()?;
            Some(target.architecture.unwrap_or(Architecture::X86))
        });
        let name = architectures
            .chain([Architecture::Amd64])
            .find_map(|architecture| version.catalog_for(architecture));
        let Some(name) = name.map(str::to_owned) else {
            self.problems.push(Problem::NoCatalogNamed);
            return;
        };
        let bytes = match files.read(&name) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                self.problems.push(Problem::CatalogMissing { name });
                return;
            }
            Err(source) => {
                let path = name;
                self.problems.push(Problem::Unreadable { path, source });
                return;
            }
        };
        match CatalogFile::parse(&bytes) {
            Ok(catalog) => {
                if let Some(fault) = catalog.signer.fault.clone() {
                    let name = name.clone();
                    self.problems.push(Problem::BadSignature { name, fault });
                }
                self.catalog = Some((name, catalog));
            }
            Err(error) => self.problems.push(Problem::CatalogUnreadable {
                name,
                source: Box::new(error),
            }),
        }
    }

    /// The files that installing its devices copies, by path in lower case.
    fn needed(&mut self) -> BTreeMap<String, Need> {
        let mut needed: BTreeMap<String, Need> = BTreeMap::new();
        let mut seen_sections = std::collections::HashSet::new();
        let library = InfLibrary::default();
        for supported in &self.supported {
            // What no Windows understands no Windows installs.
            let Some(decoration) = &supported.target else {
                continue;
            };
            let target = decoration.lowest_target();
            for model in &supported.models {
                // Most devices of a package are installed by few sections.
                let section = (target.architecture, model.install_section.to_lowercase());
                if !seen_sections.insert(section) {
                    continue;
                }
                if let Err(problem) = self.needed_for(model, &target, &library, &mut needed) {
                    self.problems.push(problem);
                }
            }
        }
        needed
    }

    fn needed_for(
        &self,
        model: &Model,
        target: &WindowsTarget,
        library: &InfLibrary,
        needed: &mut BTreeMap<String, Need>,
    ) -> Result<(), Problem> {
        let plan = self
            .inf
            .plan_model(model.clone(), target, library)
            .map_err(|source| Problem::NotFollowed {
                id: model.ids().next().unwrap_or_default().to_owned(),
                source,
            })?;
        for copy in plan.copies {
            let need = needed
                .entry(copy.source.to_lowercase())
                .or_insert_with(|| Need {
                    path: copy.source.clone(),
                    cabinet: copy.cabinet.clone(),
                    line: copy.line,
                    machines: Vec::new(),
                });
            let is_driver = copy.source.to_lowercase().ends_with(".sys");
            if is_driver && !need.machines.contains(&target.architecture) {
                need.machines.push(target.architecture);
            }
        }
        Ok(())
    }

    fn check_needed(&mut self, files: &dyn PackageFiles, path: String, need: &Need) {
        if let Some(cabinet) = need.cabinet.clone() {
            let path = need.path.clone();
            self.problems.push(Problem::InCabinet { path, cabinet });
            return;
        }
        let bytes = match files.read(&path) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                self.problems.push(Problem::FileMissing {
                    path: need.path.clone(),
                    line: need.line,
                });
                return;
            }
            Err(source) => {
                let path = need.path.clone();
                self.problems.push(Problem::Unreadable { path, source });
                return;
            }
        };
        let machine = self.check_file(&need.path, &bytes);
        for &expected in &need.machines {
            if machine != Some(expected) {
                self.problems.push(Problem::WrongMachine {
                    path: need.path.clone(),
                    found: Machine(machine),
                    expected,
                });
            }
        }
    }

    /// Looks a file up in the catalogue. Returns the machine it is for.
    fn check_file(&mut self, path: &str, bytes: &[u8]) -> Option<Architecture> {
        let sha256: [u8; 32] = Sha256::digest(bytes).into();
        let pe = PeFile::parse(bytes);
        let is_listed = self
            .catalog
            .as_ref()
            .is_some_and(|(_, catalog)| catalog.lists(&hashes(bytes, pe.as_ref())));
        if self.catalog.is_some() && !is_listed {
            self.problems.push(Problem::NotListed {
                path: path.to_owned(),
                hash: FileHash::Sha256(sha256),
            });
        }
        let machine = pe.and_then(|pe| pe.architecture());
        self.files.push(PackageFile {
            path: path.to_owned(),
            length: bytes.len() as u64,
            sha256,
            machine,
            is_listed,
        });
        machine
    }
}

/// A file that is copied.
struct Need {
    path: String,
    cabinet: Option<String>,
    line: LineNumber,
    /// The machines on which it has to run.
    machines: Vec<Architecture>,
}

/// All hashes by which a catalogue may know a file.
fn hashes(bytes: &[u8], pe: Option<&PeFile>) -> Vec<FileHash> {
    let mut hashes = vec![
        FileHash::Sha256(Sha256::digest(bytes).into()),
        FileHash::Sha1(Sha1::digest(bytes).into()),
    ];
    if let Some(pe) = pe {
        let sha256 = <[u8; 32]>::try_from(pe.digest::<Sha256>(bytes));
        let sha1 = <[u8; 20]>::try_from(pe.digest::<Sha1>(bytes));
        hashes.extend(sha256.ok().map(FileHash::Sha256));
        hashes.extend(sha1.ok().map(FileHash::Sha1));
    }
    hashes
}
