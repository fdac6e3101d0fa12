//! "The agent serves jobs of a Connector, whatever happens to the two and to what is between them."

mod daemon_desk;
#[path = "../../platform-drivers/tests/prepare/guest.rs"]
#[expect(dead_code, reason = "the rest serves tests in memory")]
mod guest;
#[path = "prepare/disk.rs"]
#[expect(dead_code, reason = "the rest serves the tests of prepare")]
mod guest_disk;
#[path = "../../disk-ops/tests/share/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest of it")]
mod share;

use std::collections::BTreeMap;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ce_platform::Platform;
use ce_proto::v1;
use ce_proto::v1::agent_message::Body as Told;
use ce_proto::v1::connector_message::Body;
use ce_proto::v1::goodbye::Reason as Parting;
use ce_proto::v1::job_finished::Status as Ended;
use ce_proto::v1::job_rejected::Reason;
use ce_tests::agent::ce_agent;
use ce_tests::oracle;
use ce_tests::pattern::MIB;
use ce_tests::tool::text;
use rustix::process::Signal;

use daemon_desk::authority::{Authority, NOW};
use daemon_desk::connector::{Connector, Session, welcome};
use daemon_desk::wire::Wire;
use daemon_desk::{Desk, SOON, start};
use share::{PASSWORD, Setup};

#[test]
fn an_export_to_a_share_is_commanded_through_the_connector() -> Result<()> {
    let server = Setup::default().start();
    let desk = Desk::new(64 * MIB)?;
    let connector = Connector::start(&desk.authority)?;
    desk.configure(&[connector.address.to_string()], "")?;
    let agent = desk.agent()?;
    let (mut session, hello) = connector.greeted(SOON)?;
    ensure!(session.has_certificate && session.token.is_none());
    let host = hello.host.clone().context("no facts about the host")?;
    ensure!(host.memory_bytes > 0 && host.cpu_count > 0, "{host:?}");
    ensure!((16..=64).contains(&hello.state_id.len()), "{hello:?}");

    let mut job = desk.export("job-1");
    let request = job.request.as_mut().context("no request")?;
    request.output_storage_location = Some(v1::OutputStorageLocation {
        location: server.url("share/folder"),
        ..Default::default()
    });
    job.credentials = Some(v1::Credentials {
        domain: String::new(),
        username: server.user().into(),
        password: PASSWORD.into(),
    });
    session.say_next(start(&job))?;
    let mut log = Vec::new();
    let finished = session.until(|told| match told {
        Told::LogBatch(batch) => {
            log.push(batch.clone());
            None
        }
        Told::JobFinished(finished) => Some(finished.clone()),
        _ => None,
    })?;
    ensure!(finished.status() == Ended::Complete, "{finished:?}");
    let artifacts = finished.artifacts.context("no artifacts")?;
    let md5 = oracle::md5_of_file(&desk.disk())?;
    ensure!(artifacts.md5_hash == Some(md5), "{artifacts:?}");
    ensure!(server.folder().join("folder/job-1.vhdx").is_file());

    // The last records come within a second or two.
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        if let Some(Told::LogBatch(batch)) = session
            .next_within(Duration::from_millis(200))
            .and_then(|message| message.body)
        {
            log.push(batch);
        }
    }
    ensure!(
        log.iter().any(|batch| batch.job_id == "job-1"
            && batch
                .records
                .iter()
                .any(|record| record.message.contains("job is complete"))),
        "{log:?}"
    );
    agent.signal(Signal::TERM)?;
    let run = agent.finish()?;
    ensure!(run.status.code() == Some(0), "{}{}", run.status, run.stderr);

    // The password is nowhere: not in a log, sent or written, and not in what is kept on disk.
    let mut seen = format!("{log:?}{}{}", run.stdout, run.stderr);
    for entry in fs::read_dir(desk.path("state/jobs"))? {
        seen.push_str(&fs::read_to_string(entry?.path())?);
    }
    ensure!(seen.contains("job-1"));
    ensure!(!seen.contains(PASSWORD), "the password shows");
    Ok(())
}

#[test]
fn every_thread_of_the_daemon_has_given_up_what_no_job_needs() -> Result<()> {
    let desk = Desk::new(MIB)?;
    let connector = Connector::start(&desk.authority)?;
    desk.configure(&[connector.address.to_string()], "")?;
    let agent = desk.agent()?;
    let _session = connector.greeted(SOON)?;
    for thread in fs::read_dir(format!("/proc/{}/task", agent.id()))? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        let field = |name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::trim).context(status.clone())
        };
        ensure!(field("NoNewPrivs:")? == "1", "{status}");
        ensure!(field("Seccomp:")? == "2", "{status}");
        for set in ["CapInh:", "CapPrm:", "CapEff:"] {
            let held = u64::from_str_radix(field(set)?, 16)?;
            ensure!(held & !CAPABILITIES_OF_JOBS == 0, "{status}");
        }
    }
    Ok(())
}

#[test]
fn a_token_is_exchanged_for_a_certificate_and_never_shown_again() -> Result<()> {
    let desk = Desk::new(MIB)?;
    let connector = Connector::start(&desk.authority)?;
    desk.configure(
        &[connector.address.to_string()],
        "token = 'one-time-s3cret'",
    )?;
    let agent = desk.agent()?;
    // The first answer is lost; the token comes again with a request for the same key.
    let mut lost = connector.session(SOON)?;
    let first = lost.hello()?;
    drop(lost);
    let mut session = connector.session(SOON)?;
    ensure!(session.token.as_deref() == Some("Bearer one-time-s3cret"));
    let hello = session.hello()?;
    ensure!(!first.certificate_request.is_empty() && !hello.certificate_request.is_empty());
    let certificate = desk.authority.sign_request(&hello.certificate_request)?;
    session.say(
        0,
        Body::Welcome(v1::Welcome {
            certificate_chain: vec![certificate],
            ..welcome()
        }),
    )?;
    session.say(0, goodbye(Parting::Enrolled))?;
    let (session, hello) = connector.greeted(SOON)?;
    ensure!(session.has_certificate && session.token.is_none());
    ensure!(hello.certificate_request.is_empty());
    agent.signal(Signal::TERM)?;
    let run = agent.finish()?;
    ensure!(!run.stderr.contains("s3cret"), "{}", run.stderr);
    Ok(())
}

#[test]
fn a_token_that_is_refused_is_told_and_not_tried_in_haste() -> Result<()> {
    let desk = Desk::new(MIB)?;
    let connector = Connector::start(&desk.authority)?;
    desk.configure(&[connector.address.to_string()], "token = 'replayed'")?;
    let agent = desk.agent()?;
    for _ in 0..2 {
        let session = connector.session(SOON)?;
        session.refuse(tonic::Status::unauthenticated("the token has been used"))?;
    }
    let said = agent.stop()?;
    ensure!(said.contains("ConnectorRejected"), "{said}");
    ensure!(
        said.contains("does not know this agent: the token has been used"),
        "{said}"
    );
    Ok(())
}

#[test]
fn certificates_that_are_not_good_are_told_by_what_is_wrong_with_them() -> Result<()> {
    let desk = Desk::new(MIB)?;
    let other = Authority::new("another")?;
    let names = ["127.0.0.1"];
    for (own, expected) in [
        (other.sign(&names, NOW)?, "is not from the pinned CA"),
        (desk.authority.sign(&names, (2001, 2002))?, "has expired"),
        (desk.authority.sign(&names, (2090, 2091))?, "clock skew"),
        (
            desk.authority.sign(&["x.example"], NOW)?,
            "is for another name",
        ),
    ] {
        let connector = Connector::start_as("127.0.0.1:0".parse()?, &own, &desk.authority)?;
        desk.configure(&[connector.address.to_string()], "")?;
        let agent = desk.agent()?;
        ensure!(connector.session(Duration::from_secs(2)).is_err());
        let said = agent.stop()?;
        ensure!(said.contains(expected), "{expected}: {said}");
    }
    // The other way about: the Connector looks at the agent's.
    let connector = Connector::start(&desk.authority)?;
    desk.configure(&[connector.address.to_string()], "")?;
    for (own, expected) in [
        (
            other.sign(&["agent-1"], NOW)?,
            "does not accept this agent's certificate",
        ),
        (
            desk.authority.sign(&["agent-1"], (2001, 2002))?,
            "certificate expired or not yet",
        ),
    ] {
        desk.certify(&own)?;
        let agent = desk.agent()?;
        ensure!(connector.session(Duration::from_secs(2)).is_err());
        let said = agent.stop()?;
        ensure!(said.contains(expected), "{expected}: {said}");
    }
    Ok(())
}

#[test]
fn a_connector_that_breaks_the_protocol_is_left_and_told_why() -> Result<()> {
    let desk = Desk::new(MIB)?;
    let connector = Connector::start(&desk.authority)?;
    desk.configure(&[connector.address.to_string()], "")?;
    let job = desk.export("a");
    let huge = v1::StartJob {
        job_id: "x".repeat(2 << 20),
        ..job.clone()
    };
    let old = v1::Welcome {
        protocol_revision: 0,
        ..welcome()
    };
    let future = Body::Goodbye(v1::Goodbye {
        reason: 99,
        ..Default::default()
    });
    let slash = v1::StartJob {
        job_id: "../../etc/passwd".into(),
        ..job.clone()
    };
    type Misdeed = Box<dyn Fn(&mut Session) -> Result<()>>;
    let after_welcome = |sequence: u64, body: Body| -> Misdeed {
        Box::new(move |session| {
            session.welcome()?;
            session.say(sequence, body.clone())
        })
    };
    let misdeeds: Vec<(&str, Misdeed)> = vec![
        ("message length too large", after_welcome(1, start(&huge))),
        ("number is not the next one", after_welcome(2, start(&job))),
        ("wrong number 0", after_welcome(0, start(&job))),
        (
            "never",
            after_welcome(0, Body::Ack(v1::Ack { sequence: 7 })),
        ),
        ("without a known reason", after_welcome(0, future)),
        ("name that is none", after_welcome(1, start(&slash))),
        (
            "a second Welcome",
            after_welcome(0, Body::Welcome(welcome())),
        ),
        ("before Welcome", {
            let job = start(&job);
            Box::new(move |session| session.say(1, job.clone()))
        }),
        ("speaks revision 0", {
            Box::new(move |session| session.say(0, Body::Welcome(old.clone())))
        }),
        ("a kind that this agent does not know", {
            Box::new(|session| {
                session.welcome()?;
                session.say_nothing()
            })
        }),
    ];
    for (expected, misdeed) in misdeeds {
        let agent = desk.agent()?;
        let mut session = connector.session(SOON)?;
        session.hello()?;
        misdeed(&mut session)?;
        let was_left = session.is_ended_within(SOON);
        let said = agent.stop()?;
        let expected = expected.replace("never", "is the last that was sent");
        ensure!(was_left && said.contains(&expected), "{expected}: {said}");
        ensure!(!said.contains("panicked"), "{said}");
        // What it wanted to do next is of no interest.
        while connector.session(Duration::from_millis(1)).is_ok() {}
    }
    ensure!(fs::read_dir(desk.path("state/jobs"))?.next().is_none());
    Ok(())
}

#[test]
fn a_flood_of_messages_ends_the_session() -> Result<()> {
    let desk = Desk::new(MIB)?;
    let connector = Connector::start(&desk.authority)?;
    desk.configure(&[connector.address.to_string()], "")?;
    let agent = desk.agent()?;
    let (mut session, _) = connector.greeted(SOON)?;
    let began = Instant::now();
    while session.ack(0).is_ok() && began.elapsed() < SOON {}
    ensure!(session.is_ended_within(SOON));
    let said = agent.stop()?;
    ensure!(said.contains("messages a second"), "{said}");
    Ok(())
}

#[test]
fn a_job_that_cannot_be_is_refused_with_every_problem() -> Result<()> {
    let desk = Desk::new(MIB)?;
    let connector = Connector::start(&desk.authority)?;
    desk.configure(&[connector.address.to_string()], "")?;
    let agent = desk.agent()?;
    let (mut session, _) = connector.greeted(SOON)?;
    let fields = |rejected: &v1::JobRejected| -> Vec<String> {
        let problems = rejected.problems.iter();
        problems.map(|problem| problem.field.clone()).collect()
    };

    let mut job = desk.export("future");
    job.required_revision = ce_proto::PROTOCOL_REVISION + 1;
    session.say_next(start(&job))?;
    let rejected = session.rejected()?;
    ensure!(rejected.reason() == Reason::Unsupported, "{rejected:?}");

    let mut job = desk.export("unknown");
    let request = job.request.as_mut().context("no request")?;
    (request.operation, request.network) = (Some(99), Some(77));
    session.say_next(start(&job))?;
    let rejected = session.rejected()?;
    ensure!(rejected.reason() == Reason::Invalid, "{rejected:?}");
    ensure!(
        fields(&rejected) == ["operation", "network"],
        "{rejected:?}"
    );

    let mut job = desk.export("many");
    let request = job.request.as_mut().context("no request")?;
    request.output_image_filename = Some("../../etc/cron.d/x".into());
    request.output_storage_location = Some(v1::OutputStorageLocation {
        location: "smb://evil.example/share".into(),
        ..Default::default()
    });
    request.timeout_seconds = Some(0);
    session.say_next(start(&job))?;
    let rejected = session.rejected()?;
    let told = fields(&rejected);
    for field in ["timeoutSeconds", "outputImageFilename"] {
        ensure!(told.iter().any(|told| told == field), "{rejected:?}");
    }

    for (id, location) in [
        ("host", "smb://evil.example/share"),
        ("folder", "/etc"),
        ("up", &*desk.path("images/../state").display().to_string()),
    ] {
        let mut job = desk.export(id);
        let request = job.request.as_mut().context("no request")?;
        let output = request.output_storage_location.as_mut();
        output.context("no location")?.location = location.into();
        job.credentials = Some(v1::Credentials {
            domain: String::new(),
            username: "u".into(),
            password: "p".into(),
        });
        session.say_next(start(&job))?;
        let rejected = session.rejected()?;
        ensure!(
            fields(&rejected) == ["outputStorageLocation.location"],
            "{rejected:?}"
        );
    }

    use v1::disk_selector::Selector;
    for (id, selector, code) in [
        (
            "file",
            Selector::Path("/etc/passwd".into()),
            "InvalidRequest",
        ),
        ("null", Selector::Path("/dev/null".into()), "InvalidRequest"),
        ("serial", Selector::Serial("no such".into()), "DiskNotFound"),
        ("lun", Selector::Lun(4_000_000_000), "DiskNotFound"),
    ] {
        let mut job = desk.export(id);
        let request = job.request.as_mut().context("no request")?;
        let disk = request.disk.as_mut().context("no disk")?;
        disk.selector = Some(selector);
        session.say_next(start(&job))?;
        let rejected = session.rejected()?;
        let error = rejected.error.clone().context("no error")?;
        ensure!(error.code == code, "{rejected:?}");
    }
    // None of it was ever taken on.
    ensure!(fs::read_dir(desk.path("state/jobs"))?.next().is_none());
    agent.stop()?;
    Ok(())
}

#[test]
fn the_same_job_is_done_once_and_another_one_has_to_wait() -> Result<()> {
    let desk = Desk::new(600 * MIB)?;
    let connector = Connector::start(&desk.authority)?;
    desk.configure(&[connector.address.to_string()], "")?;
    let agent = desk.agent()?;
    let (mut session, _) = connector.greeted(SOON)?;
    let job = desk.export("a");
    session.say_next(start(&job))?;
    session.say_next(start(&job))?;
    session.say_next(start(&desk.export("b")))?;
    let rejected = session.rejected()?;
    ensure!(
        rejected.reason() == Reason::Busy && rejected.job_id == "b",
        "{rejected:?}"
    );
    let mut other = desk.export("a");
    other.request.as_mut().context("no request")?.hash_disk = Some(false);
    session.say_next(start(&other))?;
    ensure!(session.rejected()?.reason() == Reason::DuplicateId);
    let finished = session.finished("a")?;
    ensure!(finished.status() == Ended::Complete, "{finished:?}");
    // Long after: the same answer, and not the work again.
    session.say_next(start(&job))?;
    ensure!(session.finished("a")? == finished);
    agent.stop()?;
    Ok(())
}

#[test]
fn a_job_is_cancelled_times_out_and_stops_with_the_agent() -> Result<()> {
    let desk = Desk::new(1500 * MIB)?;
    let connector = Connector::start(&desk.authority)?;
    desk.configure(&[connector.address.to_string()], "")?;
    let agent = desk.agent()?;
    let (mut session, _) = connector.greeted(SOON)?;
    session.say_next(start(&desk.export("cancelled")))?;
    under_way(&mut session)?;
    session.say_next(Body::CancelJob(v1::CancelJob {
        job_id: "cancelled".into(),
        reason: "wrong disk".into(),
    }))?;
    let finished = session.finished("cancelled")?;
    ensure!(finished.status() == Ended::Cancelled, "{finished:?}");
    let error = finished.error.context("no error")?;
    ensure!(
        error.code == "Cancelled" && error.message.contains("wrong disk"),
        "{error:?}"
    );

    let mut job = desk.export("slow");
    job.request.as_mut().context("no request")?.timeout_seconds = Some(1);
    session.say_next(start(&job))?;
    let finished = session.finished("slow")?;
    // On a machine that is fast enough there is nothing to time out.
    if finished.status() != Ended::Complete {
        let error = finished.error.context("no error")?;
        ensure!(error.code == "Timeout", "{error:?}");
        fs::write(desk.path("images/slow.vhdx"), [])?;
    }

    session.say_next(start(&desk.export("stopped")))?;
    under_way(&mut session)?;
    agent.signal(Signal::TERM)?;
    let finished = session.finished("stopped")?;
    ensure!(finished.status() == Ended::Cancelled, "{finished:?}");
    let run = agent.finish()?;
    ensure!(run.status.code() == Some(0), "{}", run.stderr);
    // Nothing is left of what was stopped.
    let names: Vec<_> = fs::read_dir(desk.path("images"))?
        .map(|entry| Ok(entry?.file_name()))
        .collect::<Result<_>>()?;
    ensure!(names == ["slow.vhdx"], "{names:?}");
    Ok(())
}

#[test]
fn nothing_is_lost_or_done_twice_however_often_the_link_and_the_connector_go() -> Result<()> {
    let desk = Desk::new(600 * MIB)?;
    let own = desk.authority.sign(&["127.0.0.1"], NOW)?;
    let mut connector = Connector::start_as("127.0.0.1:0".parse()?, &own, &desk.authority)?;
    let wire = Wire::new(Some(connector.address))?;
    desk.configure(&[wire.address.to_string()], "")?;
    let agent = desk.agent()?;
    let mut seen = Seen::default();
    for round in 0..12 {
        if round % 4 == 3 {
            let address = connector.kill();
            sleep(Duration::from_millis(300));
            connector = Connector::start_as(address, &own, &desk.authority)?;
        }
        let (mut session, hello) = connector.greeted(SOON)?;
        seen.check_hello(&hello)?;
        // A Connector that has no durable answer says it again.
        if round < 8 {
            session.say_next(start(&desk.export("a")))?;
        }
        let until = Instant::now() + Duration::from_millis(150 + 40 * round);
        while Instant::now() < until {
            if let Some(message) = session.next_within(Duration::from_millis(20)) {
                // Results are only acknowledged in the last rounds.
                seen.take(&mut session, message, round >= 8)?;
            }
        }
        match round % 2 {
            0 => wire.cut(),
            _ => drop(session),
        }
    }
    let (mut session, _) = connector.greeted(SOON)?;
    while seen.result.is_none() || !seen.acknowledged {
        let message = session.next()?;
        seen.take(&mut session, message, true)?;
    }
    ensure!(seen.attempts == 1 && seen.accepted > 1, "{seen:?}");
    let finished = seen.result.context("no result")?;
    ensure!(finished.status() == Ended::Complete, "{finished:?}");
    let artifacts = finished.artifacts.context("no artifacts")?;
    ensure!(artifacts.md5_hash == Some(oracle::md5_of_file(&desk.disk())?));
    agent.stop()?;
    Ok(())
}

#[test]
fn an_agent_that_is_killed_goes_on_where_it_was() -> Result<()> {
    let desk = Desk::new(1500 * MIB)?;
    let connector = Connector::start(&desk.authority)?;
    desk.configure(&[connector.address.to_string()], "")?;
    let mut state = String::new();
    let mut finished = None;
    for round in 0..8_u64 {
        let agent = desk.agent()?;
        let (mut session, hello) = connector.greeted(SOON)?;
        ensure!(round == 0 || hello.state_id == state, "another state");
        state = hello.state_id;
        if round == 0 {
            session.say_next(start(&desk.export("a")))?;
            session.until(|told| matches!(told, Told::JobAccepted(_)).then_some(()))?;
        } else {
            ensure!(hello.held_jobs.len() == 1, "{:?}", hello.held_jobs);
        }
        // Results are read, and not acknowledged.
        let until = Instant::now() + Duration::from_millis(300 * round + 50);
        while Instant::now() < until {
            let message = session.next_within(Duration::from_millis(20));
            if let Some(Told::JobFinished(told)) = message.and_then(|message| message.body) {
                ensure!(
                    finished.is_none() || finished.as_ref() == Some(&told),
                    "{told:?}"
                );
                finished = Some(told);
            }
        }
        agent.signal(Signal::KILL)?;
        agent.finish()?;
    }
    let agent = desk.agent()?;
    let (mut session, _) = connector.greeted(SOON)?;
    let last = session.finished("a")?;
    ensure!(finished.is_none_or(|told| told == last), "another result");
    ensure!(last.status() == Ended::Complete, "{last:?}");
    ensure!(
        last.warnings
            .iter()
            .any(|warning| warning.contains("restarted")),
        "{last:?}"
    );
    let artifacts = last.artifacts.context("no artifacts")?;
    ensure!(artifacts.md5_hash == Some(oracle::md5_of_file(&desk.disk())?));
    agent.stop()?;
    // Acknowledged: not told again.
    let agent = desk.agent()?;
    let (_session, hello) = connector.greeted(SOON)?;
    ensure!(hello.held_jobs.is_empty(), "{:?}", hello.held_jobs);
    agent.stop()?;
    Ok(())
}

#[test]
fn an_export_to_a_share_that_a_crash_cut_off_is_told_and_gone_on_with_when_sent_again() -> Result<()>
{
    let server = Setup::default().start();
    let desk = Desk::new(1200 * MIB)?;
    let connector = Connector::start(&desk.authority)?;
    desk.configure(&[connector.address.to_string()], "")?;
    let job = |id: &str| -> Result<v1::StartJob> {
        let mut job = desk.export(id);
        let request = job.request.as_mut().context("no request")?;
        request.output_image_filename = Some("image".into());
        request.output_storage_location = Some(v1::OutputStorageLocation {
            location: server.url("share"),
            ..Default::default()
        });
        job.credentials = Some(v1::Credentials {
            domain: String::new(),
            username: server.user().into(),
            password: PASSWORD.into(),
        });
        Ok(job)
    };
    let agent = desk.agent()?;
    let (mut session, _) = connector.greeted(SOON)?;
    session.say_next(start(&job("first")?))?;
    // Far enough for a checkpoint.
    session.until(|told| match told {
        Told::JobProgress(progress) => (progress.bytes_done > 300 * MIB).then_some(()),
        Told::JobFinished(_) => Some(()),
        _ => None,
    })?;
    agent.signal(Signal::KILL)?;
    agent.finish()?;

    let agent = desk.agent()?;
    let (mut session, _) = connector.greeted(SOON)?;
    let finished = session.finished("first")?;
    ensure!(finished.status() == Ended::Failed, "{finished:?}");
    let error = finished.error.context("no error")?;
    ensure!(error.code == "Interrupted", "{error:?}");
    ensure!(error.hint.contains("send it again"), "{error:?}");
    session.say_next(start(&job("second")?))?;
    let finished = session.finished("second")?;
    ensure!(finished.status() == Ended::Complete, "{finished:?}");
    let artifacts = finished.artifacts.context("no artifacts")?;
    ensure!(artifacts.resumed_from_bytes > Some(0), "{artifacts:?}");
    ensure!(artifacts.md5_hash == Some(oracle::md5_of_file(&desk.disk())?));
    agent.stop()?;
    Ok(())
}

#[test]
fn a_disk_is_prepared_at_the_command_of_the_connector() -> Result<()> {
    let desk = desk_with_a_guest()?;
    let connector = Connector::start(&desk.authority)?;
    desk.configure(&[connector.address.to_string()], "")?;
    let md5 = oracle::md5_of_file(&desk.disk())?;
    let agent = desk.agent()?;
    let (mut session, _) = connector.greeted(SOON)?;
    session.say_next(start(&preparation(&desk, "p", &md5)))?;
    let finished = session.finished("p")?;
    ensure!(finished.status() == Ended::Complete, "{finished:?}");
    let found = finished.artifacts.context("no artifacts")?;
    ensure!(found.md5_hash.as_ref() == Some(&md5), "{found:?}");
    let done = v1::change::Outcome::Done;
    ensure!(
        found.changes.iter().any(|change| change.outcome() == done),
        "{found:?}"
    );
    let further: serde_json::Value = serde_json::from_str(&found.further_json)?;
    ensure!(
        further["proof"]["failures"] == serde_json::json!([]),
        "{further}"
    );

    // It is another disk now.
    session.say_next(start(&preparation(&desk, "again", &md5)))?;
    let finished = session.finished("again")?;
    let error = finished.error.context("no error")?;
    ensure!(error.code == "HashMismatch", "{error:?}");
    ensure!(
        error.message == format!("Expected hash [{md5}] does not match provided disk"),
        "{error:?}"
    );
    agent.stop()?;
    Ok(())
}

#[test]
fn an_agent_that_is_killed_while_it_prepares_leaves_the_old_disk_or_the_new_one() -> Result<()> {
    let desk = desk_with_a_guest()?;
    let old = fs::read(desk.disk())?;
    let md5 = oracle::md5_of_file(&desk.disk())?;
    let mut unfinished = 0;
    for (round, delay) in [30, 150, 300, 500, 700, 1000].into_iter().enumerate() {
        fs::write(desk.disk(), &old)?;
        let connector = Connector::start(&desk.authority)?;
        desk.configure(&[connector.address.to_string()], "")?;
        let id = format!("p{round}");
        let agent = desk.agent()?;
        let (mut session, _) = connector.greeted(SOON)?;
        session.say_next(start(&preparation(&desk, &id, &md5)))?;
        session.until(|told| matches!(told, Told::JobAccepted(_)).then_some(()))?;
        sleep(Duration::from_millis(delay));
        agent.signal(Signal::KILL)?;
        agent.finish()?;
        let agent = desk.agent()?;
        let (mut session, _) = connector.greeted(SOON)?;
        let finished = session.finished(&id)?;
        unfinished += usize::from(finished.status() != Ended::Complete);
        agent.stop()?;
        let journals = fs::read_dir(desk.path("state"))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.ends_with(".journal"))
            .count();
        ensure!(journals == 0, "a journal is left");
        if fs::read(desk.disk())? != old {
            let disk = desk.disk();
            let plan = [
                "prepare",
                text(&disk)?,
                "--platform",
                "azure",
                "--plan",
                "--json",
            ];
            let plan = ce_agent(plan)?.expect_code(0)?.job()?;
            let changes = plan["artifacts"]["changes"].as_array().context("no plan")?;
            let to_do = changes.iter().filter(|change| change["outcome"] == "done");
            ensure!(to_do.count() == 0, "only a part was committed");
        }
    }
    ensure!(unfinished > 0, "the agent was never killed in time");
    Ok(())
}

/// A desk whose disk has a Windows of vSphere on it, with all that Azure needs.
fn desk_with_a_guest() -> Result<Desk> {
    let desk = Desk::new(MIB)?;
    fs::remove_file(desk.disk())?;
    let guest = guest::Guest::of(Platform::Vsphere, Platform::Azure);
    guest_disk::make(&guest, &desk.disk())?;
    Ok(desk)
}

fn preparation(desk: &Desk, id: &str, md5: &str) -> v1::StartJob {
    let mut job = desk.export(id);
    let disk = job.request.and_then(|request| request.disk);
    job.request = Some(v1::JobRequest {
        operation: Some(v1::Operation::Prepare.into()),
        platform: Some(v1::Platform::Azure.into()),
        disk,
        md5_hash: Some(md5.to_owned()),
        ..Default::default()
    });
    job
}

#[test]
fn diagnostics_come_back_over_the_session() -> Result<()> {
    let desk = Desk::new(MIB)?;
    let connector = Connector::start(&desk.authority)?;
    desk.configure(&[connector.address.to_string()], "")?;
    let agent = desk.agent()?;
    let (mut session, _) = connector.greeted(SOON)?;
    let mut job = desk.export("d");
    job.request = Some(v1::JobRequest {
        operation: Some(v1::Operation::Diagnostics.into()),
        ..Default::default()
    });
    session.say_next(start(&job))?;
    let finished = session.finished("d")?;
    ensure!(finished.status() == Ended::Complete, "{finished:?}");
    let further = finished.artifacts.context("no artifacts")?.further_json;
    let further: serde_json::Value = serde_json::from_str(&further)?;
    let bundle = &further["diagnostics"];
    ensure!(bundle["sizeBytes"].as_u64() > Some(0), "{bundle}");
    // gzip, in Base64.
    let content = bundle["content"].as_str().context("no content")?;
    ensure!(content.starts_with("H4sI"), "{}", &content[..8]);
    agent.stop()?;
    Ok(())
}

#[test]
fn a_proxy_is_used_and_its_refusal_is_told() -> Result<()> {
    let desk = Desk::new(MIB)?;
    let connector = Connector::start(&desk.authority)?;
    let proxy = Wire::new(None)?;
    let through = format!("proxy = 'http://{}'", proxy.address);
    desk.configure(&[connector.address.to_string()], &through)?;
    let agent = desk.agent()?;
    let (_session, _) = connector.greeted(SOON)?;
    ensure!(proxy.tunnels() == 1, "{}", proxy.tunnels());
    agent.stop()?;

    desk.configure(&["no-address.example:443".into()], &through)?;
    let agent = desk.agent()?;
    sleep(Duration::from_secs(1));
    let said = agent.stop()?;
    ensure!(said.contains("405 Only tunnels here"), "{said}");
    Ok(())
}

#[test]
fn a_proxy_that_wants_a_password_gets_it_and_nobody_else_does() -> Result<()> {
    let desk = Desk::new(MIB)?;
    let connector = Connector::start(&desk.authority)?;
    // Of RFC 7617: `Aladdin:open sesame`.
    let proxy = Wire::with_credentials("QWxhZGRpbjpvcGVuIHNlc2FtZQ==")?;
    let connectors = [connector.address.to_string()];
    desk.write("credentials", "Aladdin:open sesame\n")?;
    let file = desk.path("credentials");
    let without = format!("proxy = 'http://{}'", proxy.address);
    let with = format!("{without}\nproxy_credentials_file = '{}'", file.display());
    desk.configure(&connectors, &with)?;
    let agent = desk.agent()?;
    let (_session, _) = connector.greeted(SOON)?;
    let said = agent.stop()?;
    ensure!(
        !said.contains("sesame") && !said.contains("c2VzYW1l"),
        "{said}"
    );

    desk.write("credentials", "Aladdin:close sesame\n")?;
    for (further, hint) in [(&with, "check user and password"), (&without, "give it a")] {
        desk.configure(&connectors, further)?;
        let agent = desk.agent()?;
        ensure!(connector.session(Duration::from_secs(1)).is_err());
        let said = agent.stop()?;
        ensure!(
            said.contains("407 Who are you?") && said.contains(hint),
            "{said}"
        );
        ensure!(!said.contains("sesame"), "{said}");
    }
    desk.write("credentials", "no colon")?;
    desk.configure(&connectors, &with)?;
    let said = desk.invocation()?.expect_code(2)?.stderr;
    ensure!(
        said.contains("expected `user:password`") && !said.contains("colon"),
        "{said}"
    );
    Ok(())
}

#[test]
fn another_connector_takes_over_when_one_is_away() -> Result<()> {
    let desk = Desk::new(MIB)?;
    let own = desk.authority.sign(&["127.0.0.1"], NOW)?;
    let first = Connector::start(&desk.authority)?;
    let second = Connector::start(&desk.authority)?;
    desk.configure(&[first.address.to_string(), second.address.to_string()], "")?;
    let agent = desk.agent()?;
    let _session = first.greeted(SOON)?;
    let address = first.kill();
    let _session = second.greeted(SOON)?;
    second.kill();
    let first = Connector::start_as(address, &own, &desk.authority)?;
    first.greeted(SOON)?;
    agent.stop()?;
    Ok(())
}

#[test]
fn an_agent_is_back_soon_after_its_connector() -> Result<()> {
    let desk = Desk::new(MIB)?;
    let own = desk.authority.sign(&["127.0.0.1"], NOW)?;
    let mut connector = Connector::start_as("127.0.0.1:0".parse()?, &own, &desk.authority)?;
    desk.configure(&[connector.address.to_string()], "")?;
    let agent = desk.agent()?;
    connector.greeted(SOON)?;
    let mut delays = Vec::new();
    for _ in 0..5 {
        let address = connector.kill();
        sleep(Duration::from_secs(2));
        connector = Connector::start_as(address, &own, &desk.authority)?;
        let back = Instant::now();
        connector.greeted(SOON)?;
        delays.push(back.elapsed());
    }
    delays.sort();
    // How the waits are spread is a test of the state machine; here, that nothing comes on top.
    ensure!(delays[2] < Duration::from_secs(3), "{delays:?}");
    agent.stop()?;
    Ok(())
}

#[test]
fn a_dead_link_is_found_within_thirty_seconds() -> Result<()> {
    let desk = Desk::new(MIB)?;
    let connector = Connector::start(&desk.authority)?;
    let wire = Wire::new(Some(connector.address))?;
    desk.configure(&[wire.address.to_string()], "")?;
    let agent = desk.agent()?;
    let (mut session, _) = connector.session(SOON).and_then(|mut session| {
        let hello = session.hello()?;
        // So seldom that it is not heartbeats that show it.
        session.say(
            0,
            Body::Welcome(v1::Welcome {
                heartbeat_interval_seconds: 300,
                ..welcome()
            }),
        )?;
        Ok((session, hello))
    })?;
    session.until(|told| matches!(told, Told::LogBatch(_)).then_some(()))?;
    wire.freeze(true);
    let frozen = Instant::now();
    sleep(Duration::from_secs(25));
    wire.freeze(false);
    connector.greeted(SOON)?;
    let took = frozen.elapsed();
    ensure!(took < Duration::from_secs(30 + 6), "{took:?}");
    let said = agent.stop()?;
    ensure!(said.contains("the link broke"), "{said}");
    Ok(())
}

#[test]
fn goodbyes_end_the_agent_when_there_is_no_more_work() -> Result<()> {
    let desk = Desk::new(MIB)?;
    let connector = Connector::start(&desk.authority)?;
    let connectors = [connector.address.to_string()];
    for (parting, code) in [(Parting::Dismissed, 0), (Parting::Replaced, 1)] {
        let witness = desk.path("switched-off");
        let command = format!("power_off_command = ['touch', '{}']", witness.display());
        desk.configure(&connectors, &command)?;
        let agent = desk.agent()?;
        let (mut session, _) = connector.greeted(SOON)?;
        session.say(0, goodbye(parting))?;
        let run = agent.finish()?;
        ensure!(
            run.status.code() == Some(code),
            "{}{}",
            run.status,
            run.stderr
        );
        ensure!(witness.exists() == (parting == Parting::Dismissed));
        fs::remove_file(witness).ok();
    }
    Ok(())
}

#[test]
fn a_misspelt_configuration_is_refused_with_its_line() -> Result<()> {
    let desk = Desk::new(MIB)?;
    desk.write("config.toml", "connectors = ['x']\ntokn = 's3cret'\n")?;
    let run = desk.invocation()?.expect_code(2)?;
    ensure!(
        run.stderr
            .contains("config.toml, line 2: unknown field `tokn`"),
        "{}",
        run.stderr
    );
    ensure!(!run.stderr.contains("s3cret"), "{}", run.stderr);
    let run = ce_agent(["daemon", "--config", "/nonexistent.toml"])?.expect_code(2)?;
    ensure!(run.stderr.contains("no such file"), "{}", run.stderr);
    Ok(())
}

#[test]
fn two_daemons_do_not_share_a_state() -> Result<()> {
    let desk = Desk::new(MIB)?;
    let connector = Connector::start(&desk.authority)?;
    desk.configure(&[connector.address.to_string()], "")?;
    let agent = desk.agent()?;
    let _session = connector.greeted(SOON)?;
    let run = desk.invocation()?.expect_code(1)?;
    ensure!(
        run.stderr.contains("held by another ce-agent daemon"),
        "{}",
        run.stderr
    );
    agent.stop()?;
    Ok(())
}

/// Waits until the job does something.
fn under_way(session: &mut Session) -> Result<()> {
    session.until(|told| match told {
        Told::JobProgress(progress) => (progress.bytes_done > 0).then_some(()),
        Told::JobFinished(_) => Some(()),
        _ => None,
    })
}

fn goodbye(reason: Parting) -> Body {
    Body::Goodbye(v1::Goodbye {
        reason: reason.into(),
        power_off: true,
        message: "of a test".into(),
        reconnect_after_seconds: 0,
    })
}

/// What a Connector has seen of one job in all its lives.
#[derive(Debug, Default)]
struct Seen {
    accepted: usize,
    /// Different results, which there must not be.
    attempts: usize,
    result: Option<v1::JobFinished>,
    acknowledged: bool,
    states: BTreeMap<String, usize>,
    percent: u32,
}

impl Seen {
    fn check_hello(&mut self, hello: &v1::Hello) -> Result<()> {
        *self.states.entry(hello.state_id.clone()).or_default() += 1;
        ensure!(self.states.len() == 1, "another state");
        ensure!(
            self.accepted == 0 || self.acknowledged || hello.held_jobs.len() == 1,
            "{:?}",
            hello.held_jobs
        );
        Ok(())
    }

    fn take(
        &mut self,
        session: &mut Session,
        message: v1::AgentMessage,
        acknowledge: bool,
    ) -> Result<()> {
        match message.body.context("an empty message")? {
            Told::JobAccepted(accepted) => {
                ensure!(
                    accepted.job_id == "a" && accepted.attempt == 1,
                    "{accepted:?}"
                );
                self.accepted += 1;
            }
            Told::JobFinished(finished) => {
                self.attempts += usize::from(self.result.as_ref() != Some(&finished));
                self.result = Some(finished);
                if acknowledge {
                    session.ack(message.sequence)?;
                    self.acknowledged = true;
                }
            }
            Told::JobProgress(progress) => {
                ensure!(
                    progress.overall_progress_percent >= self.percent,
                    "{progress:?}"
                );
                self.percent = progress.overall_progress_percent;
            }
            Told::JobRejected(rejected) => anyhow::bail!("{rejected:?}"),
            _ => {}
        }
        Ok(())
    }
}

/// chown, dac_override, dac_read_search, fowner, kill, setgid, setuid, setpcap, sys_admin, sys_boot and
/// syslog, by their numbers (linux/capability.h).
const CAPABILITIES_OF_JOBS: u64 = 0b1111 | 0b1111 << 5 | 1 << 21 | 1 << 22 | 1 << 34;
