//! What the writers write is what the readers read, whatever the disk and the way it was read.

use ce_vhdx::{
    BlockSize, ClosingStep, Extent, Geometry, ImageKind, OpenError, SectorSize, VhdReader,
    VhdxReader, VhdxWriter, VirtualOffset, is_zero,
};
use proptest::prelude::*;

mod support;

use support::{Disk, MIB, noise};

fn disk(disk_size: u64, sector: SectorSize, block: BlockSize, extents: &[(u64, usize)]) -> Disk {
    let geometry = Geometry::new(disk_size, sector, SectorSize::B4096, block).expect("valid");
    let mut disk = Disk {
        geometry,
        extents: Vec::new(),
    };
    let mut next = 0;
    for (offset, length) in extents {
        let start = (next + offset).min(disk_size);
        let length = (*length as u64).min(disk_size - start) as usize;
        disk.extents.push((start, noise(start ^ disk_size, length)));
        next = start + length as u64;
    }
    disk
}

/// A disk of up to 12 MiB with some noise on it, between which there are zeros.
fn any_disk() -> impl Strategy<Value = Disk> {
    let sector = prop_oneof![Just(SectorSize::B512), Just(SectorSize::B4096)];
    let block = (0..3_u32).prop_map(|n| BlockSize::from_bytes(1 << (20 + n)).expect("a size"));
    let extents = prop::collection::vec((0..3 * MIB, 0..300_000_usize), 0..6);
    (1..3000_u64, sector, block, extents).prop_map(|(sectors, sector, block, extents)| {
        let sectors = if sector == SectorSize::B512 {
            sectors * 8 - 5
        } else {
            sectors
        };
        disk(sectors * sector.bytes(), sector, block, &extents)
    })
}

/// All extents of an image, joined to the bytes they stand for.
fn read_by_extents(reader: &VhdxReader<&[u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < reader.geometry().disk_size() {
        let at = VirtualOffset(bytes.len() as u64);
        let extent = reader.extent_at(at).expect("an extent");
        assert!(extent.length() > 0);
        let mut run = vec![0; extent.length() as usize];
        if let Extent::Data { .. } = extent {
            reader.read_at(at, &mut run).expect("readable");
        }
        bytes.extend(run);
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_vhdx_reads_as_the_disk_it_was_written_from(disk in any_disk()) {
        let mut file = Vec::new();
        disk.write_vhdx(MIB, &mut file);
        let reader = VhdxReader::open(file.as_slice()).expect("our own file");
        prop_assert_eq!(reader.geometry(), &disk.geometry);
        let expected = disk.read(0, disk.geometry.disk_size() as usize);
        prop_assert!(read_by_extents(&reader) == expected);
        let mut whole = vec![0xAA; expected.len()];
        reader.read_at(VirtualOffset(0), &mut whole).expect("readable");
        prop_assert!(whole == expected);
    }

    #[test]
    fn the_size_of_the_chunks_makes_no_difference(
        disk in any_disk(),
        chunk in prop_oneof![Just(4096), Just(65536), 1000..200_000_u64],
    ) {
        let (mut by_mib, mut by_chunk) = (Vec::new(), Vec::new());
        disk.write_vhdx(MIB, &mut by_mib);
        disk.write_vhdx(chunk, &mut by_chunk);
        prop_assert!(by_mib == by_chunk);
    }

    #[test]
    fn an_export_that_was_interrupted_ends_as_if_it_had_not(
        disk in any_disk(),
        interrupted_at in 0..20_usize,
    ) {
        let mut whole = Vec::new();
        disk.write_vhdx(MIB, &mut whole);
        let mut file = Vec::new();
        let mut writer = VhdxWriter::new(disk.geometry);
        let mut count = 0;
        disk.chunks(MIB, |offset, bytes| {
            if count == interrupted_at {
                writer = VhdxWriter::restore(disk.geometry, &writer.save()).expect("as saved");
            }
            count += 1;
            let at = writer.place(VirtualOffset(offset), bytes.len() as u64).expect("ascending");
            support::WriteAt::write(&mut file, at.0, bytes);
        });
        support::WriteAt::grow(&mut file, writer.file_length().0);
        for step in writer.finish(disk.content()) {
            if let ClosingStep::Write { offset, bytes } = step {
                support::WriteAt::write(&mut file, offset.0, &bytes);
            }
        }
        prop_assert!(file == whole);
    }

    #[test]
    fn a_fixed_vhd_reads_as_the_disk_and_zeros_up_to_a_whole_mib(disk in any_disk()) {
        prop_assume!(disk.geometry.logical_sector() == SectorSize::B512);
        let mut file = Vec::new();
        disk.write_vhd(&mut file);
        let reader = VhdReader::open(file.as_slice()).expect("our own file");
        let disk_size = disk.geometry.disk_size();
        prop_assert_eq!(reader.disk_size(), disk_size.next_multiple_of(MIB));
        let mut found = vec![0xAA; reader.disk_size() as usize];
        reader.read_at(VirtualOffset(0), &mut found).expect("readable");
        let (content, padding) = found.split_at(disk_size as usize);
        prop_assert!(content == disk.read(0, disk_size as usize));
        prop_assert!(is_zero(padding));
    }

    #[test]
    fn damage_anywhere_is_an_error_or_harmless_but_never_a_panic(
        at in prop_oneof![
            0..700_u64, 65536..65620_u64, 131_072..131_156_u64, 196_608..196_700_u64,
            2 * MIB..2 * MIB + 200, 2 * MIB + 65536..2 * MIB + 65580, 3 * MIB..3 * MIB + 60,
        ],
        value in any::<u8>(),
        cut in prop::option::of(0..12 * MIB),
    ) {
        let disk = disk(7 * MIB, SectorSize::B512, BlockSize::DEFAULT, &[(MIB, 9000), (MIB, 9000)]);
        let mut file = Vec::new();
        disk.write_vhdx(MIB, &mut file);
        file[at as usize] = value;
        file.truncate(cut.map_or(file.len(), |cut| cut as usize));
        if let Ok(reader) = VhdxReader::open(file.as_slice()) {
            let length = reader.geometry().disk_size().min(MIB) as usize;
            let mut start = vec![0; length];
            reader.read_at(VirtualOffset(0), &mut start).expect("a checked table");
        }
    }
}

#[test]
fn a_file_that_was_cut_off_before_its_last_write_is_no_vhdx() {
    let disk = disk(
        40 * MIB,
        SectorSize::B512,
        BlockSize::DEFAULT,
        &[(MIB, 500_000), (9 * MIB, 7)],
    );
    let mut file = Vec::new();
    let closing: Vec<ClosingStep> = disk
        .write_payload(MIB, &mut file)
        .finish(disk.content())
        .collect();
    let writes: Vec<_> = closing
        .into_iter()
        .filter_map(|step| match step {
            ClosingStep::Write { offset, bytes } => Some((offset.0, bytes)),
            ClosingStep::Flush => None,
        })
        .collect();
    for (offset, bytes) in writes {
        let refusal = VhdxReader::open(file.as_slice());
        assert!(
            matches!(refusal, Err(OpenError::NotVhdx)),
            "before {offset:#x}: {refusal:?}"
        );
        assert_eq!(ImageKind::of(&file[..8], &file[file.len() - 512..]), None);
        support::WriteAt::write(&mut file, offset, &bytes);
    }
    VhdxReader::open(file.as_slice()).expect("the whole file");
}

/// A change here breaks the promise that one disk gives one file, also between releases.
#[test]
fn the_canonical_file_is_what_it_has_always_been() {
    let extents = [(0, 512), (3 * MIB, 2_500_000), (5 * MIB, 1)];
    let disk = disk(
        20 * MIB + 1536,
        SectorSize::B512,
        BlockSize::DEFAULT,
        &extents,
    );
    let (mut vhdx, mut vhd) = (Vec::new(), Vec::new());
    disk.write_vhdx(MIB, &mut vhdx);
    disk.write_vhd(&mut vhd);
    assert_eq!(vhdx.len(), 12 << 20);
    assert_eq!(blake3::hash(&vhdx).to_hex().as_str(), GOLDEN_VHDX);
    assert_eq!(blake3::hash(&vhd).to_hex().as_str(), GOLDEN_VHD);
}

const GOLDEN_VHDX: &str = "10317a03ccb05e9a1df9f2525d2958aaac336ba3dc552c2bf3b9053081f53f0f";
const GOLDEN_VHD: &str = "d25529de206c994c81a7ed957627b09c581562003638cff453749ddf69ecf5d3";
