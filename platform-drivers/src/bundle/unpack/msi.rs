//! MSI packages: tables that say where each file goes, and cabinets with the content.
//!
//! ```text
//!  Media ------> cabinets ---------> content, by the key of the file
//!  File -------> name, component          |
//!  Component --> directory                v
//!  Directory --> name, directory above --> path
//! ```
//!
//! Taken are the files of folders with an INF in them or above: the rest of an installation program
//! is of no use here. Where two components would put a file of one name into one folder, which Windows
//! Installer decides by their conditions, each gets a folder of its own: a driver package that is one
//! component, as driver frameworks want it, stays whole.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::rc::Rc;

use super::{DEEPEST, Output, UnpackError, refused, relative};
use crate::bundle::msi::{InstallerError, InstallerPackage};

impl Output<'_> {
    pub(super) fn msi(&mut self, file: File) -> Result<(), UnpackError> {
        let package = InstallerPackage::open(file);
        let mut package = package.map_err(|error| self.not_an_installer(error))?;
        let tables = Tables::read(&mut package).map_err(|error| self.not_an_installer(error))?;
        if tables.longest() as u64 > self.entries_left {
            return Err(UnpackError::TooMuch {
                what: "entries",
                limit: self.limits.entries,
            });
        }
        let paths = tables.paths()?;
        let path = |key: &str| paths.get(key).cloned();
        for cabinet in tables.cabinets() {
            match cabinet.strip_prefix('#') {
                Some(name) => {
                    let stream = package.stream(name);
                    let stream = stream.map_err(|error| self.not_an_installer(error))?;
                    self.cabinet(stream, "MSI", path)?;
                }
                None => {
                    let [name] = relative(cabinet)?[..] else {
                        return Err(refused(cabinet, "a cabinet beside the MSI was expected"));
                    };
                    let beside = self.archive.with_file_name(name);
                    let source = File::open(&beside);
                    let source = source.map_err(|source| UnpackError::Read {
                        path: beside,
                        source,
                    })?;
                    self.cabinet(source, "MSI", path)?;
                }
            }
        }
        Ok(())
    }

    fn not_an_installer(&self, error: InstallerError) -> UnpackError {
        match error {
            InstallerError::TooMuch { what, limit } => UnpackError::TooMuch { what, limit },
            error => self.damaged("MSI", error),
        }
    }
}

/// A text of a table; `None` where the field is empty.
type Field = Option<Rc<str>>;

/// The tables that say where files go.
struct Tables {
    /// Key, component, name.
    files: Vec<[Field; 3]>,
    /// Key, directory.
    components: Vec<[Field; 2]>,
    /// Key, directory above, names.
    directories: Vec<[Field; 3]>,
    /// Cabinet.
    media: Vec<[Field; 1]>,
}

impl Tables {
    fn read(package: &mut InstallerPackage<File>) -> Result<Self, InstallerError> {
        let directory = ["Directory", "Directory_Parent", "DefaultDir"];
        Ok(Self {
            files: package.rows("File", ["File", "Component_", "FileName"])?,
            components: package.rows("Component", ["Component", "Directory_"])?,
            directories: package.rows("Directory", directory)?,
            media: package.rows("Media", ["Cabinet"])?,
        })
    }

    /// Rows of the longest table.
    fn longest(&self) -> usize {
        let others = self.directories.len().max(self.media.len());
        self.files.len().max(self.components.len()).max(others)
    }

    /// The names of the cabinets, each once.
    fn cabinets(&self) -> Vec<&str> {
        let mut seen = HashSet::new();
        let names = self.media.iter().filter_map(|[name]| name.as_deref());
        names.filter(|name| seen.insert(*name)).collect()
    }

    /// Where each file goes, by its key.
    fn paths(&self) -> Result<HashMap<String, String>, UnpackError> {
        let directories = Directories::of(&self.directories);
        let mut folders = HashMap::new();
        for row in &self.components {
            if let [Some(component), Some(directory)] = row {
                folders.insert(&**component, directories.path(directory)?);
            }
        }
        let mut found = Vec::new();
        for row in &self.files {
            if let [Some(key), Some(component), Some(name)] = row
                && let Some((component, folder)) = folders.get_key_value(&**component)
            {
                found.push((&**key, *component, folder.as_str(), long_name(name)));
            }
        }
        let with_inf = found
            .iter()
            .filter(|(.., name)| name.to_lowercase().ends_with(".inf"));
        let with_inf: HashSet<&str> = with_inf.map(|(_, _, folder, _)| *folder).collect();
        found.retain(|(_, _, folder, _)| is_below_one(folder, &with_inf));

        let mut owners: HashMap<(String, String), &str> = HashMap::new();
        let mut apart = HashSet::new();
        for (_, component, folder, name) in &found {
            let other = owners.insert((folder.to_lowercase(), name.to_lowercase()), component);
            if let Some(other) = other.filter(|other| other != component) {
                apart.extend([*component, other]);
            }
        }
        let place = |(key, component, folder, name): (&str, &str, &str, &str)| {
            let path = match apart.contains(component) {
                true => format!("{folder}\\{component}\\{name}"),
                false => format!("{folder}\\{name}"),
            };
            (key.to_owned(), path.trim_start_matches('\\').to_owned())
        };
        Ok(found.into_iter().map(place).collect())
    }
}

/// `SHORT|long`: the long one.
fn long_name(name: &str) -> &str {
    name.split_once('|').map_or(name, |(_, long)| long)
}

/// The Directory table: the directory above each, and its name there.
struct Directories<'r>(HashMap<&'r str, (Option<&'r str>, &'r str)>);

impl<'r> Directories<'r> {
    fn of(rows: &'r [[Field; 3]]) -> Self {
        let entries = rows.iter().filter_map(|[key, above, names]| {
            // `target:source`: where it is installed, where it comes from.
            let target = names.as_deref()?.split(':').next()?;
            Some((key.as_deref()?, (above.as_deref(), long_name(target))))
        });
        Self(entries.collect())
    }

    /// The path of a directory. The topmost one is where everything is installed to.
    fn path(&self, directory: &str) -> Result<String, UnpackError> {
        let mut names = Vec::new();
        let mut length = 0;
        let mut at = directory;
        for _ in 0..DEEPEST {
            let Some((above, name)) = self.0.get(at) else {
                return Err(refused(at, "the Directory table does not have it"));
            };
            let above = above.filter(|above| *above != at);
            let Some(above) = above else {
                names.reverse();
                return Ok(names.join("\\"));
            };
            // A dot: it is the one above.
            if *name != "." {
                names.push(*name);
                length += name.len() + 1;
            }
            if length > LONGEST {
                return Err(refused(directory, "its path is too long"));
            }
            at = above;
        }
        Err(refused(
            directory,
            "its directory is too deep, or in itself",
        ))
    }
}

/// Whether a folder or one above it is among `folders`.
fn is_below_one(folder: &str, folders: &HashSet<&str>) -> bool {
    let ends = folder.match_indices('\\').map(|(end, _)| end);
    let mut above = ends
        .chain([0, folder.len()])
        .filter_map(|end| folder.get(..end));
    above.any(|folder| folders.contains(folder))
}

/// Bytes of a path: four times what Windows takes without further ado.
const LONGEST: usize = 1024;
