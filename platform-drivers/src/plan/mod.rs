//! Plans of changes to an offline Windows: every change of a key or file, with the item of the
//! catalogue that asks for it and why.
//!
//! ```text
//!  Preparation (catalogue) --+
//!  Inspection, HiveSet ------+--> plan --> EditPlan --> text, JSON (`changes` of a job)
//!  WindowsVolume, boot files +      |         \-------> apply
//!  JobOptions, bundle -------+      v
//!                        the hives in memory, changed step by step
//! ```
//!
//! Planning is a pure function: it reads, and writes nothing. Steps are planned in the order in
//! which they are to be done, against hives in memory that have the steps before in them; so two
//! steps about one list agree, and a hive that has no room for a change says so before anything is
//! written. What is already as asked is said and not done again: the plan of a prepared Windows has
//! nothing to do.
//!
//! A driver that the target needs, that Windows does not have and that is not installed is put in from
//! the bundle, or becomes a [`DriverBlocker`]. A plan with blockers is not to be applied.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ce_disk::volume::{VolumeError, WinPath, WindowsVolume};
use ce_regf::{EditError, FileTime, Hive, RegValue};

use crate::Platform;
use crate::bundle::{Found, Installer};
use crate::catalog::schema::{Action, Architecture, JobField, Product, Provisioning};
use crate::catalog::{Item, Preparation};
use crate::hives::HiveSet;
use crate::inspect::Inspection;

mod boot;
mod critical;
pub(crate) mod draft;
pub mod edit;
mod files;
mod filters;
mod first_boot;
mod install;
mod network;
mod packages;
mod recovery;
mod services;
mod settings;
mod show;

pub use boot::{BootDriver, DriverBlocker};
pub use edit::{Reason, RegistryEdit, RegistryEditKind};
pub use recovery::plan_recovery;
pub use show::ChangeLine;

use draft::{Draft, Store, Stores};
use first_boot::ScriptStep;

/// What there is to plan with.
#[derive(Clone, Copy)]
pub struct Machine<'m> {
    /// What is to be done for this pair of platforms.
    pub preparation: &'m Preparation<'m>,
    /// What this Windows is.
    pub inspection: &'m Inspection,
    /// Its volume.
    pub volume: &'m dyn WindowsVolume,
    /// The folder of Windows on it.
    pub folder: &'m WinPath,
    /// The volume that it starts from.
    pub boot: Option<BootVolume<'m>>,
    /// What the job asks for.
    pub options: &'m JobOptions,
    /// Driver packages that may be put in.
    pub bundle: &'m [Found],
    /// Installers that the first boot may run.
    pub installers: &'m [Installer],
    /// The time that they are entered with.
    pub now: FileTime,
}

/// The EFI system partition.
#[derive(Clone, Copy)]
pub struct BootVolume<'m> {
    /// Its files.
    pub volume: &'m dyn WindowsVolume,
    /// Its boot configuration data ([`BCD`]).
    pub store: &'m Hive,
}

/// What a job asks for beyond the platform.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct JobOptions {
    /// How machines are made of the image.
    pub provisioning: Option<Provisioning>,
    /// `domainUnjoin`
    pub domain_unjoin: bool,
    /// `installMisa`
    pub install_misa: bool,
    /// `xdReconfigure.controllers`
    pub controllers: Vec<String>,
    /// `xdReconfigure.portNumber`
    pub port_number: Option<u16>,
    /// `xdReconfigure.enableHdxPorts`
    pub enable_hdx_ports: bool,
    /// `network`
    pub network: Network,
}

/// What becomes of the addresses of the image.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Network {
    /// Every adapter asks DHCP.
    Dhcp,
    /// What was set by hand is set again on the new machine.
    #[default]
    Keep,
}

impl JobOptions {
    fn asks_for(&self, field: JobField) -> bool {
        match field {
            JobField::DomainUnjoin => self.domain_unjoin,
            JobField::InstallMisa => self.install_misa,
            JobField::XdEnableHdxPorts => self.enable_hdx_ports,
            JobField::XdControllers | JobField::XdPortNumber => self.value(field).is_some(),
        }
    }

    /// What goes into the registry for `field`.
    fn value(&self, field: JobField) -> Option<RegValue> {
        match field {
            JobField::XdControllers if !self.controllers.is_empty() => {
                Some(RegValue::sz(&self.controllers.join(" ")))
            }
            JobField::XdPortNumber => self.port_number.map(|port| RegValue::dword(port.into())),
            _ => None,
        }
    }
}

/// Everything that a prepare does, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct EditPlan {
    /// Where the image comes from; `None`: from any other platform.
    pub from: Option<Platform>,
    /// Where it is to run.
    pub to: Platform,
    /// The edits, in the order in which they are to be done.
    pub edits: Vec<Edit>,
    /// Drivers that the target needs and that are not there.
    pub blockers: Vec<DriverBlocker>,
    /// Drivers that it boots with and that are not part of this Windows, whether they were in it or are
    /// put in.
    pub boot_drivers: Vec<BootDriver>,
}

/// One change, or why there is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    /// The id of the catalogue's item that asks for it.
    pub item: String,
    /// What changes.
    pub change: Change,
    /// Whether it does.
    pub state: State,
}

/// What changes.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// An element of the boot configuration data; keys are below the store's root.
    BootStore {
        /// The key.
        key: String,
        /// What happens to it.
        change: RegistryEditKind,
        /// Why.
        reason: Reason,
    },
    /// A file of the EFI system partition becomes a copy of another one there.
    CopyLoader {
        /// What is copied.
        from: WinPath,
        /// Where to.
        to: WinPath,
        /// Why.
        reason: Reason,
    },
    /// A file or an empty folder of Windows is deleted.
    Delete {
        /// Which one.
        path: WinPath,
        /// Why.
        reason: Reason,
    },
    /// Something that only the running Windows can do.
    FirstBoot {
        /// What.
        step: FirstBootStep,
        /// Why.
        reason: Reason,
    },
    /// A key or value of Windows.
    Registry(RegistryEdit),
    /// Something that is left as it is, in words.
    Subject {
        /// What it is.
        what: String,
        /// Why it was looked at.
        reason: Reason,
    },
    /// The definition of a scheduled task.
    Task {
        /// Its file.
        path: WinPath,
        /// All of the new definition.
        content: Vec<u8>,
        /// Why.
        reason: Reason,
    },
    /// A file of Windows gets this content, and is made if it is not there: of a driver, or for the
    /// first boot.
    Write {
        /// The file.
        path: WinPath,
        /// All of it.
        content: Vec<u8>,
        /// Why.
        reason: Reason,
    },
}

impl Change {
    /// Why it is made.
    pub fn reason(&self) -> &Reason {
        match self {
            Self::Registry(edit) => &edit.reason,
            Self::BootStore { reason, .. }
            | Self::CopyLoader { reason, .. }
            | Self::Delete { reason, .. }
            | Self::FirstBoot { reason, .. }
            | Self::Subject { reason, .. }
            | Self::Task { reason, .. }
            | Self::Write { reason, .. } => reason,
        }
    }
}

/// What is done when Windows boots first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FirstBootStep {
    /// Sets what an adapter of the old machine had on the one that takes its place.
    CarryAddresses {
        /// What people call the old one.
        adapter: String,
        /// What is set.
        settings: String,
    },
    /// Installs an installer of the bundle.
    Install(String),
    /// Takes out an adapter of the old machine, if the new one does not have it.
    RemoveGhost(String),
    /// Runs a command.
    Run(String),
    /// Uninstalls the product of this name.
    Uninstall(String),
    /// Uninstalls whatever has this upgrade code.
    UninstallUpgradeCode(String),
}

/// Whether a change is made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum State {
    /// It is as it should be.
    AlreadySo,
    /// The running Windows does it when it boots first.
    Deferred,
    /// It is not made.
    Skipped {
        /// Why.
        why: String,
    },
    /// It is to be made.
    ToDo,
}

impl EditPlan {
    /// The edits that change something.
    pub fn to_do(&self) -> impl Iterator<Item = &Edit> {
        self.edits.iter().filter(|edit| edit.state == State::ToDo)
    }

    /// What waits for the first boot.
    pub fn first_boot(&self) -> impl Iterator<Item = (&str, &FirstBootStep)> {
        self.edits.iter().filter_map(|edit| match &edit.change {
            Change::FirstBoot { step, .. } if edit.state == State::Deferred => {
                Some((edit.item.as_str(), step))
            }
            _ => None,
        })
    }
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A hive cannot be read or changed there.
    #[error("the {hive} hive cannot be changed at \"{key}\"")]
    Hive {
        /// Which one.
        hive: &'static str,
        /// Where.
        key: String,
        /// Why.
        #[source]
        source: EditError,
    },
    /// A hive that everything is about is not there.
    #[error("the {hive} hive is not there")]
    NoHive {
        /// Which one.
        hive: &'static str,
    },
    /// What Windows it is, is not known.
    #[error("which Windows it is cannot be told: its {missing} is not in its hives")]
    UnknownWindows {
        /// What is missing.
        missing: &'static str,
    },
    /// There is no end of it.
    #[error("the {hive} hive has more in it than is looked through ({limit} keys and values)")]
    TooLarge {
        /// Which one.
        hive: &'static str,
        /// How many are.
        limit: usize,
    },
    /// A folder that is to be deleted is larger than anything that a platform leaves behind.
    #[error("{folder} has more than {limit} files and folders in it")]
    FolderTooLarge {
        /// Which one.
        folder: String,
        /// How many are deleted at most.
        limit: usize,
    },
    /// The volume cannot be read.
    #[error("the volume cannot be read")]
    Volume(#[from] VolumeError),
}

impl PlanError {
    /// The stable code of its kind.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Hive { .. } | Self::NoHive { .. } | Self::TooLarge { .. } => "HiveCorrupt",
            Self::UnknownWindows { .. } => "UnsupportedWindows",
            Self::FolderTooLarge { .. } => "Internal",
            Self::Volume(_) => "DiskReadFailed",
        }
    }
}

/// Plans what `machine` needs. Reads, and writes nothing.
///
/// `hives` are those of its Windows: SYSTEM and SOFTWARE, and DRIVERS where there is one. They are used
/// up, as the plan is tried out on them and the largest are too large to be in memory twice.
///
/// # Errors
///
/// [`PlanError`]. A driver that is missing is none: see [`EditPlan::blockers`].
pub fn plan(machine: &Machine<'_>, hives: HiveSet) -> Result<EditPlan, PlanError> {
    let windows = Windows::of(machine.inspection)?;
    let boot = machine.boot.map(|boot| boot.store);
    let mut stores = Stores::of(hives, boot);
    let draft = stores.draft()?;
    for store in [Store::System, Store::Software] {
        if !draft.has(store) {
            return Err(PlanError::NoHive { hive: store.name() });
        }
    }
    let mut planner = Planner::new(machine, windows, draft);
    planner.run()?;
    Ok(planner.into_plan())
}

/// What decides which items and drivers are meant.
#[derive(Clone, Copy)]
struct Windows {
    build: u32,
    architecture: Architecture,
    product: Product,
}

impl Windows {
    fn of(inspection: &Inspection) -> Result<Self, PlanError> {
        let version = &inspection.version;
        let unknown = |missing| PlanError::UnknownWindows { missing };
        let architecture = match version.architecture.as_deref() {
            Some("x64") => Architecture::Amd64,
            Some("x86") => Architecture::X86,
            Some("arm64") => Architecture::Arm64,
            _ => return Err(unknown("processor architecture")),
        };
        let is_server = |kind: &String| kind.starts_with("Server");
        let server = version.installation_type.as_ref().is_some_and(is_server);
        Ok(Self {
            build: version.build.ok_or_else(|| unknown("build"))?,
            architecture,
            product: match server {
                true => Product::Server,
                false => Product::Workstation,
            },
        })
    }
}

struct Planner<'p, 'c> {
    machine: &'p Machine<'p>,
    windows: Windows,
    draft: Draft<'c>,
    /// The keys of all control sets.
    sets: Vec<String>,
    edits: Vec<Edit>,
    blockers: Vec<DriverBlocker>,
    boot_drivers: Vec<BootDriver>,
    /// Files that are added so far, with the machine of those that are programs.
    added: Vec<(WinPath, Option<u16>)>,
    /// What is done when Windows boots first.
    script: Vec<ScriptStep>,
    /// What stands in filter lists of a control set once all filters are planned.
    filter_names: BTreeMap<String, BTreeSet<String>>,
    /// The item whose steps are planned.
    item: String,
    reason: Reason,
}

impl<'p, 'c> Planner<'p, 'c> {
    fn new(machine: &'p Machine<'p>, windows: Windows, draft: Draft<'c>) -> Self {
        let present = machine.inspection.control_sets.present.iter();
        Self {
            machine,
            windows,
            draft,
            sets: present
                .map(|number| format!("ControlSet{number:03}"))
                .collect(),
            edits: Vec::new(),
            blockers: Vec::new(),
            boot_drivers: Vec::new(),
            added: Vec::new(),
            script: Vec::new(),
            filter_names: BTreeMap::new(),
            item: String::new(),
            reason: Reason(String::new()),
        }
    }

    fn into_plan(self) -> EditPlan {
        EditPlan {
            from: self.machine.preparation.from,
            to: self.machine.preparation.to,
            edits: self.edits,
            blockers: self.blockers,
            boot_drivers: self.boot_drivers,
        }
    }

    fn run(&mut self) -> Result<(), PlanError> {
        let preparation = self.machine.preparation;
        self.devices(preparation)?;
        for (item, step) in preparation.steps() {
            if !self.is_meant(item) {
                continue;
            }
            self.begin(item);
            match &step.action {
                // Devices were looked at as a whole.
                Action::Leave(_) | Action::Device(_) => {}
                Action::BootService(service) => self.boot_service(item, service)?,
                Action::Filter(rule) => self.filter(rule)?,
                Action::NetworkProvider(provider) => self.network_provider(&provider.name)?,
                Action::Service(rule) => self.service(rule)?,
                Action::RunEntry(entry) => self.run_entry(entry.name.as_str())?,
                Action::Task(rule) => self.task(rule)?,
                Action::Registry(rule) => self.registry(rule)?,
                Action::Package(rule) => self.package(&rule.inf)?,
                Action::File(rule) => self.file(rule)?,
                Action::BootOption(option) => self.boot_option(option)?,
                Action::Loader(loader) => self.loader(loader)?,
                Action::FirstBoot(step) => self.first_boot(item, step)?,
            }
        }
        self.network()?;
        self.first_boot_service()
    }

    fn begin(&mut self, item: &Item) {
        self.item = item.about.id.to_string();
        self.reason = Reason(item.about.why.to_string());
    }

    fn is_meant(&self, item: &Item) -> bool {
        let (when, windows) = (&item.about.when, self.windows);
        let options = self.machine.options;
        when.holds_for(windows.build, windows.architecture, windows.product)
            && (when.provisioning.is_none() || when.provisioning == options.provisioning)
            && when.asked.is_none_or(|field| options.asks_for(field))
    }

    /// Plans a change of a hive. What is as asked already is said for values that are set, and not
    /// for what was to go and is not there.
    fn change(
        &mut self,
        store: Store,
        key: &str,
        change: RegistryEditKind,
    ) -> Result<(), PlanError> {
        let state = match self.draft.change(store, key, &change)? {
            None => return Ok(()),
            Some(true) => State::ToDo,
            Some(false) => match change {
                RegistryEditKind::CreateKey | RegistryEditKind::SetValue { .. } => State::AlreadySo,
                RegistryEditKind::DeleteKey | RegistryEditKind::DeleteValue { .. } => return Ok(()),
            },
        };
        let (key, reason) = (key.to_owned(), self.reason.clone());
        let change = match store.hive() {
            Some(hive) => Change::Registry(RegistryEdit {
                hive,
                key,
                change,
                reason,
            }),
            None => Change::BootStore {
                key,
                change,
                reason,
            },
        };
        self.push(change, state);
        Ok(())
    }

    fn set(
        &mut self,
        store: Store,
        key: &str,
        name: &str,
        value: RegValue,
    ) -> Result<(), PlanError> {
        let name = name.to_owned();
        self.change(store, key, RegistryEditKind::SetValue { name, value })
    }

    fn delete_value(&mut self, store: Store, key: &str, name: &str) -> Result<(), PlanError> {
        let name = name.to_owned();
        self.change(store, key, RegistryEditKind::DeleteValue { name })
    }

    fn delete_key(&mut self, store: Store, key: &str) -> Result<(), PlanError> {
        self.change(store, key, RegistryEditKind::DeleteKey)
    }

    /// Sets a list without `gone`; an empty one goes.
    fn shorten(
        &mut self,
        store: Store,
        key: &str,
        name: &str,
        is_gone: impl Fn(&str) -> bool,
    ) -> Result<(), PlanError> {
        let Some(list) = self.draft.list(store, key, name)? else {
            return Ok(());
        };
        let left: Vec<&String> = list.iter().filter(|entry| !is_gone(entry)).collect();
        if left.len() == list.len() {
            return Ok(());
        }
        if left.is_empty() {
            self.delete_value(store, key, name)
        } else {
            self.set(store, key, name, RegValue::multi_sz(left))
        }
    }

    fn push(&mut self, change: Change, state: State) {
        self.edits.push(Edit {
            item: self.item.clone(),
            change,
            state,
        });
    }

    fn skip(&mut self, what: String, why: String) {
        let reason = self.reason.clone();
        self.push(Change::Subject { what, reason }, State::Skipped { why });
    }

    /// A path of a catalogue, which calls the folder of Windows `Windows`.
    fn place(&self, path: &WinPath) -> Option<WinPath> {
        let mut names = path.components();
        let first = names.next()?;
        let rest: Vec<&str> = names.collect();
        match (first.eq_ignore_ascii_case("Windows"), rest.as_slice()) {
            (true, []) => Some(self.machine.folder.clone()),
            (true, rest) => self.machine.folder.join(&rest.join("\\")).ok(),
            (false, _) => Some(path.clone()),
        }
    }

    /// A path below the folder of Windows.
    fn in_windows(&self, path: &str) -> Option<WinPath> {
        self.machine.folder.join(path).ok()
    }
}

impl fmt::Display for FirstBootStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CarryAddresses { adapter, settings } => write!(
                f,
                "carry addresses of {adapter:?} to the adapter in its place: {settings}"
            ),
            Self::RemoveGhost(adapter) => {
                write!(f, "take out {adapter:?}, unless the new machine has it")
            }
            Self::Install(file) => write!(f, "install {file}"),
            Self::Run(command) => write!(f, "run {command}"),
            Self::Uninstall(name) => write!(f, "uninstall \"{name}\""),
            Self::UninstallUpgradeCode(code) => write!(f, "uninstall what has upgrade code {code}"),
        }
    }
}

/// The boot configuration data on the EFI system partition.
pub const BCD: &str = r"EFI\Microsoft\Boot\BCD";
