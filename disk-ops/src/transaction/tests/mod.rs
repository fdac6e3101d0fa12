use std::path::PathBuf;

use super::*;
use crate::block::{BlockRead, BlockWrite, DiskIdentity, MemoryDisk};
use crate::fault::{Failure, Faults};
use crate::scratch::MemoryScratch;
use crate::units::{SectorSize, SectorSizes};

mod crash;
mod files;
mod model;
mod refusal;

/// A disk and a scratch on one power supply.
struct Bench {
    faults: Faults,
    disk: MemoryDisk,
    scratch: MemoryScratch,
}

/// Bytes of the test disk: whole blocks and a short one.
const SIZE: usize = 24 * 4096 + 4096;

impl Bench {
    fn new() -> Self {
        Self::with_sectors(SectorSizes::B512)
    }

    fn with_sectors(sectors: SectorSizes) -> Self {
        let faults = Faults::default();
        let mut disk = MemoryDisk::new(ByteCount(SIZE as u64), sectors)
            .with_faults(faults.clone())
            .with_identity(identity("serial:1"));
        disk.write(ByteOffset::ZERO, &old_content());
        Self {
            scratch: MemoryScratch::new(faults.clone()),
            faults,
            disk,
        }
    }

    fn scratch(&self) -> Arc<dyn Scratch> {
        Arc::new(self.scratch.clone())
    }

    fn begin(&self) -> Result<Transaction<&MemoryDisk>, BeginError> {
        Transaction::begin(&self.disk, self.scratch(), None)
    }

    /// Begins, writes and commits what [`new_content`] has.
    fn commit(&self) -> Result<Committed, Failed> {
        let transaction = self.begin().map_err(Failed::Begin)?;
        for (offset, bytes) in edits() {
            let written = transaction
                .disk()
                .write_at(ByteOffset(offset as u64), &bytes);
            written.map_err(|error| Failed::Commit(error.into()))?;
        }
        transaction
            .commit(&Cancel::default(), &Progress::default())
            .map_err(Failed::Commit)
    }

    /// Does what `ce-agent recover` does.
    fn recover(&self) -> Result<(), RecoverError> {
        let recovery = Recovery::open(self.scratch())?;
        for journal in recovery.journals()? {
            if !recovery.discard(&journal)? {
                recovery.finish(
                    &journal,
                    &self.disk,
                    Trust::Found,
                    &Cancel::default(),
                    &Progress::default(),
                )?;
            }
        }
        Ok(())
    }

    /// The power goes, takes what was not flushed as `survives` says, and is back.
    fn lose_power(&self, mut survives: impl FnMut() -> bool) {
        self.disk.cut_power(&mut survives);
        self.scratch.cut_power(&mut survives);
        self.faults.clear();
    }

    fn content(&self) -> Vec<u8> {
        let mut bytes = vec![0; SIZE];
        self.disk.read_at(ByteOffset::ZERO, &mut bytes).unwrap();
        bytes
    }

    fn journals(&self) -> Vec<String> {
        let names = self.scratch.names().unwrap().into_iter();
        names.filter(|name| name.ends_with(".journal")).collect()
    }

    /// Leaves a sealed journal behind, with the disk half written.
    fn cut_in_the_middle() -> Self {
        let clean = Self::new();
        clean.commit().unwrap();
        // Behind the writes to the disk: flush, mark, sync, remove, sync of the folder.
        let number = clean.faults.operations() - 6;
        let bench = Self::new();
        let after_sectors = 3;
        bench
            .faults
            .fail_operation(number, Failure::PowerCut { after_sectors });
        let error = bench.commit().unwrap_err();
        assert_eq!(error.outcome(), Some(Outcome::Unfinished), "{error:?}");
        bench.lose_power(|| true);
        let content = bench.content();
        assert!(content != old_content() && content != new_content());
        bench
    }
}

#[derive(Debug)]
enum Failed {
    Begin(#[expect(dead_code, reason = "shown when a test fails")] BeginError),
    Commit(CommitError),
}

impl Failed {
    fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Begin(_) => None,
            Self::Commit(error) => Some(error.outcome()),
        }
    }
}

fn identity(node: &str) -> DiskIdentity {
    DiskIdentity {
        path: Some(PathBuf::from("/dev/disk")),
        node: Some(node.to_owned()),
    }
}

fn old_content() -> Vec<u8> {
    (0..SIZE).map(|i| (i * 7 + i / 251) as u8).collect()
}

fn new_content() -> Vec<u8> {
    let mut content = old_content();
    for (offset, bytes) in edits() {
        content[offset..offset + bytes.len()].copy_from_slice(&bytes);
    }
    content
}

/// Three extents: unaligned, several blocks, and the end of the disk.
fn edits() -> Vec<(usize, Vec<u8>)> {
    vec![
        (5 * 4096 + 100, vec![0xA1; 700]),
        (9 * 4096, vec![0xB2; 3 * 4096]),
        (SIZE - 1000, vec![0xC3; 1000]),
        // Written, and the same in the end.
        (2 * 4096, old_content()[2 * 4096..3 * 4096].to_vec()),
    ]
}

/// A sequence of answers that looks like chance and is not.
fn chance(seed: u64) -> impl FnMut() -> bool {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state & 4 == 0
    }
}

#[test]
fn a_commit_makes_the_disk_the_new_one_and_empties_the_scratch() {
    for sector in [SectorSize::B512, SectorSize::B4096] {
        let bench = Bench::with_sectors(SectorSizes {
            logical: sector,
            physical: sector,
        });
        let committed = bench.commit().unwrap();
        assert_eq!(committed.changed, ByteCount(5 * 4096));
        assert!(committed.leftover.is_none() && !committed.cancel_came_too_late);
        bench.lose_power(|| false);
        assert_eq!(bench.content(), new_content());
        assert!(bench.journals().is_empty());
    }
}

#[test]
fn a_transaction_that_is_dropped_has_never_been() {
    let bench = Bench::new();
    let transaction = bench.begin().unwrap();
    transaction
        .disk()
        .write_at(ByteOffset(0), &[1; 10_000])
        .unwrap();
    drop(transaction);
    assert_eq!(bench.content(), old_content());
    assert_eq!(bench.scratch.names().unwrap(), Vec::<String>::new());
    bench.begin().unwrap();
}

#[test]
fn a_commit_of_nothing_writes_nothing() {
    let bench = Bench::new();
    let transaction = bench.begin().unwrap();
    let same = &old_content()[4096..12_288];
    transaction.disk().write_at(ByteOffset(4096), same).unwrap();
    let progress = Progress::default();
    let committed = transaction.commit(&Cancel::default(), &progress).unwrap();
    assert_eq!(committed.changed, ByteCount(0));
    assert_eq!(bench.content(), old_content());
    assert!(bench.journals().is_empty());
}

#[test]
fn a_cancel_before_the_seal_changes_nothing() {
    let bench = Bench::new();
    let transaction = bench.begin().unwrap();
    transaction.disk().write_at(ByteOffset(0), &[1]).unwrap();
    let cancel = Cancel::default();
    cancel.request();
    let error = transaction
        .commit(&cancel, &Progress::default())
        .unwrap_err();
    assert!(matches!(error, CommitError::Cancelled));
    assert_eq!(error.outcome(), Outcome::Unchanged);
    assert_eq!(bench.content(), old_content());
    assert!(bench.journals().is_empty());
}

#[test]
fn a_cancel_after_the_seal_comes_too_late_and_is_told_so() {
    /// Asks for the end at the first write to the disk.
    struct CancelledAtWrite<'a>(&'a MemoryDisk, Cancel);
    impl BlockRead for CancelledAtWrite<'_> {
        fn size(&self) -> ByteCount {
            self.0.size()
        }
        fn sectors(&self) -> SectorSizes {
            self.0.sectors()
        }
        fn name(&self) -> &str {
            self.0.name()
        }
        fn read_at(
            &self,
            offset: ByteOffset,
            buffer: &mut [u8],
        ) -> Result<(), crate::block::BlockError> {
            self.0.read_at(offset, buffer)
        }
        fn extent_at(
            &self,
            offset: ByteOffset,
        ) -> Result<crate::block::Extent, crate::block::BlockError> {
            self.0.extent_at(offset)
        }
    }
    impl BlockWrite for CancelledAtWrite<'_> {
        fn write_at(
            &self,
            offset: ByteOffset,
            bytes: &[u8],
        ) -> Result<(), crate::block::BlockError> {
            self.1.request();
            self.0.write_at(offset, bytes)
        }
        fn flush(&self) -> Result<(), crate::block::BlockError> {
            self.0.flush()
        }
    }
    impl WholeDisk for CancelledAtWrite<'_> {
        fn identity(&self) -> DiskIdentity {
            self.0.identity()
        }
        fn reserve(
            &self,
            offset: ByteOffset,
            length: ByteCount,
        ) -> Result<(), crate::block::BlockError> {
            self.0.reserve(offset, length)
        }
        fn expect_untouched(&self) -> Result<(), crate::block::BlockError> {
            Ok(())
        }
    }

    let bench = Bench::new();
    let cancel = Cancel::default();
    let disk = CancelledAtWrite(&bench.disk, cancel.clone());
    let transaction = Transaction::begin(disk, bench.scratch(), None).unwrap();
    for (offset, bytes) in edits() {
        let offset = ByteOffset(offset as u64);
        transaction.disk().write_at(offset, &bytes).unwrap();
    }
    let committed = transaction.commit(&cancel, &Progress::default()).unwrap();
    assert!(committed.cancel_came_too_late);
    assert_eq!(bench.content(), new_content());
}

#[test]
fn a_lost_write_is_never_committed() {
    let bench = Bench::new();
    let limit = Some(ByteCount(2 * 4096));
    let transaction = Transaction::begin(&bench.disk, bench.scratch(), limit).unwrap();
    transaction.disk().write_at(ByteOffset(0), &[1]).unwrap();
    assert!(
        transaction
            .disk()
            .write_at(ByteOffset(4096), &[1; 8192])
            .is_err()
    );
    let error = transaction
        .commit(&Cancel::default(), &Progress::default())
        .unwrap_err();
    assert!(matches!(error, CommitError::Incomplete));
    assert_eq!(bench.content(), old_content());
}

#[test]
fn progress_reaches_the_work_that_was_announced() {
    let bench = Bench::new();
    let transaction = bench.begin().unwrap();
    transaction
        .disk()
        .write_at(ByteOffset(0), &[1; 8192])
        .unwrap();
    let work = transaction.commit_work();
    let progress = Progress::default();
    transaction.commit(&Cancel::default(), &progress).unwrap();
    assert_eq!(progress.done(), work);
}

#[test]
fn one_scratch_has_one_transaction_at_a_time() {
    let bench = Bench::new();
    let first = bench.begin().unwrap();
    assert!(matches!(bench.begin(), Err(BeginError::Busy { .. })));
    assert!(matches!(
        Recovery::open(bench.scratch()),
        Err(RecoverError::Busy { .. })
    ));
    drop(first);
    bench.begin().unwrap();
}
