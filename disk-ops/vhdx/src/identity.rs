//! The GUIDs of an image, derived from the content of its disk.
//!
//! Equal disks get equal files, and a tool that keeps caches or parent links by GUID never takes
//! one disk for another. The derived GUIDs are UUIDs of version 8 (RFC 9562, 5.8).

use uuid::{Builder, Uuid};

use crate::content::ContentId;
use crate::units::BlockSize;

/// The GUIDs of a VHDX file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Identity {
    /// Changes whenever the file is opened for writing (MS-VHDX 2.2.2).
    pub(crate) file_write: Uuid,
    /// Changes whenever the disk's content changes; what a child image knows its parent by.
    pub(crate) data_write: Uuid,
    /// What the virtual disk answers to a SCSI inquiry for its identification page (2.6.2.4).
    pub(crate) page_83: Uuid,
}

impl Identity {
    pub(crate) fn new(content: &ContentId, block_size: BlockSize) -> Self {
        let of_role = |role| derive(role, content, block_size.bytes());
        Self {
            file_write: of_role("ce-vhdx 2026-11-22 FileWriteGuid"),
            data_write: of_role("ce-vhdx 2026-11-22 DataWriteGuid"),
            page_83: of_role("ce-vhdx 2026-11-22 Page83Data"),
        }
    }
}

/// The unique id of a VHD footer.
pub(crate) fn vhd_unique_id(content: &ContentId) -> Uuid {
    derive("ce-vhdx 2026-11-22 VHD UniqueId", content, 0)
}

/// Never zero, as the version bits are set.
fn derive(role: &str, content: &ContentId, block_size: u64) -> Uuid {
    let mut hasher = blake3::Hasher::new_derive_key(role);
    hasher.update(content.as_bytes());
    hasher.update(&block_size.to_le_bytes());
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    Builder::from_custom_bytes(bytes).into_uuid()
}
