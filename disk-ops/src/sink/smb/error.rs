//! Why something on a share did not work, told apart as far as it can be.

use crate::units::ByteCount;

use super::native::NativeFailure;

/// A failure on a share: what was to be done with what, and why it did not work.
///
/// The message names server, share and path as the user wrote them, and the server's own answer
/// where libsmbclient passes it on. It never contains credentials.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{place}: {action} failed: {kind}{}", Answer(self))]
pub struct SmbError {
    kind: SmbErrorKind,
    action: &'static str,
    place: String,
    answer: Option<String>,
}

impl SmbError {
    pub(super) fn new(kind: SmbErrorKind, action: &'static str, place: impl ToString) -> Self {
        Self {
            kind,
            action,
            place: place.to_string(),
            answer: None,
        }
    }

    pub(super) fn with_answer(mut self, answer: impl ToString) -> Self {
        self.answer = Some(answer.to_string());
        self
    }

    pub(super) fn with_kind(self, kind: SmbErrorKind) -> Self {
        Self { kind, ..self }
    }

    /// What went wrong.
    pub fn kind(&self) -> &SmbErrorKind {
        &self.kind
    }

    /// What the server or the operating system said, such as `NT_STATUS_DISK_FULL`.
    pub fn answer(&self) -> Option<&str> {
        self.answer.as_deref()
    }

    /// What the user can do about it, as a sentence.
    pub fn hint(&self) -> &'static str {
        self.kind.hint()
    }

    /// The error code of a job's result that this belongs to.
    pub fn code(&self) -> SmbErrorCode {
        self.kind.code()
    }

    /// Whether the connection is gone, so that a new one has to be made before anything else.
    pub fn is_connection_lost(&self) -> bool {
        matches!(
            self.kind,
            SmbErrorKind::ConnectionLost | SmbErrorKind::TimedOut
        )
    }

    /// Whether the same may work a little later without anybody's doing.
    ///
    /// A refused login is never among these: trying it again may lock the account.
    pub fn is_retryable(&self) -> bool {
        use SmbErrorKind as K;
        match self.kind {
            K::ConnectionLost
            | K::TimedOut
            | K::Refused
            | K::Unreachable
            | K::Unresolved
            | K::InUse => true,
            K::AccessDenied
            | K::BadCredentials
            | K::EncryptionRefused
            | K::NoSpace { .. }
            | K::NoSuchPath
            | K::NoSuchShare
            | K::Other
            | K::OutputExists
            | K::PathRefused
            | K::ProtocolTooOld
            | K::QuotaExceeded
            | K::ReadOnly
            | K::SigningRefused => false,
        }
    }
}

/// What can go wrong on a share.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SmbErrorKind {
    /// The user may not enter the share, or may not read there.
    #[error("the user has no access")]
    AccessDenied,
    /// The server does not accept user name and password. Tried once.
    #[error("the server does not accept the user name or the password (tried once)")]
    BadCredentials,
    /// There was a connection, and it broke.
    #[error("the connection to the server was lost")]
    ConnectionLost,
    /// The connection would not have been encrypted. Nothing was written.
    #[error("the connection is not encrypted, as is required")]
    EncryptionRefused,
    /// Something else has the file open.
    #[error("the file is in use by another client, or by a lost connection of ours")]
    InUse,
    /// The share is full, or too full.
    #[error("there is not enough space on the share{}", Space(*needed, *available))]
    NoSpace {
        /// What is needed, if that is known.
        needed: Option<ByteCount>,
        /// What the server says is free for this user, if it was asked.
        available: Option<ByteCount>,
    },
    /// There is no such file or folder.
    #[error("there is no such file or folder")]
    NoSuchPath,
    /// The server has no such share.
    #[error("the server has no such share")]
    NoSuchShare,
    /// None of the other kinds.
    #[error("unexpected")]
    Other,
    /// The final name is taken.
    #[error("there is a file of that name already")]
    OutputExists,
    /// The server does not take the path: a name it can't store, or a file where a folder should
    /// be.
    #[error("the server does not accept the path")]
    PathRefused,
    /// The server speaks no dialect that is new enough.
    #[error("the server speaks only dialects of SMB that are older than is accepted")]
    ProtocolTooOld,
    /// The user's quota is used up.
    #[error("the user's quota on the share is used up")]
    QuotaExceeded,
    /// The user can read there and not write.
    #[error("the user can read there but not write")]
    ReadOnly,
    /// The host is there, and nothing listens on the port.
    #[error("the server refuses connections on that port")]
    Refused,
    /// The server's answers are not signed, as is required: it has logged us in as a guest, or
    /// someone sits in between.
    #[error("the server's answers are not signed, as is required")]
    SigningRefused,
    /// No answer in time.
    #[error("the server did not answer in time")]
    TimedOut,
    /// There is no way to the host's network.
    #[error("there is no route to the server")]
    Unreachable,
    /// The host's name is not known.
    #[error("the server's name can't be resolved")]
    Unresolved,
}

impl SmbErrorKind {
    fn hint(&self) -> &'static str {
        match self {
            Self::AccessDenied => "Give the user access to the share and the folder.",
            Self::BadCredentials => {
                "Check domain, user name and password, and that the account is neither locked nor expired."
            }
            Self::ConnectionLost => "Check the network and the server; then resume the export.",
            Self::EncryptionRefused => {
                "Switch encryption on for the share or the server (Set-SmbShare -EncryptData $true, \
                 or `smb encrypt = required`), or allow an export without encryption."
            }
            Self::InUse => {
                "See that no other export writes this image; after a lost connection, wait until the \
                 server has noticed."
            }
            Self::NoSpace { .. } => "Free space on the share or choose another one.",
            Self::NoSuchPath => "Check the folder and file name.",
            Self::NoSuchShare => "Check the share's name.",
            Self::Other => "See the server's log.",
            Self::OutputExists => "Choose another name, or allow the file to be overwritten.",
            Self::PathRefused => {
                "Choose names that the server can store, and see that no file stands where a folder \
                 should be."
            }
            Self::ProtocolTooOld => {
                "Enable SMB 3.1.1 on the server, or allow an older dialect. SMB 1 is not supported."
            }
            Self::QuotaExceeded => "Raise the user's quota on the share or free space in it.",
            Self::ReadOnly => "Give the user the right to write to the share and the folder.",
            Self::Refused => {
                "Check the port and that the file service runs; a firewall may refuse too."
            }
            Self::SigningRefused => {
                "See that the user exists on the server and is not mapped to a guest, and that the \
                 server can sign."
            }
            Self::TimedOut => "Check the server and any firewall on the way to it.",
            Self::Unreachable => "Check the host's address, the network and the routes.",
            Self::Unresolved => "Check the server's name and the resolver of this machine.",
        }
    }

    fn code(&self) -> SmbErrorCode {
        match self {
            Self::AccessDenied | Self::ReadOnly | Self::InUse => SmbErrorCode::SmbAccessDenied,
            Self::BadCredentials => SmbErrorCode::SmbAuthFailed,
            Self::ConnectionLost
            | Self::Refused
            | Self::TimedOut
            | Self::Unreachable
            | Self::Unresolved => SmbErrorCode::SmbUnreachable,
            Self::NoSpace { .. } | Self::QuotaExceeded => SmbErrorCode::SmbNoSpace,
            Self::NoSuchShare => SmbErrorCode::SmbShareNotFound,
            Self::OutputExists => SmbErrorCode::OutputExists,
            Self::EncryptionRefused
            | Self::NoSuchPath
            | Self::Other
            | Self::PathRefused
            | Self::ProtocolTooOld
            | Self::SigningRefused => SmbErrorCode::SmbProtocol,
        }
    }
}

/// The stable codes that users see of these errors; written as the variants are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
#[expect(
    missing_docs,
    reason = "the codes are described where they are promised to users"
)]
pub enum SmbErrorCode {
    OutputExists,
    SmbAccessDenied,
    SmbAuthFailed,
    SmbNoSpace,
    SmbProtocol,
    SmbShareNotFound,
    SmbUnreachable,
}

/// What was under way when the library failed, which decides what its `errno` means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum During {
    /// Entering the share.
    Connect,
    /// Something with a path, to read.
    Path,
    /// Something with a path that changes the share.
    PathChange,
    /// Something with an open file.
    File,
}

/// Makes of what the library says what happened.
pub(super) fn explain(failure: &NativeFailure, during: During) -> SmbErrorKind {
    use SmbErrorKind as K;
    let evidence = &failure.evidence;
    if failure.unprotected {
        return K::EncryptionRefused;
    }
    if evidence.bad_signature {
        return K::SigningRefused;
    }
    if let Some(kind) = evidence.nt_status.and_then(explain_nt_status) {
        return kind;
    }
    let Some(errno) = failure.errno else {
        return K::Other;
    };
    let denied = [libc::EACCES, libc::EPERM].contains(&errno);
    if during == During::Connect {
        match (evidence.logged_in, evidence.in_share) {
            (false, _) if errno == libc::ENOSYS => return K::ProtocolTooOld,
            (false, _) if denied => {
                return match &evidence.login_answer {
                    Some(answer) if answer.contains("Access Denied") => K::AccessDenied,
                    _ => K::BadCredentials,
                };
            }
            (true, false) if errno == libc::ENOENT => return K::NoSuchShare,
            _ => {}
        }
    }
    match errno {
        libc::EACCES | libc::EPERM if during == During::PathChange => K::ReadOnly,
        libc::EACCES | libc::EPERM => K::AccessDenied,
        libc::EROFS => K::ReadOnly,
        libc::ENOSPC => K::NoSpace {
            needed: None,
            available: None,
        },
        libc::EDQUOT => K::QuotaExceeded,
        libc::ETIMEDOUT => K::TimedOut,
        libc::ECONNREFUSED
        | libc::ECONNRESET
        | libc::ECONNABORTED
        | libc::ENETRESET
        | libc::ENETDOWN
        | libc::ENETUNREACH
        | libc::EHOSTUNREACH
        | libc::ENOTCONN
        | libc::EPIPE => K::ConnectionLost,
        // An open file has neither name nor access rights to get wrong: the handle is gone.
        libc::ENOENT | libc::EINVAL | libc::EBADF | libc::EIO if during == During::File => {
            K::ConnectionLost
        }
        libc::EBUSY | libc::ETXTBSY => K::InUse,
        libc::EEXIST => K::OutputExists,
        libc::ENOENT => K::NoSuchPath,
        libc::EINVAL | libc::ENAMETOOLONG | libc::ENOTDIR | libc::EISDIR | libc::EILSEQ => {
            K::PathRefused
        }
        _ => K::Other,
    }
}

/// The statuses whose `errno` says something else, or too little (MS-ERREF 2.3.1).
fn explain_nt_status(status: u32) -> Option<SmbErrorKind> {
    use SmbErrorKind as K;
    Some(match status {
        0xc000_0033 | 0xc000_003b | 0xc000_0103 | 0xc000_00ba => K::PathRefused,
        0xc000_0043 | 0xc000_0054 | 0xc000_0056 => K::InUse,
        0xc000_0044 => K::QuotaExceeded,
        0xc000_007f => K::NoSpace {
            needed: None,
            available: None,
        },
        0xc000_00a2 => K::ReadOnly,
        0xc000_00b5 => K::TimedOut,
        0xc000_00c9 | 0xc000_0128 | 0xc000_0203 | 0xc000_020c | 0xc000_020d | 0xc000_035c => {
            K::ConnectionLost
        }
        0xc000_00cc => K::NoSuchShare,
        _ => return None,
    })
}

/// A failed call as the server or the system words it.
pub(super) fn answer(failure: &NativeFailure) -> Option<String> {
    let evidence = &failure.evidence;
    if let Some(status) = evidence.nt_status {
        let name = NT_STATUS_NAMES
            .iter()
            .find(|(value, _)| *value == status)
            .map_or("NT status", |(_, name)| name);
        return Some(format!("{name} {status:#010x}"));
    }
    evidence
        .login_answer
        .clone()
        .or_else(|| failure.message.clone())
        .or_else(|| {
            let error = std::io::Error::from_raw_os_error(failure.errno?);
            Some(error.to_string())
        })
}

struct Answer<'e>(&'e SmbError);

impl std::fmt::Display for Answer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0.answer {
            Some(answer) => write!(f, " ({answer})"),
            None => Ok(()),
        }
    }
}

struct Space(Option<ByteCount>, Option<ByteCount>);

impl std::fmt::Display for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(needed) = self.0 {
            write!(f, ": {needed} needed")?;
        }
        if let Some(available) = self.1 {
            write!(f, ", {available} free")?;
        }
        Ok(())
    }
}

/// The names of the statuses that a server is likely to answer with (MS-ERREF 2.3.1).
const NT_STATUS_NAMES: [(u32, &str); 26] = [
    (0xc000_000d, "NT_STATUS_INVALID_PARAMETER"),
    (0xc000_0022, "NT_STATUS_ACCESS_DENIED"),
    (0xc000_0033, "NT_STATUS_OBJECT_NAME_INVALID"),
    (0xc000_0034, "NT_STATUS_OBJECT_NAME_NOT_FOUND"),
    (0xc000_0035, "NT_STATUS_OBJECT_NAME_COLLISION"),
    (0xc000_003a, "NT_STATUS_OBJECT_PATH_NOT_FOUND"),
    (0xc000_003b, "NT_STATUS_OBJECT_PATH_SYNTAX_BAD"),
    (0xc000_0043, "NT_STATUS_SHARING_VIOLATION"),
    (0xc000_0044, "NT_STATUS_QUOTA_EXCEEDED"),
    (0xc000_0054, "NT_STATUS_FILE_LOCK_CONFLICT"),
    (0xc000_0056, "NT_STATUS_DELETE_PENDING"),
    (0xc000_007f, "NT_STATUS_DISK_FULL"),
    (0xc000_00a2, "NT_STATUS_MEDIA_WRITE_PROTECTED"),
    (0xc000_00b5, "NT_STATUS_IO_TIMEOUT"),
    (0xc000_00ba, "NT_STATUS_FILE_IS_A_DIRECTORY"),
    (0xc000_00bb, "NT_STATUS_NOT_SUPPORTED"),
    (0xc000_00c9, "NT_STATUS_NETWORK_NAME_DELETED"),
    (0xc000_00ca, "NT_STATUS_NETWORK_ACCESS_DENIED"),
    (0xc000_00cc, "NT_STATUS_BAD_NETWORK_NAME"),
    (0xc000_0103, "NT_STATUS_NOT_A_DIRECTORY"),
    (0xc000_0106, "NT_STATUS_NAME_TOO_LONG"),
    (0xc000_0128, "NT_STATUS_FILE_CLOSED"),
    (0xc000_0203, "NT_STATUS_USER_SESSION_DELETED"),
    (0xc000_020c, "NT_STATUS_CONNECTION_DISCONNECTED"),
    (0xc000_020d, "NT_STATUS_CONNECTION_RESET"),
    (0xc000_035c, "NT_STATUS_NETWORK_SESSION_EXPIRED"),
];

#[cfg(test)]
mod tests {
    use super::super::native::Evidence;
    use super::*;
    use SmbErrorKind as K;

    fn failed(errno: i32, nt_status: Option<u32>) -> NativeFailure {
        NativeFailure {
            errno: Some(errno),
            evidence: Evidence {
                logged_in: true,
                in_share: true,
                nt_status,
                ..Evidence::default()
            },
            ..NativeFailure::default()
        }
    }

    #[test]
    fn the_nt_status_decides_where_errno_says_too_little() {
        for (errno, status, kind) in [
            (libc::EACCES, 0xc000_00a2, K::ReadOnly),
            (libc::EACCES, 0xc000_0043, K::InUse),
            (libc::EINVAL, 0xc000_0044, K::QuotaExceeded),
            (libc::EINVAL, 0xc000_0203, K::ConnectionLost),
            (libc::EINVAL, 0xc000_0033, K::PathRefused),
        ] {
            let failure = failed(errno, Some(status));
            assert_eq!(explain(&failure, During::Path), kind, "{status:#x}");
        }
        let failure = failed(libc::EACCES, Some(0xc000_0022));
        assert_eq!(explain(&failure, During::Path), K::AccessDenied);
        assert_eq!(explain(&failure, During::PathChange), K::ReadOnly);
        let shown = answer(&failure).unwrap();
        assert_eq!(shown, "NT_STATUS_ACCESS_DENIED 0xc0000022");
        let unknown = answer(&failed(libc::EACCES, Some(0xc000_9999))).unwrap();
        assert_eq!(unknown, "NT status 0xc0009999");
    }

    #[test]
    fn errno_decides_where_there_is_no_nt_status() {
        for (errno, kind) in [
            (libc::EDQUOT, K::QuotaExceeded),
            (libc::EROFS, K::ReadOnly),
            (libc::ENETRESET, K::ConnectionLost),
            (libc::ETIMEDOUT, K::TimedOut),
            (libc::ENOTDIR, K::PathRefused),
            (libc::EEXIST, K::OutputExists),
            (libc::EDOM, K::Other),
        ] {
            assert_eq!(explain(&failed(errno, None), During::Path), kind, "{errno}");
        }
    }

    #[test]
    fn an_open_file_that_is_not_found_is_a_lost_connection() {
        for errno in [libc::ENOENT, libc::EINVAL, libc::EBADF] {
            let failure = failed(errno, None);
            assert_eq!(explain(&failure, During::File), K::ConnectionLost);
        }
    }

    #[test]
    fn a_refused_login_is_never_worth_another_try() {
        let mut failure = failed(libc::EACCES, None);
        failure.evidence.logged_in = false;
        failure.evidence.login_answer = Some("Account locked out".into());
        let kind = explain(&failure, During::Connect);
        assert_eq!(kind, K::BadCredentials);
        let error = SmbError::new(kind, "connecting", "smb://h/s/x").with_answer("locked");
        assert!(!error.is_retryable() && !error.is_connection_lost());
        assert_eq!(error.code(), SmbErrorCode::SmbAuthFailed);
        assert_eq!(
            error.to_string(),
            "smb://h/s/x: connecting failed: the server does not accept the user name or the \
             password (tried once) (locked)"
        );
    }
}
