//! The ring of security records and who uses them.

use super::{Check, Severity};
use crate::error::{Defect, DefectKind};
use crate::security::{SecurityDescriptor, record};
use crate::units::CellOffset;

impl Check<'_> {
    /// Goes around the ring from the root key's record, then looks for used records outside it.
    pub(super) fn security(&mut self) {
        let users = std::mem::take(&mut self.security_users);
        let Ok(root) = self.hive.root() else { return };
        let start = CellOffset::new(root.node().security.get());
        let mut at = start;
        // Claiming each record once ends the loop even when the ring doesn't close.
        loop {
            if !self.claim(at, DefectKind::Security, root.offset()) {
                break;
            }
            let (found, descriptor) = match record(self.hive, at) {
                Ok(record) => record,
                Err(error) => {
                    self.error(root.offset(), error);
                    break;
                }
            };
            if let Err(invalid) = SecurityDescriptor::from_bytes(descriptor) {
                let expected = "a self-relative security descriptor";
                self.security_defect(at, Severity::Error, expected, invalid.to_string());
            }
            let keys = users.get(&at).copied().unwrap_or(0);
            let counted = found.reference_count.get();
            if counted != keys {
                // With too small a count the record would be freed while keys still use it.
                let severity = if counted < keys {
                    Severity::Error
                } else {
                    Severity::Warning
                };
                let expected = format!("a count of {keys} users");
                self.security_defect(at, severity, &expected, counted.to_string());
            }
            let next = CellOffset::new(found.next.get());
            if let Ok((linked, _)) = record(self.hive, next)
                && linked.previous.get() != at.get()
            {
                let expected = format!("{at} as the record before it in the ring");
                let previous = format!("{:#x}", linked.previous);
                self.security_defect(next, Severity::Error, &expected, previous);
            }
            if next == start {
                break;
            }
            at = next;
        }
        for (at, keys) in users {
            if self.claimed.contains(at) && record(self.hive, at).is_ok() {
                continue;
            }
            if let Err(error) = record(self.hive, at) {
                self.error(root.offset(), error);
                continue;
            }
            self.claimed.insert(at);
            let expected = "a record in the ring, for keys use it";
            self.security_defect(
                at,
                Severity::Error,
                expected,
                format!("{keys} keys, no link"),
            );
        }
    }

    fn security_defect(
        &mut self,
        at: CellOffset,
        severity: Severity,
        expected: &str,
        found: String,
    ) {
        let defect = Defect::new(at.in_file(), DefectKind::Security, expected, found);
        self.report.add(super::Finding {
            severity,
            key: None,
            defect,
        });
    }
}
