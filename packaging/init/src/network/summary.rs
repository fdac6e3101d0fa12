//! How the whole network is: what all interfaces have at this moment.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Event, Given, Lease, News, Six};

/// All interfaces that something was heard of.
#[derive(Debug, Default)]
pub struct Network(BTreeMap<String, Interface>);

#[derive(Debug, Default)]
struct Interface {
    lease: Option<Lease>,
    six: Six,
    /// Why there is no IPv4 address, and what is wrong with IPv6.
    trouble: Option<String>,
    trouble_of_six: Option<String>,
}

impl Network {
    /// Takes what happened to an interface; returns how that is now, for a person to read.
    pub fn take(&mut self, event: Event) -> String {
        let interface = self.0.entry(event.interface).or_default();
        match event.news {
            News::Four(lease) => {
                interface.lease = Some(lease);
                interface.trouble = None;
            }
            News::Six(six) => {
                interface.six = six;
                interface.trouble_of_six = None;
            }
            News::Trouble(why) => {
                interface.lease = None;
                interface.trouble = Some(why);
            }
            News::TroubleOfSix(why) => {
                interface.six = Six::default();
                interface.trouble_of_six = Some(format!("IPv6: {why}"));
            }
        }
        interface.to_text()
    }

    /// Whether there is an address by which others can be reached.
    pub fn is_up(&self) -> bool {
        let mut interfaces = self.0.values();
        interfaces.any(|one| one.lease.is_some() || !one.six.addresses.is_empty())
    }

    /// What the interfaces were given, IPv4 first.
    pub fn given(&self) -> impl Iterator<Item = &Given> {
        let four = self.0.values().filter_map(|one| one.lease.as_ref());
        let six = self.0.values().map(|one| &one.six.given);
        four.map(|lease| &lease.given).chain(six)
    }

    /// All time servers.
    pub fn time_servers(&self) -> Vec<IpAddr> {
        let servers = self.given().flat_map(|given| &given.time_servers);
        servers.copied().collect()
    }
}

impl Interface {
    /// `10.0.2.15/24 by DHCP, router 10.0.2.2; fd00::15 by IPv6`
    fn to_text(&self) -> String {
        let mut parts: Vec<_> = self.lease.iter().map(ToString::to_string).collect();
        if let Some(address) = self.six.addresses.first() {
            let further = match self.six.addresses.len() - 1 {
                0 => String::new(),
                count => format!(" (and {count} more)"),
            };
            parts.push(format!("{address}{further} by IPv6"));
        }
        parts.extend(self.trouble.clone());
        parts.extend(self.trouble_of_six.clone());
        if parts.is_empty() {
            parts.push("no address yet".into());
        }
        parts.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use mozim::DhcpV4Lease;

    use super::*;

    fn event(news: News) -> Event {
        Event {
            interface: "eth0".into(),
            news,
        }
    }

    fn lease() -> Lease {
        let mut lease = DhcpV4Lease::default();
        lease.yiaddr = [10, 0, 2, 15].into();
        lease.subnet_mask = [255, 255, 255, 0].into();
        lease.ntp_srvs = Some(vec![[10, 0, 2, 9].into()]);
        Lease::from(&lease)
    }

    fn six(addresses: &[&str]) -> Six {
        Six {
            addresses: addresses.iter().map(|one| one.parse().unwrap()).collect(),
            given: Given {
                name_servers: vec!["fd00::53".parse().unwrap()],
                ..Given::default()
            },
        }
    }

    #[test]
    fn either_address_brings_the_network_up_and_each_is_lost_for_itself() {
        let mut network = Network::default();
        let mut said = Vec::new();
        for (news, is_up) in [
            (News::Six(six(&[])), false),
            (News::Trouble("no DHCP server answers".into()), false),
            (News::Six(six(&["fd00::15", "fd00::16"])), true),
            (News::Four(lease()), true),
            (News::TroubleOfSix("it broke".into()), true),
            (News::Trouble("the address was not renewed".into()), false),
        ] {
            said.push(network.take(event(news)));
            assert_eq!(network.is_up(), is_up, "{said:?}");
        }
        assert_eq!(
            said,
            [
                "no address yet",
                "no DHCP server answers",
                "fd00::15 (and 1 more) by IPv6; no DHCP server answers",
                "10.0.2.15/24 by DHCP, no router; fd00::15 (and 1 more) by IPv6",
                "10.0.2.15/24 by DHCP, no router; IPv6: it broke",
                "the address was not renewed; IPv6: it broke",
            ]
        );
    }

    #[test]
    fn servers_of_both_are_known_as_long_as_their_addresses() {
        let mut network = Network::default();
        network.take(event(News::Six(six(&["fd00::15"]))));
        network.take(event(News::Four(lease())));
        assert_eq!(network.time_servers(), [IpAddr::from([10, 0, 2, 9])]);
        assert_eq!(network.given().count(), 2);
        network.take(event(News::Trouble("gone".into())));
        assert!(network.time_servers().is_empty());
        let names = network.given().flat_map(|given| &given.name_servers);
        assert_eq!(names.count(), 1);
    }
}
