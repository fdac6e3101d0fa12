//! The machine in a network with a real server for addresses, names and time, in a namespace of its own. Only
//! root may make the card that the machine is plugged into.

use std::fs::{self, File};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::thread::{self, sleep};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use ce_tests::tool::{DNSMASQ, IP, UNSHARE, text};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::json;
use tempfile::TempDir;

use crate::built::image;
use crate::machine::{Machine, Plan};

/// A network with one server in it, to be: the server lives as long as the machine does.
struct Lan {
    folder: TempDir,
}

impl Lan {
    fn new() -> Result<Self> {
        Ok(Self {
            folder: tempfile::tempdir()?,
        })
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// A machine in it whose Connector is `connector.example`, where nobody is. `offers` is what the server
    /// gives, in its own words.
    fn plan(&self, offers: &[&str]) -> Result<Plan> {
        let (ip, dnsmasq, log) = (IP.path()?, DNSMASQ.path()?, self.log());
        let (ip, dnsmasq, log) = (text(&ip)?, text(&dnsmasq)?, text(&log)?);
        fs::write(log, "")?;
        let leases = self.folder.path().join("leases");
        let (leases, offers) = (text(&leases)?, offers.join(" "));
        let script = format!(
            "set -e\n\
             {ip} tuntap add lan mode tap\n\
             {ip} address add 10.9.0.1/24 dev lan\n\
             {ip} address add fd00:9::1/64 dev lan nodad\n\
             {ip} link set lan up\n\
             {dnsmasq} --keep-in-foreground --user=root --pid-file= --conf-file=/dev/null --no-resolv --no-hosts --interface=lan \
             --dhcp-leasefile={leases} --log-facility={log} --log-queries --log-dhcp --enable-ra \
             {offers} &\n\
             exec \"$@\""
        );
        let below = [
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "sh",
            "-c",
            &script,
            "lan",
        ];
        let mut words = vec![text(&UNSHARE.path()?)?.to_owned()];
        words.extend(below.map(str::to_owned));
        let ca = rcgen::generate_simple_self_signed(["connector.example".into()])?;
        let config = format!(
            "connectors = ['connector.example:1']\ntoken = 'none'\nca = '''\n{}'''\n",
            ca.cert.pem()
        );
        Ok(Plan::new(config)?
            .network("tap,ifname=lan,script=no,downscript=no")
            .below(words)
            .parameters("ce.idle=3600 ce.hold=1"))
    }

    /// How often the server has said this.
    fn count(&self, part: &str) -> Result<usize> {
        let log = fs::read_to_string(self.log()).context("the server's log")?;
        Ok(log.matches(part).count())
    }

    /// Waits until the server has said each of these as often as is said beside it.
    fn until_logged(&self, parts: &[(&str, usize)]) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut missing = Vec::new();
            for (part, times) in parts {
                if self.count(part)? < *times {
                    missing.push(part);
                }
            }
            if missing.is_empty() {
                return Ok(());
            }
            let log = fs::read_to_string(self.log())?;
            ensure!(Instant::now() < until, "no {missing:?} in:\n{log}");
            sleep(Duration::from_millis(200));
        }
    }
}

/// Pulls the cable of the machine's card, or puts it in.
fn plug(machine: &Machine, is_in: bool) -> Result<()> {
    machine.command("set_link", &json!({"name": "network", "up": is_in}))?;
    Ok(())
}

#[test]
fn addresses_are_renewed_for_as_long_as_there_is_a_server_and_given_back_then() -> Result<()> {
    let lan = Lan::new()?;
    // The shortest time that this server gives; it is renewed after half of it.
    let plan = lan.plan(&[
        "--dhcp-range=10.9.0.50,10.9.0.59,255.255.255.0,120",
        "--dhcp-range=fd00:9::50,fd00:9::59,64,120",
        "--address=/connector.example/10.9.0.1",
    ])?;
    let mut machine = plan.start(image()?)?;
    machine.until_said("/24 by DHCP, router 10.9.0.1; fd00:9::5")?;
    lan.until_logged(&[
        ("DHCPACK(lan) 10.9.0.5", 1),
        ("DHCPREPLY(lan) fd00:9::5", 1),
        ("connector.example from 10.9.0.5", 1),
    ])?;
    lan.until_logged(&[("DHCPACK(lan) 10.9.0.5", 2), ("DHCPRENEW(lan)", 1)])?;
    let console = machine.console()?;
    ensure!(!console.contains("not renewed"), "{console}");
    // The cable is pulled for longer than the addresses are good, and put in again.
    plug(&machine, false)?;
    machine.until_said("network eth0: the address was not renewed")?;
    machine.until_said("network eth0: no DHCP server answers")?;
    let (four, six) = ("DHCPACK(lan) 10.9.0.5", "DHCPREPLY(lan) fd00:9::5");
    let before = (lan.count(four)?, lan.count(six)?);
    plug(&machine, true)?;
    lan.until_logged(&[(four, before.0 + 1), (six, before.1 + 1)])?;
    Ok(())
}

#[test]
fn a_machine_whose_network_has_nothing_but_ipv6_finds_names_by_it() -> Result<()> {
    let lan = Lan::new()?;
    let plan = lan.plan(&[
        "--dhcp-range=fd00:9::50,fd00:9::59,64,120",
        "--address=/connector.example/fd00:9::1",
    ])?;
    let mut machine = plan.start(image()?)?;
    machine.until_said("network eth0: fd00:9::5")?;
    lan.until_logged(&[("connector.example from fd00:9::5", 1)])?;
    // It is reached, and nobody is there.
    machine.until_said("Connection refused")?;
    Ok(())
}

#[test]
fn a_clock_that_is_years_behind_is_set_by_the_time_server_of_the_network() -> Result<()> {
    let lan = Lan::new()?;
    let plan = lan.plan(&[
        "--dhcp-range=10.9.0.50,10.9.0.59,255.255.255.0,120",
        "--dhcp-option=option:ntp-server,10.9.0.1",
        "--address=/connector.example/10.9.0.1",
    ])?;
    let mut machine = plan.clock("2001-02-03T04:05:06").start(image()?)?;
    tell_time(socket_within(&machine, 123)?, A_YEAR);
    machine.until_said("clock: it stood before the day the image was built, and is set to it")?;
    machine.until_said("clock: right by 10.9.0.1")?;
    let console = machine.console()?;
    let (_, told) = console
        .split_once("it was off by ")
        .context("not told by how much")?;
    let (seconds, _) = told.split_once(" s").context("not in seconds")?;
    // By a year, and by the time since the image was built.
    ensure!(seconds.parse::<f64>()? >= A_YEAR.as_secs_f64(), "{told}");
    Ok(())
}

/// A socket in the network of a machine.
fn socket_within(machine: &Machine, port: u16) -> Result<UdpSocket> {
    let network = format!("/proc/{}/ns/net", machine.id());
    let ours = fs::read_link("/proc/self/ns/net")?;
    let until = Instant::now() + PATIENCE;
    while fs::read_link(&network)? == ours {
        ensure!(Instant::now() < until, "it stays in this network");
        sleep(Duration::from_millis(20));
    }
    // Who enters a network does so for one thread. A socket stays where it was made.
    let bound = thread::spawn(move || -> Result<UdpSocket> {
        let network = File::open(network)?;
        move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?)
    });
    match bound.join() {
        Ok(socket) => socket,
        Err(_) => bail!("no socket in the machine's network"),
    }
}

/// Answers whoever asks for the time (RFC 4330), for as long as the test runs. It is `ahead` of ours, so
/// that nobody can have it from elsewhere.
fn tell_time(socket: UdpSocket, ahead: Duration) {
    thread::spawn(move || -> Result<()> {
        let mut question = [0; 48];
        loop {
            let (_, asker) = socket.recv_from(&mut question)?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH)? + ahead;
            let seconds = u32::try_from(now.as_secs() + SECONDS_FROM_1900_TO_1970)?;
            let fraction = (u64::from(now.subsec_nanos()) << 32) / 1_000_000_000;
            let now = ((u64::from(seconds) << 32) | fraction).to_be_bytes();
            let mut answer = [0; 48];
            // Version 4, of a server with a clock of its own, exact to a microsecond.
            answer[..4].copy_from_slice(&[0o44, 1, 6, 0xec]);
            answer[12..16].copy_from_slice(b"LOCL");
            answer[16..24].copy_from_slice(&now);
            answer[24..32].copy_from_slice(&question[40..]);
            answer[32..40].copy_from_slice(&now);
            answer[40..].copy_from_slice(&now);
            socket.send_to(&answer, asker)?;
        }
    });
}

const A_YEAR: Duration = Duration::from_secs(31_556_952);
const SECONDS_FROM_1900_TO_1970: u64 = 2_208_988_800;

/// An emulated machine beside others, on a host that has other things to do.
const PATIENCE: Duration = Duration::from_secs(600);
