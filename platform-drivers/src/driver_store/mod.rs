//! The driver store of an offline Windows: what a package becomes when it is installed.
//!
//! ```text
//!  package + plans --names--> label, oemN.inf
//!                  --database--> DriverDatabase (SYSTEM or DRIVERS hive)
//!                  --critical--> CriticalDeviceDatabase (without DriverDatabase)
//!                  --services--> Services
//!                  --lockdown--> PnpLockdownFiles (SOFTWARE hive)
//! ```
//!
//! Pure functions from an [`InstallPlan`] and what the hives hold to edits; nothing is written here.
//! Not made here: the files of the store.

pub mod critical;
pub mod database;
pub mod lockdown;
pub mod names;
pub mod services;

use uuid::Uuid;

use crate::inf::{Architecture, DriverVersion, InstallPlan};

/// A package on its way into a Windows.
#[derive(Clone, Copy, Debug)]
pub struct StagedPackage<'p> {
    /// Its folder and key: [`names::package_label`].
    pub label: &'p str,
    /// `oem4.inf`: from [`names::OemNames::allocate`].
    pub published_name: &'p str,
    /// The INF's own name.
    pub inf_name: &'p str,
    /// For what machine.
    pub architecture: Architecture,
    /// `ClassGuid`.
    pub class: Option<Uuid>,
    /// `DriverVer`.
    pub driver: Option<DriverVersion>,
    /// `Provider`.
    pub provider: Option<&'p str>,
    /// Who signed its catalogue.
    pub signer: Option<&'p str>,
    /// Whether that is Microsoft's hardware programme.
    pub is_hardware_programme: bool,
    /// The catalogue's name.
    pub catalog: Option<&'p str>,
    /// Where it came from, as a path of the guest's or a word.
    pub oem_path: &'p str,
    /// What installing each of its devices does.
    pub plans: &'p [InstallPlan],
    /// Whether the database is that of Windows 10 and later, which has more values.
    pub is_windows_10: bool,
    /// The time of the installation, as a FILETIME.
    pub now: u64,
}

#[cfg(test)]
mod tests;
