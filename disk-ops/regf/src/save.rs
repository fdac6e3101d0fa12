//! Writing a hive back.

use zerocopy::FromBytes;

use crate::edit::EditError;
use crate::format::{BinHeader, SECTOR};
use crate::hive::Hive;
use crate::units::FileTime;

/// A hive ready to be written to its file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Saved<'h> {
    /// All of the file.
    pub bytes: &'h [u8],
    /// What has to be done with the log files when these bytes are written.
    pub logs: LogFate,
}

/// What becomes of the log files beside a hive when it is saved.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use = "a stale log left beside a changed hive can undo the change"]
pub enum LogFate {
    /// The hive is as it was loaded; its logs still belong to it.
    Keep,
    /// What the logs hold is in the hive already or void. Each that exists must be made one that
    /// nothing will apply, in the same step as the hive is written: with [`neutralise_log`], or by
    /// truncating it to no bytes. Windows expects the files to exist, so they must not be deleted.
    Neutralise,
}

/// Makes a log one that no recovery applies: its base block is overwritten with zeros, as in a log
/// that was never used. The length stays.
pub fn neutralise_log(log: &mut [u8]) {
    let base_block = log.len().min(SECTOR);
    if let Some(base_block) = log.get_mut(..base_block) {
        base_block.fill(0);
    }
}

impl Hive {
    /// Completes the hive for writing: after a change, counts both sequence numbers on, sets the
    /// time of writing and the checksum. An unchanged hive is byte for byte what was loaded.
    ///
    /// # Errors
    ///
    /// An edit was broken off by an error half way.
    pub fn save(&mut self, now: FileTime) -> Result<Saved<'_>, EditError> {
        if self.interrupted {
            return Err(EditError::Interrupted);
        }
        let logs = if self.modified {
            LogFate::Neutralise
        } else {
            LogFate::Keep
        };
        if self.modified {
            if let Ok((bin, _)) = BinHeader::mut_from_prefix(self.bins_mut()) {
                bin.timestamp = now.ticks().into();
            }
            let base = self.base_mut();
            let latest = base
                .primary_sequence
                .get()
                .max(base.secondary_sequence.get());
            let sequence = latest.wrapping_add(1);
            base.primary_sequence = sequence.into();
            base.secondary_sequence = sequence.into();
            base.last_written = now.ticks().into();
            base.checksum = base.expected_checksum().into();
            self.modified = false;
        }
        Ok(Saved {
            bytes: self.as_bytes(),
            logs,
        })
    }
}
