//! A job as the orchestrator words it: JSON in, a checked [`JobSpec`] out.
//!
//! Every problem of a request is found and told at once. A field that is none of ours may belong to
//! the orchestrator and is let pass, unless it looks like one of ours misspelt: a `hashdisk` that
//! is ignored would be a hash that is missing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ce_disk::export::ImageFormat;
use ce_disk::sink::smb::{SmbCredentials, SmbDialect, SmbEncryption, SmbLocation};
use ce_disk::units::{BlockSize, ByteCount};
use ce_platform::Platform;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::destination::{Destination, ShareAccess, read_credentials};
use super::selection::{Reach, check_folder, check_smb_host};
use super::spec::{DiskSpec, ExportSpec, JobSpec, PrepareAndPublishSpec, PublishSpec, Work};
use super::{ErrorCode, JobError, file_name};

mod disk;
mod prepare;

pub(crate) use prepare::read_options;

use disk::DiskSelector;
use prepare::{PREPARE_FIELDS, PrepareFields};

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
    prepare: PrepareFields,
    keep_prepared: Option<bool>,
    /// Fields of ours that were given, by name.
    given: Vec<&'static str>,
    /// Fields that are none of ours.
    ignored: Vec<String>,
    problems: Vec<String>,
    /// Why the disk that is selected can't be had.
    disk_error: Option<JobError>,
}

/// Why a request was refused.
#[derive(Clone, Debug)]
pub struct Refused {
    /// All of it in one.
    pub error: JobError,
    /// Every problem by itself: the field, and what is wrong with it.
    pub problems: Vec<(String, String)>,
}

/// What `run` is told beside the request.
#[derive(Clone, Debug, Default)]
pub struct LocalOverrides {
    /// The disk, in place of the one that the request selects.
    pub disk: Option<PathBuf>,
    /// Whether an existing image may be replaced.
    pub overwrite: bool,
    /// Whether to go on with what an earlier run left.
    pub resume: bool,
    /// Whether to leave what a later run can go on with.
    pub keep_partial: bool,
    /// Whether to read the image back.
    pub verify: bool,
    /// How much of the disk is read between two checkpoints, if not as much as usual.
    pub checkpoint_every: Option<ByteCount>,
    /// Folders with driver packages that a prepare may put in.
    pub drivers: Vec<PathBuf>,
    /// Where a prepare keeps changes and journal, if not where state is kept.
    pub scratch: Option<PathBuf>,
    /// How far the request is trusted.
    pub reach: Reach,
    /// How shares are to be reached.
    pub access: ShareAccess,
    /// How long a disk that is not attached yet is waited for.
    pub disk_wait: Duration,
}

impl Request {
    /// The names of all fields that a request may have.
    pub fn field_names() -> impl Iterator<Item = &'static str> {
        let ours = OUR_FIELDS.into_iter().chain(PREPARE_FIELDS);
        ours.chain(PUBLISH_FIELDS)
    }

    /// Reads a request.
    ///
    /// # Errors
    ///
    /// `InvalidRequest` if the text is no JSON object. Problems with single fields are kept for
    /// [`into_spec`](Self::into_spec), which tells them all.
    ///
    /// A password in the text goes straight into its [`SmbCredentials`]; it is copied nowhere else
    /// and repeated in no error. To wipe the text is for the caller.
    pub fn parse(text: &str) -> Result<Self, JobError> {
        let fields = serde_json::from_str(text).map_err(|error: serde_json::Error| {
            JobError::new(
                ErrorCode::InvalidRequest,
                format!("not a JSON object: {}", without_values(&error)),
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
            output_storage_location: fields.take_location("outputStorageLocation"),
            output_image_filename: fields.take("outputImageFilename"),
            output_format: fields.take("outputFormat"),
            hash_disk: fields.take("hashDisk"),
            free_space: fields.take("freeSpace"),
            timeout_seconds: fields.take("timeoutSeconds"),
            prepare: PrepareFields::take(&mut fields),
            keep_prepared: fields.take("keepPrepared"),
            given: fields.given,
            ignored: Vec::new(),
            problems: fields.problems,
            disk_error: None,
        };
        for name in fields.left.into_keys() {
            if ORCHESTRATOR_FIELDS.contains(&name.as_str()) {
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
    /// `InvalidRequest`, with every problem there is; if there is none but that the disk can't be
    /// had, the code for that.
    pub fn into_spec(self, local: LocalOverrides) -> Result<JobSpec, JobError> {
        self.check(local).map_err(|refused| refused.error)
    }

    /// The same, with the problems one by one.
    ///
    /// # Errors
    ///
    /// As of [`into_spec`](Self::into_spec).
    pub fn check(mut self, local: LocalOverrides) -> Result<JobSpec, Refused> {
        let timeout = self.timeout_seconds.unwrap_or(DEFAULT_TIMEOUT_SECONDS);
        if timeout == 0 {
            self.problem("timeoutSeconds", "is 0; give the job at least a second");
        }
        let platform = self.checked_platform();
        self.refuse_foreign_fields();
        let disk = match self.operation.as_deref() {
            Some("diagnostics") if self.disk.is_none() => Some(DiskSpec::none()),
            _ => self.checked_disk(Duration::from_secs(timeout), &local),
        };
        let work = match self.operation.as_deref() {
            Some("export") => self.checked_export(&local).map(Work::Export),
            Some("diagnostics") => self.checked_diagnostics(&local),
            Some("inspect") => self.checked_inspect(),
            Some("prepare") => {
                self.refuse_output("prepare");
                self.checked_prepare(platform, &local).map(Work::Prepare)
            }
            Some("prepareAndPublish") => self
                .checked_prepare_and_publish(platform, &local)
                .map(Work::PrepareAndPublish),
            Some("publish") => self.checked_publish(platform, &local).map(Work::Publish),
            Some("convertToUefi") => self.checked_convert(&local).map(Work::ConvertToUefi),
            Some(other) => {
                let known = OPERATIONS.join(", ");
                self.problem("operation", format!("`{other}` is none of {known}"));
                None
            }
            None => {
                if !self.given.contains(&"operation") {
                    let known = OPERATIONS.join(", ");
                    self.problem("operation", format!("missing; say one of {known}"));
                }
                None
            }
        };
        let (Some(disk), Some(work), []) = (disk, work, self.problems.as_slice()) else {
            return Err(self.refused());
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

    /// Fields that other operations have.
    fn refuse_foreign_fields(&mut self) {
        let refused: Vec<&str> = match self.operation.as_deref() {
            None | Some("prepareAndPublish") => Vec::new(),
            Some("prepare") => PUBLISH_FIELDS.to_vec(),
            Some(_) => PREPARE_FIELDS.into_iter().chain(PUBLISH_FIELDS).collect(),
        };
        for field in refused {
            if self.given.contains(&field) {
                self.problem(field, "this operation has no such field");
            }
        }
    }

    fn refused(mut self) -> Refused {
        let error = match self.disk_error.take() {
            Some(error) if self.problems.is_empty() => {
                self.problems.push(format!("disk: {error}"));
                error
            }
            other => {
                let disk = other.map(|error| format!("disk: {error}"));
                self.problems.extend(disk);
                JobError::new(ErrorCode::InvalidRequest, self.problems.join("; "))
            }
        };
        let split = |problem: String| match problem.split_once(": ") {
            Some((field, what)) if !field.contains(' ') => (field.to_owned(), what.to_owned()),
            _ => (String::new(), problem),
        };
        Refused {
            error,
            problems: self.problems.into_iter().map(split).collect(),
        }
    }

    fn problem(&mut self, field: &str, problem: impl std::fmt::Display) {
        self.problems.push(format!("{field}: {problem}"));
    }

    fn checked_platform(&mut self) -> Option<Platform> {
        let platform = self.platform.take()?.parse::<Platform>();
        platform
            .map_err(|unknown| self.problem("platform", unknown))
            .ok()
    }

    fn checked_export(&mut self, local: &LocalOverrides) -> Option<ExportSpec> {
        let (extension, format) = match self.output_format.unwrap_or_default() {
            OutputFormat::Vhdx => ("vhdx", ImageFormat::Vhdx(Default::default())),
            OutputFormat::Vhd => ("vhd", ImageFormat::FixedVhd),
        };
        let destination = self.checked_destination(extension, local)?;
        Some(ExportSpec {
            destination,
            format,
            hash: self.hash_disk.unwrap_or(false),
            skip_free_space: self.free_space == Some(FreeSpace::Skip),
            overwrite: local.overwrite,
            resume: local.resume,
            keep_partial: local.keep_partial,
            verify: local.verify,
            checkpoint_every: local.checkpoint_every,
        })
    }

    fn checked_publish(
        &mut self,
        platform: Option<Platform>,
        local: &LocalOverrides,
    ) -> Option<PublishSpec> {
        if matches!(self.output_format, Some(OutputFormat::Vhd)) {
            self.problem(
                "outputFormat",
                "Provisioning streams VHDX to machines with UEFI",
            );
        }
        let name = self.output_image_filename.clone();
        let image = self.checked_export(local)?;
        if let Err(problem) = file_name::check_published(&name?) {
            self.problem("outputImageFilename", problem);
        }
        let image = ExportSpec {
            format: ImageFormat::Vhdx(BlockSize::PROVISIONING),
            ..image
        };
        Some(PublishSpec { image, platform })
    }

    fn checked_prepare_and_publish(
        &mut self,
        platform: Option<Platform>,
        local: &LocalOverrides,
    ) -> Option<PrepareAndPublishSpec> {
        // The disk is prepared anew in each run: there is nothing to go on with.
        let local = LocalOverrides {
            resume: false,
            keep_partial: false,
            ..local.clone()
        };
        let prepare = self.checked_prepare(platform, &local);
        let publish = self.checked_publish(platform, &local);
        Some(PrepareAndPublishSpec {
            prepare: prepare?,
            publish: publish?,
            keep_prepared: self.keep_prepared.unwrap_or(false),
        })
    }

    /// The file that the request names.
    fn checked_destination(
        &mut self,
        extension: &str,
        local: &LocalOverrides,
    ) -> Option<Destination> {
        let location = self.checked_location();
        let name = self.checked_file_name();
        let name = name.map(|name| format!("{name}.{extension}"));
        let location = location?;
        if Destination::is_share(&location.location) {
            // A location is looked at whole, even where the name is no good.
            let share = self.checked_share(location, name.as_deref().unwrap_or("x"), local);
            return name.and(share);
        }
        let folder = check_folder(Path::new(&location.location), &local.reach);
        let folder =
            folder.map_err(|problem| self.problem("outputStorageLocation.location", problem));
        Some(Destination::File(folder.ok()?.join(name?)))
    }

    fn checked_location(&mut self) -> Option<OutputStorageLocation> {
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
            Some((scheme, _)) if !Destination::is_share(&output.location) => {
                let problem = format!("this version of ce-agent cannot write to `{scheme}://`");
                self.problem("outputStorageLocation.location", problem);
                None
            }
            _ => Some(output),
        }
    }

    /// A share: its location, its credentials, and how well the way there has to be protected.
    fn checked_share(
        &mut self,
        output: OutputStorageLocation,
        name: &str,
        local: &LocalOverrides,
    ) -> Option<Destination> {
        let access = &local.access;
        let location = SmbLocation::within(&output.location, name)
            .map_err(|error| self.problem("outputStorageLocation.location", error))
            .ok()
            .filter(|location| {
                let allowed = check_smb_host(location.server().host(), &local.reach);
                allowed
                    .map_err(|problem| self.problem("outputStorageLocation.location", problem))
                    .is_ok()
            });
        let named = output.credential_id.as_ref().and_then(|id| {
            let named = access.named_credentials.iter();
            named.rev().find(|(name, _)| name == id)
        });
        let credentials = match (output.credentials, named, &output.credential_id) {
            (Some(credentials), _, _) => Some(credentials),
            (None, Some((_, file)), _) => Some(
                read_credentials(file)
                    .map_err(|error| self.problem("outputStorageLocation.credentialId", error))
                    .ok()?,
            ),
            (None, None, Some(id)) if access.credentials_file.is_none() => {
                let problem = format!("`{id}` is unknown here; say --credential {id}=FILE");
                self.problem("outputStorageLocation.credentialId", problem);
                return None;
            }
            (None, None, _) => None,
        };
        let mut access = access.clone();
        if let Some(encryption) = output.encryption {
            access.security.encryption = encryption.into();
        }
        if let Some(dialect) = output.oldest_dialect {
            access.security.oldest_dialect = dialect.into();
        }
        let share = access
            .share(location?, credentials)
            .map_err(|error| self.problem("outputStorageLocation.credentials", error))
            .ok()?;
        Some(Destination::Share(Box::new(share)))
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

    /// Diagnostics go into the file that is named, or else into the result.
    fn checked_diagnostics(&mut self, local: &LocalOverrides) -> Option<Work> {
        for field in ["disk", "outputFormat", "hashDisk", "freeSpace"] {
            if self.given.contains(&field) {
                self.problem(field, "has no meaning for `diagnostics`");
            }
        }
        let place = ["outputStorageLocation", "outputImageFilename"];
        if !place.iter().any(|field| self.given.contains(field)) {
            return Some(Work::Diagnostics(None));
        }
        let destination = self.checked_destination("tar.gz", local)?;
        Some(Work::Diagnostics(Some(destination)))
    }

    fn checked_inspect(&mut self) -> Option<Work> {
        self.refuse_output("inspect");
        Some(Work::Inspect)
    }

    /// Refuses what is said of an image to an operation that writes none.
    fn refuse_output(&mut self, operation: &str) {
        for field in [
            "outputStorageLocation",
            "outputImageFilename",
            "outputFormat",
            "hashDisk",
            "freeSpace",
        ] {
            if self.given.contains(&field) {
                self.problem(field, format!("has no meaning for `{operation}`"));
            }
        }
    }
}

#[derive(Debug)]
struct OutputStorageLocation {
    location: String,
    credentials: Option<SmbCredentials>,
    credential_id: Option<String>,
    encryption: Option<Encryption>,
    oldest_dialect: Option<Dialect>,
}

/// The same as it is written, with the credentials still in the request's text.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenLocation<'t> {
    location: String,
    #[serde(borrow)]
    credentials: Option<&'t RawValue>,
    credential_id: Option<String>,
    encryption: Option<Encryption>,
    oldest_dialect: Option<Dialect>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Encryption {
    Required,
    IfDemanded,
}

impl From<Encryption> for SmbEncryption {
    fn from(written: Encryption) -> Self {
        match written {
            Encryption::Required => Self::Required,
            Encryption::IfDemanded => Self::IfDemanded,
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
enum Dialect {
    #[serde(rename = "2.0.2")]
    Smb2_02,
    #[serde(rename = "2.1")]
    Smb2_10,
    #[serde(rename = "3.0")]
    Smb3_00,
    #[serde(rename = "3.0.2")]
    Smb3_02,
    #[serde(rename = "3.1.1")]
    Smb3_11,
}

impl From<Dialect> for SmbDialect {
    fn from(written: Dialect) -> Self {
        match written {
            Dialect::Smb2_02 => Self::Smb2_02,
            Dialect::Smb2_10 => Self::Smb2_10,
            Dialect::Smb3_00 => Self::Smb3_00,
            Dialect::Smb3_02 => Self::Smb3_02,
            Dialect::Smb3_11 => Self::Smb3_11,
        }
    }
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

/// The fields that have not been read yet, as they stand in the text.
struct Fields<'t> {
    left: BTreeMap<String, &'t RawValue>,
    given: Vec<&'static str>,
    problems: Vec<String>,
}

impl<'t> Fields<'t> {
    /// The value of a field; `null` counts as not given.
    fn take<T: DeserializeOwned>(&mut self, name: &'static str) -> Option<T> {
        let value = self.take_raw(name)?;
        serde_json::from_str(value.get())
            .map_err(|error| {
                self.problems
                    .push(format!("{name}: {}", without_place(&error)))
            })
            .ok()
    }

    /// The storage location, in which there may be a password: errors repeat nothing of it.
    fn take_location(&mut self, name: &'static str) -> Option<OutputStorageLocation> {
        let value = self.take_raw(name)?;
        let mut problem = |what: String| self.problems.push(format!("{name}{what}"));
        let written: WrittenLocation<'t> = serde_json::from_str(value.get())
            .map_err(|error| problem(format!(": {}", without_values(&error))))
            .ok()?;
        let given = written.credentials.filter(|value| value.get() != "null");
        let credentials = match given {
            None => None,
            Some(value) => Some(
                serde_json::from_str(value.get())
                    .map_err(|_| {
                        problem(
                            ".credentials: expected an object with the strings `username`, \
                             `password` and, if need be, `domain`, none longer than 255 bytes and \
                             only `domain` empty"
                                .into(),
                        );
                    })
                    .ok()?,
            ),
        };
        Some(OutputStorageLocation {
            location: written.location,
            credentials,
            credential_id: written.credential_id,
            encryption: written.encryption,
            oldest_dialect: written.oldest_dialect,
        })
    }

    fn take_raw(&mut self, name: &'static str) -> Option<&'t RawValue> {
        let value = self.left.remove(name)?;
        if value.get() == "null" {
            return None;
        }
        self.given.push(name);
        Some(value)
    }
}

/// What is wrong, without the position inside of the field's own text, which nobody has in hand.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((what, _)) => what.to_owned(),
        None => text,
    }
}

/// What is wrong in a text that may hold a password: the kind of trouble and its place.
fn without_values(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    let what = match error.classify() {
        serde_json::error::Category::Eof => "the text ends too early",
        serde_json::error::Category::Syntax => "the text is no JSON",
        _ => "a value is missing or not of the type expected",
    };
    format!("{what} (line {line}, column {column})")
}

/// The field of ours that `name` was probably meant to be.
fn meant(name: &str) -> Option<&'static str> {
    let plain = |name: &str| name.replace(['_', '-', ' '], "").to_lowercase();
    let name = plain(name);
    Request::field_names().find(|ours| {
        let ours = plain(ours);
        let tolerated = if ours.len() < 6 { 1 } else { 2 };
        strsim::damerau_levenshtein(&name, &ours) <= tolerated
            || (name.len() >= 6 && ours.starts_with(&name))
    })
}

const DEFAULT_TIMEOUT_SECONDS: u64 = 7200;

const OPERATIONS: [&str; 7] = [
    "convertToUefi",
    "diagnostics",
    "export",
    "inspect",
    "prepare",
    "prepareAndPublish",
    "publish",
];

/// Operations that change their disk.
pub(crate) const CHANGING: [&str; 3] = ["convertToUefi", "prepare", "prepareAndPublish"];

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

/// What a prepare and publish has that neither has alone.
const PUBLISH_FIELDS: [&str; 1] = ["keepPrepared"];

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
mod tests;
