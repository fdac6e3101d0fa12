//! What contradicts each other in the catalogues, or would break a target.
//!
//! Reading has seen to it that every item is well-formed by itself. Here items meet: those of a
//! file, those of a kind, the protected set, and all that comes together for a pair of platforms.

use std::collections::BTreeMap;

use ce_disk::volume::WinPath;

use self::subject::{Subject, subject};
use super::schema::{
    Action, DeviceRole, FilterScope, HiveName, Protected, RegistryEdit, RegistryRule, ServiceKind,
};
use super::{Catalog, CatalogKind, Finding, Item, Place, Step};
use crate::Platform;

mod pair;
mod subject;

/// Everything that is wrong, sorted by file and line.
pub(super) fn check(catalog: &Catalog) -> Vec<Finding> {
    let mut findings = Vec::new();
    unique_ids(catalog, &mut findings);
    for item in catalog.items() {
        if let Some(kind) = CatalogKind::of_file(&item.place.file) {
            belongs(item, kind, &mut findings);
        }
        filters_go_first(item, &mut findings);
    }
    for (_, group) in &catalog.protected {
        if group.evidence.is_empty() {
            findings.push(Finding {
                file: "protected.toml".to_owned(),
                line: None,
                item: Some(group.id.to_string()),
                message: "`evidence` is empty".to_owned(),
            });
        }
    }
    one_item_for_each_subject(catalog, &mut findings);
    nothing_protected(catalog, &mut findings);
    for platform in Platform::ALL {
        complete(catalog, platform, &mut findings);
        for from in Platform::ALL.into_iter().map(Some).chain([None]) {
            pair::check(&catalog.preparation(from, platform), &mut findings);
        }
    }
    findings.sort_by(|a, b| (&a.file, a.line, &a.message).cmp(&(&b.file, b.line, &b.message)));
    // Many pairs find the same.
    findings.dedup();
    findings
}

fn finding(item: &Item, line: usize, message: String) -> Finding {
    Finding {
        file: item.place.file.clone(),
        line: Some(line),
        item: Some(item.about.id.to_string()),
        message,
    }
}

fn unique_ids(catalog: &Catalog, findings: &mut Vec<Finding>) {
    let mut seen: BTreeMap<&str, &Place> = BTreeMap::new();
    let items = catalog
        .items()
        .map(|item| (item.about.id.as_str(), &item.place));
    let groups = catalog.protected.iter();
    let groups = groups.map(|(place, group)| (group.id.as_str(), place));
    for (id, place) in items.chain(groups) {
        if let Some(other) = seen.insert(id, place) {
            findings.push(Finding {
                file: place.file.clone(),
                line: Some(place.line),
                item: Some(id.to_owned()),
                message: format!("this id is taken, in {}:{}", other.file, other.line),
            });
        }
    }
}

/// Whether what an item says and does belongs into a catalogue of its kind.
fn belongs(item: &Item, kind: CatalogKind, findings: &mut Vec<Finding>) {
    let about = &item.about;
    let mut at_head = |message: &str| {
        findings.push(finding(item, item.place.line, message.to_owned()));
    };
    if about.evidence.is_empty() {
        at_head("`evidence` is empty: name the document, the source or the hive that shows it");
    }
    if item.steps.is_empty() {
        at_head("nothing is done; what is known and stays goes into `leave`");
    }
    let is_removal = matches!(kind, CatalogKind::Removal(_));
    let is_target = matches!(kind, CatalogKind::Target(_));
    let is_citrix = matches!(kind, CatalogKind::Citrix(_));
    if is_target != about.area.is_some() {
        at_head("`area` goes with every item of a target's catalogue, and with no other");
    }
    let names_platforms = !about.keep_for.is_empty() || !about.also_from.is_empty();
    if names_platforms && !is_removal {
        at_head("`keep-for` and `also-from` go with removal catalogues only");
    }
    if let CatalogKind::Removal(platform) = kind
        && about.also_from.contains(&platform)
    {
        at_head("`also-from` names the platform of this file");
    }
    if is_target && !item.detect.is_empty() {
        at_head("`detect` goes with removal and Citrix catalogues; a target's items are for all");
    }
    if !is_citrix && (about.when.provisioning.is_some() || about.when.asked.is_some()) {
        at_head("`provisioning` and `asked` go with Citrix catalogues only");
    }
    for Step { action, line } in &item.steps {
        let allowed = match action {
            Action::BootOption(_)
            | Action::BootService(_)
            | Action::Device(_)
            | Action::Loader(_) => is_target,
            Action::Service(service) => is_target != service.action.takes_out(),
            Action::Filter(_)
            | Action::NetworkProvider(_)
            | Action::Package(_)
            | Action::RunEntry(_)
            | Action::Task(_) => !is_target,
            Action::File(_) | Action::Leave(_) | Action::FirstBoot(_) | Action::Registry(_) => true,
        };
        if !allowed {
            let message = if is_target {
                "a target's catalogue takes nothing out; this belongs into a removal catalogue"
            } else {
                "this makes a target ready, and belongs into a target's catalogue"
            };
            findings.push(finding(item, *line, message.to_owned()));
        }
        if let Action::Registry(rule) = action
            && let RegistryEdit::SetValue { data, .. } = &rule.edit
            && data.value().is_none()
            && !is_citrix
        {
            let message = "`from-job` goes with Citrix catalogues only".to_owned();
            findings.push(finding(item, *line, message));
        }
        let is_empty = match action {
            Action::BootService(service) => service.images.is_empty(),
            Action::Device(device) => device.ids.is_empty() || device.infs.is_empty(),
            _ => false,
        };
        if is_empty {
            let message = "`images`, `ids` and `infs` each need an entry".to_owned();
            findings.push(finding(item, *line, message));
        }
    }
}

/// A filter that is taken out of service has to be taken out of the filter lists by the same item.
fn filters_go_first(item: &Item, findings: &mut Vec<Finding>) {
    let filters = || {
        item.steps.iter().filter_map(|step| match &step.action {
            Action::Filter(filter) => Some(filter),
            _ => None,
        })
    };
    for step in &item.steps {
        let Action::Service(service) = &step.action else {
            continue;
        };
        if !service.action.takes_out() {
            continue;
        }
        let mut own = filters().filter(|filter| filter.driver == service.name);
        let missing = match service.kind {
            ServiceKind::ClassFilter => own
                .all(|filter| filter.scope == FilterScope::EveryDevice)
                .then_some("of a device class"),
            ServiceKind::DeviceFilter => own
                .all(|filter| filter.scope != FilterScope::EveryDevice)
                .then_some("of devices (scope \"every-device\")"),
            ServiceKind::Driver | ServiceKind::Program => own
                .next()
                .map(|_| "at all: its kind has to be class-filter or device-filter"),
        };
        if let Some(missing) = missing {
            let message = match service.kind {
                ServiceKind::Driver | ServiceKind::Program => {
                    format!(
                        "{} is stripped as a filter, but is none {missing}",
                        service.name
                    )
                }
                _ => format!(
                    "{} is taken out, but not before as a filter {missing}: its devices would \
                     not start",
                    service.name
                ),
            };
            findings.push(finding(item, step.line, message));
        }
    }
}

/// Two items that deal with the same thing would be two truths.
fn one_item_for_each_subject(catalog: &Catalog, findings: &mut Vec<Finding>) {
    let removal: Vec<&Item> = catalog.removal.values().flatten().collect();
    let citrix: Vec<&Item> = catalog.citrix.values().flatten().collect();
    let targets = Platform::ALL.map(|platform| catalog.target(platform).collect::<Vec<_>>());
    for items in [removal, citrix].iter().chain(&targets) {
        let mut seen: BTreeMap<Subject, (&Item, usize)> = BTreeMap::new();
        for item in items {
            for step in &item.steps {
                let Some(subject) = subject(&step.action) else {
                    continue;
                };
                if let Some((other, line)) = seen.get(&subject) {
                    let message = format!(
                        "{subject} is dealt with already, by {} in {}:{line}",
                        other.about.id, other.place.file
                    );
                    findings.push(finding(item, step.line, message));
                } else {
                    seen.insert(subject, (item, step.line));
                }
            }
        }
    }
}

/// No removal touches what is protected, whatever the platforms.
fn nothing_protected(catalog: &Catalog, findings: &mut Vec<Finding>) {
    let removal = catalog.removal.values().flatten();
    for item in removal.chain(catalog.citrix.values().flatten()) {
        for step in &item.steps {
            for (_, group) in &catalog.protected {
                if is_protected(&step.action, group) {
                    let message = format!(
                        "{} is protected: {} ({})",
                        subject(&step.action)
                            .map_or_else(String::new, |subject| subject.to_string()),
                        group.title,
                        group.id
                    );
                    findings.push(finding(item, step.line, message));
                }
            }
        }
    }
}

fn is_protected(action: &Action, group: &Protected) -> bool {
    match action {
        Action::File(file) => group.files.iter().any(|path| is_or_holds(&file.path, path)),
        Action::Filter(filter) => {
            group.filters.contains(&filter.driver) || group.services.contains(&filter.driver)
        }
        Action::NetworkProvider(provider) => group.services.contains(&provider.name),
        Action::Package(package) => group.infs.contains(&package.inf),
        Action::Registry(rule) => {
            let keys = match rule.hive {
                HiveName::Software => &group.software_keys,
                HiveName::System => &group.system_keys,
            };
            let is_whole_key = matches!(rule.edit, RegistryEdit::DeleteKey { .. });
            let names_service = service_of(rule).is_some_and(|name| {
                group
                    .services
                    .iter()
                    .any(|service| service.as_str().eq_ignore_ascii_case(name))
            });
            is_whole_key && (names_service || keys.iter().any(|key| rule.key.is_or_holds(key)))
        }
        Action::Service(service) => {
            service.action.takes_out()
                && (group.services.contains(&service.name) || group.filters.contains(&service.name))
        }
        _ => false,
    }
}

/// Whether `path` is `other` or one of the folders above it.
fn is_or_holds(path: &WinPath, other: &WinPath) -> bool {
    let mut others = other.components();
    path.components().all(|name| {
        let other = others.next();
        other.is_some_and(|other| other.eq_ignore_ascii_case(name))
    })
}

/// The service whose own key a rule names.
fn service_of(rule: &RegistryRule) -> Option<&str> {
    let mut names = rule.key.names().skip(1);
    match (names.next(), names.next(), names.next()) {
        (Some(services), Some(name), None) if services.eq_ignore_ascii_case("Services") => {
            Some(name)
        }
        _ => None,
    }
}

/// Whether a target's catalogue says how Windows boots there.
fn complete(catalog: &Catalog, platform: Platform, findings: &mut Vec<Finding>) {
    if !catalog.target.contains_key(&platform) || catalog.partly_read.contains(&platform) {
        return;
    }
    let mut about_file = |message: &str| {
        findings.push(Finding {
            file: format!("target/{platform}.toml"),
            line: None,
            item: None,
            message: message.to_owned(),
        });
    };
    let mut boot_services = Vec::new();
    let mut devices = Vec::new();
    let mut loads = false;
    for item in catalog.target(platform) {
        for step in &item.steps {
            match &step.action {
                Action::BootService(service) => boot_services.push(service),
                Action::Device(device) => devices.push((item, step.line, device)),
                Action::Loader(loader) => {
                    let to = loader.to.to_string();
                    loads |= to.eq_ignore_ascii_case(FALLBACK_LOADER);
                }
                _ => {}
            }
        }
    }
    let has = |role| devices.iter().any(|(_, _, device)| device.role == role);
    if !has(DeviceRole::Storage) {
        about_file("no storage controller: nothing says what Windows boots from");
    }
    if !has(DeviceRole::Network) {
        about_file("no network adapter");
    }
    if !loads {
        about_file(r"nothing puts a loader at EFI\Boot\bootx64.efi");
    }
    for (item, line, device) in devices {
        if !matches!(device.role, DeviceRole::Bus | DeviceRole::Storage) {
            continue;
        }
        let service = boot_services
            .iter()
            .find(|service| service.name == device.driver);
        match service {
            None => findings.push(finding(
                item,
                line,
                format!(
                    "{} has no boot-service: Windows would not start it",
                    device.driver
                ),
            )),
            Some(service) if service.inbox != device.inbox => findings.push(finding(
                item,
                line,
                format!(
                    "{} is {} as a device's driver and {} as a boot-service",
                    device.driver, device.inbox, service.inbox
                ),
            )),
            Some(_) => {}
        }
    }
}

const FALLBACK_LOADER: &str = r"EFI\Boot\bootx64.efi";
