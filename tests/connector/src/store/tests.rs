//! What was committed survives a crash at any instant.

use std::io;
use std::sync::{Arc, Mutex};

use super::*;
use crate::machine::{EndStatus, Ending, Phase, Progress};

#[test]
fn everything_reads_back_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jobs.redb");
    let (store, jobs) = Store::open(&path).unwrap();
    assert!(jobs.is_empty());
    store.commit(&batch(1)).unwrap();
    drop(store);
    let (store, jobs) = Store::open(&path).unwrap();
    assert_eq!(jobs, [job(1)]);
    let id = job(1).id;
    assert_eq!(store.request(&id).unwrap(), Some(request(1)));
    assert_eq!(store.result(&id).unwrap(), Some(result(1)));
    assert_eq!(store.logs(&Topic::Job(id), 0, 10).unwrap(), [(0, line(1))]);
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_job_that_is_removed_leaves_nothing_behind() {
    let (store, _) = Store::open_in(redb::backends::InMemoryBackend::new()).unwrap();
    store.commit(&batch(1)).unwrap();
    store.commit(&batch(2)).unwrap();
    let removed = Batch {
        removed: vec![job(1).id],
        ..Batch::default()
    };
    store.commit(&removed).unwrap();
    assert_eq!(store.jobs().unwrap(), [job(2)]);
    let id = job(1).id;
    assert_eq!(store.request(&id).unwrap(), None);
    assert_eq!(store.result(&id).unwrap(), None);
    assert_eq!(store.logs(&Topic::Job(id), 0, 10).unwrap(), []);
    assert_eq!(store.logs(&Topic::Job(job(2).id), 0, 10).unwrap().len(), 1);
}

#[test]
fn logs_keep_their_numbers_and_lose_their_oldest_lines() {
    let (store, _) = Store::open_in(redb::backends::InMemoryBackend::new()).unwrap();
    let topic = Topic::Agent("a".parse().unwrap());
    for _ in 0..3 {
        let mut batch = Batch::default();
        batch.logs.insert(topic.clone(), vec![line(7); 10_000]);
        store.commit(&batch).unwrap();
    }
    let first = store.logs(&topic, 0, 1).unwrap();
    assert_eq!(first[0].0, 10_000);
    let last = store.logs(&topic, 29_999, 10).unwrap();
    assert_eq!(last.len(), 1);
}

#[test]
fn a_crash_after_any_write_loses_nothing_that_was_committed() {
    // One run tells how many writes there are; then the power is cut after each of them.
    let whole = Disk::default();
    let (committed, made) = fill(&whole, usize::MAX);
    assert_eq!(committed, COMMITS);
    let writes = whole.0.lock().unwrap().writes;
    assert!(
        writes > made + 10,
        "{made} of {writes} writes made the database"
    );
    let mut partial = 0;
    // While it is made it has another name; see `Store::open`.
    for power in made..writes {
        let disk = Disk::default();
        let (committed, _) = fill(&disk, power);
        let (store, jobs) = Store::open_in(disk.after_the_crash()).unwrap();
        // The one that was being committed may be there or not, but whole.
        assert!(
            jobs.len() == committed || jobs.len() == committed + 1,
            "{power}: {jobs:?}"
        );
        for (at, found) in jobs.iter().enumerate() {
            assert_eq!(*found, job(at));
            assert_eq!(store.result(&found.id).unwrap(), Some(result(at)));
            assert_eq!(store.request(&found.id).unwrap(), Some(request(at)));
        }
        partial += usize::from(committed > 0 && committed < COMMITS);
    }
    assert!(partial > 0, "no crash fell between two commits");
}

/// Commits until the power is gone; how many commits came back well, and how many writes it took
/// to make the database.
fn fill(disk: &Disk, power: usize) -> (usize, usize) {
    disk.0.lock().unwrap().power = power;
    let (store, _) = Store::open_in(disk.clone()).unwrap();
    let made = disk.0.lock().unwrap().writes;
    let well = (0..COMMITS).take_while(|at| store.commit(&batch(*at)).is_ok());
    let well = well.count();
    // Closing it properly would write; a crash does not.
    std::mem::forget(store);
    (well, made)
}

const COMMITS: usize = 4;

fn job(at: usize) -> Job {
    Job {
        id: format!("job-{at}").parse().unwrap(),
        number: at as u64,
        operation: "inspect".into(),
        target: None,
        created: UnixMillis(1),
        attempt: 1,
        phase: Phase::Ended(Ending {
            status: EndStatus::Complete,
            at: UnixMillis(2),
            agent: Some("agent".parse().unwrap()),
            presumed: false,
        }),
        cancel_requested: false,
        progress: Progress::default(),
    }
}

fn request(at: usize) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("outputImageFilename".into(), format!("image-{at}").into());
    fields
}

fn result(at: usize) -> JobResult {
    JobResult {
        warnings: vec![format!("warning {at}"), "x".repeat(5000)],
        ..JobResult::default()
    }
}

fn line(at: usize) -> LogLine {
    LogLine {
        time: UnixMillis(at as u64),
        level: "info".into(),
        target: "t".into(),
        message: format!("line {at}"),
    }
}

fn batch(at: usize) -> Batch {
    let id = job(at).id;
    let mut batch = Batch {
        requests: vec![(id.clone(), request(at))],
        results: vec![(id.clone(), result(at))],
        ..Batch::default()
    };
    batch.jobs.insert(id.clone(), job(at));
    batch.logs.insert(Topic::Job(id), vec![line(at)]);
    batch
}

/// A disk that loses its power after so many writes, and then what was not synchronized.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<DiskState>>);

#[derive(Debug, Default)]
struct DiskState {
    content: Vec<u8>,
    durable: Vec<u8>,
    writes: usize,
    power: usize,
}

impl Disk {
    /// What is there when the power is back: only what was synchronized.
    fn after_the_crash(&self) -> Self {
        let durable = self.0.lock().unwrap().durable.clone();
        Self(Arc::new(Mutex::new(DiskState {
            content: durable.clone(),
            durable,
            writes: 0,
            power: usize::MAX,
        })))
    }

    fn change(&self, change: impl FnOnce(&mut DiskState)) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        if state.writes >= state.power {
            return Err(io::Error::other("the power is gone"));
        }
        state.writes += 1;
        change(&mut state);
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().content.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = offset as usize;
        out.copy_from_slice(&self.0.lock().unwrap().content[at..at + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|state| state.content.resize(len as usize, 0))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(|state| state.durable.clone_from(&state.content))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = offset as usize;
        self.change(|state| state.content[at..at + data.len()].copy_from_slice(data))
    }
}
