//! What requests are understood, and how others are refused.

use std::path::Path;

use serde_json::{Map, Value};

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
    assert_eq!(
        export.destination.path(),
        Some(Path::new("/images/golden.vhd"))
    );
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
    let error = spec(&request).unwrap_err();
    assert_eq!(error.code, ErrorCode::DiskNotFound, "{error}");
    let local = LocalOverrides {
        disk: Some("/tmp/disk.raw".into()),
        overwrite: true,
        ..LocalOverrides::default()
    };
    let job = Request::parse(&request).unwrap().into_spec(local).unwrap();
    assert_eq!(job.disk.path, Path::new("/tmp/disk.raw"));
    assert_eq!(job.disk.expected_size, Some(ByteCount(5)));
    assert!(matches!(job.work, Work::Export(export) if export.overwrite));
}

#[test]
fn a_disk_that_is_not_there_is_waited_for_if_one_may_and_the_rest_is_right() {
    let waited = |change: &[(&str, Value)]| {
        let local = LocalOverrides {
            disk_wait: Duration::from_secs(600),
            ..LocalOverrides::default()
        };
        Request::parse(&changed(change)).unwrap().into_spec(local)
    };
    let none = serde_json::json!({"serial": "ce-none", "sizeBytes": 7});
    let device = serde_json::json!({"path": "/dev/ce-none"});
    for (disk, told) in [
        (&none, "serial `ce-none`"),
        (&device, "path `/dev/ce-none`"),
    ] {
        let job = waited(&[("disk", disk.clone())]).unwrap();
        let awaited = job.disk.awaited.unwrap();
        assert_eq!(awaited.wanted.selector.to_string(), told);
        // The job's own time is shorter.
        assert_eq!(awaited.limit, Duration::from_secs(60));
    }
    let wrong = waited(&[
        ("disk", none.clone()),
        ("outputImageFilename", "a/b".into()),
    ]);
    let error = wrong.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidRequest, "{error}");
    assert!(!error.message.contains("ce-none"), "{error}");
    let error = spec(&changed(&[("disk", none)])).unwrap_err();
    assert_eq!(error.code, ErrorCode::DiskNotFound, "{error}");
}

fn to_share(location: Value) -> String {
    changed(&[("outputStorageLocation", location)])
}

fn share_of(job: JobSpec) -> crate::job::Share {
    match job.work {
        Work::Export(ExportSpec {
            destination: Destination::Share(share),
            ..
        }) => *share,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_share_with_its_credentials_is_a_destination() {
    let share = share_of(
        spec(&to_share(serde_json::json!({
            "location": "smb://filer/images/may", "credentialId": "7",
            "credentials": {"domain": "LAB", "username": "alice", "password": "Secret-1"},
            "encryption": "ifDemanded", "oldestDialect": "3.0"
        })))
        .unwrap(),
    );
    assert_eq!(
        share.location.to_string(),
        "smb://filer/images/may/golden.vhd"
    );
    assert_eq!(share.credentials.username(), "alice");
    assert_eq!(share.security.encryption, SmbEncryption::IfDemanded);
    assert_eq!(share.security.oldest_dialect, SmbDialect::Smb3_00);
    assert!(!format!("{share:?}").contains("Secret"));
}

#[test]
fn a_credential_id_needs_a_file() {
    let request = to_share(serde_json::json!({"location": "smb://h/s", "credentialId": "7"}));
    let error = spec(&request).unwrap_err();
    assert!(
        error.message.contains("--credential 7=FILE"),
        "{}",
        error.message
    );

    let file = tempfile::NamedTempFile::new().unwrap();
    let text = r#"{"username":"bob","password":"Secret-1"}"#;
    std::fs::write(file.path(), text).unwrap();
    let named = |id: &str| LocalOverrides {
        access: ShareAccess {
            named_credentials: vec![(id.to_owned(), file.path().to_owned())],
            ..ShareAccess::default()
        },
        ..LocalOverrides::default()
    };
    let asked = |id| Request::parse(&request).unwrap().into_spec(named(id));
    assert_eq!(share_of(asked("7").unwrap()).credentials.username(), "bob");
    assert!(asked("8").is_err());
}

#[test]
fn no_error_repeats_a_password() {
    let location = r#"{"location": "smb://h/s", "credentials": CREDENTIALS}"#;
    for credentials in [
        r#"{"username": "a", "password": ["Secret-1"]}"#,
        r#"{"username": "a", "password": "Secret-1", "pasword": "Secret-2"}"#,
        r#"{"username": "Secret-1", "password": ""}"#,
        r#""Secret-1""#,
        r#"{"username": "a", "password": "Secret-1"#,
    ] {
        let location = location.replace("CREDENTIALS", credentials);
        let request = EXPORT.replace(r#"{"location": "/images", "credentialId": "7"}"#, &location);
        let error = spec(&request).unwrap_err();
        assert!(
            !format!("{error:?}").contains("Secret"),
            "{}",
            error.message
        );
    }
    let request = to_share("Secret-1".into());
    assert!(!spec(&request).unwrap_err().message.contains("Secret"));
    assert!(!spec("\"Secret-1\"").unwrap_err().message.contains("Secret"));
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
