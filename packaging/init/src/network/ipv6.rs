//! IPv6 of an interface. The kernel takes addresses and routes from router advertisements by itself; where
//! these say that addresses are managed, one is got by DHCPv6 (Azure, AWS and Google Cloud do so). Name
//! servers come from both.
//!
//! ```text
//!  router --> advertisement --> kernel --+-- addresses, routes ------------+
//!                                        +-- "managed" --> DHCPv6 ---------+--> Six --> resolv.conf
//!                                        +-- name servers, for a while ----+
//! ```
//!
//! DHCPv6 without addresses ("other configuration") is not spoken.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use mozim::{DhcpV6Client, DhcpV6Config, DhcpV6Lease, DhcpV6Mode, DhcpV6State};
use rtnetlink::Handle;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use rtnetlink::packet_route::link::{AfSpecInet6, AfSpecUnspec, Inet6IfaceFlags, LinkAttribute};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_stream::StreamExt;

use super::given::Given;
use super::router::{Announcement, Announcements};
use super::{NetworkError, RETRY, hardware_address, has_carrier, kernel, number};

/// What IPv6 has given to an interface.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Six {
    /// Addresses that other networks know too, and that can be used.
    pub addresses: Vec<Ipv6Addr>,
    /// And beside them.
    pub given: Given,
}

/// Keeps IPv6 going on an interface until something goes wrong; `tell` hears of every change.
pub(super) async fn serve(
    interface: &str,
    handle: &Handle,
    tell: &impl Fn(Six),
) -> Result<(), NetworkError> {
    // First: what the first router says when the interface comes up is not to be missed.
    let announcements = Announcements::listen()?;
    let index = number(interface)?;
    let mut link = Link::default();
    let mut servers = Servers::default();
    let (leases, mut new_leases) = unbounded_channel();
    let mut lease: Option<Lease> = None;
    // Ends with this function.
    let mut client = JoinSet::new();
    let mut had_carrier = true;
    let mut told = Six::default();
    let mut look = tokio::time::interval(LOOK_INTERVAL);
    loop {
        tokio::select! {
            new = new_leases.recv() => {
                let new: Option<Lease> = new.flatten();
                if new.as_ref().map(|new| new.address) != lease.as_ref().map(|old| old.address) {
                    if let Some(old) = &lease {
                        old.withdraw(handle, index).await?;
                    }
                    if let Some(new) = &new {
                        new.apply(handle, index).await?;
                    }
                }
                lease = new;
            }
            _ = look.tick() => {
                while let Some(said) = announcements.next()? {
                    if said.interface == index {
                        servers.hear(said, Instant::now());
                    }
                }
                link = Link::of(handle, index).await?;
                let carrier = has_carrier(interface);
                if carrier && !had_carrier && lease.is_none() {
                    // It may have come to wait for up to an hour before it asks again.
                    client = JoinSet::new();
                }
                had_carrier = carrier;
                if let (true, true, Some(own)) = (link.is_managed, client.is_empty(), link.own) {
                    let mut config = DhcpV6Config::new(interface, DhcpV6Mode::NonTemporaryAddresses);
                    config
                        .set_iface_index(index)
                        .set_link_local_ip(own)
                        .set_duid_by_iface_mac(&hardware_address(interface)?);
                    client.spawn(lease_for_ever(config, leases.clone()));
                }
            }
        }
        let now = Six {
            addresses: link.addresses.clone(),
            given: servers.given(lease.as_ref(), Instant::now()),
        };
        if now != told {
            told.clone_from(&now);
            tell(now);
        }
    }
}

/// Asks for an address and has it renewed; tells each lease, and when there is none any more.
async fn lease_for_ever(config: DhcpV6Config, leases: UnboundedSender<Option<Lease>>) {
    loop {
        // It is tried for ever: what is an error is none of the network's.
        if let Ok(mut client) = DhcpV6Client::init(config.clone(), None).await {
            while let Ok(state) = client.run().await {
                let lease = match state {
                    DhcpV6State::Done(lease) => Some(Lease::from(&*lease)),
                    DhcpV6State::Solicit => None,
                    _ => continue,
                };
                if leases.send(lease).is_err() {
                    return;
                }
            }
        }
        if leases.send(None).is_err() {
            return;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// What of a lease counts here.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Lease {
    address: Ipv6Addr,
    given: Given,
}

impl From<&DhcpV6Lease> for Lease {
    fn from(lease: &DhcpV6Lease) -> Self {
        let given = Given {
            name_servers: lease.dns_srvs.iter().copied().map(IpAddr::V6).collect(),
            // Those that are named and not numbered are left out: the clock comes before names.
            time_servers: lease
                .ntp_srvs
                .iter()
                .filter_map(|server| server.parse().ok())
                .collect(),
            domains: lease.domain_list.clone(),
        };
        Self {
            address: lease.address,
            given: given.bounded(),
        }
    }
}

impl Lease {
    /// Sets the address. It is in a network of its own: what else is near, routers tell (RFC 5942).
    async fn apply(&self, handle: &Handle, index: u32) -> Result<(), NetworkError> {
        let added = handle.address().add(index, self.address.into(), PREFIX);
        let added = added.replace().execute().await;
        added.map_err(kernel("the address can't be set"))
    }

    async fn withdraw(&self, handle: &Handle, index: u32) -> Result<(), NetworkError> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet6;
        message.header.prefix_len = PREFIX;
        message.header.index = index;
        let address = AddressAttribute::Address(self.address.into());
        message.attributes.push(address);
        let removed = handle.address().del(message).execute().await;
        removed.map_err(kernel("the address can't be taken back"))
    }
}

/// How the kernel has an interface.
#[derive(Debug, Default)]
struct Link {
    /// Its address on its own link, once it is known that nobody else has it.
    own: Option<Ipv6Addr>,
    addresses: Vec<Ipv6Addr>,
    /// Whether a router has said that DHCPv6 gives addresses.
    is_managed: bool,
}

impl Link {
    async fn of(handle: &Handle, index: u32) -> Result<Self, NetworkError> {
        let mut link = Self::default();
        let asked = handle.address().get().set_link_index_filter(index);
        let mut answers = std::pin::pin!(asked.execute());
        while let Some(message) = answers.next().await {
            link.add(&message.map_err(kernel("addresses can't be read"))?);
        }
        link.addresses.sort_unstable();
        let asked = handle.link().get().match_index(index);
        let mut answers = std::pin::pin!(asked.execute());
        while let Some(message) = answers.next().await {
            let message = message.map_err(kernel("the interface can't be read"))?;
            link.is_managed |= message.attributes.iter().any(is_managed);
        }
        Ok(link)
    }

    fn add(&mut self, message: &AddressMessage) {
        let unusable = AddressHeaderFlags::Tentative
            | AddressHeaderFlags::Dadfailed
            | AddressHeaderFlags::Deprecated;
        if message.header.family != AddressFamily::Inet6
            || message.header.flags.intersects(unusable)
        {
            return;
        }
        for attribute in &message.attributes {
            let AddressAttribute::Address(IpAddr::V6(address)) = attribute else {
                continue;
            };
            match message.header.scope {
                AddressScope::Link => self.own = Some(*address),
                AddressScope::Universe | AddressScope::Site => self.addresses.push(*address),
                _ => {}
            }
        }
    }
}

fn is_managed(attribute: &LinkAttribute) -> bool {
    let LinkAttribute::AfSpecUnspec(families) = attribute else {
        return false;
    };
    let facts = families.iter().filter_map(|family| match family {
        AfSpecUnspec::Inet6(facts) => Some(facts),
        _ => None,
    });
    facts.flatten().any(
        |fact| matches!(fact, AfSpecInet6::Flags(flags) if flags.contains(Inet6IfaceFlags::RaManaged)),
    )
}

/// Name servers that routers have announced, and until when each may be asked.
#[derive(Debug, Default)]
struct Servers(BTreeMap<Ipv6Addr, Option<Instant>>);

impl Servers {
    fn hear(&mut self, said: Announcement, now: Instant) {
        self.forget(now);
        for server in said.servers {
            match said.lifetime {
                Some(Duration::ZERO) => {
                    self.0.remove(&server);
                }
                lifetime if self.0.len() < MOST_SERVERS || self.0.contains_key(&server) => {
                    // So far away that the clock does not reach is for ever.
                    let until = lifetime.and_then(|lifetime| now.checked_add(lifetime));
                    self.0.insert(server, until);
                }
                _ => {}
            }
        }
    }

    fn forget(&mut self, now: Instant) {
        self.0
            .retain(|_, until| until.is_none_or(|until| until > now));
    }

    /// These, and what a lease has: that comes first, since the network was asked for it.
    fn given(&mut self, lease: Option<&Lease>, now: Instant) -> Given {
        self.forget(now);
        let mut given = lease.map(|lease| lease.given.clone()).unwrap_or_default();
        for server in self.0.keys().copied().map(IpAddr::V6) {
            if !given.name_servers.contains(&server) {
                given.name_servers.push(server);
            }
        }
        given.bounded()
    }
}

/// DHCPv6 gives addresses without networks.
const PREFIX: u8 = 128;

/// Whoever can send advertisements can send many.
const MOST_SERVERS: usize = 16;

/// How often the kernel is asked for addresses and announcements.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn said(lifetime: Option<u64>, servers: &[&str]) -> Announcement {
        Announcement {
            interface: 2,
            lifetime: lifetime.map(Duration::from_secs),
            servers: servers.iter().map(|s| s.parse().unwrap()).collect(),
        }
    }

    fn names(given: &Given) -> Vec<String> {
        given.name_servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn announced_servers_are_asked_for_as_long_as_was_said() {
        let (mut servers, now) = (Servers::default(), Instant::now());
        servers.hear(said(Some(60), &["fd00::1", "fd00::2"]), now);
        servers.hear(said(None, &["fd00::3"]), now);
        assert_eq!(
            names(&servers.given(None, now)),
            ["fd00::1", "fd00::2", "fd00::3"]
        );
        servers.hear(said(Some(0), &["fd00::2"]), now);
        assert_eq!(names(&servers.given(None, now)), ["fd00::1", "fd00::3"]);
        let later = now + Duration::from_secs(61);
        assert_eq!(names(&servers.given(None, later)), ["fd00::3"]);
    }

    #[test]
    fn servers_of_a_lease_come_first_and_a_flood_of_others_is_bounded() {
        let (mut servers, now) = (Servers::default(), Instant::now());
        for last in 0..1000 {
            servers.hear(said(Some(60), &[&format!("fd00::{last:x}")]), now);
        }
        assert_eq!(servers.0.len(), MOST_SERVERS);
        let mut lease = DhcpV6Lease::default();
        lease.address = "fd00:9::99".parse().unwrap();
        lease.dns_srvs = vec!["fd00:9::53".parse().unwrap()];
        lease.ntp_srvs = vec!["fd00:9::7b".into(), "ntp.example.com".into()];
        let lease = Lease::from(&lease);
        let given = servers.given(Some(&lease), now);
        assert_eq!(names(&given)[..2], ["fd00:9::53", "fd00::"]);
        assert_eq!(given.name_servers.len(), 8);
        assert_eq!(
            given.time_servers,
            ["fd00:9::7b".parse::<IpAddr>().unwrap()]
        );
    }
}
