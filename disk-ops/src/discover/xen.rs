//! The disks of a machine on XenServer. Linux calls all of them `xvd*`; the name that the hypervisor gave
//! a device is in the number of its node in the xenstore (`docs/misc/xen-vbd-interface` of Xen).

use super::platform::{Facts, Place};

pub(super) fn place(facts: &Facts) -> Option<Place> {
    let number = facts.xen_node.strip_prefix("device/vbd/")?;
    Some(Place {
        name: name_of(number.parse().ok()?)?,
        ..Place::default()
    })
}

/// `xvdb` of 51728. None for what is no whole disk.
fn name_of(device: u32) -> Option<String> {
    if device >> 28 == 1 {
        let (disk, partition) = ((device & 0x0fff_ffff) >> 8, device & 0xff);
        return (partition == 0).then(|| format!("xvd{}", letters(disk)));
    }
    let (major, minor) = (device >> 8, device & 0xff);
    // Disks of an old kind have 64 numbers each, and two of them a major number.
    let (kind, first, numbers) = match major {
        XVD => ("xvd", 0, 16),
        SD => ("sd", 0, 16),
        HD_FIRST => ("hd", 0, 64),
        HD_SECOND => ("hd", 2, 64),
        _ => return None,
    };
    let disk = first + minor / numbers;
    let is_disk = minor % numbers == 0 && (numbers == 16 || minor / numbers < 2);
    is_disk.then(|| format!("{kind}{}", letters(disk)))
}

/// `a` to `z`, then `aa`: as Linux counts disks.
fn letters(disk: u32) -> String {
    let mut letters = Vec::new();
    let mut left = disk + 1;
    while left > 0 {
        left -= 1;
        // Less than 26.
        letters.push(char::from(b'a' + (left % 26) as u8));
        left /= 26;
    }
    letters.iter().rev().collect()
}

/// Major device numbers of Linux (`Documentation/admin-guide/devices.txt`).
const HD_FIRST: u32 = 3;
const HD_SECOND: u32 = 22;
const SD: u32 = 8;
const XVD: u32 = 202;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_device_says_its_name() {
        for (device, name) in [
            (51712, "xvda"),
            (51728, "xvdb"),
            (51952, "xvdp"),
            (268_439_552, "xvdq"),
            (268_442_112, "xvdaa"),
            (768, "hda"),
            (832, "hdb"),
            (5632, "hdc"),
            (5696, "hdd"),
            (2048, "sda"),
            (2064, "sdb"),
        ] {
            assert_eq!(name_of(device).as_deref(), Some(name), "{device}");
        }
    }

    #[test]
    fn what_is_no_disk_has_no_name() {
        // A partition of xvda, of hda, of the new kind; a third IDE disk on one bus; floppy, nothing.
        for device in [51713, 769, 268_439_553, 768 + 128, 512, 0, u32::MAX] {
            assert_eq!(name_of(device), None, "{device}");
        }
        let node = |node: &str| {
            place(&Facts {
                xen_node: node.into(),
                ..Facts::default()
            })
        };
        assert_eq!(node("device/vbd/51728").unwrap().name, "xvdb");
        for none in ["device/vif/0", "device/vbd/", "device/vbd/99999999999", ""] {
            assert_eq!(node(none), None, "{none}");
        }
    }
}
