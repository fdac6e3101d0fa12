//! Single stories; `model` has the properties.

use super::*;

const NOW: UnixMillis = UnixMillis(1_000_000);

struct Stage {
    machine: Machine,
    sessions: u64,
}

impl Stage {
    fn new() -> Self {
        Self {
            machine: Machine::restore(Limits::default(), [], NOW),
            sessions: 0,
        }
    }

    fn on(&mut self, event: Event, now: UnixMillis) -> Vec<Action> {
        self.machine.on(event, now).unwrap()
    }

    fn submit(&mut self, id: &str) -> Vec<Action> {
        let event = Event::Submit {
            job: job(id),
            operation: "inspect".into(),
            target: None,
        };
        self.on(event, NOW)
    }

    fn connect(&mut self, name: &str, state: &str, held: &[&str]) -> Vec<Action> {
        self.sessions += 1;
        let event = Event::Connected {
            agent: agent(name),
            session: SessionId(self.sessions),
            state: state.parse().unwrap(),
            held: held.iter().map(|id| job(id)).collect(),
        };
        self.on(event, NOW)
    }

    fn say(&mut self, name: &str, id: &str, attempt: u32, word: Word) -> Vec<Action> {
        let event = Event::Said {
            agent: agent(name),
            job: job(id),
            attempt,
            word,
        };
        self.on(event, NOW)
    }

    fn status(&self, id: &str) -> &'static str {
        self.machine.job(&job(id)).unwrap().status()
    }
}

fn job(id: &str) -> JobId {
    id.parse().unwrap()
}

fn agent(name: &str) -> AgentId {
    name.parse().unwrap()
}

fn finished() -> Word {
    Word::Finished(EndStatus::Complete, JobResult::default())
}

#[test]
fn a_job_is_saved_before_it_is_sent_and_goes_to_one_agent() {
    let mut stage = Stage::new();
    stage.connect("a", "state-a", &[]);
    stage.connect("b", "state-b", &[]);
    let actions = stage.submit("j");
    let expected = [
        Action::Save(job("j")),
        Action::Save(job("j")),
        Action::Start(SessionId(1), job("j"), 1),
    ];
    assert_eq!(actions, expected);
    assert_eq!(stage.status("j"), "pending");
    stage.say("a", "j", 1, Word::Accepted);
    assert_eq!(stage.status("j"), "inProgress");
    stage.say("a", "j", 1, finished());
    assert_eq!(stage.status("j"), "complete");
    assert_eq!(stage.machine.job(&job("j")).unwrap().progress.percent, 100);
}

#[test]
fn jobs_wait_for_their_turn_and_for_the_agent_that_was_named() {
    let mut stage = Stage::new();
    stage.submit("first");
    let event = Event::Submit {
        job: job("second"),
        operation: "inspect".into(),
        target: Some(agent("b")),
    };
    stage.on(event, NOW);
    stage.submit("third");
    let started = stage.connect("a", "state-a", &[]);
    assert!(started.contains(&Action::Start(SessionId(1), job("first"), 1)));
    let next = stage.say("a", "first", 1, finished());
    assert!(
        next.contains(&Action::Start(SessionId(1), job("third"), 1)),
        "{next:?}"
    );
    let named = stage.connect("b", "state-b", &[]);
    assert!(named.contains(&Action::Start(SessionId(2), job("second"), 1)));
}

#[test]
fn an_unanswered_job_is_sent_again_to_the_same_agent_only() {
    let mut stage = Stage::new();
    stage.connect("a", "state-a", &[]);
    stage.submit("j");
    stage.on(Event::Disconnected(agent("a"), SessionId(1)), NOW);
    let other = stage.connect("b", "state-b", &[]);
    assert_eq!(other, []);
    let again = stage.connect("a", "state-a", &[]);
    assert_eq!(again, [Action::Start(SessionId(3), job("j"), 1)]);
    assert_eq!(stage.machine.job(&job("j")).unwrap().attempt, 1);
}

#[test]
fn an_agent_without_its_state_loses_its_job_and_no_other_gets_it() {
    for accepted in [false, true] {
        let mut stage = Stage::new();
        stage.connect("a", "state-a", &[]);
        stage.submit("j");
        if accepted {
            stage.say("a", "j", 1, Word::Accepted);
        }
        stage.connect("b", "state-b", &[]);
        let actions = stage.connect("a", "new-state", &[]);
        assert_eq!(actions[0], Action::Replaced(SessionId(1)));
        let Action::SaveResult(_, result) = &actions[1] else {
            panic!("{actions:?}");
        };
        assert_eq!(result.error.as_ref().unwrap().code, "AgentLost");
        assert_eq!(actions.len(), 2, "{actions:?}");
    }
}

#[test]
fn a_result_that_comes_after_its_agent_was_given_up_is_kept_all_the_same() {
    let mut stage = Stage::new();
    stage.connect("a", "state-a", &[]);
    stage.submit("j");
    stage.say("a", "j", 1, Word::Accepted);
    stage.on(Event::Disconnected(agent("a"), SessionId(1)), NOW);
    let limit = Limits::default().away_ms;
    assert_eq!(stage.on(Event::Tick, NOW.plus(limit - 1)), []);
    stage.on(Event::Tick, NOW.plus(limit));
    assert_eq!(stage.status("j"), "failed");
    stage.connect("a", "state-a", &["j"]);
    stage.say("a", "j", 1, finished());
    assert_eq!(stage.status("j"), "complete");
    // And only then: the next one changes nothing.
    let again = Word::Finished(EndStatus::Failed, JobResult::default());
    assert_eq!(stage.say("a", "j", 1, again), []);
    assert_eq!(stage.status("j"), "complete");
}

#[test]
fn a_busy_agents_job_goes_to_another_and_its_late_word_means_nothing() {
    let mut stage = Stage::new();
    stage.connect("a", "state-a", &[]);
    stage.submit("j");
    stage.connect("b", "state-b", &[]);
    let actions = stage.say("a", "j", 1, Word::Declined { draining: false });
    assert!(
        actions.contains(&Action::Start(SessionId(2), job("j"), 2)),
        "{actions:?}"
    );
    assert_eq!(stage.machine.job(&job("j")).unwrap().attempt, 2);
    assert_eq!(
        stage.say("a", "j", 1, Word::Declined { draining: false }),
        []
    );
    let word = stage.say("a", "j", 2, finished());
    assert!(matches!(word[..], [Action::Note(_)]), "{word:?}");
    assert_eq!(stage.status("j"), "pending");
}

#[test]
fn a_job_is_cancelled_at_once_only_if_no_agent_has_it() {
    let mut stage = Stage::new();
    stage.submit("waits");
    stage.on(Event::Cancel(job("waits")), NOW);
    assert_eq!(stage.status("waits"), "cancelled");
    stage.connect("a", "state-a", &[]);
    stage.submit("runs");
    let actions = stage.on(Event::Cancel(job("runs")), NOW);
    assert!(actions.contains(&Action::Cancel(SessionId(1), job("runs"))));
    assert_eq!(stage.status("runs"), "pending");
    // Too late: it was complete.
    stage.say("a", "runs", 1, finished());
    assert_eq!(stage.status("runs"), "complete");
    assert_eq!(
        stage.machine.on(Event::Cancel(job("never")), NOW),
        Err(Refusal::Unknown(job("never")))
    );
}

#[test]
fn progress_never_goes_back_and_is_taken_from_its_agent_only() {
    let mut stage = Stage::new();
    stage.connect("a", "state-a", &[]);
    stage.submit("j");
    let at = |percent| Progress {
        percent,
        ..Progress::default()
    };
    assert!(stage.machine.progress(&agent("a"), &job("j"), at(40)));
    assert!(stage.machine.progress(&agent("a"), &job("j"), at(30)));
    assert!(!stage.machine.progress(&agent("b"), &job("j"), at(90)));
    assert_eq!(stage.machine.job(&job("j")).unwrap().progress.percent, 40);
}

#[test]
fn jobs_that_ended_long_ago_are_forgotten_and_only_so_many_wait() {
    let mut stage = Stage::new();
    stage.machine.limits.unfinished = 2;
    stage.submit("a");
    stage.submit("b");
    let event = Event::Submit {
        job: job("c"),
        operation: "inspect".into(),
        target: None,
    };
    assert_eq!(stage.machine.on(event, NOW), Err(Refusal::Full(2)));
    stage.on(Event::Cancel(job("a")), NOW);
    let later = NOW.plus(Limits::default().keep_ms);
    assert_eq!(stage.on(Event::Tick, later), [Action::Remove(job("a"))]);
    assert!(stage.machine.job(&job("b")).is_some());
}

#[test]
fn a_job_that_cannot_be_sent_again_fails_until_its_result_comes_after_all() {
    let mut stage = Stage::new();
    stage.connect("a", "state-a", &[]);
    stage.submit("j");
    stage.connect("a", "state-a", &["j"]);
    let why = JobResult::failure("InvalidRequest", "the wallet has no such credentials", "");
    stage.on(Event::Unsendable(job("j"), why), NOW);
    assert_eq!(stage.status("j"), "failed");
    stage.say("a", "j", 1, finished());
    assert_eq!(stage.status("j"), "complete");
}
