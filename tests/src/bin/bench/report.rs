//! The table.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use ce_tests::agent::Cost;
use ce_tests::pattern::MIB;

use crate::contenders::Contender;
use crate::hive::HiveRound;
use crate::limits::Limits;
use crate::prepare::PrepareRound;
use crate::publish::PublishRound;
use crate::share::ShareRound;
use crate::windows::WindowsRound;

/// Everything that was measured; `Display` is Markdown.
pub struct Report {
    machine: Vec<String>,
    rounds: usize,
    /// The disks that everyone exported.
    pub disks: Vec<DiskResult>,
    /// The dense disk to SMB shares, by how they are protected.
    pub shares: Vec<(&'static str, Vec<ShareRound>)>,
    /// How long the large hive is, and what was done with it.
    pub hive: Option<(u64, Vec<HiveRound>)>,
    /// How much was written to the large Windows volume, and how long that and looking at it took.
    pub windows: Option<(u64, Vec<WindowsRound>)>,
    /// How long the hives of the large Windows volume are, and how long preparing it took.
    pub prepare: Option<(u64, Vec<PrepareRound>)>,
    /// How long preparing and publishing it took.
    pub publish: Vec<PublishRound>,
    /// How long converting it took.
    pub convert: Vec<Cost>,
    /// Large sparse disks that only ce-agent exported, without a hash.
    pub huge: Vec<(&'static str, Cost)>,
}

/// The rounds of one disk.
pub struct DiskResult {
    name: &'static str,
    size: u64,
    runs: BTreeMap<Contender, Vec<(Cost, u64)>>,
    /// One entry a round.
    pub limits: Vec<Limits>,
}

impl Report {
    /// A report without results yet.
    pub fn new(machine: Vec<String>, rounds: usize) -> Self {
        Self {
            machine,
            rounds,
            disks: Vec::new(),
            shares: Vec::new(),
            hive: None,
            windows: None,
            prepare: None,
            publish: Vec::new(),
            convert: Vec::new(),
            huge: Vec::new(),
        }
    }
}

impl Report {
    fn write_shares(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.shares.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\n## The dense disk to an SMB share, server and client on one machine\n"
        )?;
        writeln!(
            f,
            "| | time s | processor s | peak memory MiB | time / limit | time / smbclient |"
        )?;
        writeln!(f, "|-|-:|-:|-:|-:|-:|")?;
        for (name, rounds) in &self.shares {
            let spread = |value: fn(&ShareRound) -> Duration| {
                Spread::of(
                    rounds
                        .iter()
                        .map(|round| value(round).as_secs_f64())
                        .collect(),
                )
            };
            let limit = spread(ShareRound::limit).median;
            let put = spread(|round| round.smbclient.wall).median;
            for (who, cost) in [
                (
                    "ce-agent export --hash",
                    (|round| round.agent) as fn(&ShareRound) -> Cost,
                ),
                ("smbclient put", |round| round.smbclient),
                ("smbclient put beside md5sum", |round| {
                    round.smbclient_beside_md5
                }),
            ] {
                let costs: Vec<Cost> = rounds.iter().map(cost).collect();
                let wall = costs.iter().map(|cost| cost.wall.as_secs_f64()).collect();
                let wall = Spread::of(wall);
                let processor = costs
                    .iter()
                    .map(|cost| (cost.user + cost.system).as_secs_f64());
                let processor = Spread::of(processor.collect()).median;
                let memory = costs.iter().map(|cost| mib(cost.peak_memory)).collect();
                let memory = Spread::of(memory).median;
                let (limit, put) = (wall.median / limit, wall.median / put);
                writeln!(
                    f,
                    "| {name}: {who} | {wall} | {processor:.1} | {memory:.1} | {limit:.2} | {put:.2} |"
                )?;
            }
            let md5 = spread(|round| round.md5);
            let loopback = spread(|round| round.loopback);
            writeln!(
                f,
                "| {name}: limit: MD5 of all bytes on one core | {md5} | | | | |"
            )?;
            writeln!(
                f,
                "| {name}: plain copy over the loopback | {loopback} | | | | |"
            )?;
        }
        Ok(())
    }
}

impl Report {
    fn write_hive(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some((size, rounds)) = &self.hive else {
            return Ok(());
        };
        writeln!(
            f,
            "\n## A thousand values set in a hive of {:.0} MiB\n",
            mib(*size)
        )?;
        write_costs(
            f,
            rounds,
            &[
                ("ce-agent hive import", |round| Some(round.agent)),
                ("hivexsh, without any check", |round| Some(round.hivexsh)),
            ],
        )
    }

    fn write_windows(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some((payload, rounds)) = &self.windows else {
            return Ok(());
        };
        writeln!(
            f,
            "\n## What a prepare writes, on a Windows volume of 64 GiB with 200,000 files\n\n\
             100 driver files, SYSTEM and SOFTWARE, {:.0} MiB in all and every block of them new. \
             The bar is 2 s and 256 MiB.\n",
            mib(*payload)
        )?;
        write_costs(
            f,
            rounds,
            &[
                (
                    "confined libntfs-3g, read back, committed by a journal",
                    |round| Some(round.commit),
                ),
                (
                    "mounted by ntfs-3g and copied, in part if cut short",
                    |round| round.mounted,
                ),
            ],
        )?;
        for (name, time) in [
            (
                "ours until the commit",
                (|round| round.until_commit) as fn(&WindowsRound) -> Duration,
            ),
            ("limit: writing as many bytes once", |round| round.write),
        ] {
            let times = rounds.iter().map(|round| time(round).as_secs_f64());
            let spread = Spread::of(times.collect());
            writeln!(f, "| {name} | {spread:.2} | | | |")?;
        }
        writeln!(
            f,
            "\n## A look at that disk\n\nThe bar is 0.5 s. By hand means the build and the \
             computer's name alone, by `ifind`, `icat` and `hivexget`.\n"
        )?;
        write_costs(
            f,
            rounds,
            &[
                ("ce-agent inspect", |round| Some(round.inspect)),
                ("by hand", |round| Some(round.by_hand)),
            ],
        )
    }
}

impl Report {
    fn write_prepare(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some((hives, rounds)) = &self.prepare else {
            return Ok(());
        };
        writeln!(
            f,
            "\n## That disk prepared\n\n\
             `ce-agent prepare --platform azure` of a guest of vSphere, whose hives are {:.0} MiB. \
             The bar is 5 s and 256 MiB; with a hash, 5 % more than the hash alone. Memory is that \
             of the program and of the process that writes NTFS, added up.\n",
            mib(*hives)
        )?;
        write_costs(
            f,
            rounds,
            &[
                ("prepare", |round| Some(round.plain)),
                ("hash", |round| Some(round.hash)),
                ("prepare --md5", |round| Some(round.hashed)),
            ],
        )
    }
}

impl Report {
    fn write_publish(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.publish.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\n## That disk prepared and published\n\n\
             A guest of Azure with the target device software of Provisioning, neither hashed. The bar is 1.05 x \
             the export and 5 s.\n"
        )?;
        write_costs(
            f,
            &self.publish,
            &[
                ("prepare-and-publish", |round| Some(round.both)),
                ("export", |round| Some(round.export)),
            ],
        )
    }
}

impl Report {
    fn write_convert(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.convert.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\n## That disk brought from BIOS to UEFI\n\nNot hashed. The bar is 3 s.\n"
        )?;
        write_costs(f, &self.convert, &[("convert-to-uefi", |cost| Some(*cost))])
    }
}

/// A contender's name, and what a round of it cost, if it could run.
type Costs<R> = (&'static str, fn(&R) -> Option<Cost>);

/// A table of contenders, the first of which is ours.
fn write_costs<R>(f: &mut Formatter<'_>, rounds: &[R], contenders: &[Costs<R>]) -> fmt::Result {
    writeln!(
        f,
        "| | time s | processor s | peak memory MiB | time / ours |"
    )?;
    writeln!(f, "|-|-:|-:|-:|-:|")?;
    let mut ours = None;
    for (name, cost) in contenders {
        let costs: Vec<Cost> = rounds.iter().filter_map(cost).collect();
        if costs.is_empty() {
            writeln!(f, "| {name} | not run: only root can | | | |")?;
            continue;
        }
        let spread = |value: fn(&Cost) -> f64| Spread::of(costs.iter().map(value).collect());
        let wall = spread(|cost| cost.wall.as_secs_f64());
        let processor = spread(|cost| (cost.user + cost.system).as_secs_f64()).median;
        let memory = spread(|cost| mib(cost.peak_memory)).median;
        let ratio = wall.median / *ours.get_or_insert(wall.median);
        writeln!(
            f,
            "| {name} | {wall:.2} | {processor:.2} | {memory:.1} | {ratio:.2} |"
        )?;
    }
    Ok(())
}

impl DiskResult {
    /// A disk without runs yet.
    pub fn new(name: &'static str, size: u64) -> Self {
        Self {
            name,
            size,
            runs: BTreeMap::new(),
            limits: Vec::new(),
        }
    }

    /// Adds a run: what it cost and how long its image is.
    pub fn add(&mut self, contender: Contender, cost: Cost, image: u64) {
        self.runs.entry(contender).or_default().push((cost, image));
    }

    fn median_wall(&self, contender: Contender) -> f64 {
        Spread::of(self.values(contender, |run| run.0.wall.as_secs_f64())).median
    }

    fn values(&self, contender: Contender, value: impl Fn(&(Cost, u64)) -> f64) -> Vec<f64> {
        self.runs
            .get(&contender)
            .into_iter()
            .flatten()
            .map(value)
            .collect()
    }

    fn limit(&self, value: impl Fn(&Limits) -> Duration) -> Spread {
        Spread::of(
            self.limits
                .iter()
                .map(|limits| value(limits).as_secs_f64())
                .collect(),
        )
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Benchmarks\n\nMade by `make bench WRITE=1`.\n")?;
        for line in &self.machine {
            writeln!(f, "- {line}")?;
        }
        writeln!(
            f,
            "\n{EXPLANATION}\n\nMedians of {} rounds, least..most.",
            self.rounds
        )?;
        for disk in &self.disks {
            write!(f, "\n{disk}")?;
        }
        self.write_shares(f)?;
        self.write_hive(f)?;
        self.write_windows(f)?;
        self.write_prepare(f)?;
        self.write_publish(f)?;
        self.write_convert(f)?;
        if self.huge.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\n## Very large sparse disks, `ce-agent export` without a hash\n"
        )?;
        writeln!(
            f,
            "| disk | time s | processor s | peak memory MiB |\n|-|-:|-:|-:|"
        )?;
        for (name, cost) in &self.huge {
            let processor = (cost.user + cost.system).as_secs_f64();
            let wall = cost.wall.as_secs_f64();
            writeln!(
                f,
                "| {name} | {wall:.1} | {processor:.2} | {:.1} |",
                mib(cost.peak_memory)
            )?;
        }
        Ok(())
    }
}

impl Display for DiskResult {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "## {}, {} MiB\n", self.name, self.size / MIB)?;
        writeln!(
            f,
            "| | time s | processor s | peak memory MiB | image MiB | time / ours | time / limit |"
        )?;
        writeln!(f, "|-|-:|-:|-:|-:|-:|-:|")?;
        for contender in Contender::ALL {
            let ours = if contender.hashes() {
                Contender::AgentHashed
            } else {
                Contender::Agent
            };
            let limit = self
                .limit(|limits| limits.export(contender.hashes()))
                .median;
            let wall = Spread::of(self.values(contender, |run| run.0.wall.as_secs_f64()));
            let processor =
                Spread::of(self.values(contender, |run| (run.0.user + run.0.system).as_secs_f64()));
            let memory = Spread::of(self.values(contender, |run| mib(run.0.peak_memory)));
            let image = Spread::of(self.values(contender, |run| mib(run.1)));
            writeln!(
                f,
                "| {} | {wall} | {:.1} | {:.1} | {:.0} | {:.2} | {:.2} |",
                contender.name(),
                processor.median,
                memory.median,
                image.median,
                wall.median / self.median_wall(ours),
                wall.median / limit,
            )?;
        }
        for (name, spread) in [
            (
                "limit: MD5 of all bytes on one core",
                self.limit(|limits| limits.md5),
            ),
            (
                "limit: reading what is no hole",
                self.limit(|limits| limits.read),
            ),
            (
                "limit: writing what is not zero",
                self.limit(|limits| limits.write),
            ),
            (
                "both at once, on the device that they share",
                self.limit(|limits| limits.copy),
            ),
        ] {
            writeln!(f, "| {name} | {spread} | | | | | |")?;
        }
        Ok(())
    }
}

/// Median, least and most.
#[derive(Clone, Copy, Debug)]
struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            (at(middle.wrapping_sub(1)) + at(middle)) / 2.0
        } else {
            at(middle)
        };
        Self {
            median,
            least: at(0),
            most: at(values.len().wrapping_sub(1)),
        }
    }
}

/// With one digit behind the point, if nothing else is asked for.
impl Display for Spread {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(1);
        write!(
            f,
            "{:.digits$} ({:.digits$}..{:.digits$})",
            self.median, self.least, self.most
        )
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}

const EXPLANATION: &str = "\
Every contender and every limit ran once before any ran again. Source and image were taken out of \
the page cache before each run, the rest of the page cache was filled with a file that nobody needs \
(no run meets memory that a hypervisor has to give first), and a run ended when its image was on the \
disk (fsync). \"Direct\" is `qemu-img convert -T none -t none -W -m 16`, which bypasses the page cache on both sides; \
\"default\" has no such flags. With a hash, the limit is the largest of the three limits below the \
line; without one, of reading and writing. Memory of things that run at the same time is added up. \
For a share, the limit is the larger of MD5 and what `smbclient put` takes for the same image; \"beside md5sum\" is that while `md5sum` reads the disk.";
