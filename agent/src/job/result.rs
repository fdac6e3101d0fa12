//! What is said of a job, while it runs and afterwards: the JSON of the contract.

use std::collections::BTreeMap;
use std::time::Duration;

use ce_platform::plan::ChangeLine;
use ce_platform::proof::Proof;
use serde::Serialize;

use super::{DiagnosticsBundle, ErrorCode, InspectedWindows, Inspection, JobError};

/// A job as its owner sees it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// The job's name.
    pub id: String,
    /// What it does.
    pub operation: &'static str,
    /// Where it stands.
    pub status: Status,
    /// 0 to 100; never goes back.
    pub overall_progress_percent: u8,
    /// What came of it.
    pub artifacts: Artifacts,
    /// Why it failed or was cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<JobError>,
    /// What its owner should know although the job went on.
    pub warnings: Vec<String>,
}

impl Job {
    /// A job that failed without having been run.
    pub fn not_run(id: String, operation: &'static str, error: JobError) -> Self {
        Self {
            id,
            operation,
            status: Status::Failed,
            overall_progress_percent: 0,
            artifacts: Artifacts::default(),
            error: Some(error),
            warnings: Vec::new(),
        }
    }

    /// The same job, if what ended it was the end of its time.
    #[must_use]
    pub fn into_timed_out(mut self, limit: Duration) -> Self {
        let message = format!("not complete after the {} s it was given", limit.as_secs());
        self.status = Status::Failed;
        self.error = Some(
            JobError::new(ErrorCode::Timeout, message).with_hint("give it more: timeoutSeconds"),
        );
        self
    }
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Status {
    /// Stopped on request; nothing is left of it.
    Cancelled,
    /// Done.
    Complete,
    /// Ended early; see the error.
    Failed,
    /// Being done.
    InProgress,
    /// Not begun.
    Pending,
}

/// What a job produced or found out. Only what the operation has is there.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifacts {
    /// 32 lower-case hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub md5_hash: Option<String>,
    /// How many bytes from the start of the disk the hash covers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hashed_bytes: Option<u64>,
    /// The image that was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_image: Option<String>,
    /// The size of the disk in the image, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_size_bytes: Option<u64>,
    /// The size of the image file, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_size_bytes: Option<u64>,
    /// Where on the disk the export was last taken up again, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumed_from_bytes: Option<u64>,
    /// Whether the image was read back and found to be what was written, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<bool>,
    /// What was done with the free space of file systems: `copy` or `skip`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_space: Option<&'static str>,
    /// How many bytes of free clusters were left out, if they were to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped_bytes: Option<u64>,
    /// The platform that the disk comes from, if the tools in its Windows agree on one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_platform: Option<&'static str>,
    /// The Windows on the disk; of several, the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<WindowsSummary>,
    /// What a prepare did, or would do, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes: Option<Vec<ChangeLine>>,
    /// How a prepared disk starts on its target, read back link by link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// What is left to do until a published disk is streamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registration: Option<String>,
    /// How much of the disk is different now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_bytes: Option<u64>,
    /// What was collected for support.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diagnostics: Option<DiagnosticsBundle>,
    /// What is on the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<Inspection>,
    /// Seconds per step.
    pub durations: BTreeMap<&'static str, f64>,
}

/// Which Windows it is, in short.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WindowsSummary {
    /// The name it is sold by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    /// The version, such as `23H2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Build and revision, such as `22631.4345`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<String>,
    /// `x64`, `x86` or `arm64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
}

impl From<&InspectedWindows> for WindowsSummary {
    fn from(windows: &InspectedWindows) -> Self {
        let version = &windows.inspection.version;
        Self {
            product: version.product.clone(),
            version: version.version.clone(),
            build: version.build.map(|build| match version.revision {
                Some(revision) => format!("{build}.{revision}"),
                None => build.to_string(),
            }),
            architecture: version.architecture.clone(),
        }
    }
}

impl Artifacts {
    /// Notes what Windows is on a disk; of several, the first.
    pub(super) fn found(&mut self, inspection: &Inspection) {
        self.virtual_size_bytes = Some(inspection.size_bytes);
        self.windows = inspection.windows.first().map(WindowsSummary::from);
        self.source_platform = match inspection.windows.as_slice() {
            [only] => only.source_platform,
            _ => None,
        };
    }

    /// Notes how long a step took, to the millisecond.
    pub fn took(&mut self, step: &'static str, duration: Duration) {
        self.durations
            .insert(step, duration.as_millis() as f64 / 1000.0);
    }
}
