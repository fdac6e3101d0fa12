//! A request means the same whether an agent reads it itself or gets it from a Connector.
//!
//! ```text
//!  JSON ------------------------------------------------------------> agent: Request --> JobSpec
//!   |                                                                                      ||
//!   +--> Connector: Request --> v1::JobRequest --> bytes --> agent: wire --> Request --> JobSpec
//! ```

use std::collections::BTreeSet;

use ce_agent::job::{LocalOverrides, Request, ShareAccess, wire};
use ce_connector::request::{FIELDS, Request as Submitted};
use ce_proto::v1;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message;
use serde_json::{Map, Value, json};

#[test]
fn both_sides_know_the_same_fields_and_carry_all_of_them() {
    let request = json!({
        "operation": "prepareAndPublish",
        "platform": "azure",
        "disk": {"path": "/dev/sdc", "sizeBytes": 1_u64 << 40},
        "outputStorageLocation": {
            "location": "smb://files.example/images",
            "encryption": "ifDemanded",
            "oldestDialect": "3.0.2",
        },
        "outputImageFilename": "golden",
        "outputFormat": "VhdxDiskFormat",
        "hashDisk": true,
        "md5Hash": "d41d8cd98f00b204e9800998ecf8427e",
        "hashedBytes": 1_u64 << 30,
        "freeSpace": "skip",
        "provisioningType": "Pvs",
        "xdReconfigure": {
            "controllers": ["ddc-1.example", "ddc-2.example"],
            "portNumber": 8080,
            "enableHdxPorts": true,
        },
        "domainUnjoin": true,
        "installMisa": true,
        "network": "dhcp",
        "timeoutSeconds": 86_400,
        "convertToUefi": true,
        "keepPrepared": true,
    });
    let given: BTreeSet<_> = request.as_object().expect("an object").keys().collect();
    let given: BTreeSet<_> = given.into_iter().map(String::as_str).collect();
    assert_eq!(given, Request::field_names().collect(), "the agent's");
    assert_eq!(given, BTreeSet::from(FIELDS), "the Connector's");
    assert_eq!(over_the_wire(&request), request);
    let spec = meaning(&request).expect("a good request");
    assert!(
        spec.contains("convert_to_uefi: true") && spec.contains("keep_prepared: true"),
        "{spec}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_request_means_the_same_by_itself_and_over_the_wire(request in requests()) {
        prop_assert_eq!(meaning(&over_the_wire(&request)), meaning(&request));
    }

    #[test]
    fn what_is_not_said_is_not_said_over_the_wire_either(request in requests()) {
        let sent = over_the_wire(&request);
        let names = |request: &Value| -> Vec<String> {
            request.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
        };
        prop_assert_eq!(names(&sent), names(&request));
    }
}

/// What an agent reads of a request that is given to a Connector.
fn over_the_wire(request: &Value) -> Value {
    let submitted = Submitted::parse(request.to_string().as_bytes(), None);
    let submitted = submitted.expect("values of the right types");
    let bytes = submitted.message.encode_to_vec();
    let received = v1::JobRequest::decode(&*bytes).expect("what was encoded");
    Value::Object(wire::fields_of(&received).expect("values that the agent knows"))
}

/// The job that an agent makes of a request, without the name that it is given; or every problem.
fn meaning(request: &Value) -> Result<String, Vec<(String, String)>> {
    let credentials = json!({"domain": "", "username": "writer", "password": "x"});
    let local = LocalOverrides {
        scratch: Some("/scratch".into()),
        access: ShareAccess {
            credentials: Some(serde_json::from_value(credentials).expect("credentials")),
            ..ShareAccess::default()
        },
        ..LocalOverrides::default()
    };
    let parsed = Request::parse(&request.to_string()).expect("a JSON object");
    let mut spec = parsed.check(local).map_err(|refused| refused.problems)?;
    spec.id.clear();
    Ok(format!("{spec:?}"))
}

/// Requests whose values are of the right types. Some of them make sense.
fn requests() -> impl Strategy<Value = Value> {
    let words = |words: &'static [&'static str]| select(words).prop_map(Value::from).boxed();
    let flag = || any::<bool>().prop_map(Value::from).boxed();
    let name = || "[a-z0-9.-]{1,20}".prop_map(Value::from).boxed();
    let disk = prop_oneof![
        4 => "/dev/[a-z]{3}".prop_map(|path| json!({"path": path})),
        1 => any::<u32>().prop_map(|size| json!({"path": "/x", "sizeBytes": size})),
        1 => Just(json!({"serial": "no disk has this", "sizeBytes": 1})),
        1 => Just(json!({"lun": 4_000_000_000_u64})),
        1 => Just(json!({})),
    ];
    let encryption = proptest::option::of(select(&["required", "ifDemanded"][..]));
    let dialects = &["2.0.2", "2.1", "3.0", "3.0.2", "3.1.1", "1.0"][..];
    let dialect = proptest::option::of(select(dialects));
    let locations = &[
        "/images",
        "smb://h/s",
        "smb://h:445/s/ä b",
        "ftp://h",
        "smb://",
    ][..];
    let output = (select(locations), encryption, dialect).prop_map(|(location, seal, dialect)| {
        let mut output = json!({"location": location});
        if let Some(seal) = seal {
            output["encryption"] = seal.into();
        }
        if let Some(dialect) = dialect {
            output["oldestDialect"] = dialect.into();
        }
        output
    });
    let controllers = proptest::collection::vec(name(), 0..4);
    let xd = (controllers, proptest::option::of(1..=65535_u32), flag());
    let xd = xd.prop_map(|(controllers, port, open)| {
        let mut xd = json!({"controllers": controllers, "enableHdxPorts": open});
        if let Some(port) = port {
            xd["portNumber"] = port.into();
        }
        xd
    });
    let operations = &[
        "prepareAndPublish",
        "prepareAndPublish",
        "prepare",
        "prepare",
        "publish",
        "export",
        "convertToUefi",
        "inspect",
        "diagnostics",
    ];
    let platforms = &["aws", "Azure", "GoogleCloud", "AHV", "vsphere", "Xen"];
    let file_names = &["golden", "golden", "CON", "ümlaut", "a/b"];
    // With how likely each is there.
    let fields: Vec<(&'static str, f64, BoxedStrategy<Value>)> = vec![
        ("platform", 0.9, words(platforms)),
        ("disk", 0.9, disk.boxed()),
        ("outputStorageLocation", 0.6, output.boxed()),
        ("outputImageFilename", 0.6, words(file_names)),
        (
            "outputFormat",
            0.2,
            words(&["VhdxDiskFormat", "VhdDiskFormat"]),
        ),
        ("hashDisk", 0.3, flag()),
        ("md5Hash", 0.3, "[0-9a-f]{32}".prop_map(Value::from).boxed()),
        (
            "hashedBytes",
            0.2,
            (0..1_u64 << 50).prop_map(Value::from).boxed(),
        ),
        ("freeSpace", 0.2, words(&["copy", "skip"])),
        ("provisioningType", 0.2, words(&["Mcs", "Pvs"])),
        ("xdReconfigure", 0.2, xd.boxed()),
        ("domainUnjoin", 0.2, flag()),
        ("installMisa", 0.2, flag()),
        ("network", 0.2, words(&["keep", "dhcp"])),
        (
            "timeoutSeconds",
            0.2,
            (1..u64::from(u32::MAX)).prop_map(Value::from).boxed(),
        ),
        ("convertToUefi", 0.3, flag()),
        ("keepPrepared", 0.2, flag()),
    ];
    let fields: Vec<_> = fields
        .into_iter()
        .map(|(name, likely, value)| {
            let value = proptest::option::weighted(likely, value);
            value.prop_map(move |value| Some((name.to_owned(), value?)))
        })
        .collect();
    (words(operations), fields).prop_map(|(operation, fields)| {
        let mut request = Map::from_iter(fields.into_iter().flatten());
        request.insert("operation".to_owned(), operation);
        request.into()
    })
}
