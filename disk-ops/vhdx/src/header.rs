//! The file identifier and the two headers (MS-VHDX 2.2.1, 2.2.2).

use zerocopy::IntoBytes;

use crate::format::{
    CREATOR_LENGTH, FILE_IDENTIFIER_SIGNATURE, Guid, HEADER_LENGTH, HEADER_SIGNATURE, Header,
    VERSION, seal,
};
use crate::geometry::LOG_OFFSET;
use crate::identity::Identity;

/// The bytes of a file identifier: signature and creator.
pub(crate) fn file_identifier() -> Vec<u8> {
    let mut bytes = FILE_IDENTIFIER_SIGNATURE.to_vec();
    bytes.extend(CREATOR.encode_utf16().flat_map(u16::to_le_bytes));
    bytes.resize(FILE_IDENTIFIER_SIGNATURE.len() + CREATOR_LENGTH, 0);
    bytes
}

/// The bytes of a header with an empty log.
pub(crate) fn header(identity: &Identity, sequence_number: u64) -> Vec<u8> {
    let header = Header {
        signature: HEADER_SIGNATURE,
        checksum: 0.into(),
        sequence_number: sequence_number.into(),
        file_write_guid: Guid::new(identity.file_write),
        data_write_guid: Guid::new(identity.data_write),
        log_guid: Guid::NIL,
        log_version: 0.into(),
        version: VERSION.into(),
        log_length: LOG_LENGTH.into(),
        log_offset: LOG_OFFSET.0.into(),
    };
    let mut bytes = header.as_bytes().to_vec();
    bytes.resize(HEADER_LENGTH, 0);
    seal(&mut bytes);
    bytes
}

/// Without a version, which would make the files of two releases differ.
const CREATOR: &str = "ce-agent";

/// A log is never used, but whoever opens the file for writing needs the space.
const LOG_LENGTH: u32 = 1 << 20;
