//! The network of the image on its new machine: addresses carried over at the first boot, or taken
//! off at once.
//!
//! ```text
//!  keep:  adapters of the old machine, in order --> script: the n-th one that is missing there
//!         with what a static one has                  --> the n-th one that is new; ghosts go
//!  dhcp:  every interface of every control set    --> asks DHCP, has no address of its own
//!                                                     --> script: ghosts go
//! ```
//!
//! A new adapter gets its GUID when plug and play installs it, so nothing of it can be written
//! offline. Which old adapter it takes the place of is told by order, never by hardware address: that
//! is another one on the new machine. The order is that of the keys of the class of network adapters,
//! in which Windows found them.
//!
//! Static addresses of IPv6 are not carried: Windows keeps them in a store whose form is not known.

use std::fmt::{Display, Write};

use ce_regf::RegValue;
use uuid::Uuid;

use super::draft::{Store, texts};
use super::edit::Reason;
use super::{Change, FirstBootStep, Network, PlanError, Planner, State};
use crate::catalog::schema::{Action, DeviceRole, Need};
use crate::preflight;

mod adapter;
mod script;

use adapter::{Adapter, Presence};

impl Planner<'_, '_> {
    /// Plans what becomes of addresses and adapters.
    pub(super) fn network(&mut self) -> Result<(), PlanError> {
        ITEM.clone_into(&mut self.item);
        let keeps = self.machine.options.network == Network::Keep;
        self.reason = Reason(if keeps { WHY_KEEP } else { WHY_DHCP }.to_owned());
        if !keeps {
            for set in self.sets.clone() {
                self.reset(&set)?;
            }
        }
        let Some(set) = self.machine.inspection.control_sets.key() else {
            return Ok(());
        };
        let found = self.adapters(&set)?;
        for problem in found.problems {
            self.skip(problem.what, problem.why);
        }
        if let Some(pvs) = preflight::pvs_target(self.machine.inspection) {
            if !found.adapters.is_empty() {
                let why = format!("{pvs}, and its network stack is bound to them");
                self.skip("network adapters".into(), why);
            }
            return Ok(());
        }
        if keeps && self.has_ipv6_addresses(&set)? {
            self.skip(
                "static addresses of IPv6".into(),
                "they are kept in a store whose form is not known: set them on the new machine"
                    .into(),
            );
        }
        let moves = self.machine.preparation.from != Some(self.machine.preparation.to);
        let carries = |adapter: &&Adapter| {
            keeps && adapter.presence == Presence::There && !adapter.settings.is_empty()
        };
        if !found
            .adapters
            .iter()
            .any(|adapter| moves || carries(&adapter))
        {
            return Ok(());
        }
        for adapter in &found.adapters {
            let is_disabled = adapter.presence == Presence::Disabled;
            if carries(&adapter) {
                self.defer(FirstBootStep::CarryAddresses {
                    adapter: adapter.name.clone(),
                    settings: adapter.settings.to_string(),
                });
            } else if keeps && !adapter.settings.is_empty() {
                let why = match is_disabled {
                    true => "the adapter is disabled",
                    false => "the adapter was gone already",
                };
                let what = format!("addresses of {:?}: {}", adapter.name, adapter.settings);
                self.skip(what, why.into());
            }
            if !is_disabled {
                self.defer(FirstBootStep::RemoveGhost(adapter.name.clone()));
            }
        }
        let buses = self.buses();
        let routine = script::routine(&found.adapters, &found.known, &buses, keeps);
        self.begin_script_with(script::CALL, routine);
        Ok(())
    }

    fn defer(&mut self, step: FirstBootStep) {
        let reason = self.reason.clone();
        self.push(Change::FirstBoot { step, reason }, State::Deferred);
    }

    /// The buses that the target's adapters hang on. Where one is on every machine, others are in its
    /// service: on Azure the VMBus adapter has the address, and the PCI function behind it has none.
    fn buses(&self) -> Vec<String> {
        let steps = self.machine.preparation.target.iter();
        let devices = steps.flat_map(|item| &item.steps).filter_map(|step| {
            let Action::Device(device) = &step.action else {
                return None;
            };
            (device.role == DeviceRole::Network).then_some(device)
        });
        let devices: Vec<_> = devices.collect();
        let has_required = devices.iter().any(|device| device.need == Need::Required);
        let mut buses = Vec::new();
        for device in devices {
            if !has_required || device.need == Need::Required {
                let ids = device.ids.iter();
                buses.extend(ids.filter_map(|id| Some(id.as_str().split_once('\\')?.0.to_owned())));
            }
        }
        buses.sort();
        buses.dedup();
        buses
    }

    /// Whether addresses of IPv6 were set by hand: NlUnicastAddress of the store of the network stack.
    fn has_ipv6_addresses(&self, set: &str) -> Result<bool, PlanError> {
        let key = format!(r"{set}\Control\Nsi\{IPV6_MODULE}\{UNICAST_ADDRESSES}");
        Ok(!self.draft.value_names(Store::System, &key)?.is_empty())
    }

    /// Has every interface of a control set ask DHCP, and takes off what was set by hand.
    fn reset(&mut self, set: &str) -> Result<(), PlanError> {
        for stack in ["Tcpip", "Tcpip6"] {
            let parameters = format!(r"{set}\Services\{stack}\Parameters");
            self.empty(&parameters, "NameServer")?;
            let interfaces = format!(r"{parameters}\Interfaces");
            for name in self.draft.subkeys(Store::System, &interfaces)? {
                let key = format!(r"{interfaces}\{name}");
                let asks = self.draft.number(Store::System, &key, "EnableDHCP")?;
                if asks.is_some_and(|asks| asks != 1) {
                    self.set(Store::System, &key, "EnableDHCP", RegValue::dword(1))?;
                }
                for value in ["NameServer", "ProfileNameServer", "Domain"] {
                    self.empty(&key, value)?;
                }
                for value in [
                    "IPAddress",
                    "SubnetMask",
                    "DefaultGateway",
                    "DefaultGatewayMetric",
                ] {
                    self.delete_value(Store::System, &key, value)?;
                }
            }
        }
        let netbios = format!(r"{set}\Services\NetBT\Parameters\Interfaces");
        for name in self.draft.subkeys(Store::System, &netbios)? {
            let key = format!(r"{netbios}\{name}");
            let servers = self.draft.list(Store::System, &key, "NameServerList")?;
            if servers.is_some_and(|servers| !servers.is_empty()) {
                let none = RegValue::multi_sz(Vec::<String>::new());
                self.set(Store::System, &key, "NameServerList", none)?;
            }
        }
        let routes = format!(r"{set}\Services\Tcpip\Parameters\PersistentRoutes");
        let nsi = format!(r"{set}\Control\Nsi\{IPV6_MODULE}");
        let stored = [
            routes,
            format!(r"{nsi}\{UNICAST_ADDRESSES}"),
            format!(r"{nsi}\{ROUTES}"),
        ];
        for key in stored {
            for name in self.draft.value_names(Store::System, &key)? {
                self.delete_value(Store::System, &key, &name)?;
            }
        }
        Ok(())
    }

    /// Sets a text that is there to nothing, which is what Windows has without one.
    fn empty(&mut self, key: &str, name: &str) -> Result<(), PlanError> {
        let value = self.draft.value(Store::System, key, name)?;
        match value {
            Some(value) if !texts(&value).concat().is_empty() => {
                self.set(Store::System, key, name, RegValue::sz(""))
            }
            _ => Ok(()),
        }
    }
}

/// A GUID as the registry has it.
fn braced(guid: &Uuid) -> String {
    format!("{{{guid}}}").to_uppercase()
}

/// Words with a comma between.
fn comma(words: impl IntoIterator<Item = impl Display>) -> String {
    let mut text = String::new();
    for word in words {
        let between = if text.is_empty() { "" } else { ", " };
        // Writing to a string does not fail.
        let _ = write!(text, "{between}{word}");
    }
    text
}

const ITEM: &str = "network";
const WHY_KEEP: &str = "addresses belong to the adapter of the old machine; on the new one they are \
     set on the adapter that takes its place, and what is left of the old one goes";
const WHY_DHCP: &str = "the job asks for addresses by DHCP: those of the old network lead nowhere, \
     and what is left of the old adapters goes";

/// The class of network adapters.
const CLASS: &str = "{4d36e972-e325-11ce-bfc1-08002be10318}";

/// NPI_MS_IPV6_MODULEID, and objects of it (NlUnicastAddress, NlRoute) by number.
const IPV6_MODULE: &str = "{eb004a01-9b1a-11d4-9123-0050047759bc}";
const UNICAST_ADDRESSES: u8 = 10;
const ROUTES: u8 = 16;
