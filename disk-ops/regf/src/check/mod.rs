//! The structural check: every reference, count, order and link of a hive, once.
//!
//! ```text
//!   bins and cells            (an unsound layout is all there is to say)
//!     -> keys from the root   parent links, names, lists, order, hashes, values, data
//!     -> security ring        links, descriptors, counts of users
//!     -> cells nobody claimed
//! ```
//!
//! Each cell is claimed by what refers to it. A second claim is a finding and is not followed, so
//! time is linear in the hive and memory a small part of it, whatever the hive holds.

mod keys;
mod security;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;

use crate::bitmap::CellSet;
use crate::error::{Defect, DefectKind, HiveError};
use crate::format::{BASE_BLOCK_LEN, MAX_DEPTH};
use crate::hive::{Hive, HiveState, base_block};
use crate::key::Key;
use crate::layout::Layout;
use crate::name::KeyPath;
use crate::units::{CellOffset, FileOffset, index};

/// What a check found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CheckReport {
    /// In the order they were met; of each severity the first thousand.
    pub findings: Vec<Finding>,
    /// How many there are of each severity, listed or not.
    pub counts: BTreeMap<Severity, u64>,
}

/// Something in a hive that is not as it should be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The key it concerns, where there is one.
    pub key: Option<KeyPath>,
    /// Where it is, what should be there and what is.
    pub defect: Defect,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// Windows or this crate would read something wrong, miss it, or damage it further.
    Error,
    /// Against the format, without consequence for what is read.
    Warning,
    /// Harmless: space that is lost, a state that is worth knowing.
    Note,
}

impl CheckReport {
    /// Whether there are neither errors nor warnings.
    pub fn is_sound(&self) -> bool {
        self.count(Severity::Error) == 0 && self.count(Severity::Warning) == 0
    }

    /// How many findings there are of this severity.
    pub fn count(&self, severity: Severity) -> u64 {
        self.counts.get(&severity).copied().unwrap_or(0)
    }

    fn add(&mut self, finding: Finding) {
        let count = self.counts.entry(finding.severity).or_default();
        *count += 1;
        if *count <= MAX_LISTED {
            self.findings.push(finding);
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        match &self.key {
            Some(key) => write!(f, "{severity}: key \"{key}\": {}", self.defect),
            None => write!(f, "{severity}: {}", self.defect),
        }
    }
}

/// Checks the bytes of a primary file, also one that [`Hive::load`] refuses.
///
/// # Errors
///
/// The file is no hive, or of a version that is not known; everything else is a finding.
pub fn check_file(bytes: &[u8]) -> Result<CheckReport, HiveError> {
    base_block(bytes)?;
    match Hive::load(bytes) {
        Ok(hive) => Ok(hive.check()),
        Err(HiveError::Damaged(first)) => {
            let mut report = CheckReport::default();
            let unsound_layout = matches!(first.kind, DefectKind::Bin | DefectKind::Cell);
            let mut add = |defect| {
                report.add(Finding {
                    severity: Severity::Error,
                    key: None,
                    defect,
                })
            };
            if unsound_layout {
                scan_layout(bytes, add);
            } else {
                add(*first);
            }
            Ok(report)
        }
        Err(other) => Err(other),
    }
}

impl Hive {
    /// Checks the whole structure.
    pub fn check(&self) -> CheckReport {
        let mut check = Check {
            hive: self,
            report: CheckReport::default(),
            claimed: CellSet::new(self.bins_len()),
            security_users: BTreeMap::new(),
        };
        check.base_block();
        check.keys();
        check.security();
        check.unclaimed();
        check.report
    }
}

fn scan_layout(bytes: &[u8], mut add: impl FnMut(Defect)) {
    let claimed = base_block(bytes).map_or(0, |base| index(base.bins_len.get()));
    let bins = bytes.get(BASE_BLOCK_LEN..).unwrap_or_default();
    let bins = bins.get(..claimed).unwrap_or(bins);
    Layout::scan(bins, |defect| {
        add(defect);
        ControlFlow::Continue(())
    });
}

/// A check under way.
struct Check<'h> {
    hive: &'h Hive,
    report: CheckReport,
    claimed: CellSet,
    /// Keys that refer to each security record.
    security_users: BTreeMap<CellOffset, u32>,
}

impl Check<'_> {
    fn base_block(&mut self) {
        if self.hive.state() == HiveState::Dirty {
            let base = self.hive.base();
            let (primary, secondary) = (base.primary_sequence.get(), base.secondary_sequence.get());
            self.report.add(Finding {
                severity: Severity::Note,
                key: None,
                defect: Defect::new(
                    FileOffset::new(SEQUENCES_OFFSET),
                    DefectKind::BaseBlock,
                    "two equal sequence numbers",
                    format!("{primary} and {secondary}: the hive is dirty"),
                ),
            });
        }
    }

    /// Allocated cells that nothing refers to.
    fn unclaimed(&mut self) {
        let hive = self.hive;
        for (at, size) in hive.layout().cells(hive.bins()) {
            if size < 0 && !self.claimed.contains(at) {
                let found = format!("none, {} bytes lost", size.unsigned_abs());
                let defect = Defect::new(at.in_file(), DefectKind::CellUse, "a reference", found);
                self.report.add(Finding {
                    severity: Severity::Note,
                    key: None,
                    defect,
                });
            }
        }
    }

    /// Notes that a cell is referred to. False when it was already, which is a finding.
    fn claim(&mut self, at: CellOffset, kind: DefectKind, key: CellOffset) -> bool {
        if let Err(error) = self.hive.cell(at, kind) {
            self.error(key, error);
            return false;
        }
        if self.claimed.insert(at) {
            return true;
        }
        let defect = Defect::new(
            at.in_file(),
            kind,
            "a cell used once",
            "a second reference to it",
        );
        self.finding(Severity::Error, key, defect);
        false
    }

    fn error(&mut self, key: CellOffset, error: HiveError) {
        if let HiveError::Damaged(defect) = error {
            self.finding(Severity::Error, key, *defect);
        }
    }

    fn finding(&mut self, severity: Severity, key: CellOffset, defect: Defect) {
        // Beyond the limit only the number counts.
        let listed = self.report.count(severity) < MAX_LISTED;
        let key = listed.then(|| self.path_of(key)).flatten();
        self.report.add(Finding {
            severity,
            key,
            defect,
        });
    }

    /// The path of a key by its parent links, as far as they can be followed.
    fn path_of(&self, key: CellOffset) -> Option<KeyPath> {
        let root = self.hive.root().ok()?.offset();
        let mut names = Vec::new();
        let mut at = key;
        while at != root && names.len() <= MAX_DEPTH {
            let Ok(key) = Key::at(self.hive, at) else {
                break;
            };
            names.push(key.name().to_name());
            at = CellOffset::new(key.node().parent.get());
        }
        names.reverse();
        Some(KeyPath::from_names(names))
    }
}

/// Findings of one severity that are kept.
const MAX_LISTED: u64 = 1000;
const SEQUENCES_OFFSET: u64 = 4;
