//! The file identifier and the two headers (MS-VHDX 2.2.1, 2.2.2).

use zerocopy::{FromBytes, IntoBytes};

use crate::error::OpenError;
use crate::format::{
    CHECKSUM_OFFSET, CREATOR_LENGTH, FILE_IDENTIFIER_SIGNATURE, Guid, HEADER_LENGTH,
    HEADER_OFFSETS, HEADER_SIGNATURE, Header, VERSION, checksum, seal,
};
use crate::geometry::LOG_OFFSET;
use crate::identity::Identity;
use crate::source::{Image, ReadAt};
use crate::units::MIB;

/// Where the log lies, and which of its entries count.
#[derive(Clone, Debug)]
pub(crate) struct LogLocation {
    pub(crate) offset: u64,
    pub(crate) length: u64,
    /// Zero when there is nothing to replay.
    pub(crate) guid: Guid,
}

/// What the current header says.
#[derive(Clone, Debug)]
pub(crate) struct CurrentHeader {
    pub(crate) data_write_guid: Guid,
    pub(crate) log: LogLocation,
}

/// Finds the current header: the valid one with the greater sequence number.
pub(crate) fn current_header<R: ReadAt>(image: &Image<R>) -> Result<CurrentHeader, OpenError> {
    let [first, second] = HEADER_OFFSETS;
    let bytes_1 = image.structure("header 1", first, HEADER_LENGTH)?;
    let bytes_2 = image.structure("header 2", second, HEADER_LENGTH)?;
    let (offset, header) = match (valid_header(&bytes_1), valid_header(&bytes_2)) {
        (Some(header), None) => (first, header),
        (None, Some(header)) => (second, header),
        (Some(header_1), Some(header_2)) => {
            let number_1 = header_1.sequence_number.get();
            let number_2 = header_2.sequence_number.get();
            // Equal numbers leave no header current (2.2.2), but some converters write the same
            // header twice, and then it does not matter which.
            if number_1 == number_2 && bytes_1 != bytes_2 {
                let expected = format!("another sequence number than header 1 has ({number_1})");
                return Err(OpenError::invalid("header 2", second, expected, number_2));
            }
            if number_1 > number_2 {
                (first, header_1)
            } else {
                (second, header_2)
            }
        }
        (None, None) => {
            return Err(OpenError::invalid(
                "header 1 and header 2",
                first,
                "one with the signature \"head\" and a valid checksum",
                "none",
            ));
        }
    };

    let version = header.version.get();
    if version != VERSION {
        return Err(OpenError::invalid(
            "the format version",
            offset,
            "1",
            version,
        ));
    }
    let log = LogLocation {
        offset: header.log_offset.get(),
        length: u64::from(header.log_length.get()),
        guid: header.log_guid,
    };
    if log.guid != Guid::NIL && header.log_version.get() != 0 {
        let found = header.log_version.get();
        return Err(OpenError::invalid("the log version", offset, "0", found));
    }
    if !log.offset.is_multiple_of(MIB) || !log.length.is_multiple_of(MIB) {
        return Err(OpenError::invalid(
            "the place of the log in the header",
            offset,
            "multiples of 1 MiB",
            format!("{} bytes at {:#x}", log.length, log.offset),
        ));
    }
    Ok(CurrentHeader {
        data_write_guid: header.data_write_guid,
        log,
    })
}

fn valid_header(bytes: &[u8]) -> Option<Header> {
    let (header, _) = Header::read_from_prefix(bytes).ok()?;
    let valid = header.signature == HEADER_SIGNATURE
        && header.checksum.get() == checksum(bytes, CHECKSUM_OFFSET);
    valid.then_some(header)
}

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
