//! Jobs on their way: sent, answered, interrupted, repeated.

use ce_proto::v1::{self, agent_message::Body, connector_message, goodbye};
use tonic::Code;

use crate::agent::{Agent, Call, finished, hello};
use crate::stage::{Stage, until};

const INSPECT: &str = r#"{"operation":"inspect","disk":{"serial":"s"}}"#;

#[tokio::test]
async fn a_job_goes_to_an_agent_and_its_result_comes_back() {
    let stage = Stage::new().await;
    let mut agent = Agent::of(&stage, "a").await;
    let id = stage.submit(INSPECT).await;
    let start = agent.job().await;
    assert_eq!((&start.job_id, start.attempt), (&id, 1));
    let request = start.request.clone().unwrap();
    assert_eq!(request.operation(), v1::Operation::Inspect);
    let selector = request.disk.unwrap().selector;
    assert_eq!(
        selector,
        Some(v1::disk_selector::Selector::Serial("s".into()))
    );
    agent.accept(&start).await;
    agent.acknowledged().await;
    assert_eq!(stage.job(&id).await["status"], "inProgress");
    agent
        .say(Body::JobProgress(v1::JobProgress {
            job_id: id.clone(),
            step: "inspect".into(),
            bytes_done: 5,
            bytes_total: 10,
            overall_progress_percent: 50,
        }))
        .await;
    agent
        .say(Body::LogBatch(v1::LogBatch {
            job_id: id.clone(),
            records: vec![v1::LogRecord {
                time_unix_ms: 1,
                level: v1::log_record::Level::Info.into(),
                target: "t".into(),
                message: "half of it".into(),
            }],
            dropped: 0,
        }))
        .await;
    until(async || (stage.job(&id).await["overallProgressPercent"] == 50).then_some(())).await;
    agent.finish(&start).await;
    agent.acknowledged().await;
    let job = stage.job(&id).await;
    assert_eq!(job["status"], "complete");
    assert_eq!(job["artifacts"]["outputImage"], format!("image-of-{id}"));
    assert_eq!(job["additionalInfo"]["artifacts"], job["artifacts"]);
    assert_eq!(job["parameters"]["disk"]["serial"], "s");
    let logs = stage
        .client()
        .get(&format!("/jobs/{id}/logs"))
        .await
        .unwrap();
    assert_eq!(logs["lines"][0]["message"], "half of it");
    stage.stop().await;
}

#[tokio::test]
async fn a_job_asks_for_no_newer_agent_than_its_fields_do() {
    let stage = Stage::new().await;
    let mut agent = Agent::of(&stage, "a").await;
    let prepare = r#"{"operation":"prepare","platform":"aws","disk":{"lun":1}}"#;
    let converting = prepare.replacen('{', r#"{"convertToUefi":true,"#, 1);
    for (request, revision) in [(prepare, 1), (&*converting, 2)] {
        stage.submit(request).await;
        let start = agent.job().await;
        assert_eq!(start.required_revision, revision, "{request}");
        agent.accept(&start).await;
        agent.finish(&start).await;
        agent.acknowledged().await;
    }
    stage.stop().await;
}

#[tokio::test]
async fn an_answer_that_comes_twice_counts_once() {
    let stage = Stage::new().await;
    let mut agent = Agent::of(&stage, "a").await;
    let id = stage.submit(INSPECT).await;
    let start = agent.job().await;
    agent.accept(&start).await;
    agent.accept(&start).await;
    agent.finish(&start).await;
    let mut other = finished(&start);
    other.artifacts = None;
    agent.say(Body::JobFinished(other)).await;
    agent.acknowledged().await;
    let job = stage.job(&id).await;
    assert_eq!(job["artifacts"]["outputImage"], format!("image-of-{id}"));
    stage.stop().await;
}

#[tokio::test]
async fn an_unanswered_job_is_sent_again_and_a_held_one_is_not() {
    let stage = Stage::new().await;
    let identity = stage.identity("a");
    let mut agent = Call::new(&stage, Some(identity.clone()))
        .open()
        .await
        .unwrap();
    stage.submit(INSPECT).await;
    let first = agent.job().await;
    drop(agent);
    let mut agent = Call::new(&stage, Some(identity.clone()))
        .open()
        .await
        .unwrap();
    let again = agent.job().await;
    assert_eq!(again, first);
    agent.accept(&again).await;
    agent.acknowledged().await;
    drop(agent);
    let mut hello = hello("state-0123456789");
    hello.held_jobs = vec![v1::HeldJob {
        job_id: first.job_id.clone(),
        state: v1::held_job::State::Finished.into(),
    }];
    let call = Call::new(&stage, Some(identity)).saying(hello);
    let mut agent = call.open().await.unwrap();
    agent.finish(&first).await;
    // The next thing that comes is the acknowledgement, and no job.
    let next = agent.next().await.unwrap();
    assert!(matches!(next, connector_message::Body::Ack(_)), "{next:?}");
    stage.wait_for(&first.job_id, "complete").await;
    stage.stop().await;
}

#[tokio::test]
async fn a_job_whose_agent_lost_its_state_fails_and_is_not_begun_anew() {
    let stage = Stage::new().await;
    let identity = stage.identity("a");
    let mut agent = Call::new(&stage, Some(identity.clone()))
        .open()
        .await
        .unwrap();
    let id = stage.submit(INSPECT).await;
    agent.job().await;
    let call = Call::new(&stage, Some(identity)).saying(hello("another-state-0123"));
    let mut renewed = call.open().await.unwrap();
    let job = stage.wait_for(&id, "failed").await;
    assert_eq!(job["error"]["code"], "AgentLost");
    let next = stage.submit(INSPECT).await;
    assert_eq!(renewed.job().await.job_id, next);
    stage.stop().await;
}

#[tokio::test]
async fn a_newer_session_takes_the_place_of_the_older() {
    let stage = Stage::new().await;
    let identity = stage.identity("a");
    let mut older = Call::new(&stage, Some(identity.clone()))
        .open()
        .await
        .unwrap();
    let mut newer = Call::new(&stage, Some(identity)).open().await.unwrap();
    let connector_message::Body::Goodbye(farewell) = older.next().await.unwrap() else {
        panic!("no Goodbye");
    };
    assert_eq!(farewell.reason(), goodbye::Reason::Replaced);
    stage.submit(INSPECT).await;
    newer.job().await;
    stage.stop().await;
}

#[tokio::test]
async fn a_cancel_reaches_the_agent_and_the_agent_has_the_last_word() {
    let stage = Stage::new().await;
    let waiting = stage.submit(INSPECT).await;
    let path = format!("/jobs/{waiting}/$cancel");
    let cancelled = stage.client().post(&path, vec![]).await.unwrap();
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(cancelled["error"]["code"], "Cancelled");

    let mut agent = Agent::of(&stage, "a").await;
    let id = stage.submit(INSPECT).await;
    let start = agent.job().await;
    agent.accept(&start).await;
    agent.acknowledged().await;
    let path = format!("/jobs/{id}/$cancel");
    let asked = stage.client().post(&path, vec![]).await.unwrap();
    assert_eq!(
        (&asked["status"], &asked["cancelRequested"]),
        (&"inProgress".into(), &true.into())
    );
    let next = agent.next().await.unwrap();
    assert!(matches!(next, connector_message::Body::CancelJob(cancel) if cancel.job_id == id));
    let mut end = finished(&start);
    end.status = v1::job_finished::Status::Cancelled.into();
    end.artifacts = None;
    end.error = Some(v1::JobError {
        code: "Cancelled".into(),
        message: "cancelled".into(),
        hint: String::new(),
    });
    agent.say(Body::JobFinished(end)).await;
    stage.wait_for(&id, "cancelled").await;
    stage.stop().await;
}

#[tokio::test]
async fn a_rejection_tells_every_problem_and_a_busy_agents_job_goes_to_another() {
    use v1::job_rejected::Reason;
    let stage = Stage::new().await;
    let mut busy = Agent::of(&stage, "a").await;
    let id = stage.submit(INSPECT).await;
    let start = busy.job().await;
    let mut free = Agent::of(&stage, "b").await;
    let rejected = |start: &v1::StartJob, reason: Reason| v1::JobRejected {
        job_id: start.job_id.clone(),
        attempt: start.attempt,
        reason: reason.into(),
        ..Default::default()
    };
    busy.say(Body::JobRejected(rejected(&start, Reason::Busy)))
        .await;
    let second = free.job().await;
    assert_eq!((&second.job_id, second.attempt), (&id, 2));
    let mut refusal = rejected(&second, Reason::Invalid);
    refusal.error = Some(v1::JobError {
        code: "InvalidRequest".into(),
        message: "the request can't be done".into(),
        hint: String::new(),
    });
    refusal.problems = vec![
        v1::Problem {
            field: "disk.serial".into(),
            message: "no such disk".into(),
        },
        v1::Problem {
            field: "network".into(),
            message: "makes no sense".into(),
        },
    ];
    free.say(Body::JobRejected(refusal)).await;
    let job = stage.wait_for(&id, "failed").await;
    assert_eq!(
        job["error"]["message"],
        "the request can't be done; disk.serial: no such disk; network: makes no sense"
    );
    stage.stop().await;
}

#[tokio::test]
async fn a_job_for_one_agent_waits_for_it() {
    let stage = Stage::new().await;
    let mut other = Agent::of(&stage, "other").await;
    stage.identity("named");
    let path = "/jobs?agent=named";
    let accepted = stage.client().post(path, INSPECT.into()).await.unwrap();
    let next = stage.submit(INSPECT).await;
    assert_eq!(other.job().await.job_id, next);
    let mut named = Agent::of(&stage, "named").await;
    assert_eq!(named.job().await.job_id, accepted["id"].as_str().unwrap());
    let nobody = stage
        .client()
        .post("/jobs?agent=nobody", INSPECT.into())
        .await;
    assert!(
        nobody
            .unwrap_err()
            .to_string()
            .contains("no agent `nobody`")
    );
    stage.stop().await;
}

#[tokio::test]
async fn stopping_says_goodbye_and_a_restart_knows_everything() {
    let stage = Stage::new().await;
    let identity = stage.identity("a");
    let mut agent = Call::new(&stage, Some(identity.clone()))
        .open()
        .await
        .unwrap();
    let id = stage.submit(INSPECT).await;
    let waiting = stage.submit(INSPECT).await;
    let start = agent.job().await;
    agent.accept(&start).await;
    agent.acknowledged().await;
    let folder = stage.stop().await;
    let connector_message::Body::Goodbye(farewell) = agent.next().await.unwrap() else {
        panic!("no Goodbye");
    };
    assert_eq!(farewell.reason(), goodbye::Reason::Stopping);
    assert!(matches!(agent.ended().await.code(), Code::Ok));

    let stage = Stage::over(folder).await;
    assert_eq!(stage.job(&id).await["status"], "inProgress");
    let mut hello = hello("state-0123456789");
    hello.held_jobs = vec![v1::HeldJob {
        job_id: id.clone(),
        state: v1::held_job::State::Running.into(),
    }];
    let call = Call::new(&stage, Some(identity)).saying(hello);
    let mut agent = call.open().await.unwrap();
    agent.finish(&start).await;
    stage.wait_for(&id, "complete").await;
    assert_eq!(agent.job().await.job_id, waiting);
    stage.stop().await;
}
