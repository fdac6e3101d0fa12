//! The thread that a daemon's job runs on.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use tracing::warn;

use super::{ErrorCode, Job, JobError, JobSpec, Watch, execute};

/// Runs a job on a thread of its own, and hands what came of it to `done`. The job is watched and
/// stopped by `watch`.
///
/// # Errors
///
/// The system gives no thread; `done` is not called then.
pub(crate) fn start(
    spec: Arc<JobSpec>,
    watch: Arc<Watch>,
    done: impl FnOnce(Job) + Send + 'static,
) -> io::Result<()> {
    let run = move || {
        let job = catch_unwind(AssertUnwindSafe(|| execute_anew_if_refused(&spec, &watch)));
        // The panic's own message has been printed by the panic hook.
        done(job.unwrap_or_else(|_| {
            let message = "the job's thread panicked; the log of the agent says where";
            Job::not_run(
                spec.id.clone(),
                spec.work.operation(),
                JobError::new(ErrorCode::Internal, message),
            )
        }));
    };
    thread::Builder::new()
        .name("ce-job".into())
        .spawn(run)
        .map(drop)
}

/// Exports of a daemon go on with what is left of an earlier one, which nobody had to ask for. So
/// what is left is no reason to fail either: if it belongs to another disk, it is replaced.
fn execute_anew_if_refused(spec: &JobSpec, watch: &Watch) -> Job {
    let job = execute(spec, watch);
    let refused = job.error.as_ref();
    let refused = refused.filter(|error| error.code == ErrorCode::ResumeRefused);
    let (Some(error), Some(image)) = (refused, spec.work.image()) else {
        return job;
    };
    if !image.resume || watch.cancel.is_requested() {
        return job;
    }
    warn!(job = %spec.id, "the export is begun anew: {error}");
    let mut anew = spec.clone();
    anew.warnings
        .push(format!("the export was begun anew: {error}"));
    if let Some(image) = anew.work.image_mut() {
        image.resume = false;
    }
    execute(&anew, watch)
}
