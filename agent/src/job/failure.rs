//! What the errors of the libraries are called in a job's result.

use ce_disk::block::{BlockError, OpenError};
use ce_disk::export::ExportError;
use ce_disk::partition::gpt::GptWriteError;
use ce_disk::sink::SinkError;
use ce_disk::sink::smb::{SmbError, SmbErrorCode};
use ce_disk::volume::{Blocker, MaskError, VolumeError};

use ce_disk::scratch::ScratchFolderError;
use ce_disk::transaction::{BeginError, CommitError, Outcome, ScratchError};
use ce_disk::units::ByteCount;
use ce_disk::volume::FatWriteError;
use ce_disk::volume::ntfs::write::NtfsWriteError;
use ce_platform::apply::ApplyError;
use ce_platform::plan::{DriverBlocker, PlanError};

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

/// A driver that the target needs, in the words of a job.
pub(super) fn driver_blocker(found: &DriverBlocker) -> FoundBlocker {
    FoundBlocker {
        code: code_of(found.code()),
        message: found.to_string(),
        way_out: found.way_out().to_owned(),
    }
}

/// Why a disk cannot be opened to be changed.
pub(super) fn writable_failed(error: &OpenError) -> JobError {
    let (code, hint) = match error {
        OpenError::NotWritable { .. } => (
            ErrorCode::DiskWriteFailed,
            "run it as root, or as a user who may write to the disk",
        ),
        OpenError::NeverWritten { .. } => (
            ErrorCode::DiskInvalid,
            "attach the disk itself, or convert the image: qemu-img convert -O raw",
        ),
        other => return open_failed(other),
    };
    JobError::from_chain(code, error).with_hint(hint)
}

/// Why the folder for changes and journal is of no use.
pub(super) fn scratch_failed(error: &ScratchFolderError) -> JobError {
    let hint = match error {
        ScratchFolderError::NotOwn { .. } => {
            "take another folder, or take the others' rights away: chmod go-w"
        }
        _ => "name a folder on a file system of this machine: --scratch",
    };
    JobError::from_chain(ErrorCode::ScratchFailed, error).with_hint(hint)
}

fn scratch_file_failed(error: &ScratchError) -> JobError {
    let (code, hint) = match error {
        ScratchError::Full { .. } => (ErrorCode::ScratchNoSpace, MAKE_ROOM),
        _ => (
            ErrorCode::ScratchFailed,
            "check the scratch folder, its file system and whose it is",
        ),
    };
    JobError::from_chain(code, error).with_hint(hint)
}

/// Why a transaction could not begin.
pub(super) fn begin_failed(error: &BeginError) -> JobError {
    let (code, hint) = match error {
        BeginError::Scratch(error) => return scratch_file_failed(error),
        BeginError::Busy { .. } => (
            ErrorCode::ScratchBusy,
            "wait for the other run, or take another folder: --scratch",
        ),
        BeginError::Unfinished { .. } => (
            ErrorCode::JournalMismatch,
            "finish the earlier commit first: ce-agent recover",
        ),
        BeginError::Damaged { .. } => (
            ErrorCode::JournalDamaged,
            "restore the disk from a backup, then remove the journal",
        ),
        _ => return JobError::from_chain(ErrorCode::Internal, error),
    };
    JobError::from_chain(code, error).with_hint(hint)
}

/// Why a commit failed, and what became of the disk.
pub(super) fn commit_failed(error: &CommitError) -> JobError {
    let failed = match error {
        CommitError::Cancelled => return cancelled(),
        CommitError::Disk(BlockError::Touched { .. }) => {
            JobError::from_chain(ErrorCode::DiskBusy, error)
        }
        CommitError::Disk(_) => JobError::from_chain(ErrorCode::DiskReadFailed, error),
        CommitError::Scratch(error) => scratch_file_failed(error),
        CommitError::Apply { .. } => JobError::from_chain(ErrorCode::DiskWriteFailed, error),
        CommitError::Undecided { .. } => JobError::from_chain(ErrorCode::ScratchFailed, error),
        _ => JobError::from_chain(ErrorCode::Internal, error),
    };
    failed.with_hint(match error.outcome() {
        Outcome::Unchanged => "the disk is as it was; mend what is wrong and run it again",
        Outcome::Undecided => "run `ce-agent recover` before the disk is used",
        Outcome::Unfinished => {
            "mend what is wrong with the disk and run `ce-agent recover`; do not use the disk before"
        }
    })
}

/// Why the hives could not be changed in memory.
pub(super) fn apply_failed(error: &ApplyError) -> JobError {
    let code = match error {
        ApplyError::Hive { .. } | ApplyError::Damaged { .. } => ErrorCode::HiveCorrupt,
        ApplyError::Volume(error) => return volume_failed(error),
        _ => ErrorCode::Internal,
    };
    JobError::from_chain(code, error).with_hint(AS_IT_WAS)
}

/// Why there is no plan.
pub(super) fn plan_failed(error: &PlanError) -> JobError {
    JobError::from_chain(code_of(error.code()), error).with_hint(AS_IT_WAS)
}

/// Why a volume could not be read.
pub(super) fn volume_failed(error: &VolumeError) -> JobError {
    match error {
        VolumeError::Block(error) => read_failed(error),
        error => JobError::from_chain(ErrorCode::NtfsDirty, error)
            .with_hint("start Windows, let it check the volume (chkdsk /f), and shut it down"),
    }
}

/// Why files could not be written to the volume of Windows.
pub(super) fn ntfs_write_failed(error: &NtfsWriteError) -> JobError {
    match error {
        NtfsWriteError::Cancelled { .. } => cancelled(),
        NtfsWriteError::Blocked { blockers } => {
            JobError::refused(blockers.iter().map(blocker).collect())
                .unwrap_or_else(|| JobError::from_chain(ErrorCode::Internal, error))
        }
        NtfsWriteError::NoSpace { .. } => JobError::from_chain(ErrorCode::NoSpaceOnVolume, error)
            .with_hint("start Windows, make room on the volume (cleanmgr), and shut it down"),
        NtfsWriteError::Block { source, .. } => overlay_failed(source),
        NtfsWriteError::Volume(error) => volume_failed(error),
        NtfsWriteError::TimedOut { .. } => {
            JobError::from_chain(ErrorCode::Timeout, error).with_hint(AS_IT_WAS)
        }
        NtfsWriteError::Library { .. } | NtfsWriteError::Edit { .. } => {
            JobError::from_chain(ErrorCode::NtfsDirty, error)
                .with_hint("start Windows, let it check the volume (chkdsk /f), and shut it down")
        }
        _ => JobError::from_chain(ErrorCode::Internal, error).with_hint(AS_IT_WAS),
    }
}

/// Why files could not be written to the EFI system partition.
pub(super) fn fat_write_failed(error: &FatWriteError) -> JobError {
    match error {
        FatWriteError::Block(error) => overlay_failed(error),
        FatWriteError::NoSpace { .. } => JobError::from_chain(ErrorCode::NoSpaceOnVolume, error)
            .with_hint("make room on the EFI system partition"),
        FatWriteError::Volume(error) => volume_failed(error),
        _ => JobError::from_chain(ErrorCode::NtfsDirty, error)
            .with_hint("check the EFI system partition: chkdsk /f, or fsck.fat"),
    }
}

/// Why a partition table could not be written.
pub(super) fn gpt_write_failed(error: &GptWriteError) -> JobError {
    match error {
        GptWriteError::Block(error) => overlay_failed(error),
        _ => JobError::from_chain(ErrorCode::Internal, error).with_hint(AS_IT_WAS),
    }
}

/// What a job would keep in its scratch does not fit, and nothing has been written.
pub(super) fn no_room_in_scratch(needed: ByteCount, room: ByteCount) -> JobError {
    let message = format!(
        "the changes have {needed:#}, and scratch has room for {room:#} of changes (half of what is free there: \
         the journal needs as much again)"
    );
    JobError::new(ErrorCode::ScratchNoSpace, message).with_hint(MAKE_ROOM)
}

fn overlay_failed(error: &BlockError) -> JobError {
    match error {
        BlockError::OverlayFull { .. } => {
            JobError::from_chain(ErrorCode::ScratchNoSpace, error).with_hint(MAKE_ROOM)
        }
        BlockError::Scratch { .. } => JobError::from_chain(ErrorCode::ScratchFailed, error)
            .with_hint("check the scratch folder, its file system and whose it is"),
        error => read_failed(error),
    }
}

/// The codes that the libraries have for blockers.
fn code_of(code: &str) -> ErrorCode {
    match code {
        "BitLocker" => ErrorCode::BitLocker,
        "DiskReadFailed" => ErrorCode::DiskReadFailed,
        "DriverInvalid" => ErrorCode::DriverInvalid,
        "DriverMissing" => ErrorCode::DriverMissing,
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

const AS_IT_WAS: &str = "the disk is as it was";

const MAKE_ROOM: &str = "make room in the scratch folder, or take another one: --scratch";
