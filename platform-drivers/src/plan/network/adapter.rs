//! Network adapters of an offline Windows, and what was set on them by hand.
//!
//! Everything here is data of the image, on its way into a script: what is not of its form, to the
//! letter, does not get there.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use uuid::Uuid;

use super::super::draft::Store;
use super::super::{PlanError, Planner};
use super::{CLASS, comma};

/// An adapter of a machine, by what Windows knows of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Adapter {
    /// What its network stack is called.
    pub(super) guid: Uuid,
    /// What people call it; only for people.
    pub(super) name: String,
    /// Its key of the class: four digits.
    pub(super) number: String,
    /// Its device: bus, hardware id, place.
    pub(super) instance: String,
    /// The driver that it runs with.
    pub(super) service: Option<String>,
    pub(super) presence: Presence,
    pub(super) settings: Settings,
}

/// Whether an adapter was there when Windows ran last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Presence {
    Disabled,
    Gone,
    There,
}

/// What was set by hand.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Settings {
    pub(super) addresses: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// With metric, if that is not automatic.
    pub(super) gateways: Vec<(Ipv4Addr, Option<u16>)>,
    pub(super) name_servers: Vec<Ipv4Addr>,
    pub(super) name_servers_v6: Vec<Ipv6Addr>,
    pub(super) wins_servers: Vec<Ipv4Addr>,
    pub(super) suffix: Option<String>,
    pub(super) metric: Option<u16>,
    /// 1: NetBIOS over TCP/IP is on, 2: it is off.
    pub(super) netbios: Option<u32>,
}

impl Settings {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        parts.extend(
            self.addresses
                .iter()
                .map(|(address, mask)| format!("{address}/{}", u32::from(*mask).leading_ones())),
        );
        let gateways = self.gateways.iter();
        parts.extend(gateways.map(|(gateway, _)| format!("gateway {gateway}")));
        let v4 = self.name_servers.iter().map(|server| IpAddr::V4(*server));
        let v6 = self
            .name_servers_v6
            .iter()
            .map(|server| IpAddr::V6(*server));
        parts.extend(v4.chain(v6).map(|server| format!("DNS {server}")));
        let wins = self.wins_servers.iter();
        parts.extend(wins.map(|server| format!("WINS {server}")));
        parts.extend(self.suffix.iter().map(|suffix| format!("suffix {suffix}")));
        parts.extend(self.metric.map(|metric| format!("metric {metric}")));
        parts.extend(self.netbios.map(|kind| {
            let state = if kind == NETBIOS_OFF { "off" } else { "on" };
            format!("NetBIOS {state}")
        }));
        f.write_str(&comma(parts))
    }
}

/// The adapters of a machine.
#[derive(Debug, Default)]
pub(super) struct Adapters {
    /// Those of hardware, in the order in which Windows found them.
    pub(super) adapters: Vec<Adapter>,
    /// All that Windows knows, with those that are software.
    pub(super) known: Vec<Uuid>,
    pub(super) problems: Vec<Problem>,
}

/// Something that cannot be carried.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) what: String,
    pub(super) why: String,
}

impl Planner<'_, '_> {
    pub(super) fn adapters(&self, set: &str) -> Result<Adapters, PlanError> {
        let class = format!(r"{set}\Control\Class\{CLASS}");
        let mut found = Adapters::default();
        let mut numbers = self.draft.subkeys(Store::System, &class)?;
        numbers.retain(|number| number.len() == 4 && number.bytes().all(|b| b.is_ascii_digit()));
        numbers.sort();
        if numbers.len() > MOST_ADAPTERS {
            numbers.truncate(MOST_ADAPTERS);
            found.problems.push(Problem {
                what: format!("network adapters after the first {MOST_ADAPTERS}"),
                why: "no machine has as many".into(),
            });
        }
        for number in numbers {
            let key = format!(r"{class}\{number}");
            let guid = self.draft.text(Store::System, &key, "NetCfgInstanceId")?;
            let Some(guid) = guid.and_then(|guid| braced_guid(&guid)) else {
                continue;
            };
            found.known.push(guid);
            let connection = format!(r"{set}\Control\Network\{CLASS}\{{{guid}}}\Connection");
            let text = |name| self.draft.text(Store::System, &connection, name);
            let instance = match text("PnPInstanceId")? {
                Some(instance) => Some(instance),
                None => self.draft.text(Store::System, &key, "DeviceInstanceID")?,
            };
            let Some(instance) = instance.filter(|instance| is_hardware(instance)) else {
                continue;
            };
            let name = text("Name")?.unwrap_or_else(|| format!("{{{guid}}}"));
            if !is_instance(&instance) {
                found.problems.push(Problem {
                    what: format!("network adapter {name:?}"),
                    why: format!("{instance:?} is no name of a device"),
                });
                continue;
            }
            let device = format!(r"{set}\Enum\{instance}");
            let service = self.draft.text(Store::System, &device, "Service")?;
            let settings = self.settings(set, &guid, &name, &mut found.problems)?;
            found.adapters.push(Adapter {
                guid,
                presence: self.presence(&device)?,
                service: service.filter(|service| is_service(service)),
                name,
                number,
                instance,
                settings,
            });
        }
        Ok(found)
    }

    fn presence(&self, device: &str) -> Result<Presence, PlanError> {
        let flags = self.draft.number(Store::System, device, "ConfigFlags")?;
        if flags.unwrap_or(0) & CONFIGFLAG_DISABLED != 0 {
            return Ok(Presence::Disabled);
        }
        let time = |property: &str| -> Result<Option<u64>, PlanError> {
            let key = format!(r"{device}\Properties\{DEVICE_TIMES}\{property}");
            let value = self.draft.value(Store::System, &key, "")?;
            let ticks = value.and_then(|value| value.data.first_chunk().copied());
            Ok(ticks.map(u64::from_le_bytes))
        };
        let (arrival, removal) = (time(LAST_ARRIVAL)?, time(LAST_REMOVAL)?);
        Ok(
            match removal.is_some_and(|removal| Some(removal) >= arrival) {
                true => Presence::Gone,
                false => Presence::There,
            },
        )
    }

    /// What is set on the adapter of this GUID. What cannot be carried is told.
    fn settings(
        &self,
        set: &str,
        guid: &Uuid,
        name: &str,
        problems: &mut Vec<Problem>,
    ) -> Result<Settings, PlanError> {
        let stack =
            |stack: &str| format!(r"{set}\Services\{stack}\Parameters\Interfaces\{{{guid}}}");
        let key = stack("Tcpip");
        let netbios = format!(r"{set}\Services\NetBT\Parameters\Interfaces\Tcpip_{{{guid}}}");
        let list = |key: &str, value: &str| -> Result<Vec<String>, PlanError> {
            let list = self.draft.list(Store::System, key, value)?;
            let words = list.unwrap_or_default().into_iter();
            Ok(words
                .filter(|word| !word.is_empty())
                .take(MOST_ENTRIES)
                .collect())
        };
        // One text, with commas or blanks in it.
        let servers = |key: &str| -> Result<Vec<String>, PlanError> {
            let text = self.draft.text(Store::System, key, "NameServer")?;
            let text = text.unwrap_or_default();
            let words = text.split([',', ' ']).filter(|word| !word.is_empty());
            Ok(words.map(str::to_owned).take(MOST_ENTRIES).collect())
        };
        let mut reading = Reading { name, problems };
        let mut settings = Settings::default();
        let asks = self.draft.number(Store::System, &key, "EnableDHCP")?;
        if asks == Some(0) {
            let addresses = reading.all::<Ipv4Addr>("address", &list(&key, "IPAddress")?);
            let masks = reading.all::<Ipv4Addr>("mask", &list(&key, "SubnetMask")?);
            for (address, mask) in addresses.iter().zip(&masks) {
                match (address, mask) {
                    (Some(address), _) if address.is_unspecified() => {}
                    (Some(address), Some(mask)) if is_mask(*mask) => {
                        settings.addresses.push((*address, *mask));
                    }
                    (Some(address), _) => reading.refuse("address", address, "its mask is none"),
                    (None, _) => {}
                }
            }
            for address in addresses.iter().skip(masks.len()).flatten() {
                reading.refuse("address", address, "it has no mask");
            }
            let gateways = reading.all::<Ipv4Addr>("gateway", &list(&key, "DefaultGateway")?);
            let metrics = list(&key, "DefaultGatewayMetric")?;
            // They are set with an address, or not at all.
            let is_set = !settings.addresses.is_empty();
            for (number, gateway) in gateways.into_iter().enumerate().filter(|_| is_set) {
                let metric = metrics.get(number).and_then(|metric| metric.parse().ok());
                let metric = metric.filter(|metric| (1..=9999).contains(metric));
                let gateway = gateway.filter(|gateway| !gateway.is_unspecified());
                settings
                    .gateways
                    .extend(gateway.map(|gateway| (gateway, metric)));
            }
        }
        let v4 = reading.all("DNS server", &servers(&key)?);
        settings.name_servers = v4.into_iter().flatten().collect();
        let v6 = reading.all("DNS server", &servers(&stack("Tcpip6"))?);
        settings.name_servers_v6 = v6.into_iter().flatten().collect();
        let wins = reading.all("WINS server", &list(&netbios, "NameServerList")?);
        settings.wins_servers = wins.into_iter().flatten().collect();
        let suffix = self.draft.text(Store::System, &key, "Domain")?;
        if let Some(suffix) = suffix.filter(|suffix| !suffix.is_empty()) {
            if is_domain(&suffix) {
                settings.suffix = Some(suffix);
            } else {
                reading.refuse(
                    "suffix",
                    &format!("{suffix:?}"),
                    "it is no name of a domain",
                );
            }
        }
        let metric = self.draft.number(Store::System, &key, "InterfaceMetric")?;
        settings.metric = metric
            .filter(|metric| (1..=9999).contains(metric))
            .and_then(|metric| metric.try_into().ok());
        let kind = self
            .draft
            .number(Store::System, &netbios, "NetbiosOptions")?;
        settings.netbios = kind.filter(|kind| (1..=NETBIOS_OFF).contains(kind));
        Ok(settings)
    }
}

/// Reading what stands on one adapter.
struct Reading<'r> {
    name: &'r str,
    problems: &'r mut Vec<Problem>,
}

impl Reading<'_> {
    /// Each word, as what it has to be; one that is not is told, and `None` stands for it.
    fn all<T: FromStr>(&mut self, kind: &str, words: &[String]) -> Vec<Option<T>> {
        let words = words.iter().map(|word| {
            let read = word.parse().ok();
            if read.is_none() {
                self.refuse(kind, &format!("{word:?}"), "it is none");
            }
            read
        });
        words.collect()
    }

    fn refuse(&mut self, kind: &str, found: &dyn fmt::Display, why: &str) {
        self.problems.push(Problem {
            what: format!("{kind} {found} of {:?}", self.name),
            why: why.to_owned(),
        });
    }
}

fn braced_guid(text: &str) -> Option<Uuid> {
    text.strip_prefix('{')?.strip_suffix('}')?.parse().ok()
}

/// Whether an adapter is one of hardware, as hypervisors show it.
fn is_hardware(instance: &str) -> bool {
    let bus = instance.split('\\').next().unwrap_or_default();
    BUSES.iter().any(|known| known.eq_ignore_ascii_case(bus))
}

/// Whether a name of a device is of its form: three names of letters that mean nothing to `cmd`
/// between quotes.
fn is_instance(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"&_-.{}#".contains(&byte);
    let mut names = text.split('\\');
    let are_plain = names.all(|name| !name.is_empty() && name.bytes().all(is_plain));
    are_plain && text.matches('\\').count() == 2 && text.len() <= 200
}

fn is_service(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    !text.is_empty() && text.len() <= 80 && text.bytes().all(is_plain)
}

fn is_domain(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    text.len() <= 253 && text.bytes().all(is_plain)
}

/// Whether its bits that are set come first.
fn is_mask(mask: Ipv4Addr) -> bool {
    let bits = u32::from(mask);
    bits != 0 && bits.leading_ones() + bits.trailing_zeros() == u32::BITS
}

/// Where hypervisors show adapters.
const BUSES: [&str; 5] = ["PCI", "VMBUS", "XEN", "XENBUS", "XENVIF"];

/// Properties of a device: DEVPKEY_Device_LastArrivalDate, DEVPKEY_Device_LastRemovalDate.
const DEVICE_TIMES: &str = "{83da6326-97a6-4088-9453-a1923f573b29}";
const LAST_ARRIVAL: &str = "0066";
const LAST_REMOVAL: &str = "0067";

const CONFIGFLAG_DISABLED: u32 = 1;
const NETBIOS_OFF: u32 = 2;

/// Several times what machines have.
const MOST_ADAPTERS: usize = 200;
const MOST_ENTRIES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices_have_nothing_in_them_that_cmd_would_follow() {
        for instance in [
            r"PCI\VEN_8086&DEV_10D3&SUBSYS_07D015AD&REV_00\000C29FFFFF3FFDE00",
            r"VMBUS\{f8615163-df3e-46c5-913f-f2d2f965ed0e}\{0a1b2c3d-0000-4000-8000-000000000001}",
            r"XENVIF\VEN_XS0002&DEV_NET&REV_09000000\0",
        ] {
            assert!(is_instance(instance) && is_hardware(instance), "{instance}");
        }
        for instance in [
            r"PCI\x",
            r"PCI\\y",
            r"PCI\%PATH%\0",
            "PCI\\x\"&del\\0",
            r"PCI\x\0 & del",
            r"PCI\x\0^",
            r"PCI\x\..\0",
            "PCI\\x\\0\r\ndel",
        ] {
            assert!(!is_instance(instance), "{instance}");
        }
        for software in [
            r"SWD\MSRRAS\MS_NDISWANIP",
            r"ROOT\KDNIC\0000",
            "",
            "PCIX\\a\\b",
        ] {
            assert!(!is_hardware(software), "{software}");
        }
    }

    #[test]
    fn a_mask_has_its_bits_in_a_row() {
        for mask in [
            "255.255.255.0",
            "255.255.255.255",
            "128.0.0.0",
            "255.255.240.0",
        ] {
            assert!(is_mask(mask.parse().unwrap()), "{mask}");
        }
        for mask in ["0.0.0.0", "255.0.255.0", "0.0.0.255", "255.255.255.253"] {
            assert!(!is_mask(mask.parse().unwrap()), "{mask}");
        }
    }
}
