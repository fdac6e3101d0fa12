//! When the agent is started, when it is ended, and when the machine is switched off.
//!
//! ```text
//!              start                  exit 0
//!  Waiting ----------> Running ---------------------------> Ended: finished
//!     ^                 |   |
//!     +---- wait -------+   +-- no job for too long,        Ended: idle, asked
//!       exit not 0, not         or asked --> Stopping ---->
//!       too often               (TERM, later KILL)
//! ```
//!
//! Events go in, with the time; what is to be done comes out. While a job runs the machine is never
//! switched off for being idle, and an agent that is asked to stop gets the time to bring a commit to
//! its end: what such a commit needs is in memory, and would be lost.

use std::fmt;
use std::time::{Duration, Instant};

use crate::notice::Notice;

/// What happens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// Someone wants the machine to be off: the hypervisor, the keys, the agent.
    Asked,
    /// The agent's process has ended, or could not be started.
    Exited(Exit),
    /// The agent says something.
    Noticed(Notice),
    /// Time passes.
    Tick,
}

/// How the agent's process ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It could not be started.
    NotStarted(String),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "it ended with exit code {code}"),
            Self::Signal(signal) => write!(f, "it was ended by signal {signal}"),
            Self::NotStarted(why) => write!(f, "it can't be started: {why}"),
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// End the agent at once.
    Kill,
    /// Switch the machine off.
    PowerOff(Ending),
    /// Start the agent.
    Start,
    /// Ask the agent to end.
    Terminate,
}

/// Why the machine is switched off.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ending {
    /// Someone asked for it.
    Asked,
    /// The agent fails again and again.
    Failing(String),
    /// The agent ended by itself: the Connector has no more work for it.
    Finished,
    /// There was no job for too long.
    Idle(Duration),
    /// The machine could not be brought up.
    Unusable(String),
}

impl Ending {
    /// Whether all went as it should.
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Asked | Self::Finished)
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => write!(f, "this machine was asked to"),
            Self::Failing(how) => write!(f, "the agent fails again and again; {how}"),
            Self::Finished => write!(f, "the Connector has dismissed the agent"),
            Self::Idle(limit) => {
                write!(f, "there was no job for {} s (ce.idle)", limit.as_secs())
            }
            Self::Unusable(why) => write!(f, "{why}"),
        }
    }
}

/// The state of the agent.
#[derive(Debug)]
pub struct Supervisor {
    idle: Duration,
    state: State,
    /// Since when there is no job; it runs on through restarts of the agent.
    quiet_since: Instant,
    is_busy: bool,
    failures: u32,
    ticked: Instant,
}

#[derive(Clone, Debug)]
enum State {
    Waiting {
        until: Instant,
    },
    Running {
        since: Instant,
        alive: Option<Instant>,
    },
    Stopping {
        kill_at: Instant,
        ending: Ending,
    },
    Ended,
}

impl Supervisor {
    /// The agent is to be started now, and the machine to be switched off after `idle` without a job.
    pub fn new(idle: Duration, now: Instant) -> Self {
        Self {
            idle,
            state: State::Waiting { until: now },
            quiet_since: now,
            is_busy: false,
            failures: 0,
            ticked: now,
        }
    }

    /// How long until the machine is switched off if no job comes; `None` while there is one.
    pub fn idle_left(&self, now: Instant) -> Option<Duration> {
        let quiet = now.saturating_duration_since(self.quiet_since);
        (!self.is_busy).then(|| self.idle.saturating_sub(quiet))
    }

    /// What follows from an event.
    pub fn on(&mut self, event: Event, now: Instant) -> Option<Action> {
        match event {
            Event::Asked => self.stop(Ending::Asked, now),
            Event::Exited(exit) => self.exited(&exit, now),
            Event::Noticed(notice) => {
                self.noticed(&notice, now);
                None
            }
            Event::Tick => self.tick(now),
        }
    }

    fn noticed(&mut self, notice: &Notice, now: Instant) {
        let State::Running { alive, .. } = &mut self.state else {
            return;
        };
        match notice {
            Notice::Alive | Notice::Ready => *alive = Some(now),
            Notice::Job(job) => {
                if self.is_busy || job.is_some() {
                    self.quiet_since = now;
                }
                self.is_busy = job.is_some();
            }
            Notice::Status(_) => {}
        }
    }

    fn exited(&mut self, exit: &Exit, now: Instant) -> Option<Action> {
        if self.is_busy {
            self.is_busy = false;
            self.quiet_since = now;
        }
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Ended => None,
            State::Stopping { ending, .. } => Some(Action::PowerOff(ending)),
            State::Running { .. } if *exit == Exit::Code(0) => {
                Some(Action::PowerOff(Ending::Finished))
            }
            State::Running { since, .. } => {
                if now.saturating_duration_since(since) >= LONG_RUN {
                    self.failures = 0;
                }
                self.failures += 1;
                if self.failures > MOST_FAILURES {
                    return Some(Action::PowerOff(Ending::Failing(exit.to_string())));
                }
                let wait = FIRST_WAIT * 2_u32.pow(self.failures - 1);
                self.state = State::Waiting { until: now + wait };
                None
            }
            waiting @ State::Waiting { .. } => {
                self.state = waiting;
                None
            }
        }
    }

    fn tick(&mut self, now: Instant) -> Option<Action> {
        self.forgive_a_pause(now);
        match &mut self.state {
            State::Waiting { until } if *until <= now => {
                self.state = State::Running {
                    since: now,
                    alive: None,
                };
                Some(Action::Start)
            }
            State::Running { alive, .. } => {
                // Before the first sign it may be finishing a commit of an earlier life.
                let is_silent = alive
                    .is_some_and(|alive| now.saturating_duration_since(alive) > LONGEST_SILENCE);
                if is_silent {
                    *alive = None;
                    return Some(Action::Kill);
                }
                let is_up = alive.is_some();
                match self.idle_left(now) {
                    Some(Duration::ZERO) if is_up => self.stop(Ending::Idle(self.idle), now),
                    _ => None,
                }
            }
            State::Stopping { kill_at, .. } if *kill_at <= now => {
                *kill_at = now + GRACE;
                Some(Action::Kill)
            }
            _ => None,
        }
    }

    /// A machine that was suspended or moved finds that much time has passed in which nobody could do
    /// anything, neither the agent nor its Connector.
    fn forgive_a_pause(&mut self, now: Instant) {
        let gap = now.saturating_duration_since(self.ticked);
        self.ticked = now;
        if gap > PAUSE {
            self.quiet_since += gap;
            if let State::Running {
                alive: Some(alive), ..
            } = &mut self.state
            {
                *alive += gap;
            }
        }
    }

    fn stop(&mut self, ending: Ending, now: Instant) -> Option<Action> {
        match self.state {
            State::Waiting { .. } => {
                self.state = State::Ended;
                Some(Action::PowerOff(ending))
            }
            State::Running { .. } => {
                let grace = if self.is_busy { GRACE_OF_JOB } else { GRACE };
                self.state = State::Stopping {
                    kill_at: now + grace,
                    ending,
                };
                Some(Action::Terminate)
            }
            State::Stopping { .. } | State::Ended => None,
        }
    }
}

/// The agent is told half of it, and gives a sign twice in that time.
pub const LONGEST_SILENCE: Duration = Duration::from_secs(120);

/// An agent that ran for so long has not failed at once.
const LONG_RUN: Duration = Duration::from_secs(600);

/// Waits of 1, 2, 4, 8 and 16 s.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const MOST_FAILURES: u32 = 5;

/// The agent takes up to 5 s to deliver a result.
const GRACE: Duration = Duration::from_secs(20);

/// A commit of several GiB to a slow disk.
const GRACE_OF_JOB: Duration = Duration::from_secs(900);

/// Ticks come every second.
const PAUSE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IDLE: Duration = Duration::from_secs(60);

    /// A supervisor whose agent runs, and the time.
    fn running() -> (Supervisor, Instant) {
        let now = Instant::now();
        let mut supervisor = Supervisor::new(IDLE, now);
        assert_eq!(supervisor.on(Event::Tick, now), Some(Action::Start));
        supervisor.on(Event::Noticed(Notice::Ready), now);
        (supervisor, now)
    }

    /// Ticks for so long, with signs of life, and gives the first action.
    fn pass(supervisor: &mut Supervisor, now: &mut Instant, seconds: u32) -> Option<Action> {
        for _ in 0..seconds {
            *now += Duration::from_secs(1);
            supervisor.on(Event::Noticed(Notice::Alive), *now);
            let action = supervisor.on(Event::Tick, *now);
            if action.is_some() {
                return action;
            }
        }
        None
    }

    fn job(text: &str) -> Event {
        Event::Noticed(Notice::Job((!text.is_empty()).then(|| text.to_owned())))
    }

    #[test]
    fn an_agent_that_is_dismissed_ends_the_machine() {
        let (mut supervisor, now) = running();
        assert_eq!(
            supervisor.on(Event::Exited(Exit::Code(0)), now),
            Some(Action::PowerOff(Ending::Finished))
        );
    }

    #[test]
    fn an_agent_that_fails_is_started_again_later_and_later_and_then_no_more() {
        let (mut supervisor, mut now) = running();
        for wait in [1, 2, 4, 8, 16] {
            assert_eq!(supervisor.on(Event::Exited(Exit::Code(1)), now), None);
            assert_eq!(pass(&mut supervisor, &mut now, wait - 1), None);
            assert_eq!(pass(&mut supervisor, &mut now, 1), Some(Action::Start));
        }
        let ending = supervisor.on(Event::Exited(Exit::Signal(6)), now);
        let Some(Action::PowerOff(ending)) = ending else {
            panic!("{ending:?}")
        };
        assert_eq!(
            ending.to_string(),
            "the agent fails again and again; it was ended by signal 6"
        );
        assert!(!ending.is_good());
    }

    #[test]
    fn an_idle_machine_is_switched_off_and_one_with_a_job_is_not() {
        let (mut supervisor, mut now) = running();
        supervisor.on(job("export"), now);
        assert_eq!(supervisor.idle_left(now), None);
        assert_eq!(pass(&mut supervisor, &mut now, 1000), None);
        supervisor.on(job(""), now);
        assert_eq!(pass(&mut supervisor, &mut now, 59), None);
        assert_eq!(pass(&mut supervisor, &mut now, 1), Some(Action::Terminate));
        assert_eq!(
            supervisor.on(Event::Exited(Exit::Code(0)), now),
            Some(Action::PowerOff(Ending::Idle(IDLE)))
        );
    }

    #[test]
    fn restarts_do_not_put_off_the_end_of_an_idle_machine() {
        let (mut supervisor, mut now) = running();
        assert_eq!(pass(&mut supervisor, &mut now, 50), None);
        supervisor.on(Event::Exited(Exit::Code(1)), now);
        assert_eq!(pass(&mut supervisor, &mut now, 1), Some(Action::Start));
        assert_eq!(pass(&mut supervisor, &mut now, 9), Some(Action::Terminate));
    }

    #[test]
    fn an_agent_that_gives_no_sign_is_killed_but_not_before_its_first_one() {
        let now = Instant::now();
        let mut supervisor = Supervisor::new(Duration::from_secs(1000), now);
        supervisor.on(Event::Tick, now);
        let mut at = now;
        let mut tick = |supervisor: &mut Supervisor, seconds| {
            let mut actions = Vec::new();
            for _ in 0..seconds {
                at += Duration::from_secs(1);
                actions.extend(supervisor.on(Event::Tick, at));
            }
            (actions, at)
        };
        assert_eq!(tick(&mut supervisor, 300).0, []);
        supervisor.on(
            Event::Noticed(Notice::Ready),
            now + Duration::from_secs(300),
        );
        assert_eq!(tick(&mut supervisor, 120).0, []);
        let (actions, at) = tick(&mut supervisor, 5);
        assert_eq!(actions, [Action::Kill]);
        assert_eq!(supervisor.on(Event::Exited(Exit::Signal(9)), at), None);
    }

    #[test]
    fn a_machine_that_stood_still_does_not_hold_it_against_anyone() {
        let (mut supervisor, mut now) = running();
        pass(&mut supervisor, &mut now, 10);
        now += Duration::from_secs(3600);
        assert_eq!(supervisor.on(Event::Tick, now), None);
        assert_eq!(supervisor.idle_left(now), Some(Duration::from_secs(50)));
    }

    #[test]
    fn who_is_asked_to_stop_gets_time_for_a_commit() {
        let (mut supervisor, mut now) = running();
        supervisor.on(job("prepare"), now);
        assert_eq!(supervisor.on(Event::Asked, now), Some(Action::Terminate));
        assert_eq!(supervisor.on(Event::Asked, now), None);
        assert_eq!(pass(&mut supervisor, &mut now, 899), None);
        assert_eq!(pass(&mut supervisor, &mut now, 1), Some(Action::Kill));
        assert_eq!(
            supervisor.on(Event::Exited(Exit::Signal(9)), now),
            Some(Action::PowerOff(Ending::Asked))
        );
    }

    proptest! {
        /// Whatever comes in whatever order, the machine is switched off at most once, the agent is
        /// never started while it runs, and never after the end.
        #[test]
        fn there_is_one_agent_and_one_end(steps in proptest::collection::vec((0_u8..8, 0_u64..200), 1..200)) {
            let mut now = Instant::now();
            let mut supervisor = Supervisor::new(IDLE, now);
            let (mut runs, mut ended) = (false, false);
            for (kind, seconds) in steps {
                now += Duration::from_secs(seconds);
                let event = match kind {
                    0 if runs => { runs = false; Event::Exited(Exit::Code(0)) }
                    1 if runs => { runs = false; Event::Exited(Exit::Code(1)) }
                    2 => Event::Noticed(Notice::Ready),
                    3 => job("x"),
                    4 => job(""),
                    5 if seconds == 7 => Event::Asked,
                    _ => Event::Tick,
                };
                match supervisor.on(event, now) {
                    Some(Action::Start) => {
                        prop_assert!(!runs && !ended);
                        runs = true;
                    }
                    Some(Action::PowerOff(_)) => {
                        prop_assert!(!runs && !ended);
                        ended = true;
                    }
                    Some(Action::Kill | Action::Terminate) => prop_assert!(runs && !ended),
                    None => {}
                }
            }
        }
    }
}
