//! Where a transaction keeps what it has not yet done: a folder, or memory.
//!
//! ```text
//!  Scratch --+-- ScratchFolder   a folder that only its user may write to
//!            +-- MemoryScratch   for tests: fails and loses power on demand
//! ```
//!
//! Behind a trait, so that every one of its writes can be made to fail in a test. Names are plain
//! file names; there are no folders inside.

use std::fmt;
use std::io;

use crate::units::ByteCount;

mod folder;
mod memory;

pub use folder::{ScratchFolder, ScratchFolderError};
pub use memory::{MemoryFile, MemoryScratch};

/// A place for files that must survive a crash, and for one that need not.
///
/// A file is durable after its own [`sync`](ScratchFile::sync), its name after that of the scratch
/// as well.
pub trait Scratch: fmt::Debug + Send + Sync {
    /// What to call the file `name` in a message: its path.
    fn path_of(&self, name: &str) -> String;

    /// Makes a new file.
    ///
    /// # Errors
    ///
    /// What the operating system says; `AlreadyExists` when the name is taken.
    fn create(&self, name: &str) -> io::Result<Box<dyn ScratchFile>>;

    /// Makes a file without a name, which is gone when it is dropped, whatever happens.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    fn create_unnamed(&self) -> io::Result<Box<dyn ScratchFile>>;

    /// Opens a file that is there.
    ///
    /// # Errors
    ///
    /// What the operating system says; `PermissionDenied` when another user can have written it.
    fn open(&self, name: &str) -> io::Result<Box<dyn ScratchFile>>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The names of the files that are there, in order; at most [`MOST_FILES`].
    ///
    /// # Errors
    ///
    /// What the operating system says.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Makes the names durable.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    fn sync(&self) -> io::Result<()>;

    /// How much more can be kept here; `None` if that is not known.
    fn available(&self) -> Option<ByteCount>;

    /// Keeps others out until what is returned is dropped; `None` when someone else does.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    fn lock(&self) -> io::Result<Option<ScratchLock>>;
}

/// A file of a [`Scratch`], read and written at any position, from any thread.
pub trait ScratchFile: fmt::Debug + Send + Sync {
    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    ///
    /// What the operating system says; `UnexpectedEof` when the file ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`; the file grows if it must.
    ///
    /// # Errors
    ///
    /// What the operating system says. Any part may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// The length of the file in bytes.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    fn length(&self) -> io::Result<u64>;

    /// Makes content and length durable.
    ///
    /// # Errors
    ///
    /// What the operating system says; nothing is known then of what was written.
    fn sync(&self) -> io::Result<()>;

    /// Makes the next reads come from the medium, as far as the system takes the advice.
    fn drop_cache(&self) {}
}

/// Held by whoever uses a scratch; dropped, it lets the next one in.
pub type ScratchLock = Box<dyn fmt::Debug + Send + Sync>;

/// More files than a scratch folder ever has.
pub const MOST_FILES: usize = 10_000;
