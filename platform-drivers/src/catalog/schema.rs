//! What a catalogue can say: items, and the actions of items.
//!
//! Every type here refuses what it does not know, so a misspelt field is an error and not an
//! action that never happens. `catalog/README.md` explains the same to those who write catalogues.

use ce_disk::volume::WinPath;
use serde::Deserialize;

use super::value::{
    BuildRange, Evidence, FileName, Guid, HardwareId, ImageName, Inbox, ItemId, RegistryKey,
    Sentence, ServiceName,
};
use crate::Platform;

mod registry;

use self::registry::check_hive;
pub use self::registry::{Condition, HiveName, RegistryData, RegistryEdit, RegistryRule};

/// What an item says of itself, beside its actions.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Description {
    /// Names it, in every catalogue.
    pub id: ItemId,
    /// What it is, in a few words.
    pub title: Sentence,
    /// Why it has to be dealt with.
    pub why: Sentence,
    /// What shows that it is right; never empty in a catalogue that passes the checks.
    pub evidence: Vec<Evidence>,
    /// Which Windows and which jobs it is for.
    #[serde(default)]
    pub when: When,
    /// In a target's catalogue: what it is about.
    pub area: Option<Area>,
    /// In a removal catalogue: targets that need it, for which it stays.
    #[serde(default, deserialize_with = "platforms")]
    pub keep_for: Vec<Platform>,
    /// In a removal catalogue: other platforms that leave the same behind.
    #[serde(default, deserialize_with = "platforms")]
    pub also_from: Vec<Platform>,
}

/// What an item of a target's catalogue is about.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(rename_all = "kebab-case")]
pub enum Area {
    /// What Windows reads its disk with.
    BootStorage,
    /// Firmware, boot loader and its options.
    BootConfiguration,
    /// Adapters and their settings.
    Network,
    /// All else.
    Settings,
}

/// Which Windows and which jobs an item is for. Empty: all of them.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct When {
    /// Builds of Windows.
    pub build: Option<BuildRange>,
    /// Processor architecture.
    pub architecture: Option<Architecture>,
    /// Workstation or server.
    pub product: Option<Product>,
    /// How the image is to be provisioned.
    pub provisioning: Option<Provisioning>,
    /// The field of the job that has to be there, or to be true.
    pub asked: Option<JobField>,
}

impl When {
    /// Whether Windows is one of those that are meant.
    pub fn holds_for(&self, build: u32, architecture: Architecture, product: Product) -> bool {
        self.build.is_none_or(|builds| builds.contains(build))
            && self.architecture.is_none_or(|meant| meant == architecture)
            && self.product.is_none_or(|meant| meant == product)
    }
}

/// Processor architectures.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Architecture {
    /// 64-bit x86.
    Amd64,
    /// 64-bit ARM.
    Arm64,
    /// 32-bit x86.
    X86,
}

/// What Windows is sold as.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Product {
    /// Windows Server.
    Server,
    /// Windows 10, 11.
    Workstation,
}

/// How machines are made of the image.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Provisioning {
    /// Machine Creation Services.
    Mcs,
    /// Provisioning Services.
    Pvs,
}

/// Fields of a job that items depend on or take data from.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
pub enum JobField {
    /// `domainUnjoin`
    #[serde(rename = "domainUnjoin")]
    DomainUnjoin,
    /// `installMisa`
    #[serde(rename = "installMisa")]
    InstallMisa,
    /// `xdReconfigure.controllers`
    #[serde(rename = "xdReconfigure.controllers")]
    XdControllers,
    /// `xdReconfigure.portNumber`
    #[serde(rename = "xdReconfigure.portNumber")]
    XdPortNumber,
    /// `xdReconfigure.enableHdxPorts`
    #[serde(rename = "xdReconfigure.enableHdxPorts")]
    XdEnableHdxPorts,
}

impl JobField {
    /// The name in a job.
    pub fn name(self) -> &'static str {
        match self {
            Self::DomainUnjoin => "domainUnjoin",
            Self::InstallMisa => "installMisa",
            Self::XdControllers => "xdReconfigure.controllers",
            Self::XdEnableHdxPorts => "xdReconfigure.enableHdxPorts",
            Self::XdPortNumber => "xdReconfigure.portNumber",
        }
    }
}

/// One thing that an item has done, in the order in which kinds of actions are done: see
/// [`Action::phase`].
#[derive(Clone, Debug)]
pub enum Action {
    /// `[[item.boot-service]]`
    BootService(BootService),
    /// `[[item.boot-option]]`
    BootOption(BootOption),
    /// `[[item.device]]`
    Device(Device),
    /// `[[item.file]]`
    File(FileRule),
    /// `[[item.filter]]`
    Filter(FilterRule),
    /// `[[item.first-boot]]`
    FirstBoot(FirstBoot),
    /// `[[item.leave]]`
    Leave(Leave),
    /// `[[item.loader]]`
    Loader(Loader),
    /// `[[item.network-provider]]`
    NetworkProvider(NetworkProvider),
    /// `[[item.package]]`
    Package(PackageRule),
    /// `[[item.registry]]`
    Registry(RegistryRule),
    /// `[[item.run-entry]]`
    RunEntry(RunEntry),
    /// `[[item.service]]`
    Service(ServiceRule),
    /// `[[item.task]]`
    Task(TaskRule),
}

impl Action {
    /// When it is done: lower first. What boots the target is made ready before anything is taken
    /// away, and filters are stripped before the services that they name are disabled: a class
    /// filter without its service keeps every device of the class from starting.
    pub fn phase(&self) -> u8 {
        match self {
            Self::Leave(_) => 0,
            Self::Device(_) => 1,
            Self::BootService(_) => 2,
            Self::Filter(_) => 3,
            Self::NetworkProvider(_) => 4,
            // Such a list names a file that is loaded, as filters and providers are.
            Self::Registry(rule) if matches!(rule.edit, RegistryEdit::RemoveEntry { .. }) => 4,
            Self::Service(_) => 5,
            Self::RunEntry(_) => 6,
            Self::Task(_) => 7,
            Self::Registry(_) => 8,
            Self::Package(_) => 9,
            Self::File(_) => 10,
            Self::BootOption(_) => 11,
            Self::Loader(_) => 12,
            Self::FirstBoot(_) => 13,
        }
    }
}

/// A service to disable, delete or start otherwise. One that is not there is no error.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ServiceRule {
    /// Its name, exact.
    pub name: ServiceName,
    /// What kind of service it is; one of another kind is another one, and stays.
    pub kind: ServiceKind,
    /// File names of its program, any of them; a service whose program has another name stays.
    #[serde(default)]
    pub image: Vec<ImageName>,
    /// What becomes of it.
    pub action: ServiceAction,
}

/// Kinds of services.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceKind {
    /// A driver that is also a filter of a device class; its filter entries have to go first.
    ClassFilter,
    /// A driver that is also a filter of single devices; its filter entries have to go first.
    DeviceFilter,
    /// A kernel or file system driver.
    Driver,
    /// A program: Type 0x10 and above.
    Program,
}

/// What becomes of a service.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceAction {
    /// Start = 2.
    Automatic,
    /// The key is deleted.
    Delete,
    /// Start = 4.
    Disable,
    /// Start = 3.
    Manual,
}

impl ServiceAction {
    /// Whether the service does not run after it.
    pub fn takes_out(self) -> bool {
        matches!(self, Self::Delete | Self::Disable)
    }
}

/// A driver to take out of the filters of a device class or of devices.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FilterRule {
    /// The service that the filter entry names.
    pub driver: ServiceName,
    /// Whose filters.
    pub scope: FilterScope,
    /// Above, below, or both.
    pub position: FilterPosition,
}

/// Whose filters are meant.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub enum FilterScope {
    /// A device class.
    Class(Guid),
    /// Every device class.
    EveryClass,
    /// Every device below `Enum`.
    EveryDevice,
}

impl TryFrom<String> for FilterScope {
    type Error = super::value::InvalidWord;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "every-class" => Ok(Self::EveryClass),
            "every-device" => Ok(Self::EveryDevice),
            class => class.parse().map(Self::Class),
        }
    }
}

/// Which filters.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum FilterPosition {
    /// `UpperFilters` and `LowerFilters`
    Both,
    /// `LowerFilters`
    Lower,
    /// `UpperFilters`
    Upper,
}

/// A driver package to take out of the driver store, published as `oemN.inf`. One that Windows
/// itself brought, under the INF's own name, is never meant.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PackageRule {
    /// The INF's original name.
    pub inf: FileName,
}

/// A provider to take out of the order of network providers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NetworkProvider {
    /// Its service.
    pub name: ServiceName,
}

/// A scheduled task.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TaskRule {
    /// Its folder and name below `\Windows\System32\Tasks`.
    #[serde(deserialize_with = "path")]
    pub path: WinPath,
    /// What becomes of it.
    pub action: TaskAction,
}

/// What becomes of a task.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum TaskAction {
    /// It is deleted.
    Delete,
    /// It stays and does not run.
    Disable,
}

/// A value of the `Run` key, of 64-bit and of 32-bit programs, to delete.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RunEntry {
    /// Its name, exact.
    pub name: Sentence,
}

/// A file or folder to delete.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FileRule {
    /// Where it is on the volume of Windows.
    #[serde(deserialize_with = "path")]
    pub path: WinPath,
    /// What it is; something else of this name stays.
    pub kind: FileKind,
}

/// What is at a path.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// A file.
    File,
    /// A folder with all that is in it.
    Folder,
}

/// Something that is known and stays, and that no other item may touch.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "RawLeave")]
pub enum Leave {
    /// What is at a path.
    File(WinPath),
    /// A driver package.
    Package(FileName),
    /// A service.
    Service(ServiceName),
}

/// A driver that has to be there and to start when Windows boots: Start = 0, no `StartOverride`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BootService {
    /// Its name.
    pub name: ServiceName,
    /// The load order group.
    pub group: Sentence,
    /// Its file in `Windows\System32\drivers`; one of these names, where packages differ.
    pub images: Vec<FileName>,
    /// Where it comes from.
    pub inbox: Inbox,
}

/// A device that the target shows to Windows.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Device {
    /// What it is called.
    pub title: Sentence,
    /// Its hardware ids.
    pub ids: Vec<HardwareId>,
    /// What it is for.
    pub role: DeviceRole,
    /// The service that drives it.
    pub driver: ServiceName,
    /// INFs that name the device, by their original names: Windows' own and the vendor's.
    pub infs: Vec<FileName>,
    /// Where the driver comes from.
    pub inbox: Inbox,
    /// What happens without a driver.
    pub need: Need,
}

/// What a device is for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceRole {
    /// What other devices hang on.
    Bus,
    /// A network adapter.
    Network,
    /// Anything else.
    Other,
    /// A storage controller.
    Storage,
}

/// What a missing driver means.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// Prepare is refused.
    Required,
    /// It is said; one storage controller with a driver has to remain.
    Wanted,
}

/// An element of the boot configuration data.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "RawBootOption")]
pub struct BootOption {
    /// The object.
    pub object: BootObject,
    /// The element's type: eight hex digits, as its key has them.
    pub element: u32,
    /// What `bcdedit` calls it.
    pub name: Sentence,
    /// What becomes of it.
    pub value: BootValue,
}

/// Objects of the boot configuration data.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum BootObject {
    /// The boot manager.
    BootManager,
    /// The entry that is booted when nobody chooses.
    DefaultLoader,
    /// The settings for the serial console.
    EmsSettings,
}

/// What becomes of an element.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BootValue {
    /// It is true or false.
    Boolean(bool),
    /// It is deleted.
    Deleted,
    /// It is this number.
    Integer(u64),
}

/// A file to have on the EFI system partition as a copy of another one there.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Loader {
    /// What is copied.
    #[serde(deserialize_with = "path")]
    pub from: WinPath,
    /// Where to, when nothing or something else is there.
    #[serde(deserialize_with = "path")]
    pub to: WinPath,
}

/// What can be done in the running Windows only, and is done when it boots first.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "RawFirstBoot")]
pub enum FirstBoot {
    /// Installs an installer of the bundle.
    Install(FileName),
    /// Runs a program with arguments; the path may begin with an environment variable.
    Run(Sentence),
    /// Runs the uninstaller of the product with exactly this name in the list of programs.
    Uninstall(Sentence),
    /// Runs the uninstaller of whatever Windows Installer knows under this upgrade code.
    UninstallUpgradeCode(Guid),
}

/// `[[item.detect]]`: what shows that a component is there. One sign is enough.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "RawSign")]
pub enum Sign {
    /// A file or folder.
    File(WinPath),
    /// A registry key.
    Key(HiveName, RegistryKey),
    /// A service.
    Service(ServiceName),
}

/// `[[group]]` of the protected set: what no removal may touch, whatever the platforms.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Protected {
    /// Names it.
    pub id: ItemId,
    /// What it is.
    pub title: Sentence,
    /// Why it may not be touched.
    pub why: Sentence,
    /// What shows that.
    pub evidence: Vec<Evidence>,
    /// Services.
    #[serde(default)]
    pub services: Vec<ServiceName>,
    /// Names of INF files.
    #[serde(default)]
    pub infs: Vec<FileName>,
    /// Filter drivers.
    #[serde(default)]
    pub filters: Vec<ServiceName>,
    /// Files and folders, and the folders that they are in. What is in a folder may be touched.
    #[serde(default, deserialize_with = "paths")]
    pub files: Vec<WinPath>,
    /// Keys of SYSTEM, and the keys that they are in. What is below may be touched.
    #[serde(default)]
    pub system_keys: Vec<RegistryKey>,
    /// The same for SOFTWARE.
    #[serde(default)]
    pub software_keys: Vec<RegistryKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawLeave {
    service: Option<ServiceName>,
    inf: Option<FileName>,
    #[serde(default, deserialize_with = "optional_path")]
    file: Option<WinPath>,
}

impl TryFrom<RawLeave> for Leave {
    type Error = &'static str;

    fn try_from(raw: RawLeave) -> Result<Self, Self::Error> {
        match (raw.service, raw.inf, raw.file) {
            (Some(service), None, None) => Ok(Self::Service(service)),
            (None, Some(inf), None) => Ok(Self::Package(inf)),
            (None, None, Some(file)) => Ok(Self::File(file)),
            _ => Err("expected exactly one of `service`, `inf` and `file`"),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawSign {
    service: Option<ServiceName>,
    #[serde(default, deserialize_with = "optional_path")]
    file: Option<WinPath>,
    hive: Option<HiveName>,
    key: Option<RegistryKey>,
}

impl TryFrom<RawSign> for Sign {
    type Error = &'static str;

    fn try_from(raw: RawSign) -> Result<Self, Self::Error> {
        match (raw.service, raw.file, raw.hive, raw.key) {
            (Some(service), None, None, None) => Ok(Self::Service(service)),
            (None, Some(file), None, None) => Ok(Self::File(file)),
            (None, None, Some(hive), Some(key)) => {
                check_hive(hive, &key).map(|()| Self::Key(hive, key))
            }
            _ => Err("expected exactly one of `service`, `file`, or `hive` with `key`"),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawFirstBoot {
    install: Option<FileName>,
    run: Option<Sentence>,
    uninstall: Option<Sentence>,
    upgrade_code: Option<Guid>,
}

impl TryFrom<RawFirstBoot> for FirstBoot {
    type Error = &'static str;

    fn try_from(raw: RawFirstBoot) -> Result<Self, Self::Error> {
        match (raw.install, raw.run, raw.uninstall, raw.upgrade_code) {
            (Some(file), None, None, None) => Ok(Self::Install(file)),
            (None, Some(command), None, None) => Ok(Self::Run(command)),
            (None, None, Some(name), None) => Ok(Self::Uninstall(name)),
            (None, None, None, Some(code)) => Ok(Self::UninstallUpgradeCode(code)),
            _ => Err("expected exactly one of `install`, `run`, `uninstall` and `upgrade-code`"),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawBootOption {
    object: BootObject,
    element: String,
    name: Sentence,
    boolean: Option<bool>,
    integer: Option<u64>,
    #[serde(default)]
    delete: bool,
}

impl TryFrom<RawBootOption> for BootOption {
    type Error = &'static str;

    fn try_from(raw: RawBootOption) -> Result<Self, Self::Error> {
        let digits = raw.element.len() == 8
            && raw
                .element
                .chars()
                .all(|digit| digit.is_ascii_digit() || ('a'..='f').contains(&digit));
        let element = u32::from_str_radix(&raw.element, 16)
            .ok()
            .filter(|_| digits);
        let element = element.ok_or("`element` has to be eight hex digits in lower case")?;
        // The second digit is the format of the data: 5 an integer, 6 a boolean.
        let value = match (raw.boolean, raw.integer, raw.delete, element >> 24 & 0xf) {
            (Some(value), None, false, 6) => BootValue::Boolean(value),
            (None, Some(value), false, 5) => BootValue::Integer(value),
            (None, None, true, _) => BootValue::Deleted,
            _ => {
                return Err(
                    "expected one of `boolean` (for an element x6......), `integer` (x5......) \
                     and `delete = true`",
                );
            }
        };
        Ok(Self {
            object: raw.object,
            element,
            name: raw.name,
            value,
        })
    }
}

fn path<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<WinPath, D::Error> {
    let text = String::deserialize(deserializer)?;
    let path: WinPath = text.parse().map_err(serde::de::Error::custom)?;
    if path.is_root() || text.starts_with('\\') {
        return Err(serde::de::Error::custom(format!(
            "{text:?} is the root or begins with a backslash; expected a path without one"
        )));
    }
    Ok(path)
}

fn optional_path<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<WinPath>, D::Error> {
    path(deserializer).map(Some)
}

fn paths<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<WinPath>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let path = |text: &String| text.parse().map_err(serde::de::Error::custom);
    texts.iter().map(path).collect()
}

fn platforms<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Platform>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let platform = |name: &String| name.parse().map_err(serde::de::Error::custom);
    names.iter().map(platform).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_for_the_windows_that_it_names() {
        let all = When::default();
        assert!(all.holds_for(9600, Architecture::X86, Product::Workstation));
        let some = When {
            build: Some(">=17763,<20348".parse().unwrap()),
            architecture: Some(Architecture::Amd64),
            product: Some(Product::Server),
            ..When::default()
        };
        assert!(some.holds_for(17763, Architecture::Amd64, Product::Server));
        assert!(!some.holds_for(20348, Architecture::Amd64, Product::Server));
        assert!(!some.holds_for(17763, Architecture::Arm64, Product::Server));
        assert!(!some.holds_for(17763, Architecture::Amd64, Product::Workstation));
    }
}
