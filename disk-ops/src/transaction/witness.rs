//! Parts of a disk that a transaction leaves alone and that tell whether somebody else did.
//!
//! The old content of what a transaction changes is known sector by sector, and tells a disk that
//! was written to there. It can't tell a disk that was written to elsewhere, or another disk that is
//! the same in these sectors. So a transaction also keeps a digest of places that whoever uses a
//! disk changes, or that differ from disk to disk: both ends of it, where partition tables are, and
//! what its user adds, such as the log of a file system.

use crate::block::{BlockError, BlockRead};
use crate::buffer::Buffer;
use crate::units::{ByteCount, ByteOffset};

/// A part of a disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ByteRange {
    /// Where it begins.
    pub offset: ByteOffset,
    /// How long it is.
    pub length: ByteCount,
}

impl ByteRange {
    /// Whether it is one that a journal may name for a disk of `size` bytes.
    pub(super) fn is_allowed_on(&self, size: ByteCount) -> bool {
        let end = self.offset.checked_add(self.length);
        self.length <= LONGEST_RANGE && end.is_some_and(|end| end <= size.end())
    }

    fn meets(&self, other: &Self) -> bool {
        self.offset.0 < other.end() && other.offset.0 < self.end()
    }

    fn end(&self) -> u64 {
        self.offset.0 + self.length.0
    }
}

/// Both ends of a disk of `size` bytes.
pub(super) fn ends_of(size: ByteCount) -> Vec<ByteRange> {
    let length = ByteCount(LONGEST_RANGE.0.min(size.0));
    [0, size.0 - length.0]
        .map(|offset| ByteRange {
            offset: ByteOffset(offset),
            length,
        })
        .to_vec()
}

/// What is changed inside of witness ranges, in the order of the disk and without overlaps, and
/// therefore left out of the digest.
#[derive(Clone, Debug, Default)]
pub(super) struct Covered(Vec<ByteRange>);

impl Covered {
    /// Notes that `change` is changed, as far as it concerns `ranges`.
    pub(super) fn note(&mut self, ranges: &[ByteRange], change: ByteRange) {
        let concerns =
            |range: &ByteRange| range.offset.0 < change.end() && change.offset.0 < range.end();
        if ranges.iter().any(concerns) {
            self.0.push(change);
        }
    }
}

/// BLAKE3 of `ranges` of `disk`, with zeros in place of what is covered.
pub(super) fn digest(
    disk: &(impl BlockRead + ?Sized),
    ranges: &[ByteRange],
    covered: &Covered,
) -> Result<[u8; 32], BlockError> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = Buffer::new(LONGEST_RANGE.0 as usize);
    for range in ranges {
        let bytes = buffer.bytes_mut(range.length.0 as usize);
        bytes.fill(0);
        let within = |position: u64| (position - range.offset.0) as usize;
        let mut position = range.offset.0;
        // What is covered is not even read: it may be torn, until it is written again.
        for change in covered.0.iter().filter(|change| change.meets(range)) {
            if position < change.offset.0 {
                let gap = within(position)..within(change.offset.0);
                disk.read_at(ByteOffset(position), &mut bytes[gap])?;
            }
            position = position.max(change.end().min(range.end()));
        }
        let rest = within(position)..bytes.len();
        disk.read_at(ByteOffset(position), &mut bytes[rest])?;
        hasher.update(bytes);
    }
    Ok(*hasher.finalize().as_bytes())
}

/// How many ranges a journal can name, the two ends among them.
pub(super) const MOST_RANGES: usize = 64;

/// The longest range.
pub(super) const LONGEST_RANGE: ByteCount = ByteCount::mib(1);
