//! The machine against careless agents, bad links and crashes.
//!
//! The model knows what the machine can't: which agent has really begun what. After every step:
//! no job was begun twice, and every acknowledged result is the one that is durable. When all links
//! are mended, every job ends.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// One step of the world.
#[derive(Clone, Debug)]
enum Step {
    Submit(Option<usize>),
    Cancel(usize),
    Connect(usize),
    Disconnect(usize),
    /// The agent deals with the next thing it was sent.
    Hear(usize),
    /// The next thing that the agent says arrives, and is acknowledged.
    Speak(usize),
    /// The next thing arrives, and the acknowledgement is lost with the link.
    SpeakUnheard(usize),
    /// What the agent runs ends.
    Finish(usize),
    /// The agent's state is gone. Only while it is away.
    Forget(usize),
    /// For a while the agent says no.
    Busy(usize, bool),
    /// The Connector is killed and started again.
    Crash,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let agent = 0..AGENTS;
    prop_oneof![
        3 => proptest::option::of(agent.clone()).prop_map(Step::Submit),
        1 => (0_usize..8).prop_map(Step::Cancel),
        4 => agent.clone().prop_map(Step::Connect),
        1 => agent.clone().prop_map(Step::Disconnect),
        8 => agent.clone().prop_map(Step::Hear),
        8 => agent.clone().prop_map(Step::Speak),
        1 => agent.clone().prop_map(Step::SpeakUnheard),
        4 => agent.clone().prop_map(Step::Finish),
        1 => agent.clone().prop_map(Step::Forget),
        1 => (agent, any::<bool>()).prop_map(|(agent, busy)| Step::Busy(agent, busy)),
        1 => Just(Step::Crash),
        1 => prop_oneof![Just(1000), Just(40_000), Just(90_000_000)].prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_job_is_begun_twice_and_no_acknowledged_result_is_lost(
        steps in proptest::collection::vec(step(), 1..150)
    ) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
            world.check();
        }
        world.mend();
    }
}

/// What a real agent keeps in its journal.
#[derive(Clone, Debug)]
struct Entry {
    attempt: u32,
    finished: Option<EndStatus>,
    acknowledged: bool,
}

#[derive(Debug, Default)]
struct Agent {
    state: u32,
    session: Option<SessionId>,
    journal: BTreeMap<JobId, Entry>,
    declined: Vec<(JobId, u32)>,
    busy: bool,
    to_hear: VecDeque<Heard>,
    to_say: VecDeque<(JobId, u32, Said)>,
}

#[derive(Clone, Debug)]
enum Heard {
    Start(JobId, u32),
    Cancel(JobId),
    Ack(JobId, u32, Said),
}

#[derive(Clone, Copy, Debug)]
enum Said {
    Accepted,
    Declined,
    Finished(EndStatus),
}

struct World {
    machine: Machine,
    now: UnixMillis,
    agents: Vec<Agent>,
    durable: BTreeMap<JobId, Job>,
    begun: BTreeMap<JobId, u32>,
    /// The end of each job that an agent knows to be acknowledged.
    acknowledged: BTreeMap<JobId, EndStatus>,
    submitted: usize,
    sessions: u64,
}

impl World {
    fn new() -> Self {
        let now = UnixMillis(1_000_000_000);
        Self {
            machine: Machine::restore(limits(), [], now),
            now,
            agents: (0..AGENTS).map(|_| Agent::default()).collect(),
            durable: BTreeMap::new(),
            begun: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            submitted: 0,
            sessions: 0,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Submit(target) => {
                let event = Event::Submit {
                    job: format!("job-{}", self.submitted).parse().unwrap(),
                    operation: "inspect".into(),
                    target: target.map(name),
                };
                self.submitted += 1;
                self.happen(event);
            }
            Step::Cancel(at) => {
                if at < self.submitted {
                    self.happen(Event::Cancel(format!("job-{at}").parse().unwrap()));
                }
            }
            Step::Connect(at) => self.connect(at),
            Step::Disconnect(at) => self.disconnect(at),
            Step::Hear(at) => self.hear(at),
            Step::Speak(at) => self.speak(at, true),
            Step::SpeakUnheard(at) => {
                self.speak(at, false);
                self.disconnect(at);
            }
            Step::Finish(at) => self.finish(at, EndStatus::Complete),
            Step::Forget(at) => {
                let agent = &mut self.agents[at];
                if agent.session.is_none() {
                    agent.state += 1;
                    agent.journal.clear();
                    agent.declined.clear();
                }
            }
            Step::Busy(at, busy) => self.agents[at].busy = busy,
            Step::Crash => {
                for agent in &mut self.agents {
                    agent.session = None;
                    agent.to_hear.clear();
                    agent.to_say.clear();
                }
                let jobs = self.durable.values().cloned();
                self.machine = Machine::restore(limits(), jobs, self.now);
            }
            Step::Wait(milliseconds) => {
                self.now = self.now.plus(milliseconds);
                self.happen(Event::Tick);
            }
        }
    }

    fn happen(&mut self, event: Event) {
        let actions = self.machine.on(event, self.now).unwrap();
        // First all is made durable, then it is sent.
        for action in &actions {
            if let Action::Save(id) | Action::SaveResult(id, _) = action {
                let job = self.machine.job(id).unwrap();
                self.durable.insert(id.clone(), job.clone());
            }
        }
        for action in actions {
            let (session, heard) = match action {
                Action::Start(session, id, attempt) => (session, Heard::Start(id, attempt)),
                Action::Cancel(session, id) => (session, Heard::Cancel(id)),
                _ => continue,
            };
            let mut agents = self.agents.iter_mut();
            if let Some(agent) = agents.find(|agent| agent.session == Some(session)) {
                agent.to_hear.push_back(heard);
            }
        }
    }

    fn connect(&mut self, at: usize) {
        self.sessions += 1;
        let agent = &mut self.agents[at];
        agent.session = Some(SessionId(self.sessions));
        agent.to_hear.clear();
        agent.to_say.clear();
        let mut held = BTreeSet::new();
        for (id, entry) in &agent.journal {
            if entry.acknowledged {
                continue;
            }
            held.insert(id.clone());
            agent
                .to_say
                .push_back((id.clone(), entry.attempt, Said::Accepted));
            if let Some(status) = entry.finished {
                let said = Said::Finished(status);
                agent.to_say.push_back((id.clone(), entry.attempt, said));
            }
        }
        for (id, attempt) in &agent.declined {
            agent
                .to_say
                .push_back((id.clone(), *attempt, Said::Declined));
        }
        let event = Event::Connected {
            agent: name(at),
            session: SessionId(self.sessions),
            state: format!("state-{at}-{}", agent.state).parse().unwrap(),
            held,
        };
        self.happen(event);
    }

    fn disconnect(&mut self, at: usize) {
        let agent = &mut self.agents[at];
        agent.to_hear.clear();
        agent.to_say.clear();
        if let Some(session) = agent.session.take() {
            self.happen(Event::Disconnected(name(at), session));
        }
    }

    fn hear(&mut self, at: usize) {
        let agent = &mut self.agents[at];
        match agent.to_hear.pop_front() {
            None => {}
            Some(Heard::Start(id, attempt)) => {
                let works = agent.journal.values().any(|entry| entry.finished.is_none());
                if let Some(entry) = agent.journal.get(&id) {
                    let known = entry.attempt;
                    agent.to_say.push_back((id, known, Said::Accepted));
                } else if agent.declined.contains(&(id.clone(), attempt)) {
                    // It has said no to this attempt, and will say so again; see JobRejected.
                } else if agent.busy || works {
                    agent.declined.push((id.clone(), attempt));
                    agent.to_say.push_back((id, attempt, Said::Declined));
                } else {
                    *self.begun.entry(id.clone()).or_default() += 1;
                    let entry = Entry {
                        attempt,
                        finished: None,
                        acknowledged: false,
                    };
                    agent.journal.insert(id.clone(), entry);
                    agent.to_say.push_back((id, attempt, Said::Accepted));
                }
            }
            Some(Heard::Cancel(id)) => {
                let entry = agent.journal.get(&id);
                if entry.is_some_and(|entry| entry.finished.is_none()) {
                    self.finish(at, EndStatus::Cancelled);
                }
            }
            Some(Heard::Ack(id, attempt, said)) => match said {
                Said::Accepted => {}
                Said::Declined => {
                    let acknowledged = (id, attempt);
                    agent.declined.retain(|declined| *declined != acknowledged);
                }
                Said::Finished(status) => {
                    if let Some(entry) = agent.journal.get_mut(&id) {
                        entry.acknowledged = true;
                    }
                    self.acknowledged.insert(id, status);
                }
            },
        }
    }

    fn finish(&mut self, at: usize, status: EndStatus) {
        let agent = &mut self.agents[at];
        let mut journal = agent.journal.iter_mut();
        let Some((id, entry)) = journal.find(|(_, entry)| entry.finished.is_none()) else {
            return;
        };
        entry.finished = Some(status);
        let said = (id.clone(), entry.attempt, Said::Finished(status));
        if agent.session.is_some() {
            agent.to_say.push_back(said);
        }
    }

    fn speak(&mut self, at: usize, heard: bool) {
        let Some((id, attempt, said)) = self.agents[at].to_say.pop_front() else {
            return;
        };
        let word = match said {
            Said::Accepted => Word::Accepted,
            Said::Declined => Word::Declined { draining: false },
            Said::Finished(status) => Word::Finished(status, JobResult::default()),
        };
        self.happen(Event::Said {
            agent: name(at),
            job: id.clone(),
            attempt,
            word,
        });
        if heard {
            // Behind all that was sent before it.
            self.agents[at]
                .to_hear
                .push_back(Heard::Ack(id, attempt, said));
        }
    }

    fn check(&self) {
        for (id, times) in &self.begun {
            assert!(*times <= 1, "{id} was begun {times} times");
        }
        for (id, status) in &self.acknowledged {
            let Phase::Ended(ending) = &self.durable[id].phase else {
                panic!("{id} was acknowledged and goes on: {:?}", self.durable[id]);
            };
            assert_eq!(ending.status, *status, "{id}");
            assert!(!ending.presumed, "{id}");
        }
        // What the machine has in its head is what a restart would find, but for who is away.
        for job in self.machine.jobs() {
            let kept = &self.durable[&job.id];
            assert_eq!((job.attempt, job.status()), (kept.attempt, kept.status()));
            assert_eq!(job.agent(), kept.agent());
        }
    }

    /// Good times: all are there, and say and do what they have to.
    fn mend(&mut self) {
        for at in 0..AGENTS {
            self.agents[at].busy = false;
            self.connect(at);
        }
        for _ in 0..20 * (self.submitted + 1) {
            self.step(Step::Wait(60_000));
            for at in 0..AGENTS {
                for _ in 0..3 {
                    self.hear(at);
                    self.speak(at, true);
                }
                self.finish(at, EndStatus::Complete);
                self.check();
            }
        }
        for job in self.machine.jobs() {
            assert!(job.has_ended(), "{job:?}");
        }
    }
}

fn name(at: usize) -> AgentId {
    format!("agent-{at}").parse().unwrap()
}

/// Nothing is forgotten while the world is looked at.
fn limits() -> Limits {
    Limits {
        keep_ms: u64::MAX,
        ..Limits::default()
    }
}

const AGENTS: usize = 3;
