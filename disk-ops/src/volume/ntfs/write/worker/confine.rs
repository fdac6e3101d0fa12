//! What the worker gives up before it sees a byte of the disk.
//!
//! ```text
//!  files      every descriptor but the connection to the parent is closed, and none can be opened
//!  limits     memory, processor time, no files, no core dump, no processes
//!  world      a network, mounts and processes of its own (where the kernel lets it), no root
//!  calls      none but those on the connection, its own memory, clocks, and to end (seccomp)
//! ```
//!
//! A call that is not allowed fails with `EPERM`: the library takes it for an error of its own and
//! gives up in good order, which says more than a killed process.
#![expect(
    unsafe_code,
    reason = "setgroups and setresuid of one thread have no safe wrapper"
)]

use std::collections::BTreeMap;
use std::io;

use rustix::process::{DumpableBehavior, Resource, set_dumpable_behavior};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Is,
    SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::confine::{close_from, give_up_rights, leave_the_world, limit};

/// How a worker is confined: bits that it reports to its parent.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Confinement(pub u32);

impl Confinement {
    /// No descriptor is open but the connection.
    pub const FILES: Self = Self(1);
    /// Memory, processor time and other resources are limited.
    pub const LIMITS: Self = Self(2);
    /// No program can give it more rights, it has no capability, and it cannot be traced.
    pub const PRIVILEGES: Self = Self(4);
    /// Only the calls on the list are let through.
    pub const CALLS: Self = Self(8);
    /// It has a network of its own, with nothing in it, and mounts of its own.
    pub const WORLD: Self = Self(16);

    /// What a worker has to have before it is shown a disk. [`WORLD`](Self::WORLD) is not part of
    /// it: many containers do not allow it, and without calls to open files and sockets it adds a
    /// second wall and no more.
    pub const REQUIRED: Self =
        Self(Self::FILES.0 | Self::LIMITS.0 | Self::PRIVILEGES.0 | Self::CALLS.0);

    /// Whether all of `other` is part of it.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Confines the calling process, which has to have a single thread, to descriptor 0. There is no
/// way back.
///
/// # Errors
///
/// When a part of [`Confinement::REQUIRED`] cannot be had.
pub fn confine() -> io::Result<Confinement> {
    // Made first: it allocates, and needs nothing from outside.
    let calls = allowed_calls().map_err(io::Error::other)?;
    // Standard output and error are not used, and the caller has opened nothing.
    close_from(1)?;
    let mut confinement = Confinement::FILES;
    if leave_the_world() {
        confinement = confinement.and(Confinement::WORLD);
    }
    limit(&[
        (Resource::As, MAX_MEMORY),
        (Resource::Core, 0),
        (Resource::Cpu, MAX_PROCESSOR_SECONDS),
        (Resource::Fsize, 0),
        // The one that is open stays so.
        (Resource::Nofile, 0),
        (Resource::Nproc, 0),
    ])?;
    confinement = confinement.and(Confinement::LIMITS);
    drop_privileges()?;
    confinement = confinement.and(Confinement::PRIVILEGES);
    seccompiler::apply_filter(&calls).map_err(io::Error::other)?;
    Ok(confinement.and(Confinement::CALLS))
}

fn drop_privileges() -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        // SAFETY: calls without pointers but an empty list. Each may be refused in a container
        // that has no such user; the capabilities, which are what root is, go in any case.
        unsafe {
            libc::setgroups(0, std::ptr::null());
            libc::setresgid(NOBODY, NOBODY, NOBODY);
            libc::setresuid(NOBODY, NOBODY, NOBODY);
        }
    }
    give_up_rights()?;
    // Behind the change of the user, which resets it.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

fn allowed_calls() -> Result<BpfProgram, seccompiler::Error> {
    let on_connection = || only_if(vec![argument(0, Is::Eq, 0)?]);
    let no_code = || argument(2, Is::MaskedEq(libc::PROT_EXEC as u64), 0);
    let anonymous = libc::MAP_ANONYMOUS as u64;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = [
        libc::SYS_brk,
        libc::SYS_clock_gettime,
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_futex,
        libc::SYS_getpid,
        libc::SYS_getrandom,
        libc::SYS_gettid,
        libc::SYS_gettimeofday,
        libc::SYS_madvise,
        libc::SYS_mremap,
        libc::SYS_munmap,
        libc::SYS_restart_syscall,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sched_yield,
        libc::SYS_sigaltstack,
    ]
    .into_iter()
    // A call without rules is allowed whatever its arguments.
    .map(|call| (call, Vec::new()))
    .collect();
    let of_no_file = argument(3, Is::MaskedEq(anonymous), anonymous)?;
    rules.insert(libc::SYS_read, on_connection()?);
    rules.insert(libc::SYS_write, on_connection()?);
    rules.insert(libc::SYS_mmap, only_if(vec![no_code()?, of_no_file])?);
    rules.insert(libc::SYS_mprotect, only_if(vec![no_code()?])?);
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    // Fails to compile for an architecture whose numbers of calls seccompiler does not know.
    let architecture = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, refused, SeccompAction::Allow, architecture)?;
    Ok(filter.try_into()?)
}

/// A condition on the argument `number` of a call.
fn argument(number: u8, is: Is, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(number, Length::Dword, is, value)
}

/// A call that is allowed when all `conditions` hold.
fn only_if(conditions: Vec<SeccompCondition>) -> Result<Vec<SeccompRule>, BackendError> {
    Ok(vec![SeccompRule::new(conditions)?])
}

/// The user and group that own nothing.
const NOBODY: u32 = 65_534;

/// Address space, of which the program itself takes some. What is resident stays far below.
const MAX_MEMORY: u64 = 1 << 30;

/// More than any job lasts (7,200 s).
const MAX_PROCESSOR_SECONDS: u64 = 7_200;
