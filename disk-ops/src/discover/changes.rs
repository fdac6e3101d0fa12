//! Tells when devices come and go: the kernel says so (`Documentation/core-api/kobject.rst`).
//!
//! What it says is no more than a reason to look again. So nothing of it is read, whoever sent it, and where
//! it can't be heard (in a container, say) time takes its place.

use std::os::fd::OwnedFd;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

/// Where the kernel's messages on devices come in.
#[derive(Debug)]
pub struct DeviceChanges {
    socket: Option<OwnedFd>,
}

impl DeviceChanges {
    /// Begins to listen: what changes from now on ends the next [`wait`](Self::wait).
    pub fn listen() -> Self {
        Self {
            socket: listen().ok(),
        }
    }

    /// Waits until devices have changed, but no longer than `limit`; whether they have, as far as it can
    /// be heard.
    pub fn wait(&mut self, limit: Duration) -> bool {
        let heard = self.socket.as_ref().map(|socket| hear(socket, limit));
        match heard {
            Some(Ok(has_changed)) => {
                if has_changed {
                    thread::sleep(TOGETHER.min(limit));
                }
                has_changed
            }
            Some(Err(_)) | None => {
                // Nothing can be heard any more.
                self.socket = None;
                thread::sleep(limit);
                false
            }
        }
    }
}

fn listen() -> rustix::io::Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        Some(KOBJECT_UEVENT),
    )?;
    bind(&socket, &SocketAddrNetlink::new(0, KERNELS_GROUP))?;
    Ok(socket)
}

/// Whether something was heard in time. All that has come is taken off, as far as it goes quickly.
fn hear(socket: &OwnedFd, limit: Duration) -> rustix::io::Result<bool> {
    let limit = Timespec::try_from(limit).map_err(|_| Errno::INVAL)?;
    let mut open = [PollFd::new(socket, PollFlags::IN)];
    match poll(&mut open, Some(&limit)) {
        Ok(0) | Err(Errno::INTR) => return Ok(false),
        Ok(_) => {}
        Err(error) => return Err(error),
    }
    let mut unread = [0; 1];
    for _ in 0..MOST_AT_ONCE {
        match recv(socket, &mut unread[..], RecvFlags::TRUNC) {
            // Messages were lost for want of room: a reason to look, too.
            Ok(_) | Err(Errno::NOBUFS) => {}
            Err(Errno::AGAIN | Errno::INTR) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Group 1 carries what the kernel says.
const KERNELS_GROUP: u32 = 1;

/// A disk comes with its bus, its partitions and more: one look is for all of them.
const TOGETHER: Duration = Duration::from_millis(50);

const MOST_AT_ONCE: usize = 4096;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_wait_ends_in_time_whether_anything_can_be_heard_or_not() {
        for mut changes in [DeviceChanges::listen(), DeviceChanges { socket: None }] {
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(120) {
                changes.wait(Duration::from_millis(40));
            }
            // A machine that has other things to do takes its time.
            assert!(began.elapsed() < Duration::from_secs(60));
        }
    }
}
