//! The security descriptors of files, read from `$Secure`.
//!
//! A file has the number of its descriptor; `$Secure:$SDS` has the descriptors, one behind the
//! other, each with a header of 20 bytes (hash, number, position, length) and aligned to 16. Every
//! 256 KiB of them are followed by a copy of the same 256 KiB.

use std::collections::{BTreeMap, BTreeSet};

use super::super::fields::Fields;
use super::super::stream::Stream;
use super::super::{DATA, FileRecord, NtfsVolume, STANDARD_INFORMATION};
use super::descriptor::{DescriptorError, lets_anyone_write};
use crate::block::BlockRead;
use crate::units::ByteCount;
use crate::volume::VolumeError;

/// What the descriptors of some files say.
pub(super) struct Descriptors(BTreeMap<u32, Result<bool, DescriptorError>>);

impl Descriptors {
    /// Looks up the descriptors of `files`.
    pub fn of<'r, D: BlockRead>(
        volume: &NtfsVolume<D>,
        files: impl Iterator<Item = &'r FileRecord>,
    ) -> Result<Self, VolumeError> {
        let wanted: BTreeSet<u32> = files.filter_map(security_id).collect();
        let mut found = BTreeMap::new();
        if wanted.is_empty() {
            return Ok(Self(found));
        }
        let secure = volume.record(SECURE_RECORD)?;
        let Some(stream) = secure.attribute(DATA, "$SDS") else {
            return Ok(Self(found));
        };
        walk(volume, &stream.stream, |id, descriptor| {
            if wanted.contains(&id) {
                found.insert(id, lets_anyone_write(descriptor));
            }
        })?;
        Ok(Self(found))
    }

    /// Whether everyone may write to `file`; `None` if it has no descriptor.
    pub fn lets_anyone_write(&self, file: &FileRecord) -> Option<Result<bool, DescriptorError>> {
        match security_id(file) {
            Some(id) => self.0.get(&id).copied(),
            None => file.resident(SECURITY_DESCRIPTOR).map(lets_anyone_write),
        }
    }
}

/// The number of the descriptor, unless the file has one of its own.
fn security_id(file: &FileRecord) -> Option<u32> {
    let information = Fields(file.resident(STANDARD_INFORMATION)?);
    information.u32(52).filter(|id| *id != 0)
}

fn walk<D: BlockRead>(
    volume: &NtfsVolume<D>,
    stream: &Stream,
    mut entry: impl FnMut(u32, &[u8]),
) -> Result<(), VolumeError> {
    const NAME: &str = "$Secure:$SDS";
    if stream.size > MAX_STREAM.0 {
        return Err(VolumeError::TooLarge {
            file: NAME.to_owned(),
            found: ByteCount(stream.size),
            limit: MAX_STREAM,
        });
    }
    let mut block = vec![0; BLOCK as usize];
    for start in (0..stream.size).step_by(2 * BLOCK as usize) {
        let read = stream.read_at(volume.disk(), volume.geometry(), NAME, start, &mut block)?;
        let mut at = 0;
        // What is not an entry is the rest of the block, which no entry fitted into.
        while let Some((id, length)) = header(&block[..read], at, start) {
            entry(id, &block[at + HEADER..at + length]);
            at += length.next_multiple_of(16);
        }
    }
    Ok(())
}

/// The number and length of the entry at `at`, header included, if there is a whole one.
fn header(block: &[u8], at: usize, start: u64) -> Option<(u32, usize)> {
    let fields = Fields(block.get(at..)?);
    let (id, position, length) = (fields.u32(4)?, fields.u64(8)?, fields.u32(16)? as usize);
    let is_whole = length > HEADER && length <= block.len() - at;
    (is_whole && position == start + at as u64).then_some((id, length))
}

const SECURE_RECORD: u64 = 9;
const SECURITY_DESCRIPTOR: u32 = 0x50;

const HEADER: usize = 20;
const BLOCK: u64 = 256 << 10;

/// More than any volume has: hundreds of thousands of different descriptors.
const MAX_STREAM: ByteCount = ByteCount::mib(256);
