//! What the metadata services of Azure, AWS and Google Cloud keep for a machine.
//!
//! | cloud | what | after |
//! |---|---|---|
//! | Azure | `userData` of the instance, in Base64 | `Metadata: true` |
//! | AWS | user data | a token of IMDSv2, for which a `PUT` asks |
//! | Google Cloud | the attribute `ce-agent-config` of the instance | `Metadata-Flavor: Google`, both ways |
//!
//! Sources: "Azure Instance Metadata Service" (Microsoft Learn), "Use IMDSv2" (Amazon EC2 user guide),
//! "About VM metadata" (Compute Engine documentation).

use hyper::Method;
use zeroize::Zeroizing;

use super::metadata::{Answered, MetadataError, Question, Service};
use super::user_data::{from_base64, look_into};
use super::{BootstrapError, Look, Place};

/// Azure's.
pub(super) fn azure(place: &Place) -> Result<Look, BootstrapError> {
    let service = place.metadata()?;
    // User data is not there yet for a while after a machine was made: 404 and 410 may be early.
    let question = Question {
        method: Method::GET,
        path: "/metadata/instance/compute/userData?api-version=2021-01-01&format=text",
        headers: vec![("metadata", "true")],
        may_be_early: true,
    };
    const ORIGIN: &str = "Azure's user data";
    match ask(&service, ORIGIN, &question)? {
        Answer::Content(_, encoded) => look_into(ORIGIN, from_base64(ORIGIN, &encoded)?),
        Answer::Other(look) => Ok(look),
    }
}

/// That of AWS.
pub(super) fn aws(place: &Place) -> Result<Look, BootstrapError> {
    let service = place.metadata()?;
    const ORIGIN: &str = "the user data of AWS";
    let question = Question {
        method: Method::PUT,
        path: "/latest/api/token",
        headers: vec![("x-aws-ec2-metadata-token-ttl-seconds", TOKEN_LIFE)],
        may_be_early: false,
    };
    let token = match ask(&service, ORIGIN, &question)? {
        Answer::Content(_, token) => token,
        Answer::Other(look) => return Ok(look),
    };
    let token = std::str::from_utf8(&token).map_err(|_| BootstrapError::Garbled {
        origin: ORIGIN.into(),
        problem: "is kept by a service whose token is no text",
    })?;
    let question = Question {
        method: Method::GET,
        path: "/latest/user-data",
        headers: vec![("x-aws-ec2-metadata-token", token)],
        may_be_early: false,
    };
    match ask(&service, ORIGIN, &question)? {
        Answer::Content(_, data) => look_into(ORIGIN, data),
        Answer::Other(look) => Ok(look),
    }
}

/// That of Google Cloud.
pub(super) fn gcp(place: &Place) -> Result<Look, BootstrapError> {
    let service = place.metadata()?;
    const ORIGIN: &str = "the attribute ce-agent-config of Google Cloud";
    const FLAVOR: (&str, &str) = ("metadata-flavor", "Google");
    let question = Question {
        method: Method::GET,
        path: "/computeMetadata/v1/instance/attributes/ce-agent-config",
        headers: vec![FLAVOR],
        may_be_early: false,
    };
    match ask(&service, ORIGIN, &question)? {
        Answer::Content(flavor, _) if flavor.as_deref() != Some(FLAVOR.1) => {
            Err(BootstrapError::Garbled {
                origin: ORIGIN.into(),
                problem: "is told by a service that does not say `Metadata-Flavor: Google`",
            })
        }
        Answer::Content(_, data) => look_into(ORIGIN, data),
        Answer::Other(look) => Ok(look),
    }
}

enum Answer {
    /// What was asked for, and the flavor that the service says it has.
    Content(Option<String>, Zeroizing<Vec<u8>>),
    /// There is nothing to look into.
    Other(Look),
}

fn ask(
    service: &Service,
    origin: &'static str,
    question: &Question<'_>,
) -> Result<Answer, BootstrapError> {
    let unusable = |source: MetadataError| BootstrapError::Metadata { origin, source };
    Ok(match service.ask(question).map_err(unusable)? {
        Answered::Content(headers, content) => {
            let flavor = headers.get("metadata-flavor");
            let flavor = flavor.and_then(|flavor| Some(flavor.to_str().ok()?.to_owned()));
            Answer::Content(flavor, content)
        }
        Answered::Nothing => Answer::Other(Look::NotHere),
        // As it is where the owner of the machine turned the service off.
        Answered::Refused(status) => Answer::Other(Look::PassedOver(format!(
            "{origin}: the metadata service refuses to tell ({status})"
        ))),
        Answered::Silent(why) => Answer::Other(Look::PassedOver(format!(
            "{origin}: the metadata service does not answer: {why}"
        ))),
    })
}

/// Seconds: for one question.
const TOKEN_LIFE: &str = "60";

#[cfg(test)]
mod tests;
