//! Images of tables, laid out by hand and independently of the reader.

use uuid::{Uuid, uuid};

use super::super::PartitionType;
use crate::block::{BlockRead, MemoryDisk};
use crate::units::{ByteCount, ByteOffset, SectorSize, SectorSizes};

pub const DISK_GUID: Uuid = uuid!("00112233-4455-6677-8899-aabbccddeeff");

pub struct GptEntry {
    pub kind: PartitionType,
    pub first: u64,
    pub last: u64,
    pub attributes: u64,
    pub name: Vec<u16>,
}

pub fn entry(kind: PartitionType, first: u64, last: u64, name: &str) -> GptEntry {
    GptEntry {
        kind,
        first,
        last,
        attributes: 0,
        name: name.encode_utf16().collect(),
    }
}

/// A GPT disk of `sectors` sectors. The fields are what the primary header will say.
pub struct GptImage {
    pub sector: usize,
    pub sectors: u64,
    pub entry_count: u32,
    pub entry_size: u32,
    pub backup_lba: u64,
    pub first_usable: u64,
    pub last_usable: u64,
    entries: Vec<GptEntry>,
}

impl GptImage {
    pub fn new(sector: SectorSize, sectors: u64) -> Self {
        let array = 16_384_u64.div_ceil(sector.bytes());
        Self {
            sector: sector.bytes() as usize,
            sectors,
            entry_count: 128,
            entry_size: 128,
            backup_lba: sectors - 1,
            first_usable: 2 + array,
            last_usable: sectors - 2 - array,
            entries: Vec::new(),
        }
    }

    pub fn with(mut self, entry: GptEntry) -> Self {
        self.entries.push(entry);
        self
    }

    fn array(&self) -> Vec<u8> {
        let mut array = vec![0; 16_384];
        for (index, entry) in self.entries.iter().enumerate() {
            let PartitionType::Gpt(kind) = entry.kind else {
                panic!("an MBR type in a GPT");
            };
            let at = index * self.entry_size as usize;
            array[at..at + 16].copy_from_slice(&kind.to_bytes_le());
            array[at + 16..at + 32].copy_from_slice(&[index as u8 + 1; 16]);
            array[at + 32..at + 40].copy_from_slice(&entry.first.to_le_bytes());
            array[at + 40..at + 48].copy_from_slice(&entry.last.to_le_bytes());
            array[at + 48..at + 56].copy_from_slice(&entry.attributes.to_le_bytes());
            for (unit, at) in entry.name.iter().zip((at + 56..).step_by(2)) {
                array[at..at + 2].copy_from_slice(&unit.to_le_bytes());
            }
        }
        array
    }

    fn header(&self, own: u64, other: u64, entries_lba: u64) -> [u8; 92] {
        let mut header = [0; 92];
        header[..8].copy_from_slice(b"EFI PART");
        header[8..12].copy_from_slice(&0x0001_0000_u32.to_le_bytes());
        header[12..16].copy_from_slice(&92_u32.to_le_bytes());
        header[24..32].copy_from_slice(&own.to_le_bytes());
        header[32..40].copy_from_slice(&other.to_le_bytes());
        header[40..48].copy_from_slice(&self.first_usable.to_le_bytes());
        header[48..56].copy_from_slice(&self.last_usable.to_le_bytes());
        header[56..72].copy_from_slice(&DISK_GUID.to_bytes_le());
        header[72..80].copy_from_slice(&entries_lba.to_le_bytes());
        header[80..84].copy_from_slice(&self.entry_count.to_le_bytes());
        header[84..88].copy_from_slice(&self.entry_size.to_le_bytes());
        let covered = self.entry_count as usize * self.entry_size as usize;
        let array = self.array();
        let checksum = crc32fast::hash(&array[..covered.min(array.len())]);
        header[88..92].copy_from_slice(&checksum.to_le_bytes());
        seal(&mut header);
        header
    }

    /// The whole disk.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.sectors as usize * self.sector];
        protect(&mut bytes, self.sectors as u32 - 1);
        let mut put = |lba: u64, what: &[u8]| {
            let at = lba as usize * self.sector;
            bytes[at..at + what.len()].copy_from_slice(what);
        };
        put(1, &self.header(1, self.backup_lba, 2));
        put(2, &self.array());
        if self.backup_lba < self.sectors && self.backup_lba > 1 {
            let array_lba = self.backup_lba - 16_384_u64.div_ceil(self.sector as u64);
            put(array_lba, &self.array());
            put(self.backup_lba, &self.header(self.backup_lba, 1, array_lba));
        }
        bytes
    }
}

/// Writes the checksum of a header of 92 bytes into it.
pub fn seal(header: &mut [u8]) {
    header[16..20].fill(0);
    let checksum = crc32fast::hash(&header[..92]);
    header[16..20].copy_from_slice(&checksum.to_le_bytes());
}

/// Puts a protective MBR in front.
fn protect(bytes: &mut [u8], sectors: u32) {
    mbr_entry(bytes, 0, 0, 0xEE, 1, sectors);
}

/// Fills one of the four entries of the boot record at the start of `bytes`, and marks it as one.
pub fn mbr_entry(bytes: &mut [u8], index: usize, flags: u8, kind: u8, start: u32, sectors: u32) {
    let entry = &mut bytes[446 + 16 * index..][..16];
    entry[0] = flags;
    entry[4] = kind;
    entry[8..12].copy_from_slice(&start.to_le_bytes());
    entry[12..16].copy_from_slice(&sectors.to_le_bytes());
    bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
}

/// A disk that holds `bytes`, with holes where a whole page of them is zero.
pub fn disk_of(bytes: &[u8], sector: SectorSize) -> MemoryDisk {
    let sectors = SectorSizes {
        logical: sector,
        physical: sector,
    };
    let mut disk = MemoryDisk::new(ByteCount(bytes.len() as u64), sectors);
    for (page, bytes) in (0..).zip(bytes.chunks(4096)) {
        if bytes.iter().any(|byte| *byte != 0) {
            disk.write(ByteOffset(page * 4096), bytes);
        }
    }
    assert_eq!(disk.size().0, bytes.len() as u64);
    disk
}
