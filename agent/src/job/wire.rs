//! Jobs between the wire and the words of the contract.
//!
//! ```text
//!  v1::JobRequest --> fields (JSON) --> Request, as of a local run
//!  Job (JSON)     --> v1::JobFinished
//! ```
//!
//! The JSON of the contract is the one form in which a job is worded, kept and compared; the wire
//! only carries it. So what a local run checks is checked here too, and what a job finds out and
//! the wire has no field for goes along as it is.

use ce_proto::{MAX_MESSAGE_BYTES, v1};
use prost::Message;
use serde_json::{Map, Value, json};

use super::machine::{Refusal, RefusalReason};
use super::{ErrorCode, JobError};

/// A field of a request that can't be what it is, and why.
pub type Problem = (String, String);

/// The fields of a request, by the names of the contract.
///
/// # Errors
///
/// Every value that this version does not know, and every text that is longer than the protocol
/// allows.
pub fn fields_of(request: &v1::JobRequest) -> Result<Map<String, Value>, Vec<Problem>> {
    let mut fields = Fields::default();
    fields.name("operation", request.operation, operation);
    fields.name("platform", request.platform, platform);
    if let Some(disk) = &request.disk {
        let value = fields.disk(disk);
        fields.put("disk", value);
    }
    if let Some(output) = &request.output_storage_location {
        let value = fields.output(output);
        fields.put("outputStorageLocation", value);
    }
    fields.text(
        "outputImageFilename",
        &request.output_image_filename,
        SHORT_TEXT,
    );
    fields.name("outputFormat", request.output_format, |value| {
        Some(match v1::OutputFormat::try_from(value).ok()? {
            v1::OutputFormat::Unspecified => return None,
            v1::OutputFormat::Vhdx => "VhdxDiskFormat",
            v1::OutputFormat::Vhd => "VhdDiskFormat",
        })
    });
    fields.value("hashDisk", request.hash_disk);
    fields.text("md5Hash", &request.md5_hash, SHORT_TEXT);
    fields.value("hashedBytes", request.hashed_bytes);
    fields.name("freeSpace", request.free_space, |value| {
        Some(match v1::FreeSpace::try_from(value).ok()? {
            v1::FreeSpace::Unspecified => return None,
            v1::FreeSpace::Copy => "copy",
            v1::FreeSpace::Skip => "skip",
        })
    });
    fields.name("provisioningType", request.provisioning_type, |value| {
        Some(match v1::ProvisioningType::try_from(value).ok()? {
            v1::ProvisioningType::Unspecified => return None,
            v1::ProvisioningType::Mcs => "Mcs",
            v1::ProvisioningType::Pvs => "Pvs",
        })
    });
    if let Some(reconfigure) = &request.xd_reconfigure {
        let value = fields.reconfigure(reconfigure);
        fields.put("xdReconfigure", value);
    }
    fields.value("domainUnjoin", request.domain_unjoin);
    fields.value("installMisa", request.install_misa);
    fields.name("network", request.network, |value| {
        Some(match v1::Network::try_from(value).ok()? {
            v1::Network::Unspecified => return None,
            v1::Network::Keep => "keep",
            v1::Network::Dhcp => "dhcp",
        })
    });
    fields.value("timeoutSeconds", request.timeout_seconds);
    fields.value("convertToUefi", request.convert_to_uefi);
    fields.value("keepPrepared", request.keep_prepared);
    match fields.problems.is_empty() {
        true => Ok(fields.map),
        false => Err(fields.problems),
    }
}

#[derive(Default)]
struct Fields {
    map: Map<String, Value>,
    problems: Vec<Problem>,
}

impl Fields {
    fn put(&mut self, name: &str, value: Value) {
        self.map.insert(name.to_owned(), value);
    }

    fn value<T: Into<Value>>(&mut self, name: &str, value: Option<T>) {
        if let Some(value) = value {
            self.put(name, value.into());
        }
    }

    fn text(&mut self, name: &str, text: &Option<String>, limit: usize) {
        if let Some(text) = text {
            let value = self.bounded(name, text, limit);
            self.put(name, value);
        }
    }

    fn name(&mut self, name: &str, value: Option<i32>, of: impl Fn(i32) -> Option<&'static str>) {
        if let Some(value) = value {
            let known = self.known(name, value, of);
            self.put(name, known);
        }
    }

    fn known(&mut self, name: &str, value: i32, of: impl Fn(i32) -> Option<&'static str>) -> Value {
        of(value).map_or_else(
            || {
                let problem = format!("{value} is no value that this version of ce-agent knows");
                self.problems.push((name.to_owned(), problem));
                Value::Null
            },
            Value::from,
        )
    }

    fn bounded(&mut self, name: &str, text: &str, limit: usize) -> Value {
        if text.len() > limit {
            let problem = format!("has {} bytes; at most {limit} are allowed", text.len());
            self.problems.push((name.to_owned(), problem));
            return Value::Null;
        }
        text.into()
    }

    fn disk(&mut self, disk: &v1::DiskSelector) -> Value {
        use v1::disk_selector::Selector;
        let mut object = Map::new();
        let (name, value) = match &disk.selector {
            None => ("", Value::Null),
            Some(Selector::Lun(lun)) => ("lun", (*lun).into()),
            Some(Selector::Serial(text)) => {
                ("serial", self.bounded("disk.serial", text, SHORT_TEXT))
            }
            Some(Selector::Wwid(text)) => ("wwid", self.bounded("disk.wwid", text, SHORT_TEXT)),
            Some(Selector::Hctl(text)) => ("hctl", self.bounded("disk.hctl", text, SHORT_TEXT)),
            Some(Selector::DeviceName(text)) => (
                "deviceName",
                self.bounded("disk.deviceName", text, SHORT_TEXT),
            ),
            Some(Selector::Path(text)) => ("path", self.bounded("disk.path", text, LONG_TEXT)),
        };
        if !name.is_empty() {
            object.insert(name.to_owned(), value);
        }
        if let Some(size) = disk.size_bytes {
            object.insert("sizeBytes".into(), size.into());
        }
        object.into()
    }

    fn output(&mut self, output: &v1::OutputStorageLocation) -> Value {
        let mut object = Map::new();
        let location = self.bounded(
            "outputStorageLocation.location",
            &output.location,
            LONG_TEXT,
        );
        object.insert("location".into(), location);
        if let Some(encryption) = output.encryption {
            let field = "outputStorageLocation.encryption";
            let known = self.known(field, encryption, |value| {
                Some(match v1::SmbEncryption::try_from(value).ok()? {
                    v1::SmbEncryption::Unspecified => return None,
                    v1::SmbEncryption::Required => "required",
                    v1::SmbEncryption::IfDemanded => "ifDemanded",
                })
            });
            object.insert("encryption".into(), known);
        }
        if let Some(dialect) = &output.oldest_dialect {
            let field = "outputStorageLocation.oldestDialect";
            let dialect = self.bounded(field, dialect, SHORT_TEXT);
            object.insert("oldestDialect".into(), dialect);
        }
        object.into()
    }

    fn reconfigure(&mut self, reconfigure: &v1::XdReconfigure) -> Value {
        let field = "xdReconfigure.controllers";
        let count = reconfigure.controllers.len();
        if count > MOST_CONTROLLERS {
            let problem = format!("are {count}; at most {MOST_CONTROLLERS} are allowed");
            self.problems.push((field.into(), problem));
        }
        let controllers: Vec<_> = reconfigure
            .controllers
            .iter()
            .take(MOST_CONTROLLERS)
            .map(|name| self.bounded(field, name, SHORT_TEXT))
            .collect();
        let mut object = Map::new();
        object.insert("controllers".into(), controllers.into());
        if let Some(port) = reconfigure.port_number {
            object.insert("portNumber".into(), port.into());
        }
        if let Some(enable) = reconfigure.enable_hdx_ports {
            object.insert("enableHdxPorts".into(), enable.into());
        }
        object.into()
    }
}

fn operation(value: i32) -> Option<&'static str> {
    Some(match v1::Operation::try_from(value).ok()? {
        v1::Operation::Unspecified => return None,
        v1::Operation::Export => "export",
        v1::Operation::Prepare => "prepare",
        v1::Operation::Publish => "publish",
        v1::Operation::PrepareAndPublish => "prepareAndPublish",
        v1::Operation::ConvertToUefi => "convertToUefi",
        v1::Operation::Inspect => "inspect",
        v1::Operation::Diagnostics => "diagnostics",
    })
}

fn platform(value: i32) -> Option<&'static str> {
    Some(match v1::Platform::try_from(value).ok()? {
        v1::Platform::Unspecified => return None,
        v1::Platform::Aws => "aws",
        v1::Platform::Azure => "azure",
        v1::Platform::Gcp => "gcp",
        v1::Platform::Nutanix => "nutanix",
        v1::Platform::Vsphere => "vsphere",
        v1::Platform::Xenserver => "xenserver",
    })
}

/// The message for a job that is not taken on.
pub(crate) fn rejected(id: &str, attempt: u32, refusal: &Refusal) -> v1::JobRejected {
    use v1::job_rejected::Reason;
    let reason = match refusal.reason {
        RefusalReason::Busy => Reason::Busy,
        RefusalReason::Draining => Reason::Draining,
        RefusalReason::DuplicateId => Reason::DuplicateId,
        RefusalReason::Invalid => Reason::Invalid,
        RefusalReason::Unsupported => Reason::Unsupported,
    };
    let problems = refusal.problems.iter().take(MOST_PROBLEMS);
    v1::JobRejected {
        job_id: id.to_owned(),
        reason: reason.into(),
        error: Some(error_of(&refusal.error)),
        problems: problems
            .map(|(field, message)| v1::Problem {
                field: clip(field, SHORT_TEXT).to_owned(),
                message: clip(message, LONG_TEXT).to_owned(),
            })
            .collect(),
        attempt,
    }
}

/// A refusal that lists `problems`.
pub(crate) fn refusal(reason: RefusalReason, problems: Vec<Problem>) -> Refusal {
    let told: Vec<_> = problems
        .iter()
        .map(|(field, message)| format!("{field}: {message}"))
        .collect();
    Refusal {
        reason,
        error: JobError::new(ErrorCode::InvalidRequest, told.join("; ")),
        problems,
    }
}

fn error_of(error: &JobError) -> v1::JobError {
    // A unit variant always has the JSON form of its name.
    let code = serde_json::to_value(error.code).unwrap_or_default();
    v1::JobError {
        code: code.as_str().unwrap_or("Internal").to_owned(),
        message: clip(&error.message, LONGEST_MESSAGE).to_owned(),
        hint: clip(error.hint.as_deref().unwrap_or_default(), LONG_TEXT).to_owned(),
    }
}

/// The message for a job that has ended. `job` is the result as the contract words it.
///
/// It is at most [`MAX_MESSAGE_BYTES`] long: of a result that is longer, what people read goes
/// first, and a warning says so.
pub fn finished(id: &str, attempt: u32, job: &Value, at: i64) -> v1::JobFinished {
    use v1::job_finished::Status;
    let status = match job["status"].as_str() {
        Some("complete") => Status::Complete,
        Some("cancelled") => Status::Cancelled,
        _ => Status::Failed,
    };
    let text = |value: &Value, limit| clip(value.as_str().unwrap_or_default(), limit).to_owned();
    let error = &job["error"];
    let error = (status != Status::Complete).then(|| v1::JobError {
        code: match error["code"].as_str() {
            Some(code) => clip(code, 64).to_owned(),
            None => "Internal".into(),
        },
        message: text(&error["message"], LONGEST_MESSAGE),
        hint: text(&error["hint"], LONG_TEXT),
    });
    let warnings = job["warnings"].as_array().into_iter().flatten();
    let mut message = v1::JobFinished {
        job_id: id.to_owned(),
        status: status.into(),
        artifacts: Some(artifacts(&job["artifacts"])),
        error,
        warnings: warnings
            .take(MOST_WARNINGS - 1)
            .map(|warning| text(warning, LONG_TEXT))
            .collect(),
        finished_unix_ms: at,
        attempt,
    };
    shorten(&mut message);
    message
}

/// Takes away what is too long for one message.
fn shorten(message: &mut v1::JobFinished) {
    let mut left_out = Vec::new();
    if let Some(artifacts) = &mut message.artifacts
        && artifacts.further_json.len() > LONGEST_FURTHER
    {
        artifacts.further_json.clear();
        left_out.push("artifacts");
    }
    let fits = |message: &v1::JobFinished| message.encoded_len() <= MAX_MESSAGE_BYTES - ENVELOPE;
    if !fits(message) {
        message.warnings.truncate(16);
        left_out.push("warnings");
    }
    if !fits(message)
        && let Some(artifacts) = &mut message.artifacts
    {
        artifacts.changes.clear();
        left_out.push("changes");
    }
    if !left_out.is_empty() {
        let what = left_out.join(", ");
        let warning = format!("left out, being too long for a message: {what}");
        message.warnings.push(warning);
    }
}

fn artifacts(artifacts: &Value) -> v1::Artifacts {
    let mut left = artifacts.as_object().cloned().unwrap_or_default();
    let mut text = |name: &str| match left.remove(name) {
        Some(Value::String(text)) => Some(clip(&text, LONG_TEXT).to_owned()),
        _ => None,
    };
    let (md5_hash, output_image) = (text("md5Hash"), text("outputImage"));
    let (free_space, source_platform) = (text("freeSpace"), text("sourcePlatform"));
    let mut number = |name: &str| left.remove(name).and_then(|value| value.as_u64());
    let hashed_bytes = number("hashedBytes");
    let virtual_size_bytes = number("virtualSizeBytes");
    let file_size_bytes = number("fileSizeBytes");
    let resumed_from_bytes = number("resumedFromBytes");
    let verified = left.remove("verified").and_then(|value| value.as_bool());
    let durations = left.remove("durations");
    let durations = durations.as_ref().and_then(Value::as_object);
    let durations_ms = durations.into_iter().flatten().take(64);
    let windows = windows(&mut left);
    let changes = changes(&mut left);
    v1::Artifacts {
        md5_hash,
        hashed_bytes,
        output_image,
        virtual_size_bytes,
        file_size_bytes,
        free_space: free_space.and_then(|text| match &*text {
            "copy" => Some(v1::FreeSpace::Copy.into()),
            "skip" => Some(v1::FreeSpace::Skip.into()),
            _ => None,
        }),
        source_platform: source_platform.and_then(|name| {
            let known = (1..=6).find(|value| platform(*value) == Some(&*name));
            known.or(None)
        }),
        windows,
        changes,
        durations_ms: durations_ms
            .map(|(step, seconds)| {
                let milliseconds = (seconds.as_f64().unwrap_or(0.0) * 1000.0).round();
                (step.clone(), milliseconds.max(0.0) as u64)
            })
            .collect(),
        resumed_from_bytes,
        verified,
        further_json: match left.is_empty() {
            true => String::new(),
            false => Value::Object(left).to_string(),
        },
    }
}

/// What is installed, if it is told in the words of the protocol.
fn windows(left: &mut Map<String, Value>) -> Option<v1::WindowsFacts> {
    let facts = left.get("windows")?.as_object()?;
    let text = |name: &str| Some(clip(facts.get(name)?.as_str()?, SHORT_TEXT).to_owned());
    let told = v1::WindowsFacts {
        product: text("product")?,
        version: text("version")?,
        build: text("build")?,
        architecture: text("architecture")?,
    };
    // What has more to tell goes along whole, too.
    if facts.len() == 4 {
        left.remove("windows");
    }
    Some(told)
}

/// What was done, if all of it is told in the words of the protocol.
fn changes(left: &mut Map<String, Value>) -> Vec<v1::Change> {
    use v1::change::Outcome;
    let change = |value: &Value| {
        let text = |name: &str| {
            value[name]
                .as_str()
                .map(|text| clip(text, LONG_TEXT).into())
        };
        let outcome = match value["outcome"].as_str()? {
            "done" => Outcome::Done,
            "alreadySo" => Outcome::AlreadySo,
            "deferred" => Outcome::Deferred,
            "skipped" => Outcome::Skipped,
            _ => return None,
        };
        Some(v1::Change {
            id: text("id")?,
            title: text("title")?,
            outcome: outcome.into(),
            reason: text("why").or_else(|| text("reason")).unwrap_or_default(),
        })
    };
    let told = left.get("changes").and_then(Value::as_array);
    let told: Option<Vec<_>> = told.and_then(|all| all.iter().map(change).collect());
    match told {
        // That there were none is something else than that none were looked for.
        Some(changes) if (1..=MOST_CHANGES).contains(&changes.len()) => {
            left.remove("changes");
            changes
        }
        _ => Vec::new(),
    }
}

/// `text`, or as much of its start as has at most `limit` bytes.
pub(crate) fn clip(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit))
        .unwrap_or_default()
}

/// The text of a request, as a local run reads it. It holds no secret.
pub(crate) fn text_of(fields: &Map<String, Value>) -> String {
    json!(fields).to_string()
}

const SHORT_TEXT: usize = 255;
const LONG_TEXT: usize = 4096;
const LONGEST_MESSAGE: usize = 16_384;
const LONGEST_FURTHER: usize = 512 << 10;
const MOST_CHANGES: usize = 4096;
const MOST_CONTROLLERS: usize = 64;
const MOST_PROBLEMS: usize = 64;
const MOST_WARNINGS: usize = 256;

/// Room for what is around a body.
const ENVELOPE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{LocalOverrides, Request};

    fn export() -> v1::JobRequest {
        v1::JobRequest {
            operation: Some(v1::Operation::Export.into()),
            platform: Some(v1::Platform::Azure.into()),
            disk: Some(v1::DiskSelector {
                selector: Some(v1::disk_selector::Selector::Path("/dev/sdc".into())),
                size_bytes: Some(1 << 30),
            }),
            output_storage_location: Some(v1::OutputStorageLocation {
                location: "/images".into(),
                encryption: Some(v1::SmbEncryption::Required.into()),
                oldest_dialect: Some("3.0".into()),
            }),
            output_image_filename: Some("golden".into()),
            output_format: Some(v1::OutputFormat::Vhd.into()),
            hash_disk: Some(true),
            free_space: Some(v1::FreeSpace::Copy.into()),
            timeout_seconds: Some(60),
            ..Default::default()
        }
    }

    #[test]
    fn a_request_from_the_wire_is_the_one_that_a_local_run_reads() {
        let fields = fields_of(&export()).unwrap();
        let expected = json!({
            "operation": "export", "platform": "azure",
            "disk": {"path": "/dev/sdc", "sizeBytes": 1 << 30},
            "outputStorageLocation": {
                "location": "/images", "encryption": "required", "oldestDialect": "3.0",
            },
            "outputImageFilename": "golden", "outputFormat": "VhdDiskFormat", "hashDisk": true,
            "freeSpace": "copy", "timeoutSeconds": 60,
        });
        assert_eq!(Value::Object(fields.clone()), expected);
        let request = Request::parse(&text_of(&fields)).unwrap();
        let spec = request.into_spec(LocalOverrides::default()).unwrap();
        assert_eq!(spec.work.operation(), "export");
    }

    #[test]
    fn every_operation_and_platform_of_the_protocol_has_its_word() {
        for value in 1..=7 {
            assert!(operation(value).is_some(), "{value}");
        }
        for value in 1..=6 {
            let known: Result<ce_platform::Platform, _> = platform(value).unwrap().parse();
            assert!(known.is_ok(), "{value}");
        }
        assert!(operation(0).is_none() && operation(8).is_none());
        assert!(platform(0).is_none() && platform(7).is_none());
    }

    #[test]
    fn unknown_values_and_long_texts_are_all_named() {
        let request = v1::JobRequest {
            operation: Some(99),
            output_image_filename: Some("x".repeat(256)),
            network: Some(0),
            ..export()
        };
        let problems = fields_of(&request).unwrap_err();
        let fields: Vec<_> = problems.iter().map(|(field, _)| &**field).collect();
        assert_eq!(fields, ["operation", "outputImageFilename", "network"]);
    }

    #[test]
    fn a_result_goes_onto_the_wire_whole() {
        let job = json!({
            "id": "x", "operation": "export", "status": "complete",
            "artifacts": {
                "md5Hash": "00ff", "hashedBytes": 5, "outputImage": "smb://h/s/x.vhdx",
                "virtualSizeBytes": 6, "fileSizeBytes": 7, "freeSpace": "skip", "verified": true,
                "sourcePlatform": "vsphere", "durations": {"export": 1.25}, "disk": {"a": [1]},
                "windows": {"product": "p", "version": "v", "build": "b", "architecture": "amd64"},
                "changes": [{"id": "i", "title": "t", "outcome": "skipped", "reason": "r"}],
                "newer": 1,
            },
            "warnings": ["w"],
        });
        let message = finished("a", 2, &job, 9);
        assert_eq!(message.status(), v1::job_finished::Status::Complete);
        assert_eq!((message.error, message.attempt), (None, 2));
        let artifacts = message.artifacts.unwrap();
        assert_eq!(artifacts.md5_hash.as_deref(), Some("00ff"));
        assert_eq!(artifacts.free_space, Some(v1::FreeSpace::Skip.into()));
        assert_eq!(
            artifacts.source_platform,
            Some(v1::Platform::Vsphere.into())
        );
        assert_eq!(artifacts.durations_ms["export"], 1250);
        assert_eq!(artifacts.windows.unwrap().build, "b");
        assert_eq!(artifacts.changes[0].reason, "r");
        let further: Value = serde_json::from_str(&artifacts.further_json).unwrap();
        assert_eq!(further, json!({"disk": {"a": [1]}, "newer": 1}));
    }

    #[test]
    fn a_result_fits_into_a_message_whatever_is_in_it() {
        let change = json!({"id": "i", "title": "t".repeat(4000), "outcome": "done"});
        let job = json!({
            "status": "failed", "error": {"code": "Internal", "message": "é".repeat(20_000)},
            "artifacts": {"disk": "d".repeat(600 << 10), "changes": vec![change; 400]},
            "warnings": vec!["w".repeat(5000); 300],
        });
        let message = finished("a", 1, &job, 0);
        assert!(message.encoded_len() < MAX_MESSAGE_BYTES);
        assert_eq!(message.error.unwrap().message.len(), LONGEST_MESSAGE);
        let last = message.warnings.last().unwrap();
        assert!(
            last.contains("artifacts") && last.contains("changes"),
            "{last}"
        );
    }

    #[test]
    fn a_rejection_lists_its_problems() {
        let refusal = refusal(
            RefusalReason::Invalid,
            vec![("disk.lun".into(), "no".into()), ("x".into(), "y".into())],
        );
        let message = rejected("a", 3, &refusal);
        assert_eq!(message.problems.len(), 2);
        let error = message.error.unwrap();
        assert_eq!(
            (&*error.code, &*error.message),
            ("InvalidRequest", "disk.lun: no; x: y")
        );
    }
}
