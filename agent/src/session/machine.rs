//! The agent's side of a session: a pure state machine.
//!
//! ```text
//!            Tick (when the wait is over)            Opened                  Welcomed
//!  Disconnected ---------------------> Connecting ------------> Greeting -------------> Established
//!     ^  ^  ^                              |                       |                        |
//!     |  |  +-- Failed: the next address --+                       |                        |
//!     |  |      at once, then a wait                               |                        |
//!     |  +------- Failed, Tick (no Welcome in time) ---------------+                        |
//!     +---------- Failed, Goodbye, Tick (silence) ------------------------------------------+
//!
//!  any state -- Stop --> Draining -- JobStopped and all delivered, or not in time --> (Exit)
//! ```
//!
//! It does no I/O and has no clock: events in, actions out, the time is an argument. What is said in
//! a session is not its business, except for the numbers by which messages are counted.
//!
//! The wait grows from half a second to three, after a minute to [`LONGEST_WAIT`], and is random below
//! that. The limit is
//! small, because it decides how long the return of a Connector goes unnoticed: with waits evenly
//! spread below 6 s, half of all agents are back within 1.8 s, and a thousand of them are 330 calls
//! a second. Being refused is no outage; then the limit is [`LONGEST_WAIT_REFUSED`].

use std::time::{Duration, Instant};

use fastrand::Rng;

/// What happens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SessionEvent {
    /// The connection stands and may be greeted over.
    Opened,
    /// The connection, or the attempt at one, is over.
    Failed(Failure),
    /// The Connector has welcomed the agent.
    Welcomed {
        /// How often it expects a sign of life.
        heartbeat: Duration,
    },
    /// Any other message has come, with this number.
    Received {
        /// 0 if it is not counted.
        sequence: u64,
    },
    /// The Connector ends the session.
    Goodbye(Parting),
    /// The certificate is to be renewed, which a greeting asks for.
    Renew,
    /// The agent is to stop.
    Stop,
    /// No job runs any more, and none will.
    JobStopped,
    /// Nothing is left that the Connector has to be told, or something is again.
    Delivered(bool),
    /// Time has passed.
    Tick,
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Failure {
    /// The Connector does not want this agent, or is not the one it should be.
    Refused,
    /// Nothing that the next attempt might not do better.
    Unreachable,
}

/// Why the Connector ends a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Parting {
    /// There is no more work.
    Dismissed {
        /// Whether the machine is to be switched off.
        power_off: bool,
    },
    /// A certificate was handed out.
    Enrolled,
    /// Another session of this agent took the place of this one.
    Replaced,
    /// The Connector stops; come again, but not before this time has passed.
    Stopping(Duration),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SessionAction {
    /// Connect to the address of this index.
    Connect(usize),
    /// Say hello.
    Greet,
    /// Say everything that is to be said, from now on.
    Begin,
    /// Give a sign of life.
    Heartbeat,
    /// Acknowledge up to this number, as soon as what came is dealt with.
    Acknowledge(u64),
    /// End the connection; it is of no use any more. The reason is for the log.
    Close(&'static str),
    /// Stop taking jobs, and stop the one that runs.
    StopJobs,
    /// End the program.
    Exit(Exit),
}

/// How the program ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Exit {
    /// The Connector has no more work.
    Dismissed {
        /// Whether the machine is to be switched off.
        power_off: bool,
    },
    /// Another agent has this one's name.
    Replaced,
    /// It was asked to.
    Stopped,
}

/// The state of the session.
#[derive(Clone, Debug, PartialEq)]
enum Link {
    Disconnected { until: Instant },
    Connecting { since: Instant },
    Greeting { since: Instant },
    Established(Established),
}

#[derive(Clone, Debug, PartialEq)]
struct Established {
    since: Instant,
    heartbeat: Duration,
    next_heartbeat: Instant,
    last_heard: Instant,
    /// The highest number that has come.
    sequence: u64,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Session {
    addresses: usize,
    address: usize,
    link: Link,
    /// Attempts that failed since the last session that lasted.
    failures: u32,
    /// Whether one of this round's attempts was refused.
    refused: bool,
    draining: Option<Draining>,
    delivered: bool,
    random: Rng,
}

#[derive(Clone, Copy, Debug)]
struct Draining {
    exit: Exit,
    /// Set once no job runs: how long what is left may take.
    until: Option<Instant>,
}

impl Session {
    /// A machine for so many addresses, at least one, that connects on its first tick.
    pub(crate) fn new(addresses: usize, random: Rng, now: Instant) -> Self {
        Self {
            addresses: addresses.max(1),
            address: 0,
            link: Link::Disconnected { until: now },
            failures: 0,
            refused: false,
            draining: None,
            delivered: true,
            random,
        }
    }

    /// When a [`SessionEvent::Tick`] is due.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let link = match &self.link {
            Link::Disconnected { until } => (!self.is_exiting_offline()).then_some(*until),
            Link::Connecting { since } | Link::Greeting { since } => Some(*since + GREETING_TIME),
            Link::Established(link) => Some(link.next_heartbeat.min(link.silent_until())),
        };
        let drained = self.draining.and_then(|draining| draining.until);
        [link, drained].into_iter().flatten().min()
    }

    /// Whether messages may be sent.
    pub(crate) fn is_established(&self) -> bool {
        matches!(self.link, Link::Established(_))
    }

    /// Whether the agent is about to stop.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_some()
    }

    /// What is to be done about an event.
    pub(crate) fn on(&mut self, event: SessionEvent, now: Instant) -> Vec<SessionAction> {
        let mut actions = match event {
            SessionEvent::Opened => self.opened(now),
            SessionEvent::Failed(failure) => {
                self.failed(failure, now);
                Vec::new()
            }
            SessionEvent::Welcomed { heartbeat } => self.welcomed(heartbeat, now),
            SessionEvent::Received { sequence } => self.received(sequence, now),
            SessionEvent::Goodbye(parting) => self.parted(parting, now),
            SessionEvent::Renew => self.renew(now),
            SessionEvent::Stop => self.drain(Exit::Stopped),
            SessionEvent::JobStopped => {
                if let Some(draining) = &mut self.draining {
                    draining.until.get_or_insert(now + DELIVERY_TIME);
                }
                Vec::new()
            }
            SessionEvent::Delivered(delivered) => {
                self.delivered = delivered;
                Vec::new()
            }
            SessionEvent::Tick => self.tick(now),
        };
        if let Some(exit) = self.exit(now) {
            if !matches!(self.link, Link::Disconnected { .. }) {
                actions.push(SessionAction::Close("the agent stops"));
                self.link = Link::Disconnected { until: now };
            }
            actions.push(SessionAction::Exit(exit));
        }
        actions
    }

    fn opened(&mut self, now: Instant) -> Vec<SessionAction> {
        match self.link {
            Link::Connecting { .. } => {
                self.link = Link::Greeting { since: now };
                vec![SessionAction::Greet]
            }
            _ => Vec::new(),
        }
    }

    fn welcomed(&mut self, heartbeat: Duration, now: Instant) -> Vec<SessionAction> {
        match self.link {
            Link::Greeting { .. } => {
                self.link = Link::Established(Established {
                    since: now,
                    heartbeat,
                    next_heartbeat: now + heartbeat,
                    last_heard: now,
                    sequence: 0,
                });
                vec![SessionAction::Begin]
            }
            Link::Established(_) => self.close("a second Welcome", Failure::Refused, now),
            _ => Vec::new(),
        }
    }

    fn received(&mut self, sequence: u64, now: Instant) -> Vec<SessionAction> {
        match &mut self.link {
            Link::Established(link) => {
                link.last_heard = now;
                if sequence == 0 {
                    return Vec::new();
                }
                if link.sequence.checked_add(1) != Some(sequence) {
                    return self.close(OUT_OF_SEQUENCE, Failure::Refused, now);
                }
                link.sequence = sequence;
                vec![SessionAction::Acknowledge(sequence)]
            }
            Link::Greeting { .. } => self.close("a message before Welcome", Failure::Refused, now),
            _ => Vec::new(),
        }
    }

    fn parted(&mut self, parting: Parting, now: Instant) -> Vec<SessionAction> {
        if !matches!(self.link, Link::Greeting { .. } | Link::Established(_)) {
            return Vec::new();
        }
        let mut actions = vec![SessionAction::Close("the Connector says goodbye")];
        let until = match parting {
            Parting::Enrolled => now,
            Parting::Stopping(wait) => {
                self.lasted(now);
                self.failures = self.failures.max(1);
                now + self.wait().max(wait.min(LONGEST_REQUESTED_WAIT))
            }
            Parting::Dismissed { power_off } => {
                actions.extend(self.drain(Exit::Dismissed { power_off }));
                now + LONGEST_WAIT_REFUSED
            }
            Parting::Replaced => {
                actions.extend(self.drain(Exit::Replaced));
                now + LONGEST_WAIT_REFUSED
            }
        };
        self.link = Link::Disconnected { until };
        actions
    }

    /// Ends a session, for another one with the same Connector at once.
    fn renew(&mut self, now: Instant) -> Vec<SessionAction> {
        match self.link {
            Link::Established(_) => {
                self.lasted(now);
                self.link = Link::Disconnected { until: now };
                vec![SessionAction::Close("the certificate is to be renewed")]
            }
            _ => Vec::new(),
        }
    }

    fn drain(&mut self, exit: Exit) -> Vec<SessionAction> {
        if self.draining.is_some() {
            return Vec::new();
        }
        self.draining = Some(Draining { exit, until: None });
        vec![SessionAction::StopJobs]
    }

    fn tick(&mut self, now: Instant) -> Vec<SessionAction> {
        match &mut self.link {
            Link::Disconnected { until } if *until <= now => {
                if self.is_exiting_offline() {
                    return Vec::new();
                }
                self.link = Link::Connecting { since: now };
                vec![SessionAction::Connect(self.address)]
            }
            Link::Connecting { since } | Link::Greeting { since }
                if *since + GREETING_TIME <= now =>
            {
                self.close("no session in time", Failure::Unreachable, now)
            }
            Link::Established(link) if link.silent_until() <= now => self.close(
                "nothing was heard for three heartbeats",
                Failure::Unreachable,
                now,
            ),
            Link::Established(link) if link.next_heartbeat <= now => {
                link.next_heartbeat = now + link.heartbeat;
                vec![SessionAction::Heartbeat]
            }
            _ => Vec::new(),
        }
    }

    fn close(&mut self, why: &'static str, failure: Failure, now: Instant) -> Vec<SessionAction> {
        self.failed(failure, now);
        vec![SessionAction::Close(why)]
    }

    fn failed(&mut self, failure: Failure, now: Instant) {
        if matches!(self.link, Link::Disconnected { .. }) {
            return;
        }
        self.lasted(now);
        self.refused |= failure == Failure::Refused;
        self.address = (self.address + 1) % self.addresses;
        // A session that was lost is looked for at the same place first, and soon.
        let is_round_over = self.address == 0;
        let until = match (&self.link, is_round_over) {
            (Link::Established(_), _) => {
                self.address = (self.address + self.addresses - 1) % self.addresses;
                self.failures += 1;
                now + self.wait()
            }
            (_, false) => now,
            (_, true) => {
                self.failures += 1;
                let wait = self.wait();
                self.refused = false;
                now + wait
            }
        };
        self.link = Link::Disconnected { until };
    }

    /// A session that stood for a while counts as a success.
    fn lasted(&mut self, now: Instant) {
        if let Link::Established(link) = &self.link
            && link.since + LONG_ENOUGH <= now
        {
            self.failures = 0;
            self.refused = false;
        }
    }

    /// The next wait: a random part of a limit that doubles.
    fn wait(&mut self) -> Duration {
        let longest = match self.failures {
            _ if self.refused => LONGEST_WAIT_REFUSED,
            ..=SOON_AGAIN => LONGEST_WAIT_AT_FIRST,
            _ => LONGEST_WAIT,
        };
        let doublings = self.failures.saturating_sub(1).min(16);
        let limit = FIRST_WAIT.saturating_mul(1 << doublings).min(longest);
        limit.mul_f64(self.random.f64())
    }

    /// Whether there is no more reason to connect: after a goodbye for good.
    fn is_exiting_offline(&self) -> bool {
        self.draining
            .is_some_and(|draining| draining.exit != Exit::Stopped)
    }

    fn exit(&self, now: Instant) -> Option<Exit> {
        let draining = self.draining?;
        let until = draining.until?;
        (self.delivered || until <= now).then_some(draining.exit)
    }
}

impl Established {
    fn silent_until(&self) -> Instant {
        self.last_heard + self.heartbeat * 3 + SILENCE_MARGIN
    }
}

/// Why a session is closed whose messages are not counted as they should be.
const OUT_OF_SEQUENCE: &str = "a message whose number is not the next one";

const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Most Connectors that go away are restarted, and are back within a minute.
const LONGEST_WAIT_AT_FIRST: Duration = Duration::from_secs(3);

/// So many attempts take about a minute.
const SOON_AGAIN: u32 = 40;

const LONGEST_WAIT: Duration = Duration::from_secs(6);
const LONGEST_WAIT_REFUSED: Duration = Duration::from_secs(30);

/// A Connector may ask for more patience than that, but then it is not given.
const LONGEST_REQUESTED_WAIT: Duration = Duration::from_secs(3600);

/// How long connecting and greeting may take, each.
const GREETING_TIME: Duration = Duration::from_secs(20);

/// How long the delivery of what is left may take when the agent stops.
const DELIVERY_TIME: Duration = Duration::from_secs(5);

/// After this time a session is not taken for one of a series of failures.
const LONG_ENOUGH: Duration = Duration::from_secs(10);

/// The answer to a heartbeat takes its time too.
const SILENCE_MARGIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
