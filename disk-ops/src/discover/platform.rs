//! What a platform says of a disk by the way in which it attaches it.

use super::{aws, azure, gcp, xen};

/// What the platform has a disk for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Role {
    /// To keep data on; also what nothing is known of.
    #[default]
    Data,
    /// The platform started this machine from it.
    System,
    /// It comes with the machine and goes with it.
    Temporary,
}

/// What sysfs has of a disk that a platform can be told by.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// What the SCSI device or the NVMe controller calls itself.
    pub(super) model: String,
    /// The SCSI LUN.
    pub(super) scsi_lun: Option<u64>,
    /// The NVMe namespace number.
    pub(super) namespace: Option<u64>,
    /// `device_id` of the device on the VMBus that it hangs on, `{f8b3781b-...}`.
    pub(super) vmbus_device: String,
    /// `nodename` of a Xen frontend, `device/vbd/51728`.
    pub(super) xen_node: String,
}

/// What follows from them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Place {
    pub(super) role: Role,
    /// The number that a job selects the disk by.
    pub(super) lun: Option<u64>,
    /// The platform's name of the device.
    pub(super) name: String,
}

impl Place {
    /// Of a disk whose number, if it has one, is no user's.
    pub(super) fn of(role: Role) -> Self {
        Self {
            role,
            ..Self::default()
        }
    }

    /// Of a data disk with a number.
    pub(super) fn numbered(lun: u64) -> Self {
        Self {
            lun: Some(lun),
            ..Self::default()
        }
    }
}

impl Facts {
    /// The first platform that knows the disk says what it is; otherwise its number is what the bus says.
    pub(super) fn place(&self) -> Place {
        let known = azure::place(self)
            .or_else(|| aws::place(self))
            .or_else(|| gcp::place(self))
            .or_else(|| xen::place(self));
        known.unwrap_or_else(|| Place {
            lun: self.scsi_lun.or(self.namespace),
            ..Place::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_of_no_known_platform_has_the_number_of_its_bus() {
        let mut facts = Facts {
            model: "QEMU HARDDISK".into(),
            scsi_lun: Some(3),
            ..Facts::default()
        };
        assert_eq!(facts.place(), Place::numbered(3));
        facts.scsi_lun = None;
        facts.namespace = Some(1);
        assert_eq!(facts.place(), Place::numbered(1));
        assert_eq!(Facts::default().place(), Place::default());
    }
}
