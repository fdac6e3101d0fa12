use proptest::prelude::*;

use super::*;

const HEARTBEAT: Duration = Duration::from_secs(10);

fn session(addresses: usize) -> (Session, Instant) {
    let now = Instant::now();
    (
        Session::new(addresses, fastrand::Rng::with_seed(1), now),
        now,
    )
}

fn establish(session: &mut Session, now: Instant) {
    assert!(matches!(
        session.on(SessionEvent::Tick, now)[..],
        [SessionAction::Connect(_)]
    ));
    assert_eq!(
        session.on(SessionEvent::Opened, now),
        [SessionAction::Greet]
    );
    let welcomed = SessionEvent::Welcomed {
        heartbeat: HEARTBEAT,
    };
    assert_eq!(session.on(welcomed, now), [SessionAction::Begin]);
    assert!(session.is_established());
}

#[test]
fn every_address_is_tried_before_there_is_a_wait() {
    let (mut session, now) = session(3);
    for address in 0..3 {
        assert_eq!(session.wake_at(), Some(now));
        let connect = session.on(SessionEvent::Tick, now);
        assert_eq!(connect, [SessionAction::Connect(address)]);
        session.on(SessionEvent::Failed(Failure::Unreachable), now);
    }
    assert!(session.wake_at().unwrap() > now);
    let later = now + LONGEST_WAIT;
    assert_eq!(
        session.on(SessionEvent::Tick, later),
        [SessionAction::Connect(0)]
    );
}

#[test]
fn waits_grow_are_spread_and_stay_short() {
    let (mut session, mut now) = session(1);
    let mut waits = Vec::new();
    for _ in 0..500 {
        assert_eq!(
            session.on(SessionEvent::Tick, now),
            [SessionAction::Connect(0)]
        );
        session.on(SessionEvent::Failed(Failure::Unreachable), now);
        let until = session.wake_at().unwrap();
        waits.push(until - now);
        now = until;
    }
    assert!(waits[0] <= FIRST_WAIT);
    assert!(waits.iter().all(|wait| *wait <= LONGEST_WAIT));
    assert!(waits.iter().any(|wait| *wait > LONGEST_WAIT.mul_f64(0.9)));
    assert!(waits.iter().any(|wait| *wait < LONGEST_WAIT.mul_f64(0.1)));
}

#[test]
fn half_of_all_agents_notice_within_two_seconds_that_the_connector_is_back() {
    let outage = Duration::from_secs(300);
    let mut delays: Vec<_> = (0..1001)
        .map(|seed| {
            let start = Instant::now();
            let mut session = Session::new(1, fastrand::Rng::with_seed(seed), start);
            let mut now = start;
            loop {
                session.on(SessionEvent::Tick, now);
                if now >= start + outage {
                    return now - start - outage;
                }
                session.on(SessionEvent::Failed(Failure::Unreachable), now);
                now = session.wake_at().unwrap();
            }
        })
        .collect();
    delays.sort();
    assert!(delays[500] < Duration::from_secs(2), "{:?}", delays[500]);
    assert!(delays[1000] < LONGEST_WAIT);
}

#[test]
fn a_lost_session_is_looked_for_at_the_same_address() {
    let (mut session, now) = session(2);
    session.on(SessionEvent::Tick, now);
    session.on(SessionEvent::Failed(Failure::Unreachable), now);
    establish(&mut session, now);
    let later = now + Duration::from_secs(3600);
    session.on(SessionEvent::Failed(Failure::Unreachable), later);
    let until = session.wake_at().unwrap();
    assert!(until - later <= FIRST_WAIT);
    assert_eq!(
        session.on(SessionEvent::Tick, until),
        [SessionAction::Connect(1)]
    );
}

#[test]
fn heartbeats_are_sent_and_silence_ends_the_session() {
    let (mut session, now) = session(1);
    establish(&mut session, now);
    assert_eq!(session.on(SessionEvent::Tick, now), []);
    let mut at;
    let closed = loop {
        at = session.wake_at().unwrap();
        match &session.on(SessionEvent::Tick, at)[..] {
            [SessionAction::Heartbeat] => {}
            other => break other.to_vec(),
        }
    };
    assert!(matches!(closed[..], [SessionAction::Close(_)]));
    assert_eq!(at - now, HEARTBEAT * 3 + SILENCE_MARGIN);
    assert!(!session.is_established());
}

#[test]
fn numbers_are_acknowledged_in_order_and_anything_else_ends_the_session() {
    for wrong in [0, 2, 4, 1 << 40] {
        let (mut session, now) = session(1);
        establish(&mut session, now);
        for sequence in 1..=2 {
            let received = session.on(SessionEvent::Received { sequence }, now);
            assert_eq!(received, [SessionAction::Acknowledge(sequence)]);
        }
        let actions = session.on(SessionEvent::Received { sequence: wrong }, now);
        match wrong {
            0 => assert_eq!(actions, []),
            _ => assert_eq!(actions, [SessionAction::Close(OUT_OF_SEQUENCE)]),
        }
    }
}

#[test]
fn a_message_at_the_wrong_time_ends_the_session() {
    let (mut early, now) = session(1);
    early.on(SessionEvent::Tick, now);
    early.on(SessionEvent::Opened, now);
    let actions = early.on(SessionEvent::Received { sequence: 0 }, now);
    assert!(matches!(actions[..], [SessionAction::Close(_)]));

    let (mut twice, now) = session(1);
    establish(&mut twice, now);
    let welcomed = SessionEvent::Welcomed {
        heartbeat: HEARTBEAT,
    };
    assert!(matches!(
        twice.on(welcomed, now)[..],
        [SessionAction::Close(_)]
    ));
}

#[test]
fn a_connector_that_never_welcomes_is_given_up() {
    let (mut session, now) = session(1);
    session.on(SessionEvent::Tick, now);
    session.on(SessionEvent::Opened, now);
    let actions = session.on(SessionEvent::Tick, now + GREETING_TIME);
    assert!(matches!(actions[..], [SessionAction::Close(_)]));
}

#[test]
fn goodbyes_are_obeyed() {
    let (mut session, now) = session(1);
    establish(&mut session, now);
    session.on(SessionEvent::Goodbye(Parting::Enrolled), now);
    establish(&mut session, now);
    let wait = Duration::from_secs(40);
    session.on(SessionEvent::Goodbye(Parting::Stopping(wait)), now);
    assert!(session.wake_at().unwrap() >= now + wait);
    let now = session.wake_at().unwrap();
    establish(&mut session, now);
    let actions = session.on(SessionEvent::Goodbye(Parting::Replaced), now);
    assert_eq!(actions[1..], [SessionAction::StopJobs]);
    assert_eq!(session.wake_at(), None, "it must not connect again");
    let actions = session.on(SessionEvent::JobStopped, now);
    assert_eq!(actions, [SessionAction::Exit(Exit::Replaced)]);
}

#[test]
fn a_certificate_is_renewed_by_greeting_the_same_connector_again() {
    let (mut session, now) = session(2);
    session.on(SessionEvent::Tick, now);
    session.on(SessionEvent::Failed(Failure::Unreachable), now);
    assert_eq!(session.on(SessionEvent::Renew, now), []);
    establish(&mut session, now);
    let actions = session.on(SessionEvent::Renew, now);
    assert!(matches!(actions[..], [SessionAction::Close(_)]));
    assert_eq!(session.wake_at(), Some(now));
    let connect = session.on(SessionEvent::Tick, now);
    assert_eq!(connect, [SessionAction::Connect(1)]);
}

#[test]
fn a_stop_waits_for_the_job_and_for_its_result_to_arrive_but_not_for_ever() {
    let (mut session, now) = session(1);
    establish(&mut session, now);
    session.on(SessionEvent::Delivered(false), now);
    assert_eq!(
        session.on(SessionEvent::Stop, now),
        [SessionAction::StopJobs]
    );
    assert_eq!(session.on(SessionEvent::Stop, now), []);
    assert_eq!(session.on(SessionEvent::JobStopped, now), []);
    let mut other = Session {
        random: fastrand::Rng::with_seed(2),
        draining: session.draining,
        link: session.link.clone(),
        ..Session::new(1, fastrand::Rng::new(), now)
    };
    other.delivered = false;
    let exit = SessionAction::Exit(Exit::Stopped);
    assert_eq!(
        session.on(SessionEvent::Delivered(true), now).last(),
        Some(&exit)
    );
    let late = other.wake_at().unwrap();
    assert_eq!(late, now + DELIVERY_TIME);
    assert_eq!(other.on(SessionEvent::Tick, late).last(), Some(&exit));
}

fn event() -> impl Strategy<Value = SessionEvent> {
    let seconds = |range: std::ops::Range<u64>| range.prop_map(Duration::from_secs);
    prop_oneof![
        4 => Just(SessionEvent::Tick),
        3 => Just(SessionEvent::Opened),
        2 => prop_oneof![Just(Failure::Refused), Just(Failure::Unreachable)]
            .prop_map(SessionEvent::Failed),
        3 => seconds(1..300).prop_map(|heartbeat| SessionEvent::Welcomed { heartbeat }),
        3 => (0..4u64).prop_map(|sequence| SessionEvent::Received { sequence }),
        1 => prop_oneof![
            Just(Parting::Enrolled), Just(Parting::Replaced),
            Just(Parting::Dismissed { power_off: true }),
            seconds(0..100_000).prop_map(Parting::Stopping),
        ].prop_map(SessionEvent::Goodbye),
        1 => Just(SessionEvent::Renew),
        1 => Just(SessionEvent::Stop),
        1 => Just(SessionEvent::JobStopped),
        1 => any::<bool>().prop_map(SessionEvent::Delivered),
    ]
}

/// What may be done with a link, seen from outside.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Seen {
    Nothing,
    Connecting,
    Greeted,
    Begun,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn whatever_happens_the_actions_follow_each_other_as_a_link_allows(
        events in prop::collection::vec((event(), 0..40_000u64), 1..120),
        addresses in 1..4usize,
    ) {
        let mut now = Instant::now();
        let mut session = Session::new(addresses, fastrand::Rng::with_seed(7), now);
        let mut seen = Seen::Nothing;
        let mut for_good = false;
        'life: for (event, pause) in events {
            now += Duration::from_millis(pause);
            if matches!(event, SessionEvent::Failed(_)) {
                seen = Seen::Nothing;
            }
            for action in session.on(event, now) {
                match action {
                    SessionAction::Connect(address) => {
                        prop_assert_eq!(seen, Seen::Nothing, "two links at once");
                        prop_assert!(address < addresses && !for_good);
                        seen = Seen::Connecting;
                    }
                    SessionAction::Greet => {
                        prop_assert_eq!(seen, Seen::Connecting);
                        seen = Seen::Greeted;
                    }
                    SessionAction::Begin => {
                        prop_assert_eq!(seen, Seen::Greeted);
                        seen = Seen::Begun;
                    }
                    SessionAction::Heartbeat | SessionAction::Acknowledge(_) => {
                        prop_assert_eq!(seen, Seen::Begun);
                    }
                    SessionAction::Close(_) => {
                        prop_assert_ne!(seen, Seen::Nothing, "no link to close");
                        seen = Seen::Nothing;
                    }
                    SessionAction::StopJobs => {
                        for_good |= session.is_exiting_offline();
                    }
                    SessionAction::Exit(_) => {
                        prop_assert_eq!(seen, Seen::Nothing, "a link is left");
                        break 'life;
                    }
                }
            }
            prop_assert_eq!(session.is_established(), seen == Seen::Begun);
            // It never sleeps for good unless it was sent away and its job still runs.
            prop_assert!(session.wake_at().is_some() || for_good);
        }
    }
}
