//! How long to wait before the next try.

use std::thread;
use std::time::{Duration, Instant};

use ce_disk::cancel::Cancel;

/// Exponential backoff with full jitter: each wait is a random part of a limit that doubles.
///
/// Many agents that lose one server at one moment do not come back to it at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    tries: u32,
}

impl Backoff {
    /// The next wait.
    pub(super) fn next(&mut self) -> Duration {
        let doubled = FIRST_LIMIT.saturating_mul(1 << self.tries.min(16));
        self.tries += 1;
        doubled.min(LONGEST).mul_f64(fastrand::f64())
    }

    /// Begins anew, after something has worked.
    pub(super) fn reset(&mut self) {
        self.tries = 0;
    }
}

/// Waits for `duration`, or until a cancel is asked for; says whether it was.
pub(super) fn wait(duration: Duration, cancel: &Cancel) -> bool {
    let until = Instant::now() + duration;
    loop {
        if cancel.is_requested() {
            return true;
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        thread::sleep(left.min(TICK));
    }
}

const FIRST_LIMIT: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_differ() {
        let mut backoff = Backoff::default();
        for limit in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
            let wait = backoff.next().as_secs_f64();
            assert!(wait <= limit, "{wait} of {limit}");
        }
        let waits: Vec<_> = (0..1000).map(|_| backoff.next()).collect();
        assert!(waits.iter().all(|wait| *wait <= LONGEST));
        assert!(waits.iter().any(|wait| *wait > LONGEST / 2));
        assert!(waits.iter().any(|wait| *wait < LONGEST / 2));
        backoff.reset();
        assert!(backoff.next() <= FIRST_LIMIT);
    }

    #[test]
    fn a_cancel_ends_the_wait() {
        let cancel = Cancel::default();
        assert!(!wait(Duration::from_millis(1), &cancel));
        cancel.request();
        assert!(wait(LONGEST, &cancel));
    }
}
