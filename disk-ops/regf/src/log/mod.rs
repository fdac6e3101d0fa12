//! Bringing a dirty hive up to date from its transaction logs.
//!
//! Windows writes changes to a log first and to the primary file later, up to an hour later since
//! 8.1. A primary file whose two sequence numbers differ, or whose base block has a wrong checksum,
//! was caught in between.
//!
//! ```text
//!                         base block sound?          base block broken?
//!   HvLE logs (8.1 on)    all logs not older than    only the log with the latest entries;
//!                         the file, in order of      the base block comes from it
//!                         their sequence; the next
//!                         begins where the last ended
//!   DIRT logs (before)    the first log whose time   the first log whose time is that of the
//!                         is that of the file        first bin; base block from it
//! ```
//!
//! Within an HvLE log, entries are taken while sequence and hashes hold. A log that doesn't belong
//! to this state of the file is told apart as stale and left alone. `LOG` counts only where
//! neither `LOG1` nor `LOG2` is a log ("Multiple transaction log files").

mod dirty_vector;
mod entries;
mod marvin;

use std::fmt;

use zerocopy::{FromBytes, IntoBytes};

use crate::error::{Defect, DefectKind, HiveError};
use crate::format::{
    BASE_BLOCK_LEN, BASE_BLOCK_SIGNATURE, BASE_FLAG_LOCKED, BIN_ALIGNMENT, BIN_SIGNATURE,
    BaseBlock, BinHeader, FILE_TYPE_LOG, FILE_TYPE_LOG_2000, FILE_TYPE_LOG_ENTRIES,
    FILE_TYPE_PRIMARY, MAX_BINS_LEN, SECTOR,
};
use crate::hive::Hive;
use crate::units::{FileOffset, index};
use entries::{Entries, LastEntry};

/// The log files that lie beside a primary file; those that don't exist are `None`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Logs<'a> {
    /// `NAME.LOG`
    pub log: Option<&'a [u8]>,
    /// `NAME.LOG1`
    pub log1: Option<&'a [u8]>,
    /// `NAME.LOG2`
    pub log2: Option<&'a [u8]>,
}

/// What [`Hive::recover`] did.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReplayReport {
    /// How it came out.
    pub outcome: Replay,
    /// Whether the base block had to be taken from a log.
    pub base_block_recovered: bool,
    /// What became of each log that was given.
    pub logs: Vec<LogReport>,
}

/// How recovery came out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Replay {
    /// The file was clean; its logs don't matter.
    NotNeeded,
    /// At least one log was applied; the hive is clean.
    Applied,
    /// No log fits; the hive is still dirty.
    NothingApplies,
}

/// What became of one log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogReport {
    /// Which one.
    pub slot: LogSlot,
    /// What was found and done.
    pub verdict: LogVerdict,
}

/// Which of the log files beside a hive.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum LogSlot {
    /// `NAME.LOG`
    Log,
    /// `NAME.LOG1`
    Log1,
    /// `NAME.LOG2`
    Log2,
}

/// What was found of a log and done with it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum LogVerdict {
    /// Its pages are in the hive now.
    Applied {
        /// Sequence numbers of the first and last entry; of a log without entries, its own.
        sequence: (u32, u32),
        /// Number of pages.
        pages: usize,
        /// What the log ended with.
        end: LogEnd,
    },
    /// It has no log in it: no bytes, or only zeros where the base block goes.
    Empty,
    /// It is no log this crate can apply.
    Invalid {
        /// What is wrong with it.
        what: &'static str,
    },
    /// It is sound and not looked at: the hive is clean, or the other logs take precedence.
    NotUsed,
    /// It doesn't belong to this state of the file.
    Stale,
}

/// Why a log has no more entries to apply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum LogEnd {
    /// There are none; the regular end.
    NoMoreEntries,
    /// The next entry has another number than the one that should follow: it is left from earlier.
    Sequence {
        /// The number that should follow.
        expected: u32,
        /// The number it has.
        found: u32,
    },
    /// The next entry was not written to its end.
    Torn {
        /// Its number.
        sequence: u32,
        /// What of it is wrong.
        what: &'static str,
    },
}

impl Hive {
    /// Takes the bytes of a primary file and brings it up to date from its logs.
    ///
    /// Without an applicable log a dirty hive is loaded as it is and stays [`HiveState::Dirty`].
    ///
    /// # Errors
    ///
    /// As [`Hive::load`], for the file as it is after the logs were applied.
    ///
    /// [`HiveState::Dirty`]: crate::HiveState::Dirty
    pub fn recover(
        primary: impl Into<Vec<u8>>,
        logs: &Logs<'_>,
    ) -> Result<(Self, ReplayReport), HiveError> {
        let mut bytes = primary.into();
        let found = PrimaryState::of(&bytes);
        let mut logs = classify(logs);
        let plan = match found {
            PrimaryState::Clean => None,
            PrimaryState::Dirty { .. } | PrimaryState::Broken { .. } => plan(&found, &mut logs),
        };
        let outcome = match (&found, &plan) {
            (PrimaryState::Clean, _) => Replay::NotNeeded,
            (_, None) => Replay::NothingApplies,
            (_, Some(_)) => Replay::Applied,
        };
        let base_block_recovered = plan.is_some() && matches!(found, PrimaryState::Broken { .. });
        if let Some(plan) = plan {
            plan.apply(&mut bytes, base_block_recovered)?;
        }
        let mut hive = Self::load(bytes)?;
        hive.modified = outcome == Replay::Applied;
        let logs = logs.into_iter().map(|log| log.report).collect();
        Ok((
            hive,
            ReplayReport {
                outcome,
                base_block_recovered,
                logs,
            },
        ))
    }
}

impl fmt::Display for LogSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Log => "LOG",
            Self::Log1 => "LOG1",
            Self::Log2 => "LOG2",
        })
    }
}

/// Bytes to go to an offset from the start of the bins.
#[derive(Clone, Copy, Debug)]
struct Patch<'a> {
    at: u32,
    bytes: &'a [u8],
}

/// What the primary file says of itself.
enum PrimaryState {
    Clean,
    Dirty {
        secondary_sequence: u32,
        last_written: u64,
    },
    /// The base block can't be trusted.
    Broken {
        /// The first bin repeats the base block's time.
        first_bin_time: Option<u64>,
    },
}

impl PrimaryState {
    fn of(bytes: &[u8]) -> Self {
        let base = BaseBlock::ref_from_prefix(bytes).map(|(base, _)| base);
        match base {
            Ok(base) if base.signature == BASE_BLOCK_SIGNATURE && base.checksum_is_right() => {
                if base.primary_sequence == base.secondary_sequence {
                    return Self::Clean;
                }
                Self::Dirty {
                    secondary_sequence: base.secondary_sequence.get(),
                    last_written: base.last_written.get(),
                }
            }
            _ => {
                let bin = bytes.get(BASE_BLOCK_LEN..).unwrap_or_default();
                let first_bin_time = BinHeader::ref_from_prefix(bin)
                    .ok()
                    .filter(|(bin, _)| bin.signature == BIN_SIGNATURE)
                    .map(|(bin, _)| bin.timestamp.get());
                Self::Broken { first_bin_time }
            }
        }
    }

    /// Whether an HvLE log that begins with this sequence number is not older than the file.
    fn accepts_sequence(&self, sequence: u32) -> bool {
        match self {
            Self::Dirty {
                secondary_sequence, ..
            } => !precedes(sequence, *secondary_sequence),
            Self::Clean | Self::Broken { .. } => true,
        }
    }

    /// Whether a DIRT log of this time belongs to the file.
    fn accepts_time(&self, time: u64) -> bool {
        match self {
            Self::Clean => false,
            Self::Dirty { last_written, .. } => *last_written == time,
            Self::Broken { first_bin_time } => *first_bin_time == Some(time),
        }
    }
}

/// A log and what is known of it so far.
struct Candidate<'a> {
    bytes: &'a [u8],
    contents: Contents<'a>,
    report: LogReport,
}

#[derive(Clone, Copy)]
enum Contents<'a> {
    None,
    DirtyVector(&'a BaseBlock),
    Entries(&'a BaseBlock),
}

/// What is to be written into the primary file.
struct Plan<'a> {
    base: &'a BaseBlock,
    pages: Vec<Patch<'a>>,
    bins_len: u32,
    sequence: u32,
    /// The one flag that log entries carry.
    locked: bool,
    /// How long the bins may become: what the logs could have brought along.
    log_bytes: usize,
}

/// Looks at each log that is there, without regard to the hive.
fn classify<'a>(logs: &Logs<'a>) -> Vec<Candidate<'a>> {
    [
        (LogSlot::Log1, logs.log1),
        (LogSlot::Log2, logs.log2),
        (LogSlot::Log, logs.log),
    ]
    .into_iter()
    .filter_map(|(slot, bytes)| {
        let bytes = bytes?;
        let (contents, verdict) = contents_of(bytes);
        Some(Candidate {
            bytes,
            contents,
            report: LogReport { slot, verdict },
        })
    })
    .collect()
}

fn contents_of(bytes: &[u8]) -> (Contents<'_>, LogVerdict) {
    let invalid = |what| (Contents::None, LogVerdict::Invalid { what });
    if bytes.iter().take(SECTOR).all(|&byte| byte == 0) {
        return (Contents::None, LogVerdict::Empty);
    }
    let Ok((base, _)) = BaseBlock::ref_from_prefix(bytes) else {
        return invalid("shorter than a sector");
    };
    if base.signature != BASE_BLOCK_SIGNATURE {
        return invalid("no base block");
    }
    if !base.checksum_is_right() {
        return invalid("a base block with a wrong checksum");
    }
    if base.primary_sequence != base.secondary_sequence {
        return invalid("a base block that was not written to its end");
    }
    let bins_len = base.bins_len.get();
    if bins_len == 0 || !bins_len.is_multiple_of(BIN_ALIGNMENT) || bins_len > MAX_BINS_LEN {
        return invalid("a wrong length of the hive bins");
    }
    match base.file_type.get() {
        FILE_TYPE_LOG | FILE_TYPE_LOG_2000 => (Contents::DirtyVector(base), LogVerdict::NotUsed),
        FILE_TYPE_LOG_ENTRIES => (Contents::Entries(base), LogVerdict::NotUsed),
        _ => invalid("the file type of something else"),
    }
}

/// Chooses the logs to apply and notes in each what became of it.
fn plan<'a>(primary: &PrimaryState, logs: &mut [Candidate<'a>]) -> Option<Plan<'a>> {
    let is_log = |log: &Candidate<'_>| !matches!(log.contents, Contents::None);
    let dual = logs
        .iter()
        .any(|log| is_log(log) && log.report.slot != LogSlot::Log);
    let mut used: Vec<&mut Candidate<'a>> = logs
        .iter_mut()
        .filter(|log| is_log(log) && (log.report.slot != LogSlot::Log) == dual)
        .collect();
    if used
        .iter()
        .any(|log| matches!(log.contents, Contents::Entries(_)))
    {
        used.retain(|log| matches!(log.contents, Contents::Entries(_)));
        plan_entries(primary, used)
    } else {
        plan_dirty_vector(primary, used)
    }
}

fn plan_entries<'a>(primary: &PrimaryState, mut logs: Vec<&mut Candidate<'a>>) -> Option<Plan<'a>> {
    logs.sort_by(|a, b| match (first_sequence(a), first_sequence(b)) {
        (a, b) if a == b => std::cmp::Ordering::Equal,
        (a, b) if precedes(a, b) => std::cmp::Ordering::Less,
        _ => std::cmp::Ordering::Greater,
    });
    if matches!(primary, PrimaryState::Broken { .. }) {
        // Only the log with the latest entries has a base block that is sure to fit.
        let latest = logs.pop();
        logs.clear();
        logs.extend(latest);
    }
    let mut plan: Option<Plan<'a>> = None;
    let mut started = false;
    for log in logs {
        let Contents::Entries(base) = log.contents else {
            continue;
        };
        let first = base.primary_sequence.get();
        let follows = match &plan {
            Some(plan) => first == plan.sequence.wrapping_add(1),
            // A log that fits and has nothing to give leaves a gap before the next one.
            None => !started && primary.accepts_sequence(first),
        };
        if !follows {
            log.report.verdict = LogVerdict::Stale;
            continue;
        }
        started = true;
        let entries = Entries::read(log.bytes, first);
        let Some(LastEntry {
            sequence,
            bins_len,
            flags,
        }) = entries.last
        else {
            log.report.verdict = match entries.end {
                LogEnd::Torn { what, .. } => LogVerdict::Invalid { what },
                LogEnd::NoMoreEntries => LogVerdict::Invalid { what: "no entries" },
                LogEnd::Sequence { .. } => LogVerdict::Stale,
            };
            continue;
        };
        log.report.verdict = LogVerdict::Applied {
            sequence: (first, sequence),
            pages: entries.pages.len(),
            end: entries.end,
        };
        let (mut pages, log_bytes) = plan
            .take()
            .map_or((Vec::new(), 0), |plan| (plan.pages, plan.log_bytes));
        pages.extend(entries.pages);
        plan = Some(Plan {
            base,
            pages,
            bins_len,
            sequence,
            locked: flags & BASE_FLAG_LOCKED != 0,
            log_bytes: log_bytes + log.bytes.len(),
        });
    }
    plan
}

fn plan_dirty_vector<'a>(
    primary: &PrimaryState,
    logs: Vec<&mut Candidate<'a>>,
) -> Option<Plan<'a>> {
    let mut plan = None;
    for log in logs {
        let Contents::DirtyVector(base) = log.contents else {
            continue;
        };
        if !primary.accepts_time(base.last_written.get()) {
            log.report.verdict = LogVerdict::Stale;
            continue;
        }
        if plan.is_some() {
            continue;
        }
        match dirty_vector::read(log.bytes, base) {
            Err(what) => log.report.verdict = LogVerdict::Invalid { what },
            Ok(pages) => {
                let sequence = base.primary_sequence.get();
                log.report.verdict = LogVerdict::Applied {
                    sequence: (sequence, sequence),
                    pages: pages.len(),
                    end: LogEnd::NoMoreEntries,
                };
                plan = Some(Plan {
                    base,
                    pages,
                    bins_len: base.bins_len.get(),
                    sequence,
                    locked: base.flags.get() & BASE_FLAG_LOCKED != 0,
                    log_bytes: log.bytes.len(),
                });
            }
        }
    }
    plan
}

impl Plan<'_> {
    fn apply(self, bytes: &mut Vec<u8>, base_block_lost: bool) -> Result<(), HiveError> {
        let needed = BASE_BLOCK_LEN + index(self.bins_len);
        // Every byte the file lacks must come from the logs, or bins would be missing.
        let most = bytes.len().max(BASE_BLOCK_LEN) + self.log_bytes;
        if needed > most {
            return Err(Defect::new(
                FileOffset::new(0),
                DefectKind::BaseBlock,
                format!("a length after recovery that file and logs allow, at most {most} bytes"),
                format!("{needed}"),
            )
            .into());
        }
        if bytes.len() < needed {
            bytes.resize(needed, 0);
        }
        for Patch { at, bytes: page } in self.pages {
            let start = BASE_BLOCK_LEN + index(at);
            // Pages lie within the bins as they were when their entry was written, and a later
            // entry may have made the hive shorter.
            if let Some(place) = bytes.get_mut(start..start + page.len()) {
                place.copy_from_slice(page);
            }
        }
        if base_block_lost
            && let Some(place) = bytes.first_chunk_mut::<{ size_of::<BaseBlock>() }>()
        {
            place.copy_from_slice(self.base.as_bytes());
        }
        // The file has at least a base block by now.
        if let Ok((base, _)) = BaseBlock::mut_from_prefix(bytes) {
            base.file_type = FILE_TYPE_PRIMARY.into();
            base.root_cell = self.base.root_cell;
            base.minor = self.base.minor;
            base.last_written = self.base.last_written;
            base.last_reorganized = self.base.last_reorganized;
            base.bins_len = self.bins_len.into();
            base.primary_sequence = self.sequence.into();
            base.secondary_sequence = self.sequence.into();
            let others = base.flags.get() & !BASE_FLAG_LOCKED;
            base.flags = (others | if self.locked { BASE_FLAG_LOCKED } else { 0 }).into();
            base.checksum = base.expected_checksum().into();
        }
        Ok(())
    }
}

fn first_sequence(log: &Candidate<'_>) -> u32 {
    match log.contents {
        Contents::Entries(base) | Contents::DirtyVector(base) => base.primary_sequence.get(),
        Contents::None => 0,
    }
}

/// Whether `a` comes before `b`; sequence numbers wrap.
fn precedes(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) > u32::MAX / 2
}

#[cfg(test)]
mod tests;
