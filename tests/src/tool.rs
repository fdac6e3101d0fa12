//! Programs of the system, found by name; a missing one is an error that names its package.

use std::env;
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};

/// A program and the Debian package that holds it.
#[derive(Clone, Copy, Debug)]
pub struct Tool {
    program: &'static str,
    package: &'static str,
}

/// `qemu-img`.
pub const QEMU_IMG: Tool = Tool::new("qemu-img", "qemu-utils");
/// `qemu-system-x86_64`.
pub const QEMU_SYSTEM: Tool = Tool::new("qemu-system-x86_64", "qemu-system-x86");
/// `sgdisk`.
pub const SGDISK: Tool = Tool::new("sgdisk", "gdisk");
/// `mkntfs`.
pub const MKNTFS: Tool = Tool::new("mkntfs", "ntfs-3g");
/// `ntfscp`.
pub const NTFSCP: Tool = Tool::new("ntfscp", "ntfs-3g");
/// `ntfsfix`.
pub const NTFSFIX: Tool = Tool::new("ntfsfix", "ntfs-3g");
/// `fls`.
pub const FLS: Tool = Tool::new("fls", "sleuthkit");
/// `mkfs.fat`.
pub const MKFS_FAT: Tool = Tool::new("mkfs.fat", "dosfstools");
/// `fsck.fat`.
pub const FSCK_FAT: Tool = Tool::new("fsck.fat", "dosfstools");
/// `mke2fs`.
pub const MKE2FS: Tool = Tool::new("mke2fs", "e2fsprogs");
/// `hivexget`.
pub const HIVEXGET: Tool = Tool::new("hivexget", "libhivex-bin");
/// `hivexsh`.
pub const HIVEXSH: Tool = Tool::new("hivexsh", "libhivex-bin");
/// `reglookup`.
pub const REGLOOKUP: Tool = Tool::new("reglookup", "reglookup");
/// `mcopy`.
pub const MCOPY: Tool = Tool::new("mcopy", "mtools");
/// `mmd`.
pub const MMD: Tool = Tool::new("mmd", "mtools");
/// `md5sum`.
pub const MD5SUM: Tool = Tool::new("md5sum", "coreutils");
/// `vhdiinfo`.
pub const VHDIINFO: Tool = Tool::new("vhdiinfo", "libvhdi-utils");
/// The system's own Python: the one that sees the module of `python3-libvhdi`.
pub const PYTHON: Tool = Tool::new("/usr/bin/python3", "python3");
/// `ifind`.
pub const IFIND: Tool = Tool::new("ifind", "sleuthkit");
/// `icat`.
pub const ICAT: Tool = Tool::new("icat", "sleuthkit");
/// `ntfscat`.
pub const NTFSCAT: Tool = Tool::new("ntfscat", "ntfs-3g");
/// `strace`.
pub const STRACE: Tool = Tool::new("strace", "strace");
/// `setpriv`.
pub const SETPRIV: Tool = Tool::new("setpriv", "util-linux");
/// `unshare`.
pub const UNSHARE: Tool = Tool::new("unshare", "util-linux");
/// `ip`.
pub const IP: Tool = Tool::new("ip", "iproute2");
/// `smbclient`.
pub const SMBCLIENT: Tool = Tool::new("smbclient", "smbclient");
/// `losetup`.
pub const LOSETUP: Tool = Tool::new("losetup", "mount");
/// `mount`.
pub const MOUNT: Tool = Tool::new("mount", "mount");
/// `umount`.
pub const UMOUNT: Tool = Tool::new("umount", "mount");
/// `dumpe2fs`.
pub const DUMPE2FS: Tool = Tool::new("dumpe2fs", "e2fsprogs");
/// `dnsmasq`.
pub const DNSMASQ: Tool = Tool::new("dnsmasq", "dnsmasq-base");
/// `e2fsck`.
pub const E2FSCK: Tool = Tool::new("e2fsck", "e2fsprogs");
/// `genisoimage`.
pub const GENISOIMAGE: Tool = Tool::new("genisoimage", "genisoimage");
/// `xorriso`.
pub const XORRISO: Tool = Tool::new("xorriso", "xorriso");
/// `wimlib-imagex`.
pub const WIMLIB_IMAGEX: Tool = Tool::new("wimlib-imagex", "wimtools");
/// `wixl`.
pub const WIXL: Tool = Tool::new("wixl", "wixl");
/// `msibuild`.
pub const MSIBUILD: Tool = Tool::new("msibuild", "msitools");
/// `chromium`.
pub const CHROMIUM: Tool = Tool::new("chromium", "chromium");
/// `mkfifo`.
pub const MKFIFO: Tool = Tool::new("mkfifo", "coreutils");
/// `cp`.
pub const CP: Tool = Tool::new("cp", "coreutils");
/// `dpkg-deb`.
pub const DPKG_DEB: Tool = Tool::new("dpkg-deb", "dpkg");
/// `lintian`.
pub const LINTIAN: Tool = Tool::new("lintian", "lintian");
/// `systemd-analyze`.
pub const SYSTEMD_ANALYZE: Tool = Tool::new("systemd-analyze", "systemd");

/// `cpio`.
pub const CPIO: Tool = Tool::new("cpio", "cpio");

impl Tool {
    const fn new(program: &'static str, package: &'static str) -> Self {
        Self { program, package }
    }

    /// Where the program is: on `PATH`, or in the folders for system programs, which are not on
    /// every user's `PATH`.
    pub fn path(self) -> Result<PathBuf> {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path)
            .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
            .map(|folder| folder.join(self.program))
            .find(|candidate| candidate.is_file())
            .with_context(|| {
                format!(
                    "{} is missing: install the package {} (or run `make setup`)",
                    self.program, self.package
                )
            })
    }

    /// A command for it, in the C locale.
    pub fn command(self) -> Result<Command> {
        let mut command = Command::new(self.path()?);
        command.env("LC_ALL", "C");
        Ok(command)
    }

    /// Runs it and fails, with what it said, unless it ends with 0.
    pub fn run<A: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = A>) -> Result<Output> {
        let mut command = self.command()?;
        command.args(arguments);
        let output = output_of(&mut command)?;
        if !output.status.success() {
            bail!("{command:?}: {}\n{}", output.status, said(&output));
        }
        Ok(output)
    }
}

/// Runs a command to its end and keeps what it wrote.
pub fn output_of(command: &mut Command) -> Result<Output> {
    command
        .output()
        .with_context(|| format!("can't start {command:?}"))
}

/// Runs a command to its end with `input` as its standard input, and keeps what it wrote.
pub fn output_with_input(command: &mut Command, input: &[u8]) -> Result<Output> {
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("can't start {command:?}"))?;
    let stdin = child.stdin.take();
    thread::scope(|scope| {
        // A program that wants no more of it says so by its exit code.
        scope.spawn(move || stdin.map(|mut stdin| drop(stdin.write_all(input))));
        child
            .wait_with_output()
            .with_context(|| format!("waiting for {command:?}"))
    })
}

/// Both outputs of a program, for an error message.
pub fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A path as the text that option strings need (`file=...`).
pub fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))
}
