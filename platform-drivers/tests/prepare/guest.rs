//! A Windows in memory that carries what a platform leaves behind, made of the catalogues.

use std::collections::BTreeMap;
use std::fmt::Write;

use ce_disk::volume::{MemoryVolume, WinPath};
use ce_platform::apply::{Content, FileChange, PreparedFiles, apply};
use ce_platform::bundle::Installer;
use ce_platform::catalog::schema::{
    Action, DeviceRole, FileKind, FilterPosition, FilterScope, FirstBoot, HiveName as Place, Need,
    RegistryData, RegistryEdit, ServiceKind,
};
use ce_platform::catalog::{Item, Preparation};
use ce_platform::hives::{HiveName, HiveSet, LoadedHive};
use ce_platform::inspect::Inspection;
use ce_platform::plan::{BCD, BootVolume, EditPlan, JobOptions, Machine, plan};
use ce_platform::proof::{BootSubject, Proof, Subject};
use ce_platform::{Catalog, Platform};
use ce_regf::{FileTime, Hive, KeyPath, RegScript, SecurityDescriptor, Version, neutralise_log};
use uuid::Uuid;

pub const NOW: FileTime = FileTime::from_ticks(133_752_744_000_000_000);
pub const SETS: [&str; 2] = ["ControlSet001", "ControlSet002"];
pub const DISK: Uuid = Uuid::from_u128(0x1111);
pub const PARTITION: Uuid = Uuid::from_u128(0x2222);

pub fn catalog() -> &'static Catalog {
    Catalog::builtin().unwrap()
}

pub fn path(text: &str) -> WinPath {
    text.parse().unwrap()
}

/// Files of the two volumes, by path.
#[derive(Clone, Default)]
pub struct Guest {
    pub windows: BTreeMap<String, Vec<u8>>,
    pub boot: BTreeMap<String, Vec<u8>>,
    /// What the job asks for.
    pub options: JobOptions,
    /// What a bundle has for the first boot.
    pub installers: Vec<Installer>,
}

/// The text of a guest's hives, and its files, before they are made.
#[derive(Default)]
pub struct Draft {
    pub system: String,
    pub software: String,
    pub files: BTreeMap<String, Vec<u8>>,
    /// Lists of filters by key and value.
    pub filters: BTreeMap<(String, &'static str), Vec<String>>,
    packages: usize,
}

/// A program for x64 and nothing else.
pub fn program(machine: u16) -> Vec<u8> {
    let mut file = vec![0; 0x80];
    file[..2].copy_from_slice(b"MZ");
    file[0x3c] = 0x40;
    file[0x40..0x44].copy_from_slice(b"PE\0\0");
    file[0x44..0x46].copy_from_slice(&machine.to_le_bytes());
    file
}

fn hex(bytes: &[u8]) -> String {
    let bytes: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(",")
}

fn list(texts: &[String]) -> String {
    format!("hex(7):{}", hex(&ce_regf::RegValue::multi_sz(texts).data))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
}

impl Draft {
    /// Windows 10 22H2 for x64 with all that the catalogues call part of it.
    pub fn windows() -> Self {
        let mut draft = Self {
            system: SYSTEM.into(),
            software: SOFTWARE.into(),
            ..Self::default()
        };
        for set in SETS {
            let _ = writeln!(
                draft.system,
                "[{set}\\Control\\Session Manager\\Environment]\n\"PROCESSOR_ARCHITECTURE\"=\"AMD64\""
            );
            let _ = writeln!(
                draft.system,
                "[{set}\\Control\\NetworkProvider\\Order]\n\"ProviderOrder\"=\"RDPNP,LanmanWorkstation,webclient\""
            );
            let _ = writeln!(
                draft.system,
                "[{set}\\Services\\partmgr\\Parameters]\n\"SanPolicy\"=dword:00000003"
            );
        }
        draft.adapter(
            0,
            r"ROOT\KDNIC\0000",
            "Local Area Connection* 1",
            "kdnic",
            "",
        );
        draft.service("pci", 1, 0, "pci.sys", "Boot Bus Extender");
        draft.service("keepflt", 1, 0, "keepflt.sys", "");
        for name in ["BFE", "Dhcp", "TermService", "W32Time", "RemoteRegistry"] {
            draft.service(name, 0x20, 3, r"svchost.exe", "");
        }
        for class in ["4d36e967", "4d36e96a", "4d36e96f", "4d36e97d"] {
            draft.keep(&format!("{{{class}-e325-11ce-bfc1-08002be10318}}"));
        }
        let all = Platform::ALL
            .into_iter()
            .flat_map(|to| catalog().target(to));
        let items: BTreeMap<&str, &Item> = all.map(|item| (item.about.id.as_str(), item)).collect();
        for item in items.into_values() {
            draft.inbox(item);
        }
        for file in ["winload.efi", "ntoskrnl.exe"] {
            draft.put(&format!(r"Windows\System32\{file}"), program(0x8664));
        }
        draft
    }

    fn put(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.files.insert(path.to_owned(), content.into());
    }

    /// A filter that has to stay in a class.
    fn keep(&mut self, class: &str) {
        for set in SETS {
            let key = format!(r"{set}\Control\Class\{class}");
            for value in ["LowerFilters", "UpperFilters"] {
                let filters = self.filters.entry((key.clone(), value)).or_default();
                if filters.is_empty() {
                    filters.push("keepflt".into());
                }
            }
        }
    }

    pub fn service(&mut self, name: &str, kind: u32, start: u32, image: &str, group: &str) {
        let image = image.replace('*', "_9_1");
        let (folder, place) = match kind < 0x10 {
            true => (r"System32\drivers", format!(r"system32\drivers\{image}")),
            false => (
                r"Vendor",
                format!(r#""C:\Windows\Vendor\{image}" -service"#),
            ),
        };
        for set in SETS {
            let _ = writeln!(
                self.system,
                "[{set}\\Services\\{name}]\n\"Type\"=dword:{kind:08x}\n\"Start\"=dword:{start:08x}\n\
                 \"ErrorControl\"=dword:00000001\n\"ImagePath\"={}",
                quoted(&place)
            );
            if !group.is_empty() {
                let _ = writeln!(self.system, "\"Group\"=\"{group}\"");
            }
        }
        self.put(&format!(r"Windows\{folder}\{image}"), program(0x8664));
    }

    /// A network adapter, the `number`th, with values of its interface.
    pub fn adapter(
        &mut self,
        number: u8,
        instance: &str,
        name: &str,
        service: &str,
        settings: &str,
    ) {
        let guid = format!("{{6F1C0A5E-0000-4B1D-8F00-5A1DE2C900{number:02X}}}");
        let class = "{4d36e972-e325-11ce-bfc1-08002be10318}";
        for set in SETS {
            let _ = writeln!(
                self.system,
                "[{set}\\Control\\Class\\{class}\\{number:04}]\n\"NetCfgInstanceId\"=\"{guid}\"\n\
                 [{set}\\Control\\Network\\{class}\\{guid}\\Connection]\n\"Name\"={}\n\"PnPInstanceId\"={}\n\
                 [{set}\\Enum\\{instance}]\n\"Service\"=\"{service}\"\n\"ConfigFlags\"=dword:00000000\n\
                 \"Driver\"=\"{class}\\\\{number:04}\"\n\
                 [{set}\\Services\\Tcpip\\Parameters\\Interfaces\\{guid}]\n\"NameServer\"=\"\"\n{settings}",
                quoted(name),
                quoted(instance)
            );
        }
    }

    /// Values of an interface with an address of its own.
    pub fn static_address(address: &str, mask: &str, gateway: &str) -> String {
        let list = |text: &str| list(&[text.to_owned()]);
        format!(
            "\"EnableDHCP\"=dword:00000000\n\"IPAddress\"={}\n\"SubnetMask\"={}\n\"DefaultGateway\"={}\n\
             \"NameServer\"=\"10.20.0.2,10.20.0.3\"\n",
            list(address),
            list(mask),
            list(gateway)
        )
    }

    /// A letter for the volume that begins at the byte `start` of a disk with an MBR.
    pub fn drive_letter(&mut self, letter: char, signature: u32, start: u64) {
        let place = [&signature.to_le_bytes()[..], &start.to_le_bytes()].concat();
        let _ = writeln!(
            self.system,
            "[MountedDevices]\n\"\\\\DosDevices\\\\{letter}:\"=hex:{}",
            hex(&place)
        );
    }

    pub fn override_start(&mut self, service: &str) {
        for set in SETS {
            let _ = writeln!(
                self.system,
                "[{set}\\Services\\{service}\\StartOverride]\n\"0\"=dword:00000003"
            );
        }
    }

    /// A package in the driver database; returns its published name.
    pub fn package(
        &mut self,
        inf: &str,
        ids: &[String],
        driver: &str,
        class: u128,
        oem: bool,
    ) -> String {
        let published = match oem {
            true => format!("oem{}.inf", self.packages),
            false => inf.to_owned(),
        };
        self.packages += usize::from(oem);
        let label = format!("{inf}_amd64_{:016x}", inf.len());
        let mut version = vec![if oem { 0 } else { 0xff }, 0xff, 9, 0, 0, 0, 0, 0];
        version.extend(Uuid::from_u128(class).to_bytes_le());
        version.resize(48, 0);
        let base = "DriverDatabase";
        for id in ids {
            let _ = writeln!(
                self.system,
                "[{base}\\DeviceIds\\{id}]\n\"{published}\"=hex:01,ff,00,00"
            );
        }
        let text = format!(
            "[{base}\\DriverInfFiles\\{published}]\n@={}\n\"Active\"=\"{label}\"\n\
             [{base}\\DriverPackages\\{label}]\n@=\"{published}\"\n\"Version\"=hex:{}\n\
             [{base}\\DriverPackages\\{label}\\Configurations\\{driver}_Inst]\n\"Service\"=\"{driver}\"\n",
            list(std::slice::from_ref(&label)),
            hex(&version)
        );
        self.system.push_str(&text);
        if oem {
            let _ = writeln!(
                self.system,
                "[{base}\\DriverPackages\\{label}]\n\"InfName\"=\"{inf}\""
            );
            let number: usize = published[3..published.len() - 4].parse().unwrap();
            let stem = published.trim_end_matches(".inf").to_owned();
            self.put(&format!(r"Windows\INF\{published}"), *b"; INF");
            self.put(
                &format!(
                    r"Windows\System32\CatRoot\{{F750E6C3-38EE-11D1-85E5-00C04FC295EE}}\{stem}.cat"
                ),
                *b"cat",
            );
            let mut map = vec![0_u8; 8];
            for taken in 0..=number {
                map[taken / 8] |= 0x80 >> (taken % 8);
            }
            let _ = writeln!(self.system, "[{base}]\n\"OemInfMap\"=hex:{}", hex(&map));
        } else {
            self.put(&format!(r"Windows\INF\{inf}"), *b"; INF");
        }
        self.put(
            &format!(r"Windows\System32\DriverStore\FileRepository\{label}\{inf}"),
            *b"; INF",
        );
        published
    }

    /// What an item of a target needs, if this Windows has it.
    fn inbox(&mut self, item: &Item) {
        for step in &item.steps {
            match &step.action {
                Action::BootService(service) if service.inbox.has(BUILD) => {
                    let name = service.name.as_str();
                    self.service(
                        name,
                        1,
                        3,
                        service.images[0].as_str(),
                        service.group.as_str(),
                    );
                }
                Action::Device(device) if device.inbox.has(BUILD) => self.device(device, false),
                _ => {}
            }
        }
    }

    fn device(&mut self, device: &ce_platform::catalog::schema::Device, oem: bool) {
        let ids: Vec<String> = device.ids.iter().map(ToString::to_string).collect();
        let class = match device.role {
            DeviceRole::Network => 0x4d36e972_e325_11ce_bfc1_08002be10318,
            DeviceRole::Storage => 0x4d36e97b_e325_11ce_bfc1_08002be10318,
            DeviceRole::Bus | DeviceRole::Other => 0x4d36e97d_e325_11ce_bfc1_08002be10318,
        };
        self.package(
            device.infs[0].as_str(),
            &ids,
            device.driver.as_str(),
            class,
            oem,
        );
    }

    /// Drivers that the target needs and Windows does not have, as if they had been installed.
    pub fn install_drivers_of(&mut self, to: Platform) {
        for step in catalog().target(to).flat_map(|item| &item.steps) {
            if let Action::Device(device) = &step.action
                && !device.inbox.has(BUILD)
                && (device.need == Need::Required || device.driver.as_str() == "netkvm")
            {
                let name = device.driver.as_str();
                self.service(name, 1, 3, &format!("{name}.sys"), "");
                self.override_start(name);
                self.device(device, true);
            }
        }
    }

    /// Takes the driver database out.
    pub fn drop_database(&mut self) {
        let mut kept = String::new();
        let mut is_database = false;
        for line in self.system.lines() {
            if line.starts_with('[') {
                is_database = line.starts_with("[DriverDatabase");
            }
            if !is_database {
                kept.push_str(line);
                kept.push('\n');
            }
        }
        self.system = kept;
    }

    /// The target device software of Provisioning.
    pub fn install_provisioning(&mut self) {
        for (name, image) in [
            ("bnistack", "bnistack6.sys"),
            ("cvhdmp", "CVhdMp.sys"),
            ("cfsdep2", "CfsDep2.sys"),
        ] {
            self.service(name, 1, 0, image, "");
        }
    }

    /// What a platform leaves behind, all of it.
    pub fn came_from(&mut self, from: Platform) {
        for item in catalog().removal(from) {
            self.bait(item);
        }
        for driver in ["vmbus", "storvsc", "stornvme"] {
            self.override_start(driver);
        }
        // Its own adapter, with a fixed address, and one of the machine before that.
        let mut network = catalog().target(from).flat_map(|item| &item.steps);
        let device = network.find_map(|step| match &step.action {
            Action::Device(device) if device.role == DeviceRole::Network => Some(device),
            _ => None,
        });
        let device = device.unwrap();
        let instance = format!(r"{}\3&2411E6FE&0&A8", device.ids[0]);
        let address = Self::static_address("10.20.30.40", "255.255.255.0", "10.20.30.1");
        self.adapter(7, &instance, "Ethernet", device.driver.as_str(), &address);
        self.adapter(
            3,
            r"PCI\VEN_8086&DEV_100F\4&3B50545D&0&10",
            "Ethernet0",
            "E1G60",
            "",
        );
        for set in SETS {
            let times = r"Properties\{83da6326-97a6-4088-9453-a1923f573b29}";
            for (property, time) in [("0066", "01"), ("0067", "02")] {
                let _ = writeln!(
                    self.system,
                    "[{set}\\Enum\\PCI\\VEN_8086&DEV_100F\\4&3B50545D&0&10\\{times}\\{property}]\n@=hex(ffff0010):00,00,00,00,00,00,{time},00"
                );
            }
        }
        if from == Platform::Vsphere {
            for set in SETS {
                let _ = writeln!(
                    self.system,
                    "[{set}\\Services\\pvscsi]\n[{set}\\Services\\pvscsi\\vwdk.installers]"
                );
            }
        }
    }

    pub fn bait(&mut self, item: &Item) {
        for step in &item.steps {
            match &step.action {
                Action::Service(rule) => {
                    let kind = if rule.kind == ServiceKind::Program {
                        0x10
                    } else {
                        1
                    };
                    let start = if rule.kind == ServiceKind::Program {
                        2
                    } else {
                        0
                    };
                    let name = rule.name.as_str();
                    let default = format!("{}.{}", name, if kind == 1 { "sys" } else { "exe" });
                    let image = rule.image.last().map_or(default, ToString::to_string);
                    self.service(name, kind, start, &image, "");
                }
                Action::Filter(rule) => {
                    let values: &[&'static str] = match rule.position {
                        FilterPosition::Both => &["LowerFilters", "UpperFilters"],
                        FilterPosition::Lower => &["LowerFilters"],
                        FilterPosition::Upper => &["UpperFilters"],
                    };
                    for set in SETS {
                        let key = match rule.scope {
                            FilterScope::Class(class) => format!(r"{set}\Control\Class\{class}"),
                            FilterScope::EveryClass => format!(
                                r"{set}\Control\Class\{{4d36e97d-e325-11ce-bfc1-08002be10318}}"
                            ),
                            FilterScope::EveryDevice => format!(
                                r"{set}\Enum\PCI\VEN_0000&DEV_{:04X}\3&1",
                                rule.driver.as_str().len()
                            ),
                        };
                        for value in values {
                            let filters = self.filters.entry((key.clone(), value)).or_default();
                            filters.push(rule.driver.as_str().to_uppercase());
                        }
                    }
                }
                Action::NetworkProvider(provider) => {
                    for set in SETS {
                        for order in ["Order", "HwOrder"] {
                            let _ = writeln!(
                                self.system,
                                "[{set}\\Control\\NetworkProvider\\{order}]\n\"ProviderOrder\"=\"RDPNP,{},LanmanWorkstation\"",
                                provider.name
                            );
                        }
                    }
                }
                Action::Package(rule) => {
                    let driver = rule.inf.as_str().trim_end_matches(".inf").to_owned();
                    let id = format!(r"PCI\VEN_FFFF&DEV_{:04X}", self.packages);
                    let published = self.package(rule.inf.as_str(), &[id], &driver, 1, true);
                    for set in SETS {
                        let shared = list(&["msmouse.inf".into(), published.clone()]);
                        let _ = writeln!(
                            self.system,
                            "[{set}\\Services\\mouclass]\n\"Type\"=dword:00000001\n\"Start\"=dword:00000003\n\"Owners\"={shared}"
                        );
                    }
                }
                Action::Task(rule) => {
                    let text = "<Task><Settings><Enabled>true</Enabled></Settings></Task>";
                    let units = text.encode_utf16().flat_map(u16::to_le_bytes);
                    let bytes: Vec<u8> = b"\xff\xfe".iter().copied().chain(units).collect();
                    self.put(&format!(r"Windows\System32\Tasks\{}", rule.path), bytes);
                }
                Action::RunEntry(entry) => {
                    let _ = writeln!(
                        self.software,
                        "[Microsoft\\Windows\\CurrentVersion\\Run]\n{}=\"x.exe\"",
                        quoted(entry.name.as_str())
                    );
                }
                Action::File(rule) => match rule.kind {
                    FileKind::File => self.put(&rule.path.to_string(), *b"left behind"),
                    FileKind::Folder => {
                        self.put(&format!(r"{}\sub\file", rule.path), *b"left behind")
                    }
                },
                Action::FirstBoot(FirstBoot::Uninstall(name)) => {
                    let _ = writeln!(
                        self.software,
                        "[Microsoft\\Windows\\CurrentVersion\\Uninstall\\{{AF174E64-22CF-4386-A9EC-{:012}}}]\n\"DisplayName\"={}",
                        name.as_str().len(),
                        quoted(name.as_str())
                    );
                }
                Action::Registry(rule) => self.registry(rule),
                _ => {}
            }
        }
    }

    fn registry(&mut self, rule: &ce_platform::catalog::schema::RegistryRule) {
        let old = |condition: &[String]| condition.first().map_or("old".to_owned(), Clone::clone);
        let value = match &rule.edit {
            RegistryEdit::DeleteKey { .. } => "\"inside\"=\"old\"".to_owned(),
            RegistryEdit::DeleteValue { name, only_if } => {
                let old = old(only_if.texts());
                match old.parse::<u32>() {
                    Ok(number) => format!("{}=dword:{number:08x}", quoted(name)),
                    Err(_) => format!("{}={}", quoted(name), quoted(&old)),
                }
            }
            RegistryEdit::DeleteValuesStarting { start } => {
                format!("{}=\"\"", quoted(&format!("{start}10.0.0.1,1")))
            }
            RegistryEdit::RemoveEntry { name, entry } => {
                format!(
                    "{}={}",
                    quoted(name),
                    list(&[format!("{entry},Entry"), "other.dll".into()])
                )
            }
            RegistryEdit::SetValue {
                name,
                data,
                only_if,
                ..
            } => match data {
                RegistryData::Dword(_) => format!("{}=dword:00000001", quoted(name)),
                _ => format!("{}={}", quoted(name), quoted(&old(only_if.texts()))),
            },
        };
        let names: Vec<&str> = rule.key.names().collect();
        match (rule.hive, rule.key.is_in_control_set()) {
            (Place::Software, _) => {
                let _ = writeln!(self.software, "[{}]\n{value}", rule.key);
            }
            (Place::System, true) => {
                for set in SETS {
                    let _ = writeln!(self.system, "[{set}\\{}]\n{value}", names[1..].join("\\"));
                }
            }
            (Place::System, false) => {
                let _ = writeln!(self.system, "[{}]\n{value}", rule.key);
            }
        }
    }

    /// Makes the hives.
    pub fn guest(mut self) -> Guest {
        for ((key, value), filters) in &self.filters {
            let _ = writeln!(self.system, "[{key}]\n\"{value}\"={}", list(filters));
        }
        let config = r"Windows\System32\config";
        self.files
            .insert(format!(r"{config}\SYSTEM"), hive(&self.system));
        self.files
            .insert(format!(r"{config}\SOFTWARE"), hive(&self.software));
        self.files
            .insert(format!(r"{config}\SYSTEM.LOG1"), vec![0x5a; 1024]);
        let boot = [
            (r"EFI\Microsoft\Boot\bootmgfw.efi", program(0x8664)),
            (BCD, hive(&boot_store())),
        ];
        let boot = boot
            .into_iter()
            .map(|(path, content)| (path.to_owned(), content));
        Guest {
            windows: self.files,
            boot: boot.collect(),
            options: JobOptions::default(),
            installers: Vec::new(),
        }
    }
}

fn boot_store() -> String {
    let mut device = vec![0; 16];
    for number in [6_u32, 0, 0x48, 0] {
        device.extend(number.to_le_bytes());
    }
    device.extend(PARTITION.to_bytes_le());
    device.extend([0; 8]);
    device.extend(DISK.to_bytes_le());
    device.extend([0; 16]);
    let device = hex(&device);
    format!(
        "[Objects\\{{9dea862c-5cdd-4e70-acc1-f32b344d4795}}\\Elements\\23000003]\n\"Element\"=\"{LOADER}\"\n\
         [Objects\\{{0ce4991b-e6b3-4b16-b23c-5e0d9250e5d9}}\\Description]\n\"Type\"=dword:20100000\n\
         [Objects\\{LOADER}\\Elements\\11000001]\n\"Element\"=hex:{device}\n\
         [Objects\\{LOADER}\\Elements\\21000001]\n\"Element\"=hex:{device}\n\
         [Objects\\{LOADER}\\Elements\\16000046]\n\"Element\"=hex:01\n\
         [Objects\\{LOADER}\\Elements\\12000002]\n\"Element\"=\"\\\\Windows\\\\system32\\\\winload.efi\"\n"
    )
}

/// A hive with these keys: `.reg` text without the first line.
pub fn hive(keys: &str) -> Vec<u8> {
    let text = format!("Windows Registry Editor Version 5.00\n\n{keys}");
    let script = RegScript::parse(text.as_bytes(), &KeyPath::from(""));
    let script = script.unwrap_or_else(|error| panic!("{error}\n{text}"));
    let security = SecurityDescriptor::for_administrators();
    let mut hive = Hive::new_empty(Version::V1_5, &security, NOW).unwrap();
    hive.edit(NOW).unwrap().import(&script).unwrap();
    hive.save(NOW).unwrap().bytes.to_vec()
}

impl Guest {
    /// The guest of a pair of platforms, with everything that the target needs.
    pub fn of(from: Platform, to: Platform) -> Self {
        let mut draft = Draft::windows();
        draft.install_drivers_of(to);
        draft.came_from(from);
        draft.guest()
    }

    pub fn volume(&self) -> MemoryVolume {
        volume(&self.windows)
    }

    pub fn boot_volume(&self) -> MemoryVolume {
        volume(&self.boot)
    }

    pub fn hives(&self) -> HiveSet {
        HiveSet::load(
            &self.volume(),
            &path("Windows"),
            &[HiveName::System, HiveName::Software],
        )
    }

    /// Does something with all that a plan is made of.
    pub fn with<T>(
        &self,
        preparation: &Preparation<'_>,
        look: impl FnOnce(&Machine<'_>) -> T,
    ) -> T {
        let (volume, boot) = (self.volume(), self.boot_volume());
        let inspection = Inspection::of(&self.hives());
        let store = LoadedHive::load(&boot, &path(BCD)).ok();
        look(&Machine {
            preparation,
            inspection: &inspection,
            volume: &volume,
            folder: &path("Windows"),
            boot: store.as_ref().map(|store| BootVolume {
                volume: &boot,
                store: &store.hive,
            }),
            options: &self.options,
            bundle: &[],
            installers: &self.installers,
            now: NOW,
        })
    }

    pub fn plan(&self, preparation: &Preparation<'_>) -> EditPlan {
        self.with(preparation, |machine| plan(machine, self.hives()).unwrap())
    }

    pub fn prepared(&self, preparation: &Preparation<'_>) -> (EditPlan, PreparedFiles) {
        self.with(preparation, |machine| {
            let plan = plan(machine, self.hives()).unwrap();
            let files = apply(&plan, self.hives(), machine.volume, machine.boot, NOW);
            (plan, files.unwrap())
        })
    }

    /// The guest with the files written.
    pub fn written(&self, files: &PreparedFiles) -> Self {
        let mut guest = self.clone();
        write(&mut guest.windows, &files.windows);
        write(&mut guest.boot, &files.boot);
        guest
    }

    pub fn proof(&self, preparation: &Preparation<'_>) -> Proof {
        let boot = self.boot_volume();
        self.with(preparation, |machine| {
            Proof::of(&Subject {
                preparation,
                inspection: machine.inspection,
                volume: machine.volume,
                folder: machine.folder,
                boot: Some(BootSubject {
                    volume: &boot,
                    disk: DISK,
                    windows: PARTITION,
                }),
            })
        })
    }

    pub fn hive(&self, name: &str) -> Hive {
        Hive::load(self.windows[&format!(r"Windows\System32\config\{name}")].clone()).unwrap()
    }
}

fn volume(files: &BTreeMap<String, Vec<u8>>) -> MemoryVolume {
    let mut volume = MemoryVolume::default();
    for (name, content) in files {
        volume.put(&path(name), content.clone());
    }
    volume
}

fn write(files: &mut BTreeMap<String, Vec<u8>>, changes: &[FileChange]) {
    for change in changes {
        let name = change.path.to_string();
        let known = files.keys().find(|known| known.eq_ignore_ascii_case(&name));
        let name = known.cloned().unwrap_or(name);
        match &change.content {
            // A folder is there as long as there are files in it.
            Content::Deleted => {
                files.remove(&name);
            }
            Content::NeutralisedLog => neutralise_log(files.get_mut(&name).unwrap()),
            Content::Written(bytes) => {
                files.insert(name, bytes.clone());
            }
        }
    }
}

/// Windows 10 22H2: the last one that has no pvscsi of its own.
pub const BUILD: u32 = 19045;

const LOADER: &str = "{6d5c1f0e-8a3b-4c27-9e10-52d17f3a00ff}";

/// The boot store of a Windows that a BIOS starts, whose entry has a name that someone gave it.
pub const BIOS_STORE: &str = r#"
[Objects\{9dea862c-5cdd-4e70-acc1-f32b344d4795}\Description]
"Type"=dword:10100002

[Objects\{9dea862c-5cdd-4e70-acc1-f32b344d4795}\Elements\23000003]
"Element"="{6d5c1f0e-8a3b-4c27-9e10-52d17f3a00ff}"

[Objects\{6d5c1f0e-8a3b-4c27-9e10-52d17f3a00ff}\Description]
"Type"=dword:10200003

[Objects\{6d5c1f0e-8a3b-4c27-9e10-52d17f3a00ff}\Elements\12000002]
"Element"="\\Windows\\system32\\winload.exe"

[Objects\{6d5c1f0e-8a3b-4c27-9e10-52d17f3a00ff}\Elements\12000004]
"Element"="Gold image"
"#;

const SYSTEM: &str = r#"
[Select]
"Current"=dword:00000001
"Default"=dword:00000001
"Failed"=dword:00000000
"LastKnownGood"=dword:00000002
"#;

const SOFTWARE: &str = r#"
[Microsoft\Windows NT\CurrentVersion]
"ProductName"="Windows 10 Enterprise"
"InstallationType"="Client"
"CurrentBuildNumber"="19045"
[Microsoft\Windows\CurrentVersion\Run]
"SecurityHealth"="x.exe"
"#;
