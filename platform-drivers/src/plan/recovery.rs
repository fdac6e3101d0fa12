//! What the recovery environment of a Windows needs to see its disk on the target.
//!
//! ```text
//!  Windows: boots with a driver that is not part of it (BootDriver)
//!                 |
//!                 +--> the same driver for the image of the recovery environment, from the bundle:
//!                      files, driver database, service; nothing else
//! ```
//!
//! The environment is a small Windows of its own, with a SYSTEM and a DRIVERS hive. What the platform that
//! it comes from left in Windows is not in it: it is never told about drivers. Its SOFTWARE hive is left as
//! it is: which driver a file belongs to (`PnpLockdownFiles`) is of no use where nothing is ever updated.

use super::boot::is_booted_with;
use super::draft::{Store, Stores};
use super::{BootDriver, EditPlan, Machine, PlanError, Planner, Windows};
use crate::catalog::schema::{Action, Device};
use crate::hives::HiveSet;

/// Plans that the recovery environment which `machine` is starts with `drivers`, those of its Windows.
///
/// `hives` are SYSTEM and, where there is one, DRIVERS. A driver that cannot be put in is told as skipped;
/// [`EditPlan::boot_drivers`] are those that it has when the plan is carried out.
///
/// # Errors
///
/// [`PlanError`]
pub fn plan_recovery(
    machine: &Machine<'_>,
    drivers: &[BootDriver],
    hives: HiveSet,
) -> Result<EditPlan, PlanError> {
    let windows = Windows::of(machine.inspection)?;
    let mut stores = Stores::of(hives, None);
    let draft = stores.draft()?;
    if !draft.has(Store::System) {
        return Err(PlanError::NoHive { hive: "SYSTEM" });
    }
    let mut planner = Planner::new(machine, windows, draft);
    planner.recovery(drivers)?;
    Ok(planner.into_plan())
}

impl Planner<'_, '_> {
    fn recovery(&mut self, drivers: &[BootDriver]) -> Result<(), PlanError> {
        let preparation = self.machine.preparation;
        let is_asked_for = |device: &Device| {
            let mut drivers = drivers.iter();
            is_booted_with(device) && drivers.any(|driver| driver.device == device.title.as_str())
        };
        for &item in &preparation.target {
            if !self.is_meant(item) {
                continue;
            }
            self.begin(item);
            for step in &item.steps {
                if let Action::Device(device) = &step.action
                    && is_asked_for(device)
                {
                    match self.driver_of(preparation, device)? {
                        Ok(source) => self.has_driver(device, &source)?,
                        Err(unusable) => self.has_no_driver(device, &unusable),
                    }
                }
            }
        }
        let services: Vec<String> = self
            .boot_drivers
            .iter()
            .map(|driver| driver.service.clone())
            .collect();
        for &item in &preparation.target {
            if !self.is_meant(item) {
                continue;
            }
            self.begin(item);
            for step in &item.steps {
                if let Action::BootService(service) = &step.action
                    && services.iter().any(|name| name == service.name.as_str())
                {
                    self.boot_service(item, service)?;
                }
            }
        }
        Ok(())
    }
}
