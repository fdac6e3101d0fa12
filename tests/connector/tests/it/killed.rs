//! The Connector is killed while results are on their way.

use std::time::Duration;

use ce_connector::client::Client;
use ce_connector::home::Home;
use ce_proto::v1;

use crate::agent::{Agent, Call, finished, hello, message};
use crate::stage::{Program, identity, made, submit, wait_for};

#[tokio::test]
async fn no_result_is_lost_and_no_job_begun_twice_when_the_connector_is_killed() {
    let folder = made();
    let home = Home::new(folder.path());
    let identity = identity(folder.path(), "a");
    let ca = home.authority().unwrap().pem().to_owned();
    let mut held: Option<v1::StartJob> = None;
    let mut done = Vec::new();
    for round in 0..6_u64 {
        let program = Program::start(folder.path());
        let mut hello = hello("state-0123456789");
        hello.held_jobs = held
            .iter()
            .map(|start| v1::HeldJob {
                job_id: start.job_id.clone(),
                state: v1::held_job::State::Finished.into(),
            })
            .collect();
        let call = Call {
            address: program.agents,
            ca: ca.clone(),
            identity: Some(identity.clone()),
            token: None,
            first: message(0, v1::agent_message::Body::Hello(hello)),
        };
        let mut agent: Agent = call.open().await.unwrap();
        if let Some(start) = held.take() {
            agent
                .say(v1::agent_message::Body::JobFinished(finished(&start)))
                .await;
            agent.acknowledged().await;
            done.push(start.job_id);
        }
        let client = Client::new(&home).unwrap();
        let id = submit(&client, r#"{"operation":"inspect"}"#).await;
        let start = agent.job().await;
        assert_eq!(start.job_id, id, "an older job was sent again");
        agent.accept(&start).await;
        agent.acknowledged().await;
        agent.finish(&start).await;
        // Somewhere between the result's departure and its acknowledgement.
        tokio::time::sleep(Duration::from_millis(round * round / 2)).await;
        program.kill();
        held = Some(start);
    }
    let program = Program::start(folder.path());
    let client = Client::new(&home).unwrap();
    for id in &done {
        let job = wait_for(&client, id, "complete").await;
        assert_eq!(job["artifacts"]["outputImage"], format!("image-of-{id}"));
    }
    assert_eq!(done.len(), 5);
    program.kill();
}
