//! The structures of a hive as they lie in the file, and their constants.
//!
//! Little-endian throughout. Section names are those of the specification named in the crate's
//! documentation.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// "Base block": the part of it that carries meaning and that a log file repeats.
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct BaseBlock {
    pub(crate) signature: [u8; 4],
    pub(crate) primary_sequence: U32,
    pub(crate) secondary_sequence: U32,
    pub(crate) last_written: U64,
    pub(crate) major: U32,
    pub(crate) minor: U32,
    pub(crate) file_type: U32,
    pub(crate) file_format: U32,
    pub(crate) root_cell: U32,
    pub(crate) bins_len: U32,
    pub(crate) clustering_factor: U32,
    pub(crate) file_name: [u8; 64],
    pub(crate) resource_manager_id: [u8; 16],
    pub(crate) log_id: [u8; 16],
    pub(crate) flags: U32,
    pub(crate) transaction_manager_id: [u8; 16],
    pub(crate) guid_signature: [u8; 4],
    pub(crate) last_reorganized: U64,
    pub(crate) reserved: [u8; 332],
    pub(crate) checksum: U32,
}

impl BaseBlock {
    /// The checksum these bytes should carry: XOR of the 127 words before it, never 0 or -1.
    pub(crate) fn expected_checksum(&self) -> u32 {
        let xor = self
            .as_bytes()
            .chunks_exact(4)
            .take(CHECKSUMMED_WORDS)
            .filter_map(|word| <[u8; 4]>::try_from(word).ok())
            .fold(0, |sum, word| sum ^ u32::from_le_bytes(word));
        match xor {
            0 => 1,
            u32::MAX => u32::MAX - 1,
            sum => sum,
        }
    }

    pub(crate) fn checksum_is_right(&self) -> bool {
        self.checksum.get() == self.expected_checksum()
    }
}

/// "Hive bin": the header.
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct BinHeader {
    pub(crate) signature: [u8; 4],
    pub(crate) offset: U32,
    pub(crate) size: U32,
    pub(crate) reserved: [u8; 8],
    pub(crate) timestamp: U64,
    pub(crate) spare: U32,
}

/// "Key node", without the name behind it.
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct KeyNode {
    pub(crate) signature: [u8; 2],
    pub(crate) flags: U16,
    pub(crate) last_written: U64,
    pub(crate) access_bits: u8,
    /// "Layered keys": nonzero only in differencing hives.
    pub(crate) layer: u8,
    pub(crate) spare: U16,
    pub(crate) parent: U32,
    pub(crate) subkey_count: U32,
    pub(crate) volatile_subkey_count: U32,
    pub(crate) subkeys: U32,
    pub(crate) volatile_subkeys: U32,
    pub(crate) value_count: U32,
    pub(crate) values: U32,
    pub(crate) security: U32,
    pub(crate) class: U32,
    pub(crate) max_subkey_name: U16,
    /// Virtualization control flags in the low half, user flags in the high.
    pub(crate) virtualization: u8,
    pub(crate) debug: u8,
    pub(crate) max_subkey_class: U32,
    pub(crate) max_value_name: U32,
    pub(crate) max_value_data: U32,
    pub(crate) work_var: U32,
    pub(crate) name_len: U16,
    pub(crate) class_len: U16,
}

/// "Key value", without the name behind it.
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct KeyValue {
    pub(crate) signature: [u8; 2],
    pub(crate) name_len: U16,
    /// The top bit says that the data is in `data` itself.
    pub(crate) data_len: U32,
    pub(crate) data: U32,
    pub(crate) value_type: U32,
    pub(crate) flags: U16,
    pub(crate) spare: U16,
}

/// "Key security", without the descriptor behind it.
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct KeySecurity {
    pub(crate) signature: [u8; 2],
    pub(crate) reserved: U16,
    pub(crate) next: U32,
    pub(crate) previous: U32,
    pub(crate) reference_count: U32,
    pub(crate) descriptor_len: U32,
}

/// The head of every subkey list ("Index leaf", "Fast leaf", "Hash leaf", "Index root").
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct ListHeader {
    pub(crate) signature: [u8; 2],
    pub(crate) count: U16,
}

/// An element of a fast or hash leaf.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct HintedElement {
    pub(crate) key: U32,
    /// First four characters (`lf`) or hash (`lh`) of the name.
    pub(crate) hint: [u8; 4],
}

/// "Big data".
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct BigData {
    pub(crate) signature: [u8; 2],
    pub(crate) segment_count: U16,
    pub(crate) segments: U32,
}

/// "Log entries": the head of one (HvLE).
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct LogEntryHeader {
    pub(crate) signature: [u8; 4],
    pub(crate) size: U32,
    pub(crate) flags: U32,
    pub(crate) sequence: U32,
    pub(crate) bins_len: U32,
    pub(crate) page_count: U32,
    pub(crate) hash_1: U64,
    pub(crate) hash_2: U64,
}

/// A dirty page reference of a log entry.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct PageReference {
    pub(crate) offset: U32,
    pub(crate) size: U32,
}

pub(crate) const BASE_BLOCK_SIGNATURE: [u8; 4] = *b"regf";
pub(crate) const BIN_SIGNATURE: [u8; 4] = *b"hbin";
pub(crate) const KEY_SIGNATURE: [u8; 2] = *b"nk";
pub(crate) const VALUE_SIGNATURE: [u8; 2] = *b"vk";
pub(crate) const SECURITY_SIGNATURE: [u8; 2] = *b"sk";
pub(crate) const BIG_DATA_SIGNATURE: [u8; 2] = *b"db";

/// Length of the base block in a primary file; the bins begin behind it.
pub(crate) const BASE_BLOCK_LEN: usize = 4096;
pub(crate) const BIN_HEADER_LEN: u32 = 32;
/// Bins are multiples of this.
pub(crate) const BIN_ALIGNMENT: u32 = 4096;
/// A cell's size field.
pub(crate) const CELL_HEADER_LEN: u32 = 4;
pub(crate) const KEY_NODE_LEN: usize = 76;
pub(crate) const KEY_VALUE_LEN: usize = 20;
pub(crate) const LIST_HEADER_LEN: usize = 4;
pub(crate) const SECURITY_LEN: usize = 20;

/// Offsets have their top bit for volatile storage, so the bins end before 2 GiB.
pub(crate) const MAX_BINS_LEN: u32 = 0x7FFF_F000;

pub(crate) const FILE_TYPE_PRIMARY: u32 = 0;
pub(crate) const FILE_TYPE_LOG: u32 = 1;
/// Logs of Windows 2000 and older.
pub(crate) const FILE_TYPE_LOG_2000: u32 = 2;
pub(crate) const FILE_TYPE_LOG_ENTRIES: u32 = 6;
pub(crate) const FILE_FORMAT_DIRECT: u32 = 1;

/// Base block flag: transactions are pending or expected. Every running system's SYSTEM has it.
pub(crate) const BASE_FLAG_LOCKED: u32 = 1;

pub(crate) const KEY_HIVE_ENTRY: u16 = 0x0004;
pub(crate) const KEY_NO_DELETE: u16 = 0x0008;
pub(crate) const KEY_COMP_NAME: u16 = 0x0020;
pub(crate) const KEY_PREDEFINED_HANDLE: u16 = 0x0040;
/// Virtualization control flag: new subkeys take over these flags.
pub(crate) const VIRTUALIZATION_RECURSE: u8 = 0x08;
pub(crate) const VIRTUALIZATION_MASK: u8 = 0x0F;

pub(crate) const VALUE_COMP_NAME: u16 = 0x0001;
pub(crate) const VALUE_TOMBSTONE: u16 = 0x0002;
/// Top bit of a value's data length: the data is in the value itself.
pub(crate) const DATA_RESIDENT: u32 = 0x8000_0000;
pub(crate) const MAX_RESIDENT_LEN: usize = 4;

/// Longest data of a segment of big data, and of a cell in hives that have big data.
pub(crate) const SEGMENT_LEN: usize = 16344;

/// Keys below keys, counted from the root; Windows refuses deeper ones.
pub(crate) const MAX_DEPTH: usize = 512;

/// Length of what a log file repeats of the base block, and of a log's sectors.
pub(crate) const SECTOR: usize = 512;

const CHECKSUMMED_WORDS: usize = 127;

const _: () = assert!(size_of::<BaseBlock>() == SECTOR);
const _: () = assert!(size_of::<BinHeader>() == 32);
const _: () = assert!(size_of::<KeyNode>() == KEY_NODE_LEN);
const _: () = assert!(size_of::<KeyValue>() == KEY_VALUE_LEN);
const _: () = assert!(size_of::<KeySecurity>() == SECURITY_LEN);
const _: () = assert!(size_of::<ListHeader>() == LIST_HEADER_LEN);
const _: () = assert!(size_of::<HintedElement>() == 8);
const _: () = assert!(size_of::<BigData>() == 8);
const _: () = assert!(size_of::<LogEntryHeader>() == 40);
const _: () = assert!(size_of::<PageReference>() == 8);
