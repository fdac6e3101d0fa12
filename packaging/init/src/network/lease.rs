//! What a DHCP server gives, and how it is set.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use mozim::DhcpV4Lease;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::given::Given;
use super::{NetworkError, kernel, set_link};

/// A route: where to, and through whom; directly if through nobody.
type Route = (Ipv4Addr, u8, Option<Ipv4Addr>);

/// What of a lease counts here: two that are equal need nothing to be done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// The length of its network's prefix.
    pub prefix: u8,
    routes: Vec<Route>,
    mtu: Option<u32>,
    /// And beside them.
    pub given: Given,
}

impl From<&DhcpV4Lease> for Lease {
    fn from(lease: &DhcpV4Lease) -> Self {
        let routes = match &lease.classless_routes {
            // RFC 3442: with these, the routers don't count.
            Some(routes) => routes
                .iter()
                .map(|route| {
                    let router = Some(route.router).filter(|router| !router.is_unspecified());
                    (route.destination, route.prefix_length, router)
                })
                .collect(),
            None => {
                let router = lease.gateways.iter().flatten().next();
                let route = |router: &Ipv4Addr| (Ipv4Addr::UNSPECIFIED, 0, Some(*router));
                router.map(route).into_iter().collect::<Vec<Route>>()
            }
        };
        let mut domains = lease.domain_search.clone().unwrap_or_default();
        domains.extend(lease.domain_name.clone());
        let mut lease = Self {
            address: lease.yiaddr,
            prefix: lease.prefix_length(),
            routes,
            mtu: lease.mtu.map(u32::from).filter(|mtu| *mtu >= SMALLEST_MTU),
            given: Given {
                name_servers: addresses(lease.dns_srvs.as_deref()),
                time_servers: addresses(lease.ntp_srvs.as_deref()),
                domains,
            }
            .bounded(),
        };
        lease.routes.truncate(MOST_ROUTES);
        // A route through a router needs to reach the router first.
        lease.routes.sort_by_key(|(_, _, router)| router.is_some());
        lease
    }
}

fn addresses(given: Option<&[Ipv4Addr]>) -> Vec<IpAddr> {
    let given = given.into_iter().flatten();
    given.copied().map(IpAddr::V4).collect()
}

impl Lease {
    /// Sets address, MTU and routes of the interface.
    ///
    /// # Errors
    ///
    /// The kernel does not take them.
    pub(super) async fn apply(&self, handle: &Handle, index: u32) -> Result<(), NetworkError> {
        if self.mtu.is_some() {
            set_link(handle, index, self.mtu).await?;
        }
        let address = IpAddr::V4(self.address);
        let added = handle.address().add(index, address, self.prefix);
        let added = added.replace().execute().await;
        added.map_err(kernel("the address can't be set"))?;
        for (destination, prefix, router) in &self.routes {
            let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(*destination, *prefix)
                .output_interface(index)
                // The first interface is the one that is used.
                .priority(FIRST_METRIC.saturating_add(index));
            route = match router {
                // Clouds give addresses of a network of one, with the router outside of it.
                Some(router) => route.gateway(*router).onlink(),
                None => route.scope(rtnetlink::packet_route::route::RouteScope::Link),
            };
            let added = handle.route().add(route.build()).replace().execute().await;
            added.map_err(kernel("a route can't be set"))?;
        }
        Ok(())
    }

    /// Takes the address back; its routes go with it.
    ///
    /// # Errors
    ///
    /// The kernel does not do it.
    pub(super) async fn withdraw(&self, handle: &Handle, index: u32) -> Result<(), NetworkError> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = self.prefix;
        message.header.index = index;
        let address = AddressAttribute::Local(IpAddr::V4(self.address));
        message.attributes.push(address);
        let removed = handle.address().del(message).execute().await;
        removed.map_err(kernel("the address can't be taken back"))
    }
}

/// `10.0.2.15/24 by DHCP, router 10.0.2.2`
impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} by DHCP", self.address, self.prefix)?;
        let mut routers = self.routes.iter().filter_map(|(_, _, router)| *router);
        match routers.next() {
            Some(router) => write!(f, ", router {router}"),
            None => write!(f, ", no router"),
        }
    }
}

/// RFC 2132, 5.1: the smallest that may be set is 68; below 576 no IPv4 machine has to work.
const SMALLEST_MTU: u32 = 576;

const FIRST_METRIC: u32 = 100;
const MOST_ROUTES: usize = 64;

#[cfg(test)]
mod tests {
    use mozim::DhcpV4ClasslessRoute;

    use super::*;

    fn given() -> DhcpV4Lease {
        let mut lease = DhcpV4Lease::default();
        lease.yiaddr = Ipv4Addr::new(10, 0, 2, 15);
        lease.subnet_mask = Ipv4Addr::new(255, 255, 255, 0);
        lease.gateways = Some(vec![Ipv4Addr::new(10, 0, 2, 2), Ipv4Addr::new(10, 0, 2, 3)]);
        lease
    }

    #[test]
    fn the_first_router_is_used() {
        let lease = Lease::from(&given());
        assert_eq!(lease.to_string(), "10.0.2.15/24 by DHCP, router 10.0.2.2");
        assert_eq!(lease.routes.len(), 1);
    }

    #[test]
    fn classless_routes_stand_in_for_routers_and_the_way_to_them_comes_first() {
        // As Google Cloud gives them.
        let mut given = given();
        given.subnet_mask = Ipv4Addr::new(255, 255, 255, 255);
        let router = Ipv4Addr::new(10, 128, 0, 1);
        given.classless_routes = Some(vec![
            DhcpV4ClasslessRoute {
                destination: Ipv4Addr::UNSPECIFIED,
                prefix_length: 0,
                router,
            },
            DhcpV4ClasslessRoute {
                destination: router,
                prefix_length: 32,
                router: Ipv4Addr::UNSPECIFIED,
            },
        ]);
        given.mtu = Some(1460);
        let lease = Lease::from(&given);
        assert_eq!(
            lease.routes,
            [(router, 32, None), (Ipv4Addr::UNSPECIFIED, 0, Some(router))]
        );
        assert_eq!((lease.prefix, lease.mtu), (32, Some(1460)));
    }

    #[test]
    fn a_renewal_that_changes_nothing_is_the_same_lease() {
        let mut renewed = given();
        renewed.lease_time_sec = 7;
        assert_eq!(Lease::from(&given()), Lease::from(&renewed));
        renewed.mtu = Some(60);
        assert_eq!(Lease::from(&renewed).mtu, None);
    }
}
