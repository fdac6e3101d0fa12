//! What a Windows without a driver database boots with: CriticalDeviceDatabase of every control set.
//!
//! ```text
//!  ControlSet001\Control\CriticalDeviceDatabase
//!    PCI#VEN_1AF4&DEV_1048    Service = vioscsi, ClassGUID = {4D36E97B-...}
//! ```
//!
//! Windows looks a device up there, by its ids with `#` for the backslash, when it has no driver for it
//! yet. Where there is a driver database, that one counts, and nothing is entered here.

use ce_regf::RegValue;

use super::draft::Store;
use super::{PlanError, Planner};
use crate::catalog::schema::{Device, DeviceRole};

impl Planner<'_, '_> {
    /// Whether this Windows has a driver database.
    pub(super) fn has_database(&self) -> Result<bool, PlanError> {
        self.draft.has_key(Store::System, "DriverDatabase")
    }

    /// Plans that Windows starts a device at boot which has its driver.
    pub(super) fn critical_device(&mut self, device: &Device) -> Result<(), PlanError> {
        let class = match device.role {
            DeviceRole::Network | DeviceRole::Other => return Ok(()),
            DeviceRole::Bus => SYSTEM_DEVICES,
            // The one INF of IDE and SATA controllers; all others are of SCSI ones.
            DeviceRole::Storage if device.infs.iter().any(is_mshdc) => IDE_CONTROLLERS,
            DeviceRole::Storage => STORAGE_CONTROLLERS,
        };
        if self.has_database()? {
            return Ok(());
        }
        for set in self.sets.clone() {
            for id in &device.ids {
                let key = critical_key(&set, id.as_str());
                let service = RegValue::sz(device.driver.as_str());
                self.set(Store::System, &key, "Service", service)?;
                self.set(Store::System, &key, "ClassGUID", RegValue::sz(class))?;
            }
        }
        Ok(())
    }

    /// Whether every control set starts the device at boot, with its driver.
    pub(super) fn is_critical(&self, device: &Device) -> Result<bool, PlanError> {
        for set in &self.sets {
            let mut is_there = false;
            for id in &device.ids {
                let key = critical_key(set, id.as_str());
                let service = self.draft.text(Store::System, &key, "Service")?;
                is_there |= service
                    .is_some_and(|service| service.eq_ignore_ascii_case(device.driver.as_str()));
            }
            if !is_there {
                return Ok(false);
            }
        }
        Ok(!self.sets.is_empty())
    }
}

fn is_mshdc(inf: &crate::catalog::value::FileName) -> bool {
    inf.as_str().eq_ignore_ascii_case("mshdc.inf")
}

fn critical_key(set: &str, id: &str) -> String {
    let id = id.replace('\\', "#");
    format!(r"{set}\Control\CriticalDeviceDatabase\{id}")
}

const IDE_CONTROLLERS: &str = "{4D36E96A-E325-11CE-BFC1-08002BE10318}";
const STORAGE_CONTROLLERS: &str = "{4D36E97B-E325-11CE-BFC1-08002BE10318}";
const SYSTEM_DEVICES: &str = "{4D36E97D-E325-11CE-BFC1-08002BE10318}";
