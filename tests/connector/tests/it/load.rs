//! Many agents at once: 50, and 1000 with `TEST_LONG=1`.

use std::time::{Duration, Instant};

use ce_connector::client::Client;
use ce_connector::home::Home;
use ce_proto::v1::{self, agent_message::Body};

use crate::agent::{Call, hello, message};
use crate::stage::{Program, identity, made, submit};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_agents_report_and_no_result_is_lost() {
    let many = if std::env::var_os("TEST_LONG").is_some() {
        1000
    } else {
        50
    };
    let folder = made();
    let home = Home::new(folder.path());
    let ca = home.authority().unwrap().pem().to_owned();
    let program = Program::start(folder.path());
    let client = Client::new(&home).unwrap();
    let began = Instant::now();
    let mut agents = tokio::task::JoinSet::new();
    // Nobody is through before all have a job: so each has one.
    let (all_submitted, submitted_all) = tokio::sync::watch::channel(false);
    for at in 0..many {
        let call = Call {
            address: program.agents,
            ca: ca.clone(),
            identity: Some(identity(folder.path(), &format!("agent-{at}"))),
            token: None,
            first: message(0, Body::Hello(hello(&format!("state-of-agent-{at}")))),
        };
        let submitted_all = submitted_all.clone();
        agents.spawn(async move {
            let mut agent = call.open().await.unwrap();
            let start = agent.job().await;
            agent.accept(&start).await;
            for done in 0.. {
                if done >= 5 && *submitted_all.borrow() {
                    break;
                }
                agent.say(Body::Heartbeat(v1::Heartbeat::default())).await;
                agent
                    .say(Body::JobProgress(v1::JobProgress {
                        job_id: start.job_id.clone(),
                        step: "export".into(),
                        bytes_done: done,
                        bytes_total: 1000,
                        overall_progress_percent: u32::try_from(done / 10).unwrap().min(99),
                    }))
                    .await;
                tokio::time::sleep(Duration::from_millis(400)).await;
            }
            agent.finish(&start).await;
            agent.acknowledged().await;
            // It stays, as agents do, until all are through.
            (start.job_id, agent)
        });
    }
    let mut submitted = Vec::new();
    for _ in 0..many {
        submitted.push(submit(&client, r#"{"operation":"inspect"}"#).await);
    }
    all_submitted.send_replace(true);
    let mut acknowledged = Vec::new();
    let mut connected = Vec::new();
    while let Some(agent) = agents.join_next().await {
        let (id, agent) = agent.unwrap();
        acknowledged.push(id);
        connected.push(agent);
    }
    let took = began.elapsed();
    let peak = program.peak_kib();
    // Whatever was acknowledged is there after a kill, once and with its own result.
    program.kill();
    drop(connected);
    submitted.sort();
    acknowledged.sort();
    assert_eq!(acknowledged, submitted);
    let program = Program::start(folder.path());
    let client = Client::new(&home).unwrap();
    for id in &submitted {
        let job = client.get(&format!("/jobs/{id}")).await.unwrap();
        assert_eq!(job["status"], "complete", "{id}");
        assert_eq!(job["artifacts"]["outputImage"], format!("image-of-{id}"));
    }
    program.kill();
    println!("{many} agents: {took:.1?}, at most {} MiB", peak / 1024);
    assert!(peak < 1_500 << 10, "{peak} KiB");
}
