//! Whatever breaks, every job is done once, and what came of it arrives.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ce_platform::Platform;
use ce_tests::agent::{Invocation, Running};
use ce_tests::cable::Cable;
use ce_tests::guest::inspected;
use ce_tests::oracle;
use ce_tests::pattern::MIB;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::bios_disk::{Bench, Layout};
use crate::share::Setup;
use crate::site::{Admission, PATIENCE, Site, has_ended};
use crate::{guest, guest_disk};

#[test]
fn nothing_is_lost_or_done_twice_however_often_the_connector_is_killed() -> Result<()> {
    let rounds = if ce_tests::is_long() { 100 } else { 20 };
    let mut site = Site::new()?;
    let mut work = Work::new(&site)?;
    let agent = site.agent("ce-1")?.start()?;
    site.until_connected("ce-1")?;
    let mut delays = Vec::new();
    for round in 0..rounds {
        work.keep_busy(&site)?;
        sleep(Duration::from_millis(some(round, 300)));
        site.kill()?;
        sleep(Duration::from_millis(some(round + 1, 400)));
        site.serve()?;
        delays.push(site.until_connected("ce-1")?);
    }
    work.expect_all_done(&site)?;
    let said = agent.stop()?;
    work.expect_each_begun_once(&said)?;
    delays.sort();
    let median = delays[delays.len() / 2];
    println!(
        "{rounds} Connectors killed, {} jobs; back after {median:.2?} at the median, {:.2?} at most",
        work.jobs.len(),
        delays[delays.len() - 1]
    );
    // How waits are spread is a test of the state machine; here, that little comes on top.
    ensure!(median < Duration::from_secs(4), "{delays:?}");
    Ok(())
}

#[test]
fn nothing_is_lost_or_done_twice_however_often_the_cable_is_pulled() -> Result<()> {
    let Some(cable) = Cable::new()? else {
        return Ok(());
    };
    let rounds = if ce_tests::is_long() { 20 } else { 4 };
    let site = Site::at(cable.here())?;
    let mut work = Work::new(&site)?;
    let agent = site.agent("ce-1")?.below(cable.wrapper()).start()?;
    site.until_connected("ce-1")?;
    for round in 0..rounds {
        work.keep_busy(&site)?;
        sleep(Duration::from_millis(some(round, 300)));
        cable.plug(false)?;
        // Every other time so long that the Connector gives the session up, after three heartbeats.
        let away = if round % 2 == 0 { 500 } else { 7500 };
        sleep(Duration::from_millis(away));
        cable.plug(true)?;
    }
    work.expect_all_done(&site)?;
    let said = agent.stop()?;
    work.expect_each_begun_once(&said)?;
    let log = fs::read_to_string(site.path("connector.log"))?;
    ensure!(log.contains("nothing was heard for 6 seconds"), "{log}");
    Ok(())
}

/// Jobs that keep an agent busy, a few at a time.
struct Work {
    disk: PathBuf,
    md5: String,
    /// Their names, and whether they are known to be complete.
    jobs: BTreeMap<String, bool>,
}

impl Work {
    fn new(site: &Site) -> Result<Self> {
        let disk = site.disk("disk.raw", 150 * MIB)?;
        let md5 = oracle::md5_of_file(&disk)?;
        let jobs = BTreeMap::new();
        Ok(Self { disk, md5, jobs })
    }

    /// Sees that two jobs wait or run.
    fn keep_busy(&mut self, site: &Site) -> Result<()> {
        let open: Vec<_> = self.jobs.iter().filter(|(_, done)| !**done).collect();
        let open: Vec<_> = open.into_iter().map(|(job, _)| job.clone()).collect();
        for job in open {
            let shown = site.show(&job)?;
            if has_ended(&shown) {
                self.expect_done(site, &job, &shown)?;
            }
        }
        while self.jobs.values().filter(|done| !**done).count() < 2 {
            let image = format!("image-{}", self.jobs.len());
            let job = site.submit(&site.export(&self.disk, &image))?;
            self.jobs.insert(job, false);
        }
        Ok(())
    }

    fn expect_done(&mut self, site: &Site, job: &str, shown: &Value) -> Result<()> {
        ensure!(shown["status"] == "complete", "{shown:#}");
        ensure!(shown["artifacts"]["md5Hash"] == self.md5, "{shown:#}");
        let image = shown["parameters"]["outputImageFilename"].as_str();
        let image = site.path("images").join(image.context("no name")?);
        fs::remove_file(image.with_extension("vhdx"))?;
        self.jobs.insert(job.to_owned(), true);
        Ok(())
    }

    fn expect_all_done(&mut self, site: &Site) -> Result<()> {
        for (job, done) in self.jobs.clone() {
            if !done {
                let shown = site.ended(&job)?;
                self.expect_done(site, &job, &shown)?;
            }
        }
        // Nothing is left that nobody asked for.
        ensure!(fs::read_dir(site.path("images"))?.next().is_none());
        Ok(())
    }

    fn expect_each_begun_once(&self, said: &str) -> Result<()> {
        for job in self.jobs.keys() {
            let begun = said
                .lines()
                .filter(|line| line.contains("job starts") && line.contains(job));
            ensure!(
                begun.count() == 1,
                "{job} was begun more than once:\n{said}"
            );
        }
        Ok(())
    }
}

#[test]
fn jobs_of_every_kind_end_as_what_they_are_however_the_agent_is_killed() -> Result<()> {
    let rounds = if ce_tests::is_long() { 25 } else { 3 };
    let server = Setup::default().start();
    let site = Site::new()?;
    site.keep_credentials(&server)?;
    let disk = site.disk("disk.raw", 200 * MIB)?;
    let md5 = oracle::md5_of_file(&disk)?;
    let windows = site.path("disks").join("windows.raw");
    guest_disk::make(&streamed_before(), &windows)?;
    let streamed = site.path("disks").join("streamed.raw");
    let guest = guest_disk::with_loader(guest_disk::streamable());
    guest_disk::make(&guest, &streamed)?;
    let old = fs::read(&windows)?;
    let on_share = json!({"location": server.url("share"), "credentialId": "backup"});
    let invocation = site.agent_by("ce-1", Admission::Token, &site.agents.to_string(), "")?;
    let mut agent = Killed::new(&site, invocation)?;
    let mut ends = BTreeMap::<_, usize>::new();
    for round in 0..rounds {
        let image = format!("image-{round}");
        let mut to_share = site.export(&disk, &image);
        to_share["outputStorageLocation"] = on_share.clone();
        let mut published = site.export(&streamed, &format!("published-{round}"));
        published["operation"] = "publish".into();
        let prepare =
            json!({"operation": "prepare", "platform": "azure", "disk": {"path": windows}});
        let both = prepare_and_publish(&site, &windows, &format!("prepared-{round}"));
        for (kind, request) in [
            (
                "inspect",
                json!({"operation": "inspect", "disk": {"path": windows}}),
            ),
            ("diagnostics", json!({"operation": "diagnostics"})),
            ("export", site.export(&disk, &image)),
            ("export to a share", to_share),
            ("publish", published),
            ("prepare", prepare),
            ("prepare and publish", both),
        ] {
            fs::write(&windows, &old)?;
            let job = agent.killed_during(&request, some(round, 700))?;
            let ended = site.ended(&job)?;
            let is_complete = ended["status"] == "complete";
            let told = ended["error"]["message"].as_str().unwrap_or_default();
            match kind {
                "prepare" | "prepare and publish" => {
                    let is_changed = fs::read(&windows)? != old;
                    ensure!(is_complete == is_changed, "{ended:#}");
                    ensure!(
                        is_complete || told.contains("the disk is as it was"),
                        "{told}"
                    );
                    ensure!(
                        !is_complete || ended["artifacts"]["proof"]["failures"] == json!([]),
                        "{ended:#}"
                    );
                }
                "export to a share" => ensure!(
                    is_complete || ended["error"]["code"] == "Interrupted",
                    "{ended:#}"
                ),
                // An image that has its name already is not made again.
                "export" | "publish" if told.contains("perhaps when it was about to") => {}
                _ => ensure!(is_complete, "{kind}: {ended:#}"),
            }
            if is_complete && kind.starts_with("export") {
                ensure!(ended["artifacts"]["md5Hash"] == md5, "{ended:#}");
            }
            *ends.entry((kind, is_complete)).or_default() += 1;
        }
    }
    println!("kinds of jobs, and whether they were complete: {ends:?}");
    agent.stop()
}

#[test]
fn a_prepare_whose_commit_was_begun_is_finished_and_told_as_complete() -> Result<()> {
    let rounds = if ce_tests::is_long() { 40 } else { 6 };
    let site = Site::new()?;
    let windows = site.path("disks").join("windows.raw");
    guest_disk::make(&streamed_before(), &windows)?;
    let old = fs::read(&windows)?;
    let invocation = site.agent("ce-1")?;
    let mut agent = Killed::new(&site, invocation)?;
    let note = site.path(NOTES);
    let (mut finished, mut untouched) = (0, 0);
    let mut aim = Aim::within(120);
    let mut round = 0;
    while round < rounds || finished == 0 {
        ensure!(round < 10 * rounds, "no commit was cut off");
        fs::write(&windows, &old)?;
        let image = format!("prepared-{round}");
        let mut request = prepare_and_publish(&site, &windows, &image);
        let publishes = round % 2 == 1;
        if !publishes {
            request =
                json!({"operation": "prepare", "platform": "azure", "disk": {"path": windows}});
        }
        let job = agent.killed_at_commit(&request, aim.after(round))?;
        let ended = site.ended(&job)?;
        if fs::read(&windows)? == old {
            untouched += 1;
            aim.was_early();
            ensure!(ended["error"]["code"] == "Interrupted", "{ended:#}");
        } else {
            match ended["warnings"].to_string().contains("restarted") {
                true => finished += 1,
                false => aim.was_late(),
            }
            ensure!(ended["status"] == "complete", "{ended:#}");
            ensure!(ended["artifacts"]["changes"].is_array(), "{ended:#}");
            expect_nothing_left_to_do(&windows)?;
        }
        // The image has its name before the disk is changed.
        let image = site.path("images").join(image).with_extension("vhdx");
        ensure!(image.is_file() == publishes, "{ended:#}");
        ensure!(fs::read_dir(&note)?.next().is_none(), "a note is left");
        round += 1;
    }
    println!("{round} commits cut off: {finished} finished later, {untouched} not begun");
    agent.stop()
}

#[test]
fn a_conversion_that_is_cut_off_leaves_the_old_disk_or_the_new_one_and_is_told_as_that()
-> Result<()> {
    let rounds = if ce_tests::is_long() { 40 } else { 4 };
    let site = Site::new()?;
    let disk = site.path("disks").join("bios.raw");
    fs::rename(&Bench::new(&Layout::default())?.disk, &disk)?;
    let old = fs::read(&disk)?;
    let request = json!({"operation": "convertToUefi", "disk": {"path": disk}});
    let mut agent = Killed::new(&site, site.agent("ce-1")?)?;
    let (mut finished, mut untouched) = (0, 0);
    let (mut before, mut within) = (Aim::within(250), Aim::within(120));
    let mut round = 0;
    while round < rounds || finished + untouched == 0 {
        ensure!(round < 10 * rounds, "no conversion was cut off");
        fs::write(&disk, &old)?;
        // Half of them before the commit, most likely; the others in it.
        let (aim, job) = match round % 2 == 0 {
            true => {
                let job = agent.killed_during(&request, before.after(round))?;
                (&mut before, job)
            }
            false => {
                let job = agent.killed_at_commit(&request, within.after(round))?;
                (&mut within, job)
            }
        };
        let ended = site.ended(&job)?;
        if fs::read(&disk)? == old {
            untouched += 1;
            aim.was_early();
            ensure!(ended["error"]["code"] == "Interrupted", "{ended:#}");
            let told = ended["error"]["message"].as_str().unwrap_or_default();
            ensure!(told.contains("the disk is as it was"), "{told}");
        } else {
            match ended["warnings"].to_string().contains("restarted") {
                true => finished += 1,
                false => aim.was_late(),
            }
            ensure!(ended["status"] == "complete", "{ended:#}");
            let artifacts = &ended["artifacts"];
            ensure!(artifacts["proof"]["failures"] == json!([]), "{ended:#}");
            ensure!(inspected(&disk)?["firmware"] == "UEFI");
            let disk = ce_tests::tool::text(&disk)?;
            let again = ce_tests::agent::ce_agent(["convert-to-uefi", disk, "--plan", "--json"])?;
            let again = again.expect_code(0)?.job()?;
            ensure!(
                again["artifacts"]["changedBytes"].is_null(),
                "only a part was committed: {again:#}"
            );
        }
        let mut notes = fs::read_dir(site.path(NOTES))?;
        ensure!(notes.next().is_none(), "a note is left");
        round += 1;
    }
    println!("{round} conversions cut off: {finished} finished later, {untouched} not begun");
    agent.stop()
}

/// A Windows on Azure with the target device software, that can be prepared and published.
fn streamed_before() -> guest::Guest {
    let mut draft = guest_disk::streamable();
    draft.came_from(Platform::Azure);
    draft.guest()
}

fn prepare_and_publish(site: &Site, disk: &Path, image: &str) -> Value {
    let mut request = site.export(disk, image);
    request["operation"] = "prepareAndPublish".into();
    request["platform"] = "azure".into();
    request
}

fn expect_nothing_left_to_do(disk: &Path) -> Result<()> {
    let disk = ce_tests::tool::text(disk)?;
    let plan = ["prepare", disk, "--platform", "azure", "--plan", "--json"];
    let plan = ce_tests::agent::ce_agent(plan)?.expect_code(0)?.job()?;
    let changes = plan["artifacts"]["changes"].as_array().context("no plan")?;
    let to_do = changes.iter().filter(|change| change["outcome"] == "done");
    ensure!(to_do.count() == 0, "only a part was committed");
    Ok(())
}

/// An agent that is killed again and again.
struct Killed<'s> {
    site: &'s Site,
    invocation: Invocation,
    running: Option<Running>,
}

impl<'s> Killed<'s> {
    fn new(site: &'s Site, invocation: Invocation) -> Result<Self> {
        let mut agent = Self {
            site,
            invocation,
            running: None,
        };
        agent.start()?;
        Ok(agent)
    }

    fn start(&mut self) -> Result<()> {
        self.running = Some(self.invocation.start()?);
        self.site.until_connected("ce-1")?;
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        let running = self.running.take().context("no agent runs")?;
        running.signal(Signal::KILL)?;
        let said = running.finish()?.stderr;
        ensure!(!said.contains("panicked"), "{said}");
        Ok(())
    }

    /// Gives it a job, and kills it so many milliseconds after the job has begun.
    fn killed_during(&mut self, request: &Value, after: u64) -> Result<String> {
        let job = self.site.submit(request)?;
        self.site.wait(&job, |job| job["status"] != "pending")?;
        sleep(Duration::from_millis(after));
        self.kill()?;
        self.start()?;
        Ok(job)
    }

    /// Gives it a job that changes a disk, and kills it so many milliseconds after the commit was begun.
    fn killed_at_commit(&mut self, request: &Value, after: u64) -> Result<String> {
        let job = self.site.submit(request)?;
        let notes = self.site.path(NOTES);
        let until = Instant::now() + PATIENCE;
        while fs::read_dir(&notes)?.next().is_none() {
            let shown = || self.site.show(&job);
            ensure!(Instant::now() < until, "no commit: {:#}", shown()?);
            sleep(Duration::from_millis(1));
        }
        sleep(Duration::from_millis(after));
        self.kill()?;
        self.start()?;
        Ok(job)
    }

    fn stop(mut self) -> Result<()> {
        self.running.take().context("no agent runs")?.stop()?;
        Ok(())
    }
}

/// Where an agent notes what it is about to commit.
const NOTES: &str = "agent-ce-1/state/commits";

/// When to kill what takes as long as the machine does: how late is too late is learned on the way.
struct Aim {
    /// Milliseconds, as is `most`.
    latest: u64,
    most: u64,
}

impl Aim {
    fn within(most: u64) -> Self {
        Self { latest: most, most }
    }

    /// How many milliseconds to wait, others in each round.
    fn after(&self, round: u64) -> u64 {
        some(round, self.latest)
    }

    fn was_early(&mut self) {
        self.latest = (self.latest * 2).min(self.most);
    }

    fn was_late(&mut self) {
        self.latest = (self.latest * 2 / 3).max(2);
    }
}

/// Some number below a limit, another one in each round.
fn some(round: u64, limit: u64) -> u64 {
    // Fibonacci hashing: neighbours lie far apart.
    (round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) % limit
}
