use std::os::unix::fs::symlink;

use super::*;

/// A machine with its system on `sda` (through a mapper), data on `sdb`, an NVMe disk, a virtio
/// disk, an empty drive and a RAM disk.
fn machine() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let sys = root.path();
    let put = |path: &str, content: &[u8]| {
        let path = sys.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    for (name, id, sectors) in [
        ("sda", "8:0", "2097152\n"),
        ("sdb", "8:16", "4194304\n"),
        ("nvme0n1", "259:0", "8388608\n"),
        ("vda", "252:0", "1024\n"),
        ("sdc", "8:32", "0\n"),
        ("ram0", "1:0", "8192\n"),
        ("dm-0", "253:0", "1024\n"),
    ] {
        put(&format!("devices/{name}/dev"), format!("{id}\n").as_bytes());
        put(&format!("devices/{name}/size"), sectors.as_bytes());
        put(
            &format!("devices/{name}/queue/logical_block_size"),
            b"512\n",
        );
        for index in ["block", "class/block"] {
            fs::create_dir_all(sys.join(index)).unwrap();
            symlink(sys.join("devices").join(name), sys.join(index).join(name)).unwrap();
        }
        fs::create_dir_all(sys.join("dev/block")).unwrap();
        symlink(
            sys.join("devices").join(name),
            sys.join("dev/block").join(id),
        )
        .unwrap();
    }
    for (disk, hctl) in [("sda", "0:0:0:0"), ("sdb", "1:0:0:3")] {
        let scsi = format!("devices/scsi/{hctl}");
        put(&format!("{scsi}/vendor"), b"Msft    \n");
        put(&format!("{scsi}/model"), b"Virtual Disk    \n");
        put(&format!("{scsi}/wwid"), b"naa.60022480abc\n");
        put(
            &format!("{scsi}/vpd_pg80"),
            b"\0\x80\0\x06  77X\x07trailing",
        );
        symlink(
            sys.join(scsi),
            sys.join("devices").join(disk).join("device"),
        )
        .unwrap();
    }
    put("devices/sda/sda2/partition", b"2\n");
    put("devices/sda/sda2/dev", b"8:2\n");
    symlink(sys.join("devices/sda/sda2"), sys.join("dev/block/8:2")).unwrap();
    symlink(sys.join("devices/sda/sda2"), sys.join("class/block/sda2")).unwrap();
    fs::create_dir_all(sys.join("devices/dm-0/slaves")).unwrap();
    symlink(
        sys.join("devices/sda/sda2"),
        sys.join("devices/dm-0/slaves/sda2"),
    )
    .unwrap();
    put("devices/nvme0n1/nsid", b"1\n");
    put("devices/nvme0n1/wwid", b"eui.0025388b\n");
    put("devices/nvme0n1/device/serial", b"S4N\n");
    put("devices/vda/serial", b"vd-serial\n");
    put("devices/vda/device/vendor", b"0x1af4\n");
    put("devices/vda/ro", b"1\n");
    root
}

fn tables() -> SystemTables {
    SystemTables {
        mounts: "20 1 253:0 / / rw - ext4 /dev/mapper/vg-root rw\n\
                 21 1 0:40 / /mnt/data rw - btrfs /dev/sdb rw\n\
                 22 1 0:5 / /proc rw - proc proc rw\n"
            .into(),
        swaps: "Filename Type Size Used Priority\n".into(),
    }
}

#[test]
fn disks_are_listed_with_what_they_say_of_themselves() {
    let machine = machine();
    let disks = read(machine.path(), &tables()).unwrap();
    let names: Vec<_> = disks.iter().map(|disk| &*disk.device_name).collect();
    assert_eq!(names, ["nvme0n1", "sda", "sdb", "vda"]);
    let [nvme, sda, sdb, vda] = &disks[..] else {
        panic!()
    };
    assert_eq!(
        (nvme.lun, &*nvme.serial, &*nvme.wwid),
        (Some(1), "S4N", "eui.0025388b")
    );
    assert_eq!((&*sdb.hctl, sdb.lun), ("1:0:0:3", Some(3)));
    assert_eq!((&*sdb.serial, &*sdb.model), ("77X", "Msft Virtual Disk"));
    assert_eq!(sda.size, ByteCount(1 << 30));
    assert_eq!(
        (&*vda.serial, &*vda.model, vda.is_read_only),
        ("vd-serial", "", true)
    );
}

#[test]
fn the_systems_disk_shows_through_a_mapper_and_a_partition() {
    let machine = machine();
    let disks = read(machine.path(), &tables()).unwrap();
    let own: Vec<_> = disks.iter().filter(|disk| disk.is_own()).collect();
    assert_eq!(own.len(), 1);
    assert_eq!(own[0].device_name, "sda");
    assert_eq!(own[0].mounted_at, ["/"]);
    let data = disks.iter().find(|disk| disk.device_name == "sdb").unwrap();
    assert_eq!(data.mounted_at, ["/mnt/data"]);
}

#[test]
fn swap_makes_a_disk_the_systems() {
    let machine = machine();
    let swaps = "Filename Type\n/dev/sdb partition 1 0 -2\n".to_owned();
    let tables = SystemTables { swaps, ..tables() };
    let disks = read(machine.path(), &tables).unwrap();
    let sdb = disks.iter().find(|disk| disk.device_name == "sdb").unwrap();
    assert!(sdb.is_own());
}

#[test]
fn a_partition_and_a_mapper_lead_to_their_disk() {
    let machine = machine();
    let disk = |major, minor| disk_of_device(machine.path(), rustix::fs::makedev(major, minor));
    assert_eq!(disk(8, 2), BTreeSet::from(["sda".to_owned()]));
    assert_eq!(disk(253, 0), BTreeSet::from(["sda".to_owned()]));
    assert_eq!(disk(8, 16), BTreeSet::from(["sdb".to_owned()]));
    assert!(disk(9, 9).is_empty());
}

#[test]
fn a_tree_that_is_not_there_is_an_error() {
    let error = read(Path::new("/nonexistent"), &SystemTables::default()).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/block"));
}

#[test]
fn the_disks_of_this_machine_can_be_listed() {
    for disk in attached_disks().unwrap() {
        assert!(disk.size.0 > 0, "{disk}");
    }
}
