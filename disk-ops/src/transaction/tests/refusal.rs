//! What a recovery and a new transaction refuse, and that they leave the disk alone then.

use super::*;

impl Bench {
    /// Recovers, and makes sure that a refusal has not changed the disk.
    fn refusal(&self, trust: Trust) -> RecoverError {
        let before = self.content();
        let recovery = Recovery::open(self.scratch()).unwrap();
        let journal = recovery.journals().unwrap().remove(0);
        let (cancel, progress) = (Cancel::default(), Progress::default());
        let error = recovery
            .finish(&journal, &self.disk, trust, &cancel, &progress)
            .unwrap_err();
        assert_eq!(self.content(), before, "a refusal has written: {error}");
        assert_eq!(self.journals().len(), 1);
        error
    }

    /// The same scratch, and another disk.
    fn with_disk(self, size: usize, sectors: SectorSizes, node: Option<&str>) -> Self {
        let content = self.content();
        let mut disk = MemoryDisk::new(ByteCount(size as u64), sectors);
        disk = disk.with_identity(DiskIdentity {
            node: node.map(str::to_owned),
            ..identity("")
        });
        disk.write(ByteOffset::ZERO, &content[..size.min(content.len())]);
        Self { disk, ..self }
    }
}

#[test]
fn a_sector_that_is_neither_old_nor_new_is_never_overwritten() {
    let mut bench = Bench::cut_in_the_middle();
    bench
        .disk
        .write(ByteOffset(10 * 4096 + 1024), b"somebody else");
    let error = bench.refusal(Trust::Named);
    let RecoverError::Foreign {
        foreign,
        first,
        old,
        new,
        ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!((*foreign, *first), (1, ByteOffset(10 * 4096 + 1024)));
    assert_eq!(foreign + old + new, 5 * 8);
    assert!(error.to_string().contains("0xa400"), "{error}");
}

#[test]
fn a_disk_that_was_used_elsewhere_meanwhile_is_refused() {
    let mut bench = Bench::cut_in_the_middle();
    bench
        .disk
        .write(ByteOffset(512), b"another partition table");
    let error = bench.refusal(Trust::Named);
    assert!(matches!(error, RecoverError::Touched { .. }), "{error}");
}

#[test]
fn a_part_that_is_watched_tells_of_other_users() {
    // Large enough for the ends not to meet.
    let size = 8 << 20;
    let faults = Faults::default();
    let mut disk = MemoryDisk::new(ByteCount(size), SectorSizes::B512).with_faults(faults.clone());
    disk.write(ByteOffset(3 << 20), &[7; 8192]);
    let scratch: Arc<dyn Scratch> = Arc::new(MemoryScratch::new(faults.clone()));
    let mut transaction = Transaction::begin(&disk, Arc::clone(&scratch), None).unwrap();
    transaction.watch(ByteOffset(3 << 20), ByteCount(8192));
    // Too far, too long and too many are cut off.
    transaction.watch(ByteOffset(u64::MAX), ByteCount(1));
    transaction.watch(ByteOffset(size - 10), ByteCount(u64::MAX));
    for _ in 0..100 {
        transaction.watch(ByteOffset(4 << 20), ByteCount(512));
    }
    // What the transaction changes in a watched part itself does not count.
    transaction
        .disk()
        .write_at(ByteOffset((3 << 20) + 4096), &[9; 4096])
        .unwrap();
    // Journal: made, header, extent, sync, name; two seals with a sync each; then the disk.
    let number = faults.operations() + 9;
    let after_sectors = 1;
    faults.fail_operation(number, Failure::PowerCut { after_sectors });
    let error = transaction
        .commit(&Cancel::default(), &Progress::default())
        .unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unfinished, "{error}");
    faults.clear();
    let finish = |disk: &MemoryDisk| {
        let (cancel, progress) = (Cancel::default(), Progress::default());
        let recovery = Recovery::open(Arc::clone(&scratch)).unwrap();
        let journal = recovery.journals().unwrap().remove(0);
        recovery.finish(&journal, disk, Trust::Found, &cancel, &progress)
    };
    disk.write(ByteOffset(3 << 20), &[8]);
    let error = finish(&disk).unwrap_err();
    assert!(matches!(error, RecoverError::Touched { .. }), "{error}");
    disk.write(ByteOffset(3 << 20), &[7]);
    finish(&disk).unwrap();
}

#[test]
fn a_disk_of_another_size_or_sector_size_is_refused_whoever_names_it() {
    let other_sectors = SectorSizes {
        logical: SectorSize::B4096,
        physical: SectorSize::B4096,
    };
    for (size, sectors, text) in [
        (SIZE + 512, SectorSizes::B512, "102912 bytes"),
        (SIZE, other_sectors, "4096 bytes, expected 512"),
    ] {
        let bench = Bench::cut_in_the_middle().with_disk(size, sectors, Some("serial:1"));
        let recovery = Recovery::open(bench.scratch()).unwrap();
        let journal = recovery.journals().unwrap().remove(0);
        let (cancel, progress) = (Cancel::default(), Progress::default());
        let error = recovery
            .finish(&journal, &bench.disk, Trust::Named, &cancel, &progress)
            .unwrap_err();
        assert!(matches!(error, RecoverError::OtherDisk { .. }), "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn a_disk_of_another_name_is_refused_unless_its_user_names_it() {
    let bench = Bench::cut_in_the_middle().with_disk(SIZE, SectorSizes::B512, Some("serial:2"));
    let error = bench.refusal(Trust::Found);
    let text = error.to_string();
    assert!(text.contains("serial:2, expected serial:1"), "{text}");
    let recovery = Recovery::open(bench.scratch()).unwrap();
    let journal = recovery.journals().unwrap().remove(0);
    let (cancel, progress) = (Cancel::default(), Progress::default());
    recovery
        .finish(&journal, &bench.disk, Trust::Named, &cancel, &progress)
        .unwrap();
    assert_eq!(bench.content(), new_content());
}

#[test]
fn a_cancel_stops_a_recovery_before_it_writes() {
    let bench = Bench::cut_in_the_middle();
    let before = bench.content();
    let recovery = Recovery::open(bench.scratch()).unwrap();
    let journal = recovery.journals().unwrap().remove(0);
    let cancel = Cancel::default();
    cancel.request();
    let error = recovery
        .finish(
            &journal,
            &bench.disk,
            Trust::Found,
            &cancel,
            &Progress::default(),
        )
        .unwrap_err();
    assert!(matches!(error, RecoverError::Cancelled));
    assert_eq!(bench.content(), before);
}

#[test]
fn a_disk_with_an_unfinished_commit_begins_no_transaction() {
    let bench = Bench::cut_in_the_middle();
    let error = bench.begin().unwrap_err();
    assert!(matches!(error, BeginError::Unfinished { .. }), "{error}");
    // Of another name, it is another disk even in the same place; without one, it may be the same.
    for (node, refused) in [
        (Some("serial:2"), false),
        (None, true),
        (Some("inode:7"), true),
    ] {
        let bench = Bench::cut_in_the_middle().with_disk(SIZE, SectorSizes::B512, node);
        assert_eq!(bench.begin().is_err(), refused, "{node:?}");
        assert_eq!(bench.journals().len(), 1);
    }
    // A sealed journal is not for discarding.
    let recovery = Recovery::open(bench.scratch()).unwrap();
    let journal = recovery.journals().unwrap().remove(0);
    assert!(!recovery.discard(&journal).unwrap());
}

#[test]
fn any_wrong_byte_of_a_sealed_journal_is_found_before_the_disk_is_touched() {
    let bench = Bench::cut_in_the_middle();
    let name = bench.journals().remove(0);
    let bytes = bench.scratch.content(&name).unwrap();
    let before = bench.content();
    let mut finished = 0;
    let mut refused = 0;
    // All of what steers, and every now and then a byte of the content.
    let steers = |at: &usize| at.is_multiple_of(509) || at % 4096 < 180 || at + 512 > bytes.len();
    for at in (0..bytes.len()).filter(steers) {
        let mut wrong = bytes.clone();
        wrong[at] ^= 0x41;
        bench.scratch.put(&name, &wrong);
        let recovery = Recovery::open(bench.scratch()).unwrap();
        let journal = recovery.journals().unwrap().remove(0);
        assert!(
            !recovery.discard(&journal).unwrap(),
            "byte {at}: a sealed journal was thrown away"
        );
        let (cancel, progress) = (Cancel::default(), Progress::default());
        match recovery.finish(&journal, &bench.disk, Trust::Found, &cancel, &progress) {
            // One seal is enough, and what is between them does not count.
            Ok(_) => {
                assert_eq!(bench.content(), new_content(), "byte {at}");
                finished += 1;
                bench.disk.write_at(ByteOffset::ZERO, &before).unwrap();
            }
            Err(RecoverError::Damaged { .. }) => {
                assert_eq!(bench.content(), before, "byte {at}");
                drop((journal, recovery));
                assert!(bench.begin().is_err(), "byte {at}: a transaction begins");
                refused += 1;
            }
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
    assert!(finished > 100 && refused > 500, "{finished} {refused}");
}

#[test]
fn a_sealed_journal_that_is_cut_off_is_kept_and_refused() {
    let bench = Bench::cut_in_the_middle();
    let name = bench.journals().remove(0);
    let bytes = bench.scratch.content(&name).unwrap();
    let before = bench.content();
    // With the first seal there, what is missing is missed, up to the second seal.
    for length in [8704, 9000, 12_288, 12_300, 20_000, 30_000] {
        bench.scratch.put(&name, &bytes[..length]);
        let error = bench.refusal(Trust::Found);
        assert!(matches!(error, RecoverError::Damaged { .. }), "{error}");
        assert_eq!(bench.content(), before);
    }
    bench.scratch.put(&name, &bytes[..bytes.len() - 1]);
    bench.recover().unwrap();
    assert_eq!(bench.content(), new_content());
}

#[test]
fn journals_that_do_not_count_are_removed_by_the_next_transaction() {
    let bench = Bench::new();
    for (name, bytes) in [
        ("a.journal", &b""[..]),
        ("b.journal", b"ce-redo1"),
        ("c.journal", &[0; 30_000]),
    ] {
        bench.scratch.put(name, bytes);
    }
    bench.scratch.put("another file", b"stays");
    bench.begin().unwrap();
    assert_eq!(bench.scratch.names().unwrap(), ["another file"]);
    bench.commit().unwrap();
}
