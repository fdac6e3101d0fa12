//! The child process: gives up what it does not need, and becomes wimlib's program.
//!
//! ```text
//!  files     of the file system it reads programs and libraries, and writes below its working folder
//!            (Landlock); every descriptor but the three standard ones is closed
//!  limits    memory, processor time, length of files, no core dump
//!  world     a network and mounts of its own (where the kernel lets it), no capabilities
//!  calls     those that a program with one thread needs to read and write files (seccomp): no sockets,
//!            no processes, no signals to others
//! ```
//!
//! What is not allowed fails with `EPERM` or `EACCES`, of which the program tells.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::{env, io};

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    Scope, path_beneath_rules,
};
use rustix::process::Resource;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::confine::{close_from, give_up_rights, leave_the_world, limit};

/// The program of the child: to be called by `main` before anything else, when the first argument is
/// [`WORKER_ARGUMENT`](super::WORKER_ARGUMENT). After it come the most bytes that a file may get, and the
/// program with its arguments; the working folder is all that it may write to.
///
/// It comes back only if that failed.
pub fn worker_main() -> ExitCode {
    let mut arguments = env::args_os().skip(2);
    let largest = arguments
        .next()
        .and_then(|text| text.to_str()?.parse().ok());
    let (Some(largest), Some(program)) = (largest, arguments.next()) else {
        return ExitCode::from(NOT_CONFINED);
    };
    let become_it = || -> io::Result<io::Error> {
        confine(Path::new(&program), largest)?;
        let arguments: Vec<OsString> = arguments.collect();
        Ok(Command::new(&program).args(arguments).exec())
    };
    match become_it() {
        Ok(error) => {
            eprintln!("starting {}: {error}", program.display());
            ExitCode::from(NOT_STARTED)
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(NOT_CONFINED)
        }
    }
}

fn confine(program: &Path, largest: u64) -> io::Result<()> {
    let calls = allowed_calls().map_err(io::Error::other)?;
    close_from(3)?;
    // A second wall only: there are no calls for what is outside, and no file can be opened there.
    leave_the_world();
    limit(&[
        (Resource::As, MAX_MEMORY),
        (Resource::Core, 0),
        (Resource::Cpu, MAX_PROCESSOR_SECONDS),
        (Resource::Fsize, largest),
        (Resource::Nofile, MAX_OPEN),
    ])?;
    give_up_rights()?;
    keep_to_folder(program)?;
    seccompiler::apply_filter(&calls).map_err(io::Error::other)
}

/// Lets it read programs and libraries, and write where it stands.
fn keep_to_folder(program: &Path) -> io::Result<()> {
    let abi = ABI::V6;
    let all = AccessFs::from_all(abi);
    let restricted = (|| {
        Ruleset::default()
            .handle_access(all)?
            .handle_access(AccessNet::from_all(abi))?
            .scope(Scope::from_all(abi))?
            .create()?
            .add_rules(path_beneath_rules(
                PROGRAMS.iter().map(Path::new).chain([program]),
                AccessFs::from_read(abi),
            ))?
            .add_rules(path_beneath_rules(["."], all & !AccessFs::Execute))?
            .restrict_self()
    })()
    .map_err(io::Error::other)?;
    match restricted.ruleset {
        RulesetStatus::NotEnforced => Err(io::Error::other("the kernel has no Landlock")),
        // Kernels before 6.12 know a part of it. That of files is in all of them; for the others there
        // are no calls.
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
    }
}

fn allowed_calls() -> Result<BpfProgram, seccompiler::Error> {
    // Without rules, a call is meant whatever its arguments.
    let rules: BTreeMap<i64, Vec<_>> = CALLS
        .iter()
        .chain(OLD_CALLS)
        .map(|call| (*call, Vec::new()))
        .collect();
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let architecture = env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, refused, SeccompAction::Allow, architecture)?;
    Ok(filter.try_into()?)
}

/// Where programs, their libraries and what these read at their start are.
const PROGRAMS: [&str; 7] = [
    "/usr",
    "/bin",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/dev/null",
    "/dev/urandom",
];

/// What the C library and wimlib call.
const CALLS: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_execve,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_futex,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_ioctl,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_mkdirat,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_prlimit64,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_renameat2,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_sysinfo,
    libc::SYS_umask,
    libc::SYS_uname,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Calls that newer architectures do without.
#[cfg(target_arch = "x86_64")]
const OLD_CALLS: &[i64] = &[
    libc::SYS_access,
    libc::SYS_arch_prctl,
    libc::SYS_dup2,
    libc::SYS_getdents,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_CALLS: &[i64] = &[libc::SYS_renameat];

/// Exit codes that no program of wimlib has.
pub(super) const NOT_CONFINED: u8 = 170;
pub(super) const NOT_STARTED: u8 = 171;

/// Address space. An image of a recovery environment takes some hundred MiB of it.
const MAX_MEMORY: u64 = 2 << 30;

/// Several times what the largest takes.
const MAX_PROCESSOR_SECONDS: u64 = 900;

const MAX_OPEN: u64 = 64;
