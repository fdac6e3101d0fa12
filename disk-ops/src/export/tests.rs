//! The pipeline on disks and outputs in memory: what it writes, and what it leaves when it fails.

use std::io;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ce_vhdx::VhdxReader;
use digest::Digest;
use proptest::prelude::*;

use super::stage::CHUNK;
use super::*;
use crate::block::{BlockError, MemoryDisk};
use crate::sink::SinkError;
use crate::units::{SectorSize, SectorSizes};

const MIB: u64 = 1 << 20;

/// Where an output in memory is kept for the test to look at.
#[derive(Clone, Debug, Default)]
struct Shelf(Arc<Mutex<ShelfState>>);

#[derive(Debug, Default)]
struct ShelfState {
    bytes: Vec<u8>,
    /// The checkpoint that was kept last.
    state: Option<Vec<u8>>,
    states: usize,
    discarded: bool,
    operations: usize,
    fail_at: Option<usize>,
    finished: bool,
    dropped: bool,
}

impl Shelf {
    fn failing_at(operation: usize) -> Self {
        let shelf = Self::default();
        shelf.0.lock().unwrap().fail_at = Some(operation);
        shelf
    }

    fn sink(&self) -> Box<dyn ByteSink> {
        Box::new(ShelfSink(self.clone()))
    }

    /// Nothing fails any more, and nothing has been dropped.
    fn mend(&self) {
        let mut state = self.0.lock().unwrap();
        state.fail_at = None;
        state.dropped = false;
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().bytes.clone()
    }

    fn operations(&self) -> usize {
        self.0.lock().unwrap().operations
    }

    fn is_finished(&self) -> bool {
        self.0.lock().unwrap().finished
    }

    fn is_dropped(&self) -> bool {
        self.0.lock().unwrap().dropped
    }

    /// One operation of the sink: counted, and failed if it is its turn.
    fn operate(&self, run: impl FnOnce(&mut ShelfState)) -> Result<(), SinkError> {
        let mut state = self.0.lock().unwrap();
        state.operations += 1;
        // What is cut off once stays so.
        if state.fail_at.is_some_and(|at| at < state.operations) {
            return Err(SinkError::Write {
                output: "shelf".into(),
                offset: ByteOffset::ZERO,
                length: ByteCount(0),
                source: io::ErrorKind::BrokenPipe.into(),
            });
        }
        run(&mut state);
        Ok(())
    }
}

struct ShelfSink(Shelf);

impl ByteSink for ShelfSink {
    fn name(&self) -> &str {
        "shelf"
    }

    fn write_at(&mut self, offset: ByteOffset, bytes: &[u8]) -> Result<(), SinkError> {
        let put = |state: &mut ShelfState, bytes: &[u8]| {
            let start = offset.0 as usize;
            let end = start + bytes.len();
            if state.bytes.len() < end {
                state.bytes.resize(end, 0);
            }
            state.bytes[start..end].copy_from_slice(bytes);
        };
        let written = self.0.operate(|state| put(state, bytes));
        if written.is_err() {
            // Part of a write that fails has happened.
            put(&mut self.0.0.lock().unwrap(), &bytes[..bytes.len() / 2]);
        }
        written
    }

    fn extend_with_zeros(
        &mut self,
        offset: ByteOffset,
        length: ByteCount,
    ) -> Result<(), SinkError> {
        self.0.operate(|state| {
            assert_eq!(
                offset.0,
                state.bytes.len() as u64,
                "zeros go to the end of the file"
            );
            state.bytes.resize((offset.0 + length.0) as usize, 0);
        })
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.0.operate(|_| {})
    }

    fn read_at(&mut self, offset: ByteOffset, buffer: &mut [u8]) -> Result<usize, SinkError> {
        let mut read = 0;
        self.0.operate(|state| {
            let there = state.bytes.get(offset.0 as usize..).unwrap_or_default();
            read = there.len().min(buffer.len());
            buffer[..read].copy_from_slice(&there[..read]);
        })?;
        Ok(read)
    }

    fn save_state(&mut self, saved: &[u8]) -> Result<(), SinkError> {
        self.0.operate(|state| {
            state.states += 1;
            state.state = Some(saved.to_vec());
        })
    }

    fn load_state(&mut self) -> Result<Option<Vec<u8>>, SinkError> {
        Ok(self.0.0.lock().unwrap().state.clone())
    }

    fn cut_to(&mut self, end: ByteOffset) -> Result<(), SinkError> {
        self.0.operate(|state| state.bytes.truncate(end.0 as usize))
    }

    fn discard(self: Box<Self>) {
        self.0.0.lock().unwrap().discarded = true;
    }

    fn finish(self: Box<Self>) -> Result<(), SinkError> {
        self.0.operate(|state| state.finished = true)
    }
}

impl Drop for ShelfSink {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().dropped = true;
    }
}

/// A disk with some bytes on it.
fn disk(size: u64, stretches: &[(u64, &[u8])]) -> MemoryDisk {
    let mut disk = MemoryDisk::new(ByteCount(size), SectorSizes::B512);
    for (offset, bytes) in stretches {
        disk.write(ByteOffset(*offset), bytes);
    }
    disk
}

/// A small disk whose export has data, zeros inside a block, and zeros between blocks.
fn small_disk() -> MemoryDisk {
    let noise = |seed| {
        (0..3 * MIB)
            .map(|i| (i * 31 % 251) as u8 ^ seed)
            .collect::<Vec<_>>()
    };
    let last = [7; 512];
    disk(
        24 * MIB + 512,
        &[(100, &noise(1)), (9 * MIB, &noise(2)), (24 * MIB, &last)],
    )
}

fn vhdx(mib: u32) -> ImageFormat {
    ImageFormat::Vhdx(BlockSize::from_bytes(mib << 20).unwrap())
}

fn export_to(
    shelf: &Shelf,
    disk: &MemoryDisk,
    format: ImageFormat,
    hash: bool,
) -> Result<ExportReport, ExportError> {
    let options = ExportOptions {
        format,
        hash,
        free_space: FreeSpace::Copy,
        checkpoints: None,
    };
    let (cancel, progress) = (Cancel::default(), Progress::default());
    let report = export(disk, shelf.sink(), &options, &cancel, &progress)?;
    assert_eq!(progress.done(), report.virtual_size);
    assert!(shelf.is_finished());
    Ok(report)
}

fn content_of(disk: &MemoryDisk) -> Vec<u8> {
    let mut bytes = vec![0; disk.size().0 as usize];
    disk.read_at(ByteOffset::ZERO, &mut bytes).unwrap();
    bytes
}

/// The disk that an independent reader, ours, finds in a VHDX.
fn content_of_vhdx(image: &[u8]) -> Vec<u8> {
    let reader = VhdxReader::open(image).unwrap();
    let mut bytes = vec![0xEE; reader.geometry().disk_size() as usize];
    reader
        .read_at(ce_vhdx::VirtualOffset(0), &mut bytes)
        .unwrap();
    bytes
}

/// The hash by the crate that ours is measured against.
fn reference_md5(bytes: &[u8]) -> Md5Digest {
    Md5Digest(::md5::Md5::digest(bytes).into())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn an_image_holds_the_disk_and_depends_on_nothing_else(
        sectors in 1u64..40_000,
        stretches in prop::collection::vec((any::<prop::sample::Index>(), 1usize..3_000_000, any::<u8>()), 0..6),
        mib in prop::sample::select(vec![1u32, 2, 4, 8]),
    ) {
        let size = sectors * 512;
        let mut sparse = MemoryDisk::new(ByteCount(size), SectorSizes::B512);
        for (at, length, fill) in &stretches {
            let start = at.index(size as usize);
            let length = (*length).min(size as usize - start);
            // Runs of zeros are among them, written ones.
            let bytes: Vec<u8> = (0..length).map(|i| fill.wrapping_mul((i >> 9) as u8)).collect();
            sparse.write(ByteOffset(start as u64), &bytes);
        }
        let content = content_of(&sparse);
        let dense = disk(size, &[(0, &content)]);

        let first = Shelf::default();
        let report = export_to(&first, &sparse, vhdx(mib), true).unwrap();
        prop_assert_eq!(report.md5, Some(reference_md5(&content)));
        prop_assert_eq!(report.virtual_size, ByteCount(size));
        prop_assert_eq!(report.file_size, ByteCount(first.bytes().len() as u64));
        prop_assert!(content_of_vhdx(&first.bytes()) == content, "the content differs");

        let second = Shelf::default();
        let report = export_to(&second, &dense, vhdx(mib), false).unwrap();
        prop_assert_eq!(report.md5, None);
        prop_assert!(first.bytes() == second.bytes(), "the file depends on more than the disk");
    }
}

#[test]
fn a_vhd_is_the_disk_rounded_up_to_a_mib_and_a_footer() {
    let source = small_disk();
    let shelf = Shelf::default();
    let report = export_to(&shelf, &source, ImageFormat::FixedVhd, true).unwrap();
    let mut content = content_of(&source);
    content.resize(25 << 20, 0);
    assert_eq!(report.virtual_size, ByteCount::mib(25));
    assert_eq!(report.md5, Some(reference_md5(&content)));
    let bytes = shelf.bytes();
    assert!(bytes[..25 << 20] == content);
    assert_eq!(bytes.len(), (25 << 20) + 512);
    assert_eq!(&bytes[25 << 20..][..8], b"conectix");
}

#[test]
fn a_disk_of_4096_byte_sectors_is_no_vhd() {
    let sectors = SectorSizes {
        logical: SectorSize::B4096,
        physical: SectorSize::B4096,
    };
    let source = MemoryDisk::new(ByteCount::mib(4), sectors);
    let shelf = Shelf::default();
    let error = export_to(&shelf, &source, ImageFormat::FixedVhd, false).unwrap_err();
    assert!(matches!(error, ExportError::Vhd { .. }), "{error:?}");
    assert!(shelf.is_dropped() && shelf.bytes().is_empty());
}

#[test]
fn holes_are_not_read() {
    let source = disk(1 << 40, &[(5 * MIB, b"data"), ((1 << 40) - 512, b"end")]);
    let shelf = Shelf::default();
    export_to(&shelf, &source, vhdx(2), false).unwrap();
    let counts = source.read_counts();
    assert!(counts.bytes <= 2 * CHUNK as u64, "{counts:?}");
}

#[test]
fn a_hash_covers_holes_and_data_alike() {
    let source = small_disk();
    let (cancel, progress) = (Cancel::default(), Progress::default());
    let md5 = hash(&source, &cancel, &progress).unwrap();
    assert_eq!(md5, reference_md5(&content_of(&source)));
    assert_eq!(progress.done(), source.size());
}

#[test]
fn whatever_operation_fails_nothing_is_taken_for_an_image() {
    for format in [vhdx(1), ImageFormat::FixedVhd] {
        let whole = Shelf::default();
        export_to(&whole, &small_disk(), format, true).unwrap();
        for operation in 0..whole.operations() {
            let shelf = Shelf::failing_at(operation);
            let error = export_to(&shelf, &small_disk(), format, true).unwrap_err();
            assert!(
                matches!(error, ExportError::Write(_)),
                "{operation}: {error:?}"
            );
            assert!(shelf.is_dropped() && !shelf.is_finished());
            // Cut before the head is written, the file is no VHDX; after that it is whole, and only
            // its name is missing.
            let bytes = shelf.bytes();
            let has_head = bytes.starts_with(b"vhdxfile");
            if format == vhdx(1) && bytes != whole.bytes() && !has_head {
                assert!(
                    VhdxReader::open(&bytes[..]).is_err(),
                    "cut at operation {operation}"
                );
            }
        }
    }
}

#[test]
fn a_read_error_ends_the_export_and_is_the_one_that_is_told() {
    for hash in [false, true] {
        let mut source = small_disk();
        source.fail_at(ByteOffset(10 * MIB), io::ErrorKind::TimedOut);
        let shelf = Shelf::default();
        match export_to(&shelf, &source, vhdx(2), hash).unwrap_err() {
            ExportError::Read(BlockError::Read { source, .. }) => {
                assert_eq!(source.kind(), io::ErrorKind::TimedOut);
            }
            other => panic!("{other:?}"),
        }
        assert!(shelf.is_dropped() && !shelf.is_finished());
        assert!(VhdxReader::open(&shelf.bytes()[..]).is_err());
    }
}

#[test]
fn of_two_errors_the_first_is_told() {
    let mut source = small_disk();
    // The write fails at once; the read would fail long after.
    source.delay_reads(Duration::from_millis(20));
    source.fail_at(ByteOffset(24 * MIB), io::ErrorKind::TimedOut);
    let error = export_to(&Shelf::failing_at(0), &source, vhdx(2), true).unwrap_err();
    assert!(matches!(error, ExportError::Write(_)), "{error:?}");
}

#[test]
fn a_cancel_is_noticed_at_any_moment() {
    for after in [0, 5, 20, 45] {
        let mut source = small_disk();
        source.delay_reads(Duration::from_millis(10));
        let shelf = Shelf::default();
        let (cancel, progress) = (Cancel::default(), Progress::default());
        let asked = cancel.clone();
        let canceller = thread::spawn(move || {
            thread::sleep(Duration::from_millis(after));
            asked.request();
        });
        let options = ExportOptions {
            format: vhdx(2),
            hash: true,
            free_space: FreeSpace::Copy,
            checkpoints: None,
        };
        let result = export(&source, shelf.sink(), &options, &cancel, &progress);
        canceller.join().unwrap();
        assert!(
            matches!(result, Err(ExportError::Cancelled)),
            "{after} ms: {result:?}"
        );
        assert!(shelf.is_dropped() && !shelf.is_finished());
    }
}

#[test]
fn a_cancel_does_not_wait_for_the_end_of_a_hole() {
    let source = disk(1 << 44, &[]);
    let cancel = Cancel::default();
    let asked = cancel.clone();
    let canceller = thread::spawn(move || {
        thread::sleep(Duration::from_millis(50));
        asked.request();
    });
    // 16 TiB take MD5 hours.
    let result = hash(&source, &cancel, &Progress::default());
    canceller.join().unwrap();
    assert!(matches!(result, Err(ExportError::Cancelled)), "{result:?}");
}

/// Checkpoints as often as there can be any.
const OFTEN: CheckpointInterval = CheckpointInterval {
    data: ByteCount(1),
    zeros: ByteCount::mib(4),
};

fn resumable(format: ImageFormat, hash: bool) -> ExportOptions {
    ExportOptions {
        format,
        hash,
        free_space: FreeSpace::Copy,
        checkpoints: Some(OFTEN),
    }
}

fn run_to_end(export: Export<'_>) -> Result<ExportReport, ExportError> {
    let (cancel, progress) = (Cancel::default(), Progress::default());
    export.run(&cancel, &progress)?.finish(&cancel)
}

/// As someone does who wants the image whatever has happened before; says where it began.
fn resume_or_begin(
    shelf: &Shelf,
    disk: &MemoryDisk,
    options: ExportOptions,
) -> (ByteOffset, Result<ExportReport, ExportError>) {
    let export = match Export::resume(disk, shelf.sink(), options) {
        Ok(export) => export,
        Err(ExportError::Resume {
            source: ResumeError::NoCheckpoint,
            ..
        }) => {
            shelf.0.lock().unwrap().bytes.clear();
            Export::begin(disk, shelf.sink(), options).ok().unwrap()
        }
        Err(error) => return (ByteOffset::ZERO, Err(error)),
    };
    (export.position(), run_to_end(export))
}

/// What stands against a resume, in words.
fn refusal(shelf: &Shelf, disk: &MemoryDisk, options: ExportOptions) -> ResumeError {
    match Export::resume(disk, shelf.sink(), options).err() {
        Some(ExportError::Resume { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

/// What is left of an export of the small disk that was cut in the middle.
fn cut_in_the_middle(options: ExportOptions) -> Shelf {
    let shelf = Shelf::failing_at(10);
    let export = Export::begin(&small_disk(), shelf.sink(), options).map(run_to_end);
    assert!(export.ok().unwrap().is_err());
    shelf.mend();
    shelf
}

#[test]
fn wherever_an_export_is_cut_it_is_resumed_to_the_same_image() {
    let disk = small_disk();
    for (format, hash) in [
        (vhdx(1), true),
        (vhdx(2), false),
        (vhdx(8), true),
        (ImageFormat::FixedVhd, true),
    ] {
        let options = resumable(format, hash);
        let whole = Shelf::default();
        let expected = export(
            &disk,
            whole.sink(),
            &options,
            &Cancel::default(),
            &Progress::default(),
        )
        .unwrap();
        let mut resumed = 0;
        for operation in 0..whole.operations() {
            let shelf = Shelf::failing_at(operation);
            let cut = run_to_end(Export::begin(&disk, shelf.sink(), options).ok().unwrap());
            assert!(
                matches!(cut, Err(ExportError::Write(_))),
                "{operation}: {cut:?}"
            );
            shelf.mend();
            let (start, report) = resume_or_begin(&shelf, &disk, options);
            assert_eq!(
                report.unwrap(),
                expected,
                "{format:?} cut at operation {operation}"
            );
            assert!(
                shelf.bytes() == whole.bytes() && shelf.is_finished(),
                "{format:?} cut at operation {operation}"
            );
            resumed += usize::from(start > ByteOffset::ZERO);
        }
        assert!(
            resumed > whole.operations() / 2,
            "{resumed} of {}",
            whole.operations()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn an_export_that_is_cut_again_and_again_ends_in_the_same_image(
        stretches in prop::collection::vec((0u64..60 * MIB, 1usize..9_000_000, any::<u8>()), 1..6),
        cuts in prop::collection::vec(1usize..30, 0..12),
        format in prop::sample::select(vec![vhdx(1), vhdx(4), vhdx(32), ImageFormat::FixedVhd]),
    ) {
        let mut source = MemoryDisk::new(ByteCount(60 * MIB + 1536), SectorSizes::B512);
        for (at, length, seed) in &stretches {
            let length = (*length).min((source.size().0 - at) as usize);
            let bytes: Vec<u8> = (0..length).map(|i| (i >> 7) as u8 ^ seed).collect();
            source.write(ByteOffset(*at), &bytes);
        }
        let options = resumable(format, true);
        let whole = Shelf::default();
        let (cancel, progress) = (Cancel::default(), Progress::default());
        let expected = export(&source, whole.sink(), &options, &cancel, &progress).unwrap();

        let shelf = Shelf::default();
        for more in cuts {
            let at = shelf.operations() + more;
            shelf.0.lock().unwrap().fail_at = Some(at);
            let (_, report) = resume_or_begin(&shelf, &source, options);
            if report.is_ok() {
                break;
            }
        }
        shelf.mend();
        if !shelf.is_finished() {
            let (_, report) = resume_or_begin(&shelf, &source, options);
            prop_assert_eq!(report.unwrap(), expected);
        }
        prop_assert!(shelf.bytes() == whole.bytes());
    }

    // The checksum is right, so everything behind it is looked at.
    #[test]
    fn whatever_a_checkpoint_says_a_resume_ends_in_an_image_or_a_refusal(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let options = resumable(vhdx(2), true);
        let shelf = cut_in_the_middle(options);
        {
            let mut state = shelf.0.lock().unwrap();
            let saved = state.state.as_mut().unwrap();
            saved.truncate(saved.len() - blake3::OUT_LEN);
            for (at, value) in changes {
                let at = at.index(saved.len());
                saved[at] = value;
            }
            saved.extend(blake3::hash(saved).as_bytes().as_slice());
        }
        match resume_or_begin(&shelf, &small_disk(), options).1 {
            Ok(report) => prop_assert_eq!(report.virtual_size, small_disk().size()),
            Err(ExportError::Resume { .. }) => {}
            Err(other) => prop_assert!(false, "{:?}", other),
        }
    }
}

#[test]
fn a_disk_that_has_changed_is_not_gone_on_with() {
    let options = resumable(vhdx(2), true);
    let shelf = cut_in_the_middle(options);
    let before = shelf.bytes();
    let mut changed = small_disk();
    changed.write(ByteOffset(24 * MIB), b"else");
    let error = refusal(&shelf, &changed, options);
    assert!(
        matches!(error, ResumeError::SourceChanged { .. }),
        "{error}"
    );
    assert!(shelf.bytes() == before, "what was there is still there");
    assert_eq!(
        resume_or_begin(&shelf, &small_disk(), options)
            .1
            .ok()
            .map(|_| ()),
        Some(())
    );
}

#[test]
fn other_options_are_refused_by_name() {
    let options = resumable(vhdx(2), true);
    let shelf = cut_in_the_middle(options);
    for (other, said) in [
        (
            resumable(vhdx(32), true),
            "block size 2.0 MiB, now 32.0 MiB",
        ),
        (resumable(vhdx(2), false), "hash wanted, now not wanted"),
        (
            resumable(ImageFormat::FixedVhd, true),
            "format VHDX, now VHD",
        ),
    ] {
        let error = refusal(&shelf, &small_disk(), other).to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_tail_that_was_lost_is_not_trusted() {
    let options = resumable(vhdx(2), true);
    let whole = Shelf::default();
    let (cancel, progress) = (Cancel::default(), Progress::default());
    export(&small_disk(), whole.sink(), &options, &cancel, &progress).unwrap();
    let checkpoint = |shelf: &Shelf| {
        let state = shelf.0.lock().unwrap().state.clone();
        Checkpoint::parse(&state.unwrap()).unwrap()
    };
    let last = checkpoint(&whole);
    assert!(last.image.end > 8 * MIB, "{last:?}");
    type Damage = fn(&mut Vec<u8>, usize);
    let damages: [Damage; 3] = [
        |bytes, end| bytes[end - 1] ^= 1,
        |bytes, end| bytes.truncate(end - 1),
        |bytes, end| bytes[end - 4096..end].fill(0),
    ];
    for damage in damages {
        let shelf = Shelf::default();
        {
            let mut state = shelf.0.lock().unwrap();
            state.state = whole.0.lock().unwrap().state.clone();
            state.bytes = whole.bytes();
            damage(&mut state.bytes, last.image.end as usize);
        }
        let error = refusal(&shelf, &small_disk(), options);
        assert!(matches!(error, ResumeError::TailDiffers { .. }), "{error}");
    }
}

#[test]
fn a_damaged_checkpoint_is_refused() {
    let options = resumable(vhdx(2), true);
    let shelf = cut_in_the_middle(options);
    shelf.0.lock().unwrap().state.as_mut().unwrap()[100] ^= 1;
    let error = refusal(&shelf, &small_disk(), options);
    let damaged = matches!(error, ResumeError::Checkpoint(CheckpointError::Damaged));
    assert!(damaged, "{error}");
}

#[test]
fn an_empty_disk_has_few_checkpoints() {
    let source = disk(1 << 41, &[]);
    let shelf = Shelf::default();
    let options = ExportOptions {
        format: vhdx(32),
        hash: false,
        free_space: FreeSpace::Copy,
        checkpoints: Some(CheckpointInterval::default()),
    };
    export(
        &source,
        shelf.sink(),
        &options,
        &Cancel::default(),
        &Progress::default(),
    )
    .unwrap();
    let states = shelf.0.lock().unwrap().states;
    assert!((16..=32).contains(&states), "{states} for 2 TiB");
}

#[test]
fn an_image_that_is_read_back_is_what_was_written_or_is_discarded() {
    let (cancel, progress) = (Cancel::default(), Progress::default());
    for (format, hash) in [
        (vhdx(1), true),
        (vhdx(4), false),
        (ImageFormat::FixedVhd, true),
        (ImageFormat::FixedVhd, false),
    ] {
        let written = |shelf: &Shelf| {
            let options = resumable(format, hash);
            let source = small_disk();
            let export = Export::begin(&source, shelf.sink(), options).ok().unwrap();
            export.run(&cancel, &progress).ok().unwrap()
        };
        let shelf = Shelf::default();
        let whole = written(&shelf)
            .verify(&cancel, &Progress::default())
            .ok()
            .unwrap();
        whole.finish(&cancel).unwrap();

        let payload = if format == ImageFormat::FixedVhd {
            100
        } else {
            (4 << 20) + 100
        };
        for at in [payload, shelf.bytes().len() / 2] {
            let shelf = Shelf::default();
            let written = written(&shelf);
            shelf.0.lock().unwrap().bytes[at] ^= 0x20;
            let error = written.verify(&cancel, &Progress::default()).err().unwrap();
            assert!(matches!(error, ExportError::Verify { .. }), "{at}: {error}");
            assert!(shelf.0.lock().unwrap().discarded);
        }
    }
}

#[test]
fn a_damaged_table_is_found_by_reading_back() {
    let (cancel, progress) = (Cancel::default(), Progress::default());
    let shelf = Shelf::default();
    let source = small_disk();
    let export = Export::begin(&source, shelf.sink(), resumable(vhdx(2), false));
    let written = export.ok().unwrap().run(&cancel, &progress).ok().unwrap();
    // The second entry of the block allocation table now says what the first does.
    let first = shelf.bytes()[3 << 20..][..8].to_vec();
    shelf.0.lock().unwrap().bytes[(3 << 20) + 8..][..8].copy_from_slice(&first);
    let error = written.verify(&cancel, &progress).err().unwrap();
    assert!(error.to_string().contains("cannot be read"), "{error}");
}

#[test]
fn a_failure_to_read_back_is_no_difference() {
    let (cancel, progress) = (Cancel::default(), Progress::default());
    let shelf = Shelf::default();
    let source = small_disk();
    let export = Export::begin(&source, shelf.sink(), resumable(vhdx(2), true));
    let written = export.ok().unwrap().run(&cancel, &progress).ok().unwrap();
    let at = shelf.operations() + 3;
    shelf.0.lock().unwrap().fail_at = Some(at);
    let error = written.verify(&cancel, &progress).err().unwrap();
    assert!(matches!(error, ExportError::Write(_)), "{error}");
    assert!(!shelf.0.lock().unwrap().discarded);
}
