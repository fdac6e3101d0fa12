//! How far a job has come, for whoever wants to know.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::units::ByteCount;

/// The number of bytes of the disk that a job has dealt with.
///
/// The last stage of a job sets it; anyone with a clone reads it at their own pace. It never goes
/// back within a job.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    /// The bytes dealt with so far.
    pub fn done(&self) -> ByteCount {
        ByteCount(self.0.load(Ordering::Relaxed))
    }

    /// Notes that all before `done` is dealt with.
    pub fn reach(&self, done: ByteCount) {
        self.0.fetch_max(done.0, Ordering::Relaxed);
    }
}
