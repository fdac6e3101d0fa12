//! What an agent needs that waits for jobs. Alone in its program: pages of libraries that another agent has as
//! well are not given back.

#[expect(dead_code, reason = "the tests of the daemon use the rest of it")]
mod daemon_desk;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ce_proto::v1::agent_message::Body as Told;
use ce_tests::agent::Running;
use ce_tests::pattern::MIB;

use daemon_desk::connector::Connector;
use daemon_desk::{Desk, SOON};

#[test]
fn an_idle_agent_needs_next_to_nothing() -> Result<()> {
    let desk = Desk::new(MIB)?;
    let connector = Connector::start(&desk.authority)?;
    desk.configure(&[connector.address.to_string()], "")?;
    let agent = desk.agent()?;
    let (mut session, _) = connector.greeted(SOON)?;
    let mut wait = |time| -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < time {
            if let Some(message) = session.next_within(Duration::from_secs(1))
                && matches!(message.body, Some(Told::Heartbeat(_)))
            {
                session.ack(0)?;
            }
        }
        Ok(())
    };
    // It gives back what only its start has needed.
    wait(Duration::from_secs(6))?;
    let before = usage(&agent)?.ticks;
    let begun = Instant::now();
    wait(Duration::from_secs(15))?;
    let Usage {
        memory,
        share: fair,
        own,
        ticks: after,
    } = usage(&agent)?;
    let share = (after - before) as f64 / 100.0 / begun.elapsed().as_secs_f64();
    println!(
        "idle: {} KiB resident, {} KiB by its share, {} KiB of its own, {:.3} % of a processor",
        memory >> 10,
        fair >> 10,
        own >> 10,
        share * 100.0
    );
    ensure!(own <= 12 * MIB, "{} KiB of its own", own >> 10);
    // Pages of libraries that belong to someone else are not given back, nor are those that other programs of
    // the machine have at this moment: of these its share counts, which is all of them where it is alone.
    if rustix::process::geteuid().is_root() {
        ensure!(fair <= 20 * MIB, "{} KiB of {}", fair >> 10, memory >> 10);
    }
    // The kernel counts hundredths of a second: two of them in 15 s are 0.13 %.
    ensure!(after - before <= 3, "{} ticks", after - before);
    agent.stop()?;
    Ok(())
}

/// What a process takes, in bytes and ticks of the processor's time.
struct Usage {
    /// Resident memory.
    memory: u64,
    /// The same, pages that others have as well divided among all.
    share: u64,
    /// What is no file's.
    own: u64,
    ticks: u64,
}

fn usage(agent: &Running) -> Result<Usage> {
    let folder = format!("/proc/{}", agent.id());
    let bytes = |file: &str, name: &str| -> Result<u64> {
        let text = fs::read_to_string(format!("{folder}/{file}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next());
        let kibibytes: u64 = number.with_context(|| format!("no {name}"))?.parse()?;
        Ok(kibibytes << 10)
    };
    let stat = fs::read_to_string(format!("{folder}/stat"))?;
    let fields = stat.rsplit(')').next().context("no fields")?;
    let ticks = fields.split_whitespace().skip(11).take(2);
    Ok(Usage {
        memory: bytes("status", "VmRSS:")?,
        share: bytes("smaps_rollup", "Pss:")?,
        own: bytes("status", "RssAnon:")?,
        ticks: ticks.map(|ticks| ticks.parse::<u64>().unwrap_or(0)).sum(),
    })
}
