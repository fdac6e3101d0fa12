//! What is logged of peers that are not let in: enough to see why, and not as much as they like.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;
use tracing::{debug, warn};

use crate::session::Pace;

/// The log of peers that were turned away.
#[derive(Debug)]
pub struct TurnedAway {
    pace: Mutex<Pace>,
}

impl TurnedAway {
    /// A log with room for some lines at once, and then for one a second.
    pub fn new() -> Self {
        Self {
            pace: Mutex::new(Pace::new(LINES_PER_SECOND, LINES_AT_ONCE, Instant::now())),
        }
    }

    /// Notes why a peer was turned away.
    pub fn note(&self, address: SocketAddr, why: &str) {
        let is_free = {
            // Whoever panicked with it left whole numbers.
            let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
            pace.take_if_free(Instant::now())
        };
        match is_free {
            true => warn!(%address, "not let in: {why}"),
            false => debug!(%address, "not let in: {why}"),
        }
    }
}

impl Default for TurnedAway {
    fn default() -> Self {
        Self::new()
    }
}

const LINES_PER_SECOND: u32 = 1;
const LINES_AT_ONCE: u32 = 30;
