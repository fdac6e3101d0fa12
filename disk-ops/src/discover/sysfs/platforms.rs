//! Made-up machines of the platforms, whose trees have what the sources named at the rules look at.

use super::*;
use crate::discover::{DiskSelector, ResolveError, Role, Wanted, resolve};
use std::os::unix::fs::symlink;

/// A sysfs in the making.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("block")).unwrap();
        Self(root)
    }

    fn put(&self, path: &str, content: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{content}\n")).unwrap();
    }

    /// A disk of so many MiB on a device, both by their paths below `devices`, with attributes of either.
    fn disk(&self, device: &str, node: &str, mib: u64, attributes: &[(&str, &str)]) {
        let sys = self.0.path();
        let (device, node) = (format!("devices/{device}"), format!("devices/{node}"));
        self.put(&format!("{node}/size"), &(mib * 2048).to_string());
        fs::create_dir_all(sys.join(&device)).unwrap();
        for (name, content) in attributes {
            match name.strip_prefix("device/") {
                Some(name) => self.put(&format!("{device}/{name}"), content),
                None => self.put(&format!("{node}/{name}"), content),
            }
        }
        symlink(sys.join(&device), sys.join(&node).join("device")).unwrap();
        let name = Path::new(&node).file_name().unwrap();
        symlink(sys.join(&node), sys.join("block").join(name)).unwrap();
    }

    fn scsi(&self, bus: &str, hctl: &str, name: &str, mib: u64, vendor_and_model: (&str, &str)) {
        let host = hctl.split(':').next().unwrap();
        let target = hctl.rsplit_once(':').unwrap().0;
        let device = format!("{bus}/host{host}/target{target}/{hctl}");
        let node = format!("{device}/block/{name}");
        let (vendor, model) = vendor_and_model;
        let attributes = [("device/vendor", vendor), ("device/model", model)];
        self.disk(&device, &node, mib, &attributes);
    }

    fn nvme(&self, controller: &str, namespace: u64, mib: u64, model: &str, serial: &str) {
        let device = format!("pci0000:00/0000:00:04.0/nvme/{controller}");
        let node = format!("{device}/{controller}n{namespace}");
        let attributes = [
            ("device/model", model),
            ("device/serial", serial),
            ("nsid", &namespace.to_string()),
        ];
        self.disk(&device, &node, mib, &attributes);
    }

    fn disks(&self) -> Vec<AttachedDisk> {
        read(self.0.path(), &SystemTables::default()).unwrap()
    }

    fn found(&self, selector: DiskSelector) -> Result<String, ResolveError> {
        let wanted = Wanted {
            selector,
            size: None,
            is_changed: true,
        };
        resolve(&self.disks(), &wanted).map(|disk| disk.device_name.clone())
    }

    fn is_own(&self, name: &str) -> bool {
        let error = self.found(DiskSelector::DeviceName(name.into()));
        matches!(error, Err(ResolveError::Own { .. }))
    }

    fn has_no(&self, selector: DiskSelector) -> bool {
        matches!(self.found(selector), Err(ResolveError::NotFound { .. }))
    }
}

const VMBUS: &str = "LNXSYSTM:00/LNXSYBUS:00/ACPI0004:00/VMBUS:00";

/// A controller on Hyper-V's bus.
fn controller(machine: &Machine, id: &str) -> String {
    let path = format!("{VMBUS}/{id}");
    machine.put(&format!("devices/{path}/device_id"), &format!("{{{id}}}"));
    path
}

#[test]
fn on_azure_with_scsi_a_lun_is_that_of_a_data_disk() {
    let machine = Machine::new();
    let system = controller(&machine, "f8b3781a-1e82-4818-a1c3-63d806ec15bb");
    let data = controller(&machine, "f8b3781b-1e82-4818-a1c3-63d806ec15bb");
    let disk = ("Msft", "Virtual Disk");
    machine.scsi(&system, "0:0:0:0", "sda", 30, disk);
    machine.scsi(&system, "0:0:0:1", "sdb", 40, disk);
    machine.scsi(&system, "0:0:0:2", "sr0", 1, ("Msft", "Virtual DVD-ROM"));
    machine.scsi(&data, "1:0:0:0", "sdd", 50, disk);
    machine.scsi(&data, "1:0:0:1", "sdc", 60, disk);
    assert_eq!(machine.found(DiskSelector::Lun(0)).unwrap(), "sdd");
    assert_eq!(machine.found(DiskSelector::Lun(1)).unwrap(), "sdc");
    assert!(machine.has_no(DiskSelector::Lun(2)));
    assert!(machine.is_own("sda"));
    let disks = machine.disks();
    let roles: Vec<_> = disks.iter().map(|disk| disk.role).collect();
    let others = [Role::Data; 3];
    assert_eq!(roles[..2], [Role::System, Role::Temporary]);
    assert_eq!(roles[2..], others);
    // The temporary disk is nothing special to who names it otherwise.
    let hctl = DiskSelector::Hctl("0:0:0:1".into());
    assert_eq!(machine.found(hctl).unwrap(), "sdb");
    let disc = machine.found(DiskSelector::DeviceName("sr0".into()));
    assert!(matches!(disc, Err(ResolveError::Removable { .. })));
}

#[test]
fn on_azure_of_the_first_generation_system_and_temporary_disk_hang_on_ide() {
    let machine = Machine::new();
    let first = controller(&machine, "00000000-0000-8899-0000-000000000000");
    let second = controller(&machine, "00000000-0001-8899-0000-000000000000");
    let data = controller(&machine, "f8b3781b-1e82-4818-a1c3-63d806ec15bb");
    let disk = ("Msft", "Virtual Disk");
    machine.scsi(&first, "0:0:0:0", "sda", 30, disk);
    machine.scsi(&second, "1:0:1:0", "sdb", 40, disk);
    assert!(machine.has_no(DiskSelector::Lun(0)));
    machine.scsi(&data, "3:0:0:0", "sdc", 50, disk);
    assert_eq!(machine.found(DiskSelector::Lun(0)).unwrap(), "sdc");
    assert!(machine.is_own("sda"));
}

#[test]
fn on_azure_with_nvme_a_lun_is_two_less_than_the_namespace() {
    let machine = Machine::new();
    let remote = "MSFT NVMe Accelerator v1.0";
    machine.nvme("nvme0", 1, 30, remote, "SN: 000001");
    assert!(machine.has_no(DiskSelector::Lun(1)));
    machine.nvme("nvme0", 2, 40, remote, "SN: 000001");
    machine.nvme("nvme0", 5, 50, remote, "SN: 000001");
    machine.nvme("nvme1", 1, 60, "Microsoft NVMe Direct Disk v2", "a01");
    machine.nvme("nvme1", 2, 60, "Microsoft NVMe Direct Disk v2", "a01");
    assert_eq!(machine.found(DiskSelector::Lun(0)).unwrap(), "nvme0n2");
    assert_eq!(machine.found(DiskSelector::Lun(3)).unwrap(), "nvme0n5");
    for none in [1, 2, 5] {
        assert!(machine.has_no(DiskSelector::Lun(none)), "{none}");
    }
    assert!(machine.is_own("nvme0n1"));
}

#[test]
fn on_aws_a_volume_is_found_by_its_id() {
    let machine = Machine::new();
    let volume = "Amazon Elastic Block Store";
    machine.nvme("nvme0", 1, 8, volume, "vol0aaaaaaaaaaaaaaaa");
    machine.nvme("nvme1", 1, 64, volume, "vol0bbbbbbbbbbbbbbbb");
    let store = "Amazon EC2 NVMe Instance Storage";
    machine.nvme("nvme2", 1, 64, store, "vol0cccccccccccccccc");
    for id in ["vol-0bbbbbbbbbbbbbbbb", "vol0bbbbbbbbbbbbbbbb"] {
        let found = machine.found(DiskSelector::Serial(id.into()));
        assert_eq!(found.unwrap(), "nvme1n1");
    }
    for none in ["vol-0cccccccccccccccc", "vol0cccccccccccccccc"] {
        assert!(machine.has_no(DiskSelector::Serial(none.into())), "{none}");
    }
}

#[test]
fn on_google_cloud_a_scsi_disk_has_its_device_name_for_a_serial_number() {
    let machine = Machine::new();
    let disk = ("Google", "PersistentDisk");
    let bus = "pci0000:00/0000:00:03.0/virtio0";
    for (hctl, name, serial) in [
        ("0:0:1:0", "sda", "persistent-disk-0"),
        ("0:0:2:0", "sdb", "golden-disk"),
    ] {
        machine.scsi(bus, hctl, name, 10, disk);
        let mut page = vec![0, 0x80, 0, u8::try_from(serial.len()).unwrap()];
        page.extend(serial.as_bytes());
        fs::write(
            machine
                .0
                .path()
                .join("block")
                .join(name)
                .join("device/vpd_pg80"),
            page,
        )
        .unwrap();
    }
    let found = machine.found(DiskSelector::Serial("golden-disk".into()));
    assert_eq!(found.unwrap(), "sdb");
    machine.nvme("nvme0", 1, 375, "nvme_card", "nvme_card");
    assert_eq!(machine.disks()[0].role, Role::Temporary);
}

#[test]
fn on_xenserver_a_disk_is_found_by_what_the_hypervisor_calls_it() {
    let machine = Machine::new();
    for (number, name) in [("768", "xvda"), ("832", "xvdb"), ("51744", "xvdc")] {
        let device = format!("vbd-{number}");
        let node = format!("{device}/block/{name}");
        let nodename = format!("device/vbd/{number}");
        machine.disk(&device, &node, 16, &[("device/nodename", &nodename)]);
    }
    for (name, found) in [
        ("hdb", "xvdb"),
        ("xvdb", "xvdb"),
        ("/dev/xvdc", "xvdc"),
        ("hda", "xvda"),
    ] {
        let selector = DiskSelector::DeviceName(name.into());
        assert_eq!(machine.found(selector).unwrap(), found, "{name}");
    }
    assert!(machine.has_no(DiskSelector::DeviceName("hdc".into())));
}
