//! What an agent found out arrives at a Connector: whole, or shortened with a word about it, but always.

use ce_agent::job::wire;
use ce_connector::result::finished;
use ce_proto::{MAX_MESSAGE_BYTES, v1};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message;
use serde_json::{Map, Value, json};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_result_arrives_as_it_was_worded(job in jobs(0..40)) {
        let arrived = arrived(&job)?;
        prop_assert_eq!(arrived, job);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_result_arrives_however_long_its_texts_are(job in jobs(10_000..60_000)) {
        let arrived = arrived(&job)?;
        prop_assert_eq!(&arrived["status"], &job["status"]);
        prop_assert_eq!(&arrived["error"]["code"], &job["error"]["code"]);
        prop_assert_eq!(&arrived["artifacts"]["md5Hash"], &job["artifacts"]["md5Hash"]);
    }
}

/// What a Connector makes of a result, which it must take.
fn arrived(job: &Value) -> Result<Value, TestCaseError> {
    let bytes = wire::finished("a", 1, job, 0).encode_to_vec();
    prop_assert!(bytes.len() < MAX_MESSAGE_BYTES, "{} bytes", bytes.len());
    let message = v1::JobFinished::decode(&*bytes).expect("what was encoded");
    let (status, result) = finished(message)
        .map_err(|malformed| TestCaseError::fail(format!("not taken: {malformed}")))?;
    Ok(json!({
        "status": status,
        "artifacts": result.artifacts,
        "error": result.error,
        "warnings": result.warnings,
    }))
}

/// Results with texts of this length.
fn jobs(length: std::ops::Range<usize>) -> impl Strategy<Value = Value> {
    let text = vec(any::<char>(), length)
        .prop_map(String::from_iter)
        .boxed();
    let error = (
        select(&["DiskReadFailed", "HashMismatch"][..]),
        text.clone(),
        text.clone(),
    );
    let error = error.prop_map(|(code, message, hint)| match hint.is_empty() {
        true => json!({"code": code, "message": message}),
        false => json!({"code": code, "message": message, "hint": hint}),
    });
    let status = prop_oneof![
        Just(("complete", None)).boxed(),
        error
            .clone()
            .prop_map(|error| ("failed", Some(error)))
            .boxed(),
        error.prop_map(|error| ("cancelled", Some(error))).boxed(),
    ];
    let warnings = vec(text.clone(), 0..4);
    (status, artifacts(text), warnings).prop_map(|((status, error), artifacts, warnings)| {
        json!({"status": status, "artifacts": artifacts, "error": error, "warnings": warnings})
    })
}

fn artifacts(text: BoxedStrategy<String>) -> impl Strategy<Value = Value> {
    let bytes = || any::<u64>().prop_map(Value::from).boxed();
    let words = |words: &'static [&'static str]| select(words).prop_map(Value::from).boxed();
    let windows = vec(text.clone(), 4).prop_map(|words| {
        json!({
            "product": words[0],
            "version": words[1],
            "build": words[2],
            "architecture": words[3],
        })
    });
    let outcomes = &["done", "alreadySo", "deferred", "skipped"][..];
    let change = (text.clone(), text.clone(), select(outcomes), text.clone());
    let change = change.prop_map(|(id, title, outcome, reason)| match reason.is_empty() {
        true => json!({"id": id, "title": title, "outcome": outcome}),
        false => json!({"id": id, "title": title, "outcome": outcome, "reason": reason}),
    });
    let durations = btree_map("[a-z]{1,12}", (0..100_000_000_u64).prop_map(seconds), 0..4);
    let fields: Vec<(&str, BoxedStrategy<Value>)> = vec![
        ("md5Hash", "[0-9a-f]{32}".prop_map(Value::from).boxed()),
        ("hashedBytes", bytes()),
        ("outputImage", text.clone().prop_map(Value::from).boxed()),
        ("virtualSizeBytes", bytes()),
        ("fileSizeBytes", bytes()),
        ("resumedFromBytes", bytes()),
        ("verified", any::<bool>().prop_map(Value::from).boxed()),
        ("freeSpace", words(&["copy", "skip"])),
        (
            "sourcePlatform",
            words(&["aws", "azure", "gcp", "nutanix", "vsphere", "xenserver"]),
        ),
        ("windows", windows.boxed()),
        ("changes", vec(change, 0..4).prop_map(Value::from).boxed()),
        // Of which the protocol knows nothing.
        ("registration", text.clone().prop_map(Value::from).boxed()),
        (
            "disk",
            vec(text, 0..4)
                .prop_map(|all| json!({"partitions": all}))
                .boxed(),
        ),
    ];
    let fields: Vec<_> = fields
        .into_iter()
        .map(|(name, value)| {
            let value = proptest::option::weighted(0.4, value);
            value.prop_map(move |value| Some((name.to_owned(), value?)))
        })
        .collect();
    (fields, durations).prop_map(|(fields, durations)| {
        let mut artifacts = Map::from_iter(fields.into_iter().flatten());
        artifacts.insert("durations".to_owned(), json!(durations));
        artifacts.into()
    })
}

/// To the millisecond, as an agent notes it.
fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}
