//! What the errors of the libraries are called in a job's result.

use ce_disk::block::{BlockError, OpenError};
use ce_disk::export::ExportError;
use ce_disk::sink::SinkError;
use ce_disk::sink::smb::{SmbError, SmbErrorCode};
use ce_disk::volume::{Blocker, MaskError, VolumeError};

use super::error::FoundBlocker;
use super::{ErrorCode, JobError};

pub(super) fn open_failed(error: &OpenError) -> JobError {
    let (code, hint) = match error {
        OpenError::NotFound { .. } => (ErrorCode::DiskNotFound, None),
        OpenError::PermissionDenied { .. } => (
            ErrorCode::DiskReadFailed,
            Some("run it as root, or as a user who may read the disk"),
        ),
        OpenError::Busy { .. } => (
            ErrorCode::DiskBusy,
            Some("unmount it and stop what uses it, or choose another disk"),
        ),
        OpenError::Io { .. } => (ErrorCode::DiskReadFailed, None),
        _ => (ErrorCode::DiskInvalid, None),
    };
    let failed = JobError::from_chain(code, error);
    hint.map_or(failed.clone(), |hint| failed.with_hint(hint))
}

pub(super) fn export_failed(error: &ExportError) -> JobError {
    match error {
        ExportError::Cancelled => cancelled(),
        ExportError::Geometry { .. } => JobError::from_chain(ErrorCode::DiskInvalid, error),
        ExportError::Resume { .. } => JobError::from_chain(ErrorCode::ResumeRefused, error)
            .with_hint("run it without --resume to start over; that replaces the partial image"),
        ExportError::Verify { .. } => JobError::from_chain(ErrorCode::VerifyFailed, error)
            .with_hint("the image was removed; check the memory and the storage of both machines"),
        ExportError::Vhd { .. } => {
            JobError::from_chain(ErrorCode::InvalidRequest, error).with_hint("export it as VHDX")
        }
        ExportError::Read(source) => read_failed(source),
        ExportError::Write(source) => sink_failed(source),
        _ => JobError::from_chain(ErrorCode::Internal, error),
    }
}

/// Why free space cannot be left out.
pub(super) fn mask_failed(error: MaskError) -> JobError {
    match error {
        MaskError::Blocked { blockers } => {
            JobError::refused(blockers.iter().map(blocker).collect())
                .unwrap_or_else(|| JobError::new(ErrorCode::Internal, "refused without a reason"))
        }
        MaskError::Volume(VolumeError::Block(error)) => read_failed(&error),
        error => JobError::from_chain(ErrorCode::DiskInvalid, &error)
            .with_hint("export it with --free-space copy"),
    }
}

/// A blocker of a volume in the words of a job.
pub(super) fn blocker(found: &Blocker) -> FoundBlocker {
    FoundBlocker {
        code: code_of(found.code()),
        message: found.to_string(),
        way_out: found.way_out().to_owned(),
    }
}

/// A blocker of a Windows in the words of a job.
pub(super) fn windows_blocker(found: &ce_platform::preflight::Blocker) -> FoundBlocker {
    FoundBlocker {
        code: code_of(found.code()),
        message: found.to_string(),
        way_out: found.way_out().to_owned(),
    }
}

/// The codes that the libraries have for blockers.
fn code_of(code: &str) -> ErrorCode {
    match code {
        "BitLocker" => ErrorCode::BitLocker,
        "DynamicDisk" => ErrorCode::DynamicDisk,
        "Hibernated" => ErrorCode::Hibernated,
        "HiveCorrupt" => ErrorCode::HiveCorrupt,
        "HiveUnrecoverable" => ErrorCode::HiveUnrecoverable,
        "MultipleWindows" => ErrorCode::MultipleWindows,
        "NoSpaceOnVolume" => ErrorCode::NoSpaceOnVolume,
        "NoWindows" => ErrorCode::NoWindows,
        "NotUefi" => ErrorCode::NotUefi,
        "NtfsDirty" => ErrorCode::NtfsDirty,
        "PendingReboot" => ErrorCode::PendingReboot,
        "PvsTargetPresent" => ErrorCode::PvsTargetPresent,
        "UnsupportedWindows" => ErrorCode::UnsupportedWindows,
        _ => ErrorCode::Internal,
    }
}

pub(super) fn cancelled() -> JobError {
    JobError::new(ErrorCode::Cancelled, "cancelled; the disk is as it was")
}

pub(super) fn read_failed(error: &BlockError) -> JobError {
    JobError::from_chain(ErrorCode::DiskReadFailed, error)
        .with_hint("the medium may be failing: look at the kernel log of this machine")
}

pub(super) fn sink_failed(error: &SinkError) -> JobError {
    let (code, hint) = match error {
        SinkError::Smb(error) => return smb_failed(error),
        SinkError::Exists { .. } => (
            ErrorCode::OutputExists,
            "choose another name, or allow it to be replaced: --overwrite",
        ),
        SinkError::NoSpace { .. } => (
            ErrorCode::OutputNoSpace,
            "make room, or write the image elsewhere",
        ),
        SinkError::Busy { .. } => (
            ErrorCode::OutputFailed,
            "wait for the other export, or choose another name",
        ),
        _ => (
            ErrorCode::OutputFailed,
            "check the folder, its file system and who may write there",
        ),
    };
    JobError::from_chain(code, error).with_hint(hint)
}

pub(super) fn smb_failed(error: &SmbError) -> JobError {
    let code = match error.code() {
        SmbErrorCode::OutputExists => ErrorCode::OutputExists,
        SmbErrorCode::SmbAccessDenied => ErrorCode::SmbAccessDenied,
        SmbErrorCode::SmbAuthFailed => ErrorCode::SmbAuthFailed,
        SmbErrorCode::SmbNoSpace => ErrorCode::SmbNoSpace,
        SmbErrorCode::SmbProtocol => ErrorCode::SmbProtocol,
        SmbErrorCode::SmbShareNotFound => ErrorCode::SmbShareNotFound,
        SmbErrorCode::SmbUnreachable => ErrorCode::SmbUnreachable,
        _ => ErrorCode::Internal,
    };
    JobError::from_chain(code, error).with_hint(error.hint())
}
