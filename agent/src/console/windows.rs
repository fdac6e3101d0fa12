//! The part of the page that tells of a Windows.

use ce_platform::Platform;
use ce_platform::inspect::{
    Component, Computer, ControlSets, Driver, DriverKind, Family, Inspection, WindowsVersion,
};

use super::Style;
use super::columns::{aligned, printable};
use crate::job::InspectedWindows;

/// What is known of a Windows, ready to print.
pub(super) fn lines(found: &InspectedWindows, style: Style) -> Vec<String> {
    let Inspection {
        version,
        computer,
        control_sets,
        drivers,
        components,
        ..
    } = &found.inspection;
    let title = printable(&version.title());
    let place = match found.partition {
        Some(number) => format!("{} on partition {number}", printable(&found.folder)),
        None => printable(&found.folder),
    };
    let mut lines = vec![format!("{}  {place}", style.heading(&title))];
    let mut facts = facts(version, computer, control_sets);
    if let Some(platform) = found.source_platform {
        let platform = platform.parse().map_or(platform, Platform::title);
        facts.push(("comes from", platform.to_owned()));
    }
    let facts: Vec<Vec<String>> = facts
        .into_iter()
        .map(|(name, value)| vec![format!("  {name}"), printable(&value)])
        .collect();
    lines.extend(aligned(&facts, &[]));
    for (kind, heading) in [
        (DriverKind::Storage, "storage drivers"),
        (DriverKind::Network, "network drivers"),
    ] {
        let rows: Vec<_> = drivers
            .iter()
            .filter(|driver| driver.kind == kind)
            .map(driver_row)
            .collect();
        section(&mut lines, heading, &rows, style);
    }
    for (family, heading) in [
        (Family::Hypervisor, "hypervisor tools"),
        (Family::Citrix, "Citrix"),
    ] {
        let of_family = components
            .iter()
            .filter(|component| component.family == family);
        let rows: Vec<_> = of_family.map(component_row).collect();
        section(&mut lines, heading, &rows, style);
    }
    lines
}

fn section(lines: &mut Vec<String>, heading: &str, rows: &[Vec<String>], style: Style) {
    if rows.is_empty() {
        return;
    }
    lines.push(String::new());
    lines.push(format!("  {}", style.heading(heading)));
    lines.extend(aligned(rows, &[]));
}

fn facts(
    version: &WindowsVersion,
    computer: &Computer,
    control_sets: &ControlSets,
) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    let edition = [
        &version.edition,
        &version.installation_type,
        &version.architecture,
    ];
    let edition: Vec<&str> = edition.into_iter().flatten().map(String::as_str).collect();
    if !edition.is_empty() {
        facts.push(("edition", edition.join(", ")));
    }
    if !version.languages.is_empty() {
        facts.push(("languages", version.languages.join(", ")));
    }
    if let Some(installed) = version.installed {
        facts.push(("installed", installed.to_string()));
    }
    if let Some(shutdown) = version.last_shutdown {
        facts.push(("shut down", shutdown.to_string()));
    }
    if let Some(name) = &computer.name {
        let domain = computer.domain.as_deref().unwrap_or("unknown");
        let member = match computer.is_domain_member {
            Some(true) => format!(", member of the domain {domain}"),
            Some(false) => format!(", in the workgroup {domain}"),
            None if computer.domain.is_some() => format!(", DNS suffix {domain}"),
            None => String::new(),
        };
        facts.push(("computer", format!("{name}{member}")));
    }
    if computer.setup_in_progress {
        facts.push((
            "setup",
            "not finished: the image was generalized, or setup was cut".into(),
        ));
    }
    if !control_sets.present.is_empty() {
        facts.push(("control sets", sets(control_sets)));
    }
    facts
}

/// Such as `001 (current, default), 002 (last known good)`.
fn sets(sets: &ControlSets) -> String {
    let roles = [
        (sets.current, "current"),
        (sets.default, "default"),
        (sets.last_known_good, "last known good"),
        (sets.failed, "failed"),
    ];
    let described = sets.present.iter().map(|number| {
        let roles: Vec<&str> = roles
            .iter()
            .filter(|(set, _)| *set == Some(*number))
            .map(|(_, role)| *role)
            .collect();
        match roles.is_empty() {
            true => format!("{number:03}"),
            false => format!("{number:03} ({})", roles.join(", ")),
        }
    });
    described.collect::<Vec<_>>().join(", ")
}

fn driver_row(driver: &Driver) -> Vec<String> {
    let start = driver
        .start
        .map_or("-".to_owned(), |start| start.to_string());
    let overrides: Vec<String> = driver
        .start_override
        .iter()
        .map(|found| format!("{}={}", printable(&found.profile), found.start))
        .collect();
    let overrides = match overrides.is_empty() {
        true => String::new(),
        false => format!("StartOverride {}", overrides.join(" ")),
    };
    vec![
        format!("    {}", printable(&driver.service)),
        start,
        driver.title.unwrap_or("other maker").to_owned(),
        overrides,
    ]
}

fn component_row(component: &Component) -> Vec<String> {
    let version = component
        .version
        .as_deref()
        .map(printable)
        .unwrap_or_default();
    let state = match component.is_disabled() {
        true => "disabled".to_owned(),
        false => String::new(),
    };
    vec![format!("    {}", component.title), version, state]
}
