//! How well a connection has to be protected.

use std::time::Duration;

/// What is demanded of a connection before anything is written to it.
///
/// Signing is always required, SMB1 is never spoken, and nobody is ever logged in as a guest or
/// anonymously; there is nothing to set for these.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SmbSecurity {
    /// The oldest dialect that is accepted. The newest, SMB 3.1.1, is always offered.
    pub oldest_dialect: SmbDialect,
    /// Whether what is sent has to be encrypted.
    pub encryption: SmbEncryption,
}

/// A version of the protocol.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum SmbDialect {
    /// SMB 2.0.2 (Windows Vista, Server 2008).
    Smb2_02,
    /// SMB 2.1 (Windows 7, Server 2008 R2).
    Smb2_10,
    /// SMB 3.0 (Windows 8, Server 2012); the first that encrypts.
    Smb3_00,
    /// SMB 3.0.2 (Windows 8.1, Server 2012 R2).
    Smb3_02,
    /// SMB 3.1.1 (Windows 10, Server 2016); the first whose negotiation can't be tampered with.
    #[default]
    Smb3_11,
}

impl SmbDialect {
    pub(super) fn native(self) -> pavao::SmbDialect {
        match self {
            Self::Smb2_02 => pavao::SmbDialect::Smb202,
            Self::Smb2_10 => pavao::SmbDialect::Smb210,
            Self::Smb3_00 => pavao::SmbDialect::Smb300,
            Self::Smb3_02 => pavao::SmbDialect::Smb302,
            Self::Smb3_11 => pavao::SmbDialect::Smb311,
        }
    }
}

/// Whether a connection is encrypted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SmbEncryption {
    /// A connection that is not encrypted is refused.
    #[default]
    Required,
    /// Only if the server demands it. What is sent is signed all the same.
    IfDemanded,
}

/// How long to wait for a server that does not answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SmbTimeouts {
    /// For the name to be resolved and for the TCP connection, each.
    pub connect: Duration,
    /// For the answer to one request, be it a write of 8 MiB. An operation on a frozen server
    /// fails after this long.
    pub answer: Duration,
}

impl Default for SmbTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(60),
        }
    }
}
