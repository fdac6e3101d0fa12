//! The network: every interface is brought up and has its addresses kept, for as long as the machine runs.
//!
//! ```text
//!  interface --> up --+--> DHCP <-- renewed --> address, routes, MTU --+--> Event --> Network --> resolv.conf
//!                     +--> IPv6: routers and DHCPv6 (`ipv6`) ----------+
//! ```

use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use mozim::{DhcpError, DhcpV4Client, DhcpV4Config, DhcpV4State};
use rtnetlink::{Handle, LinkUnspec};
use tokio::sync::mpsc::UnboundedSender;

mod given;
mod ipv6;
mod lease;
pub mod resolver;
mod router;
mod summary;

pub use given::Given;
pub use ipv6::Six;
pub use lease::Lease;
pub use summary::Network;

/// What happens to an interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Event {
    /// Its name.
    pub interface: String,
    /// What is new.
    pub news: News,
}

/// What is new of an interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum News {
    /// It has an IPv4 address.
    Four(Lease),
    /// All that it has of IPv6.
    Six(Six),
    /// It has no IPv4 address: it waits for something, or something went wrong, which is tried again.
    Trouble(String),
    /// IPv6 went wrong, and it has nothing of it; it is tried again.
    TroubleOfSix(String),
}

/// Why an interface does not work.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// No lease, or none that is any good.
    #[error("DHCP: {0}")]
    Dhcp(#[from] DhcpError),
    /// The kernel does not do what was asked of it.
    #[error("{what}: {source}")]
    Kernel {
        /// What was asked.
        what: &'static str,
        /// What it says.
        source: rtnetlink::Error,
    },
    /// What the kernel tells of it can't be read.
    #[error("{0}")]
    Unknown(#[from] io::Error),
}

/// A connection to the kernel's network configuration.
///
/// # Errors
///
/// It can't be made.
pub fn connect() -> io::Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    Ok(handle)
}

/// Sets `lo` up, which has index 1 always.
///
/// # Errors
///
/// The kernel does not do it.
pub async fn loopback(handle: &Handle) -> Result<(), NetworkError> {
    set_link(handle, 1, None).await
}

/// Names of the interfaces that are there.
pub fn interfaces() -> Vec<String> {
    let entries = fs::read_dir(CLASS).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Keeps an interface going until it is gone; what happens is told through `events`. Returns at once for
/// what is no Ethernet, and for the lower half of a pair (Azure's accelerated networking).
pub async fn keep(interface: String, handle: Handle, events: UnboundedSender<Event>) {
    let tell = |news| {
        let interface = interface.clone();
        // Nobody listens any more when the machine is about to be switched off.
        let _ = events.send(Event { interface, news });
    };
    let (four, six) = (|news| tell(news), |six| tell(News::Six(six)));
    let ipv6 = async {
        while is_ours(&interface) {
            if let Err(error) = ipv6::serve(&interface, &handle, &six).await {
                tell(News::TroubleOfSix(error.to_string()));
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    let ipv4 = async {
        while is_ours(&interface) {
            if let Err(error) = serve(&interface, &handle, &four).await {
                tell(News::Trouble(error.to_string()));
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    // IPv6 begins: it listens before the interface comes up.
    tokio::select! { biased; () = ipv6 => {} () = ipv4 => {} }
}

/// Runs DHCP on an interface until something goes wrong.
async fn serve(interface: &str, handle: &Handle, tell: &impl Fn(News)) -> Result<(), NetworkError> {
    let index = number(interface)?;
    set_link(handle, index, None).await?;
    if !wait_for_carrier(interface).await {
        tell(News::Trouble(
            "no carrier; DHCP is tried nonetheless".into(),
        ));
    }
    let mut config = DhcpV4Config::new(interface);
    config.set_iface_index(index);
    config.set_iface_mac(&attribute(interface, "address")?)?;
    config.use_mac_as_client_id();
    // It is tried for ever.
    config.set_timeout_sec(0);
    let mut client = DhcpV4Client::init(config, None).await?;
    let mut held: Option<Lease> = None;
    loop {
        let next = client.run();
        tokio::pin!(next);
        let state = loop {
            tokio::select! {
                state = &mut next => break state?,
                () = tokio::time::sleep(PATIENCE), if held.is_none() => {
                    tell(News::Trouble("no DHCP server answers".into()));
                }
            }
        };
        match state {
            DhcpV4State::Done(lease) => {
                let lease = Lease::from(&*lease);
                if held.as_ref() != Some(&lease) {
                    release(handle, index, held.take()).await?;
                    lease.apply(handle, index).await?;
                    tell(News::Four(lease.clone()));
                    held = Some(lease);
                }
            }
            DhcpV4State::InitReboot if held.is_some() => {
                release(handle, index, held.take()).await?;
                tell(News::Trouble("the address was not renewed".into()));
            }
            _ => {}
        }
    }
}

async fn release(handle: &Handle, index: u32, lease: Option<Lease>) -> Result<(), NetworkError> {
    match lease {
        Some(lease) => lease.withdraw(handle, index).await,
        None => Ok(()),
    }
}

async fn set_link(handle: &Handle, index: u32, mtu: Option<u32>) -> Result<(), NetworkError> {
    let mut link = LinkUnspec::new_with_index(index).up();
    if let Some(mtu) = mtu {
        link = link.mtu(mtu);
    }
    let set = handle.link().set(link.build()).execute().await;
    set.map_err(kernel("the interface can't be brought up"))
}

/// What the kernel does not do, as an error.
fn kernel(what: &'static str) -> impl Fn(rtnetlink::Error) -> NetworkError {
    move |source| NetworkError::Kernel { what, source }
}

fn has_carrier(interface: &str) -> bool {
    attribute(interface, "carrier").is_ok_and(|carrier| carrier == "1")
}

async fn wait_for_carrier(interface: &str) -> bool {
    for _ in 0..CARRIER_LOOKS {
        if has_carrier(interface) {
            return true;
        }
        tokio::time::sleep(CARRIER_INTERVAL).await;
    }
    false
}

/// Whether it is an Ethernet interface (ARPHRD_ETHER is 1) that is not a part of another one.
fn is_ours(interface: &str) -> bool {
    let is_ethernet = attribute(interface, "type").is_ok_and(|kind| kind == "1");
    is_ethernet && !Path::new(CLASS).join(interface).join("master").exists()
}

/// The kernel's number of an interface.
fn number(interface: &str) -> io::Result<u32> {
    let number = attribute(interface, "ifindex")?;
    number.parse().map_err(io::Error::other)
}

/// The address of an Ethernet card.
fn hardware_address(interface: &str) -> io::Result<Vec<u8>> {
    let text = attribute(interface, "address")?;
    let bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16));
    bytes.collect::<Result<_, _>>().map_err(io::Error::other)
}

fn attribute(interface: &str, name: &str) -> io::Result<String> {
    let path = Path::new(CLASS).join(interface).join(name);
    Ok(fs::read_to_string(path)?.trim().to_owned())
}

const CLASS: &str = "/sys/class/net";

/// A switch takes some seconds to let a new port speak.
const CARRIER_INTERVAL: Duration = Duration::from_millis(100);
const CARRIER_LOOKS: u32 = 100;

/// How long nothing is said about a server that does not answer.
const PATIENCE: Duration = Duration::from_secs(15);

const RETRY: Duration = Duration::from_secs(5);
