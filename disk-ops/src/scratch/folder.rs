//! A scratch folder on a file system.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::{MOST_FILES, Scratch, ScratchFile, ScratchLock};
use crate::units::ByteCount;

/// A folder that its user alone may write to.
///
/// What lies in it is written to disks, so a file that another user can have put there or changed
/// is not opened, and no link is followed. Files are readable by their user only: they hold what
/// is on the disks.
#[derive(Debug)]
pub struct ScratchFolder {
    path: PathBuf,
    folder: OwnedFd,
}

impl ScratchFolder {
    /// Opens the folder at `path`; it and the folders above it are made if they are not there.
    ///
    /// # Errors
    ///
    /// [`ScratchFolderError`].
    pub fn open(path: &Path) -> Result<Self, ScratchFolderError> {
        let failed = |action| {
            move |source| ScratchFolderError::Io {
                path: path.to_owned(),
                action,
                source,
            }
        };
        let made: Vec<_> = path.ancestors().take_while(|path| !path.exists()).collect();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed("making"))?;
        let scratch = Self::open_existing(path)?;
        // A folder that is gone after a power cut has taken the journal with it.
        for above in made.iter().filter_map(|made| made.parent()) {
            let above = match above.as_os_str().is_empty() {
                true => Path::new("."),
                false => above,
            };
            let above = File::open(above).map_err(failed("opening the folder above"))?;
            above
                .sync_all()
                .map_err(failed("making its name durable"))?;
        }
        Ok(scratch)
    }

    /// Opens the folder at `path`, which has to be there.
    ///
    /// # Errors
    ///
    /// [`ScratchFolderError`].
    pub fn open_existing(path: &Path) -> Result<Self, ScratchFolderError> {
        let failed = |source| ScratchFolderError::Io {
            path: path.to_owned(),
            action: "opening",
            source,
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        let found = rustix::fs::fstat(&folder).map_err(|error| failed(error.into()))?;
        let user = rustix::process::geteuid();
        if found.st_uid != user.as_raw() || found.st_mode & WRITABLE_BY_OTHERS != 0 {
            return Err(ScratchFolderError::NotOwn {
                path: path.to_owned(),
                owner: found.st_uid,
                mode: found.st_mode & 0o7777,
                user: user.as_raw(),
            });
        }
        let path = std::path::absolute(path).map_err(failed)?;
        Ok(Self { path, folder })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is known to lie in memory, so that a power cut empties it.
    pub fn is_volatile(&self) -> bool {
        // statfs(2)
        const TMPFS: i64 = 0x0102_1994;
        const RAMFS: i64 = 0x8584_58f6;
        rustix::fs::fstatfs(&self.folder).is_ok_and(|found| [TMPFS, RAMFS].contains(&found.f_type))
    }

    fn open_with(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = File::from(rustix::fs::openat(&self.folder, name, flags, mode)?);
        let found = file.metadata()?;
        let is_own = found.is_file()
            && found.uid() == rustix::process::geteuid().as_raw()
            && found.mode() & WRITABLE_BY_OTHERS == 0
            && found.nlink() <= 1;
        match is_own {
            true => Ok(file),
            false => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "it is no regular file that this user alone can have written",
            )),
        }
    }
}

impl Scratch for ScratchFolder {
    fn path_of(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn ScratchFile>> {
        let file = self.open_with(name, OFlags::CREATE | OFlags::EXCL)?;
        Ok(Box::new(FolderFile(file)))
    }

    fn create_unnamed(&self) -> io::Result<Box<dyn ScratchFile>> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        match rustix::fs::openat(&self.folder, ".", flags, mode) {
            Ok(file) => Ok(Box::new(FolderFile(file.into()))),
            // A file system without them; NFS says it with EINVAL or, from an old server, EISDIR.
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::ISDIR | Errno::NOENT) => {
                let name = format!("unnamed-{}", uuid::Uuid::new_v4());
                let file = self.create(&name)?;
                self.remove(&name)?;
                Ok(file)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn ScratchFile>> {
        let file = self.open_with(name, OFlags::empty())?;
        Ok(Box::new(FolderFile(file)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        rustix::fs::unlinkat(&self.folder, name, AtFlags::empty())?;
        Ok(())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)?.take(MOST_FILES) {
            // What is no UTF-8 is none of ours.
            names.extend(entry?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    fn sync(&self) -> io::Result<()> {
        rustix::fs::fsync(&self.folder)?;
        Ok(())
    }

    fn available(&self) -> Option<ByteCount> {
        let found = rustix::fs::fstatvfs(&self.folder).ok()?;
        Some(ByteCount(found.f_bavail.saturating_mul(found.f_frsize)))
    }

    fn lock(&self) -> io::Result<Option<ScratchLock>> {
        let file = self.open_with(LOCK, OFlags::CREATE)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            // The file stays: to remove it would let two in, one by the old and one by a new file.
            Ok(()) => Ok(Some(Box::new(file))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

#[derive(Debug)]
struct FolderFile(File);

impl ScratchFile for FolderFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn drop_cache(&self) {
        // Advice only.
        let _ = rustix::fs::fadvise(&self.0, 0, None, Advice::DontNeed);
    }
}

/// Why a folder is no scratch folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScratchFolderError {
    /// Others can write to it.
    #[error(
        "{}: belongs to user {owner} with mode {mode:o}; a scratch folder has to belong to this \
         user ({user}) and nobody else may write to it", path.display()
    )]
    NotOwn {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Its permissions.
        mode: u32,
        /// Who wanted to use it.
        user: u32,
    },
    /// The operating system refused.
    #[error("{}: {action} the scratch folder failed", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

const WRITABLE_BY_OTHERS: u32 = 0o022;

const LOCK: &str = "lock";
