//! How fast MD5 is on this processor: each of our compression functions, the `md-5` crate, and
//! OpenSSL's libcrypto by way of `openssl speed`.
//!
//! ```text
//! cargo run --release -p ce-disk --example md5_speed [-- --json]
//! ```
//!
//! All digest the same kind of message, 16 KiB at a time, in turn, over several rounds. Time is the
//! processor time of the one thread, not the clock on the wall, so that a busy machine widens the
//! spread but does not shift the result. A rate is the median over the rounds; a ratio is the median
//! of the rounds' own ratios, as neighbours in time have the same clock frequency.

use std::hint::black_box;
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs, io};

use ce_disk::md5::{Compression, Md5};
use digest::Digest;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Map, json};

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let json = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--json"] => true,
        _ => {
            eprintln!("usage: md5_speed [--json]");
            return ExitCode::from(2);
        }
    };
    match measure() {
        Ok(table) => {
            if json {
                print_json(&table);
            } else {
                print_table(&table);
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("openssl speed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// One implementation, and its rate in MB/s (10^6 bytes) in each round.
struct Row {
    name: String,
    rates: Vec<f64>,
}

/// Our functions and the two they are compared with.
struct Table {
    ours: Vec<Row>,
    /// The name of the one among ours that an export would use.
    chosen: String,
    md5_crate: Row,
    /// Empty rates if there is no `openssl` command.
    openssl: Row,
}

fn measure() -> io::Result<Table> {
    let message: Vec<u8> = (0..MESSAGE_BYTES)
        .map(|index| ((index * index) >> 7) as u8)
        .collect();
    let functions: Vec<_> = Compression::available().collect();

    let row = |name: String| Row {
        name,
        rates: Vec::new(),
    };
    let mut table = Table {
        ours: functions
            .iter()
            .map(|function| row(function.to_string()))
            .collect(),
        chosen: Compression::fastest().to_string(),
        md5_crate: row("md-5 crate".to_owned()),
        openssl: row("OpenSSL".to_owned()),
    };
    for _ in 0..ROUNDS {
        for (row, &function) in table.ours.iter_mut().zip(&functions) {
            let fresh = Md5::with_compression(function);
            row.rates.push(rate(|| {
                fresh.clone().chain_update(black_box(&message)).finalize()
            }));
        }
        table
            .md5_crate
            .rates
            .push(rate(|| md5::Md5::digest(black_box(&message))));
        table.openssl.rates.extend(openssl_rate()?);
    }
    Ok(table)
}

/// The rate of `digest`, a digest of one message, in MB/s of this thread's processor time.
fn rate<T>(digest: impl Fn() -> T) -> f64 {
    let start = processor_seconds();
    for _ in 0..MESSAGES_PER_ROUND {
        black_box(digest());
    }
    let seconds = processor_seconds() - start;
    (MESSAGES_PER_ROUND * MESSAGE_BYTES) as f64 / seconds / 1e6
}

fn processor_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// What `openssl speed` measures within a second of processor time, or `None` if there is no such
/// command.
///
/// With `-mr` its result is a line `+F:<number>:<digest>:<bytes per second>`.
fn openssl_rate() -> io::Result<Option<f64>> {
    let output = Command::new("openssl")
        .args(["speed", "-mr", "-evp", "md5", "-seconds", "1", "-bytes"])
        .arg(MESSAGE_BYTES.to_string())
        .stderr(Stdio::null())
        .output();
    let output = match output {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        output => output?,
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let rate = text
        .lines()
        .filter(|line| line.starts_with("+F:"))
        .find_map(|line| line.rsplit(':').next()?.parse::<f64>().ok());
    match rate {
        Some(bytes_per_second) => Ok(Some(bytes_per_second / 1e6)),
        None => Err(io::Error::other(format!(
            "no result line +F: in {text:?}, {}",
            output.status
        ))),
    }
}

fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn ratio(row: &Row, to: &Row) -> Option<f64> {
    median(row.rates.iter().zip(&to.rates).map(|(rate, to)| rate / to))
}

fn print_table(table: &Table) {
    println!(
        "{}, {ROUNDS} rounds, MB/s of processor time",
        processor_name()
    );
    println!(
        "{:<14}{:>8}{:>8}{:>8}{:>9}{:>11}",
        "", "median", "min", "max", "/ md-5", "/ OpenSSL"
    );
    for row in table.ours.iter().chain([&table.md5_crate, &table.openssl]) {
        let mark = if row.name == table.chosen { " *" } else { "" };
        println!(
            "{:<14}{:>8}{:>8}{:>8}{:>9}{:>11}",
            format!("{}{mark}", row.name),
            number(median(row.rates.iter().copied()), 0),
            number(row.rates.iter().copied().reduce(f64::min), 0),
            number(row.rates.iter().copied().reduce(f64::max), 0),
            number(ratio(row, &table.md5_crate), 2),
            number(ratio(row, &table.openssl), 2),
        );
    }
    println!("* the one that is used");
}

/// `md5LimitMbPerS` is what no export of this machine can exceed: the rate of the function used.
fn print_json(table: &Table) {
    let median_of = |row: &Row| median(row.rates.iter().copied());
    let ours: Map<_, _> = table
        .ours
        .iter()
        .map(|row| (row.name.clone(), median_of(row).into()))
        .collect();
    let chosen = table.ours.iter().find(|row| row.name == table.chosen);
    let report = json!({
        "processor": processor_name(),
        "chosen": table.chosen,
        "md5LimitMbPerS": chosen.and_then(median_of),
        "oursMbPerS": ours,
        "md5CrateMbPerS": median_of(&table.md5_crate),
        "opensslMbPerS": median_of(&table.openssl),
        "ratioToMd5Crate": chosen.and_then(|row| ratio(row, &table.md5_crate)),
        "ratioToOpenssl": chosen.and_then(|row| ratio(row, &table.openssl)),
    });
    println!("{report:#}");
}

fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.decimals$}"))
}

/// The processor as Linux names it, with the family and model that tell its generation.
fn processor_name() -> String {
    let information = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = information.lines().find(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.trim_start().starts_with(':'))
        });
        line.and_then(|line| line.split_once(':'))
            .map_or("?", |(_, value)| value.trim())
    };
    format!(
        "{} (family {}, model {})",
        field("model name"),
        field("cpu family"),
        field("model")
    )
}

/// A message as long as the longest that `openssl speed` takes unasked.
const MESSAGE_BYTES: usize = 16 << 10;

/// 64 MiB, about a tenth of a second.
const MESSAGES_PER_ROUND: usize = 4096;

const ROUNDS: usize = 5;
