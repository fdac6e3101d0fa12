//! The redo journal: what a transaction is about to write, and to which disk.
//!
//! ```text
//!       0  header   which disk: size, sector size, name, path; witness ranges     CRC-32C
//!    8192  seal     } written one after the other when all else is durable;
//!   12288  extent     offset, length | CRC-32C of each old sector | new content   CRC-32C
//!          extent     ascending, not overlapping, at most 1 MiB of content each
//!          ...
//!   4096n  seal     } counts, end, BLAKE3 of header and extents, BLAKE3 of the witness, CRC-32C
//! ```
//!
//! All numbers are little-endian.
//!
//! | seals found | what it means |
//! |---|---|
//! | none | It was cut short. The disk has not been touched: it is only when both seals are durable. |
//! | one or both | Whatever is on the disk, writing all extents again makes it the new one. |
//! | the first one says *done* | The disk is the new one. |
//!
//! Two seals, in pages of their own, so that no single damaged sector makes a sealed journal look
//! like one that was cut short, which would be thrown away with the disk half written. Damage to
//! anything else in a sealed journal is found by the digest before the disk is touched.
//!
//! Any byte of a journal may be wrong. Nothing is allocated that is larger than an extent, and an
//! extent at most as large as the bound above.

use std::io;

use uuid::Uuid;

use crate::block::overlay::{Change, LONGEST_CHANGE};
use crate::block::{DiskIdentity, WholeDisk};
use crate::scratch::{Scratch, ScratchFile};
use crate::transaction::witness::{ByteRange, Covered};
use crate::units::{ByteCount, SectorSize};

mod format;
mod read;

pub(super) use read::{Journal, JournalState, Record};

use format::{
    EXTENT_HEAD, ExtentHead, FIRST_EXTENT, FIRST_SEAL, Seal, header_to_bytes, last_seal_at,
};

/// Which disk a journal is for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JournalHeader {
    /// The name of the journal.
    pub id: Uuid,
    /// When it was begun, in seconds since 1970.
    pub written_at: u64,
    /// The size of the disk.
    pub disk_size: ByteCount,
    /// The logical sector size of the disk.
    pub sector: SectorSize,
    /// What the disk is called.
    pub identity: DiskIdentity,
    /// Where the disk is looked at to see whether somebody else has written to it.
    pub witness: Vec<ByteRange>,
}

impl JournalHeader {
    /// The header of a new journal for `disk`.
    pub(super) fn of(disk: &impl WholeDisk, witness: Vec<ByteRange>) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self {
            id: Uuid::new_v4(),
            // A clock before 1970 tells nothing.
            written_at: now.map_or(0, |now| now.as_secs()),
            disk_size: disk.size(),
            sector: disk.sectors().logical,
            identity: disk.identity(),
            witness,
        }
    }

    /// What to call the disk.
    pub fn disk_name(&self) -> String {
        match (&self.identity.path, &self.identity.node) {
            (Some(path), _) => path.display().to_string(),
            (None, Some(node)) => node.clone(),
            (None, None) => "a disk without a name".into(),
        }
    }

    /// Whether it is, or may be, for the disk that is called `identity`.
    ///
    /// A device that reports another name is another one, even under the same path. A file in the
    /// place of another one may be its copy.
    pub(super) fn may_be_for(&self, identity: &DiskIdentity) -> bool {
        match (&self.identity.node, &identity.node) {
            (Some(one), Some(other)) if one == other => true,
            (Some(one), Some(other)) if !is_file(one) && !is_file(other) => false,
            _ => self.identity.path == identity.path,
        }
    }

    /// How `identity` is not the one of the disk that it is for, if that can be told.
    pub(super) fn difference(&self, identity: &DiskIdentity) -> Option<String> {
        match (&self.identity.node, &identity.node) {
            (Some(expected), Some(found)) if expected != found => {
                Some(format!("it is {found}, expected {expected}"))
            }
            _ => None,
        }
    }
}

fn is_file(node: &str) -> bool {
    node.starts_with("inode:")
}

/// A journal that is being written.
#[derive(Debug)]
pub(super) struct JournalWriter {
    file: Box<dyn ScratchFile>,
    header: JournalHeader,
    digest: blake3::Hasher,
    covered: Covered,
    extents: u64,
    content: ByteCount,
    end: u64,
    record: Vec<u8>,
}

impl JournalWriter {
    /// The name of the file.
    pub(super) fn name_of(header: &JournalHeader) -> String {
        format!("{}{SUFFIX}", header.id)
    }

    /// Makes the file and writes the header.
    pub(super) fn create(scratch: &dyn Scratch, header: JournalHeader) -> io::Result<Self> {
        let bytes = header_to_bytes(&header).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "the name of the disk is too long",
            )
        })?;
        let file = scratch.create(&Self::name_of(&header))?;
        file.write_at(0, &bytes)?;
        let mut digest = blake3::Hasher::new();
        digest.update(&bytes);
        Ok(Self {
            file,
            header,
            digest,
            covered: Covered::default(),
            extents: 0,
            content: ByteCount(0),
            end: FIRST_EXTENT,
            record: Vec::with_capacity(EXTENT_HEAD + LONGEST_CHANGE + LONGEST_CHANGE / 128),
        })
    }

    /// Adds a change; changes come in the order of the disk.
    pub(super) fn append(&mut self, change: Change<'_>) -> io::Result<()> {
        let sector = self.header.sector.bytes() as usize;
        self.record.clear();
        self.record.resize(EXTENT_HEAD, 0);
        for old in change.old.chunks(sector) {
            self.record.extend(crc32c::crc32c(old).to_le_bytes());
        }
        self.record.extend(change.new);
        let head = ExtentHead {
            offset: change.offset,
            // Changes are no longer than LONGEST_CHANGE.
            length: change.new.len() as u32,
            body_crc: crc32c::crc32c(&self.record[EXTENT_HEAD..]),
        };
        self.record[..EXTENT_HEAD].copy_from_slice(&head.to_bytes());
        self.file.write_at(self.end, &self.record)?;
        self.digest.update(&self.record);
        self.end += self.record.len() as u64;
        self.extents += 1;
        self.content.0 += change.new.len() as u64;
        let length = ByteCount(change.new.len() as u64);
        let offset = change.offset;
        self.covered
            .note(&self.header.witness, ByteRange { offset, length });
        Ok(())
    }

    /// How much is to be written to the disk.
    pub(super) fn content(&self) -> ByteCount {
        self.content
    }

    /// The witness ranges without what is changed in them.
    pub(super) fn witness(&self) -> (&[ByteRange], &Covered) {
        (&self.header.witness, &self.covered)
    }

    /// Makes durable what is there, and reads it back from the medium: what can't be read must not
    /// be sealed.
    pub(super) fn finish(self, witness: [u8; 32]) -> io::Result<UnsealedJournal> {
        self.file.sync()?;
        self.file.drop_cache();
        let seal = Seal {
            id: self.header.id,
            is_done: false,
            extents: self.extents,
            content: self.content,
            end: self.end,
            digest: *self.digest.finalize().as_bytes(),
            witness,
        };
        let journal = Journal::assume(self.file, self.header, seal);
        journal
            .verify()
            .map_err(|damage| io::Error::new(io::ErrorKind::InvalidData, damage))?;
        Ok(UnsealedJournal(journal))
    }
}

/// A whole journal that does not yet count.
#[derive(Debug)]
pub(super) struct UnsealedJournal(Journal);

impl UnsealedJournal {
    /// Makes it count. After an error, it may count or not.
    pub(super) fn seal(self) -> io::Result<Journal> {
        let Self(journal) = self;
        let seal = journal.seal.to_bytes();
        let last = last_seal_at(journal.seal.end).ok_or(io::ErrorKind::FileTooLarge)?;
        for place in [last, FIRST_SEAL] {
            journal.file.write_at(place, &seal)?;
            journal.file.sync()?;
        }
        Ok(journal)
    }
}

/// What is wrong with a journal.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum JournalDamage {
    /// The content is not what was sealed.
    #[error("its content is not what was sealed")]
    Digest,
    /// An extent can't be one.
    #[error("extent {number} at byte {position} of the file: {problem}")]
    Extent {
        /// The number of the extent; the first one has number 0.
        number: u64,
        /// Where it is in the file.
        position: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A field of the header can't be right.
    #[error("the {field} in its header can't be right")]
    Header {
        /// The field.
        field: &'static str,
    },
    /// The two seals say different things.
    #[error("its two seals do not agree")]
    Seals,
    /// The file ends too early, or can't be read there.
    #[error("it can't be read at byte {position}: {problem}")]
    Unreadable {
        /// Where in the file.
        position: u64,
        /// What the operating system said.
        problem: String,
    },
    /// Another version of this program wrote it.
    #[error("another version of this program wrote it")]
    Version,
}

/// What the names of journals end in.
pub(super) const SUFFIX: &str = ".journal";
