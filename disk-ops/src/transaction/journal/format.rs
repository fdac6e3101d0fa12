//! The bytes of a journal, as structures.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use uuid::Uuid;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{JournalDamage, JournalHeader};
use crate::block::{DiskIdentity, MAX_DISK_SIZE};
use crate::transaction::witness::{ByteRange, MOST_RANGES};
use crate::units::{ByteCount, ByteOffset, SectorSize};

/// The head of a journal: which disk it is for. Behind it come the witness ranges, the device's
/// name and the path, then zeros, and a CRC-32C in the last four bytes of [`HEADER`].
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    signature: [u8; 8],
    id: [u8; 16],
    /// Seconds since 1970.
    written_at: U64,
    disk_size: U64,
    logical_sector: U32,
    /// Number of [`RawRange`]s.
    ranges: U16,
    node_length: U16,
    path_length: U16,
    reserved: [u8; 14],
}

#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRange {
    offset: U64,
    length: U64,
}

/// The head of an extent. Behind it come one CRC-32C of the old content for each sector, and the
/// new content.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawExtent {
    signature: [u8; 4],
    /// Bytes of new content.
    length: U32,
    /// Where on the disk it belongs.
    offset: U64,
    /// CRC-32C of what is behind this head.
    body_crc: U32,
    /// CRC-32C of the fields before.
    head_crc: U32,
}

/// What makes a journal count. It is there twice, behind the header and behind the extents.
#[derive(
    Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq, Unaligned,
)]
#[repr(C)]
struct RawSeal {
    signature: [u8; 8],
    /// That of the header: the seal of another journal, left in a reused sector, is none.
    id: [u8; 16],
    state: U32,
    reserved: [u8; 4],
    extents: U64,
    /// Bytes of new content in all extents.
    content: U64,
    /// Where the last extent ends in the file.
    end: U64,
    /// BLAKE3 of the header and of all extents.
    digest: [u8; 32],
    /// BLAKE3 of the witness.
    witness: [u8; 32],
    crc: U32,
}

const _: () = {
    assert!(size_of::<RawHeader>() == 64);
    assert!(size_of::<RawExtent>() == 24);
    assert!(size_of::<RawSeal>() == 124 && size_of::<RawSeal>() <= SEAL);
    let longest = MOST_RANGES * size_of::<RawRange>() + LONGEST_NODE + LONGEST_PATH;
    assert!(size_of::<RawHeader>() + longest + size_of::<u32>() <= HEADER);
    assert!(FIRST_SEAL >= HEADER as u64 && FIRST_EXTENT >= FIRST_SEAL + SEAL as u64);
};

pub(super) fn header_to_bytes(header: &JournalHeader) -> Option<Vec<u8>> {
    let node = header.identity.node.as_deref().unwrap_or_default();
    let path = header.identity.path.as_deref().map(|path| path.as_os_str());
    let path = path.unwrap_or_default().as_bytes();
    let fits = header.witness.len() <= MOST_RANGES
        && node.len() <= LONGEST_NODE
        && path.len() <= LONGEST_PATH;
    let raw = RawHeader {
        signature: SIGNATURE,
        id: *header.id.as_bytes(),
        written_at: header.written_at.into(),
        disk_size: header.disk_size.0.into(),
        logical_sector: u32::try_from(header.sector.bytes()).ok()?.into(),
        ranges: u16::try_from(header.witness.len()).ok()?.into(),
        node_length: u16::try_from(node.len()).ok()?.into(),
        path_length: u16::try_from(path.len()).ok()?.into(),
        reserved: [0; 14],
    };
    let mut bytes = raw.as_bytes().to_vec();
    for range in &header.witness {
        let raw = RawRange {
            offset: range.offset.0.into(),
            length: range.length.0.into(),
        };
        bytes.extend(raw.as_bytes());
    }
    bytes.extend(node.as_bytes());
    bytes.extend(path);
    bytes.resize(HEADER - size_of::<u32>(), 0);
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    fits.then_some(bytes)
}

pub(super) fn parse_header(bytes: &[u8; HEADER]) -> Result<JournalHeader, JournalDamage> {
    let wrong = |field| JournalDamage::Header { field };
    let (body, crc) = bytes
        .split_last_chunk::<4>()
        .ok_or_else(|| wrong("checksum"))?;
    let (raw, mut rest) = RawHeader::read_from_prefix(body).map_err(|_| wrong("length"))?;
    if raw.signature[..7] != SIGNATURE[..7] {
        return Err(wrong("signature"));
    }
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return Err(wrong("checksum"));
    }
    if raw.signature != SIGNATURE {
        return Err(JournalDamage::Version);
    }
    let sector = SectorSize::from_bytes(raw.logical_sector.get().into())
        .ok_or_else(|| wrong("sector size"))?;
    let disk_size = ByteCount(raw.disk_size.get());
    let whole = disk_size.0.is_multiple_of(sector.bytes());
    if disk_size.0 == 0 || disk_size > MAX_DISK_SIZE || !whole {
        return Err(wrong("disk size"));
    }
    let ranges = usize::from(raw.ranges.get());
    if ranges > MOST_RANGES {
        return Err(wrong("number of witness ranges"));
    }
    let mut witness = Vec::with_capacity(ranges);
    for _ in 0..ranges {
        let (raw, behind) = RawRange::read_from_prefix(rest).map_err(|_| wrong("length"))?;
        rest = behind;
        let range = ByteRange {
            offset: ByteOffset(raw.offset.get()),
            length: ByteCount(raw.length.get()),
        };
        if !range.is_allowed_on(disk_size) {
            return Err(wrong("witness range"));
        }
        witness.push(range);
    }
    let mut take = |length: U16, most| {
        let length = usize::from(length.get());
        let (taken, behind) = rest.split_at_checked(length)?;
        rest = behind;
        (length <= most).then(|| taken.to_vec())
    };
    let node = take(raw.node_length, LONGEST_NODE).ok_or_else(|| wrong("device name"))?;
    let node = String::from_utf8(node).map_err(|_| wrong("device name"))?;
    let path = take(raw.path_length, LONGEST_PATH).ok_or_else(|| wrong("path"))?;
    if path.contains(&0) || !path.is_empty() && path[0] != b'/' {
        return Err(wrong("path"));
    }
    if rest.iter().chain(&raw.reserved).any(|byte| *byte != 0) {
        return Err(wrong("unused part"));
    }
    Ok(JournalHeader {
        id: Uuid::from_bytes(raw.id),
        written_at: raw.written_at.get(),
        disk_size,
        sector,
        identity: DiskIdentity {
            path: (!path.is_empty()).then(|| PathBuf::from(OsString::from_vec(path))),
            node: (!node.is_empty()).then_some(node),
        },
        witness,
    })
}

/// What an extent's head says, and what is behind it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct ExtentHead {
    pub(super) offset: ByteOffset,
    pub(super) length: u32,
    pub(super) body_crc: u32,
}

impl ExtentHead {
    pub(super) fn to_bytes(self) -> [u8; EXTENT_HEAD] {
        let mut raw = RawExtent {
            signature: EXTENT_SIGNATURE,
            length: self.length.into(),
            offset: self.offset.0.into(),
            body_crc: self.body_crc.into(),
            head_crc: 0.into(),
        };
        raw.head_crc = crc_before_last(raw.as_bytes()).into();
        zerocopy::transmute!(raw)
    }

    /// `None` for what is no head of an extent.
    pub(super) fn parse(bytes: &[u8; EXTENT_HEAD]) -> Option<Self> {
        let raw = RawExtent::read_from_bytes(bytes).ok()?;
        let is_one = raw.signature == EXTENT_SIGNATURE
            && raw.head_crc.get() == crc_before_last(raw.as_bytes());
        is_one.then(|| Self {
            offset: ByteOffset(raw.offset.get()),
            length: raw.length.get(),
            body_crc: raw.body_crc.get(),
        })
    }
}

/// What a seal says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Seal {
    pub(super) id: Uuid,
    pub(super) is_done: bool,
    pub(super) extents: u64,
    pub(super) content: ByteCount,
    pub(super) end: u64,
    pub(super) digest: [u8; 32],
    pub(super) witness: [u8; 32],
}

impl Seal {
    pub(super) fn to_bytes(self) -> [u8; SEAL] {
        let mut raw = RawSeal {
            signature: SEAL_SIGNATURE,
            id: *self.id.as_bytes(),
            state: if self.is_done { DONE } else { SEALED }.into(),
            reserved: [0; 4],
            extents: self.extents.into(),
            content: self.content.0.into(),
            end: self.end.into(),
            digest: self.digest,
            witness: self.witness,
            crc: 0.into(),
        };
        raw.crc = crc_before_last(raw.as_bytes()).into();
        let mut bytes = [0; SEAL];
        bytes[..size_of::<RawSeal>()].copy_from_slice(raw.as_bytes());
        bytes
    }

    /// `None` for what is no seal, or a torn one.
    pub(super) fn parse(bytes: &[u8; SEAL]) -> Option<Self> {
        let (raw, rest) = RawSeal::read_from_prefix(bytes).ok()?;
        let is_one = raw.signature == SEAL_SIGNATURE
            && raw.crc.get() == crc_before_last(raw.as_bytes())
            && rest.iter().chain(&raw.reserved).all(|byte| *byte == 0);
        let is_done = match raw.state.get() {
            SEALED => false,
            DONE => true,
            _ => return None,
        };
        is_one.then(|| Self {
            id: Uuid::from_bytes(raw.id),
            is_done,
            extents: raw.extents.get(),
            content: ByteCount(raw.content.get()),
            end: raw.end.get(),
            digest: raw.digest,
            witness: raw.witness,
        })
    }
}

/// Where the second seal of a journal is whose extents end at `end`; `None` past 2^64.
pub(super) fn last_seal_at(end: u64) -> Option<u64> {
    end.checked_next_multiple_of(PAGE)
}

/// CRC-32C of a structure that ends in its own.
fn crc_before_last(bytes: &[u8]) -> u32 {
    crc32c::crc32c(&bytes[..bytes.len() - size_of::<u32>()])
}

/// Length of the header.
pub(super) const HEADER: usize = 8192;
/// Where the first seal is.
pub(super) const FIRST_SEAL: u64 = 8192;
/// Where the first extent is.
pub(super) const FIRST_EXTENT: u64 = FIRST_SEAL + PAGE;
/// Length of a seal: one sector, so that it is written whole or not at all.
pub(super) const SEAL: usize = 512;
/// Length of the head of an extent.
pub(super) const EXTENT_HEAD: usize = size_of::<RawExtent>();

/// Each seal has a page of its own, so that one damaged page takes one seal at most.
const PAGE: u64 = 4096;
const LONGEST_NODE: usize = 512;
/// `PATH_MAX`.
const LONGEST_PATH: usize = 4096;
/// Ends in the version of the layout.
const SIGNATURE: [u8; 8] = *b"ce-redo1";
const EXTENT_SIGNATURE: [u8; 4] = *b"extn";
const SEAL_SIGNATURE: [u8; 8] = *b"ce-seal1";
const SEALED: u32 = 1;
const DONE: u32 = 2;
