//! Any number of transactions, with any fault, against a vector of bytes.

use std::io::ErrorKind;

use proptest::prelude::*;

use super::*;

/// A transaction: what it writes, and what goes wrong in it.
#[derive(Clone, Debug)]
struct Round {
    writes: Vec<(usize, usize, u8)>,
    fault: Option<(u64, Failure)>,
    cache: u64,
    is_dropped: bool,
}

fn rounds() -> impl Strategy<Value = Vec<Round>> {
    let after_sectors = 0..20_u64;
    let failure = prop_oneof![
        after_sectors
            .clone()
            .prop_map(|after_sectors| Failure::PowerCut { after_sectors }),
        after_sectors.prop_map(|after_sectors| Failure::Error {
            kind: ErrorKind::Other,
            after_sectors
        }),
    ];
    let round = (
        prop::collection::vec((0..SIZE, 1..9000_usize, any::<u8>()), 0..8),
        prop::option::weighted(0.8, (0..50_u64, failure)),
        any::<u64>(),
        prop::bool::weighted(0.1),
    );
    let round = round.prop_map(|(writes, fault, cache, is_dropped)| Round {
        writes,
        fault,
        cache,
        is_dropped,
    });
    prop::collection::vec(round, 1..5)
}

impl Bench {
    fn run(&self, round: &Round) -> Result<Option<Committed>, Failed> {
        let transaction = self.begin().map_err(Failed::Begin)?;
        let disk = transaction.disk();
        for (at, length, byte) in &round.writes {
            let length = (*length).min(SIZE - at);
            disk.write_at(ByteOffset(*at as u64), &vec![*byte; length])
                .map_err(|error| Failed::Commit(error.into()))?;
        }
        if round.is_dropped {
            return Ok(None);
        }
        transaction
            .commit(&Cancel::default(), &Progress::default())
            .map(Some)
            .map_err(Failed::Commit)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn transactions_follow_each_other_whole_or_not_at_all(rounds in rounds()) {
        let bench = Bench::new();
        let mut model = old_content();
        for round in rounds {
            let mut after = model.clone();
            for (at, length, byte) in &round.writes {
                let end = (at + length).min(SIZE);
                after[*at..end].fill(*byte);
            }
            bench.faults.clear();
            if let Some((number, failure)) = round.fault {
                bench.faults.fail_operation(number, failure);
            }
            let result = bench.run(&round);
            bench.lose_power(chance(round.cache));
            bench.recover().unwrap();
            let content = bench.content();
            match result {
                Ok(Some(_)) => prop_assert_eq!(&content, &after),
                Ok(None) => prop_assert_eq!(&content, &model),
                Err(failed) => match failed.outcome() {
                    None | Some(Outcome::Unchanged) => prop_assert_eq!(&content, &model),
                    Some(Outcome::Unfinished) => prop_assert_eq!(&content, &after),
                    Some(Outcome::Undecided) => {
                        prop_assert!(content == model || content == after);
                    }
                },
            }
            prop_assert!(bench.journals().is_empty());
            model = content;
        }
    }
}
