//! What a Windows is and what is installed in it, by its hives.
//!
//! A pure function from hives to an [`Inspection`]. Nothing of it fails: what cannot be read is
//! missing from the result, and a finding says so.

use serde::Serialize;

pub mod boot;
pub mod components;
pub mod drivers;
mod registry;
pub mod system;
pub mod time;

#[cfg(test)]
pub(crate) mod tests;

pub use boot::{BootEntry, BootStore};
pub use components::{Component, Family, platform_of};
pub use drivers::{Driver, DriverKind, Start};
pub use system::{Computer, ControlSets, WindowsVersion};
pub use time::UtcTime;

pub(crate) use registry::{Notes, Registry};

use crate::Platform;
use crate::hives::{HiveName, HiveSet, Recovery};
use drivers::Service;

/// The hives that an inspection looks into.
pub const HIVES: [HiveName; 3] = [HiveName::System, HiveName::Software, HiveName::Security];

/// A Windows, as its hives describe it.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// Which Windows it is.
    pub version: WindowsVersion,
    /// Whose machine it is.
    pub computer: Computer,
    /// The control sets.
    pub control_sets: ControlSets,
    /// The drivers for storage and network.
    pub drivers: Vec<Driver>,
    /// Tools of hypervisors, and parts of Citrix.
    pub components: Vec<Component>,
    /// A prepare that Windows has not run after.
    #[serde(skip)]
    pub prepared: Option<Prepared>,
    /// What could not be read, and what had to be done to read the rest.
    pub findings: Vec<String>,
}

/// A prepare that waits for its first boot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Prepared {
    /// Where the image came from; `None`: that was not known.
    pub from: Option<Platform>,
    /// Where it was to run.
    pub to: Option<Platform>,
}

impl Inspection {
    /// Looks through `hives`, of which [`HIVES`] are of use.
    pub fn of(hives: &HiveSet) -> Self {
        let notes = Notes::of(hive_findings(hives));
        let registry = |name: HiveName| {
            let loaded = hives.hive(name)?;
            Some(Registry::new(name.file(), &loaded.hive, &notes))
        };
        let system = registry(HiveName::System);
        let software = registry(HiveName::Software);
        let security = registry(HiveName::Security);
        let control_sets = system.map(ControlSets::read).unwrap_or_default();
        let set = control_sets.key();
        let of_set = system.zip(set.as_deref());
        let services = of_set
            .map(|(system, set)| Service::all(system, set))
            .unwrap_or_default();
        let mut inspection = Self {
            version: WindowsVersion::read(of_set, software),
            computer: Computer::read(of_set, security),
            drivers: drivers::of_interest(&services),
            components: components::installed(software, &services),
            prepared: of_set.and_then(|(system, set)| Prepared::read(system, set)),
            control_sets,
            findings: Vec::new(),
        };
        inspection.findings = notes.into_findings();
        inspection
    }

    /// The platform that it comes from: the one that it was prepared from, until it has run since; else
    /// the one whose tools are in it, if they agree.
    pub fn platform(&self) -> Option<Platform> {
        match self.prepared {
            Some(prepared) => prepared.from,
            None => platform_of(&self.components),
        }
    }

    /// The platform that a prepare for `to` takes out what was left by. One that has changed its mind
    /// about the target has left something as well, so that all platforms are meant.
    pub fn platform_for(&self, to: Platform) -> Option<Platform> {
        let is_other = |prepared: &Prepared| prepared.to != Some(to);
        match self.prepared.filter(is_other) {
            Some(_) => None,
            None => self.platform(),
        }
    }
}

impl Prepared {
    fn read(system: Registry<'_>, set: &str) -> Option<Self> {
        let key = format!(r"{set}\Services\{FIRST_BOOT_SERVICE}");
        let platform = |name: &str| system.text(&key, name)?.parse().ok();
        system.key(&key).map(|_| Self {
            from: platform(PREPARED_FROM),
            to: platform(PREPARED_TO),
        })
    }
}

/// The service that completes a prepare when Windows boots first, and values of its key: platforms by
/// name.
pub(crate) const FIRST_BOOT_SERVICE: &str = "ce-first-boot";
pub(crate) const PREPARED_FROM: &str = "PreparedFrom";
pub(crate) const PREPARED_TO: &str = "PreparedTo";

fn hive_findings(hives: &HiveSet) -> Vec<String> {
    let mut findings = Vec::new();
    for (name, hive) in hives.all() {
        match hive {
            Ok(hive) if hive.recovery != Recovery::NotNeeded => {
                findings.push(format!("{name} hive: {}", hive.recovery));
            }
            Ok(_) => {}
            Err(problem) => findings.push(format!("{name} hive: {}", chain(problem))),
        }
    }
    findings
}

/// An error and everything that caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
