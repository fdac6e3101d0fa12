//! How many messages a session may send: a bucket that fills at a steady rate.

use std::time::Duration;

use tokio::time::Instant;

/// A bucket of permissions.
#[derive(Debug)]
pub struct Pace {
    /// How long one permission takes to come.
    each: Duration,
    /// How many fit into the bucket.
    at_once: u32,
    /// When the bucket will be, or was, full.
    full_at: Instant,
}

impl Pace {
    /// A full bucket of `at_once` permissions, of which `per_second` come back.
    pub fn new(per_second: u32, at_once: u32, now: Instant) -> Self {
        Self {
            each: Duration::from_secs(1) / per_second.max(1),
            at_once,
            full_at: now,
        }
    }

    /// Takes one permission; how long to wait for it if there is none.
    pub fn take(&mut self, now: Instant) -> Option<Duration> {
        self.full_at = self.full_at.max(now) + self.each;
        let wait = (self.full_at - now).saturating_sub(self.each * self.at_once);
        (!wait.is_zero()).then_some(wait)
    }

    /// Takes one permission if there is one now, and says whether there was.
    pub fn take_if_free(&mut self, now: Instant) -> bool {
        let before = self.full_at;
        let is_free = self.take(now).is_none();
        if !is_free {
            self.full_at = before;
        }
        is_free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let start = Instant::now();
        let mut pace = Pace::new(10, 5, start);
        for _ in 0..5 {
            assert_eq!(pace.take(start), None);
        }
        assert_eq!(pace.take(start), Some(Duration::from_millis(100)));
        assert_eq!(pace.take(start), Some(Duration::from_millis(200)));
        let later = start + Duration::from_secs(60);
        assert_eq!(pace.take(later), None);
    }

    #[test]
    fn what_is_not_free_costs_nothing() {
        let start = Instant::now();
        let mut pace = Pace::new(10, 2, start);
        let taken = (0..100).filter(|_| pace.take_if_free(start)).count();
        assert_eq!(taken, 2);
        assert!(pace.take_if_free(start + Duration::from_millis(101)));
    }
}
