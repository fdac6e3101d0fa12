use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::job::Artifacts;

fn request(kind: u8) -> Map<String, Value> {
    Map::from_iter([("operation".to_owned(), json!(format!("op{kind}")))])
}

fn offer(id: &str, attempt: u32, kind: u8) -> Offer {
    Offer {
        id: id.into(),
        attempt,
        request: request(kind),
    }
}

fn ended(status: Status) -> Box<Job> {
    let error = (status != Status::Complete)
        .then(|| JobError::new(ErrorCode::Cancelled, "cancelled; the disk is as it was"));
    Box::new(Job {
        id: "other".into(),
        operation: "export",
        status,
        overall_progress_percent: if status == Status::Complete { 100 } else { 40 },
        artifacts: Artifacts::default(),
        error,
        warnings: Vec::new(),
    })
}

const LIMIT: Duration = Duration::from_secs(60);

/// What a job asks for whose disk is there, or is not.
fn terms(waits: bool) -> Terms {
    Terms {
        limit: LIMIT,
        waits,
    }
}

/// Takes a job on that passes its check.
fn take_on(table: &mut JobTable, id: &str, now: Instant) -> Vec<JobAction> {
    let asked = table.on(JobEvent::Offered(offer(id, 1, 0)), now);
    assert_eq!(asked, [JobAction::Check(offer(id, 1, 0))]);
    table.on(JobEvent::Checked(offer(id, 1, 0), Ok(terms(false))), now)
}

fn result_of(table: &JobTable, id: &str) -> Value {
    match &table.record(id).unwrap().state {
        RecordState::Finished { job, .. } => job.clone(),
        RecordState::Waiting | RecordState::Running => panic!("{id} runs"),
    }
}

#[test]
fn a_job_is_saved_before_it_is_promised_and_promised_before_it_begins() {
    let mut table = JobTable::default();
    let actions = take_on(&mut table, "a", Instant::now());
    assert_eq!(
        actions,
        [
            JobAction::Save("a".into()),
            JobAction::Send(Letter::Accepted("a".into())),
            JobAction::Begin("a".into()),
        ]
    );
}

#[test]
fn a_second_job_is_refused_as_busy_without_a_check() {
    let mut table = JobTable::default();
    let now = Instant::now();
    take_on(&mut table, "a", now);
    let actions = table.on(JobEvent::Offered(offer("b", 3, 0)), now);
    let [
        JobAction::Send(Letter::Rejected {
            id,
            attempt: 3,
            refusal,
        }),
    ] = &actions[..]
    else {
        panic!("{actions:?}")
    };
    assert_eq!((&**id, refusal.reason), ("b", RefusalReason::Busy));
}

#[test]
fn the_same_job_again_is_answered_as_before_and_not_begun() {
    let mut table = JobTable::default();
    let now = Instant::now();
    take_on(&mut table, "a", now);
    let again = JobEvent::Offered(offer("a", 2, 0));
    assert_eq!(
        table.on(again.clone(), now),
        [JobAction::Send(Letter::Accepted("a".into()))]
    );
    assert_eq!(table.record("a").unwrap().attempt, 2);
    table.on(JobEvent::Ended(ended(Status::Complete), 5), now);
    let finished = [
        JobAction::Send(Letter::Accepted("a".into())),
        JobAction::Send(Letter::Finished("a".into())),
    ];
    assert_eq!(table.on(again.clone(), now), finished);
    table.on(JobEvent::Acknowledged("a".into()), now);
    assert!(table.held().is_empty());
    // Even after that: the result is told again, and kept until it is acknowledged again.
    assert_eq!(table.on(again, now)[1..], finished);
    assert_eq!(table.held(), [("a", true)]);
}

#[test]
fn the_same_name_for_something_else_is_refused() {
    let mut table = JobTable::default();
    let now = Instant::now();
    take_on(&mut table, "a", now);
    let actions = table.on(JobEvent::Offered(offer("a", 1, 1)), now);
    assert!(matches!(
        &actions[..],
        [JobAction::Send(Letter::Rejected { refusal, .. })]
            if refusal.reason == RefusalReason::DuplicateId
    ));
}

#[test]
fn a_job_out_of_time_is_stopped_and_fails_with_its_limit() {
    let mut table = JobTable::default();
    let now = Instant::now();
    take_on(&mut table, "a", now);
    assert_eq!(table.wake_at(), Some(now + LIMIT));
    assert_eq!(table.on(JobEvent::Tick, now + LIMIT / 2), []);
    assert_eq!(table.on(JobEvent::Tick, now + LIMIT), [JobAction::Stop]);
    assert_eq!(table.wake_at(), None);
    table.on(JobEvent::Ended(ended(Status::Cancelled), 5), now);
    let job = result_of(&table, "a");
    assert_eq!(
        (&job["status"], &job["error"]["code"]),
        (&json!("failed"), &json!("Timeout"))
    );
    assert_eq!(job["id"], "a");
}

#[test]
fn a_cancel_that_came_too_late_is_told_with_the_result() {
    let mut table = JobTable::default();
    let now = Instant::now();
    take_on(&mut table, "a", now);
    let cancel = || JobEvent::CancelAsked("a".into(), "by mistake".into());
    assert_eq!(
        table.on(JobEvent::CancelAsked("b".into(), String::new()), now),
        []
    );
    assert_eq!(table.on(cancel(), now), [JobAction::Stop]);
    assert_eq!(table.on(cancel(), now), []);
    table.on(JobEvent::Ended(ended(Status::Complete), 5), now);
    let job = result_of(&table, "a");
    assert_eq!(job["status"], "complete");
    assert_eq!(
        job["warnings"][0],
        "the cancel came too late: the job was complete already"
    );
}

#[test]
fn a_draining_agent_stops_its_job_and_takes_no_other() {
    let mut table = JobTable::default();
    let now = Instant::now();
    take_on(&mut table, "a", now);
    assert_eq!(table.on(JobEvent::Drain, now), [JobAction::Stop]);
    table.on(JobEvent::Ended(ended(Status::Cancelled), 5), now);
    let job = result_of(&table, "a");
    assert_eq!(job["status"], "cancelled");
    assert!(
        job["error"]["message"]
            .as_str()
            .unwrap()
            .starts_with("the agent was stopped")
    );
    assert!(matches!(
        &table.on(JobEvent::Offered(offer("b", 1, 0)), now)[..],
        [JobAction::Send(Letter::Rejected { refusal, .. })]
            if refusal.reason == RefusalReason::Draining
    ));
}

#[test]
fn old_jobs_are_forgotten_only_once_they_are_acknowledged() {
    let mut table = JobTable::default();
    let now = Instant::now();
    for n in 0..REMEMBERED + 3 {
        let id = format!("j{n}");
        take_on(&mut table, &id, now);
        table.on(JobEvent::Ended(ended(Status::Complete), 5), now);
    }
    assert_eq!(table.records.len(), REMEMBERED + 3);
    let mut forgotten = Vec::new();
    for n in 0..REMEMBERED + 3 {
        for action in table.on(JobEvent::Acknowledged(format!("j{n}")), now) {
            if let JobAction::Forget(id) = action {
                forgotten.push(id);
            }
        }
    }
    assert_eq!(forgotten, ["j0", "j1", "j2"]);
}

#[test]
fn progress_is_saved_in_steps_and_never_goes_back() {
    let mut table = JobTable::default();
    let now = Instant::now();
    take_on(&mut table, "a", now);
    assert_eq!(table.on(JobEvent::Progressed(4), now), []);
    assert_eq!(
        table.on(JobEvent::Progressed(60), now),
        [JobAction::Save("a".into())]
    );
    assert_eq!(table.on(JobEvent::Progressed(30), now), []);
    // The export is taken up again after a crash, and fails early.
    let (mut table, _) = JobTable::restore(vec![table.record("a").unwrap().clone()]);
    let go_on = Reconsidered::GoOn(terms(false));
    table.on(JobEvent::Reconsidered("a".into(), go_on, 0), now);
    table.on(JobEvent::Ended(ended(Status::Failed), 5), now);
    assert_eq!(result_of(&table, "a")["overallProgressPercent"], 60);
}

#[test]
fn a_job_that_turns_out_to_be_done_after_a_crash_is_told_so_and_not_begun() {
    let mut table = JobTable::default();
    let now = Instant::now();
    take_on(&mut table, "a", now);
    let (mut table, left) = JobTable::restore(vec![table.record("a").unwrap().clone()]);
    assert_eq!(left[1], JobAction::Reconsider("a".into()));
    let done = Reconsidered::Done(json!({"id": "a", "status": "complete"}));
    let actions = table.on(JobEvent::Reconsidered("a".into(), done, 7), now);
    let told = [
        JobAction::Save("a".into()),
        JobAction::Send(Letter::Finished("a".into())),
    ];
    assert_eq!(actions, told);
    assert_eq!(result_of(&table, "a")["status"], "complete");
    assert_eq!(table.record("a").unwrap().percent, 100);
    assert_eq!(table.running(), None);
}

#[test]
fn a_job_waits_for_its_disk_in_a_state_of_its_own_and_within_its_time() {
    let mut table = JobTable::default();
    let now = Instant::now();
    table.on(JobEvent::Offered(offer("a", 1, 0)), now);
    let checked = JobEvent::Checked(offer("a", 1, 0), Ok(terms(true)));
    let actions = table.on(checked, now);
    assert_eq!(actions[2], JobAction::Begin("a".into()));
    assert_eq!(table.record("a").unwrap().state, RecordState::Waiting);
    assert_eq!(
        (table.running(), &*table.held()),
        (Some("a"), &[("a", false)][..])
    );
    // It is the one job that there may be.
    let busy = table.on(JobEvent::Offered(offer("b", 1, 0)), now);
    assert!(matches!(
        &busy[..],
        [JobAction::Send(Letter::Rejected { .. })]
    ));
    // To wait is part of its time.
    assert_eq!(table.wake_at(), Some(now + LIMIT));
    let (mut late, _) = JobTable::restore(vec![table.record("a").unwrap().clone()]);
    assert_eq!(
        table.on(JobEvent::DiskCame, now),
        [JobAction::Save("a".into())]
    );
    assert_eq!(table.record("a").unwrap().state, RecordState::Running);
    assert_eq!(table.on(JobEvent::DiskCame, now), []);
    assert_eq!(table.on(JobEvent::Tick, now + LIMIT), [JobAction::Stop]);
    // After a crash it waits on, or begins if its disk has come meanwhile.
    let on = Reconsidered::GoOn(terms(true));
    let actions = late.on(JobEvent::Reconsidered("a".into(), on, 0), now);
    assert_eq!(actions, [JobAction::Begin("a".into())]);
    assert_eq!(late.record("a").unwrap().state, RecordState::Waiting);
    let (mut come, _) = JobTable::restore(vec![late.record("a").unwrap().clone()]);
    let on = Reconsidered::GoOn(terms(false));
    let actions = come.on(JobEvent::Reconsidered("a".into(), on, 0), now);
    let saved_first = [JobAction::Save("a".into()), JobAction::Begin("a".into())];
    assert_eq!(actions, saved_first);
    assert_eq!(come.record("a").unwrap().state, RecordState::Running);
}

#[test]
fn a_job_that_waits_can_be_cancelled_and_never_leaves_the_table_by_another_way() {
    let mut table = JobTable::default();
    let now = Instant::now();
    assert_eq!(table.on(JobEvent::DiskCame, now), []);
    table.on(JobEvent::Offered(offer("a", 1, 0)), now);
    table.on(JobEvent::Checked(offer("a", 1, 0), Ok(terms(true))), now);
    let cancel = JobEvent::CancelAsked("a".into(), "no disk".into());
    assert_eq!(table.on(cancel, now), [JobAction::Stop]);
    table.on(JobEvent::Ended(ended(Status::Cancelled), 5), now);
    assert_eq!(result_of(&table, "a")["status"], "cancelled");
    // The news of a disk that comes now is of nobody's job.
    assert_eq!(table.on(JobEvent::DiskCame, now), []);
    assert_eq!(result_of(&table, "a")["status"], "cancelled");
}

/// What can happen to an agent, in any order.
#[derive(Clone, Debug)]
enum Fate {
    Offered(u8, u32, u8, bool),
    Ended(bool),
    /// Disks of jobs that are taken on from now on are attached, or not.
    Attached(bool),
    /// The disk of the job that waits comes.
    DiskCame,
    Cancelled(u8),
    Acknowledged(u8),
    TimePasses,
    /// The process dies after so many of the next actions.
    Killed(usize),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => (0..4u8, 1..3u32, prop::bool::weighted(0.1), prop::bool::weighted(0.8))
            .prop_map(|(id, attempt, other, good)| Fate::Offered(id, attempt, other.into(), good)),
        3 => any::<bool>().prop_map(Fate::Ended),
        2 => any::<bool>().prop_map(Fate::Attached),
        2 => Just(Fate::DiskCame),
        1 => (0..4u8).prop_map(Fate::Cancelled),
        2 => (0..4u8).prop_map(Fate::Acknowledged),
        1 => Just(Fate::TimePasses),
        2 => (0..4usize).prop_map(Fate::Killed),
    ]
}

/// The world around the table: a disk that keeps what was saved, and a Connector that counts.
#[derive(Default)]
struct World {
    table: JobTable,
    now: Option<Instant>,
    disk: BTreeMap<String, Record>,
    /// The job that works now, or waits for its disk, if one does.
    worker: Option<String>,
    /// Whether jobs that are checked have no disk yet.
    lacks_disk: bool,
    /// Jobs that may have left something behind: their disk has been there.
    begun: BTreeSet<String>,
    /// Jobs whose end was saved.
    over: BTreeSet<String>,
    /// Results that the Connector was told of and has not acknowledged, of this life.
    told: BTreeSet<String>,
    kill_after: Option<usize>,
    restarts: usize,
}

impl World {
    fn now(&mut self) -> Instant {
        *self.now.get_or_insert_with(Instant::now)
    }

    fn event(&mut self, event: JobEvent, good: bool) {
        let now = self.now();
        let actions = self.table.on(event, now);
        self.act(actions, good);
    }

    fn act(&mut self, actions: Vec<JobAction>, good: bool) {
        for action in actions {
            if self.kill_after == Some(0) {
                self.kill_after = None;
                self.restart();
                return;
            }
            self.kill_after = self.kill_after.map(|left| left - 1);
            match action {
                JobAction::Save(id) => {
                    let record = self.table.record(&id).unwrap().clone();
                    let is_new = !self.disk.contains_key(&id);
                    assert!(
                        record.state != RecordState::Waiting || is_new || self.waits_on_disk(&id),
                        "{id} has begun, and is said to wait"
                    );
                    if matches!(record.state, RecordState::Finished { .. }) {
                        self.over.insert(id.clone());
                    }
                    self.disk.insert(id, record);
                }
                JobAction::Forget(id) => {
                    let record = self.disk.remove(&id).unwrap();
                    let acknowledged = matches!(
                        record.state,
                        RecordState::Finished {
                            acknowledged: true,
                            ..
                        }
                    );
                    assert!(acknowledged, "an unacknowledged result was forgotten");
                }
                JobAction::Check(offer) => {
                    let invalid =
                        || Refusal::new(RefusalReason::Invalid, ErrorCode::InvalidRequest, "no");
                    let terms = terms(self.lacks_disk);
                    let result = if good { Ok(terms) } else { Err(invalid()) };
                    self.event(JobEvent::Checked(offer, result), good);
                }
                JobAction::Reconsider(id) => {
                    let result = match self.restarts % 3 {
                        // As the engine does: one that only waited is gone on with, whatever it is.
                        _ if self.waits_on_disk(&id) => Reconsidered::GoOn(terms(self.lacks_disk)),
                        0 => Reconsidered::Interrupted(ended(Status::Failed)),
                        1 => Reconsidered::Done(json!({"status": "complete"})),
                        _ => Reconsidered::GoOn(terms(self.lacks_disk)),
                    };
                    self.event(JobEvent::Reconsidered(id, result, 1), good);
                }
                JobAction::Begin(id) => {
                    assert!(self.worker.is_none(), "two jobs at once");
                    assert!(!self.over.contains(&id), "{id} is done twice");
                    assert!(self.disk.contains_key(&id), "{id} would be lost by a crash");
                    if !self.waits_on_disk(&id) {
                        self.begun.insert(id.clone());
                    }
                    self.worker = Some(id);
                }
                JobAction::Stop => assert!(self.worker.is_some()),
                JobAction::Send(Letter::Accepted(id)) => {
                    assert!(
                        self.disk.contains_key(&id),
                        "{id} is promised but not saved"
                    );
                }
                JobAction::Send(Letter::Rejected { .. }) => {}
                JobAction::Send(Letter::Finished(id)) => {
                    let saved = &self.disk[&id].state;
                    assert!(
                        matches!(saved, RecordState::Finished { .. }),
                        "{id} is not durable"
                    );
                    self.told.insert(id);
                }
            }
        }
    }

    /// Whether what is durable of the job says that it waits.
    fn waits_on_disk(&self, id: &str) -> bool {
        let record = self.disk.get(id);
        record.is_some_and(|record| record.state == RecordState::Waiting)
    }

    fn restart(&mut self) {
        self.worker = None;
        // What a job has done since its disk came and before that was saved, it does again.
        let mut begun = std::mem::take(&mut self.begun);
        begun.retain(|id| !self.waits_on_disk(id));
        self.begun = begun;
        self.told.clear();
        self.restarts += 1;
        let (table, actions) = JobTable::restore(self.disk.values().cloned().collect());
        self.table = table;
        self.act(actions, true);
    }

    /// Nothing that was saved as unacknowledged is kept from the Connector, and the table is what
    /// the disk says.
    fn check(&self) {
        for (id, record) in &self.disk {
            match record.state {
                RecordState::Finished {
                    acknowledged: false,
                    ..
                } => {
                    assert!(self.told.contains(id), "the result of {id} is told nobody");
                }
                RecordState::Finished { .. } => {}
                RecordState::Waiting | RecordState::Running => {
                    assert_eq!(self.worker.as_ref(), Some(id), "{id} is held by nobody");
                    let is_begun = self.begun.contains(id);
                    let says_so = record.state == RecordState::Running;
                    assert_eq!(says_so, is_begun, "{id} and its record differ");
                }
            }
        }
        assert_eq!(self.worker.as_deref(), self.table.running());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn whatever_is_repeated_lost_or_killed_no_job_is_done_twice_and_no_result_lost(
        fates in prop::collection::vec(fate(), 1..60),
    ) {
        let mut world = World::default();
        for fate in fates {
            match fate {
                Fate::Offered(id, attempt, kind, good) => {
                    let offer = offer(&format!("j{id}"), attempt, kind);
                    world.event(JobEvent::Offered(offer), good);
                }
                Fate::Ended(complete) => {
                    if world.worker.take().is_some() {
                        let status = if complete { Status::Complete } else { Status::Failed };
                        world.event(JobEvent::Ended(ended(status), 2), true);
                    }
                }
                Fate::Attached(attached) => world.lacks_disk = !attached,
                Fate::DiskCame => {
                    if let Some(id) = world.worker.clone() {
                        world.begun.insert(id);
                        world.event(JobEvent::DiskCame, true);
                    }
                }
                Fate::Cancelled(id) => {
                    let event = JobEvent::CancelAsked(format!("j{id}"), String::new());
                    world.event(event, true);
                }
                Fate::Acknowledged(id) => {
                    // A Connector acknowledges only what it was told.
                    if world.told.remove(&format!("j{id}")) {
                        world.event(JobEvent::Acknowledged(format!("j{id}")), true);
                    }
                }
                Fate::TimePasses => {
                    world.now = Some(world.now() + LIMIT * 2);
                    world.event(JobEvent::Tick, true);
                }
                Fate::Killed(after) => world.kill_after = Some(after),
            }
            if world.kill_after.is_none() {
                world.check();
            }
        }
        world.kill_after = None;
        world.restart();
        world.check();
    }
}
