//! How a job says what went wrong: a stable code, a sentence, and what to do about it.

use std::error::Error;
use std::fmt;

use serde::Serialize;

/// Why a job failed, as its owner is told.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct JobError {
    /// What kind of failure it is; stable.
    pub code: ErrorCode,
    /// What was found, and where.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl JobError {
    /// An error without a hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
        }
    }

    /// An error told by `error` and everything that caused it.
    pub fn from_chain(code: ErrorCode, error: &(dyn Error + 'static)) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::new(code, message)
    }

    /// The same error with advice.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A field of a request that cannot be accepted.
    pub fn invalid(field: &str, problem: impl fmt::Display) -> Self {
        Self::new(ErrorCode::InvalidRequest, format!("{field}: {problem}"))
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for JobError {}

/// The kinds of failure. The names are part of the contract with the orchestrator.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub enum ErrorCode {
    /// The job was cancelled.
    Cancelled,
    /// The disk is in use.
    DiskBusy,
    /// The file is no disk that can be read: of no size, of a wrong size, or a damaged image.
    DiskInvalid,
    /// There is no such disk.
    DiskNotFound,
    /// The disk could not be read.
    DiskReadFailed,
    /// A registry hive that can't be read, or not changed.
    HiveCorrupt,
    /// A hive that was not closed, and whose logs can't bring it up to date.
    HiveUnrecoverable,
    /// What only a defect of this program can explain.
    Internal,
    /// A field is missing, unknown, or contradicts another.
    InvalidRequest,
    /// The output is there already.
    OutputExists,
    /// The output could not be written.
    OutputFailed,
    /// The destination is full.
    OutputNoSpace,
    /// What an earlier export left can't be gone on with.
    ResumeRefused,
    /// The user may not write to the share, or not enter it.
    SmbAccessDenied,
    /// The server does not accept the credentials.
    SmbAuthFailed,
    /// The share is full.
    SmbNoSpace,
    /// The server can't do, or not as safely, what is asked of it.
    SmbProtocol,
    /// The server has no such share.
    SmbShareNotFound,
    /// There is no way to the server.
    SmbUnreachable,
    /// The job took longer than it was given.
    Timeout,
    /// The image, read back, is not what was written.
    VerifyFailed,
}

impl ErrorCode {
    /// The exit code of a command that failed so.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::InvalidRequest => 2,
            Self::VerifyFailed => 4,
            Self::Cancelled => 130,
            _ => 1,
        }
    }
}
