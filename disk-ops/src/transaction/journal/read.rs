//! Reading a journal that somebody has left.

use std::io;

use super::format::{
    EXTENT_HEAD, ExtentHead, FIRST_EXTENT, FIRST_SEAL, HEADER, SEAL, Seal, last_seal_at,
    parse_header,
};
use super::{JournalDamage, JournalHeader};
use crate::block::overlay::LONGEST_CHANGE;
use crate::buffer::Buffer;
use crate::scratch::ScratchFile;
use crate::transaction::witness::{ByteRange, Covered};
use crate::units::{ByteCount, ByteOffset};

/// What a file called `*.journal` is.
#[derive(Debug)]
pub(crate) enum JournalState {
    /// It counts, but it can't be read. The header is there if that much can be.
    Damaged(Option<Box<JournalHeader>>, JournalDamage),
    /// The disk is the new one already.
    Done,
    /// The disk has to be made the new one.
    Sealed(Journal),
    /// It was cut short, and the disk is the old one.
    Unsealed,
}

/// A journal that counts.
#[derive(Debug)]
pub(crate) struct Journal {
    pub(super) file: Box<dyn ScratchFile>,
    pub(super) header: JournalHeader,
    pub(super) seal: Seal,
}

/// An extent of a journal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'b> {
    /// Where on the disk it belongs.
    pub(crate) offset: ByteOffset,
    /// The new content: whole sectors.
    pub(crate) new: &'b [u8],
    /// CRC-32C of the old content, four bytes for each sector.
    old: &'b [u8],
    sector: usize,
}

impl<'b> Record<'b> {
    /// Each sector: where it is, CRC-32C of the old content, and the new one.
    pub(crate) fn sectors(&self) -> impl Iterator<Item = (ByteOffset, u32, &'b [u8])> + use<'b> {
        let (offset, sector) = (self.offset.0, self.sector as u64);
        self.old
            .as_chunks::<4>()
            .0
            .iter()
            .zip(self.new.chunks(self.sector))
            .zip(0..)
            .map(move |((crc, new), number)| {
                let at = ByteOffset(offset + number * sector);
                (at, u32::from_le_bytes(*crc), new)
            })
    }
}

impl Journal {
    /// Finds out what `file` is.
    ///
    /// # Errors
    ///
    /// What the operating system says when it can't be read at all.
    pub(crate) fn open(file: Box<dyn ScratchFile>) -> io::Result<JournalState> {
        let length = file.length()?;
        let first = read_seal(&*file, FIRST_SEAL, length);
        let last = match length.checked_sub(SEAL as u64) {
            Some(place) if place > FIRST_SEAL => read_seal(&*file, place, length),
            _ => Ok(None),
        };
        // A seal is at its place, or it is none: what looks like one inside of an extent's content,
        // at the end of a file that was cut off there, is not taken for one.
        let last = last
            .map(|seal| seal.filter(|seal| last_seal_at(seal.end) == Some(length - SEAL as u64)));
        let (first, last) = match (first, last) {
            // One that can't be read may be the only one that is there.
            (Err(error), Ok(None) | Err(_)) | (Ok(None), Err(error)) => return Err(error),
            (first, last) => (first.ok().flatten(), last.ok().flatten()),
        };
        let header = match length >= HEADER as u64 {
            false => Err(JournalDamage::Unreadable {
                position: length,
                problem: "it ends there".into(),
            }),
            true => {
                let mut bytes = [0; HEADER];
                file.read_at(0, &mut bytes)?;
                parse_header(&bytes)
            }
        };
        let seal = match (first, last) {
            (None, None) => return Ok(JournalState::Unsealed),
            (Some(first), _) if first.is_done => return Ok(JournalState::Done),
            (Some(first), Some(last)) if first != last => {
                return Ok(JournalState::Damaged(
                    header.ok().map(Box::new),
                    JournalDamage::Seals,
                ));
            }
            (Some(seal), _) | (None, Some(seal)) => seal,
        };
        Ok(match header {
            Err(damage) => JournalState::Damaged(None, damage),
            Ok(header) if header.id != seal.id => {
                JournalState::Damaged(Some(Box::new(header)), JournalDamage::Seals)
            }
            Ok(header) => JournalState::Sealed(Self { file, header, seal }),
        })
    }

    /// What was just written, about to be sealed.
    pub(super) fn assume(file: Box<dyn ScratchFile>, header: JournalHeader, seal: Seal) -> Self {
        Self { file, header, seal }
    }

    /// Which disk it is for.
    pub(crate) fn header(&self) -> &JournalHeader {
        &self.header
    }

    /// How much it writes to the disk.
    pub(crate) fn content(&self) -> ByteCount {
        self.seal.content
    }

    /// BLAKE3 of the witness.
    pub(crate) fn witness_digest(&self) -> &[u8; 32] {
        &self.seal.witness
    }

    /// Reads all of it and compares it with the seal; says what it covers of the witness.
    pub(crate) fn verify(&self) -> Result<Covered, JournalDamage> {
        let mut digest = blake3::Hasher::new();
        let mut header = [0; HEADER];
        self.read(0, &mut header)?;
        digest.update(&header);
        let mut covered = Covered::default();
        let mut content = ByteCount(0);
        self.walk(
            |bytes| {
                digest.update(bytes);
            },
            |record| {
                let length = ByteCount(record.new.len() as u64);
                content.0 += length.0;
                let offset = record.offset;
                covered.note(&self.header.witness, ByteRange { offset, length });
                Ok(())
            },
        )?;
        let is_right =
            *digest.finalize().as_bytes() == self.seal.digest && content == self.seal.content;
        is_right.then_some(covered).ok_or(JournalDamage::Digest)
    }

    /// Shows every extent, in the order of the disk. Each is checked before it is shown.
    pub(crate) fn visit<E: From<JournalDamage>>(
        &self,
        visit: impl FnMut(Record<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.walk(|_| {}, visit)
    }

    fn walk<E: From<JournalDamage>>(
        &self,
        mut see_bytes: impl FnMut(&[u8]),
        mut visit: impl FnMut(Record<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let sector = self.header.sector.bytes() as usize;
        // The content begins on a page, so that a disk takes it directly.
        let mut content = Buffer::new(LONGEST_CHANGE);
        let mut old = vec![0; LONGEST_CHANGE / sector * 4];
        let mut position = FIRST_EXTENT;
        let mut disk_position = 0;
        for number in 0..self.seal.extents {
            let broken = |problem| JournalDamage::Extent {
                number,
                position,
                problem,
            };
            let mut head_bytes = [0; EXTENT_HEAD];
            self.read(position, &mut head_bytes)?;
            let head = ExtentHead::parse(&head_bytes).ok_or_else(|| broken("it has no head"))?;
            let length = head.length as usize;
            if length == 0 || length > LONGEST_CHANGE || !length.is_multiple_of(sector) {
                return Err(broken("its length is none that an extent can have").into());
            }
            if !head.offset.0.is_multiple_of(sector as u64) || head.offset.0 < disk_position {
                return Err(broken("it is out of order").into());
            }
            let end = head.offset.checked_add(ByteCount(length as u64));
            let Some(end) = end.filter(|end| *end <= self.header.disk_size.end()) else {
                return Err(broken("it leaves the disk").into());
            };
            let old = &mut old[..length / sector * 4];
            let content = content.bytes_mut(length);
            let old_at = position + EXTENT_HEAD as u64;
            let content_at = old_at + old.len() as u64;
            let next = content_at + length as u64;
            if next > self.seal.end {
                return Err(broken("it leaves the journal").into());
            }
            self.read(old_at, old)?;
            self.read(content_at, content)?;
            let crc = crc32c::crc32c_append(crc32c::crc32c(old), content);
            if crc != head.body_crc {
                return Err(broken("its checksum is wrong").into());
            }
            for bytes in [&head_bytes[..], old, content] {
                see_bytes(bytes);
            }
            visit(Record {
                offset: head.offset,
                new: content,
                old,
                sector,
            })?;
            position = next;
            disk_position = end.0;
        }
        if position != self.seal.end {
            return Err(JournalDamage::Digest.into());
        }
        Ok(())
    }

    /// Notes that the disk is the new one.
    pub(crate) fn mark_done(&self) -> io::Result<()> {
        let done = Seal {
            is_done: true,
            ..self.seal
        };
        self.file.write_at(FIRST_SEAL, &done.to_bytes())?;
        self.file.sync()
    }

    fn read(&self, position: u64, buffer: &mut [u8]) -> Result<(), JournalDamage> {
        self.file
            .read_at(position, buffer)
            .map_err(|error| JournalDamage::Unreadable {
                position,
                problem: match error.kind() {
                    io::ErrorKind::UnexpectedEof => "it ends there".into(),
                    _ => error.to_string(),
                },
            })
    }
}

fn read_seal(file: &dyn ScratchFile, place: u64, length: u64) -> io::Result<Option<Seal>> {
    if place + SEAL as u64 > length {
        return Ok(None);
    }
    let mut bytes = [0; SEAL];
    file.read_at(place, &mut bytes)?;
    Ok(Seal::parse(&bytes))
}
