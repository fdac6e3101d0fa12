//! What an agent says came of a job: the wire's message in, the contract's JSON out.

use ce_proto::v1;
use serde_json::{Map, Value, json};

use crate::machine::{EndStatus, JobError, JobResult};

/// What is wrong with a message; the session ends with it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Malformed {
    /// Which field.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl Malformed {
    /// A field that is not what it should be.
    pub fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self {
            field,
            problem: problem.into(),
        }
    }
}

/// The result of a finished job.
///
/// # Errors
///
/// A field is missing, unknown to this revision, or larger than the protocol allows.
pub fn finished(message: v1::JobFinished) -> Result<(EndStatus, JobResult), Malformed> {
    use v1::job_finished::Status;
    let status = match Status::try_from(message.status) {
        Ok(Status::Complete) => EndStatus::Complete,
        Ok(Status::Failed) => EndStatus::Failed,
        Ok(Status::Cancelled) => EndStatus::Cancelled,
        Ok(Status::Unspecified) | Err(_) => {
            let problem = format!("{} is no status", message.status);
            return Err(Malformed::new("job_finished.status", problem));
        }
    };
    let error = message.error.map(job_error).transpose()?;
    if error.is_some() != (status != EndStatus::Complete) {
        let problem = "expected exactly if the job is not complete";
        return Err(Malformed::new("job_finished.error", problem));
    }
    at_most("job_finished.warnings", message.warnings.len(), 256)?;
    for warning in &message.warnings {
        at_most("job_finished.warnings", warning.len(), 4096)?;
    }
    let result = JobResult {
        artifacts: artifacts(message.artifacts.unwrap_or_default())?,
        error,
        warnings: message.warnings,
    };
    Ok((status, result))
}

/// The result of a rejected job: every problem is in its message.
///
/// # Errors
///
/// As of [`finished`].
pub fn rejected(message: v1::JobRejected) -> Result<JobResult, Malformed> {
    at_most("job_rejected.problems", message.problems.len(), 64)?;
    let mut error = match message.error {
        Some(error) => job_error(error)?,
        None => JobError::new(
            "ConnectorRejected",
            "the agent does not take the job on",
            "",
        ),
    };
    for problem in &message.problems {
        at_most("job_rejected.problems", problem.message.len(), 4096)?;
        at_most("job_rejected.problems", problem.field.len(), 255)?;
        let told = match problem.field.as_str() {
            "" => problem.message.clone(),
            field => format!("{field}: {}", problem.message),
        };
        if !error.message.contains(&told) {
            error.message.push_str("; ");
            error.message.push_str(&told);
        }
    }
    Ok(JobResult {
        error: Some(error),
        ..JobResult::default()
    })
}

fn job_error(error: v1::JobError) -> Result<JobError, Malformed> {
    at_most("error.code", error.code.len(), 64)?;
    at_most("error.message", error.message.len(), 16384)?;
    at_most("error.hint", error.hint.len(), 4096)?;
    if error.code.is_empty() || !error.code.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        let problem = format!("{:?} is no code", error.code);
        return Err(Malformed::new("error.code", problem));
    }
    Ok(JobError::new(&error.code, error.message, &error.hint))
}

fn artifacts(message: v1::Artifacts) -> Result<Map<String, Value>, Malformed> {
    at_most(
        "artifacts.further_json",
        message.further_json.len(),
        512 << 10,
    )?;
    let mut artifacts = match message.further_json.as_str() {
        "" => Map::new(),
        text => serde_json::from_str(text).map_err(|error| {
            Malformed::new("artifacts.further_json", format!("no JSON object: {error}"))
        })?,
    };
    // What has a field is checked there, and nothing may come past it.
    if let Some(name) = WITH_A_FIELD
        .iter()
        .find(|name| artifacts.contains_key(**name))
    {
        let problem = format!("`{name}` has a field of its own");
        return Err(Malformed::new("artifacts.further_json", problem));
    }
    let mut put = |name: &str, value: Value| {
        // Of `windows` and `changes` there may be more to tell than the fields can.
        artifacts.entry(name).or_insert(value);
    };
    if let Some(hash) = message.md5_hash {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if hash.len() != 32 || !hash.bytes().all(digit) {
            let problem = "expected 32 lower-case hexadecimal digits";
            return Err(Malformed::new("artifacts.md5_hash", problem));
        }
        put("md5Hash", hash.into());
    }
    if let Some(image) = message.output_image {
        at_most("artifacts.output_image", image.len(), 8192)?;
        put("outputImage", image.into());
    }
    for (name, number) in [
        ("hashedBytes", message.hashed_bytes),
        ("virtualSizeBytes", message.virtual_size_bytes),
        ("fileSizeBytes", message.file_size_bytes),
        ("resumedFromBytes", message.resumed_from_bytes),
    ] {
        if let Some(number) = number {
            put(name, number.into());
        }
    }
    if let Some(verified) = message.verified {
        put("verified", verified.into());
    }
    if let Some(free_space) = message.free_space {
        put(
            "freeSpace",
            word("artifacts.free_space", free_space, free_space_word)?.into(),
        );
    }
    if let Some(platform) = message.source_platform {
        put(
            "sourcePlatform",
            word("artifacts.source_platform", platform, platform_word)?.into(),
        );
    }
    if let Some(windows) = message.windows {
        let length = [
            &windows.product,
            &windows.version,
            &windows.build,
            &windows.architecture,
        ]
        .map(String::len)
        .into_iter()
        .max();
        at_most("artifacts.windows", length.unwrap_or_default(), 255)?;
        put(
            "windows",
            json!({
                "product": windows.product,
                "version": windows.version,
                "build": windows.build,
                "architecture": windows.architecture,
            }),
        );
    }
    at_most("artifacts.changes", message.changes.len(), 4096)?;
    if !message.changes.is_empty() {
        let changes = message.changes.into_iter().map(change);
        put("changes", changes.collect::<Result<Vec<_>, _>>()?.into());
    }
    at_most("artifacts.durations_ms", message.durations_ms.len(), 64)?;
    let seconds = |milliseconds: u64| Value::from(milliseconds as f64 / 1000.0);
    let durations: Map<String, Value> = message
        .durations_ms
        .into_iter()
        .map(|(step, milliseconds)| (step, seconds(milliseconds)))
        .collect();
    put("durations", durations.into());
    Ok(artifacts)
}

fn change(change: v1::Change) -> Result<Value, Malformed> {
    use v1::change::Outcome;
    let outcome = match Outcome::try_from(change.outcome) {
        Ok(Outcome::Done) => "done",
        Ok(Outcome::AlreadySo) => "alreadySo",
        Ok(Outcome::Deferred) => "deferred",
        Ok(Outcome::Skipped) => "skipped",
        Ok(Outcome::Unspecified) | Err(_) => {
            let problem = format!("{} is no outcome", change.outcome);
            return Err(Malformed::new("artifacts.changes", problem));
        }
    };
    let mut value = json!({"id": change.id, "title": change.title, "outcome": outcome});
    if !change.reason.is_empty()
        && let Some(object) = value.as_object_mut()
    {
        object.insert("reason".into(), change.reason.into());
    }
    Ok(value)
}

fn word(
    field: &'static str,
    number: i32,
    words: fn(i32) -> Option<&'static str>,
) -> Result<&'static str, Malformed> {
    words(number).ok_or_else(|| Malformed::new(field, format!("{number} is not known")))
}

fn free_space_word(number: i32) -> Option<&'static str> {
    match v1::FreeSpace::try_from(number).ok()? {
        v1::FreeSpace::Unspecified => None,
        v1::FreeSpace::Copy => Some("copy"),
        v1::FreeSpace::Skip => Some("skip"),
    }
}

/// The contract's word for a platform.
pub fn platform_word(number: i32) -> Option<&'static str> {
    match v1::Platform::try_from(number).ok()? {
        v1::Platform::Unspecified => None,
        v1::Platform::Aws => Some("aws"),
        v1::Platform::Azure => Some("azure"),
        v1::Platform::Gcp => Some("gcp"),
        v1::Platform::Nutanix => Some("nutanix"),
        v1::Platform::Vsphere => Some("vsphere"),
        v1::Platform::Xenserver => Some("xenserver"),
    }
}

/// Whether there is no more of something than the protocol allows.
///
/// # Errors
///
/// There is.
pub fn at_most(field: &'static str, found: usize, limit: usize) -> Result<(), Malformed> {
    if found > limit {
        let problem = format!("is of {found} bytes or items, at most {limit} are allowed");
        return Err(Malformed::new(field, problem));
    }
    Ok(())
}

/// Artifacts that are told by their fields only.
const WITH_A_FIELD: [&str; 10] = [
    "durations",
    "fileSizeBytes",
    "freeSpace",
    "hashedBytes",
    "md5Hash",
    "outputImage",
    "resumedFromBytes",
    "sourcePlatform",
    "verified",
    "virtualSizeBytes",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn complete() -> v1::JobFinished {
        v1::JobFinished {
            status: v1::job_finished::Status::Complete.into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_result_becomes_the_json_of_the_contract() {
        let message = v1::JobFinished {
            artifacts: Some(v1::Artifacts {
                md5_hash: Some("0123456789abcdef0123456789abcdef".into()),
                free_space: Some(v1::FreeSpace::Copy.into()),
                durations_ms: [("export".to_owned(), 1500)].into(),
                further_json: r#"{"disk":{"sizeBytes":1}}"#.into(),
                ..Default::default()
            }),
            ..complete()
        };
        let (status, result) = finished(message).unwrap();
        assert_eq!(status, EndStatus::Complete);
        assert_eq!(
            Value::Object(result.artifacts),
            json!({
                "md5Hash": "0123456789abcdef0123456789abcdef",
                "freeSpace": "copy",
                "durations": {"export": 1.5},
                "disk": {"sizeBytes": 1},
            })
        );
    }

    #[test]
    fn what_the_protocol_forbids_is_refused() {
        let with = |change: fn(&mut v1::JobFinished)| {
            let mut message = complete();
            message.artifacts = Some(v1::Artifacts::default());
            change(&mut message);
            finished(message).unwrap_err().field
        };
        fn artifacts(message: &mut v1::JobFinished) -> &mut v1::Artifacts {
            message.artifacts.get_or_insert_default()
        }
        assert_eq!(with(|m| m.status = 0), "job_finished.status");
        assert_eq!(with(|m| m.status = 77), "job_finished.status");
        assert_eq!(with(|m| m.status = 2), "job_finished.error");
        assert_eq!(
            with(|m| m.error = Some(v1::JobError::default())),
            "error.code"
        );
        assert_eq!(
            with(|m| m.warnings = vec![String::new(); 257]),
            "job_finished.warnings"
        );
        assert_eq!(
            with(|m| artifacts(m).md5_hash = Some("ABCDEF".into())),
            "artifacts.md5_hash"
        );
        assert_eq!(
            with(|m| artifacts(m).free_space = Some(9)),
            "artifacts.free_space"
        );
        assert_eq!(
            with(|m| artifacts(m).further_json = "[1]".into()),
            "artifacts.further_json"
        );
        assert_eq!(
            with(|m| artifacts(m).further_json = r#"{"md5Hash":"unchecked"}"#.into()),
            "artifacts.further_json"
        );
        assert_eq!(
            with(|m| artifacts(m).changes = vec![v1::Change::default()]),
            "artifacts.changes"
        );
    }

    #[test]
    fn a_rejection_tells_every_problem_once() {
        let problem = |field: &str, message: &str| v1::Problem {
            field: field.into(),
            message: message.into(),
        };
        let message = v1::JobRejected {
            error: Some(v1::JobError {
                code: "InvalidRequest".into(),
                message: "disk: missing".into(),
                hint: String::new(),
            }),
            problems: vec![problem("disk", "missing"), problem("network", "unknown")],
            ..Default::default()
        };
        let error = rejected(message).unwrap().error.unwrap();
        assert_eq!(error.message, "disk: missing; network: unknown");
    }
}
