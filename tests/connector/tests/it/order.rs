//! Messages that may not come: they end the session, with a status that says why.

use ce_proto::v1::{self, agent_message::Body};
use tonic::Code;

use crate::agent::{Agent, Call, hello, message};
use crate::stage::Stage;

fn accepted(sequence: u64) -> v1::AgentMessage {
    let accepted = v1::JobAccepted {
        job_id: "j".into(),
        attempt: 1,
    };
    message(sequence, Body::JobAccepted(accepted))
}

#[tokio::test]
async fn numbers_that_repeat_or_leave_a_gap_end_the_session() {
    let stage = Stage::new().await;
    for wrong in [0, 2, u64::MAX] {
        let status = Agent::of(&stage, "a").await.wrong(accepted(wrong)).await;
        assert_eq!(status.code(), Code::OutOfRange, "{wrong}: {status:?}");
    }
    let mut agent = Agent::of(&stage, "a").await;
    agent.say_as_is(accepted(1)).await;
    let status = agent.wrong(accepted(1)).await;
    assert_eq!(status.message(), "sequence 1 where 2 was expected");
    let heartbeat = message(1, Body::Heartbeat(v1::Heartbeat::default()));
    let status = Agent::of(&stage, "a").await.wrong(heartbeat).await;
    assert_eq!(status.code(), Code::OutOfRange);
    let ack = message(0, Body::Ack(v1::Ack { sequence: 1 }));
    let status = Agent::of(&stage, "a").await.wrong(ack).await;
    assert_eq!(status.code(), Code::OutOfRange);
    stage.stop().await;
}

#[tokio::test]
async fn the_first_message_is_a_hello_and_there_is_no_second() {
    let stage = Stage::new().await;
    let mut call = Call::new(&stage, Some(stage.identity("a")));
    call.first = message(0, Body::Heartbeat(v1::Heartbeat::default()));
    assert_eq!(call.refused().await.code(), Code::InvalidArgument);
    let again = message(0, Body::Hello(hello("state-0123456789")));
    let status = Agent::of(&stage, "a").await.wrong(again).await;
    assert_eq!(status.message(), "a second Hello");
    stage.stop().await;
}

#[tokio::test]
async fn what_is_unknown_malformed_or_too_large_ends_the_session() {
    let stage = Stage::new().await;
    let finished = |change: fn(&mut v1::JobFinished)| {
        let mut finished = v1::JobFinished {
            job_id: "j".into(),
            status: v1::job_finished::Status::Complete.into(),
            ..Default::default()
        };
        change(&mut finished);
        message(1, Body::JobFinished(finished))
    };
    let progress = |percent| {
        let progress = v1::JobProgress {
            job_id: "j".into(),
            overall_progress_percent: percent,
            ..Default::default()
        };
        message(0, Body::JobProgress(progress))
    };
    let logs = |records: usize, length: usize| {
        let record = v1::LogRecord {
            level: v1::log_record::Level::Info.into(),
            message: "x".repeat(length),
            ..Default::default()
        };
        let batch = v1::LogBatch {
            records: vec![record; records],
            ..Default::default()
        };
        message(0, Body::LogBatch(batch))
    };
    let empty = v1::AgentMessage::default();
    for (wrong, code) in [
        (empty, Code::InvalidArgument),
        (
            finished(|finished| finished.status = 99),
            Code::InvalidArgument,
        ),
        (
            finished(|finished| finished.job_id = "../x".into()),
            Code::InvalidArgument,
        ),
        (
            finished(|finished| finished.job_id.clear()),
            Code::InvalidArgument,
        ),
        (progress(101), Code::InvalidArgument),
        (logs(1025, 1), Code::InvalidArgument),
        (logs(1, 4097), Code::InvalidArgument),
        (logs(1, 2 << 20), Code::ResourceExhausted),
    ] {
        let status = Agent::of(&stage, "a").await.wrong(wrong).await;
        assert_eq!(status.code(), code, "{status:?}");
    }
    stage.stop().await;
}

#[tokio::test]
async fn a_protocol_from_the_future_is_served_if_it_can_do_with_this_one() {
    let stage = Stage::new().await;
    let future = |minimum_revision| {
        let mut hello = hello("state-0123456789");
        (hello.protocol_revision, hello.minimum_revision) = (99, minimum_revision);
        Call::new(&stage, Some(stage.identity("a"))).saying(hello)
    };
    let agent = future(1).open().await.unwrap();
    assert_eq!(agent.welcome.protocol_revision, ce_proto::PROTOCOL_REVISION);
    let status = future(98).refused().await;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("needs revision 98"), "{status:?}");
    let nonsense = future(100).refused().await;
    assert_eq!(nonsense.code(), Code::InvalidArgument);
    stage.stop().await;
}

#[tokio::test]
async fn a_hello_with_a_bad_state_or_too_many_things_is_refused() {
    let stage = Stage::new().await;
    let wrong: [fn(&mut v1::Hello); 5] = [
        |hello| hello.state_id = "short".into(),
        |hello| hello.state_id = "../../etc/passwd-and-more".into(),
        |hello| hello.held_jobs = vec![v1::HeldJob::default(); 1],
        |hello| hello.disks = vec![v1::AttachedDisk::default(); 257],
        |hello| hello.agent_version = "x".repeat(300),
    ];
    for change in wrong {
        let mut hello = hello("state-0123456789");
        change(&mut hello);
        let call = Call::new(&stage, Some(stage.identity("a"))).saying(hello);
        assert_eq!(call.refused().await.code(), Code::InvalidArgument);
    }
    stage.stop().await;
}
