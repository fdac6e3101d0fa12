//! Waits for a disk that is not attached yet.
//!
//! ```text
//!  look --> not there --> wait for devices to change, a second at most --+
//!   ^                 \-- time is over: DiskNotFound                     |
//!   +--------------------------------------------------------------------+
//!   |
//!   +-> there, or several, the own one, in use ...: the same after a moment --> as without a wait
//! ```

use std::path::PathBuf;
use std::time::{Duration, Instant};

use ce_disk::discover::{DeviceChanges, Wanted};
use tracing::info;

use super::selection::{Found, Reach, find_disk};
use super::{ErrorCode, JobError, Watch};

/// A disk that is waited for.
#[derive(Clone, Debug)]
pub struct AwaitedDisk {
    /// What the request says of it.
    pub wanted: Wanted,
    /// How far the request is trusted.
    pub reach: Reach,
    /// How long it is waited for.
    pub limit: Duration,
}

/// The device of a disk, as soon as it is attached.
///
/// # Errors
///
/// `DiskNotFound`, with those that are attached, when the time is over; `Cancelled`; and all that a disk that
/// is there can be refused for.
pub(super) fn await_disk(awaited: &AwaitedDisk, watch: &Watch) -> Result<PathBuf, JobError> {
    let selector = &awaited.wanted.selector;
    let mut changes = DeviceChanges::listen();
    let began = Instant::now();
    let mut seen: Option<(Result<PathBuf, JobError>, Instant)> = None;
    let mut absent = None;
    info!(
        seconds = awaited.limit.as_secs(),
        "waiting for the disk {selector}"
    );
    loop {
        let found = match find_disk(&awaited.wanted, &awaited.reach) {
            Ok(Found::None(error)) if began.elapsed() >= awaited.limit => {
                return Err(too_late(error, awaited));
            }
            Ok(Found::None(error)) => {
                absent = Some(error);
                None
            }
            Ok(Found::Disk(path)) => Some(Ok(path)),
            Err(error) => Some(Err(error)),
        };
        seen = match (found, seen) {
            (Some(found), Some((before, at))) if found == before => {
                if at.elapsed() >= SETTLED {
                    if let Ok(path) = &found {
                        info!("the disk {selector} is there: {}", path.display());
                    }
                    return found;
                }
                Some((found, at))
            }
            (found, _) => found.map(|found| (found, Instant::now())),
        };
        let pause = match seen {
            Some(_) => SETTLED,
            None => LOOK_INTERVAL,
        };
        let look_at = Instant::now() + pause;
        loop {
            if watch.cancel.is_requested() {
                // The end of the job's time stops it too, and says less.
                let is_last = seen.is_none() && began.elapsed() + LAST_MOMENT >= awaited.limit;
                if let Some(error) = absent.filter(|_| is_last) {
                    return Err(too_late(error, awaited));
                }
                let message = format!("cancelled while waiting for the disk {selector}");
                return Err(JobError::new(ErrorCode::Cancelled, message));
            }
            let left = look_at.saturating_duration_since(Instant::now());
            if left.is_zero() || changes.wait(left.min(TICK)) {
                break;
            }
        }
    }
}

/// What is told of a disk that did not come.
fn too_late(error: JobError, awaited: &AwaitedDisk) -> JobError {
    let seconds = awaited.limit.as_secs();
    error.of(&format!("waited {seconds} s for the disk"))
}

/// A disk counts as attached, or as refused, when it has been the same for so long: some come with their
/// size first and their name later.
const SETTLED: Duration = Duration::from_millis(500);

/// As often is looked without a reason.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Where the limit is that of the job, both ends are this near to each other.
const LAST_MOMENT: Duration = Duration::from_secs(2);

/// As soon is a cancel noticed.
const TICK: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use ce_disk::discover::DiskSelector;

    use super::*;

    fn awaited(selector: DiskSelector, limit: Duration) -> AwaitedDisk {
        AwaitedDisk {
            wanted: Wanted {
                selector,
                size: None,
                is_changed: false,
            },
            reach: Reach::Local,
            limit,
        }
    }

    #[test]
    fn a_disk_that_does_not_come_is_told_with_the_wait() {
        let limit = Duration::from_millis(1200);
        let awaited = awaited(DiskSelector::Serial("ce-none".into()), limit);
        let began = Instant::now();
        let error = await_disk(&awaited, &Watch::default()).unwrap_err();
        assert!(began.elapsed() >= limit);
        assert_eq!(error.code, ErrorCode::DiskNotFound);
        let told = "waited 1 s for the disk: no disk has serial `ce-none`; attached: ";
        assert!(error.message.starts_with(told), "{error}");
    }

    #[test]
    fn a_wait_that_is_cancelled_ends_at_once() {
        let day = Duration::from_secs(86_400);
        let awaited = awaited(DiskSelector::Serial("ce-none".into()), day);
        let watch = Watch::default();
        watch.cancel.request();
        let error = await_disk(&awaited, &watch).unwrap_err();
        assert_eq!(error.code, ErrorCode::Cancelled, "{error}");
    }

    #[test]
    fn a_device_that_is_there_is_taken_once_it_has_settled() {
        // A device file that every machine has; that it is no disk is found when it is opened.
        let null = DiskSelector::Path("/dev/null".into());
        let began = Instant::now();
        let path = await_disk(&awaited(null, Duration::ZERO), &Watch::default()).unwrap();
        assert_eq!(path, PathBuf::from("/dev/null"));
        assert!(began.elapsed() >= SETTLED);
    }
}
