//! What an action is about: the thing that it changes, whatever it does to it.

use std::fmt;

use crate::catalog::schema::{Action, FilterScope, FirstBoot, HiveName, RegistryEdit};

/// The thing that an action changes, in lower case.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Subject {
    kind: &'static str,
    name: String,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// The subject of an action; `None` for one that may stand twice: what is left as it is, and
/// devices, of which several have the same class code.
pub(super) fn subject(action: &Action) -> Option<Subject> {
    let (kind, name) = match action {
        Action::BootOption(option) => (
            "boot option",
            format!("{:?} {:08x}", option.object, option.element),
        ),
        Action::BootService(service) => ("boot service", service.name.folded()),
        Action::Device(_) | Action::Leave(_) => return None,
        Action::File(file) => ("file", file.path.to_string().to_lowercase()),
        Action::Filter(filter) => {
            let scope = match filter.scope {
                FilterScope::Class(class) => class.to_string(),
                FilterScope::EveryClass => "every class".to_owned(),
                FilterScope::EveryDevice => "every device".to_owned(),
            };
            ("filter", format!("{} of {scope}", filter.driver.folded()))
        }
        Action::FirstBoot(step) => (
            "first-boot step",
            match step {
                FirstBoot::Install(file) => file.folded(),
                FirstBoot::Run(command) | FirstBoot::Uninstall(command) => command.folded(),
                FirstBoot::UninstallUpgradeCode(code) => code.to_string(),
            },
        ),
        Action::Loader(loader) => ("loader", loader.to.to_string().to_lowercase()),
        Action::NetworkProvider(provider) => ("network provider", provider.name.folded()),
        Action::Package(package) => ("package", package.inf.folded()),
        Action::Registry(rule) => {
            let hive = match rule.hive {
                HiveName::Software => "software",
                HiveName::System => "system",
            };
            let key = format!("{hive}\\{}", rule.key.folded());
            match &rule.edit {
                RegistryEdit::DeleteKey { .. } => ("key", key),
                RegistryEdit::DeleteValuesStarting { start } => {
                    ("values", format!("{key}!{}...", start.to_lowercase()))
                }
                RegistryEdit::RemoveEntry { name, entry } => (
                    "entry",
                    format!("{key}!{}: {}", name.to_lowercase(), entry.to_lowercase()),
                ),
                // The same value with other conditions is another case of it.
                RegistryEdit::DeleteValue { name, only_if }
                | RegistryEdit::SetValue { name, only_if, .. } => (
                    "value",
                    format!(
                        "{key}!{} {}",
                        name.to_lowercase(),
                        only_if.texts().join(", ")
                    )
                    .trim_end()
                    .to_owned(),
                ),
            }
        }
        Action::RunEntry(entry) => ("run entry", entry.name.folded()),
        Action::Service(service) => ("service", service.name.folded()),
        Action::Task(task) => ("task", task.path.to_string().to_lowercase()),
    };
    Some(Subject { kind, name })
}
