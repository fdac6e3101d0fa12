//! What the daemon gives up before it hears from anybody.
//!
//! ```text
//!  privileges    no program that it starts can have more rights than it has (no_new_privs)
//!  capabilities  those of root that no job needs, for good
//!  calls         those that no job needs: seccomp answers them with EPERM. `listen` and `accept` are
//!                among them, so that "listens on nothing" is the kernel's word
//! ```
//!
//! What stays is what jobs need: disks, files, connections, processes. The list names what is refused
//! and not what is allowed, because the libraries below (libsmbclient and what it loads, the C library)
//! change what they call from release to release; the process that writes NTFS, which sees what a guest
//! wrote, is confined by a list of the other kind.

use std::collections::BTreeMap;
use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// Confines the process. There is no way back, for it and for every process that it starts.
///
/// # Errors
///
/// What the kernel refused, after which some of it may be in force.
pub(super) fn confine() -> io::Result<()> {
    give_up_capabilities()?;
    set_no_new_privs(true)?;
    let calls = refused_calls().map_err(io::Error::other)?;
    seccompiler::apply_filter_all_threads(&calls).map_err(io::Error::other)
}

fn give_up_capabilities() -> io::Result<()> {
    let mine = capabilities(None)?;
    for capability in CapabilitySet::all().difference(NEEDED).iter() {
        // A user who is not root may not change the set, and no_new_privs keeps it out of reach. The
        // kernel knows fewer capabilities than rustix, or more.
        if mine.effective.contains(CapabilitySet::SETPCAP)
            && capability_is_in_bounding_set(capability).unwrap_or(false)
        {
            remove_capability_from_bounding_set(capability)?;
        }
    }
    let kept = CapabilitySets {
        effective: mine.effective.intersection(NEEDED),
        permitted: mine.permitted.intersection(NEEDED),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, kept)?;
    Ok(())
}

fn refused_calls() -> Result<BpfProgram, seccompiler::Error> {
    // Without rules, a call is meant whatever its arguments.
    let rules: BTreeMap<i64, Vec<_>> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let architecture = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, architecture)?;
    Ok(filter.try_into()?)
}

/// Of the rights of root, those for
///
/// - disks and files of others: `CHOWN`, `DAC_OVERRIDE`, `DAC_READ_SEARCH`, `FOWNER`, `SYS_ADMIN` (some
///   requests to block devices);
/// - the confinement of the process that writes NTFS, and its end: `SETUID`, `SETGID`, `SETPCAP`,
///   `SYS_ADMIN`, `KILL`;
/// - `diagnostics`: `SYSLOG`;
/// - the configured command that switches the machine off: `SYS_BOOT`.
const NEEDED: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SYSLOG)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::SYS_BOOT);

/// Calls that no job makes.
const REFUSED: [i64; 48] = [
    // To be reached from outside.
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_listen,
    // Other processes, their memory and their open files.
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    // The kernel: its code, its parameters, programs within it, its rarely used doors.
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_nfsservctl,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_quotactl,
    libc::SYS_request_key,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
    // What is mounted where, and files past the folders that lead to them.
    libc::SYS_chroot,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mknodat,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_setns,
    libc::SYS_umount2,
    // The clock and the name of the machine.
    libc::SYS_adjtimex,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_settimeofday,
];

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use super::*;

    #[test]
    fn a_confined_thread_connects_and_cannot_listen() {
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = open.local_addr().unwrap();
        // The filter is that of one thread, and ends with it.
        let confined = thread::spawn(move || {
            set_no_new_privs(true).unwrap();
            seccompiler::apply_filter(&refused_calls().unwrap()).unwrap();
            (
                TcpStream::connect(address),
                TcpListener::bind("127.0.0.1:0"),
            )
        });
        let (connected, listening) = confined.join().unwrap();
        connected.unwrap();
        let refused = listening.unwrap_err().raw_os_error();
        assert_eq!(refused, Some(libc::EPERM));
        TcpListener::bind("127.0.0.1:0").unwrap();
    }
}
