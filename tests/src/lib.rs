//! What the user-story tests, the demo and the benchmark stand on.
//!
//! ```text
//!  disk     makes raw disk images: partition tables, file systems, patterns; no root, no loop device
//!  guest    disks that pass for ones with Windows on them
//!  agent    runs the program as a user does: exit code, JSON lines, time, memory
//!  memory   looks at how much of it the program and its children have
//!  cable    joins this machine and a network namespace, and can be pulled out
//!  oracle   asks tools that share no code with the program: qemu-img, libvhdi, md5sum, sgdisk,
//!           dissect.ntfs
//! ```
//!
//! Nothing here is used by the program itself, and nothing but `guest` links its code: a fault in the
//! program can't hide behind the same fault in its test. Two programs beside it do: the worker of the
//! tests of NTFS writing, and the measurement of it.

pub mod agent;
pub mod cable;
pub mod disk;
pub mod driver_package;
pub mod guest;
pub mod memory;
pub mod oracle;
pub mod pattern;
pub mod tool;

/// Whether tests are to take their time: `make test-long` says so.
pub fn is_long() -> bool {
    std::env::var_os("TEST_LONG").is_some()
}
