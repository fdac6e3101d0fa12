//! What the agent says: the greeting, and then what waits, as far as the link takes it.

use ce_proto::v1::agent_message::Body;
use ce_proto::{PROTOCOL_REVISION, v1};
use tracing::{debug, error};

use super::Engine;
use super::messages::OLDEST_CONNECTOR;
use crate::host;
use crate::job::machine::{JobTable, Letter, RecordState};
use crate::job::wire;
use crate::session::outbox::Outgoing;
use crate::telemetry::unix_ms;

impl Engine {
    /// Says Hello. The link is new, so there is room.
    pub(super) fn greet(&mut self) {
        let certificate_request = self.identity.certificate_request().unwrap_or_else(|error| {
            error!("no certificate can be asked for: {error}");
            None
        });
        let held = self.jobs.held();
        let held_jobs = held.into_iter().rev().take(MOST_HELD).map(|(id, ended)| {
            let state = match ended {
                true => v1::held_job::State::Finished,
                false => v1::held_job::State::Running,
            };
            v1::HeldJob {
                job_id: id.to_owned(),
                state: state.into(),
            }
        });
        let hello = v1::Hello {
            protocol_revision: PROTOCOL_REVISION,
            minimum_revision: OLDEST_CONNECTOR,
            agent_id: self.config.agent_id.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            state_id: self.journal.state_id().to_owned(),
            platform: host::platform().into(),
            disks: host::disks(),
            host: Some(host::facts()),
            held_jobs: held_jobs.collect(),
            certificate_request: certificate_request.unwrap_or_default(),
        };
        self.transmit(0, Body::Hello(hello));
    }

    pub(super) fn may_send(&self) -> bool {
        self.session.is_established() && !self.enrolling
    }

    /// Sends what waits, as far as the link takes it.
    pub(super) fn send(&mut self) {
        if !self.may_send() {
            return;
        }
        while self.has_room_now() {
            let Some(outgoing) = self.outbox.next() else {
                break;
            };
            let (sequence, body) = match outgoing {
                Outgoing::Ack(sequence) => (0, Some(Body::Ack(v1::Ack { sequence }))),
                Outgoing::Heartbeat => (0, Some(self.heartbeat())),
                Outgoing::Progress => (0, self.progress()),
                Outgoing::Letter(number, letter) => (number, body_of(&self.jobs, letter)),
            };
            if let Some(body) = body {
                self.transmit(sequence, body);
            }
        }
        // What is only of interest waits for what matters.
        while !self.outbox.has_waiting() && self.has_room_now() {
            let Some(batch) = self.logs.take_batch() else {
                break;
            };
            self.transmit(0, Body::LogBatch(batch));
        }
    }

    fn has_room_now(&self) -> bool {
        let link = self.link.as_ref();
        link.is_some_and(|link| link.outbound.capacity() > 0 && !link.outbound.is_closed())
    }

    fn transmit(&self, sequence: u64, body: Body) {
        let message = v1::AgentMessage {
            sequence,
            body: Some(body),
        };
        if let Some(link) = &self.link
            && let Err(error) = link.outbound.try_send(message)
        {
            // The link is gone, and its last event is on the way; letters are sent again.
            debug!("a message was not sent: {error}");
        }
    }

    fn heartbeat(&self) -> Body {
        Body::Heartbeat(v1::Heartbeat {
            time_unix_ms: unix_ms(),
            memory_available_bytes: host::available_memory(),
            job_id: self.jobs.running().unwrap_or_default().to_owned(),
        })
    }

    fn progress(&self) -> Option<Body> {
        let worker = self.worker.as_ref()?;
        let (step, done) = worker.watch.step(&worker.spec);
        let total = worker.watch.total().unwrap_or_default();
        Some(Body::JobProgress(v1::JobProgress {
            job_id: worker.spec.id.clone(),
            step: step.to_owned(),
            bytes_done: done.0.min(total.0),
            bytes_total: total.0,
            overall_progress_percent: worker.percent.into(),
        }))
    }
}

fn body_of(jobs: &JobTable, letter: &Letter) -> Option<Body> {
    Some(match letter {
        Letter::Accepted(id) => Body::JobAccepted(v1::JobAccepted {
            job_id: id.clone(),
            attempt: jobs.record(id).map_or(0, |record| record.attempt),
        }),
        Letter::Rejected {
            id,
            attempt,
            refusal,
        } => Body::JobRejected(wire::rejected(id, *attempt, refusal)),
        Letter::Finished(id) => {
            let record = jobs.record(id)?;
            let RecordState::Finished { job, at, .. } = &record.state else {
                return None;
            };
            Body::JobFinished(wire::finished(id, record.attempt, job, *at))
        }
    })
}

/// A limit of the protocol.
const MOST_HELD: usize = 64;
