//! A flag by which a running job is told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shared by whoever may stop a job and every stage that has to notice.
///
/// Stages poll it once a chunk; it is never reset.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    flag: Arc<AtomicBool>,
    /// The flag of the job that this is a part of.
    job: Option<Arc<Self>>,
}

impl Cancel {
    /// Asks the job to stop.
    pub fn request(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }

    /// Whether someone has asked the job to stop.
    pub fn is_requested(&self) -> bool {
        self.flag.load(Ordering::Relaxed) || self.job.as_ref().is_some_and(|job| job.is_requested())
    }

    /// A flag for a part of the job, which stops with the job and can be stopped alone.
    #[must_use]
    pub fn part(&self) -> Self {
        Self {
            flag: Arc::default(),
            job: Some(Arc::new(self.clone())),
        }
    }

    /// The flag itself, for a signal handler to raise.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_stops_with_its_job_and_the_job_not_with_its_part() {
        let job = Cancel::default();
        let (one, other) = (job.part(), job.part());
        one.request();
        assert!(one.is_requested() && !job.is_requested() && !other.is_requested());
        job.request();
        assert!(other.is_requested());
    }
}
