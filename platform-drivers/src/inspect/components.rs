//! Which tools of hypervisors and which parts of Citrix are installed.
//!
//! One table, `PRODUCTS`, says by what each is recognised: services, entries of the list of
//! installed programs, a key of its own. It is for showing and for telling where an image comes
//! from; what prepare removes and sets has catalogues of its own.

use serde::Serialize;

use self::Family::{Citrix, Hypervisor};
use super::drivers::{Service, Start};
use super::registry::Registry;
use crate::platform::Platform;

/// Something that is installed.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Component {
    /// Its name in this program; stable.
    pub id: &'static str,
    /// The name that people know it by.
    pub title: &'static str,
    /// What it belongs to.
    pub family: Family,
    /// The platform that it is made for, if it is for one only.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "by_name")]
    pub platform: Option<Platform>,
    /// Its version, if it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its services and drivers that are there.
    pub services: Vec<ComponentService>,
    /// The entry in the list of installed programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
}

/// A service of a component.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ComponentService {
    /// Its name.
    pub name: String,
    /// When it starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
}

/// What a component belongs to.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Family {
    /// Drivers and agents of a hypervisor or a cloud.
    Hypervisor,
    /// Parts of Citrix.
    Citrix,
}

impl Component {
    /// Whether it has services and all of them are switched off.
    pub fn is_disabled(&self) -> bool {
        !self.services.is_empty()
            && self
                .services
                .iter()
                .all(|service| service.start == Some(Start::Disabled))
    }
}

/// The platform that `components` are of, if those that are switched on are of one only.
pub fn platform_of(components: &[Component]) -> Option<Platform> {
    let mut platforms = components
        .iter()
        .filter(|component| !component.is_disabled())
        .filter_map(|component| component.platform);
    let first = platforms.next()?;
    platforms.all(|other| other == first).then_some(first)
}

/// An entry of the list of installed programs.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Program {
    name: String,
    version: Option<String>,
}

/// By what a product is recognised.
pub(super) struct Product {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) family: Family,
    pub(super) platform: Option<Platform>,
    /// Any of these shows it.
    pub(super) services: &'static [&'static str],
    /// An entry whose name begins with the first word and holds the second one shows it.
    pub(super) programs: &'static [(&'static str, &'static str)],
    /// A value of SOFTWARE that has the version.
    pub(super) version: Option<(&'static str, &'static str)>,
}

pub(super) fn installed(software: Option<Registry<'_>>, services: &[Service]) -> Vec<Component> {
    let programs = software.map(programs).unwrap_or_default();
    PRODUCTS
        .iter()
        .filter_map(|product| found(product, software, &programs, services))
        .collect()
}

fn found(
    product: &Product,
    software: Option<Registry<'_>>,
    programs: &[Program],
    services: &[Service],
) -> Option<Component> {
    let is_ours = |service: &&Service| {
        let mut names = product.services.iter();
        names.any(|name| name.eq_ignore_ascii_case(&service.name))
    };
    let services: Vec<ComponentService> = services
        .iter()
        .filter(is_ours)
        .map(|service| ComponentService {
            name: service.name.clone(),
            start: service.start,
        })
        .collect();
    let program = programs.iter().find(|program| {
        let name = program.name.to_lowercase();
        let mut patterns = product.programs.iter();
        patterns.any(|(start, part)| {
            name.starts_with(&start.to_lowercase()) && name.contains(&part.to_lowercase())
        })
    });
    if services.is_empty() && program.is_none() {
        return None;
    }
    let of_key = || {
        let (key, value) = product.version?;
        software?.text(key, value)
    };
    Some(Component {
        id: product.id,
        title: product.title,
        family: product.family,
        platform: product.platform,
        version: program
            .and_then(|program| program.version.clone())
            .or_else(of_key),
        services,
        program: program.map(|program| program.name.clone()),
    })
}

/// The list of installed programs, 64-bit and 32-bit.
fn programs(software: Registry<'_>) -> Vec<Program> {
    let lists = [
        r"Microsoft\Windows\CurrentVersion\Uninstall",
        r"WOW6432Node\Microsoft\Windows\CurrentVersion\Uninstall",
    ];
    let entries = lists.into_iter().flat_map(|list| software.subkeys(list));
    entries
        .filter_map(|(_, key)| {
            Some(Program {
                name: software.text_of(key, "DisplayName")?,
                version: software.text_of(key, "DisplayVersion"),
            })
        })
        .collect()
}

fn by_name<S: serde::Serializer>(
    platform: &Option<Platform>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    platform.map(Platform::name).serialize(serializer)
}

/// What is recognised, and by what.
///
/// Sources: services of hypervisor tools by the INF and installer sources of win-pv-drivers,
/// win-installer, virtio-win and the Google guest agent, the AWS and Azure documentation, and the
/// clean-up scripts of migration tools; those of Citrix by its list of processes for antivirus
/// exclusions and its installation guides.
pub(super) static PRODUCTS: [Product; 20] = [
    Product {
        id: "vmware-tools",
        title: "VMware Tools",
        family: Hypervisor,
        platform: Some(Platform::Vsphere),
        services: &["VMTools", "VGAuthService", "vmci", "VMMemCtl"],
        programs: &[("VMware Tools", "")],
        version: None,
    },
    Product {
        id: "xenserver-tools",
        title: "XenServer VM Tools",
        family: Hypervisor,
        platform: Some(Platform::Xenserver),
        services: &["XenSvc", "InstallAgent", "XenInstall"],
        programs: &[
            ("XenServer VM Tools", ""),
            ("XenServer Windows", ""),
            ("Citrix XenServer", "Tools"),
            ("Citrix Hypervisor", "Tools"),
            ("Citrix Xen Windows", "PV Drivers"),
            ("XCP-ng Windows", ""),
        ],
        version: None,
    },
    Product {
        id: "xen-pv-drivers",
        title: "Xen PV drivers",
        family: Hypervisor,
        platform: None,
        services: &[
            "xenbus",
            "xenfilt",
            "xenvbd",
            "xenvif",
            "xennet",
            "xeniface",
            "xenevtchn",
        ],
        programs: &[],
        version: None,
    },
    Product {
        id: "nutanix-guest-tools",
        title: "Nutanix Guest Tools",
        family: Hypervisor,
        platform: Some(Platform::Nutanix),
        services: &["Nutanix Guest Agent"],
        programs: &[("Nutanix Guest", "")],
        version: Some((r"Nutanix\GuestTools", "Version")),
    },
    Product {
        id: "nutanix-virtio",
        title: "Nutanix VirtIO",
        family: Hypervisor,
        platform: Some(Platform::Nutanix),
        services: &[],
        programs: &[("Nutanix VirtIO", "")],
        version: None,
    },
    Product {
        id: "virtio-drivers",
        title: "virtio drivers",
        family: Hypervisor,
        platform: None,
        services: &["vioscsi", "viostor", "netkvm", "VirtioSerial", "BALLOON"],
        programs: &[("Virtio-win", "")],
        version: None,
    },
    Product {
        id: "qemu-guest-agent",
        title: "QEMU guest agent",
        family: Hypervisor,
        platform: None,
        services: &["QEMU-GA"],
        programs: &[("QEMU guest agent", "")],
        version: None,
    },
    Product {
        id: "azure-vm-agent",
        title: "Azure VM Agent",
        family: Hypervisor,
        platform: Some(Platform::Azure),
        services: &[
            "RdAgent",
            "WindowsAzureGuestAgent",
            "WindowsAzureTelemetryService",
        ],
        programs: &[("Windows Azure VM Agent", "")],
        version: Some((r"Microsoft\GuestAgent", "GuestAgentVersion")),
    },
    Product {
        id: "aws-drivers",
        title: "AWS drivers (PV, NVMe, ENA)",
        family: Hypervisor,
        platform: Some(Platform::Aws),
        services: &["awsnvme", "ena"],
        programs: &[("AWS PV Drivers", ""), ("AWS NVMe", "")],
        version: Some((r"Amazon\PVDriver", "Version")),
    },
    Product {
        id: "aws-agents",
        title: "EC2 launch agent, SSM agent",
        family: Hypervisor,
        platform: Some(Platform::Aws),
        services: &["Ec2Config", "Amazon EC2Launch", "AmazonSSMAgent"],
        programs: &[("Amazon EC2Launch", ""), ("Amazon SSM Agent", "")],
        version: None,
    },
    Product {
        id: "google-guest-agent",
        title: "Google guest agent",
        family: Hypervisor,
        platform: Some(Platform::Gcp),
        services: &[
            "GCEAgent",
            "GCEAgentManager",
            "google_osconfig_agent",
            "GoogleVssAgent",
            "gvnic",
        ],
        programs: &[],
        version: None,
    },
    Product {
        id: "virtualbox-additions",
        title: "VirtualBox Guest Additions",
        family: Hypervisor,
        platform: None,
        services: &["VBoxGuest", "VBoxService"],
        programs: &[
            ("Oracle VM VirtualBox Guest Additions", ""),
            ("Oracle VirtualBox Guest Additions", ""),
        ],
        version: None,
    },
    Product {
        id: "citrix-vda",
        title: "Virtual Delivery Agent",
        family: Citrix,
        platform: None,
        services: &["BrokerAgent"],
        programs: &[("Citrix", "Virtual Delivery Agent")],
        version: None,
    },
    Product {
        id: "citrix-pvs-target",
        title: "Provisioning target device",
        family: Citrix,
        platform: None,
        services: &["bnistack", "CVhdMp", "BNDevice", "cfsdep2", "cnicteam"],
        programs: &[("Citrix Provisioning", "Target Device")],
        version: None,
    },
    Product {
        id: "citrix-mcs",
        title: "MCS identity disk and agents",
        family: Citrix,
        platform: None,
        services: &["PvsVmAgent", "CitrixMachineIdentityServiceAgent"],
        programs: &[
            ("Citrix Machine Identity", ""),
            ("Citrix", "Machine Creation"),
        ],
        version: None,
    },
    Product {
        id: "citrix-profile-management",
        title: "Profile Management",
        family: Citrix,
        platform: None,
        services: &["ctxProfile"],
        programs: &[("Citrix Profile Management", "")],
        version: None,
    },
    Product {
        id: "citrix-wem-agent",
        title: "Workspace Environment Management agent",
        family: Citrix,
        platform: None,
        services: &["WemAgentSvc", "Norskale Agent Host Service"],
        programs: &[("Citrix Workspace Environment Management", "")],
        version: None,
    },
    Product {
        id: "citrix-workspace-app",
        title: "Workspace app",
        family: Citrix,
        platform: None,
        services: &[],
        programs: &[
            ("Citrix Workspace 2", ""),
            ("Citrix Workspace App", ""),
            ("Citrix Receiver", ""),
        ],
        version: None,
    },
    Product {
        id: "citrix-app-layering",
        title: "App Layering",
        family: Citrix,
        platform: None,
        services: &["UniService", "unirsd", "unifltr"],
        programs: &[("Citrix App Layering", "")],
        version: None,
    },
    Product {
        id: "citrix-telemetry",
        title: "Telemetry Service",
        family: Citrix,
        platform: None,
        services: &["CitrixTelemetryService"],
        programs: &[("Citrix Telemetry Service", "")],
        version: None,
    },
];
