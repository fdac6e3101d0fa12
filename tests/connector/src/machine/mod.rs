//! Which agent has which job: a pure state machine.
//!
//! ```text
//!   Event (from agents, from the orchestrator, a tick) --> Machine::on --> Vec<Action>
//! ```
//!
//! It does no I/O and has no clock; the time is an argument. The caller carries the actions out in
//! this order: first it makes durable what is to be saved, then it sends and acknowledges. So an
//! agent never knows of something that a crash could make the Connector forget.
//!
//! What it promises, and its tests check against a model of careless agents:
//! - A job is begun at most once, whatever is repeated, lost, or comes late.
//! - The result that an agent had acknowledged is the result that is kept.
//! - Every job ends, if the agents come back or stay away for long enough.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{AgentId, JobId, SessionId, StateId, UnixMillis};

mod job;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub use job::{EndStatus, Ending, Holder, Job, JobError, JobResult, Phase, Progress};

/// All jobs that are kept, and all agents that have a session.
#[derive(Debug)]
pub struct Machine {
    limits: Limits,
    jobs: BTreeMap<JobId, Job>,
    queue: BTreeMap<u64, JobId>,
    /// Jobs that were given to an agent and have not ended.
    held: BTreeMap<AgentId, BTreeSet<JobId>>,
    agents: BTreeMap<AgentId, Link>,
    next_number: u64,
}

/// How long the machine waits for what.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// After this time without its agent a job is given up.
    pub away_ms: u64,
    /// For this time an agent that called itself busy gets nothing.
    pub busy_ms: u64,
    /// For this time a job that has ended is kept.
    pub keep_ms: u64,
    /// How many jobs may wait or run.
    pub unfinished: usize,
    /// How many jobs are kept at all; the oldest that have ended go first.
    pub kept: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const HOUR: u64 = 3_600_000;
        Self {
            away_ms: 24 * HOUR,
            busy_ms: 30_000,
            keep_ms: 30 * 24 * HOUR,
            unfinished: 10_000,
            kept: 20_000,
        }
    }
}

/// An agent's session.
#[derive(Debug)]
struct Link {
    session: SessionId,
    state: StateId,
    not_before: UnixMillis,
    /// Whether it has said that it takes no more.
    draining: bool,
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// A job is to be done.
    Submit {
        /// Its name, new.
        job: JobId,
        /// What it does.
        operation: String,
        /// The only agent that may have it.
        target: Option<AgentId>,
    },
    /// A job is to be stopped.
    Cancel(JobId),
    /// A job that was to be sent cannot be, for a reason that is the Connector's own.
    Unsendable(JobId, JobResult),
    /// An agent has opened a session.
    Connected {
        /// Who.
        agent: AgentId,
        /// The session.
        session: SessionId,
        /// The agent's state.
        state: StateId,
        /// The jobs that it says it has.
        held: BTreeSet<JobId>,
    },
    /// A session is over.
    Disconnected(AgentId, SessionId),
    /// Something that an agent says of a job.
    Said {
        /// Who.
        agent: AgentId,
        /// Which job.
        job: JobId,
        /// Which attempt.
        attempt: u32,
        /// What.
        word: Word,
    },
    /// Time passes.
    Tick,
}

/// What an agent says of a job.
#[derive(Clone, Debug)]
pub enum Word {
    /// It is taken on.
    Accepted,
    /// Not now; perhaps later, or by another.
    Declined {
        /// Whether the agent takes nothing more in this session.
        draining: bool,
    },
    /// Not at all.
    Rejected(JobResult),
    /// It is over.
    Finished(EndStatus, JobResult),
}

/// What is to be done about it.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make the job durable as it is now.
    Save(JobId),
    /// Make the job's result durable, with the job.
    SaveResult(JobId, JobResult),
    /// Forget the job, its result and its logs.
    Remove(JobId),
    /// Send the job, as this attempt. If the job is not at that attempt any more when this is
    /// carried out, there is nothing to send.
    Start(SessionId, JobId, u32),
    /// Ask for the job to be stopped.
    Cancel(SessionId, JobId),
    /// End a session whose agent has opened another.
    Replaced(SessionId),
    /// Tell whoever reads the log.
    Note(String),
}

/// Why an event was not let in.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There is a job of this name.
    #[error("there is a job `{0}` already")]
    Exists(JobId),
    /// Too many jobs wait or run.
    #[error("{0} jobs wait or run; no more are taken")]
    Full(usize),
    /// There is no such job.
    #[error("there is no job `{0}`")]
    Unknown(JobId),
}

impl Machine {
    /// A machine with the jobs that were kept. Nobody is connected.
    pub fn restore(limits: Limits, jobs: impl IntoIterator<Item = Job>, now: UnixMillis) -> Self {
        let mut machine = Self {
            limits,
            jobs: BTreeMap::new(),
            queue: BTreeMap::new(),
            held: BTreeMap::new(),
            agents: BTreeMap::new(),
            next_number: 1,
        };
        for mut job in jobs {
            machine.next_number = machine.next_number.max(job.number.saturating_add(1));
            if let Phase::Sent(holder) | Phase::Running(holder) = &mut job.phase {
                // The time during which the Connector itself was away is not held against agents.
                holder.away_since = Some(now);
            }
            machine.index(&job);
            machine.jobs.insert(job.id.clone(), job);
        }
        machine
    }

    /// The job of that name.
    pub fn job(&self, id: &JobId) -> Option<&Job> {
        self.jobs.get(id)
    }

    /// All jobs, by name.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.jobs.values()
    }

    /// The jobs that an agent has.
    pub fn held_by(&self, agent: &AgentId) -> impl Iterator<Item = &JobId> {
        self.held.get(agent).into_iter().flatten()
    }

    /// Takes note of how far a job is. It is not worth an action: the next one says more.
    ///
    /// Returns whether the job is one that this agent has.
    pub fn progress(&mut self, agent: &AgentId, id: &JobId, progress: Progress) -> bool {
        let Some(job) = self.jobs.get_mut(id) else {
            return false;
        };
        if job.holder().is_none_or(|holder| holder.agent != *agent) {
            return false;
        }
        let percent = progress.percent.clamp(job.progress.percent, 100);
        job.progress = Progress {
            percent,
            ..progress
        };
        true
    }

    /// Lets something happen.
    ///
    /// # Errors
    ///
    /// What was asked for makes no sense now; nothing has changed. Only `Submit` and `Cancel` are
    /// refused.
    pub fn on(&mut self, event: Event, now: UnixMillis) -> Result<Vec<Action>, Refusal> {
        let mut actions = Vec::new();
        match event {
            Event::Submit {
                job,
                operation,
                target,
            } => {
                self.submit(job, operation, target, now, &mut actions)?;
                self.dispatch(now, &mut actions);
            }
            Event::Cancel(job) => self.cancel(&job, now, &mut actions)?,
            Event::Unsendable(job, result) => {
                // It may have been sent before, in an earlier session; then a result can still come.
                self.end(&job, EndStatus::Failed, result, true, now, &mut actions);
                self.dispatch(now, &mut actions);
            }
            Event::Connected {
                agent,
                session,
                state,
                held,
            } => {
                self.connected(agent, session, state, &held, now, &mut actions);
                self.dispatch(now, &mut actions);
            }
            Event::Disconnected(agent, session) => self.disconnected(&agent, session, now),
            Event::Said {
                agent,
                job,
                attempt,
                word,
            } => {
                self.said(&agent, &job, attempt, word, now, &mut actions);
                self.dispatch(now, &mut actions);
            }
            Event::Tick => {
                self.tick(now, &mut actions);
                self.dispatch(now, &mut actions);
            }
        }
        Ok(actions)
    }

    fn submit(
        &mut self,
        id: JobId,
        operation: String,
        target: Option<AgentId>,
        now: UnixMillis,
        actions: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        if self.jobs.contains_key(&id) {
            return Err(Refusal::Exists(id));
        }
        let unfinished = self.queue.len() + self.held.values().map(BTreeSet::len).sum::<usize>();
        if unfinished >= self.limits.unfinished {
            return Err(Refusal::Full(unfinished));
        }
        let job = Job {
            id: id.clone(),
            number: self.next_number,
            operation,
            target,
            created: now,
            attempt: 0,
            phase: Phase::Queued,
            cancel_requested: false,
            progress: Progress::default(),
        };
        self.next_number += 1;
        self.index(&job);
        self.jobs.insert(id.clone(), job);
        actions.push(Action::Save(id));
        Ok(())
    }

    fn cancel(
        &mut self,
        id: &JobId,
        now: UnixMillis,
        actions: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        let Some(job) = self.jobs.get_mut(id) else {
            return Err(Refusal::Unknown(id.clone()));
        };
        if job.has_ended() || job.cancel_requested {
            return Ok(());
        }
        job.cancel_requested = true;
        match job.holder() {
            None => self.end_cancelled(id, now, actions),
            Some(holder) => {
                actions.push(Action::Save(id.clone()));
                if let Some(link) = self.agents.get(&holder.agent) {
                    actions.push(Action::Cancel(link.session, id.clone()));
                }
            }
        }
        Ok(())
    }

    fn connected(
        &mut self,
        agent: AgentId,
        session: SessionId,
        state: StateId,
        says: &BTreeSet<JobId>,
        now: UnixMillis,
        actions: &mut Vec<Action>,
    ) {
        let link = Link {
            session,
            state: state.clone(),
            not_before: now,
            draining: false,
        };
        if let Some(old) = self.agents.insert(agent.clone(), link) {
            actions.push(Action::Replaced(old.session));
        }
        let mine: Vec<JobId> = self.held_by(&agent).cloned().collect();
        for id in mine {
            let Some(job) = self.jobs.get_mut(&id) else {
                continue;
            };
            let (holder, running) = match &mut job.phase {
                Phase::Sent(holder) => (holder, false),
                Phase::Running(holder) => (holder, true),
                Phase::Queued | Phase::Ended(_) => continue,
            };
            holder.away_since = None;
            let lost = if holder.state != state {
                Some("came back without the state in which it had the job")
            } else if running && !says.contains(&id) {
                Some("had accepted the job and knows nothing of it any more")
            } else {
                None
            };
            if let Some(how) = lost {
                let message = format!("agent `{agent}` {how}; whether it was done is not known");
                self.give_up(&id, message, now, actions);
                continue;
            }
            if !running {
                actions.push(Action::Start(session, id.clone(), job.attempt));
            }
            if job.cancel_requested {
                actions.push(Action::Cancel(session, id));
            }
        }
    }

    fn disconnected(&mut self, agent: &AgentId, session: SessionId, now: UnixMillis) {
        if self
            .agents
            .get(agent)
            .is_none_or(|link| link.session != session)
        {
            // It has another session by now.
            return;
        }
        self.agents.remove(agent);
        for id in self.held.get(agent).into_iter().flatten() {
            if let Some(Phase::Sent(holder) | Phase::Running(holder)) =
                self.jobs.get_mut(id).map(|job| &mut job.phase)
            {
                holder.away_since = Some(now);
            }
        }
    }

    fn said(
        &mut self,
        agent: &AgentId,
        id: &JobId,
        attempt: u32,
        word: Word,
        now: UnixMillis,
        actions: &mut Vec<Action>,
    ) {
        let Some(job) = self.jobs.get_mut(id) else {
            let what = format!("agent `{agent}` speaks of job `{id}`, which is not known here");
            actions.push(Action::Note(what));
            return;
        };
        if job.attempt != attempt {
            // It has been given out again since; this is of no meaning any more.
            return;
        }
        let presumed = match &job.phase {
            Phase::Ended(ending) if ending.agent.as_ref() == Some(agent) => Some(ending.presumed),
            Phase::Sent(holder) | Phase::Running(holder) if holder.agent == *agent => None,
            _ => {
                let what = format!("agent `{agent}` speaks of job `{id}`, which it does not have");
                actions.push(Action::Note(what));
                return;
            }
        };
        match (word, presumed) {
            (Word::Finished(status, result), None | Some(true)) => {
                self.end(id, status, result, false, now, actions);
            }
            // Said before.
            (_, Some(_)) => {}
            (Word::Accepted, None) => {
                if let Phase::Sent(holder) = &job.phase {
                    job.phase = Phase::Running(holder.clone());
                    actions.push(Action::Save(id.clone()));
                }
            }
            (Word::Rejected(result), None) => {
                self.end(id, EndStatus::Failed, result, false, now, actions);
            }
            (Word::Declined { draining }, None) => {
                if let Some(link) = self.agents.get_mut(agent) {
                    link.not_before = now.plus(self.limits.busy_ms);
                    link.draining |= draining;
                }
                if matches!(job.phase, Phase::Running(_)) {
                    let what = format!("agent `{agent}` declines job `{id}` after accepting it");
                    actions.push(Action::Note(what));
                } else if job.cancel_requested {
                    self.end_cancelled(id, now, actions);
                } else {
                    job.phase = Phase::Queued;
                    self.unhold(agent, id);
                    if let Some(job) = self.jobs.get(id) {
                        self.queue.insert(job.number, id.clone());
                    }
                    actions.push(Action::Save(id.clone()));
                }
            }
        }
    }

    fn tick(&mut self, now: UnixMillis, actions: &mut Vec<Action>) {
        let overdue = |job: &&Job| {
            let away = job.holder().and_then(|holder| holder.away_since);
            away.is_some_and(|since| since.plus(self.limits.away_ms) <= now)
        };
        let held = self.held.values().flatten();
        let given_up: Vec<(JobId, AgentId)> = held
            .filter_map(|id| self.jobs.get(id))
            .filter(overdue)
            .filter_map(|job| Some((job.id.clone(), job.agent()?.clone())))
            .collect();
        for (id, agent) in given_up {
            let hours = self.limits.away_ms / 3_600_000;
            let message = format!("agent `{agent}` has been away for {hours} hours with the job");
            self.give_up(&id, message, now, actions);
        }
        self.prune(now, actions);
    }

    fn prune(&mut self, now: UnixMillis, actions: &mut Vec<Action>) {
        let mut ended: Vec<(UnixMillis, JobId)> = Vec::new();
        for job in self.jobs.values() {
            if let Phase::Ended(ending) = &job.phase {
                ended.push((ending.at, job.id.clone()));
            }
        }
        ended.sort();
        let surplus = self.jobs.len().saturating_sub(self.limits.kept);
        for (at, (ended_at, id)) in ended.into_iter().enumerate() {
            if at < surplus || ended_at.plus(self.limits.keep_ms) <= now {
                self.jobs.remove(&id);
                actions.push(Action::Remove(id));
            }
        }
    }

    /// Gives jobs that wait to agents that have none.
    fn dispatch(&mut self, now: UnixMillis, actions: &mut Vec<Action>) {
        if self.queue.is_empty() {
            return;
        }
        let mut idle: BTreeSet<AgentId> = self
            .agents
            .iter()
            .filter(|(agent, link)| {
                !link.draining && link.not_before <= now && !self.held.contains_key(*agent)
            })
            .map(|(agent, _)| agent.clone())
            .collect();
        let mut sent = Vec::new();
        for (number, id) in &self.queue {
            if idle.is_empty() {
                break;
            }
            let Some(job) = self.jobs.get_mut(id) else {
                continue;
            };
            let agent = match &job.target {
                Some(target) => idle.take(target),
                None => idle.pop_first(),
            };
            let Some((agent, link)) = agent.and_then(|agent| {
                let link = self.agents.get(&agent)?;
                Some((agent, link))
            }) else {
                continue;
            };
            job.attempt = job.attempt.saturating_add(1);
            job.phase = Phase::Sent(Holder {
                agent: agent.clone(),
                state: link.state.clone(),
                away_since: None,
            });
            actions.push(Action::Save(id.clone()));
            actions.push(Action::Start(link.session, id.clone(), job.attempt));
            self.held.entry(agent).or_default().insert(id.clone());
            sent.push(*number);
        }
        for number in sent {
            self.queue.remove(&number);
        }
    }

    fn end_cancelled(&mut self, id: &JobId, now: UnixMillis, actions: &mut Vec<Action>) {
        let result = JobResult::failure("Cancelled", "cancelled before it was begun", "");
        self.end(id, EndStatus::Cancelled, result, false, now, actions);
    }

    /// Ends a job of which it is not known whether it was done.
    fn give_up(&mut self, id: &JobId, message: String, now: UnixMillis, actions: &mut Vec<Action>) {
        let hint = "look at the disk and the destination, then submit the job anew";
        let result = JobResult::failure("AgentLost", message, hint);
        self.end(id, EndStatus::Failed, result, true, now, actions);
    }

    fn end(
        &mut self,
        id: &JobId,
        status: EndStatus,
        result: JobResult,
        presumed: bool,
        now: UnixMillis,
        actions: &mut Vec<Action>,
    ) {
        let Some(job) = self.jobs.get_mut(id) else {
            return;
        };
        let agent = job.agent().cloned();
        self.queue.remove(&job.number);
        if status == EndStatus::Complete {
            job.progress.percent = 100;
        }
        job.phase = Phase::Ended(Ending {
            status,
            at: now,
            agent: agent.clone(),
            presumed,
        });
        if let Some(agent) = agent {
            self.unhold(&agent, id);
        }
        actions.push(Action::SaveResult(id.clone(), result));
    }

    fn index(&mut self, job: &Job) {
        match &job.phase {
            Phase::Queued => {
                self.queue.insert(job.number, job.id.clone());
            }
            Phase::Sent(holder) | Phase::Running(holder) => {
                let held = self.held.entry(holder.agent.clone()).or_default();
                held.insert(job.id.clone());
            }
            Phase::Ended(_) => {}
        }
    }

    fn unhold(&mut self, agent: &AgentId, id: &JobId) {
        if let Some(held) = self.held.get_mut(agent) {
            held.remove(id);
            if held.is_empty() {
                self.held.remove(agent);
            }
        }
    }
}
