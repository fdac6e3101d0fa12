//! The agent as a service: what the service manager is told, and the signals that stop it.

use std::io;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::warn;

/// Signals that ask the daemon to stop.
#[derive(Debug)]
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Begins to listen for them.
    ///
    /// # Errors
    ///
    /// The system does not allow it.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The daemon has begun its work.
pub(crate) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// The daemon is about to end.
pub(crate) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// The daemon's loop turns.
pub(crate) fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// One line for `systemctl status`.
pub(crate) fn status(text: &str) {
    notify(&[NotifyState::Status(text)]);
}

/// The job that runs and how far it is, for process 1 of the image: it does not switch the machine
/// off meanwhile, and shows it. Service managers pass over what they don't know (sd_notify(3)).
pub(crate) fn job(told: Option<&str>) {
    let text = format!("X_CE_JOB={}", told.unwrap_or_default());
    notify(&[NotifyState::Custom(&text)]);
}

/// How often [`alive`] has to be called, if anyone watches: twice in the time that is allowed.
pub(crate) fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|allowed| allowed / 2)
}

/// Without a service manager nothing happens.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!("the service manager can't be told: {error}");
    }
}
