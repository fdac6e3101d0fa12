//! What an interface was given beside its addresses, by whichever protocol.

use std::net::IpAddr;

/// Servers and domains. There are at most [`MOST`] of each.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Given {
    /// Name servers, the best first.
    pub name_servers: Vec<IpAddr>,
    /// Time servers, the best first.
    pub time_servers: Vec<IpAddr>,
    /// Domains in which names are looked for. They may be anything: it is not checked here.
    pub domains: Vec<String>,
}

impl Given {
    /// With no more than is worth asking.
    pub(super) fn bounded(mut self) -> Self {
        self.name_servers.truncate(MOST);
        self.time_servers.truncate(MOST);
        self.domains.truncate(MOST);
        self
    }
}

const MOST: usize = 8;
