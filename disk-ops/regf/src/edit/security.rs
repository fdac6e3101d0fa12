//! Security records: which key uses which, and how many do.

use zerocopy::{FromZeros, IntoBytes};

use super::{EditError, HiveEditor};
use crate::bitmap::CellSet;
use crate::error::{Defect, DefectKind, HiveError};
use crate::format::{KeySecurity, SECURITY_SIGNATURE};
use crate::hive::Hive;
use crate::key::Key;
use crate::name::KeyPath;
use crate::security::{SecurityDescriptor, record};
use crate::units::{CellOffset, length};

impl Hive {
    /// Takes a cell for the only security record of a new hive, used once.
    pub(crate) fn first_security_record(
        &mut self,
        security: &SecurityDescriptor,
    ) -> Result<CellOffset, EditError> {
        let at = self.allocate_with(&record_bytes(security))?;
        let record = self.security_mut(at)?;
        record.next = at.get().into();
        record.previous = at.get().into();
        record.reference_count = 1.into();
        Ok(at)
    }
}

impl HiveEditor<'_> {
    /// The record of a key, which can take one more user.
    pub(super) fn security_record_of(&self, key: CellOffset) -> Result<CellOffset, HiveError> {
        let at = CellOffset::new(Key::at(self.hive, key)?.node().security.get());
        let (found, _) = record(self.hive, at)?;
        if found.reference_count.get() == u32::MAX {
            return Err(defect(
                at,
                "a count of users that can grow",
                u32::MAX.to_string(),
            ));
        }
        Ok(at)
    }

    /// Notes one more user.
    pub(super) fn add_security_reference(&mut self, at: CellOffset) -> Result<(), HiveError> {
        let record = self.hive.security_mut(at)?;
        record.reference_count = record.reference_count.get().saturating_add(1).into();
        Ok(())
    }

    /// Makes sure that `drop_security_references` will work.
    pub(super) fn check_security_references(
        &self,
        at: CellOffset,
        keys: u32,
    ) -> Result<(), HiveError> {
        let (found, _) = record(self.hive, at)?;
        if found.reference_count.get() < keys {
            let expected = format!("at least {keys} users");
            return Err(defect(at, &expected, found.reference_count.to_string()));
        }
        for (neighbour, back) in [(found.next, true), (found.previous, false)] {
            let neighbour = CellOffset::new(neighbour.get());
            let (linked, _) = record(self.hive, neighbour)?;
            let link = if back { linked.previous } else { linked.next };
            if link.get() != at.get() {
                return Err(defect(
                    neighbour,
                    &format!("a link to {at}"),
                    format!("{link:#x}"),
                ));
            }
        }
        Ok(())
    }

    /// Notes that keys stopped using a record, and gives it back when none is left.
    pub(super) fn drop_security_references(
        &mut self,
        at: CellOffset,
        keys: u32,
    ) -> Result<(), HiveError> {
        let record = self.hive.security_mut(at)?;
        let left = record.reference_count.get().saturating_sub(keys);
        record.reference_count = left.into();
        if left > 0 {
            return Ok(());
        }
        let (next, previous) = (record.next, record.previous);
        self.hive
            .security_mut(CellOffset::new(next.get()))?
            .previous = previous;
        self.hive
            .security_mut(CellOffset::new(previous.get()))?
            .next = next;
        self.hive.free(at)
    }

    pub(super) fn set_security_of(
        &mut self,
        path: &KeyPath,
        key: CellOffset,
        security: &SecurityDescriptor,
    ) -> Result<bool, EditError> {
        self.refuse_layered(path, key)?;
        let old = self.security_record_of(key)?;
        self.check_security_references(old, 1)?;
        let new = match self.equal_record(old, security)? {
            Some(equal) if equal == old => return Ok(false),
            Some(equal) => {
                self.check_security_references(equal, 0)?;
                equal
            }
            None => self.take(&record_bytes(security))?,
        };

        let is_new = self.taken.contains(&new);
        self.begin_writing();
        if is_new {
            let after = self.hive.security_mut(old)?.next;
            let record = self.hive.security_mut(new)?;
            record.next = after;
            record.previous = old.get().into();
            self.hive.security_mut(old)?.next = new.get().into();
            self.hive
                .security_mut(CellOffset::new(after.get()))?
                .previous = new.get().into();
        }
        self.add_security_reference(new)?;
        self.drop_security_references(old, 1)?;
        let now = self.now;
        let node = self.hive.node_mut(key)?;
        node.security = new.get().into();
        node.last_written = now.ticks().into();
        Ok(true)
    }

    /// The record in the ring around `start` that has this descriptor.
    fn equal_record(
        &self,
        start: CellOffset,
        security: &SecurityDescriptor,
    ) -> Result<Option<CellOffset>, HiveError> {
        let mut seen = CellSet::new(self.hive.bins_len());
        let mut at = start;
        while seen.insert(at) {
            let (found, descriptor) = record(self.hive, at)?;
            if descriptor == security.as_bytes() && found.reference_count.get() < u32::MAX {
                return Ok(Some(at));
            }
            at = CellOffset::new(found.next.get());
        }
        Ok(None)
    }
}

fn record_bytes(security: &SecurityDescriptor) -> Vec<u8> {
    let mut record = KeySecurity::new_zeroed();
    record.signature = SECURITY_SIGNATURE;
    record.descriptor_len = length(security.as_bytes().len()).into();
    [record.as_bytes(), security.as_bytes()].concat()
}

fn defect(at: CellOffset, expected: &str, found: String) -> HiveError {
    Defect::new(at.in_file(), DefectKind::Security, expected, found).into()
}
