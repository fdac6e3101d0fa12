//! What the kernel tells about devices that come (`Documentation/core-api/kobject.rst` of the kernel).

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recvfrom, socket_with};

/// Something was added that this program may have to do something about.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Added {
    /// What a module says that it is for.
    pub modalias: Option<String>,
    /// The name of a network interface.
    pub interface: Option<String>,
    /// The name of a disk, not of a partition.
    pub disk: Option<String>,
    /// The name of an input device, `input/event0`.
    pub input: Option<String>,
}

/// Where the kernel's messages come in.
#[derive(Debug)]
pub struct Uevents(OwnedFd);

impl Uevents {
    /// Begins to listen: what comes from now on is kept until it is asked for.
    ///
    /// # Errors
    ///
    /// The kernel does not allow it.
    pub fn listen() -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            Some(KOBJECT_UEVENT),
        )?;
        // Many devices come at once when a bus does.
        set_socket_recv_buffer_size_force(&socket, 4 << 20)?;
        bind(&socket, &SocketAddrNetlink::new(0, KERNELS_GROUP))?;
        Ok(Self(socket))
    }

    /// Waits for the next thing that was added.
    ///
    /// # Errors
    ///
    /// Messages were lost for want of room: then everything has to be looked through again.
    pub fn next(&self) -> io::Result<Added> {
        let mut buffer = [0; LONGEST_MESSAGE];
        loop {
            let received = recvfrom(&self.0, &mut buffer[..], RecvFlags::empty());
            let (_, length, sender) = match received {
                Err(Errno::INTR) => continue,
                received => received?,
            };
            let sender = sender.and_then(|sender| SocketAddrNetlink::try_from(sender).ok());
            // Other programs can send to the group as well.
            if sender.is_none_or(|sender| sender.pid() != 0) {
                continue;
            }
            if let Some(added) = buffer.get(..length).and_then(parse) {
                return Ok(added);
            }
        }
    }
}

/// What a message says, if it is that something was added.
fn parse(message: &[u8]) -> Option<Added> {
    let mut fields = message.split(|byte| *byte == 0);
    if !fields.next()?.starts_with(b"add@") {
        return None;
    }
    let mut added = Added::default();
    let (mut subsystem, mut kind, mut name) = ("", "", "");
    for field in fields {
        let Some((key, value)) = std::str::from_utf8(field)
            .ok()
            .and_then(|field| field.split_once('='))
        else {
            continue;
        };
        match key {
            "DEVNAME" => name = value,
            "DEVTYPE" => kind = value,
            "INTERFACE" => added.interface = Some(value.to_owned()),
            "MODALIAS" => added.modalias = Some(value.to_owned()),
            "SUBSYSTEM" => subsystem = value,
            _ => {}
        }
    }
    if subsystem != "net" {
        added.interface = None;
    }
    if subsystem == "block" && kind == "disk" && !name.is_empty() {
        added.disk = Some(name.trim_start_matches("/dev/").to_owned());
    }
    if subsystem == "input" && name.starts_with("input/event") {
        added.input = Some(name.to_owned());
    }
    (added != Added::default()).then_some(added)
}

/// Group 1 carries what the kernel says, group 2 what udev makes of it.
const KERNELS_GROUP: u32 = 1;

/// `UEVENT_BUFFER_SIZE` is 2048; a path stands before it.
const LONGEST_MESSAGE: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_told() {
        let message = b"add@/devices/pci0000:00/0000:00:03.0\0ACTION=add\0SUBSYSTEM=pci\0\
                        MODALIAS=pci:v00001AF4d00001000sv\0";
        let added = parse(message).unwrap();
        assert_eq!(added.modalias.as_deref(), Some("pci:v00001AF4d00001000sv"));
        let message = b"add@/devices/x/net/eth0\0SUBSYSTEM=net\0INTERFACE=eth0\0IFINDEX=2\0";
        assert_eq!(parse(message).unwrap().interface.as_deref(), Some("eth0"));
        let message = b"add@/devices/x/block/sdc\0SUBSYSTEM=block\0DEVNAME=sdc\0DEVTYPE=disk\0";
        assert_eq!(parse(message).unwrap().disk.as_deref(), Some("sdc"));
        let message = b"add@/devices/x/input1/event1\0SUBSYSTEM=input\0DEVNAME=input/event1\0";
        let input = parse(message).unwrap().input;
        assert_eq!(input.as_deref(), Some("input/event1"));
    }

    #[test]
    fn what_is_of_no_concern_is_passed_over() {
        for message in [
            &b""[..],
            b"\0\0\0",
            b"remove@/devices/x\0SUBSYSTEM=net\0INTERFACE=eth0\0",
            b"add@/devices/x/block/sdc1\0SUBSYSTEM=block\0DEVNAME=sdc1\0DEVTYPE=partition\0",
            b"add@/devices/x\0INTERFACE=eth0\0",
            b"add@/x\0MODALIAS=\xff\0",
            b"libudev\0\xfe\xed\xca\xfe",
        ] {
            assert_eq!(parse(message), None, "{message:?}");
        }
    }
}
