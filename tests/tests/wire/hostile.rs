//! Whatever bytes come from the other side: they are refused with a reason, or taken within the bounds of the
//! protocol. What is taken is understood in full: worded again by the other side's code, it is the same.
//!
//! ```text
//!  bytes --> v1::ConnectorMessage --> agent: fields --> Connector: Request --> v1::JobRequest, the same
//!  bytes --> v1::AgentMessage --> Connector: result --> agent: v1::JobFinished --> result, the same
//! ```

use std::net::{Ipv4Addr, SocketAddr};

use ce_agent::job::{Request, wire};
use ce_connector::hub::Input;
use ce_connector::ids::{AgentId, SessionId};
use ce_connector::machine::{EndStatus, JobResult, Word};
use ce_connector::request::Request as Submitted;
use ce_connector::session::{hello, message};
use ce_proto::v1;
use ce_proto::v1::agent_message::Body as FromAgent;
use ce_proto::v1::connector_message::Body as FromConnector;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use prost::Message;
use serde_json::{Value, json};
use tonic::Code;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn an_agent_is_not_led_astray_by_any_bytes(bytes in vec(any::<u8>(), 0..300)) {
        agent_hears(&bytes)?;
    }

    #[test]
    fn an_agent_is_not_led_astray_by_messages_with_faults(bytes in faulty(from_connector())) {
        agent_hears(&bytes)?;
    }

    #[test]
    fn a_connector_is_not_led_astray_by_any_bytes(bytes in vec(any::<u8>(), 0..300)) {
        connector_hears(&bytes)?;
    }

    #[test]
    fn a_connector_is_not_led_astray_by_messages_with_faults(bytes in faulty(from_agent())) {
        connector_hears(&bytes)?;
    }
}

/// Faults that are all refused, or break the encoding, would show nothing of what is taken.
#[test]
fn a_good_part_of_the_messages_with_faults_is_taken() {
    let mut runner = TestRunner::deterministic();
    let mut share = |messages: Vec<Vec<u8>>, hears: fn(&[u8]) -> Result<bool, TestCaseError>| {
        let faulty = faulty(messages);
        let taken = (0..1000).filter(|_| {
            let bytes = faulty.new_tree(&mut runner).expect("a message").current();
            hears(&bytes).expect("no fault of the hearer")
        });
        taken.count()
    };
    let (agent, connector) = (
        share(from_connector(), agent_hears),
        share(from_agent(), connector_hears),
    );
    assert!(
        (100..1000).contains(&agent) && (100..1000).contains(&connector),
        "of 1000, {agent} and {connector}"
    );
}

/// Whether an agent takes what a Connector says.
fn agent_hears(bytes: &[u8]) -> Result<bool, TestCaseError> {
    let Ok(message) = v1::ConnectorMessage::decode(bytes) else {
        return Ok(false);
    };
    let Some(FromConnector::StartJob(start)) = message.body else {
        return Ok(message.body.is_some());
    };
    let request = start.request.unwrap_or_default();
    let fields = match wire::fields_of(&request) {
        Ok(fields) => fields,
        Err(problems) => {
            prop_assert!((1..=FIELDS).contains(&problems.len()), "{:?}", problems);
            let longest = problems
                .iter()
                .map(|(field, what)| field.len() + what.len());
            prop_assert!(longest.max() < Some(200), "{:?}", problems);
            return Ok(false);
        }
    };
    let text = Value::Object(fields.clone()).to_string();
    prop_assert!(text.len() < 256 << 10, "{} bytes", text.len());
    prop_assert!(Request::parse(&text).is_ok(), "{}", text);
    // A Connector refuses more than an agent: empty texts, say. What it takes is the same again.
    if let Ok(again) = Submitted::from_fields(fields, None) {
        prop_assert_eq!(again.message, request);
    }
    Ok(true)
}

/// Whether a Connector takes what an agent says.
fn connector_hears(bytes: &[u8]) -> Result<bool, TestCaseError> {
    let agent: AgentId = "ce-1".parse().expect("a name");
    let Ok(v1::AgentMessage { sequence, body }) = v1::AgentMessage::decode(bytes) else {
        return Ok(false);
    };
    let refused = |status: tonic::Status| {
        let codes = [
            Code::InvalidArgument,
            Code::PermissionDenied,
            Code::FailedPrecondition,
        ];
        prop_assert!(codes.contains(&status.code()), "{:?}", status);
        prop_assert!(
            !status.message().is_empty() && status.message().len() < 2048,
            "{:?}",
            status
        );
        Ok(false)
    };
    let body = match body {
        None | Some(FromAgent::Ack(_)) => return Ok(body.is_some()),
        Some(FromAgent::Hello(greeting)) => {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
            let opened = hello::check_name(&greeting, &agent)
                .and_then(|()| hello::check_revision(&greeting))
                .and_then(|()| hello::certificate_request(&greeting))
                .and_then(|_| hello::opening(greeting, address));
            let (_, held, facts) = match opened {
                Ok(opened) => opened,
                Err(status) => return refused(status),
            };
            prop_assert!(held.len() <= 64 && facts.disks.len() <= 256);
            return Ok(true);
        }
        Some(body) => body,
    };
    match message::input(body, &agent, SessionId(1), sequence) {
        Err(status) => return refused(status),
        Ok(Input::Said { word, .. }) => {
            if let Word::Finished(status, result) = word {
                is_worded_again(status, &result)?;
            }
        }
        Ok(Input::Progress(_, _, how_far)) => {
            prop_assert!(how_far.percent <= 100 && how_far.step.len() <= 64);
        }
        Ok(Input::Logs(_, _, lines)) => {
            prop_assert!(lines.len() <= 1025);
            let longest = lines
                .iter()
                .map(|line| line.message.len() + line.target.len());
            prop_assert!(longest.max() <= Some(4096 + 128));
        }
        Ok(Input::Heartbeat(..)) => {}
        Ok(other) => {
            let told = format!("no agent can say this: {other:?}");
            return Err(TestCaseError::fail(told));
        }
    }
    Ok(true)
}

/// Whether an agent with this result would say what the Connector has heard.
fn is_worded_again(status: EndStatus, result: &JobResult) -> Result<(), TestCaseError> {
    let job = json!({
        "status": status,
        "artifacts": result.artifacts,
        "error": result.error,
        "warnings": result.warnings,
    });
    let message = wire::finished("a", 1, &job, 0);
    let (status_again, mut again) = ce_connector::result::finished(message)
        .map_err(|malformed| TestCaseError::fail(format!("{malformed}: {job}")))?;
    prop_assert_eq!(status_again, status);
    // More than a hundred years of milliseconds are not told exactly.
    let durations = again.artifacts.get_mut("durations");
    for (step, seconds) in durations
        .and_then(Value::as_object_mut)
        .into_iter()
        .flatten()
    {
        let told = &result.artifacts["durations"][step];
        let (told, heard) = (
            told.as_f64().unwrap_or(-1.0),
            seconds.as_f64().unwrap_or(-2.0),
        );
        prop_assert!(
            (told - heard).abs() <= told * 1e-12,
            "{}: {} {}",
            step,
            told,
            heard
        );
        *seconds = result.artifacts["durations"][step].clone();
    }
    prop_assert_eq!(&again, result);
    Ok(())
}

/// Messages in which some bytes are not what they were.
fn faulty(messages: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let fault = (any::<Index>(), 0..6_u8, any::<u8>());
    (select(messages), vec(fault, 0..4)).prop_map(|(mut bytes, faults)| {
        for (place, kind, byte) in faults {
            let at = place.index(bytes.len() + 1);
            match (kind, bytes.get_mut(at)) {
                (0, Some(there)) => *there ^= 1 << (byte % 8),
                (1 | 2, Some(there)) => *there = byte,
                (3, Some(_)) => {
                    bytes.remove(at);
                }
                (4, Some(_)) => bytes.truncate(at),
                // What comes twice, in whole or in part.
                (5, Some(_)) => bytes.extend_from_within(at..),
                _ => bytes.insert(at, byte),
            }
        }
        bytes
    })
}

/// One of everything that a Connector says.
fn from_connector() -> Vec<Vec<u8>> {
    use v1::disk_selector::Selector;
    let request = v1::JobRequest {
        operation: Some(v1::Operation::PrepareAndPublish.into()),
        platform: Some(v1::Platform::Azure.into()),
        disk: Some(v1::DiskSelector {
            selector: Some(Selector::Path("/dev/sdc".into())),
            size_bytes: Some(1 << 35),
        }),
        output_storage_location: Some(v1::OutputStorageLocation {
            location: "smb://files.example/images".into(),
            encryption: Some(v1::SmbEncryption::Required.into()),
            oldest_dialect: Some("3.0".into()),
        }),
        output_image_filename: Some("golden".into()),
        output_format: Some(v1::OutputFormat::Vhdx.into()),
        hash_disk: Some(true),
        md5_hash: Some("d41d8cd98f00b204e9800998ecf8427e".into()),
        hashed_bytes: Some(1 << 34),
        free_space: Some(v1::FreeSpace::Skip.into()),
        provisioning_type: Some(v1::ProvisioningType::Pvs.into()),
        xd_reconfigure: Some(v1::XdReconfigure {
            controllers: vec!["ddc-1".into(), "ddc-2".into()],
            port_number: Some(80),
            enable_hdx_ports: Some(true),
        }),
        domain_unjoin: Some(true),
        install_misa: Some(false),
        network: Some(v1::Network::Dhcp.into()),
        timeout_seconds: Some(600),
        convert_to_uefi: Some(true),
        keep_prepared: Some(false),
    };
    let inspect = v1::JobRequest {
        operation: Some(v1::Operation::Inspect.into()),
        disk: Some(v1::DiskSelector {
            selector: Some(Selector::Lun(3)),
            size_bytes: None,
        }),
        ..Default::default()
    };
    let start = |request| {
        FromConnector::StartJob(v1::StartJob {
            job_id: "job-1".into(),
            required_revision: 2,
            request: Some(request),
            attempt: 1,
            credentials: None,
        })
    };
    let bodies = [start(request), start(inspect)];
    let message = |body| v1::ConnectorMessage {
        sequence: 1,
        body: Some(body),
    };
    Vec::from(bodies.map(|body| message(body).encode_to_vec()))
}

/// One of everything that an agent says.
fn from_agent() -> Vec<Vec<u8>> {
    let error = v1::JobError {
        code: "DiskReadFailed".into(),
        message: "at 4096".into(),
        hint: "look".into(),
    };
    let complete = v1::JobFinished {
        job_id: "job-1".into(),
        status: v1::job_finished::Status::Complete.into(),
        artifacts: Some(v1::Artifacts {
            md5_hash: Some("d41d8cd98f00b204e9800998ecf8427e".into()),
            hashed_bytes: Some(4096),
            output_image: Some("/images/golden.vhdx".into()),
            virtual_size_bytes: Some(4096),
            file_size_bytes: Some(8192),
            free_space: Some(v1::FreeSpace::Copy.into()),
            source_platform: Some(v1::Platform::Vsphere.into()),
            windows: Some(v1::WindowsFacts {
                product: "Windows".into(),
                version: "22H2".into(),
                build: "19045".into(),
                architecture: "amd64".into(),
            }),
            changes: vec![v1::Change {
                id: "vmware.tools".into(),
                title: "t".into(),
                outcome: v1::change::Outcome::Done.into(),
                reason: "r".into(),
            }],
            durations_ms: [("export".to_owned(), 1500)].into(),
            resumed_from_bytes: Some(1),
            verified: Some(true),
            further_json: r#"{"disk":{"partitions":[1,"b"]},"registration":"x"}"#.into(),
        }),
        error: None,
        warnings: vec!["slow".into()],
        finished_unix_ms: 1,
        attempt: 1,
    };
    let failed = v1::JobFinished {
        status: v1::job_finished::Status::Failed.into(),
        artifacts: None,
        error: Some(error.clone()),
        ..complete.clone()
    };
    let problem = v1::Problem {
        field: "disk.lun".into(),
        message: "no such disk".into(),
    };
    let log = v1::LogRecord {
        time_unix_ms: 1,
        level: v1::log_record::Level::Warn.into(),
        target: "ce_agent".into(),
        message: "m".into(),
    };
    let hello = v1::Hello {
        protocol_revision: 2,
        minimum_revision: 1,
        agent_id: "ce-1".into(),
        agent_version: "1".into(),
        state_id: "0123456789abcdef".into(),
        platform: v1::Platform::Azure.into(),
        disks: vec![v1::AttachedDisk {
            device_name: "sda".into(),
            size_bytes: 1,
            ..Default::default()
        }],
        held_jobs: vec![v1::HeldJob {
            job_id: "job-1".into(),
            state: v1::held_job::State::Running.into(),
        }],
        ..Default::default()
    };
    let bodies = [
        FromAgent::Hello(hello),
        FromAgent::JobFinished(complete),
        FromAgent::JobFinished(failed),
        FromAgent::JobRejected(v1::JobRejected {
            job_id: "job-1".into(),
            reason: v1::job_rejected::Reason::Invalid.into(),
            error: Some(error),
            problems: vec![problem],
            attempt: 1,
        }),
        FromAgent::JobProgress(v1::JobProgress {
            job_id: "job-1".into(),
            step: "export".into(),
            bytes_done: 1,
            bytes_total: 2,
            overall_progress_percent: 50,
        }),
        FromAgent::LogBatch(v1::LogBatch {
            job_id: "job-1".into(),
            records: vec![log],
            dropped: 1,
        }),
        FromAgent::JobAccepted(v1::JobAccepted {
            job_id: "job-1".into(),
            attempt: 1,
        }),
    ];
    let message = |body| v1::AgentMessage {
        sequence: 1,
        body: Some(body),
    };
    Vec::from(bodies.map(|body| message(body).encode_to_vec()))
}

/// Every field can have a problem, and some of them several.
const FIELDS: usize = 128;
