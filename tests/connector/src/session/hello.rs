//! What an agent says first.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use ce_proto::v1;
use tonic::Status;

use crate::authority::CertificateRequest;
use crate::ids::{AgentId, JobId, StateId};
use crate::result::{Malformed, at_most, platform_word};
use crate::view::{AgentFacts, DiskFacts};

/// Whether the agent calls itself what its certificate or token calls it.
///
/// # Errors
///
/// It does not.
pub fn check_name(hello: &v1::Hello, owner: &AgentId) -> Result<(), Status> {
    if hello.agent_id.is_empty() || hello.agent_id == owner.as_str() {
        return Ok(());
    }
    Err(Status::permission_denied(format!(
        "hello.agent_id: the name that was proven is `{owner}`"
    )))
}

/// Whether both sides can speak the same revision.
///
/// # Errors
///
/// They can't, or what the agent says of its revisions makes no sense.
pub fn check_revision(hello: &v1::Hello) -> Result<(), Status> {
    let ours = ce_proto::PROTOCOL_REVISION;
    if hello.protocol_revision == 0 || hello.minimum_revision > hello.protocol_revision {
        return Err(Status::invalid_argument(format!(
            "hello: revision {} with minimum {} makes no sense",
            hello.protocol_revision, hello.minimum_revision
        )));
    }
    if hello.minimum_revision > ours {
        return Err(Status::failed_precondition(format!(
            "the agent needs revision {} of the protocol, this Connector has {ours}",
            hello.minimum_revision
        )));
    }
    Ok(())
}

/// The request for a certificate, if there is one.
///
/// # Errors
///
/// It is too long.
pub fn certificate_request(hello: &v1::Hello) -> Result<Option<CertificateRequest>, Status> {
    let request = &hello.certificate_request;
    let field = "hello.certificate_request";
    at_most(
        field,
        request.len(),
        ce_proto::MAX_CERTIFICATE_REQUEST_BYTES,
    )
    .map_err(malformed)?;
    Ok(CertificateRequest::new(request.clone()))
}

/// The rest of it, checked: the agent's state, the jobs that it has, and what it says of itself.
///
/// # Errors
///
/// Something in it is no name, or longer than the protocol allows.
pub fn opening(
    hello: v1::Hello,
    address: SocketAddr,
) -> Result<(StateId, BTreeSet<JobId>, AgentFacts), Status> {
    let state: StateId = hello
        .state_id
        .parse()
        .map_err(|error| malformed(Malformed::new("hello.state_id", format!("{error}"))))?;
    if state.as_str().len() < 16 {
        let problem = "is shorter than 16 characters";
        return Err(malformed(Malformed::new("hello.state_id", problem)));
    }
    at_most("hello.held_jobs", hello.held_jobs.len(), 64).map_err(malformed)?;
    let held = hello.held_jobs.into_iter().map(|held| {
        let id = held.job_id.parse::<JobId>();
        id.map_err(|error| malformed(Malformed::new("hello.held_jobs", format!("{error}"))))
    });
    let held = held.collect::<Result<_, _>>()?;
    at_most("hello.disks", hello.disks.len(), 256).map_err(malformed)?;
    let host = hello.host.unwrap_or_default();
    let mut facts = AgentFacts {
        address: address.to_string(),
        agent_version: hello.agent_version,
        platform: platform_word(hello.platform).map(str::to_owned),
        hostname: host.hostname,
        kernel: host.kernel,
        machine: host.machine,
        memory_bytes: host.memory_bytes,
        cpu_count: host.cpu_count,
        disks: Vec::new(),
    };
    for text in [
        &facts.agent_version,
        &facts.hostname,
        &facts.kernel,
        &facts.machine,
    ] {
        at_most("hello.host", text.len(), 255).map_err(malformed)?;
    }
    for disk in hello.disks {
        for text in [&disk.device_name, &disk.serial, &disk.model] {
            at_most("hello.disks", text.len(), 255).map_err(malformed)?;
        }
        facts.disks.push(DiskFacts {
            device_name: disk.device_name,
            size_bytes: disk.size_bytes,
            serial: disk.serial,
            lun: disk.lun,
            model: disk.model,
            is_own: disk.is_own,
        });
    }
    Ok((state, held, facts))
}

pub(super) fn malformed(malformed: Malformed) -> Status {
    Status::invalid_argument(malformed.to_string())
}
