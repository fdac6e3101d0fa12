//! What other implementations make of our files: qemu-img, libvhdi and vhdx-core.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use ce_vhdx::{BlockSize, Geometry, SectorSize};
use tempfile::TempDir;

mod support;
#[path = "support/tool.rs"]
mod tool;

use support::{Disk, MIB, WriteAt, noise};
use tool::run;

const GIB: u64 = 1 << 30;

/// A disk with data at `places`, each as long as the disk allows and at most 5000 bytes.
fn disk(disk_size: u64, sector: SectorSize, places: &[u64]) -> Disk {
    let geometry = Geometry::new(disk_size, sector, SectorSize::B4096, BlockSize::DEFAULT);
    let extent = |place: &u64| {
        (
            *place,
            noise(*place, (disk_size - place).min(5000) as usize),
        )
    };
    Disk {
        geometry: geometry.expect("a valid geometry"),
        extents: places.iter().map(extent).collect(),
    }
}

/// The disks on which writers have gone wrong: one sector, odd sizes, none but zeros, a last
/// block that is cut by the end of the disk, more than one chunk (4 GiB).
fn disks() -> Vec<(&'static str, Disk)> {
    let b512 = SectorSize::B512;
    vec![
        ("one sector", disk(512, b512, &[0])),
        (
            "odd number of sectors",
            disk(10 * MIB + 3 * 512, b512, &[0, 3 * MIB - 100, 10 * MIB]),
        ),
        ("all zero", disk(100 * MIB, b512, &[])),
        ("partial last block", disk(7 * MIB, b512, &[7 * MIB - 5000])),
        (
            "more than a chunk",
            disk(
                4 * GIB + 5 * MIB + 1536,
                b512,
                &[0, 4 * GIB - 2500, 4 * GIB + 5 * MIB],
            ),
        ),
    ]
}

fn path(folder: &TempDir, name: &str) -> String {
    folder
        .path()
        .join(name)
        .to_str()
        .expect("a path in ASCII")
        .to_owned()
}

fn create(path: &str) -> File {
    File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .expect("a new file")
}

/// Writes `disk` as a raw file and as a VHDX.
fn write(folder: &TempDir, disk: &Disk) -> (String, String) {
    let (raw, vhdx) = (path(folder, "disk.raw"), path(folder, "disk.vhdx"));
    let mut file = create(&raw);
    file.grow(disk.geometry.disk_size());
    for (offset, bytes) in &disk.extents {
        file.write(*offset, bytes);
    }
    disk.write_vhdx(MIB, &mut create(&vhdx));
    (raw, vhdx)
}

#[test]
fn qemu_finds_no_fault_and_the_same_bytes() {
    for (what, disk) in disks() {
        let folder = tempfile::tempdir().expect("a folder");
        let (raw, vhdx) = write(&folder, &disk);
        let check = run("qemu-utils", "qemu-img", &["check", "-f", "vhdx", &vhdx]);
        assert!(check.contains("No errors"), "{what}: {check}");
        for (start, length) in places_of_interest(&disk) {
            let part = format!("driver=raw,offset={start},size={length}");
            let raw = format!("{part},file.driver=file,file.filename={raw}");
            let vhdx =
                format!("{part},file.driver=vhdx,file.file.driver=file,file.file.filename={vhdx}");
            let same = run(
                "qemu-utils",
                "qemu-img",
                &["compare", "--image-opts", &raw, &vhdx],
            );
            assert!(same.contains("identical"), "{what}: {same}");
        }
    }
}

/// Where `disk` is compared (offset and length): all of it unless it is large, else around its
/// data. qemu takes its time for the zeros in a VHDX; another test reads all of them.
fn places_of_interest(disk: &Disk) -> Vec<(u64, u64)> {
    let disk_size = disk.geometry.disk_size();
    if disk_size <= GIB {
        return vec![(0, disk_size)];
    }
    let around = disk.extents.iter().map(|(start, _)| {
        let start = start.saturating_sub(16 * MIB) / MIB * MIB;
        (start, (disk_size - start).min(32 * MIB))
    });
    around.collect()
}

#[test]
fn vhdx_core_reads_the_same_bytes() {
    let block = |mib: u32, disk: Disk| {
        let g = disk.geometry;
        let block = BlockSize::from_bytes(mib << 20).expect("a block size");
        let geometry = Geometry::new(
            g.disk_size(),
            g.logical_sector(),
            g.physical_sector(),
            block,
        );
        Disk {
            geometry: geometry.expect("a valid geometry"),
            ..disk
        }
    };
    let places = [0, 30 * MIB, 64 * MIB];
    let four_k = disk(64 * MIB + 4096, SectorSize::B4096, &places);
    let odd = disk(64 * MIB + 512, SectorSize::B512, &places);
    let more = [
        ("4096-byte sectors", four_k.clone()),
        ("4096-byte sectors, blocks of 32 MiB", block(32, four_k)),
        ("blocks of 1 MiB", block(1, odd.clone())),
        ("blocks of 256 MiB", block(256, odd)),
    ];
    for (what, disk) in disks().into_iter().chain(more) {
        let folder = tempfile::tempdir().expect("a folder");
        let (_, path) = write(&folder, &disk);
        let mut reader = vhdx::VhdxReader::open(Path::new(&path))
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(reader.virtual_disk_size(), disk.geometry.disk_size());
        let mut found = vec![0; 4 * MIB as usize];
        for start in (0..disk.geometry.disk_size()).step_by(found.len()) {
            let length = (disk.geometry.disk_size() - start).min(4 * MIB) as usize;
            let found = &mut found[..length];
            reader.read_exact(found).expect("readable");
            assert!(found == disk.read(start, length), "{what}: at {start:#x}");
        }
    }
}

#[test]
fn qemu_finds_no_fault_in_a_disk_of_3_tib() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_, vhdx) = write(
        &folder,
        &disk(3 << 40, SectorSize::B512, &[0, 5 * GIB, (3 << 40) - 5000]),
    );
    let check = run("qemu-utils", "qemu-img", &["check", "-f", "vhdx", &vhdx]);
    assert!(check.contains("No errors"), "{check}");
}

#[test]
fn qemu_reads_a_fixed_vhd_as_the_disk_padded_to_a_whole_mib() {
    for (what, disk) in disks() {
        let folder = tempfile::tempdir().expect("a folder");
        let (raw, _) = write(&folder, &disk);
        let vhd = path(&folder, "disk.vhd");
        disk.write_vhd(&mut create(&vhd));
        let padded = disk.geometry.disk_size().next_multiple_of(MIB);
        File::options()
            .write(true)
            .open(&raw)
            .expect("the raw file")
            .grow(padded);
        let same = run(
            "qemu-utils",
            "qemu-img",
            &["compare", "-f", "raw", "-F", "vpc", &raw, &vhd],
        );
        assert!(same.contains("identical"), "{what}: {same}");
    }
}

/// Prints the media size, then whether every extent given as `offset:hex` is there.
const LIBVHDI: &str = "\
import sys, pyvhdi
disk = pyvhdi.file()
disk.open(sys.argv[1])
print(disk.get_media_size())
for extent in sys.argv[2:]:
    offset, data = extent.split(':')
    disk.seek_offset(int(offset), 0)
    data = bytes.fromhex(data)
    assert disk.read_buffer(len(data)) == data, offset
";

fn libvhdi(what: &str, file: &str, disk: &Disk, disk_size: u64) {
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    // The extents themselves, and what is around them.
    let places = disk.extents.iter().flat_map(|(start, bytes)| {
        let length = bytes.len() as u64;
        [start.saturating_sub(700), start + length - length.min(700)]
    });
    let extents = places.chain([0]).map(|place| {
        let length = (disk.geometry.disk_size() - place).min(1400) as usize;
        format!("{place}:{}", hex(&disk.read(place, length)))
    });
    let arguments: Vec<String> = ["-c", LIBVHDI, file]
        .map(str::to_owned)
        .into_iter()
        .chain(extents)
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    assert!(
        Path::new("/usr/lib/python3/dist-packages")
            .read_dir()
            .is_ok_and(|mut folder| folder
                .any(|entry| entry
                    .is_ok_and(|e| e.file_name().to_string_lossy().starts_with("pyvhdi")))),
        "pyvhdi is not there: install the Debian package python3-libvhdi"
    );
    let size = run("python3-libvhdi", "/usr/bin/python3", &arguments);
    assert_eq!(size.trim(), disk_size.to_string(), "{what}");
}

#[test]
fn libvhdi_reads_the_same_bytes() {
    let four_k = disk(64 * MIB + 4096, SectorSize::B4096, &[0, 30 * MIB, 64 * MIB]);
    for (what, disk) in disks().into_iter().chain([("4096-byte sectors", four_k)]) {
        let folder = tempfile::tempdir().expect("a folder");
        let (_, vhdx) = write(&folder, &disk);
        libvhdi(what, &vhdx, &disk, disk.geometry.disk_size());
        if disk.geometry.logical_sector() == SectorSize::B512 {
            let vhd = path(&folder, "disk.vhd");
            disk.write_vhd(&mut create(&vhd));
            libvhdi(
                what,
                &vhd,
                &disk,
                disk.geometry.disk_size().next_multiple_of(MIB),
            );
        }
    }
}
