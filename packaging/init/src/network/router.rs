//! Name servers that routers announce (RFC 8106, 5.1). The kernel makes addresses and routes of an
//! advertisement itself, and hands what it has no use for to who listens: `RTM_NEWNDUSEROPT` of rtnetlink
//! (`linux/rtnetlink.h`). Domains (DNSSL) are passed over, and so are servers whose address is good on one
//! link only: `/etc/resolv.conf` is for all of them.

use std::io;
use std::net::Ipv6Addr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recvfrom, socket_with};

/// What a router says of name servers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Announcement {
    /// The number of the interface by which it came.
    pub interface: u32,
    /// How long the servers may be asked from now on; for ever if not said.
    pub lifetime: Option<Duration>,
    /// Their addresses.
    pub servers: Vec<Ipv6Addr>,
}

/// Where announcements come in.
#[derive(Debug)]
pub(super) struct Announcements(OwnedFd);

impl Announcements {
    /// Begins to listen: what comes from now on is kept until it is asked for.
    ///
    /// # Errors
    ///
    /// The kernel does not allow it.
    pub(super) fn listen() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            // NETLINK_ROUTE is protocol 0.
            None,
        )?;
        bind(&socket, &SocketAddrNetlink::new(0, OPTIONS_GROUP))?;
        Ok(Self(socket))
    }

    /// The next one that has come; does not wait for more.
    ///
    /// # Errors
    ///
    /// Messages were lost for want of room, or the socket fails.
    pub(super) fn next(&self) -> io::Result<Option<Announcement>> {
        let mut message = [0; LONGEST_MESSAGE];
        loop {
            let received = recvfrom(&self.0, &mut message[..], RecvFlags::empty());
            let (_, length, sender) = match received {
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => continue,
                received => received?,
            };
            let sender = sender.and_then(|sender| SocketAddrNetlink::try_from(sender).ok());
            // Other programs can send to the group as well.
            if sender.is_none_or(|sender| sender.pid() != 0) {
                continue;
            }
            if let Some(announcement) = message.get(..length).and_then(parse) {
                return Ok(Some(announcement));
            }
        }
    }
}

/// What a message says, if it is of name servers.
fn parse(message: &[u8]) -> Option<Announcement> {
    // struct nlmsghdr: length, type, and more that is not needed.
    let length = u32::from_ne_bytes(bytes(message, 0)?);
    let kind = u16::from_ne_bytes(bytes(message, 4)?);
    let body = message.get(16..usize::try_from(length).ok()?)?;
    // struct nduseroptmsg: family, a gap, length of the options, interface, ICMP type and code, a gap.
    let family = *body.first()?;
    let options_length = u16::from_ne_bytes(bytes(body, 2)?);
    let interface = u32::from_ne_bytes(bytes(body, 4)?);
    if (kind, family) != (NEW_OPTION, INET6) || *body.get(8)? != ROUTER_ADVERTISEMENT {
        return None;
    }
    let option = body.get(16..16 + usize::from(options_length))?;
    // One option: kind, length in units of 8 bytes, a gap, lifetime in seconds, addresses.
    let end = usize::from(*option.get(1)?) * 8;
    let addresses = option.get(8..end)?;
    if *option.first()? != NAME_SERVERS {
        return None;
    }
    let lifetime = match u32::from_be_bytes(bytes(option, 4)?) {
        u32::MAX => None,
        seconds => Some(Duration::from_secs(seconds.into())),
    };
    let (addresses, _) = addresses.as_chunks::<16>();
    let addresses = addresses.iter().copied().map(Ipv6Addr::from);
    let is_good = |server: &Ipv6Addr| {
        !(server.is_unicast_link_local() || server.is_multicast() || server.is_unspecified())
    };
    Some(Announcement {
        interface,
        lifetime,
        servers: addresses.filter(is_good).collect(),
    })
}

fn bytes<const N: usize>(of: &[u8], at: usize) -> Option<[u8; N]> {
    of.get(at..)?.first_chunk().copied()
}

/// `RTNLGRP_ND_USEROPT` is group 20.
const OPTIONS_GROUP: u32 = 1 << 19;

/// `RTM_NEWNDUSEROPT`.
const NEW_OPTION: u16 = 68;

/// `AF_INET6`.
const INET6: u8 = 10;

/// The type of ICMPv6 message (RFC 4861, 4.2).
const ROUTER_ADVERTISEMENT: u8 = 134;

/// The type of option (RFC 8106, 5.1).
const NAME_SERVERS: u8 = 25;

/// An option has at most 2,040 bytes.
const LONGEST_MESSAGE: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The message of a kernel of which a router at interface 2 said these words.
    fn message(option: &[u8]) -> Vec<u8> {
        let length = u32::try_from(32 + option.len()).unwrap();
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(NEW_OPTION.to_ne_bytes());
        message.extend([0; 10]);
        message.extend([INET6, 0]);
        message.extend(u16::try_from(option.len()).unwrap().to_ne_bytes());
        message.extend(2_u32.to_ne_bytes());
        message.extend([ROUTER_ADVERTISEMENT, 0, 0, 0, 0, 0, 0, 0]);
        message.extend(option);
        message
    }

    fn option(lifetime: u32, servers: &[&str]) -> Vec<u8> {
        let units = u8::try_from(1 + 2 * servers.len()).unwrap();
        let mut option = vec![NAME_SERVERS, units, 0, 0];
        option.extend(lifetime.to_be_bytes());
        for server in servers {
            option.extend(server.parse::<Ipv6Addr>().unwrap().octets());
        }
        option
    }

    #[test]
    fn servers_are_told_with_their_time_and_their_interface() {
        let said = parse(&message(&option(
            300,
            &["fd00::53", "fe80::1", "2001:db8::1"],
        )));
        let said = said.unwrap();
        assert_eq!(
            (said.interface, said.lifetime),
            (2, Some(Duration::from_secs(300)))
        );
        let servers: Vec<Ipv6Addr> = ["fd00::53", "2001:db8::1"]
            .map(|s| s.parse().unwrap())
            .into();
        assert_eq!(said.servers, servers);
        let ever = parse(&message(&option(u32::MAX, &["fd00::53"]))).unwrap();
        assert_eq!(ever.lifetime, None);
        let gone = parse(&message(&option(0, &["fd00::53"]))).unwrap();
        assert_eq!(gone.lifetime, Some(Duration::ZERO));
    }

    #[test]
    fn what_is_no_announcement_of_servers_is_none() {
        let good = message(&option(300, &["fd00::53"]));
        for (at, value) in [(4, 69), (16, 2), (24, 133), (32, 31)] {
            let mut other = good.clone();
            other[at] = value;
            assert_eq!(parse(&other), None, "{at}");
        }
        for length in 0..good.len() {
            assert_eq!(parse(&good[..length]), None, "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_message_is_too_strange(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            option in proptest::collection::vec(any::<u8>(), 0..80),
        ) {
            let _ = parse(&bytes);
            if let Some(said) = parse(&message(&option)) {
                prop_assert!(said.servers.len() * 16 <= option.len());
            }
        }
    }
}
