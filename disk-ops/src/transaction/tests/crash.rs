//! The power goes, or something fails, at every single operation.

use std::io::ErrorKind;

use super::*;

/// What an operation can do.
const FAILURES: [Failure; 6] = [
    Failure::PowerCut { after_sectors: 0 },
    Failure::PowerCut { after_sectors: 1 },
    Failure::PowerCut { after_sectors: 5 },
    Failure::Error {
        kind: ErrorKind::Other,
        after_sectors: 0,
    },
    Failure::Error {
        kind: ErrorKind::StorageFull,
        after_sectors: 2,
    },
    Failure::Error {
        kind: ErrorKind::Other,
        after_sectors: u64::MAX,
    },
];

/// What is left of a cache: nothing, all, or anything.
const CACHES: u64 = 5;

fn survivors(cache: u64) -> Box<dyn FnMut() -> bool> {
    match cache {
        0 => Box::new(|| false),
        1 => Box::new(|| true),
        seed => Box::new(chance(seed)),
    }
}

fn operations_of_a_commit() -> u64 {
    let bench = Bench::new();
    bench.commit().unwrap();
    let operations = bench.faults.operations();
    // Making and writing the overlay and the journal, the seals, the disk, and clearing up.
    assert!(operations > 20, "{operations}");
    operations
}

/// The disk as it has to be after a recovery, by what the commit said.
fn check_recovered(bench: &Bench, result: &Result<Committed, Failed>, what: &str) {
    let content = bench.content();
    let (old, new) = (content == old_content(), content == new_content());
    assert!(old || new, "{what}: the disk is between old and new");
    match result {
        Ok(_) => assert!(new, "{what}: the commit said that it is done"),
        Err(failed) => match failed.outcome() {
            None | Some(Outcome::Unchanged) => assert!(old, "{what}: {failed:?}"),
            Some(Outcome::Unfinished) => assert!(new, "{what}: {failed:?}"),
            Some(Outcome::Undecided) => {}
        },
    }
    assert!(bench.journals().is_empty(), "{what}: a journal is left");
    bench.begin().unwrap();
}

#[test]
fn whatever_fails_in_a_commit_the_disk_is_the_old_or_the_new_one() {
    for number in 0..operations_of_a_commit() {
        for failure in FAILURES {
            for cache in 0..CACHES {
                let what = format!("operation {number}, {failure:?}, cache {cache}");
                let bench = Bench::new();
                bench.faults.fail_operation(number, failure);
                let result = bench.commit();
                let is_cut = matches!(failure, Failure::PowerCut { .. });
                assert!(
                    !is_cut || result.as_ref().is_err() || bench.faults.is_dead(),
                    "{what}: nobody noticed"
                );
                let unchanged = result.as_ref().err().map(Failed::outcome);
                if !is_cut && unchanged == Some(Some(Outcome::Unchanged)) {
                    assert_eq!(bench.content(), old_content(), "{what}");
                }
                // Power may go at any later time as well; without it, all that was seen is there.
                if is_cut || cache > 1 {
                    bench.lose_power(survivors(cache));
                } else {
                    bench.faults.clear();
                }
                bench
                    .recover()
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
                bench.lose_power(|| false);
                check_recovered(&bench, &result, &what);
            }
        }
    }
}

#[test]
fn before_the_seal_not_one_byte_of_the_disk_changes() {
    let mut unchanged = 0;
    for number in 0..operations_of_a_commit() {
        let bench = Bench::new();
        let after_sectors = u64::MAX;
        bench
            .faults
            .fail_operation(number, Failure::PowerCut { after_sectors });
        let outcome = bench.commit().err().and_then(|failed| failed.outcome());
        bench.lose_power(|| true);
        if outcome != Some(Outcome::Unfinished) && bench.content() != new_content() {
            assert_eq!(bench.content(), old_content(), "operation {number}");
            unchanged += 1;
        }
    }
    assert!(unchanged > 10, "{unchanged}");
}

#[test]
fn whatever_fails_in_a_recovery_the_next_one_finishes_it() {
    let total = operations_of_a_commit();
    let mut recoveries = 0;
    for number in 0..total {
        // A commit that is cut, with a scratch in which anything may be left.
        let cut = |cache| {
            let bench = Bench::new();
            let after_sectors = 2;
            bench
                .faults
                .fail_operation(number, Failure::PowerCut { after_sectors });
            let result = bench.commit();
            bench.lose_power(survivors(cache));
            (bench, result)
        };
        for cache in [1, 2] {
            let (bench, _) = cut(cache);
            bench.recover().unwrap();
            let operations = bench.faults.operations();
            let expected = bench.content();
            for second in 0..operations {
                for failure in [FAILURES[0], FAILURES[2], FAILURES[3]] {
                    let what = format!("cut at {number}, then {failure:?} at {second}");
                    let (bench, result) = cut(cache);
                    bench.faults.fail_operation(second, failure);
                    // A journal that is done and not removed is a success, too.
                    drop(bench.recover());
                    match failure {
                        Failure::PowerCut { .. } => bench.lose_power(chance(second)),
                        Failure::Error { .. } => bench.faults.clear(),
                    }
                    bench
                        .recover()
                        .unwrap_or_else(|error| panic!("{what}: {error}"));
                    bench.lose_power(|| false);
                    check_recovered(&bench, &result, &what);
                    assert_eq!(bench.content(), expected, "{what}");
                    recoveries += 1;
                }
            }
        }
    }
    assert!(recoveries > 100, "{recoveries}");
}

#[test]
fn a_flush_that_failed_is_not_trusted_even_if_all_looks_right_after_it() {
    let clean = Bench::new();
    clean.commit().unwrap();
    // The flush of the disk, before the mark, its sync, the removal and the sync of the folder.
    let number = clean.faults.operations() - 5;
    let bench = Bench::new();
    bench.faults.fail_operation(number, FAILURES[3]);
    let error = bench.commit().unwrap_err();
    assert_eq!(error.outcome(), Some(Outcome::Unfinished), "{error:?}");
    // All of it can be read, and none of it is on the medium nor ever will be.
    assert_eq!(bench.content(), new_content());
    bench.recover().unwrap();
    bench.lose_power(|| false);
    assert_eq!(bench.content(), new_content());
}

#[test]
fn a_journal_that_is_replayed_twice_changes_nothing_the_second_time() {
    let bench = Bench::cut_in_the_middle();
    let kept = bench.scratch.copy(Faults::default());
    bench.recover().unwrap();
    assert_eq!(bench.content(), new_content());
    let again = Bench {
        scratch: kept,
        ..bench
    };
    again.recover().unwrap();
    assert_eq!(again.content(), new_content());
}

#[test]
fn sectors_that_were_torn_and_cannot_be_read_are_written_again() {
    let mut bench = Bench::cut_in_the_middle();
    bench.disk.fail_until_written(ByteOffset(9 * 4096 + 600));
    assert!(
        bench
            .disk
            .read_at(ByteOffset(9 * 4096), &mut [0; 4096])
            .is_err()
    );
    let recovery = Recovery::open(bench.scratch()).unwrap();
    let journal = recovery.journals().unwrap().remove(0);
    let (cancel, progress) = (Cancel::default(), Progress::default());
    let recovered = recovery
        .finish(&journal, &bench.disk, Trust::Found, &cancel, &progress)
        .unwrap();
    assert_eq!(recovered.found.unreadable, 1);
    assert_eq!(bench.content(), new_content());
}
