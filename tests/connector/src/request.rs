//! A job as the orchestrator words it: JSON in, the wire's message out.
//!
//! Every problem is told at once. Fields that are none of ours belong to the orchestrator and are
//! dropped, unless they look like one of ours misspelt. What is kept is only what is ours, so a
//! secret in a field nobody asked for is not kept either.

use ce_proto::v1;
use serde_json::{Map, Value};

use crate::machine::JobError;

/// A job request whose fields are what they should be. What they mean together is for the agent to
/// judge, which knows its disks.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The operation's name.
    pub operation: String,
    /// The fields that are ours, as they were given; without secrets.
    pub parameters: Map<String, Value>,
    /// For an agent.
    pub message: v1::JobRequest,
    /// The name of the credentials that go with it.
    pub credential_id: Option<String>,
    /// Names of fields that were dropped.
    pub ignored: Vec<String>,
}

impl Request {
    /// Reads a request. `operation` is what the call says it is, if it says.
    ///
    /// # Errors
    ///
    /// `InvalidRequest` with every problem there is. No value is repeated that may be a secret.
    pub fn parse(text: &[u8], operation: Option<&str>) -> Result<Self, JobError> {
        let fields: Map<String, Value> = serde_json::from_slice(text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            invalid(&[format!("not a JSON object (line {line}, column {column})")])
        })?;
        Self::from_fields(fields, operation)
    }

    /// The same for an object that was read already.
    ///
    /// # Errors
    ///
    /// As of [`parse`](Self::parse).
    pub fn from_fields(
        mut given: Map<String, Value>,
        operation: Option<&str>,
    ) -> Result<Self, JobError> {
        let mut problems = Vec::new();
        if let Some(operation) = operation {
            match given.insert("operation".into(), operation.into()) {
                Some(Value::String(said)) if said != operation => {
                    problems.push(format!("operation: is not the call's, `{operation}`"));
                }
                _ => {}
            }
        }
        let mut parameters = Map::new();
        let mut ignored = Vec::new();
        for (name, value) in given {
            if value.is_null() {
                continue;
            }
            if FIELDS.contains(&name.as_str()) {
                parameters.insert(name, value);
            } else if ORCHESTRATOR_FIELDS.contains(&name.as_str()) {
                ignored.push(name);
            } else if let Some(ours) = meant(&name) {
                problems.push(format!(
                    "{}: unknown field; did you mean `{ours}`?",
                    short(&name)
                ));
            } else {
                ignored.push(short(&name));
            }
        }
        let mut fields = Fields {
            path: String::new(),
            left: parameters.clone(),
            problems: &mut problems,
        };
        let (message, credential_id) = job_request(&mut fields);
        if message.operation.is_none() && !parameters.contains_key("operation") {
            problems.push("operation: missing".into());
        }
        if !problems.is_empty() {
            return Err(invalid(&problems));
        }
        let operation = parameters.get("operation").and_then(Value::as_str);
        Ok(Self {
            operation: operation.unwrap_or_default().to_owned(),
            parameters,
            message,
            credential_id,
            ignored,
        })
    }
}

fn job_request(fields: &mut Fields<'_>) -> (v1::JobRequest, Option<String>) {
    let mut credential_id = None;
    let message = v1::JobRequest {
        operation: fields.word("operation", &OPERATIONS),
        platform: fields.platform("platform"),
        disk: fields.object("disk", disk_selector),
        output_storage_location: fields.object("outputStorageLocation", |fields| {
            credential_id = fields.text("credentialId", 64);
            if fields.left.remove("credentials").is_some() {
                fields.problem(
                    "credentials",
                    "are not taken here, where requests are kept; put them into the wallet and \
                     name them by `credentialId`",
                );
            }
            v1::OutputStorageLocation {
                location: fields.required_text("location", 4096),
                encryption: fields.word("encryption", &ENCRYPTIONS),
                oldest_dialect: fields.text("oldestDialect", 16),
            }
        }),
        output_image_filename: fields.text("outputImageFilename", 255),
        output_format: fields.word("outputFormat", &FORMATS),
        hash_disk: fields.flag("hashDisk"),
        md5_hash: fields.text("md5Hash", 32),
        hashed_bytes: fields.number("hashedBytes"),
        free_space: fields.word("freeSpace", &FREE_SPACES),
        provisioning_type: fields.word("provisioningType", &PROVISIONING_TYPES),
        xd_reconfigure: fields.object("xdReconfigure", |fields| v1::XdReconfigure {
            controllers: fields.texts("controllers"),
            port_number: fields.port("portNumber"),
            enable_hdx_ports: fields.flag("enableHdxPorts"),
        }),
        domain_unjoin: fields.flag("domainUnjoin"),
        install_misa: fields.flag("installMisa"),
        network: fields.word("network", &NETWORKS),
        timeout_seconds: fields.number("timeoutSeconds"),
        convert_to_uefi: fields.flag("convertToUefi"),
        keep_prepared: fields.flag("keepPrepared"),
    };
    if message.timeout_seconds == Some(0) {
        fields.problem("timeoutSeconds", "is 0; give the job at least a second");
    }
    let digits = |hash: &String| {
        let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        hash.len() == 32 && hash.bytes().all(digit)
    };
    if message.md5_hash.as_ref().is_some_and(|hash| !digits(hash)) {
        fields.problem("md5Hash", "expected 32 lower-case hexadecimal digits");
    }
    (message, credential_id)
}

fn disk_selector(fields: &mut Fields<'_>) -> v1::DiskSelector {
    use v1::disk_selector::Selector;
    type Make = fn(String) -> Selector;
    let mut selectors = Vec::new();
    if let Some(lun) = fields.number("lun") {
        selectors.push(("lun", Selector::Lun(lun)));
    }
    let texts: [(&str, usize, Make); 5] = [
        ("serial", 255, Selector::Serial),
        ("wwid", 255, Selector::Wwid),
        ("hctl", 255, Selector::Hctl),
        ("deviceName", 255, Selector::DeviceName),
        ("path", 4096, Selector::Path),
    ];
    for (name, limit, selector) in texts {
        if let Some(text) = fields.text(name, limit) {
            selectors.push((name, selector(text)));
        }
    }
    let size_bytes = fields.number("sizeBytes");
    if selectors.len() > 1 {
        let names: Vec<_> = selectors.iter().map(|(name, _)| *name).collect();
        let problem = format!("{} contradict each other", names.join(" and "));
        fields.problem("", &problem);
    }
    v1::DiskSelector {
        size_bytes,
        selector: selectors.pop().map(|(_, selector)| selector),
    }
}

/// The fields of one object that have not been read yet.
struct Fields<'p> {
    /// What stands before a field's name in a problem: nothing, or `disk.`.
    path: String,
    left: Map<String, Value>,
    problems: &'p mut Vec<String>,
}

impl Fields<'_> {
    fn problem(&mut self, name: &str, problem: &str) {
        let field = format!("{}{name}", self.path);
        let field = field.trim_end_matches('.');
        self.problems.push(format!("{field}: {problem}"));
    }

    /// The value of a field if it is there; what it is not, if `read` makes nothing of it.
    fn take<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl Fn(Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.left.remove(name).filter(|value| !value.is_null())?;
        let read = read(value);
        if read.is_none() {
            self.problem(name, &format!("expected {expected}"));
        }
        read
    }

    fn flag(&mut self, name: &str) -> Option<bool> {
        self.take(name, "true or false", |value| value.as_bool())
    }

    fn number(&mut self, name: &str) -> Option<u64> {
        let expected = format!("a whole number from 0 to {}", i64::MAX);
        self.take(name, &expected, |value| {
            value
                .as_u64()
                .filter(|number| i64::try_from(*number).is_ok())
        })
    }

    fn port(&mut self, name: &str) -> Option<u32> {
        self.take(name, "a port from 1 to 65535", |value| {
            let port = u32::try_from(value.as_u64()?).ok()?;
            (1..=65535).contains(&port).then_some(port)
        })
    }

    fn text(&mut self, name: &str, limit: usize) -> Option<String> {
        let expected = format!("a text of 1 to {limit} bytes without control characters");
        self.take(name, &expected, |value| plain_text(value, limit))
    }

    fn required_text(&mut self, name: &str, limit: usize) -> String {
        if self.left.get(name).is_none_or(Value::is_null) {
            self.problem(name, "missing");
        }
        self.text(name, limit).unwrap_or_default()
    }

    fn texts(&mut self, name: &str) -> Vec<String> {
        self.take(
            name,
            "a list of at most 64 texts of 1 to 255 bytes",
            |value| {
                let Value::Array(values) = value else {
                    return None;
                };
                let all = values.into_iter().map(|value| plain_text(value, 255));
                all.collect::<Option<Vec<_>>>()
                    .filter(|all| all.len() <= 64)
            },
        )
        .unwrap_or_default()
    }

    fn word(&mut self, name: &str, words: &[(&str, i32)]) -> Option<i32> {
        let all: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        let expected = format!("one of {}", all.join(", "));
        self.take(name, &expected, |value| {
            let said = value.as_str()?;
            let found = words.iter().find(|(word, _)| *word == said);
            found.map(|(_, number)| *number)
        })
    }

    fn platform(&mut self, name: &str) -> Option<i32> {
        let expected = "one of `aws`, `azure`, `gcp`, `nutanix`, `vsphere`, `xenserver`";
        self.take(name, expected, |value| {
            let said = value.as_str()?.to_ascii_lowercase();
            let found = PLATFORMS.iter().find(|(word, _)| *word == said);
            found.map(|(_, number)| *number)
        })
    }

    fn object<T>(&mut self, name: &str, read: impl FnOnce(&mut Fields<'_>) -> T) -> Option<T> {
        let object = self.take(name, "an object", |value| match value {
            Value::Object(object) => Some(object),
            _ => None,
        })?;
        let mut inner = Fields {
            path: format!("{}{name}.", self.path),
            left: object,
            problems: self.problems,
        };
        let read = read(&mut inner);
        let unknown: Vec<_> = inner.left.keys().map(|name| short(name)).collect();
        for name in unknown {
            inner.problem(&name, "unknown field");
        }
        Some(read)
    }
}

fn plain_text(value: Value, limit: usize) -> Option<String> {
    let Value::String(text) = value else {
        return None;
    };
    let plain = !text.is_empty() && text.len() <= limit && !text.contains(char::is_control);
    plain.then_some(text)
}

fn invalid(problems: &[String]) -> JobError {
    JobError::new("InvalidRequest", problems.join("; "), "")
}

/// Enough of a name to know it by.
fn short(name: &str) -> String {
    let plain = name.chars().filter(|char| !char.is_control());
    plain.take(60).collect()
}

/// The field of ours that `name` was probably meant to be.
fn meant(name: &str) -> Option<&'static str> {
    if name.len() > 64 {
        return None;
    }
    let folded = |name: &str| name.replace(['_', '-', ' '], "").to_lowercase();
    let name = folded(name);
    FIELDS.into_iter().find(|ours| {
        let tolerated = if ours.len() < 6 { 1 } else { 2 };
        strsim::damerau_levenshtein(&name, &folded(ours)) <= tolerated
    })
}

/// The names of all fields that are ours.
pub const FIELDS: [&str; 18] = [
    "operation",
    "platform",
    "disk",
    "outputStorageLocation",
    "outputImageFilename",
    "outputFormat",
    "hashDisk",
    "md5Hash",
    "hashedBytes",
    "freeSpace",
    "provisioningType",
    "xdReconfigure",
    "domainUnjoin",
    "installMisa",
    "network",
    "timeoutSeconds",
    "convertToUefi",
    "keepPrepared",
];

/// What the orchestrator is known to send along for its own use, and looks like one of ours.
const ORCHESTRATOR_FIELDS: [&str; 4] = [
    "platformCredentialId",
    "targetDiskName",
    "virtualNetworkName",
    "timeout",
];

const OPERATIONS: [(&str, i32); 7] = [
    ("export", v1::Operation::Export as i32),
    ("prepare", v1::Operation::Prepare as i32),
    ("publish", v1::Operation::Publish as i32),
    ("prepareAndPublish", v1::Operation::PrepareAndPublish as i32),
    ("convertToUefi", v1::Operation::ConvertToUefi as i32),
    ("inspect", v1::Operation::Inspect as i32),
    ("diagnostics", v1::Operation::Diagnostics as i32),
];

const PLATFORMS: [(&str, i32); 10] = [
    ("aws", v1::Platform::Aws as i32),
    ("azure", v1::Platform::Azure as i32),
    ("gcp", v1::Platform::Gcp as i32),
    ("nutanix", v1::Platform::Nutanix as i32),
    ("vsphere", v1::Platform::Vsphere as i32),
    ("xenserver", v1::Platform::Xenserver as i32),
    ("ahv", v1::Platform::Nutanix as i32),
    ("googlecloud", v1::Platform::Gcp as i32),
    ("vmware", v1::Platform::Vsphere as i32),
    ("xen", v1::Platform::Xenserver as i32),
];

const FORMATS: [(&str, i32); 2] = [
    ("VhdxDiskFormat", v1::OutputFormat::Vhdx as i32),
    ("VhdDiskFormat", v1::OutputFormat::Vhd as i32),
];

const FREE_SPACES: [(&str, i32); 2] = [
    ("copy", v1::FreeSpace::Copy as i32),
    ("skip", v1::FreeSpace::Skip as i32),
];

const PROVISIONING_TYPES: [(&str, i32); 2] = [
    ("Mcs", v1::ProvisioningType::Mcs as i32),
    ("Pvs", v1::ProvisioningType::Pvs as i32),
];

const NETWORKS: [(&str, i32); 2] = [
    ("keep", v1::Network::Keep as i32),
    ("dhcp", v1::Network::Dhcp as i32),
];

const ENCRYPTIONS: [(&str, i32); 2] = [
    ("required", v1::SmbEncryption::Required as i32),
    ("ifDemanded", v1::SmbEncryption::IfDemanded as i32),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_keeps_its_words_and_becomes_a_message() {
        let text =
            br#"{"operation":"publish","platform":"AHV","subscriptionId":"x","disk":{"lun":3,
            "sizeBytes":1024},"outputStorageLocation":{"location":"smb://h/s","credentialId":"c"},
            "outputImageFilename":"i","hashDisk":true,"freeSpace":"skip","tags":null}"#;
        let request = Request::parse(text, None).unwrap();
        assert_eq!(request.message.operation(), v1::Operation::Publish);
        assert_eq!(request.message.platform(), v1::Platform::Nutanix);
        assert_eq!(request.message.hash_disk, Some(true));
        assert_eq!(request.message.timeout_seconds, None);
        assert_eq!(request.credential_id.as_deref(), Some("c"));
        assert_eq!(request.ignored, ["subscriptionId"]);
        // What is kept reads back as the same.
        let again = Request::from_fields(request.parameters.clone(), None).unwrap();
        assert_eq!(again.message, request.message);
        assert_eq!(again.credential_id, request.credential_id);
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let text = br#"{"operation":"exprot","hashdisk":true,"disk":{"lun":1,"path":"/x","a":1},
            "md5Hash":"ABC","timeoutSeconds":0,"network":5,"outputStorageLocation":{}}"#;
        let error = Request::parse(text, None).unwrap_err();
        assert_eq!(error.code, "InvalidRequest");
        for part in [
            "operation: expected one of `export`",
            "hashdisk: unknown field; did you mean `hashDisk`?",
            "disk: lun and path contradict each other",
            "disk.a: unknown field",
            "md5Hash: expected 32",
            "timeoutSeconds: is 0",
            "network: expected one of `keep`, `dhcp`",
            "outputStorageLocation.location: missing",
        ] {
            assert!(
                error.message.contains(part),
                "{part} is not in {}",
                error.message
            );
        }
    }

    #[test]
    fn a_password_in_a_request_is_refused_and_not_repeated() {
        let text = br#"{"operation":"export","outputStorageLocation":{"location":"smb://h/s",
            "credentials":{"username":"u","password":"hunter2"}}}"#;
        let error = Request::parse(text, None).unwrap_err();
        assert!(error.message.contains("credentialId"), "{}", error.message);
        assert!(!error.message.contains("hunter2"));
        let unknown = br#"{"operation":"inspect","secretOfMine":"hunter2"}"#;
        let kept = Request::parse(unknown, None).unwrap();
        assert!(!format!("{kept:?}").contains("hunter2"));
    }

    #[test]
    fn the_call_says_the_operation_and_the_body_may_not_contradict() {
        let request = Request::parse(b"{}", Some("export")).unwrap();
        assert_eq!(request.operation, "export");
        let error = Request::parse(br#"{"operation":"prepare"}"#, Some("export")).unwrap_err();
        assert!(
            error.message.starts_with("operation: is not"),
            "{}",
            error.message
        );
    }

    #[test]
    fn fields_of_the_orchestrator_are_not_taken_for_misspelt_ones_of_ours() {
        let text = br#"{"operation":"inspect","resourceGroup":"r","targetDiskName":"d",
            "platformCredentialId":"p","assetsId":"a","prefix":"ce","tags":{}}"#;
        assert!(Request::parse(text, None).is_ok());
    }
}
