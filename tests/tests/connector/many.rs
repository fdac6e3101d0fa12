//! Many real agents at one Connector: 20, and 1000 with `TEST_LONG`.

use std::env;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ce_tests::agent::Running;
use ce_tests::pattern::MIB;
use rustix::process::Signal;
use serde_json::json;

use crate::site::{PATIENCE, Site};

#[test]
fn many_agents_have_a_job_each_and_no_result_is_lost() -> Result<()> {
    let many = if env::var_os("TEST_LONG").is_some() {
        1000
    } else {
        20
    };
    let site = Site::new()?;
    let disk = site.disk("disk.raw", MIB)?;
    let mut agents = Agents(Vec::new());
    let began = Instant::now();
    for at in 0..many {
        let name = format!("ce-{at}");
        let daemon = site.agent(&name)?;
        agents.0.push(daemon.start()?);
    }
    while site.connected()?.len() < many {
        ensure!(
            began.elapsed() < PATIENCE * 5,
            "{:?}",
            site.connected()?.len()
        );
        sleep(Duration::from_millis(200));
    }
    let connected = began.elapsed();
    let mut jobs = Vec::new();
    for at in 0..many {
        let request = json!({"operation": "inspect", "disk": {"path": disk}}).to_string();
        let call = format!("POST /jobs?agent=ce-{at}");
        let (head, accepted) = site.http(&call, &request)?;
        ensure!(head.starts_with("HTTP/1.1 202"), "{head}");
        jobs.push(accepted["id"].as_str().context("no id")?.to_owned());
    }
    for job in &jobs {
        let until = Instant::now() + PATIENCE;
        loop {
            let (_, shown) = site.http(&format!("GET /jobs/{job}"), "")?;
            if shown["status"] == "complete" {
                ensure!(shown["artifacts"]["virtualSizeBytes"] == MIB, "{shown}");
                break;
            }
            ensure!(
                shown["error"].is_null() && Instant::now() < until,
                "{shown}"
            );
            sleep(Duration::from_millis(50));
        }
    }
    let done = began.elapsed();
    // When all of them only give signs of life.
    sleep(Duration::from_secs(8));
    ensure!(site.connected()?.len() == many, "some have left");
    let connector = resident(site.id()?)?;
    let mut all = 0;
    for agent in &agents.0 {
        all += resident(agent.id())?;
    }
    println!(
        "{many} agents: connected after {connected:.1?}, jobs done after {done:.1?}; the Connector \
         has {} MiB, the agents {} KiB each, shared pages counted once",
        connector >> 20,
        (all >> 10) / many as u64
    );
    ensure!(connector < 512 * MIB, "{} MiB", connector >> 20);
    agents.stop()
}

/// Agents that end with the test.
struct Agents(Vec<Running>);

impl Agents {
    fn stop(mut self) -> Result<()> {
        for agent in &self.0 {
            agent.signal(Signal::TERM)?;
        }
        for agent in std::mem::take(&mut self.0) {
            let run = agent.finish()?;
            ensure!(!run.stderr.contains("panicked"), "{}", run.stderr);
            ensure!(run.status.code() == Some(0), "{}", run.stderr);
        }
        Ok(())
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        for agent in &self.0 {
            // After a test that failed.
            let _ = agent.signal(Signal::KILL);
        }
    }
}

/// A process's share of memory, in bytes: what several have is divided among them.
fn resident(process: u32) -> Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.context("no Pss")?.parse::<u64>()? << 10)
}
