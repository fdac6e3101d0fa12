//! What one pair of platforms brings together: removals against what boots the target, and actions
//! that undo each other.

use std::collections::BTreeMap;

use super::super::schema::{Action, HiveName, Leave, RegistryData, RegistryEdit, When};
use super::super::value::RegistryKey;
use super::super::{Finding, Item, Preparation, Step};
use super::finding;

/// Everything that is wrong with a preparation.
pub(super) fn check(preparation: &Preparation<'_>, findings: &mut Vec<Finding>) {
    let needed = Needed::by(&preparation.target);
    let left = left(preparation);
    for item in preparation.removal.iter().chain(&preparation.citrix) {
        for step in &item.steps {
            if let Some(why) = needed.is_touched_by(&step.action) {
                let message = format!("{} needs {why}; add `keep-for`", preparation.to.title());
                findings.push(finding(item, step.line, message));
            }
            for (other, what) in &left {
                if touches(&step.action, what) {
                    let message = format!("{} leaves this as it is", other.about.id);
                    findings.push(finding(item, step.line, message));
                }
            }
        }
    }
    contradictions(preparation, findings);
}

/// What the target boots with and reaches its network by.
struct Needed<'c> {
    services: Vec<(&'c str, &'c str)>,
    infs: Vec<(&'c str, &'c str)>,
    images: Vec<(&'c str, &'c str)>,
}

impl<'c> Needed<'c> {
    fn by(target: &[&'c Item]) -> Self {
        let (mut services, mut infs, mut images) = (Vec::new(), Vec::new(), Vec::new());
        for item in target {
            let title = item.about.title.as_str();
            for step in &item.steps {
                match &step.action {
                    Action::BootService(service) => {
                        services.push((service.name.as_str(), title));
                        let own = service.images.iter();
                        images.extend(own.map(|image| (image.as_str(), title)));
                    }
                    Action::Device(device) => {
                        services.push((device.driver.as_str(), device.title.as_str()));
                        let own = device.infs.iter();
                        infs.extend(own.map(|inf| (inf.as_str(), device.title.as_str())));
                    }
                    Action::Service(service) => services.push((service.name.as_str(), title)),
                    _ => {}
                }
            }
        }
        Self {
            services,
            infs,
            images,
        }
    }

    fn is_touched_by(&self, action: &Action) -> Option<String> {
        let find = |known: &[(&'c str, &'c str)], kind: &str, name: &str| {
            let found = known
                .iter()
                .find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(name, title)| format!("{kind} {name} ({title})"))
        };
        match action {
            Action::Service(service) if service.action.takes_out() => {
                find(&self.services, "service", service.name.as_str())
            }
            Action::Filter(filter) => find(&self.services, "service", filter.driver.as_str()),
            Action::NetworkProvider(provider) => {
                find(&self.services, "service", provider.name.as_str())
            }
            Action::Package(package) => find(&self.infs, "package", package.inf.as_str()),
            Action::File(file) => {
                let name = file.path.file_name().unwrap_or_default();
                find(&self.images, "file", name)
            }
            Action::Registry(rule) if matches!(rule.edit, RegistryEdit::DeleteKey { .. }) => {
                super::service_of(rule).and_then(|name| find(&self.services, "service", name))
            }
            _ => None,
        }
    }
}

fn left<'c>(preparation: &Preparation<'c>) -> Vec<(&'c Item, &'c Leave)> {
    let steps = preparation
        .items()
        .flat_map(|item| item.steps.iter().map(move |step| (item, step)));
    let leaves = steps.filter_map(|(item, step)| match &step.action {
        Action::Leave(leave) => Some((item, leave)),
        _ => None,
    });
    leaves.collect()
}

fn touches(action: &Action, left: &Leave) -> bool {
    match (action, left) {
        (Action::Service(service), Leave::Service(name)) => {
            service.action.takes_out() && service.name == *name
        }
        (Action::Filter(filter), Leave::Service(name)) => filter.driver == *name,
        (Action::Package(package), Leave::Package(inf)) => package.inf == *inf,
        (Action::File(file), Leave::File(path)) => super::is_or_holds(&file.path, path),
        _ => false,
    }
}

/// What an action makes of a thing, to be compared with what others make of it.
#[derive(Debug, PartialEq)]
enum Outcome<'c> {
    Data(&'c RegistryData),
    Gone,
    Other(String),
}

/// Two items that want different things, and no condition that keeps them apart.
fn contradictions(preparation: &Preparation<'_>, findings: &mut Vec<Finding>) {
    let mut seen: BTreeMap<String, Vec<(&Item, &Step, Outcome<'_>)>> = BTreeMap::new();
    let mut deleted_keys: Vec<(&Item, &Step, HiveName, &RegistryKey)> = Vec::new();
    let mut set_values: Vec<(&Item, &Step, HiveName, &RegistryKey)> = Vec::new();
    for (item, step) in preparation.steps() {
        if let Action::Registry(rule) = &step.action {
            match rule.edit {
                RegistryEdit::DeleteKey { .. } => {
                    deleted_keys.push((item, step, rule.hive, &rule.key));
                }
                RegistryEdit::SetValue { .. } => {
                    set_values.push((item, step, rule.hive, &rule.key));
                }
                _ => {}
            }
        }
        let Some((thing, outcome)) = outcome(&step.action) else {
            continue;
        };
        let others = seen.entry(thing).or_default();
        let contradicting = others.iter().find(|(other, _, found)| {
            *found != outcome && meet(&other.about.when, &item.about.when)
        });
        if let Some((other, line, _)) = contradicting {
            let message = format!(
                "this contradicts {} in {}:{}",
                other.about.id, other.place.file, line.line
            );
            findings.push(finding(item, step.line, message));
        }
        others.push((item, step, outcome));
    }
    for (item, step, hive, key) in &set_values {
        for (other, line, other_hive, deleted) in &deleted_keys {
            if hive == other_hive
                && deleted.is_or_holds(key)
                && meet(&item.about.when, &other.about.when)
            {
                let message = format!(
                    "{} in {}:{} deletes this key",
                    other.about.id, other.place.file, line.line
                );
                findings.push(finding(item, step.line, message));
            }
        }
    }
}

fn outcome(action: &Action) -> Option<(String, Outcome<'_>)> {
    Some(match action {
        Action::BootOption(option) => (
            format!("boot option {:?} {:08x}", option.object, option.element),
            Outcome::Other(format!("{:?}", option.value)),
        ),
        Action::Loader(loader) => (
            format!("loader {}", loader.to).to_lowercase(),
            Outcome::Other(loader.from.to_string().to_lowercase()),
        ),
        Action::Registry(rule) => {
            let value = |name: &str| {
                format!(
                    "{:?} {} {}",
                    rule.hive,
                    rule.key.folded(),
                    name.to_lowercase()
                )
            };
            match &rule.edit {
                RegistryEdit::DeleteValue { name, .. } => (value(name), Outcome::Gone),
                RegistryEdit::SetValue { name, data, .. } => (value(name), Outcome::Data(data)),
                _ => return None,
            }
        }
        Action::Service(service) => (
            format!("service {}", service.name.folded()),
            Outcome::Other(format!("{:?}", service.action)),
        ),
        _ => return None,
    })
}

/// Whether there may be a Windows and a job that both are for.
fn meet(one: &When, other: &When) -> bool {
    fn same<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
        one.is_none() || other.is_none() || one == other
    }
    let builds = match (one.build, other.build) {
        (Some(one), Some(other)) => {
            let from = one.from.max(other.from).unwrap_or(0);
            let before = one.before.into_iter().chain(other.before).min();
            before.is_none_or(|before| from < before)
        }
        _ => true,
    };
    builds
        && same(one.architecture, other.architecture)
        && same(one.product, other.product)
        && same(one.provisioning, other.provisioning)
}
