//! `CopyFiles`, `RenFiles`, `DelFiles`: from where to where.
//!
//! ```text
//!  CopyFiles = List, @one.sys      [DestinationDirs]  List = 12   DefaultDestDir = 11
//!       |                                  |
//!  [List] new.sys, old.sys          Windows\System32\drivers\new.sys
//!                    |
//!  [SourceDisksFiles] old.sys = 1, sub       [SourceDisksNames] 1 = "Disk",,,\path
//!                                                   path\sub\old.sys
//! ```

use std::collections::HashMap;

use super::super::decorate::Architecture;
use super::super::dirid::{self, Directory, SYSTEM_DRIVE};
use super::super::error::{InfError, InfErrorKind, LineNumber};
use super::super::section::{Line, Section, Sections, fold};
use super::super::strings::StringTable;
use super::{Reader, number};

/// Where a file goes.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Destination {
    /// A path from the root of the system volume, such as `Windows\System32\drivers\viostor.sys`.
    Volume(String),
    /// A path in the package's folder of the driver store (directory 13): Windows uses it there.
    DriverStore(String),
}

/// A file that is copied.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FileCopy {
    /// The path in the package, from the folder of the INF; in [`Self::cabinet`] if there is one.
    pub source: String,
    /// The cabinet file that it is packed in, from the folder of the INF.
    pub cabinet: Option<String>,
    /// The INF of Windows that brings the file; `None` if it is in the package itself.
    pub included_from: Option<String>,
    /// Where it goes.
    pub destination: Destination,
    /// `COPYFLG_*`.
    pub flags: u32,
    /// The line that says so, of the INF that brings the file.
    pub line: LineNumber,
}

/// A file that is deleted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FileDelete {
    /// What is deleted.
    pub file: Destination,
    /// The line that says so.
    pub line: LineNumber,
}

/// A file that gets another name in the same folder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FileRename {
    /// What it is called.
    pub from: Destination,
    /// What it will be called.
    pub to: Destination,
    /// The line that says so.
    pub line: LineNumber,
}

impl Reader<'_> {
    /// What the `CopyFiles` lines of a section copy.
    pub(in super::super) fn copies(
        &self,
        section: &Section,
        architecture: Architecture,
        included_from: Option<&str>,
    ) -> Result<Vec<FileCopy>, InfError> {
        let mut copies = Vec::new();
        for line in section.with_key("CopyFiles") {
            for index in 0..line.values.len() {
                self.budget.spend_line(line.number)?;
                let Some(value) = self.value(line, index)? else {
                    continue;
                };
                if let Some(name) = value.strip_prefix('@') {
                    let folder = self.destination(None)?;
                    let name = file_name("the file", name).map_err(|kind| kind.at(line.number))?;
                    let entry = Entry {
                        destination: name.clone(),
                        source: name,
                        flags: 0,
                        line: line.number,
                    };
                    copies.extend(self.copy(entry, &folder, architecture, included_from)?);
                } else {
                    let list = self.section(&value, "CopyFiles", line.number)?;
                    let folder = self.destination(Some(&list.name))?;
                    for entry in self.entries(list)? {
                        copies.extend(self.copy(entry, &folder, architecture, included_from)?);
                    }
                }
            }
        }
        Ok(copies)
    }

    /// What the `DelFiles` lines of a section delete.
    pub(in super::super) fn deletes(&self, section: &Section) -> Result<Vec<FileDelete>, InfError> {
        let mut deletes = Vec::new();
        for (_, list) in self.named_sections(section, "DelFiles")? {
            let folder = self.destination(Some(&list.name))?;
            for entry in self.entries(list)? {
                deletes.push(FileDelete {
                    file: folder.join(&entry.destination),
                    line: entry.line,
                });
            }
        }
        Ok(deletes)
    }

    /// What the `RenFiles` lines of a section rename.
    pub(in super::super) fn renames(&self, section: &Section) -> Result<Vec<FileRename>, InfError> {
        let mut renames = Vec::new();
        for (_, list) in self.named_sections(section, "RenFiles")? {
            let folder = self.destination(Some(&list.name))?;
            for entry in self.entries(list)? {
                renames.push(FileRename {
                    from: folder.join(&entry.source),
                    to: folder.join(&entry.destination),
                    line: entry.line,
                });
            }
        }
        Ok(renames)
    }

    /// The lines of a list of files: `destination, source, unused, flags`.
    fn entries(&self, list: &Section) -> Result<Vec<Entry>, InfError> {
        let mut entries = Vec::new();
        for line in &list.lines {
            self.budget.spend_line(line.number)?;
            let name = |index| {
                let name = self.value(line, index)?;
                name.map(|name| file_name("the file", &name).map_err(|kind| kind.at(line.number)))
                    .transpose()
            };
            let Some(destination) = name(0)? else {
                continue;
            };
            entries.push(Entry {
                source: name(1)?.unwrap_or_else(|| destination.clone()),
                destination,
                flags: self.number(line, 3, "the copy flags")?.unwrap_or(0),
                line: line.number,
            });
        }
        Ok(entries)
    }

    /// `None` of a file that a layout file of Windows places: it is there already.
    fn copy(
        &self,
        entry: Entry,
        folder: &Folder,
        architecture: Architecture,
        included_from: Option<&str>,
    ) -> Result<Option<FileCopy>, InfError> {
        let Some((source, cabinet)) = self.source(&entry, architecture)? else {
            return Ok(None);
        };
        Ok(Some(FileCopy {
            source,
            cabinet,
            included_from: included_from.map(str::to_owned),
            destination: folder.join(&entry.destination),
            flags: entry.flags,
            line: entry.line,
        }))
    }

    /// The path of a file in the package, and the cabinet it is in.
    fn source(
        &self,
        entry: &Entry,
        architecture: Architecture,
    ) -> Result<Option<(String, Option<String>)>, InfError> {
        let Some(line) = self.disk_line("SourceDisksFiles", &entry.source, architecture) else {
            if !self.inf.version.layout_files.is_empty() {
                return Ok(None);
            }
            let file = entry.source.clone();
            return Err(InfErrorKind::NoSource { file }.at(entry.line));
        };
        let disk = self.value(line, 0)?.unwrap_or_default();
        let names = self.disk_line("SourceDisksNames", &disk, architecture);
        let Some(names) = names else {
            let file = entry.source.clone();
            return Err(InfErrorKind::NoSuchDisk { file, disk }.at(line.number));
        };
        let path = |line: &Line, index| -> Result<String, InfError> {
            let path = self.value(line, index)?.unwrap_or_default();
            relative_path("the source folder", &path).map_err(|kind| kind.at(line.number))
        };
        let on_disk = path(names, 3)?;
        let source = join(&join(&on_disk, &path(line, 1)?), &entry.source);
        let tag = self.value(names, 1)?.unwrap_or_default();
        if !tag.to_ascii_lowercase().ends_with(".cab") {
            return Ok(Some((source, None)));
        }
        let cabinet = relative_path("the cabinet", &tag).map_err(|kind| kind.at(names.number))?;
        Ok(Some((entry.source.clone(), Some(join(&on_disk, &cabinet)))))
    }

    /// The line of a file or disk: a section for the machine is asked before the one for all.
    fn disk_line(&self, section: &str, key: &str, architecture: Architecture) -> Option<&Line> {
        let disks = &self.inf.disks;
        disks
            .find(&format!("{section}.{architecture}"), key)
            .or_else(|| disks.find(section, key))
            .and_then(|(section, line)| {
                let section = self.inf.sections.find(section)?;
                section.lines.get(line)
            })
    }

    /// The folder of a list's files.
    fn destination(&self, list: Option<&str>) -> Result<Folder, InfError> {
        let section = self.inf.sections.find("DestinationDirs");
        let line = section.and_then(|section| {
            let of_list = list.and_then(|list| section.with_key(list).next());
            of_list.or_else(|| section.with_key("DefaultDestDir").next())
        });
        let Some(line) = line else {
            return Ok(Folder::Volume(SYSTEM32.to_owned()));
        };
        let id = self
            .number(line, 0, "the destination directory")?
            .unwrap_or(SYSTEM32_ID);
        let subfolder = self.value(line, 1)?.unwrap_or_default();
        let relative = |path: &str| {
            relative_path("the destination folder", path).map_err(|kind| kind.at(line.number))
        };
        Ok(
            match dirid::directory(id).map_err(|kind| kind.at(line.number))? {
                Directory::Volume(path) => Folder::Volume(join(path, &relative(&subfolder)?)),
                Directory::DriverStore => Folder::DriverStore(relative(&subfolder)?),
                Directory::Absolute => {
                    let on_drive = subfolder
                        .get(..SYSTEM_DRIVE.len())
                        .filter(|drive| drive.eq_ignore_ascii_case(SYSTEM_DRIVE))
                        .and_then(|drive| subfolder.get(drive.len()..));
                    let Some(path) = on_drive else {
                        return Err(InfErrorKind::BadPath {
                            what: "the destination folder",
                            found: subfolder,
                            reason: "only the system drive is known",
                        }
                        .at(line.number));
                    };
                    Folder::Volume(relative(path)?)
                }
            },
        )
    }
}

/// The lines of `[SourceDisksNames]` and `[SourceDisksFiles]`, and of the same for one machine, by
/// what they are of.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct DiskIndex(HashMap<String, HashMap<String, usize>>);

impl DiskIndex {
    pub(in super::super) fn new(sections: &Sections, strings: &StringTable) -> Self {
        let mut index = Self::default();
        for section in sections.iter() {
            let name = fold(&section.name);
            if !name.starts_with("sourcedisks") {
                continue;
            }
            let lines = index.0.entry(name).or_default();
            for (place, line) in section.lines.iter().enumerate() {
                let written = line.key.as_deref().or_else(|| line.value(0));
                // A key that is too long to be put together is no name.
                let name = written.and_then(|key| strings.expand(key, line.number).ok());
                if let Some(name) = name {
                    lines.entry(disk_key(&name)).or_insert(place);
                }
            }
        }
        index
    }

    /// The folded name of the section and the place of the line in it.
    fn find(&self, section: &str, key: &str) -> Option<(&str, usize)> {
        let (name, lines) = self.0.get_key_value(&fold(section))?;
        Some((name, *lines.get(&disk_key(key))?))
    }
}

/// Disks are numbers: `01` is `1`.
fn disk_key(name: &str) -> String {
    number(name).map_or_else(|| fold(name), |number| number.to_string())
}

/// A line of a list of files.
struct Entry {
    destination: String,
    source: String,
    flags: u32,
    line: LineNumber,
}

enum Folder {
    Volume(String),
    DriverStore(String),
}

impl Folder {
    fn join(&self, name: &str) -> Destination {
        match self {
            Self::Volume(folder) => Destination::Volume(join(folder, name)),
            Self::DriverStore(folder) => Destination::DriverStore(join(folder, name)),
        }
    }
}

/// A name that a file can have, with no path in it.
pub(in super::super) fn file_name(what: &'static str, name: &str) -> Result<String, InfErrorKind> {
    let bad = |reason| InfErrorKind::BadPath {
        what,
        found: name.chars().take(super::SHOWN).collect(),
        reason,
    };
    if name.contains(['\\', '/']) {
        return Err(bad("a file name without a folder was expected"));
    }
    match component_fault(name) {
        Some(reason) => Err(bad(reason)),
        None => Ok(name.to_owned()),
    }
}

/// A path that leads down only. A backslash before it, which Windows takes, does not count.
fn relative_path(what: &'static str, path: &str) -> Result<String, InfErrorKind> {
    let parts = path
        .split(['\\', '/'])
        .filter(|part| !matches!(*part, "" | "."));
    let mut joined = String::new();
    for part in parts {
        if let Some(reason) = component_fault(part) {
            return Err(InfErrorKind::BadPath {
                what,
                found: path.chars().take(super::SHOWN).collect(),
                reason,
            });
        }
        joined = join(&joined, part);
    }
    Ok(joined)
}

/// Why Windows cannot give a file this name.
fn component_fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("a name was expected")
    } else if name == ".." || name == "." {
        Some("a path must not lead up")
    } else if name.len() > LONGEST_NAME {
        Some("the name is longer than 255 bytes")
    } else if name.ends_with(['.', ' ']) {
        Some("Windows has no names that end with a dot or a space")
    } else if name
        .chars()
        .any(|found| found.is_control() || "<>:\"|?*".contains(found))
    {
        Some("a character that no file name has in Windows")
    } else {
        None
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() || name.is_empty() {
        format!("{folder}{name}")
    } else {
        format!("{folder}\\{name}")
    }
}

/// Where files go for which `[DestinationDirs]` says nothing.
const SYSTEM32: &str = "Windows\\System32";
const SYSTEM32_ID: u32 = 11;

const LONGEST_NAME: usize = 255;
