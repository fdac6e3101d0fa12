//! What a person, or a program with `--json`, sees of a job that is run by hand.
//!
//! Progress goes to standard error, the result to standard output. A reader that has gone away does
//! not stop a job: what cannot be printed is dropped.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use ce_disk::discover::DiskSelector;
use ce_disk::units::ByteCount;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::cli::OutputOptions;
use crate::job::{Job, JobSpec, Watch, percent};

mod changes;
mod columns;
mod disk_map;
mod inspection;
mod summary;
mod windows;

/// Whether headings stand out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Style {
    Bold,
    Plain,
}

impl Style {
    /// Bold on a terminal, unless its user wants none of that (no-color.org).
    fn of(stream: &impl IsTerminal) -> Self {
        let is_wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        match stream.is_terminal() && is_wanted {
            true => Self::Bold,
            false => Self::Plain,
        }
    }

    fn heading(self, text: &str) -> String {
        match self {
            Self::Bold => format!("\u{1b}[1m{text}\u{1b}[0m"),
            Self::Plain => text.to_owned(),
        }
    }
}

/// Where reports go, and how often.
#[derive(Debug)]
pub struct Console {
    options: OutputOptions,
    /// There when a person watches.
    bar: Option<ProgressBar>,
    started: Instant,
    last_report: Instant,
}

impl Console {
    /// A console that reports as `options` say.
    pub fn new(options: OutputOptions) -> Self {
        let now = Instant::now();
        let watched = !options.json && !options.quiet && std::io::stderr().is_terminal();
        let bar = watched.then(ProgressBar::hidden);
        Self {
            options,
            bar,
            started: now,
            last_report: now,
        }
    }

    /// Shows how far the job is. To be called often; most calls print nothing.
    pub fn progress(&mut self, spec: &JobSpec, watch: &Watch) {
        if let Some(disk) = watch.awaited_disk(spec) {
            return self.waiting(disk);
        }
        let Some(total) = watch.total() else { return };
        let (step, done) = watch.step(spec);
        let done = done.min(total);
        if let Some(bar) = &self.bar {
            if bar.is_hidden() {
                bar.set_style(bar_style());
                bar.set_length(total.0);
                bar.set_draw_target(ProgressDrawTarget::stderr());
            }
            bar.set_message(step);
            bar.set_position(done.0);
            return;
        }
        if !self.is_due() {
            return;
        }
        if self.options.json {
            print_progress(step, done, total);
        } else if !self.options.quiet {
            let rate = done.0 as f64 / self.started.elapsed().as_secs_f64() / MIB;
            let percent = percent(done, total);
            let line = format!("{step}: {percent} % of {total}, {rate:.0} MiB/s");
            drop(writeln!(std::io::stderr(), "{line}"));
        }
    }

    /// Shows that the job waits for a disk. The time of the work begins later.
    fn waiting(&mut self, disk: &DiskSelector) {
        self.started = Instant::now();
        if self.is_due() {
            if self.options.json {
                print_progress("waitForDisk", ByteCount(0), ByteCount(0));
            } else if !self.options.quiet {
                let line = format!("waiting for the disk {disk}");
                drop(writeln!(std::io::stderr(), "{line}"));
            }
        }
    }

    /// Whether it is time for the next line.
    fn is_due(&mut self) -> bool {
        let interval = if self.options.json {
            JSON_INTERVAL
        } else {
            LINE_INTERVAL
        };
        let is_due = self.last_report.elapsed() >= interval;
        if is_due {
            self.last_report = Instant::now();
        }
        is_due
    }

    /// Shows how far the job came, once it has ended.
    pub fn last_progress(&mut self, spec: &JobSpec, watch: &Watch) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        } else if let Some(total) = watch.total().filter(|_| self.options.json) {
            let (step, done) = watch.step(spec);
            print_progress(step, done.min(total), total);
        }
    }

    /// Says what came of the job.
    pub fn finished(&self, job: &Job) {
        if self.options.json {
            print_line(&json!({"event": "finished", "job": job}));
            return;
        }
        // Of a prepare that is refused it helps to see what there is to do.
        if job.error.is_none() || job.artifacts.changes.is_some() {
            let mut stdout = std::io::stdout();
            let text = summary::of(job, Style::of(&stdout));
            drop(write!(stdout, "{text}"));
        }
        let mut stderr = std::io::stderr();
        for warning in &job.warnings {
            drop(writeln!(stderr, "warning: {warning}"));
        }
        if let Some(error) = &job.error {
            drop(writeln!(stderr, "error: {error}"));
            if let Some(hint) = &error.hint {
                drop(writeln!(stderr, "hint: {hint}"));
            }
        }
    }
}

fn bar_style() -> ProgressStyle {
    let template = "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} \
                    {binary_bytes_per_sec} {eta} left";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn print_progress(step: &str, done: ByteCount, total: ByteCount) {
    print_line(&json!({
        "event": "progress",
        "step": step,
        "bytesDone": done.0,
        "bytesTotal": total.0,
        "percent": percent(done, total),
    }));
}

fn print_line(value: &serde_json::Value) {
    let mut stdout = std::io::stdout().lock();
    drop(writeln!(stdout, "{value}"));
    drop(stdout.flush());
}

const MIB: f64 = 1_048_576.0;

const JSON_INTERVAL: Duration = Duration::from_secs(1);

const LINE_INTERVAL: Duration = Duration::from_secs(5);
