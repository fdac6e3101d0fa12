//! `ce-agent drivers`: driver packages, before any disk is touched.
//!
//! ```text
//!  folder ------------------------------+--> packages --> list    what each is for, who signed it
//!  ZIP TAR TAR.GZ CAB ISO MSI -> unpack-+         +-----> check   every file against its catalogue
//!                                                 +-----> import  into BUNDLE/PLATFORM/
//! ```

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use ce_platform::bundle::{self, Found, UnpackLimits};
use ce_platform::inf::{Architecture, Decoration, Supported};
use ce_platform::package::{DriverPackage, Problem};
use serde_json::{Value, json};

use crate::cli::{DriversCommand, DriversFolderArgs, DriversImportArgs, OutputOptions};
use crate::job::{ErrorCode, JobError};

/// Does what is asked for and returns the exit code.
pub(crate) fn run(command: &DriversCommand, output: OutputOptions) -> u8 {
    let result = match command {
        DriversCommand::List(args) => list(args),
        DriversCommand::Check(args) => check(args),
        DriversCommand::Import(args) => import(args),
    };
    // A reader that has gone away does not make the work undone.
    match &result {
        Ok(report) if output.json => drop(writeln!(io::stdout(), "{}", report.value)),
        Ok(report) => drop(write!(io::stdout(), "{}", report.text)),
        Err(error) if output.json => {
            drop(writeln!(io::stdout(), "{}", json!({"error": error})));
        }
        Err(error) => {
            let hint = error.hint.as_ref().map(|hint| format!("\nhint: {hint}"));
            let hint = hint.unwrap_or_default();
            drop(writeln!(io::stderr(), "error: {error}{hint}"));
        }
    }
    result.map_or_else(|error| error.code.exit_code(), |report| report.exit_code)
}

/// What a command has to say.
struct Report {
    value: Value,
    text: String,
    exit_code: u8,
}

fn list(args: &DriversFolderArgs) -> Result<Report, JobError> {
    let found = packages(&args.folder)?;
    let values: Vec<Value> = found.iter().map(|found| value_of(found, false)).collect();
    let texts = found
        .iter()
        .map(|found| text_of(found, &args.folder, false));
    Ok(Report {
        value: json!({"packages": values}),
        text: texts.collect(),
        exit_code: 0,
    })
}

fn check(args: &DriversFolderArgs) -> Result<Report, JobError> {
    let found = packages(&args.folder)?;
    let values: Vec<Value> = found.iter().map(|found| value_of(found, true)).collect();
    let mut text: String = found
        .iter()
        .map(|found| text_of(found, &args.folder, true))
        .collect();
    let unsound = found.iter().filter(|found| !is_sound(found)).count();
    text.push_str(&match unsound {
        0 => format!("{} packages: sound\n", found.len()),
        _ => format!("{} packages: {unsound} NOT sound\n", found.len()),
    });
    Ok(Report {
        value: json!({"packages": values, "sound": unsound == 0}),
        text,
        exit_code: u8::from(unsound > 0),
    })
}

fn import(args: &DriversImportArgs) -> Result<Report, JobError> {
    fs::create_dir_all(&args.into).map_err(|error| {
        let message = format!("making {} failed: {error}", args.into.display());
        JobError::new(ErrorCode::OutputFailed, message)
    })?;
    // Beside where it goes: what is unpacked may be larger than the place for temporary files.
    let unpacked = tempfile::Builder::new()
        .prefix(".unpacked-")
        .tempdir_in(&args.into)
        .map_err(|error| {
            let message = format!("making a folder in {} failed: {error}", args.into.display());
            JobError::new(ErrorCode::OutputFailed, message)
        })?;
    let source = if args.source.is_dir() {
        args.source.as_path()
    } else {
        bundle::unpack(&args.source, unpacked.path(), &UnpackLimits::default())
            .map_err(|error| invalid(&error))?;
        unpacked.path()
    };
    let mut imported = Vec::new();
    let mut refused = Vec::new();
    for Found { folder, package } in packages(source)? {
        let name = shown(&folder, source);
        match package {
            Ok(package) if unusable(&package).is_none() => {
                imported.push(
                    bundle::import(package, &folder, &args.into, args.platform)
                        .map_err(|error| invalid(&error))?,
                );
            }
            Ok(package) => {
                let reason = unusable(&package).map(|problem| told(problem));
                let reason = reason.unwrap_or_default();
                refused.push((format!("{name}/{}", package.inf_name), reason));
            }
            Err(error) => refused.push((name, told(&error))),
        }
    }
    if imported.is_empty() {
        let mut message = format!("{} holds no driver package", args.source.display());
        if let Some((name, reason)) = refused.first() {
            message.push_str(&format!(" that can be used; {name}: {reason}"));
        }
        return Err(JobError::new(ErrorCode::DriverInvalid, message));
    }
    let mut text = String::new();
    let mut values = Vec::new();
    for done in &imported {
        let what = if done.was_there {
            "there already"
        } else {
            "imported"
        };
        text.push_str(&format!("{}: {what}\n", done.folder.display()));
        let problems = problems_of(&done.package);
        for problem in &problems {
            text.push_str(&format!("  warning: {problem}\n"));
        }
        values.push(json!({
            "folder": done.folder.display().to_string(),
            "inf": done.package.inf_name,
            "wasThere": done.was_there,
            "problems": problems,
        }));
    }
    for (name, reason) in &refused {
        text.push_str(&format!("{name}: not imported: {reason}\n"));
    }
    let refused: Vec<Value> = refused
        .into_iter()
        .map(|(name, reason)| json!({"package": name, "reason": reason}))
        .collect();
    Ok(Report {
        value: json!({"imported": values, "notImported": refused}),
        text,
        exit_code: 0,
    })
}

fn packages(folder: &Path) -> Result<Vec<Found>, JobError> {
    bundle::packages_in(folder).map_err(|error| invalid(&error))
}

/// Why a package is of no use to anyone: a file of it is missing or was changed, or it is nobody's.
fn unusable(package: &DriverPackage) -> Option<&Problem> {
    package.problems.iter().find(|problem| {
        !matches!(
            problem,
            // Drivers are tried out before they are signed.
            Problem::NoCatalogNamed | Problem::CatalogMissing { .. } | Problem::NotFollowed { .. }
        )
    })
}

fn is_sound(found: &Found) -> bool {
    found.package.as_ref().is_ok_and(DriverPackage::is_sound)
}

fn value_of(found: &Found, with_files: bool) -> Value {
    let folder = found.folder.display().to_string();
    let package = match &found.package {
        Ok(package) => package,
        Err(error) => {
            return json!({"folder": folder, "sound": false, "problems": [told(error)]});
        }
    };
    let version = package.inf.version();
    let signer = package.catalog.as_ref().map(|(name, catalog)| {
        json!({
            "catalog": name,
            "name": catalog.signer.name,
            "issuers": catalog.signer.issuers,
            "signatureFits": catalog.signer.fault.is_none(),
            "hardwareProgramme": catalog.signer.is_hardware_programme(),
            "windows": catalog.windows,
        })
    });
    let supported: Vec<Value> = package.supported.iter().map(supported_value).collect();
    let mut value = json!({
        "folder": folder,
        "inf": package.inf_name,
        "class": version.class,
        "classGuid": version.class_guid.map(|guid| guid.to_string()),
        "provider": version.provider,
        "version": version.driver.map(|driver| {
            let [a, b, c, d] = driver.version;
            format!("{a}.{b}.{c}.{d}")
        }),
        "date": version.driver.map(|driver| driver.date.to_string()),
        "supported": supported,
        "signer": signer,
        "everyFileListed": package.files.iter().all(|file| file.is_listed),
        "sound": package.is_sound(),
        "problems": problems_of(package),
    });
    if let Some(fields) = value.as_object_mut().filter(|_| with_files) {
        let files = package.files.iter().map(|file| {
            let digits: String = file
                .sha256
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            json!({
                "path": file.path,
                "bytes": file.length,
                "sha256": digits,
                "architecture": file.machine.map(Architecture::name),
                "listed": file.is_listed,
            })
        });
        fields.insert("files".to_owned(), files.collect());
    }
    value
}

fn supported_value(supported: &Supported) -> Value {
    let target = supported.target.as_ref();
    let devices = supported.models.iter().map(|model| {
        json!({
            "description": model.description.text,
            "hardwareId": model.hardware_id,
            "compatibleIds": model.compatible_ids,
        })
    });
    json!({
        "decoration": supported.decoration,
        "architecture": target.map(architecture_of),
        "from": target.map(lowest_version),
        "devices": devices.collect::<Vec<_>>(),
    })
}

fn text_of(found: &Found, top: &Path, with_files: bool) -> String {
    let name = shown(&found.folder, top);
    let package = match &found.package {
        Ok(package) => package,
        Err(error) => return format!("{name}\n  problem: {}\n", told(error)),
    };
    let version = package.inf.version();
    let mut lines = vec![format!("{name}: {}", package.inf_name)];
    let mut of = Vec::new();
    of.extend(version.class.clone());
    of.extend(version.provider.clone());
    of.extend(version.driver.map(|driver| driver.to_string()));
    lines.push(format!("  is: {}", of.join(", ")));
    for supported in &package.supported {
        let Some(target) = &supported.target else {
            lines.push(format!("  for no Windows: {}", supported.decoration));
            continue;
        };
        let ids: BTreeSet<&str> = supported
            .models
            .iter()
            .flat_map(|model| model.ids())
            .collect();
        let mut shown: Vec<&str> = ids.iter().copied().take(SHOWN_IDS).collect();
        let more = format!("and {} more", ids.len() - shown.len());
        if ids.len() > shown.len() {
            shown.push(&more);
        }
        lines.push(format!(
            "  for {} from Windows {}: {}",
            architecture_of(target),
            lowest_version(target),
            shown.join(", ")
        ));
    }
    if let Some((catalog, content)) = &package.catalog {
        let listed = package.files.iter().filter(|file| file.is_listed).count();
        lines.push(format!(
            "  signed by: {} ({catalog}, which lists {listed} of {} files)",
            content.signer.name,
            package.files.len()
        ));
    }
    if with_files {
        for file in &package.files {
            let machine = file.machine.map(|machine| format!(", {machine}"));
            lines.push(format!(
                "  file: {} ({} bytes{}, {})",
                file.path,
                file.length,
                machine.unwrap_or_default(),
                if file.is_listed {
                    "listed"
                } else {
                    "NOT listed"
                }
            ));
        }
    }
    for problem in problems_of(package) {
        lines.push(format!("  problem: {problem}"));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn problems_of(package: &DriverPackage) -> Vec<String> {
    package
        .problems
        .iter()
        .map(|problem| told(problem))
        .collect()
}

fn architecture_of(target: &Decoration) -> &'static str {
    target.lowest_target().architecture.name()
}

/// `10.0.17763`; of what is for any version, `any`.
fn lowest_version(target: &Decoration) -> String {
    if target.major.is_none() {
        return "any".to_owned();
    }
    let version = target.lowest_target().version;
    match version.build {
        0 => format!("{}.{}", version.major, version.minor),
        _ => version.to_string(),
    }
}

/// The folder as seen from where the search began.
fn shown(folder: &Path, top: &Path) -> String {
    match folder.strip_prefix(top) {
        Ok(below) if below.as_os_str().is_empty() => ".".to_owned(),
        Ok(below) => below.display().to_string(),
        Err(_) => folder.display().to_string(),
    }
}

/// An error and all that caused it, in one line.
fn told(error: &(dyn Error + 'static)) -> String {
    JobError::from_chain(ErrorCode::DriverInvalid, error).message
}

fn invalid(error: &(dyn Error + 'static)) -> JobError {
    JobError::from_chain(ErrorCode::DriverInvalid, error)
}

/// Device ids that a line shows; `--json` has all.
const SHOWN_IDS: usize = 6;
