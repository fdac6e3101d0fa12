//! Windows before 8 has no driver database: its boot devices stand in CriticalDeviceDatabase.

use ce_regf::RegValue;

use super::StagedPackage;
use crate::hives::HiveName;
use crate::plan::edit::{Reason, RegistryEdit, RegistryEditKind};

/// What makes a Windows without DriverDatabase start the devices of a package at boot, in a control
/// set such as `ControlSet001`.
pub fn critical_device_edits(package: &StagedPackage<'_>, control_set: &str) -> Vec<RegistryEdit> {
    let mut edits = Vec::new();
    for plan in package.plans {
        let (Some(service), Some(model)) = (plan.function_driver(), &plan.model) else {
            continue;
        };
        for id in model.ids() {
            let key = format!(
                "{control_set}\\Control\\CriticalDeviceDatabase\\{}",
                id.replace('\\', "#")
            );
            let class = package
                .class
                .map(|class| format!("{{{class}}}").to_uppercase());
            let values = [
                ("Service", Some(service.name.clone())),
                ("ClassGUID", class),
            ];
            for (name, value) in values {
                let Some(value) = value else { continue };
                edits.push(RegistryEdit {
                    hive: HiveName::System,
                    key: key.clone(),
                    change: RegistryEditKind::SetValue {
                        name: name.to_owned(),
                        value: RegValue::sz(&value),
                    },
                    reason: Reason(format!("starts {} at boot", service.name)),
                });
            }
        }
    }
    edits
}
