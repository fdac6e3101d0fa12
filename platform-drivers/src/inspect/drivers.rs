//! The drivers for storage and network, and when each of them starts.

use std::fmt;

use ce_regf::Key;
use serde::Serialize;

use self::DriverKind::{Network, Storage};
use super::registry::Registry;

/// A service or a driver, as the control set has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Whether it is a driver of the kernel.
    pub is_driver: bool,
    /// When it starts.
    pub start: Option<Start>,
    /// The group that it is loaded with, if any.
    pub group: Option<String>,
    /// Whether the package that it came with is none of Windows itself (`oemN.inf`).
    pub is_third_party: bool,
    /// What stands in `StartOverride`, which Windows obeys in place of `start`.
    pub start_override: Vec<StartOverride>,
}

/// When Windows starts a service (`Start`).
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Start {
    /// By the boot loader.
    Boot,
    /// When the kernel has started.
    System,
    /// When the system is up.
    Auto,
    /// When something asks for it, as plug and play does.
    Demand,
    /// Never.
    Disabled,
    /// A number that means nothing.
    Unknown,
}

/// An entry of `StartOverride`: for a hardware profile, or for all.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StartOverride {
    /// The number of the profile.
    pub profile: String,
    /// When the driver starts.
    pub start: Start,
}

/// A driver for disks or networks.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Driver {
    /// The name of its service.
    pub service: String,
    /// What it is for.
    pub kind: DriverKind,
    /// What it drives, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<&'static str>,
    /// When it starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
    /// What stands in `StartOverride`, which Windows obeys in place of `start`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub start_override: Vec<StartOverride>,
}

/// What a driver is for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum DriverKind {
    /// Buses and disks.
    Storage,
    /// Network adapters.
    Network,
}

impl Start {
    fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Boot,
            1 => Self::System,
            2 => Self::Auto,
            3 => Self::Demand,
            4 => Self::Disabled,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Boot => "boot",
            Self::System => "system",
            Self::Auto => "auto",
            Self::Demand => "demand",
            Self::Disabled => "disabled",
            Self::Unknown => "unknown",
        })
    }
}

impl Service {
    /// All services of the control set whose key is `set`.
    pub(super) fn all(system: Registry<'_>, set: &str) -> Vec<Self> {
        let services = system.subkeys(&format!(r"{set}\Services"));
        services
            .into_iter()
            .map(|(name, key)| Self::read(system, name, key))
            .collect()
    }

    fn read<'h>(system: Registry<'h>, name: String, key: Key<'h>) -> Self {
        let number = |name| system.number_of(key, name);
        let owners = system.strings_of(key, "Owners");
        let is_oem = |inf: &String| {
            inf.get(..3)
                .is_some_and(|start| start.eq_ignore_ascii_case("oem"))
        };
        Self {
            is_driver: number("Type").is_some_and(|kind| kind & KERNEL_DRIVER != 0),
            start: number("Start").map(Start::from_number),
            group: system.text_of(key, "Group"),
            is_third_party: owners.unwrap_or_default().iter().any(is_oem),
            start_override: overrides(system, key),
            name,
        }
    }
}

fn overrides<'h>(system: Registry<'h>, service: Key<'h>) -> Vec<StartOverride> {
    let Some(key) = system.subkey_of(service, "StartOverride") else {
        return Vec::new();
    };
    let values = key.values().into_iter().flatten().take(MOST_OVERRIDES);
    values
        .filter_map(|value| {
            let profile = value.ok()?.name().to_string();
            let start = Start::from_number(system.number_of(key, &profile)?);
            Some(StartOverride { profile, start })
        })
        .collect()
}

/// The drivers for storage and network among `services`: those that are known, and those of other
/// makers than Microsoft that load with the groups of storage and network drivers.
pub(super) fn of_interest(services: &[Service]) -> Vec<Driver> {
    let mut drivers: Vec<Driver> = services.iter().filter_map(driver).collect();
    drivers.sort_by(|one, other| {
        let order = |driver: &Driver| (driver.kind, driver.service.to_lowercase());
        order(one).cmp(&order(other))
    });
    drivers
}

fn driver(service: &Service) -> Option<Driver> {
    let known = KNOWN
        .iter()
        .find(|(name, ..)| name.eq_ignore_ascii_case(&service.name));
    let in_group = |name: &str| {
        let group = service.group.as_deref();
        group.is_some_and(|group| group.eq_ignore_ascii_case(name))
    };
    let (kind, title) = match known {
        Some(&(_, kind, title)) => (kind, Some(title)),
        None if !service.is_driver || !service.is_third_party => return None,
        None if in_group("SCSI miniport") => (Storage, None),
        None if in_group("NDIS") => (Network, None),
        None => return None,
    };
    Some(Driver {
        service: service.name.clone(),
        kind,
        title,
        start: service.start,
        start_override: service.start_override.clone(),
    })
}

/// SERVICE_KERNEL_DRIVER.
const KERNEL_DRIVER: u32 = 1;

/// Windows writes one.
const MOST_OVERRIDES: usize = 8;

/// What hypervisors and clouds present, by the names of the services: those of Windows itself, and
/// those of the INF files of virtio-win, win-pv-drivers, VMware Tools and the drivers of AWS and Google.
const KNOWN: [(&str, DriverKind, &str); 31] = [
    ("awsnvme", Storage, "AWS NVMe"),
    ("e1iexpress", Network, "Intel e1000e"),
    ("E1G60", Network, "Intel e1000"),
    ("ena", Network, "AWS ENA"),
    ("gvnic", Network, "Google gVNIC"),
    ("intelide", Storage, "Intel IDE"),
    ("LSI_SAS", Storage, "LSI Logic SAS"),
    ("LSI_SCSI", Storage, "LSI Logic SCSI"),
    ("mana", Network, "Azure MANA"),
    ("mlx5", Network, "Mellanox"),
    ("msahci", Storage, "AHCI, before Windows 8"),
    ("netkvm", Network, "virtio network"),
    ("netvsc", Network, "Hyper-V network"),
    ("pciide", Storage, "IDE"),
    ("pvscsi", Storage, "VMware paravirtual SCSI"),
    ("rhelscsi", Storage, "Red Hat Xen SCSI"),
    ("storahci", Storage, "AHCI"),
    ("storflt", Storage, "Hyper-V storage accelerator"),
    ("stornvme", Storage, "NVMe"),
    ("storvsc", Storage, "Hyper-V SCSI"),
    ("vioscsi", Storage, "virtio SCSI"),
    ("viostor", Storage, "virtio block"),
    ("vmbus", Storage, "Hyper-V bus"),
    ("vmxnet3ndis6", Network, "VMware vmxnet3"),
    ("vpci", Storage, "Hyper-V PCI bus"),
    ("xenbus", Storage, "Xen bus"),
    ("xenfilt", Storage, "Xen filter"),
    ("xennet", Network, "Xen network"),
    ("xenvbd", Storage, "Xen disks"),
    ("xenvif", Network, "Xen network bus"),
    ("xenevtchn", Storage, "Xen bus, before XenServer 6.5"),
];
