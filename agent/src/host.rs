//! What the agent says of the machine it runs on.

use std::fs;
use std::path::Path;

use ce_disk::discover::{AttachedDisk, attached_disks};
use ce_platform::Platform;
use ce_proto::v1;
use sysinfo::{MemoryRefreshKind, System};
use tracing::warn;

use crate::job::wire::clip;

/// Facts that do not change while the agent runs.
pub(crate) fn facts() -> v1::HostFacts {
    let text = |value: Option<String>| clip(&value.unwrap_or_default(), 255).to_owned();
    let processors = std::thread::available_parallelism().map_or(0, |count| count.get());
    let kernel = format!("Linux {}", System::kernel_version().unwrap_or_default());
    v1::HostFacts {
        hostname: text(System::host_name().ok()),
        kernel: text(Some(kernel)),
        architecture: std::env::consts::ARCH.to_owned(),
        memory_bytes: memory(System::total_memory),
        cpu_count: u32::try_from(processors).unwrap_or(u32::MAX),
        machine: text(Some(machine())),
    }
}

/// Memory that could be had now, in bytes.
pub(crate) fn available_memory() -> u64 {
    memory(System::available_memory)
}

/// 0 on a system that does not tell.
fn memory(of: impl Fn(&System) -> u64) -> u64 {
    System::new().map_or(0, |mut system| {
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        of(&system)
    })
}

/// The disks that are attached now. None, and a line in the log, if they can't be listed.
pub(crate) fn disks() -> Vec<v1::AttachedDisk> {
    match attached_disks() {
        Ok(disks) => disks.iter().map(wired).collect(),
        Err(error) => {
            warn!("the disks of this machine can't be listed: {error}");
            Vec::new()
        }
    }
}

/// The platform that this machine seems to run on.
pub(crate) fn platform() -> v1::Platform {
    match platform_of(&machine()) {
        None => v1::Platform::Unspecified,
        Some(Platform::Aws) => v1::Platform::Aws,
        Some(Platform::Azure) => v1::Platform::Azure,
        Some(Platform::Gcp) => v1::Platform::Gcp,
        Some(Platform::Nutanix) => v1::Platform::Nutanix,
        Some(Platform::Vsphere) => v1::Platform::Vsphere,
        Some(Platform::Xenserver) => v1::Platform::Xenserver,
    }
}

/// The platform by what the firmware says of the machine. Hyper-V says the same as Azure, but for
/// the asset tag.
fn platform_of(machine: &str) -> Option<Platform> {
    let found = [
        ("Amazon EC2", Platform::Aws),
        (AZURE_ASSET_TAG, Platform::Azure),
        ("Google", Platform::Gcp),
        ("Nutanix", Platform::Nutanix),
        ("VMware", Platform::Vsphere),
        ("Xen", Platform::Xenserver),
    ];
    let mut found = found.into_iter();
    found
        .find(|(mark, _)| machine.contains(mark))
        .map(|(_, platform)| platform)
}

/// Manufacturer, product and asset tag, as far as the firmware tells.
fn machine() -> String {
    let dmi = Path::new("/sys/class/dmi/id");
    let parts = ["sys_vendor", "product_name", "chassis_asset_tag"];
    let parts: Vec<_> = parts
        .iter()
        .filter_map(|name| fs::read_to_string(dmi.join(name)).ok())
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty())
        .collect();
    parts.join(" ")
}

fn wired(disk: &AttachedDisk) -> v1::AttachedDisk {
    v1::AttachedDisk {
        device_name: disk.device_name.clone(),
        size_bytes: disk.size.0,
        logical_sector_bytes: disk.logical_sector_bytes,
        serial: disk.serial.clone(),
        wwid: disk.wwid.clone(),
        hctl: disk.hctl.clone(),
        lun: disk.lun,
        model: clip(&disk.model, 255).to_owned(),
        read_only: disk.is_read_only,
        is_own: disk.is_own(),
    }
}

/// What Azure gives all its machines.
const AZURE_ASSET_TAG: &str = "7783-7084-3265-9085-8269-3286-77";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_known_by_their_firmware() {
        for (machine, platform) in [
            ("Amazon EC2 m7i.large", Some(Platform::Aws)),
            ("Google Google Compute Engine", Some(Platform::Gcp)),
            ("VMware, Inc. VMware7,1", Some(Platform::Vsphere)),
            ("Nutanix AHV", Some(Platform::Nutanix)),
            ("Xen HVM domU", Some(Platform::Xenserver)),
            ("Microsoft Corporation Virtual Machine", None),
            ("QEMU Standard PC", None),
        ] {
            assert_eq!(platform_of(machine), platform, "{machine}");
        }
        let azure = format!("Microsoft Corporation Virtual Machine {AZURE_ASSET_TAG}");
        assert_eq!(platform_of(&azure), Some(Platform::Azure));
    }

    #[test]
    fn this_machine_has_memory_and_processors() {
        let facts = facts();
        assert!(facts.memory_bytes > 0 && facts.cpu_count > 0 && !facts.kernel.is_empty());
        assert!(available_memory() > 0);
    }
}
