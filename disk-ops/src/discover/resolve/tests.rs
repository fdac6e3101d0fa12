use super::*;
use crate::discover::Role;

fn disk(name: &str, lun: u64, serial: &str, size: u64, mounted_at: &[&str]) -> AttachedDisk {
    AttachedDisk {
        device_name: name.into(),
        lun: Some(lun),
        hctl: format!("{}:0:0:{lun}", name.len()),
        serial: serial.into(),
        wwid: format!("naa.6000{serial}"),
        size: ByteCount(size),
        mounted_at: mounted_at.iter().map(|point| (*point).to_owned()).collect(),
        ..AttachedDisk::default()
    }
}

fn machine() -> Vec<AttachedDisk> {
    vec![
        disk("sda", 0, "AA", 1 << 30, &["/", "/boot/efi"]),
        disk("sdb", 0, "BB", 1 << 31, &[]),
        disk("sdc", 1, "CC", 1 << 32, &[]),
        disk("sdd", 1, "CC", 1 << 33, &[]),
        disk("sde", 4, "EE", 1 << 30, &["/mnt/data"]),
    ]
}

fn wanted(selector: DiskSelector) -> Wanted {
    Wanted {
        selector,
        size: None,
        is_changed: false,
    }
}

fn name(selector: DiskSelector, size: Option<u64>) -> Result<String, ResolveError> {
    let wanted = Wanted {
        size: size.map(ByteCount),
        ..wanted(selector)
    };
    resolve(&machine(), &wanted).map(|disk| disk.device_name.clone())
}

#[test]
fn every_selector_finds_its_disk() {
    for (selector, found) in [
        (DiskSelector::DeviceName("sdc".into()), "sdc"),
        (DiskSelector::DeviceName("/dev/sdc".into()), "sdc"),
        (DiskSelector::Serial("bb ".into()), "sdb"),
        (DiskSelector::Wwid("0x6000BB".into()), "sdb"),
        (DiskSelector::Lun(0), "sdb"),
    ] {
        assert_eq!(name(selector, None).unwrap(), found);
    }
}

#[test]
fn several_candidates_are_all_named_unless_the_size_decides() {
    let error = name(DiskSelector::Lun(1), None).unwrap_err();
    let ResolveError::Ambiguous { candidates, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(candidates.len(), 2);
    assert!(error.to_string().contains("sdc (4.0 GiB, serial CC"));
    assert_eq!(name(DiskSelector::Lun(1), Some(1 << 33)).unwrap(), "sdd");
    assert!(name(DiskSelector::Lun(1), Some(1)).is_err());
}

#[test]
fn the_machines_own_disk_is_never_the_answer() {
    for selector in [
        DiskSelector::DeviceName("sda".into()),
        DiskSelector::Serial("AA".into()),
        DiskSelector::Hctl("3:0:0:0".into()),
    ] {
        let error = name(selector, None).unwrap_err();
        assert!(matches!(error, ResolveError::Own { .. }), "{error}");
    }
}

#[test]
fn the_disk_of_the_image_and_the_platforms_system_disk_are_never_the_answer() {
    for role in [Role::Data, Role::System] {
        let mut disks = machine();
        disks[2].has_image = role == Role::Data;
        disks[2].role = role;
        for selector in [
            DiskSelector::DeviceName("sdc".into()),
            DiskSelector::Hctl("3:0:0:1".into()),
        ] {
            let error = resolve(&disks, &wanted(selector)).unwrap_err();
            assert!(matches!(error, ResolveError::Own { .. }), "{error}");
        }
        let other = resolve(&disks, &wanted(DiskSelector::Lun(1))).unwrap();
        assert_eq!(other.device_name, "sdd");
    }
}

#[test]
fn a_disk_that_is_not_there_is_told_with_those_that_are() {
    let error = name(DiskSelector::Serial("ZZ".into()), None).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("no disk has serial `ZZ`; attached: sda ("),
        "{text}"
    );
    assert!(
        text.contains("own disk") && text.contains("sdd ("),
        "{text}"
    );
}

#[test]
fn a_disk_of_another_size_is_refused_with_both_sizes_and_all_that_are_attached() {
    let error = name(DiskSelector::Serial("BB".into()), Some(1 << 30)).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with(
            "serial `BB` is 2147483648 bytes (2.0 GiB) long; disk.sizeBytes says 1073741824 bytes (1.0 GiB); \
             attached: sda ("
        ),
        "{text}"
    );
    assert_eq!(
        name(DiskSelector::Serial("BB".into()), Some(1 << 31)).unwrap(),
        "sdb"
    );
}

#[test]
fn a_disk_that_is_in_use_or_can_be_taken_out_is_refused() {
    let text = name(DiskSelector::Lun(4), None).unwrap_err().to_string();
    assert!(
        text.starts_with("lun 4 is a disk that is in use: sde (") && text.ends_with("at /mnt/data"),
        "{text}"
    );
    let mut disks = machine();
    disks[1].is_removable = true;
    let error = resolve(&disks, &wanted(DiskSelector::Serial("BB".into()))).unwrap_err();
    assert!(matches!(error, ResolveError::Removable { .. }), "{error}");
    assert!(error.to_string().contains("removable medium: sdb ("));
}

#[test]
fn a_disk_that_cannot_be_written_serves_a_job_that_only_reads() {
    let mut disks = machine();
    disks[1].is_read_only = true;
    let mut wanted = wanted(DiskSelector::Serial("BB".into()));
    assert_eq!(resolve(&disks, &wanted).unwrap().device_name, "sdb");
    wanted.is_changed = true;
    let error = resolve(&disks, &wanted).unwrap_err();
    assert!(matches!(error, ResolveError::ReadOnly { .. }), "{error}");
}
