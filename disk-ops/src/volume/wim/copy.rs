//! A WIM file taken out of a volume into a folder of its own, to be looked into and changed there.
//!
//! ```text
//!  scratch/recovery-UUID/      locked while it is in use; one whose user is gone is removed by the next
//!      image.wim               the copy
//!      commands, 0, 1 ...      what is put in
//! ```

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use uuid::Uuid;

use super::header::WimHeader;
use super::tool::{Run, WimTool, WimToolError};
use crate::block::BlockRead;
use crate::scratch::{MOST_FILES, Scratch, ScratchFolder};
use crate::units::{ByteCount, ByteOffset};
use crate::volume::ntfs::write::HostFile;
use crate::volume::{
    DirectoryEntry, FileMeta, NtfsVolume, VolumeError, WimProblem, WinPath, WindowsVolume,
};

/// A WIM file in a folder of its own, which goes when this is dropped.
#[derive(Debug)]
pub struct WimCopy {
    folder: PathBuf,
    tool: WimTool,
    header: WimHeader,
    /// Where it was.
    path: WinPath,
    /// Held as long as the folder is in use.
    _lock: File,
}

/// What is put into an image.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WimFile {
    /// Where, from the root of the image on; folders that are missing are made.
    pub path: WinPath,
    /// What is in it.
    pub content: Vec<u8>,
}

/// Why a WIM file could not be taken out, or not be changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WimCopyError {
    /// The scratch folder could not be used.
    #[error("{path}: {action} failed", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// It is none that is changed here.
    #[error(transparent)]
    Problem(#[from] WimProblem),
    /// There is not enough room for it.
    #[error("the scratch folder has room for {available}, and {needed} are needed")]
    ScratchNoSpace {
        /// How much is needed, with what comes after.
        needed: ByteCount,
        /// How much there is.
        available: ByteCount,
    },
    /// It is larger than any recovery environment.
    #[error("it has {found}, expected at most {limit}")]
    TooLarge {
        /// Its size.
        found: ByteCount,
        /// The bound.
        limit: ByteCount,
    },
    /// wimlib's program did not do it.
    #[error(transparent)]
    Tool(#[from] WimToolError),
    /// The volume cannot be read.
    #[error(transparent)]
    Volume(#[from] VolumeError),
}

impl WimCopy {
    /// Takes the file at `path` out of `volume`. `scratch` has to have room for it `times` times: whoever
    /// writes it back needs some for that, too.
    ///
    /// # Errors
    ///
    /// [`WimCopyError`]
    pub fn take<D: BlockRead>(
        volume: &NtfsVolume<D>,
        path: &WinPath,
        scratch: &ScratchFolder,
        tool: WimTool,
        times: u64,
    ) -> Result<Self, WimCopyError> {
        let source = volume.open_file(path)?;
        let size = source.size();
        if size > LARGEST {
            let (found, limit) = (size, LARGEST);
            return Err(WimCopyError::TooLarge { found, limit });
        }
        let mut start = [0; WimHeader::LENGTH];
        let read = source.read_at(ByteOffset::ZERO, &mut start)?;
        let header = WimHeader::parse(start.get(..read).unwrap_or_default(), size)?;
        remove_abandoned(scratch.path());
        let needed = ByteCount(size.0.saturating_mul(times).saturating_add(MARGIN.0));
        if let Some(available) = scratch.available()
            && available < needed
        {
            return Err(WimCopyError::ScratchNoSpace { needed, available });
        }
        let (folder, lock) = own_folder(scratch.path())?;
        let copy = Self {
            folder,
            tool,
            header,
            path: path.clone(),
            _lock: lock,
        };
        let file = copy.folder.join(IMAGE);
        let written = (|| {
            let mut target = create(&file)?;
            let mut piece = vec![0; PIECE];
            let mut at = 0;
            while at < size.0 {
                let read = source.read_at(ByteOffset(at), &mut piece);
                let read = match read {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(read) => read,
                    Err(error) => return Ok(Err(error)),
                };
                target.write_all(piece.get(..read).unwrap_or_default())?;
                at += read as u64;
            }
            Ok(Ok(()))
        })();
        written.map_err(io_error(&file, "copying"))??;
        Ok(copy)
    }

    /// What its header says.
    pub fn header(&self) -> WimHeader {
        self.header
    }

    /// The image that boots, as files.
    ///
    /// # Errors
    ///
    /// [`WimToolError`]
    pub fn image(&self) -> Result<WimImage<'_>, WimToolError> {
        let listed = self.tool.run(Run {
            action: "listing the image",
            folder: &self.folder,
            arguments: self.arguments("dir", &[]),
            input: None,
            most_output: MOST_NAMES,
            largest_file: ByteCount(0),
        })?;
        // What is no text is none of the names that are asked for, and one with a line break in it is two
        // names, which are not found when they are read.
        let names = String::from_utf8_lossy(&listed);
        let names = names.lines().filter_map(|line| line.strip_prefix('/'));
        let names = names.map(|name| name.replace('/', "\\").to_lowercase());
        Ok(WimImage {
            copy: self,
            names: names.collect(),
        })
    }

    /// Puts `files` into the image that boots; those that are there are replaced.
    ///
    /// # Errors
    ///
    /// [`WimCopyError`], after which the copy is of no use.
    pub fn put(&self, files: &[WimFile]) -> Result<(), WimCopyError> {
        let mut commands = String::new();
        let mut added = 0;
        for (number, file) in files.iter().enumerate() {
            let source = self.folder.join(number.to_string());
            create(&source)
                .and_then(|mut target| target.write_all(&file.content))
                .map_err(io_error(&source, "writing"))?;
            added += file.content.len() as u64;
            // No path has a quotation mark in it, nor a control character.
            let path = as_argument(&file.path);
            commands.push_str(&format!("add \"{number}\" \"{path}\"\n"));
        }
        let list = self.folder.join("commands");
        let input = create(&list)
            .and_then(|mut target| target.write_all(commands.as_bytes()))
            .and_then(|()| File::open(&list))
            .map_err(io_error(&list, "writing"))?;
        let size = self.size()?;
        let options = ["--no-acls", "--threads=1"];
        self.tool.run(Run {
            action: "changing the image",
            folder: &self.folder,
            arguments: self.arguments("update", &options),
            input: Some(input),
            most_output: MOST_WORDS,
            // What is added, packed or not, and tables.
            largest_file: ByteCount(size.0 + added + MARGIN.0),
        })?;
        for number in 0..files.len() {
            let source = self.folder.join(number.to_string());
            fs::remove_file(&source).map_err(io_error(&source, "removing"))?;
        }
        Ok(())
    }

    /// Has wimlib unpack everything in the file and compare it with its hashes.
    ///
    /// # Errors
    ///
    /// [`WimToolError`]
    pub fn verify(&self) -> Result<(), WimToolError> {
        self.tool.run(Run {
            action: "verifying the file",
            folder: &self.folder,
            arguments: ["verify", IMAGE, "--quiet"].map(OsString::from).to_vec(),
            input: None,
            most_output: MOST_WORDS,
            largest_file: ByteCount(0),
        })?;
        Ok(())
    }

    /// How long the file is now.
    ///
    /// # Errors
    ///
    /// [`WimCopyError::Io`]
    pub fn size(&self) -> Result<ByteCount, WimCopyError> {
        let path = self.folder.join(IMAGE);
        let found = fs::metadata(&path).map_err(io_error(&path, "looking at"))?;
        Ok(ByteCount(found.len()))
    }

    /// The file as it is now, to be written to a volume.
    ///
    /// # Errors
    ///
    /// [`WimCopyError::Io`]
    pub fn content(&self) -> Result<HostFile, WimCopyError> {
        let path = self.folder.join(IMAGE);
        let content = File::open(&path).and_then(HostFile::new);
        content.map_err(io_error(&path, "opening"))
    }

    fn arguments(&self, command: &str, more: &[&str]) -> Vec<OsString> {
        let index = self.header.boot_image.to_string();
        let first = [command, IMAGE, &index];
        let arguments = first.iter().chain(more).chain(&["--quiet"]);
        arguments.map(OsString::from).collect()
    }
}

impl Drop for WimCopy {
    fn drop(&mut self) {
        // What cannot be removed now is by the next one that uses the scratch folder.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The files of an image, read by wimlib one at a time.
#[derive(Debug)]
pub struct WimImage<'c> {
    copy: &'c WimCopy,
    /// All paths, in lower case, as far as wimlib tells them.
    names: BTreeSet<String>,
}

/// What planning and proving need of a volume: whether files are there, and their content.
impl WindowsVolume for WimImage<'_> {
    fn exists(&self, path: &WinPath) -> Result<bool, VolumeError> {
        Ok(path.is_root() || self.names.contains(&path.to_string().to_lowercase()))
    }

    /// Not told of images.
    fn metadata(&self, path: &WinPath) -> Result<FileMeta, VolumeError> {
        Err(unsupported(path, "what is known of a file in a WIM image"))
    }

    /// Not told of images.
    fn list(&self, path: &WinPath) -> Result<Vec<DirectoryEntry>, VolumeError> {
        Err(unsupported(path, "listing a folder of a WIM image"))
    }

    fn read(&self, path: &WinPath, limit: ByteCount) -> Result<Vec<u8>, VolumeError> {
        let file = path.to_string();
        if !self.exists(path)? {
            let volume = self.copy.path.to_string();
            return Err(VolumeError::NotFound { file, volume });
        }
        let limit = limit.min(LARGEST_READ);
        let path = as_argument(path);
        let options = ["--to-stdout", "--no-globs", "--no-acls", "--no-attributes"];
        let mut arguments = self.copy.arguments("extract", &[&path]);
        arguments.extend(options.map(OsString::from));
        let read = self.copy.tool.run(Run {
            action: "reading a file of the image",
            folder: &self.copy.folder,
            arguments,
            input: None,
            most_output: limit,
            largest_file: ByteCount(0),
        });
        read.map_err(|error| match error {
            WimToolError::TooMuch { limit, .. } => VolumeError::TooLarge {
                file,
                found: ByteCount(limit.0 + 1),
                limit,
            },
            error => VolumeError::Wim {
                file,
                source: Box::new(error),
            },
        })
    }
}

fn unsupported(path: &WinPath, what: &str) -> VolumeError {
    VolumeError::Unsupported {
        file: path.to_string(),
        what: what.to_owned(),
    }
}

/// A path as wimlib takes it: from the root on, so that it never passes for an option or a list.
fn as_argument(path: &WinPath) -> String {
    let names: Vec<&str> = path.components().collect();
    format!("/{}", names.join("/"))
}

/// A new folder that is locked.
fn own_folder(scratch: &Path) -> Result<(PathBuf, File), WimCopyError> {
    let id = Uuid::new_v4();
    // Under another name until it is locked, as the others look for those that nobody has locked.
    let new = scratch.join(format!("new-{PREFIX}{id}"));
    let folder = scratch.join(format!("{PREFIX}{id}"));
    let made = DirBuilder::new().mode(0o700).create(&new);
    made.map_err(io_error(&new, "making"))?;
    let locked = File::open(&new).and_then(|lock| {
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        fs::rename(&new, &folder)?;
        Ok(lock)
    });
    match locked {
        Ok(lock) => Ok((folder, lock)),
        Err(source) => {
            // It is empty.
            let _ = fs::remove_dir(&new);
            Err(io_error(&new, "locking")(source))
        }
    }
}

/// Removes folders of those who were killed. What cannot be removed stays.
fn remove_abandoned(scratch: &Path) {
    let Ok(entries) = fs::read_dir(scratch) else {
        return;
    };
    for entry in entries.take(MOST_FILES).flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(is_folder_name);
        if !is_ours || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if let Ok(folder) = File::open(entry.path())
            && rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_folder_name(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .is_some_and(|id| Uuid::parse_str(id).is_ok())
}

fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)
}

fn io_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> WimCopyError {
    let path = path.to_owned();
    move |source| WimCopyError::Io {
        path,
        action,
        source,
    }
}

const IMAGE: &str = "image.wim";
const PREFIX: &str = "recovery-";

/// Several times the largest recovery environment.
const LARGEST: ByteCount = ByteCount::mib(4096);

/// Several times the largest hive of one. All of it is in memory.
const LARGEST_READ: ByteCount = ByteCount::mib(96);

/// The paths of one: some 20,000.
const MOST_NAMES: ByteCount = ByteCount::mib(16);

const MOST_WORDS: ByteCount = ByteCount::mib(1);

/// Room for what is added, and for the changes of Windows itself.
const MARGIN: ByteCount = ByteCount::mib(256);

const PIECE: usize = 1 << 20;
