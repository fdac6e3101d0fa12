//! Asks an NVMe controller about a namespace: what a platform says of a disk may stand there, and sysfs does
//! not tell it.

#![expect(
    unsafe_code,
    reason = "the kernel's door to NVMe controllers is an ioctl"
)]

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::ioctl::{Updater, ioctl, opcode};

/// The Identify Namespace data structure (NVM Express Base Specification 1.4, 5.15.2.1).
#[repr(C, align(4096))]
pub(super) struct Namespace([u8; 4096]);

impl Namespace {
    /// Reads that of the namespace with this number, on the disk behind `node`. Of one that the controller does
    /// not know it is all zeros.
    ///
    /// # Errors
    ///
    /// No such device, no NVMe, or not allowed: before Linux 6.2 it takes `CAP_SYS_ADMIN`.
    pub(super) fn identify(node: &Path, number: u32) -> io::Result<Self> {
        let device = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits() as i32)
            .open(node)?;
        let mut found = Self([0; 4096]);
        let mut command = AdminCommand {
            opcode: IDENTIFY,
            namespace: number,
            address: found.0.as_mut_ptr() as u64,
            length: found.0.len() as u32,
            ..AdminCommand::default()
        };
        // SAFETY: `ADMIN` is NVME_IOCTL_ADMIN_CMD, which takes a `struct nvme_passthru_cmd`; its form is that
        // of `AdminCommand`.
        let request = unsafe { Updater::<ADMIN, AdminCommand>::new(&mut command) };
        // SAFETY: the kernel writes `length` bytes at `address`, which are those of `found` and of nobody
        // else until the call returns; the controller gets no address but by the kernel.
        unsafe { ioctl(&device, request) }?;
        Ok(found)
    }

    /// What belongs to the vendor: all from byte 384.
    pub(super) fn vendor_specific(&self) -> &[u8] {
        &self.0[384..]
    }
}

/// `struct nvme_passthru_cmd` of `linux/nvme_ioctl.h`.
#[derive(Default)]
#[repr(C)]
struct AdminCommand {
    opcode: u8,
    flags: u8,
    reserved: u16,
    namespace: u32,
    words_2_and_3: [u32; 2],
    metadata: u64,
    address: u64,
    metadata_length: u32,
    length: u32,
    /// The first of them says what is to be identified: 0 is a namespace.
    words_10_to_15: [u32; 6],
    /// 0 is what the kernel takes by itself.
    timeout_ms: u32,
    result: u32,
}

const _: () = assert!(size_of::<AdminCommand>() == 72);

const ADMIN: rustix::ioctl::Opcode = opcode::read_write::<AdminCommand>(b'N', 0x41);

const IDENTIFY: u8 = 0x06;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_the_call_is_the_kernels() {
        // As the C compiler makes it of linux/nvme_ioctl.h.
        assert_eq!(ADMIN, 0xc048_4e41);
    }

    #[test]
    fn what_is_no_nvme_disk_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for node in [
            file.path(),
            Path::new("/dev/null"),
            Path::new("/nonexistent"),
        ] {
            assert!(Namespace::identify(node, 1).is_err(), "{}", node.display());
        }
    }
}
