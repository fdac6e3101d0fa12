//! What Windows has left for its next start.
//!
//! The places are those that deployment tools look at to see whether a restart is pending, without
//! those that only a running Windows has (volatile keys). Two are taken with a grain of salt:
//!
//! - `PendingFileRenameOperations` is there on most machines for ever, as updaters leave their
//!   temporary files to it. What replaces files, or deletes those of Windows itself, counts; a
//!   temporary file that is to be deleted does not.
//! - `SessionsPending` counts while a session holds it exclusively.

use std::fmt;

use ce_disk::volume::{WinPath, WindowsVolume};

use crate::hives::{HiveName, HiveSet};
use crate::inspect::{Inspection, Notes, Registry};

/// A trace of work that is left, and where it stands.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PendingWork {
    /// A file of component servicing.
    File(String),
    /// Files that are to be replaced or deleted.
    FileRenames {
        /// How many count.
        count: usize,
        /// One of them.
        example: String,
    },
    /// A key that is there only while something is pending.
    Key(&'static str),
    /// A value that is not as it is when nothing is pending.
    Value {
        /// Its key.
        key: String,
        /// Its name.
        name: &'static str,
        /// What is in it.
        found: String,
    },
}

impl fmt::Display for PendingWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the file {path}"),
            Self::FileRenames { count: 1, example } => {
                write!(f, "PendingFileRenameOperations has {example}")
            }
            Self::FileRenames { count, example } => {
                write!(
                    f,
                    "PendingFileRenameOperations has {example} and {} more",
                    count - 1
                )
            }
            Self::Key(key) => write!(f, "the key SOFTWARE\\{key}"),
            Self::Value { key, name, found } => write!(f, "{name} of {key} is {found}"),
        }
    }
}

pub(super) fn find(
    volume: &dyn WindowsVolume,
    folder: &WinPath,
    hives: &HiveSet,
    inspection: &Inspection,
) -> Vec<PendingWork> {
    // What cannot be read has become a finding of the inspection, or a blocker.
    let unread = Notes::default();
    let registry = |name: HiveName| {
        let loaded = hives.hive(name)?;
        Some(Registry::new(name.file(), &loaded.hive, &unread))
    };
    let mut found = Vec::new();
    if let Some(software) = registry(HiveName::Software) {
        in_software(software, &mut found);
    }
    if let (Some(system), Some(set)) = (registry(HiveName::System), inspection.control_sets.key()) {
        in_system(system, &set, &mut found);
    }
    for file in SERVICING_FILES {
        let path = folder.join(file);
        if path
            .as_ref()
            .is_ok_and(|path| volume.exists(path).unwrap_or(false))
        {
            found.push(PendingWork::File(format!(r"{folder}\{file}")));
        }
    }
    found
}

fn in_software(software: Registry<'_>, found: &mut Vec<PendingWork>) {
    let keys = KEYS.into_iter().filter(|key| software.key(key).is_some());
    found.extend(keys.map(PendingWork::Key));
    let exclusive = software.number(SESSIONS, "Exclusive");
    if let Some(number) = exclusive.filter(|number| *number != 0) {
        found.push(PendingWork::Value {
            key: format!(r"SOFTWARE\{SESSIONS}"),
            name: "Exclusive",
            found: number.to_string(),
        });
    }
    let volatile = software.number(r"Microsoft\Updates", "UpdateExeVolatile");
    if let Some(number) = volatile.filter(|number| *number != 0) {
        found.push(PendingWork::Value {
            key: r"SOFTWARE\Microsoft\Updates".into(),
            name: "UpdateExeVolatile",
            found: number.to_string(),
        });
    }
}

fn in_system(system: Registry<'_>, set: &str, found: &mut Vec<PendingWork>) {
    let manager = format!(r"{set}\Control\Session Manager");
    let mut operations = Vec::new();
    for name in [
        "PendingFileRenameOperations",
        "PendingFileRenameOperations2",
    ] {
        let data = system.data(&manager, name).unwrap_or_default();
        operations.extend(renames(&data).filter_map(|(from, to)| counts(&from, &to)));
    }
    if let Some(example) = operations.first().cloned() {
        found.push(PendingWork::FileRenames {
            count: operations.len(),
            example,
        });
    }
    // Component servicing has its work done there, before anything else starts.
    let execute = system.data(&manager, "SetupExecute").unwrap_or_default();
    if let Some(program) = strings(&execute).find(|text| !text.is_empty()) {
        found.push(PendingWork::Value {
            key: format!(r"SYSTEM\{manager}"),
            name: "SetupExecute",
            found: program,
        });
    }
    let netlogon = format!(r"{set}\Services\Netlogon");
    if let Some(domain) = system.text(&netlogon, "JoinDomain") {
        found.push(PendingWork::Value {
            key: format!(r"SYSTEM\{netlogon}"),
            name: "JoinDomain",
            found: domain,
        });
    }
}

/// The strings of a REG_MULTI_SZ in which empty ones mean something.
fn strings(data: &[u8]) -> impl Iterator<Item = String> {
    let (units, _) = data.as_chunks::<2>();
    let units: Vec<u16> = units.iter().copied().map(u16::from_le_bytes).collect();
    let strings: Vec<String> = units
        .split(|unit| *unit == 0)
        .map(String::from_utf16_lossy)
        .take(MOST_STRINGS)
        .collect();
    strings.into_iter()
}

/// Pairs of paths: what is renamed, and to what; deleted, if that is empty.
fn renames(data: &[u8]) -> impl Iterator<Item = (String, String)> {
    let mut strings = strings(data);
    std::iter::from_fn(move || {
        let from = strings.next().filter(|from| !from.is_empty())?;
        Some((from, strings.next().unwrap_or_default()))
    })
}

/// What an operation does, if it does more than to tidy up.
fn counts(from: &str, to: &str) -> Option<String> {
    let plain = |path: &str| {
        // `!` allows replacing, `*1` and the like are flags of Windows 10.
        let path = path.trim_start_matches(['!', '*', '1', '2', '3', '4', '5', '6', '7', '8', '9']);
        path.trim_start_matches(r"\??\").to_owned()
    };
    let (from, to) = (plain(from), plain(to));
    if !to.is_empty() {
        return Some(format!("{from} replacing {to}"));
    }
    let lower = from.to_ascii_lowercase();
    let is_temporary =
        lower.ends_with(".tmp") || lower.contains(r"\temp\") || lower.contains(r"\tmp\");
    (lower.contains(r"\windows\") && !is_temporary).then(|| format!("{from} to be deleted"))
}

/// Keys of SOFTWARE that are there only while something is pending: component servicing, Windows
/// Update.
const KEYS: [&str; 5] = [
    r"Microsoft\Windows\CurrentVersion\Component Based Servicing\RebootPending",
    r"Microsoft\Windows\CurrentVersion\Component Based Servicing\RebootInProgress",
    r"Microsoft\Windows\CurrentVersion\Component Based Servicing\PackagesPending",
    r"Microsoft\Windows\CurrentVersion\WindowsUpdate\Auto Update\RebootRequired",
    r"Microsoft\Windows\CurrentVersion\WindowsUpdate\Auto Update\PostRebootReporting",
];

const SESSIONS: &str =
    r"Microsoft\Windows\CurrentVersion\Component Based Servicing\SessionsPending";

/// What component servicing goes by at the next start.
const SERVICING_FILES: [&str; 1] = [r"WinSxS\pending.xml"];

/// More than anything leaves there.
const MOST_STRINGS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn multi(strings: &[&str]) -> Vec<u8> {
        let units = strings
            .iter()
            .flat_map(|text| text.encode_utf16().chain([0]));
        units.flat_map(u16::to_le_bytes).collect()
    }

    fn counting(strings: &[&str]) -> Vec<String> {
        let data = multi(strings);
        renames(&data)
            .filter_map(|(from, to)| counts(&from, &to))
            .collect()
    }

    #[test]
    fn temporary_files_that_are_to_be_deleted_do_not_count() {
        assert!(
            counting(&[
                r"\??\C:\WINDOWS\System32\drivers\SETEAC4.tmp",
                "",
                r"\??\C:\Windows\Temp\{1}\setup.exe",
                "",
                r"\??\C:\Program Files (x86)\Google\Update\old.exe",
                "",
            ])
            .is_empty()
        );
    }

    #[test]
    fn what_replaces_files_or_deletes_those_of_windows_counts() {
        assert_eq!(
            counting(&[
                r"\??\C:\Users\a\AppData\Local\Temp\x.tmp",
                "",
                r"\??\C:\Windows\System32\drivers\pvscsi.sys",
                "",
                r"*1\??\C:\Windows\System32\spool\New\A.DLL",
                r"!\??\C:\Windows\System32\spool\A.DLL",
            ]),
            [
                r"C:\Windows\System32\drivers\pvscsi.sys to be deleted",
                r"C:\Windows\System32\spool\New\A.DLL replacing C:\Windows\System32\spool\A.DLL",
            ]
        );
    }

    #[test]
    fn a_value_that_is_cut_off_ends_where_it_is_cut() {
        assert!(counting(&[]).is_empty() && counting(&["", "x"]).is_empty());
        assert_eq!(renames(&multi(&["a"])[..2]).count(), 1);
        assert_eq!(renames(&[1]).count(), 0);
    }
}
