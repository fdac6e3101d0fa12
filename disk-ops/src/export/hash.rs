//! The MD5 of a disk, without an image; and whether it is the one that is known of the disk.
//!
//! ```text
//!  |--------------- data ---------------|--- zeros ---|-- up to a MiB --|
//!  0                                    ^             ^                 ^
//!                            last byte that is not 0  every whole MiB   end: the whole disk
//!                            (looked for in the last GiB)
//! ```
//!
//! A cloud rounds disks up: what was hashed before it was uploaded is then followed by zeros. A hash
//! is therefore compared at every whole MiB of the zeros at the end, and at the end itself. Nothing
//! of the disk that is not zero is ever left out.

use std::sync::mpsc::sync_channel;
use std::thread;

use ce_vhdx::is_zero;

use super::hasher::{self, DiskHash};
use super::reader;
use super::stage::{BUFFERS, Chunk, ChunkBody, Control, buffer_pool, join, spawn};
use super::{ExportError, Md5Digest};
use crate::block::{BlockRead, ExtentKind, Window};
use crate::cancel::Cancel;
use crate::progress::Progress;
use crate::units::{ByteCount, ByteOffset};

/// Computes the MD5 of the content of `source`.
///
/// # Errors
///
/// [`ExportError::Read`] or [`ExportError::Cancelled`].
pub fn hash(
    source: &dyn BlockRead,
    cancel: &Cancel,
    progress: &Progress,
) -> Result<Md5Digest, ExportError> {
    Ok(hash_state(source, cancel, progress)?.finish())
}

/// What came of comparing a disk with a hash.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HashMatch {
    /// The hash is that of so many bytes from the start of the disk; what follows them is zero, or
    /// was not to be looked at.
    Covers(ByteCount),
    /// The hash is that of something else; the disk has this one.
    Differs(Md5Digest),
}

/// Looks whether `expected` is the MD5 of `source`: of its first `hashed` bytes, or else of the
/// whole disk, with or without whole MiB of the zeros that its last GiB ends with.
///
/// # Errors
///
/// [`ExportError::Read`], also for more `hashed` bytes than the disk has, or
/// [`ExportError::Cancelled`].
pub fn compare_hash(
    source: &dyn BlockRead,
    expected: &Md5Digest,
    hashed: Option<ByteCount>,
    cancel: &Cancel,
    progress: &Progress,
) -> Result<HashMatch, ExportError> {
    let size = source.size();
    let first = match hashed {
        Some(hashed) => hashed,
        None => first_candidate(source, cancel)?,
    };
    let last = hashed.unwrap_or(size);
    let part = Window::new(source, ByteOffset::ZERO, first, source.name().to_owned());
    let mut state = hash_state(&part.map_err(ExportError::Read)?, cancel, progress)?;
    loop {
        let digest = state.clone().finish();
        let covered = ByteCount(state.position.0);
        if digest == *expected {
            return Ok(HashMatch::Covers(covered));
        }
        if covered >= last {
            return Ok(HashMatch::Differs(digest));
        }
        if cancel.is_requested() {
            return Err(ExportError::Cancelled);
        }
        state.update(&Chunk {
            offset: state.position,
            body: ChunkBody::Zero {
                length: ByteCount(MIB.min(last.0 - covered.0)),
            },
        });
        progress.reach(ByteCount(state.position.0));
    }
}

/// The first whole MiB of the last GiB from which on all is zero; the size of the disk if there is
/// none.
fn first_candidate(source: &dyn BlockRead, cancel: &Cancel) -> Result<ByteCount, ExportError> {
    let size = source.size();
    let earliest = size.0.saturating_sub(LONGEST_TAIL);
    let mut start = size.0;
    let mut buffer = vec![0; MIB as usize];
    while start > earliest {
        if cancel.is_requested() {
            return Err(ExportError::Cancelled);
        }
        // Down to the whole MiB before.
        let before = (start - 1) / MIB * MIB;
        let bytes = &mut buffer[..(start - before) as usize];
        let extent = source
            .extent_at(ByteOffset(before))
            .map_err(ExportError::Read)?;
        let is_hole = extent.kind == ExtentKind::Zero && extent.end.0 >= start;
        if !is_hole {
            source
                .read_at(ByteOffset(before), bytes)
                .map_err(ExportError::Read)?;
            if !is_zero(bytes) {
                break;
            }
        }
        start = before;
    }
    // The hash of nothing is the hash of no disk.
    Ok(ByteCount(start.max(MIB).min(size.0)))
}

fn hash_state(
    source: &dyn BlockRead,
    cancel: &Cancel,
    progress: &Progress,
) -> Result<DiskHash, ExportError> {
    let size = source.size();
    let control = Control::new(cancel, progress);
    thread::scope(|scope| {
        let (buffers, give_back) = buffer_pool();
        let (to_hasher, from_reader) = sync_channel(BUFFERS);
        let start = ByteOffset::ZERO;
        let control = &control;
        let read = move || reader::run(source, size, start, None, buffers, to_hasher, control);
        let reader = spawn(scope, "ce-read", read)?;
        let hasher = spawn(scope, "ce-hash", move || {
            hasher::run_last(from_reader, give_back, control)
        })?;
        let read = join(reader);
        let hashed = join(hasher);
        control.outcome(read.and(hashed))
    })
}

const MIB: u64 = 1 << 20;

/// No cloud rounds a disk up by more.
const LONGEST_TAIL: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use digest::Digest;

    use super::*;
    use crate::block::MemoryDisk;
    use crate::md5::Md5;
    use crate::units::SectorSizes;

    /// A disk of `size` bytes whose first `data` bytes are not zero.
    fn disk(size: u64, data: u64) -> MemoryDisk {
        let mut disk = MemoryDisk::new(ByteCount(size), SectorSizes::B512);
        let bytes: Vec<u8> = (0..data).map(|at| (at % 251 + 1) as u8).collect();
        disk.write(ByteOffset::ZERO, &bytes);
        disk
    }

    fn md5_of(disk: &MemoryDisk, length: u64) -> Md5Digest {
        let mut bytes = vec![0; length as usize];
        disk.read_at(ByteOffset::ZERO, &mut bytes).unwrap();
        Md5Digest(Md5::digest(&bytes).into())
    }

    fn compare(disk: &MemoryDisk, expected: Md5Digest, hashed: Option<u64>) -> HashMatch {
        let hashed = hashed.map(ByteCount);
        let (cancel, progress) = (Cancel::default(), Progress::default());
        compare_hash(disk, &expected, hashed, &cancel, &progress).unwrap()
    }

    #[test]
    fn a_disk_has_its_hash_and_that_of_itself_without_whole_mib_of_zeros() {
        let disk = disk(10 * MIB + 512, 3 * MIB + 100);
        let whole = 10 * MIB + 512;
        for covered in (4..=10).map(|mib| mib * MIB).chain([whole]) {
            let expected = md5_of(&disk, covered);
            let found = compare(&disk, expected, None);
            assert_eq!(found, HashMatch::Covers(ByteCount(covered)));
        }
        let differs = HashMatch::Differs(md5_of(&disk, whole));
        for other in [3 * MIB, 4 * MIB - 512, 5 * MIB + 512] {
            assert_eq!(compare(&disk, md5_of(&disk, other), None), differs);
        }
    }

    #[test]
    fn nothing_that_is_not_zero_is_left_out() {
        let mut disk = disk(8 * MIB, MIB);
        let shorter = md5_of(&disk, 4 * MIB);
        assert_eq!(
            compare(&disk, shorter, None),
            HashMatch::Covers(ByteCount(4 * MIB))
        );
        disk.write(ByteOffset(8 * MIB - 1), &[1]);
        assert!(matches!(
            compare(&disk, shorter, None),
            HashMatch::Differs(_)
        ));
        // Unless it is said how much was hashed.
        assert_eq!(
            compare(&disk, shorter, Some(4 * MIB)),
            HashMatch::Covers(ByteCount(4 * MIB))
        );
        let whole = md5_of(&disk, 8 * MIB);
        assert!(matches!(
            compare(&disk, whole, Some(4 * MIB)),
            HashMatch::Differs(_)
        ));
    }

    #[test]
    fn zeros_before_the_last_gib_are_part_of_the_hash() {
        let disk = disk(LONGEST_TAIL + 2 * MIB, 512);
        for (covered, found) in [(2 * MIB, true), (MIB, false)] {
            let compared = compare(&disk, md5_of(&disk, covered), None);
            assert_eq!(compared == HashMatch::Covers(ByteCount(covered)), found);
        }
    }

    #[test]
    fn a_disk_of_nothing_but_zeros_does_not_have_the_hash_of_nothing() {
        let disk = disk(3 * MIB, 0);
        for covered in [MIB, 3 * MIB] {
            let found = compare(&disk, md5_of(&disk, covered), None);
            assert_eq!(found, HashMatch::Covers(ByteCount(covered)));
        }
        let nothing = compare(&disk, md5_of(&disk, 0), None);
        assert!(matches!(nothing, HashMatch::Differs(_)));
    }
}
