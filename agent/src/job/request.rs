//! A job as the orchestrator words it: JSON in, a checked [`JobSpec`] out.
//!
//! Every problem of a request is found and told at once. A field that is none of ours may belong to
//! the orchestrator and is let pass, unless it looks like one of ours misspelt: a `hashdisk` that
//! is ignored would be a hash that is missing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ce_disk::export::ImageFormat;
use ce_disk::units::ByteCount;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::spec::{DiskSpec, ExportSpec, JobSpec, Work};
use super::{ErrorCode, JobError, file_name};

/// A request whose fields are of the right types. What they mean together is checked by
/// [`into_spec`](Self::into_spec).
#[derive(Debug)]
pub struct Request {
    operation: Option<String>,
    platform: Option<String>,
    disk: Option<DiskSelector>,
    output_storage_location: Option<OutputStorageLocation>,
    output_image_filename: Option<String>,
    output_format: Option<OutputFormat>,
    hash_disk: Option<bool>,
    free_space: Option<FreeSpace>,
    timeout_seconds: Option<u64>,
    /// Fields of ours that were given, by name.
    given: Vec<&'static str>,
    /// Fields that are none of ours.
    ignored: Vec<String>,
    problems: Vec<String>,
}

/// What `run` is told beside the request.
#[derive(Clone, Debug, Default)]
pub struct LocalOverrides {
    /// The disk, in place of the one that the request selects.
    pub disk: Option<PathBuf>,
    /// Whether an existing image may be replaced.
    pub overwrite: bool,
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    ///
    /// `InvalidRequest` if the text is no JSON object. Problems with single fields are kept for
    /// [`into_spec`](Self::into_spec), which tells them all.
    pub fn parse(text: &str) -> Result<Self, JobError> {
        let fields: Map<String, Value> = serde_json::from_str(text).map_err(|error| {
            JobError::new(
                ErrorCode::InvalidRequest,
                format!("not a JSON object: {error}"),
            )
        })?;
        let mut fields = Fields {
            left: fields,
            given: Vec::new(),
            problems: Vec::new(),
        };
        let mut request = Self {
            operation: fields.take("operation"),
            platform: fields.take("platform"),
            disk: fields.take("disk"),
            output_storage_location: fields.take("outputStorageLocation"),
            output_image_filename: fields.take("outputImageFilename"),
            output_format: fields.take("outputFormat"),
            hash_disk: fields.take("hashDisk"),
            free_space: fields.take("freeSpace"),
            timeout_seconds: fields.take("timeoutSeconds"),
            given: fields.given,
            ignored: Vec::new(),
            problems: fields.problems,
        };
        for name in fields.left.into_iter().map(|(name, _)| name) {
            if OTHER_OPERATIONS_FIELDS.contains(&name.as_str()) {
                let problem = format!("{name}: this operation has no such field");
                request.problems.push(problem);
            } else if ORCHESTRATOR_FIELDS.contains(&name.as_str()) {
                continue;
            } else if let Some(ours) = meant(&name) {
                request
                    .problems
                    .push(format!("{name}: unknown field; did you mean `{ours}`?"));
            } else {
                request.ignored.push(name);
            }
        }
        Ok(request)
    }

    /// Checks what the fields mean together and makes a job of them.
    ///
    /// # Errors
    ///
    /// `InvalidRequest`, with every problem there is.
    pub fn into_spec(mut self, local: LocalOverrides) -> Result<JobSpec, JobError> {
        let timeout = self.timeout_seconds.unwrap_or(DEFAULT_TIMEOUT_SECONDS);
        if timeout == 0 {
            self.problem("timeoutSeconds", "is 0; give the job at least a second");
        }
        self.check_platform();
        let disk = self.checked_disk(local.disk);
        let work = match self.operation.as_deref() {
            Some("export") => self.checked_export(local.overwrite).map(Work::Export),
            Some("inspect") => self.checked_inspect(),
            Some(
                known @ ("prepare" | "publish" | "prepareAndPublish" | "convertToUefi"
                | "diagnostics"),
            ) => {
                let problem = format!("this version of ce-agent cannot do `{known}`");
                self.problem("operation", problem);
                None
            }
            Some(other) => {
                let problem = format!("`{other}` is no operation; `export` and `inspect` are");
                self.problem("operation", problem);
                None
            }
            None => {
                if !self.given.contains(&"operation") {
                    self.problem("operation", "missing; say `export` or `inspect`");
                }
                None
            }
        };
        let (Some(disk), Some(work), []) = (disk, work, self.problems.as_slice()) else {
            return Err(JobError::new(
                ErrorCode::InvalidRequest,
                self.problems.join("; "),
            ));
        };
        let warnings = self
            .ignored
            .iter()
            .map(|name| format!("field `{name}` was ignored"));
        Ok(JobSpec {
            id: Uuid::new_v4().to_string(),
            disk,
            work,
            timeout: Some(Duration::from_secs(timeout)),
            warnings: warnings.collect(),
        })
    }

    fn problem(&mut self, field: &str, problem: impl std::fmt::Display) {
        self.problems.push(format!("{field}: {problem}"));
    }

    fn check_platform(&mut self) {
        let Some(platform) = self.platform.take() else {
            return;
        };
        if !PLATFORMS
            .iter()
            .any(|known| known.eq_ignore_ascii_case(&platform))
        {
            let known = PLATFORMS[..6].join(", ");
            self.problem("platform", format!("`{platform}` is none of {known}"));
        }
    }

    fn checked_disk(&mut self, local: Option<PathBuf>) -> Option<DiskSpec> {
        let selector = self.disk.take();
        let expected_size = selector
            .as_ref()
            .and_then(|disk| disk.size_bytes)
            .map(ByteCount);
        let selected = selector
            .as_ref()
            .map(DiskSelector::named)
            .unwrap_or_default();
        if selected.len() > 1 {
            self.problem(
                "disk",
                format!("{} contradict each other", selected.join(" and ")),
            );
            return None;
        }
        let path = match (local, selector.and_then(|disk| disk.path)) {
            (Some(local), _) => local,
            (None, Some(path)) => path,
            (None, None) => {
                if let [by] = selected[..] {
                    let problem = format!("this version of ce-agent finds no disk by `{by}`");
                    self.problem("disk", format!("{problem}; name it by `path` or --disk"));
                } else if !self.given.contains(&"disk") || selected.is_empty() {
                    self.problem("disk", "no disk is selected; name it by `path` or --disk");
                }
                return None;
            }
        };
        Some(DiskSpec {
            path,
            sector_size: None,
            as_raw: false,
            expected_size,
        })
    }

    fn checked_export(&mut self, overwrite: bool) -> Option<ExportSpec> {
        let (extension, format) = match self.output_format.unwrap_or_default() {
            OutputFormat::Vhdx => ("vhdx", ImageFormat::Vhdx(Default::default())),
            OutputFormat::Vhd => ("vhd", ImageFormat::FixedVhd),
        };
        if self.free_space == Some(FreeSpace::Skip) {
            self.problem(
                "freeSpace",
                "this version of ce-agent can only `copy` free space",
            );
        }
        let folder = self.checked_location();
        let name = self.checked_file_name();
        Some(ExportSpec {
            output: folder?.join(format!("{}.{extension}", name?)),
            format,
            hash: self.hash_disk.unwrap_or(false),
            overwrite,
        })
    }

    fn checked_location(&mut self) -> Option<PathBuf> {
        let Some(output) = self.output_storage_location.take() else {
            self.problem_if_absent(
                "outputStorageLocation",
                "say where the image is to be written",
            );
            return None;
        };
        match output.location.split_once("://") {
            None if output.location.is_empty() => {
                self.problem("outputStorageLocation.location", "is empty");
                None
            }
            None => Some(Path::new(&output.location).to_owned()),
            Some((scheme, _)) => {
                let problem = format!("this version of ce-agent cannot write to `{scheme}://`");
                self.problem("outputStorageLocation.location", problem);
                None
            }
        }
    }

    fn checked_file_name(&mut self) -> Option<String> {
        let Some(name) = self.output_image_filename.take() else {
            self.problem_if_absent("outputImageFilename", "say what the image is to be called");
            return None;
        };
        match file_name::check(&name) {
            Ok(()) => Some(name),
            Err(problem) => {
                self.problem("outputImageFilename", problem);
                None
            }
        }
    }

    /// A field of the wrong type has been complained of already.
    fn problem_if_absent(&mut self, field: &'static str, advice: &str) {
        if !self.given.contains(&field) {
            self.problem(field, format!("missing; {advice}"));
        }
    }

    fn checked_inspect(&mut self) -> Option<Work> {
        for field in [
            "outputStorageLocation",
            "outputImageFilename",
            "outputFormat",
            "hashDisk",
        ] {
            if self.given.contains(&field) {
                self.problem(field, "has no meaning for `inspect`");
            }
        }
        Some(Work::Inspect)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct DiskSelector {
    lun: Option<u64>,
    serial: Option<String>,
    wwid: Option<String>,
    hctl: Option<String>,
    device_name: Option<String>,
    path: Option<PathBuf>,
    size_bytes: Option<u64>,
}

impl DiskSelector {
    /// The selectors that are given.
    fn named(&self) -> Vec<&'static str> {
        [
            ("lun", self.lun.is_some()),
            ("serial", self.serial.is_some()),
            ("wwid", self.wwid.is_some()),
            ("hctl", self.hctl.is_some()),
            ("deviceName", self.device_name.is_some()),
            ("path", self.path.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect()
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OutputStorageLocation {
    location: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
enum OutputFormat {
    #[default]
    #[serde(rename = "VhdxDiskFormat")]
    Vhdx,
    #[serde(rename = "VhdDiskFormat")]
    Vhd,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "camelCase")]
enum FreeSpace {
    Copy,
    Skip,
}

/// The fields that have not been read yet.
struct Fields {
    left: Map<String, Value>,
    given: Vec<&'static str>,
    problems: Vec<String>,
}

impl Fields {
    /// The value of a field; `null` counts as not given.
    fn take<T: DeserializeOwned>(&mut self, name: &'static str) -> Option<T> {
        let value = self.left.remove(name).filter(|value| !value.is_null())?;
        self.given.push(name);
        serde_json::from_value(value)
            .map_err(|error| self.problems.push(format!("{name}: {error}")))
            .ok()
    }
}

/// The field of ours that `name` was probably meant to be.
fn meant(name: &str) -> Option<&'static str> {
    let plain = |name: &str| name.replace(['_', '-', ' '], "").to_lowercase();
    let name = plain(name);
    OUR_FIELDS
        .into_iter()
        .chain(OTHER_OPERATIONS_FIELDS)
        .find(|ours| {
            let ours = plain(ours);
            let tolerated = if ours.len() < 6 { 1 } else { 2 };
            strsim::damerau_levenshtein(&name, &ours) <= tolerated
                || (name.len() >= 6 && ours.starts_with(&name))
        })
}

const DEFAULT_TIMEOUT_SECONDS: u64 = 7200;

/// The names of the platforms, then what else is accepted for them.
const PLATFORMS: [&str; 10] = [
    "aws",
    "azure",
    "gcp",
    "nutanix",
    "vsphere",
    "xenserver",
    "ahv",
    "xen",
    "googlecloud",
    "vmware",
];

const OUR_FIELDS: [&str; 9] = [
    "operation",
    "platform",
    "disk",
    "outputStorageLocation",
    "outputImageFilename",
    "outputFormat",
    "hashDisk",
    "freeSpace",
    "timeoutSeconds",
];

/// Fields of ours that belong to operations other than export and inspect.
const OTHER_OPERATIONS_FIELDS: [&str; 7] = [
    "md5Hash",
    "hashedBytes",
    "provisioningType",
    "xdReconfigure",
    "domainUnjoin",
    "installMisa",
    "network",
];

/// What the orchestrator is known to send along for its own use.
const ORCHESTRATOR_FIELDS: [&str; 14] = [
    "assetsId",
    "deployment",
    "platformCredentialId",
    "prefix",
    "resourceGroup",
    "resourceLocationId",
    "subscriptionId",
    "tags",
    "targetDiskName",
    "targetDiskResourceGroupName",
    "targetSnapshotName",
    "virtualNetworkName",
    "virtualNetworkResourceGroupName",
    "virtualNetworkSubnetName",
];

#[cfg(test)]
mod tests {
    use super::*;

    const EXPORT: &str = r#"{
        "operation": "export", "platform": "Azure", "subscriptionId": "of the orchestrator",
        "disk": {"path": "/dev/sdc", "sizeBytes": 1048576},
        "outputStorageLocation": {"location": "/images", "credentialId": "7"},
        "outputImageFilename": "golden", "outputFormat": "VhdDiskFormat",
        "hashDisk": true, "timeoutSeconds": 60
    }"#;

    fn spec(text: &str) -> Result<JobSpec, JobError> {
        Request::parse(text)?.into_spec(LocalOverrides::default())
    }

    /// The request above with fields replaced.
    fn changed(change: &[(&str, Value)]) -> String {
        let mut request: Map<String, Value> = serde_json::from_str(EXPORT).unwrap();
        for (name, value) in change {
            request.insert((*name).to_owned(), value.clone());
        }
        serde_json::to_string(&request).unwrap()
    }

    #[test]
    fn an_export_as_the_orchestrator_words_it_is_understood() {
        let job = spec(EXPORT).unwrap();
        assert_eq!(job.disk.path, Path::new("/dev/sdc"));
        assert_eq!(job.disk.expected_size, Some(ByteCount(1_048_576)));
        assert_eq!(job.timeout, Some(Duration::from_secs(60)));
        assert!(job.warnings.is_empty());
        let Work::Export(export) = job.work else {
            panic!("{:?}", job.work)
        };
        assert_eq!(export.output, Path::new("/images/golden.vhd"));
        assert_eq!(export.format, ImageFormat::FixedVhd);
        assert!(export.hash && !export.overwrite);
    }

    #[test]
    fn a_misspelt_field_is_refused_by_name() {
        for (wrong, right) in [
            ("hashdisk", "hashDisk"),
            ("hash_disk", "hashDisk"),
            ("hashDisc", "hashDisk"),
            ("timeout", "timeoutSeconds"),
            ("outputFilename", ""),
            ("disks", "disk"),
            ("ouptutFormat", "outputFormat"),
            ("md5hash", "md5Hash"),
        ] {
            let result = spec(&changed(&[(wrong, Value::from("x"))]));
            if right.is_empty() {
                assert_eq!(
                    result.unwrap().warnings,
                    [format!("field `{wrong}` was ignored")]
                );
            } else {
                let error = result.unwrap_err();
                assert_eq!(error.code, ErrorCode::InvalidRequest);
                let expected = format!("{wrong}: unknown field; did you mean `{right}`?");
                assert_eq!(error.message, expected);
            }
        }
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let error = spec(
            r#"{"operation": "export", "platform": "OS/2", "hashDisk": "yes",
                "disk": {"lun": 1, "path": "/dev/sda"}, "outputImageFilename": "a/b",
                "outputFormat": "Qcow2", "md5Hash": "0", "timeoutSeconds": 0}"#,
        )
        .unwrap_err();
        for field in [
            "platform:",
            "hashDisk:",
            "disk: lun and path",
            "outputImageFilename:",
            "outputFormat:",
            "md5Hash:",
            "timeoutSeconds:",
            "outputStorageLocation: missing",
        ] {
            assert!(
                error.message.contains(field),
                "{field} is not in: {}",
                error.message
            );
        }
    }

    #[test]
    fn a_disk_given_by_hand_stands_in_for_the_selector() {
        let request = changed(&[("disk", serde_json::json!({"lun": 0, "sizeBytes": 5}))]);
        assert!(spec(&request).unwrap_err().message.starts_with("disk: "));
        let local = LocalOverrides {
            disk: Some("/tmp/disk.raw".into()),
            overwrite: true,
        };
        let job = Request::parse(&request).unwrap().into_spec(local).unwrap();
        assert_eq!(job.disk.path, Path::new("/tmp/disk.raw"));
        assert_eq!(job.disk.expected_size, Some(ByteCount(5)));
        assert!(matches!(job.work, Work::Export(export) if export.overwrite));
    }

    #[test]
    fn what_is_not_a_json_object_is_refused() {
        for text in ["", "[]", "{", "null", "{\"operation\": }"] {
            let error = Request::parse(text).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidRequest, "{text}");
        }
        let deep = "[".repeat(100_000);
        assert!(Request::parse(&deep).is_err());
    }
}
