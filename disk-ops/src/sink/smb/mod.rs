//! An SMB share as the destination of an export.
//!
//! ```text
//!  SmbSink (ByteSink)          one image: partial name, length check, rename
//!     |
//!  SmbShare, ShareFile         from any thread; collects blocks of 8 MiB
//!     |  commands, in order
//!  Session                     the thread `ce-smb`: one connection and its open files
//!     |
//!  Native                      pavao and libsmbclient, with their traps defused
//! ```
//!
//! A connection is made for a [`SmbLocation`] with [`SmbCredentials`] and an [`SmbSecurity`]. It
//! does not repair itself: [`SmbError`] says whether it is lost, and whoever wants to go on makes
//! a new one and resumes the partial image.
//!
//! libsmbclient holds a lock for the whole process, so that two connections take turns, and one
//! whose server is frozen makes the other wait until its time is over.

mod core_dump;
mod credentials;
mod error;
mod location;
mod native;
mod reach;
mod security;
mod session;
mod share;
mod sink;

pub use core_dump::forbid_core_dumps;
pub use credentials::{SmbCredentials, SmbCredentialsError};
pub use error::{SmbError, SmbErrorCode, SmbErrorKind};
pub use location::{SmbLocation, SmbLocationError, SmbPath, SmbServer};
pub use security::{SmbDialect, SmbEncryption, SmbSecurity, SmbTimeouts};
pub use share::{ShareFile, ShareOpen, SmbMetadata, SmbShare};
pub use sink::SmbSink;
