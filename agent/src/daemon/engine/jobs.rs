//! What the table of jobs asks for, carried out: checks, files of the journal, the job's thread.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ce_disk::sink::smb::SmbCredentials;
use ce_proto::v1;
use tracing::{info, warn};

use super::super::offer;
use super::{Engine, EngineError, QUIET, Worker};
use crate::job::commit_note::{CommitNotes, Fate};
use crate::job::machine::{JobAction, JobEvent, Letter, Offer, Reconsidered, RecordState, Terms};
use crate::job::{CHANGING, ErrorCode, Job, JobError, JobSpec, Watch, driver};
use crate::service;
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
        service::job(Some(&worker.told()));
        let mut events = vec![JobEvent::Progressed(worker.percent)];
        if worker.watch.awaited_disk(&worker.spec).is_none() {
            events.push(JobEvent::DiskCame);
        }
        self.outbox.note_progress();
        for event in events {
            let actions = self.jobs.on(event, Instant::now());
            self.act_on_jobs(actions, None).await?;
        }
        Ok(())
    }

    pub(super) async fn on_ended(&mut self, mut job: Job) -> Result<(), EngineError> {
        let worker = self.worker.take();
        service::job(None);
        self.memory_due = Some(Instant::now() + QUIET);
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
                    let result = self.reconsider(&id)?;
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
                let terms = terms_of(&spec);
                self.checked = Some(spec);
                JobEvent::Checked(given, Ok(terms))
            }
            Err(refusal) => JobEvent::Checked(given, Err(refusal)),
        }
    }

    /// What can be said of a job that ran when an earlier life of the daemon ended.
    fn reconsider(&mut self, id: &str) -> Result<Reconsidered, EngineError> {
        let Some(record) = self.jobs.record(id) else {
            let error = JobError::new(ErrorCode::Internal, "the job has no record");
            let job = Job::not_run(id.to_owned(), "unknown", error);
            return Ok(Reconsidered::Interrupted(Box::new(job)));
        };
        let operation = record.request.get("operation");
        let operation = operation.and_then(|operation| operation.as_str());
        if let Some(operation) = RESUMABLE.into_iter().find(|name| Some(*name) == operation) {
            return Ok(self.go_on(id, operation));
        }
        let changes = CHANGING.into_iter().find(|name| Some(*name) == operation);
        let operation = changes.unwrap_or("unknown");
        // The record may be a second behind the job.
        if record.state == RecordState::Waiting && self.journal.commit_note(id)?.is_none() {
            return Ok(self.go_on(id, operation));
        }
        self.reconsider_change(id, operation)
    }

    /// Checks a job anew that has left nothing that would stand against it.
    fn go_on(&mut self, id: &str, operation: &'static str) -> Reconsidered {
        let request = self.jobs.record(id).map(|record| record.request.clone());
        match offer::check(id, &request.unwrap_or_default(), None, &self.config) {
            Ok(mut spec) => {
                info!(job = id, "the job was interrupted and is gone on with");
                let warning = "the agent was restarted while the job ran, and went on with it";
                spec.warnings.push(warning.into());
                let terms = terms_of(&spec);
                self.checked = Some(spec);
                Reconsidered::GoOn(terms)
            }
            Err(refusal) => interrupted(
                id,
                operation,
                &format!("can't go on with it: {}", refusal.error),
                "send it again under a new name: an export goes on from what is left of it",
            ),
        }
    }

    /// The same for one that changes a disk: its disk says what became of it.
    fn reconsider_change(
        &self,
        id: &str,
        operation: &'static str,
    ) -> Result<Reconsidered, EngineError> {
        const LOOK: &str = "look at the disk with `ce-agent inspect`, and at `ce-agent recover`";
        // The image is complete before the disk is changed.
        let again = match operation {
            "prepareAndPublish" => {
                "see whether there is an image, and send it again under new names"
            }
            _ => "send it again under a new name",
        };
        let Some(note) = self.journal.commit_note(id)? else {
            let what = "had not begun to write: the disk is as it was";
            return Ok(interrupted(id, operation, what, again));
        };
        let mut unfinished = self.unfinished.iter();
        if let Some(left) = unfinished.find(|left| left.may_be_of(note.disk())) {
            let what = format!("has written a part of it: {}", left.problem);
            return Ok(interrupted(id, operation, &what, LOOK));
        }
        Ok(match note.fate() {
            Fate::Committed(mut job) => {
                info!(
                    job = id,
                    "the job was interrupted, and what it changes is on the disk"
                );
                let warning = "the agent was restarted while the job ran, when all that it changed \
                               was about to be on the disk or was there; now it is";
                if let Some(warnings) = job.get_mut("warnings").and_then(|list| list.as_array_mut())
                {
                    warnings.push(warning.into());
                }
                Reconsidered::Done(job)
            }
            Fate::Untouched => {
                let what = "had not begun to write: the disk is as it was";
                interrupted(id, operation, what, again)
            }
            Fate::Unknown(problem) => {
                let what = format!("what it has written is not known: {problem}");
                interrupted(id, operation, &what, LOOK)
            }
        })
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
        let notes = CommitNotes::new(Arc::clone(&self.journal), id.to_owned(), operation);
        let watch = Arc::new(Watch::with_notes(notes));
        self.logs.set_job(id);
        let ended = self.ended.clone();
        let started = driver::start(Arc::clone(&spec), Arc::clone(&watch), move |job| {
            // Without a receiver the process is about to end.
            let _ = ended.send(job);
        });
        match started {
            Ok(()) => {
                let worker = Worker {
                    spec,
                    watch,
                    is_resumed,
                    told_at: Instant::now(),
                    percent,
                };
                service::job(Some(&worker.told()));
                self.worker = Some(worker);
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

fn terms_of(spec: &JobSpec) -> Terms {
    Terms {
        limit: spec.timeout.unwrap_or(DEFAULT_TIMEOUT),
        waits: spec.disk.awaited.is_some(),
    }
}

/// A job that a restart of the agent ended.
fn interrupted(id: &str, operation: &'static str, what: &str, hint: &str) -> Reconsidered {
    warn!(job = id, "the job was interrupted: the agent {what}");
    let message = format!("the agent was restarted while the job ran, and {what}");
    let error = JobError::new(ErrorCode::Interrupted, message).with_hint(hint);
    Reconsidered::Interrupted(Box::new(Job::not_run(id.to_owned(), operation, error)))
}

/// No more often than this is progress told.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(950);

/// For a request that names none; requests always do.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(7200);

/// Operations that can be begun again where nothing or any part of them is done.
const RESUMABLE: [&str; 4] = ["diagnostics", "export", "inspect", "publish"];
