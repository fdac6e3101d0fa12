//! What the table of jobs asks for, carried out: checks, files of the journal, the job's thread.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ce_disk::sink::smb::SmbCredentials;
use ce_proto::v1;
use tracing::{info, warn};

use super::super::offer;
use super::{Engine, EngineError, Worker};
use crate::job::machine::{JobAction, JobEvent, Letter, Offer, Refusal, RefusalReason};
use crate::job::{ErrorCode, Job, JobError, Watch, driver};
use crate::session::machine::SessionEvent;
use crate::telemetry::unix_ms;

impl Engine {
    pub(super) async fn note_progress(&mut self) -> Result<(), EngineError> {
        let Some(worker) = &mut self.worker else {
            return Ok(());
        };
        if worker.told_at.elapsed() < PROGRESS_INTERVAL {
            return Ok(());
        }
        worker.told_at = Instant::now();
        let percent = worker.watch.overall_percent(&worker.spec.work).min(99);
        worker.percent = worker.percent.max(percent);
        let event = JobEvent::Progressed(worker.percent);
        self.outbox.note_progress();
        let actions = self.jobs.on(event, Instant::now());
        self.act_on_jobs(actions, None).await
    }

    pub(super) async fn on_ended(&mut self, mut job: Job) -> Result<(), EngineError> {
        let worker = self.worker.take();
        if worker.is_some_and(|worker| worker.is_resumed)
            && let Some(error) = &mut job.error
            && error.code == ErrorCode::OutputExists
        {
            let message = format!(
                "the agent was restarted while the job ran, perhaps when it was about to be \
                 complete: {}",
                error.message
            );
            *error = JobError::new(ErrorCode::Interrupted, message)
                .with_hint("check the image, or send the job again under another name");
        }
        let event = JobEvent::Ended(Box::new(job), unix_ms());
        let actions = self.jobs.on(event, Instant::now());
        self.act_on_jobs(actions, None).await?;
        self.logs.set_job("");
        self.tell_if_idle().await
    }

    /// While the agent is stopping, the end of its job is the signal to leave.
    pub(super) async fn tell_if_idle(&mut self) -> Result<(), EngineError> {
        if !self.session.is_draining() || self.jobs.running().is_some() {
            return Ok(());
        }
        let delivered = SessionEvent::Delivered(self.outbox.is_delivered());
        Box::pin(self.on_session(delivered)).await?;
        Box::pin(self.on_session(SessionEvent::JobStopped)).await
    }

    pub(super) async fn on_start(&mut self, mut start: v1::StartJob) -> Result<(), EngineError> {
        match offer::read(&mut start) {
            Ok(received) => {
                let event = JobEvent::Offered(received.offer);
                let actions = self.jobs.on(event, Instant::now());
                self.act_on_jobs(actions, received.credentials).await
            }
            Err(refusal) => {
                info!(job = start.job_id, "refused: {}", refusal.error);
                self.outbox.post(Letter::Rejected {
                    id: start.job_id.clone(),
                    attempt: start.attempt,
                    refusal,
                });
                Ok(())
            }
        }
    }

    pub(super) async fn on_delivered(&mut self, letters: Vec<Letter>) -> Result<(), EngineError> {
        for letter in letters {
            if let Letter::Finished(id) = letter {
                let actions = self.jobs.on(JobEvent::Acknowledged(id), Instant::now());
                self.act_on_jobs(actions, None).await?;
            }
        }
        let delivered = SessionEvent::Delivered(self.outbox.is_delivered());
        Box::pin(self.on_session(delivered)).await
    }

    /// Carries out what the table of jobs asks for, and what that leads to.
    pub(super) async fn act_on_jobs(
        &mut self,
        actions: Vec<JobAction>,
        mut credentials: Option<SmbCredentials>,
    ) -> Result<(), EngineError> {
        let mut open = VecDeque::from(actions);
        while let Some(action) = open.pop_front() {
            let now = Instant::now();
            match action {
                JobAction::Save(id) => self.save(&id).await?,
                JobAction::Forget(id) => self.journal.forget(&id)?,
                JobAction::Check(offer) => {
                    let event = self.check(offer, credentials.take());
                    open.extend(self.jobs.on(event, now));
                }
                JobAction::Reconsider(id) => {
                    let result = self.reconsider(&id);
                    let event = JobEvent::Reconsidered(id, result, unix_ms());
                    open.extend(self.jobs.on(event, now));
                }
                JobAction::Begin(id) => self.start(&id),
                JobAction::Stop => {
                    if let Some(worker) = &self.worker {
                        worker.watch.cancel.request();
                    }
                }
                JobAction::Send(letter) => {
                    if let Letter::Rejected { id, refusal, .. } = &letter {
                        info!(job = id, "refused: {}", refusal.error);
                    }
                    self.outbox.post(letter);
                }
            }
        }
        Ok(())
    }

    async fn save(&self, id: &str) -> Result<(), EngineError> {
        let Some(record) = self.jobs.record(id).cloned() else {
            return Ok(());
        };
        let journal = Arc::clone(&self.journal);
        let saved = tokio::task::spawn_blocking(move || journal.save(&record)).await;
        match saved {
            Ok(saved) => Ok(saved?),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    fn check(&mut self, given: Offer, credentials: Option<SmbCredentials>) -> JobEvent {
        match offer::check(&given.id, &given.request, credentials, &self.config) {
            Ok(spec) => {
                let limit = spec.timeout.unwrap_or(DEFAULT_TIMEOUT);
                self.checked = Some(spec);
                JobEvent::Checked(given, Ok(limit))
            }
            Err(refusal) => JobEvent::Checked(given, Err(refusal)),
        }
    }

    /// Whether a job that ran when an earlier life of the daemon ended can be gone on with.
    fn reconsider(&mut self, id: &str) -> Result<Duration, Box<Job>> {
        let Some(record) = self.jobs.record(id) else {
            return Ok(DEFAULT_TIMEOUT);
        };
        let operation = record.request.get("operation");
        let operation = operation.and_then(|operation| operation.as_str());
        let operation = RESUMABLE.into_iter().find(|name| Some(*name) == operation);
        let checked = match operation {
            Some(_) => offer::check(id, &record.request, None, &self.config),
            None => Err(Refusal::new(
                RefusalReason::Invalid,
                ErrorCode::Interrupted,
                "what it had done is not known",
            )),
        };
        match checked {
            Ok(mut spec) => {
                info!(job = id, "the job was interrupted and is gone on with");
                let warning = "the agent was restarted while the job ran, and went on with it";
                spec.warnings.push(warning.into());
                let limit = spec.timeout.unwrap_or(DEFAULT_TIMEOUT);
                self.checked = Some(spec);
                Ok(limit)
            }
            Err(refusal) => {
                warn!(job = id, "the job was interrupted: {}", refusal.error);
                let message = format!(
                    "the agent was restarted while the job ran, and can't go on with it: {}",
                    refusal.error
                );
                let error = JobError::new(ErrorCode::Interrupted, message).with_hint(
                    "send it again under a new name: an export goes on from what is left of it",
                );
                let operation = operation.unwrap_or("unknown");
                Err(Box::new(Job::not_run(id.to_owned(), operation, error)))
            }
        }
    }

    fn start(&mut self, id: &str) {
        let Some(spec) = self.checked.take().filter(|spec| spec.id == id) else {
            let error = JobError::new(ErrorCode::Internal, "the job was not checked");
            // The receiver lives as long as the loop.
            let _ = self
                .ended
                .send(Job::not_run(id.to_owned(), "unknown", error));
            return;
        };
        let record = self.jobs.record(id);
        let percent = record.map_or(0, |record| record.percent);
        let operation = spec.work.operation();
        let is_resumed = self.greeted.is_none();
        let spec = Arc::new(spec);
        let watch = Arc::new(Watch::default());
        self.logs.set_job(id);
        let ended = self.ended.clone();
        let started = driver::start(Arc::clone(&spec), Arc::clone(&watch), move |job| {
            // Without a receiver the process is about to end.
            let _ = ended.send(job);
        });
        match started {
            Ok(()) => {
                self.worker = Some(Worker {
                    spec,
                    watch,
                    is_resumed,
                    told_at: Instant::now(),
                    percent,
                });
            }
            Err(error) => {
                let message = format!("the job has no thread: {error}");
                let error = JobError::new(ErrorCode::Internal, message);
                let _ = self
                    .ended
                    .send(Job::not_run(id.to_owned(), operation, error));
            }
        }
    }
}

/// No more often than this is progress told.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(950);

/// For a request that names none; requests always do.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(7200);

/// Operations that can be begun again where nothing or any part of them is done.
const RESUMABLE: [&str; 4] = ["diagnostics", "export", "inspect", "publish"];
