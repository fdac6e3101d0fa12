//! Keeping secrets out of core dumps.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Sees to it that this process leaves no core dump, neither as a file nor to a collector, and
/// that no other process of the same user can read its memory.
///
/// For the agent to call before it reads a password: libsmbclient keeps copies that nobody else
/// can wipe.
///
/// # Errors
///
/// What the system calls failed with.
pub fn forbid_core_dumps() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    Ok(())
}
