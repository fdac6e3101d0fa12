//! Archives that drivers are given out in, unpacked into a folder: ZIP, TAR, TAR.GZ (also as `.goo`),
//! cabinets, MSI packages and disc images. Which it is, the first bytes say.
//!
//! An archive is somebody else's word on where files go and how large they are. Taken is what a
//! driver needs: plain files with relative paths that Windows could have. Refused, with the entry's
//! name, are paths that lead up or to a root, links and devices, two names that Windows cannot tell
//! apart, and an archive whose content is out of all proportion.

mod cabinet;
mod msi;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use super::disc::{self, DiscError};

/// Why an archive is not unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// Not one of the formats.
    #[error(
        "{} is neither a folder nor a ZIP, TAR, TAR.GZ, CAB, MSI or ISO file (it begins with {begins})",
        path.display()
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// Its first bytes, in hexadecimal.
        begins: String,
    },
    /// The file cannot be read.
    #[error("reading {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The archive is damaged.
    #[error("{} is no sound {format} archive", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which format it looks like.
        format: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An entry that is not taken.
    #[error("the archive's entry {name:?}: {reason}")]
    Entry {
        /// Its name in the archive.
        name: String,
        /// Why.
        reason: &'static str,
    },
    /// More than driver packages have.
    #[error("the archive has more than {limit} {what}")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// How much is taken.
        limit: u64,
    },
    /// The folder cannot be written.
    #[error("writing {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// How much is taken out of an archive.
#[derive(Clone, Copy, Debug)]
pub struct UnpackLimits {
    /// Entries.
    pub entries: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// How many times the size of the archive its files may have, beyond [`Self::free_bytes`].
    pub ratio: u64,
    /// Bytes that any archive may unpack to, however small it is.
    pub free_bytes: u64,
}

impl Default for UnpackLimits {
    /// Five times what the largest collection of drivers for virtual machines needs.
    fn default() -> Self {
        Self {
            entries: 50_000,
            bytes: 4 << 30,
            ratio: 100,
            free_bytes: 64 << 20,
        }
    }
}

/// Unpacks an archive into an empty folder.
///
/// # Errors
///
/// See [`UnpackError`]. What was unpacked before that stays in the folder.
pub fn unpack(archive: &Path, folder: &Path, limits: &UnpackLimits) -> Result<(), UnpackError> {
    let read = |source| UnpackError::Read {
        path: archive.to_owned(),
        source,
    };
    let mut file = File::open(archive).map_err(read)?;
    let length = file.metadata().map_err(read)?.len();
    let mut begins = Vec::new();
    (&mut file)
        .take(TAR_MARK + 5)
        .read_to_end(&mut begins)
        .and_then(|_| file.seek(SeekFrom::Start(0)))
        .map_err(read)?;
    let mut output = Output {
        archive,
        folder,
        seen: HashSet::new(),
        folders: HashSet::new(),
        entries_left: limits.entries,
        bytes_left: limits.bytes.min(
            length
                .saturating_mul(limits.ratio)
                .saturating_add(limits.free_bytes),
        ),
        limits: *limits,
    };
    let is_tar = begins.get(TAR_MARK as usize..) == Some(b"ustar");
    match begins.as_slice() {
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => output.zip(file),
        [0x1F, 0x8B, ..] => output.tar(GzDecoder::new(file)),
        [b'M', b'S', b'C', b'F', ..] => output.cabinet(file, "CAB", |name| Some(name.to_owned())),
        [0xD0, 0xCF, 0x11, 0xE0, ..] => output.msi(file),
        _ if is_tar => output.tar(file),
        _ if disc::is_disc(&mut file).map_err(read)? => output.disc(file),
        _ => Err(UnpackError::UnknownFormat {
            path: archive.to_owned(),
            begins: begins
                .iter()
                .take(8)
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        }),
    }
}

struct Output<'a> {
    archive: &'a Path,
    folder: &'a Path,
    /// Paths of files, in lower case.
    seen: HashSet<String>,
    /// Paths of folders, in lower case.
    folders: HashSet<String>,
    entries_left: u64,
    bytes_left: u64,
    limits: UnpackLimits,
}

impl Output<'_> {
    fn zip(&mut self, file: File) -> Result<(), UnpackError> {
        let mut archive = zip::ZipArchive::new(file).map_err(|error| self.damaged("ZIP", error))?;
        for index in 0..archive.len() {
            self.count_entry()?;
            let mut entry = archive
                .by_index(index)
                .map_err(|error| self.damaged("ZIP", error))?;
            let name = entry
                .name()
                .map_err(|error| self.damaged("ZIP", error))?
                .into_owned();
            if entry.is_symlink() {
                return Err(refused(&name, LINK));
            }
            if entry.is_dir() {
                relative(&name)?;
                continue;
            }
            self.write(&name, "ZIP", &mut entry)?;
        }
        Ok(())
    }

    fn tar(&mut self, stream: impl Read) -> Result<(), UnpackError> {
        let mut archive = tar::Archive::new(stream);
        let entries = archive
            .entries()
            .map_err(|error| self.damaged("TAR", error))?;
        for entry in entries {
            self.count_entry()?;
            let mut entry = entry.map_err(|error| self.damaged("TAR", error))?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            match entry.header().entry_type() {
                tar::EntryType::Directory => {
                    relative(&name)?;
                }
                tar::EntryType::Regular | tar::EntryType::Continuous => {
                    self.write(&name, "TAR", &mut entry)?;
                }
                // Remarks of the packer on the whole archive.
                tar::EntryType::XGlobalHeader => {}
                tar::EntryType::Link | tar::EntryType::Symlink => {
                    return Err(refused(&name, LINK));
                }
                _ => return Err(refused(&name, "only files and folders are taken")),
            }
        }
        Ok(())
    }

    fn disc(&mut self, mut file: File) -> Result<(), UnpackError> {
        let files = disc::files(&mut file, self.entries_left).map_err(|error| match error {
            DiscError::Read(source) => UnpackError::Read {
                path: self.archive.to_owned(),
                source,
            },
            DiscError::NotTaken { path, reason } => refused(&path, reason),
            DiscError::TooMuch { what, limit } => UnpackError::TooMuch { what, limit },
            error @ DiscError::Unsound { .. } => self.damaged("ISO", error),
        })?;
        for found in files {
            self.count_entry()?;
            self.write(&found.path, "ISO", &mut found.content(&mut file))?;
        }
        Ok(())
    }

    fn count_entry(&mut self) -> Result<(), UnpackError> {
        self.entries_left = self
            .entries_left
            .checked_sub(1)
            .ok_or(UnpackError::TooMuch {
                what: "entries",
                limit: self.limits.entries,
            })?;
        Ok(())
    }

    /// Writes a file, and gives its path.
    fn write(
        &mut self,
        name: &str,
        format: &'static str,
        content: &mut dyn Read,
    ) -> Result<PathBuf, UnpackError> {
        let parts = relative(name)?;
        let (_, parents) = parts
            .split_last()
            .ok_or_else(|| refused(name, "a name was expected"))?;
        let mut folded = String::new();
        for parent in parents {
            folded.push_str(&parent.to_lowercase());
            if self.seen.contains(&folded) {
                return Err(refused(name, "it is below another entry that is a file"));
            }
            self.folders.insert(folded.clone());
            folded.push('\\');
        }
        let whole = parts.join("\\").to_lowercase();
        if self.folders.contains(&whole) || !self.seen.insert(whole) {
            return Err(refused(name, "Windows cannot tell it from another entry"));
        }
        // In lower case: two spellings of a folder are one in Windows and would be two here.
        let below: PathBuf = parents.iter().map(|part| part.to_lowercase()).collect();
        let folder = self.folder.join(below);
        let path = folder.join(parts.last().copied().unwrap_or_default());
        let failed = |source| UnpackError::Write {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(&folder).map_err(failed)?;
        let mut file = File::create_new(&path).map_err(failed)?;
        self.copy(format, content, &mut file, failed)?;
        Ok(path)
    }

    fn copy(
        &mut self,
        format: &'static str,
        content: &mut dyn Read,
        file: &mut File,
        failed: impl Fn(io::Error) -> UnpackError,
    ) -> Result<(), UnpackError> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = content
                .read(&mut buffer)
                .map_err(|error| self.damaged(format, error))?;
            let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else {
                return Ok(());
            };
            let left = self.bytes_left.checked_sub(length as u64);
            self.bytes_left = left.ok_or(UnpackError::TooMuch {
                what: "bytes, or a hundred times its own size",
                limit: self.limits.bytes,
            })?;
            io::Write::write_all(file, bytes).map_err(&failed)?;
        }
    }

    fn damaged(
        &self,
        format: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> UnpackError {
        UnpackError::Damaged {
            path: self.archive.to_owned(),
            format,
            source: source.into(),
        }
    }
}

/// The parts of an entry's path: both kinds of slashes divide, as the tools of both worlds write.
fn relative(name: &str) -> Result<Vec<&str>, UnpackError> {
    if name.starts_with(['/', '\\']) {
        return Err(refused(name, "its path begins at a root"));
    }
    let mut parts = Vec::new();
    for part in name.split(['/', '\\']) {
        if matches!(part, "" | ".") {
            continue;
        }
        if part == ".." {
            return Err(refused(name, "its path leads up"));
        }
        let is_forbidden = |found: char| found.is_control() || "<>:\"|?*".contains(found);
        if part.chars().any(is_forbidden) || part.ends_with(['.', ' ']) || part.len() > 255 {
            return Err(refused(name, "Windows has no such name"));
        }
        parts.push(part);
    }
    if parts.len() > DEEPEST {
        return Err(refused(name, "its path is too deep"));
    }
    Ok(parts)
}

fn refused(name: &str, reason: &'static str) -> UnpackError {
    UnpackError::Entry {
        name: name.chars().take(120).collect(),
        reason,
    }
}

const LINK: &str = "links are not taken";

/// Where `ustar` stands in the header of a TAR archive.
const TAR_MARK: u64 = 257;

const DEEPEST: usize = 32;
