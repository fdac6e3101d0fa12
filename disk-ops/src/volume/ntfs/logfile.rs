//! Whether `$LogFile` has changes in it that are not on the volume yet.
//!
//! ```text
//!  restart page (4 KiB, twice):  header: RSTR, version | restart area: clients in use, flags
//! ```
//!
//! The log is clean when no client has it open, or when it says itself that the volume is. A log
//! of 0xFF throughout is one that was reset. Version 2 is what Windows 8 and later write while a
//! volume is in use; they go back to 1.1 when they let go of it, so that a log of version 2 is one
//! of a volume that was not dismounted (Fast Startup, a snapshot of a running machine).

use super::fields::{Fields, undo_update_sequence};

/// What the log says of the volume.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum LogState {
    /// Nothing is pending.
    Clean,
    /// Something is, or could be.
    NotClean {
        /// What shows it.
        evidence: String,
    },
}

/// The state of a log that begins with `head`: its first [`HEAD`] bytes, or all of it.
pub(super) fn state(head: &[u8]) -> LogState {
    let not_clean = |evidence: String| LogState::NotClean { evidence };
    let pages: Vec<RestartPage> = [0, RestartPage::size(head)]
        .into_iter()
        .filter_map(|at| RestartPage::parse(head.get(at..)?))
        .collect();
    let Some(page) = pages.iter().max_by_key(|page| page.sequence) else {
        if !head.is_empty() && head.iter().all(|byte| *byte == 0xFF) {
            return LogState::Clean;
        }
        return not_clean("it has no valid restart page".to_owned());
    };
    if page.major > 1 {
        return not_clean(format!(
            "it is of version {}.{}, which Windows leaves on a volume that it did not dismount",
            page.major, page.minor
        ));
    }
    if page.has_client && !page.is_clean {
        return not_clean("it is still open, and not marked as clean".to_owned());
    }
    LogState::Clean
}

struct RestartPage {
    sequence: u64,
    major: u16,
    minor: u16,
    has_client: bool,
    is_clean: bool,
}

impl RestartPage {
    /// The size of the first restart page, and with it the place of the second one.
    fn size(head: &[u8]) -> usize {
        let size = Fields(head)
            .u32(16)
            .and_then(|size| usize::try_from(size).ok());
        size.filter(|size| size.is_power_of_two() && (512..=HEAD / 2).contains(size))
            .unwrap_or(DEFAULT_PAGE)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let is_page = bytes.starts_with(b"RSTR") || bytes.starts_with(b"CHKD");
        let mut page = bytes.get(..Self::size(bytes)).filter(|_| is_page)?.to_vec();
        undo_update_sequence(&mut page)?;
        let page = Fields(&page);
        let area = usize::from(page.u16(24)?);
        Some(Self {
            sequence: page.u64(area)?,
            minor: page.u16(26)?,
            major: page.u16(28)?,
            has_client: page.u16(area + 12)? != NO_CLIENT,
            is_clean: page.u16(area + 14)? & VOLUME_IS_CLEAN != 0,
        })
    }
}

/// How much of the log is looked at: two restart pages of the largest size.
pub(super) const HEAD: usize = 128 << 10;

const DEFAULT_PAGE: usize = 4096;
const NO_CLIENT: u16 = 0xFFFF;
const VOLUME_IS_CLEAN: u16 = 0x0002;

#[cfg(test)]
pub(in crate::volume) mod tests {
    use super::*;

    /// A restart page with an update sequence, as Windows writes it.
    pub fn restart_page(sequence: u64, version: (u16, u16), client: u16, flags: u16) -> Vec<u8> {
        let mut page = vec![0; 4096];
        let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"RSTR");
        put(4, &[30, 0, 9, 0]);
        put(16, &4096_u32.to_le_bytes());
        put(20, &4096_u32.to_le_bytes());
        put(24, &48_u16.to_le_bytes());
        put(26, &version.1.to_le_bytes());
        put(28, &version.0.to_le_bytes());
        put(30, &7_u16.to_le_bytes());
        put(48, &sequence.to_le_bytes());
        put(48 + 12, &client.to_le_bytes());
        put(48 + 14, &flags.to_le_bytes());
        for block in page.chunks_exact_mut(512) {
            block[510..].copy_from_slice(&7_u16.to_le_bytes());
        }
        page
    }

    fn log(first: Vec<u8>, second: Vec<u8>) -> Vec<u8> {
        [first, second, vec![0xFF; 8192]].concat()
    }

    #[test]
    fn a_log_is_clean_when_it_is_closed_or_says_so() {
        assert_eq!(state(&[0xFF; HEAD]), LogState::Clean);
        let closed = restart_page(5, (1, 1), NO_CLIENT, 0);
        assert_eq!(state(&log(closed.clone(), closed.clone())), LogState::Clean);
        let marked = restart_page(6, (1, 1), 0, VOLUME_IS_CLEAN);
        assert_eq!(state(&log(closed, marked)), LogState::Clean);
    }

    #[test]
    fn the_newer_page_counts() {
        let closed = restart_page(5, (1, 1), NO_CLIENT, 0);
        let open = restart_page(6, (1, 1), 0, 0);
        for log in [log(closed.clone(), open.clone()), log(open, closed)] {
            assert!(matches!(state(&log), LogState::NotClean { .. }));
        }
    }

    #[test]
    fn a_log_that_windows_did_not_let_go_of_is_not_clean() {
        let page = restart_page(5, (2, 0), NO_CLIENT, VOLUME_IS_CLEAN);
        let LogState::NotClean { evidence } = state(&log(page.clone(), page)) else {
            panic!("taken for clean");
        };
        assert!(evidence.contains("2.0"), "{evidence}");
    }

    #[test]
    fn a_torn_or_foreign_log_is_not_clean() {
        let mut torn = restart_page(5, (1, 1), NO_CLIENT, 0);
        torn[1022] ^= 1;
        assert!(matches!(
            state(&log(torn.clone(), torn)),
            LogState::NotClean { .. }
        ));
        for bytes in [vec![], vec![0; 3], vec![0; HEAD], b"RSTR".to_vec()] {
            assert_ne!(state(&bytes), LogState::Clean, "{}", bytes.len());
        }
    }
}
