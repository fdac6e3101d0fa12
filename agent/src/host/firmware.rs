//! What the firmware and the hypervisor say of the machine, and which platform that is.
//!
//! Read from `class/dmi/id` and `hypervisor` of a sysfs (`Documentation/ABI/testing/sysfs-class-dmi`
//! and `sysfs-hypervisor-xen` of the kernel). Some of it only root may read; what can't be read counts
//! as not said.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use ce_platform::Platform;

/// Texts of the firmware and the hypervisor, trimmed; empty where nothing is said.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Firmware {
    vendor: String,
    product: String,
    product_serial: String,
    asset_tag: String,
    bios_version: String,
    hypervisor: String,
    uuids: [String; 2],
}

impl Firmware {
    /// What is said below `sys`, a sysfs.
    pub(crate) fn read(sys: &Path) -> Self {
        let dmi = |name: &str| text(&sys.join("class/dmi/id").join(name));
        let hypervisor = |name: &str| text(&sys.join("hypervisor").join(name));
        Self {
            vendor: dmi("sys_vendor"),
            product: dmi("product_name"),
            product_serial: dmi("product_serial"),
            asset_tag: dmi("chassis_asset_tag"),
            bios_version: dmi("bios_version"),
            hypervisor: hypervisor("type"),
            uuids: [hypervisor("uuid"), dmi("product_uuid")],
        }
    }

    /// The platform, if it is one that we know.
    ///
    /// In the order of cloud-init's `ds-identify`. Hyper-V has the vendor of Azure and not its asset
    /// tag; older machines of AWS run on Xen as those of XenServer do.
    pub(crate) fn platform(&self) -> Option<Platform> {
        if self.asset_tag == AZURE_ASSET_TAG {
            return Some(Platform::Azure);
        }
        let is_gcp = self.product.starts_with("Google Compute Engine")
            || self.product_serial.starts_with("GoogleCloud-");
        if is_gcp {
            return Some(Platform::Gcp);
        }
        if self.vendor == "Amazon EC2" {
            return Some(Platform::Aws);
        }
        if self.vendor.starts_with("VMware") {
            return Some(Platform::Vsphere);
        }
        if self.vendor.starts_with("Nutanix") {
            return Some(Platform::Nutanix);
        }
        let is_xen = self.vendor.starts_with("Xen") || self.hypervisor == "xen";
        match (is_xen, self.is_ec2_on_xen()) {
            (true, true) => Some(Platform::Aws),
            (true, false) => Some(Platform::Xenserver),
            (false, _) => None,
        }
    }

    /// Manufacturer, product and asset tag, as far as the firmware tells.
    pub(crate) fn machine(&self) -> String {
        let parts = [&*self.vendor, &*self.product, &*self.asset_tag];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join(" ")
    }

    /// Amazon names its Xen in the BIOS' version, `4.11.amazon`. Where there is no BIOS the UUID begins
    /// with `ec2`, in one of both byte orders; one of 4096 UUIDs of others does too.
    fn is_ec2_on_xen(&self) -> bool {
        if !self.bios_version.is_empty() {
            return self.bios_version.contains("amazon");
        }
        self.uuids.iter().any(|uuid| {
            let uuid = uuid.to_ascii_lowercase();
            let swapped = (uuid.get(4..5), uuid.get(6..8)) == (Some("2"), Some("ec"));
            uuid.starts_with("ec2") || swapped
        })
    }
}

fn text(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        // An attribute is read as a whole or not at all.
        let _ = file.take(LONGEST_TEXT).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

/// What Azure gives all its machines.
const AZURE_ASSET_TAG: &str = "7783-7084-3265-9085-8269-3286-77";

/// A page of memory: more than one attribute can't hold.
const LONGEST_TEXT: u64 = 4096;

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;

    use super::*;

    /// Files of a sysfs below `sys` that make it a machine of this platform.
    pub(crate) fn pretend(sys: &Path, platform: Platform) {
        match platform {
            Platform::Aws => put(sys, &[("class/dmi/id/sys_vendor", "Amazon EC2")]),
            Platform::Azure => put(sys, &[("class/dmi/id/chassis_asset_tag", AZURE_ASSET_TAG)]),
            Platform::Gcp => put(
                sys,
                &[("class/dmi/id/product_name", "Google Compute Engine")],
            ),
            Platform::Nutanix => put(sys, &[("class/dmi/id/sys_vendor", "Nutanix")]),
            Platform::Vsphere => put(sys, &[("class/dmi/id/sys_vendor", "VMware, Inc.")]),
            Platform::Xenserver => put(sys, &[("hypervisor/type", "xen")]),
        }
    }

    fn put(sys: &Path, files: &[(&str, &str)]) {
        for (path, content) in files {
            let path = sys.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{content}\n")).unwrap();
        }
    }

    fn platform(files: &[(&str, &str)]) -> Option<Platform> {
        let sys = tempfile::tempdir().unwrap();
        put(sys.path(), files);
        Firmware::read(sys.path()).platform()
    }

    #[test]
    fn platforms_are_known_by_what_their_firmware_says() {
        const VENDOR: &str = "class/dmi/id/sys_vendor";
        const PRODUCT: &str = "class/dmi/id/product_name";
        const TAG: &str = "class/dmi/id/chassis_asset_tag";
        let microsoft = (VENDOR, "Microsoft Corporation");
        for (files, expected) in [
            (
                &[microsoft, (TAG, AZURE_ASSET_TAG)][..],
                Some(Platform::Azure),
            ),
            // Hyper-V of somebody else.
            (&[microsoft, (PRODUCT, "Virtual Machine")], None),
            (
                &[(VENDOR, "Google"), (PRODUCT, "Google Compute Engine")],
                Some(Platform::Gcp),
            ),
            (
                &[("class/dmi/id/product_serial", "GoogleCloud-12")],
                Some(Platform::Gcp),
            ),
            (
                &[(VENDOR, "Amazon EC2"), (PRODUCT, "m7i.large")],
                Some(Platform::Aws),
            ),
            (
                &[(VENDOR, "VMware, Inc."), (PRODUCT, "VMware7,1")],
                Some(Platform::Vsphere),
            ),
            (
                &[(VENDOR, "Nutanix"), (PRODUCT, "AHV")],
                Some(Platform::Nutanix),
            ),
            (
                &[(VENDOR, "Xen"), (PRODUCT, "HVM domU")],
                Some(Platform::Xenserver),
            ),
            (&[("hypervisor/type", "xen")], Some(Platform::Xenserver)),
            (&[(VENDOR, "QEMU"), (PRODUCT, "Standard PC")], None),
            (&[], None),
        ] {
            assert_eq!(platform(files), expected, "{files:?}");
        }
    }

    #[test]
    fn machines_of_aws_on_xen_are_told_from_those_of_xenserver() {
        const XEN: (&str, &str) = ("hypervisor/type", "xen");
        const BIOS: &str = "class/dmi/id/bios_version";
        const UUID: &str = "hypervisor/uuid";
        const PRODUCT_UUID: &str = "class/dmi/id/product_uuid";
        let plain = "ec2e1916-9099-7caf-fd21-012345abcdef";
        let swapped = "45E12AEC-DCD1-B213-94ED-012345ABCDEF";
        for (files, expected) in [
            (&[XEN, (BIOS, "4.11.amazon")][..], Platform::Aws),
            (&[XEN, (UUID, plain)], Platform::Aws),
            (&[XEN, (PRODUCT_UUID, swapped)], Platform::Aws),
            // One of XenServer's whose random UUID begins so.
            (&[XEN, (BIOS, "4.17"), (UUID, plain)], Platform::Xenserver),
            (
                &[XEN, (UUID, "1ec2e191-9099-7caf-fd21-012345abcdef")],
                Platform::Xenserver,
            ),
        ] {
            assert_eq!(platform(files), Some(expected), "{files:?}");
        }
        assert_eq!(platform(&[(PRODUCT_UUID, plain)]), None);
    }

    #[test]
    fn a_machine_is_described_by_all_that_is_said() {
        let sys = tempfile::tempdir().unwrap();
        put(
            sys.path(),
            &[
                ("class/dmi/id/sys_vendor", " QEMU "),
                ("class/dmi/id/chassis_asset_tag", "X"),
            ],
        );
        assert_eq!(Firmware::read(sys.path()).machine(), "QEMU X");
    }
}
