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
    /// Everything that stands against the job, if that is why it was refused; the first of them
    /// gives the error its code.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blockers: Vec<FoundBlocker>,
}

/// Something that has to be settled, usually inside the Windows of the disk, before a job can run.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FoundBlocker {
    /// What kind of blocker it is; stable.
    pub code: ErrorCode,
    /// What was found, and where.
    pub message: String,
    /// The one thing to do about it.
    pub way_out: String,
}

impl JobError {
    /// An error without a hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
            blockers: Vec::new(),
        }
    }

    /// A job that is refused for all of `blockers`; `None` if there are none.
    pub fn refused(blockers: Vec<FoundBlocker>) -> Option<Self> {
        let messages: Vec<&str> = blockers.iter().map(|found| &*found.message).collect();
        let mut ways_out: Vec<&str> = Vec::new();
        for found in &blockers {
            if !ways_out.contains(&&*found.way_out) {
                ways_out.push(&found.way_out);
            }
        }
        let code = blockers.first()?.code;
        let refused = Self::new(code, messages.join("; ")).with_hint(ways_out.join(" "));
        Some(Self {
            blockers,
            ..refused
        })
    }

    /// The exit code of a command that failed so: 3 if it was refused before anything was done.
    pub fn exit_code(&self) -> u8 {
        match self.blockers.is_empty() {
            true => self.code.exit_code(),
            false => REFUSED,
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

    /// The same error, of a job of which it says first how far it came.
    #[must_use]
    pub(super) fn of(self, how_far: &str) -> Self {
        let message = format!("{how_far}: {}", self.message);
        Self { message, ..self }
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
    /// A volume is encrypted by BitLocker, or about to be.
    BitLocker,
    /// The job was cancelled.
    Cancelled,
    /// There is no session with a Connector.
    ConnectorRejected,
    /// Several disks answer to the selector.
    DiskAmbiguous,
    /// The disk is in use.
    DiskBusy,
    /// The file is no disk that can be read: of no size, of a wrong size, or a damaged image.
    DiskInvalid,
    /// The disk is one that this machine itself runs from.
    DiskIsOwn,
    /// There is no such disk.
    DiskNotFound,
    /// The disk could not be read.
    DiskReadFailed,
    /// The disk could not be written.
    DiskWriteFailed,
    /// A driver package, or what should hold some, that can't be used.
    DriverInvalid,
    /// The target needs a driver that Windows does not have.
    DriverMissing,
    /// The disk is a dynamic one, or a member of a storage pool.
    DynamicDisk,
    /// The disk is not the one that the hash is of.
    HashMismatch,
    /// Windows is hibernated, or was shut down with Fast Startup.
    Hibernated,
    /// A registry hive that can't be read, or not changed.
    HiveCorrupt,
    /// A hive that was not closed, and whose logs can't bring it up to date.
    HiveUnrecoverable,
    /// What only a defect of this program can explain.
    Internal,
    /// The agent was restarted while the job ran.
    Interrupted,
    /// A field is missing, unknown, or contradicts another.
    InvalidRequest,
    /// The journal of a commit that was cut short can't be read.
    JournalDamaged,
    /// The disk is not the one of the journal, or was written to since.
    JournalMismatch,
    /// There are several installations of Windows on the disk.
    MultipleWindows,
    /// There is too little room on the volume for what has to be written to it.
    NoSpaceOnVolume,
    /// There is no installation of Windows on the disk.
    NoWindows,
    /// Citrix Provisioning could not stream the disk.
    NotStreamable,
    /// The target starts by UEFI, and the disk does not.
    NotUefi,
    /// An NTFS volume is marked as dirty, its log is not clean, or it is damaged.
    NtfsDirty,
    /// The output is there already.
    OutputExists,
    /// The output could not be written.
    OutputFailed,
    /// The destination is full.
    OutputNoSpace,
    /// Windows has something left to do at its next start.
    PendingReboot,
    /// The disk, as it was prepared, would not start. Nothing of it was committed.
    ProofFailed,
    /// The target software of Provisioning Services is installed.
    PvsTargetPresent,
    /// What an earlier export left can't be gone on with.
    ResumeRefused,
    /// Another run works with the scratch folder.
    ScratchBusy,
    /// The scratch folder could not be used.
    ScratchFailed,
    /// The scratch folder is full.
    ScratchNoSpace,
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
    /// A Windows that is too old.
    UnsupportedWindows,
    /// The image, read back, is not what was written.
    VerifyFailed,
}

impl ErrorCode {
    /// The exit code of a command that failed so.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::InvalidRequest => 2,
            Self::JournalMismatch => 3,
            Self::HashMismatch | Self::JournalDamaged | Self::VerifyFailed => 4,
            Self::Cancelled => 130,
            Self::BitLocker
            | Self::DriverMissing
            | Self::DynamicDisk
            | Self::Hibernated
            | Self::MultipleWindows
            | Self::NoSpaceOnVolume
            | Self::NoWindows
            | Self::NotStreamable
            | Self::NotUefi
            | Self::NtfsDirty
            | Self::PendingReboot
            | Self::PvsTargetPresent
            | Self::UnsupportedWindows => REFUSED,
            _ => 1,
        }
    }
}

/// The exit code of a command that was refused, the disk untouched.
const REFUSED: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn found(code: ErrorCode, message: &str, way_out: &str) -> FoundBlocker {
        FoundBlocker {
            code,
            message: message.into(),
            way_out: way_out.into(),
        }
    }

    #[test]
    fn a_refusal_tells_all_blockers_and_each_way_out_once() {
        assert_eq!(JobError::refused(Vec::new()), None);
        let refused = JobError::refused(vec![
            found(ErrorCode::HiveCorrupt, "a", "mend it."),
            found(ErrorCode::NtfsDirty, "b", "start it."),
            found(ErrorCode::NtfsDirty, "c", "start it."),
        ]);
        let refused = refused.unwrap();
        assert_eq!(refused.to_string(), "a; b; c");
        assert_eq!(refused.hint.as_deref(), Some("mend it. start it."));
        // Alone it would be a failure.
        assert_eq!(
            (refused.code, refused.exit_code()),
            (ErrorCode::HiveCorrupt, 3)
        );
        assert_eq!(refused.blockers.len(), 3);
    }
}
