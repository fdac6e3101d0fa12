//! What the Connector says, one kind of message after the other. The inner errors are violations
//! of the protocol.

use std::time::{Duration, Instant};

use ce_proto::v1::connector_message::Body as Said;
use ce_proto::{is_valid_id, v1};
use tracing::{debug, info, warn};

use super::{Engine, EngineError};
use crate::job::machine::JobEvent;
use crate::job::wire;
use crate::session::machine::{Parting, SessionAction, SessionEvent};
use crate::session::transport::LinkError;
use crate::telemetry::unix_ms;

impl Engine {
    /// Deals with a message. The inner error is a violation of the protocol.
    pub(super) async fn on_message(
        &mut self,
        message: v1::ConnectorMessage,
    ) -> Result<Result<(), String>, EngineError> {
        let v1::ConnectorMessage { sequence, body } = message;
        let Some(body) = body else {
            let what = "a message of a kind that this agent does not know";
            return Ok(Err(what.into()));
        };
        let is_counted = matches!(body, Said::StartJob(_) | Said::CancelJob(_));
        if is_counted == (sequence == 0) {
            return Ok(Err(format!("a message with the wrong number {sequence}")));
        }
        if self.enrolling && is_counted {
            return Ok(Err("a job in a session with a token".into()));
        }
        let body = match body {
            Said::Welcome(welcome) => return self.on_welcome(welcome).await,
            body => body,
        };
        let now = Instant::now();
        let actions = self.session.on(SessionEvent::Received { sequence }, now);
        let mut acknowledge = None;
        for action in actions {
            match action {
                SessionAction::Acknowledge(sequence) => acknowledge = Some(sequence),
                SessionAction::Close(why) => {
                    // The machine knows already that the link is of no use.
                    let error = LinkError {
                        is_refused: true,
                        message: format!("the Connector broke the protocol: {why}"),
                    };
                    self.link = None;
                    self.greeted = None;
                    self.log_failure(&error);
                    return Ok(Ok(()));
                }
                other => debug!("unexpected: {other:?}"),
            }
        }
        match body {
            Said::Welcome(_) => {}
            Said::StartJob(start) => {
                if !is_valid_id(&start.job_id) {
                    return Ok(Err("a job with a name that is none".into()));
                }
                self.on_start(start).await?;
            }
            Said::CancelJob(cancel) => {
                if !is_valid_id(&cancel.job_id) {
                    return Ok(Err("a cancel for a name that is none".into()));
                }
                let reason = wire::clip(&cancel.reason, 255).escape_debug().to_string();
                info!(
                    job = wire::clip(&cancel.job_id, 64),
                    reason, "cancel is asked for"
                );
                let event = JobEvent::CancelAsked(cancel.job_id, reason);
                let actions = self.jobs.on(event, now);
                self.act_on_jobs(actions, None).await?;
            }
            Said::Ack(ack) => match self.outbox.delivered(ack.sequence) {
                Ok(letters) => self.on_delivered(letters).await?,
                Err(never) => return Ok(Err(never.to_string())),
            },
            Said::Goodbye(goodbye) => return self.on_goodbye(goodbye).await,
        }
        if let Some(sequence) = acknowledge {
            self.outbox.acknowledge(sequence);
        }
        Ok(Ok(()))
    }

    async fn on_welcome(
        &mut self,
        welcome: v1::Welcome,
    ) -> Result<Result<(), String>, EngineError> {
        if welcome.protocol_revision < OLDEST_CONNECTOR {
            return Ok(Err(format!(
                "it speaks revision {}, and this agent needs {OLDEST_CONNECTOR}",
                welcome.protocol_revision
            )));
        }
        let heartbeat = welcome.heartbeat_interval_seconds;
        if !(1..=300).contains(&heartbeat) {
            return Ok(Err(format!("a heartbeat every {heartbeat} s")));
        }
        if !is_valid_id(&welcome.agent_id) {
            return Ok(Err("an agent's name that is none".into()));
        }
        let skew = welcome.server_time_unix_ms.saturating_sub(unix_ms());
        if skew.unsigned_abs() > CLOCK_SKEW_TOLD_MS {
            let seconds = skew / 1000;
            warn!("clock skew: the Connector's clock is {seconds} s ahead of this machine's");
        }
        if !welcome.certificate_chain.is_empty() {
            match self.identity.keep(&welcome.certificate_chain) {
                Ok(()) => info!(agent = welcome.agent_id, "got a client certificate"),
                Err(error) => return Ok(Err(error.to_string())),
            }
        } else if self.enrolling {
            return Ok(Err("no certificate for the token".into()));
        }
        self.greeted = Some(welcome.agent_id);
        let heartbeat = Duration::from_secs(heartbeat.into());
        self.on_session(SessionEvent::Welcomed { heartbeat })
            .await?;
        Ok(Ok(()))
    }

    async fn on_goodbye(
        &mut self,
        goodbye: v1::Goodbye,
    ) -> Result<Result<(), String>, EngineError> {
        use v1::goodbye::Reason;
        let said = wire::clip(&goodbye.message, 1024)
            .escape_debug()
            .to_string();
        info!(reason = goodbye.reason().as_str_name(), "goodbye: {said}");
        let parting = match goodbye.reason() {
            Reason::Unspecified => return Ok(Err("a goodbye without a known reason".into())),
            Reason::Stopping => {
                Parting::Stopping(Duration::from_secs(goodbye.reconnect_after_seconds.into()))
            }
            Reason::Enrolled => Parting::Enrolled,
            Reason::Replaced => Parting::Replaced,
            Reason::Dismissed => Parting::Dismissed {
                power_off: goodbye.power_off,
            },
        };
        self.on_session(SessionEvent::Goodbye(parting)).await?;
        Ok(Ok(()))
    }
}

/// The oldest revision of the protocol that a Connector may have. Nothing that came later is needed of
/// it: those are things that it may ask for.
pub(super) const OLDEST_CONNECTOR: u32 = 1;

/// Below a minute nobody needs to hear of it.
const CLOCK_SKEW_TOLD_MS: u64 = 60_000;
