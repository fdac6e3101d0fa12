//! What the agent says of the machine it runs on.

use std::path::Path;

use ce_disk::discover::{AttachedDisk, attached_disks};
use ce_platform::Platform;
use ce_proto::v1;
use sysinfo::{MemoryRefreshKind, System};
use tracing::warn;

use crate::job::wire::clip;

pub(crate) mod firmware;

pub(crate) use firmware::Firmware;

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
        machine: text(Some(firmware().machine())),
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

/// The disks that are attached now, without removable media, which no job may name. None, and a line in
/// the log, if they can't be listed.
pub(crate) fn disks() -> Vec<v1::AttachedDisk> {
    match attached_disks() {
        Ok(disks) => disks
            .iter()
            .filter(|disk| !disk.is_removable)
            .map(wired)
            .collect(),
        Err(error) => {
            warn!("the disks of this machine can't be listed: {error}");
            Vec::new()
        }
    }
}

/// The platform that this machine seems to run on.
pub(crate) fn platform() -> v1::Platform {
    match firmware().platform() {
        None => v1::Platform::Unspecified,
        Some(Platform::Aws) => v1::Platform::Aws,
        Some(Platform::Azure) => v1::Platform::Azure,
        Some(Platform::Gcp) => v1::Platform::Gcp,
        Some(Platform::Nutanix) => v1::Platform::Nutanix,
        Some(Platform::Vsphere) => v1::Platform::Vsphere,
        Some(Platform::Xenserver) => v1::Platform::Xenserver,
    }
}

fn firmware() -> Firmware {
    Firmware::read(Path::new("/sys"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory_and_processors() {
        let facts = facts();
        assert!(facts.memory_bytes > 0 && facts.cpu_count > 0 && !facts.kernel.is_empty());
        assert!(available_memory() > 0);
    }
}
