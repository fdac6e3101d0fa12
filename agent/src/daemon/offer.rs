//! From a job on the wire to one that can be run.

use ce_disk::sink::smb::SmbCredentials;
use ce_proto::{PROTOCOL_REVISION, v1};
use secrecy::SecretString;
use serde_json::{Map, Value};

use crate::config::Config;
use crate::job::machine::{Offer, Refusal, RefusalReason};
use crate::job::{ErrorCode, JobSpec, LocalOverrides, Reach, Request, ShareAccess, wire};

/// A job that is given out, and its credentials, which go nowhere else.
pub(super) struct Received {
    pub(super) offer: Offer,
    pub(super) credentials: Option<SmbCredentials>,
}

/// Reads a `StartJob` whose name is good.
///
/// # Errors
///
/// It can't be understood, or is of a protocol from the future.
pub(super) fn read(start: &mut v1::StartJob) -> Result<Received, Refusal> {
    if start.required_revision > PROTOCOL_REVISION {
        let message = format!(
            "the job needs revision {} of the protocol; this agent ({}) speaks {PROTOCOL_REVISION}",
            start.required_revision,
            env!("CARGO_PKG_VERSION")
        );
        return Err(Refusal::new(
            RefusalReason::Unsupported,
            ErrorCode::InvalidRequest,
            message,
        ));
    }
    let invalid = |problems| wire::refusal(RefusalReason::Invalid, problems);
    let empty = v1::JobRequest::default();
    let request = start.request.as_ref().unwrap_or(&empty);
    let fields = wire::fields_of(request).map_err(invalid)?;
    let credentials = start.credentials.take().map(|mut given| {
        SmbCredentials::new(
            std::mem::take(&mut given.domain),
            std::mem::take(&mut given.username),
            // Into the secret as it is: no copy is left behind.
            SecretString::from(std::mem::take(&mut given.password)),
        )
    });
    let credentials = credentials.transpose().map_err(|error| {
        invalid(vec![(
            "outputStorageLocation.credentials".to_owned(),
            error.to_string(),
        )])
    })?;
    Ok(Received {
        offer: Offer {
            id: start.job_id.clone(),
            attempt: start.attempt,
            request: fields,
        },
        credentials,
    })
}

/// Makes a job of a request, in the way of a local run, but within what a remote one may reach.
///
/// # Errors
///
/// Every problem there is.
pub(super) fn check(
    id: &str,
    request: &Map<String, Value>,
    credentials: Option<SmbCredentials>,
    config: &Config,
) -> Result<JobSpec, Refusal> {
    let overrides = LocalOverrides {
        // Nobody is there to ask for it. What is left of an export that was cut off is gone on
        // with; one that ends by itself leaves nothing.
        resume: true,
        keep_partial: false,
        scratch: config.scratch.as_ref().ok().cloned(),
        reach: Reach::Remote(config.reach.clone()),
        access: ShareAccess {
            credentials,
            ..ShareAccess::default()
        },
        disk_wait: config.disk_wait,
        ..LocalOverrides::default()
    };
    let parsed = Request::parse(&wire::text_of(request)).map_err(|error| Refusal {
        reason: RefusalReason::Invalid,
        error,
        problems: Vec::new(),
    })?;
    let mut spec = parsed.check(overrides).map_err(|refused| Refusal {
        reason: RefusalReason::Invalid,
        error: refused.error,
        problems: refused.problems,
    })?;
    if let (Err(problem), true) = (&config.scratch, spec.work.changes_disk()) {
        let message = format!("the agent's scratch_disk: {}", problem.message);
        return Err(Refusal::new(RefusalReason::Invalid, problem.code, message));
    }
    id.clone_into(&mut spec.id);
    Ok(spec)
}
