//! The pipeline on disks and outputs in memory: what it writes, and what it leaves when it fails.

use std::io;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ce_vhdx::VhdxReader;
use digest::Digest;
use proptest::prelude::*;

use super::*;
use crate::block::MemoryDisk;
use crate::units::{SectorSize, SectorSizes};

const MIB: u64 = 1 << 20;

/// Where an output in memory is kept for the test to look at.
#[derive(Clone, Debug, Default)]
struct Shelf(Arc<Mutex<ShelfState>>);

#[derive(Debug, Default)]
struct ShelfState {
    bytes: Vec<u8>,
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
        if state.fail_at == Some(state.operations - 1) {
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
        self.0.operate(|state| {
            let start = offset.0 as usize;
            let end = start + bytes.len();
            if state.bytes.len() < end {
                state.bytes.resize(end, 0);
            }
            state.bytes[start..end].copy_from_slice(bytes);
        })
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
    let options = ExportOptions { format, hash };
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
            if format == vhdx(1) && bytes != whole.bytes() {
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
