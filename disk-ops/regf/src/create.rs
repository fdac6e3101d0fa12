//! Hives made from nothing.

use zerocopy::{FromZeros, IntoBytes};

use crate::edit::EditError;
use crate::format::{
    BASE_BLOCK_LEN, BASE_BLOCK_SIGNATURE, BIN_ALIGNMENT, BIN_HEADER_LEN, BIN_SIGNATURE, BaseBlock,
    BinHeader, FILE_FORMAT_DIRECT, KEY_COMP_NAME, KEY_HIVE_ENTRY, KEY_NO_DELETE,
};
use crate::hive::Hive;
use crate::name::Name;
use crate::security::SecurityDescriptor;
use crate::units::{FileTime, NIL, Version, index};

impl Hive {
    /// A hive with an empty root key that has the given rights.
    ///
    /// # Errors
    ///
    /// The descriptor is too long for a hive.
    pub fn new_empty(
        version: Version,
        security: &SecurityDescriptor,
        now: FileTime,
    ) -> Result<Self, EditError> {
        let mut base = BaseBlock::new_zeroed();
        base.signature = BASE_BLOCK_SIGNATURE;
        base.primary_sequence = 1.into();
        base.secondary_sequence = 1.into();
        base.last_written = now.ticks().into();
        base.major = 1.into();
        base.minor = version.minor().into();
        base.file_format = FILE_FORMAT_DIRECT.into();
        base.root_cell = NIL.into();
        base.bins_len = BIN_ALIGNMENT.into();
        base.clustering_factor = 1.into();
        base.checksum = base.expected_checksum().into();

        let mut bin = BinHeader::new_zeroed();
        bin.signature = BIN_SIGNATURE;
        bin.size = BIN_ALIGNMENT.into();
        bin.timestamp = now.ticks().into();

        let mut bytes = base.as_bytes().to_vec();
        bytes.resize(BASE_BLOCK_LEN, 0);
        bytes.extend(bin.as_bytes());
        bytes.extend((BIN_ALIGNMENT - BIN_HEADER_LEN).to_le_bytes());
        bytes.resize(BASE_BLOCK_LEN + index(BIN_ALIGNMENT), 0);

        let mut hive = Self::load(bytes)?;
        hive.index_free_cells();
        let security = hive.first_security_record(security)?;
        let flags = KEY_HIVE_ENTRY | KEY_NO_DELETE | KEY_COMP_NAME;
        let root = hive.allocate_key(&Name::from(ROOT_NAME), flags, NIL, security, now)?;
        hive.base_mut().root_cell = root.get().into();
        let base = hive.base_mut();
        base.checksum = base.expected_checksum().into();
        Ok(hive)
    }
}

const ROOT_NAME: &str = "ROOT";
