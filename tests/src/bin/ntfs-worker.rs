//! The workers of the tests of NTFS writing and of WIM files, and one that tries what a worker must not be
//! able to do.
//!
//! `ntfs-worker __ntfs-worker` and `ntfs-worker __wim-worker` are the workers of `ce-agent`. `ntfs-worker try DISK PROCESS` confines
//! itself in the same way, tries everything, and writes a line for each attempt to standard input,
//! which is the connection.

#![expect(unsafe_code, reason = "what is tried are bare system calls")]

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::process::ExitCode;

use ce_disk::volume::ntfs::write::{WORKER_ARGUMENT, confine, worker_main};
use ce_disk::volume::wim::tool as wim;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [WORKER_ARGUMENT] => worker_main(),
        [wim::WORKER_ARGUMENT, ..] => wim::worker_main(),
        ["try", disk, process] => attempt_all(disk, process),
        _ => ExitCode::from(2),
    }
}

fn attempt_all(disk: &str, process: &str) -> ExitCode {
    let text = |text: &str| CString::new(text).expect("no NUL in an argument");
    let (disk, process) = (text(disk), process.parse::<i32>().expect("a number"));
    let (passwd, status, shell) = (
        text("/etc/passwd"),
        text("/proc/self/status"),
        text("/bin/sh"),
    );
    // Opened before: what a program may have forgotten to close.
    // SAFETY: the path is a string that ends with a zero and lives on.
    let forgotten = unsafe { libc::open(disk.as_ptr(), libc::O_RDWR) };
    let confinement = match confine() {
        Ok(confinement) => confinement.0,
        Err(_) => return ExitCode::from(70),
    };
    // SAFETY: descriptor 0 is the connection, which is open until the process ends.
    let connection = ManuallyDrop::new(unsafe { File::from_raw_fd(0) });
    let mut connection = &*connection;
    let mut tell = |what: &str, result: i64| {
        // Kept before anything else can change it.
        let error = io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or_default();
        let error = if result < 0 { error } else { 0 };
        writeln!(connection, "{what} {error}").expect("the connection is open");
    };
    tell("confined", i64::from(forgotten));
    tell(&format!("confinement-{confinement}"), 0);
    let null = std::ptr::null::<libc::c_char>();
    let argv = [shell.as_ptr(), null];
    let mut byte = 0u8;
    let pointer = std::ptr::from_mut(&mut byte);
    // SAFETY: system calls with valid pointers, each of which is expected to be refused. One that
    // is let through does what it says and no harm to memory; the process ends in either case.
    unsafe {
        tell(
            "open",
            libc::syscall(libc::SYS_openat, libc::AT_FDCWD, passwd.as_ptr(), 0),
        );
        tell(
            "open-for-writing",
            libc::syscall(
                libc::SYS_openat,
                libc::AT_FDCWD,
                disk.as_ptr(),
                libc::O_RDWR,
            ),
        );
        tell(
            "read-proc",
            libc::syscall(libc::SYS_openat, libc::AT_FDCWD, status.as_ptr(), 0),
        );
        tell(
            "write-forgotten",
            libc::syscall(libc::SYS_pwrite64, i64::from(forgotten), pointer, 1, 0),
        );
        tell(
            "write-another-descriptor",
            libc::syscall(libc::SYS_write, i64::from(forgotten), pointer, 1),
        );
        tell(
            "socket",
            libc::syscall(libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0),
        );
        tell(
            "socket-unix",
            libc::syscall(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0),
        );
        tell(
            "fork",
            libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0),
        );
        tell("clone3", libc::syscall(libc::SYS_clone3, 0, 0));
        tell(
            "execve",
            libc::syscall(libc::SYS_execve, shell.as_ptr(), argv.as_ptr(), &null),
        );
        tell(
            "ptrace",
            libc::syscall(libc::SYS_ptrace, libc::PTRACE_ATTACH, process, 0, 0),
        );
        tell(
            "read-memory-of-parent",
            libc::syscall(libc::SYS_process_vm_readv, process, 0, 0, 0, 0, 0),
        );
        tell("kill", libc::syscall(libc::SYS_kill, process, 0));
        tell(
            "mount",
            libc::syscall(libc::SYS_mount, 0, disk.as_ptr(), 0, 0, 0),
        );
        tell(
            "unshare",
            libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER),
        );
        tell(
            "raise-limits",
            libc::syscall(libc::SYS_prlimit64, 0, 0, 0, 0),
        );
        tell("io-uring", libc::syscall(libc::SYS_io_uring_setup, 1, 0));
        tell("bpf", libc::syscall(libc::SYS_bpf, 0, 0, 0));
        tell(
            "executable-memory",
            libc::syscall(
                libc::SYS_mmap,
                0,
                4096,
                libc::PROT_READ | libc::PROT_EXEC,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            ),
        );
        tell(
            "much-memory",
            libc::syscall(
                libc::SYS_mmap,
                0,
                2u64 << 30,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            ),
        );
    }
    tell("end", 0);
    ExitCode::SUCCESS
}
