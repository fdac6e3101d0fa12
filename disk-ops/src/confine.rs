//! What a child process of ours gives up before it sees what a guest wrote.
//!
//! Each of the processes that do so (the one that writes NTFS, the one that becomes wimlib's program)
//! has a list of its own; here is what they have in common. All of it is for processes of one thread.
#![expect(unsafe_code, reason = "close_range and unshare have no safe wrapper")]

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};

/// Closes all descriptors from `first` on, which the caller does not use any more.
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: no pointers. Nothing that is used later owns one of the descriptors: the callers are at
    // the beginning of their programs and have opened none.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
    match closed {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Into namespaces of its own (network, mounts, IPC, name), as far as that is allowed. Says whether it
/// was.
pub(crate) fn leave_the_world() -> bool {
    let own = libc::CLONE_NEWNET | libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    let is_root = rustix::process::geteuid().is_root();
    let user = if is_root { 0 } else { libc::CLONE_NEWUSER };
    // SAFETY: there is one thread, and nothing in it depends on what it leaves.
    unsafe { libc::unshare(own | user) == 0 }
}

/// Limits resources, for good.
pub(crate) fn limit(limits: &[(Resource, u64)]) -> io::Result<()> {
    for &(resource, limit) in limits {
        let limit = Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        };
        setrlimit(resource, limit)?;
    }
    Ok(())
}

/// Gives up all capabilities, and the way back to them by programs that have some.
pub(crate) fn give_up_rights() -> io::Result<()> {
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_no_new_privs(true)?;
    set_capabilities(None, none)?;
    Ok(())
}
