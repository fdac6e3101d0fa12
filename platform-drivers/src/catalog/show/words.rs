//! Actions and signs as sentences.

use crate::catalog::schema::{
    Action, BootObject, BootValue, Condition, DeviceRole, FileKind, FilterPosition, FilterScope,
    HiveName, Leave, Need, RegistryData, RegistryEdit, RegistryRule, ServiceAction, ServiceKind,
    Sign, TaskAction,
};

/// The name of the kind of action in a catalogue.
pub(super) fn kind(action: &Action) -> &'static str {
    match action {
        Action::BootOption(_) => "boot-option",
        Action::BootService(_) => "boot-service",
        Action::Device(_) => "device",
        Action::File(_) => "file",
        Action::Filter(_) => "filter",
        Action::FirstBoot(_) => "first-boot",
        Action::Leave(_) => "leave",
        Action::Loader(_) => "loader",
        Action::NetworkProvider(_) => "network-provider",
        Action::Package(_) => "package",
        Action::Registry(_) => "registry",
        Action::RunEntry(_) => "run-entry",
        Action::Service(_) => "service",
        Action::Task(_) => "task",
    }
}

/// What is done.
pub(super) fn action(action: &Action) -> String {
    match action {
        Action::BootOption(option) => {
            let object = match option.object {
                BootObject::BootManager => "the boot manager",
                BootObject::DefaultLoader => "the default boot entry",
                BootObject::EmsSettings => "the serial console's settings",
            };
            let what = match option.value {
                BootValue::Boolean(true) => "on".to_owned(),
                BootValue::Boolean(false) => "off".to_owned(),
                BootValue::Deleted => "not set".to_owned(),
                BootValue::Integer(number) => number.to_string(),
            };
            format!(
                "{} of {object} ({:08x}): {what}",
                option.name, option.element
            )
        }
        Action::BootService(service) => format!(
            "driver {} ({}, {}, group {}): starts at boot, in every control set, no StartOverride",
            service.name,
            joined(&service.images, " or "),
            service.inbox,
            service.group
        ),
        Action::Device(device) => {
            let role = match device.role {
                DeviceRole::Bus => "bus",
                DeviceRole::Network => "network adapter",
                DeviceRole::Other => "device",
                DeviceRole::Storage => "storage controller",
            };
            let need = match device.need {
                Need::Required => "has to have its driver",
                Need::Wanted => "should have its driver",
            };
            format!(
                "{role} \"{}\" ({}) {need} {} ({}, {})",
                device.title,
                joined(&device.ids, ", "),
                device.driver,
                joined(&device.infs, " or "),
                device.inbox
            )
        }
        Action::File(file) => match file.kind {
            FileKind::File => format!("file {}: deleted", file.path),
            FileKind::Folder => format!("folder {} and all in it: deleted", file.path),
        },
        Action::Filter(filter) => {
            let position = match filter.position {
                FilterPosition::Both => "upper and lower filters",
                FilterPosition::Lower => "lower filters",
                FilterPosition::Upper => "upper filters",
            };
            let scope = match filter.scope {
                FilterScope::Class(class) => format!("device class {class}"),
                FilterScope::EveryClass => "every device class".to_owned(),
                FilterScope::EveryDevice => "every device".to_owned(),
            };
            format!(
                "filter {}: taken out of the {position} of {scope}",
                filter.driver
            )
        }
        Action::FirstBoot(step) => super::first_boot(step),
        Action::Leave(Leave::File(path)) => format!("{path} stays"),
        Action::Leave(Leave::Package(inf)) => format!("driver package {inf} stays"),
        Action::Leave(Leave::Service(name)) => format!("service {name} stays"),
        Action::Loader(loader) => format!(
            "{} on the EFI system partition: a copy of {}",
            loader.to, loader.from
        ),
        Action::NetworkProvider(provider) => format!(
            "network provider {}: taken out of the order of providers",
            provider.name
        ),
        Action::Package(package) => format!(
            "driver package {} (where it is published as oemN.inf): taken out of the driver store",
            package.inf
        ),
        Action::Registry(rule) => registry(rule),
        Action::RunEntry(entry) => {
            format!(
                "\"{}\" among the programs that start at log-on: deleted",
                entry.name
            )
        }
        Action::Service(service) => {
            let kind = match service.kind {
                ServiceKind::ClassFilter | ServiceKind::DeviceFilter => "filter driver",
                ServiceKind::Driver => "driver",
                ServiceKind::Program => "service",
            };
            let image = if service.image.is_empty() {
                String::new()
            } else {
                format!(" ({})", joined(&service.image, " or "))
            };
            let action = match service.action {
                ServiceAction::Automatic => "starts automatically",
                ServiceAction::Delete => "deleted",
                ServiceAction::Disable => "disabled",
                ServiceAction::Manual => "starts on demand",
            };
            format!("{kind} {}{image}: {action}", service.name)
        }
        Action::Task(task) => match task.action {
            TaskAction::Delete => format!("scheduled task {}: deleted", task.path),
            TaskAction::Disable => format!("scheduled task {}: disabled", task.path),
        },
    }
}

/// What shows that a component is there.
pub(super) fn sign(sign: &Sign) -> String {
    match sign {
        Sign::File(path) => path.to_string(),
        Sign::Key(hive, key) => format!("key {}\\{key}", hive_name(*hive)),
        Sign::Service(name) => format!("service {name}"),
    }
}

fn registry(rule: &RegistryRule) -> String {
    let key = format!("{}\\{}", hive_name(rule.hive), rule.key);
    let conditions = |condition: &Condition| {
        if condition.texts().is_empty() {
            String::new()
        } else {
            format!(
                ", if it is or contains {}",
                joined(condition.texts(), " or ")
            )
        }
    };
    match &rule.edit {
        RegistryEdit::DeleteKey { only_if_empty } => {
            let condition = if *only_if_empty {
                ", if it is empty"
            } else {
                ""
            };
            format!("key {key}: deleted{condition}")
        }
        RegistryEdit::DeleteValue { name, only_if } => {
            format!(
                "{key}, value {}: deleted{}",
                named(name),
                conditions(only_if)
            )
        }
        RegistryEdit::DeleteValuesStarting { start } => {
            format!("{key}, values that begin with {start}: deleted")
        }
        RegistryEdit::RemoveEntry { name, entry } => {
            format!("{key}, value {}: entry {entry} taken out", named(name))
        }
        RegistryEdit::SetValue {
            name,
            data,
            only_if,
            only_if_key,
        } => {
            let key_condition = if *only_if_key {
                ", if the key is there"
            } else {
                ""
            };
            format!(
                "{key}, value {}: {}{}{key_condition}",
                named(name),
                text_of(data),
                conditions(only_if)
            )
        }
    }
}

fn hive_name(hive: HiveName) -> &'static str {
    match hive {
        HiveName::Software => "SOFTWARE",
        HiveName::System => "SYSTEM",
    }
}

fn named(value: &str) -> &str {
    if value.is_empty() { "(default)" } else { value }
}

fn text_of(data: &RegistryData) -> String {
    match data {
        RegistryData::Binary(bytes) => {
            let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("bytes {}", digits.join(" "))
        }
        RegistryData::Dword(number) => number.to_string(),
        RegistryData::ExpandString(text) | RegistryData::String(text) => format!("\"{text}\""),
        RegistryData::FromJob(field) => format!("what the job has as {}", field.name()),
        RegistryData::Strings(texts) => format!("the list \"{}\"", texts.join("\", \"")),
    }
}

fn joined<T: ToString>(parts: &[T], between: &str) -> String {
    let parts: Vec<String> = parts.iter().map(T::to_string).collect();
    parts.join(between)
}
