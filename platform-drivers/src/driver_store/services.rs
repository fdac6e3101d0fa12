//! The key of a service, as the installation of its driver leaves it, and of its source of events.

use ce_regf::RegValue;

use super::StagedPackage;
use crate::hives::HiveName;
use crate::inf::{
    DRIVER_STORE_MARK, RegistryAction, RegistryChange, RegistryRoot, Service, SetRule,
};
use crate::plan::edit::{Reason, RegistryEdit, RegistryEditKind};

/// What registers a service in a control set such as `ControlSet001`.
///
/// A StartOverride, with which Windows keeps a boot driver from starting where its device was not
/// seen, goes. A value that the INF sets only if it is missing is set only if `is_new`. Not made: the
/// tag, which Windows hands out itself, and values with rules that only a running Windows can follow.
pub fn service_edits(
    service: &Service,
    package: &StagedPackage<'_>,
    control_set: &str,
    is_new: bool,
) -> Vec<RegistryEdit> {
    let key = format!("{control_set}\\Services\\{}", service.name);
    let mut edits = Vec::new();
    let mut push = |key: &str, change| {
        edits.push(RegistryEdit {
            hive: HiveName::System,
            key: key.to_owned(),
            change,
            reason: Reason(format!("registers the service {}", service.name)),
        });
    };
    let set = |name: &str, value| RegistryEditKind::SetValue {
        name: name.to_owned(),
        value,
    };
    push(&key, set("Type", RegValue::dword(service.service_type)));
    if is_new || !service.flags.keeps_start_type() {
        push(&key, set("Start", RegValue::dword(service.start_type)));
    }
    push(
        &key,
        set("ErrorControl", RegValue::dword(service.error_control)),
    );
    let folder = format!(
        "\\SystemRoot\\System32\\DriverStore\\FileRepository\\{}",
        package.label
    );
    let path = service.image_path.replace(DRIVER_STORE_MARK, &folder);
    push(&key, set("ImagePath", RegValue::expand_sz(&path)));
    let name = service.display_name.as_ref();
    if let Some(name) = name.filter(|_| is_new || !service.flags.keeps_display_name()) {
        // Windows looks a string up in the published INF again, in the user's language.
        let is_reference = name.written.starts_with('%') && name.written.ends_with('%');
        let shown = if is_reference {
            format!("@{},{};{}", package.published_name, name.written, name.text)
        } else {
            name.text.clone()
        };
        push(&key, set("DisplayName", RegValue::sz(&shown)));
    }
    if let Some(group) = &service.load_order_group {
        push(&key, set("Group", RegValue::sz(group)));
    }
    let (groups, services): (Vec<&str>, Vec<&str>) = service
        .dependencies
        .iter()
        .map(String::as_str)
        .partition(|name| name.starts_with('+'));
    let groups: Vec<&str> = groups
        .iter()
        .map(|name| name.trim_start_matches('+'))
        .collect();
    for (value, names) in [("DependOnService", services), ("DependOnGroup", groups)] {
        if !names.is_empty() {
            push(&key, set(value, RegValue::multi_sz(names)));
        }
    }
    if let Some(flags) = service.boot_flags {
        push(&key, set("BootFlags", RegValue::dword(flags)));
    }
    push(
        &key,
        set("Owners", RegValue::multi_sz([package.published_name])),
    );
    let own = service.registry.iter();
    for change in own.filter(|change| change.root == RegistryRoot::Service) {
        push_change(&mut push, &key, change, is_new);
    }
    push(
        &format!("{key}\\StartOverride"),
        RegistryEditKind::DeleteKey,
    );
    // A name with a backslash would be a key somewhere else.
    let logs = service.event_log.iter();
    for source in logs.filter(|source| !format!("{}{}", source.log, source.name).contains('\\')) {
        let key = format!(
            "{control_set}\\Services\\EventLog\\{}\\{}",
            source.log, source.name
        );
        let own = source.registry.iter();
        for change in own.filter(|change| change.root == RegistryRoot::EventLog) {
            push_change(&mut push, &key, change, is_new);
        }
    }
    edits
}

/// A line of AddReg or DelReg, below `key`.
fn push_change(
    push: &mut impl FnMut(&str, RegistryEditKind),
    key: &str,
    change: &RegistryChange,
    is_new: bool,
) {
    let below = match change.key.as_str() {
        "" => key.to_owned(),
        path => format!("{key}\\{path}"),
    };
    match &change.action {
        RegistryAction::CreateKey => push(&below, RegistryEditKind::CreateKey),
        RegistryAction::Set { name, value, rule }
            if *rule == SetRule::Always || *rule == SetRule::IfMissing && is_new =>
        {
            let (name, value) = (name.clone(), value.clone());
            push(&below, RegistryEditKind::SetValue { name, value });
        }
        RegistryAction::DeleteValue { name } => {
            let name = name.clone();
            push(&below, RegistryEditKind::DeleteValue { name });
        }
        RegistryAction::DeleteKey if !change.key.is_empty() => {
            push(&below, RegistryEditKind::DeleteKey);
        }
        _ => {}
    }
}
