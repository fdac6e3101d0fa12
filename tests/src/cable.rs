//! A cable between this machine and a network namespace, which can be pulled out. Needs root.

use std::ffi::OsString;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use rustix::process::geteuid;

use crate::tool::IP;

/// Two ends of a cable, one of them in a network namespace of its own. Both go when this is dropped.
#[derive(Debug)]
pub struct Cable {
    namespace: String,
    veth: String,
    there: String,
    here: String,
}

impl Cable {
    /// A cable that is plugged in; `None`, and a line on standard error, without root.
    pub fn new() -> Result<Option<Self>> {
        if !geteuid().is_root() {
            eprintln!("not run: a network namespace needs root");
            return Ok(None);
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}{count}", std::process::id());
        // One network of four addresses for each, of the 2^14 in 10.213/16.
        let place = (std::process::id().wrapping_mul(8).wrapping_add(count)) % (1 << 14);
        let address = |last: u32| format!("10.213.{}.{}", place / 64, place % 64 * 4 + last);
        let cable = Self {
            namespace: format!("ce-{id}"),
            veth: format!("ceh{id}"),
            there: format!("cet{id}"),
            here: address(1),
        };
        let Self {
            namespace,
            veth,
            there,
            here,
        } = &cable;
        let peer = format!("{}/30", address(2));
        IP.run(["netns", "add", namespace])?;
        IP.run(["link", "add", veth, "type", "veth", "peer", "name", there])?;
        IP.run(["link", "set", there, "netns", namespace])?;
        IP.run(["addr", "add", &format!("{here}/30"), "dev", veth])?;
        IP.run(["link", "set", veth, "up"])?;
        IP.run(["-n", namespace, "addr", "add", &peer, "dev", there])?;
        IP.run(["-n", namespace, "link", "set", there, "up"])?;
        Ok(Some(cable))
    }

    /// The address of this end.
    pub fn here(&self) -> &str {
        &self.here
    }

    /// What runs a program at the other end.
    pub fn wrapper(&self) -> [OsString; 4] {
        ["ip", "netns", "exec", &self.namespace].map(OsString::from)
    }

    /// Lets so much through from the other end, as `tc` words it.
    pub fn limit(&self, rate: &str) -> Result<()> {
        let in_namespace = [
            "netns",
            "exec",
            &self.namespace,
            "tc",
            "qdisc",
            "add",
            "dev",
        ];
        let limit = [
            "root", "tbf", "rate", rate, "burst", "256k", "latency", "50ms",
        ];
        let there = [self.there.as_str()];
        IP.run(in_namespace.into_iter().chain(there).chain(limit))?;
        Ok(())
    }

    /// Pulls the cable out, or plugs it in again. Nobody at either end is told.
    pub fn plug(&self, is_in: bool) -> Result<()> {
        let state = if is_in { "up" } else { "down" };
        IP.run(["link", "set", &self.veth, state])?;
        Ok(())
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        // The one end takes the other with it.
        let _ = IP.run(["link", "del", &self.veth]);
        let _ = IP.run(["netns", "del", &self.namespace]);
    }
}
